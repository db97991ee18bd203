//! The recent part of the change graph, and which operations of the room lie in the past of a change.
//!
//! Positions are the order in which the room took changes in, so that a change stands after all it depends on.

use super::{
    ops::ActorNumber,
    seen::{Roots, Seen, Tip},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use syncline_protocol::ChangeHash;

/// How many changes before the last settled one are kept.
pub const RECENT_CHANGES_MAX: u32 = 10_000;

/// How many changes a room can hold: positions share a word with a flag, and the last number says "unknown".
pub(in crate::engine) const POSITION_MAX: u32 = (u32::MAX >> 1) - 1;

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
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) position: u32,
    pub(super) max_op: u32,
    pub(super) tip: Tip,
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
    /// The positions of each actor's recent changes.
    by_actor: BTreeMap<ActorNumber, VecDeque<u32>>,
    /// The heads of the part before the recent changes.
    roots: Roots,
}

/// What a change adds to what others have seen: a few nodes of a tree, about.
const SEEN_BYTES: usize = 200;

impl Graph {
    /// How many changes the room holds.
    pub(in crate::engine) fn next_position(&self) -> u32 {
        self.front + self.recent.len() as u32
    }

    /// How many changes are recent.
    pub(in crate::engine) fn recent_len(&self) -> usize {
        self.recent.len()
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

    /// How many of the recent changes have hashes that begin with a zero byte: one in 256, where nobody sees to it.
    pub(in crate::engine) fn landmarks(&self) -> usize {
        self.by_prefix.range(..(1 << 56, 0)).count()
    }

    pub(in crate::engine) fn node(&self, position: u32) -> Option<&Node> {
        self.recent.get(position.checked_sub(self.front)? as usize)
    }

    /// The recent change of this actor with this seq.
    pub(in crate::engine) fn find_seq(&self, actor: ActorNumber, seq: u32) -> Option<&Node> {
        let node = self.node(self.position_of(actor, seq)?)?;
        (node.seq == seq).then_some(node)
    }

    /// The highest counter of a head or a recent change, or of what it stands on if it has no operations.
    pub(in crate::engine) fn max_op_of(&self, hash: &ChangeHash) -> Option<u32> {
        if let Some(head) = self.heads.get(hash) {
            return Some(head.max_op);
        }
        self.node(self.find(hash)?).map(|node| node.max_op)
    }

    /// How far `start_op` lies above these dependencies; 0 if one of them is unknown here.
    pub(super) fn gap(&self, deps: &[ChangeHash], start_op: u32) -> u32 {
        let max_op = deps
            .iter()
            .try_fold(0, |max, dep| self.max_op_of(dep).map(|max_op| max.max(max_op)));
        max_op.map_or(0, |max_op| (start_op - 1).saturating_sub(max_op))
    }

    pub(in crate::engine) fn are_heads(&self, deps: &[ChangeHash]) -> bool {
        deps.len() == self.heads.len() && deps.iter().eq(self.heads.keys())
    }

    /// What lies in the past of a change with these dependencies, all of which the graph knows.
    ///
    /// It is put together out of what is known of the dependencies, so that its cost does not grow with what they have not seen.
    pub(super) fn past(&self, deps: &[ChangeHash]) -> Seen {
        if self.are_heads(deps) {
            return Seen::all_before(self.next_position());
        }
        let unknown = || Tip::unknown(self.front);
        Seen::united(self, deps.iter().map(|dep| self.tip(dep).unwrap_or_else(unknown)))
    }

    /// The first counter of this actor, which has `last_seq` changes, that does not lie in the past; nothing if that reaches
    /// beyond the recent changes.
    pub(super) fn bound(&self, past: &Seen, actor: ActorNumber, last_seq: u32) -> Option<u32> {
        let recent = self.by_actor.get(&actor);
        let first_seq = self
            .first_recent_seq(actor)
            .unwrap_or_else(|| last_seq.saturating_add(1));
        let below = recent.map_or(0, |recent| recent.partition_point(|&position| past.is_before(position)));
        let before = if past.is_before_or_at(self.front) {
            first_seq.saturating_sub(1) + below as u32
        } else {
            0
        };
        let seen = before.max(past.seq(actor));
        if seen >= last_seq {
            return Some(u32::MAX);
        }
        let next = (seen + 1).checked_sub(first_seq)?;
        let position = *recent?.get(next as usize)?;
        if past.is_uncertain(position) {
            return None;
        }
        self.node(position).map(|node| node.start_op)
    }

    /// The position of a head or a recent change.
    pub(in crate::engine) fn position(&self, hash: &ChangeHash) -> Option<u32> {
        let head = self.heads.get(hash).map(|head| head.position);
        head.or_else(|| self.find(hash))
    }

    /// Where the log goes on for whoever has these changes and all that they stand on: the first position that is none of
    /// those. Nothing if that lies before the recent changes; changes that the graph does not know count for nothing.
    pub(in crate::engine) fn first_unseen<'a>(&self, known: impl Iterator<Item = &'a ChangeHash>) -> Option<u32> {
        let seen = Seen::united(self, known.filter_map(|hash| self.tip(hash)));
        let mut rest = (self.front..).zip(&self.recent);
        if !seen.is_before_or_at(self.front) {
            return None;
        }
        let unseen = rest.find(|(position, node)| !seen.is_before(*position) && seen.seq(node.actor) < node.seq);
        Some(unseen.map_or_else(|| self.next_position(), |(position, _)| position))
    }

    /// Where the change of this actor with this seq stands, if that is recent.
    pub(super) fn position_of(&self, actor: ActorNumber, seq: u32) -> Option<u32> {
        let number = seq.checked_sub(self.first_recent_seq(actor)?)?;
        self.by_actor.get(&actor)?.get(number as usize).copied()
    }

