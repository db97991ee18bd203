//! Peers of the repo dialect against Automerge's own sync: random histories over connections that break, a store that fails,
//! memory that is short and queues that are full end where Automerge would have brought everybody.

use super::{document, empty};
use crate::engine::{
    gate::{self, Subject, Whole},
    grant::Grant,
    room::{Effect, Event, ReadFailure, Room, Slice, Snapshot, Source, Tuning},
    session::{self, RepoServer, Session},
    time::Time,
};
use automerge::{
    ActorId, Automerge, ROOT,
    sync::{Message, MessageFlags, State, SyncDoc},
    transaction::Transactable,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use syncline_protocol::{
    Limits, Position, RoomNumber, SessionId,
    native::Packing,
    repo::{PeerId, PeerMetadata, REPO_VERSION, RepoMessage, Sync},
};

const CLIENTS: usize = 3;
const STEPS: usize = 400;
const SEEDS: u64 = 60;
/// Rounds in which everything is delivered before a history counts as stuck.
const ROUNDS_MAX: usize = 400;

/// A fault in the server, to prove that the test sees one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutation {
    None,
    /// A batch does not reach a peer, and the room is not told.
    LoseBatch,
    /// A catch-up begins one change too late.
    SkipFirstRead,
}

pub(super) struct World {
    pub(super) room: Room,
    now: Time,
    pub(super) limits: Arc<Limits>,
    host: Arc<RepoServer>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) clients: Vec<Client>,
    pub(super) log: Vec<Bytes>,
    in_flight: Option<Vec<Bytes>>,
    /// What the shell has to tell the room.
    pub(super) due: VecDeque<Event>,
    /// What the room wants done besides.
    pub(super) wanted: Vec<Effect>,
    random: u64,
    mutation: Mutation,
    calm: bool,
    /// Changes that came in whole documents.
    unpacked: usize,
}

pub(super) struct Link {
    session: Session,
    pub(super) to_client: VecDeque<Bytes>,
    to_server: VecDeque<Bytes>,
}

pub(super) struct Client {
    document: Automerge,
    state: State,
    pub(super) link: Option<u64>,
    /// It takes the server for one that reads whole documents, and sends them.
    is_bold: bool,
}

impl World {
    pub(super) fn new(seed: u64, mutation: Mutation) -> Self {
        let (limits, now, mut out) = (Arc::new(Limits::default()), Time::from_ms(1_000), Vec::new());
        let room = Room::new(
            RoomNumber::new(1),
            document(),
            limits.clone(),
            Tuning::default(),
            now,
            &mut out,
        );
        let client = |actor: usize| Client {
            document: Automerge::new().with_actor(ActorId::from([actor as u8 + 1; 16])),
            state: State::new(),
            link: None,
            is_bold: actor == 0 && seed.is_multiple_of(2),
        };
        let host = RepoServer {
            peer: PeerId::new("server").unwrap(),
            storage_id: "storage".into(),
            unix_ms_at_zero: 0,
        };
        Self {
            room,
            now,
            limits,
            host: Arc::new(host),
            links: BTreeMap::new(),
            clients: (0..CLIENTS).map(client).collect(),
            log: Vec::new(),
            in_flight: None,
            due: [Event::Loaded(Box::new(empty()))].into(),
            wanted: Vec::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            mutation,
            calm: false,
            unpacked: 0,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % end as u64) as usize
    }

    fn chance(&mut self, percent: usize) -> bool {
        !self.calm && self.below(100) < percent
    }

    fn step(&mut self) {
        let client = self.below(CLIENTS);
        match self.below(12) {
            0 | 1 => self.edit(client),
            2 => self.connect(client),
            3 if self.chance(20) => self.disconnect(client),
            4..=6 => self.deliver_to_server(client),
            7..=9 => self.deliver_to_client(client),
            10 => self.store(),
            _ => self.tell_room(),
        }
        if self.chance(10) {
            self.pass(300);
        }
    }

    fn edit(&mut self, client: usize) {
        let key = format!("{}", self.below(20));
        let document = &mut self.clients[client].document;
        let mut transaction = document.transaction();
        transaction.put(ROOT, key, self.random as i64).unwrap();
        transaction.commit();
        self.offer(client);
    }

