//! `syncline salvage`: what can be read of a damaged store, as a new store and as one Automerge file per document.

use super::{Failure, find_store, print};
use anyhow::{Context, anyhow, bail};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};
use syncline::{
    engine::document::Document,
    server::store::{
        StoreError,
        salvage::{self, Salvaged},
    },
};
use syncline_protocol::DocumentId;

/// The new data directory, within the output directory.
const STORE: &str = "store";

/// Make a new store of what can be read of a damaged one
///
/// The new store is `store` in the output directory: `syncline serve --data OUT/store` refuses the documents that are damaged,
/// or may be, and serves the others. Besides, each document becomes one Automerge file: its snapshot, and the log after it as
/// far as it is whole. `team/notes` goes to `team+notes.automerge`. A line per document says `ok` or what is missing.
///
/// Nothing is written to the data directory. The output takes about twice the space of the documents. The server must not be
/// running on the store. Exits with 1 if anything is missing.
#[derive(Debug, clap::Args)]
pub(super) struct Salvage {
    /// The directory of the damaged store
    #[arg(long, value_name = "DIR", env = "SYNCLINE_DATA", hide_env_values = true)]
    data: PathBuf,
    /// Where to write the new store and the files: a directory that is empty or not there yet, outside the store
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Salvage {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (data, out) = (self.data.display(), self.out.display());
        self.check_directories()?;
        let store = self.out.join(STORE);
        fs::create_dir_all(&store).with_context(|| format!("cannot write to {out}"))?;
        let salvaged = salvage::salvage(&self.data, &store, &mut |salvaged| self.keep(&salvaged));
        let report = salvaged.with_context(|| format!("cannot salvage {data}"))?;
        let (documents, not_whole) = (report.documents, report.not_whole);
        print(&format!(
            "{documents} documents, {} of them whole",
            documents - not_whole
        ))
        .context("cannot write to standard output")?;
        if report.is_whole() {
            return Ok(());
        }
        let mut why = match documents {
            0 => "no document can be read".to_owned(),
            _ => format!("{not_whole} of {documents} documents lack something"),
        };
        let missing = &report.missing;
        if missing.batches > 0 {
            why += &format!(
                "; the store's log ends early, {} batches before its end, and documents begun in them are missing",
                missing.batches
            );
        }
        if missing.unplaced > 0 {
            why += &format!(
                "; {} damaged pieces of the log may be of any document",
                missing.unplaced
            );
        }
        if let Some(unlisted) = report.unlisted {
            why += &format!("; others may be missing altogether ({unlisted})");
        }
        let store = self.out.join(STORE);
        Err(Failure::Error(anyhow!(
            "{why}: look for the rest in a backup, or serve what there is: `syncline serve --data {}`",
            store.display()
        )))
    }

    /// Neither may the store be changed, nor the outcome of another salvage.
    fn check_directories(&self) -> anyhow::Result<()> {
        let (data, out) = (self.data.display(), self.out.display());
        find_store(&self.data)?;
        let is_empty = match fs::read_dir(&self.out) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => bail!("cannot read {out}: {error}"),
        };
        if !is_empty {
            bail!("{out} is not empty: choose a new directory for the documents");
        }
        let data = self
            .data
            .canonicalize()
            .with_context(|| format!("cannot read {data}"))?;
        let absolute = std::path::absolute(&self.out).with_context(|| format!("cannot find {out}"))?;
        let there = absolute.ancestors().find_map(|ancestor| ancestor.canonicalize().ok());
        if there.is_some_and(|there| there.starts_with(&data)) {
            bail!("{out} lies in the data directory, which stays as it is: choose another one");
        }
        Ok(())
    }

    /// Writes one document, and says so when it reads back.
    fn keep(&self, salvaged: &Salvaged) -> Result<(), StoreError> {
        let document = &salvaged.document;
        let mut line = if salvaged.losses.is_empty() {
            format!("{document}: ok")
        } else {
            let losses: Vec<String> = salvaged.losses.iter().map(ToString::to_string).collect();
            format!("{document}: {}", losses.join("; "))
        };
        if let Some(saved) = &salvaged.saved {
            let name = file_name(document);
            write(&self.out.join(&name), saved).map_err(|error| StoreError::Io(format!("{name}: {error:#}")))?;
            line += &format!("; {name}");
        }
        print(&line).map_err(|error| StoreError::Io(format!("standard output: {error}")))
    }
}

/// An id is of `A-Z a-z 0-9 . _ - /`, never begins with a slash, and is short enough for a name.
fn file_name(document: &DocumentId) -> String {
    let hidden = if document.as_str().starts_with('.') { "+" } else { "" };
    format!("{hidden}{}.automerge", document.as_str().replace('/', "+"))
}

fn write(path: &Path, saved: &[u8]) -> anyhow::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(saved)?;
    file.sync_all()?;
    let read = fs::read(path)?;
    if read != saved {
        bail!("reads back other than it was written: check the disk");
    }
    Document::load(&read)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_safe_and_tell_documents_apart() {
        let check = |id: &str, name: &str| assert_eq!(file_name(&id.parse().unwrap()), name);
        check("notes", "notes.automerge");
        check("team/a.b", "team+a.b.automerge");
        check(".hidden", "+.hidden.automerge");
        check("a/./b", "a+.+b.automerge");
        assert!(file_name(&"a".repeat(128).parse().unwrap()).len() < 255);
    }
}
