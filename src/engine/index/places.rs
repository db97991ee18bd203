//! Where the recent changes stand, found by the first bytes of their hashes.
//!
//! Most that is looked up is among the newest, which are compared first, all at once. The others are in a table of small buckets, so
//! that a lookup reads one line of memory. Who takes the trouble chooses the first bytes of hashes, so a bucket never gets longer:
//! what it has no space for goes to an ordered map. No answer depends on the order in which entries stand here.

use std::collections::BTreeSet;
use syncline_protocol::ChangeHash;

/// With one bucket for every so many entries, the table does not grow any more: what is crowded then was meant to be.
const ENTRIES_PER_BUCKET: usize = 4;
const BUCKET_ENTRIES: usize = 8;
/// How many are compared first; a power of two.
const NEWEST: usize = 32;

/// Positions by hashes; several may stand for hashes that begin alike.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    /// A power of two of them, or none; each for the prefixes between two bounds.
    buckets: Vec<Bucket>,
    /// What found its bucket full, and only then.
    spilled: BTreeSet<(u64, u32)>,
    len: usize,
    newest: Newest,
}

/// The tags of the newest, each where its position modulo [`NEWEST`] says. It may name what is not there any more.
#[derive(Clone, Copy, Debug, Default)]
struct Newest {
    tags: [u32; NEWEST],
    last: u32,
}

/// Its entries stand before its free places.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Bucket([Entry; BUCKET_ENTRIES]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    /// The upper half of the prefix.
    tag: u32,
    /// In a free place, one where no change can stand.
    position: u32,
}

impl Entry {
    const FREE: Self = Self {
        tag: 0,
        position: u32::MAX,
    };
}

impl Places {
    /// With space for so many.
    pub(super) fn with_capacity(len: usize) -> Self {
        let buckets = len.div_ceil(ENTRIES_PER_BUCKET).next_power_of_two();
        Self {
            buckets: vec![Bucket::EMPTY; buckets],
            ..Self::default()
        }
    }

    /// The position with this hash's prefix that `is_it`.
    pub(super) fn find(&self, hash: &ChangeHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        let prefix = prefix(hash);
        if let Some(position) = self.newest.find(tag(prefix)).filter(|position| is_it(*position)) {
            return Some(position);
        }
        let bucket = self.buckets.get(self.bucket_of(tag(prefix)))?;
        let mut near = bucket.entries().filter(|entry| entry.tag == tag(prefix));
        if let Some(entry) = near.find(|entry| is_it(entry.position)) {
            return Some(entry.position);
        }
        if !bucket.is_full() || self.spilled.is_empty() {
            return None;
        }
        let mut same = self.spilled.range((prefix, 0)..=(prefix, u32::MAX));
        same.find(|(_, position)| is_it(*position)).map(|found| found.1)
    }

    /// Takes in what stands after all others.
    pub(super) fn insert(&mut self, hash: &ChangeHash, position: u32) {
        let prefix = prefix(hash);
        self.newest.insert(tag(prefix), position);
        self.len += 1;
        while !self.put(tag(prefix), position) {
            if self.len <= self.buckets.len() * ENTRIES_PER_BUCKET {
                self.spilled.insert((prefix, position));
                return;
            }
            self.grow();
        }
    }

    pub(super) fn remove(&mut self, hash: &ChangeHash, position: u32) {
        let prefix = prefix(hash);
        let at = self.bucket_of(tag(prefix));
        let Some(bucket) = self.buckets.get_mut(at) else { return };
        let was_full = bucket.is_full();
        if bucket.take(position) {
            self.len -= 1;
            if was_full {
                self.bring_back(at);
            }
        } else if self.spilled.remove(&(prefix, position)) {
            self.len -= 1;
        }
    }

    /// Bytes of memory it takes, about.
    pub(super) fn memory_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>() + self.spilled.len() * 2 * size_of::<(u64, u32)>()
    }

    /// Whether there was space in its bucket.
    fn put(&mut self, tag: u32, position: u32) -> bool {
        let at = self.bucket_of(tag);
        let free = self
            .buckets
            .get_mut(at)
            .and_then(|bucket| bucket.0.iter_mut().find(|entry| **entry == Entry::FREE));
        match free {
            Some(free) => *free = Entry { tag, position },
            None => return false,
        }
        true
    }

    /// A place has become free in this bucket: takes in one of those that found it full.
    fn bring_back(&mut self, at: usize) {
        let first = ((at as u64) << 32) / self.buckets.len() as u64;
        let spilled = self.spilled.range((first << 32, 0)..).next().copied();
        if let Some((prefix, position)) = spilled.filter(|(prefix, _)| self.bucket_of(tag(*prefix)) == at) {
            self.put(tag(prefix), position);
            self.spilled.remove(&(prefix, position));
        }
    }

    /// Twice as many buckets, and another try for what found its bucket full.
    fn grow(&mut self) {
        let len = (self.buckets.len() * 2).max(1);
        let buckets = std::mem::replace(&mut self.buckets, vec![Bucket::EMPTY; len]);
        for entry in buckets.iter().flat_map(Bucket::entries) {
            // A bucket's entries are spread over two that were empty.
            self.put(entry.tag, entry.position);
        }
        for (prefix, position) in std::mem::take(&mut self.spilled) {
            if !self.put(tag(prefix), position) {
                self.spilled.insert((prefix, position));
            }
        }
    }

    fn bucket_of(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.buckets.len() as u64) >> 32) as usize
    }
}

