//! A room: a document that is live in memory, with its members.
//!
//! Follow one edit: `admission` takes it through the gate into the batch that gathers; [`Room::settle`] sends the batch to the
//! log; when it is stored, `admission` acknowledges it and sends one diff to all. `catchup` brings joiners and lagging members
//! to the present; `upkeep` merges, compacts and puts right what a merge throws out.
//!
//! The room is not the Automerge document: for its daily work it needs the op index and the log's end, and the document
//! itself only for merging, compaction and what reaches beyond the recent graph.

mod across;
mod admission;
mod again;
mod catchup;
mod census;
mod event;
mod gossip;
mod member;
mod peer;
mod pipeline;
mod round;
mod upkeep;
mod waits;

pub use across::NATIVE_PEER_PREFIX;
pub use event::{
    Append, BundleOf, Effect, Entry, Event, Forms, Join, JoinedPeer, LoadFailure, Loaded, Merged, ReadFailure, Slice,
    Snapshot, Source, Ticket, Told,
};
pub(in crate::engine) use member::INFLATED_MAX;

use crate::engine::{presence::Presence, time::Time};
use across::Across;
use bytes::Bytes;
use catchup::{LastBatches, LastPart};
use census::Census;
use gossip::Gossip;
use member::{Member, Standing};
use peer::{Peer, Settled};
use pipeline::Pipeline;
use round::Round;
use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU64,
    sync::Arc,
};
use syncline_protocol::{
    ChangeHash, CloseCode, Cursor, DocumentId, EditId, Epoch, Limits, Position, RoomNumber, SessionId,
    native::{ClosedCode, RejectCode, ServerMessage},
};
use upkeep::Upkeep;
pub(in crate::engine) use waits::Waits;

/// What a small room takes in memory: its task, inbox and figures, and what they hold for a member; measured, about.
pub const ROOM_BYTES: usize = 12 << 10;

/// When a room stores, merges, compacts, lets go and closes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// A merge is due when this many changes are not merged.
    pub merge_changes: u64,
    /// A merge is due when the changes that are not merged have this many bytes.
    pub merge_bytes: u64,
    /// A merge is due when a change has not been merged for so long.
    pub merge_after_ms: u64,
    /// A merge is due when nobody has edited for so long.
    pub merge_quiet_ms: u64,
    /// After a merge the next one waits so many times as long as that took, while few changes are not merged.
    pub merge_rests: u64,
    /// A snapshot is due when the log after the last one has this many changes.
    pub compact_changes: u64,
    /// A snapshot is due when the log after the last one has this many bytes, and as many as the snapshot.
    pub compact_bytes: u64,
    /// Before a room closes, and while its document is at hand and at rest, a snapshot is due already at this many changes: who
    /// comes next is sent little more than the snapshot.
    pub compact_changes_at_rest: u64,
    /// A document is at rest when nobody has edited for so long.
    pub compact_rest_ms: u64,
    /// The document is let go when nobody has edited for so long.
    pub document_idle_ms: u64,
    /// A room without members closes after this time.
    pub room_idle_ms: u64,
    /// Behind a batch the next one rests a millisecond for so many members.
    pub deliveries_per_ms: NonZeroU64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            merge_changes: 5_000,
            merge_bytes: 1 << 20,
            merge_after_ms: 30_000,
            merge_quiet_ms: 2_000,
            merge_rests: 1_000,
            compact_changes: 5_000,
            compact_bytes: 1 << 20,
            compact_changes_at_rest: 256,
            compact_rest_ms: 10_000,
            document_idle_ms: 60_000,
            room_idle_ms: 60_000,
            // About half of what a core does.
            deliveries_per_ms: NonZeroU64::new(50).expect("it is not zero"),
        }
    }
}

/// One live document and its members.
#[derive(Debug)]
pub struct Room {
    number: RoomNumber,
    document: DocumentId,
    limits: Arc<Limits>,
    tuning: Tuning,
    members: BTreeMap<SessionId, Member>,
    /// Made anew after a change.
    census: Option<Census>,
    /// Peers that are to be asked again for changes that could not be taken.
    asking: BTreeSet<SessionId>,
    /// Peers that are to be sent the whole document, once a snapshot is made.
    awaiting: BTreeSet<SessionId>,
    last_part: Option<LastPart>,
    presence: Presence,
    /// While members wait for their turn to be shown what has changed.
    round: Option<Round>,
    /// Whose turns the last one had, and when it was over.
    last_round: Option<(Arc<[SessionId]>, Time)>,
    /// The last one drawn.
    tickets: Ticket,
    /// Members with edits that are to be looked at again.
    released: BTreeSet<SessionId>,
    tally: Tally,
    across: Across,
    gossip: Gossip,
    /// The time of the last event.
    now: Time,
    /// Since when the room has had no members.
    empty_since: Option<Time>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Waiting for the store.
    Loading,
    /// Open.
    Live(Box<Live>),
    /// Over; whoever joins all the same is told this.
    Closed(ClosedCode),
}

