//! The floor of the store: an ordered map of bytes with atomic, durable batches.
//!
//! Two implementations serve, `memory` and `sled`; a simulator adds one whose disk forgets what was not made durable. Whatever
//! stands above this trait is deterministic: the same calls give the same keys and values.

use std::ops::{ControlFlow, Range};

/// What a scan calls for each key and value, in the order of the keys; `Break` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// A key and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// An ordered map from bytes to bytes, on durable storage. One thread commits; any number read.
pub trait Kv: Send + Sync + 'static {
    /// The value of `key`.
    ///
    /// # Errors
    /// `Damaged` when the store notices that it cannot be read, `Io` when the system fails.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Visits all keys from `range.start` (included) to `range.end` (not included), in order. A scan may see a batch half
    /// applied when one is written meanwhile; a single `get` never does.
    ///
    /// # Errors
    /// As `get`; what was visited before the error is good.
    fn scan(&self, range: Range<&[u8]>, visit: &mut Visit<'_>) -> Result<(), KvError>;

    /// The last key in `range`, with its value.
    ///
    /// # Errors
    /// As `get`.
    fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError>;

    /// Makes `batch` durable, all or nothing: it survives a power cut. Then calls `durable`, once; whoever reads from then on finds
    /// the batch, and nobody before. `durable` itself must not read: it would wait for itself.
    ///
    /// # Errors
    /// `Full` when there is no space, and `TooLarge`: nothing of it was written, and another batch may be tried. After any other error no
    /// further one is taken; if `durable` was not called, nobody knows what is durable of this batch: the system may have dropped what it
    /// could not write.
    fn commit_telling(&self, batch: &Batch, durable: &mut dyn FnMut()) -> Result<(), KvError>;

    /// Makes `batch` durable, and waits until it is visible.
    ///
    /// # Errors
    /// As [`Kv::commit_telling`].
    fn commit(&self, batch: &Batch) -> Result<(), KvError> {
        self.commit_telling(batch, &mut || ())
    }

    /// Has what was committed lie where whoever knows only the floor's former formats finds it.
    ///
    /// # Errors
    /// As [`Kv::commit_telling`].
    fn settle(&self) -> Result<(), KvError> {
        Ok(())
    }

    /// Whether no batch is taken any more: a write or sync has failed, maybe one that a reader needed.
    fn is_spoilt(&self) -> bool {
        false
    }

    /// Sets aside the space that the next group needs, where that is not the case.
    ///
    /// # Errors
    /// `Full` while there is no space for it; after any other error no batch is taken.
    fn restore_reserve(&self) -> Result<(), KvError>;

    /// What tells the place where the store lies from any copy of it; `None` if it is not marked yet.
    ///
    /// # Errors
    /// `Io`.
    fn origin(&self) -> Result<Option<Vec<u8>>, KvError>;

    /// Marks the place where the store lies, and answers with what [`Kv::origin`] says from now on.
    ///
    /// # Errors
    /// `Full`, `Io`.
    fn mark_origin(&self) -> Result<Vec<u8>, KvError>;

    /// Bytes taken on disk (or in memory), for the metrics.
    fn size_bytes(&self) -> u64;
}

/// Why the floor could not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// No space on the device, or a quota reached.
    #[error("the disk is full")]
    Full,
    /// No batch may be like this one, for this reason.
    #[error("a batch is too large: {0}")]
    TooLarge(&'static str),
    /// The system failed to read or write.
    #[error("{0}")]
    Io(String),
    /// The store noticed that what it reads is not what it wrote.
    #[error("{0}")]
    Damaged(String),
}

/// One write of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Sets `key` to `value`.
    Put {
        /// The key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
    },
    /// Removes `key`; it need not exist.
    Delete {
        /// The key.
        key: Vec<u8>,
    },
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Puts and deletes, applied in order and atomically: of two writes to one key the later wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    writes: Vec<Write>,
    bytes: usize,
    deletes: usize,
}

impl Batch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        self.bytes += key.len() + value.len();
        self.writes.push(Write::Put { key, value });
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.deletes += 1;
        self.writes.push(Write::Delete { key });
    }

    /// Appends all writes of `other`.
    pub fn extend(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.deletes += other.deletes;
        self.writes.extend(other.writes);
    }

    /// The writes, in order.
    pub fn writes(&self) -> &[Write] {
        &self.writes
    }

    /// Keys and values, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many keys it removes.
    pub fn deletes(&self) -> usize {
        self.deletes
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }
}
