//! A map from actors to sequence numbers that shares what it has in common with the maps it was made from.
//!
//! Each change of the recent graph has one, and a change's is nearly its dependencies'. Most hold few entries and hold them themselves.
//! The others are radix trees over the bits of the keys that never change: putting an entry in copies the path to it, and uniting two
//! maps passes over what both share.

use std::sync::Arc;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Clock {
    Few(Few),
    Many(Arc<Tree>),
}

const FEW: usize = 4;
/// What a node takes: itself, its two counts, and what the allocator wastes.
const NODE_BYTES: usize = size_of::<Tree>() + 24;

/// Entries in no order.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Few {
    len: u8,
    entries: [(u32, u32); FEW],
}

#[derive(Debug)]
pub(super) enum Tree {
    Leaf {
        key: u32,
        value: u32,
    },
    /// Keys that agree in all bits above `bit`; those without that bit are on the left.
    Branch {
        prefix: u32,
        bit: u32,
        left: Arc<Tree>,
        right: Arc<Tree>,
    },
}

impl Default for Clock {
    fn default() -> Self {
        Self::Few(Few::default())
    }
}

impl Clock {
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Few(Few { len: 0, .. }))
    }

    /// Whether it has more than so many entries.
    pub(super) fn is_longer_than(&self, count: usize) -> bool {
        match self {
            Self::Few(few) => usize::from(few.len) > count,
            Self::Many(tree) => tree.leaves_of(count + 1) > count,
        }
    }

    /// Bytes of the nodes that no other map holds: what it adds when it comes, and leaves free when it goes.
    pub(super) fn own_bytes(&self) -> usize {
        match self {
            Self::Few(_) => 0,
            Self::Many(tree) => own_nodes(tree) * NODE_BYTES,
        }
    }

    pub(super) fn get(&self, key: u32) -> Option<u32> {
        let mut tree = match self {
            Self::Few(few) => return few.get(key),
            Self::Many(tree) => tree,
        };
        loop {
            match &**tree {
                Tree::Leaf { key: own, value } => return (*own == key).then_some(*value),
                Tree::Branch { bit, left, right, .. } => tree = if key & bit == 0 { left } else { right },
            }
        }
    }

    /// Puts in `value` for `key`, unless there is a greater one.
    pub(super) fn raise(&mut self, key: u32, value: u32) {
        let tree = match self {
            Self::Few(few) => {
                if few.raise(key, value) {
                    return;
                }
                few.tree()
            }
            Self::Many(tree) => Some(tree.clone()),
        };
        let leaf = Arc::new(Tree::Leaf { key, value });
        *self = Self::Many(match tree {
            Some(tree) => unite(&tree, &leaf, &mut |_, _| true),
            None => leaf,
        });
    }

    pub(super) fn remove(&mut self, key: u32) {
        match self {
            Self::Few(few) => few.retain(|own, _| own != key),
            Self::Many(tree) => *self = Self::of(remove(tree, key)),
        }
    }

    pub(super) fn retain(&mut self, keep: &mut dyn FnMut(u32, u32) -> bool) {
        match self {
            Self::Few(few) => few.retain(keep),
            Self::Many(tree) => *self = Self::of(filter(tree, keep)),
        }
    }

    /// Takes the greater value of both for each key; of the keys that only `other` has, those that `keep` wants.
    pub(super) fn unite(&mut self, other: &Self, keep: &mut dyn FnMut(u32, u32) -> bool) {
        let tree = match other {
            Self::Few(few) => {
                for &(key, value) in few.entries() {
                    if self.get(key).is_some() || keep(key, value) {
                        self.raise(key, value);
                    }
                }
                return;
            }
            Self::Many(tree) => tree,
        };
        let own = match &*self {
            Self::Few(few) => few.tree(),
            Self::Many(own) => Some(own.clone()),
        };
        *self = Self::of(match own {
            Some(own) => Some(unite(&own, tree, keep)),
            None => filter(tree, keep),
        });
    }

    /// A tree may have a few entries more or less than what needs none, so that it is not made anew all the time.
    fn of(tree: Option<Arc<Tree>>) -> Self {
        let Some(tree) = tree else { return Self::default() };
        let mut few = Few::default();
        if tree.gather(&mut few) && usize::from(few.len) <= FEW / 2 {
            Self::Few(few)
        } else {
            Self::Many(tree)
        }
    }
}

