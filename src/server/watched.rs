//! Files that are taken over when they are replaced, without a restart: the certificate, the keys, the configuration that names these.
//!
//! Whoever follows looks at them every few seconds, and takes them over when two looks in a row see the same change: a file may be half
//! written at the first. When the operator asks for it they are taken over at once.

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

    /// Waits until the files have changed and stay so, or somebody asks for them to be read.
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
            let has_settled = self.look();
            if was_asked || has_settled {
                return;
            }
        }
    }

    /// Whether the files have changed, and not since the last look.
    fn look(&mut self) -> bool {
        let found = fingerprint(&self.paths);
        let has_settled = found == self.found;
        self.found = found;
        has_settled && self.found != self.taken
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_still_being_written_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        let write = |text: &str| std::fs::write(&path, text).expect("written");
        write("old");
        let mut watched = Watched::new(vec![path.clone()]);
        assert!(!watched.look(), "nothing has changed");
        write("half");
        assert!(!watched.look(), "it may be half of it");
        write("the whole of it");
        assert!(!watched.look(), "it was half of it");
        assert!(watched.look());
        assert!(watched.look(), "until it is taken over");
        watched.taken();
        assert!(!watched.look());
    }
}
