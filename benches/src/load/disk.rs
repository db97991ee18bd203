//! What a synced append costs on this disk, made as anybody would: through the system's cache, in a process of its own on the server's
//! core. Where a disk answers on one core alone, it answers the others later.

use super::process::Programs;
use crate::{
    clock::{ms_since, now},
    report::{Sample, percentile},
};
use anyhow::{Context, ensure};
use std::{
    fs::File,
    io::{Seek, Write},
    path::{Path, PathBuf},
    time::Duration,
};

const APPENDS: usize = 200;
/// About the record of one keystroke.
const APPEND_BYTES: usize = 300;

/// What is run as a process of its own.
#[derive(Debug, clap::Args)]
pub(crate) struct Appends {
    /// The file is made here, and removed afterwards
    #[arg(long)]
    directory: PathBuf,
    /// Microseconds of rest before each append
    #[arg(long)]
    pace_us: u64,
}

/// Has a process do it. The pace is the load's: after a rest of 20 ms disk and core take several times as long as in the middle of work.
pub(crate) fn synced_appends(programs: &Programs, directory: &Path, pace: Duration) -> anyhow::Result<Sample> {
    let mut command = programs.pinned(&programs.bench);
    command.args(["appends", "--pace-us", &pace.as_micros().to_string(), "--directory"]);
    let done = command.arg(directory).output().context("cannot measure the disk")?;
    ensure!(
        done.status.success(),
        "the disk could not be measured: {}",
        String::from_utf8_lossy(&done.stderr)
    );
    let mut took_ms: Vec<f64> = serde_json::from_slice(&done.stdout)?;
    Ok(vec![
        ("synced_append_p50_ms", percentile(&mut took_ms, 50.0)),
        ("synced_append_p99_ms", percentile(&mut took_ms, 99.0)),
    ])
}

impl Appends {
    /// Writes and syncs to a file that has its size already, and prints how many milliseconds each append took.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let path = self.directory.join("appends");
        let mut file = File::create(&path)?;
        // A file that grows costs the file system a second write; a log's file has grown before.
        file.write_all(&[0; APPENDS * APPEND_BYTES])?;
        file.sync_all()?;
        file.rewind()?;
        let mut took_ms = Vec::with_capacity(APPENDS);
        for _ in 0..APPENDS {
            std::thread::sleep(Duration::from_micros(self.pace_us));
            let start = now();
            file.write_all(&[b'x'; APPEND_BYTES])?;
            file.sync_data()?;
            took_ms.push(ms_since(start));
        }
        std::fs::remove_file(path)?;
        Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(&took_ms)?)?)
    }
}
