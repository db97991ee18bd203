//! Builds a new store of what can be read of a damaged one, which stays as it is.

use std::{
    fs::{File, TryLockError},
    io,
    ops::Range,
    path::Path,
};

use super::{
    FORMAT_VERSION, StoreError, key,
    kv::{Batch, Kv},
    layout::COMPACTION_BATCH_BYTES,
    logfile::{LogFile, carve},
    record::{seal, unseal},
    sled::{SledKv, SledOptions},
    tally::Tally,
};

/// What a damaged store is known to lack, but not of which document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Batches that were synced and are not in the log.
    pub batches: u64,
    /// Damaged pieces of the log that may have been about any document.
    pub unplaced: u64,
    /// Keys between these may be missing, or have an older value.
    pub doubts: Vec<Range<Vec<u8>>>,
}

impl Missing {
    /// Whether any document may lack something.
    pub(super) fn is_anywhere(&self) -> bool {
        self.batches > 0 || self.unplaced > 0
    }
}

/// Makes a store in `new` of what can be read of the one in `directory`. It is another life of that.
///
/// # Errors
/// `InUse` if somebody serves the store, `Unreadable` if there is nothing in it, `Io`.
pub(super) fn rebuild(directory: &Path, new: &Path) -> Result<(SledKv, Missing), StoreError> {
    let _locks = lock(directory)?;
    let synced = Tally::look(directory);
    let log = LogFile::open(&directory.join(SledKv::LOG_FILE));
    let log = log.map_err(|error| StoreError::Io(format!("{}: {error}", directory.display())))?;
    let kv = SledKv::open(new, SledOptions::default())?;
    let mut batch = Batch::default();
    let carved = carve(&log, synced, &mut |key, value| {
        batch.put(key.to_vec(), value.to_vec());
        if batch.bytes() < COMPACTION_BATCH_BYTES {
            return Ok(());
        }
        Ok(kv.write(&std::mem::take(&mut batch))?)
    })?;
    if carved.keys == 0 {
        return Err(StoreError::Unreadable("no key in its log has a value".into()));
    }
    kv.write(&batch)?;
    let mut marks = Batch::default();
    let version = key::version();
    let written = kv.get(&version)?;
    if written.is_none_or(|value| unseal(&version, &value).is_err()) {
        let value = seal(&version, &FORMAT_VERSION.to_be_bytes());
        marks.put(version, value);
    }
    // Whoever serves it finds that it is not where it was, and begins all documents' epochs anew.
    marks.put(key::life(), Vec::new());
    kv.write(&marks)?;
    kv.sync()?;
    let missing = Missing {
        batches: synced.unwrap_or(0).saturating_sub(carved.batches),
        unplaced: carved.unplaced,
        doubts: carved.doubts,
    };
    Ok((kv, missing))
}

/// Takes the locks of whoever would serve the directory.
fn lock(directory: &Path) -> Result<Vec<File>, StoreError> {
    let io = |error: io::Error| StoreError::Io(format!("{}: {error}", directory.display()));
    let mut locks = Vec::new();
    for name in SledKv::LOCK_FILES {
        let file = match File::open(directory.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(io)?,
        };
        match file.try_lock() {
            Ok(()) => locks.push(file),
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(directory.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
    }
    Ok(locks)
}
