//! What the graph says of the past of a change is what a walk over all changes finds out.

use super::{
    super::{clock::Clock, node::OTHER_BYTES, seen::BEYOND_MAX},
    *,
};
use std::collections::BTreeSet;

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end.max(1)
    }
}

/// A graph, and all that ever was in it.
struct Case {
    graph: Graph,
    numbers: Numbers,
    /// Of each change its hash, its actor, its sequence number and its first counter.
    changes: Vec<(ChangeHash, ActorNumber, u32, u32)>,
    /// Of each change the positions of all that it stands on, at whatever remove.
    pasts: Vec<BTreeSet<u32>>,
    /// Of each change the positions that it names.
    deps: Vec<Vec<u32>>,
    /// How many of the first bytes are zero in all hashes.
    same_bytes: usize,
    undo: Vec<Vec<(ChangeHash, Head)>>,
    last_seqs: BTreeMap<ActorNumber, u32>,
}

impl Case {
    fn new(seed: u64) -> Self {
        Self {
            graph: Graph::default(),
            numbers: Numbers(seed),
            changes: Vec::new(),
            pasts: Vec::new(),
            deps: Vec::new(),
            same_bytes: seed as usize % 3 * 4,
            undo: Vec::new(),
            last_seqs: BTreeMap::new(),
        }
    }

    fn hash(&self, position: u32) -> ChangeHash {
        self.changes[position as usize].0
    }

    /// The last change of an actor.
    fn last(&self, actor: ActorNumber) -> Option<u32> {
        let found = self.changes.iter().rposition(|change| change.1 == actor);
        found.map(|position| position as u32)
    }

    fn union(&self, deps: &[u32]) -> BTreeSet<u32> {
        let mut past: BTreeSet<u32> = deps.iter().copied().collect();
        for dep in deps {
            past.extend(&self.pasts[*dep as usize]);
        }
        past
    }

    /// Some changes to stand on, as clients see them: all up to some position, or any few.
    fn deps(&mut self, actor: Option<ActorNumber>) -> Vec<u32> {
        let count = self.changes.len();
        let mut deps: Vec<u32> = actor.and_then(|actor| self.last(actor)).into_iter().collect();
        match self.numbers.below(4) {
            0 => {}
            1 | 2 => {
                let end = count - self.numbers.below(1 + count.min(12));
                deps.extend(0..end as u32);
            }
            _ => {
                for _ in 0..self.numbers.below(3).min(count) {
                    deps.push((count - 1 - self.numbers.below(count.min(40))) as u32);
                }
            }
        }
        // Nobody names what another that is named stands on.
        let covered: BTreeSet<u32> = deps.iter().flat_map(|dep| self.pasts[*dep as usize].clone()).collect();
        deps.retain(|dep| !covered.contains(dep));
        deps.sort_by_key(|dep| self.hash(*dep));
        deps.dedup();
        deps
    }

    fn push(&mut self, actor: ActorNumber) {
        let deps = self.deps(Some(actor));
        self.pasts.push(self.union(&deps));
        self.push_on(actor, deps);
    }

    fn push_on(&mut self, actor: ActorNumber, deps: Vec<u32>) {
        let position = self.changes.len() as u32;
        let number = self.undo.len() as u64 + self.changes.len() as u64 * 1_000 + self.numbers.below(1 << 30) as u64;
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        hash[..self.same_bytes].fill(0);
        hash[8..12].copy_from_slice(&position.to_be_bytes());
        let (hash, start_op) = (ChangeHash(hash), 1 + position * 3);
        let seq = self.last_seqs.entry(actor).or_insert(0);
        *seq += 1;
        let hashes: Vec<_> = deps.iter().map(|dep| self.hash(*dep)).collect();
        self.deps.push(deps);
        let node = NewNode {
            hash,
            actor,
            seq: self.last_seqs[&actor],
            start_op,
            max_op: start_op + 2,
            deps: &hashes,
        };
        let standpoint = self.graph.stand(&hashes, self.graph.footing(&hashes));
        self.undo.push(self.graph.push(node, standpoint));
        self.changes.push((hash, actor, self.last_seqs[&actor], start_op));
    }

    fn pop(&mut self) {
        if let (Some(replaced), Some((_, actor, seq, _))) = (self.undo.pop(), self.changes.pop()) {
            self.pasts.pop();
            self.deps.pop();
            self.graph.pop(replaced);
            self.last_seqs.insert(actor, seq - 1);
        }
    }

