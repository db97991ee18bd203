//! `syncline backup`: a copy of the store, of a running server, too.

use super::{Failure, find_store, print};
use anyhow::{Context, anyhow, bail};
use std::{
    fs,
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
};
use syncline::server::{
    control::{self, Answer},
    store::{
        Store,
        sled::{SledKv, SledOptions},
    },
};

/// Copy the store into a new directory, while the server runs or not
///
/// Every edit that was acknowledged before is in it. To put it back, stop the server and move the copy to the place of the data
/// directory: clients then bring along what they know and the copy does not. A running server does the copying itself, so OUT
/// is a directory on its machine, which it may write. Exits with 1 if a document is damaged, and names it.
#[derive(Debug, clap::Args)]
pub(super) struct Backup {
    /// The directory of the stored documents
    #[arg(long, value_name = "DIR", env = "SYNCLINE_DATA", hide_env_values = true)]
    data: PathBuf,
    /// Where to copy them: a directory that is empty or not there yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

impl Backup {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (data, out) = (self.data.display(), self.out.display());
        find_store(&self.data)?;
        let is_free = match fs::read_dir(&self.out) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) => error.kind() == ErrorKind::NotFound,
        };
        if !is_free {
            Err(anyhow!("{out} is not empty: choose a new directory for the copy"))?;
        }
        let answer = match self.ask() {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => self.copy()?,
            answer => answer.with_context(|| format!("the server on {data} does not answer"))?,
        };
        match answer {
            Answer::Failed(why) => Err(anyhow!("no backup was made: {why}"))?,
            Answer::Done { documents, damaged } => {
                for document in &damaged {
                    print(&format!("DAMAGED: {document}"))?;
                }
                print(&format!("{documents} documents in {out}"))?;
                if !damaged.is_empty() {
                    let count = damaged.len();
                    Err(anyhow!(
                        "{count} documents are damaged, and are so in the copy: see `syncline check --help`"
                    ))?;
                }
            }
        }
        Ok(())
    }

    /// Has the running server copy.
    fn ask(&self) -> io::Result<Answer> {
        let out = std::path::absolute(&self.out)?;
        let mut stream = UnixStream::connect(self.data.join(control::FILE))?;
        writeln!(stream, "{}{}", control::BACKUP, out.display())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        serde_json::from_slice(&answer).map_err(|_| io::Error::other("it ended amid the backup"))
    }

    /// Copies, while no server runs.
    fn copy(&self) -> anyhow::Result<Answer> {
        let opened = SledKv::open(&self.data, SledOptions::default()).and_then(|kv| Store::open(Arc::new(kv)));
        match opened {
            Ok(store) => Ok(control::back_up(&store, &self.out, &|| true)),
            Err(error) => bail!("cannot open {}: {error}", self.data.display()),
        }
    }
}
