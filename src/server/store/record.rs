//! How bytes of any length lie in values of at most 4 KiB, so that every flipped bit is noticed.
//!
//! A chunk is a CRC-32 over its key and payload, and the payload; all chunks but the last have the same payload length, so
//! that an offset finds its chunk by arithmetic. A value of unknown length is preceded by its length and its own CRC-32
//! before it is cut; that also notices chunks of two different values under one key.

use super::kv::Batch;

/// The longest value that the store writes: longer ones would leave the log file of the floor.
pub const VALUE_BYTES_MAX: usize = 4096;
/// What one chunk holds.
pub const CHUNK_PAYLOAD_BYTES: usize = VALUE_BYTES_MAX - CRC_BYTES;
const CRC_BYTES: usize = 4;
/// The length and checksum before a value that tells its own.
pub(super) const HEADER_BYTES: usize = 8;

/// What was read is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Damaged {
    /// Where and what, for people.
    pub what: String,
}

impl Damaged {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into() }
    }
}

/// Puts `bytes` as chunks 0, 1, ... under the keys that `key` makes. Its length must be known to the reader; see
/// [`put_value`] for bytes that tell it themselves.
pub fn put_chunks(batch: &mut Batch, bytes: &[u8], key: impl Fn(u32) -> Vec<u8>) {
    for (chunk, payload) in (0..).zip(bytes.chunks(CHUNK_PAYLOAD_BYTES)) {
        let key = key(chunk);
        let value = seal(&key, payload);
        batch.put(key, value);
    }
}

/// Puts `body`, preceded by its length and checksum, as chunks under the keys that `key` makes.
pub fn put_value(batch: &mut Batch, body: &[u8], key: impl Fn(u32) -> Vec<u8>) {
    let length =
        u32::try_from(body.len()).expect("a value is limited far below 4 GiB by the frame and document limits");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(crc32fast::hash(body).to_le_bytes());
    bytes.extend(body);
    put_chunks(batch, &bytes, key);
}

/// How many chunks `bytes` bytes take.
pub const fn chunk_count(bytes: u64) -> u64 {
    bytes.div_ceil(CHUNK_PAYLOAD_BYTES as u64)
}

/// The chunk that goes under `key`.
pub fn seal(key: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(CRC_BYTES + payload.len());
    value.extend(checksum(key, payload).to_le_bytes());
    value.extend(payload);
    value
}

/// The payload of the chunk found under `key`.
///
/// # Errors
/// When it is not what was sealed under this very key.
pub fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let Some((crc, payload)) = value.split_first_chunk::<CRC_BYTES>() else {
        return Err(Damaged::new(format!("a chunk of {} bytes is cut short", value.len())));
    };
    if u32::from_le_bytes(*crc) != checksum(key, payload) {
        return Err(Damaged::new("a chunk does not match its checksum"));
    }
    Ok(payload)
}

/// Puts the chunks of a value together again, in order.
#[derive(Debug, Default)]
pub struct Assembler {
    bytes: Vec<u8>,
    chunks: u32,
}

impl Assembler {
    /// Takes the unsealed chunk of this number. The body comes out with the last one.
    ///
    /// # Errors
    /// When chunks are missing, too many or do not belong together.
    pub fn push(&mut self, chunk: u32, payload: &[u8]) -> Result<Option<Vec<u8>>, Damaged> {
        if chunk != self.chunks {
            return Err(Damaged::new(format!(
                "chunk {} of a value is missing, chunk {chunk} follows",
                self.chunks
            )));
        }
        self.chunks += 1;
        self.bytes.extend(payload);
        let Some((header, body)) = self.bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Damaged::new("the first chunk of a value is cut short"));
        };
        let [l0, l1, l2, l3, c0, c1, c2, c3] = *header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if body.len() > length {
            return Err(Damaged::new("a value is longer than it says"));
        }
        if body.len() < length {
            let full = payload.len() == CHUNK_PAYLOAD_BYTES;
            return if full {
                Ok(None)
            } else {
                Err(Damaged::new("a chunk amid a value is cut short"))
            };
        }
        if crc32fast::hash(body) != u32::from_le_bytes([c0, c1, c2, c3]) {
            return Err(Damaged::new("the chunks of a value do not belong together"));
        }
        let mut bytes = std::mem::take(self).bytes;
        bytes.drain(..HEADER_BYTES);
        Ok(Some(bytes))
    }

    /// Whether a value has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.chunks > 0
    }
}

fn checksum(key: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}