    fn first_recent_seq(&self, actor: ActorNumber) -> Option<u32> {
        let first = *self.by_actor.get(&actor)?.front()?;
        self.node(first).map(|node| node.seq)
    }

    fn tip(&self, hash: &ChangeHash) -> Option<Tip> {
        match self.heads.get(hash) {
            Some(head) => Some(head.tip.clone()),
            None => self.tip_at(self.find(hash)?),
        }
    }

    /// The recent change there as something to stand on.
    pub(super) fn tip_at(&self, position: u32) -> Option<Tip> {
        let node = self.node(position)?;
        Some(Tip::change(position, node.actor, node.seq, node.seen.clone()))
    }

    pub(super) fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The recent changes, oldest first.
    pub(in crate::engine) fn recent(&self) -> impl Iterator<Item = &Node> {
        self.recent.iter()
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
        let seen = self.past(node.deps);
        let mut replaced = Vec::new();
        let mut deps = Vec::with_capacity(node.deps.len());
        for hash in node.deps {
            let head = self.heads.remove(hash);
            let found = head.as_ref().map(|head| head.position).or_else(|| self.find(hash));
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
                tip: Tip::change(position, node.actor, node.seq, seen.clone()),
            },
        );
        self.append(Node {
            hash: node.hash,
            actor: node.actor,
            seq: node.seq,
            start_op: node.start_op,
            max_op: node.max_op,
            deps: Deps::new(deps),
            seen,
        });
        replaced
    }

    /// Takes in the stored changes, the first of which stands at `front`, and the stored heads. Where the changes stand tells
    /// what each has seen.
    pub(super) fn restore(&mut self, front: u32, nodes: Vec<Node>, heads: BTreeMap<ChangeHash, (u32, u32)>) {
        self.front = front;
        self.recent.reserve_exact(nodes.len());
        let mut rest: BTreeSet<u32> = heads.values().map(|(position, _)| *position).collect();
        let end = front + nodes.len() as u32;
        for (position, node) in (front..end).rev().zip(nodes.iter().rev()) {
            rest.remove(&position);
            let were_heads = node.deps.as_slice().iter().filter(|dep| dep.was_head());
            rest.extend(were_heads.filter_map(|dep| dep.position()));
        }
        self.roots = Roots::stored(rest.into_iter().filter(|position| *position < front));
        // All at once: one by one each would look for its place.
        self.by_prefix = nodes.iter().map(|node| prefix(&node.hash)).zip(front..).collect();
        for node in nodes {
            let tip = |dep: &Dep| {
                let position = dep.position()?;
                self.tip_at(position).or_else(|| self.roots.tip(position))
            };
            let unknown = || Tip::unknown(front);
            let deps = node.deps.as_slice().iter();
            let seen = Seen::united(self, deps.map(|dep| tip(dep).unwrap_or_else(unknown)));
            self.append_known(Node { seen, ..node });
        }
        let head = |(position, max_op): (u32, u32)| {
            let tip = self.tip_at(position).or_else(|| self.roots.tip(position));
            Head {
                position,
                max_op,
                tip: tip.unwrap_or_else(|| Tip::unknown(front)),
            }
        };
        self.heads = heads.into_iter().map(|(hash, stored)| (hash, head(stored))).collect();
    }

    fn append(&mut self, node: Node) {
        self.by_prefix.insert((prefix(&node.hash), self.next_position()));
        self.append_known(node);
    }

    /// The newest change, which can be found already.
    fn append_known(&mut self, node: Node) {
        let position = self.next_position();
        self.by_actor.entry(node.actor).or_default().push_back(position);
        self.recent.push_back(node);
    }

    /// Takes the newest change back, and the heads that it replaced in.
    pub(super) fn pop(&mut self, replaced: Vec<(ChangeHash, Head)>) -> Option<Node> {
        let node = self.recent.pop_back()?;
        let position = self.next_position();
        self.by_prefix.remove(&(prefix(&node.hash), position));
        self.forget_position(node.actor, VecDeque::pop_back);
        self.distant_deps.remove(&position);
        self.heads.remove(&node.hash);
        self.heads.extend(replaced);
        Some(node)
    }

    fn forget_position(&mut self, actor: ActorNumber, which: fn(&mut VecDeque<u32>) -> Option<u32>) {
        if let Some(recent) = self.by_actor.get_mut(&actor) {
            which(recent);
            if recent.is_empty() {
                self.by_actor.remove(&actor);
            }
        }
    }

    /// Lets go of what lies more than [`RECENT_CHANGES_MAX`] before `position`.
    pub(super) fn trim(&mut self, position: u32) {
        self.trim_to(position.saturating_sub(RECENT_CHANGES_MAX));
    }

    fn trim_to(&mut self, front: u32) {
        while self.front < front {
            let Some(node) = self.recent.pop_front() else { return };
            let deps = node.deps.as_slice().iter().filter_map(|dep| dep.position());
            self.roots.replace(deps, self.front, node.actor, node.seq);
            self.by_prefix.remove(&(prefix(&node.hash), self.front));
            self.forget_position(node.actor, VecDeque::pop_front);
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
        let seen = self.recent.iter().filter(|node| !node.seen.is_plain()).count() * SEEN_BYTES;
        let by_actor: usize = self.by_actor.values().map(|recent| 64 + recent.capacity() * 4).sum();
        self.recent.capacity() * size_of::<Node>()
            + deps
            + seen
            + by_actor
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

fn prefix(hash: &ChangeHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests;
