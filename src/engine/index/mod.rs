//! The op index of a room: which operation belongs to which object, key or element, whose actor is whose, and the recent
//! part of the change graph. Kept up per change, stored with the snapshot. It holds no values.

mod clock;
mod codec;
mod graph;
mod node;
mod ops;
mod places;
mod seen;

pub use codec::IndexError;
pub use graph::RECENT_CHANGES_MAX;
pub(in crate::engine) use graph::{Graph, POSITION_MAX};
pub(in crate::engine) use node::{Footing, Standpoint};
pub(in crate::engine) use ops::{ActorNumber, GlobalOpId, Kind, KnownOp, Object, ObjectNumber, ROOT, Slot};

use crate::engine::gate::{Action, Decoded, Key, ObjectType, OpId, Subject};
use graph::Head;
use node::NewNode;
use ops::Runs;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use syncline_protocol::{ChangeHash, Position};

/// What a room knows of its document without the document.
#[derive(Clone, Debug)]
pub struct Index {
    graph: Graph,
    actors: Vec<Actor>,
    actor_numbers: BTreeMap<Arc<[u8]>, ActorNumber>,
    subjects: Vec<Subject>,
    subject_numbers: BTreeMap<Subject, u32>,
    keys: Vec<Arc<str>>,
    key_numbers: BTreeMap<Arc<str>, u32>,
    objects: Vec<Object>,
    /// The elements that [`Slot::Inserted`] and [`Slot::Overwrote`] speak of; [`HEAD`] is the beginning of a sequence.
    elements: Vec<GlobalOpId>,
    max_op: u32,
    /// Operations taken in since it was made or read.
    admitted_ops: u64,
    /// How far the counters of all changes together lie above what the changes stand on.
    gap_ops: u64,
    /// Whether any subject may write with any actor.
    welcomes_foreign: bool,
    /// How to take back each of the newest changes.
    undo: VecDeque<Undo>,
    sizes: Sizes,
}

/// What the tables of all actors hold together, and what their names, the keys and the subjects are long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sizes {
    runs: usize,
    name_bytes: usize,
}

/// One actor of the document.
#[derive(Clone, Debug)]
struct Actor {
    id: Arc<[u8]>,
    owner: u32,
    last_seq: u32,
    max_op: u32,
    runs: Runs,
    /// The objects that it made, in order.
    objects: Vec<ObjectNumber>,
}

/// What taking a change back needs: how large the tables were, and what they said.
#[derive(Clone, Debug)]
struct Undo {
    actors: u32,
    subjects: u32,
    keys: u32,
    objects: u32,
    elements: u32,
    max_op: u32,
    gap_ops: u64,
    actor_max_op: u32,
    /// Those of the heads that it replaced that the graph does not remember.
    old_heads: Vec<(ChangeHash, Head)>,
}

impl Default for Index {
    fn default() -> Self {
        let root = Object {
            id: GlobalOpId { counter: 0, actor: 0 },
            object_type: ObjectType::Map,
            depth: 0,
        };
        Self {
            graph: Graph::default(),
            actors: Vec::new(),
            actor_numbers: BTreeMap::new(),
            subjects: Vec::new(),
            subject_numbers: BTreeMap::new(),
            keys: Vec::new(),
            key_numbers: BTreeMap::new(),
            objects: vec![root],
            elements: Vec::new(),
            max_op: 0,
            admitted_ops: 0,
            gap_ops: 0,
            welcomes_foreign: false,
            undo: VecDeque::new(),
            sizes: Sizes::default(),
        }
    }
}

impl Index {
    /// How many changes it holds.
    pub fn position(&self) -> Position {
        Position::new(self.graph.next_position().into())
    }

