//! What removes or replaces: compaction, pruning, quarantine. Each answers with batches for the writer.
//!
//! A compaction goes: [`layout::snapshot`] writes the next generation; sync; [`Store::read_back`] and the caller loads it and
//! compares its heads; [`layout::flip`] makes it current; sync; [`Store::drop_generation`] when no reader pins the former
//! one; [`Store::prune`]. Interrupted after any step, the document is whole, and [`Store::leftovers`] finds what is in the
//! way.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use syncline_protocol::{DocumentId, Epoch, Position};

use super::{
    Store, StoreError,
    key::{self, Key, Kind},
    kv::Batch,
    layout::{put_culprit, put_meta, put_record},
    log::{self, Culprit, LogEntry, LogRecord},
    meta::{Meta, SnapshotMeta},
    record::{Damaged, unseal},
};

/// A batch that removes keys ends after so many: each costs a page anew, in the worst case.
const DELETES_PER_BATCH: usize = 1_000;

/// How much of the log stays behind the snapshot, so that clients who were away catch up from it. The smaller one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogKept {
    /// The last so many changes.
    pub changes: u64,
    /// The last so many bytes of changes.
    pub bytes: u64,
}

impl LogKept {
    /// The same, but for a snapshot at `position` keeping everything from `needed_from` on, however much that is.
    #[must_use]
    pub fn at_least_from(self, position: Position, needed_from: Option<Position>) -> Self {
        let Some(needed) = needed_from.filter(|needed| *needed < position) else {
            return self;
        };
        let changes = position.number() - needed.number() + 1;
        Self {
            changes: self.changes.max(changes),
            bytes: u64::MAX,
        }
    }
}

impl Default for LogKept {
    fn default() -> Self {
        Self {
            changes: 10_000,
            bytes: 4 << 20,
        }
    }
}

impl Store {
    /// Step 2 of a compaction: the snapshot and the index as they lie in the store, checked. The caller loads the snapshot
    /// and compares its heads before it makes the generation current.
    ///
    /// # Errors
    /// `Damaged` for this document, `Io`.
    pub fn read_back(&self, document: &DocumentId, snapshot: &SnapshotMeta) -> Result<(Bytes, Bytes), StoreError> {
        let bytes = self.read_snapshot(document, snapshot, 0, snapshot.bytes)?;
        if crc32fast::hash(&bytes) != snapshot.crc {
            return Err(StoreError::damaged(
                document,
                Damaged::new("its snapshot does not match its checksum"),
            ));
        }
        Ok((bytes, self.read_index(document, snapshot)?))
    }

    /// Step 4 of a compaction: removes a generation that is not current, once nobody reads it.
    ///
    /// # Errors
    /// What the floor says.
    pub fn drop_generation(&self, document: &DocumentId, generation: u64) -> Result<Vec<Batch>, StoreError> {
        let mut keys = Vec::new();
        for key in [key::snapshot, key::index] {
            self.keys(
                key(document, generation, 0)..key(document, generation + 1, 0),
                &mut keys,
            )?;
        }
        Ok(deletes(keys))
    }

    /// Step 5 of a compaction: forgets the log behind the snapshot but for what `kept` keeps. `None` if nothing is to go.
    /// Answers with the meta record that holds once the first batch is written; nobody reads what the others remove. Interrupted
    /// between them, the log begins with whole records that the next pruning removes.
    ///
    /// # Errors
    /// `Damaged` for this document, `Io`.
    pub fn prune(
        &self,
        document: &DocumentId,
        meta: &Meta,
        kept: LogKept,
    ) -> Result<Option<(Meta, Vec<Batch>)>, StoreError> {
        let Some(snapshot) = &meta.snapshot else {
            return Ok(None);
        };
        let mut keys = Vec::new();
        let mut cut = None;
        let mut look = |key: &[u8], value: &[u8]| {
            let Some(Key::Log { position, chunk, .. }) = Key::parse(key) else {
                return Err(Damaged::new("a key of its log is garbled"));
            };
            if chunk == 0 {
                let bytes_before = log::bytes_before_in_first_chunk(unseal(key, value)?)?;
                let changes_after = snapshot.position.number() - position.number();
                let bytes_after = snapshot.bytes_before.saturating_sub(bytes_before);
                if changes_after < kept.changes && bytes_after < kept.bytes {
                    return Ok(ControlFlow::Break(()));
                }
                cut = Some((position, keys.len()));
            }
            keys.push(key.to_vec());
            Ok(ControlFlow::Continue(()))
        };
        let Range { start, .. } = Kind::Log.all(document);
        let end = key::log(document, snapshot.position, 0);
        self.scan_until(document, &start..&end, &mut look)?;
        let Some((log_start, before)) = cut.filter(|(_, before)| *before > 0) else {
            return Ok(None);
        };
        let meta = Meta {
            log_start,
            ..meta.clone()
        };
        let mut batch = Batch::default();
        put_meta(&mut batch, document, &meta);
        keys.truncate(before);
        Ok(Some((meta, deletes_of_records(batch, keys))))
    }

