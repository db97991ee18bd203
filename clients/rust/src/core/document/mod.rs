//! One open document on a connection that comes and goes: joining its room, catching up, diffs in, edits out, acks and
//! rejects. Knows the room's messages; which connection there is, `super` knows.

mod edits;
mod site;

pub(in crate::core) use edits::FRAME_OVERHEAD_BYTES;
pub(in crate::core) use site::Site;

use super::{
    DocumentState, DocumentStatus, Draft, Effect, Notice, Safety,
    loading::Loading,
    presence::Presence,
    rejoin::{Rejoin, lacked_by},
    replica::{Fault, OwnChange, Replica, guarded},
};
use automerge::{Change, ChangeHash};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{
    Cursor, DocumentId, EditId, RoomNumber,
    native::{Access, Base, ClientMessage, ClosedCode, Diff, HEADS_MAX, Open, Opened, Part, RejectCode},
};

/// Where a document stands with the server.
#[derive(Debug)]
enum Phase {
    /// There is no connection.
    Apart,
    /// `open` is sent.
    Opening,
    /// `opened` came; parts are coming in.
    Loading { opened: Opened, loading: Loading },
    /// In the room and up to date, or, while `lagging` holds parts, on the way to it again.
    Live { room: RoomNumber, lagging: Loading },
    /// To be opened again at that time.
    Waiting { until_ms: u64 },
    /// The server does not want it.
    Refused { code: ClosedCode, text: String },
}

/// Diffs that came since the last `settle`.
#[derive(Debug, Default)]
struct Waiting {
    changes: Vec<Change>,
    bytes: u64,
    /// Where the replica will stand once they are merged.
    cursor: Option<Cursor>,
}

/// One open document.
#[derive(Debug)]
pub(in crate::core) struct Document {
    id: DocumentId,
    pub(in crate::core) replica: Replica,
    pub(in crate::core) drafts: Vec<Draft>,
    pub(in crate::core) presence: Presence,
    phase: Phase,
    /// What is to become of the present document when the next one has come.
    rejoin: Rejoin,
    access: Option<Access>,
    ready: bool,
    waiting: Waiting,
    in_flight: BTreeSet<EditId>,
    /// Edits wait until then after a temporary reject.
    hold_until_ms: Option<u64>,
    holds: u32,
    /// Failed attempts in a row to be in the room.
    attempts: u32,
    published: Option<DocumentState>,
}

impl Document {
    pub(in crate::core) fn new(id: DocumentId, replica: Replica, drafts: Vec<Draft>) -> Self {
        Self {
            id,
            replica,
            drafts,
            presence: Presence::default(),
            phase: Phase::Apart,
            rejoin: Rejoin::Trusting,
            access: None,
            ready: false,
            waiting: Waiting::default(),
            in_flight: BTreeSet::new(),
            hold_until_ms: None,
            holds: 0,
            attempts: 0,
            published: None,
        }
    }

    pub(in crate::core) fn room(&self) -> Option<RoomNumber> {
        match &self.phase {
            Phase::Loading { opened, .. } => Some(opened.room),
            Phase::Live { room, .. } => Some(*room),
            Phase::Apart | Phase::Opening | Phase::Waiting { .. } | Phase::Refused { .. } => None,
        }
    }

    pub(in crate::core) fn access(&self) -> Option<Access> {
        self.access
    }

    pub(in crate::core) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    pub(in crate::core) fn refusal(&self) -> Option<&ClosedCode> {
        match &self.phase {
            Phase::Refused { code, .. } => Some(code),
            Phase::Apart | Phase::Opening | Phase::Loading { .. } | Phase::Live { .. } | Phase::Waiting { .. } => None,
        }
    }

    /// Whether it waits for an `open` that can be sent now.
    pub(in crate::core) fn wants_open(&self, now_ms: u64) -> bool {
        match &self.phase {
            Phase::Apart => true,
            Phase::Waiting { until_ms } => *until_ms <= now_ms,
            Phase::Opening | Phase::Loading { .. } | Phase::Live { .. } | Phase::Refused { .. } => false,
        }
    }

