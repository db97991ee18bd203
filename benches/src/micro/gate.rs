//! What an edit costs in a document of a given length: the gate's three steps, the index, and the merge behind them.

use super::FEW_SAMPLES;
use crate::{
    clock::now,
    edits::{Edits, Sight},
    history::History,
    report::Sample,
};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput};
use std::{hint::black_box, time::Duration};
use syncline::engine::{
    document::{Document, Merge},
    gate::{self, Decoded, Subject, Verdict},
    index::Index,
};
use syncline_protocol::Limits;

/// How far back the concurrent edits stand, and after how many edits a course begins anew.
const EDITS: usize = 1_000;
const MERGES: [usize; 4] = [1, 100, EDITS, 5_000];

/// A document, as the gate and as Automerge know it, and edits of two writers, who have seen nothing of each other.
pub(super) struct Course {
    history: History,
    index: Index,
    document: Document,
    edits: Edits,
    limits: Limits,
    subject: Subject,
}

impl Course {
    pub(super) fn new(keystrokes: Option<usize>) -> anyhow::Result<Self> {
        let history = History::paper(keystrokes)?;
        let Merge::Whole(document) = Document::default().merge(&history.base.changes) else {
            bail!("the history does not merge");
        };
        let edits = Edits::prepare(&history.base, 2, MERGES[MERGES.len() - 1], Sight::Apart);
        let mut course = Self {
            history,
            index: Index::default(),
            document,
            edits,
            limits: Limits::default(),
            subject: Subject("bench".into()),
        };
        let mut index = Index::default();
        for batch in course.history.base.changes.chunks(EDITS) {
            batch.iter().try_for_each(|change| course.pass(&mut index, change))?;
            index.settle(index.position());
        }
        course.index = index;
        Ok(course)
    }

    pub(super) fn ops(&self) -> u64 {
        self.history.base.max_op
    }

    pub(super) fn about(&self) -> &'static str {
        self.history.name()
    }

    pub(super) fn run(&self, criterion: &mut Criterion) -> anyhow::Result<Sample> {
        let mut beside = self.index.clone();
        for place in 0..EDITS {
            self.pass(&mut beside, self.edit(0, place)?)?;
        }
        self.steps(criterion, &beside)?;
        let stored = self.index.encode();
        self.stored(criterion, &stored);
        self.merges(criterion)?;
        let loaded = Index::decode(&stored).context("the stored index does not load")?;
        let ops = self.ops() as f64;
        Ok(vec![
            ("index_memory_bytes_per_op", self.index.memory_bytes() as f64 / ops),
            ("index_loaded_bytes_per_op", loaded.memory_bytes() as f64 / ops),
            ("index_stored_bytes_per_op", stored.len() as f64 / ops),
        ])
    }

    /// The steps of one edit; `beside` has [`EDITS`] of the first writer's, which the second has not seen.
    fn steps(&self, criterion: &mut Criterion, beside: &Index) -> anyhow::Result<()> {
        let (first, second) = (self.edit(0, 0)?, self.edit(1, 0)?);
        let mut group = criterion.benchmark_group(format!("gate/{}", self.ops()));
        group.bench_function("read", |bencher| {
            bencher.iter(|| gate::read(black_box(first).clone(), &self.limits));
        });
        let header = gate::read(first.clone(), &self.limits)?;
        group.bench_function("decode", |bencher| {
            bencher.iter_batched(|| header.clone(), gate::decode, BatchSize::SmallInput);
        });
        for (name, index, edit) in [("check", &self.index, first), ("check concurrent", beside, second)] {
            let decoded = self.decoded(edit)?;
            group.bench_function(name, |bencher| {
                bencher.iter(|| gate::check(index, None, &self.subject, black_box(&decoded), &self.limits));
            });
        }
        for (name, index, writer) in [("edit", &self.index, 0), ("edit concurrent", beside, 1)] {
            group.bench_function(name, |bencher| {
                bencher.iter_custom(|edits| self.time(index, writer, edits as usize));
            });
        }
        group.finish();
        Ok(())
    }

    fn stored(&self, criterion: &mut Criterion, stored: &[u8]) {
        let mut group = criterion.benchmark_group(format!("index/{}", self.ops()));
        group.sample_size(FEW_SAMPLES);
        group.bench_function("encode", |bencher| bencher.iter(|| self.index.encode()));
        group.bench_function("decode", |bencher| {
            bencher.iter_with_large_drop(|| Index::decode(black_box(stored)));
        });
        group.finish();
    }

    /// Concurrent edits, merged in one call, and the snapshot, which is loaded back.
    fn merges(&self, criterion: &mut Criterion) -> anyhow::Result<()> {
        let mut group = criterion.benchmark_group(format!("document/{}", self.ops()));
        group.sample_size(FEW_SAMPLES);
        ensure!(!self.document.snapshot()?.is_empty(), "an empty snapshot");
        group.bench_function("snapshot", |bencher| {
            bencher.iter_with_large_drop(|| self.document.snapshot());
        });
        for count in MERGES {
            let edits: Vec<Bytes> = (0..count)
                .map(|place| self.edit(1, place).cloned())
                .collect::<Result<_, _>>()?;
            let merge = self.document.merge(&edits);
            ensure!(matches!(merge, Merge::Whole(_)), "honest edits do not merge");
            group.throughput(Throughput::Elements(count as u64));
            group.bench_function(format!("merge of {count}"), |bencher| {
                bencher.iter_with_large_drop(|| self.document.merge(black_box(&edits)));
            });
        }
        group.finish();
        Ok(())
    }

    /// How long so many edits of this writer take from their bytes into the index; a copy of it is taken now and then, which does not count.
    fn time(&self, index: &Index, writer: usize, mut edits: usize) -> Duration {
        let mut took = Duration::ZERO;
        while edits > 0 {
            let mut index = index.clone();
            let count = edits.min(EDITS);
            let start = now();
            for place in 0..count {
                self.edit(writer, place)
                    .and_then(|edit| self.pass(&mut index, edit))
                    .expect("the gate vouches for honest edits, as it did for the history");
            }
            took += start.elapsed();
            edits -= count;
        }
        took
    }

    fn pass(&self, index: &mut Index, change: &Bytes) -> anyhow::Result<()> {
        let decoded = self.decoded(change)?;
        let verdict = gate::take_in(index, None, &self.subject, &decoded, &self.limits);
        ensure!(
            verdict == Verdict::Vouched,
            "the gate does not vouch for an honest edit: {verdict:?}"
        );
        Ok(())
    }

    fn decoded(&self, change: &Bytes) -> anyhow::Result<Decoded> {
        Ok(gate::decode(gate::read(change.clone(), &self.limits)?)?)
    }

    fn edit(&self, writer: usize, place: usize) -> anyhow::Result<&Bytes> {
        self.edits.edit(writer, place).context("too few edits")
    }
}
