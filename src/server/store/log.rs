//! The log of a document: what one append holds, and how it lies in its bytes.

use bytes::Bytes;
use syncline_protocol::{ChangeHash, Position};

use super::{
    codec::{Reader, put_bytes, put_number},
    record::{Damaged, HEADER_BYTES},
};

const RECORD_FORMAT: u8 = 1;
/// What a number hardly ever is longer than; space is set aside for so much.
const NUMBER_BYTES: usize = 5;
/// Positions stay exact in JavaScript.
const POSITION_MAX: u64 = (1 << 53) - 1;

/// One change in the log, with the subject that wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Whose token it came with.
    pub subject: String,
    /// The change as submitted, byte for byte.
    pub change: Bytes,
}

/// What one append holds: the changes of one batch of one room. At least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// The position of its first change.
    pub position: Position,
    /// The bytes of all changes that came before it in this epoch's log.
    pub bytes_before: u64,
    /// The changes, at `position`, `position + 1`, ...
    pub entries: Vec<LogEntry>,
}

impl LogRecord {
    /// The position after its last change.
    pub fn end(&self) -> Position {
        self.position.plus(self.entries.len() as u64)
    }

    /// The bytes of all changes up to its end.
    pub fn bytes_end(&self) -> u64 {
        self.bytes_before + self.entries.iter().map(|entry| entry.change.len() as u64).sum::<u64>()
    }

    /// Drops the changes before `position`.
    pub(super) fn trim_before(&mut self, position: Position) {
        let before = position.number().saturating_sub(self.position.number());
        let before = usize::try_from(before).map_or(self.entries.len(), |before| before.min(self.entries.len()));
        self.bytes_before += self
            .entries
            .drain(..before)
            .map(|entry| entry.change.len() as u64)
            .sum::<u64>();
        self.position = self.position.plus(before as u64);
    }

    /// Drops the changes from `position` on.
    pub(super) fn trim_from(&mut self, position: Position) {
        let kept = position.number().saturating_sub(self.position.number());
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    /// The record's body; its position is in its key.
    pub(super) fn encode(&self) -> Vec<u8> {
        self.as_new().encode()
    }

    /// The same as it is written.
    pub(super) fn as_new(&self) -> NewRecord<impl NewEntries<'_>> {
        NewRecord {
            position: self.position,
            bytes_before: self.bytes_before,
            entries: self.entries.iter().map(|entry| (&*entry.subject, &*entry.change)),
        }
    }

    /// Reads what `encode` wrote; the changes share the memory of `body`.
    pub(super) fn decode(position: Position, body: Bytes) -> Result<Self, Damaged> {
        let (mut reader, bytes_before) = open(body)?;
        let subjects = (0..reader.count()?)
            .map(|_| reader.text())
            .collect::<Result<Vec<_>, _>>()?;
        let count = reader.count()?;
        if count == 0 || position.number() + count as u64 > POSITION_MAX {
            return Err(Damaged::new(format!("a record holds {count} changes")));
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let subject = usize::try_from(reader.number()?)
                .ok()
                .and_then(|number| subjects.get(number));
            let subject = subject.ok_or_else(|| Damaged::new("a change has no subject"))?.clone();
            entries.push(LogEntry {
                subject,
                change: reader.bytes()?,
            });
        }
        reader.end()?;
        Ok(Self {
            position,
            bytes_before,
            entries,
        })
    }
}

/// A [`LogRecord`] that is about to be written: each change with the subject that wrote it.
#[derive(Clone, Debug)]
pub struct NewRecord<Entries> {
    /// The position of its first change.
    pub position: Position,
    /// The bytes of all changes that came before it in this epoch's log.
    pub bytes_before: u64,
    /// At least one.
    pub entries: Entries,
}

/// Subjects and changes, walked over more than once.
pub trait NewEntries<'a>: Iterator<Item = (&'a str, &'a [u8])> + Clone {}

impl<'a, T: Iterator<Item = (&'a str, &'a [u8])> + Clone> NewEntries<'a> for T {}

impl<'a, Entries: NewEntries<'a>> NewRecord<Entries> {
    /// The position after its last change.
    pub(super) fn end(&self) -> Position {
        self.position.plus(self.entries.clone().count() as u64)
    }

    /// The record's body; its position is in its key.
    pub(super) fn encode(&self) -> Vec<u8> {
        let (mut subjects, mut count): (Vec<&str>, u64) = (Vec::new(), 0);
        let bytes = self.entries.clone().map(|(_, change)| 2 * NUMBER_BYTES + change.len());
        let mut changes = Vec::with_capacity(bytes.sum());
        for (subject, change) in self.entries.clone() {
            // A batch has few subjects, and the last one is the likeliest to come again.
            let number = subjects.iter().rposition(|known| *known == subject).unwrap_or_else(|| {
                subjects.push(subject);
                subjects.len() - 1
            });
            put_number(&mut changes, number as u64);
            put_bytes(&mut changes, change);
            count += 1;
        }
        let bytes = subjects
            .iter()
            .map(|subject| NUMBER_BYTES + subject.len())
            .sum::<usize>();
        let mut out = Vec::with_capacity(1 + 3 * NUMBER_BYTES + bytes + changes.len());
        out.push(RECORD_FORMAT);
        put_number(&mut out, self.bytes_before);
        put_number(&mut out, subjects.len() as u64);
        for subject in subjects {
            put_bytes(&mut out, subject.as_bytes());
        }
        put_number(&mut out, count);
        out.extend(changes);
        out
    }
}

/// What a record's first chunk tells without the others: the bytes of all changes before it.
pub(super) fn bytes_before_in_first_chunk(payload: &[u8]) -> Result<u64, Damaged> {
    let body = payload
        .get(HEADER_BYTES..)
        .ok_or_else(|| Damaged::new("the first chunk of a record is cut short"))?;
    open(Bytes::copy_from_slice(body)).map(|(_, bytes_before)| bytes_before)
}

fn open(body: Bytes) -> Result<(Reader, u64), Damaged> {
    let mut reader = Reader::new(body);
    let format = reader.byte()?;
    if format != RECORD_FORMAT {
        return Err(Damaged::new(format!("a log record has the unknown format {format}")));
    }
    let bytes_before = reader.number()?;
    Ok((reader, bytes_before))
}

/// A change that turned out bad after it was logged, or stood on such a one. Its hash is refused for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// The change's hash.
    pub hash: ChangeHash,
    /// The change and who sent it.
    pub entry: LogEntry,
}

impl Culprit {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![RECORD_FORMAT];
        put_bytes(&mut out, self.entry.subject.as_bytes());
        put_bytes(&mut out, &self.entry.change);
        out
    }

    pub(super) fn decode(hash: ChangeHash, body: Bytes) -> Result<Self, Damaged> {
        let mut reader = Reader::new(body);
        let format = reader.byte()?;
        if format != RECORD_FORMAT {
            return Err(Damaged::new(format!(
                "a quarantined change has the unknown format {format}"
            )));
        }
        let entry = LogEntry {
            subject: reader.text()?,
            change: reader.bytes()?,
        };
        reader.end()?;
        Ok(Self { hash, entry })
    }
}
