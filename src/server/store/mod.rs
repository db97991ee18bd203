//! Persistence: documents as a log of changes behind snapshots, in one ordered map of bytes.
//!
//! Read it upwards: `kv` is the floor (an ordered map, atomic batches, an explicit sync; in `memory` and in `sled`, the only
//! file that names it), `record` cuts values into checked chunks, `key` and `layout` say what lies where, this file reads
//! documents, `compaction` makes and removes generations, `writer` is the one thread that writes, with one sync for all
//! that wait, and `check` looks at everything.
//!
//! Reading blocks, so it is done on blocking threads. Nothing here reads a clock, and nothing above the floor knows files.

pub mod check;
mod codec;
mod compaction;
#[cfg(test)]
mod contract;
mod error;
mod key;
pub mod kv;
pub mod layout;
mod log;
pub mod memory;
mod meta;
pub mod record;
pub mod sled;
pub mod writer;

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use bytes::Bytes;
use syncline_protocol::{ChangeHash, DocumentId, Position};

pub use self::{
    compaction::LogKept,
    error::StoreError,
    log::{Culprit, LogEntry, LogRecord},
    meta::{Meta, SnapshotMeta},
};
use self::{
    key::{Key, Kind},
    kv::{Batch, Kv},
    record::{Assembler, CHUNK_PAYLOAD_BYTES, Damaged, chunk_count, unseal},
};

/// The format that this build reads and writes.
pub const FORMAT_VERSION: u64 = 1;
/// How often a read begins anew because the document was compacted under it.
const READ_ATTEMPTS: usize = 8;

/// Reads documents. Cheap to clone; writing goes through [`writer::Writer`].
#[derive(Clone)]
pub struct Store {
    kv: Arc<dyn Kv>,
}

/// A document as it lies in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What is current.
    pub meta: Meta,
    /// The index stored with the snapshot; empty if there is no snapshot.
    pub index: Bytes,
    /// The log after the snapshot, without a gap; the first record begins exactly at the snapshot's position.
    pub records: Vec<LogRecord>,
    /// Where the log ends.
    pub end: Position,
    /// The bytes of all changes before `end`.
    pub bytes: u64,
}

/// A part of a document's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSlice {
    /// The changes from the position that was asked for.
    pub entries: Vec<LogEntry>,
    /// The position after the last of them.
    pub next: Position,
    /// The bytes of all changes before the first of them.
    pub bytes_before: u64,
}

impl Store {
    /// The store on `kv`. A new one is given its format version, durably.
    ///
    /// # Errors
    /// `Version` if another format wrote it, and what the floor says.
    pub fn open(kv: Arc<dyn Kv>) -> Result<Self, StoreError> {
        let known = FORMAT_VERSION;
        let key = key::version();
        let Some(value) = kv.get(&key)? else {
            if !is_empty(&*kv)? {
                return Err(StoreError::Version {
                    found: "none".into(),
                    known,
                });
            }
            let mut batch = Batch::default();
            let value = record::seal(&key, &FORMAT_VERSION.to_be_bytes());
            batch.put(key, value);
            kv.write(&batch)?;
            kv.sync()?;
            return Ok(Self { kv });
        };
        let payload = unseal(&key, &value).map_err(|damage| StoreError::StoreDamaged(damage.what))?;
        let found = payload.try_into().map(u64::from_be_bytes);
        match found {
            Ok(FORMAT_VERSION) => Ok(Self { kv }),
            Ok(other) => Err(StoreError::Version {
                found: other.to_string(),
                known,
            }),
            Err(_) => Err(StoreError::Version {
                found: "unreadable".into(),
                known,
            }),
        }
    }

    /// What is current in `document`; `None` if nobody has written it yet.
    ///
    /// # Errors
    /// `Damaged` for this document, `Io`.
    pub fn meta(&self, document: &DocumentId) -> Result<Option<Meta>, StoreError> {
        let mut chunk = 0;
        let mut assembler = Assembler::default();
        loop {
            let key = key::meta(document, chunk);
            let Some(value) = self
                .kv
                .get(&key)
                .map_err(|error| StoreError::reading(document, error))?
            else {
                if chunk == 0 && !self.has_any(document, Kind::Log)? {
                    return Ok(None);
                }
                return Err(StoreError::damaged(
                    document,
                    Damaged::new("its meta record is missing"),
                ));
            };
            let body = unseal(&key, &value)
                .and_then(|payload| assembler.push(chunk, payload))
                .map_err(|damage| StoreError::damaged(document, damage))?;
            if let Some(body) = body {
                let meta = Meta::decode(body.into()).map_err(|damage| StoreError::damaged(document, damage))?;
                return Ok(Some(meta));
            }
            chunk += 1;
        }
    }

