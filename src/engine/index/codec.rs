//! The stored form of an index. Numbers are LEB128; hashes and names are raw bytes.
//!
//! A checksum is the store's affair. What is read here is checked so far that no later call on the index can panic.

use super::{
    Actor, GlobalOpId, Index, Object, ObjectType, POSITION_MAX, Slot, Subject,
    graph::Graph,
    node::{Dep, Deps, NewNode, Node},
    ops::{Run, Runs},
    seen::Seen,
};
use crate::engine::gate::{COUNTER_MAX, Reader, write_unsigned};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use syncline_protocol::ChangeHash;

/// Why stored bytes are not an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stored index: {0}")]
pub struct IndexError(pub &'static str);

const VERSION: u8 = 1;
/// The graph gets space for one more change for every so many: a room that takes edits keeps as many as it was stored with, and those
/// of a batch. Without it the first edit would have all moved.
const SPARE_NODES: usize = 64;

const SHORT: IndexError = IndexError("it ends too early");
const RANGE: IndexError = IndexError("a number is out of range");
const TWICE: IndexError = IndexError("a name occurs twice");

pub(super) fn encode(index: &Index) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + index.graph.recent.len() * 48);
    out.push(VERSION);
    number(&mut out, index.max_op);
    write_unsigned(&mut out, index.gap_ops);
    names(&mut out, index.subjects.iter().map(|subject| subject.0.as_bytes()));
    names(&mut out, index.keys.iter().map(|key| key.as_bytes()));
    names(&mut out, index.actors.iter().map(|actor| &*actor.id));
    count(&mut out, index.objects.len() - 1);
    for object in &index.objects[1..] {
        op_id(&mut out, object.id);
        let object_type = match object.object_type {
            ObjectType::Map => 0,
            ObjectType::List => 1,
            ObjectType::Text => 2,
        };
        out.extend([object_type, object.depth]);
    }
    count(&mut out, index.elements.len());
    index.elements.iter().for_each(|&element| op_id(&mut out, element));
    for actor in &index.actors {
        number(&mut out, actor.owner);
        number(&mut out, actor.last_seq);
        number(&mut out, actor.max_op);
        count(&mut out, actor.runs.0.len());
        let mut before = 0;
        for run in &actor.runs.0 {
            let [start, object, place, length_and_tag] = run.parts();
            for part in [start - before, object, place, length_and_tag] {
                number(&mut out, part);
            }
            before = run.end();
        }
    }
    encode_graph(&index.graph, &mut out);
    out
}

