//! A connection that speaks the repo dialect: verifying, greeting, live, closed.
//!
//! The token came with the upgrade, and the first message names the peer. From then on a message counts only if it names the
//! same sender. A peer never leaves a document, so that a room that ends is joined again. A document that comes as a whole is
//! taken apart, and goes on as if its changes had come one by one.

use super::{AuthorisedEdit, Effect, Event, refused_unsaid, unavailable};
use crate::engine::{
    gate::Refusal,
    grant::Grant,
    presence::Person,
    rate::Bucket,
    room::{self, Forms, Join, JoinedPeer, Told, Waits},
    time::Time,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use syncline_protocol::{
    CloseCode, DocumentId, EditId, Limits, RoomNumber, SessionId,
    native::{Access, ClosedCode},
    repo::{Ephemeral, PeerId, PeerMetadata, REPO_VERSION, RepoMessage, STORAGE_IDS_MAX, Sync, SyncMessage},
};

/// Documents of one connection; one more is not available. Peers never leave a document, so this is larger than the native
/// dialect's limit, and the rooms' memory budget holds as well.
const DOCUMENTS_MAX: usize = 1_024;
/// Ephemeral messages above this multiple of a presence state's limit are dropped.
const EPHEMERAL_SIZE_FACTOR: u64 = 16;
/// Messages without changes are allowed at this multiple of the rate of edits: every diff is answered by one.
const ANSWERS_FACTOR: u64 = 10;
/// So many rooms are told something at the cost of one edit.
const ROOMS_PER_EDIT: usize = 16;
/// The first pause before a room is joined again; doubled each time.
const REJOIN_MS: u64 = 500;
/// The longest such pause.
const REJOIN_MS_MAX: u64 = 30_000;

/// What the server calls itself in the repo dialect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoServer {
    /// Its peer id.
    pub peer: PeerId,
    /// The id of its storage: the same for as long as the data directory is.
    pub storage_id: String,
    /// The unix time in milliseconds at which the engine's clock stood at zero.
    pub unix_ms_at_zero: u64,
}

/// One connection.
#[derive(Debug)]
pub(super) struct RepoSession {
    id: SessionId,
    limits: Arc<Limits>,
    host: Arc<RepoServer>,
    deadline: Time,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The token is being verified.
    Verifying,
    /// The token is good; `join` is awaited.
    Greeting { grant: Grant, expires: Option<Time> },
    /// `join` came; the peer's name is being claimed.
    Claiming(Box<Live>),
    /// Admitted.
    Live(Box<Live>),
    /// Over.
    Closed,
}

#[derive(Debug)]
struct Live {
    peer: PeerId,
    /// Its storage, if it has one that lasts.
    storage_id: Option<String>,
    /// The storages that it follows.
    follows: Arc<BTreeSet<String>>,
    grant: Grant,
    person: Arc<Person>,
    /// What waits of its edits for others, in all its rooms.
    waits: Arc<Waits>,
    expires: Option<Time>,
    documents: BTreeMap<DocumentId, Opened>,
    edits: Bucket,
    answers: Bucket,
    presence: Bucket,
    last_edit: u64,
    /// What is to be told to the room that is being joined.
    parting: Vec<room::Event>,
    /// The last ephemeral message's session and count.
    last_ephemeral: Option<(String, u64)>,
    /// What came with the document that is being taken apart.
    unpacking: Option<Box<Offer>>,
    /// Documents that inflated past the limit.
    inflated: u32,
}

/// A sync message about a document that the peer has a grant for.
#[derive(Debug)]
struct Offer {
    document: DocumentId,
    access: Access,
    message: SyncMessage,
    is_request: bool,
}

/// A document that the peer has named.
#[derive(Debug)]
struct Opened {
    access: Access,
    room: Option<RoomNumber>,
    rejoin: Option<Time>,
    pause_ms: u64,
}

