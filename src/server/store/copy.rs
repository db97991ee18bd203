//! Opens a copy of a damaged store: opening writes, and the damaged directory shall stay as it is.
//!
//! It may use the files of the directory as they lie there; it writes only within the scratch directory that it is given.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use super::{
    StoreError,
    sled::{SledKv, SledOptions},
    tally::Tally,
};

/// Copies the store in `directory` into `scratch` and opens it there, as far as its log goes. Also how many batches were
/// synced and are behind the end of its log.
///
/// # Errors
/// `InUse` if somebody serves the store, `Unreadable` if it does not open at all, `Io`.
pub(super) fn open(directory: &Path, scratch: &Path) -> Result<(SledKv, u64), StoreError> {
    let _locks = lock(directory)?;
    let synced = Tally::look(directory).unwrap_or(0);
    let kv = open_copy(directory, scratch)?;
    let lost = synced.saturating_sub(kv.batches()?);
    Ok((kv, lost))
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

/// If the copy does not open, another one may without the summary of the log: that is then read from its beginning.
fn open_copy(directory: &Path, scratch: &Path) -> Result<SledKv, StoreError> {
    let first = scratch.join("first");
    copy(directory, &first, &|_| true)?;
    let refused = match SledKv::open(&first, SledOptions::default()) {
        Err(StoreError::StoreDamaged(what) | StoreError::Io(what)) => what,
        other => return other,
    };
    let second = scratch.join("second");
    copy(directory, &second, &|name| !SledKv::is_summary(name))?;
    SledKv::open(&second, SledOptions::default()).map_err(|_| StoreError::Unreadable(refused))
}

fn copy(from: &Path, to: &Path, is_wanted: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
    let copied = || -> io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
            let text = name.to_string_lossy();
            if path.is_file() && SledKv::is_needed(&text) && is_wanted(&text) {
                fs::copy(&path, to.join(&name))?;
            }
        }
        Ok(())
    };
    copied().map_err(|error| {
        StoreError::Io(format!(
            "the copy to work on cannot be made ({error}): choose an output directory with as much space as the store takes"
        ))
    })
}