    /// What interrupted compactions left behind: generations that are neither current nor in `pinned`. To be removed when a
    /// document is loaded (nobody pins anything yet) or compacted.
    ///
    /// # Errors
    /// `Damaged` for this document, `Io`.
    pub fn leftovers(&self, document: &DocumentId, pinned: &[u64]) -> Result<Vec<Batch>, StoreError> {
        let current = self
            .meta(document)?
            .and_then(|meta| meta.snapshot)
            .map(|snapshot| snapshot.generation);
        let mut keys = Vec::new();
        for (kind, key) in [
            (Kind::Snapshot, key::snapshot as fn(_, _, _) -> _),
            (Kind::Index, key::index),
        ] {
            let Range { start: mut from, end } = kind.all(document);
            while let Some(generation) = self.first_generation(document, &from, &end)? {
                let range = key(document, generation, 0)..key(document, generation.saturating_add(1), 0);
                from.clone_from(&range.end);
                if Some(generation) != current && !pinned.contains(&generation) {
                    self.keys(range, &mut keys)?;
                }
            }
        }
        Ok(deletes(keys))
    }

    /// Takes `culprits` out of the log, in one batch: the log keeps what comes before `keep_from`, goes on with `replaced`
    /// (one record per element, none of them empty), and belongs to `new_epoch` from then on. Answers with the meta record
    /// that holds once the batch is written. No other batch of this document may be in flight.
    ///
    /// # Errors
    /// `NotInLog` if `keep_from` is covered by the snapshot, `NoDocument`, `Damaged`, `Io`.
    pub fn quarantine(
        &self,
        document: &DocumentId,
        new_epoch: Epoch,
        keep_from: Position,
        replaced: Vec<Vec<LogEntry>>,
        culprits: &[Culprit],
    ) -> Result<(Meta, Batch), StoreError> {
        let meta = self
            .meta(document)?
            .ok_or_else(|| StoreError::NoDocument(document.clone()))?;
        let log_start = meta.snapshot_end();
        if keep_from < log_start {
            return Err(StoreError::NotInLog {
                asked: keep_from,
                log_start,
            });
        }
        let mut writes = Batch::default();
        let mut removed_from = keep_from;
        let mut bytes_before = meta.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes_before);
        self.scan_log(document, keep_from, |mut record| {
            if record.position > keep_from {
                return ControlFlow::Break(());
            }
            let whole = record.entries.len();
            record.trim_from(keep_from);
            bytes_before = record.bytes_end();
            if record.entries.len() < whole && !record.entries.is_empty() {
                removed_from = record.position;
                put_record(&mut writes, document, &record);
            }
            ControlFlow::Continue(())
        })?;
        let mut position = keep_from;
        for entries in replaced.into_iter().filter(|entries| !entries.is_empty()) {
            let record = LogRecord {
                position,
                bytes_before,
                entries,
            };
            (position, bytes_before) = (record.end(), record.bytes_end());
            put_record(&mut writes, document, &record);
        }
        let meta = Meta {
            epoch: new_epoch,
            log_end_min: position,
            ..meta
        };
        put_meta(&mut writes, document, &meta);
        culprits
            .iter()
            .for_each(|culprit| put_culprit(&mut writes, document, culprit));
        let mut removed = Vec::new();
        self.keys(
            key::log(document, removed_from, 0)..Kind::Log.all(document).end,
            &mut removed,
        )?;
        let mut batch = Batch::default();
        removed.into_iter().for_each(|key| batch.delete(key));
        batch.extend(writes);
        Ok((meta, batch))
    }

    /// Appends all keys in `range` to `keys`, whatever their values are.
    pub(super) fn keys(&self, range: Range<Vec<u8>>, keys: &mut Vec<Vec<u8>>) -> Result<(), StoreError> {
        self.kv.scan(&range.start..&range.end, &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        Ok(())
    }

    fn first_generation(&self, document: &DocumentId, from: &[u8], end: &[u8]) -> Result<Option<u64>, StoreError> {
        let mut first = None;
        self.kv
            .scan(from..end, &mut |key, _| {
                first = Some(Key::parse(key));
                ControlFlow::Break(())
            })
            .map_err(|error| StoreError::reading(document, error))?;
        match first {
            None => Ok(None),
            Some(Some(Key::Snapshot { generation, .. } | Key::Index { generation, .. })) => Ok(Some(generation)),
            Some(_) => Err(StoreError::damaged(
                document,
                Damaged::new("a key of a snapshot is garbled"),
            )),
        }
    }
}

/// `first` and batches after it that remove these keys of a log. None ends amid a record.
fn deletes_of_records(first: Batch, keys: Vec<Vec<u8>>) -> Vec<Batch> {
    let (mut batches, mut batch) = (Vec::new(), first);
    for key in keys {
        let begins = matches!(Key::parse(&key), Some(Key::Log { chunk: 0, .. }));
        if begins && batch.deletes() >= DELETES_PER_BATCH {
            batches.push(std::mem::take(&mut batch));
        }
        batch.delete(key);
    }
    batches.push(batch);
    batches
}

/// Batches that remove these keys.
pub(super) fn deletes(keys: Vec<Vec<u8>>) -> Vec<Batch> {
    let batch = |keys: &[Vec<u8>]| {
        let mut batch = Batch::default();
        keys.iter().for_each(|key| batch.delete(key.clone()));
        batch
    };
    keys.chunks(DELETES_PER_BATCH).map(batch).collect()
}