/// What an open room knows of its document.
#[derive(Debug)]
struct Live {
    epoch: Epoch,
    /// The heads of everything that is on disk.
    heads: BTreeSet<ChangeHash>,
    /// Everything before it is on disk.
    durable: Position,
    /// The first position that is still in the log.
    log_start: Position,
    /// The bytes of all changes before `durable`.
    log_bytes: u64,
    quarantined: BTreeSet<ChangeHash>,
    foreign_until: Option<Time>,
    pipeline: Pipeline,
    upkeep: Upkeep,
    /// The last batches, while somebody is on the way to the present: the last step needs no reading.
    last: LastBatches,
    /// The bundle that was asked for last, and where it begins: many members come back to one place.
    last_bundle: Option<(Position, BundleOf)>,
}

/// What a room has done since it was last asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Edits that were acknowledged.
    pub acked: u64,
    /// Edits that were refused, by code.
    pub rejected: BTreeMap<RejectCode, u64>,
    /// Sessions that were told that the document is closed to them, by code.
    pub closed: BTreeMap<ClosedCode, u64>,
}

impl Live {
    fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            position: self.durable,
        }
    }
}

impl Room {
    /// A room that begins to load its document.
    pub fn new(
        number: RoomNumber,
        document: DocumentId,
        limits: Arc<Limits>,
        tuning: Tuning,
        now: Time,
        out: &mut Vec<Effect>,
    ) -> Self {
        out.push(Effect::Load);
        Self {
            number,
            document,
            limits,
            tuning,
            members: BTreeMap::new(),
            census: None,
            asking: BTreeSet::new(),
            awaiting: BTreeSet::new(),
            last_part: None,
            presence: Presence::default(),
            round: None,
            last_round: None,
            tickets: Ticket::default(),
            released: BTreeSet::new(),
            tally: Tally::default(),
            across: Across::default(),
            gossip: Gossip::default(),
            now,
            empty_since: Some(now),
            phase: Phase::Loading,
        }
    }

