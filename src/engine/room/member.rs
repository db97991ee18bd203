//! A member: a session in a room, how far it is, and what it has sent that is not settled yet.

use super::again::Looked;
use crate::engine::{
    gate::{self, Decoded, Header, Refusal, Subject},
    presence::Person,
    room::{
        event::{Forms, Join, Source, Ticket},
        peer::Peer,
        waits::{Hold, Waits},
    },
};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};
use syncline_protocol::{ChangeHash, EditId, Position, SessionId};

/// Edits of one member that wait behind one that takes long. One more is rejected as `unavailable`.
pub(super) const QUEUED_EDITS_MAX: usize = 1_000;
/// Bytes of those edits.
pub(super) const QUEUED_BYTES_MAX: usize = 4 << 20;
/// Actors of one member whose later changes are rejected as `after_reject`; beyond it the first is forgotten.
const REFUSED_ACTORS_MAX: usize = 64;
/// Changes of one member, or whole documents of one connection, that inflate past the limit. One more ends its session.
pub(in crate::engine) const INFLATED_MAX: u32 = 16;

#[derive(Debug)]
pub(super) struct Member {
    pub(super) person: Arc<Person>,
    pub(super) forms: Forms,
    pub(super) standing: Standing,
    /// The last session whose presence it was sent since it is live, when more are to come.
    pub(super) shown_up_to: Option<SessionId>,
    /// Set for a session that speaks the repo dialect.
    pub(super) peer: Option<Box<Peer>>,
    /// What is being found out about the member's oldest unsettled edit; later ones queue behind it.
    pub(super) busy: Option<Busy>,
    queued: VecDeque<RawEdit>,
    queued_bytes: usize,
    waiting: Vec<Waiting>,
    /// What all that waits of its session takes, here and in other rooms.
    waits: Arc<Waits>,
    refused_actors: VecDeque<Bytes>,
    /// Changes of it that inflated past the limit.
    inflated: u32,
}

/// How far a member is.
#[derive(Debug)]
pub(super) enum Standing {
    /// The room is loading.
    Joining(Join),
    /// A peer of the repo dialect that has not said yet how far it is.
    Untold,
    /// A piece is being read for it.
    Reading(Stream, Ticket),
    /// A piece is being sent to it.
    Draining(Stream),
    /// It gets every diff.
    Live,
    /// Its queue was full; it gets nothing until that has drained.
    Lagging { at: Position },
}

/// A member's way to the present.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) source: Source,
    /// The `opened` that is still to be sent.
    pub(super) greeting: Option<Greeting>,
}

/// What an `opened` says besides what the room knows.
#[derive(Debug)]
pub(super) struct Greeting {
    pub(super) access: syncline_protocol::native::Access,
    pub(super) base: syncline_protocol::native::Base,
}

/// What a member's oldest unsettled edit waits for.
#[derive(Debug)]
pub(super) enum Busy {
    /// Its changes are being decoded elsewhere.
    Decoding {
        ticket: Ticket,
        id: EditId,
        subject: Subject,
        /// How many they take.
        bytes: usize,
    },
    /// It reaches beyond the recent graph, or must be proven: the document is being loaded.
    Loading(Candidate),
    /// Whether it merges is being found out.
    Proving(Ticket, Candidate),
    /// It reaches beyond the recent graph, and is about to be held against the document.
    Reaching(Ticket, Candidate, Looked),
}

/// An edit as it came.
#[derive(Clone, Debug)]
pub(super) struct RawEdit {
    pub(super) id: EditId,
    pub(super) subject: Subject,
    pub(super) changes: Vec<Bytes>,
}

/// An edit whose changes are decoded.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) id: EditId,
    pub(super) subject: Subject,
    pub(super) changes: Vec<Decoded>,
}

/// An edit that waits for a change.
#[derive(Debug)]
struct Waiting {
    missing: ChangeHash,
    edit: RawEdit,
    _hold: Hold,
}

impl RawEdit {
    fn bytes(&self) -> usize {
        self.changes.iter().map(Bytes::len).sum()
    }
}

impl Candidate {
    fn bytes(&self) -> usize {
        self.changes.iter().map(|change| change.bytes().len()).sum()
    }

    /// Its changes but for those that the room has already, whose numbers these are, in order.
    pub(super) fn fresh(&self, known: &[usize]) -> impl Iterator<Item = &Decoded> {
        let changes = self.changes.iter().enumerate();
        let fresh = changes.filter(|(number, _)| known.binary_search(number).is_err());
        fresh.map(|(_, change)| change)
    }

    /// The edit as it came, to be looked at again later without holding the decoded form meanwhile.
    fn raw(self) -> RawEdit {
        let changes = self.changes.iter().map(|change| change.bytes().clone()).collect();
        RawEdit {
            id: self.id,
            subject: self.subject,
            changes,
        }
    }
}

impl Member {
    pub(super) fn new(join: Join) -> Self {
        Self {
            person: join.person.clone(),
            forms: join.forms,
            shown_up_to: None,
            peer: join.peer.as_ref().map(|peer| Box::new(Peer::new(&join, peer))),
            waits: join.waits.clone(),
            standing: Standing::Joining(join),
            busy: None,
            queued: VecDeque::new(),
            queued_bytes: 0,
            waiting: Vec::new(),
            refused_actors: VecDeque::new(),
            inflated: 0,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.standing, Standing::Live)
    }

    /// Whether `opened` was sent.
    pub(super) fn is_greeted(&self) -> bool {
        match &self.standing {
            Standing::Joining(_) | Standing::Untold => false,
            Standing::Reading(stream, _) | Standing::Draining(stream) => stream.greeting.is_none(),
            Standing::Live | Standing::Lagging { .. } => true,
        }
    }

