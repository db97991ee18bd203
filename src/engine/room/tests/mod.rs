//! A room on the bench: its members speak through real sessions, and the test plays the store and the sockets.

mod admission;
mod catchup;
mod newcomers;
mod peers;
mod round;
mod upkeep;

use super::{Effect, Event, Loaded, Room, Ticket, Tuning};
use crate::engine::{
    grant::Grant,
    index::Index,
    session::{self, Session},
    time::Time,
};
use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use syncline_protocol::{
    Cursor, DocumentId, EditId, Epoch, Limits, Position, RoomNumber, SessionId,
    native::{ClientMessage, Edit, Hello, Open, ServerMessage, decode_server},
};

const ROOM: RoomNumber = RoomNumber::new(1);
const EPOCH: Epoch = Epoch::new(99);

/// A room, its members' sessions, and every effect that is not a frame to one member.
struct Bench {
    room: Room,
    now: Time,
    limits: Arc<Limits>,
    sessions: BTreeMap<u64, Session>,
    /// What each member was sent, oldest first.
    heard: BTreeMap<u64, Vec<ServerMessage>>,
    /// What the room wants done besides.
    wanted: Vec<Effect>,
    /// Of the last piece of work that a member asked for.
    ticket: Ticket,
}

impl Bench {
    /// An open room of a document that nobody has written.
    fn open() -> Self {
        Self::open_with(Limits::default(), Tuning::default())
    }

    fn open_with(limits: Limits, tuning: Tuning) -> Self {
        let mut bench = Self::loading(limits, tuning);
        bench.feed(Event::Loaded(Box::new(empty())));
        bench
    }

    /// A room that still waits for its document.
    fn loading(limits: Limits, tuning: Tuning) -> Self {
        let (limits, now) = (Arc::new(limits), Time::from_ms(1_000));
        let mut out = Vec::new();
        let room = Room::new(ROOM, document(), limits.clone(), tuning, now, &mut out);
        assert!(matches!(out[..], [Effect::Load]));
        let (sessions, heard, wanted) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let ticket = Ticket::default();
        Self {
            room,
            now,
            limits,
            sessions,
            heard,
            wanted,
            ticket,
        }
    }

    fn feed(&mut self, event: Event) {
        let mut out = Vec::new();
        self.room.handle(self.now, event, &mut out);
        self.sort(out);
    }

    fn settle(&mut self) {
        let mut out = Vec::new();
        self.room.settle(self.now, &mut out);
        self.sort(out);
    }

    /// The time passes, and the room is woken and settled.
    fn pass(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.feed(Event::Woke);
        self.settle();
    }