    /// The `open` of this document; it is on its way now.
    pub(in crate::core) fn open(&mut self) -> Open {
        self.phase = Phase::Opening;
        let trusted = self.rejoin == Rejoin::Trusting;
        let heads = if trusted {
            self.replica.confirmed_heads()
        } else {
            Vec::new()
        };
        let heads = if heads.len() > HEADS_MAX { Vec::new() } else { heads };
        Open {
            document: self.id.clone(),
            cursor: self.replica.cursor.filter(|_| trusted),
            heads: heads
                .into_iter()
                .map(|hash| syncline_protocol::ChangeHash(hash.0))
                .collect(),
        }
    }

    /// The document is wanted again, whatever the server said of it before.
    pub(in crate::core) fn forgive(&mut self) {
        if self.refusal().is_some() {
            self.phase = Phase::Apart;
        }
    }

    /// The answer to an `open` that said `sent` of the cursor.
    pub(in crate::core) fn opened(&mut self, site: &mut Site<'_>, opened: Opened, sent: Option<Cursor>) {
        if opened.base == Base::Replica && sent.is_some() && sent != self.replica.cursor {
            self.phase = Phase::Loading {
                opened,
                loading: Loading::default(),
            };
            return self.leave_and_wait(site);
        }
        self.access = Some(opened.access);
        self.phase = Phase::Loading {
            opened,
            loading: Loading::default(),
        };
    }

    pub(in crate::core) fn part(&mut self, site: &mut Site<'_>, part: &Part) {
        let loading = match &mut self.phase {
            Phase::Loading { loading, .. } | Phase::Live { lagging: loading, .. } => loading,
            Phase::Apart | Phase::Opening | Phase::Waiting { .. } | Phase::Refused { .. } => return,
        };
        if let Err(error) = loading.take_in(part, site.own_limits.loading_bytes_max) {
            self.leave(site);
            self.phase = Phase::Refused {
                code: ClosedCode::Limit,
                text: error.to_string(),
            };
            return;
        }
        let Some(end) = part.end else { return };
        self.merge_waiting(site);
        let done = match std::mem::replace(&mut self.phase, Phase::Apart) {
            Phase::Loading { opened, loading } => {
                self.phase = Phase::Live {
                    room: opened.room,
                    lagging: Loading::default(),
                };
                self.join(site, &opened, &loading, end)
            }
            Phase::Live { room, lagging } => {
                self.phase = Phase::Live {
                    room,
                    lagging: Loading::default(),
                };
                self.replica.merge_chunks(&lagging.chunks)
            }
            // A fault in what waited has put the room away.
            phase => {
                self.phase = phase;
                return;
            }
        };
        match done {
            Ok(()) => self.caught_up(site, end),
            Err(fault) => self.faulted(site, fault),
        }
    }

    /// Everything that the parts after an `opened` bring has come.
    fn join(&mut self, site: &mut Site<'_>, opened: &Opened, loading: &Loading, end: Cursor) -> Result<(), Fault> {
        let same_epoch = self.replica.cursor.is_some_and(|cursor| cursor.epoch == end.epoch);
        let heads: Vec<ChangeHash> = opened.heads.iter().map(|hash| ChangeHash(hash.0)).collect();
        // Who names neither a cursor nor heads gets the whole document, whatever the base is called.
        let base = if self.rejoin == Rejoin::Trusting {
            opened.base
        } else {
            Base::Nothing
        };
        match base {
            Base::Replica => {
                self.replica.merge_chunks(&loading.chunks)?;
                if !same_epoch {
                    let lacked = self.replica.document.get_changes(&heads);
                    self.replica.take_own();
                    for change in lacked_by(lacked) {
                        self.replica.keep(change);
                    }
                }
            }
            Base::Nothing => {
                let left = self.rejoin.replace(&mut self.replica, &loading.chunks, site.random)?;
                self.drafts.extend(left);
                self.rejoin = Rejoin::Trusting;
            }
        }
        // A document with very many heads names none ([O14]).
        let named = !heads.is_empty() || opened.cursor.position.number() == 0;
        let whole = heads.iter().all(|hash| self.replica.holds(hash));
        if !whole || (named && opened.cursor == end && !self.replica.stands_at(&heads)) {
            return Err(Fault::Unsound);
        }
        Ok(())
    }