    pub(super) fn connect(&mut self, client: usize) {
        if self.clients[client].link.is_some() {
            return;
        }
        let id = self.links.keys().last().copied().unwrap_or(0) + 1;
        let session = Session::repo(SessionId::new(id), self.limits.clone(), self.host.clone(), self.now);
        let forgets = self.chance(30);
        let one = &mut self.clients[client];
        one.link = Some(id);
        one.state = if forgets {
            State::new()
        } else {
            State::decode(&one.state.encode()).unwrap()
        };
        let link = Link {
            session,
            to_client: VecDeque::new(),
            to_server: VecDeque::new(),
        };
        self.links.insert(id, link);
        self.feed(id, session::Event::Accepted { token: None });
        let join = RepoMessage::Join {
            sender: peer(client),
            metadata: PeerMetadata::default(),
            versions: Some(vec![REPO_VERSION.to_owned()]),
        };
        self.feed(id, session::Event::Received(join.encode()));
        self.offer(client);
    }

    pub(super) fn disconnect(&mut self, client: usize) {
        if let Some(id) = self.clients[client].link.take() {
            self.links.remove(&id);
            self.tell(Event::Left {
                session: SessionId::new(id),
            });
        }
    }

    /// What the client has to say goes on its way.
    fn offer(&mut self, client: usize) {
        let one = &mut self.clients[client];
        let Some(link) = one.link.and_then(|id| self.links.get_mut(&id)) else {
            return;
        };
        let Some(message) = one.document.generate_sync_message(&mut one.state) else {
            return;
        };
        let sync = Sync {
            sender: peer(client),
            target: None,
            document: document().to_string(),
            data: message.encode().into(),
        };
        let is_request = one.document.get_heads().is_empty();
        let message = if is_request {
            RepoMessage::Request(sync)
        } else {
            RepoMessage::Sync(sync)
        };
        link.to_server.push_back(message.encode());
    }

    pub(super) fn deliver_to_server(&mut self, client: usize) {
        let Some(id) = self.clients[client].link else { return };
        let frame = self.links.get_mut(&id).and_then(|link| link.to_server.pop_front());
        if let Some(frame) = frame {
            self.feed(id, session::Event::Received(frame));
            self.settle();
        }
    }

    fn deliver_to_client(&mut self, client: usize) {
        let one = &mut self.clients[client];
        let Some(link) = one.link.and_then(|id| self.links.get_mut(&id)) else {
            return;
        };
        let Some(frame) = link.to_client.pop_front() else {
            return;
        };
        if let Ok(RepoMessage::Sync(sync)) = RepoMessage::decode(&frame) {
            let mut message = Message::decode(&sync.data).unwrap();
            message.flags = one.is_bold.then(MessageFlags::new);
            one.document.receive_sync_message(&mut one.state, message).unwrap();
            self.offer(client);
        }
    }

    /// The batch in flight is stored, or is not.
    fn store(&mut self) {
        let Some(batch) = self.in_flight.take() else { return };
        let event = if self.chance(10) {
            Event::StoreFailed
        } else {
            self.log.extend(batch);
            Event::Stored
        };
        self.tell(event);
    }

