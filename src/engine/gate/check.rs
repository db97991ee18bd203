//! The third step of the gate: whose actor, which place in the history, and every reference of every operation.

use super::{
    Action, Decoded, Key, ObjectType, OpId, Refusal, Subject, Verdict,
    marks::Marks,
    place::{KnownActor, Place, place},
};
use crate::engine::{
    document::Document,
    index::{GlobalOpId, Index, Kind, ObjectNumber, ROOT, Slot},
};
use syncline_protocol::Limits;

/// Objects lie at most this deep whatever the configuration says: far deeper and walking them overflows the stack.
const NESTING_DEPTH_MAX: u64 = 200;

/// Holds a change against the room's index; `document` is the merged document, needed only after [`Verdict::Distant`].
///
/// With a document, which must hold every change that the index has settled, the answer is never `Distant`.
pub fn check(
    index: &Index,
    document: Option<&Document>,
    subject: &Subject,
    change: &Decoded,
    limits: &Limits,
) -> Verdict {
    weigh(index, document, subject, change, limits).0
}

/// As [`check`], and takes the change into the index if it passes, vouched for or not; without looking up twice what it stands on.
pub fn take_in(
    index: &mut Index,
    document: Option<&Document>,
    subject: &Subject,
    change: &Decoded,
    limits: &Limits,
) -> Verdict {
    let (verdict, place) = weigh(index, document, subject, change, limits);
    if let Some(Place { actors, standpoint, .. }) = place {
        let number = |actor: usize| actors[actor].number;
        index.admit_on(change, subject, standpoint, &number);
    }
    verdict
}

/// The word of [`check`], and the change's place, if it passes.
fn weigh(
    index: &Index,
    document: Option<&Document>,
    subject: &Subject,
    change: &Decoded,
    limits: &Limits,
) -> (Verdict, Option<Place>) {
    let place = match place(index, document, subject, change) {
        Ok(place) => place,
        Err(verdict) => return (verdict, None),
    };
    if !place.author_past_is_whole {
        return (refuse("the change does not stand on its actor's last change"), None);
    }
    match check_ops(index, change, &place.actors, limits) {
        Ok(true) => (Verdict::Vouched, Some(place)),
        Ok(false) => (Verdict::Unvouched, Some(place)),
        Err(refusal) => (Verdict::Refused(refusal), None),
    }
}

/// Checks every operation; false if only merging can tell whether all are sound.
fn check_ops(index: &Index, change: &Decoded, actors: &[KnownActor], limits: &Limits) -> Checked<bool> {
    let mut references = References {
        index,
        change,
        actors,
        keys: change.keys.iter().map(|key| index.key_number(key)).collect(),
        made: Vec::new(),
        last_object: (
            None,
            ResolvedObject {
                name: ObjectName::Known(ROOT),
                object_type: ObjectType::Map,
                depth: 0,
            },
        ),
        depth_max: limits.nesting_depth_max.min(NESTING_DEPTH_MAX) as u8,
    };
    let (mut marks, mut is_vouchable) = (Marks::new(limits.mark_steps_max), !change.has_extra_bytes());
    for at in 0..change.ops.len() {
        let is_mark = references.check(at)?;
        is_vouchable &= !is_mark || marks.check(&references, at)?;
    }
    Ok(is_vouchable)
}

pub(super) fn refuse(reason: &'static str) -> Verdict {
    Verdict::Refused(Refusal::Dishonest(reason))
}

/// An object, by whichever way the change can know it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ObjectName {
    /// The room has it.
    Known(ObjectNumber),
    /// The operation at this place in the change makes it.
    Made(u32),
}

#[derive(Clone, Copy)]
struct ResolvedObject {
    name: ObjectName,
    object_type: ObjectType,
    depth: u8,
}

/// An operation named by another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Referent {
    /// In the room's index.
    Known(GlobalOpId),
    /// Earlier in the same change, at this place.
    Earlier(usize),
}

/// Checks the operations of one change in their order.
pub(super) struct References<'a> {
    pub(super) index: &'a Index,
    pub(super) change: &'a Decoded,
    actors: &'a [KnownActor],
    /// The room's number of each key of the change, if it has one.
    keys: Vec<Option<u32>>,
    /// The objects made so far in this change, with their depths, in order.
    made: Vec<(u32, u8)>,
    last_object: (Option<OpId>, ResolvedObject),
    depth_max: u8,
}

