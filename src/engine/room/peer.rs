//! Members that speak the repo dialect: what they are told, and when.
//!
//! Every message to a peer carries all that it lacks, so that whoever has taken it has our heads: they are what the message
//! says both sides share, and the peer answers with what does not stand below them. So no message walks the history, no
//! filter is needed, and one encoding of a batch serves all peers that have the batches before it.

use super::{
    Effect, Entry, Join, JoinedPeer, Live, Phase, Room, Slice, Source, Told,
    across::Showing,
    member::{Standing, Stream},
};
use crate::engine::{session::RepoServer, time::Time};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc};
use syncline_protocol::{
    ChangeHash, Cursor, DocumentId, Position, SessionId,
    native::{Access, ClosedCode, RejectCode},
    repo::{PeerId, RepoMessage, Sync, encode_again, encode_sync, encode_whole, split_chunks},
};

/// The first pause before a peer is asked for changes that could not be taken; doubled each time.
const ASK_AGAIN_MS: u64 = 1_000;
/// How often in a row it is asked for them.
const ASK_AGAIN_MAX: u32 = 5;
/// How often in a row a peer is sent again what it says it misses.
const MISSES_MAX: u32 = 8;
/// Bytes of one peer's edits that wait for the document to be open; beyond it the room reads nothing more.
const HELD_BYTES_MAX: usize = 1 << 20;

/// What a room knows of a member that speaks the repo dialect.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    pub(super) host: Arc<RepoServer>,
    pub(super) storage_id: Option<String>,
    /// The storages that it follows.
    pub(super) follows: Arc<BTreeSet<String>>,
    /// What it shows of itself, once it has said that it takes part in that.
    pub(super) showing: Option<Showing>,
    access: Access,
    /// The member alone, as `Broadcast` takes it.
    pub(super) audience: Arc<[SessionId]>,
    pub(super) told: Told,
    /// What it said last is to be answered once its edits are settled.
    is_due: bool,
    /// Whether it is owed a message even if nothing is new to it.
    owes_answer: bool,
    answered: bool,
    /// Whether it has waited for a snapshot: once is enough.
    has_waited: bool,
    told_unavailable: bool,
    /// Edits that are announced and not settled.
    edits: u64,
    /// When to ask for changes that could not be taken, and how often that was done in a row.
    ask_again: Option<Time>,
    asked: u32,
    /// Its heads when it was last told what we share.
    asked_at: Arc<[ChangeHash]>,
    /// How often in a row it said that it misses something.
    misses: u32,
    /// The message that is being put together, and whether it begins with a saved document.
    collected: Vec<u8>,
    is_whole: bool,
}

/// What became of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It is on disk, and its author has been told so, as all peers were.
    Told,
    /// It was on disk already.
    Known,
    /// Not now.
    Later,
    /// Never.
    Refused,
}

impl Settled {
    pub(super) fn refused(code: &RejectCode) -> Self {
        match code {
            RejectCode::MissingDeps | RejectCode::Unavailable | RejectCode::NotOpen => Self::Later,
            _ => Self::Refused,
        }
    }
}

impl Peer {
    pub(super) fn new(join: &Join, peer: &JoinedPeer) -> Self {
        Self {
            id: peer.id.clone(),
            host: peer.host.clone(),
            storage_id: peer.storage_id.clone(),
            follows: peer.follows.clone(),
            showing: None,
            access: join.access,
            audience: [join.session].into(),
            told: Told::default(),
            is_due: false,
            owes_answer: false,
            answered: false,
            has_waited: false,
            told_unavailable: false,
            edits: 0,
            ask_again: None,
            asked: 0,
            asked_at: Arc::default(),
            misses: 0,
            collected: Vec::new(),
            is_whole: false,
        }
    }

    /// A sync message in its envelope.
    fn sync(&self, document: &DocumentId, data: Bytes) -> Bytes {
        let sync = Sync {
            sender: self.host.peer.clone(),
            target: Some(self.id.clone()),
            document: document.to_string(),
            data,
        };
        RepoMessage::Sync(sync).encode()
    }

    pub(super) fn unavailable(&self, document: &DocumentId) -> Bytes {
        let message = RepoMessage::DocUnavailable {
            sender: self.host.peer.clone(),
            target: Some(self.id.clone()),
            document: document.to_string(),
        };
        message.encode()
    }

