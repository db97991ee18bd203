//! A disk that forgets what was not synced: the store's floor for the simulated server.
//!
//! What is written is visible once it is synced. A crash keeps what was synced and, of what was written after, a first part of
//! any length: batches are atomic and reach the disk in order.

use std::{
    borrow::Cow,
    collections::{BTreeMap, VecDeque},
    ops::{Bound, ControlFlow, Range},
    sync::{Mutex, MutexGuard, PoisonError},
};
use syncline::server::store::kv::{Batch, Kv, KvError, Visit, Write};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The disk, shared by the process that writes and whoever looks at it.
#[derive(Debug, Default)]
pub(crate) struct Disk(Mutex<Platters>);

#[derive(Debug, Default)]
struct Platters {
    durable: Map,
    /// Written since the last sync, in order.
    unsynced: VecDeque<Batch>,
    fault: Fault,
    /// A fault on purpose: what was written is visible before it is synced.
    shows_unsynced: bool,
    backup: Option<Map>,
    /// Whether the place is marked, and how often it was written over with a copy.
    is_marked: bool,
    restores: u64,
}

/// What is wrong with the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Fault {
    #[default]
    None,
    /// No space is left; writes say so.
    Full,
    /// No space is left, which only syncs notice.
    FullAtSync,
    /// Syncs fail.
    Broken,
}

impl Disk {
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.platters().fault = fault;
    }

    /// From now on readers see what is not synced.
    pub(crate) fn show_unsynced(&self) {
        self.platters().shows_unsynced = true;
    }

    pub(crate) fn fault(&self) -> Fault {
        self.platters().fault
    }

    /// Batches that a crash may take.
    pub(crate) fn unsynced(&self) -> usize {
        self.platters().unsynced.len()
    }

    /// The power goes: the first `kept` unsynced batches had reached the disk.
    pub(crate) fn crash(&self, kept: usize) {
        let mut platters = self.platters();
        let platters = &mut *platters;
        for batch in platters.unsynced.drain(..).take(kept) {
            apply(&mut platters.durable, &batch);
        }
        platters.unsynced.clear();
    }

    /// The operator makes a copy of what is durable.
    pub(crate) fn back_up(&self) {
        let mut platters = self.platters();
        platters.backup = Some(platters.durable.clone());
    }

    /// The operator puts the last copy in the place of what is there, which nobody serves now. Whether there is one.
    pub(crate) fn restore(&self, notably: bool) -> bool {
        let mut platters = self.platters();
        let platters = &mut *platters;
        let Some(backup) = &platters.backup else { return false };
        platters.durable.clone_from(backup);
        platters.unsynced.clear();
        platters.restores += u64::from(notably);
        true
    }

    /// The first half of a commit: the batch is on its way to the disk.
    pub(crate) fn write(&self, batch: &Batch) -> Result<(), KvError> {
        let mut platters = self.platters();
        if platters.fault == Fault::Full {
            return Err(KvError::Full);
        }
        platters.unsynced.push_back(batch.clone());
        Ok(())
    }

    /// The second half: what was written is durable, and visible.
    pub(crate) fn sync(&self) -> Result<(), KvError> {
        let mut platters = self.platters();
        let platters = &mut *platters;
        match platters.fault {
            Fault::Broken => return Err(KvError::Io("the disk failed".into())),
            Fault::FullAtSync => return Err(KvError::Io("the disk was full amid a sync".into())),
            // What was written has its space.
            Fault::Full | Fault::None => {}
        }
        for batch in platters.unsynced.drain(..) {
            apply(&mut platters.durable, &batch);
        }
        Ok(())
    }

    fn platters(&self) -> MutexGuard<'_, Platters> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Platters {
    fn visible(&self) -> Cow<'_, Map> {
        let mut visible = Cow::Borrowed(&self.durable);
        if self.shows_unsynced {
            self.unsynced.iter().for_each(|batch| apply(visible.to_mut(), batch));
        }
        visible
    }
}

fn apply(map: &mut Map, batch: &Batch) {
    for write in batch.writes() {
        match write {
            Write::Put { key, value } => drop(map.insert(key.clone(), value.clone())),
            Write::Delete { key } => drop(map.remove(key)),
        }
    }
}

impl Kv for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.platters().visible().get(key).cloned())
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut Visit<'_>) -> Result<(), KvError> {
        if range.start >= range.end {
            return Ok(());
        }
        let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
        let found: Vec<_> = {
            let platters = self.platters();
            let visible = platters.visible();
            let found = visible.range::<[u8], _>(bounds);
            found.map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        // The visitor may read the disk.
        for (key, value) in found {
            if visit(&key, &value) == ControlFlow::Break(()) {
                break;
            }
        }
        Ok(())
    }

    fn last(&self, range: Range<&[u8]>) -> Result<Option<(Vec<u8>, Vec<u8>)>, KvError> {
        if range.start >= range.end {
            return Ok(None);
        }
        let bounds = (Bound::Included(range.start), Bound::Excluded(range.end));
        let platters = self.platters();
        let visible = platters.visible();
        let last = visible.range::<[u8], _>(bounds).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }

    fn commit_telling(&self, batch: &Batch, durable: &mut dyn FnMut()) -> Result<(), KvError> {
        self.write(batch)?;
        self.sync()?;
        durable();
        Ok(())
    }

    fn restore_reserve(&self) -> Result<(), KvError> {
        match self.platters().fault {
            Fault::Full | Fault::FullAtSync => Err(KvError::Full),
            Fault::None | Fault::Broken => Ok(()),
        }
    }

    fn origin(&self) -> Result<Option<Vec<u8>>, KvError> {
        let platters = self.platters();
        Ok(platters.is_marked.then(|| platters.restores.to_be_bytes().to_vec()))
    }

    fn mark_origin(&self) -> Result<Vec<u8>, KvError> {
        let mut platters = self.platters();
        platters.is_marked = true;
        Ok(platters.restores.to_be_bytes().to_vec())
    }

    fn size_bytes(&self) -> u64 {
        let platters = self.platters();
        let sizes = platters.durable.iter().map(|(key, value)| key.len() + value.len());
        sizes.sum::<usize>() as u64
    }
}
