//! What is written for each verb of the store, as batches: pure functions, so that every floor gets the same bytes.

use syncline_protocol::{DocumentId, Epoch, Position};

use super::{
    key,
    kv::Batch,
    log::{Culprit, LogRecord, NewEntries, NewRecord},
    meta::{Meta, SnapshotMeta},
    record::{CHUNK_PAYLOAD_BYTES, put_value, seal},
};

/// A compaction writes its snapshot in batches of about this size, so that the edits of other rooms go in between.
pub const COMPACTION_BATCH_BYTES: usize = 256 << 10;
const CHUNKS_PER_BATCH: usize = COMPACTION_BATCH_BYTES / CHUNK_PAYLOAD_BYTES;

/// Appends `record` to the log. With `first`, the document comes into being with it, in `epoch`.
///
/// The record begins where the log ends, and no other batch for this document may be in flight that does not precede it.
pub fn append(document: &DocumentId, epoch: Epoch, record: &LogRecord, first: bool) -> Batch {
    append_new(document, epoch, &record.as_new(), first)
}

/// As [`append`], straight from what is in memory.
pub fn append_new<'a>(
    document: &DocumentId,
    epoch: Epoch,
    record: &NewRecord<impl NewEntries<'a>>,
    first: bool,
) -> Batch {
    assert!(record.end() > record.position, "a log record holds at least one change");
    let mut batch = Batch::default();
    if first {
        let meta = Meta {
            epoch,
            log_start: record.position,
            log_end_min: record.end(),
            snapshot: None,
        };
        put_meta(&mut batch, document, &meta);
    }
    put_log(&mut batch, document, record.position, &record.encode());
    batch
}

/// Step 1 of a compaction: the chunks of the snapshot and the index of a generation that is not current yet, in batches of
/// about [`COMPACTION_BATCH_BYTES`]. Nobody reads them before [`flip`].
pub fn snapshot<'a>(
    document: &'a DocumentId,
    generation: u64,
    snapshot: &'a [u8],
    index: &'a [u8],
) -> impl Iterator<Item = Batch> + 'a {
    let of_snapshot = chunk_batches(snapshot, move |chunk| key::snapshot(document, generation, chunk));
    let of_index = chunk_batches(index, move |chunk| key::index(document, generation, chunk));
    of_snapshot.chain(of_index)
}

/// Step 3 of a compaction, after the chunks are synced and read back: makes the generation current.
pub fn flip(document: &DocumentId, meta: &Meta, snapshot: SnapshotMeta) -> (Meta, Batch) {
    let meta = Meta {
        snapshot: Some(snapshot),
        ..meta.clone()
    };
    let mut batch = Batch::default();
    put_meta(&mut batch, document, &meta);
    (meta, batch)
}

pub(super) fn put_meta(batch: &mut Batch, document: &DocumentId, meta: &Meta) {
    put_value(batch, &meta.encode(), |chunk| key::meta(document, chunk));
}

pub(super) fn put_record(batch: &mut Batch, document: &DocumentId, record: &LogRecord) {
    put_log(batch, document, record.position, &record.encode());
}

fn put_log(batch: &mut Batch, document: &DocumentId, position: Position, body: &[u8]) {
    put_value(batch, body, |chunk| key::log(document, position, chunk));
}

pub(super) fn put_culprit(batch: &mut Batch, document: &DocumentId, culprit: &Culprit) {
    put_value(batch, &culprit.encode(), |chunk| {
        key::quarantine(document, &culprit.hash, chunk)
    });
}

fn chunk_batches<'a>(bytes: &'a [u8], key: impl Fn(u32) -> Vec<u8> + Copy + 'a) -> impl Iterator<Item = Batch> + 'a {
    (0..)
        .step_by(CHUNKS_PER_BATCH)
        .zip(bytes.chunks(CHUNKS_PER_BATCH * CHUNK_PAYLOAD_BYTES))
        .map(move |(first, part)| {
            let mut batch = Batch::default();
            for (chunk, payload) in (first..).zip(part.chunks(CHUNK_PAYLOAD_BYTES)) {
                let key = key(chunk);
                let value = seal(&key, payload);
                batch.put(key, value);
            }
            batch
        })
}
