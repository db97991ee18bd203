//! Ordered walks over the keys of one document: the log as records that follow each other, chunks as the bytes they make.

use std::ops::{ControlFlow, Range};

use bytes::Bytes;
use syncline_protocol::{DocumentId, Position};

use super::{
    Store, StoreError,
    key::{self, Key, Kind},
    log::LogRecord,
    meta::SnapshotMeta,
    record::{Assembler, CHUNK_PAYLOAD_BYTES, Damaged, chunk_count, unseal},
};

/// Space is made at once for what is read, but for no more than this, since a record may tell any length.
const SPACE_AHEAD_MAX: usize = 4 << 20;

/// Takes a key and its value, and says whether to go on.
type Each<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, Damaged> + 'a;

impl Store {
    pub(super) fn read_index(&self, document: &DocumentId, snapshot: &SnapshotMeta) -> Result<Bytes, StoreError> {
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

    /// Visits the records of the log in order, beginning with the one that holds `from` (or ends there); each begins where
    /// the one before it ended.
    pub(super) fn scan_log(
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

    /// Visits the keys in `range`, which belong to `document`, until `each` breaks or meets damage.
    pub(super) fn scan_until(
        &self,
        document: &DocumentId,
        range: Range<&Vec<u8>>,
        each: &mut Each<'_>,
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
    pub(super) fn read_chunks(
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
        let chunks = (last - first) as usize + 1;
        let mut bytes = Vec::with_capacity(chunks.saturating_mul(CHUNK_PAYLOAD_BYTES).min(SPACE_AHEAD_MAX));
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
            Ok(ControlFlow::Continue(()))
        };
        self.scan_until(document, &key(first)..&key(last.saturating_add(1)), &mut take)?;
        if next <= last {
            return Err(damaged("the end of its snapshot or index is missing"));
        }
        let skip = (range.start % size) as usize;
        let length = (range.end - range.start) as usize;
        Ok(Bytes::from(bytes).slice(skip..skip + length))
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
