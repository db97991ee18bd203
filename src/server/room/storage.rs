//! What a room's effects mean in the store: open, read, append, merge, prove, compact, quarantine.
//!
//! Synchronous and without a clock, for blocking threads; the simulator calls the same functions. Whatever must be durable
//! goes through the `commit` that the caller passes in, which returns once the batch is synced.

use crate::{
    engine::{
        document::{Document, Merge},
        gate::{self, Header, Subject},
        index::Index,
        room::{Append, BundleOf, LoadFailure, Loaded, Merged, ReadFailure, Slice, Snapshot, Source},
    },
    server::{
        failpoints::{self, Switch},
        store::{
            Culprit, Life, LogEntry, LogKept, LogRecord, LogSlice, Meta, NewRecord, SnapshotMeta, Store, StoreError,
            Stored, kv::Batch, layout,
        },
    },
};
use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::DeflateEncoder};
use std::{borrow::Cow, collections::BTreeSet, io::Write};
use syncline_protocol::{ChangeHash, DocumentId, Epoch, Limits, Position, native::Packing};

/// Parts smaller than this are not deflated: there is little to win.
const DEFLATE_BYTES_MIN: usize = 512;
/// Keystrokes take an eighth less than at the fastest level, and twice its time: 0.7 ms more for 1,000 of them.
const DEFLATE_LEVEL: u32 = 5;
/// Changes are read from the log in pieces of this size.
const LOG_PIECE_BYTES: u64 = 1 << 20;
/// What a byte of the stored index, and of the log, takes in memory while a document opens: measured, about, and for the log at most.
const INDEX_GROWTH: u64 = 4;
const LOG_GROWTH: u64 = 2;
/// More than any limit lets in.
const STORED_MAX: u64 = 1 << 31;
/// Why a compaction was given up; the log is untouched then.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The document does not save into something that loads back.
    #[error("the snapshot is not sound: {0}")]
    Snapshot(#[from] crate::engine::document::DocumentError),
    /// What was written is not what is read.
    #[error("the snapshot reads back with other bytes than were written")]
    ReadBack,
    /// The log does not replay into the index.
    #[error("the log does not replay")]
    Replay,
    /// Somebody else has compacted the document meanwhile.
    #[error("there is a newer snapshot already")]
    Stale,
}

/// One document in the store.
#[derive(Clone)]
pub struct Storage {
    store: Store,
    document: DocumentId,
    limits: Limits,
}

/// Makes a batch durable, and returns once it is.
pub type Commit<'a> = &'a dyn Fn(Batch) -> Result<(), StoreError>;

impl Storage {
    /// The document's place in the store.
    pub fn new(store: Store, document: DocumentId, limits: Limits) -> Self {
        Self {
            store,
            document,
            limits,
        }
    }

    /// What the store knows of the document. If it has none, `fresh` becomes its epoch with the first edit.
    ///
    /// # Errors
    /// `Damaged` when records cannot be read or do not replay, `Unavailable` when the store does not answer.
    pub fn open(&self, fresh: Epoch) -> Result<Loaded, LoadFailure> {
        let quarantined = self.store.quarantined(&self.document).map_err(load_failure)?;
        let replayed = self.store.replay(
            &self.document,
            &mut |index| stored_index(&index),
            &mut |index, record| replay_record(index, &record),
        );
        let Some(stored) = replayed.map_err(load_failure)? else {
            return Ok(Loaded {
                epoch: fresh,
                exists: false,
                index: Index::default(),
                log_start: Position::new(0),
                log_bytes: 0,
                snapshot: None,
                quarantined,
                foreign_until: None,
            });
        };
        let index = stored.made?;
        if index.position() != stored.end {
            return Err(LoadFailure::Damaged);
        }
        Ok(Loaded {
            epoch: self.store.life().translate(stored.meta.epoch),
            exists: true,
            index,
            log_start: stored.meta.log_start,
            log_bytes: stored.bytes,
            snapshot: stored
                .meta
                .snapshot
                .as_ref()
                .map(|snapshot| as_snapshot(snapshot, &stored.meta)),
            quarantined,
            foreign_until: None,
        })
    }