impl RepoSession {
    pub(super) fn new(id: SessionId, limits: Arc<Limits>, host: Arc<RepoServer>, now: Time) -> Self {
        let deadline = now.plus_ms(limits.handshake_timeout_ms);
        Self {
            id,
            limits,
            host,
            deadline,
            state: State::Verifying,
        }
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn next_wakeup(&self) -> Option<Time> {
        match &self.state {
            State::Greeting { .. } => Some(self.deadline),
            State::Live(live) => {
                let rejoins = live.documents.values().filter_map(|document| document.rejoin);
                rejoins.chain(live.expires).min()
            }
            State::Verifying | State::Claiming(_) | State::Closed => None,
        }
    }

    pub(super) fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Accepted { token } => out.push(Effect::Verify { token }),
            Event::Admitted { grant, expires } => {
                if matches!(self.state, State::Verifying) {
                    self.state = State::Greeting { grant, expires };
                }
            }
            Event::Claimed { owns_storage } => self.claimed(owns_storage, out),
            Event::Received(frame) => self.received(now, &frame, out),
            Event::Unpacked(result) => self.unpacked(now, result, out),
            Event::Refused { code, text } => self.close(code, text, out),
            Event::Bound { document, room } => {
                if let State::Live(live) = &mut self.state {
                    live.bound(&document, room, out);
                }
            }
            Event::Unbound { document } => {
                if let State::Live(live) = &mut self.state {
                    live.parting.clear();
                    live.lost(now, &document);
                    let code = ClosedCode::Unavailable;
                    out.push(unavailable(&self.host, &live.peer, document.as_str(), code));
                }
            }
            Event::Dismissed { room } => {
                if let State::Live(live) = &mut self.state {
                    live.dismissed(now, room);
                }
            }
            Event::Woke => self.woke(now, out),
        }
    }

    fn received(&mut self, now: Time, frame: &Bytes, out: &mut Vec<Effect>) {
        let message = match RepoMessage::decode(frame) {
            Ok(message) => message,
            Err(error) => return self.close(CloseCode::Malformed, error.to_string(), out),
        };
        match (&mut self.state, message) {
            (
                State::Greeting { .. },
                RepoMessage::Join {
                    sender,
                    metadata,
                    versions,
                },
            ) => {
                self.join(now, sender, metadata, versions.as_deref(), out);
            }
            (State::Greeting { .. }, _) => self.close(CloseCode::Malformed, "the first message must be join", out),
            (State::Live(live), message) => {
                if let Err((code, text)) = live.received(now, self.id, &self.limits, &self.host, message, out) {
                    self.close(code, text, out);
                }
            }
            (State::Verifying | State::Claiming(_) | State::Closed, _) => {}
        }
    }

    fn unpacked(&mut self, now: Time, result: Result<Vec<Bytes>, Refusal>, out: &mut Vec<Effect>) {
        let State::Live(live) = &mut self.state else { return };
        let Some(offer) = live.unpacking.take() else { return };
        match result {
            Ok(changes) => live.offered(now, self.id, &self.host, *offer, changes, out),
            Err(Refusal::Dishonest(text)) => self.close(CloseCode::Dishonest, text, out),
            Err(Refusal::Inflates) if live.inflates_too_often() => {
                self.close(CloseCode::Dishonest, "too many documents inflate past the limit", out);
            }
            // What is too large is passed over, and so is what Automerge loads no more.
            Err(_) => live.offered(now, self.id, &self.host, *offer, Vec::new(), out),
        }
    }

    fn join(
        &mut self,
        now: Time,
        peer: PeerId,
        metadata: PeerMetadata,
        versions: Option<&[String]>,
        out: &mut Vec<Effect>,
    ) {
        if versions.is_some_and(|versions| versions.iter().all(|version| version != REPO_VERSION)) {
            return self.close(CloseCode::Malformed, "unsupported protocol version", out);
        }
        let State::Greeting { grant, expires } = std::mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        if peer == self.host.peer || peer.as_str().starts_with(room::NATIVE_PEER_PREFIX) {
            return self.close(CloseCode::Forbidden, "this peer id is the server's to use", out);
        }
        out.push(Effect::Claim {
            peer: peer.clone(),
            storage_id: metadata.storage_id.clone(),
            subject: grant.subject.clone(),
        });
        let mut live = Live::new(now, peer, grant, expires, &self.limits);
        live.storage_id = metadata.storage_id.filter(|_| !metadata.is_ephemeral);
        self.state = State::Claiming(Box::new(live));
    }

    fn claimed(&mut self, owns_storage: bool, out: &mut Vec<Effect>) {
        let State::Claiming(mut live) = std::mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        live.storage_id = live.storage_id.filter(|_| owns_storage);
        let answer = RepoMessage::Peer {
            sender: self.host.peer.clone(),
            target: live.peer.clone(),
            metadata: PeerMetadata {
                storage_id: Some(self.host.storage_id.clone()),
                is_ephemeral: false,
            },
            version: REPO_VERSION.to_owned(),
        };
        out.push(Effect::Send(answer.encode()));
        self.state = State::Live(live);
    }

    fn woke(&mut self, now: Time, out: &mut Vec<Effect>) {
        match &mut self.state {
            State::Greeting { .. } if self.deadline <= now => {
                self.close(CloseCode::TooSlow, "no join came in time", out);
            }
            State::Live(live) if live.expires.is_some_and(|expires| expires <= now) => {
                self.close(
                    CloseCode::Unauthorized,
                    "the token has expired; connect with a new one",
                    out,
                );
            }
            State::Live(live) => live.rejoin(now, self.id, &self.host, out),
            State::Greeting { .. } | State::Verifying | State::Claiming(_) | State::Closed => {}
        }
    }

    fn close(&mut self, code: CloseCode, text: impl Into<String>, out: &mut Vec<Effect>) {
        let text = text.into();
        let target = match &self.state {
            State::Live(live) | State::Claiming(live) => Some(live.peer.clone()),
            _ => None,
        };
        self.state = State::Closed;
        let error = RepoMessage::Error {
            sender: self.host.peer.clone(),
            target,
            message: text.clone(),
        };
        out.push(Effect::Send(error.encode()));
        out.push(Effect::Close { code, text });
    }
}

