//! The first step of the gate: frame, checksum, header and column metadata of one change chunk.
//!
//! The layout is that of Automerge's binary format: magic, checksum, chunk type, length, then dependencies, actor, seq,
//! start op, time, message, other actors, column metadata, columns, and whatever bytes are left over.

use super::{
    Refusal, columns,
    reader::{Reader, write_unsigned},
};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{io::Read, ops::Range};
use syncline_protocol::{ChangeHash, Limits};

/// The largest operation counter: half of what Automerge can count, so that no honest edit ever comes near its end.
pub(crate) const COUNTER_MAX: u32 = i32::MAX as u32;
/// The longest actor id in bytes.
const ACTOR_BYTES_MAX: u64 = 64;

/// How far into a deflated change its actor is looked for: behind 10,000 dependencies.
const ACTOR_WITHIN_BYTES: u64 = 384 << 10;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
pub(super) const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const DEFLATED_CHANGE: u8 = 2;
const BUNDLE: u8 = 3;

/// A change whose frame, checksum and column metadata are sound and within the limits; its columns are still unread.
#[derive(Clone, Debug)]
pub struct Header {
    pub(super) raw: Bytes,
    pub(super) hash: ChangeHash,
    pub(super) deps: Vec<ChangeHash>,
    /// Where in `raw` its actor stands.
    actor: Range<usize>,
    pub(super) seq: u32,
    pub(super) start_op: u32,
    pub(super) ops: u32,
    pub(super) has_extra_bytes: bool,
    /// Where in `raw` the message, the other actors and the columns begin.
    pub(super) message_at: usize,
}

/// Reads the chunk: size, type, checksum, header, column metadata, summed run lengths. Expands nothing but a capped inflate.
///
/// # Errors
/// [`Refusal::Limit`] and [`Refusal::Inflates`] for what is too large, [`Refusal::Dishonest`] for what no Automerge writes.
pub fn read(bytes: Bytes, limits: &Limits) -> Result<Header, Refusal> {
    read_or_back(bytes, limits).map_err(|(_, refusal)| refusal)
}

/// As [`read`], for who needs the bytes again when they are refused.
pub(in crate::engine) fn read_or_back(bytes: Bytes, limits: &Limits) -> Result<Header, (Bytes, Refusal)> {
    let read = unframe(&bytes, limits).and_then(|(inflated, contents)| {
        let header_of = read_plain(inflated.as_deref().unwrap_or(&bytes), contents, limits)?;
        Ok((inflated, header_of))
    });
    match read {
        Ok((inflated, header_of)) => Ok(header_of(inflated.unwrap_or(bytes))),
        Err(refusal) => Err((bytes, refusal)),
    }
}

/// Reads a plain chunk; the header is made of it once it may be moved.
fn read_plain(raw: &[u8], contents: usize, limits: &Limits) -> Result<impl FnOnce(Bytes) -> Header + use<>, Refusal> {
    let hash = checked_hash(raw, contents)?;
    let mut reader = Reader::new(&raw[contents..]);
    let deps = read_deps(&mut reader)?;
    let actor_bytes = read_actor(&mut reader)?.len();
    let actor_end = raw.len() - reader.len();
    let seq =
        u32::try_from(reader.unsigned()?).map_err(|_| Refusal::Dishonest("the sequence number is out of range"))?;
    let start_op = reader.unsigned()?;
    reader.signed()?;
    let message_at = raw.len() - reader.len();
    let message_bytes = reader.unsigned()?;
    reader.take(message_bytes)?;
    let mut actors = 1;
    for _ in 0..reader.unsigned()? {
        read_actor(&mut reader)?;
        actors += 1;
    }
    let ops = columns::read(&mut reader, actors, limits.ops_per_change_max)?;
    if seq == 0 || start_op == 0 {
        return Err(Refusal::Dishonest("sequence numbers and operation counters begin at 1"));
    }
    if start_op > u64::from(COUNTER_MAX) - u64::from(ops) {
        return Err(Refusal::Dishonest("the operation counters are out of range"));
    }
    let has_extra_bytes = !reader.is_empty();
    Ok(move |raw| Header {
        hash,
        deps,
        actor: actor_end - actor_bytes..actor_end,
        seq,
        start_op: start_op as u32,
        ops,
        has_extra_bytes,
        message_at,
        raw,
    })
}

/// Who made a change that [`read`] refuses, if that much of it can be read.
pub fn actor(bytes: &Bytes) -> Option<Bytes> {
    let frame = frame(bytes).ok()?;
    let mut contents = Vec::new();
    let contents = match frame.kind {
        CHANGE => frame.contents,
        DEFLATED_CHANGE => {
            let mut beginning = flate2::bufread::DeflateDecoder::new(frame.contents).take(ACTOR_WITHIN_BYTES);
            // As much as inflates before an error is good enough.
            let _ = beginning.read_to_end(&mut contents);
            &contents
        }
        _ => return None,
    };
    let mut reader = Reader::new(contents);
    read_deps(&mut reader).ok()?;
    Some(Bytes::copy_from_slice(read_actor(&mut reader).ok()?))
}