    /// The changes that no other change stands on, in order.
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.graph.heads.keys().copied().collect()
    }

    /// Whose actor this is: the subject that first wrote with it.
    pub fn owner(&self, actor: &[u8]) -> Option<&Subject> {
        let actor = &self.actors[self.actor_number(actor)? as usize];
        self.subjects.get(actor.owner as usize)
    }

    /// Lets every subject write with every actor, or not any more: after a restore the changes that it lacks are brought back by
    /// whoever has them.
    pub fn welcome_foreign(&mut self, welcomes: bool) {
        self.welcomes_foreign = welcomes;
    }

    /// Whether this subject may write with this actor.
    pub(in crate::engine) fn may_write(&self, subject: &Subject, actor: ActorNumber) -> bool {
        let owner = self.subjects.get(self.actors[actor as usize].owner as usize);
        self.welcomes_foreign || owner.is_none_or(|owner| owner == subject)
    }

    /// The sequence number of the actor's newest change; 0 if it has none.
    pub fn last_seq(&self, actor: &[u8]) -> u32 {
        self.actor_number(actor).map_or(0, |actor| self.actor_last_seq(actor))
    }

    pub(in crate::engine) fn actor_last_seq(&self, actor: ActorNumber) -> u32 {
        self.actors[actor as usize].last_seq
    }

    /// The highest counter of any operation.
    pub fn max_op(&self) -> u32 {
        self.max_op
    }

    /// About how many operations the document has; of those in a stored index, those made at the same time count once.
    pub fn operations(&self) -> u64 {
        self.admitted_ops.max(self.max_op.into())
    }

    /// Whether it is one of the changes that the room holds and still has in its recent graph.
    pub fn contains_recent(&self, hash: &ChangeHash) -> bool {
        self.graph.position(hash).is_some()
    }

    /// Takes a change in: one that passed the gate, or one from our own log. It can be taken back with [`Index::rollback`].
    ///
    /// Operations whose object or element the index does not know are left out: only a log that is not the room's has any.
    pub fn admit(&mut self, change: &Decoded, subject: &Subject) {
        let footing = self.graph.footing(change.deps());
        let standpoint = self.graph.stand(change.deps(), footing);
        let ids = std::iter::once(change.actor()).chain(change.other_actors());
        let numbers: Vec<_> = ids.map(|id| self.actor_number(id)).collect();
        self.admit_on(change, subject, standpoint, &|actor| numbers[actor]);
    }

    /// As [`Index::admit`], for whom the gate has just said what the change stands on, and which numbers the actors have that it
    /// names: its own comes first.
    pub(in crate::engine) fn admit_on(
        &mut self,
        change: &Decoded,
        subject: &Subject,
        standpoint: Standpoint,
        number: &impl Fn(usize) -> Option<ActorNumber>,
    ) {
        let (actors, subjects) = (self.actors.len() as u32, self.subjects.len() as u32);
        let actor = number(0).unwrap_or_else(|| self.admit_actor(change.actor(), subject));
        let author = &mut self.actors[actor as usize];
        let undo = Undo {
            actors,
            subjects,
            keys: self.keys.len() as u32,
            objects: self.objects.len() as u32,
            elements: self.elements.len() as u32,
            max_op: self.max_op,
            gap_ops: self.gap_ops,
            actor_max_op: author.max_op,
            old_heads: Vec::new(),
        };
        author.last_seq = change.seq();
        author.max_op = author.max_op.max(change.max_op());
        self.max_op = self.max_op.max(change.max_op());
        self.admitted_ops += change.ops.len() as u64;
        let gap = standpoint.gap(change.start_op());
        self.gap_ops = self.gap_ops.saturating_add(gap.into());
        let node = NewNode {
            hash: change.hash(),
            actor,
            seq: change.seq(),
            start_op: change.start_op(),
            max_op: change.max_op(),
            deps: change.deps(),
        };
        let old_heads = self.graph.push(node, standpoint);
        self.undo.push_back(Undo { old_heads, ..undo });
        let runs = self.actors[actor as usize].runs.0.len();
        self.admit_ops(actor, change, number);
        self.sizes.runs += self.actors[actor as usize].runs.0.len() - runs;
    }

    /// Takes back every change admitted after `position`, which is not before the last [`Index::settle`].
    pub fn rollback(&mut self, position: Position) {
        debug_assert_eq!(self.sizes, self.counted_sizes());
        let mut authors = BTreeSet::new();
        while self.position() > position {
            let Some(undo) = self.undo.pop_back() else { break };
            let Some(node) = self.graph.pop(undo.old_heads) else {
                break;
            };
            authors.insert(node.actor);
            let author = &mut self.actors[node.actor as usize];
            author.last_seq = node.seq - 1;
            author.max_op = undo.actor_max_op;
            self.sizes.runs -= author.runs.0.len();
            author.runs.truncate(node.start_op);
            self.sizes.runs += author.runs.0.len();
            author.objects.retain(|&object| object < undo.objects);
            self.max_op = undo.max_op;
            self.gap_ops = undo.gap_ops;
            self.objects.truncate(undo.objects as usize);
            self.elements.truncate(undo.elements as usize);
            for key in self.keys.drain(undo.keys as usize..) {
                self.sizes.name_bytes -= key.len();
                self.key_numbers.remove(&key);
            }
            for actor in self.actors.drain(undo.actors as usize..) {
                self.sizes.name_bytes -= actor.id.len();
                self.actor_numbers.remove(&actor.id);
            }
            for subject in self.subjects.drain(undo.subjects as usize..) {
                self.sizes.name_bytes -= subject.0.len();
                self.subject_numbers.remove(&subject);
            }
        }
        self.give_back(authors);
    }

    /// Gives back the space that rolled back changes of these authors took: [`Index::memory_bytes`] counts what is in the tables.
    fn give_back(&mut self, authors: BTreeSet<ActorNumber>) {
        for author in authors {
            if let Some(author) = self.actors.get_mut(author as usize) {
                shrink(&mut author.runs.0);
                shrink(&mut author.objects);
            }
        }
        shrink(&mut self.objects);
        shrink(&mut self.elements);
        shrink(&mut self.actors);
        shrink(&mut self.keys);
        shrink(&mut self.subjects);
    }

    /// Forgets how to take back the changes before `position`, and what lies too far before it to be recent.
    ///
    /// Settle what is stored and merged: whoever asks the gate with a document relies on its holding all that was settled.
    pub fn settle(&mut self, position: Position) {
        let position = position.min(self.position());
        let keep = self.position().number() - position.number();
        while self.undo.len() as u64 > keep {
            if let Some(undo) = self.undo.pop_front() {
                self.graph.let_go(undo.old_heads);
            }
        }
        if self.undo.is_empty() {
            self.undo = VecDeque::new();
        }
        self.graph.trim(position.number() as u32);
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads the stored form; checks whatever could make a later call panic.
    ///
    /// # Errors
    /// If the bytes are not what [`Index::encode`] writes.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        codec::decode(bytes)
    }

    /// Bytes of memory it takes, about. It is asked for all the time, so it walks over nothing.
    pub fn memory_bytes(&self) -> usize {
        let names = self.actors.len() + self.keys.len() + self.subjects.len();
        // Half as much again for space that is set aside.
        let runs = self.sizes.runs * size_of::<ops::Run>() * 3 / 2;
        let objects = self.objects.len() * (size_of::<Object>() + size_of::<ObjectNumber>()) * 3 / 2;
        self.graph.memory_bytes()
            + self.sizes.name_bytes
            + names * NAME_BYTES
            + self.actors.capacity() * size_of::<Actor>()
            + runs
            + objects
            + self.elements.capacity() * size_of::<GlobalOpId>()
            + self.undo.capacity() * size_of::<Undo>()
    }

    /// What [`Sizes`] keeps count of, counted anew.
    fn counted_sizes(&self) -> Sizes {
        let actors = self.actors.iter().map(|actor| actor.id.len());
        let keys = self.keys.iter().map(|key| key.len());
        let subjects = self.subjects.iter().map(|subject| subject.0.len());
        Sizes {
            runs: self.actors.iter().map(|actor| actor.runs.0.len()).sum(),
            name_bytes: actors.chain(keys).chain(subjects).sum(),
        }
    }

    pub(in crate::engine) fn graph(&self) -> &Graph {
        &self.graph
    }

    /// What a change with these dependencies has in its past.
    pub(in crate::engine) fn stand(&self, deps: &[ChangeHash], footing: Footing) -> Standpoint {
        self.graph.stand(deps, footing)
    }

    /// The first counter of this actor that lies outside the past of a change that stands there: 0 for one that the room does not
    /// know. Nothing if finding out takes the document.
    pub(in crate::engine) fn bound(&self, standpoint: &Standpoint, actor: Option<ActorNumber>) -> Option<u32> {
        match actor {
            Some(actor) => self
                .graph
                .bound(standpoint, actor, self.actors[actor as usize].last_seq),
            None => Some(0),
        }
    }

    pub(in crate::engine) fn actor_number(&self, id: &[u8]) -> Option<ActorNumber> {
        self.actor_numbers.get(id).copied()
    }

    /// How far the counters of all changes together lie above what the changes stand on.
    pub(in crate::engine) fn gap_ops(&self) -> u64 {
        self.gap_ops
    }

    /// The highest counter of the actor's operations.
    pub(in crate::engine) fn actor_max_op(&self, actor: ActorNumber) -> u32 {
        self.actors[actor as usize].max_op
    }

    pub(in crate::engine) fn key_number(&self, key: &str) -> Option<u32> {
        self.key_numbers.get(key).copied()
    }

    /// The operation, unless it is unknown, a deletion or an increment.
    pub(in crate::engine) fn op(&self, id: GlobalOpId) -> Option<KnownOp> {
        Some(self.actors.get(id.actor as usize)?.runs.find(id.counter)?.op())
    }

    /// The object that this operation made.
    pub(in crate::engine) fn object_made_by(&self, id: GlobalOpId) -> Option<ObjectNumber> {
        let objects = &self.actors.get(id.actor as usize)?.objects;
        let at = objects
            .binary_search_by_key(&id.counter, |&object| self.objects[object as usize].id.counter)
            .ok()?;
        Some(objects[at])
    }

    pub(in crate::engine) fn object(&self, number: ObjectNumber) -> Object {
        self.objects[number as usize]
    }

    /// The element to which an operation with [`Slot::Overwrote`] gave a new value.
    pub(in crate::engine) fn element(&self, number: u32) -> GlobalOpId {
        self.elements[number as usize]
    }

    /// The elements that were each inserted behind the one before, up to this one: the counter of their first, and the
    /// element behind which that was inserted, or nothing for the beginning of the sequence.
    pub(in crate::engine) fn chain(&self, element: GlobalOpId) -> Option<(u32, Option<GlobalOpId>)> {
        let run = self.actors.get(element.actor as usize)?.runs.find(element.counter)?;
        let Slot::Inserted(after) = run.op().slot else {
            return None;
        };
        let after = self.elements[after as usize];
        Some((run.start, (after != HEAD).then_some(after)))
    }

    /// Whether `a` is the later of two operations: of equal counters, that of the greater actor id.
    pub(in crate::engine) fn is_later(&self, a: GlobalOpId, b: GlobalOpId) -> bool {
        let id = |actor: ActorNumber| &self.actors[actor as usize].id;
        a.counter > b.counter || a.counter == b.counter && id(a.actor) > id(b.actor)
    }

    /// Takes in an actor that has no number yet.
    fn admit_actor(&mut self, id: &[u8], subject: &Subject) -> ActorNumber {
        let owner = match self.subject_numbers.get(subject) {
            Some(&owner) => owner,
            None => {
                let owner = self.subjects.len() as u32;
                self.sizes.name_bytes += subject.0.len();
                self.subjects.push(subject.clone());
                self.subject_numbers.insert(subject.clone(), owner);
                owner
            }
        };
        let (number, id) = (self.actors.len() as ActorNumber, Arc::<[u8]>::from(id));
        self.sizes.name_bytes += id.len();
        self.actor_numbers.insert(id.clone(), number);
        self.actors.push(Actor {
            id,
            owner,
            last_seq: 0,
            max_op: 0,
            runs: Runs::default(),
            objects: Vec::new(),
        });
        number
    }

    fn admit_ops(&mut self, author: ActorNumber, change: &Decoded, number: &impl Fn(usize) -> Option<ActorNumber>) {
        let global = |id: OpId| {
            let actor = if id.actor == 0 {
                Some(author)
            } else {
                number(id.actor as usize)
            };
            Some(GlobalOpId {
                counter: id.counter,
                actor: actor?,
            })
        };
        let mut last_object = (None, Some(ROOT));
        for (op, counter) in change.ops.iter().zip(change.start_op()..) {
            if last_object.0 != op.object {
                let number = match op.object {
                    None => Some(ROOT),
                    Some(id) => global(id).and_then(|id| self.object_made_by(id)),
                };
                last_object = (op.object, number);
            }
            let Some(object) = last_object.1 else { continue };
            let (kind, made) = match op.action {
                Action::Make(object_type) => (Kind::Object, Some(object_type)),
                Action::Put => (Kind::Value, None),
                Action::PutCounter => (Kind::Counter, None),
                Action::MarkBegin | Action::MarkEnd => (Kind::Mark, None),
                Action::Delete | Action::Increment => continue,
            };
            if let Some(object_type) = made {
                let depth = self.objects[object as usize].depth.saturating_add(1);
                self.actors[author as usize]
                    .objects
                    .push(self.objects.len() as ObjectNumber);
                self.objects.push(Object {
                    id: GlobalOpId { counter, actor: author },
                    object_type,
                    depth,
                });
            }
            let behind_the_last = Key::Element(OpId {
                counter: counter - 1,
                actor: 0,
            });
            if op.insert
                && op.key == behind_the_last
                && self.actors[author as usize].runs.push_behind(counter, object, kind)
            {
                continue;
            }
            let slot = match op.key {
                Key::Map(key) => Slot::Key(self.admit_key(&change.keys[key as usize])),
                Key::Head => Slot::Inserted(self.admit_element(HEAD)),
                Key::Element(element) => match global(element) {
                    None => continue,
                    Some(element) if op.insert => Slot::Inserted(self.admit_element(element)),
                    Some(element) => Slot::Overwrote(self.admit_element(element)),
                },
            };
            self.actors[author as usize]
                .runs
                .push(counter, KnownOp { object, slot, kind });
        }
    }

    fn admit_element(&mut self, element: GlobalOpId) -> u32 {
        self.elements.push(element);
        self.elements.len() as u32 - 1
    }

    fn admit_key(&mut self, key: &str) -> u32 {
        if let Some(number) = self.key_number(key) {
            return number;
        }
        let (number, key) = (self.keys.len() as u32, Arc::<str>::from(key));
        self.sizes.name_bytes += key.len();
        self.keys.push(key.clone());
        self.key_numbers.insert(key, number);
        number
    }
}

/// Leaves a table at most twice the space that it needs.
fn shrink<T>(table: &mut Vec<T>) {
    if table.capacity() > 2 * table.len() {
        table.shrink_to(2 * table.len());
    }
}

/// The beginning of a sequence, where the index names an element.
const HEAD: GlobalOpId = GlobalOpId { counter: 0, actor: 0 };

/// A name in a list and in an ordered map beside it: two counted pointers, a number, the counts, and what a tree node wastes.
const NAME_BYTES: usize = 2 * 16 + 4 + 16 + 16;

#[cfg(test)]
mod tests;