    /// The life that the store leads.
    pub fn life(&self) -> Life {
        self.store.life()
    }

    /// About how much memory [`Storage::open`] takes.
    ///
    /// # Errors
    /// What the store says.
    pub fn open_bytes(&self) -> Result<u64, StoreError> {
        let (index, log) = self.store.load_bytes(&self.document)?;
        Ok(index
            .saturating_mul(INDEX_GROWTH)
            .saturating_add(log.saturating_mul(LOG_GROWTH)))
    }

    /// What is current in the store: for reading the snapshot in pieces.
    ///
    /// # Errors
    /// What the store says.
    pub fn current_snapshot(&self) -> Result<Option<SnapshotMeta>, StoreError> {
        Ok(self.store.meta(&self.document)?.and_then(|meta| meta.snapshot))
    }

    /// One part's worth of the document. `snapshots` are those that may be read: the current one and a pinned former one.
    ///
    /// # Errors
    /// `Gone` when that part is compacted away, `Damaged`, `Unavailable`.
    pub fn read(
        &self,
        snapshots: &[SnapshotMeta],
        from: Source,
        to: Position,
        deflate: bool,
        bundle: Option<&BundleOf>,
    ) -> Result<Slice, ReadFailure> {
        if let Some(slice) = bundle.and_then(|bundle| self.bundled(bundle, to)) {
            return Ok(slice);
        }
        match from {
            Source::Snapshot { generation, offset } => {
                let known = snapshots.iter().find(|snapshot| snapshot.generation == generation);
                let snapshot = known.ok_or(ReadFailure::Gone)?;
                let piece = self
                    .store
                    .read_snapshot(&self.document, snapshot, offset, self.limits.part_bytes_max);
                let bytes = piece.map_err(read_failure)?;
                let end = offset + bytes.len() as u64;
                let next = if end < snapshot.bytes {
                    Source::Snapshot {
                        generation,
                        offset: end,
                    }
                } else {
                    Source::log(snapshot.position)
                };
                // A snapshot is deflated in itself.
                Ok(Slice {
                    packing: Packing::Plain,
                    plain_bytes: bytes.len() as u64,
                    bytes,
                    log_bytes_before: 0,
                    next,
                })
            }
            Source::Log { from, offset } => {
                let bytes_max = self.limits.part_bytes_max;
                let piece = self
                    .store
                    .read_log(&self.document, from, to, offset.saturating_add(bytes_max))
                    .map_err(read_failure)?;
                Ok(pack(&piece, from, offset, bytes_max, deflate))
            }
        }
    }

    /// The changes as a bundle, if that fits into a part and can be made.
    fn bundled(&self, of: &BundleOf, to: Position) -> Option<Slice> {
        let bytes = of.document.bundle(&of.hashes)?;
        if bytes.len() as u64 > self.limits.part_bytes_max {
            return None;
        }
        let after = self.store.read_log(&self.document, of.end, to, 1).ok()?.bytes_before;
        Some(Slice {
            packing: Packing::Plain,
            plain_bytes: bytes.len() as u64,
            log_bytes_before: after.saturating_sub(bytes.len() as u64),
            bytes,
            next: Source::log(of.end),
        })
    }

    /// The batch that appends to the log.
    pub fn append(&self, append: &Append) -> Batch {
        let record = NewRecord {
            position: append.first,
            bytes_before: append.log_bytes_before,
            entries: append.entries.iter().map(|entry| (&*entry.subject.0, &*entry.change)),
        };
        let epoch = self.store.life().translate(append.epoch);
        layout::append_new(&self.document, epoch, &record, append.begins_document)
    }