    pub(super) fn error(&self, text: &str) -> Bytes {
        let message = RepoMessage::Error {
            sender: self.host.peer.clone(),
            target: Some(self.id.clone()),
            message: text.to_owned(),
        };
        message.encode()
    }

    /// About how many bytes of memory it takes beyond a member's.
    pub(super) fn memory_bytes(&self) -> usize {
        self.collected.capacity() + self.told.bytes() + size_of_val(&*self.asked_at)
    }
}

impl Room {
    pub(super) fn is_peer(&self, session: SessionId) -> bool {
        self.members.get(&session).is_some_and(|member| member.peer.is_some())
    }

    /// A frame to a member, if it speaks the repo dialect.
    pub(super) fn peer_frame(
        &self,
        session: SessionId,
        frame: impl FnOnce(&Peer, &DocumentId) -> Bytes,
    ) -> Option<Bytes> {
        let peer = self.members.get(&session)?.peer.as_ref()?;
        Some(frame(peer, &self.document))
    }

    /// Whether so much waits for the document to be open that nothing more should be read.
    pub(super) fn holds_enough(&self) -> bool {
        self.members
            .values()
            .any(|member| member.queued_bytes() >= HELD_BYTES_MAX)
    }

    /// The room is open for a peer. One that comes back is made to say how far it is, and to send again what was lost.
    pub(super) fn peer_joined(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let (Phase::Live(_), Some(member)) = (&self.phase, self.members.get_mut(&session)) else {
            return;
        };
        let Standing::Joining(join) = std::mem::replace(&mut member.standing, Standing::Untold) else {
            return;
        };
        self.tell_all_heads(session, out);
        let Phase::Live(live) = &self.phase else { return };
        if join.peer.is_some_and(|peer| peer.again) {
            let heads: Vec<ChangeHash> = live.heads.iter().copied().collect();
            let frame = self.peer_frame(session, |peer, document| {
                peer.sync(document, encode_again(&heads).into())
            });
            out.extend(frame.map(|frame| Effect::Reply { to: session, frame }));
        }
        self.answer(session, out);
    }

    /// A peer says how far it is.
    pub(super) fn synced(&mut self, session: SessionId, mut told: Told, edits: u64, out: &mut Vec<Effect>) {
        let Some(peer) = self.peer_mut(session) else { return };
        told.reads_whole |= peer.told.reads_whole;
        peer.told = told;
        peer.edits += edits;
        peer.is_due = true;
        self.answer(session, out);
        self.spread_heads(session, out);
    }

    /// An edit waits for others, which have to be asked for if they do not come.
    pub(super) fn peer_edit_waits(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        self.peer_edit_settled(session, Settled::Later, out);
    }

    pub(super) fn peer_edit_settled(&mut self, session: SessionId, settled: Settled, out: &mut Vec<Effect>) {
        let now = self.now;
        let Some(peer) = self.peer_mut(session) else { return };
        peer.edits = peer.edits.saturating_sub(1);
        match settled {
            Settled::Told => peer.asked = 0,
            Settled::Known => peer.owes_answer = true,
            Settled::Later if peer.asked < ASK_AGAIN_MAX => {
                let pause_ms = ASK_AGAIN_MS << peer.asked;
                peer.ask_again = peer.ask_again.or_else(|| Some(now.plus_ms(pause_ms)));
                self.asking.insert(session);
            }
            Settled::Later | Settled::Refused => {}
        }
        self.answer(session, out);
    }