impl Header {
    /// The hash that names the change.
    pub fn hash(&self) -> ChangeHash {
        self.hash
    }

    /// The actor that made it.
    pub fn actor(&self) -> &[u8] {
        &self.raw[self.actor.clone()]
    }

    /// The other actors that it names, as they stand there.
    pub(super) fn other_actors(&self) -> impl Iterator<Item = &[u8]> {
        let mut reader = Reader::new(&self.raw[self.message_at..]);
        let message = reader.unsigned().and_then(|bytes| reader.take(bytes));
        let count = message.and_then(|_| reader.unsigned()).unwrap_or(0);
        (0..count).map_while(move |_| read_actor(&mut reader).ok())
    }

    /// How many operations it holds.
    pub fn ops(&self) -> u64 {
        self.ops.into()
    }

    /// The changes it stands on.
    pub fn deps(&self) -> &[ChangeHash] {
        &self.deps
    }

    /// The plain (never deflated) change chunk.
    pub fn bytes(&self) -> &Bytes {
        &self.raw
    }
}

/// A chunk's outermost layer.
pub(super) struct Frame<'a> {
    checksum: &'a [u8],
    pub(super) kind: u8,
    pub(super) contents: &'a [u8],
}

pub(super) fn frame(bytes: &[u8]) -> Result<Frame<'_>, Refusal> {
    let mut reader = Reader::new(bytes);
    if reader.take(4)? != MAGIC {
        return Err(Refusal::Dishonest("not an Automerge chunk"));
    }
    let checksum = reader.take(4)?;
    let kind = reader.byte()?;
    let length = reader.unsigned()?;
    if length != reader.len() as u64 {
        return Err(Refusal::Dishonest("the chunk's length does not match the bytes sent"));
    }
    let contents = &bytes[bytes.len() - reader.len()..];
    Ok(Frame {
        checksum,
        kind,
        contents,
    })
}

/// The chunk as a plain change, if it has to be inflated for that, and where its contents begin.
fn unframe(bytes: &[u8], limits: &Limits) -> Result<(Option<Bytes>, usize), Refusal> {
    if bytes.len() as u64 > limits.inflated_bytes_max {
        return Err(Refusal::Limit("the change is larger than this server takes"));
    }
    let frame = frame(bytes)?;
    match frame.kind {
        CHANGE => Ok((None, bytes.len() - frame.contents.len())),
        DEFLATED_CHANGE => {
            let inflated = inflate(frame.contents, limits.inflated_bytes_max)?;
            let mut raw = Vec::with_capacity(inflated.len() + 16);
            raw.extend(MAGIC);
            raw.extend(frame.checksum);
            raw.push(CHANGE);
            write_unsigned(&mut raw, inflated.len() as u64);
            let contents = raw.len();
            raw.extend(inflated);
            Ok((Some(raw.into()), contents))
        }
        DOCUMENT => Err(Refusal::Dishonest("a whole document is not a change")),
        BUNDLE => Err(Refusal::Dishonest("a bundle is not a change")),
        _ => Err(Refusal::Dishonest("unknown chunk type")),
    }
}

/// Inflates at most `bytes_max` bytes.
pub(super) fn inflate(deflated: &[u8], bytes_max: u64) -> Result<Vec<u8>, Refusal> {
    let mut inflated = Vec::new();
    flate2::bufread::DeflateDecoder::new(deflated)
        .take(bytes_max + 1)
        .read_to_end(&mut inflated)
        .map_err(|_| Refusal::Dishonest("the chunk does not inflate"))?;
    if inflated.len() as u64 > bytes_max {
        return Err(Refusal::Inflates);
    }
    Ok(inflated)
}

/// The hash over type, length and contents; its first four bytes are the chunk's checksum.
pub(super) fn checked_hash(raw: &[u8], contents: usize) -> Result<ChangeHash, Refusal> {
    let hash: [u8; 32] = Sha256::digest(&raw[8..]).into();
    debug_assert!(contents > 8, "type and length stand between checksum and contents");
    if hash[..4] == raw[4..8] {
        Ok(ChangeHash(hash))
    } else {
        Err(Refusal::Dishonest("the checksum does not match"))
    }
}

/// The dependencies: each once, in ascending order, as Automerge writes them.
fn read_deps(reader: &mut Reader<'_>) -> Result<Vec<ChangeHash>, Refusal> {
    let count = reader.unsigned()?;
    let bytes = reader.take(count.saturating_mul(32))?;
    let deps: Vec<_> = bytes.as_chunks::<32>().0.iter().map(|hash| ChangeHash(*hash)).collect();
    if deps.is_sorted_by(|a, b| a < b) {
        Ok(deps)
    } else {
        Err(Refusal::Dishonest("the dependencies are not distinct and in order"))
    }
}

pub(super) fn read_actor<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Refusal> {
    match reader.unsigned()? {
        length @ 1..=ACTOR_BYTES_MAX => reader.take(length),
        _ => Err(Refusal::Dishonest("an actor id has 1 to 64 bytes")),
    }
}
