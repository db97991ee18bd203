//! One document as this client has it: the Automerge document, the cursor, and the own changes that no `ack` has covered yet.
//!
//! What the server sends is merged here and nowhere else, under `catch_unwind`: a document that panicked is dropped, never
//! looked at again, and built anew from the server. The unacknowledged changes are kept as bytes beside the document, so
//! nothing that happens to the document loses them.

use super::remake;
use automerge::{ActorId, Automerge, AutomergeError, Change, ChangeHash, ReadDoc};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
};
use syncline_protocol::{Cursor, EditId};

/// A change of this client that the server has not acknowledged.
#[derive(Clone, Debug)]
pub(super) struct OwnChange {
    pub(super) change: Change,
    /// The chunk as it goes over the wire; deflated where that is shorter.
    pub(super) bytes: Bytes,
    /// The edit that carries it on this connection, if it is under way.
    pub(super) edit: Option<EditId>,
}

impl OwnChange {
    pub(super) fn new(mut change: Change) -> Self {
        let bytes = Bytes::from(change.bytes().into_owned());
        Self {
            change,
            bytes,
            edit: None,
        }
    }
}

/// Why the replica could not take what the server sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Bytes that are no chunk, or a chunk without what it depends on.
    #[error("what the server sent does not make a whole document")]
    Unsound,
    /// Automerge panicked. The document is gone; the unacknowledged changes are not.
    #[error("the document could not be merged")]
    Panicked,
}

/// One document as this client has it.
#[derive(Debug)]
pub(super) struct Replica {
    pub(super) document: Automerge,
    /// What the document covers of the server's log; `None` until the first resync.
    pub(super) cursor: Option<Cursor>,
    own: VecDeque<OwnChange>,
    own_bytes: u64,
    /// Every actor that this replica wrote with, to find own changes after a reset.
    actors: BTreeSet<ActorId>,
}

impl Replica {
    /// A replica of nothing.
    pub(super) fn new(actor: ActorId) -> Self {
        let document = Automerge::new().with_actor(actor.clone());
        Self {
            document,
            cursor: None,
            own: VecDeque::new(),
            own_bytes: 0,
            actors: BTreeSet::from([actor]),
        }
    }

    /// A replica that was kept. If its document does not load, the unacknowledged changes are what is left of it.
    pub(super) fn restore(document: &[u8], cursor: Option<Cursor>, own: Vec<Change>, actor: ActorId) -> Self {
        let mut replica = Self::new(actor);
        replica
            .actors
            .extend(own.iter().map(|change| change.actor_id().clone()));
        let loaded = replica.merge_chunks(document).and_then(|()| replica.merge(own.clone()));
        match loaded {
            Ok(()) => replica.cursor = cursor,
            Err(fault) => {
                tracing::warn!(%fault, "a kept document does not load; the server is asked for it");
                replica.document = Automerge::new().with_actor(replica.document.get_actor().clone());
            }
        }
        for change in own {
            replica.keep(change);
        }
        replica
    }

    /// The changes without an `ack`, oldest first.
    pub(super) fn own(&self) -> &VecDeque<OwnChange> {
        &self.own
    }

    pub(super) fn own_mut(&mut self) -> impl Iterator<Item = &mut OwnChange> {
        self.own.iter_mut()
    }

    pub(super) fn own_bytes(&self) -> u64 {
        self.own_bytes
    }

    pub(super) fn actors(&self) -> &BTreeSet<ActorId> {
        &self.actors
    }

    /// Goes on under another actor.
    pub(super) fn take_actor(&mut self, actor: ActorId) {
        self.document.set_actor(actor.clone());
        self.actors.insert(actor);
    }

    /// Keeps `change` until the server has acknowledged it; how many bytes that takes.
    pub(super) fn keep(&mut self, change: Change) -> u64 {
        let own = OwnChange::new(change);
        let bytes = own.bytes.len() as u64;
        self.own_bytes += bytes;
        self.own.push_back(own);
        bytes
    }

    /// A change that the document holds.
    pub(super) fn change(&self, hash: &ChangeHash) -> Option<Change> {
        self.document.get_change_by_hash(hash)
    }

    /// Lets go of the own changes that `is_safe` names.
    pub(super) fn acknowledge(&mut self, mut is_safe: impl FnMut(&OwnChange) -> bool) {
        let bytes = &mut self.own_bytes;
        self.own.retain(|own| {
            let safe = is_safe(own);
            if safe {
                *bytes -= own.bytes.len() as u64;
            }
            !safe
        });
    }

    /// Takes out of the own changes those that `refused` names and all that stand on them, oldest first. The document still
    /// holds them: [`Self::rebuild`] follows.
    pub(super) fn cut(&mut self, mut refused: impl FnMut(&OwnChange) -> bool) -> Vec<OwnChange> {
        let mut hashes = BTreeSet::new();
        let mut actors = BTreeSet::new();
        let (mut kept, mut cut) = (VecDeque::new(), Vec::new());
        for own in std::mem::take(&mut self.own) {
            let change = &own.change;
            let stands_on_cut =
                actors.contains(change.actor_id()) || change.deps().iter().any(|hash| hashes.contains(hash));
            if stands_on_cut || refused(&own) {
                hashes.insert(change.hash());
                actors.insert(change.actor_id().clone());
                self.own_bytes -= own.bytes.len() as u64;
                cut.push(own);
            } else {
                kept.push_back(own);
            }
        }
        self.own = kept;
        cut
    }

