//! Reading documents: what is current, all of one, a part of its log or snapshot, a page of their names.

use std::{
    collections::BTreeSet,
    ops::{ControlFlow, Range},
};

use bytes::Bytes;
use syncline_protocol::{ChangeHash, DocumentId, Position};

use super::{
    LogSlice, Replayed, Store, StoreError, Stored,
    key::{self, Key, Kind},
    log::{self, Culprit, LogRecord},
    meta::{Meta, SnapshotMeta},
    record::{Assembler, CHUNK_PAYLOAD_BYTES, Damaged, unseal},
};

/// How often a read begins anew because the document was compacted under it.
const READ_ATTEMPTS: usize = 8;

impl Store {
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

    /// The index of `document` and its log behind that; `None` if nobody has written it yet. It reads what is written, synced or
    /// not: no append to this document may be in flight.
    ///
    /// # Errors
    /// `Damaged` for this document, `Changing`, `Io`.
    pub fn load(&self, document: &DocumentId) -> Result<Option<Stored>, StoreError> {
        let mut begin = |index| (index, Vec::new());
        let replayed = self.replay(document, &mut begin, &mut |(_, records), record| records.push(record))?;
        Ok(replayed.map(|replayed| {
            let (index, records) = replayed.made;
            Stored {
                meta: replayed.meta,
                index,
                records,
                end: replayed.end,
                bytes: replayed.bytes,
            }
        }))
    }

    /// As [`Store::load`], for whoever takes each record as it is read and keeps none: `begin` is given the index, and what it makes
    /// of that takes the records. It may begin more than once.
    ///
    /// # Errors
    /// As [`Store::load`]; what has been made is dropped.
    pub fn replay<T>(
        &self,
        document: &DocumentId,
        begin: &mut dyn FnMut(Bytes) -> T,
        take: &mut dyn FnMut(&mut T, LogRecord),
    ) -> Result<Option<Replayed<T>>, StoreError> {
        self.steady(document, |meta| {
            let Some(meta) = meta else { return Ok(None) };
            self.replay_as(document, meta, begin, take).map(Some)
        })
    }

    /// About how much [`Store::replay`] will read: the index, and the changes behind the snapshot. At least that, and what else is in the
    /// log's last record, which alone is looked at.
    ///
    /// # Errors
    /// `Damaged` for this document, `Io`.
    pub fn load_bytes(&self, document: &DocumentId) -> Result<(u64, u64), StoreError> {
        let snapshot = self.meta(document)?.and_then(|meta| meta.snapshot);
        let (index, before) = snapshot.map_or((0, 0), |snapshot| (snapshot.index_bytes, snapshot.bytes_before));
        let end = self.log_bytes_max(document)?;
        Ok((index, end.saturating_sub(before)))
    }

    /// The bytes of all changes up to the log's end, as if the last record held nothing else; 0 without a log.
    fn log_bytes_max(&self, document: &DocumentId) -> Result<u64, StoreError> {
        let Range { start, end } = Kind::Log.all(document);
        let reading = |error| StoreError::reading(document, error);
        let damaged = |damage| StoreError::damaged(document, damage);
        let Some((last, value)) = self.kv.last(&start..&end).map_err(reading)? else {
            return Ok(0);
        };
        // Its checksum proves the key, too.
        unseal(&last, &value).map_err(damaged)?;
        let Some(Key::Log { position, chunk, .. }) = Key::parse(&last) else {
            return Err(damaged(Damaged::new("a key of its log is garbled")));
        };
        let first = key::log(document, position, 0);
        let value = self.kv.get(&first).map_err(reading)?;
        let value = value.ok_or_else(|| damaged(Damaged::new(format!("the log at {position} lacks its beginning"))))?;
        let bytes_before = unseal(&first, &value).and_then(log::bytes_before_in_first_chunk);
        let record = (u64::from(chunk) + 1) * CHUNK_PAYLOAD_BYTES as u64;
        Ok(bytes_before.map_err(damaged)?.saturating_add(record))
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
            Ok(ControlFlow::Continue(()))
        };
        self.scan_until(document, &start..&end, &mut each)?;
        if value.is_open() {
            return Err(StoreError::damaged(
                document,
                Damaged::new("a quarantined change is cut short"),
            ));
        }
        Ok(culprits)
    }

    fn replay_as<T>(
        &self,
        document: &DocumentId,
        meta: &Meta,
        begin: &mut dyn FnMut(Bytes) -> T,
        take: &mut dyn FnMut(&mut T, LogRecord),
    ) -> Result<Replayed<T>, StoreError> {
        let index = match &meta.snapshot {
            Some(snapshot) => self.read_index(document, snapshot)?,
            None => Bytes::new(),
        };
        let start = meta.snapshot_end();
        let mut replayed = Replayed {
            meta: meta.clone(),
            made: begin(index),
            end: start,
            bytes: meta.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes_before),
        };
        let mut begins_there = true;
        self.scan_log(document, start, |mut record| {
            record.trim_before(start);
            if record.entries.is_empty() {
                return ControlFlow::Continue(());
            }
            // The others follow each other.
            if replayed.end == start {
                let has_bytes = meta.snapshot.is_none() || record.bytes_before == replayed.bytes;
                begins_there = record.position == start && has_bytes;
            }
            if !begins_there {
                return ControlFlow::Break(());
            }
            replayed.end = record.end();
            replayed.bytes = record.bytes_end();
            take(&mut replayed.made, record);
            ControlFlow::Continue(())
        })?;
        if !begins_there || replayed.end < meta.log_end_min {
            let damage = Damaged::new(format!("its log does not go on from {start} to {}", meta.log_end_min));
            return Err(StoreError::damaged(document, damage));
        }
        Ok(replayed)
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

    fn has_any(&self, document: &DocumentId, kind: Kind) -> Result<bool, StoreError> {
        let Range { start, end } = kind.all(document);
        let last = self
            .kv
            .last(&start..&end)
            .map_err(|error| StoreError::reading(document, error))?;
        Ok(last.is_some())
    }
}