impl Few {
    fn entries(&self) -> &[(u32, u32)] {
        &self.entries[..self.len.into()]
    }

    fn get(&self, key: u32) -> Option<u32> {
        let own = self.entries().iter().find(|(own, _)| *own == key);
        own.map(|(_, value)| *value)
    }

    /// False if it is full.
    fn raise(&mut self, key: u32, value: u32) -> bool {
        let len = usize::from(self.len);
        if let Some((_, own)) = self.entries[..len].iter_mut().find(|(own, _)| *own == key) {
            *own = value.max(*own);
        } else if let Some(free) = self.entries.get_mut(len) {
            *free = (key, value);
            self.len += 1;
        } else {
            return false;
        }
        true
    }

    fn retain(&mut self, mut keep: impl FnMut(u32, u32) -> bool) {
        let mut kept = Self::default();
        for &(key, value) in self.entries() {
            if keep(key, value) {
                kept.raise(key, value);
            }
        }
        *self = kept;
    }

    fn tree(&self) -> Option<Arc<Tree>> {
        let leaves = self.entries().iter();
        let leaves = leaves.map(|&(key, value)| Arc::new(Tree::Leaf { key, value }));
        leaves.reduce(|tree, leaf| unite(&tree, &leaf, &mut |_, _| true))
    }
}

impl Tree {
    /// The bits that all its keys have in common, and the bit below which they differ: none in a leaf.
    fn place(&self) -> (u32, u32) {
        match self {
            Self::Leaf { key, .. } => (*key, 0),
            Self::Branch { prefix, bit, .. } => (*prefix, *bit),
        }
    }

    /// How many leaves it has; counted up to `enough`, or a few more.
    fn leaves_of(&self, enough: usize) -> usize {
        match self {
            Self::Leaf { .. } => 1,
            Self::Branch { left, right, .. } => match left.leaves_of(enough) {
                of_left if of_left >= enough => of_left,
                of_left => of_left + right.leaves_of(enough - of_left),
            },
        }
    }

    /// Puts its entries into `few`; false if there are too many.
    fn gather(&self, few: &mut Few) -> bool {
        match self {
            Self::Leaf { key, value } => few.raise(*key, *value),
            Self::Branch { left, right, .. } => left.gather(few) && right.gather(few),
        }
    }
}

/// How many nodes of this tree are held by nothing else.
fn own_nodes(tree: &Arc<Tree>) -> usize {
    match &**tree {
        _ if Arc::strong_count(tree) > 1 => 0,
        Tree::Leaf { .. } => 1,
        Tree::Branch { left, right, .. } => 1 + own_nodes(left) + own_nodes(right),
    }
}

/// The bits of `key` above `bit`.
fn above(key: u32, bit: u32) -> u32 {
    key & !(bit | bit.wrapping_sub(1))
}

fn branch(prefix: u32, bit: u32, left: Option<Arc<Tree>>, right: Option<Arc<Tree>>) -> Option<Arc<Tree>> {
    match (left, right) {
        (Some(left), Some(right)) => Some(Arc::new(Tree::Branch {
            prefix,
            bit,
            left,
            right,
        })),
        (one, None) | (None, one) => one,
    }
}

/// All of both, which have no key in common and lie apart.
fn join(a: &Arc<Tree>, b: Arc<Tree>) -> Arc<Tree> {
    let (key_a, key_b) = (a.place().0, b.place().0);
    let bit = 1 << (31 - (key_a ^ key_b).leading_zeros());
    let (left, right) = if key_a & bit == 0 {
        (a.clone(), b)
    } else {
        (b, a.clone())
    };
    Arc::new(Tree::Branch {
        prefix: above(key_a, bit),
        bit,
        left,
        right,
    })
}

