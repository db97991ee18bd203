//! What a synced append costs on this disk, made as anybody would: through the system's cache.

use crate::{
    clock::{ms_since, now},
    report::{Sample, percentile},
};
use std::{
    fs::File,
    io::{Seek, Write},
    path::Path,
    time::Duration,
};

const APPENDS: usize = 200;
/// About the record of one keystroke.
const APPEND_BYTES: usize = 300;

/// Writes and syncs, one append every `pace`, to a file in `directory` that has its size already. The pace is the load's: after a
/// rest of 20 ms disk and core take several times as long as in the middle of work.
pub(crate) fn synced_appends(directory: &Path, pace: Duration) -> anyhow::Result<Sample> {
    let path = directory.join("appends");
    let mut file = File::create(&path)?;
    // A file that grows costs the file system a second write; a log's file has grown before.
    file.write_all(&[0; APPENDS * APPEND_BYTES])?;
    file.sync_all()?;
    file.rewind()?;
    let mut took_ms = Vec::with_capacity(APPENDS);
    for _ in 0..APPENDS {
        std::thread::sleep(pace);
        let start = now();
        file.write_all(&[b'x'; APPEND_BYTES])?;
        file.sync_data()?;
        took_ms.push(ms_since(start));
    }
    std::fs::remove_file(path)?;
    Ok(vec![
        ("synced_append_p50_ms", percentile(&mut took_ms, 50.0)),
        ("synced_append_p99_ms", percentile(&mut took_ms, 99.0)),
    ])
}
