//! The journal: batches as they were committed, one behind the other, until the pages under the store hold them durably.
//!
//! A batch is durable as soon as its record is synced here, and only then does anybody see it. The pages follow in their own
//! time; when they have caught up, the journal starts over. Its file is filled with zeros ahead of the records, so that a sync
//! changes no metadata and needs no space, and each record begins in a sector of its own, so that no later write touches one
//! that was synced.
//!
//! All this goes past the system's cache, straight to the disk, where that can be done (`journal/sectors.rs`): nobody reads it before the
//! next start.
//!
//! A record counts if its checksum is right, it carries the lap of the file's head, and its number follows. The lap is drawn at random
//! whenever the journal starts over: nothing from before, and nothing that somebody put into a value, passes for a record.
//! One flipped bit is put right. What breaks off at the end was never acknowledged; if a later record lies behind it, or the tally or
//! the pages know of one, it was, and the journal is damaged. Beside the head lies a note of what place in the log was given away last.
//!
//! The records stay when the journal is retired, or its head is lost. They name their lap themselves, and those in front are of the
//! last lap that has any: if they end where the pages end or behind that, to apply them all once more changes nothing.

use super::{kv::Batch, logfile::flipped_bit};
use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

mod note;
mod record;
mod sectors;

use self::{
    record::{RECORD_HEAD_BYTES, record, write_record},
    sectors::Sectors,
};

pub(super) use self::note::{Given, Note};

/// As long as the file may grow, but for a single batch that is larger.
pub(super) const BYTES_MAX: u64 = 4 << 20;
/// The file grows by so much.
const STEP_BYTES: u64 = 1 << 20;
/// What a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;
/// Head and note, a sector each.
const RECORDS_AT: u64 = 2 * SECTOR_BYTES;
/// Names the format.
const MAGIC: [u8; 8] = *b"journal1";
/// The magic, the lap, the number of the last batch before the first record, where that ends in the log, and a checksum.
const HEAD_BYTES: usize = 36;

/// The file, open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    file: Sectors,
    /// Drawn when it first started over: until then it takes no record, and whoever knows no journal may serve the store.
    lap: Option<u64>,
    /// Where the next record goes.
    end: u64,
    /// How far the file is filled.
    length: u64,
    encoded: Vec<u8>,
    #[cfg(test)]
    are_syncs_broken: bool,
}

/// What a journal was found to be.
#[derive(Debug)]
pub(super) enum Content {
    /// None was ever begun, or it was retired, and these are left of it.
    Blank(Records),
    /// Its head cannot be read, but these can, without the place where the log ended.
    Damaged(Records),
    /// This is in it.
    Records(Records),
}

/// The batches in a journal.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    /// So many batches were in the pages, durably, when it began.
    pub(super) base: u64,
    /// The log was durable up to here then.
    pub(super) log_end: u64,
    /// Those that came after them, in order.
    pub(super) batches: Vec<Batch>,
    /// The place in the log that was given away last; why it is noted, `sled/pages.rs` explains.
    pub(super) given: Option<Given>,
    /// A record in front of a later one cannot be read.
    pub(super) is_cut: bool,
    /// How many flipped bits were put right.
    pub(super) mended: usize,
}

impl Records {
    /// Those that say themselves what they are.
    fn unheaded(rest: &[u8]) -> Self {
        let named = record::named(rest).and_then(|(lap, number)| Some((lap, number.checked_sub(1)?)));
        let Some((lap, base)) = named else {
            return Self::default();
        };
        let mut records = Self {
            base,
            ..Self::default()
        };
        records.take(rest, lap);
        if records.batches.is_empty() {
            return Self::default();
        }
        records
    }

    /// Takes the records of `lap` that `rest` begins with.
    fn take(&mut self, mut rest: &[u8], lap: u64) {
        while let Some(found) = record(rest, lap, self.last() + 1) {
            let taken = sectors(found.bytes).min(rest.len());
            rest = &rest[taken..];
            self.mended += usize::from(found.is_mended);
            self.batches.push(found.batch);
        }
        let mut places = (0..rest.len()).step_by(SECTOR_BYTES as usize);
        self.is_cut = places.any(|at| record::is_later(&rest[at..], lap, self.last() + 1));
    }