fn filter(tree: &Arc<Tree>, keep: &mut dyn FnMut(u32, u32) -> bool) -> Option<Arc<Tree>> {
    match &**tree {
        Tree::Leaf { key, value } => keep(*key, *value).then(|| tree.clone()),
        Tree::Branch {
            prefix,
            bit,
            left,
            right,
        } => {
            let (kept_left, kept_right) = (filter(left, keep), filter(right, keep));
            if is_same(&kept_left, left) && is_same(&kept_right, right) {
                return Some(tree.clone());
            }
            branch(*prefix, *bit, kept_left, kept_right)
        }
    }
}

fn is_same(kept: &Option<Arc<Tree>>, tree: &Arc<Tree>) -> bool {
    kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, tree))
}

/// All of `a`, raised by what `b` has more of, and what `keep` wants of the rest of `b`.
fn unite(a: &Arc<Tree>, b: &Arc<Tree>, keep: &mut dyn FnMut(u32, u32) -> bool) -> Arc<Tree> {
    if Arc::ptr_eq(a, b) {
        return a.clone();
    }
    let ((prefix_a, bit_a), (prefix_b, bit_b)) = (a.place(), b.place());
    match (&**a, &**b) {
        (Tree::Leaf { value: of_a, .. }, Tree::Leaf { value: of_b, .. }) if prefix_a == prefix_b => {
            if of_a < of_b {
                b.clone()
            } else {
                a.clone()
            }
        }
        (Tree::Branch { left, right, .. }, _) if bit_a > bit_b && above(prefix_b, bit_a) == prefix_a => {
            if prefix_b & bit_a == 0 {
                with_sides(a, unite(left, b, keep), right.clone())
            } else {
                with_sides(a, left.clone(), unite(right, b, keep))
            }
        }
        (_, Tree::Branch { left, right, .. }) if bit_b > bit_a && above(prefix_a, bit_b) == prefix_b => {
            let (left, right) = if prefix_a & bit_b == 0 {
                (Some(unite(a, left, keep)), filter(right, keep))
            } else {
                (filter(left, keep), Some(unite(a, right, keep)))
            };
            branch(prefix_b, bit_b, left, right).unwrap_or_else(|| a.clone())
        }
        (
            Tree::Branch { left, right, .. },
            Tree::Branch {
                left: left_b,
                right: right_b,
                ..
            },
        ) if (prefix_a, bit_a) == (prefix_b, bit_b) => {
            with_sides(a, unite(left, left_b, keep), unite(right, right_b, keep))
        }
        _ => match filter(b, keep) {
            Some(b) => join(a, b),
            None => a.clone(),
        },
    }
}

/// The branch `tree` with these sides: itself, if they are its own.
fn with_sides(tree: &Arc<Tree>, new_left: Arc<Tree>, new_right: Arc<Tree>) -> Arc<Tree> {
    match &**tree {
        Tree::Branch {
            prefix,
            bit,
            left,
            right,
        } if !(Arc::ptr_eq(&new_left, left) && Arc::ptr_eq(&new_right, right)) => Arc::new(Tree::Branch {
            prefix: *prefix,
            bit: *bit,
            left: new_left,
            right: new_right,
        }),
        Tree::Branch { .. } | Tree::Leaf { .. } => tree.clone(),
    }
}

fn remove(tree: &Arc<Tree>, key: u32) -> Option<Arc<Tree>> {
    match &**tree {
        Tree::Leaf { key: own, .. } => (*own != key).then(|| tree.clone()),
        Tree::Branch {
            prefix,
            bit,
            left,
            right,
        } => {
            if above(key, *bit) != *prefix {
                return Some(tree.clone());
            }
            let (new_left, new_right) = if key & bit == 0 {
                (remove(left, key), Some(right.clone()))
            } else {
                (Some(left.clone()), remove(right, key))
            };
            match (new_left, new_right) {
                (Some(left), Some(right)) => Some(with_sides(tree, left, right)),
                (one, None) | (None, one) => one,
            }
        }
    }
}