impl Newest {
    /// Where a change with this tag may stand.
    fn find(&self, tag: u32) -> Option<u32> {
        let mut hits = 0_u32;
        // Without a way out amid, so that many are compared at once.
        for (at, own) in self.tags.iter().enumerate() {
            hits |= if *own == tag { 1 << at } else { 0 };
        }
        let at = (hits != 0).then(|| hits.trailing_zeros())?;
        let behind = self.last.wrapping_sub(at) % NEWEST as u32;
        self.last.checked_sub(behind)
    }

    fn insert(&mut self, tag: u32, position: u32) {
        self.tags[position as usize % NEWEST] = tag;
        self.last = position;
    }
}

impl Bucket {
    const EMPTY: Self = Self([Entry::FREE; BUCKET_ENTRIES]);

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.0.iter().take_while(|entry| **entry != Entry::FREE)
    }

    fn is_full(&self) -> bool {
        self.0.last() != Some(&Entry::FREE)
    }

    /// Whether the position was there.
    fn take(&mut self, position: u32) -> bool {
        let Some(at) = self.0.iter().position(|entry| entry.position == position) else {
            return false;
        };
        let last = self.entries().count() - 1;
        self.0[at] = self.0[last];
        self.0[last] = Entry::FREE;
        true
    }
}

fn prefix(hash: &ChangeHash) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = hash.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn tag(prefix: u64) -> u32 {
    (prefix >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// The same hashes in every run, of which the first `same_bits` are the same for all.
    fn hash(number: u64, same_bits: u32) -> ChangeHash {
        let scattered = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let prefix = scattered.checked_shr(same_bits).unwrap_or(0);
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&prefix.to_be_bytes());
        hash[8..16].copy_from_slice(&number.to_be_bytes());
        ChangeHash(hash)
    }

    /// Changes come at the end, and go at the end or at the front, as in the graph.
    #[test]
    fn it_finds_what_an_ordered_map_finds() {
        for same_bits in [0, 0, 8, 16, 31, 40, 64] {
            let (mut places, mut model) = (Places::default(), BTreeMap::new());
            let (mut front, mut next, mut made) = (0_u32, 0_u32, 0_u64);
            for step in 0..3_000_u32 {
                let few = step.wrapping_mul(2_654_435_761) >> 24;
                match step % 50 {
                    48 => {
                        for _ in 0..few.min(next - front) {
                            next -= 1;
                            let hash = model.remove(&next).expect("it stands there");
                            places.remove(&hash, next);
                        }
                    }
                    49 if step > 1_000 => {
                        for _ in 0..few.min(next - front) {
                            let hash = model.remove(&front).expect("it stands there");
                            places.remove(&hash, front);
                            front += 1;
                        }
                    }
                    _ => {
                        let hash = hash(made, same_bits);
                        made += 1;
                        places.insert(&hash, next);
                        model.insert(next, hash);
                        next += 1;
                    }
                }
                assert_eq!(places.len, model.len());
                check(&places, &model, made, same_bits, step);
            }
        }
    }

    fn check(places: &Places, model: &BTreeMap<u32, ChangeHash>, made: u64, same_bits: u32, step: u32) {
        let all = step.is_multiple_of(100);
        let some = model.iter().rev().take(if all { usize::MAX } else { 20 });
        for (position, hash) in some {
            let found = places.find(hash, |position| model.get(&position) == Some(hash));
            assert_eq!(found, Some(*position), "{same_bits} bits, step {step}");
        }
        let unknown = hash(made, same_bits);
        assert_eq!(
            places.find(&unknown, |position| model.get(&position) == Some(&unknown)),
            None
        );
    }

    /// Hashes that are alike at first are held against each other only if they are alike in eight bytes, but for one bucket.
    #[test]
    fn who_chooses_hashes_makes_no_lookup_long() {
        let mut places = Places::default();
        for number in 0..10_000 {
            places.insert(&hash(number, 32), number as u32);
        }
        let asked = std::cell::Cell::new(0);
        let found = places.find(&hash(9_000, 32), |position| {
            asked.set(asked.get() + 1);
            position == 9_000
        });
        assert_eq!(found, Some(9_000));
        assert!(asked.get() <= 1 + BUCKET_ENTRIES + 1, "{}", asked.get());
        assert!(places.buckets.len() <= 4_096, "{}", places.buckets.len());
    }

    #[test]
    fn by_chance_hardly_any_finds_its_bucket_full() {
        for (len, buckets_max) in [(10, 2), (1_000, 512), (15_000, 4_096)] {
            let mut places = Places::default();
            for number in 0..len {
                places.insert(&hash(number * 7_919, 0), number as u32);
            }
            let (spilled, buckets) = (places.spilled.len(), places.buckets.len());
            assert!(
                spilled * 20 <= len as usize && buckets <= buckets_max,
                "{len}: {spilled} of {buckets}"
            );
        }
    }
}
