//! The log file under the store, read without sled: as it lies there, in whatever state it is. Never written.
//!
//! sled reads its log up to the first message that does not match its checksum, wipes what lies behind, and skips the rest of
//! an older segment that is damaged without a word. So a log is looked at before sled may ([`LogFile::damage`]), and what is
//! in a damaged one is read here, where each key and value has a checksum of its own ([`carve`]).

mod carve;
mod node;
mod segment;

pub(super) use self::carve::carve;
use self::{
    node::{Link, leaf, link},
    segment::{Ending, HEAD_BYTES, Kind, Message, Piece, SEGMENT_BYTES, pieces},
};
use super::sled::COUNT_KEY;
use std::{collections::BTreeMap, fs::File, io, os::unix::fs::FileExt, path::Path};

/// A log file. Places in it are as sled counts them: they grow with every message, and segments are used again.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// By their numbers.
    segments: BTreeMap<u64, Segment>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    offset: u64,
    /// Whether its head can be read.
    has_head: bool,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut log = Self {
            segments: BTreeMap::new(),
            file,
        };
        let mut headless = Vec::new();
        let length = log.file.metadata()?.len();
        for offset in (0..length).step_by(SEGMENT_BYTES) {
            let mut head = [0; HEAD_BYTES];
            read_up_to(&log.file, &mut head, offset)?;
            let segment = Segment { offset, has_head: true };
            match segment::number(&head) {
                Some(number) => drop(log.segments.insert(number, segment)),
                None => headless.push(offset),
            }
        }
        for offset in headless {
            let segment = Segment {
                offset,
                has_head: false,
            };
            if let Some(number) = segment::number_within(&log.bytes(segment)?) {
                log.segments.entry(number).or_insert(segment);
            }
        }
        Ok(log)
    }

    /// The first place behind `start` where the log cannot be read, if batch `synced` lies behind it. A log that ends torn
    /// is none of our business: what was not synced may be gone.
    pub(super) fn damage(&self, start: u64, synced: u64) -> io::Result<Option<u64>> {
        let first = start / SEGMENT_BYTES as u64;
        let (mut suspect, mut reached) = (None, false);
        for (number, segment) in self.segments.range(first..) {
            let begin = number * SEGMENT_BYTES as u64;
            if !segment.has_head {
                suspect = suspect.or(Some(begin));
            }
            let ending = pieces(&self.bytes(*segment)?, *number, &mut |at, piece| {
                let is_counted = |message: &Message<'_>| count(message).is_some_and(|count| count >= synced);
                match piece {
                    Piece::Sound(message) => reached |= is_counted(&message),
                    _ if reached => {}
                    Piece::Mended(_) | Piece::Damaged(_) | Piece::Unknown => {
                        suspect = suspect.or(Some(begin + at as u64));
                    }
                }
            });
            if reached {
                return Ok(suspect);
            }
            if let Ending::Open(at) = ending {
                suspect = suspect.or(Some(begin + at as u64));
            }
        }
        if suspect.is_none() || self.counts_before(first, synced)? {
            return Ok(None);
        }
        Ok(suspect)
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
