//! The readers of the store's records: chunks and what is put together from them, a document's log and meta record, its index,
//! and the log file underneath. What is read can be written, and reads the same again.

#[path = "../../../src/server/store/codec.rs"]
mod codec;
#[path = "../../../src/server/store/kv.rs"]
mod kv;
#[path = "../../../src/server/store/log.rs"]
mod log;
#[path = "../../../src/server/store/meta.rs"]
mod meta;
#[path = "../../../src/server/store/record.rs"]
mod record;

use super::{logfile, tagged};
use crate::{
    history::{Style, history},
    rng::Rng,
};
use bytes::Bytes;
use log::{Culprit, LogEntry, LogRecord, bytes_before_in_first_chunk};
use meta::{Meta, SnapshotMeta};
use record::{Assembler, CHUNK_PAYLOAD_BYTES, put_value, seal, unseal};
use syncline::engine::{
    gate::{self, Subject},
    index::Index,
};
use syncline_protocol::{ChangeHash, Epoch, Limits, Position};

const RECORD: u8 = 0;
const META: u8 = 1;
const CULPRIT: u8 = 2;
const CHUNKS: u8 = 3;
const INDEX: u8 = 4;
const LOG_FILE: u8 = 5;
const PARTS: u8 = 6;
const KEY: &[u8] = b"a key";

pub(super) fn run(data: &[u8]) {
    let Some((&part, rest)) = data.split_first() else {
        return;
    };
    let body = Bytes::copy_from_slice(rest);
    match part % PARTS {
        RECORD => {
            let read = |body| LogRecord::decode(Position::new(7), body).ok();
            let _ = bytes_before_in_first_chunk(rest);
            if let Some(record) = read(body) {
                assert_eq!(read(record.encode().into()), Some(record));
            }
        }
        META => {
            if let Ok(meta) = Meta::decode(body) {
                assert_eq!(Meta::decode(meta.encode().into()), Ok(meta));
            }
        }
        CULPRIT => {
            if let Ok(culprit) = Culprit::decode(ChangeHash([0; 32]), body) {
                let again = Culprit::decode(culprit.hash, culprit.encode().into());
                assert_eq!(again, Ok(culprit));
            }
        }
        CHUNKS => chunks(rest),
        INDEX => {
            if let Ok(index) = Index::decode(rest) {
                let encoded = index.encode();
                let again = Index::decode(&encoded).expect("what was written is read");
                assert_eq!(again.encode(), encoded);
            }
        }
        _ => logfile::read(rest),
    }
}

/// Bytes that claim to be a value in chunks; the first of them says how long the last chunk is.
fn chunks(data: &[u8]) {
    let _ = unseal(KEY, data);
    assert_eq!(unseal(KEY, &seal(KEY, data)), Ok(data));
    let mut assembler = Assembler::default();
    for (number, payload) in (0..).zip(data.chunks(CHUNK_PAYLOAD_BYTES)) {
        match assembler.push(number, payload) {
            Ok(Some(body)) => assert!(body.len() < data.len()),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    assembler.is_open();
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let style = Style {
        writers: 2,
        steps: 20,
        marks: true,
    };
    let changes = history(&mut Rng::new(3), style);
    let mut index = Index::default();
    let entry = |change: &automerge::Change| LogEntry {
        subject: "somebody".into(),
        change: Bytes::copy_from_slice(change.raw_bytes()),
    };
    for change in &changes {
        let read = gate::read(change.raw_bytes().to_vec().into(), &Limits::default()).and_then(gate::decode);
        index.admit(&read.expect("an honest change is read"), &Subject("somebody".into()));
    }
    let record = LogRecord {
        position: Position::new(7),
        bytes_before: 1_000,
        entries: changes.iter().take(3).map(entry).collect(),
    };
    let place = (Position::new(9), 2_000);
    let snapshot = SnapshotMeta::new(1, place, vec![ChangeHash([1; 32])], b"snapshot", b"index");
    let meta = Meta {
        epoch: Epoch::new(5),
        log_start: Position::new(0),
        log_end_min: Position::new(9),
        snapshot: Some(snapshot),
    };
    let culprit = Culprit {
        hash: ChangeHash([2; 32]),
        entry: entry(&changes[0]),
    };
    let mut batch = kv::Batch::default();
    put_value(&mut batch, &record.encode(), |_| KEY.to_vec());
    let mut seeds = vec![
        tagged(RECORD, &record.encode()),
        tagged(META, &meta.encode()),
        tagged(CULPRIT, &culprit.encode()),
        tagged(INDEX, &index.encode()),
    ];
    seeds.extend(logfile::seeds().iter().map(|seed| tagged(LOG_FILE, seed)));
    seeds
}
