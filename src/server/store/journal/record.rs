//! One record of the journal: a batch behind a checksum, its length, its number and the lap.

use super::{Batch, flipped_bit};
use crate::server::store::kv::Write;

/// A checksum of all that follows, the length of the payload, the number, the lap.
pub(super) const RECORD_HEAD_BYTES: usize = 24;
const CRC_BYTES: usize = 4;
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
    let (crc, payload) = told(head, rest, lap, number)?;
    let wrong = checksum(head, payload) ^ crc;
    let bit = flipped_bit(wrong, 8 * payload.len())?;
    let mut mended = payload.to_vec();
    let byte = mended.len() - 1 - bit / 8;
    mended[byte] ^= 0x80 >> (bit % 8);
    found(&mended, true)
}

/// The payload, if the checksum is right.
fn sound<'a>(head: &[u8; RECORD_HEAD_BYTES], rest: &'a [u8], lap: u64, number: u64) -> Option<&'a [u8]> {
    let (crc, payload) = told(head, rest, lap, number)?;
    (checksum(head, payload) == crc).then_some(payload)
}

/// The checksum and the payload of what says that it is this record.
fn told<'a>(head: &[u8; RECORD_HEAD_BYTES], rest: &'a [u8], lap: u64, number: u64) -> Option<(u32, &'a [u8])> {
    let mut fields = Fields(head);
    let (crc, length) = (fields.length()?, fields.length()?);
    if fields.0 != [number.to_le_bytes(), lap.to_le_bytes()].concat() {
        return None;
    }
    let payload = rest.get(RECORD_HEAD_BYTES..)?.get(..length as usize)?;
    Some((crc, payload))
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

/// A batch is far below 4 GiB: the writer's queue takes no such.
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

    fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.length()? as usize;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes.to_vec())
    }
}