    /// The number of the last batch.
    pub(super) fn last(&self) -> u64 {
        self.base + self.batches.len() as u64
    }

    /// Those behind the first `count` batches of the store, with their numbers.
    pub(super) fn after(&self, count: u64) -> impl Iterator<Item = (u64, &Batch)> {
        let numbered = (self.base + 1..).zip(&self.batches);
        numbered.filter(move |(number, _)| *number > count)
    }
}

impl Content {
    /// Reads the journal in `directory`, and changes nothing.
    pub(super) fn read(directory: &Path) -> io::Result<Self> {
        match std::fs::read(directory.join(Journal::FILE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self::Blank(Records::default())),
            bytes => Ok(Self::parse(&bytes?)),
        }
    }

    fn parse(bytes: &[u8]) -> Self {
        let Some((heads, rest)) = bytes.split_at_checked(RECORDS_AT as usize) else {
            return Self::Blank(Records::default());
        };
        let (head, note) = heads.split_at(SECTOR_BYTES as usize);
        let given = Given::read(note);
        let Some((lap, [base, log_end], mended)) = read_head(head) else {
            let records = Records {
                given,
                ..Records::unheaded(rest)
            };
            let is_blank = head.iter().all(|byte| *byte == 0);
            return if is_blank {
                Self::Blank(records)
            } else {
                Self::Damaged(records)
            };
        };
        let mut records = Records {
            base,
            log_end,
            mended,
            given,
            ..Records::default()
        };
        records.take(rest, lap);
        Self::Records(records)
    }
}

impl Journal {
    /// Its name in the directory.
    pub(super) const FILE: &str = "journal";