    /// Holds all that can be looked up against what there ever was.
    fn check_tables(&self, seed: u64) {
        let graph = &self.graph;
        let named: BTreeSet<u32> = self.deps.iter().flatten().copied().collect();
        for (position, (hash, actor, seq, start_op)) in (0..).zip(&self.changes) {
            let is_recent = position >= graph.front;
            let is_head = !named.contains(&position);
            let known = (is_recent || is_head).then_some((position, start_op + 2));
            assert_eq!(graph.locate(hash), known, "seed {seed}, {position}");
            assert_eq!(graph.find(hash), is_recent.then_some(position), "seed {seed}");
            assert_eq!(graph.heads.contains_key(hash), is_head, "seed {seed}, {position}");
            let of_actor = graph.position_of(*actor, *seq);
            assert_eq!(of_actor, is_recent.then_some(position), "seed {seed}");
            if let Some(node) = graph.node(position) {
                let deps: Vec<u32> = node.deps().iter().filter_map(|dep| dep.position()).collect();
                let mut named = self.deps[position as usize].clone();
                // What was not recent any more when it came is not known.
                named.retain(|dep| *dep >= graph.front || deps.contains(dep));
                assert_eq!(deps, named, "seed {seed}, {position}");
            }
        }
        assert_eq!(graph.heads.len(), self.changes.len() - named.len(), "seed {seed}");
        assert_eq!(graph.totals.extra_bytes, self.extra_bytes(), "seed {seed}");
        let distant = graph.distant_deps.values().map(Vec::len);
        assert_eq!(graph.totals.distant_deps, distant.sum::<usize>(), "seed {seed}");
        for recent in graph.by_actor.values() {
            let (capacity, needed) = (recent.positions.capacity(), recent.positions.len());
            assert!(capacity <= 8 + 2 * needed, "{capacity} places for {needed}");
        }
        assert_eq!(
            graph.landmarks(),
            graph.recent().filter(|node| node.hash.0[0] == 0).count()
        );
    }

    /// What the dependencies and the nodes of all clocks take, each node once.
    fn extra_bytes(&self) -> usize {
        let mut nodes = BTreeSet::new();
        for node in &self.graph.recent {
            if let Some(seen) = node.seen() {
                seen.beyond().nodes(&mut nodes);
            }
        }
        let old_heads = self.undo.iter().flatten().map(|(_, head)| head);
        for kept in self
            .graph
            .heads
            .values()
            .chain(old_heads)
            .filter_map(|head| head.kept.as_ref())
        {
            kept.seen().beyond().nodes(&mut nodes);
        }
        let others = self.graph.recent.iter().filter(|node| node.seen().is_some());
        let others = others.map(|node| match node.deps() {
            [_] => OTHER_BYTES,
            deps => OTHER_BYTES + size_of_val(deps),
        });
        Clock::bytes_of(nodes.len()) + others.sum::<usize>()
    }

    /// Puts in a change of this actor that stands on these, and returns its position.
    fn put(&mut self, actor: ActorNumber, deps: &[u32]) -> u32 {
        self.pasts.push(self.union(deps));
        self.push_on(actor, deps.to_vec());
        self.changes.len() as u32 - 1
    }

    /// Asks for a past, and holds it against the truth and against the walk. Whether it was known.
    fn check(&mut self, seed: u64) -> bool {
        let deps = self.deps(None);
        if deps.is_empty() || deps.iter().any(|dep| self.graph.position(&self.hash(*dep)).is_none()) {
            return false;
        }
        let known = self.check_past(seed, &deps);
        if let Some(walked) = walk(&self.graph, &deps) {
            let truth = self.union(&deps);
            assert!(known, "seed {seed}, deps {deps:?}");
            for &actor in self.last_seqs.keys() {
                let walked = walked.get(&actor).copied().unwrap_or(u32::MAX);
                assert_eq!(walked, self.first_outside(&truth, actor), "seed {seed}, deps {deps:?}");
            }
        }
        known
    }

    /// Whether the past of a change that stands on these is known; it is the truth as far as it is.
    fn check_past(&self, seed: u64, deps: &[u32]) -> bool {
        let hashes: Vec<_> = deps.iter().map(|dep| self.hash(*dep)).collect();
        let past = self.graph.stand(&hashes, self.graph.footing(&hashes));
        let truth = self.union(deps);
        let mut known = true;
        for (&actor, &last_seq) in &self.last_seqs {
            let bound = self.graph.bound(&past, actor, last_seq);
            if let Some(bound) = bound {
                let count = self.changes.len();
                let expected = self.first_outside(&truth, actor);
                assert_eq!(
                    bound, expected,
                    "seed {seed}, actor {actor}, deps {deps:?}, {count} changes"
                );
            }
            known &= bound.is_some();
        }
        known
    }

