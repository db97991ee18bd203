//! The log file under the store, read without sled: as it lies there, in whatever state it is. Nothing is written here.
//!
//! sled reads its log up to the first message that does not match its checksum, wipes what lies behind, and skips the rest of
//! an older segment that is damaged without a word. So a log is looked at before sled may ([`LogFile::look`]), and what is
//! in a damaged one is read here, where each key and value has a checksum of its own ([`carve`]).

mod carve;
mod node;
mod segment;

pub(super) use self::{
    carve::carve,
    segment::{SEGMENT_BYTES, flipped_bit},
};
use self::{
    node::{Link, leaf, link},
    segment::{Ending, Fix, HEAD_BYTES, Kind, Message, Piece, is_overwritten, is_wiped, pieces},
};
use super::journal::Given;
use super::sled::COUNT_KEY;
use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt, path::Path};

/// A log file. Places in it are as sled counts them: they grow with every message, and segments are used again.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// By their numbers.
    segments: BTreeMap<u64, Segment>,
    /// What the heads say: up to here the log is whole, but for what was written over.
    told: u64,
}

/// Up to where a log was synced, as far as anybody knows.
#[derive(Clone, Copy, Debug)]
pub(super) enum Synced {
    /// The batch with this number is the last one.
    Batch(u64),
    /// This place, and what the heads of segments say.
    Place(u64),
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    offset: u64,
    head: HeadOf,
}

/// How the head of a segment reads.
#[derive(Clone, Copy, Debug)]
enum HeadOf {
    Sound,
    /// One bit of it is wrong.
    Mended(Fix),
    /// It does not; its messages tell what it was.
    Gone,
}

/// What is wrong with a log.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The first place where it cannot be read, with synced batches behind it.
    pub(super) damage: Option<u64>,
    /// What puts the flipped bits before that right: bytes, and where they go in the file.
    pub(super) fixes: Vec<(u64, u8)>,
}

impl LogFile {
    /// Opens the log at `path`. The place that was `given` to a segment last holds that, or nothing that is needed.
    pub(super) fn open(path: &Path, given: Option<Given>) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut log = Self {
            segments: BTreeMap::new(),
            file,
            told: 0,
        };
        let mut damaged = Vec::new();
        let length = log.file.metadata()?.len();
        for offset in (0..length).step_by(SEGMENT_BYTES) {
            let mut head = [0; HEAD_BYTES];
            read_up_to(&log.file, &mut head, offset)?;
            log.told = log.told.max(segment::whole_before(&head));
            let found = segment::number(&head).map(|number| (number, HeadOf::Sound));
            let mended = || segment::mended_number(&head).map(|(number, fix)| (number, HeadOf::Mended(fix)));
            match found.or_else(mended) {
                Some((number, head @ HeadOf::Sound)) => drop(log.segments.insert(number, Segment { offset, head })),
                Some((number, head)) => damaged.push((Some(number), Segment { offset, head })),
                None => damaged.push((
                    None,
                    Segment {
                        offset,
                        head: HeadOf::Gone,
                    },
                )),
            }
        }
        for (number, segment) in damaged {
            let number = match number {
                Some(number) => Some(number),
                None => segment::number_within(&log.bytes(segment)?),
            };
            if let Some(number) = number {
                log.segments.entry(number).or_insert(segment);
            }
        }
        if let Some(given) = given {
            log.segments
                .retain(|number, segment| segment.offset != given.place || *number == given.segment);
        }
        Ok(log)
    }

    /// What is wrong with the log behind `start`, as far as it was synced. A log that ends torn is none of our business: what
    /// was not synced may be gone. If it `was_opening`, segments that are not needed may have been wiped in part.
    pub(super) fn look(&self, start: u64, synced: Synced, was_opening: bool) -> io::Result<Findings> {
        let first = start / SEGMENT_BYTES as u64;
        let (end, last) = match synced {
            Synced::Batch(count) => (u64::MAX, count),
            Synced::Place(place) => (self.synced_before(place), u64::MAX),
        };
        let (mut findings, mut reached) = (Findings::default(), false);
        for (number, segment) in self.segments.range(first..) {
            let begin = number * SEGMENT_BYTES as u64;
            if begin >= end {
                return Ok(findings);
            }
            let (bytes, before) = (self.bytes(*segment)?, (findings.damage, findings.fixes.len()));
            let Findings { damage, fixes } = &mut findings;
            match segment.head {
                HeadOf::Sound => {}
                HeadOf::Mended(fix) => fixes.push((segment.offset + fix.at as u64, fix.byte)),
                HeadOf::Gone => *damage = damage.or(Some(begin)),
            }
            let ending = pieces(&bytes, *number, &mut |at, piece| {
                // What lies behind was not synced.
                reached |= begin + at as u64 >= end;
                if reached {
                    return;
                }
                let is_last = |message: &Message<'_>| count(message).is_some_and(|count| count >= last);
                match piece {
                    Piece::Sound(message) => reached = is_last(&message),
                    Piece::Mended(message, fix) => {
                        fixes.push((segment.offset + (at + fix.at) as u64, fix.byte));
                        reached = is_last(&message);
                    }
                    Piece::Damaged(_) | Piece::Unknown => *damage = damage.or(Some(begin + at as u64)),
                }
            });
            if reached {
                return Ok(findings);
            }
            if let Ending::Open(at) = ending
                && begin + (at as u64) < end
            {
                *damage = damage.or(Some(begin + at as u64));
            }
            let is_left = || is_overwritten(&bytes, HEAD_BYTES, *number) || was_opening && is_wiped(&bytes);
            if findings.damage != before.0 && is_left() {
                // The power went while it was written anew, or wiped, in any order: what was here is not needed any more.
                findings.damage = before.0;
                findings.fixes.truncate(before.1);
            }
        }
        if findings.damage.is_some() && self.counts_before(first, last)? {
            return Ok(Findings::default());
        }
        Ok(findings)
    }

    /// Where what was synced ends, if that is at `place` or behind it.
    fn synced_before(&self, place: u64) -> u64 {
        self.told.max(place)
    }

    /// Whether batch `synced` lies before the segment `end`.
    fn counts_before(&self, end: u64, synced: u64) -> io::Result<bool> {
        let mut found = false;
        for (number, segment) in self.segments.range(..end) {
            pieces(&self.bytes(*segment)?, *number, &mut |_, piece| {
                if let Piece::Sound(message) = piece {
                    found |= count(&message).is_some_and(|count| count >= synced);
                }
            });
        }
        Ok(found)
    }

    fn bytes(&self, segment: Segment) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; SEGMENT_BYTES];
        let length = read_up_to(&self.file, &mut bytes, segment.offset)?;
        bytes.truncate(length);
        Ok(bytes)
    }
}

/// The number of batches that the message counts, if it does.
fn count(message: &Message<'_>) -> Option<u64> {
    let is_count = |key: &[u8]| key == COUNT_KEY.as_bytes();
    let value = match message.kind {
        Kind::Link => match link(&message.body)? {
            Link::Set { key, value } if is_count(key) => value,
            _ => return None,
        },
        Kind::Node => {
            let leaf = leaf(&message.body)?;
            let place = leaf.keys.iter().position(|key| is_count(key))?;
            leaf.values.get(place).copied()?
        }
        Kind::Cap | Kind::Other | Kind::Free | Kind::Blob => return None,
    };
    value.try_into().ok().map(u64::from_be_bytes)
}

/// Reads until the buffer is full or the file ends, and says how much that was.
fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
