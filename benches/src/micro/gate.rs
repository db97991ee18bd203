//! What an edit costs in a document of a given length: the gate's three steps, the index, and the merge behind them.

use super::once_us;
use crate::{
    edits::{Edits, Sight},
    history::History,
    report::Sample,
};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use std::hint::black_box;
use syncline::engine::{
    document::{Document, Merge},
    gate::{self, Decoded, Subject, Verdict},
    index::Index,
};
use syncline_protocol::Limits;

/// Edits in one timing, and how far back the concurrent ones stand.
const EDITS: usize = 1_000;
const MERGE_LARGE: usize = 5_000;

/// A document, as the gate and as Automerge know it, and edits to it.
pub(super) struct Course {
    history: History,
    index: Index,
    index_build_us: f64,
    document: Document,
    edits: Edits,
}

/// What the three steps of the gate and the index's admission took for [`EDITS`] edits.
#[derive(Default)]
struct Steps {
    read_us: f64,
    decode_us: f64,
    check_us: f64,
    admit_us: f64,
}

impl Course {
    pub(super) fn new(keystrokes: Option<usize>) -> anyhow::Result<Self> {
        let history = History::paper(keystrokes)?;
        let mut index = Index::default();
        let mut steps = Steps::default();
        for batch in history.base.changes.chunks(EDITS) {
            batch.iter().try_for_each(|change| steps.pass(&mut index, change))?;
            index.settle(index.position());
        }
        let Merge::Whole(document) = Document::default().merge(&history.base.changes) else {
            bail!("the history does not merge");
        };
        let edits = Edits::prepare(&history.base, 2, MERGE_LARGE, Sight::Apart);
        Ok(Self {
            index_build_us: steps.sum_us() / history.base.changes.len() as f64,
            history,
            index,
            document,
            edits,
        })
    }

    pub(super) fn ops(&self) -> u64 {
        self.history.base.max_op
    }

    pub(super) fn about(&self) -> &'static str {
        self.history.name()
    }

    pub(super) fn run(&self) -> anyhow::Result<Sample> {
        let ops = self.ops() as f64;
        let (stored, encode_us) = once_us(|| self.index.encode());
        let (loaded, decode_us) = once_us(|| Index::decode(&stored));
        let loaded = loaded.context("the stored index does not load")?;
        let mut index = self.index.clone();
        // One writer at the heads, then another who has seen nothing of the first.
        let alone = self.pass(&mut index, 0)?;
        let beside = self.pass(&mut index, 1)?;
        Ok(vec![
            ("index_memory_bytes_per_op", self.index.memory_bytes() as f64 / ops),
            ("index_loaded_bytes_per_op", loaded.memory_bytes() as f64 / ops),
            ("index_stored_bytes_per_op", stored.len() as f64 / ops),
            ("index_build_us_per_change", self.index_build_us),
            ("index_encode_ms", encode_us / 1_000.0),
            ("index_decode_ms", decode_us / 1_000.0),
            ("read_us", alone.read_us),
            ("decode_us", alone.decode_us),
            ("sequential_check_us", alone.check_us),
            ("sequential_admit_us", alone.admit_us),
            ("sequential_edit_us", alone.sum_us()),
            ("concurrent_check_us", beside.check_us),
            ("concurrent_admit_us", beside.admit_us),
            ("concurrent_edit_us", beside.sum_us()),
            ("snapshot_encode_ms", self.snapshot_ms()?),
            ("merge_of_1_us_per_edit", self.merge_us(1)?),
            ("merge_of_100_us_per_edit", self.merge_us(100)?),
            ("merge_of_1000_us_per_edit", self.merge_us(EDITS)?),
            ("merge_of_5000_us_per_edit", self.merge_us(MERGE_LARGE)?),
        ])
    }

    fn pass(&self, index: &mut Index, writer: usize) -> anyhow::Result<Steps> {
        let mut steps = Steps::default();
        for place in 0..EDITS {
            steps.pass(index, self.edits.edit(writer, place).context("too few edits")?)?;
        }
        Ok(steps.divided(EDITS as f64))
    }

    fn snapshot_ms(&self) -> anyhow::Result<f64> {
        let (snapshot, took_us) = once_us(|| self.document.snapshot());
        ensure!(!black_box(snapshot?).is_empty(), "an empty snapshot");
        Ok(took_us / 1_000.0)
    }

    /// Concurrent edits, merged in one call.
    fn merge_us(&self, count: usize) -> anyhow::Result<f64> {
        let edits: Vec<Bytes> = (0..count)
            .filter_map(|place| self.edits.edit(1, place).cloned())
            .collect();
        let (merge, took_us) = once_us(|| self.document.merge(&edits));
        ensure!(matches!(black_box(merge), Merge::Whole(_)), "honest edits do not merge");
        Ok(took_us / count as f64)
    }
}

impl Steps {
    fn pass(&mut self, index: &mut Index, change: &Bytes) -> anyhow::Result<()> {
        let limits = Limits::default();
        let subject = Subject("bench".into());
        let (header, took_us) = once_us(|| gate::read(change.clone(), &limits));
        self.read_us += took_us;
        let header = header?;
        let (decoded, took_us): (Result<Decoded, _>, f64) = once_us(|| gate::decode(header));
        self.decode_us += took_us;
        let decoded = decoded?;
        let (verdict, took_us) = once_us(|| gate::check(index, None, &subject, &decoded, &limits));
        self.check_us += took_us;
        ensure!(
            verdict == Verdict::Vouched,
            "the gate does not vouch for an honest edit: {verdict:?}"
        );
        let ((), took_us) = once_us(|| index.admit(&decoded, &subject));
        self.admit_us += took_us;
        Ok(())
    }

    fn sum_us(&self) -> f64 {
        self.read_us + self.decode_us + self.check_us + self.admit_us
    }

    fn divided(self, by: f64) -> Self {
        Self {
            read_us: self.read_us / by,
            decode_us: self.decode_us / by,
            check_us: self.check_us / by,
            admit_us: self.admit_us / by,
        }
    }
}