    /// Merges the log up to `to` into the base, or into the stored snapshot.
    pub fn merge(&self, base: Option<(Document, Position)>, to: Position) -> Merged {
        let (mut document, mut position) = match base.map_or_else(|| self.load_snapshot(), Ok) {
            Ok(base) => base,
            Err(merged) => return merged,
        };
        while position < to {
            let piece = match self.store.read_log(&self.document, position, to, LOG_PIECE_BYTES) {
                Ok(piece) => piece,
                Err(StoreError::Damaged { .. }) => return Merged::Damaged,
                Err(_) => return Merged::Failed,
            };
            let changes: Vec<Bytes> = piece.entries.into_iter().map(|entry| entry.change).collect();
            match failpoints::merge(&changes).unwrap_or_else(|| document.merge(&changes)) {
                Merge::Whole(merged) => (document, position) = (merged, piece.next),
                Merge::Bad { culprits, descendants } => {
                    let place = |numbers: Vec<usize>| numbers.into_iter().map(|number| position.plus(number as u64));
                    return Merged::Bad {
                        culprits: place(culprits).collect(),
                        descendants: place(descendants).collect(),
                    };
                }
            }
        }
        Merged::Whole { document, position }
    }

    /// Whether `changes` merge, save and load on top of the log up to `to`; `None` if that cannot be found out now.
    pub fn prove(&self, base: Option<(Document, Position)>, to: Position, changes: &[Bytes]) -> Option<bool> {
        match self.merge(base, to) {
            Merged::Whole { document, .. } => Some(document.carries(changes)),
            Merged::Bad { .. } | Merged::Damaged | Merged::Failed => None,
        }
    }

    /// Makes `document` the snapshot: written, synced, read back and only then current; then the log is pruned.
    ///
    /// # Errors
    /// The log is untouched by a compaction that fails.
    pub fn compact(
        &self,
        document: &Document,
        position: Position,
        generation: u64,
        kept: LogKept,
        commit: Commit<'_>,
    ) -> Result<Snapshot, CompactError> {
        let saved = document.snapshot()?;
        let (index, bytes_before) = self.index_at(position)?;
        let index = index.encode();
        let heads = document.heads();
        let former: Option<u64> = self
            .store
            .meta(&self.document)?
            .and_then(|meta| meta.snapshot)
            .map(|former| former.generation);
        if former.is_some_and(|former| former >= generation) {
            return Err(CompactError::Stale);
        }
        for batch in self.store.leftovers(&self.document, former.as_slice())? {
            commit(batch)?;
        }
        for batch in layout::snapshot(&self.document, generation, &as_written(&saved), &index) {
            commit(batch)?;
        }
        let snapshot = SnapshotMeta::new(generation, (position, bytes_before), heads, &saved, &index);
        if !Switch::SnapshotUnread.is_on() {
            let (read, read_index) = self.store.read_back(&self.document, &snapshot)?;
            if read[..] != saved[..] || read_index[..] != index[..] {
                return Err(CompactError::ReadBack);
            }
        }
        let meta = self
            .store
            .meta(&self.document)?
            .ok_or_else(|| StoreError::NoDocument(self.document.clone()))?;
        let (mut meta, batch) = layout::flip(&self.document, &meta, snapshot.clone());
        commit(batch)?;
        if let Some((pruned, batches)) = self.store.prune(&self.document, &meta, kept)? {
            batches.into_iter().try_for_each(commit)?;
            meta = pruned;
        }
        Ok(as_snapshot(&snapshot, &meta))
    }

    /// Deletes a former snapshot.
    ///
    /// # Errors
    /// What the store says; the leftovers are harmless.
    pub fn discard(&self, generation: u64, commit: Commit<'_>) -> Result<(), StoreError> {
        self.store
            .drop_generation(&self.document, generation)?
            .into_iter()
            .try_for_each(commit)
    }