    /// Says what is due to a peer, unless it is being brought up to date.
    fn answer(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let (Phase::Live(live), Some(member)) = (&mut self.phase, self.members.get_mut(&session)) else {
            return;
        };
        let Some(peer) = member.peer.as_mut() else { return };
        let listens = matches!(member.standing, Standing::Untold | Standing::Live);
        if !peer.is_due || peer.edits > 0 || !listens || live.upkeep.is_resetting() || self.awaiting.contains(&session)
        {
            return;
        }
        if !std::mem::replace(&mut peer.has_waited, true)
            && live.gives_whole(&peer.told)
            && live.upkeep.await_snapshot(self.now, live.log_bytes, &self.tuning)
        {
            self.awaiting.insert(session);
            return;
        }
        peer.is_due = false;
        let is_first = !std::mem::replace(&mut peer.answered, true);
        if live.durable == Position::new(0) && peer.told.is_request && peer.told.heads.is_empty() {
            if !std::mem::replace(&mut peer.told_unavailable, true) {
                let frame = peer.unavailable(&self.document);
                out.push(Effect::Reply { to: session, frame });
            }
            return self.set_standing(session, Standing::Live);
        }
        let misses = peer.told.is_reset || !peer.told.need.is_empty();
        peer.misses = if misses { peer.misses + 1 } else { 0 };
        let is_lost = misses && peer.misses <= MISSES_MAX;
        let source = (is_first || is_lost).then(|| live.way_for(&peer.told));
        // Long lists are not kept beyond the answer.
        (peer.told.need, peer.told.shared) = (Vec::new(), Vec::new());
        if let Some(source) = source.filter(|source| *source != Source::log(live.durable)) {
            (peer.collected, peer.is_whole) = (Vec::new(), false);
            return self.go_on(session, Stream { source, greeting: None }, out);
        }
        let news = peer.access == Access::Write
            && peer.told.heads != peer.asked_at
            && peer
                .told
                .heads
                .iter()
                .any(|head| !live.pipeline.index.contains_recent(head));
        if is_first || is_lost || news || peer.owes_answer {
            self.peer_arrived(session, out);
        }
    }

    /// Once the snapshot is made, or does not come, answers the peers that waited for it.
    pub(super) fn answer_who_waited(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &mut self.phase else { return };
        if live.upkeep.is_awaited(now) {
            return;
        }
        for session in std::mem::take(&mut self.awaiting) {
            self.answer(session, out);
        }
    }

    /// A piece of the document for a peer, which is sent all of it in one message.
    pub(super) fn collect(&mut self, session: SessionId, slice: Slice, out: &mut Vec<Effect>) {
        let (Phase::Live(live), Some(member)) = (&self.phase, self.members.get_mut(&session)) else {
            return;
        };
        let (Standing::Reading(stream, _), Some(peer)) = (&member.standing, member.peer.as_mut()) else {
            return;
        };
        peer.is_whole |= matches!(stream.source, Source::Snapshot { .. });
        peer.collected.extend_from_slice(&slice.bytes);
        if slice.next != Source::log(live.durable)
            && let Some(rest) = live.last.since(&slice.next)
        {
            peer.collected.extend_from_slice(&rest);
        } else if slice.next != Source::log(live.durable) {
            let source = slice.next;
            return self.go_on(session, Stream { source, greeting: None }, out);
        }
        self.peer_arrived(session, out);
    }

    /// What was being read is compacted away.
    pub(super) fn collect_anew(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        if let Some(peer) = self.peer_mut(session) {
            (peer.collected, peer.is_whole) = (Vec::new(), false);
        }
        let Phase::Live(live) = &self.phase else { return };
        let (source, _) = live.way_from(None, &[]);
        self.go_on(session, Stream { source, greeting: None }, out);
    }

    /// Sends a peer what was collected, and where we are; from now on it gets every batch.
    pub(super) fn peer_arrived(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let (Phase::Live(live), Some(member)) = (&self.phase, self.members.get_mut(&session)) else {
            return;
        };
        let Some(peer) = member.peer.as_mut() else { return };
        if peer.is_whole && !peer.told.reads_whole {
            return self.dismiss(session, ClosedCode::Unavailable, out);
        }
        let heads: Vec<ChangeHash> = live.heads.iter().copied().collect();
        let collected = std::mem::take(&mut peer.collected);
        let data = if peer.is_whole {
            encode_whole(&heads, &collected)
        } else {
            encode_sync(&heads, split_chunks(&collected).into_iter())
        };
        peer.is_whole = false;
        peer.owes_answer = false;
        peer.asked_at = peer.told.heads.clone();
        let frame = peer.sync(&self.document, data.into());
        out.push(Effect::Reply { to: session, frame });
        if !member.is_live() {
            self.set_standing(session, Standing::Live);
        }
        self.answer(session, out);
    }

