//! A change in the graph, and what one that is about to come in stands on.

use super::{
    graph::{POSITION_MAX, RECENT_CHANGES_MAX},
    ops::ActorNumber,
    seen::{Seen, Tip},
};
use syncline_protocol::ChangeHash;

/// A change in the graph.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Node {
    pub(in crate::engine) hash: ChangeHash,
    pub(in crate::engine) actor: ActorNumber,
    pub(in crate::engine) seq: u32,
    pub(in crate::engine) start_op: u32,
    pub(in crate::engine) max_op: u32,
    pub(super) deps: Deps,
    /// What lies in its past.
    pub(super) seen: Seen,
}

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
    /// As something to stand on.
    pub(super) fn tip(&self, position: u32) -> Tip<'_> {
        Tip::change(position, Some((self.actor, self.seq)), &self.seen)
    }

    /// Bytes of memory besides itself that nothing else shares.
    pub(super) fn extra_bytes(&self) -> usize {
        let deps = match &self.deps {
            Deps::One(_) => 0,
            Deps::Not1(deps) => size_of_val(&**deps),
        };
        deps + self.seen.extra_bytes()
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
