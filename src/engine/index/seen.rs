//! What lies in the past of a change: everything before some position, and beyond it for some actors everything up to some of
//! their changes.
//!
//! The room orders all changes, and a client sees a beginning of that order, then its own; so hardly anything is beyond.

use super::{clock::Clock, graph::Graph, ops::ActorNumber};
use std::collections::BTreeMap;

/// How far a change may move the position before which everything is in its past; the next one moves on.
const STEPS_MAX: u32 = 1_000;
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

/// A change that another stands on.
#[derive(Clone, Debug)]
pub(super) struct Tip {
    position: u32,
    /// Its actor, or a key of its own, and its sequence number; nothing if it is not known.
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

    /// The past of a change that stands on all of `tips`.
    pub(super) fn united(graph: &Graph, tips: impl Iterator<Item = Tip>) -> Self {
        let mut tips: Vec<Tip> = tips.collect();
        tips.sort_by_key(|tip| std::cmp::Reverse(tip.seen.before));
        let mut all = tips.first().map_or_else(Self::default, |tip| tip.seen.clone());
        for tip in &tips {
            let before = all.before;
            let is_beyond = |key: u32, seq: u32| match graph.position_of(key, seq) {
                Some(position) => position >= before,
                None => before < graph.front,
            };
            all.beyond = all.beyond.united(&tip.seen.beyond, &mut |key, seq| is_beyond(key, seq));
            all.uncertain_before = all.uncertain_before.max(tip.seen.uncertain_before);
            match tip.own {
                Some((key, seq)) if tip.position >= before => all.beyond = all.beyond.raised(key, seq),
                Some(_) => {}
                None => all.uncertain_before = all.uncertain_before.max(tip.position),
            }
        }
        all.rise(graph);
        all
    }

    /// Moves `before` up as far as everything there has been seen.
    fn rise(&mut self, graph: &Graph) {
        if self.before < graph.front && graph.roots().are_seen(self) {
            self.before = graph.front;
            let front = graph.front;
            let kept = Clock::default().united(&self.beyond, &mut |key, seq| {
                graph.position_of(key, seq).is_some_and(|position| position >= front)
            });
            self.beyond = kept;
        }
        for _ in 0..STEPS_MAX {
            let Some(node) = graph.node(self.before) else { break };
            let seq = self.seq(node.actor);
            if seq < node.seq {
                break;
            }
            if seq == node.seq {
                self.beyond = self.beyond.without(node.actor);
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

    /// Whether nothing is beyond.
    pub(super) fn is_plain(&self) -> bool {
        self.beyond.is_empty()
    }
}

impl Tip {
    pub(super) fn change(position: u32, actor: ActorNumber, seq: u32, seen: Seen) -> Self {
        Self {
            position,
            own: Some((actor, seq)),
            seen,
        }
    }

    /// A change somewhere before `front`.
    pub(super) fn unknown(front: u32) -> Self {
        Self {
            position: front,
            own: None,
            seen: Seen::default(),
        }
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
    pub(super) fn tip(&self, position: u32) -> Option<Tip> {
        self.0.get(&position).map(|own| Tip {
            position,
            own: Some(*own),
            seen: Seen {
                uncertain_before: position,
                ..Seen::default()
            },
        })
    }

    fn are_seen(&self, past: &Seen) -> bool {
        let is_seen = |(position, (key, seq)): (&u32, &(u32, u32))| past.is_before(*position) || past.seq(*key) >= *seq;
        self.0.iter().all(is_seen)
    }
}
