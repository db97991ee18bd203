//! The recent part of the change graph, and the walk that tells which operations lie outside the past of some changes.
//!
//! Positions are the order in which the room took changes in, so that a change stands after all it depends on.

use super::ops::ActorNumber;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use syncline_protocol::ChangeHash;

/// How many changes before the last settled one are kept.
pub const RECENT_CHANGES_MAX: u32 = 10_000;

/// How many changes a room can hold: positions share a word with a flag, and the last number says "unknown".
pub(in crate::engine) const POSITION_MAX: u32 = (u32::MAX >> 1) - 1;

/// A change in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Node {
    pub(in crate::engine) hash: ChangeHash,
    pub(in crate::engine) actor: ActorNumber,
    pub(in crate::engine) seq: u32,
    pub(in crate::engine) start_op: u32,
    pub(in crate::engine) max_op: u32,
    pub(super) deps: Deps,
}

/// What a change depends on. One is so common that it gets no allocation of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deps {
    One(Dep),
    Not1(Box<[Dep]>),
}

impl Deps {
    pub(super) fn new(deps: Vec<Dep>) -> Self {
        match deps[..] {
            [dep] => Self::One(dep),
            _ => Self::Not1(deps.into()),
        }
    }

    pub(super) fn as_slice(&self) -> &[Dep] {
        match self {
            Self::One(dep) => std::slice::from_ref(dep),
            Self::Not1(deps) => deps,
        }
    }
}

/// A dependency: its position, and whether it was a head until then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dep(pub(super) u32);

impl Dep {
    const UNKNOWN: u32 = POSITION_MAX + 1;

    fn new(position: Option<u32>, was_head: bool) -> Self {
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

/// A change that no other depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) position: u32,
    pub(super) max_op: u32,
}

/// The heads and the recent changes.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Graph {
    pub(super) heads: BTreeMap<ChangeHash, Head>,
    /// The position of the first change in `recent`.
    pub(super) front: u32,
    pub(super) recent: VecDeque<Node>,
    /// The recent changes by the first eight bytes of their hashes, which others may share.
    pub(super) by_prefix: BTreeSet<(u64, u32)>,
    /// The dependencies that lay further back than [`RECENT_CHANGES_MAX`] when the change at this position came.
    pub(super) distant_deps: BTreeMap<u32, Vec<ChangeHash>>,
}

/// Which operations of the room lie in the past of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Past {
    /// All of them.
    All,
    /// None of them.
    Nothing,
    /// Of each of these actors only those before the counter named; of the others all.
    Except(BTreeMap<ActorNumber, u32>),
}

impl Past {
    /// The first counter of this actor that does not lie in the past.
    pub(in crate::engine) fn bound(&self, actor: ActorNumber) -> u32 {
        match self {
            Self::All => u32::MAX,
            Self::Nothing => 0,
            Self::Except(bounds) => bounds.get(&actor).copied().unwrap_or(u32::MAX),
        }
    }
}

/// A dependency as the graph knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) struct KnownDep {
    pub(in crate::engine) position: u32,
    pub(in crate::engine) max_op: u32,
}

impl Graph {
    /// How many changes the room holds.
    pub(in crate::engine) fn next_position(&self) -> u32 {
        self.front + self.recent.len() as u32
    }

    /// Whether the recent part is the whole graph.
    pub(in crate::engine) fn is_whole(&self) -> bool {
        self.front == 0
    }

    pub(in crate::engine) fn find(&self, hash: &ChangeHash) -> Option<u32> {
        let prefix = prefix(hash);
        let mut same = self.by_prefix.range((prefix, 0)..=(prefix, u32::MAX));
        same.find(|(_, position)| self.node(*position).is_some_and(|node| node.hash == *hash))
            .map(|&(_, position)| position)
    }

    pub(in crate::engine) fn node(&self, position: u32) -> Option<&Node> {
        self.recent.get(position.checked_sub(self.front)? as usize)
    }

    /// The recent change of this actor with this seq.
    pub(in crate::engine) fn find_seq(&self, actor: ActorNumber, seq: u32) -> Option<&Node> {
        self.recent
            .iter()
            .rev()
            .find(|node| (node.actor, node.seq) == (actor, seq))
    }

    pub(in crate::engine) fn find_dep(&self, hash: &ChangeHash) -> Option<KnownDep> {
        if let Some(head) = self.heads.get(hash) {
            return Some(KnownDep {
                position: head.position,
                max_op: head.max_op,
            });
        }
        let position = self.find(hash)?;
        self.node(position).map(|node| KnownDep {
            position,
            max_op: node.max_op,
        })
    }

    /// How far `start_op` lies above these dependencies; 0 if one of them is unknown here.
    pub(super) fn gap(&self, deps: &[ChangeHash], start_op: u32) -> u32 {
        let max_op = deps
            .iter()
            .try_fold(0, |max, dep| self.find_dep(dep).map(|known| max.max(known.max_op)));
        max_op.map_or(0, |max_op| (start_op - 1).saturating_sub(max_op))
    }

    pub(in crate::engine) fn are_heads(&self, deps: &[ChangeHash]) -> bool {
        deps.len() == self.heads.len() && deps.iter().eq(self.heads.keys())
    }