    pub(super) fn tell_room(&mut self) {
        if let Some(event) = self.due.pop_front() {
            self.tell(event);
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        let mut out = Vec::new();
        self.room.handle(self.now, event, &mut out);
        self.perform(out);
        self.settle();
    }

    fn settle(&mut self) {
        let mut out = Vec::new();
        self.room.settle(self.now, &mut out);
        self.perform(out);
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        let ids: Vec<u64> = self.links.keys().copied().collect();
        ids.into_iter().for_each(|id| self.feed(id, session::Event::Woke));
        self.tell(Event::Woke);
    }

    fn feed(&mut self, id: u64, event: session::Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let mut out = Vec::new();
            let Some(link) = self.links.get_mut(&id) else { return };
            link.session.handle(self.now, event, &mut out);
            for effect in out {
                let link = self.links.get_mut(&id).unwrap();
                match effect {
                    session::Effect::Verify { .. } => events.push_back(session::Event::Admitted {
                        grant: Grant::development(),
                        expires: None,
                    }),
                    session::Effect::Claim { .. } => {
                        events.push_back(session::Event::Claimed { owns_storage: true });
                    }
                    session::Effect::Join { document, join } => {
                        let room = self.room.number();
                        events.push_back(session::Event::Bound { document, room });
                        self.tell(Event::Joined(join));
                    }
                    session::Effect::Tell { event, .. } => {
                        // Now and then there is no memory for an edit.
                        let event = match event {
                            Event::Edited(edit) if self.chance(5) => Event::PutOff(edit),
                            event => event,
                        };
                        let mut out = Vec::new();
                        self.room.handle(self.now, event, &mut out);
                        self.perform(out);
                    }
                    session::Effect::Unpack { document } => {
                        let changes = Whole::read(document, &self.limits).and_then(Whole::changes);
                        self.unpacked += changes.as_ref().map_or(0, Vec::len);
                        events.push_back(session::Event::Unpacked(changes));
                    }
                    session::Effect::Send(frame) | session::Effect::Closed { frame, .. } => {
                        link.to_client.push_back(frame);
                    }
                    session::Effect::Rejected { code, .. } => panic!("refused: {code}"),
                    session::Effect::Pause { .. } => {}
                    session::Effect::Close { text, .. } => panic!("closed: {text}"),
                }
            }
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(append) => {
                    self.in_flight = Some(append.entries.iter().map(|entry| entry.change.clone()).collect());
                }
                Effect::Read {
                    session,
                    ticket,
                    from,
                    to,
                    ..
                } => {
                    let result = self.read(from, to.number());
                    self.due.push_back(Event::Read {
                        session,
                        ticket,
                        result,
                    });
                }
                Effect::Reply { to, frame } | Effect::Part { to, frame } => self.send(to, frame),
                Effect::Broadcast { to, frame, begins, .. } => {
                    // Without native members their diff goes to nobody.
                    let Some(&session) = to.first() else { continue };
                    if self.mutation == Mutation::LoseBatch && self.below(20) == 0 {
                        continue;
                    }
                    match begins {
                        Some(at) if self.chance(15) => {
                            let lagged = Event::Lagged { session, at };
                            let mut out = Vec::new();
                            self.room.handle(self.now, lagged, &mut out);
                            self.perform(out);
                            self.due.push_back(Event::Drained { session });
                        }
                        Some(_) | None => self.send(session, frame),
                    }
                }
                Effect::Dismiss { session, frame } => self.send(session, frame),
                Effect::Disconnect { .. } | Effect::Close => panic!("nobody is sent away"),
                work => self.wanted.push(work),
            }
        }
    }

    /// A piece of the log that ends anywhere, also within a change.
    fn read(&mut self, from: Source, to: u64) -> Result<Slice, ReadFailure> {
        let Source::Log { from, offset } = from else {
            let bytes = Bytes::from(self.log.concat());
            return Ok(Slice {
                packing: Packing::Plain,
                plain_bytes: bytes.len() as u64,
                bytes,
                log_bytes_before: 0,
                next: Source::log(Position::new(to)),
            });
        };
        let first = from.number() as usize + usize::from(self.mutation == Mutation::SkipFirstRead && offset == 0);
        let whole: Vec<u8> = self.log[first.min(to as usize)..to as usize].concat()[offset as usize..].to_vec();
        let end = if self.chance(60) {
            1 + self.below(whole.len().max(1))
        } else {
            whole.len()
        };
        let bytes = Bytes::copy_from_slice(&whole[..end.min(whole.len())]);
        let (mut position, mut left) = (from, offset as usize + bytes.len());
        while let Some(change) = self.log.get(position.number() as usize)
            && left >= change.len()
            && position.number() < to
        {
            left -= change.len();
            position = position.plus(1);
        }
        let position = if self.mutation == Mutation::SkipFirstRead && bytes.len() == whole.len() {
            left = 0;
            Position::new(to)
        } else {
            position
        };
        Ok(Slice {
            packing: Packing::Plain,
            plain_bytes: bytes.len() as u64,
            bytes,
            log_bytes_before: 0,
            next: Source::Log {
                from: position,
                offset: left as u64,
            },
        })
    }

    fn send(&mut self, to: SessionId, frame: Bytes) {
        if let Some(link) = self.links.get_mut(&to.number()) {
            link.to_client.push_back(frame);
        }
    }

    /// Everybody connects, and everything arrives.
    fn calm_down(&mut self) -> Result<(), String> {
        self.calm = true;
        for _ in 0..ROUNDS_MAX {
            for client in 0..CLIENTS {
                self.connect(client);
                for _ in 0..10 {
                    self.deliver_to_server(client);
                    self.deliver_to_client(client);
                }
            }
            self.store();
            (0..10).for_each(|_| self.tell_room());
            self.pass(200);
        }
        let mut expected = Automerge::new();
        for client in &self.clients {
            expected.merge(&mut client.document.clone()).unwrap();
        }
        if self.log.len() != expected.get_changes(&[]).len() {
            return Err(format!("the log has {} changes", self.log.len()));
        }
        match self
            .clients
            .iter()
            .position(|client| client.document.get_heads() != expected.get_heads())
        {
            Some(client) => Err(format!("client {client} has other heads")),
            None => Ok(()),
        }
    }
}

fn peer(client: usize) -> PeerId {
    PeerId::new(&format!("client {client}")).unwrap()
}