    fn sort(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Read { ticket, .. } | Effect::Decode { ticket, .. } | Effect::Prove { ticket, .. } = &effect
            {
                self.ticket = *ticket;
            }
            match effect {
                Effect::Reply { to, frame } => self.hear(to, &frame),
                Effect::Part { to, ref frame } => {
                    self.hear(to, frame);
                    self.wanted.push(effect);
                }
                Effect::Broadcast {
                    ref to,
                    except,
                    ref frame,
                    ..
                } => {
                    to.iter()
                        .filter(|member| except != Some(**member))
                        .for_each(|member| self.hear(*member, frame));
                    self.wanted.push(effect);
                }
                Effect::Dismiss { session, ref frame } => {
                    self.hear(session, frame);
                    self.wanted.push(effect);
                }
                effect => self.wanted.push(effect),
            }
        }
    }

    fn hear(&mut self, to: SessionId, frame: &Bytes) {
        let message = decode_server(frame).expect("the room sends what decodes");
        self.heard.entry(to.number()).or_default().push(message);
    }

    /// A member that joins without a replica and is brought to the present of an empty document.
    fn join(&mut self, member: u64) {
        self.join_from(member, None);
    }

    fn join_from(&mut self, member: u64, cursor: Option<Cursor>) {
        let mut session = Session::new(SessionId::new(member), self.limits.clone(), self.now);
        let hello = Hello {
            version: 1,
            token: None,
            client: String::new(),
            capabilities: Vec::new(),
        };
        let mut out = Vec::new();
        session.handle(
            self.now,
            session::Event::Received(ClientMessage::Hello(hello).encode()),
            &mut out,
        );
        let grant = Grant::development();
        session.handle(self.now, session::Event::Admitted { grant, expires: None }, &mut out);
        let open = Open {
            document: document(),
            cursor,
            heads: Vec::new(),
        };
        session.handle(
            self.now,
            session::Event::Received(ClientMessage::Open(open).encode()),
            &mut out,
        );
        session.handle(
            self.now,
            session::Event::Bound {
                document: document(),
                room: ROOM,
            },
            &mut out,
        );
        let join = out.into_iter().find_map(|effect| match effect {
            session::Effect::Join { join, .. } => Some(join),
            _ => None,
        });
        self.sessions.insert(member, session);
        self.feed(Event::Joined(join.expect("the session joins")));
    }

    /// A member sends an edit, through its session; the room is not settled yet.
    fn edit(&mut self, member: u64, id: u64, changes: &[Bytes]) {
        let edit = Edit {
            room: ROOM,
            id: EditId::new(id),
            changes: changes.to_vec(),
        };
        self.say(member, &ClientMessage::Edit(edit));
    }

    fn say(&mut self, member: u64, message: &ClientMessage) {
        let mut out = Vec::new();
        let session = self.sessions.get_mut(&member).expect("it joined");
        session.handle(self.now, session::Event::Received(message.encode()), &mut out);
        for effect in out {
            if let session::Effect::Tell { event, .. } = effect {
                self.feed(event);
            }
        }
    }

    /// Takes the effects that are not frames to one member, oldest first.
    fn take(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.wanted)
    }

    /// Settles, and lets the store succeed until nothing more is to be stored. Answers with the sizes of the records.
    fn store(&mut self) -> Vec<usize> {
        let mut records = Vec::new();
        loop {
            self.settle();
            let appends = self.wanted.extract_if(.., |effect| matches!(effect, Effect::Append(_)));
            let sizes: Vec<usize> = appends.map(|effect| size(&effect)).collect();
            if sizes.is_empty() {
                return records;
            }
            records.extend(sizes);
            self.feed(Event::Stored);
        }
    }

    /// Takes what a member was sent, in short.
    fn told(&mut self, member: u64) -> Vec<String> {
        self.heard
            .remove(&member)
            .unwrap_or_default()
            .iter()
            .map(in_short)
            .collect()
    }
}

fn size(append: &Effect) -> usize {
    match append {
        Effect::Append(append) => append.entries.len(),
        other => panic!("no append: {other:?}"),
    }
}

fn in_short(message: &ServerMessage) -> String {
    match message {
        ServerMessage::Opened(opened) => format!("opened at {}", opened.cursor.position),
        ServerMessage::Part(part) => match part.end {
            Some(end) => format!("part to {}", end.position),
            None => "part".to_owned(),
        },
        ServerMessage::Diff(diff) => format!("diff of {} to {}", diff.len(), diff.cursor.position),
        ServerMessage::Ack { id, cursor, .. } => format!("ack {id} at {}", cursor.position),
        ServerMessage::Reject { id, code, .. } => format!("reject {id} {code}"),
        ServerMessage::Closed { code, .. } => format!("closed {code}"),
        other => format!("{other:?}"),
    }
}

fn document() -> DocumentId {
    "notes".parse().expect("a document id")
}

fn empty() -> Loaded {
    Loaded {
        epoch: EPOCH,
        exists: false,
        index: Index::default(),
        log_start: Position::new(0),
        log_bytes: 0,
        snapshot: None,
        quarantined: BTreeSet::new(),
        foreign_until: None,
    }
}

/// What the kinds of effects are called in the tables.
fn kinds(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .map(|effect| match effect {
            Effect::Load => "load",
            Effect::Read { .. } => "read",
            Effect::Append(_) => "append",
            Effect::Decode { .. } => "decode",
            Effect::Merge { .. } => "merge",
            Effect::Prove { .. } => "prove",
            Effect::Reach { .. } => "reach",
            Effect::Compact { .. } => "compact",
            Effect::Discard { .. } => "discard",
            Effect::Quarantine { .. } => "quarantine",
            Effect::Reply { .. } => "reply",
            Effect::Part { .. } => "part",
            Effect::Broadcast { .. } => "broadcast",
            Effect::Dismiss { .. } => "dismiss",
            Effect::Disconnect { .. } => "disconnect",
            Effect::Close => "close",
        })
        .collect()
}

/// `count` changes of one actor, each on the one before.
fn typed(actor: u8, count: usize) -> Vec<Bytes> {
    let mut document = Automerge::new().with_actor(ActorId::from([actor]));
    for number in 0..count {
        let mut transaction = document.transaction();
        transaction
            .put(ROOT, format!("{actor}-{number}"), "value")
            .expect("a put");
        transaction.commit();
    }
    let changes = document.get_changes(&[]);
    changes
        .iter()
        .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
        .collect()
}
