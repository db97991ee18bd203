//! The Automerge document behind a room: merge, verify, snapshot. Costly, so never on an I/O thread.
//!
//! Automerge may panic on a change that the gate should have kept out, and is unsound afterwards; so a merge works on a clone,
//! under `catch_unwind`, and the clone takes the document's place only when every change in it has exactly its submitted bytes.

use automerge::{Automerge, Change, ReadDoc, SaveOptions};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use syncline_protocol::ChangeHash;

/// A directive for logs that keeps out what Automerge says: it opens a span of level `info` for every column of every change
/// that it reads, which costs more than the reading, and calls it an error when a peer's document is none.
pub const QUIET: &str = "automerge=off";

/// A merged document. Cheap to clone; merging makes a new one.
#[derive(Clone, Debug, Default)]
pub struct Document {
    automerge: Arc<Automerge>,
}

/// Why stored bytes are not a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Automerge refuses the bytes.
    #[error("the snapshot does not load: {0}")]
    Load(String),
    /// Automerge panicked on the bytes.
    #[error("the snapshot makes Automerge panic")]
    Panic,
    /// It loads, but is not what was saved.
    #[error("the snapshot loads with other heads than it was saved with")]
    OtherHeads,
}

/// What came of merging a list of changes.
#[derive(Clone, Debug)]
pub enum Merge {
    /// All of them are in the document.
    Whole(Document),
    /// Some do not merge. By index, ascending.
    Bad {
        /// Bad themselves.
        culprits: Vec<usize>,
        /// Stand on a culprit.
        descendants: Vec<usize>,
    },
}

impl Document {
    /// Wraps an Automerge document.
    pub fn new(automerge: Automerge) -> Self {
        Self {
            automerge: Arc::new(automerge),
        }
    }

    /// Loads a snapshot. An empty slice is the empty document.
    pub fn load(snapshot: &[u8]) -> Result<Self, DocumentError> {
        if snapshot.is_empty() {
            return Ok(Self::default());
        }
        match catch_unwind(|| Automerge::load(snapshot)) {
            Ok(Ok(automerge)) => Ok(Self {
                automerge: Arc::new(automerge),
            }),
            Ok(Err(error)) => Err(DocumentError::Load(error.to_string())),
            Err(_) => Err(DocumentError::Panic),
        }
    }

    /// Merges plain change chunks, dependencies first. The document itself stays as it is.
    ///
    /// When the whole list does not merge, the culprits are found by bisection: each is the first change that the good ones
    /// before it do not carry.
    pub fn merge(&self, changes: &[Bytes]) -> Merge {
        if let Some(merged) = self.try_merge(changes) {
            return Merge::Whole(merged);
        }
        let (mut culprits, mut descendants) = (Vec::new(), Vec::new());
        let mut bad = BTreeSet::new();
        let mut good = self.clone();
        let mut from = 0;
        while from < changes.len() {
            let (reached, merged) = good.longest_prefix(&changes[from..]);
            good = merged;
            from += reached;
            let Some(bytes) = changes.get(from) else { break };
            match lineage(bytes) {
                Some((hash, deps)) if deps.iter().any(|dep| bad.contains(dep)) => {
                    bad.insert(hash);
                    descendants.push(from);
                }
                lineage => {
                    bad.extend(lineage.map(|(hash, _)| hash));
                    culprits.push(from);
                }
            }
            from += 1;
        }
        Merge::Bad { culprits, descendants }
    }

    /// Whether `changes` merge into a document that also saves and loads: the proof for changes the gate does not vouch for.
    pub fn carries(&self, changes: &[Bytes]) -> bool {
        let Some(merged) = self.try_merge(changes) else {
            return false;
        };
        merged.snapshot().is_ok()
    }

    /// The saved document, proven to load back with the same heads.
    pub fn snapshot(&self) -> Result<Vec<u8>, DocumentError> {
        let saved = catch_unwind(AssertUnwindSafe(|| {
            self.automerge.save_with_options(SaveOptions {
                retain_orphans: false,
                ..SaveOptions::default()
            })
        }))
        .map_err(|_| DocumentError::Panic)?;
        let loaded = Self::load(&saved)?;
        if loaded.automerge.get_heads() != self.automerge.get_heads() {
            return Err(DocumentError::OtherHeads);
        }
        Ok(saved)
    }

    /// These changes, all of which it holds, as one bundle: a chunk that a client merges. `None` if Automerge cannot make one.
    pub fn bundle(&self, hashes: &[ChangeHash]) -> Option<Bytes> {
        let hashes = hashes.iter().map(|hash| automerge::ChangeHash(hash.0));
        let made = catch_unwind(AssertUnwindSafe(|| self.automerge.bundle(hashes)));
        made.ok()?.ok().map(|bundle| Bytes::copy_from_slice(bundle.bytes()))
    }