    /// The first counter of this actor outside this past.
    fn first_outside(&self, past: &BTreeSet<u32>, actor: ActorNumber) -> u32 {
        let found = (0..)
            .zip(&self.changes)
            .find(|(position, change)| change.1 == actor && !past.contains(position));
        found.map_or(u32::MAX, |(_, change)| change.3)
    }

    /// As if it had been stored and read.
    fn reload(&mut self) {
        let heads = self
            .graph
            .heads
            .iter()
            .map(|(hash, head)| (*hash, (head.position, head.max_op)));
        let mut graph = Graph::default();
        let nodes = self.graph.recent.iter().cloned().map(|mut node| {
            node.set_seen(Seen::default());
            node
        });
        graph.restore(self.graph.front, nodes.collect(), heads.collect());
        for (&position, deps) in &self.graph.distant_deps {
            graph.note_distant(position, deps.clone());
        }
        self.graph = graph;
        self.undo = vec![Vec::new(); self.changes.len()];
    }
}

#[test]
fn pasts_are_what_a_walk_finds() {
    let (mut asked, mut known) = (0, 0);
    for seed in 0..120 {
        let mut case = Case::new(seed);
        let (actors, steps) = (1 + case.numbers.below(7), 20 + case.numbers.below(150));
        let trims = seed % 3 > 0;
        let mut can_pop = 0;
        for _ in 0..steps {
            case.check_tables(seed);
            match case.numbers.below(40) {
                0 if can_pop > 0 => (0..=case.numbers.below(can_pop)).for_each(|_| case.pop()),
                1 if trims => {
                    let front = case.changes.len() - case.numbers.below(case.changes.len().min(30) + 1);
                    case.graph.trim_to(front as u32);
                }
                2 => case.reload(),
                _ => {
                    let actor = case.numbers.below(actors) as ActorNumber;
                    case.push(actor);
                    can_pop += 1;
                    asked += 1;
                    known += u32::from(case.check(seed));
                    continue;
                }
            }
            can_pop = 0;
        }
    }
    assert!(known > asked / 2 && asked > 5_000, "{known} of {asked} pasts are known");
}

#[test]
fn what_one_writer_types_takes_nothing_besides_its_nodes() {
    let mut case = Case::new(3);
    let mut last = case.put(0, &[]);
    for _ in 0..50 {
        last = case.put(0, &[last]);
    }
    // The first change stands on nothing, which is not plain.
    assert_eq!(case.graph.totals.extra_bytes, OTHER_BYTES);
    case.reload();
    assert_eq!(case.graph.totals.extra_bytes, OTHER_BYTES);
}

#[test]
fn what_is_kept_of_old_heads_is_counted() {
    let mut case = Case::new(2);
    case.put(0, &[]);
    let sides: Vec<u32> = (1..=20).map(|actor| case.put(actor, &[])).collect();
    let united = case.put(21, &sides);
    let top = case.put(22, &[united]);
    case.check_tables(2);
    case.graph.trim_to(top);
    case.check_tables(2);
    case.graph.trim_to(top + 1);
    case.check_tables(2);
    case.put(23, &[top]);
    case.check_tables(2);
    case.pop();
    case.check_tables(2);
    case.put(23, &[0, top]);
    case.check_tables(2);
    let old_heads = case.undo.last_mut().map(std::mem::take).unwrap();
    assert_eq!(old_heads.len(), 2);
    case.graph.let_go(old_heads);
    case.check_tables(2);
    assert!(case.graph.totals.extra_bytes < 500);
}

