//! The Automerge document behind a room: merge, verify, snapshot. Costly, so never on an I/O thread.
//!
//! Automerge may panic on a change that the gate should have kept out, and is unsound afterwards; so a merge works on a clone,
//! under `catch_unwind`, and the clone takes the document's place only when every change in it has exactly its submitted bytes.

use automerge::{Automerge, Change, ReadDoc, SaveOptions};
use bytes::Bytes;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};
use syncline_protocol::ChangeHash;

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
    /// These do not merge, by index in ascending order. The rest might.
    Bad(Vec<usize>),
}

impl Document {
    /// Loads a snapshot. An empty slice is the empty document.
    pub fn load(snapshot: &[u8]) -> Result<Self, DocumentError> {
        if snapshot.is_empty() {
            return Ok(Self::default());
        }
        match catch_unwind(|| Automerge::load(snapshot)) {
            Ok(Ok(automerge)) => Ok(Self { automerge: Arc::new(automerge) }),
            Ok(Err(error)) => Err(DocumentError::Load(error.to_string())),
            Err(_) => Err(DocumentError::Panic),
        }
    }

    /// Merges plain change chunks, dependencies first. The document itself stays as it is.
    ///
    /// When the whole list does not merge, the culprits are found by bisection: each is the first change that the good ones
    /// before it do not carry. Changes that stand on a culprit count as bad themselves.
    pub fn merge(&self, changes: &[Bytes]) -> Merge {
        if let Some(merged) = self.try_merge(changes) {
            return Merge::Whole(merged);
        }
        let mut bad = Vec::new();
        let mut good = self.clone();
        let mut from = 0;
        while from < changes.len() {
            let (reached, merged) = good.longest_prefix(&changes[from..]);
            good = merged;
            from += reached;
            if from < changes.len() {
                bad.push(from);
                from += 1;
            }
        }
        Merge::Bad(bad)
    }

    /// Whether `changes` merge into a document that also saves and loads: the proof for changes the gate does not vouch for.
    pub fn carries(&self, changes: &[Bytes]) -> bool {
        let Some(merged) = self.try_merge(changes) else { return false };
        merged.snapshot().is_ok()
    }

    /// The saved document, proven to load back with the same heads.
    pub fn snapshot(&self) -> Result<Vec<u8>, DocumentError> {
        let saved = catch_unwind(AssertUnwindSafe(|| {
            self.automerge.save_with_options(SaveOptions { retain_orphans: false, ..SaveOptions::default() })
        }))
        .map_err(|_| DocumentError::Panic)?;
        let loaded = Self::load(&saved)?;
        if loaded.automerge.get_heads() != self.automerge.get_heads() {
            return Err(DocumentError::OtherHeads);
        }
        Ok(saved)
    }

    /// The heads, in order.
    pub fn heads(&self) -> Vec<ChangeHash> {
        self.automerge.get_heads().into_iter().map(|hash| ChangeHash(hash.0)).collect()
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
            let exact = parsed.iter().zip(changes).all(|(change, bytes)| {
                merged.get_change_by_hash(&change.hash()).is_some_and(|held| held.raw_bytes() == &bytes[..])
            });
            exact.then(|| Self { automerge: Arc::new(merged) })
        }))
        .ok()
        .flatten()
    }
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
        let changes = document.get_changes(&[]).iter().map(|change| Bytes::copy_from_slice(change.raw_bytes())).collect();
        (document, changes)
    }

    #[test]
    fn merges_what_is_honest_and_leaves_the_original_alone() {
        let (source, changes) = typed(1, &["a", "b", "c"]);
        let empty = Document::default();
        let Merge::Whole(merged) = empty.merge(&changes) else { panic!("honest changes merge") };
        assert_eq!(merged.automerge().get_heads(), source.get_heads());
        assert!(empty.heads().is_empty());
        let saved = merged.snapshot().unwrap();
        assert_eq!(Document::load(&saved).unwrap().heads(), merged.heads());
    }

    #[test]
    fn finds_the_culprit_and_what_stands_on_it() {
        let (_, mut first) = typed(1, &["a", "b", "c"]);
        let (_, second) = typed(2, &["x", "y"]);
        let mut broken = first[1].to_vec();
        let last = broken.len() - 1;
        broken[last] ^= 0xff;
        first[1] = broken.into();
        let changes: Vec<Bytes> = first.into_iter().chain(second).collect();
        let Merge::Bad(bad) = Document::default().merge(&changes) else { panic!("a broken change does not merge") };
        assert_eq!(bad, [1, 2], "the broken one and the one that stands on it");
    }

    #[test]
    fn refuses_a_snapshot_that_is_none() {
        assert!(Document::load(b"not a document").is_err());
    }
}