    /// Opens the file in `directory`, which is made if it is not there. What is in it stays until it starts over.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let path = directory.join(Self::FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)?;
        let length = file.metadata()?.len();
        let mut journal = Self {
            file: Sectors::new(file, &path),
            lap: None,
            end: RECORDS_AT,
            length,
            encoded: Vec::new(),
            #[cfg(test)]
            are_syncs_broken: false,
        };
        if length < STEP_BYTES {
            journal.fill(STEP_BYTES)?;
            File::open(directory)?.sync_all()?;
        }
        Ok(journal)
    }

    /// Where to note what place in the log is given away.
    pub(super) fn note(&self) -> io::Result<Note> {
        self.file.try_clone().map(Note::in_file)
    }

    /// Forgets all records, since `base` batches are durable elsewhere.
    pub(super) fn start_over(&mut self, base: u64, log_end: u64) -> io::Result<()> {
        let mut lap = [0; 8];
        getrandom::fill(&mut lap).map_err(io::Error::other)?;
        let lap = u64::from_le_bytes(lap);
        self.lap = Some(lap);
        self.file.write(&head(lap, [base, log_end]), 0)?;
        self.file.sync()?;
        self.end = RECORDS_AT;
        if self.length > BYTES_MAX {
            self.file.file().set_len(BYTES_MAX)?;
            self.length = BYTES_MAX;
        }
        Ok(())
    }

    /// Cuts all records off, though they are needed: a fault on purpose.
    pub(super) fn cut(&self) -> io::Result<()> {
        self.file.file().set_len(RECORDS_AT)
    }

    /// Forgets that there was a journal: all is durable elsewhere, and whoever knows none may serve the store.
    pub(super) fn retire(&mut self) -> io::Result<()> {
        self.file.write(&[0; RECORDS_AT as usize], 0)?;
        self.file.sync()
    }

    /// Whether it has started over since it was opened.
    pub(super) fn is_begun(&self) -> bool {
        self.lap.is_some()
    }

    /// Whether it is time to start over: there might be no room for the next batch.
    pub(super) fn is_half_full(&self) -> bool {
        self.end > BYTES_MAX / 2
    }

    /// Whether no record was written since it started over.
    pub(super) fn is_empty(&self) -> bool {
        self.end == RECORDS_AT
    }

    /// Whether there is room for `batch` before the journal has to start over. There always is for the first one then.
    pub(super) fn has_room(&self, batch: &Batch) -> bool {
        self.is_begun() && (self.is_empty() || self.end + record_bytes(batch) <= BYTES_MAX)
    }

    /// Takes the space for `batch`, so that writing it cannot fail for want of it.
    ///
    /// # Errors
    /// When there is none: the journal is as before.
    pub(super) fn reserve(&mut self, batch: &Batch) -> io::Result<()> {
        self.lengthen(self.end + record_bytes(batch))
    }

    /// Takes all the space that the file is to have.
    ///
    /// # Errors
    /// As [`Journal::reserve`].
    pub(super) fn reserve_all(&mut self) -> io::Result<()> {
        self.lengthen(BYTES_MAX)
    }

    /// Writes `batch`, the `number`-th of the store. It is durable after [`Journal::sync`].
    pub(super) fn append(&mut self, batch: &Batch, number: u64) -> io::Result<()> {
        let lap = self.lap.expect("a journal has room for a batch only once it is begun");
        self.encoded.clear();
        write_record(&mut self.encoded, batch, lap, number);
        self.file.write(&self.encoded, self.end)?;
        self.end += sectors(self.encoded.len()) as u64;
        // A large one is rare, and not to be kept in memory.
        self.encoded.shrink_to(STEP_BYTES as usize);
        Ok(())
    }

    /// Makes all records durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        if self.are_syncs_broken {
            return Err(io::Error::other("broken on purpose"));
        }
        self.file.sync()
    }

    /// Has the next sync fail: what was written is in the file, and nobody knows whether it is on the disk.
    #[cfg(test)]
    pub(super) fn break_syncs(&mut self) {
        self.are_syncs_broken = true;
    }

    fn lengthen(&mut self, needed: u64) -> io::Result<()> {
        if needed <= self.length {
            return Ok(());
        }
        self.fill(needed.next_multiple_of(STEP_BYTES)).inspect_err(|_| {
            // What is left of the attempt does no harm; the next one writes over it.
            let _ = self.file.file().set_len(self.length);
        })
    }

    fn fill(&mut self, length: u64) -> io::Result<()> {
        let zeros = vec![0; STEP_BYTES as usize];
        let mut at = self.length;
        while at < length {
            let part = (length - at).min(STEP_BYTES);
            self.file.file().write_all_at(&zeros[..part as usize], at)?;
            at += part;
        }
        self.file.file().sync_all()?;
        self.length = length;
        Ok(())
    }
}

/// The bytes that `batch` takes in the file.
fn record_bytes(batch: &Batch) -> u64 {
    sectors(RECORD_HEAD_BYTES + record::payload_bytes(batch)) as u64
}

fn sectors(bytes: usize) -> usize {
    bytes.next_multiple_of(SECTOR_BYTES as usize)
}

fn head(lap: u64, [base, log_end]: [u64; 2]) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..16].copy_from_slice(&lap.to_le_bytes());
    head[16..24].copy_from_slice(&base.to_le_bytes());
    head[24..32].copy_from_slice(&log_end.to_le_bytes());
    let crc = crc32fast::hash(&head[..32]);
    head[32..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// The lap, the base, and how many bits were put right.
fn read_head(sector: &[u8]) -> Option<(u64, [u64; 2], usize)> {
    let mut bytes: [u8; HEAD_BYTES] = *sector.first_chunk()?;
    let read = |bytes: &[u8; HEAD_BYTES]| {
        let lap = u64::from_le_bytes(bytes[8..16].try_into().ok()?);
        let base = u64::from_le_bytes(bytes[16..24].try_into().ok()?);
        let log_end = u64::from_le_bytes(bytes[24..32].try_into().ok()?);
        (*bytes == head(lap, [base, log_end])).then_some((lap, [base, log_end]))
    };
    if let Some((lap, ends)) = read(&bytes) {
        return Some((lap, ends, 0));
    }
    (0..8 * HEAD_BYTES).find_map(|bit| {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let found = read(&bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
        found.map(|(lap, ends)| (lap, ends, 1))
    })
}

#[cfg(test)]
mod tests;