    /// The heads, in order.
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.automerge
            .get_heads()
            .into_iter()
            .map(|hash| ChangeHash(hash.0))
            .collect()
    }

    /// The document itself, for looking things up.
    pub fn automerge(&self) -> &Automerge {
        &self.automerge
    }

    fn longest_prefix(&self, changes: &[Bytes]) -> (usize, Self) {
        let (mut good, mut merged) = (0, self.clone());
        let mut bad = changes.len();
        if let Some(whole) = self.try_merge(changes) {
            return (bad, whole);
        }
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            match merged.try_merge(&changes[good..middle]) {
                Some(further) => (good, merged) = (middle, further),
                None => bad = middle,
            }
        }
        (good, merged)
    }

    fn try_merge(&self, changes: &[Bytes]) -> Option<Self> {
        catch_unwind(AssertUnwindSafe(|| {
            let mut parsed = Vec::with_capacity(changes.len());
            for bytes in changes {
                parsed.push(Change::from_bytes(bytes.to_vec()).ok()?);
            }
            let mut merged = Automerge::clone(&self.automerge);
            merged.apply_changes(parsed.iter().cloned()).ok()?;
            // One by one each would be looked for in the whole document.
            let added = merged.get_changes(&self.automerge.get_heads());
            let added: BTreeMap<_, _> = added.iter().map(|held| (held.hash(), held.raw_bytes())).collect();
            let exact = parsed.iter().zip(changes).all(|(change, bytes)| {
                let hash = change.hash();
                match added.get(&hash) {
                    Some(held) => *held == &bytes[..],
                    None => (merged.get_change_by_hash(&hash)).is_some_and(|held| held.raw_bytes() == &bytes[..]),
                }
            });
            exact.then(|| Self {
                automerge: Arc::new(merged),
            })
        }))
        .ok()
        .flatten()
    }
}

/// The hash and the dependencies of a change, if it can be read at all.
fn lineage(bytes: &Bytes) -> Option<(automerge::ChangeHash, Vec<automerge::ChangeHash>)> {
    let change = catch_unwind(|| Change::from_bytes(bytes.to_vec())).ok()?.ok()?;
    Some((change.hash(), change.deps().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use automerge::{ActorId, ROOT, transaction::Transactable};

    fn typed(actor: u8, texts: &[&str]) -> (Automerge, Vec<Bytes>) {
        let mut document = Automerge::new().with_actor(ActorId::from([actor]));
        for (number, text) in texts.iter().enumerate() {
            let mut transaction = document.transaction();
            transaction.put(ROOT, format!("key {number}"), *text).unwrap();
            transaction.commit();
        }
        let changes = document
            .get_changes(&[])
            .iter()
            .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
            .collect();
        (document, changes)
    }

    #[test]
    fn merges_what_is_honest_and_leaves_the_original_alone() {
        let (source, changes) = typed(1, &["a", "b", "c"]);
        let empty = Document::default();
        let Merge::Whole(merged) = empty.merge(&changes) else {
            panic!("honest changes merge")
        };
        assert_eq!(merged.automerge().get_heads(), source.get_heads());
        assert!(empty.heads().is_empty());
        let saved = merged.snapshot().unwrap();
        assert_eq!(Document::load(&saved).unwrap().heads(), merged.heads());
    }

    #[test]
    fn finds_the_culprit_and_what_stands_on_it() {
        let (_, first) = typed(1, &["a"]);
        let (_, same_actor) = typed(1, &["x", "y"]);
        let (_, other) = typed(2, &["b", "c"]);
        let changes: Vec<Bytes> = [first, same_actor, other].concat();
        let merge = Document::default().merge(&changes);
        let Merge::Bad { culprits, descendants } = merge else {
            panic!("two changes with one actor and seq do not merge")
        };
        assert_eq!(
            (culprits, descendants),
            (vec![1], vec![2]),
            "the second and what stands on it"
        );
    }

    #[test]
    fn a_bundle_holds_the_changes() {
        let texts: Vec<String> = (0..100).map(|number| number.to_string()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let (source, changes) = typed(1, &texts);
        let hashes: Vec<_> = source
            .get_changes(&[])
            .iter()
            .map(|change| ChangeHash(change.hash().0))
            .collect();
        let bundle = Document::new(source.clone()).bundle(&hashes[40..]).unwrap();
        let plain: usize = changes[40..].iter().map(Bytes::len).sum();
        assert!(bundle.len() * 3 < plain, "{} bytes instead of {plain}", bundle.len());
        let mut peer = Automerge::new();
        peer.load_incremental(&[&changes[..40].concat()[..], &bundle[..]].concat())
            .unwrap();
        assert_eq!(peer.get_heads(), source.get_heads());
        assert!(Document::default().bundle(&hashes).is_none(), "it lacks them");
    }

    #[test]
    fn refuses_a_snapshot_that_is_none() {
        assert!(Document::load(b"not a document").is_err());
    }
}
