//! Persistence: documents as a log of changes behind snapshots, in one ordered map of bytes.
//!
//! Read it upwards: `kv` is the floor (an ordered map, atomic and durable batches; in `memory`, and in `sled` on top of `journal`,
//! `tally`, `space`, `watchdog` and `directory`), `record` cuts values into checked chunks, `key` and `layout` say what lies where, `log` and `meta` what
//! the values mean, `read` reads documents by way of `scan`, `compaction` makes and removes generations, `writer` is
//! the one thread that commits, with one sync for all that wait, `life` notices when the store was put back from a copy,
//! `check` looks at everything, and `backup` copies it while it is in use. `logfile` reads the file under the floor as it lies there, `rebuild` makes a new store of a
//! damaged one, and `salvage` says what is in it.
//!
//! Reading blocks, so it is done on blocking threads. Nothing here reads a clock, and nothing above the floor knows files.

pub mod backup;
pub mod check;
mod codec;
mod compaction;
#[cfg(test)]
mod contract;
mod directory;
mod error;
mod journal;
mod key;
pub mod kv;
pub mod layout;
mod life;
mod log;
mod logfile;
pub mod memory;
mod meta;
mod read;
mod rebuild;
pub mod record;
pub mod salvage;
mod scan;
pub mod sled;
mod space;
mod tally;
mod watchdog;
pub mod writer;

use std::sync::Arc;

use bytes::Bytes;
use syncline_protocol::Position;

pub use self::{
    compaction::LogKept,
    error::StoreError,
    life::Life,
    log::{Culprit, LogEntry, LogRecord, NewRecord},
    meta::{Meta, SnapshotMeta},
};
use self::{
    kv::{Batch, Kv},
    record::unseal,
};

/// The format that this build writes. It reads 1, too, which had no journal, and makes it 2 when it serves it: whoever knows
/// no journal must not open a store that has one.
pub const FORMAT_VERSION: u64 = 2;

/// Reads documents. Cheap to clone; writing goes through [`writer::Writer`].
#[derive(Clone)]
pub struct Store {
    kv: Arc<dyn Kv>,
    life: Life,
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

/// A document as it lies in the store, with what was made of its index and its log.
#[derive(Clone, Debug)]
pub struct Replayed<T> {
    /// What is current.
    pub meta: Meta,
    /// What took the records.
    pub made: T,
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
    /// The store on `kv`, to look at. A new one is given its format version, durably. Whoever serves it calls [`Store::begin`].
    ///
    /// # Errors
    /// `Version` if another format wrote it, and what the floor says.
    pub fn open(kv: Arc<dyn Kv>) -> Result<Self, StoreError> {
        let known = FORMAT_VERSION;
        match version(&*kv)? {
            Version::Is(1..=FORMAT_VERSION) => {}
            Version::Is(other) => {
                return Err(StoreError::Version {
                    found: other.to_string(),
                    known,
                });
            }
            Version::Unreadable => {
                return Err(StoreError::Version {
                    found: "unreadable".into(),
                    known,
                });
            }
            Version::None if is_empty(&*kv)? => {
                write_version(&*kv)?;
            }
            Version::None => {
                return Err(StoreError::Version {
                    found: "none".into(),
                    known,
                });
            }
        }
        Ok(Self {
            life: life::last(&*kv)?,
            kv,
        })
    }

    /// Bytes that the store takes on disk, or in memory.
    pub fn size_bytes(&self) -> u64 {
        self.kv.size_bytes()
    }
}

/// What a store says of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    None,
    Is(u64),
    Unreadable,
}

fn version(kv: &dyn Kv) -> Result<Version, StoreError> {
    let key = key::version();
    let Some(value) = kv.get(&key)? else {
        return Ok(Version::None);
    };
    let payload = unseal(&key, &value).map_err(|damage| StoreError::StoreDamaged(damage.what))?;
    let number = payload.try_into().map(u64::from_be_bytes);
    Ok(number.map_or(Version::Unreadable, Version::Is))
}

/// Durably, and where a version that knows no journal finds it.
fn write_version(kv: &dyn Kv) -> Result<(), StoreError> {
    let mut batch = Batch::default();
    put_version(&mut batch);
    kv.commit(&batch)?;
    Ok(kv.settle()?)
}

fn put_version(batch: &mut Batch) {
    let key = key::version();
    let value = record::seal(&key, &FORMAT_VERSION.to_be_bytes());
    batch.put(key, value);
}

fn is_empty(kv: &dyn Kv) -> Result<bool, StoreError> {
    Ok(kv.last(&[]..&[u8::MAX])?.is_none())
}
