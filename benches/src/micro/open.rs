//! What a long document costs before Automerge has loaded anything: to be opened, and to be read by who missed the last edits.

use super::FEW_SAMPLES;
use crate::{
    clock::now,
    edits::{Edits, Sight},
    history::History,
    report::Sample,
};
use anyhow::{Context, anyhow, bail, ensure};
use bytes::Bytes;
use criterion::{Bencher, Criterion, SamplingMode};
use std::{hint::black_box, path::Path, sync::Arc, time::Duration};
use syncline::{
    engine::{
        document::{Document, Merge},
        index::Index,
        room::Source,
    },
    server::{
        room::storage::Storage,
        store::{
            LogEntry, LogKept, LogRecord, Store, layout,
            sled::{SledKv, SledOptions},
            writer::Writer,
        },
    },
};
use syncline_protocol::{DocumentId, Epoch, Limits, Position};

/// Edits behind the snapshot, each a record of its own.
const BEHIND: usize = 1_000;
/// Changes in one record of what is compacted.
const RECORD: usize = 5_000;

/// A stored document of a snapshot and edits behind it.
pub(super) struct Stored {
    data: tempfile::TempDir,
    document: DocumentId,
    about: &'static str,
}

impl Stored {
    pub(super) fn new(directory: &Path) -> anyhow::Result<Self> {
        let history = History::paper(None)?;
        let edits = Edits::prepare(&history.base, 1, BEHIND, Sight::Apart);
        let stored = Self {
            data: tempfile::tempdir_in(directory)?,
            document: "paper".parse()?,
            about: history.name(),
        };
        let kv = Arc::new(SledKv::open(stored.data.path(), SledOptions::default())?);
        let store = Store::open(kv.clone())?;
        let writer = Writer::start(kv)?;
        let mut end = End::default();
        for changes in history.base.changes.chunks(RECORD) {
            writer.write(end.record(&stored.document, changes))?;
        }
        let Merge::Whole(merged) = Document::default().merge(&history.base.changes) else {
            bail!("the history does not merge");
        };
        let (position, kept) = (Position::new(end.changes), LogKept::default());
        stored
            .storage(store)
            .compact(&merged, position, 1, kept, &|batch| writer.write(batch))?;
        for place in 0..BEHIND {
            let change = edits.edit(0, place).cloned().context("too few edits")?;
            writer.write(end.record(&stored.document, &[change]))?;
        }
        writer.close();
        Ok(stored)
    }

    pub(super) fn about(&self) -> &'static str {
        self.about
    }

    /// Each on a store that has just been opened, so that nothing is at hand yet.
    pub(super) fn run(&self, criterion: &mut Criterion) -> anyhow::Result<Sample> {
        let stored = self.store()?.load(&self.document)?.context("the document is lost")?;
        let loaded = self.storage(self.store()?).open(Epoch::new(1));
        let loaded = loaded.map_err(|failure| anyhow!("the document does not open: {failure:?}"))?;
        let end = loaded.index.position();
        let from = Source::log(Position::new(end.number() - BEHIND as u64));
        let slice = self.storage(self.store()?).read(&[], from, end, true, None);
        let slice = slice.map_err(|failure| anyhow!("the log cannot be read: {failure:?}"))?;
        ensure!(slice.next == Source::log(end), "the edits do not fit into one part");

        let mut group = criterion.benchmark_group("open");
        group.sample_size(FEW_SAMPLES).sampling_mode(SamplingMode::Flat);
        group.bench_function("room", |bencher| {
            self.time(bencher, |store| self.storage(store.clone()).open(Epoch::new(1)));
        });
        group.bench_function("reading, of a room", |bencher| {
            self.time(bencher, |store| store.load(&self.document));
        });
        group.bench_function("index, of a room", |bencher| {
            bencher.iter_with_large_drop(|| Index::decode(black_box(&stored.index)));
        });
        group.bench_function("resync of 1000", |bencher| {
            self.time(bencher, |store| {
                self.storage(store.clone()).read(&[], from, end, true, None)
            });
        });
        group.finish();
        Ok(vec![
            ("index_kib", stored.index.len() as f64 / 1_024.0),
            ("resync_1k_bytes", slice.bytes.len() as f64),
        ])
    }

    /// Times `call` alone, not the opening of the store.
    fn time<T>(&self, bencher: &mut Bencher<'_>, call: impl Fn(&Store) -> T) {
        bencher.iter_custom(|rounds| {
            let mut took = Duration::ZERO;
            for _ in 0..rounds {
                let store = self.store().expect("the store opens, as it did before");
                let start = now();
                let done = black_box(call(&store));
                took += start.elapsed();
                drop(done);
            }
            took
        });
    }

    fn store(&self) -> anyhow::Result<Store> {
        let kv = SledKv::open(self.data.path(), SledOptions::default())?;
        Ok(Store::open(Arc::new(kv))?)
    }

    fn storage(&self, store: Store) -> Storage {
        Storage::new(store, self.document.clone(), Limits::default())
    }
}

/// The end of the log so far.
#[derive(Default)]
struct End {
    changes: u64,
    bytes: u64,
}

impl End {
    fn record(&mut self, document: &DocumentId, changes: &[Bytes]) -> syncline::server::store::kv::Batch {
        let entries = changes.iter().map(|change| LogEntry {
            subject: "bench".to_owned(),
            change: change.clone(),
        });
        let record = LogRecord {
            position: Position::new(self.changes),
            bytes_before: self.bytes,
            entries: entries.collect(),
        };
        let begins = self.changes == 0;
        self.changes += changes.len() as u64;
        self.bytes += changes.iter().map(|change| change.len() as u64).sum::<u64>();
        layout::append(document, Epoch::new(1), &record, begins)
    }
}
