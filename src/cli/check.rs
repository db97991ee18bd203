//! `syncline check`: every record of a store, and what is damaged.

use super::Failure;
use anyhow::anyhow;
use std::path::{Path, PathBuf};

/// Verify every record of a store and say what is damaged
///
/// The server must not be running on it.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The directory of the stored documents
    #[arg(long, value_name = "DIR", env = "SYNCLINE_DATA", hide_env_values = true)]
    data: PathBuf,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        check(&self.data)
    }
}

fn check(_data: &Path) -> Result<(), Failure> {
    Err(anyhow!("check is not built yet").into())
}
