//! The recent part of the change graph, and which operations of the room lie in the past of a change.
//!
//! Positions are the order in which the room took changes in, so that a change stands after all it depends on.

use super::{
    node::{Dep, Deps, Footing, NewNode, Node, Standpoint},
    ops::ActorNumber,
    places::Places,
    seen::{Kept, Roots, Seen, Tip},
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use syncline_protocol::ChangeHash;

/// How many changes before the last settled one are kept.
pub const RECENT_CHANGES_MAX: u32 = 10_000;

/// How many changes a room can hold: positions share a word with a flag, and the last number says "unknown".
pub(in crate::engine) const POSITION_MAX: u32 = (u32::MAX >> 1) - 1;

/// A change that no other depends on.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) position: u32,
    pub(super) max_op: u32,
    /// What is not in the graph any more, if it is not recent.
    kept: Option<Box<Kept>>,
}

/// The heads and the recent changes.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Graph {
    pub(super) heads: BTreeMap<ChangeHash, Head>,
    /// The position of the first change in `recent`.
    pub(super) front: u32,
    pub(super) recent: VecDeque<Node>,
    places: Places,
    /// The dependencies that lay further back than [`RECENT_CHANGES_MAX`] when the change at this position came.
    pub(super) distant_deps: BTreeMap<u32, Vec<ChangeHash>>,
    by_actor: BTreeMap<ActorNumber, Recent>,
    /// The heads of the part before the recent changes.
    roots: Roots,
    totals: Totals,
}

/// An actor's recent changes: the sequence number of the first, and where each stands.
#[derive(Clone, Debug)]
struct Recent {
    first_seq: u32,
    positions: VecDeque<u32>,
}

