//! The second step of the gate: the columns expanded into operations, and proof that their encoding is the canonical one.

use super::{Refusal, header::Header, single::Single};
use automerge::{ActorId, Change, ExpandedChange, ObjType, ScalarValue, legacy};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
};
use syncline_protocol::ChangeHash;

/// A change that decodes and whose encoding is canonical.
#[derive(Clone, Debug)]
pub struct Decoded {
    header: Header,
    /// The map keys that the operations name, each once.
    pub(in crate::engine) keys: Vec<Box<str>>,
    pub(in crate::engine) ops: Vec<Op>,
    preds: Vec<OpId>,
}

/// The name of an operation within one change: its counter, and the number of its actor: 0 for the change's own, then those
/// of [`Decoded::other_actors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::engine) struct OpId {
    pub(in crate::engine) counter: u32,
    pub(in crate::engine) actor: u32,
}

/// One operation, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Op {
    /// The object, or the root.
    pub(in crate::engine) object: Option<OpId>,
    pub(in crate::engine) key: Key,
    pub(in crate::engine) action: Action,
    pub(in crate::engine) insert: bool,
    /// Where its predecessors end in [`Decoded::preds`]; they begin where those of the operation before end.
    preds_end: u32,
}

impl Op {
    pub(super) fn is_mark(&self) -> bool {
        matches!(self.action, Action::MarkBegin | Action::MarkEnd)
    }
}

/// Where in the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Key {
    /// An index into [`Decoded::keys`].
    Map(u32),
    /// Before the first element.
    Head,
    /// An element, by the operation that inserted it.
    Element(OpId),
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Action {
    Make(ObjectType),
    Put,
    PutCounter,
    Delete,
    Increment,
    MarkBegin,
    MarkEnd,
}

/// What an object is. Tables, which nobody makes any more, are not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum ObjectType {
    Map,
    List,
    Text,
}

const UNREADABLE: Refusal = Refusal::Dishonest("the change does not decode");
const NOT_CANONICAL: Refusal = Refusal::Dishonest("the change is not encoded as Automerge encodes it");
const TABLE: Refusal = Refusal::Dishonest("tables are not supported");

/// Expands the columns and proves that the same change encodes to the same bytes. CPU-heavy for large changes.
///
/// One plain operation is read without Automerge (`single.rs`). Everything else Automerge decodes, and encodes again to compare. It runs
/// under `catch_unwind`, on nothing but this change's bytes: should it panic, the change is refused.
///
/// # Errors
/// [`Refusal::Dishonest`] for what does not decode, is not canonical, or makes a table.
pub fn decode(header: Header) -> Result<Decoded, Refusal> {
    decode_or_whose(header).map_err(|(_, refusal)| refusal)
}

/// As [`decode`], for who needs to know whose change it was that is refused.
pub(in crate::engine) fn decode_or_whose(header: Header) -> Result<Decoded, (Bytes, Refusal)> {
    if let Some(single) = Single::read(&header) {
        return Ok(Decoded::of_one(header, single));
    }
    let expanded = catch_unwind(AssertUnwindSafe(|| expand(&header))).unwrap_or(Err(UNREADABLE));
    match expanded {
        Ok(operations) => Ok(operations.of(header)),
        Err(refusal) => Err((Bytes::copy_from_slice(header.actor()), refusal)),
    }
}

/// What the columns of a change hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Operations {
    keys: Vec<Box<str>>,
    ops: Vec<Op>,
    preds: Vec<OpId>,
}

fn expand(header: &Header) -> Result<Operations, Refusal> {
    let change = Change::try_from(&header.raw[..]).map_err(|_| UNREADABLE)?;
    let agrees = change.hash().0 == header.hash.0
        && change.seq() == u64::from(header.seq)
        && change.start_op().get() == u64::from(header.start_op)
        && change.len() == header.ops as usize
        && change.actor_id().to_bytes() == header.actor()
        && change
            .other_actor_ids()
            .iter()
            .map(ActorId::to_bytes)
            .eq(header.other_actors());
    if !agrees {
        return Err(UNREADABLE);
    }
    let expanded = change.decode();
    let operations = Operations::read(&expanded, header)?;
    if Change::from(expanded).raw_bytes() == header.raw {
        Ok(operations)
    } else {
        Err(NOT_CANONICAL)
    }
}

impl Decoded {
    /// A change of one operation. Without optimisation, which is how the tests run, every one is held against Automerge's word.
    fn of_one(header: Header, single: Single) -> Self {
        let operations = Operations {
            keys: single.map_key.into_iter().collect(),
            ops: vec![Op {
                object: single.object,
                key: single.key,
                action: single.action,
                insert: single.insert,
                preds_end: single.pred.is_some().into(),
            }],
            preds: single.pred.into_iter().collect(),
        };
        debug_assert!(
            expand(&header).is_ok_and(|expanded| expanded == operations),
            "Automerge decodes a change of one operation otherwise: {header:?}"
        );
        operations.of(header)
    }

    /// The hash that names the change.
    pub fn hash(&self) -> ChangeHash {
        self.header.hash
    }