    fn caught_up(&mut self, site: &mut Site<'_>, end: Cursor) {
        self.replica.cursor = Some(end);
        self.rejoin = Rejoin::Trusting;
        self.waiting = Waiting {
            cursor: Some(end),
            ..Waiting::default()
        };
        (self.ready, self.attempts) = (true, 0);
        if self.presence.joined(site.now_ms) {
            self.notify(site, |document| Notice::Presence { document });
        }
        self.notify(site, |document| Notice::Changed { document });
    }

    pub(in crate::core) fn diff(&mut self, site: &mut Site<'_>, diff: Diff) {
        let Phase::Live { .. } = self.phase else { return };
        let Some(reached) = self.waiting.cursor else { return };
        let (end, len) = (diff.cursor.position.number(), diff.len());
        if diff.cursor.epoch != reached.epoch || end.saturating_sub(len) > reached.position.number() || len > end {
            return self.leave_and_wait(site);
        }
        let mut known = reached.position.number() - (end - len);
        if known >= len {
            return;
        }
        for run in diff.runs {
            let skipped = known.min(run.changes.len() as u64);
            known -= skipped;
            let fresh = &run.changes[skipped as usize..];
            if run.session == site.session {
                self.shown(fresh);
            } else if self.wait_for(fresh).is_err() {
                return self.faulted(site, Fault::Unsound);
            }
        }
        self.waiting.cursor = Some(diff.cursor);
        if self.waiting.bytes > site.own_limits.waiting_bytes_max {
            self.merge_waiting(site);
        }
    }

    /// Own changes came back to us: nobody is sent a change before it is on disk ([E5]). A chunk tells the first bytes of its
    /// hash.
    fn shown(&mut self, chunks: &[Bytes]) {
        let shown: BTreeSet<&[u8]> = chunks.iter().filter_map(|chunk| chunk.get(4..8)).collect();
        self.replica
            .acknowledge(|own| own.edit.is_some() && shown.contains(&own.change.hash().0[..4]));
    }

    fn wait_for(&mut self, chunks: &[Bytes]) -> Result<(), Fault> {
        for chunk in chunks {
            let change = guarded(|| Ok(Change::try_from(&chunk[..])?))?;
            self.waiting.bytes += chunk.len() as u64;
            self.waiting.changes.push(change);
        }
        Ok(())
    }

    /// Merges the diffs that wait, in one call.
    fn merge_waiting(&mut self, site: &mut Site<'_>) {
        let Some(cursor) = self.waiting.cursor else { return };
        let changes = std::mem::take(&mut self.waiting.changes);
        self.waiting.bytes = 0;
        if changes.is_empty() {
            self.replica.cursor = Some(cursor);
            return;
        }
        let theirs: BTreeMap<_, _> = changes
            .iter()
            .map(|change| ((change.actor_id().clone(), change.seq()), change.hash()))
            .collect();
        let theirs_of = |own: &OwnChange| theirs.get(&(own.change.actor_id().clone(), own.change.seq()));
        let mut merged = Ok(());
        if self.replica.own().iter().any(|own| theirs_of(own).is_some()) {
            self.replica
                .acknowledge(|own| theirs_of(own) == Some(&own.change.hash()));
            let conflict = |own: &OwnChange| theirs_of(own).is_some();
            merged = self.put_aside(
                site,
                RejectCode::ActorConflict,
                "another client wrote as this actor",
                conflict,
            );
        }
        match merged.and_then(|()| self.replica.merge(changes)) {
            Ok(()) => {
                self.replica.cursor = Some(cursor);
                self.notify(site, |document| Notice::Changed { document });
            }
            Err(fault) => self.faulted(site, fault),
        }
    }

    /// The room is closed, or was never opened.
    pub(in crate::core) fn closed(&mut self, site: &mut Site<'_>, code: ClosedCode, text: String) {
        self.apart();
        match code {
            ClosedCode::Reset => self.rejoin = Rejoin::Reset,
            ClosedCode::Unavailable => self.wait(site),
            ClosedCode::Forbidden | ClosedCode::Damaged | ClosedCode::Limit | ClosedCode::Other(_) => {
                self.phase = Phase::Refused { code, text };
            }
        }
        if self.presence.clear() {
            self.notify(site, |document| Notice::Presence { document });
        }
    }

