//! One open document on a connection that comes and goes: joining its room, catching up, diffs in, edits out, acks and
//! rejects. Knows the room's messages; which connection there is, `super` knows.

use super::{
    ClientLimits, DocumentState, DocumentStatus, Draft, Effect, Notice, Safety,
    loading::Loading,
    presence::Presence,
    random::Random,
    rejoin::{Rejoin, lacked_by},
    replica::{Fault, OwnChange, Replica},
};
use automerge::{Change, ChangeHash};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{
    Cursor, DocumentId, EditId, RoomNumber, SessionId,
    native::{
        Access, Base, ClientMessage, ClosedCode, Diff, EDIT_CHANGES_MAX, Edit, HEADS_MAX, Open, Opened, Part,
        RejectCode, WelcomeLimits,
    },
};

/// The bytes of an `edit` around its changes, at most.
const EDIT_OVERHEAD_BYTES: u64 = 64;
/// The bytes around one change in an `edit`, at most.
const CHANGE_OVERHEAD_BYTES: u64 = 5;
/// The bytes around the one change of an `edit`, at most.
pub(super) const FRAME_OVERHEAD_BYTES: u64 = EDIT_OVERHEAD_BYTES + CHANGE_OVERHEAD_BYTES;
/// Temporary rejects in a row after which the room is joined anew.
const HOLDS_MAX: u32 = 4;

/// What a document needs of the connection while it handles one event.
pub(super) struct Site<'a> {
    pub(super) now_ms: u64,
    pub(super) session: SessionId,
    pub(super) limits: &'a WelcomeLimits,
    pub(super) own_limits: &'a ClientLimits,
    pub(super) random: &'a mut Random,
    pub(super) next_edit: &'a mut u64,
    pub(super) out: &'a mut Vec<Effect>,
}

impl Site<'_> {
    pub(super) fn send(&mut self, message: &ClientMessage) {
        self.out.push(Effect::Send(message.encode()));
    }

    fn edit_bytes_max(&self) -> u64 {
        self.limits.frame_bytes_max.saturating_sub(EDIT_OVERHEAD_BYTES)
    }

    fn backoff_ms(&mut self, attempts: u32) -> u64 {
        self.own_limits.backoff_ms(attempts, self.random)
    }
}

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
pub(super) struct Document {
    id: DocumentId,
    pub(super) replica: Replica,
    pub(super) drafts: Vec<Draft>,
    pub(super) presence: Presence,
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
    pub(super) fn new(id: DocumentId, replica: Replica, drafts: Vec<Draft>) -> Self {
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

    pub(super) fn room(&self) -> Option<RoomNumber> {
        match &self.phase {
            Phase::Loading { opened, .. } => Some(opened.room),
            Phase::Live { room, .. } => Some(*room),
            Phase::Apart | Phase::Opening | Phase::Waiting { .. } | Phase::Refused { .. } => None,
        }
    }

    pub(super) fn access(&self) -> Option<Access> {
        self.access
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live { .. })
    }

    pub(super) fn refusal(&self) -> Option<&ClosedCode> {
        match &self.phase {
            Phase::Refused { code, .. } => Some(code),
            Phase::Apart | Phase::Opening | Phase::Loading { .. } | Phase::Live { .. } | Phase::Waiting { .. } => None,
        }
    }

    /// Whether it waits for an `open` that can be sent now.
    pub(super) fn wants_open(&self, now_ms: u64) -> bool {
        match &self.phase {
            Phase::Apart => true,
            Phase::Waiting { until_ms } => *until_ms <= now_ms,
            Phase::Opening | Phase::Loading { .. } | Phase::Live { .. } | Phase::Refused { .. } => false,
        }
    }