    /// Takes the bad changes, and all that was stored on top of them since they were found, out of the log in one batch,
    /// refuses their hashes for good and begins `epoch`.
    ///
    /// # Errors
    /// What the store says; nothing has changed then.
    pub fn quarantine(
        &self,
        bad: &[Position],
        to: Position,
        epoch: Epoch,
        commit: Commit<'_>,
    ) -> Result<(), StoreError> {
        let Some(first) = bad.iter().min().copied() else {
            return Ok(());
        };
        let bad: BTreeSet<Position> = bad.iter().copied().collect();
        let (mut kept, mut culprits, mut position) = (Vec::new(), Vec::new(), first);
        let mut refused: BTreeSet<ChangeHash> = BTreeSet::new();
        while position < to {
            let piece = self.store.read_log(&self.document, position, to, LOG_PIECE_BYTES)?;
            let mut record = Vec::new();
            for entry in piece.entries {
                // A stored change always has a readable header; a bad one that has not is dropped with its bytes.
                let header = gate::read(entry.change.clone(), &stored_limits()).ok();
                let stands_on_bad = |header: &Header| header.deps().iter().any(|dep| refused.contains(dep));
                if bad.contains(&position) || header.as_ref().is_some_and(stands_on_bad) {
                    culprits.extend(header.map(|header| {
                        let hash = header.hash();
                        refused.insert(hash);
                        Culprit { hash, entry }
                    }));
                } else {
                    record.push(entry);
                }
                position = position.plus(1);
            }
            kept.push(record);
        }
        if Switch::CulpritsWelcome.is_on() {
            culprits.clear();
        }
        if Switch::ResetLoses.is_on() {
            kept.clear();
        }
        let (_, batch) = self.store.quarantine(&self.document, epoch, first, kept, &culprits)?;
        commit(batch)
    }

    fn load_snapshot(&self) -> Result<(Document, Position), Merged> {
        let failed = |error: StoreError| match error {
            StoreError::Damaged { .. } => Merged::Damaged,
            _ => Merged::Failed,
        };
        let Some(snapshot) = self.current_snapshot().map_err(failed)? else {
            return Ok((Document::default(), Position::new(0)));
        };
        let (bytes, _) = self.store.read_back(&self.document, &snapshot).map_err(failed)?;
        let document = Document::load(&bytes).map_err(|_| Merged::Damaged)?;
        if document.heads() != snapshot.heads {
            return Err(Merged::Damaged);
        }
        Ok((document, snapshot.position))
    }

    /// The index of exactly the log up to `position`, and the bytes of all changes before it.
    fn index_at(&self, position: Position) -> Result<(Index, u64), CompactError> {
        let (mut index, mut bytes) = match self.current_snapshot()? {
            Some(snapshot) => {
                let (_, index) = self.store.read_back(&self.document, &snapshot)?;
                (
                    stored_index(&index).map_err(|_| CompactError::Replay)?,
                    snapshot.bytes_before,
                )
            }
            None => (Index::default(), 0),
        };
        while index.position() < position {
            let piece = self
                .store
                .read_log(&self.document, index.position(), position, LOG_PIECE_BYTES)?;
            for entry in &piece.entries {
                bytes += entry.change.len() as u64;
                replay(&mut index, entry).ok_or(CompactError::Replay)?;
            }
            index.settle(index.position());
        }
        Ok((index, bytes))
    }
}

/// Takes a record of our own log into the index, if that is sound so far.
fn replay_record(index: &mut Result<Index, LoadFailure>, record: &LogRecord) {
    let Ok(sound) = index else { return };
    if record.entries.iter().all(|entry| replay(sound, entry).is_some()) {
        // What is replayed is never taken back, so how to take it back need not be remembered.
        sound.settle(sound.position());
    } else {
        *index = Err(LoadFailure::Damaged);
    }
}

/// Takes a change of our own log into the index: it passed the gate when it was written, by the limits of that time.
fn replay(index: &mut Index, entry: &LogEntry) -> Option<()> {
    let change = gate::decode(gate::read(entry.change.clone(), &stored_limits()).ok()?).ok()?;
    index.admit(&change, &Subject(entry.subject.as_str().into()));
    Some(())
}

