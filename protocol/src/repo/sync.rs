//! Automerge's sync messages, read and written without Automerge: heads, needs, what the sender has, and chunks.
//!
//! A Bloom filter is passed over unread: nothing here depends on it, and decoders have been brought down by its fields.

use super::RepoError;
use crate::ChangeHash;
use bytes::Bytes;

/// The first byte of a message whose changes come one by one.
const VERSION_1: u8 = 0x42;
/// The first byte of a message whose changes come as they would be loaded: a document, or changes one behind the other.
const VERSION_2: u8 = 0x43;
/// Hashes in one list. No honest document has as many heads.
const HASHES_MAX: usize = 10_000;
/// Statements of what the sender has; Automerge writes one or none.
const HAVE_MAX: u64 = 16;
/// Chunks in one message.
const CHUNKS_MAX: usize = 1_000_000;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const BUNDLE: u8 = 3;

/// A sync message as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncMessage {
    /// The sender's heads.
    pub heads: Vec<ChangeHash>,
    /// Changes that the sender asks for.
    pub need: Vec<ChangeHash>,
    /// What the sender has; empty when it wants nothing but `need`.
    pub have: Vec<Have>,
    /// Chunks of changes, plain or deflated, in the order sent.
    pub changes: Vec<Bytes>,
    /// Chunks that hold whole documents. Bundles are passed over.
    pub documents: Vec<Bytes>,
    /// Whether a section of flags follows: who sends none is too old to read messages of version 2.
    pub has_flags: bool,
}

/// What a sender says that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Have {
    /// It has these and all that they stand on.
    pub last_sync: Vec<ChangeHash>,
    /// Whether nothing is said of what it has besides.
    pub is_blank: bool,
}

impl SyncMessage {
    /// Reads a message of version 1 or 2. What is in the changes stays unread.
    ///
    /// # Errors
    /// If it is not one, or names more than a message may.
    pub fn decode(data: &Bytes) -> Result<Self, RepoError> {
        let mut reader = Leb::new(data);
        if !matches!(reader.take(1)?, [VERSION_1 | VERSION_2]) {
            return Err(RepoError::Sync("of an unknown version"));
        }
        let (heads, need) = (reader.hashes()?, reader.hashes()?);
        let count = reader.number()?;
        if count > HAVE_MAX {
            return Err(RepoError::Sync("it says too often what the sender has"));
        }
        let mut have = Vec::new();
        for _ in 0..count {
            let last_sync = reader.hashes()?;
            let filter = reader.number()?;
            let is_blank = reader.take(filter)?.is_empty() && last_sync.is_empty();
            have.push(Have { last_sync, is_blank });
        }
        let mut message = Self {
            heads,
            need,
            have,
            ..Self::default()
        };
        for _ in 0..reader.number()? {
            let length = reader.number()?;
            message.take_chunks(data, reader.take(length)?)?;
        }
        message.has_flags = !reader.rest.is_empty();
        Ok(message)
    }

    /// Whether the sender says it has nothing that it knows us to have: its state was lost, or ours is unknown to it.
    pub fn is_reset(&self) -> bool {
        self.changes.is_empty() && self.have.first().is_some_and(|have| have.is_blank)
    }

    fn take_chunks(&mut self, data: &Bytes, chunks: &[u8]) -> Result<(), RepoError> {
        let mut reader = Leb::new(chunks);
        while !reader.rest.is_empty() {
            let (kind, chunk) = reader.chunk()?;
            if self.changes.len() + self.documents.len() >= CHUNKS_MAX {
                return Err(RepoError::Sync("too many changes"));
            }
            let chunk = data.slice_ref(chunk);
            match kind {
                DOCUMENT => self.documents.push(chunk),
                BUNDLE => {}
                _ => self.changes.push(chunk),
            }
        }
        Ok(())
    }
}

/// A message that says where its sender is and carries changes one by one. `heads` ascend, and whoever has taken the
/// message has them: so they are also what the sender takes the other side to have.
pub fn encode_sync<'a>(heads: &[ChangeHash], changes: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let bytes: usize = changes.clone().map(|change| change.len() + 5).sum();
    let mut out = head(VERSION_1, heads, heads, bytes);
    number(&mut out, changes.clone().count() as u64);
    for change in changes {
        number(&mut out, change.len() as u64);
        out.extend_from_slice(change);
    }
    out
}

/// As [`encode_sync`], with the changes in one piece that is loaded as a whole: a saved document and changes behind it.
pub fn encode_whole(heads: &[ChangeHash], saved: &[u8]) -> Vec<u8> {
    let mut out = head(VERSION_2, heads, heads, saved.len() + 10);
    number(&mut out, 1);
    number(&mut out, saved.len() as u64);
    out.extend_from_slice(saved);
    out
}

/// A message that makes its receiver forget what it has sent, and send all that does not stand below `last_sync` again.
pub fn encode_again(last_sync: &[ChangeHash]) -> Vec<u8> {
    let mut out = head(VERSION_1, &[], last_sync, 1);
    number(&mut out, 0);
    out
}

fn head(version: u8, heads: &[ChangeHash], last_sync: &[ChangeHash], more: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 * (heads.len() + last_sync.len()) + 24 + more);
    out.push(version);
    hashes(&mut out, heads);
    number(&mut out, 0);
    number(&mut out, 1);
    hashes(&mut out, last_sync);
    number(&mut out, 0);
    out
}

fn hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    number(out, hashes.len() as u64);
    hashes.iter().for_each(|hash| out.extend_from_slice(&hash.0));
}

/// An unsigned LEB128.
fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Leb<'a> {
    rest: &'a [u8],
}

impl<'a> Leb<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], RepoError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or(RepoError::Sync("it ends in the middle of a field"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, RepoError> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RepoError::Sync("a number is out of range"))
    }

    fn hashes(&mut self) -> Result<Vec<ChangeHash>, RepoError> {
        let count = self.number()?;
        if count > HASHES_MAX as u64 {
            return Err(RepoError::Sync("it names too many changes"));
        }
        let bytes = self.take(count * 32)?;
        Ok(bytes.as_chunks::<32>().0.iter().map(|hash| ChangeHash(*hash)).collect())
    }

    /// The kind of the next chunk, and all of it.
    fn chunk(&mut self) -> Result<(u8, &'a [u8]), RepoError> {
        let whole = self.rest;
        if self.take(4)? != MAGIC {
            return Err(RepoError::Sync("what it carries is not in chunks"));
        }
        self.take(4)?;
        let kind = self.take(1)?[0];
        let length = self.number()?;
        self.take(length)?;
        Ok((kind, &whole[..whole.len() - self.rest.len()]))
    }
}

/// Whole change chunks, one behind the other, apart.
pub fn split_chunks(mut chunks: &[u8]) -> Vec<&[u8]> {
    let mut apart = Vec::new();
    loop {
        let mut reader = Leb::new(chunks);
        let Ok((_, chunk)) = reader.chunk() else { return apart };
        apart.push(chunk);
        chunks = reader.rest;
    }
}