    /// The connection is gone. What waits to be merged comes again.
    pub(in crate::core) fn disconnected(&mut self) {
        let refused = matches!(self.phase, Phase::Refused { .. });
        if !refused {
            self.apart();
        }
        (self.hold_until_ms, self.holds) = (None, 0);
    }

    fn apart(&mut self) {
        self.phase = Phase::Apart;
        self.waiting = Waiting::default();
        self.in_flight.clear();
        self.replica.own_mut().for_each(|own| own.edit = None);
    }

    fn leave(&mut self, site: &mut Site<'_>) {
        if let Some(room) = self.room() {
            site.send(&ClientMessage::Leave { room });
        }
        self.apart();
    }

    fn wait(&mut self, site: &mut Site<'_>) {
        self.apart();
        self.attempts += 1;
        // The first time may be an accident; after that the server gets some peace.
        let delay_ms = if self.attempts == 1 {
            0
        } else {
            site.backoff_ms(self.attempts)
        };
        self.phase = Phase::Waiting {
            until_ms: site.now_ms + delay_ms,
        };
    }

    fn leave_and_wait(&mut self, site: &mut Site<'_>) {
        self.leave(site);
        self.wait(site);
    }

    /// The document does not fit what the server sends: it comes anew, whole.
    fn faulted(&mut self, site: &mut Site<'_>, fault: Fault) {
        tracing::warn!(document = %self.id, %fault, "opening the document anew");
        if self.rejoin == Rejoin::Trusting {
            self.rejoin = Rejoin::Whole;
        }
        self.replica.cursor = None;
        self.leave_and_wait(site);
        self.notify(site, |document| Notice::Changed { document });
    }

    /// The end of a batch of events: merges what came, and sends what is due.
    pub(in crate::core) fn settle(&mut self, site: &mut Site<'_>, may_edit: bool) {
        self.merge_waiting(site);
        if may_edit {
            self.send_edits(site);
        }
        let Phase::Live { room, .. } = self.phase else { return };
        let interval_ms = 1000 / site.limits.presence_per_second.max(1);
        if let Some(state) = self.presence.due(site.now_ms, site.limits.presence_ttl_ms, interval_ms) {
            site.send(&ClientMessage::Presence { room, state });
        }
    }

    pub(in crate::core) fn next_wakeup(&self) -> Option<u64> {
        match &self.phase {
            Phase::Waiting { until_ms } => Some(*until_ms),
            Phase::Live { .. } => [self.hold_until_ms, self.presence.next_wakeup()]
                .into_iter()
                .flatten()
                .min(),
            Phase::Apart | Phase::Opening | Phase::Loading { .. } | Phase::Refused { .. } => None,
        }
    }

    /// Where the document stands.
    pub(in crate::core) fn state(&self) -> DocumentState {
        let own = self.replica.own();
        let safety = if own.is_empty() {
            Safety::Durable
        } else if own.iter().all(|own| own.edit.is_some()) {
            Safety::Sent
        } else {
            Safety::Local
        };
        let status = match &self.phase {
            Phase::Apart | Phase::Opening | Phase::Waiting { .. } => DocumentStatus::Opening,
            Phase::Loading { opened, loading } => DocumentStatus::Loading {
                received: loading.chunks.len() as u64,
                expected: opened.bytes,
            },
            Phase::Live { .. } => DocumentStatus::Live {
                access: self.access.unwrap_or(Access::Read),
            },
            Phase::Refused { code, text } => DocumentStatus::Refused {
                code: code.clone(),
                text: text.clone(),
            },
        };
        DocumentState {
            status,
            ready: self.ready,
            safety,
            unacknowledged: own.len() as u64,
            drafts: self.drafts.len() as u64,
        }
    }

    /// Tells the app where the document stands, if that is news.
    pub(in crate::core) fn publish(&mut self, out: &mut Vec<Effect>) {
        let state = self.state();
        if self.published.as_ref() != Some(&state) {
            self.published = Some(state.clone());
            out.push(Effect::Notify(Notice::Document {
                document: self.id.clone(),
                state,
            }));
        }
    }

    pub(in crate::core) fn notify(&self, site: &mut Site<'_>, notice: impl FnOnce(DocumentId) -> Notice) {
        site.out.push(Effect::Notify(notice(self.id.clone())));
    }
}
