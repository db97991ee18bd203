//! The directory around the store's files: whether it is ours, whether its log may be opened, and where it lies.

use super::{
    StoreError,
    journal::{Content, Given, Journal, Records},
    kv::KvError,
    logfile::{Findings, LogFile, Synced},
    space::{io_error, remove},
    tally::Tally,
};
use crate::server::failpoints::Switch;
use std::{
    fs::{File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::FileExt as _,
    path::Path,
    time::UNIX_EPOCH,
};

/// Whoever serves a store holds a lock on it.
pub(super) const LOCK_FILE: &str = "lock";
/// The log of the pages: without it there is no store.
pub(super) const LOG_FILE: &str = "db";
/// What is known of the log up to a place, which is in the name.
const SUMMARY_PREFIX: &str = "snap.";
/// Tells this directory from a copy of it.
const ORIGIN_FILE: &str = "origin";
const ORIGIN_TEXT: &str = "Syncline knows by this file whether the store still lies where it was written. Remove the file after you have put\n\
    back a backup in a way that left it as it was (a snapshot of the disk, say): all documents then begin a new epoch.\n";
/// What a new disk holds all the same.
const LOST_AND_FOUND: &str = "lost+found";
/// What is there before the log when a store is made.
const CONF_FILE: &str = "conf";
const BLOBS: &str = "blobs";
/// There while the log is being opened.
const OPENING_FILE: &str = "opening";
/// A log up to this length is read ahead as a whole when the store opens.
const READ_AHEAD_BYTES_MAX: u64 = 64 << 20;
/// All that has to be durable.
const FILES: [&str; 3] = [LOG_FILE, CONF_FILE, Journal::FILE];

/// Takes the directory for this process; it is made if it is not there.
///
/// # Errors
/// `InUse` if another process has it; `NotADirectory`; `NotAStore` if it holds other files and no store; `Io`.
pub(super) fn take(directory: &Path) -> Result<File, StoreError> {
    let io = |error: io::Error| StoreError::Io(format!("{}: {error}", directory.display()));
    if directory.is_file() {
        return Err(StoreError::NotADirectory(directory.display().to_string()));
    }
    std::fs::create_dir_all(directory).map_err(io)?;
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(LOCK_FILE))
        .map_err(io)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::InUse(directory.display().to_string())),
        Err(TryLockError::Error(error)) => return Err(io(error)),
    }
    check_directory(directory)?;
    Ok(lock)
}