#[cfg(test)]
impl Clock {
    /// Puts the addresses of all its nodes into `found`.
    pub(super) fn nodes(&self, found: &mut std::collections::BTreeSet<usize>) {
        let mut pending = Vec::new();
        if let Self::Many(tree) = self {
            pending.push(tree);
        }
        while let Some(tree) = pending.pop() {
            found.insert(Arc::as_ptr(tree) as usize);
            if let Tree::Branch { left, right, .. } = &**tree {
                pending.extend([left, right]);
            }
        }
    }

    /// What so many nodes take.
    pub(super) fn bytes_of(nodes: usize) -> usize {
        nodes * NODE_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The same numbers in every run.
    fn numbers(seed: u32) -> impl FnMut(u32) -> u32 {
        let mut state = seed.wrapping_mul(2_654_435_761) | 1;
        move |end| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state % end
        }
    }

    fn key(next: &mut impl FnMut(u32) -> u32) -> u32 {
        next(40) + [0, 0x100, 0x8000_0000][next(3) as usize]
    }

    fn check(clock: &Clock, model: &BTreeMap<u32, u32>) {
        for base in [0, 0x100, 0x8000_0000] {
            for key in base..base + 40 {
                assert_eq!(clock.get(key), model.get(&key).copied(), "key {key}");
            }
        }
        assert_eq!(clock.is_empty(), model.is_empty());
        for count in [0, 3, 4, 5, 30] {
            assert_eq!(clock.is_longer_than(count), model.len() > count, "{count}");
        }
    }

    #[test]
    fn it_is_a_map() {
        for seed in 0..200 {
            let mut next = numbers(seed);
            let mut clocks = vec![(Clock::default(), BTreeMap::new())];
            for _ in 0..60 {
                let (mut clock, model) = clocks[next(clocks.len() as u32) as usize].clone();
                let (other, of_other) = clocks[next(clocks.len() as u32) as usize].clone();
                let (key, value) = (key(&mut next), 1 + next(9));
                let model: BTreeMap<u32, u32> = match next(5) {
                    0 => {
                        clock.remove(key);
                        model.into_iter().filter(|(own, _)| *own != key).collect()
                    }
                    1 => {
                        clock.retain(&mut |key, value| (key + value) % 4 != 0);
                        model
                            .into_iter()
                            .filter(|(key, value)| (key + value) % 4 != 0)
                            .collect()
                    }
                    2 | 3 => {
                        let mut model = model;
                        let entry = model.entry(key).or_insert(0);
                        *entry = value.max(*entry);
                        clock.raise(key, value);
                        model
                    }
                    _ => {
                        let mut model = model;
                        for (key, value) in of_other {
                            match model.get_mut(&key) {
                                Some(own) => *own = value.max(*own),
                                None if (key + value) % 3 != 0 => drop(model.insert(key, value)),
                                None => {}
                            }
                        }
                        clock.unite(&other, &mut |key, value| (key + value) % 3 != 0);
                        model
                    }
                };
                check(&clock, &model);
                clocks.push((clock, model));
            }
        }
    }

    /// What both have in common is not looked at.
    #[test]
    fn uniting_costs_what_differs() {
        let mut clock = Clock::default();
        for key in 0..10_000 {
            clock.raise(key, 1);
        }
        let mut more = clock.clone();
        more.raise(20_000, 1);
        more.raise(20_001, 1);
        let (mut united, mut asked) = (clock, 0);
        united.raise(5, 7);
        united.unite(&more, &mut |_, _| {
            asked += 1;
            true
        });
        assert_eq!((asked, united.get(5), united.get(20_001)), (2, Some(7), Some(1)));
    }
}
