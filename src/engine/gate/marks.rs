//! Where a mark begins and ends: a document in which a mark ends before it begins saves, but never loads.
//!
//! A mark is two operations, one right after the other, that each insert an invisible element behind another element. The
//! elements of a sequence form a tree, each a child of the one that it was inserted behind, the later child first; walking
//! the tree in depth gives the sequence. So the order of two elements follows from their nearest common ancestor, and never
//! changes again.

use super::{
    Action, Decoded, Key, OpId, Refusal,
    check::{Checked, References, Referent, dishonest},
};
use crate::engine::index::GlobalOpId;

/// Honest apps of the past made such: older Automerge wrote the mark of an empty range so.
pub(super) const MARK_ENDS_FIRST: Refusal = Refusal::Limit(
    "a mark ends before it begins, as older Automerge wrote empty ones; no document with it can be loaded",
);

/// The marks of one change.
pub(super) struct Marks {
    /// How many steps up the tree they may take together; what takes more is left to merging.
    steps_left: u64,
    /// For each operation the first of those before it that were each inserted behind the one before.
    chains: Vec<u32>,
}

/// An element of a sequence; nothing is its beginning.
type Element = Option<Referent>;

impl Marks {
    pub(super) fn new(steps_max: u64) -> Self {
        Self {
            steps_left: steps_max,
            chains: Vec::new(),
        }
    }

    /// Checks the mark operation at `at`; false if only merging can tell whether it is sound.
    pub(super) fn check(&mut self, references: &References<'_>, at: usize) -> Checked<bool> {
        let ops = &references.change.ops;
        let is_pair = |begin: usize| {
            ops[begin].action == Action::MarkBegin
                && ops
                    .get(begin + 1)
                    .is_some_and(|end| (end.action, end.object) == (Action::MarkEnd, ops[begin].object))
        };
        if ops[at].action == Action::MarkBegin {
            return Ok(is_pair(at));
        }
        let Some(begin) = at.checked_sub(1).filter(|&begin| is_pair(begin)) else {
            return dishonest("a mark ends that the operation before does not begin");
        };
        let begin_id = OpId {
            counter: references.change.start_op() + begin as u32,
            actor: 0,
        };
        if ops[at].key == Key::Element(begin_id) {
            return Ok(true);
        }
        let (first, second) = (element(references, begin)?, element(references, at)?);
        match self.comes_first(references, first, second) {
            Some(false) => Err(MARK_ENDS_FIRST),
            Some(true) => Ok(true),
            None => Ok(false),
        }
    }

    /// Whether `a` comes before `b`, or nothing if that takes too long to find out.
    fn comes_first(&mut self, references: &References<'_>, mut a: Element, mut b: Element) -> Option<bool> {
        let (mut child_of_a, mut child_of_b) = (None, None);
        while a != b {
            if is_later(references, a, b) {
                (child_of_a, a) = self.climb(references, a, b)?;
            } else {
                (child_of_b, b) = self.climb(references, b, a)?;
            }
        }
        Some(match (child_of_a, child_of_b) {
            (None, child_of_b) => child_of_b.is_some(),
            (_, None) => false,
            (child_of_a, child_of_b) => is_later(references, child_of_a, child_of_b),
        })
    }

    /// Goes up from `element` to its nearest ancestor that is not later than `other`, or at least out of its chain. Returns
    /// that and the child of it that was passed last.
    fn climb(&mut self, references: &References<'_>, element: Element, other: Element) -> Option<(Element, Element)> {
        self.steps_left = self.steps_left.checked_sub(1)?;
        match element? {
            Referent::Earlier(at) => {
                let start = self.chain(references.change, at);
                match other {
                    Some(Referent::Earlier(other)) if other >= start => {
                        Some((Some(Referent::Earlier(other + 1)), Some(Referent::Earlier(other))))
                    }
                    _ => Some((Some(Referent::Earlier(start)), self::element(references, start).ok()?)),
                }
            }
            Referent::Known(id) => {
                let (start, behind) = references.index.chain(id)?;
                let first = GlobalOpId {
                    counter: start,
                    actor: id.actor,
                };
                let Some(Referent::Known(other)) =
                    other.filter(|_| !is_later(references, Some(Referent::Known(first)), other))
                else {
                    return Some((Some(Referent::Known(first)), behind.map(Referent::Known)));
                };
                let same = GlobalOpId {
                    counter: other.counter,
                    actor: id.actor,
                };
                let counter = other.counter - u32::from(references.index.is_later(same, other));
                let at = |counter| {
                    Some(Referent::Known(GlobalOpId {
                        counter,
                        actor: id.actor,
                    }))
                };
                Some((at(counter + 1), at(counter)))
            }
        }
    }

    fn chain(&mut self, change: &Decoded, at: usize) -> usize {
        for next in self.chains.len()..=at {
            let (op, before) = (change.ops[next], next.wrapping_sub(1));
            let before_id = OpId {
                counter: change.start_op() + next as u32 - 1,
                actor: 0,
            };
            let goes_on = next > 0 && op.insert && change.ops[before].insert && op.key == Key::Element(before_id);
            self.chains
                .push(if goes_on { self.chains[before] } else { next as u32 });
        }
        self.chains[at] as usize
    }
}

/// The element behind which the operation at `at` inserts.
fn element(references: &References<'_>, at: usize) -> Result<Element, Refusal> {
    match references.change.ops[at].key {
        Key::Element(id) => references.referent(at, id).map(Some),
        Key::Head | Key::Map(_) => Ok(None),
    }
}

/// Whether `a` was made later than `b`. Whatever a change names was there before its own operations.
fn is_later(references: &References<'_>, a: Element, b: Element) -> bool {
    match (a, b) {
        (None, _) => false,
        (_, None) => true,
        (Some(Referent::Earlier(a)), Some(Referent::Earlier(b))) => a > b,
        (Some(Referent::Earlier(_)), Some(Referent::Known(_))) => true,
        (Some(Referent::Known(_)), Some(Referent::Earlier(_))) => false,
        (Some(Referent::Known(a)), Some(Referent::Known(b))) => references.index.is_later(a, b),
    }
}
