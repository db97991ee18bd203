//! Durable appends on this disk, by how many share a sync.

use crate::{
    clock::{ms_since, now},
    edits::{Base, Edits, Sight},
    report::Sample,
};
use anyhow::{Context, anyhow};
use std::{path::Path, sync::Arc};
use syncline::server::store::{
    LogEntry, LogRecord, Store, layout,
    sled::{SledKv, SledOptions},
    writer::{Work, Writer},
};
use syncline_protocol::{DocumentId, Epoch, Position};

const GROUPS: [(usize, &str); 4] = [
    (1, "group_of_1_appends_per_s"),
    (10, "group_of_10_appends_per_s"),
    (100, "group_of_100_appends_per_s"),
    (1_000, "group_of_1000_appends_per_s"),
];
/// Groups in one timing.
const ROUNDS: usize = 100;

pub(super) fn run(directory: &Path) -> anyhow::Result<Sample> {
    let data = tempfile::tempdir_in(directory)?;
    let kv = Arc::new(SledKv::open(data.path(), SledOptions::default())?);
    Store::open(kv.clone())?;
    let writer = Writer::start(kv)?;
    let edits = Edits::prepare(&Base::empty_text()?, 1, 1, Sight::Apart);
    let change = edits.edit(0, 0).context("no edit")?;
    let mut position = 0;
    let mut sample = Sample::new();
    for (group, name) in GROUPS {
        let start = now();
        for _ in 0..ROUNDS {
            let (tell, told) = std::sync::mpsc::sync_channel(group);
            for room in 0..group {
                let document: DocumentId = format!("room-{room}").parse()?;
                let record = LogRecord {
                    position: Position::new(position),
                    bytes_before: 0,
                    entries: vec![LogEntry {
                        subject: "bench".to_owned(),
                        change: change.clone(),
                    }],
                };
                let tell = tell.clone();
                let work = Work {
                    batch: layout::append(&document, Epoch::new(1), &record, false),
                    done: Box::new(move |result| {
                        // The receiver waits below for each of them.
                        let _ = tell.send(result);
                    }),
                };
                writer
                    .try_submit(work)
                    .map_err(|refused| anyhow!("the writer is {refused:?}"))?;
            }
            position += 1;
            for _ in 0..group {
                told.recv()??;
            }
        }
        sample.push((name, (ROUNDS * group) as f64 / (ms_since(start) / 1_000.0)));
    }
    Ok(sample)
}