    /// Takes one event in; what is to be done is appended to `out`, in order.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        self.now = now;
        match event {
            Event::Loaded(loaded) => self.loaded(now, *loaded, out),
            Event::LoadFailed(failure) => self.load_failed(failure, out),
            Event::Joined(join) => self.joined(join, out),
            Event::Edited(edit) => self.edited(now, edit, out),
            Event::PutOff(edit) => self.put_off(&edit, out),
            Event::Probed { session, edit } => self.probed(session, edit, out),
            Event::Shown { session, state } => self.shown(now, session, state, out),
            Event::Signalled { session, payload } => self.signalled(session, payload, out),
            Event::Synced { session, told, edits } => self.synced(session, *told, edits, out),
            Event::Followed { session, storages } => self.followed(session, storages, out),
            Event::Broadcast { session, ephemeral } => self.broadcast(session, &ephemeral, out),
            Event::Left { session } => self.forget(session),
            Event::Lagged { session, at } => self.lagged(session, at),
            Event::Drained { session } => self.drained(session, out),
            Event::Read {
                session,
                ticket,
                result,
            } => self.read(session, ticket, result, out),
            Event::Decoded {
                session,
                ticket,
                result,
            } => self.decoded(now, session, ticket, result, out),
            Event::Stored => self.stored(now, out),
            Event::StoreFailed => self.store_failed(out),
            Event::Merged(merged) => self.merged(now, merged, out),
            Event::Proven { session, ticket, holds } => self.proven(now, session, ticket, holds, out),
            Event::Reach { session, ticket } => self.reach(now, session, ticket, out),
            Event::Compacted(snapshot) => self.compacted(now, snapshot),
            Event::Quarantined => self.quarantined(out),
            Event::QuarantineFailed => self.fail(ClosedCode::Unavailable, out),
            Event::Trimmed => self.trimmed(),
            Event::Woke => {}
        }
    }

    /// Ends a batch of events: sends what has gathered to the log, shows presence, looks after the document.
    pub fn settle(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.now = now;
        self.ask_peers_again(now, out);
        self.append(now, out);
        self.show_presence(now, out);
        self.keep_up(now, out);
        self.answer_who_waited(now, out);
        if !self.brings_up() {
            self.last_part = None;
        }
        if let Phase::Live(live) = &mut self.phase
            && live.upkeep.document().is_none()
        {
            live.last_bundle = None;
        }
    }

    /// When to send [`Event::Woke`], and settle.
    pub fn next_wakeup(&self) -> Option<Time> {
        let presence = match &self.round {
            Some(round) => Some(round.next_wakeup()),
            None => self.presence.next_wakeup(),
        };
        let batch = match &self.phase {
            // Also when it is due: the time may have been looked at again since the room settled.
            Phase::Live(live) if !live.upkeep.is_resetting() => live.pipeline.goes_at(),
            Phase::Live(_) | Phase::Loading | Phase::Closed(_) => None,
        };
        let others = self.next_asking().into_iter().chain(batch);
        presence.into_iter().chain(self.next_upkeep()).chain(others).min()
    }

    /// Whether the room must not be given further events of its members until it has worked off what it has.
    /// Answers to its effects are still welcome.
    pub fn is_saturated(&self) -> bool {
        match &self.phase {
            Phase::Live(live) => live.pipeline.is_full() || self.merge_is_overdue(live),
            Phase::Loading => self.holds_enough(),
            Phase::Closed(_) => false,
        }
    }

    /// Whether edits gather for the log, behind no batch that is being stored and no reset.
    pub fn appends_next(&self) -> bool {
        matches!(&self.phase, Phase::Live(live) if !live.upkeep.is_resetting() && live.pipeline.goes_at().is_some())
    }

    /// The room's number.
    pub fn number(&self) -> RoomNumber {
        self.number
    }

    /// What the room has done since it was last asked.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// How many sessions are in the room.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// About how many bytes of memory the room takes, with its document.
    pub fn memory_bytes(&self) -> usize {
        let members = self.members.values().map(|member| {
            let peer = member.peer.as_ref().map_or(0, |peer| peer.memory_bytes());
            peer + member.memory_bytes()
        });
        let document = match &self.phase {
            Phase::Live(live) => {
                live.pipeline.index.memory_bytes() + live.pipeline.bytes() + live.upkeep.document_bytes()
            }
            Phase::Loading | Phase::Closed(_) => 0,
        };
        ROOM_BYTES + document + self.gossip.memory_bytes() + members.sum::<usize>()
    }

    fn loaded(&mut self, now: Time, loaded: Loaded, out: &mut Vec<Effect>) {
        let durable = loaded.index.position();
        self.phase = Phase::Live(Box::new(Live {
            epoch: loaded.epoch,
            heads: loaded.index.heads().into_iter().collect(),
            durable,
            log_start: loaded.log_start,
            log_bytes: loaded.log_bytes,
            quarantined: loaded.quarantined,
            foreign_until: loaded.foreign_until,
            pipeline: Pipeline::new(loaded.index, loaded.exists),
            last: LastBatches::default(),
            last_bundle: None,
            upkeep: Upkeep::new(now, durable, loaded.log_bytes, loaded.snapshot),
        }));
        let joining: Vec<SessionId> = self.members.keys().copied().collect();
        for session in joining {
            self.begin_catching_up(session, out);
            self.admit_queued(now, session, out);
        }
    }

    fn load_failed(&mut self, failure: LoadFailure, out: &mut Vec<Effect>) {
        let code = match failure {
            LoadFailure::Damaged => ClosedCode::Damaged,
            LoadFailure::Unavailable => ClosedCode::Unavailable,
        };
        self.fail(code, out);
    }

    /// Dismisses everybody and closes.
    fn fail(&mut self, code: ClosedCode, out: &mut Vec<Effect>) {
        self.dismiss_all(&code, out);
        self.phase = Phase::Closed(code);
        out.push(Effect::Close);
    }

    fn dismiss_all(&mut self, code: &ClosedCode, out: &mut Vec<Effect>) {
        let sessions: Vec<SessionId> = self.members.keys().copied().collect();
        for session in sessions {
            self.dismiss(session, code.clone(), out);
        }
    }

    fn dismiss(&mut self, session: SessionId, code: ClosedCode, out: &mut Vec<Effect>) {
        // Whoever has had no `opened` yet knows no number: to it this is the answer to its `open`.
        let greeted = self.members.get(&session).is_none_or(Member::is_greeted);
        *self.tally.closed.entry(code.clone()).or_default() += 1;
        let frame = self.peer_frame(session, Peer::unavailable);
        let frame = frame.unwrap_or_else(|| self.closed(greeted.then_some(self.number), code));
        self.forget(session);
        out.push(Effect::Dismiss { session, frame });
    }

    /// What a session is told that joins when the room has ended.
    pub fn too_late(&self) -> Bytes {
        let code = match &self.phase {
            Phase::Closed(code) => code.clone(),
            Phase::Loading | Phase::Live(_) => ClosedCode::Unavailable,
        };
        self.closed(None, code)
    }

    fn closed(&self, room: Option<RoomNumber>, code: ClosedCode) -> Bytes {
        let text = match &code {
            ClosedCode::Reset => "the document was reset; open it anew",
            ClosedCode::Damaged => "the stored document is damaged; its operator can run `syncline check`",
            ClosedCode::Unavailable => "the document is not available now; try again later",
            ClosedCode::Forbidden | ClosedCode::Limit | ClosedCode::Other(_) => "the room is closed",
        };
        let closed = ServerMessage::Closed {
            room,
            document: self.document.clone(),
            code,
            text: text.to_owned(),
        };
        closed.encode()
    }

    /// A session has sent what cannot be honest.
    fn disconnect(&mut self, session: SessionId, text: String, out: &mut Vec<Effect>) {
        let code = CloseCode::Dishonest;
        let frame = self
            .peer_frame(session, |peer, _| peer.error(&text))
            .unwrap_or_else(|| {
                let error = ServerMessage::Error {
                    code: code.number(),
                    text: text.clone(),
                };
                error.encode()
            });
        self.forget(session);
        out.push(Effect::Disconnect {
            session,
            code,
            text,
            frame,
        });
    }

    fn forget(&mut self, session: SessionId) {
        let Some(member) = self.members.remove(&session) else {
            return;
        };
        self.census = None;
        self.asking.remove(&session);
        self.awaiting.remove(&session);
        self.presence.hide(session);
        if let Phase::Live(live) = &mut self.phase {
            live.pipeline.forget_waiting(session, &member);
        }
        if self.members.is_empty() {
            self.empty_since = Some(self.now);
        }
    }

    fn shown(&mut self, now: Time, session: SessionId, state: Option<Bytes>, out: &mut Vec<Effect>) {
        if let Some(member) = self.members.get(&session) {
            let ttl_ms = self.limits.presence_ttl_ms;
            let is_news = self.presence.show(now, session, &member.person, state, ttl_ms);
            if !is_news {
                self.native_lives(session, out);
            }
        }
    }

    fn signalled(&mut self, session: SessionId, payload: Bytes, out: &mut Vec<Effect>) {
        if self.members.contains_key(&session) {
            let frame = ServerMessage::Signal {
                room: self.number,
                session,
                payload: payload.clone(),
            }
            .encode();
            let to = self.audience();
            out.push(Effect::Broadcast {
                to,
                except: Some(session),
                frame,
                begins: None,
            });
            self.signal_peers(session, &payload, out);
        }
    }

    fn census(&mut self) -> &Census {
        let counted = |census: &Census| *census == Census::of(&self.members);
        debug_assert!(
            self.census.as_ref().is_none_or(counted),
            "counted anew after each change"
        );
        self.census.get_or_insert_with(|| Census::of(&self.members))
    }

    fn audience(&mut self) -> Arc<[SessionId]> {
        self.census().audience.clone()
    }

    fn set_standing(&mut self, session: SessionId, standing: Standing) {
        if let Some(member) = self.members.get_mut(&session) {
            member.standing = standing;
            self.census = None;
        }
    }

    fn reject(&mut self, to: SessionId, id: EditId, code: RejectCode, text: &str, out: &mut Vec<Effect>) {
        *self.tally.rejected.entry(code.clone()).or_default() += 1;
        if self.is_peer(to) {
            return self.peer_edit_settled(to, Settled::refused(&code), out);
        }
        let reject = ServerMessage::Reject {
            room: self.number,
            id,
            code,
            text: text.to_owned(),
        };
        out.push(Effect::Reply {
            to,
            frame: reject.encode(),
        });
    }
}

#[cfg(test)]
mod tests;