/// A directory without a store must be empty: it may be what is left of one, or not be ours. But whoever made one may have been
/// killed when there was a journal, and no log yet.
fn check_directory(directory: &Path) -> Result<(), StoreError> {
    let io = |error: io::Error| StoreError::Io(format!("{}: {error}", directory.display()));
    if directory.join(LOG_FILE).exists() {
        return Ok(());
    }
    let journal = std::fs::read(directory.join(Journal::FILE));
    let is_begun = journal.is_ok_and(|bytes| bytes.iter().all(|byte| *byte == 0));
    for file in std::fs::read_dir(directory).map_err(io)? {
        let name = file.map_err(io)?.file_name();
        let is_ours = match name.to_str() {
            Some(LOCK_FILE | LOST_AND_FOUND) => true,
            Some(Journal::FILE | CONF_FILE) => is_begun,
            Some(BLOBS) => {
                is_begun && std::fs::read_dir(directory.join(BLOBS)).is_ok_and(|mut blobs| blobs.next().is_none())
            }
            _ => false,
        };
        if !is_ours {
            return Err(StoreError::NotAStore(name.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

/// Looks at journal and log before the log is opened: that would wipe what lies behind damage. What is in the journal, unless it was
/// retired or never begun, and how many flipped bits were put right.
///
/// # Errors
/// `StoreDamaged`: nothing was changed. `Io`.
pub(super) fn look(directory: &Path) -> Result<(Option<Records>, usize), StoreError> {
    let io = |error: io::Error| StoreError::Io(format!("{}: {error}", directory.display()));
    let damaged = |what: String| Err(StoreError::StoreDamaged(format!("{what}; nothing was changed")));
    let told = Tally::look(directory);
    let is_noticed = !Switch::DamageUnnoticed.is_on();
    let records = match Content::read(directory).map_err(io)? {
        Content::Damaged(_) => return damaged("the head of its journal cannot be read".into()),
        // It was closed, or written by a version that knew no journal. If the head was lost, the log lacks what is left of the journal.
        Content::Blank(left) => {
            let last = (is_noticed && !left.batches.is_empty()).then(|| left.last());
            let synced = told.max(last).map(Synced::Batch);
            return Ok((None, check_log(directory, synced, left.given)?));
        }
        Content::Records(records) => records,
    };
    if let Some(told) = told.filter(|told| *told > records.last()) {
        return damaged(format!(
            "its journal ends early: of {told} batches that were synced it has {} at most",
            records.last()
        ));
    }
    if records.is_cut && is_noticed {
        return damaged(format!(
            "its journal cannot be read behind batch {}, and others that were synced follow",
            records.last()
        ));
    }
    let synced = is_noticed.then_some(Synced::Place(records.log_end));
    let mended = records.mended + check_log(directory, synced, records.given)?;
    if records.mended > 0 {
        tracing::error!(
            bits = records.mended,
            "flipped bits in the store's journal were put right: check the disk and the memory"
        );
    }
    Ok((Some(records), mended))
}

/// The log as far as it was synced. Flipped bits that checksums name are put right; how many.
fn check_log(directory: &Path, synced: Option<Synced>, given: Option<Given>) -> Result<usize, StoreError> {
    let look = || -> io::Result<Findings> {
        let Some(synced) = synced else {
            return Ok(Findings::default());
        };
        let mut start = 0;
        for file in std::fs::read_dir(directory)? {
            let name = file?.file_name();
            let place = name.to_str().and_then(|name| name.strip_prefix(SUMMARY_PREFIX));
            start = start.max(place.and_then(|place| u64::from_str_radix(place, 16).ok()).unwrap_or(0));
        }
        let path = directory.join(LOG_FILE);
        let was_opening = directory.join(OPENING_FILE).exists();
        let findings = LogFile::open(&path, given)?.look(start, synced, was_opening)?;
        if findings.damage.is_none() && !findings.fixes.is_empty() {
            let log = File::options().write(true).open(&path)?;
            for (place, byte) in &findings.fixes {
                log.write_all_at(&[*byte], *place)?;
            }
            log.sync_data()?;
            tracing::error!(
                bits = findings.fixes.len(),
                "flipped bits in the store's log were put right: check the disk and the memory"
            );
        }
        Ok(findings)
    };
    if !directory.join(LOG_FILE).exists() {
        return Ok(0);
    }
    let findings = look().map_err(|error| StoreError::Io(format!("{}: {error}", directory.display())))?;
    match findings.damage {
        None => Ok(findings.fixes.len()),
        Some(place) => Err(StoreError::StoreDamaged(format!(
            "its log cannot be read at {place}, and edits that were synced lie behind that; nothing was changed"
        ))),
    }
}

/// Says durably that the log is being opened: sled wipes the segments that it does not need, and does not sync that. If the power
/// goes meanwhile, they read like damaged ones.
pub(super) fn begin_opening(directory: &Path) -> io::Result<()> {
    if !directory.join(LOG_FILE).exists() {
        return Ok(());
    }
    File::create(directory.join(OPENING_FILE))?;
    File::open(directory)?.sync_all()
}

/// The log is open, and what that has written is durable.
pub(super) fn end_opening(directory: &Path) -> Result<(), KvError> {
    remove(&directory.join(OPENING_FILE))?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|error| io_error(&error))
}

/// Marks the place where the store lies, and answers with what [`place`] says from now on.
pub(super) fn mark_origin(directory: &Path) -> Result<Vec<u8>, KvError> {
    let path = directory.join(ORIGIN_FILE);
    remove(&path)?;
    let written = std::fs::write(&path, ORIGIN_TEXT)
        .and_then(|()| File::open(&path)?.sync_all())
        .and_then(|()| File::open(directory)?.sync_all())
        .and_then(|()| place(directory));
    Ok(written.map_err(|error| io_error(&error))?.unwrap_or_default())
}

/// Where the store lies: which files these are, when one that nobody writes to was made and when it was last written to. A copy
/// that is put back differs in one of these, but for two ways that the operator has to tell: a snapshot of the whole disk, and a
/// copy that writes over the files that are there and keeps their times (`cp -p` into a directory that was not emptied). The time
/// of the last change of any kind would tell that one, but it also changes with owners and permissions, which some set anew at
/// every start.
#[cfg(unix)]
pub(super) fn place(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    use std::os::unix::fs::MetadataExt as _;
    let origin = match std::fs::metadata(directory.join(ORIGIN_FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        origin => origin?,
    };
    let log = std::fs::metadata(directory.join(LOG_FILE))?;
    let made = origin
        .created()
        .ok()
        .and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    // Not every file system knows when a file was made.
    let (made_s, made_ns) = match made {
        Some(made) => (made.as_secs(), made.subsec_nanos().into()),
        None => (origin.ctime().cast_unsigned(), origin.ctime_nsec().cast_unsigned()),
    };
    let numbers = [
        origin.ino(),
        made_s,
        made_ns,
        origin.mtime().cast_unsigned(),
        origin.mtime_nsec().cast_unsigned(),
        log.ino(),
    ];
    Ok(Some(numbers.map(u64::to_be_bytes).concat()))
}

/// Elsewhere only the file that is gone tells.
#[cfg(not(unix))]
pub(super) fn place(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    Ok(directory.join(ORIGIN_FILE).exists().then(Vec::new))
}

/// Makes all durable that an earlier process has written to the files in the directory, and the files findable. What that has
/// replaced may be written over as soon as the log is open.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
    for name in FILES {
        match sync(&directory.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    sync(directory)?;
    match directory.canonicalize()?.parent() {
        Some(parent) => sync(parent),
        None => Ok(()),
    }
}

/// Has whatever is read next come from the disk. After a write that failed the system may hold what the disk does not, takes it
/// for written, and tells only who had the file open then: the next sync says nothing of it. To be called after [`sync`], since
/// only what is taken for written is let go.
pub(super) fn let_cached_go(directory: &Path) {
    for file in FILES.iter().filter_map(|name| File::open(directory.join(name)).ok()) {
        // Not every file system can. There the system's word has to do.
        let _ = uncache(&file);
    }
}

/// Has the system read the log meanwhile, in large pieces, if it is not long: opening it goes through most of it, and the first rooms would
/// wait for the rest piece by piece.
pub(super) fn read_ahead(directory: &Path) {
    let Ok(log) = File::open(directory.join(LOG_FILE)) else {
        return;
    };
    if log.metadata().is_ok_and(|log| log.len() <= READ_AHEAD_BYTES_MAX) {
        // Where it cannot, it is read when it is needed.
        let _ = cache(&log);
    }
}

#[cfg(target_os = "linux")]
fn uncache(file: &File) -> io::Result<()> {
    use rustix::fs::{Advice, fadvise};
    Ok(fadvise(file, 0, None, Advice::DontNeed)?)
}

#[cfg(target_os = "linux")]
fn cache(file: &File) -> io::Result<()> {
    use rustix::fs::{Advice, fadvise};
    Ok(fadvise(file, 0, None, Advice::WillNeed)?)
}

#[cfg(not(target_os = "linux"))]
fn uncache(_: &File) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(not(target_os = "linux"))]
fn cache(_: &File) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Removes what sled was writing beside the log when it was killed or had no space: it would take that for its newest
/// summary of the log, find it damaged and not open. Without it, it reads the log from the summary before.
pub(super) fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        if file.file_name().to_string_lossy().ends_with(".generating") {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}