/// Sums over the recent changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    /// Those whose hashes begin with a zero byte.
    landmarks: usize,
    /// Bytes of memory besides what each takes in `recent`, and what is kept of changes that are not recent any more shares with
    /// none of these.
    extra_bytes: usize,
    /// The hashes in `distant_deps`.
    distant_deps: usize,
}

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
        let is_it = |position| self.node(position).is_some_and(|node| node.hash == *hash);
        self.places.find(hash, is_it)
    }

    /// How many of the recent changes have hashes that begin with a zero byte: one in 256, where nobody sees to it.
    pub(in crate::engine) fn landmarks(&self) -> usize {
        self.totals.landmarks
    }

    pub(in crate::engine) fn node(&self, position: u32) -> Option<&Node> {
        self.recent.get(position.checked_sub(self.front)? as usize)
    }

    /// The recent change of this actor with this seq.
    pub(in crate::engine) fn find_seq(&self, actor: ActorNumber, seq: u32) -> Option<&Node> {
        let node = self.node(self.position_of(actor, seq)?)?;
        (node.seq == seq).then_some(node)
    }

    /// Looks up what a change with these dependencies stands on.
    pub(in crate::engine) fn footing(&self, deps: &[ChangeHash]) -> Footing {
        let mut max_op = 0;
        let mut look_up = |hash: &ChangeHash| {
            let known = self.locate(hash);
            max_op = known.map_or(max_op, |(_, own)| own.max(max_op));
            Dep::new(known.map(|(position, _)| position), false)
        };
        let deps = match deps {
            [dep] => Deps::One(look_up(dep)),
            _ => Deps::Not1(deps.iter().map(look_up).collect()),
        };
        Footing { deps, max_op }
    }

    /// Where a head or a recent change stands, and its highest counter, or that of what it stands on if it has no operations.
    fn locate(&self, hash: &ChangeHash) -> Option<(u32, u32)> {
        match self.find(hash) {
            Some(position) => self.node(position).map(|node| (position, node.max_op)),
            None => self.heads.get(hash).map(|head| (head.position, head.max_op)),
        }
    }

    pub(in crate::engine) fn are_heads(&self, deps: &[ChangeHash]) -> bool {
        deps.len() == self.heads.len() && deps.iter().eq(self.heads.keys())
    }

    /// What lies in the past of a change with these dependencies.
    ///
    /// It is put together out of what is known of the dependencies, so that its cost does not grow with what they have not seen.
    pub(super) fn stand(&self, deps: &[ChangeHash], footing: Footing) -> Standpoint {
        let past = if self.are_heads(deps) {
            Seen::all_before(self.next_position())
        } else {
            let known = footing.deps.as_slice().iter().zip(deps);
            let tips = known.map(|(dep, hash)| dep.position().and_then(|position| self.tip(position, hash)));
            Seen::united(self, tips.map(|tip| tip.unwrap_or_else(|| Tip::unknown(self.front))))
        };
        Standpoint { footing, past }
    }

    /// The first counter of this actor, which has `last_seq` changes, that does not lie in the past; nothing if that reaches
    /// beyond the recent changes.
    pub(super) fn bound(&self, standpoint: &Standpoint, actor: ActorNumber, last_seq: u32) -> Option<u32> {
        let past = &standpoint.past;
        if standpoint.footing.deps.as_slice().is_empty() {
            return Some(0);
        }
        let recent = self.by_actor.get(&actor);
        let newest = recent.and_then(|recent| recent.positions.back());
        if past.seq(actor) >= last_seq || newest.is_some_and(|newest| past.is_before(*newest)) {
            return Some(u32::MAX);
        }
        let first_seq = recent.map_or_else(|| last_seq.saturating_add(1), |recent| recent.first_seq);
        let before = if past.is_before_or_at(self.front) {
            let below = |recent: &Recent| recent.positions.partition_point(|&position| past.is_before(position));
            first_seq.saturating_sub(1) + recent.map_or(0, below) as u32
        } else {
            0
        };
        let seen = before.max(past.seq(actor));
        if seen >= last_seq {
            return Some(u32::MAX);
        }
        let next = (seen + 1).checked_sub(first_seq)?;
        let position = *recent?.positions.get(next as usize)?;
        if past.is_uncertain(position) {
            return None;
        }
        self.node(position).map(|node| node.start_op)
    }

    /// The position of a head or a recent change.
    pub(in crate::engine) fn position(&self, hash: &ChangeHash) -> Option<u32> {
        self.locate(hash).map(|(position, _)| position)
    }

    /// Where the log goes on for whoever has these changes and all that they stand on: the first position that is none of
    /// those. Nothing if that lies before the recent changes; changes that the graph does not know count for nothing.
    pub(in crate::engine) fn first_unseen<'a>(
        &self,
        known: impl Iterator<Item = &'a ChangeHash> + Clone,
    ) -> Option<u32> {
        let tips = known.filter_map(|hash| self.tip(self.position(hash)?, hash));
        let seen = Seen::united(self, tips);
        let mut rest = (self.front..).zip(&self.recent);
        if !seen.is_before_or_at(self.front) {
            return None;
        }
        let unseen = rest.find(|(position, node)| !seen.is_before(*position) && seen.seq(node.actor) < node.seq);
        Some(unseen.map_or_else(|| self.next_position(), |(position, _)| position))
    }

    /// Where the change of this actor with this seq stands, if that is recent.
    pub(super) fn position_of(&self, actor: ActorNumber, seq: u32) -> Option<u32> {
        let recent = self.by_actor.get(&actor)?;
        let number = seq.checked_sub(recent.first_seq)?;
        recent.positions.get(number as usize).copied()
    }

    /// The change that stands there and has this hash as something to stand on.
    fn tip(&self, position: u32, hash: &ChangeHash) -> Option<Tip<'_>> {
        if let Some(node) = self.node(position) {
            return Some(node.tip(position));
        }
        let kept = self.heads.get(hash)?.kept.as_ref()?;
        Some(kept.tip(position))
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
        for dep in node.deps() {
            let Some(dep) = dep.position().filter(|dep| position - dep <= RECENT_CHANGES_MAX) else {
                continue;
            };
            deps.push(self.node(dep)?.hash);
        }
        Some(deps)
    }

    /// Takes a change in; returns those of the heads that it replaced that are not recent, or may not be when it is taken back.
    pub(super) fn push(&mut self, node: NewNode<'_>, standpoint: Standpoint) -> Vec<(ChangeHash, Head)> {
        debug_assert_eq!(
            standpoint.footing.deps,
            self.footing(node.deps).deps,
            "nothing has come or gone since"
        );
        let position = self.next_position();
        let (mut deps, mut old_heads, mut distant) = (standpoint.footing.deps, Vec::new(), Vec::new());
        for (dep, hash) in deps.as_mut_slice().iter_mut().zip(node.deps) {
            let head = self.heads.remove(hash);
            *dep = Dep::new(dep.position(), head.is_some());
            let is_distant = dep.is_distant_from(position);
            if is_distant {
                distant.push(*hash);
            }
            let is_old = |head: &Head| is_distant || head.position < self.front;
            old_heads.extend(head.filter(is_old).map(|head| (*hash, self.kept(head))));
        }
        self.note_distant(position, distant);
        self.append(Node::new(&node, deps, standpoint.past));
        self.heads.extend(self.head(position));
        old_heads
    }

    /// Notes those dependencies of the change there that lie too far back.
    pub(super) fn note_distant(&mut self, position: u32, mut deps: Vec<ChangeHash>) {
        if deps.is_empty() {
            return;
        }
        deps.shrink_to_fit();
        self.totals.distant_deps += deps.len();
        let replaced = self.distant_deps.insert(position, deps);
        self.totals.distant_deps -= replaced.map_or(0, |deps| deps.len());
    }

    /// The head with all that there is to know of it, for when it is not recent any more.
    fn kept(&self, head: Head) -> Head {
        let kept = || {
            self.node(head.position)
                .map(|node| Box::new(node.tip(head.position).kept()))
        };
        Head {
            kept: head.kept.or_else(kept),
            ..head
        }
    }

    /// The recent change there as a head.
    fn head(&self, position: u32) -> Option<(ChangeHash, Head)> {
        let node = self.node(position)?;
        let head = Head {
            position,
            max_op: node.max_op,
            kept: None,
        };
        Some((node.hash, head))
    }

    /// Takes in the stored changes, the first of which stands at `front`, and the stored heads. Where the changes stand tells
    /// what each has seen.
    pub(super) fn restore(&mut self, front: u32, nodes: VecDeque<Node>, heads: BTreeMap<ChangeHash, (u32, u32)>) {
        let were_heads = nodes.iter().flat_map(Node::deps);
        let were_heads = were_heads.filter(|dep| dep.was_head()).filter_map(|dep| dep.position());
        let roots = heads.values().map(|(position, _)| *position).chain(were_heads);
        let roots: BTreeSet<u32> = roots.filter(|position| *position < front).collect();
        self.roots = Roots::stored(roots.into_iter());
        self.places = Places::with_capacity(nodes.len());
        self.front = front;
        self.recent = nodes;
        for place in 0..self.recent.len() {
            let position = front + place as u32;
            let deps = self.recent[place].deps().iter();
            let tip = |position| self.stored_tip(position);
            let tips = deps.map(|dep| dep.position().map_or_else(|| Tip::unknown(front), tip));
            let seen = Seen::united(self, tips);
            self.recent[place].set_seen(seen);
            self.note(position);
        }
        let head = |(position, max_op): (u32, u32)| {
            let kept = (position < front).then(|| self.stored_tip(position).kept());
            Head {
                position,
                max_op,
                kept: kept.map(Box::new),
            }
        };
        self.heads = heads.into_iter().map(|(hash, stored)| (hash, head(stored))).collect();
    }

    /// What stands there in a stored graph as something to stand on.
    fn stored_tip(&self, position: u32) -> Tip<'_> {
        let recent = self.node(position).map(|node| node.tip(position));
        let tip = recent.or_else(|| self.roots.tip(position));
        tip.unwrap_or_else(|| Tip::unknown(self.front))
    }

    fn append(&mut self, node: Node) {
        let position = self.next_position();
        self.recent.push_back(node);
        self.note(position);
    }

    /// Has the newest change that was not noted yet, which stands there, be found.
    fn note(&mut self, position: u32) {
        let Some(node) = self.recent.get((position - self.front) as usize) else {
            return;
        };
        self.places.insert(&node.hash, position);
        self.totals.add(node);
        let new = || Recent {
            first_seq: node.seq,
            positions: VecDeque::new(),
        };
        let recent = self.by_actor.entry(node.actor).or_insert_with(new);
        recent.positions.push_back(position);
    }

    /// Takes the newest change back, and the heads that it replaced in: those that are still recent, and these.
    pub(super) fn pop(&mut self, old_heads: Vec<(ChangeHash, Head)>) -> Option<Node> {
        let node = self.recent.pop_back()?;
        let position = self.next_position();
        self.heads.remove(&node.hash);
        self.forget(position, &node);
        if let Some(recent) = self.by_actor.get_mut(&node.actor) {
            recent.positions.pop_back();
            recent.give_back();
        }
        self.forget_absent(node.actor);
        for dep in node.deps().iter().filter(|dep| dep.was_head()) {
            self.heads
                .extend(dep.position().and_then(|position| self.head(position)));
        }
        self.heads.extend(old_heads);
        Some(node)
    }

    /// Lets go of what [`Graph::push`] returned, when that is not to be taken back any more.
    pub(super) fn let_go(&mut self, old_heads: Vec<(ChangeHash, Head)>) {
        for (_, head) in old_heads {
            let seen = head.kept.as_ref().map(|kept| kept.seen());
            self.totals.subtract_bytes(seen.map_or(0, Seen::extra_bytes));
        }
    }

    /// Forgets what is noted of a change that stood there: before it goes itself, and after what was kept of it has come.
    fn forget(&mut self, position: u32, node: &Node) {
        self.places.remove(&node.hash, position);
        self.totals.subtract(node);
        let distant = self.distant_deps.remove(&position);
        self.totals.distant_deps -= distant.map_or(0, |deps| deps.len());
    }

    /// Forgets the actor if it has no recent changes any more.
    fn forget_absent(&mut self, actor: ActorNumber) {
        if self
            .by_actor
            .get(&actor)
            .is_some_and(|recent| recent.positions.is_empty())
        {
            self.by_actor.remove(&actor);
        }
    }

    /// Lets go of what lies more than [`RECENT_CHANGES_MAX`] before `position`.
    pub(super) fn trim(&mut self, position: u32) {
        self.trim_to(position.saturating_sub(RECENT_CHANGES_MAX));
    }

    fn trim_to(&mut self, front: u32) {
        while self.front < front {
            let Some(node) = self.recent.pop_front() else { return };
            let position = self.front;
            let deps = node.deps().iter().filter_map(|dep| dep.position());
            self.roots.replace(deps, position, node.actor, node.seq);
            if let Some(head) = self.heads.get_mut(&node.hash) {
                head.kept = Some(Box::new(node.tip(position).kept()));
            }
            self.forget(position, &node);
            if let Some(recent) = self.by_actor.get_mut(&node.actor) {
                recent.positions.pop_front();
                recent.give_back();
                recent.first_seq = recent.first_seq.saturating_add(1);
            }
            self.forget_absent(node.actor);
            self.front += 1;
        }
    }

    /// Bytes of memory it takes, about. It is asked for all the time, so it walks over nothing.
    pub(super) fn memory_bytes(&self) -> usize {
        self.recent.capacity() * size_of::<Node>()
            + self.totals.extra_bytes
            + self.by_actor.len() * 2 * size_of::<(ActorNumber, Recent)>()
            + self.recent.len() * 2 * size_of::<u32>()
            + self.places.memory_bytes()
            + self.heads.len() * (2 * size_of::<(ChangeHash, Head)>() + size_of::<Kept>())
            + self.distant_deps.len() * 64
            + self.totals.distant_deps * size_of::<ChangeHash>()
    }
}

impl Recent {
    /// Leaves at most about twice the space that it needs.
    fn give_back(&mut self) {
        let needed = self.positions.len();
        if self.positions.capacity() > 8 + 2 * needed {
            self.positions.shrink_to(needed + needed / 2);
        }
    }
}

impl Totals {
    fn add(&mut self, node: &Node) {
        self.landmarks += usize::from(is_landmark(node));
        self.extra_bytes += node.extra_bytes();
    }

    fn subtract(&mut self, node: &Node) {
        self.landmarks -= usize::from(is_landmark(node));
        self.subtract_bytes(node.extra_bytes());
    }

    /// While somebody holds a copy of the graph its nodes are shared, and none's own: an estimate may then be off, but not turn over.
    fn subtract_bytes(&mut self, bytes: usize) {
        self.extra_bytes = self.extra_bytes.saturating_sub(bytes);
    }
}

fn is_landmark(node: &Node) -> bool {
    node.hash.0[0] == 0
}

#[cfg(test)]
mod tests;
