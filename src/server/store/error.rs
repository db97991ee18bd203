//! What the store answers when it can't: one enum for all its callers, cheap to clone, each text says what to do.

use syncline_protocol::{DocumentId, Position};

use super::{kv::KvError, record::Damaged};

/// Why the store could not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// No space left; nothing of this batch was written. Reads go on, and writes do as soon as there is space.
    #[error("the disk is full: free some space, writing then goes on by itself")]
    Full,
    /// What was to be written is larger than the store takes at once; nothing of it was written.
    #[error("a batch is too large for the store: {0}")]
    TooLarge(&'static str),
    /// A sync failed earlier: nothing can be called durable any more in this process.
    #[error("the store is read-only since the disk failed to sync ({0}): check the disk, then restart")]
    ReadOnly(String),
    /// The writer has been closed.
    #[error("the store is closed")]
    Closed,
    /// Another process holds the directory.
    #[error("another syncline serves {0}: stop it, or choose another data directory")]
    InUse(String),
    /// Written by a version that this one does not know, or not by Syncline.
    #[error("the store has format {found}, this syncline reads format {known}: start the version that wrote it")]
    Version {
        /// What the store says.
        found: String,
        /// What this build reads.
        known: u64,
    },
    /// There was a store, and all of it is gone.
    #[error("the store is empty, but was in use: put a backup in its place, or choose an empty data directory")]
    Emptied,
    /// The directory is somebody else's, or what is left of a store.
    #[error("the directory holds no store, but other files ({0}): choose another data directory, or empty this one")]
    NotAStore(String),
    /// What was named is no directory.
    #[error("{0} is a file: name a directory for the store")]
    NotADirectory(String),
    /// One document cannot be read; the others can.
    #[error(
        "the document {document} is damaged: {what}; stop the server, `syncline salvage` writes out what can be read of it"
    )]
    Damaged {
        /// Which document.
        document: DocumentId,
        /// What is wrong with it.
        what: String,
    },
    /// The store as a whole cannot be read.
    #[error(
        "the store is damaged: {0}; restore a backup, or make a new store of what can be read with `syncline salvage`"
    )]
    StoreDamaged(String),
    /// Not even a salvage gets anything out of it.
    #[error("nothing can be read of the store ({0}): restore the data directory from a backup")]
    Unreadable(String),
    /// The document has no log at this position any more: the snapshot covers it.
    #[error("position {asked} is not in the log, which begins at {log_start}")]
    NotInLog {
        /// The position that was asked for.
        asked: Position,
        /// The first one that the log still has.
        log_start: Position,
    },
    /// There is no such document.
    #[error("there is no document {0}")]
    NoDocument(DocumentId),
    /// The document was compacted several times while it was read.
    #[error("the document {0} changes faster than it can be read: try again")]
    Changing(DocumentId),
    /// The system failed.
    #[error("the store cannot be read or written: {0}")]
    Io(String),
}

impl StoreError {
    pub(super) fn damaged(document: &DocumentId, damage: Damaged) -> Self {
        Self::Damaged {
            document: document.clone(),
            what: damage.what,
        }
    }

    /// What the floor said while one document was read.
    pub(super) fn reading(document: &DocumentId, error: KvError) -> Self {
        match error {
            KvError::Damaged(what) => Self::Damaged {
                document: document.clone(),
                what,
            },
            KvError::Full => Self::Full,
            KvError::TooLarge(what) => Self::TooLarge(what),
            KvError::Io(what) => Self::Io(what),
        }
    }
}

impl From<KvError> for StoreError {
    fn from(error: KvError) -> Self {
        match error {
            KvError::Full => Self::Full,
            KvError::TooLarge(what) => Self::TooLarge(what),
            KvError::Io(what) => Self::Io(what),
            KvError::Damaged(what) => Self::StoreDamaged(what),
        }
    }
}
