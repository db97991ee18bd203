//! sled's pages: what is read, and what is written after the journal. The only file that names sled.
//!
//! sled keeps what is written in memory until a segment of its log (512 KiB) is full, hands that to the system, and takes it for
//! durable. Two things go by that, which a power cut would make wrong: the head of a segment says up to where the log was whole when
//! it was begun, and before that nobody looks for holes after a restart; and once such a head is written, an older segment of which
//! all is said again before that place may be written over, or cut off.
//!
//! So one thing holds whenever something is written: **all in front of the segment that is being filled is durable, and so is its
//! head.** A single write appends less than a segment, so it begins one at most, whose head tells of nothing behind the head of the
//! one before. After every single write it is looked where the log ends; is that in another segment, all is flushed and synced
//! before anything else is written, while nobody reads. Before that the journal notes which place in the file the segment was given:
//! until it is durable, what lies there may read like a damaged older one. Reading writes, too, but little: it splits and merges
//! pages that a write has left too large or too small. So whoever reads looks first whether a segment was filled meanwhile, and then the
//! same is done. (While a segment is still being handed to the system, many readers may fill another one behind it, in a place that
//! nobody has noted. After a power cut only a message of it that is whole tells there that what it was written over is not needed.)
//!
//! After a power cut sled therefore comes back with all up to some place behind what was synced last, and a number of batches
//! that all are in it. The journal has those behind that.
//!
//! sled panics on damage, so every call is made where a panic is caught. After an error it refuses all writes until it is opened
//! anew, so space is taken before. Some failing writes do not wake the `flush` that waits for them, which then never returns;
//! another write at that time does.

