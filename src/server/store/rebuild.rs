//! Builds a new store of what can be read of a damaged one, which stays as it is.

use std::{
    fs::{File, TryLockError},
    io,
    ops::Range,
    path::Path,
};

use super::{
    StoreError, Version,
    journal::Content,
    key,
    kv::{Batch, Kv},
    layout::COMPACTION_BATCH_BYTES,
    logfile::{LogFile, Synced, carve},
    put_version,
    record::VALUE_BYTES_MAX,
    sled::{SledKv, SledOptions},
    tally::Tally,
    version,
};

/// What a damaged store is known to lack, but not of which document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Batches that were synced and are neither in the log nor in the journal.
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
    let io = |error: io::Error| StoreError::Io(format!("{}: {error}", directory.display()));
    let records = match Content::read(directory).map_err(io)? {
        Content::Records(records) => Some(records),
        Content::Blank | Content::Damaged => None,
    };
    let given = records.as_ref().and_then(|records| records.given);
    let log = LogFile::open(&directory.join(SledKv::LOG_FILE), given).map_err(io)?;
    let kv = SledKv::open(new, SledOptions::default())?;
    let mut batch = Batch::default();
    let settled = match &records {
        Some(records) => Some(Synced::Place(records.log_end)),
        None => synced.map(Synced::Batch),
    };
    let carved = carve(&log, settled, &mut |key, value| {
        // One that is longer than values are is damaged, and stays so.
        batch.put(key.to_vec(), value[..value.len().min(VALUE_BYTES_MAX)].to_vec());
        if batch.bytes() < COMPACTION_BATCH_BYTES {
            return Ok(());
        }
        Ok(kv.commit(&std::mem::take(&mut batch))?)
    })?;
    kv.commit(&batch)?;
    let records = records.unwrap_or_default();
    if carved.keys == 0 && records.batches.is_empty() {
        return Err(StoreError::Unreadable("no key in its log has a value".into()));
    }
    // They came after what the log was made durable with, and may be in it or not.
    for batch in &records.batches {
        kv.commit(batch)?;
    }
    let mut marks = Batch::default();
    if !matches!(version(&kv), Ok(Version::Is(_))) {
        put_version(&mut marks);
    }
    // Whoever serves it finds that it is not where it was, and begins all documents' epochs anew.
    marks.put(key::life(), Vec::new());
    kv.commit(&marks)?;
    let missing = Missing {
        batches: synced.unwrap_or(0).saturating_sub(carved.batches.max(records.last())),
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
