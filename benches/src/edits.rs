//! Edits made before the clock starts: real Automerge changes, each one keystroke of one writer, with the history it names
//! chosen freely; and the way back from a change's bytes to the writer and the place.

use crate::yjs;
use anyhow::{Context, ensure};
use automerge::{
    ActorId, Automerge, Change, ExpandedChange, ObjType, ROOT, ScalarValue,
    legacy::{ElementId, Key, ObjectId, Op, OpId, OpType, SortedVec},
    transaction::Transactable,
};
use bytes::Bytes;
use std::num::NonZeroU64;

/// What the writers begin from.
#[derive(Clone)]
pub(crate) struct Base {
    /// The changes to load first, in order.
    pub(crate) changes: Vec<Bytes>,
    /// The changes that the first edits stand on.
    pub(crate) heads: Vec<automerge::ChangeHash>,
    /// The text that is edited.
    pub(crate) text: OpId,
    /// The highest counter so far.
    pub(crate) max_op: u64,
}

/// What the writers see of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// Never anything: as many branches as writers.
    Apart,
    /// At their edit n, everybody's edits up to n minus this.
    Behind(usize),
}

/// The edits of every writer, in order.
pub(crate) struct Edits {
    kind: Kind,
    /// The number of the first writer, so that several sets can go into one document.
    first: usize,
    by_writer: Vec<Vec<Bytes>>,
}

/// Of what the edits are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Automerge,
    Yjs,
}

/// One writer on the way.
struct Writer {
    actor: ActorId,
    made: Vec<(automerge::ChangeHash, u64)>,
    bytes: Vec<Bytes>,
    last: ElementId,
}

const ACTOR_PREFIX: &[u8; 12] = b"bench-writer";
/// Magic bytes and checksum of a chunk, before its type.
const CHUNK_HEAD_BYTES: usize = 8;
const CHUNK_TYPE_CHANGE: u8 = 1;

impl Base {
    /// A document with one empty text.
    pub(crate) fn empty_text() -> anyhow::Result<Self> {
        let actor = ActorId::from(b"bench-creator".as_slice());
        let mut document = Automerge::new().with_actor(actor.clone());
        let mut transaction = document.transaction();
        transaction.put_object(ROOT, "text", ObjType::Text)?;
        transaction.commit();
        let change = document.get_last_local_change().context("nothing was made")?;
        Ok(Self {
            changes: vec![Bytes::copy_from_slice(change.raw_bytes())],
            heads: document.get_heads(),
            text: OpId::new(1, &actor),
            max_op: 1,
        })
    }

    /// A Yjs document, whole, or none: the other fields are Automerge's.
    pub(crate) fn of_yjs(update: Option<Bytes>) -> Self {
        Self {
            changes: update.into_iter().collect(),
            heads: Vec::new(),
            text: OpId::new(0, &ActorId::from(&[][..])),
            max_op: 0,
        }
    }

    /// The document as Automerge saves it, and its heads.
    pub(crate) fn saved(&self) -> anyhow::Result<(Vec<u8>, Vec<syncline_protocol::ChangeHash>)> {
        let mut document = Automerge::new();
        let changes = self.changes.iter().map(|bytes| Change::from_bytes(bytes.to_vec()));
        document.apply_changes(changes.collect::<Result<Vec<_>, _>>()?)?;
        let heads = document
            .get_heads()
            .into_iter()
            .map(|head| syncline_protocol::ChangeHash(head.0));
        Ok((document.save(), heads.collect()))
    }
}

impl Edits {
    /// `count` edits of each of `writers` writers on `base`.
    pub(crate) fn prepare(base: &Base, writers: usize, count: usize, sight: Sight) -> Self {
        Self::prepare_from(0, base, writers, count, sight)
    }

    /// As [`Edits::prepare`], by other writers than those of sets that begin with another number.
    pub(crate) fn prepare_from(first: usize, base: &Base, writers: usize, count: usize, sight: Sight) -> Self {
        let mut all: Vec<_> = (first..first + writers).map(Writer::new).collect();
        for edit in 0..count {
            let seen: Vec<Option<_>> = all
                .iter()
                .map(|writer| match sight {
                    Sight::Behind(behind) if edit >= behind => Some(writer.made[edit - behind]),
                    _ => None,
                })
                .collect();
            for (number, writer) in all.iter_mut().enumerate() {
                let others = seen
                    .iter()
                    .enumerate()
                    .filter(|(other, _)| *other != number)
                    .filter_map(|(_, seen)| *seen);
                writer.type_one(base, others);
            }
        }
        Self {
            kind: Kind::Automerge,
            first,
            by_writer: all.into_iter().map(|writer| writer.bytes).collect(),
        }
    }

    /// Edits that are Yjs's updates.
    pub(crate) fn of_yjs(by_writer: Vec<Vec<Bytes>>) -> Self {
        Self {
            kind: Kind::Yjs,
            first: 0,
            by_writer,
        }
    }

    /// The edit of `writer` at `place`, counted from 0.
    pub(crate) fn edit(&self, writer: usize, place: usize) -> Option<&Bytes> {
        self.by_writer.get(writer)?.get(place)
    }

    /// How many writers there are.
    pub(crate) fn writers(&self) -> usize {
        self.by_writer.len()
    }

    /// Whose edit these bytes are and which, if they are one of them: a change byte for byte, or a character that was typed.
    pub(crate) fn recognise(&self, change: &[u8]) -> Option<(usize, usize)> {
        if self.kind == Kind::Yjs {
            let (writer, place) = yjs::author(change)?;
            return self.edit(writer, place).map(|_| (writer, place));
        }
        let (writer, place) = author(change)?;
        let writer = writer.checked_sub(self.first)?;
        (self.edit(writer, place)? == change).then_some((writer, place))
    }
}

