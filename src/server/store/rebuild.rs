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
    let journal = Content::read(directory).map_err(io)?;
    let (records, settled) = match &journal {
        Content::Records(records) => (records, Some(Synced::Place(records.log_end))),
        Content::Blank(left) | Content::Damaged(left) => {
            let last = (!left.batches.is_empty()).then(|| left.last());
            (left, synced.max(last).map(Synced::Batch))
        }
    };
    let given = records.given;
    let log = LogFile::open(&directory.join(SledKv::LOG_FILE), given).map_err(io)?;
    let kv = SledKv::open(new, SledOptions::default())?;
    let mut batch = Batch::default();
    let carved = carve(&log, settled, &mut |key, value| {
        // One that is longer than values are is damaged, and stays so.
        batch.put(key.to_vec(), value[..value.len().min(VALUE_BYTES_MAX)].to_vec());
        if batch.bytes() < COMPACTION_BATCH_BYTES {
            return Ok(());
        }
        Ok(kv.commit(&std::mem::take(&mut batch))?)
    })?;
    kv.commit(&batch)?;
    if carved.keys == 0 && records.batches.is_empty() {
        return Err(StoreError::Unreadable("no key in its log has a value".into()));
    }
    for (_, batch) in records.after(replayed_from(&journal, carved.batches)) {
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
        batches: missing_batches(&journal, carved.batches, synced.unwrap_or(0)),
        unplaced: carved.unplaced,
        doubts: carved.doubts,
    };
    Ok((kv, missing))
}

/// Behind which batch those of the journal count, if the log has `carved` of them.
fn replayed_from(journal: &Content, carved: u64) -> u64 {
    match journal {
        // They came after what the log was made durable with, and may be in it in part.
        Content::Damaged(records) | Content::Records(records) if records.last() >= carved => records.base,
        // The log holds what is newer than the first of these, or it was closed and holds them all.
        Content::Blank(_) | Content::Damaged(_) | Content::Records(_) => carved,
    }
}

/// How many batches neither the journal nor the log has, which has `carved` of them.
fn missing_batches(journal: &Content, carved: u64, synced: u64) -> u64 {
    let (Content::Blank(records) | Content::Damaged(records) | Content::Records(records)) = journal;
    let held = if carved < records.base {
        carved + records.batches.len() as u64
    } else {
        carved.max(records.last())
    };
    let is_short = match journal {
        // What is left of a journal that was retired is in the log, and may have been written over in part.
        Content::Blank(_) => false,
        Content::Damaged(_) => records.is_cut || records.batches.is_empty() || records.last() < carved,
        Content::Records(_) => records.is_cut || records.last() < carved,
    };
    let missing = synced.max(records.last()).saturating_sub(held);
    missing.max(is_short.into())
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