    /// All that a room needs to open `document`; `None` if nobody has written it yet. It reads what is written, synced or
    /// not: no append to this document may be in flight.
    ///
    /// # Errors
    /// `Damaged` for this document, `Changing`, `Io`.
    pub fn load(&self, document: &DocumentId) -> Result<Option<Stored>, StoreError> {
        self.steady(document, |meta| {
            let Some(meta) = meta else { return Ok(None) };
            self.load_as(document, meta).map(Some)
        })
    }

    /// The changes from `from`, at most up to `to` (not included) and until `bytes_max` is reached, but at least one if
    /// `from` is before `to`. `to` is the last position known to be synced: what lies after it may be lost yet.
    ///
    /// # Errors
    /// `NotInLog` if the log begins later, `NoDocument`, `Damaged` (also if the log ends before `to`), `Io`.
    pub fn read_log(
        &self,
        document: &DocumentId,
        from: Position,
        to: Position,
        bytes_max: u64,
    ) -> Result<LogSlice, StoreError> {
        self.steady(document, |meta| {
            let log_start = meta.ok_or_else(|| StoreError::NoDocument(document.clone()))?.log_start;
            if from < log_start {
                return Err(StoreError::NotInLog { asked: from, log_start });
            }
            let mut slice = LogSlice {
                entries: Vec::new(),
                next: from,
                bytes_before: 0,
            };
            let mut bytes = 0;
            self.scan_log(document, from, |mut record| {
                record.trim_before(from);
                if slice.entries.is_empty() {
                    slice.bytes_before = record.bytes_before;
                }
                for entry in record.entries {
                    if slice.next >= to || (bytes >= bytes_max && !slice.entries.is_empty()) {
                        return ControlFlow::Break(());
                    }
                    bytes += entry.change.len() as u64;
                    slice.entries.push(entry);
                    slice.next = slice.next.plus(1);
                }
                ControlFlow::Continue(())
            })?;
            if slice.next < to && (bytes < bytes_max || slice.entries.is_empty()) {
                let damage = Damaged::new(format!("its log ends at {} and not at {to}", slice.next));
                return Err(StoreError::damaged(document, damage));
            }
            Ok(slice)
        })
    }

    /// The bytes of a snapshot from `offset`, at most `bytes_max` of them. Touches only the chunks it needs.
    ///
    /// # Errors
    /// `Damaged` for this document, also when the generation has been dropped; `Io`.
    pub fn read_snapshot(
        &self,
        document: &DocumentId,
        snapshot: &SnapshotMeta,
        offset: u64,
        bytes_max: u64,
    ) -> Result<Bytes, StoreError> {
        let end = offset.saturating_add(bytes_max).min(snapshot.bytes);
        let key = |chunk| key::snapshot(document, snapshot.generation, chunk);
        self.read_chunks(document, offset..end, snapshot.bytes, key)
    }

