//! A whole document that a peer sends: read under limits, and taken apart into the changes that it holds. Each of them then
//! passes the gate as if it had come by itself; nothing here vouches for any.
//!
//! Before Automerge sees the document its columns are inflated under a cap and their runs summed without expanding one, so
//! that what comes out of a few bytes is no more than the limits of one change. CPU-heavy: never on an I/O thread.

use super::{
    Refusal,
    columns::{Runs, add_product},
    header::{DOCUMENT, checked_hash, frame, inflate, read_actor},
    marks::MARK_ENDS_FIRST,
    reader::Reader,
};
use automerge::{Automerge, AutomergeError};
use bytes::Bytes;
use std::panic::{AssertUnwindSafe, catch_unwind};
use syncline_protocol::Limits;

/// Changes in one document.
const CHANGES_MAX: u64 = 4_000;
/// Actors in one document: taking it apart goes through all of them for each change.
const ACTORS_MAX: u64 = 1_000;
/// Columns of the changes, and of the operations.
const COLUMNS_MAX: u64 = 32;
/// Changes times actors: Automerge compares the changes whose hashes begin with a zero byte with each other, actor by actor, and
/// nobody can see the hashes before.
const CHANGES_BY_ACTORS_MAX: u64 = 1_000_000;
/// What that takes for each pair of changes, if all are such.
const BYTES_PER_PAIR: u64 = 3;
/// What taking a document apart takes for each change and each operation, and how often all its bytes: at most, about.
const BYTES_PER_CHANGE: u64 = 4 << 10;
const BYTES_PER_VALUE: u64 = 512;
const COPIES: u64 = 4;

const UNREADABLE: Refusal = Refusal::Dishonest("the document cannot be read");
const TOO_LARGE: Refusal = Refusal::Limit("the document is larger than what is taken in one piece; send its changes");

/// Kinds of columns: one that says how many values of the columns behind it, of the same number, belong to each row, and
/// bytes whose lengths the column before it says.
const GROUP: u64 = 0;
const RAW: u64 = 7;
/// Set where a column is deflated.
const DEFLATED: u64 = 0b1000;

/// A document chunk that is sound as far as it can be read without expanding it, and within the limits.
#[derive(Clone, Debug)]
pub struct Whole {
    bytes: Bytes,
    memory_bytes: u64,
}

impl Whole {
    /// Reads a chunk: frame, checksum, actors, heads, columns inflated under a cap, summed run lengths.
    ///
    /// # Errors
    /// [`Refusal::Limit`] and [`Refusal::Inflates`] for what is too large, [`Refusal::Dishonest`] for what no Automerge writes.
    pub fn read(bytes: Bytes, limits: &Limits) -> Result<Self, Refusal> {
        if bytes.len() as u64 > limits.inflated_bytes_max {
            return Err(TOO_LARGE);
        }
        let frame = frame(&bytes)?;
        if frame.kind != DOCUMENT {
            return Err(UNREADABLE);
        }
        checked_hash(&bytes, bytes.len() - frame.contents.len())?;
        let mut reader = Reader::new(frame.contents);
        let actors = reader.unsigned()?;
        if actors > ACTORS_MAX {
            return Err(TOO_LARGE);
        }
        for _ in 0..actors {
            read_actor(&mut reader)?;
        }
        let heads = reader.unsigned()?;
        reader.take(heads.saturating_mul(32))?;
        let (changes, operations) = (columns(&mut reader)?, columns(&mut reader)?);
        let mut sums = Sums {
            values_max: limits.ops_per_change_max,
            bytes_left: limits.inflated_bytes_max,
            values: 0,
        };
        let count = sums.table(&mut reader, changes)?;
        if count > CHANGES_MAX || count * actors > CHANGES_BY_ACTORS_MAX {
            return Err(TOO_LARGE);
        }
        sums.table(&mut reader, operations)?;
        let used = COPIES * (limits.inflated_bytes_max - sums.bytes_left);
        Ok(Self {
            memory_bytes: BYTES_PER_CHANGE * count
                + BYTES_PER_PAIR * count * count
                + BYTES_PER_VALUE * sums.values
                + used,
            bytes,
        })
    }

