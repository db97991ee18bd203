//! What is current in a document: its epoch, its snapshot, and where its log begins.

use bytes::Bytes;
use syncline_protocol::{ChangeHash, Epoch, Position};

use super::{
    codec::{Reader, put_number},
    record::Damaged,
};

const META_FORMAT: u8 = 1;

/// The record that makes a document exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The life of the log: positions of another epoch say nothing.
    pub epoch: Epoch,
    /// The first position that is still in the log.
    pub log_start: Position,
    /// The log reaches at least to here: a shorter one has lost something.
    pub log_end_min: Position,
    /// The current snapshot, once there is one.
    pub snapshot: Option<SnapshotMeta>,
}

/// One generation of a document's snapshot, with the index that was stored beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Its number, from 1, one more at each compaction.
    pub generation: u64,
    /// It covers the changes before this position.
    pub position: Position,
    /// The bytes of all changes before `position`.
    pub bytes_before: u64,
    /// The heads of the document at `position`.
    pub heads: Vec<ChangeHash>,
    /// The length of the snapshot.
    pub bytes: u64,
    /// CRC-32 of the whole snapshot.
    pub crc: u32,
    /// The length of the index.
    pub index_bytes: u64,
    /// CRC-32 of the whole index.
    pub index_crc: u32,
}

impl SnapshotMeta {
    /// Describes `snapshot` and `index`, taken at `position`.
    pub fn new(
        generation: u64,
        (position, bytes_before): (Position, u64),
        heads: Vec<ChangeHash>,
        snapshot: &[u8],
        index: &[u8],
    ) -> Self {
        Self {
            generation,
            position,
            bytes_before,
            heads,
            bytes: snapshot.len() as u64,
            crc: crc32fast::hash(snapshot),
            index_bytes: index.len() as u64,
            index_crc: crc32fast::hash(index),
        }
    }
}

impl Meta {
    /// The number of the generation that a compaction writes next.
    pub fn next_generation(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |snapshot| snapshot.generation) + 1
    }

    /// Where the snapshot ends: the log after it makes the document whole.
    pub fn snapshot_end(&self) -> Position {
        self.snapshot
            .as_ref()
            .map_or(self.log_start, |snapshot| snapshot.position)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![META_FORMAT];
        put_number(&mut out, self.epoch.number());
        put_number(&mut out, self.log_start.number());
        put_number(&mut out, self.log_end_min.number());
        put_number(&mut out, u64::from(self.snapshot.is_some()));
        if let Some(snapshot) = &self.snapshot {
            put_number(&mut out, snapshot.generation);
            put_number(&mut out, snapshot.position.number());
            put_number(&mut out, snapshot.bytes_before);
            put_number(&mut out, snapshot.bytes);
            put_number(&mut out, u64::from(snapshot.crc));
            put_number(&mut out, snapshot.index_bytes);
            put_number(&mut out, u64::from(snapshot.index_crc));
            put_number(&mut out, snapshot.heads.len() as u64);
            for head in &snapshot.heads {
                out.extend(head.0);
            }
        }
        out
    }

    pub(super) fn decode(body: Bytes) -> Result<Self, Damaged> {
        let mut reader = Reader::new(body);
        let format = reader.byte()?;
        if format != META_FORMAT {
            return Err(Damaged::new(format!(
                "the document's meta record has the unknown format {format}"
            )));
        }
        let epoch = Epoch::new(reader.number()?);
        let log_start = Position::new(reader.number()?);
        let log_end_min = Position::new(reader.number()?);
        let snapshot = match reader.number()? {
            0 => None,
            1 => Some(decode_snapshot(&mut reader)?),
            other => {
                return Err(Damaged::new(format!(
                    "the document's meta record counts {other} snapshots"
                )));
            }
        };
        reader.end()?;
        Ok(Self {
            epoch,
            log_start,
            log_end_min,
            snapshot,
        })
    }
}

fn decode_snapshot(reader: &mut Reader) -> Result<SnapshotMeta, Damaged> {
    let crc = |number| u32::try_from(number).map_err(|_| Damaged::new("a checksum in the meta record is too large"));
    Ok(SnapshotMeta {
        generation: reader.number()?,
        position: Position::new(reader.number()?),
        bytes_before: reader.number()?,
        bytes: reader.number()?,
        crc: crc(reader.number()?)?,
        index_bytes: reader.number()?,
        index_crc: crc(reader.number()?)?,
        heads: (0..reader.count()?).map(|_| reader.hash()).collect::<Result<_, _>>()?,
    })
}
