//! Which operation belongs to which object, key or element: per actor, runs of consecutive counters.
//!
//! Typing makes long runs of insertions into one text, so a run costs 16 bytes however many keystrokes it holds. Deletions
//! and increments are not stored, as no operation may name one.

use crate::engine::gate::ObjectType;

/// An actor, by the order in which the room first saw it.
pub(in crate::engine) type ActorNumber = u32;
/// An object, by the order in which it was made; the root is 0.
pub(in crate::engine) type ObjectNumber = u32;

/// The root map.
pub(in crate::engine) const ROOT: ObjectNumber = 0;

/// The name of an operation within a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct GlobalOpId {
    pub(in crate::engine) counter: u32,
    pub(in crate::engine) actor: ActorNumber,
}

/// What the index knows of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct KnownOp {
    pub(in crate::engine) object: ObjectNumber,
    pub(in crate::engine) slot: Slot,
    pub(in crate::engine) kind: Kind,
}

/// Where in its object an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Slot {
    /// At a map key, by its number.
    Key(u32),
    /// It inserted an element and is that element's name. The number is that of the element before, in the table of
    /// elements; the operations after the first of a run each stand behind the one before.
    Inserted(u32),
    /// It gave a new value to an element, by the element's number in the table of elements.
    Overwrote(u32),
}

/// What an operation left in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Kind {
    Value,
    Counter,
    Object,
    Mark,
}

/// Consecutive operations of one actor that stand in the same place, or each insert behind the one before, and are of the
/// same kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) object: ObjectNumber,
    place: u32,
    /// The length above [`TAG_BITS`], kind and kind of slot below.
    length_and_tag: u32,
}

const TAG_BITS: u32 = 4;
const RUN_LENGTH_MAX: u32 = u32::MAX >> TAG_BITS;

impl Run {
    pub(super) fn new(start: u32, op: KnownOp) -> Self {
        let (slot, place) = match op.slot {
            Slot::Key(key) => (0, key),
            Slot::Inserted(after) => (1, after),
            Slot::Overwrote(element) => (2, element),
        };
        let kind = match op.kind {
            Kind::Value => 0,
            Kind::Counter => 1,
            Kind::Object => 2,
            Kind::Mark => 3,
        };
        Self {
            start,
            object: op.object,
            place,
            length_and_tag: 1 << TAG_BITS | slot << 2 | kind,
        }
    }

    /// A run from its stored parts, if they make sense.
    pub(super) fn from_parts(start: u32, object: ObjectNumber, place: u32, length_and_tag: u32) -> Option<Self> {
        let run = Self {
            start,
            object,
            place,
            length_and_tag,
        };
        let slot = length_and_tag >> 2 & 0b11;
        let sound = slot < 3 && run.length() > 0 && start > 0 && start.checked_add(run.length()).is_some();
        sound.then_some(run)
    }

    pub(super) fn parts(&self) -> [u32; 4] {
        [self.start, self.object, self.place, self.length_and_tag]
    }

    pub(super) fn length(&self) -> u32 {
        self.length_and_tag >> TAG_BITS
    }

    fn grow(&mut self) {
        self.set_length(self.length() + 1);
    }

    pub(super) fn set_length(&mut self, length: u32) {
        self.length_and_tag = length << TAG_BITS | self.length_and_tag & ((1 << TAG_BITS) - 1);
    }

    /// The counter after its last operation.
    pub(super) fn end(&self) -> u32 {
        self.start + self.length()
    }

    pub(super) fn op(&self) -> KnownOp {
        let slot = match self.length_and_tag >> 2 & 0b11 {
            0 => Slot::Key(self.place),
            1 => Slot::Inserted(self.place),
            _ => Slot::Overwrote(self.place),
        };
        let kind = match self.length_and_tag & 0b11 {
            0 => Kind::Value,
            1 => Kind::Counter,
            2 => Kind::Object,
            _ => Kind::Mark,
        };
        KnownOp {
            object: self.object,
            slot,
            kind,
        }
    }
}

/// The runs of one actor, in order of their counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs(pub(super) Vec<Run>);

impl Runs {
    /// Appends an operation whose counter is above all others.
    pub(super) fn push(&mut self, counter: u32, op: KnownOp) {
        match self.last_at(counter) {
            Some(last) if last.op() == op && !matches!(op.slot, Slot::Inserted(_)) => last.grow(),
            _ => self.0.push(Run::new(counter, op)),
        }
    }

    /// Appends an insertion behind the operation before, if it goes on that one's run.
    pub(super) fn push_behind(&mut self, counter: u32, object: ObjectNumber, kind: Kind) -> bool {
        match self.last_at(counter) {
            Some(last) if matches!(last.op(), KnownOp { object: o, slot: Slot::Inserted(_), kind: k } if (o, k) == (object, kind)) =>
            {
                last.grow();
                true
            }
            _ => false,
        }
    }

    /// The last run, if `counter` comes right after it and it has room.
    fn last_at(&mut self, counter: u32) -> Option<&mut Run> {
        self.0
            .last_mut()
            .filter(|last| last.end() == counter && last.length() < RUN_LENGTH_MAX)
    }

    /// The run with the operation of this counter, unless that is unknown, a deletion or an increment.
    pub(super) fn find(&self, counter: u32) -> Option<&Run> {
        let after = self.0.partition_point(|run| run.start <= counter);
        self.0[..after].last().filter(|run| counter < run.end())
    }

    /// Takes back every operation from `counter` on.
    pub(super) fn truncate(&mut self, counter: u32) {
        while let Some(last) = self.0.last_mut() {
            if last.start >= counter {
                self.0.pop();
            } else {
                let length = last.length().min(counter - last.start);
                last.set_length(length);
                return;
            }
        }
    }
}

/// An object: who made it, what it is, and how deep it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Object {
    pub(in crate::engine) id: GlobalOpId,
    pub(in crate::engine) object_type: ObjectType,
    pub(in crate::engine) depth: u8,
}