/// Why a live session has to end.
type Fault = (CloseCode, String);

impl Live {
    fn new(now: Time, peer: PeerId, grant: Grant, expires: Option<Time>, limits: &Limits) -> Self {
        let person = Person {
            subject: grant.subject.clone(),
            name: grant.name.as_deref().map(Arc::from),
        };
        let answers = |number: u64| number.saturating_mul(ANSWERS_FACTOR);
        Self {
            peer,
            storage_id: None,
            follows: Arc::default(),
            grant,
            person: Arc::new(person),
            waits: Arc::default(),
            expires,
            documents: BTreeMap::new(),
            edits: Bucket::new(limits.edits_per_second, limits.edits_burst, now),
            answers: Bucket::new(answers(limits.edits_per_second), answers(limits.edits_burst), now),
            presence: Bucket::new(limits.presence_per_second, limits.presence_per_second, now),
            last_edit: 0,
            parting: Vec::new(),
            last_ephemeral: None,
            unpacking: None,
            inflated: 0,
        }
    }

    /// Counts a document that inflated past the limit; whether there were too many.
    fn inflates_too_often(&mut self) -> bool {
        self.inflated += 1;
        self.inflated > room::INFLATED_MAX
    }

    fn received(
        &mut self,
        now: Time,
        session: SessionId,
        limits: &Limits,
        host: &Arc<RepoServer>,
        message: RepoMessage,
        out: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        match message {
            RepoMessage::Sync(sync) if sync.sender == self.peer => self.sync(now, session, host, sync, false, out)?,
            RepoMessage::Request(sync) if sync.sender == self.peer => {
                self.sync(now, session, host, sync, true, out)?;
            }
            RepoMessage::Ephemeral(ephemeral) if ephemeral.sender == self.peer => {
                self.ephemeral(now, session, limits, ephemeral, out);
            }
            RepoMessage::RemoteSubscriptionChange {
                sender, add, remove, ..
            } if sender == self.peer => self.follow(now, session, add, &remove, out),
            RepoMessage::Leave { sender } if sender == self.peer => {
                out.push(Effect::Close {
                    code: CloseCode::GoingAway,
                    text: "left".to_owned(),
                });
            }
            // Nobody speaks for another; a second join and what only a server says mean nothing here. Clients send every
            // ephemeral message back that they get.
            _ => out.extend(self.answers.take(now).map(|until| Effect::Pause { until })),
        }
        Ok(())
    }