/// Two chains side by side, each change by somebody else, while something that nobody stands on keeps the position down.
#[test]
fn what_lies_beyond_is_limited() {
    let mut case = Case::new(2);
    case.put(0, &[]);
    let (mut tips, mut actor) = ([None; 2], 0);
    for round in 0..BEYOND_MAX as u32 {
        for tip in &mut tips {
            actor += 1;
            let deps: Vec<u32> = tip.iter().copied().collect();
            *tip = Some(case.put(actor, &deps));
        }
        if round == BEYOND_MAX as u32 / 2 - 1 {
            let mut deps = tips.map(|tip| tip.unwrap()).to_vec();
            deps.sort_by_key(|dep| case.hash(*dep));
            assert!(case.check_past(2, &deps), "so many are known");
        }
    }
    let mut deps = tips.map(|tip| tip.unwrap()).to_vec();
    deps.sort_by_key(|dep| case.hash(*dep));
    assert!(!case.check_past(2, &deps), "so many are forgotten");
    let before = case.graph.memory_bytes();
    for n in 1..=300 {
        let own = case.put(actor + n, &deps);
        let stand = case
            .graph
            .stand(&[case.hash(own)], case.graph.footing(&[case.hash(own)]));
        assert_eq!(
            case.graph.bound(&stand, actor + n, 1),
            Some(u32::MAX),
            "its own past is known"
        );
    }
    let each = (case.graph.memory_bytes() - before) / 300;
    assert!(each < 1_000, "{each} bytes for each change");
    case.check_tables(2);
    case.graph.trim_to(100);
    case.check_tables(2);
    assert!(
        !case.check_past(2, &deps),
        "nor are they known when some are not recent"
    );
    let mut heads: Vec<u32> = (case.changes.len() as u32 - 300..case.changes.len() as u32).collect();
    heads.push(0);
    heads.sort_by_key(|head| case.hash(*head));
    let whole = case.put(0, &heads);
    assert!(case.check_past(2, &[whole]), "who has seen all is known to have");
    (0..50).for_each(|_| case.pop());
    case.check_tables(2);
    case.reload();
    case.check_tables(2);
    case.check_past(2, &deps);
}

/// One change can name many others that are not recent any more.
#[test]
fn distant_dependencies_are_counted_each() {
    let mut case = Case::new(2);
    let old: Vec<u32> = (0..100).map(|actor| case.put(actor, &[])).collect();
    case.graph.trim_to(100);
    case.put(100, &[]);
    case.put(101, &old);
    assert_eq!(case.graph.totals.distant_deps, 0, "heads are known");
    case.graph.trim_to(102);
    let before = case.graph.memory_bytes();
    case.put(102, &old);
    assert_eq!(case.graph.totals.distant_deps, 100);
    let more = case.graph.memory_bytes() - before;
    assert!(more > 100 * size_of::<ChangeHash>(), "{more} bytes more");
    case.reload();
    case.check_tables(2);
    case.pop();
    case.check_tables(2);
}

/// A head may go out of the recent changes, be replaced, and come back when what replaced it is taken back.
#[test]
fn a_head_that_is_not_recent_comes_back() {
    for is_trimmed_first in [false, true] {
        let mut case = Case::new(1);
        let push = |case: &mut Case, actor: ActorNumber, deps: &[u32]| {
            case.push_on(actor, deps.to_vec());
            case.changes.len() as u32 - 1
        };
        let old = push(&mut case, 0, &[]);
        let mut newest = push(&mut case, 1, &[]);
        for _ in 0..RECENT_CHANGES_MAX + 20 {
            newest = push(&mut case, 1, &[newest]);
        }
        let before: Vec<_> = case.graph.heads.keys().copied().collect();
        for deps in [vec![old], vec![old, newest]] {
            if is_trimmed_first {
                case.graph.trim(newest - 5);
            }
            push(&mut case, 2, &deps);
            case.graph.trim(newest - 5);
            assert!(case.graph.front > old);
            case.pop();
            case.check_tables(1);
            assert!(case.graph.heads.keys().eq(&before));
            let past = case
                .graph
                .stand(&[case.hash(old)], case.graph.footing(&[case.hash(old)]));
            assert_eq!(
                case.graph.bound(&past, 0, 1),
                Some(u32::MAX),
                "the past is known as before"
            );
        }
    }
}

/// Walks from the newest change down, until every head of what is left is known to lie in the past: of each actor the first
/// counter that was found outside, or nothing when that reaches beyond the recent changes.
fn walk(graph: &Graph, deps: &[u32]) -> Option<BTreeMap<ActorNumber, u32>> {
    let mut walk = Walk::new(graph);
    deps.iter().for_each(|&dep| walk.flag(dep, COVERED));
    let mut bounds = BTreeMap::new();
    let mut newest_first = (graph.front..graph.next_position())
        .rev()
        .zip(graph.recent.iter().rev());
    while walk.open > 0 {
        let (position, node) = newest_first.next()?;
        let covered = walk.is_covered(position);
        if !covered {
            bounds.insert(node.actor, node.start_op);
            walk.flag(position, VISITED);
        }
        for dep in node.deps() {
            let Some(position) = dep.position() else { continue };
            if covered {
                walk.flag(position, COVERED);
            }
            if dep.was_head() {
                walk.flag(position, HEAD);
            }
        }
    }
    Some(bounds)
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
