//! The store's floor on disk: the only file that names sled.
//!
//! What sled 0.34 does not do by itself is done here. Its `flush` reaches the page cache's writers but is no fsync, so
//! [`Kv::sync`] adds one. It panics on damage, so every call is made where a panic is caught. After an error it refuses all
//! writes until it is opened anew, so a full disk is answered by giving a reserve file away and opening again. Some failing
//! writes do not wake the `flush` that waits for them, which then never returns; another write at that time does.

use std::{
    fs::{File, TryLockError},
    io::{self, ErrorKind, Write as _},
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, UNIX_EPOCH},
};

use crate::server::failpoints::Switch;

use super::{
    StoreError,
    kv::{Batch, Kv, KvError, Pair, Visit, Write},
    logfile::{Findings, LogFile},
    tally::Tally,
    watchdog::Watchdog,
};

/// After a store is closed within the process, sled's own lock is let go by its background threads: wait this often for it.
const REOPEN_ATTEMPTS: usize = 1_000;
const REOPEN_PAUSE: Duration = Duration::from_millis(2);
/// A write or sync that lasts as long may be one that sled forgot.
const STUCK_AFTER: Duration = Duration::from_millis(500);
const RESERVE_FILE: &str = "reserve";
const LOCK_FILE: &str = "lock";
/// In a tree of its own.
pub(super) const COUNT_KEY: &str = "batches";
/// Written to in a tree of its own to wake those who wait.
const WAKE_KEY: &str = "wake";
/// The keys in other trees than the store's.
pub(super) const FOREIGN_KEYS: [&str; 2] = [COUNT_KEY, WAKE_KEY];
/// sled's log: without it there is no store.
const LOG_FILE: &str = "db";
/// What it knows of the log up to a place, which is in the name.
const SUMMARY_PREFIX: &str = "snap.";
/// Tells this directory from a copy of it.
const ORIGIN_FILE: &str = "origin";
const ORIGIN_TEXT: &str = "Syncline knows by this file whether the store still lies where it was written. Remove the file after you have put\n\
    back a backup in a way that left it as it was (a snapshot of the disk, say): all documents then begin a new epoch.\n";
/// What a new disk holds all the same.
const LOST_AND_FOUND: &str = "lost+found";
const RESERVE_PART_BYTES: usize = 1 << 20;

/// What may be chosen about the files.
#[derive(Clone, Copy, Debug)]
pub struct SledOptions {
    /// Memory for pages that were read or written lately.
    pub cache_bytes: u64,
    /// Space set aside for the day when the disk is full: enough for the group that is being written then.
    pub reserve_bytes: u64,
}

impl Default for SledOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
            reserve_bytes: 16 << 20,
        }
    }
}

/// One directory, served by this process alone.
pub struct SledKv {
    directory: PathBuf,
    options: SledOptions,
    /// `None` when it could not be opened again after a full disk.
    open: Arc<RwLock<Option<Open>>>,
    watchdog: Watchdog,
    /// A write or sync failed half way: nothing may reach the disk any more, not even while closing.
    spoilt: AtomicBool,
    mended: usize,
    /// Held as long as the directory is served.
    _lock: File,
}

struct Open {
    db: sled::Db,
    /// The log file under sled, for the fsync.
    log_file: File,
    /// Holds the number of batches written; always behind the batch in the log that it counts.
    counted: sled::Tree,
    written: AtomicU64,
    /// The number of batches synced, beside the log.
    tally: Tally,
}

impl SledKv {
    /// sled's log in the directory.
    pub(super) const LOG_FILE: &str = LOG_FILE;
    /// Whoever serves a store holds a lock on these.
    pub(super) const LOCK_FILES: [&str; 2] = [LOCK_FILE, LOG_FILE];