pub(super) type Checked<T> = Result<T, Refusal>;

pub(super) fn dishonest<T>(reason: &'static str) -> Checked<T> {
    Err(Refusal::Dishonest(reason))
}

impl References<'_> {
    /// Checks everything about the operation at `at` but the order of marks; says whether it is a mark.
    fn check(&mut self, at: usize) -> Checked<bool> {
        let op = self.change.ops[at];
        let object = self.object(at, op.object)?;
        self.check_key(at, object)?;
        self.check_preds(at, object)?;
        // Apps can do this, and Automerge 0.12 merges it. But who reads a counter in a text that was incremented panics, and so
        // does who merges the deletion of one of two values that a character of a text was given concurrently.
        let overwrites = matches!(op.key, Key::Element(_)) && !op.insert && op.action != Action::Delete;
        if overwrites && object.object_type == ObjectType::Text {
            return Err(Refusal::Limit(
                "a character of a text cannot be given another value or incremented; delete it and insert another",
            ));
        }
        if let Action::Make(_) = op.action {
            if object.depth >= self.depth_max {
                return Err(Refusal::Limit("objects are nested deeper than this server takes"));
            }
            self.made.push((at as u32, object.depth + 1));
        }
        Ok(op.is_mark())
    }

    fn object(&mut self, at: usize, id: Option<OpId>) -> Checked<ResolvedObject> {
        if self.last_object.0 == id {
            return Ok(self.last_object.1);
        }
        let object = match id {
            None => ResolvedObject {
                name: ObjectName::Known(ROOT),
                object_type: ObjectType::Map,
                depth: 0,
            },
            Some(id) => self.named_object(at, id)?,
        };
        self.last_object = (id, object);
        Ok(object)
    }

    fn named_object(&self, at: usize, id: OpId) -> Checked<ResolvedObject> {
        match self.referent(at, id)? {
            Referent::Earlier(made) => {
                let Action::Make(object_type) = self.change.ops[made].action else {
                    return dishonest("an operation is on something that is not an object");
                };
                let Ok(found) = self.made.binary_search_by_key(&(made as u32), |&(made, _)| made) else {
                    return dishonest("an operation is on something that is not an object");
                };
                Ok(ResolvedObject {
                    name: ObjectName::Made(made as u32),
                    object_type,
                    depth: self.made[found].1,
                })
            }
            Referent::Known(id) => {
                let Some(number) = self.index.object_made_by(id) else {
                    return dishonest("an operation is on something that is not an object");
                };
                let object = self.index.object(number);
                Ok(ResolvedObject {
                    name: ObjectName::Known(number),
                    object_type: object.object_type,
                    depth: object.depth,
                })
            }
        }
    }

    /// What `id` names, seen from the operation at `at`: an earlier operation of the change, or one in its past.
    pub(super) fn referent(&self, at: usize, id: OpId) -> Checked<Referent> {
        let start = self.change.start_op();
        if id.counter >= start + at as u32 || id.counter == 0 {
            return dishonest("an operation names one that is not before it");
        }
        if id.actor == 0 && id.counter >= start {
            return Ok(Referent::Earlier((id.counter - start) as usize));
        }
        let KnownActor {
            number: Some(actor),
            bound,
        } = self.actors[id.actor as usize]
        else {
            return dishonest("an operation names an actor that this document does not have");
        };
        if id.counter >= bound {
            return dishonest("an operation names one that is not in its past");
        }
        Ok(Referent::Known(GlobalOpId {
            counter: id.counter,
            actor,
        }))
    }

    fn check_key(&self, at: usize, object: ResolvedObject) -> Checked<()> {
        let op = self.change.ops[at];
        match (object.object_type, op.key) {
            (ObjectType::Map, Key::Map(_)) => {
                if op.insert || op.is_mark() {
                    return dishonest("an operation on a map inserts or marks");
                }
                Ok(())
            }
            (ObjectType::List | ObjectType::Text, Key::Head | Key::Element(_)) => {
                if op.insert && matches!(op.action, Action::Delete | Action::Increment) {
                    return dishonest("a deletion or an increment inserts");
                }
                if op.is_mark() && !op.insert {
                    return dishonest("a mark does not insert");
                }
                if op.is_mark() && object.object_type == ObjectType::List {
                    return dishonest("only texts have marks");
                }
                match op.key {
                    Key::Element(element) => self.check_element(at, element, object),
                    _ if op.insert => Ok(()),
                    _ => dishonest("an operation changes the beginning of a sequence"),
                }
            }
            _ => dishonest("the kind of key does not fit the object"),
        }
    }

    /// An element is named by the operation that inserted it into the same object.
    fn check_element(&self, at: usize, element: OpId, object: ResolvedObject) -> Checked<()> {
        let fits = match self.referent(at, element)? {
            Referent::Earlier(earlier) => {
                let inserted = self.change.ops[earlier];
                inserted.insert && inserted.object == self.change.ops[at].object
            }
            Referent::Known(id) => self.index.op(id).is_some_and(|known| {
                matches!(known.slot, Slot::Inserted(_)) && ObjectName::Known(known.object) == object.name
            }),
        };
        if fits {
            Ok(())
        } else {
            dishonest("an operation names an element that its object does not have")
        }
    }

    fn check_preds(&self, at: usize, object: ResolvedObject) -> Checked<()> {
        let op = self.change.ops[at];
        let preds = self.change.preds(at);
        if op.insert {
            return if preds.is_empty() {
                Ok(())
            } else {
                dishonest("an insertion has predecessors")
            };
        }
        let needs_preds = matches!(op.action, Action::Delete | Action::Increment) || matches!(op.key, Key::Element(_));
        if needs_preds && preds.is_empty() {
            return dishonest("a deletion, an increment or a new value of an element lacks predecessors");
        }
        let mut has_counter = false;
        for (n, &pred) in preds.iter().enumerate() {
            if preds[..n].last() == Some(&pred) {
                return dishonest("a predecessor is named twice");
            }
            has_counter |= self.pred_kind(at, pred, object)? == Kind::Counter;
        }
        if op.action == Action::Increment && !has_counter {
            return dishonest("an increment of something that is not a counter");
        }
        Ok(())
    }

    /// The kind of a predecessor, which is a value at the very place of the operation at `at`.
    fn pred_kind(&self, at: usize, pred: OpId, object: ResolvedObject) -> Checked<Kind> {
        let kind = match self.referent(at, pred)? {
            Referent::Earlier(earlier) => self.earlier_value(at, pred, earlier),
            Referent::Known(id) => self.known_value(at, id, object),
        };
        kind.map_or_else(|| dishonest("a predecessor is not a value at the same place"), Ok)
    }

    fn earlier_value(&self, at: usize, pred: OpId, earlier: usize) -> Option<Kind> {
        let (op, earlier) = (self.change.ops[at], self.change.ops[earlier]);
        let place = if earlier.insert {
            Key::Element(pred)
        } else {
            earlier.key
        };
        let kind = match earlier.action {
            Action::Make(_) => Kind::Object,
            Action::Put => Kind::Value,
            Action::PutCounter => Kind::Counter,
            Action::Delete | Action::Increment | Action::MarkBegin | Action::MarkEnd => return None,
        };
        (earlier.object == op.object && place == op.key).then_some(kind)
    }

    fn known_value(&self, at: usize, id: GlobalOpId, object: ResolvedObject) -> Option<Kind> {
        let known = self.index.op(id)?;
        let element = match (self.change.ops[at].key, known.slot) {
            (Key::Map(key), Slot::Key(known_key)) => {
                let same = self.keys[key as usize] == Some(known_key) && ObjectName::Known(known.object) == object.name;
                return same.then_some(known.kind);
            }
            (Key::Element(_), Slot::Inserted(_)) => id,
            (Key::Element(_), Slot::Overwrote(number)) => self.index.element(number),
            _ => return None,
        };
        let Key::Element(named) = self.change.ops[at].key else {
            return None;
        };
        let named = GlobalOpId {
            counter: named.counter,
            actor: self.actors[named.actor as usize].number?,
        };
        let same = named == element && ObjectName::Known(known.object) == object.name && known.kind != Kind::Mark;
        same.then_some(known.kind)
    }
}