    /// The changes it stands on.
    pub fn deps(&self) -> &[ChangeHash] {
        &self.header.deps
    }

    /// The plain (never deflated) change chunk.
    pub fn bytes(&self) -> &Bytes {
        &self.header.raw
    }

    /// Its hash, what it stands on and the plain chunk, for whoever needs the rest no more.
    pub(in crate::engine) fn into_parts(self) -> (ChangeHash, Vec<ChangeHash>, Bytes) {
        (self.header.hash, self.header.deps, self.header.raw)
    }

    /// Who made it: 1 to 64 bytes.
    pub fn actor(&self) -> &[u8] {
        self.header.actor()
    }

    /// The actors that the operations name besides: the first is number 1, and they stand in ascending order.
    pub(in crate::engine) fn other_actors(&self) -> impl Iterator<Item = &[u8]> {
        self.header.other_actors()
    }

    /// Its place among the changes of its actor, from 1.
    pub fn seq(&self) -> u32 {
        self.header.seq
    }

    /// The counter of its first operation.
    pub fn start_op(&self) -> u32 {
        self.header.start_op
    }

    /// The counter of its last operation; `start_op - 1` if it has none.
    pub fn max_op(&self) -> u32 {
        self.header.start_op - 1 + self.header.ops
    }

    /// Whether bytes follow that mean nothing to the gate.
    pub(super) fn has_extra_bytes(&self) -> bool {
        self.header.has_extra_bytes
    }

    /// The predecessors of the operation at `index`, in ascending order of counters.
    pub(super) fn preds(&self, index: usize) -> &[OpId] {
        let begin = if index == 0 { 0 } else { self.ops[index - 1].preds_end };
        &self.preds[begin as usize..self.ops[index].preds_end as usize]
    }
}

impl Operations {
    fn read(expanded: &ExpandedChange, header: &Header) -> Result<Self, Refusal> {
        let mut names = Names {
            author: header.actor(),
            others: header.other_actors().collect(),
            keys: BTreeMap::new(),
            ordered: Vec::new(),
        };
        let mut all = Self::default();
        all.ops.reserve_exact(expanded.operations.len());
        for op in &expanded.operations {
            for pred in op.pred.iter() {
                all.preds.push(names.op_id(pred)?);
            }
            let action = action(&op.action)?;
            all.ops.push(Op {
                object: match &op.obj {
                    legacy::ObjectId::Root => None,
                    legacy::ObjectId::Id(id) => Some(names.op_id(id)?),
                },
                key: names.key(&op.key)?,
                action,
                insert: op.insert,
                preds_end: u32::try_from(all.preds.len()).map_err(|_| UNREADABLE)?,
            });
        }
        all.keys = names.ordered.iter().map(|&key| key.into()).collect();
        Ok(all)
    }

    fn of(self, header: Header) -> Decoded {
        Decoded {
            header,
            keys: self.keys,
            ops: self.ops,
            preds: self.preds,
        }
    }
}

/// Gives numbers to the actors and map keys of one change.
struct Names<'a> {
    author: &'a [u8],
    others: Vec<&'a [u8]>,
    keys: BTreeMap<&'a str, u32>,
    ordered: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn op_id(&self, id: &legacy::OpId) -> Result<OpId, Refusal> {
        let counter = u32::try_from(id.counter()).map_err(|_| UNREADABLE)?;
        let bytes = id.actor().to_bytes();
        if bytes == self.author {
            return Ok(OpId { counter, actor: 0 });
        }
        let other = self.others.binary_search(&bytes).map_err(|_| NOT_CANONICAL)?;
        Ok(OpId {
            counter,
            actor: other as u32 + 1,
        })
    }

    fn key(&mut self, key: &'a legacy::Key) -> Result<Key, Refusal> {
        Ok(match key {
            legacy::Key::Seq(legacy::ElementId::Head) => Key::Head,
            legacy::Key::Seq(legacy::ElementId::Id(id)) => Key::Element(self.op_id(id)?),
            legacy::Key::Map(name) => {
                let next = self.ordered.len() as u32;
                let number = *self.keys.entry(name.as_str()).or_insert(next);
                if number == next {
                    self.ordered.push(name.as_str());
                }
                Key::Map(number)
            }
        })
    }
}

fn action(op: &legacy::OpType) -> Result<Action, Refusal> {
    Ok(match op {
        legacy::OpType::Make(ObjType::Map) => Action::Make(ObjectType::Map),
        legacy::OpType::Make(ObjType::List) => Action::Make(ObjectType::List),
        legacy::OpType::Make(ObjType::Text) => Action::Make(ObjectType::Text),
        legacy::OpType::Make(ObjType::Table) => return Err(TABLE),
        legacy::OpType::Delete => Action::Delete,
        legacy::OpType::Increment(_) => Action::Increment,
        legacy::OpType::Put(ScalarValue::Counter(_)) => Action::PutCounter,
        legacy::OpType::Put(_) => Action::Put,
        legacy::OpType::MarkBegin(_) => Action::MarkBegin,
        legacy::OpType::MarkEnd(_) => Action::MarkEnd,
    })
}