    /// Opens the store in `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// `InUse` if another process serves it; `NotAStore` if it holds other files and no store; `NotADirectory`; `StoreDamaged`; `Io`; `Full` if
    /// not even the reserve makes it open.
    pub fn open(directory: &Path, options: SledOptions) -> Result<Self, StoreError> {
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
        let mended = check_log(directory)?;
        let open = match Open::new(directory, options) {
            Err(KvError::Full) => {
                remove(&directory.join(RESERVE_FILE))?;
                Open::new(directory, options)?
            }
            other => other?,
        };
        let open = Arc::new(RwLock::new(Some(open)));
        let woken = Arc::clone(&open);
        let kv = Self {
            directory: directory.to_path_buf(),
            options,
            open,
            watchdog: Watchdog::start(STUCK_AFTER, move || wake(&woken)).map_err(io)?,
            spoilt: AtomicBool::new(false),
            mended,
            _lock: lock,
        };
        let blobs = kv.blob_files().map_err(io)?;
        if blobs > 0 {
            tracing::error!(
                blobs,
                "the store holds values that sled never syncs: back it up and make it anew"
            );
        }
        Ok(kv)
    }

    /// How many files lie beside the log file because a page was too large for it. They are never synced, so this must be
    /// zero.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn blob_files(&self) -> io::Result<usize> {
        Ok(std::fs::read_dir(self.directory.join("blobs"))?.count())
    }

    /// How many flipped bits of the log were put right when it was opened.
    pub(super) fn mended(&self) -> usize {
        self.mended
    }

    fn reserve(&self) -> PathBuf {
        self.directory.join(RESERVE_FILE)
    }

    /// Whoever closes a store may open it at once, in this process or another: sled's background threads let go of its lock a
    /// moment later than the last handle.
    fn wait_for_lock(&self) {
        for _ in 0..REOPEN_ATTEMPTS {
            match File::open(self.directory.join(LOG_FILE)).map(|file| file.try_lock()) {
                Ok(Err(TryLockError::WouldBlock)) => std::thread::sleep(REOPEN_PAUSE),
                _ => return,
            }
        }
        tracing::error!("sled still holds the lock of the closed store");
    }

    /// Runs a write or sync. After an error other than `Full` there is never another one.
    fn change(&self, act: impl FnOnce(&Open) -> Result<(), KvError>) -> Result<(), KvError> {
        if self.spoilt.load(Ordering::Acquire) {
            return Err(KvError::Io("a write or sync failed before".into()));
        }
        let result = self.watchdog.watch(|| self.with(act));
        if !matches!(result, Ok(()) | Err(KvError::Full)) {
            self.spoilt.store(true, Ordering::Release);
        }
        result
    }

    fn with<T>(&self, act: impl FnOnce(&Open) -> Result<T, KvError>) -> Result<T, KvError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        match &*open {
            Some(open) => unpanicked(|| act(open)),
            None => Err(KvError::Io(
                "the store is closed since the disk was full: free some space and restart".into(),
            )),
        }
    }
}

