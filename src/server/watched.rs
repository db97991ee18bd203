//! Files that are taken over when they are replaced, without a restart: the certificate, the keys, the configuration that names these.
//!
//! Whoever follows looks at them every few seconds, and at once when the operator asks for it.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

/// How often the files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);

/// Modification time and length of each file; `None` for one that cannot be looked at.
type Fingerprint = Vec<Option<(SystemTime, u64)>>;

/// Some files, as they were when they were last taken over.
#[derive(Debug)]
pub struct Watched {
    paths: Vec<PathBuf>,
    taken: Fingerprint,
    found: Fingerprint,
}

impl Watched {
    /// The files as they are now. Call it before they are read: what changes meanwhile is then seen.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        let taken = fingerprint(&paths);
        Self {
            paths,
            found: taken.clone(),
            taken,
        }
    }

    /// These files, too, as they are now.
    pub fn and(mut self, paths: Vec<PathBuf>) -> Self {
        let found = fingerprint(&paths);
        self.taken.extend(found.iter().copied());
        self.found.extend(found);
        self.paths.extend(paths);
        self
    }

    /// Waits until the files have changed, or somebody asks for them to be read.
    pub async fn changed(&mut self, asked: &mut watch::Receiver<u64>) {
        loop {
            let was_asked = tokio::select! {
                asked = asked.changed() => match asked {
                    Ok(()) => true,
                    // The server has ended.
                    Err(_) => std::future::pending().await,
                },
                () = tokio::time::sleep(RELOAD_INTERVAL) => false,
            };
            self.found = fingerprint(&self.paths);
            if was_asked || self.found != self.taken {
                return;
            }
        }
    }

    /// The files are in use as they were found. Without it they are found changed again: one may be half written.
    pub fn taken(&mut self) {
        self.taken.clone_from(&self.found);
    }
}

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let look = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    paths.iter().map(look).collect()
}