    /// The past of a change with these dependencies, or nothing when that reaches beyond the recent changes.
    ///
    /// Walks from the newest change down, until every head of what is left is known to lie in the past.
    pub(in crate::engine) fn past(&self, deps: &[u32]) -> Option<Past> {
        if deps.is_empty() {
            return Some(Past::Nothing);
        }
        let mut walk = Walk::new(self);
        deps.iter().for_each(|&dep| walk.flag(dep, COVERED));
        let mut bounds = BTreeMap::new();
        let mut newest_first = (self.front..self.next_position()).rev().zip(self.recent.iter().rev());
        while walk.open > 0 {
            let (position, node) = newest_first.next()?;
            let covered = walk.is_covered(position);
            if !covered {
                bounds.insert(node.actor, node.start_op);
                walk.flag(position, VISITED);
            }
            for dep in node.deps.as_slice() {
                let Some(position) = dep.position() else { continue };
                if covered {
                    walk.flag(position, COVERED);
                }
                if dep.was_head() {
                    walk.flag(position, HEAD);
                }
            }
        }
        Some(Past::Except(bounds))
    }

    /// The recent changes, oldest first.
    pub(in crate::engine) fn recent(&self) -> impl Iterator<Item = &Node> {
        self.recent.iter()
    }

    /// The position of the first recent change of which this holds.
    pub(in crate::engine) fn recent_position(&self, holds: impl Fn(&Node) -> bool) -> Option<u32> {
        let first = self.recent.iter().position(holds)?;
        Some(self.front + first as u32)
    }

    /// What a recent change depends on, unless it is not recent or a dependency has been let go of since.
    pub(in crate::engine) fn deps_of(&self, hash: &ChangeHash) -> Option<Vec<ChangeHash>> {
        let position = self.find(hash)?;
        let mut deps = self.distant_deps.get(&position).cloned().unwrap_or_default();
        let node = self.node(position)?;
        for dep in node.deps.as_slice() {
            let Some(dep) = dep.position().filter(|dep| position - dep <= RECENT_CHANGES_MAX) else {
                continue;
            };
            deps.push(self.node(dep)?.hash);
        }
        Some(deps)
    }

    /// Takes a change in; returns the heads that it replaced.
    pub(super) fn push(&mut self, node: NewNode<'_>) -> Vec<(ChangeHash, Head)> {
        let position = self.next_position();
        let mut replaced = Vec::new();
        let mut deps = Vec::with_capacity(node.deps.len());
        for hash in node.deps {
            let head = self.heads.remove(hash);
            let found = head.map(|head| head.position).or_else(|| self.find(hash));
            if found.is_none_or(|found| position - found > RECENT_CHANGES_MAX) {
                self.distant_deps.entry(position).or_default().push(*hash);
            }
            deps.push(Dep::new(found, head.is_some()));
            replaced.extend(head.map(|head| (*hash, head)));
        }
        self.heads.insert(
            node.hash,
            Head {
                position,
                max_op: node.max_op,
            },
        );
        self.restore(Node {
            hash: node.hash,
            actor: node.actor,
            seq: node.seq,
            start_op: node.start_op,
            max_op: node.max_op,
            deps: Deps::new(deps),
        });
        replaced
    }

    /// Appends a node as it is.
    pub(super) fn restore(&mut self, node: Node) {
        self.by_prefix.insert((prefix(&node.hash), self.next_position()));
        self.recent.push_back(node);
    }

    /// Takes the newest change back, and the heads that it replaced in.
    pub(super) fn pop(&mut self, replaced: Vec<(ChangeHash, Head)>) -> Option<Node> {
        let node = self.recent.pop_back()?;
        let position = self.next_position();
        self.by_prefix.remove(&(prefix(&node.hash), position));
        self.distant_deps.remove(&position);
        self.heads.remove(&node.hash);
        self.heads.extend(replaced);
        Some(node)
    }

    /// Lets go of what lies more than [`RECENT_CHANGES_MAX`] before `position`.
    pub(super) fn trim(&mut self, position: u32) {
        while position.saturating_sub(self.front) > RECENT_CHANGES_MAX {
            let Some(node) = self.recent.pop_front() else { return };
            self.by_prefix.remove(&(prefix(&node.hash), self.front));
            self.distant_deps.remove(&self.front);
            self.front += 1;
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let deps: usize = self
            .recent
            .iter()
            .map(|node| match &node.deps {
                Deps::One(_) => 0,
                Deps::Not1(deps) => size_of_val(&**deps),
            })
            .sum();
        self.recent.capacity() * size_of::<Node>()
            + deps
            + self.by_prefix.len() * 2 * size_of::<(u64, u32)>()
            + self.heads.len() * 2 * size_of::<(ChangeHash, Head)>()
            + self
                .distant_deps
                .values()
                .map(|deps| 64 + deps.len() * 32)
                .sum::<usize>()
    }
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

const HEAD: u8 = 1;
const COVERED: u8 = 2;
const VISITED: u8 = 4;

/// What a walk knows of the changes. `HEAD` marks the heads of the part of the graph that is still below, `COVERED` what
/// lies in the past sought, `VISITED` what does not and is done with.
struct Walk {
    front: u32,
    recent: Vec<u8>,
    older: BTreeMap<u32, u8>,
    /// Heads that are not covered and not done with.
    open: usize,
}

impl Walk {
    fn new(graph: &Graph) -> Self {
        let mut walk = Self {
            front: graph.front,
            recent: vec![0; graph.recent.len()],
            older: BTreeMap::new(),
            open: 0,
        };
        graph.heads.values().for_each(|head| walk.flag(head.position, HEAD));
        walk
    }

    fn is_covered(&self, position: u32) -> bool {
        self.recent[(position - self.front) as usize] & COVERED != 0
    }

    fn flag(&mut self, position: u32, flag: u8) {
        let flags = match position.checked_sub(self.front) {
            Some(index) => &mut self.recent[index as usize],
            None => self.older.entry(position).or_default(),
        };
        let was_open = *flags == HEAD;
        *flags |= flag;
        let is_open = *flags == HEAD;
        self.open = self.open + usize::from(is_open) - usize::from(was_open);
    }
}

fn prefix(hash: &ChangeHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}