    /// The `open` of this document; it is on its way now.
    pub(super) fn open(&mut self) -> Open {
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
    pub(super) fn forgive(&mut self) {
        if self.refusal().is_some() {
            self.phase = Phase::Apart;
        }
    }

    /// The answer to an `open` that said `sent` of the cursor.
    pub(super) fn opened(&mut self, site: &mut Site<'_>, opened: Opened, sent: Option<Cursor>) {
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

    pub(super) fn part(&mut self, site: &mut Site<'_>, part: &Part) {
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
                self.join(site, &opened, loading, end)
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
    fn join(&mut self, site: &mut Site<'_>, opened: &Opened, loading: Loading, end: Cursor) -> Result<(), Fault> {
        let same_epoch = self.replica.cursor.is_some_and(|cursor| cursor.epoch == end.epoch);
        let heads: Vec<ChangeHash> = opened.heads.iter().map(|hash| ChangeHash(hash.0)).collect();
        match opened.base {
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
                let rejoin = std::mem::replace(&mut self.rejoin, Rejoin::Trusting);
                let rejoin = if rejoin == Rejoin::Trusting && same_epoch {
                    Rejoin::Distrusting
                } else {
                    rejoin
                };
                let left = rejoin.replace(&mut self.replica, &loading.chunks, site.random)?;
                self.drafts.extend(left);
            }
        }
        let whole = heads.iter().all(|hash| self.replica.holds(hash));
        if !whole || (opened.cursor == end && !self.replica.stands_at(&heads)) {
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

    pub(super) fn diff(&mut self, site: &mut Site<'_>, diff: Diff) {
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
            let change = super::replica::guarded(|| Ok(Change::try_from(&chunk[..])?))?;
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

    pub(super) fn acked(&mut self, id: EditId) {
        if self.in_flight.remove(&id) {
            self.replica.acknowledge(|own| own.edit == Some(id));
            self.holds = 0;
        }
    }

    pub(super) fn rejected(&mut self, site: &mut Site<'_>, id: EditId, code: RejectCode, text: &str) {
        if !self.in_flight.remove(&id) {
            return;
        }
        match code {
            RejectCode::Unavailable | RejectCode::MissingDeps => {
                let refused = self.replica.own_mut().filter(|own| own.edit == Some(id));
                if refused.map(|own| own.edit = None).count() == 0 {
                    // Made anew or put aside while this answer was on its way.
                    return;
                }
                self.holds += 1;
                self.hold_until_ms = Some(site.now_ms + site.backoff_ms(self.holds));
                if self.holds.is_multiple_of(HOLDS_MAX) {
                    self.leave_and_wait(site);
                }
            }
            RejectCode::NotOpen => self.wait(site),
            RejectCode::Quarantined => {
                let aside = self.put_aside(site, code, text, |own| own.edit == Some(id));
                self.rejoin = Rejoin::Reset;
                self.leave(site);
                if let Err(fault) = aside {
                    tracing::warn!(document = %self.id, %fault, "rebuilding the document");
                }
            }
            RejectCode::ActorConflict
            | RejectCode::Forbidden
            | RejectCode::Limit
            | RejectCode::ForeignActor
            | RejectCode::AfterReject
            | RejectCode::Other(_) => {
                if let Err(fault) = self.put_aside(site, code, text, |own| own.edit == Some(id)) {
                    self.faulted(site, fault);
                }
            }
        }
    }

    /// Takes refused changes and all that stand on them out of the document: made anew under another actor where that helps,
    /// else kept as a draft.
    fn put_aside(
        &mut self,
        site: &mut Site<'_>,
        code: RejectCode,
        text: &str,
        refused: impl FnMut(&OwnChange) -> bool,
    ) -> Result<(), Fault> {
        let heads = self.replica.confirmed_heads();
        let cut = self.replica.cut(refused);
        if cut.is_empty() {
            return Ok(());
        }
        let actor = site.random.actor();
        let rebuilt = self.replica.rebuild(&heads);
        let made_anew =
            rebuilt.is_ok() && code == RejectCode::ActorConflict && self.replica.rename(&cut, &actor).is_some();
        self.replica.take_actor(actor);
        if !made_anew {
            let changes = cut.into_iter().map(|own| own.bytes).collect();
            self.drafts.push(Draft {
                changes,
                code,
                text: text.to_owned(),
            });
        }
        self.notify(site, |document| Notice::Changed { document });
        rebuilt
    }

    /// A change that was just committed is too large for a frame: the document goes back to before it.
    pub(super) fn take_back(&mut self, hash: ChangeHash, actor: automerge::ActorId) -> Result<(), Fault> {
        let heads = self.replica.confirmed_heads();
        self.replica.cut(|own| own.change.hash() == hash);
        let back = self.replica.rebuild(&heads);
        self.replica.take_actor(actor);
        if back.is_err() {
            self.rejoin = Rejoin::Distrusting;
        }
        back
    }

    /// The room is closed, or was never opened.
    pub(super) fn closed(&mut self, site: &mut Site<'_>, code: ClosedCode, text: String) {
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
    pub(super) fn disconnected(&mut self) {
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
            self.rejoin = Rejoin::Distrusting;
        }
        self.leave_and_wait(site);
        self.notify(site, |document| Notice::Changed { document });
    }

    /// The end of a batch of events: merges what came, and sends what is due.
    pub(super) fn settle(&mut self, site: &mut Site<'_>, may_edit: bool) {
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

    fn send_edits(&mut self, site: &mut Site<'_>) {
        if self.hold_until_ms.is_some_and(|until_ms| until_ms > site.now_ms) {
            return;
        }
        self.hold_until_ms = None;
        let bytes_max = site.edit_bytes_max();
        let too_large = |own: &OwnChange| own.bytes.len() as u64 + CHANGE_OVERHEAD_BYTES > bytes_max;
        if self.is_live() && self.replica.own().iter().any(too_large) {
            let text = format!("a change is larger than the {bytes_max} bytes that the server takes");
            if let Err(fault) = self.put_aside(site, RejectCode::Limit, &text, too_large) {
                self.faulted(site, fault);
            }
        }
        let Phase::Live { room, .. } = self.phase else { return };
        while (self.in_flight.len() as u64) < site.own_limits.edits_in_flight_max {
            let id = EditId::new(*site.next_edit);
            let changes = self.pack(id, bytes_max);
            if changes.is_empty() {
                return;
            }
            *site.next_edit += 1;
            self.in_flight.insert(id);
            site.send(&ClientMessage::Edit(Edit { room, id, changes }));
        }
    }

    /// The next changes of one actor that go into one edit.
    fn pack(&mut self, id: EditId, bytes_max: u64) -> Vec<Bytes> {
        let (mut changes, mut bytes, mut actor) = (Vec::new(), 0, None);
        for own in self.replica.own_mut().filter(|own| own.edit.is_none()) {
            bytes += own.bytes.len() as u64 + CHANGE_OVERHEAD_BYTES;
            let same_actor = actor.as_ref().is_none_or(|actor| actor == own.change.actor_id());
            if !same_actor || changes.len() == EDIT_CHANGES_MAX || bytes > bytes_max {
                break;
            }
            actor.get_or_insert_with(|| own.change.actor_id().clone());
            own.edit = Some(id);
            changes.push(own.bytes.clone());
        }
        changes
    }

    pub(super) fn next_wakeup(&self) -> Option<u64> {
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
    pub(super) fn state(&self) -> DocumentState {
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
    pub(super) fn publish(&mut self, out: &mut Vec<Effect>) {
        let state = self.state();
        if self.published.as_ref() != Some(&state) {
            self.published = Some(state.clone());
            out.push(Effect::Notify(Notice::Document {
                document: self.id.clone(),
                state,
            }));
        }
    }

    pub(super) fn notify(&self, site: &mut Site<'_>, notice: impl FnOnce(DocumentId) -> Notice) {
        site.out.push(Effect::Notify(notice(self.id.clone())));
    }
}