    /// About how much memory [`Whole::changes`] takes, at most.
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Its changes as plain chunks, each behind those that it stands on.
    ///
    /// Automerge runs under `catch_unwind` here, on nothing but these bytes.
    ///
    /// # Errors
    /// [`Refusal::Limit`] if Automerge wrote it once and loads it no more, [`Refusal::Dishonest`] if it cannot be taken apart.
    pub fn changes(self) -> Result<Vec<Bytes>, Refusal> {
        let apart = AssertUnwindSafe(|| {
            let document = Automerge::load(&self.bytes).map_err(|error| refusal(&error))?;
            let changes = document.get_changes(&[]);
            let plain = changes.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes()));
            Ok(plain.collect())
        });
        catch_unwind(apart).unwrap_or(Err(UNREADABLE))
    }
}

/// Why Automerge does not load a document. Its errors tell the reason in words only.
fn refusal(error: &AutomergeError) -> Refusal {
    if error.to_string().contains("mark operation order") {
        return MARK_ENDS_FIRST;
    }
    UNREADABLE
}

/// The columns that a table announces, with the length of each.
fn columns(reader: &mut Reader<'_>) -> Result<Vec<(u64, u64)>, Refusal> {
    let count = reader.unsigned()?;
    if count > COLUMNS_MAX {
        return Err(UNREADABLE);
    }
    (0..count)
        .map(|_| Ok((reader.unsigned()?, reader.unsigned()?)))
        .collect()
}

/// What all columns hold.
struct Sums {
    /// Of each column: values, and what they count.
    values_max: u64,
    /// For columns once they are inflated, and for texts as often as they stand there.
    bytes_left: u64,
    /// Of the fullest column.
    values: u64,
}

impl Sums {
    /// Adds the columns of a table, and says how many rows it has: all columns speak of as many, or of nothing but nulls, and
    /// then they are empty.
    fn table(&mut self, reader: &mut Reader<'_>, columns: Vec<(u64, u64)>) -> Result<u64, Refusal> {
        let (mut rows, mut group) = (None, None);
        for (spec, length) in columns {
            let values = self.add(spec, reader.take(length)?)?;
            let (number, kind) = (spec >> 4, spec & 0b111);
            if kind == GROUP {
                group = Some(number);
            } else if kind == RAW || group == Some(number) {
                continue;
            }
            if length > 0 && *rows.get_or_insert(values) != values {
                return Err(UNREADABLE);
            }
        }
        Ok(rows.unwrap_or(0))
    }

    /// The number of values of one column.
    fn add(&mut self, spec: u64, bytes: &[u8]) -> Result<u64, Refusal> {
        let inflated;
        let bytes = if spec & DEFLATED == 0 {
            bytes
        } else {
            inflated = inflate(bytes, self.bytes_left)?;
            &inflated
        };
        self.take(bytes.len() as u64)?;
        let mut runs = Runs::new(bytes, self.values_max);
        let mut counted = 0;
        match spec & 0b111 {
            // How many further values, of other columns, belong to each.
            GROUP => runs.unsigned(|times, value| add_product(&mut counted, times, value))?,
            // Actors and whole numbers.
            1 | 2 => runs.unsigned(|_, _| Ok(()))?,
            // Differences.
            3 => runs.each(|_, reader| reader.signed().map(|_| ()))?,
            4 => runs.booleans()?,
            5 => {
                let mut expanded = 0;
                runs.each(|times, reader| {
                    let length = reader.unsigned()?;
                    std::str::from_utf8(reader.take(length)?).map_err(|_| UNREADABLE)?;
                    add_product(&mut expanded, times, length)
                })?;
                self.take(expanded)?;
            }
            // How long each value is, and its type.
            6 => {
                let mut lengths = 0;
                runs.unsigned(|times, value| add_product(&mut lengths, times, value >> 4))?;
                self.take(lengths)?;
            }
            // The values themselves.
            _ => return Ok(0),
        }
        if counted > self.values_max {
            return Err(TOO_LARGE);
        }
        self.values = self.values.max(runs.values()).max(counted);
        Ok(runs.values())
    }

    fn take(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(TOO_LARGE)?;
        Ok(())
    }
}