use super::{
    super::{
        journal::{Given, Note},
        kv::{Batch, KvError, Pair, Write},
        logfile::SEGMENT_BYTES,
        record::VALUE_BYTES_MAX,
        space::io_error,
    },
    durably,
};
use crate::server::store::directory::LOG_FILE;
use std::{
    fs::File,
    io,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

/// After a store is closed within the process, sled's own lock is let go by its background threads: wait this often for it.
pub(super) const REOPEN_ATTEMPTS: usize = 1_000;
pub(super) const REOPEN_PAUSE: Duration = Duration::from_millis(2);
/// In a tree of its own.
pub(in super::super) const COUNT_KEY: &str = "batches";
/// Written to in a tree of its own to wake those who wait.
const WAKE_KEY: &str = "wake";
/// The keys in other trees than the store's.
pub(in super::super) const FOREIGN_KEYS: [&str; 2] = [COUNT_KEY, WAKE_KEY];
/// Keys and values are no longer, each: what a write makes of the pages stays far below a segment.
const PART_BYTES_MAX: usize = 2 * VALUE_BYTES_MAX;

/// The open database.
pub(super) struct Pages {
    db: sled::Db,
    /// Holds the number of batches applied; always behind the batch in the log that it counts.
    counted: sled::Tree,
    /// The log file under sled, for the fsync.
    log_file: File,
    note: Note,
    /// Up to here the log is durable.
    synced: i64,
}

/// Sees to space for a segment.
pub(super) type Grow<'a> = dyn FnMut() -> Result<(), KvError> + 'a;

/// Does what helps a write that sled forgot.
pub(super) struct Alarm(sled::Db);

impl Pages {
    pub(super) fn open(directory: &Path, cache_bytes: u64, note: Note) -> Result<Self, KvError> {
        let config = sled::Config::new()
            .path(directory)
            .cache_capacity(cache_bytes)
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
        // While there is another handle, nothing is closed by the way.
        Self::of(db.clone(), directory, note).map_err(|error| let_go(db, error))
    }

    fn of(db: sled::Db, directory: &Path, note: Note) -> Result<Self, KvError> {
        let log_file = File::options().read(true).write(true).open(directory.join(LOG_FILE));
        let mut pages = Self {
            counted: unpanicked(|| db.open_tree("counted").map_err(kv_error))?,
            log_file: log_file.map_err(|error| io_error(&error))?,
            note,
            synced: -1,
            db,
        };
        pages.flush()?;
        Ok(pages)
    }

    /// The log file, to take space for it.
    pub(super) fn log_file(&self) -> io::Result<File> {
        self.log_file.try_clone()
    }

    pub(super) fn alarm(&self) -> Alarm {
        Alarm(self.db.clone())
    }

    /// How many batches are in them.
    pub(super) fn count(&self) -> Result<u64, KvError> {
        let count = unpanicked(|| self.counted.get(COUNT_KEY).map_err(kv_error))?;
        let count = count.and_then(|count| Some(u64::from_be_bytes(count.as_ref().try_into().ok()?)));
        Ok(count.unwrap_or(0))
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        unpanicked(|| Ok(self.db.get(key).map_err(kv_error)?.map(|value| value.to_vec())))
    }

    pub(super) fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError> {
        unpanicked(|| {
            let last = self.db.range(range).next_back().transpose().map_err(kv_error)?;
            Ok(last.map(|(key, value)| (key.to_vec(), value.to_vec())))
        })
    }

    /// What is in `range`, to be gone through by [`Pages::next`].
    pub(super) fn range(&self, range: Range<&[u8]>) -> Result<Found, KvError> {
        unpanicked(|| Ok(Found(self.db.range(range))))
    }

    pub(super) fn next(&self, found: &mut Found) -> Result<Option<Entry>, KvError> {
        unpanicked(|| found.0.next().transpose().map_err(kv_error))
    }

    pub(super) fn size_bytes(&self) -> Result<u64, KvError> {
        unpanicked(|| self.db.size_on_disk().map_err(kv_error))
    }

    /// Applies `batch`, the `number`-th, which is in the journal. Not atomic on the disk: the journal knows the rest of it. Before
    /// the log grows, `grow` is to see to the space for a segment.
    pub(super) fn apply(&mut self, batch: &Batch, number: u64, grow: &mut Grow<'_>) -> Result<(), KvError> {
        unpanicked(|| {
            self.keep_up(grow)?;
            for write in batch.writes() {
                let applied = match write {
                    Write::Put { key, value } => self.db.insert(key, value.as_slice()),
                    Write::Delete { key } => self.db.remove(key),
                };
                applied.map(drop).map_err(kv_error).map_err(finally)?;
                self.keep_up(grow)?;
            }
            let counted = self.counted.insert(COUNT_KEY, &number.to_be_bytes());
            counted.map(drop).map_err(kv_error).map_err(finally)?;
            self.keep_up(grow)
        })
    }

    /// Whether a segment was written that is not synced.
    pub(super) fn lags(&self) -> bool {
        segment(self.written() + 1) != segment(self.synced)
    }

    /// Makes the log durable if it has come into another segment.
    pub(super) fn keep_up(&mut self, grow: &mut Grow<'_>) -> Result<(), KvError> {
        let end = self.end()?;
        if segment(end) == segment(self.synced) {
            return Ok(());
        }
        grow()?;
        let begin = segment(end) * SEGMENT_BYTES as i64;
        let begun = self.db.context.pagecache.log.iter_from(begin).segments;
        if let Some(place) = begun.get(&begin) {
            let given = Given {
                segment: segment(end).unsigned_abs(),
                place: *place,
            };
            durably(|| self.note.write(given))?;
        }
        self.flush().map(drop).map_err(finally)
    }

    /// Makes all of the log durable; where it ends.
    pub(super) fn flush(&mut self) -> Result<u64, KvError> {
        unpanicked(|| {
            if self.lags() {
                // What the heads of segments say that readers have begun has to be true before these are written.
                durably(|| self.log_file.sync_data())?;
            }
            self.db.flush().map_err(kv_error)?;
            let written = self.written();
            durably(|| self.log_file.sync_data())?;
            self.synced = written;
            Ok((written + 1).unsigned_abs())
        })
    }

    /// Has all syncs of the log fail, or again succeed.
    #[cfg(test)]
    pub(super) fn break_syncs(&mut self, directory: &Path, broken: bool) {
        let file = if broken {
            "/dev/null".into()
        } else {
            directory.join(LOG_FILE)
        };
        self.log_file = File::options().write(true).open(file).unwrap();
    }

    /// Up to where sled has handed its log to the system.
    fn written(&self) -> i64 {
        self.db.context.pagecache.log.stable_offset()
    }

    /// Where the log ends, of which sled has the last part in memory. It has no other way to tell than a message that is withdrawn.
    fn end(&self) -> Result<i64, KvError> {
        let log = &self.db.context.pagecache.log;
        let message = log.reserve(sled::LogKind::Free, 0, &(), &sled::pin());
        let (end, _) = message
            .and_then(|message| message.abort())
            .map_err(kv_error)
            .map_err(finally)?;
        Ok(end)
    }
}

/// What a scan goes through.
pub(super) struct Found(sled::Iter);

/// A key and its value, shared with the pages.
pub(super) type Entry = (sled::IVec, sled::IVec);

impl Alarm {
    /// Writes something: if sled has met an error, this call meets it, too, and wakes those who wait. It goes to a tree of its
    /// own, where it disturbs nobody; one of the two writes changes something, or neither would reach the log.
    pub(super) fn wake(&self) {
        let write = || {
            let tree = self.0.open_tree(WAKE_KEY)?;
            tree.insert(WAKE_KEY, "")?;
            tree.remove(WAKE_KEY).map(drop)
        };
        if let Err(error) = unpanicked(|| write().map_err(kv_error)) {
            tracing::warn!(%error, "a write of the store has failed");
        }
    }
}

/// Closes the database, which writes what is left and syncs it, and panics if that fails.
pub(super) fn close(database: impl Sized) -> Result<(), KvError> {
    unpanicked(|| {
        drop(database);
        Ok(())
    })
}

/// Lets go of a database that did not open, for this reason. If only space was missing it is closed, and may be tried again; else
/// nothing of it may reach the disk any more.
pub(super) fn let_go(database: impl Sized, error: KvError) -> KvError {
    if error != KvError::Full {
        std::mem::forget(database);
    } else if let Err(error) = close(database) {
        tracing::warn!(%error, "the store did not close cleanly on a full disk");
    }
    error
}

/// Whether all keys and values have the length that the store gives them.
pub(super) fn fits(batch: &Batch) -> bool {
    batch.writes().iter().all(|write| match write {
        Write::Put { key, value } => key.len().max(value.len()) <= PART_BYTES_MAX,
        Write::Delete { key } => key.len() <= PART_BYTES_MAX,
    })
}

fn segment(place: i64) -> i64 {
    place.div_euclid(SEGMENT_BYTES as i64)
}

/// Whether sled says that its own lock is held; it has only words for that.
fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
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

/// The disk was full when it was too late to refuse the batch.
pub(super) fn finally(error: KvError) -> KvError {
    match error {
        KvError::Full => KvError::Io("the disk was full amid a write: free some space and restart".into()),
        other => other,
    }
}