impl Drop for SledKv {
    fn drop(&mut self) {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        if self.spoilt.load(Ordering::Acquire) {
            // Closing would write out what is left of a batch that broke off.
            std::mem::forget(open);
        } else if let Err(error) = close(open) {
            tracing::error!(%error, "the store did not close cleanly");
        } else {
            self.wait_for_lock();
        }
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.with(|open| Ok(open.db.get(key).map_err(kv_error)?.map(|value| value.to_vec())))
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut Visit<'_>) -> Result<(), KvError> {
        if range.start >= range.end {
            return Ok(());
        }
        // The visitor is called outside: its panics are not sled's.
        let mut found = self.with(|open| Ok(open.db.range(range)))?;
        loop {
            match self.with(|_| found.next().transpose().map_err(kv_error))? {
                None => return Ok(()),
                Some((key, value)) => {
                    if visit(&key, &value) == ControlFlow::Break(()) {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError> {
        if range.start >= range.end {
            return Ok(None);
        }
        self.with(|open| {
            let last = open.db.range(range).next_back().transpose().map_err(kv_error)?;
            Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
        })
    }

    fn write(&self, batch: &Batch) -> Result<(), KvError> {
        let mut writes = sled::Batch::default();
        for write in batch.writes() {
            match write {
                Write::Put { key, value } => writes.insert(key.as_slice(), value.as_slice()),
                Write::Delete { key } => writes.remove(key.as_slice()),
            }
        }
        self.change(|open| {
            open.db.apply_batch(writes).map_err(kv_error)?;
            let written = open.written.fetch_add(1, Ordering::Relaxed) + 1;
            let counted = open.counted.insert(COUNT_KEY, &written.to_be_bytes());
            counted.map(drop).map_err(kv_error)
        })
    }

    fn sync(&self) -> Result<(), KvError> {
        self.change(|open| {
            open.db.flush().map_err(kv_error)?;
            if Switch::AckBeforeSync.is_on() {
                return Ok(());
            }
            // Whatever the fsync says, `Full` included, is final: the system may have dropped what it could not write.
            open.log_file
                .sync_data()
                .map_err(|error| KvError::Io(format!("the fsync failed: {error}")))?;
            // An older tally only notices less.
            if let Err(error) = open.tally.write(open.written.load(Ordering::Relaxed)) {
                tracing::warn!(%error, "the tally of synced batches cannot be written");
            }
            Ok(())
        })
    }

    fn make_room(&self) -> Result<(), KvError> {
        let mut slot = self.open.write().unwrap_or_else(PoisonError::into_inner);
        remove(&self.reserve())?;
        close(slot.take())?;
        *slot = Some(Open::new(&self.directory, self.options)?);
        Ok(())
    }

    fn restore_reserve(&self) -> Result<(), KvError> {
        let path = self.reserve();
        if std::fs::metadata(&path).is_ok_and(|file| file.len() == self.options.reserve_bytes) {
            return Ok(());
        }
        fill(&path, self.options.reserve_bytes).map_err(|error| {
            let error = io_error(&error);
            remove(&path).err().unwrap_or(error)
        })
    }

    fn origin(&self) -> Result<Option<Vec<u8>>, KvError> {
        place(&self.directory).map_err(|error| io_error(&error))
    }

    fn mark_origin(&self) -> Result<Vec<u8>, KvError> {
        let path = self.directory.join(ORIGIN_FILE);
        remove(&path)?;
        let written = std::fs::write(&path, ORIGIN_TEXT)
            .and_then(|()| File::open(&path)?.sync_all())
            .and_then(|()| File::open(&self.directory)?.sync_all())
            .and_then(|()| place(&self.directory));
        Ok(written.map_err(|error| io_error(&error))?.unwrap_or_default())
    }

    fn size_bytes(&self) -> u64 {
        self.with(|open| open.db.size_on_disk().map_err(kv_error)).unwrap_or(0)
    }
}

impl Open {
    fn new(directory: &Path, options: SledOptions) -> Result<Self, KvError> {
        remove_unfinished(directory).map_err(|error| io_error(&error))?;
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(options.cache_bytes)
            .flush_every_ms(None);
        let mut attempts = 0..REOPEN_ATTEMPTS;
        let db = loop {
            match unpanicked(|| Ok(config.open()))? {
                Err(sled::Error::Io(error)) if is_locked(&error) && attempts.next().is_some() => {
                    std::thread::sleep(REOPEN_PAUSE);
                }
                other => break other.map_err(kv_error)?,
            }
        };
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        let files = || {
            // What makes the log file findable after a power cut.
            sync(&directory.join("conf"))?;
            sync(directory)?;
            if let Some(parent) = directory.canonicalize()?.parent() {
                sync(parent)?;
            }
            File::options().read(true).write(true).open(directory.join(LOG_FILE))
        };
        let log_file = files().map_err(|error| io_error(&error))?;
        let counted = unpanicked(|| db.open_tree("counted").map_err(kv_error))?;
        let written = unpanicked(|| counted.get(COUNT_KEY).map_err(kv_error))?;
        let written = written.and_then(|count| Some(u64::from_be_bytes(count.as_ref().try_into().ok()?)));
        let written = written.unwrap_or(0);
        let (tally, synced) = Tally::open(directory).map_err(|error| io_error(&error))?;
        if synced.is_some_and(|synced| synced > written) {
            return Err(KvError::Damaged(format!(
                "its log ends early: of {} batches that were synced only {written} can be read, because a part before the \
                 others is damaged",
                synced.unwrap_or(written)
            )));
        }
        Ok(Self {
            db,
            log_file,
            counted,
            written: AtomicU64::new(written),
            tally,
        })
    }
}

/// A directory without a store must be empty: it may be what is left of one, or not be ours.
fn check_directory(directory: &Path) -> Result<(), StoreError> {
    let io = |error: io::Error| StoreError::Io(format!("{}: {error}", directory.display()));
    if directory.join(LOG_FILE).exists() {
        return Ok(());
    }
    for file in std::fs::read_dir(directory).map_err(io)? {
        let name = file.map_err(io)?.file_name();
        if name != LOCK_FILE && name != LOST_AND_FOUND {
            return Err(StoreError::NotAStore(name.to_string_lossy().into_owned()));
        }
    }
    Ok(())
}

/// sled would wipe what lies behind damage that it meets, so it is not to meet any. Flipped bits that checksums name are put
/// right; how many.
fn check_log(directory: &Path) -> Result<usize, StoreError> {
    let look = || -> io::Result<Findings> {
        let Some(synced) = Tally::look(directory) else {
            return Ok(Findings::default());
        };
        let mut start = 0;
        for file in std::fs::read_dir(directory)? {
            let name = file?.file_name();
            let place = name.to_str().and_then(|name| name.strip_prefix(SUMMARY_PREFIX));
            start = start.max(place.and_then(|place| u64::from_str_radix(place, 16).ok()).unwrap_or(0));
        }
        let path = directory.join(LOG_FILE);
        let findings = LogFile::open(&path)?.look(start, synced)?;
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

/// Where the store lies: which files these are, when one that nobody writes to was made and when it was last written to. A copy
/// that is put back differs in one of these, but for two ways that the operator has to tell: a snapshot of the whole disk, and a
/// copy that writes over the files that are there and keeps their times (`cp -p` into a directory that was not emptied). The time
/// of the last change of any kind would tell that one, but it also changes with owners and permissions, which some set anew at
/// every start.
#[cfg(unix)]
fn place(directory: &Path) -> io::Result<Option<Vec<u8>>> {
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
fn place(directory: &Path) -> io::Result<Option<Vec<u8>>> {
    Ok(directory.join(ORIGIN_FILE).exists().then(Vec::new))
}

/// Removes what sled was writing beside the log when it was killed or had no space: it would take that for its newest
/// summary of the log, find it damaged and not open. Without it, it reads the log from the summary before.
fn remove_unfinished(directory: &Path) -> io::Result<()> {
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        if file.file_name().to_string_lossy().ends_with(".generating") {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// Whether sled says that its own lock is held; it has only words for that.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

/// Writes something: if sled has met an error, this call meets it, too, and wakes those who wait. It goes to a tree of its
/// own, where it disturbs nobody; one of the two writes changes something, or neither would reach the log. A batch would
/// have to wait for the very `flush` that is stuck.
fn wake(open: &RwLock<Option<Open>>) {
    let open = open.read().unwrap_or_else(PoisonError::into_inner);
    let Some(Open { db, .. }) = &*open else { return };
    let write = || {
        let tree = db.open_tree(WAKE_KEY)?;
        tree.insert(WAKE_KEY, "")?;
        tree.remove(WAKE_KEY).map(drop)
    };
    if let Err(error) = unpanicked(|| write().map_err(kv_error)) {
        tracing::warn!(%error, "a write of the store has failed");
    }
}

/// Fills a file with zeros, so that its blocks are taken, whatever the file system.
fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = File::create(path)?;
    let zeros = vec![0; RESERVE_PART_BYTES];
    let mut left = bytes;
    while left > 0 {
        let part = left.min(zeros.len() as u64);
        file.write_all(&zeros[..part as usize])?;
        left -= part;
    }
    file.sync_all()
}

fn remove(path: &Path) -> Result<(), KvError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(&error)),
        _ => Ok(()),
    }
}

/// Closing writes nothing after an error. It may panic.
fn close(open: Option<Open>) -> Result<(), KvError> {
    unpanicked(|| {
        drop(open);
        Ok(())
    })
}

/// Runs a call into sled; a panic there means that it met what it never wrote.
fn unpanicked<T>(call: impl FnOnce() -> Result<T, KvError>) -> Result<T, KvError> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let line = text.lines().next().unwrap_or_default();
        Err(KvError::Damaged(format!("sled could not read its files ({line})")))
    })
}

fn kv_error(error: sled::Error) -> KvError {
    match error {
        sled::Error::Io(error) => io_error(&error),
        sled::Error::Corruption { .. } => KvError::Damaged("a page of the log file does not match its checksum".into()),
        sled::Error::Unsupported(what) => KvError::Io(what),
        other => KvError::Damaged(other.to_string()),
    }
}

fn io_error(error: &io::Error) -> KvError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => KvError::Full,
        _ => KvError::Io(error.to_string()),
    }
}
