//! Faults that a test orders, and that no client can bring about: compiled only with the feature `failpoints`.
//!
//! They are known by documents and changes of their own, so that tests beside each other do not meet.

use crate::{
    engine::{document::Merge, gate},
    server::switches::Switch,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use syncline_protocol::{ChangeHash, DocumentId, Limits};

/// How often a room that is held looks whether it may go on.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

static BAD: Mutex<BTreeSet<ChangeHash>> = Mutex::new(BTreeSet::new());
/// With whether the room stands there.
static HELD: Mutex<BTreeMap<DocumentId, bool>> = Mutex::new(BTreeMap::new());

/// From now on no merge takes this change.
pub fn spoil(change: ChangeHash) {
    lock(&BAD).insert(change);
}

/// The room of this document stops, when it next looks up, until it is released.
pub fn hold(document: &DocumentId) {
    lock(&HELD).insert(document.clone(), false);
}

/// Whether the room has stopped.
pub fn stands(document: &DocumentId) -> bool {
    lock(&HELD).get(document).is_some_and(|stands| *stands)
}

/// The room goes on.
pub fn release(document: &DocumentId) {
    lock(&HELD).remove(document);
}

/// Waits while the room is held.
pub(super) async fn pass(document: &DocumentId) {
    while is_held(document) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What a merge finds if a spoilt change is among these.
pub(super) fn merge(changes: &[Bytes]) -> Option<Merge> {
    let spoilt = lock(&BAD).clone();
    let mut bad = BTreeSet::new();
    let (mut culprits, mut descendants) = (Vec::new(), Vec::new());
    for (number, bytes) in changes.iter().enumerate() {
        let header = gate::read(bytes.clone(), &Limits::default()).ok()?;
        let stands_on_it = header.deps().iter().any(|dep| bad.contains(dep));
        if spoilt.contains(&header.hash()) || Switch::ThrowOut.is_marked(bytes) {
            culprits.push(number);
        } else if stands_on_it {
            descendants.push(number);
        } else {
            continue;
        }
        bad.insert(header.hash());
    }
    (!culprits.is_empty()).then_some(Merge::Bad { culprits, descendants })
}

fn is_held(document: &DocumentId) -> bool {
    let mut held = lock(&HELD);
    let held = held.get_mut(document);
    held.is_some_and(|stands| {
        *stands = true;
        true
    })
}

fn lock<T>(list: &Mutex<T>) -> MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}
