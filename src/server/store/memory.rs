//! The store's floor in memory: for tests, and for a server that shall leave nothing behind. Nothing in it is durable.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow, Range},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::kv::{Batch, Kv, KvError, Pair, Visit, Write};

/// An ordered map behind a lock.
#[derive(Debug, Default)]
pub struct MemoryKv {
    map: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
    is_marked: AtomicBool,
}

impl MemoryKv {
    fn map(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, Vec<u8>>> {
        // No code that holds the lock can panic between two writes of a batch.
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.map().get(key).cloned())
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut Visit<'_>) -> Result<(), KvError> {
        // The lock is taken per key, so that a visitor may read the store.
        let mut from = Bound::Included(range.start.to_vec());
        loop {
            let next = {
                let map = self.map();
                let end = Bound::Excluded(range.end.to_vec());
                if range.start >= range.end {
                    return Ok(());
                }
                map.range((from, end))
                    .next()
                    .map(|(key, value)| (key.clone(), value.clone()))
            };
            let Some((key, value)) = next else { return Ok(()) };
            if visit(&key, &value) == ControlFlow::Break(()) {
                return Ok(());
            }
            from = Bound::Excluded(key);
        }
    }

    fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError> {
        if range.start >= range.end {
            return Ok(None);
        }
        let map = self.map();
        let mut found = map.range::<[u8], _>((Bound::Included(range.start), Bound::Excluded(range.end)));
        Ok(found.next_back().map(|(key, value)| (key.clone(), value.clone())))
    }

    fn commit_telling(&self, batch: &Batch, durable: &mut dyn FnMut()) -> Result<(), KvError> {
        let mut map = self.map();
        durable();
        for write in batch.writes() {
            match write {
                Write::Put { key, value } => {
                    map.insert(key.clone(), value.clone());
                }
                Write::Delete { key } => {
                    map.remove(key);
                }
            }
        }
        Ok(())
    }

    fn restore_reserve(&self) -> Result<(), KvError> {
        Ok(())
    }

    fn origin(&self) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.is_marked.load(Ordering::Relaxed).then(Vec::new))
    }

    fn mark_origin(&self) -> Result<Vec<u8>, KvError> {
        self.is_marked.store(true, Ordering::Relaxed);
        Ok(Vec::new())
    }

    fn size_bytes(&self) -> u64 {
        self.map()
            .iter()
            .map(|(key, value)| (key.len() + value.len()) as u64)
            .sum()
    }
}
