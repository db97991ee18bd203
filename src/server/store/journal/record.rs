//! One record of the journal: a batch behind a checksum, its length, its number, the lap, and a second check of the batch.
//!
//! Of a long record that tore, one bit in so many makes the checksum right by chance. So what is put right has to match the second
//! check, too, which has nothing in common with the first.

use super::{Batch, flipped_bit};
use crate::server::store::kv::Write;

/// A checksum of all that follows, the length of the payload, the number, the lap, the check of the payload.
pub(super) const RECORD_HEAD_BYTES: usize = 32;
const CRC_BYTES: usize = 4;
const CHECK_AT: usize = 24;
const DELETE: u8 = 0;
const PUT: u8 = 1;

/// A record as it was found.
pub(super) struct Found {
    pub(super) batch: Batch,
    /// Head and payload.
    pub(super) bytes: usize,
    /// One bit of it was wrong.
    pub(super) is_mended: bool,
}

/// How long the payload of `batch` is.
pub(super) fn payload_bytes(batch: &Batch) -> usize {
    let lengths = batch.writes().iter().map(|write| match write {
        Write::Put { .. } => 9,
        Write::Delete { .. } => 5,
    });
    batch.bytes() + lengths.sum::<usize>()
}

/// Appends the record of `batch` to `into`, which is empty.
pub(super) fn write_record(into: &mut Vec<u8>, batch: &Batch, lap: u64, number: u64) {
    let length = payload_bytes(batch);
    into.reserve(RECORD_HEAD_BYTES + length);
    into.extend([0; CRC_BYTES]);
    into.extend(length_bytes(length));
    into.extend(number.to_le_bytes());
    into.extend(lap.to_le_bytes());
    into.extend([0; RECORD_HEAD_BYTES - CHECK_AT]);
    for write in batch.writes() {
        match write {
            Write::Put { key, value } => {
                into.push(PUT);
                into.extend(length_bytes(key.len()));
                into.extend(key);
                into.extend(length_bytes(value.len()));
                into.extend(value);
            }
            Write::Delete { key } => {
                into.push(DELETE);
                into.extend(length_bytes(key.len()));
                into.extend(key);
            }
        }
    }
    let check = check(lap, &into[RECORD_HEAD_BYTES..]);
    into[CHECK_AT..RECORD_HEAD_BYTES].copy_from_slice(&check.to_le_bytes());
    let crc = crc32fast::hash(&into[CRC_BYTES..]);
    into[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// The record `number` of `lap` that `rest` begins with, if it does, but for one bit.
pub(super) fn record(rest: &[u8], lap: u64, number: u64) -> Option<Found> {
    let head: &[u8; RECORD_HEAD_BYTES] = rest.first_chunk()?;
    if let Some(payload) = sound(head, rest, lap, number) {
        return found(payload, false);
    }
    let mut flipped = *head;
    for bit in 0..8 * RECORD_HEAD_BYTES {
        flipped[bit / 8] ^= 1 << (bit % 8);
        if let Some(payload) = sound(&flipped, rest, lap, number) {
            return found(payload, true);
        }
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    let (fields, payload) = told(head, rest, lap, number)?;
    let wrong = checksum(head, payload) ^ fields.crc;
    let bit = flipped_bit(wrong, 8 * payload.len())?;
    let mut mended = payload.to_vec();
    let byte = mended.len() - 1 - bit / 8;
    mended[byte] ^= 0x80 >> (bit % 8);
    (check(lap, &mended) == fields.check).then(|| found(&mended, true))?
}

/// The lap and the number of the record that `rest` begins with, if it is one.
pub(super) fn named(rest: &[u8]) -> Option<(u64, u64)> {
    let fields = RecordHead::read(rest.first_chunk()?)?;
    Some((fields.lap, fields.number))
}

/// Whether `rest` begins with a record of `lap` that came after the one with this number.
pub(super) fn is_later(rest: &[u8], lap: u64, number: u64) -> bool {
    let sound = |head| match named(rest)? {
        (of, later) if of == lap && later > number => sound(head, rest, lap, later),
        _ => None,
    };
    rest.first_chunk().and_then(sound).is_some()
}

/// The payload, if it is whole.
fn sound<'a>(head: &[u8; RECORD_HEAD_BYTES], rest: &'a [u8], lap: u64, number: u64) -> Option<&'a [u8]> {
    let (fields, payload) = told(head, rest, lap, number)?;
    let is_sound = checksum(head, payload) == fields.crc && check(lap, payload) == fields.check;
    is_sound.then_some(payload)
}

/// The head and the payload of what says that it is this record.
fn told<'a>(head: &[u8; RECORD_HEAD_BYTES], rest: &'a [u8], lap: u64, number: u64) -> Option<(RecordHead, &'a [u8])> {
    let fields = RecordHead::read(head)?;
    if (fields.number, fields.lap) != (number, lap) {
        return None;
    }
    let payload = rest.get(RECORD_HEAD_BYTES..)?.get(..fields.length as usize)?;
    Some((fields, payload))
}

/// What stands before the payload.
struct RecordHead {
    crc: u32,
    length: u32,
    number: u64,
    lap: u64,
    check: u64,
}

impl RecordHead {
    fn read(head: &[u8; RECORD_HEAD_BYTES]) -> Option<Self> {
        let mut fields = Fields(head);
        Some(Self {
            crc: fields.length()?,
            length: fields.length()?,
            number: fields.number()?,
            lap: fields.number()?,
            check: fields.number()?,
        })
    }
}

/// Multiplies and turns, so that it is no CRC.
fn check(lap: u64, payload: &[u8]) -> u64 {
    // As many ones as zeros, without a pattern: the golden ratio.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, rest) = payload.as_chunks();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let words = words.iter().chain([&last]);
    words.fold(lap, |check, word| {
        (check ^ u64::from_le_bytes(*word)).wrapping_mul(FACTOR).rotate_left(29)
    })
}

fn checksum(head: &[u8; RECORD_HEAD_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[CRC_BYTES..]);
    hasher.update(payload);
    hasher.finalize()
}

fn found(payload: &[u8], is_mended: bool) -> Option<Found> {
    Some(Found {
        batch: decode(payload)?,
        bytes: RECORD_HEAD_BYTES + payload.len(),
        is_mended,
    })
}

fn decode(payload: &[u8]) -> Option<Batch> {
    let (mut batch, mut fields) = (Batch::default(), Fields(payload));
    while !fields.0.is_empty() {
        match fields.byte()? {
            PUT => batch.put(fields.bytes()?, fields.bytes()?),
            DELETE => batch.delete(fields.bytes()?),
            _ => return None,
        }
    }
    Some(batch)
}

/// A batch is far below 4 GiB: the floor refuses such.
fn length_bytes(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

/// Goes through what was encoded.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn length(&mut self) -> Option<u32> {
        let (length, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*length))
    }

    fn number(&mut self) -> Option<u64> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*number))
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.length()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }
}
