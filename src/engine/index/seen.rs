//! What lies in the past of a change: everything before some position, and beyond it for some actors everything up to some of
//! their changes.
//!
//! The room orders all changes, and a client sees a beginning of that order, then its own; so hardly anything is beyond.

use super::{clock::Clock, graph::Graph, ops::ActorNumber};
use std::collections::BTreeMap;

/// How far a change may move the position before which everything is in its past; the next one moves on.
const STEPS_MAX: u32 = 1_000;
/// How many actors a past may speak of beyond that position. It forgets them if there are more: two chains side by side would else
/// have each change that unites them hold all who wrote in either.
pub(super) const BEYOND_MAX: usize = 256;
/// Heads whose actor is not known any more have keys of their own in a [`Clock`], far above all actors.
const NAMELESS: u32 = 1 << 31;

/// The past of a change.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Seen {
    /// Everything before this position lies in it.
    before: u32,
    /// More of what stands before this position may lie in it than is known.
    uncertain_before: u32,
    /// Of each of these actors, what it made up to this sequence number.
    beyond: Clock,
}

/// What a change adds to the past of those that stand on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tip<'a> {
    position: u32,
    /// Its actor, or a key of its own, and its sequence number; nothing if it is not known.
    own: Option<(u32, u32)>,
    before: u32,
    uncertain_before: u32,
    /// Nothing if that is empty or not known.
    beyond: Option<&'a Clock>,
}

/// What there is to know of a change, kept when the change itself is not recent any more.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    own: Option<(u32, u32)>,
    seen: Seen,
}

/// The heads of what the graph has let go of: whoever has seen them has seen all of that.
#[derive(Clone, Debug, Default)]
pub(super) struct Roots(BTreeMap<u32, (u32, u32)>);

impl Seen {
    pub(super) fn all_before(position: u32) -> Self {
        Self {
            before: position,
            ..Self::default()
        }
    }

    /// The position before which everything lies in it, if there is nothing else to say.
    pub(super) fn only_before(&self) -> Option<u32> {
        (self.uncertain_before == 0 && self.beyond.is_empty()).then_some(self.before)
    }

    /// The past of a change that stands on all of `tips`.
    pub(super) fn united<'a>(graph: &Graph, tips: impl Iterator<Item = Tip<'a>> + Clone) -> Self {
        let mut each = tips.clone();
        if let (Some(only), None) = (each.next(), each.next())
            && only.has_all_before(graph.front)
        {
            return Self::all_before(only.position + 1);
        }
        let Some(most) = tips.clone().max_by_key(|tip| tip.before) else {
            return Self::default();
        };
        let (mut all, before) = (most.seen(), most.before);
        let mut is_beyond = |key: u32, seq: u32| match graph.position_of(key, seq) {
            Some(position) => position >= before,
            None => before < graph.front,
        };
        for tip in tips.clone() {
            if let Some(beyond) = tip.beyond {
                all.beyond.unite(beyond, &mut is_beyond);
            }
            all.uncertain_before = all.uncertain_before.max(tip.uncertain_before);
            match tip.own {
                Some((key, seq)) if tip.position >= before => all.beyond.raise(key, seq),
                Some(_) => {}
                None => all.uncertain_before = all.uncertain_before.max(tip.position),
            }
        }
        all.rise(graph);
        if all.beyond.is_longer_than(BEYOND_MAX) {
            all.forget_beyond(tips);
        }
        all
    }

    /// Keeps of what lies beyond no more than the tips themselves; all up to the last of them is uncertain then.
    fn forget_beyond<'a>(&mut self, tips: impl Iterator<Item = Tip<'a>> + Clone) {
        let last = tips.clone().map(|tip| tip.position + 1).max();
        self.uncertain_before = self.uncertain_before.max(last.unwrap_or(0));
        self.beyond = Clock::default();
        let own = tips.filter(|tip| tip.position >= self.before).filter_map(|tip| tip.own);
        own.take(BEYOND_MAX).for_each(|(key, seq)| self.beyond.raise(key, seq));
    }

    /// Moves `before` up as far as everything there has been seen.
    fn rise(&mut self, graph: &Graph) {
        if self.before < graph.front && graph.roots().are_seen(self) {
            self.before = graph.front;
            let front = graph.front;
            self.beyond
                .retain(&mut |key, seq| graph.position_of(key, seq).is_some_and(|position| position >= front));
        }
        for _ in 0..STEPS_MAX {
            let Some(node) = graph.node(self.before) else { break };
            let seq = self.seq(node.actor);
            if seq < node.seq {
                break;
            }
            if seq == node.seq {
                self.beyond.remove(node.actor);
            }
            self.before += 1;
        }
        if self.uncertain_before <= self.before {
            self.uncertain_before = 0;
        }
    }

    /// Whether everything up to this position, and what stands there, is in it, whoever made it.
    pub(super) fn is_before(&self, position: u32) -> bool {
        position < self.before
    }

    /// Whether everything before this position is in it.
    pub(super) fn is_before_or_at(&self, position: u32) -> bool {
        position <= self.before
    }

    /// Whether what stands there may be in it without being known to be.
    pub(super) fn is_uncertain(&self, position: u32) -> bool {
        position < self.uncertain_before
    }

    /// Up to where the changes of this actor are in it, as far as they stand beyond.
    pub(super) fn seq(&self, actor: ActorNumber) -> u32 {
        self.beyond.get(actor).unwrap_or(0)
    }

    /// Bytes of memory besides itself, about: those that nothing else shares.
    pub(super) fn extra_bytes(&self) -> usize {
        self.beyond.own_bytes()
    }

    #[cfg(test)]
    pub(super) fn beyond(&self) -> &Clock {
        &self.beyond
    }
}