fn encode_graph(graph: &Graph, out: &mut Vec<u8>) {
    count(out, graph.heads.len());
    for (hash, head) in &graph.heads {
        out.extend(hash.0);
        number(out, head.position);
        number(out, head.max_op);
    }
    number(out, graph.front);
    count(out, graph.recent.len());
    for node in &graph.recent {
        out.extend(node.hash.0);
        for part in [node.actor, node.seq, node.start_op, node.max_op + 1 - node.start_op] {
            number(out, part);
        }
        let deps = node.deps();
        count(out, deps.len());
        deps.iter().for_each(|dep| number(out, dep.0));
    }
    count(out, graph.distant_deps.len());
    for (&position, deps) in &graph.distant_deps {
        number(out, position);
        count(out, deps.len());
        deps.iter().for_each(|dep| out.extend(dep.0));
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Index, IndexError> {
    let mut input = Input(Reader::new(bytes));
    if input.byte()? != VERSION {
        return Err(IndexError("it is of another version"));
    }
    let mut index = Index {
        max_op: input.counter()?,
        gap_ops: input.0.unsigned().map_err(|_| SHORT)?,
        ..Index::default()
    };
    for _ in 0..input.count(1)? {
        let subject = Subject(input.text()?.into());
        named(&mut index.subject_numbers, &mut index.subjects, subject)?;
    }
    for _ in 0..input.count(1)? {
        let key = Arc::<str>::from(input.text()?);
        named(&mut index.key_numbers, &mut index.keys, key)?;
    }
    let mut ids = Vec::new();
    for _ in 0..input.count(1)? {
        let id = Arc::<[u8]>::from(input.name()?);
        named(&mut index.actor_numbers, &mut ids, id)?;
    }
    let objects = input.count(4)?;
    index.objects.reserve_exact(objects);
    for _ in 0..objects {
        index.objects.push(input.object(ids.len())?);
    }
    let elements = input.count(2)?;
    index.elements.reserve_exact(elements);
    for _ in 0..elements {
        index.elements.push(input.op_id(ids.len())?);
    }
    for id in ids {
        let actor = input.actor(id, &index)?;
        index.actors.push(actor);
    }
    for (number, object) in index.objects.iter().enumerate().skip(1) {
        let made = &mut index.actors[object.id.actor as usize].objects;
        if made
            .last()
            .is_some_and(|&last| index.objects[last as usize].id.counter >= object.id.counter)
        {
            return Err(IndexError("objects are out of order"));
        }
        made.push(number as u32);
    }
    index.sizes = index.counted_sizes();
    index.graph = input.graph(index.actors.len())?;
    if input.0.is_empty() {
        Ok(index)
    } else {
        Err(IndexError("it goes on after its end"))
    }
}

/// Gives `name` the next number.
fn named<N: Ord + Clone>(numbers: &mut BTreeMap<N, u32>, names: &mut Vec<N>, name: N) -> Result<(), IndexError> {
    names.push(name.clone());
    match numbers.insert(name, names.len() as u32 - 1) {
        None => Ok(()),
        Some(_) => Err(TWICE),
    }
}

struct Input<'a>(Reader<'a>);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, IndexError> {
        self.0.byte().map_err(|_| SHORT)
    }

    fn number(&mut self) -> Result<u32, IndexError> {
        self.0.unsigned().map_err(|_| SHORT)?.try_into().map_err(|_| RANGE)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> Result<u32, IndexError> {
        let number = self.number()?;
        if (number as usize) < end {
            Ok(number)
        } else {
            Err(RANGE)
        }
    }

    fn counter(&mut self) -> Result<u32, IndexError> {
        self.below(COUNTER_MAX as usize + 1)
    }

    /// How many follow, each of at least `bytes_min` bytes.
    fn count(&mut self, bytes_min: usize) -> Result<usize, IndexError> {
        let count = self.number()? as usize;
        if count <= self.0.len() / bytes_min {
            Ok(count)
        } else {
            Err(SHORT)
        }
    }

    fn name(&mut self) -> Result<&'a [u8], IndexError> {
        let length = self.count(1)?;
        self.0.take(length as u64).map_err(|_| SHORT)
    }

    fn text(&mut self) -> Result<&'a str, IndexError> {
        std::str::from_utf8(self.name()?).map_err(|_| IndexError("a name is not UTF-8"))
    }

    fn hash(&mut self) -> Result<ChangeHash, IndexError> {
        let bytes = self.0.take(32).map_err(|_| SHORT)?;
        bytes.try_into().map(ChangeHash).map_err(|_| SHORT)
    }

    fn op_id(&mut self, actors: usize) -> Result<GlobalOpId, IndexError> {
        Ok(GlobalOpId {
            counter: self.counter()?,
            actor: self.below(actors)?,
        })
    }

    fn object(&mut self, actors: usize) -> Result<Object, IndexError> {
        let id = self.op_id(actors)?;
        let object_type = match self.byte()? {
            0 => ObjectType::Map,
            1 => ObjectType::List,
            2 => ObjectType::Text,
            _ => return Err(RANGE),
        };
        Ok(Object {
            id,
            object_type,
            depth: self.byte()?,
        })
    }

    fn actor(&mut self, id: Arc<[u8]>, index: &Index) -> Result<Actor, IndexError> {
        let owner = self.below(index.subjects.len())?;
        let (last_seq, max_op) = (self.number()?, self.counter()?);
        let mut runs = Runs(Vec::with_capacity(self.count(4)?));
        let mut before = 0_u32;
        for _ in 0..runs.0.capacity() {
            let start = before.checked_add(self.number()?).ok_or(RANGE)?;
            let (object, place) = (self.below(index.objects.len())?, self.number()?);
            let run = Run::from_parts(start, object, place, self.number()?).ok_or(RANGE)?;
            let sound = match run.op().slot {
                Slot::Key(key) => (key as usize) < index.keys.len(),
                Slot::Inserted(element) | Slot::Overwrote(element) => (element as usize) < index.elements.len(),
            };
            if !sound || run.end() > max_op + 1 {
                return Err(RANGE);
            }
            before = run.end();
            runs.0.push(run);
        }
        Ok(Actor {
            id,
            owner,
            last_seq,
            max_op,
            runs,
            objects: Vec::new(),
        })
    }

    fn graph(&mut self, actors: usize) -> Result<Graph, IndexError> {
        let mut heads = BTreeMap::new();
        for _ in 0..self.count(34)? {
            let hash = self.hash()?;
            heads.insert(hash, (self.number()?, self.counter()?));
        }
        let front = self.below(POSITION_MAX as usize)?;
        let count = self.count(37)?;
        let mut nodes = VecDeque::with_capacity(count + count / SPARE_NODES);
        let mut next = front;
        for _ in 0..count {
            let node = self.node(actors)?;
            let unknown = |dep: &Dep| dep.position().is_none_or(|position| position < next);
            if next >= POSITION_MAX || !node.deps().iter().all(unknown) {
                return Err(RANGE);
            }
            nodes.push_back(node);
            next += 1;
        }
        if heads.values().any(|(position, _)| *position >= next) {
            return Err(RANGE);
        }
        let mut graph = Graph::default();
        graph.restore(front, nodes, heads);
        for _ in 0..self.count(2)? {
            let position = self.number()?;
            let deps = (0..self.count(32)?).map(|_| self.hash()).collect::<Result<_, _>>()?;
            graph.note_distant(position, deps);
        }
        Ok(graph)
    }

    fn node(&mut self, actors: usize) -> Result<Node, IndexError> {
        let (hash, actor, seq) = (self.hash()?, self.below(actors)?, self.number()?);
        let (start_op, ops) = (self.counter()?, self.counter()?);
        if seq == 0 || start_op == 0 || ops > COUNTER_MAX - start_op {
            return Err(RANGE);
        }
        let deps = match self.count(1)? {
            1 => Deps::One(Dep(self.number()?)),
            count => {
                let deps = (0..count).map(|_| self.number().map(Dep));
                Deps::Not1(deps.collect::<Result<_, _>>()?)
            }
        };
        let node = NewNode {
            hash,
            actor,
            seq,
            start_op,
            max_op: start_op - 1 + ops,
            deps: &[],
        };
        Ok(Node::new(&node, deps, Seen::default()))
    }
}

fn number(out: &mut Vec<u8>, number: u32) {
    write_unsigned(out, number.into());
}

fn count(out: &mut Vec<u8>, count: usize) {
    write_unsigned(out, count as u64);
}

fn op_id(out: &mut Vec<u8>, id: GlobalOpId) {
    number(out, id.counter);
    number(out, id.actor);
}

fn names<'a>(out: &mut Vec<u8>, names: impl ExactSizeIterator<Item = &'a [u8]>) {
    count(out, names.len());
    for name in names {
        count(out, name.len());
        out.extend(name);
    }
}
