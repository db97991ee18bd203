//! Persistence: documents as a log of changes behind snapshots, in one ordered map of bytes.
//!
//! Read it upwards: `kv` is the floor (an ordered map, atomic batches, an explicit sync; in `memory` and in `sled`, the only
//! file that names it), `record` cuts values into checked chunks, `key` and `layout` say what lies where, `log` and `meta`
//! what the values mean, `read` reads documents by way of `scan`, `compaction` makes and removes generations, `writer` is
//! the one thread that writes, with one sync for all that wait, `life` notices when the store was put back from a copy,
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
mod error;
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
    log::{Culprit, LogEntry, LogRecord},
    meta::{Meta, SnapshotMeta},
};
use self::{
    kv::{Batch, Kv},
    record::unseal,
};

/// The format that this build reads and writes.
pub const FORMAT_VERSION: u64 = 1;

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
            return Ok(Self {
                kv,
                life: Life::default(),
            });
        };
        let payload = unseal(&key, &value).map_err(|damage| StoreError::StoreDamaged(damage.what))?;
        let found = payload.try_into().map(u64::from_be_bytes);
        match found {
            Ok(FORMAT_VERSION) => Ok(Self {
                life: life::last(&*kv)?,
                kv,
            }),
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

    /// Bytes that the store takes on disk, or in memory.
    pub fn size_bytes(&self) -> u64 {
        self.kv.size_bytes()
    }
}

fn is_empty(kv: &dyn Kv) -> Result<bool, StoreError> {
    Ok(kv.last(&[]..&[u8::MAX])?.is_none())
}