/// Whether a stored document opens and loads: for `syncline check`, which has no room.
///
/// # Errors
/// What is wrong with it.
pub fn verify(stored: &Stored, snapshot: &Bytes) -> Result<(), String> {
    let document = Document::load(snapshot).map_err(|error| error.to_string())?;
    let heads = stored.meta.snapshot.as_ref().map(|meta| &meta.heads);
    if heads.is_some_and(|heads| *heads != document.heads()) {
        return Err("its snapshot loads with other heads than it was saved with".into());
    }
    let entries = || stored.records.iter().flat_map(|record| &record.entries);
    let changes: Vec<Bytes> = entries().map(|entry| entry.change.clone()).collect();
    if let Merge::Bad { culprits, descendants } = document.merge(&changes) {
        let bad = culprits.len() + descendants.len();
        return Err(format!(
            "{bad} changes of its log do not merge; the server will quarantine them"
        ));
    }
    let mut index = stored_index(&stored.index).map_err(|_| "its index cannot be read")?;
    entries()
        .try_for_each(|entry| replay(&mut index, entry))
        .ok_or("its log does not replay into its index")?;
    Ok(())
}

/// What is stored was within the limits when it came, whatever they are today.
fn stored_limits() -> Limits {
    Limits {
        ops_per_change_max: STORED_MAX,
        inflated_bytes_max: STORED_MAX,
        nesting_depth_max: STORED_MAX,
        ..Limits::default()
    }
}

fn stored_index(bytes: &Bytes) -> Result<Index, LoadFailure> {
    if bytes.is_empty() {
        return Ok(Index::default());
    }
    Index::decode(bytes).map_err(|_| LoadFailure::Damaged)
}

fn as_snapshot(snapshot: &SnapshotMeta, meta: &Meta) -> Snapshot {
    Snapshot {
        generation: snapshot.generation,
        position: snapshot.position,
        bytes: snapshot.bytes,
        log_bytes: snapshot.bytes_before,
        log_start: meta.log_start,
    }
}

/// At most `bytes_max` bytes of `piece` from byte `offset` of its first change, at `from`.
fn pack(piece: &LogSlice, from: Position, offset: u64, bytes_max: u64, deflate: bool) -> Slice {
    let mut plain = BytesMut::new();
    let mut next = Source::log(piece.next);
    for (number, entry) in (0..).zip(&piece.entries) {
        let begin = if number == 0 {
            offset.min(entry.change.len() as u64)
        } else {
            0
        };
        let free = bytes_max - plain.len() as u64;
        let end = (entry.change.len() as u64).min(begin + free);
        plain.extend_from_slice(&entry.change[begin as usize..end as usize]);
        if end < entry.change.len() as u64 {
            next = Source::Log {
                from: from.plus(number),
                offset: end,
            };
            break;
        }
    }
    let plain_bytes = plain.len();
    let deflated = (deflate && plain_bytes >= DEFLATE_BYTES_MIN).then(|| {
        let mut encoder = DeflateEncoder::new(Vec::with_capacity(plain_bytes / 2), Compression::new(DEFLATE_LEVEL));
        encoder
            .write_all(&plain)
            .and_then(|()| encoder.finish())
            .expect("writing to a vector does not fail")
    });
    let (packing, bytes) = match deflated {
        Some(deflated) if deflated.len() < plain_bytes => (Packing::Deflate, Bytes::from(deflated)),
        Some(_) | None => (Packing::Plain, plain.freeze()),
    };
    Slice {
        packing,
        bytes,
        plain_bytes: plain_bytes as u64,
        log_bytes_before: piece.bytes_before,
        next,
    }
}

/// The snapshot as it goes to the store: itself, but for a fault on purpose.
fn as_written(saved: &[u8]) -> Cow<'_, [u8]> {
    if !Switch::BadSnapshot.is_on() {
        return Cow::Borrowed(saved);
    }
    let mut bytes = saved.to_vec();
    bytes.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1);
    Cow::Owned(bytes)
}

fn load_failure(error: StoreError) -> LoadFailure {
    tracing::error!(%error, "a read of the store failed");
    match error {
        StoreError::Damaged { .. } | StoreError::StoreDamaged(_) => LoadFailure::Damaged,
        _ => LoadFailure::Unavailable,
    }
}

fn read_failure(error: StoreError) -> ReadFailure {
    match error {
        StoreError::NotInLog { .. } | StoreError::NoDocument(_) => ReadFailure::Gone,
        error => match load_failure(error) {
            LoadFailure::Damaged => ReadFailure::Damaged,
            LoadFailure::Unavailable => ReadFailure::Unavailable,
        },
    }
}