    /// The next documents in the order of their ids, after `after`, at most `limit` of them.
    ///
    /// # Errors
    /// What the floor says.
    pub fn documents(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<DocumentId>, StoreError> {
        let Range { mut start, end } = Kind::Meta.everywhere();
        if let Some(after) = after {
            start = Kind::Meta.all(after).end;
        }
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        self.kv.scan(&start..&end, &mut |key, _| {
            if let Some(Key::Meta { document, chunk: 0 }) = Key::parse(key) {
                found.push(document);
            }
            if found.len() < limit {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(found)
    }

    /// The hashes that `document` refuses for good.
    ///
    /// # Errors
    /// `Damaged` for this document, `Io`.
    pub fn quarantined(&self, document: &DocumentId) -> Result<BTreeSet<ChangeHash>, StoreError> {
        Ok(self
            .culprits(document)?
            .into_iter()
            .map(|culprit| culprit.hash)
            .collect())
    }

    /// The changes that were taken out of the log of `document`, in the order of their hashes.
    ///
    /// # Errors
    /// `Damaged` for this document, `Io`.
    pub fn culprits(&self, document: &DocumentId) -> Result<Vec<Culprit>, StoreError> {
        let Range { start, end } = Kind::Quarantine.all(document);
        let mut culprits = Vec::new();
        let mut value = Assembler::default();
        let mut each = |key: &[u8], bytes: &[u8]| {
            let Some(Key::Quarantine { hash, chunk, .. }) = Key::parse(key) else {
                return Err(Damaged::new("a key of its quarantine is garbled"));
            };
            if let Some(body) = value.push(chunk, unseal(key, bytes)?)? {
                culprits.push(Culprit::decode(hash, body.into())?);
            }
            Ok(())
        };
        self.scan_checked(document, &start..&end, &mut each)?;
        if value.is_open() {
            return Err(StoreError::damaged(
                document,
                Damaged::new("a quarantined change is cut short"),
            ));
        }
        Ok(culprits)
    }

    /// Bytes that the store takes on disk, or in memory.
    pub fn size_bytes(&self) -> u64 {
        self.kv.size_bytes()
    }

    fn load_as(&self, document: &DocumentId, meta: &Meta) -> Result<Stored, StoreError> {
        let index = match &meta.snapshot {
            Some(snapshot) => self.read_index(document, snapshot)?,
            None => Bytes::new(),
        };
        let start = meta.snapshot_end();
        let bytes = meta.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes_before);
        let mut stored = Stored {
            meta: meta.clone(),
            index,
            records: Vec::new(),
            end: start,
            bytes,
        };
        self.scan_log(document, start, |mut record| {
            record.trim_before(start);
            if !record.entries.is_empty() {
                stored.end = record.end();
                stored.bytes = record.bytes_end();
                stored.records.push(record);
            }
            ControlFlow::Continue(())
        })?;
        let begins_there = stored.records.first().is_none_or(|first| {
            first.position == start
                && meta
                    .snapshot
                    .as_ref()
                    .is_none_or(|covers| covers.bytes_before == first.bytes_before)
        });
        if !begins_there || stored.end < meta.log_end_min {
            let damage = Damaged::new(format!("its log does not go on from {start} to {}", meta.log_end_min));
            return Err(StoreError::damaged(document, damage));
        }
        Ok(stored)
    }

    fn read_index(&self, document: &DocumentId, snapshot: &SnapshotMeta) -> Result<Bytes, StoreError> {
        let key = |chunk| key::index(document, snapshot.generation, chunk);
        let index = self.read_chunks(document, 0..snapshot.index_bytes, snapshot.index_bytes, key)?;
        if crc32fast::hash(&index) != snapshot.index_crc {
            return Err(StoreError::damaged(
                document,
                Damaged::new("its index does not match its checksum"),
            ));
        }
        Ok(index)
    }

    /// Runs `read` on the current meta record, again if that changed meanwhile: then `read` may have met a log or a
    /// generation half removed.
    fn steady<T>(
        &self,
        document: &DocumentId,
        mut read: impl FnMut(Option<&Meta>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut before = self.meta(document)?;
        for _ in 0..READ_ATTEMPTS {
            let result = read(before.as_ref());
            let after = self.meta(document)?;
            if before == after {
                return result;
            }
            before = after;
        }
        Err(StoreError::Changing(document.clone()))
    }

    /// Visits the records of the log in order, beginning with the one that holds `from` (or ends there); each begins where
    /// the one before it ended.
    fn scan_log(
        &self,
        document: &DocumentId,
        from: Position,
        mut visit: impl FnMut(LogRecord) -> ControlFlow<()>,
    ) -> Result<(), StoreError> {
        let Range { start, end } = Kind::Log.all(document);
        let after = key::log(document, from.plus(1), 0);
        let reading = |error| StoreError::reading(document, error);
        let first = match self.kv.last(&start..&after).map_err(reading)? {
            Some((key, _)) => match Key::parse(&key) {
                Some(Key::Log { position, .. }) => key::log(document, position, 0),
                _ => {
                    return Err(StoreError::damaged(
                        document,
                        Damaged::new("a key of its log is garbled"),
                    ));
                }
            },
            None => start,
        };
        let mut records = Records::default();
        self.scan_until(document, &first..&end, &mut |key, value| {
            Ok(records.push(key, value)?.map_or(ControlFlow::Continue(()), &mut visit))
        })?;
        records
            .open_end()
            .map_or(Ok(()), |damage| Err(StoreError::damaged(document, damage)))
    }

    /// Visits all keys in `range`, which belong to `document`, until `each` meets damage.
    fn scan_checked(
        &self,
        document: &DocumentId,
        range: Range<&Vec<u8>>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Result<(), Damaged>,
    ) -> Result<(), StoreError> {
        self.scan_until(document, range, &mut |key, value| {
            each(key, value).map(ControlFlow::Continue)
        })
    }

    /// Visits the keys in `range`, which belong to `document`, until `each` breaks or meets damage.
    fn scan_until(
        &self,
        document: &DocumentId,
        range: Range<&Vec<u8>>,
        each: &mut dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Damaged>,
    ) -> Result<(), StoreError> {
        let mut failed = None;
        self.kv
            .scan(range.start..range.end, &mut |key, value| {
                each(key, value).unwrap_or_else(|damage| {
                    failed = Some(damage);
                    ControlFlow::Break(())
                })
            })
            .map_err(|error| StoreError::reading(document, error))?;
        failed.map_or(Ok(()), |damage| Err(StoreError::damaged(document, damage)))
    }

    /// The bytes in `range` of `total` bytes that lie in chunks under `key`.
    fn read_chunks(
        &self,
        document: &DocumentId,
        range: Range<u64>,
        total: u64,
        key: impl Fn(u32) -> Vec<u8>,
    ) -> Result<Bytes, StoreError> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        let damaged = |what: &str| StoreError::damaged(document, Damaged::new(what));
        let size = CHUNK_PAYLOAD_BYTES as u64;
        let number = |chunk: u64| u32::try_from(chunk).map_err(|_| damaged("its meta record tells an absurd length"));
        let (first, last) = (number(range.start / size)?, number((range.end - 1) / size)?);
        let mut bytes = Vec::new();
        let mut next = first;
        let mut take = |at: &[u8], value: &[u8]| {
            if at != key(next) {
                return Err(Damaged::new(format!("chunk {next} of a snapshot or index is missing")));
            }
            let payload = unseal(at, value)?;
            let is_end = u64::from(next) + 1 == chunk_count(total);
            let length = if is_end { total - u64::from(next) * size } else { size };
            if payload.len() as u64 != length {
                return Err(Damaged::new(format!(
                    "chunk {next} of a snapshot or index has the wrong length"
                )));
            }
            bytes.extend(payload);
            next += 1;
            Ok(())
        };
        self.scan_checked(document, &key(first)..&key(last.saturating_add(1)), &mut take)?;
        if next <= last {
            return Err(damaged("the end of its snapshot or index is missing"));
        }
        let skip = (range.start % size) as usize;
        let length = (range.end - range.start) as usize;
        Ok(Bytes::from(bytes).slice(skip..skip + length))
    }

    fn has_any(&self, document: &DocumentId, kind: Kind) -> Result<bool, StoreError> {
        let Range { start, end } = kind.all(document);
        let last = self
            .kv
            .last(&start..&end)
            .map_err(|error| StoreError::reading(document, error))?;
        Ok(last.is_some())
    }
}

/// Turns the keys and values of a log into records that follow each other.
#[derive(Debug, Default)]
struct Records {
    value: Assembler,
    /// Where the next record begins, and the bytes before it.
    next: Option<(Position, u64)>,
}

impl Records {
    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<Option<LogRecord>, Damaged> {
        let Some(Key::Log { position, chunk, .. }) = Key::parse(key) else {
            return Err(Damaged::new("a key of its log is garbled"));
        };
        if self.next.is_some_and(|(next, _)| next != position) && chunk == 0 {
            return Err(Damaged::new(format!("its log has a gap before {position}")));
        }
        let at = |damage: Damaged| Damaged::new(format!("the log at {position}: {}", damage.what));
        let body = unseal(key, value)
            .and_then(|payload| self.value.push(chunk, payload))
            .map_err(at)?;
        let Some(body) = body else { return Ok(None) };
        let record = LogRecord::decode(position, body.into()).map_err(at)?;
        if self.next.is_some_and(|next| next != (position, record.bytes_before)) {
            return Err(Damaged::new(format!(
                "the log at {position} does not continue what comes before it"
            )));
        }
        self.next = Some((record.end(), record.bytes_end()));
        Ok(Some(record))
    }

    /// A record that began and did not end.
    fn open_end(&self) -> Option<Damaged> {
        self.value
            .is_open()
            .then(|| Damaged::new("the last record of its log is cut short"))
    }
}

fn is_empty(kv: &dyn Kv) -> Result<bool, StoreError> {
    Ok(kv.last(&[]..&[u8::MAX])?.is_none())
}
