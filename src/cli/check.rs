//! `syncline check`: every record of a store, and what is damaged.

use super::{Failure, find_store, print};
use anyhow::{Context, anyhow};
use std::path::PathBuf;
use syncline::server::{room::storage, store::check};

/// Verify every record of a store and say what is damaged
///
/// Prints a line per finding and a summary. Exits with 1 if anything is lost. The server must not be running on the store.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The directory of the stored documents
    #[arg(long, value_name = "DIR", env = "SYNCLINE_DATA", hide_env_values = true)]
    data: PathBuf,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        find_store(&self.data)?;
        let mut verify = |_: &_, stored: &_, snapshot: &_| storage::verify(stored, snapshot);
        let report =
            check::check(&self.data, &mut verify).with_context(|| format!("cannot check {}", self.data.display()))?;
        for finding in &report.findings {
            let place = finding
                .document
                .as_ref()
                .map_or("the store", |document| document.as_str());
            let weight = if finding.harmless { "harmless" } else { "DAMAGED" };
            print(&format!("{weight}: {place}: {}", finding.what)).context("cannot write to standard output")?;
        }
        if report.findings_more > 0 {
            print(&format!("and {} more", report.findings_more)).context("cannot write to standard output")?;
        }
        let (documents, records, bytes) = (report.documents, report.records, report.bytes);
        print(&format!(
            "{documents} documents, {records} records, {bytes} bytes checked"
        ))
        .context("cannot write to standard output")?;
        if report.is_sound() {
            return Ok(());
        }
        let damaged = report.findings.iter().filter(|finding| !finding.harmless).count();
        Err(Failure::Error(anyhow!(
            "{damaged} findings of damage in {}; the other documents are sound; restore a backup, or write out what can be read with \
             `syncline salvage`",
            self.data.display()
        )))
    }
}
