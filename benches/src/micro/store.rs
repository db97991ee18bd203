//! Durable appends on this disk, by how many share a sync.

use crate::edits::{Base, Edits, Sight};
use anyhow::{Context, anyhow};
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use std::{
    path::Path,
    sync::{Arc, mpsc::sync_channel},
};
use syncline::server::store::{
    LogEntry, LogRecord, Store, layout,
    sled::{SledKv, SledOptions},
    writer::{Work, Writer},
};
use syncline_protocol::{DocumentId, Epoch, Position};

const GROUPS: [usize; 4] = [1, 10, 100, 1_000];

pub(super) fn run(criterion: &mut Criterion, directory: &Path) -> anyhow::Result<()> {
    let data = tempfile::tempdir_in(directory)?;
    let kv = Arc::new(SledKv::open(data.path(), SledOptions::default())?);
    Store::open(kv.clone())?;
    let writer = Writer::start(kv)?;
    let edits = Edits::prepare(&Base::empty_text()?, 1, 1, Sight::Apart);
    let change = edits.edit(0, 0).context("no edit")?;
    let mut position = 0;
    let mut group = criterion.benchmark_group("store");
    for appends in GROUPS {
        group.throughput(Throughput::Elements(appends as u64));
        group.bench_function(format!("group of {appends} appends"), |bencher| {
            bencher.iter(|| {
                append(&writer, appends, position, change).expect("the disk takes what is appended");
                position += 1;
            });
        });
    }
    group.finish();
    Ok(())
}

/// One record to each of so many documents; they share a sync, or few.
fn append(writer: &Writer, documents: usize, position: u64, change: &Bytes) -> anyhow::Result<()> {
    let (tell, told) = sync_channel(documents);
    for document in 0..documents {
        let document: DocumentId = format!("room-{document}").parse()?;
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
    for _ in 0..documents {
        told.recv()??;
    }
    Ok(())
}
