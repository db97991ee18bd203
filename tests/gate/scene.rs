//! A change about to be forged, and the room that it is sent to.

use crate::{
    decoded, forge,
    history::{self, Style},
    rng::Rng,
    somebody,
};
use automerge::{
    ActorId, Automerge, Change, ExpandedChange,
    legacy::{ObjectId, OpId},
};
use std::collections::BTreeSet;
use syncline::engine::index::Index;

pub(crate) struct Scene {
    /// The honest change that is forged.
    pub(crate) honest: Change,
    /// What the room holds, in its order.
    pub(crate) log: Vec<Change>,
    pub(crate) index: Index,
    pub(crate) document: Automerge,
    /// The operations that the room holds.
    pub(crate) ops: Vec<(u64, ActorId)>,
    /// Those of them that inserted an element, with their sequences.
    pub(crate) elements: Vec<(ObjectId, OpId)>,
    /// Those of the elements that are counters.
    pub(crate) counters: Vec<(ObjectId, OpId)>,
}

/// Some changes of one honest history, each with the room just before it came: half of the rooms hold only what came
/// earlier, the others also what was made concurrently and later.
pub(crate) fn scenes(rng: &mut Rng, style: Style, count: usize) -> Vec<Scene> {
    let history = history::history(rng, style);
    (0..count).filter_map(|_| scene(rng, &history)).collect()
}

fn scene(rng: &mut Rng, history: &[Change]) -> Option<Scene> {
    let at = rng.below(history.len());
    let honest = history.get(at)?.clone();
    let mut log = history[..at].to_vec();
    if rng.one_in(2) {
        let mut after = BTreeSet::from([honest.hash()]);
        for change in &history[at + 1..] {
            if change.deps().iter().any(|dep| after.contains(dep)) {
                after.insert(change.hash());
            } else {
                log.push(change.clone());
            }
        }
    }
    let mut index = Index::default();
    for change in &log {
        index.admit(
            &decoded(change.raw_bytes()).expect("honest changes decode"),
            &somebody(),
        );
    }
    let ops = log.iter().flat_map(|change| {
        (change.start_op().get()..=change.max_op()).map(|counter| (counter, change.actor_id().clone()))
    });
    let all = |find: fn(&ExpandedChange) -> Vec<_>| log.iter().flat_map(|change| find(&change.decode())).collect();
    Some(Scene {
        elements: all(forge::elements),
        counters: all(forge::counters),
        ops: ops.collect(),
        document: history::document(&log),
        honest,
        log,
        index,
    })
}