impl<'a> Tip<'a> {
    pub(super) fn change(position: u32, own: Option<(u32, u32)>, seen: &'a Seen) -> Self {
        Self {
            position,
            own,
            before: seen.before,
            uncertain_before: seen.uncertain_before,
            beyond: Some(&seen.beyond).filter(|beyond| !beyond.is_empty()),
        }
    }

    /// A change in whose past lies everything before this position, and nothing else.
    pub(super) fn plain(position: u32, own: Option<(u32, u32)>, before: u32) -> Self {
        Self {
            position,
            own,
            before,
            uncertain_before: 0,
            beyond: None,
        }
    }

    /// A change somewhere before `front`.
    pub(super) fn unknown(front: u32) -> Self {
        Self {
            position: front,
            own: None,
            before: 0,
            uncertain_before: 0,
            beyond: None,
        }
    }

    /// Whether it is recent and has seen everything before it, and nothing else: so it is with most.
    fn has_all_before(&self, front: u32) -> bool {
        let is_known = self.own.is_some() && self.position >= front && self.uncertain_before <= self.position;
        is_known && self.before == self.position && self.beyond.is_none()
    }

    fn seen(&self) -> Seen {
        Seen {
            before: self.before,
            uncertain_before: self.uncertain_before,
            beyond: self.beyond.cloned().unwrap_or_default(),
        }
    }

    pub(super) fn kept(&self) -> Kept {
        Kept {
            own: self.own,
            seen: self.seen(),
        }
    }
}

impl Kept {
    pub(super) fn tip(&self, position: u32) -> Tip<'_> {
        Tip::change(position, self.own, &self.seen)
    }

    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }
}

impl Roots {
    /// The heads at these positions, of which nothing else is known.
    pub(super) fn stored(positions: impl Iterator<Item = u32>) -> Self {
        let key = |number: u32| (NAMELESS | number, 1);
        Self(positions.zip((0..).map(key)).collect())
    }

    /// A change has gone, and these were heads until it came.
    pub(super) fn replace(&mut self, deps: impl Iterator<Item = u32>, position: u32, actor: ActorNumber, seq: u32) {
        for dep in deps {
            self.0.remove(&dep);
        }
        self.0.insert(position, (actor, seq));
    }

    /// The head there as something to stand on.
    pub(super) fn tip(&self, position: u32) -> Option<Tip<'_>> {
        self.0.get(&position).map(|own| Tip {
            position,
            own: Some(*own),
            before: 0,
            uncertain_before: position,
            beyond: None,
        })
    }

    fn are_seen(&self, past: &Seen) -> bool {
        let is_seen = |(position, (key, seq)): (&u32, &(u32, u32))| past.is_before(*position) || past.seq(*key) >= *seq;
        self.0.iter().all(is_seen)
    }
}