    /// The snapshot generation that the member is still reading.
    pub(super) fn generation(&self) -> Option<u64> {
        match &self.standing {
            Standing::Reading(stream, _) | Standing::Draining(stream) => match stream.source {
                Source::Snapshot { generation, .. } => Some(generation),
                Source::Log { .. } => None,
            },
            Standing::Joining(_) | Standing::Untold | Standing::Live | Standing::Lagging { .. } => None,
        }
    }

    /// Where in the log the member reads, or will read on.
    pub(super) fn log_needed_from(&self) -> Option<Position> {
        match &self.standing {
            Standing::Reading(stream, _) | Standing::Draining(stream) => match stream.source {
                Source::Log { from, .. } => Some(from),
                Source::Snapshot { .. } => None,
            },
            Standing::Lagging { at } => Some(*at),
            Standing::Joining(_) | Standing::Untold | Standing::Live => None,
        }
    }

    /// Queues an edit; gives it back when the queue is full.
    pub(super) fn queue(&mut self, edit: RawEdit) -> Result<(), RawEdit> {
        let bytes = edit.bytes();
        let full = self.queued.len() >= QUEUED_EDITS_MAX || self.queued_bytes + bytes > QUEUED_BYTES_MAX;
        if full && !self.queued.is_empty() {
            return Err(edit);
        }
        self.queued_bytes += bytes;
        self.queued.push_back(edit);
        Ok(())
    }

    /// Bytes of the edits that wait to be looked at.
    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// About how much memory all edits take that are not settled.
    pub(super) fn memory_bytes(&self) -> usize {
        let busy = match &self.busy {
            Some(Busy::Loading(edit) | Busy::Proving(_, edit) | Busy::Reaching(_, edit, _)) => edit.bytes(),
            Some(Busy::Decoding { bytes, .. }) => *bytes,
            None => 0,
        };
        let waiting: usize = self.waiting.iter().map(|waiting| waiting.edit.bytes()).sum();
        self.queued_bytes + waiting + busy
    }

    /// The next edit to look at, unless one is being looked at.
    pub(super) fn next_edit(&mut self) -> Option<RawEdit> {
        if self.busy.is_some() {
            return None;
        }
        let edit = self.queued.pop_front()?;
        self.queued_bytes -= edit.bytes();
        Some(edit)
    }

    /// Keeps an edit until `missing` comes; gives it back when too many wait already.
    pub(super) fn wait_for(&mut self, missing: ChangeHash, edit: Candidate, changes_max: usize) -> Result<(), EditId> {
        let edit = edit.raw();
        let Some(hold) = self.waits.hold(edit.changes.len(), edit.bytes(), changes_max) else {
            return Err(edit.id);
        };
        self.waiting.push(Waiting {
            missing,
            edit,
            _hold: hold,
        });
        Ok(())
    }

    /// Takes out the edits that waited for `arrived`, to be looked at before any that came later.
    pub(super) fn release(&mut self, arrived: &ChangeHash) {
        let (released, kept) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|edit| edit.missing == *arrived);
        self.waiting = kept;
        let released: Vec<Waiting> = released;
        for waiting in released.into_iter().rev() {
            self.queued_bytes += waiting.edit.bytes();
            self.queued.push_front(waiting.edit);
        }
    }

    /// The changes that this member's edits wait for.
    pub(super) fn missing(&self) -> BTreeSet<ChangeHash> {
        self.waiting.iter().map(|waiting| waiting.missing).collect()
    }

    /// Remembers the actors of a refused edit.
    pub(super) fn refuse_actor(&mut self, actor: Bytes) {
        if self.has_refused(&actor) {
            return;
        }
        if self.refused_actors.len() == REFUSED_ACTORS_MAX {
            self.refused_actors.pop_front();
        }
        self.refused_actors.push_back(actor);
    }

    /// Counts a change that inflated past the limit; whether there were too many.
    pub(super) fn inflates_too_often(&mut self) -> bool {
        self.inflated += 1;
        self.inflated > INFLATED_MAX
    }

    /// Whether a change of this actor was refused.
    pub(super) fn has_refused(&self, actor: &[u8]) -> bool {
        self.refused_actors.iter().any(|refused| refused == actor)
    }

    /// Whether any change was refused.
    pub(super) fn has_refused_any(&self) -> bool {
        !self.refused_actors.is_empty()
    }
}

/// The actors of changes whose headers are read.
pub(super) fn actors(headers: &[Header]) -> Vec<Bytes> {
    headers.iter().map(|header| copy(header.actor())).collect()
}

/// A slice of the change would keep all of it in memory.
fn copy(actor: &[u8]) -> Bytes {
    Bytes::copy_from_slice(actor)
}

/// The second step of the gate for all changes of an edit, or why one is refused and whose they are.
pub(super) fn decode_all(headers: Vec<Header>) -> Result<Vec<Decoded>, (Vec<Bytes>, Refusal)> {
    let mut decoded = Vec::with_capacity(headers.len());
    let mut headers = headers.into_iter();
    while let Some(header) = headers.next() {
        match gate::decode_or_whose(header) {
            Ok(change) => decoded.push(change),
            Err((actor, refusal)) => {
                let before = decoded.iter().map(|change: &Decoded| copy(change.actor()));
                let behind = headers.map(|header| copy(header.actor()));
                return Err((before.chain([actor]).chain(behind).collect(), refusal));
            }
        }
    }
    Ok(decoded)
}