/// One history; where Automerge's own sync takes the same replicas is where they have to be. How many changes came in whole
/// documents.
fn run(seed: u64, mutation: Mutation) -> Result<usize, String> {
    let mut world = World::new(seed, mutation);
    (0..STEPS).for_each(|_| world.step());
    let mut theirs: Vec<Automerge> = world.clients.iter().map(|client| client.document.clone()).collect();
    let mut hub = Automerge::new();
    for change in &world.log {
        let change = automerge::Change::from_bytes(change.to_vec()).unwrap();
        hub.apply_changes([change]).unwrap();
    }
    world.calm_down()?;
    for _ in 0..2 {
        theirs.iter_mut().for_each(|replica| sync(&mut hub, replica));
    }
    if hub.get_heads() != world.clients[0].document.get_heads() {
        return Err("Automerge ends elsewhere".into());
    }
    Ok(world.unpacked)
}

fn sync(one: &mut Automerge, other: &mut Automerge) {
    let (mut mine, mut theirs) = (State::new(), State::new());
    loop {
        let (sent, answered) = (
            one.generate_sync_message(&mut mine),
            other.generate_sync_message(&mut theirs),
        );
        if sent.is_none() && answered.is_none() {
            return;
        }
        if let Some(message) = sent {
            other.receive_sync_message(&mut theirs, message).unwrap();
        }
        if let Some(message) = answered {
            one.receive_sync_message(&mut mine, message).unwrap();
        }
    }
}

#[test]
fn a10_a11_a13_a14_a22_a24_random_histories_end_where_automerges_own_sync_ends() {
    let mut unpacked = 0;
    for seed in 1..=SEEDS {
        match run(seed, Mutation::None) {
            Ok(more) => unpacked += more,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(unpacked > 100, "{unpacked} changes came in whole documents");
}

/// A peer that knows no flags asks for a document of which all is in the snapshot and the log begins here: what it is told.
fn what_an_old_peer_is_told(log_start: u64) -> RepoMessage {
    let mut document = Automerge::new().with_actor(ActorId::from([1; 16]));
    let mut transaction = document.transaction();
    transaction.put(ROOT, "key", 1).unwrap();
    transaction.commit();
    let change = Bytes::copy_from_slice(document.get_changes(&[])[0].raw_bytes());
    let mut world = World::new(1, Mutation::None);
    let mut loaded = empty();
    let header = gate::read(change.clone(), &world.limits).unwrap();
    loaded
        .index
        .admit(&gate::decode(header).unwrap(), &Subject("ada".into()));
    loaded.snapshot = Some(Snapshot {
        generation: 1,
        position: Position::new(1),
        bytes: 1,
        log_bytes: 1,
        log_start: Position::new(log_start),
    });
    loaded.log_start = Position::new(log_start);
    world.due = [Event::Loaded(Box::new(loaded))].into();
    world.log = vec![change];
    world.tell_room();
    world.connect(0);
    let link = world.clients[0].link.unwrap();
    for _ in 0..ROUNDS_MAX {
        let link = world.links.get_mut(&link).unwrap();
        // What the client says, without the section of flags that ends it.
        for frame in &mut link.to_server {
            if let Ok(RepoMessage::Request(mut sync)) = RepoMessage::decode(frame) {
                let mut message = Message::decode(&sync.data).unwrap();
                message.flags = None;
                sync.data = message.encode().into();
                *frame = RepoMessage::Request(sync).encode();
            }
        }
        let heard = link.to_client.iter().map(|frame| RepoMessage::decode(frame).unwrap());
        let answer = heard
            .into_iter()
            .find(|message| !matches!(message, RepoMessage::Peer { .. }));
        if let Some(answer) = answer {
            return answer;
        }
        world.deliver_to_server(0);
        world.tell_room();
    }
    panic!("no answer");
}

#[test]
fn a12_a_peer_that_knows_no_flags_gets_the_log_or_nothing() {
    match what_an_old_peer_is_told(0) {
        RepoMessage::Sync(sync) => assert_eq!(sync.data[0], 0x42, "change by change"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        what_an_old_peer_is_told(1),
        RepoMessage::DocUnavailable { .. }
    ));
}

#[test]
fn a_planted_fault_is_seen() {
    for mutation in [Mutation::LoseBatch, Mutation::SkipFirstRead] {
        let seen = (1..=SEEDS).any(|seed| {
            let run = std::panic::AssertUnwindSafe(|| run(seed, mutation));
            !matches!(std::panic::catch_unwind(run), Ok(Ok(_)))
        });
        assert!(seen, "{mutation:?} goes unnoticed");
    }
}