    fn sync(
        &mut self,
        now: Time,
        session: SessionId,
        host: &Arc<RepoServer>,
        sync: Sync,
        is_request: bool,
        out: &mut Vec<Effect>,
    ) -> Result<(), Fault> {
        let message = SyncMessage::decode(&sync.data).map_err(|error| (CloseCode::Malformed, error.to_string()))?;
        let document = sync.document.parse::<DocumentId>().ok();
        let access = document.as_ref().and_then(|document| self.grant.access(document));
        let (Some(document), Some(access)) = (document, access) else {
            out.push(unavailable(host, &self.peer, &sync.document, ClosedCode::Forbidden));
            return Ok(());
        };
        // A message holds one document and changes behind it, if it holds any.
        let whole = message.documents.first().filter(|_| access == Access::Write).cloned();
        let offer = Offer {
            document,
            access,
            message,
            is_request,
        };
        match whole {
            Some(document) => {
                self.unpacking = Some(Box::new(offer));
                out.push(Effect::Unpack { document });
            }
            None => self.offered(now, session, host, offer, Vec::new(), out),
        }
        Ok(())
    }

    /// Tells the document's room what the peer says, and hands it the changes: those of the document that came, then the others.
    fn offered(
        &mut self,
        now: Time,
        session: SessionId,
        host: &Arc<RepoServer>,
        offer: Offer,
        mut changes: Vec<Bytes>,
        out: &mut Vec<Effect>,
    ) {
        let Offer {
            document,
            access,
            message,
            is_request,
        } = offer;
        // A reader's changes stay in his replica. Slices of the frame would keep all of it in memory.
        if access == Access::Write {
            changes.extend(message.changes.iter().map(|change| Bytes::copy_from_slice(change)));
        } else {
            out.extend(refused_unsaid(&message));
        }
        let bucket = if changes.is_empty() {
            &mut self.answers
        } else {
            &mut self.edits
        };
        let wait = bucket.take(now);
        let mut events = vec![room::Event::Synced {
            session,
            told: Box::new(Told::new(message, is_request)),
            edits: changes.len() as u64,
        }];
        for change in changes {
            self.last_edit += 1;
            let id = EditId::new(self.last_edit);
            let subject = self.grant.subject.clone();
            events.push(room::Event::Edited(AuthorisedEdit::new(
                session,
                subject,
                id,
                vec![change],
            )));
        }
        match self.documents.get(&document) {
            Some(Opened { room: Some(room), .. }) => {
                let room = *room;
                out.extend(events.into_iter().map(|event| Effect::Tell { room, event }));
            }
            None if self.documents.len() >= DOCUMENTS_MAX => {
                out.push(unavailable(host, &self.peer, document.as_str(), ClosedCode::Limit));
            }
            Some(Opened { room: None, .. }) | None => {
                self.parting = events;
                let opened = self.documents.entry(document.clone()).or_insert(Opened {
                    access,
                    room: None,
                    rejoin: None,
                    pause_ms: REJOIN_MS,
                });
                opened.rejoin = None;
                out.push(self.join(session, host, document, access, false));
            }
        }
        out.extend(wait.map(|until| Effect::Pause { until }));
    }

    fn join(
        &self,
        session: SessionId,
        host: &Arc<RepoServer>,
        document: DocumentId,
        access: Access,
        again: bool,
    ) -> Effect {
        let join = Join {
            session,
            person: self.person.clone(),
            access,
            cursor: None,
            heads: Vec::new(),
            forms: Forms::default(),
            peer: Some(Box::new(JoinedPeer {
                id: self.peer.clone(),
                host: host.clone(),
                storage_id: self.storage_id.clone(),
                follows: self.follows.clone(),
                again,
            })),
            waits: self.waits.clone(),
        };
        Effect::Join { document, join }
    }

