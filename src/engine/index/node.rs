//! A change in the graph, and what one that is about to come in stands on.

use super::{
    graph::{POSITION_MAX, RECENT_CHANGES_MAX},
    ops::ActorNumber,
    seen::{Seen, Tip},
};
use syncline_protocol::ChangeHash;

/// A change in the graph. A room that opens makes thousands of these at once, so one takes no more than a line of memory.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Node {
    pub(in crate::engine) hash: ChangeHash,
    pub(in crate::engine) actor: ActorNumber,
    pub(in crate::engine) seq: u32,
    pub(in crate::engine) start_op: u32,
    pub(in crate::engine) max_op: u32,
    past: Past,
}

/// What a change depends on, and what lies in its past.
#[derive(Clone, Debug)]
enum Past {
    /// One dependency, and everything before some position and nothing else: so it is with most.
    Plain {
        dep: Dep,
        before: u32,
    },
    Other(Box<(Deps, Seen)>),
}

const _: () = assert!(size_of::<Node>() <= 64);

/// What there is besides the node of a change that is not plain, with what the allocator takes for it.
pub(super) const OTHER_BYTES: usize = size_of::<(Deps, Seen)>() + 16;

/// A change about to become a [`Node`].
pub(super) struct NewNode<'a> {
    pub(super) hash: ChangeHash,
    pub(super) actor: ActorNumber,
    pub(super) seq: u32,
    pub(super) start_op: u32,
    pub(super) max_op: u32,
    pub(super) deps: &'a [ChangeHash],
}

/// What a change about to come in stands on, looked up once.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Footing {
    /// Where its dependencies stand; whether they were heads is not said yet.
    pub(super) deps: Deps,
    /// The highest counter of those that are known.
    pub(in crate::engine) max_op: u32,
}

/// [`Footing`] and what lies in the past of the change. It holds only until the graph changes.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Standpoint {
    pub(super) footing: Footing,
    pub(super) past: Seen,
}

/// What a change depends on. One is so common that it gets no allocation of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deps {
    One(Dep),
    Not1(Box<[Dep]>),
}

impl Deps {
    pub(super) fn as_slice(&self) -> &[Dep] {
        match self {
            Self::One(dep) => std::slice::from_ref(dep),
            Self::Not1(deps) => deps,
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [Dep] {
        match self {
            Self::One(dep) => std::slice::from_mut(dep),
            Self::Not1(deps) => deps,
        }
    }
}

/// A dependency: its position, and whether it was a head until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dep(pub(super) u32);

impl Dep {
    const UNKNOWN: u32 = POSITION_MAX + 1;

    /// Whether it may not be recent any more while the change at `position`, which stands on it, can be taken back.
    pub(super) fn is_distant_from(self, position: u32) -> bool {
        self.position().is_none_or(|own| position - own > RECENT_CHANGES_MAX)
    }

    pub(super) fn new(position: Option<u32>, was_head: bool) -> Self {
        Self(position.unwrap_or(Self::UNKNOWN) << 1 | u32::from(was_head))
    }

    pub(super) fn position(self) -> Option<u32> {
        let position = self.0 >> 1;
        (position != Self::UNKNOWN).then_some(position)
    }

    pub(super) fn was_head(self) -> bool {
        self.0 & 1 != 0
    }
}

impl Node {
    /// A change that stands on these, with this past.
    pub(super) fn new(new: &NewNode<'_>, deps: Deps, seen: Seen) -> Self {
        Self {
            hash: new.hash,
            actor: new.actor,
            seq: new.seq,
            start_op: new.start_op,
            max_op: new.max_op,
            past: Past::new(deps, seen),
        }
    }

    /// What it depends on.
    pub(super) fn deps(&self) -> &[Dep] {
        match &self.past {
            Past::Plain { dep, .. } => std::slice::from_ref(dep),
            Past::Other(other) => other.0.as_slice(),
        }
    }

    /// Gives it another past.
    pub(super) fn set_seen(&mut self, seen: Seen) {
        match &mut self.past {
            Past::Plain { dep, .. } => self.past = Past::new(Deps::One(*dep), seen),
            Past::Other(other) => other.1 = seen,
        }
    }

    /// As something to stand on.
    pub(super) fn tip(&self, position: u32) -> Tip<'_> {
        let own = Some((self.actor, self.seq));
        match &self.past {
            Past::Plain { before, .. } => Tip::plain(position, own, *before),
            Past::Other(other) => Tip::change(position, own, &other.1),
        }
    }

    /// Bytes of memory besides itself that nothing else shares.
    pub(super) fn extra_bytes(&self) -> usize {
        let Past::Other(other) = &self.past else { return 0 };
        let deps = match &other.0 {
            Deps::One(_) => 0,
            Deps::Not1(deps) => size_of_val(&**deps),
        };
        OTHER_BYTES + deps + other.1.extra_bytes()
    }

    /// What lies in its past, if there is more to say than a position.
    #[cfg(test)]
    pub(super) fn seen(&self) -> Option<&Seen> {
        match &self.past {
            Past::Plain { .. } => None,
            Past::Other(other) => Some(&other.1),
        }
    }
}

impl Past {
    fn new(deps: Deps, seen: Seen) -> Self {
        match (deps, seen.only_before()) {
            (Deps::One(dep), Some(before)) => Self::Plain { dep, before },
            (deps, _) => Self::Other(Box::new((deps, seen))),
        }
    }
}

impl Footing {
    /// Those of its dependencies, in the same order, that the graph does not know.
    pub(in crate::engine) fn unknown<'a>(&self, deps: &'a [ChangeHash]) -> impl Iterator<Item = &'a ChangeHash> {
        let known = self.deps.as_slice().iter().zip(deps);
        known.filter(|(dep, _)| dep.position().is_none()).map(|(_, hash)| hash)
    }
}

impl Standpoint {
    /// How far `start_op` lies above what is stood on; 0 if some of that is unknown here.
    pub(super) fn gap(&self, start_op: u32) -> u32 {
        let deps = self.footing.deps.as_slice();
        if deps.iter().all(|dep| dep.position().is_some()) {
            (start_op - 1).saturating_sub(self.footing.max_op)
        } else {
            0
        }
    }
}