    /// A batch is on disk. All peers that are up to date get the same message, but for who made some of it.
    pub(super) fn tell_peers(&mut self, begins: Position, entries: &[Entry], out: &mut Vec<Effect>) {
        if !self.has_peers() {
            return;
        }
        let Phase::Live(live) = &self.phase else { return };
        let heads: Vec<ChangeHash> = live.heads.iter().copied().collect();
        let encode = |except: Option<SessionId>| -> Bytes {
            let changes = entries.iter().filter(|entry| Some(entry.session) != except);
            encode_sync(&heads, changes.map(|entry| &entry.change[..])).into()
        };
        let authors: BTreeSet<SessionId> = entries.iter().map(|entry| entry.session).collect();
        let mut for_readers: Option<Bytes> = None;
        let mut by_parts = Vec::new();
        for (session, member) in self.members.iter_mut().filter(|(_, member)| member.is_live()) {
            let Some(peer) = member.peer.as_mut() else { continue };
            let all_its_own = authors.len() == 1 && authors.contains(session);
            if all_its_own && peer.edits > entries.len() as u64 {
                // Nothing in it is news to the peer, and more of its message is on the way to the disk.
                peer.owes_answer = true;
                continue;
            }
            let data = if authors.contains(session) {
                encode(Some(*session))
            } else {
                for_readers.get_or_insert_with(|| encode(None)).clone()
            };
            if data.len() as u64 > self.limits.send_queue_bytes_max {
                by_parts.push(*session);
                continue;
            }
            peer.owes_answer = false;
            peer.asked_at = peer.told.heads.clone();
            out.push(Effect::Broadcast {
                to: peer.audience.clone(),
                except: None,
                frame: peer.sync(&self.document, data),
                begins: Some(begins),
            });
        }
        for session in by_parts {
            let source = Source::log(begins);
            self.go_on(session, Stream { source, greeting: None }, out);
        }
    }

    /// Asks for changes that could not be taken, of the peers whose time has come.
    pub(super) fn ask_peers_again(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &self.phase else { return };
        self.asking.retain(|session| {
            let Some(member) = self.members.get_mut(session) else {
                return false;
            };
            let is_live = member.is_live();
            let Some(peer) = member.peer.as_mut() else { return false };
            if !is_live || peer.ask_again.is_none_or(|at| at > now) {
                return true;
            }
            peer.ask_again = None;
            peer.asked += 1;
            let heads: Vec<ChangeHash> = live.heads.iter().copied().collect();
            let frame = peer.sync(&self.document, encode_again(&heads).into());
            out.push(Effect::Reply { to: *session, frame });
            false
        });
    }

    /// When [`Room::ask_peers_again`] has something to do.
    pub(super) fn next_asking(&self) -> Option<Time> {
        let asking = self.asking.iter().filter_map(|session| self.members.get(session));
        let peers = asking
            .filter(|member| member.is_live())
            .filter_map(|member| member.peer.as_ref());
        peers.filter_map(|peer| peer.ask_again).min()
    }

    pub(super) fn peer_mut(&mut self, session: SessionId) -> Option<&mut Peer> {
        self.members.get_mut(&session)?.peer.as_deref_mut()
    }
}

impl Live {
    /// Where the way to the present begins for a replica that has these changes and all that they stand on: at the first
    /// change of the log that is none of them. A replica of which nothing is known to be ours gets the whole document.
    fn way_for(&self, told: &Told) -> Source {
        let graph = self.pipeline.index.graph();
        let has_all = self.log_start == Position::new(0);
        let from_nothing = || match self.way_from(None, &[]).0 {
            Source::Snapshot { .. } if has_all && !told.reads_whole => Source::log(self.log_start),
            source => source,
        };
        let known = told.heads.iter().chain(&told.shared);
        if !known.clone().any(|hash| graph.position(hash).is_some()) {
            return from_nothing();
        }
        let Some(position) = graph.first_unseen(known) else {
            return from_nothing();
        };
        let position = Position::new(position.into());
        let needed: Option<Vec<u32>> = told.need.iter().map(|hash| graph.position(hash)).collect();
        let Some(needed) = needed else { return from_nothing() };
        let needed = needed.into_iter().map(|position| Position::new(position.into()));
        let cursor = Cursor {
            epoch: self.epoch,
            position: needed.fold(position, Position::min).min(self.durable),
        };
        self.way_from(Some(cursor), &[]).0
    }

    /// Whether a replica is to get the whole document, and may get it as one.
    fn gives_whole(&self, told: &Told) -> bool {
        told.reads_whole
            && match self.way_for(told) {
                Source::Snapshot { .. } => true,
                Source::Log { from, .. } => from == Position::new(0),
            }
    }
}