    fn bound(&mut self, document: &DocumentId, room: RoomNumber, out: &mut Vec<Effect>) {
        if let Some(opened) = self.documents.get_mut(document) {
            opened.room = Some(room);
        }
        let events = std::mem::take(&mut self.parting);
        out.extend(events.into_iter().map(|event| Effect::Tell { room, event }));
    }

    fn dismissed(&mut self, now: Time, room: RoomNumber) {
        let document = self.documents.iter().find(|(_, opened)| opened.room == Some(room));
        if let Some(document) = document.map(|(document, _)| document.clone()) {
            self.lost(now, &document);
        }
    }

    /// The session is not in the document's room any more, and comes back later.
    fn lost(&mut self, now: Time, document: &DocumentId) {
        if let Some(opened) = self.documents.get_mut(document) {
            opened.room = None;
            opened.rejoin = Some(now.plus_ms(opened.pause_ms));
            opened.pause_ms = (opened.pause_ms * 2).min(REJOIN_MS_MAX);
        }
    }

    /// Joins one room whose time has come; the answer leads to the next.
    fn rejoin(&mut self, now: Time, session: SessionId, host: &Arc<RepoServer>, out: &mut Vec<Effect>) {
        let due = |opened: &Opened| opened.rejoin.is_some_and(|at| at <= now);
        let Some((document, opened)) = self.documents.iter_mut().find(|(_, opened)| due(opened)) else {
            return;
        };
        opened.rejoin = None;
        let (document, access) = (document.clone(), opened.access);
        self.parting.clear();
        out.push(self.join(session, host, document, access, true));
    }

    /// Follows further storages and some no more; of those beyond the limit it hears nothing.
    fn follow(&mut self, now: Time, session: SessionId, add: Vec<String>, remove: &[String], out: &mut Vec<Effect>) {
        // Every room of the peer hears of it.
        let cost = 1 + self.documents.len() / ROOMS_PER_EDIT;
        let wait = (0..cost).filter_map(|_| self.edits.take(now)).last();
        out.extend(wait.map(|until| Effect::Pause { until }));
        let mut follows = BTreeSet::clone(&self.follows);
        remove.iter().for_each(|storage_id| {
            follows.remove(storage_id);
        });
        follows.extend(add);
        while follows.len() > STORAGE_IDS_MAX {
            follows.pop_last();
        }
        self.follows = Arc::new(follows);
        for room in self.documents.values().filter_map(|document| document.room) {
            let storages = self.follows.clone();
            out.push(Effect::Tell {
                room,
                event: room::Event::Followed { session, storages },
            });
        }
    }

    /// A repeated or oversized message, or one about a document that the peer has not opened, is dropped.
    fn ephemeral(
        &mut self,
        now: Time,
        session: SessionId,
        limits: &Limits,
        ephemeral: Ephemeral,
        out: &mut Vec<Effect>,
    ) {
        out.extend(self.presence.take(now).map(|until| Effect::Pause { until }));
        let bytes_max = limits.presence_bytes_max.saturating_mul(EPHEMERAL_SIZE_FACTOR);
        let repeated = self
            .last_ephemeral
            .as_ref()
            .is_some_and(|(last, count)| *last == ephemeral.session && *count >= ephemeral.count);
        if repeated || ephemeral.data.len() as u64 > bytes_max {
            return;
        }
        self.last_ephemeral = Some((ephemeral.session.clone(), ephemeral.count));
        let document = ephemeral.document.parse::<DocumentId>().ok();
        let room = document.and_then(|document| self.documents.get(&document)?.room);
        if let Some(room) = room {
            // A slice of the frame would keep all of it in memory.
            let ephemeral = Box::new(Ephemeral {
                data: Bytes::copy_from_slice(&ephemeral.data),
                ..ephemeral
            });
            out.push(Effect::Tell {
                room,
                event: room::Event::Broadcast { session, ephemeral },
            });
        }
    }
}