impl Writer {
    fn new(number: usize) -> Self {
        let number = u32::try_from(number).expect("writers are few");
        let actor = [ACTOR_PREFIX.as_slice(), &number.to_be_bytes()].concat();
        Self {
            actor: ActorId::from(actor),
            made: Vec::new(),
            bytes: Vec::new(),
            last: ElementId::Head,
        }
    }

    fn type_one(&mut self, base: &Base, seen: impl Iterator<Item = (automerge::ChangeHash, u64)>) {
        let mut deps = match self.made.last() {
            Some((own, _)) => vec![*own],
            None => base.heads.clone(),
        };
        let mut max_op = self.made.last().map_or(base.max_op, |(_, max_op)| *max_op);
        for (hash, other_max_op) in seen {
            deps.push(hash);
            max_op = max_op.max(other_max_op);
        }
        deps.sort_unstable();
        let start_op = max_op + 1;
        let letter = char::from(b'a' + (self.made.len() % 26) as u8);
        let op = Op {
            action: OpType::Put(ScalarValue::Str(letter.to_string().into())),
            obj: ObjectId::Id(base.text.clone()),
            key: Key::Seq(self.last.clone()),
            pred: SortedVec::new(),
            insert: true,
        };
        let change = Change::from(ExpandedChange {
            operations: vec![op],
            actor_id: self.actor.clone(),
            hash: None,
            seq: self.made.len() as u64 + 1,
            start_op: NonZeroU64::new(start_op).expect("it is above another"),
            time: 0,
            message: None,
            deps,
            extra_bytes: Vec::new(),
            author: None,
        });
        self.last = ElementId::Id(OpId::new(start_op, &self.actor));
        self.made.push((change.hash(), start_op));
        self.bytes.push(Bytes::copy_from_slice(change.raw_bytes()));
    }
}

/// Which writer's change it is, and its place among them, if one of ours made it.
pub(crate) fn author(change: &[u8]) -> Option<(usize, usize)> {
    let mut rest = change.get(CHUNK_HEAD_BYTES..)?;
    let (kind, after) = rest.split_first()?;
    if *kind != CHUNK_TYPE_CHANGE {
        return None;
    }
    rest = after;
    number(&mut rest)?;
    let deps = usize::try_from(number(&mut rest)?).ok()?;
    rest = rest.get(deps.checked_mul(32)?..)?;
    let actor_bytes = usize::try_from(number(&mut rest)?).ok()?;
    let actor = rest.get(..actor_bytes)?;
    rest = rest.get(actor_bytes..)?;
    let writer = u32::from_be_bytes(actor.strip_prefix(ACTOR_PREFIX)?.try_into().ok()?);
    let seq = usize::try_from(number(&mut rest)?).ok()?;
    Some((writer as usize, seq.checked_sub(1)?))
}

/// Cuts whole chunks from the front of `bytes`; what is left is the beginning of another.
pub(crate) fn split_chunks(bytes: &mut bytes::BytesMut) -> anyhow::Result<Vec<Bytes>> {
    let mut chunks = Vec::new();
    while let Some(mut rest) = bytes.get(CHUNK_HEAD_BYTES + 1..) {
        let Some(body) = number(&mut rest) else { break };
        let head = bytes.len() - rest.len();
        let body = usize::try_from(body)?;
        ensure!(body <= 1 << 30, "a chunk claims {body} bytes");
        if rest.len() < body {
            break;
        }
        chunks.push(bytes.split_to(head + body).freeze());
    }
    Ok(chunks)
}

/// Reads an unsigned LEB128 number.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::ReadDoc;

    #[test]
    fn prepared_edits_are_honest_and_recognised() {
        let check = |sight| {
            let base = Base::empty_text().unwrap();
            let edits = Edits::prepare(&base, 3, 20, sight);
            let mut document = Automerge::new();
            let changes = base.changes.iter().chain((0..20).flat_map(|place| {
                let edits = &edits;
                (0..3).map(move |writer| edits.edit(writer, place).unwrap())
            }));
            for bytes in changes {
                let change = Change::from_bytes(bytes.to_vec()).unwrap();
                document.apply_changes([change]).unwrap();
            }
            let (_, text) = document.get(ROOT, "text").unwrap().unwrap();
            assert_eq!(document.text(&text).unwrap().len(), 60, "{sight:?}");
            assert_eq!(edits.recognise(edits.edit(2, 7).unwrap()), Some((2, 7)));
            assert_eq!(edits.recognise(&base.changes[0]), None);
            let saved = document.save();
            assert_eq!(Automerge::load(&saved).unwrap().get_heads(), document.get_heads());
        };
        check(Sight::Apart);
        check(Sight::Behind(1));
        check(Sight::Behind(8));
    }

    #[test]
    fn chunks_are_cut_wherever_parts_end() {
        let base = Base::empty_text().unwrap();
        let edits = Edits::prepare(&base, 1, 3, Sight::Apart);
        let whole: Vec<u8> = (0..3)
            .flat_map(|place| edits.edit(0, place).unwrap().to_vec())
            .collect();
        for cut in 0..whole.len() {
            let mut buffer = bytes::BytesMut::from(&whole[..cut]);
            let mut chunks = split_chunks(&mut buffer).unwrap();
            buffer.extend_from_slice(&whole[cut..]);
            chunks.extend(split_chunks(&mut buffer).unwrap());
            assert_eq!(chunks.concat(), whole);
            assert_eq!(chunks.len(), 3);
        }
    }
}
