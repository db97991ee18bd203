//! The store's floor on disk: a journal, and behind it the pages, where all is read.
//!
//! A batch is durable once it is synced in the journal; whoever waits for it is told, and it is applied to the pages before
//! anybody reads again. They become durable in their own time; when the journal is half full, and when the store closes, they are
//! flushed and synced, and the journal starts over. A store that was not closed comes back with all that its pages had up to some batch
//! behind the journal's beginning, and the batches after that are applied again.

use std::{
    fs::{File, TryLockError},
    io,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::server::failpoints::Switch;

use super::{
    StoreError,
    directory::{self, LOCK_FILE, LOG_FILE},
    journal::{Journal, Records},
    kv::{Batch, Kv, KvError, Pair, Visit},
    logfile::SEGMENT_BYTES,
    space::{Spare, io_error, remove, restore_reserve},
    tally::Tally,
    watchdog::Watchdog,
    writer::{GROUP_BYTES_MAX, QUEUE_BYTES_MAX},
};

mod pages;
#[cfg(test)]
mod tests;

pub(super) use self::pages::{COUNT_KEY, FOREIGN_KEYS};
use self::pages::{Pages, REOPEN_ATTEMPTS, REOPEN_PAUSE, close, finally, fits, let_go};

/// A write or flush that lasts as long may be one that sled forgot.
const STUCK_AFTER: Duration = Duration::from_millis(500);
const RESERVE_FILE: &str = "reserve";
/// What the log may grow by at any time: pages that are moved, and the rest of a segment.
const SPARE_BYTES: u64 = 4 << 20;
/// A page is written anew after some changes of it, so the log grows by about so many times what is written.
const SPARE_FACTOR: u64 = 4;
/// A key that is removed is short, and may cost a page.
const SPARE_BYTES_PER_DELETE: u64 = 4096;
/// Keys and values of one batch: more than any document comes to. The journal tells lengths in 32 bits.
const BATCH_BYTES_MAX: usize = 4 * QUEUE_BYTES_MAX;
/// For the segment that is begun, and what readers may begin.
const SEGMENT_SPARE_BYTES: u64 = 2 * SEGMENT_BYTES as u64;

/// What may be chosen about the files.
#[derive(Clone, Copy, Debug)]
pub struct SledOptions {
    /// Memory for pages that were read or written lately.
    pub cache_bytes: u64,
    /// Space set aside for the day when the store has to open on a full disk.
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
    /// Whoever reads shares them; alone with them is who applies a batch. `None` when closed.
    pages: RwLock<Option<Pages>>,
    writing: Mutex<Writing>,
    watchdog: Option<Watchdog>,
    /// A write failed half way, or a sync: nothing may reach the disk any more, not even while closing.
    spoilt: AtomicBool,
    /// The pages lack a part of a batch that is durable: nothing may be read, either.
    torn: AtomicBool,
    mended: usize,
    _lock: File,
}

/// What only who commits needs.
struct Writing {
    journal: Journal,
    /// The number of batches committed.
    written: u64,
    /// The same, beside the journal.
    tally: Tally,
    spare: Spare,
    /// The reserve's space was needed.
    lacks_reserve: bool,
}

impl SledKv {
    /// The pages' log in the directory.
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
        let lock = directory::take(directory)?;
        directory::sync(directory).map_err(io)?;
        directory::let_cached_go(directory);
        directory::read_ahead(directory);
        let (records, mended) = directory::look(directory)?;
        let (pages, writing) = match open(directory, options, records.as_ref(), true) {
            Err(KvError::Full) => {
                remove(&directory.join(RESERVE_FILE))?;
                open(directory, options, records.as_ref(), false)?
            }
            other => other?,
        };
        let alarm = pages.alarm();
        let kv = Self {
            directory: directory.to_path_buf(),
            options,
            pages: RwLock::new(Some(pages)),
            writing: Mutex::new(writing),
            watchdog: Some(Watchdog::start(STUCK_AFTER, move || alarm.wake()).map_err(io)?),
            spoilt: AtomicBool::new(false),
            torn: AtomicBool::new(false),
            mended,
            _lock: lock,
        };
        let blobs = kv.blob_files().map_err(io)?;
        if blobs > 0 {
            tracing::error!(
                blobs,
                "the store holds values that are never synced: back it up and make it anew"
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

    /// How many flipped bits were put right when it was opened.
    pub(super) fn mended(&self) -> usize {
        self.mended
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> RwLockReadGuard<'_, Option<Pages>> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a write or sync that failed there is never another one: the system may report it once, and drop what it could not write.
    fn unspoilt(&self) -> Result<(), KvError> {
        if self.spoilt.load(Ordering::Acquire) {
            return Err(KvError::Io("a write or sync failed before".into()));
        }
        Ok(())
    }

    /// Does what only one may do at a time. Whatever fails, but for want of space, is final; also for those who wait meanwhile.
    fn alone(&self, act: impl FnOnce(&mut Writing) -> Result<(), KvError>) -> Result<(), KvError> {
        let mut writing = self.writing();
        self.unspoilt()?;
        let done = act(&mut writing);
        if !matches!(done, Ok(()) | Err(KvError::Full)) {
            self.spoilt.store(true, Ordering::Release);
        }
        done
    }

    /// Reads, while nobody applies a batch.
    fn with<T>(&self, read: impl FnOnce(&Pages) -> Result<T, KvError>) -> Result<T, KvError> {
        let mut pages = self.shared();
        if pages.as_ref().is_some_and(Pages::lags) && self.unspoilt().is_ok() {
            // Readers have had a segment written.
            drop(pages);
            let kept_up = self.alone(|writing| self.change(|pages| pages.keep_up(&mut || self.grow(writing))));
            if let Err(error) = kept_up {
                tracing::error!(%error, "the store's pages cannot be written: it is read-only from now on");
            }
            pages = self.shared();
        }
        if self.torn.load(Ordering::Acquire) {
            return Err(KvError::Io(
                "a batch could not be applied whole: check the disk, then restart".into(),
            ));
        }
        read(pages.as_ref().ok_or_else(closed)?)
    }

    /// Writes to the pages, alone with them. After an error there is never another write.
    fn change<T>(&self, write: impl FnOnce(&mut Pages) -> Result<T, KvError>) -> Result<T, KvError> {
        let call = || {
            let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
            self.unspoilt()?;
            write(pages.as_mut().ok_or_else(closed)?).inspect_err(|_| self.spoilt.store(true, Ordering::Release))
        };
        match &self.watchdog {
            Some(watchdog) => watchdog.watch(call),
            None => call(),
        }
    }

    /// Has room for `batch` in the journal, and for what comes of it in the log.
    ///
    /// # Errors
    /// `Full`: then there is none, and nothing of the batch is written.
    fn make_room(&self, writing: &mut Writing, batch: &Batch) -> Result<(), KvError> {
        if writing.lacks_reserve {
            return Err(KvError::Full);
        }
        let deletes = SPARE_BYTES_PER_DELETE * batch.deletes() as u64;
        let bytes = SPARE_FACTOR * batch.bytes() as u64;
        writing.spare.hold(SPARE_BYTES + bytes + deletes)?;
        if !writing.journal.has_room(batch) {
            self.settle_pages(writing)?;
        }
        let reserved = writing.journal.reserve(batch).map_err(|error| io_error(&error));
        if reserved == Err(KvError::Full) && !writing.journal.is_empty() {
            self.settle_pages(writing)?;
            return writing.journal.reserve(batch).map_err(|error| io_error(&error));
        }
        reserved
    }

    /// Has the log begin another segment without fail. It may just have been cut, and with it the spare blocks behind its end.
    fn grow(&self, writing: &mut Writing) -> Result<(), KvError> {
        let held = writing.spare.hold_anew(SEGMENT_SPARE_BYTES);
        if held != Err(KvError::Full) {
            return held;
        }
        tracing::warn!("the disk is full: the store's log grows by the space of the reserve");
        writing.lacks_reserve = true;
        remove(&self.directory.join(RESERVE_FILE))?;
        writing.spare.hold_anew(SEGMENT_SPARE_BYTES).map_err(finally)
    }

    /// Makes the pages durable, after which the journal starts over.
    fn settle_pages(&self, writing: &mut Writing) -> Result<(), KvError> {
        if Switch::JournalCutEarly.is_on() {
            writing.journal.cut().map_err(|error| failed(&error))?;
        }
        let log_end = self.change(|pages| pages.flush().map_err(finally))?;
        writing
            .journal
            .start_over(writing.written, log_end)
            .map_err(|error| failed(&error))
    }

    /// Makes `batch` durable, and then visible.
    fn write(&self, writing: &mut Writing, batch: &Batch, durable: &mut dyn FnMut()) -> Result<(), KvError> {
        let number = writing.written + 1;
        match writing.journal.append(batch, number).map_err(|error| io_error(&error)) {
            Err(KvError::Full) => return Err(KvError::Full),
            other => other?,
        }
        durably(|| writing.journal.sync())?;
        writing.written = number;
        self.change(|pages| {
            // Whoever hears of it and reads waits for the lock.
            durable();
            // On a busy core the members are shown it now, and not behind the pages.
            std::thread::yield_now();
            let applied = pages.apply(batch, number, &mut || self.grow(writing));
            applied.inspect_err(|_| self.torn.store(true, Ordering::Release))
        })?;
        // An older tally only notices less.
        if let Err(error) = writing.tally.write(number) {
            tracing::warn!(%error, "the tally of synced batches cannot be written");
        }
        if writing.journal.is_half_full() {
            self.settle_pages(writing)?;
        }
        Ok(())
    }

    /// All is durable in the pages: whoever knows of no journal may serve the store.
    fn retire(&self) -> Result<(), KvError> {
        let mut writing = self.writing();
        if !writing.journal.is_begun() {
            // Nothing was written, but readers may have filled segments.
            return self.change(|pages| pages.flush().map(drop).map_err(finally));
        }
        self.settle_pages(&mut writing)?;
        let retired = writing.tally.sync().and_then(|()| writing.journal.retire());
        retired.map_err(|error| failed(&error))
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
        tracing::error!("the lock of the closed store is still held");
    }
}

impl Drop for SledKv {
    fn drop(&mut self) {
        if !self.spoilt.load(Ordering::Acquire)
            && let Err(error) = self.retire()
        {
            tracing::error!(%error, "the store did not close cleanly: the next start goes through its journal");
            self.spoilt.store(true, Ordering::Release);
        }
        // It has a handle of its own.
        drop(self.watchdog.take());
        let pages = self.pages.write().unwrap_or_else(PoisonError::into_inner).take();
        if self.spoilt.load(Ordering::Acquire) {
            // Closing would write out what is left of a batch that broke off.
            std::mem::forget(pages);
        } else if let Err(error) = close(pages) {
            tracing::error!(%error, "the store did not close cleanly");
        } else {
            self.wait_for_lock();
        }
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.with(|pages| pages.get(key))
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut Visit<'_>) -> Result<(), KvError> {
        if range.start >= range.end {
            return Ok(());
        }
        // The visitor is called outside: its panics are none of the store's, and it may take its time.
        let mut found = self.with(|pages| pages.range(range))?;
        loop {
            match self.with(|pages| pages.next(&mut found))? {
                None => return Ok(()),
                Some((key, value)) => {
                    if visit(key.as_ref(), value.as_ref()) == ControlFlow::Break(()) {
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
        self.with(|pages| pages.last(range))
    }

    fn commit_telling(&self, batch: &Batch, durable: &mut dyn FnMut()) -> Result<(), KvError> {
        if !fits(batch) {
            return Err(KvError::TooLarge("a key or value is longer than the pages take"));
        }
        if batch.bytes() > BATCH_BYTES_MAX {
            return Err(KvError::TooLarge("the journal takes no more at once"));
        }
        self.alone(|writing| {
            self.make_room(writing, batch)?;
            self.write(writing, batch, durable)
        })
    }

    fn restore_reserve(&self) -> Result<(), KvError> {
        restore_reserve(&self.directory.join(RESERVE_FILE), self.options.reserve_bytes)?;
        self.alone(|writing| {
            writing.lacks_reserve = false;
            writing.journal.reserve_all().map_err(|error| io_error(&error))?;
            writing.spare.hold(SPARE_BYTES + SPARE_FACTOR * GROUP_BYTES_MAX as u64)
        })
    }

    fn settle(&self) -> Result<(), KvError> {
        self.alone(|writing| self.settle_pages(writing))
    }

    fn is_spoilt(&self) -> bool {
        self.unspoilt().is_err()
    }

    fn origin(&self) -> Result<Option<Vec<u8>>, KvError> {
        directory::place(&self.directory).map_err(|error| io_error(&error))
    }

    fn mark_origin(&self) -> Result<Vec<u8>, KvError> {
        directory::mark_origin(&self.directory)
    }

    fn size_bytes(&self) -> u64 {
        self.with(Pages::size_bytes).unwrap_or(0)
    }
}

/// Opens the files, and has the pages catch up with the journal. There may be a reserve yet, so it `insists` on space to write.
fn open(
    directory: &Path,
    options: SledOptions,
    records: Option<&Records>,
    insists: bool,
) -> Result<(Pages, Writing), KvError> {
    let io = |error: io::Error| io_error(&error);
    directory::remove_unfinished(directory).map_err(io)?;
    directory::begin_opening(directory).map_err(io)?;
    let journal = Journal::open(directory).map_err(io)?;
    let mut pages = Pages::open(directory, options.cache_bytes, journal.note().map_err(io)?)?;
    if let Err(error) = directory::end_opening(directory) {
        return Err(let_go(pages, error));
    }
    match catch_up(&mut pages, journal, directory, records, insists) {
        Ok(writing) => Ok((pages, writing)),
        Err(error) => Err(let_go(pages, error)),
    }
}

fn catch_up(
    pages: &mut Pages,
    mut journal: Journal,
    directory: &Path,
    records: Option<&Records>,
    insists: bool,
) -> Result<Writing, KvError> {
    let io = |error: io::Error| io_error(&error);
    directory::sync(directory).map_err(io)?;
    let mut written = pages.count()?;
    if let Some(records) = records
        && !Switch::DamageUnnoticed.is_on()
    {
        agree(records, written)?;
    }
    let mut spare = Spare::of(pages.log_file().map_err(io)?);
    if let Some(records) = records.filter(|records| records.last() > written) {
        let bytes: usize = records.after(written).map(|(_, batch)| batch.bytes()).sum();
        spare.hold(SPARE_BYTES + SPARE_FACTOR * bytes as u64)?;
        for (number, batch) in records.after(written) {
            pages.apply(batch, number, &mut || spare.hold_anew(SEGMENT_SPARE_BYTES))?;
        }
        written = records.last();
    }
    let (tally, told) = Tally::open(directory).map_err(io)?;
    if let Some(told) = told.filter(|told| *told > written) {
        return Err(ends_early(told, written));
    }
    match spare.hold(SPARE_BYTES) {
        // It is read, and written to when there is space.
        Err(KvError::Full) if !insists => {}
        held => held?,
    }
    let log_end = pages.flush()?;
    if records.is_some() {
        journal.start_over(written, log_end).map_err(io)?;
    }
    Ok(Writing {
        journal,
        written,
        tally,
        spare,
        lacks_reserve: false,
    })
}

/// Whether the pages can have as many batches as they have: a batch is in the journal, durably, before it is in the pages.
fn agree(records: &Records, written: u64) -> Result<(), KvError> {
    if written < records.base {
        return Err(ends_early(records.base, written));
    }
    if written > records.last() {
        return Err(KvError::Damaged(format!(
            "its journal ends early: of {written} batches that its log holds the journal has {} at most",
            records.last()
        )));
    }
    Ok(())
}

fn ends_early(synced: u64, read: u64) -> KvError {
    KvError::Damaged(format!(
        "its log ends early: of {synced} batches that were synced only {read} can be read, because a part before the others is \
         damaged"
    ))
}

fn closed() -> KvError {
    KvError::Io("the store is closed".into())
}

/// Whatever a sync says is final: the system may have dropped what it could not write.
fn durably(sync: impl FnOnce() -> io::Result<()>) -> Result<(), KvError> {
    if Switch::AckBeforeSync.is_on() {
        return Ok(());
    }
    sync().map_err(|error| failed(&error))
}

/// A sync that failed, for whatever reason.
fn failed(error: &io::Error) -> KvError {
    KvError::Io(format!("the fsync failed: {error}"))
}