    /// Puts the document back to `heads` and the own changes that are left.
    pub(super) fn rebuild(&mut self, heads: &[ChangeHash]) -> Result<(), Fault> {
        let actor = self.document.get_actor().clone();
        let before = std::mem::take(&mut self.document);
        let back = guarded(|| Ok(before.fork_at(heads)?.with_actor(actor.clone())));
        self.document = self.or_empty(back, actor)?;
        let own = self.own.iter().map(|own| own.change.clone()).collect();
        self.merge(own).map(|_| ())
    }

    /// The heads of the document without the unacknowledged changes. These are always on top: the server cannot have merged
    /// what stands on a change that it lacks.
    pub(super) fn confirmed_heads(&self) -> Vec<ChangeHash> {
        let own: BTreeSet<ChangeHash> = self.own.iter().map(|own| own.change.hash()).collect();
        let below = self.own.iter().flat_map(|own| own.change.deps().iter().copied());
        let candidates: BTreeSet<ChangeHash> = self
            .document
            .get_heads()
            .into_iter()
            .chain(below)
            .filter(|hash| !own.contains(hash))
            .collect();
        if candidates.len() < 2 {
            return candidates.into_iter().filter(|hash| self.holds(hash)).collect();
        }
        let is_head = |hash: &ChangeHash| {
            let others: Vec<ChangeHash> = candidates.iter().filter(|other| *other != hash).copied().collect();
            self.document
                .get_changes_meta(&others)
                .iter()
                .any(|change| change.hash == *hash)
        };
        candidates.iter().filter(|hash| is_head(hash)).copied().collect()
    }

    /// Whether the document holds the change.
    pub(super) fn holds(&self, hash: &ChangeHash) -> bool {
        self.document.get_change_meta_by_hash(hash).is_some()
    }

    /// Merges whole chunks that build on what the document has.
    pub(super) fn merge_chunks(&mut self, chunks: &[u8]) -> Result<(), Fault> {
        if chunks.is_empty() {
            return Ok(());
        }
        let actor = self.document.get_actor().clone();
        let mut document = std::mem::take(&mut self.document);
        let merged = guarded(move || {
            let outcome = document.load_incremental(chunks).map(|_| ());
            Ok((document, outcome))
        });
        let (document, outcome) = self.or_empty(merged, actor)?;
        self.document = document;
        outcome.map_err(|_| Fault::Unsound)
    }

    /// Puts the document that `chunks` make in the place of the present one, which it hands back.
    pub(super) fn replace(&mut self, chunks: &[u8]) -> Result<Automerge, Fault> {
        let mut fresh = Self::new(self.document.get_actor().clone());
        fresh.merge_chunks(chunks)?;
        Ok(std::mem::replace(&mut self.document, fresh.document))
    }

    /// Merges changes in one call, all or none. A change without what it depends on is not let in: Automerge would keep it
    /// aside without bound.
    pub(super) fn merge(&mut self, changes: Vec<Change>) -> Result<(), Fault> {
        if changes.is_empty() {
            return Ok(());
        }
        let batch: BTreeSet<ChangeHash> = changes.iter().map(Change::hash).collect();
        let whole = changes
            .iter()
            .flat_map(Change::deps)
            .all(|dep| batch.contains(dep) || self.holds(dep));
        if !whole {
            return Err(Fault::Unsound);
        }
        let actor = self.document.get_actor().clone();
        let mut document = std::mem::take(&mut self.document);
        let merged = guarded(move || {
            let outcome = document.apply_changes(changes);
            Ok((document, outcome))
        });
        let (document, outcome) = self.or_empty(merged, actor)?;
        self.document = document;
        outcome.map_err(|_| Fault::Unsound)
    }

    /// Makes `changes` anew under `actor`, with the same operations at the same places; `None` if that is not possible.
    pub(super) fn rename(&mut self, changes: &[OwnChange], actor: &ActorId) -> Option<()> {
        let originals: Vec<&Change> = changes.iter().map(|own| &own.change).collect();
        let renamed = remake::rename(&originals, actor)?;
        self.merge(renamed.clone()).ok()?;
        self.take_actor(actor.clone());
        for change in renamed {
            self.keep(change);
        }
        Some(())
    }

    /// Whether the document is at `heads`, but for unacknowledged changes.
    pub(super) fn stands_at(&self, heads: &[ChangeHash]) -> bool {
        let own: BTreeSet<ChangeHash> = self.own.iter().map(|own| own.change.hash()).collect();
        heads.iter().all(|hash| self.holds(hash))
            && self
                .document
                .get_changes_meta(heads)
                .iter()
                .all(|change| own.contains(&change.hash))
    }

    /// Takes all unacknowledged changes out; the document is left as it is.
    pub(super) fn take_own(&mut self) -> Vec<Change> {
        self.own_bytes = 0;
        std::mem::take(&mut self.own)
            .into_iter()
            .map(|own| own.change)
            .collect()
    }

    fn or_empty<T>(&mut self, built: Result<T, Fault>, actor: ActorId) -> Result<T, Fault> {
        if built.is_err() {
            self.document = Automerge::new().with_actor(actor);
        }
        built
    }
}

/// Runs `work` on bytes from outside; a panic of Automerge is an answer, not the end of the process.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, AutomergeError>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work))
        .map_err(|_| Fault::Panicked)?
        .map_err(|_| Fault::Unsound)
}
