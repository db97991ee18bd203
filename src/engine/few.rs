//! An ordered map for what most often has one entry: a connection's rooms.
//!
//! A tree sets aside a node of eleven entries for the first one, and a server has one such map for each connection, or several.

/// A map with its entries in a row, ordered by their keys. Putting one in takes time in proportion to those behind it.
#[derive(Clone, Debug)]
pub struct Few<K, V>(Vec<(K, V)>);

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> Few<K, V> {
    /// What belongs to this key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.place(key).ok().map(|at| &self.0[at].1)
    }

    /// What belongs to this key, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.place(key).ok().map(|at| &mut self.0[at].1)
    }

    /// Whether there is something for this key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.place(key).is_ok()
    }

    /// Puts a value in, in the place of the one that was there.
    pub fn insert(&mut self, key: K, value: V) {
        match self.place(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.put(at, key, value),
        }
    }

    /// What belongs to this key, made now if there is nothing yet.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        let at = self.place(&key).unwrap_or_else(|at| {
            self.put(at, key, make());
            at
        });
        &mut self.0[at].1
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = self.place(key).ok()?;
        let (_, value) = self.0.remove(at);
        self.give_back();
        Some(value)
    }

    /// Keeps the entries for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
        self.give_back();
    }

    /// All values, in the order of their keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// All values, in the order of their keys, for whoever needs the map no more.
    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.0.into_iter().map(|(_, value)| value)
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn place(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(own, _)| own.cmp(key))
    }

    /// Space for one is for one: a list that grows by itself begins with four.
    fn put(&mut self, at: usize, key: K, value: V) {
        if self.0.len() == self.0.capacity() {
            self.0.reserve_exact(self.0.len().max(1));
        }
        self.0.insert(at, (key, value));
    }

    fn give_back(&mut self) {
        if self.0.len() <= self.0.capacity() / 4 {
            self.0.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn it_does_what_an_ordered_map_does() {
        let (mut few, mut map) = (Few::default(), BTreeMap::new());
        for step in 0..2_000_u32 {
            // Scattered over twenty keys.
            let key = step.wrapping_mul(2_654_435_761) >> 16;
            let key = key % 20;
            match step % 5 {
                0 | 1 => {
                    few.insert(key, step);
                    map.insert(key, step);
                }
                2 => assert_eq!(few.remove(&key), map.remove(&key)),
                3 => assert_eq!(
                    few.get_or_insert_with(key, || step),
                    map.entry(key).or_insert_with(|| step)
                ),
                _ => {
                    few.retain(|own, value| *own != key || *value > step / 2);
                    map.retain(|own, value| *own != key || *value > step / 2);
                }
            }
            assert!(few.values().eq(map.values()), "{step}");
            assert_eq!(
                (few.get(&key), few.contains_key(&key)),
                (map.get(&key), map.contains_key(&key))
            );
            assert_eq!((few.len(), few.is_empty()), (map.len(), map.is_empty()));
        }
        assert!(few.into_values().eq(map.into_values()));
    }

    #[test]
    fn one_entry_takes_the_space_of_one_and_none_takes_none() {
        let mut few = Few::default();
        few.insert(1, 1);
        assert_eq!(few.0.capacity(), 1);
        few.remove(&1);
        assert_eq!(few.0.capacity(), 0);
    }
}
