//! The server's side of a connection in virtual time: the same decisions as `syncline::server::connection`, around the real
//! `Session` and the real `Outbox`.

use crate::{
    network::{End, LinkId, Packet},
    room::Mail,
    server::Hub,
    world::{Context, Happening, Mutation},
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
};
use syncline::{
    engine::{
        gate::Subject,
        grant::{Grant, Rule},
        room::{self, Join},
        session::{Effect, Event, Session},
        time::Time,
    },
    server::outbox::{Item, JoinNumber, Notice, Outbox},
};
use syncline_protocol::{CloseCode, DocumentId, RoomNumber, SessionId, native::Access, native::ServerMessage};

/// How long a peer may take to answer our close.
const CLOSE_TIMEOUT_MS: u64 = 2_000;
/// When a draining server wants its clients back.
const RETRY_AFTER_MS: u64 = 500;
/// Bytes that may be in a queue beyond twice its limit: answers to what the room had taken in already.
const OUTBOX_SLACK_BYTES: usize = 64 << 10;

/// A connection's queue, as a room holds it.
#[derive(Clone, Debug)]
pub(crate) struct Postbox {
    pub(crate) link: LinkId,
    outbox: Arc<Outbox>,
    /// The session's last join when this was handed out.
    join: JoinNumber,
}

impl Postbox {
    pub(crate) fn push(&self, frame: Bytes, context: &mut Context) {
        context.queued(self.link, self.outbox.session(), &frame);
        self.outbox.push(frame);
        self.poke(context);
    }

    pub(crate) fn try_push(&self, frame: Bytes, context: &mut Context) -> bool {
        let pushed = self.outbox.try_push(frame.clone());
        if pushed {
            context.queued(self.link, self.outbox.session(), &frame);
            self.poke(context);
        }
        pushed
    }

    pub(crate) fn dismiss(&self, room: RoomNumber, frame: Bytes, context: &mut Context) {
        context.queued(self.link, self.outbox.session(), &frame);
        self.outbox.dismiss(room, self.join, frame);
        self.poke(context);
    }

    pub(crate) fn close(&self, code: CloseCode, text: String, context: &mut Context) {
        self.outbox.close(code, text);
        context.audit.closing(self.link);
        self.poke(context);
    }

    pub(crate) fn tell_when_drained(&self, room: RoomNumber, context: &mut Context) {
        self.outbox.tell_when_drained(room);
        self.poke(context);
    }

    fn poke(&self, context: &mut Context) {
        let link = self.link;
        context.after(0, Happening::Connection { link });
    }
}

/// One connection.
pub(crate) struct Connection {
    postbox: Postbox,
    session: Session,
    client: usize,
    rooms: BTreeMap<RoomNumber, JoinNumber>,
    /// What the session is still to be told, the last first.
    events: Vec<Event>,
    /// What the session wants done and is not.
    effects: VecDeque<Effect>,
    /// What waits for a place in a room's inbox.
    blocked: Option<Letter>,
    paused_until: Option<u64>,
    heard_ms: u64,
    pinged_ms: u64,
    /// Packets that have arrived and are not read.
    arrived: VecDeque<Packet>,
    writing: Option<Writing>,
    /// Rooms that are to be told that the queue has drained.
    drained: VecDeque<RoomNumber>,
    told_to_leave: bool,
    wake: Option<u64>,
}

/// What is for a room.
enum Letter {
    Join(DocumentId, Join),
    Tell(RoomNumber, room::Event),
}

/// What the socket is taking.
struct Writing {
    items: Vec<Item>,
    bytes: usize,
    closes: bool,
}

impl Connection {
    pub(crate) fn new(link: LinkId, client: usize, context: &mut Context) -> Self {
        let id = SessionId::new(context.random.number() >> 11);
        let limits = Arc::new(context.plan.limits.clone());
        let outbox = Arc::new(Outbox::new(
            id,
            limits.send_queue_bytes_max,
            limits.subject_queue_bytes_max,
        ));
        context.say(format_args!(
            "client {client} is connected as session {id} by link {link}"
        ));
        context.after(0, Happening::Connection { link });
        Self {
            postbox: Postbox {
                link,
                outbox,
                join: JoinNumber::default(),
            },
            session: Session::new(id, limits, Time::from_ms(context.now)),
            client,
            rooms: BTreeMap::new(),
            events: Vec::new(),
            effects: VecDeque::new(),
            blocked: None,
            paused_until: None,
            heard_ms: context.now,
            pinged_ms: 0,
            arrived: VecDeque::new(),
            writing: None,
            drained: VecDeque::new(),
            told_to_leave: false,
            wake: None,
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session.id()
    }

    /// A packet has come over the link.
    pub(crate) fn arrive(&mut self, packet: Packet) {
        self.arrived.push_back(packet);
    }

    /// Does all that can be done now. Whether the connection is over.
    pub(crate) fn turn(&mut self, hub: &mut Hub, context: &mut Context) -> bool {
        loop {
            self.write(hub, context);
            if !self.work_off(hub, context) {
                break;
            }
            match self.postbox.outbox.notice() {
                Some(Notice::Dismissed { room, join }) => {
                    if self.rooms.get(&room) == Some(&join) {
                        self.rooms.remove(&room);
                        self.events.push(Event::Dismissed { room });
                    }
                    continue;
                }
                Some(Notice::Drained { room }) => {
                    self.drained.push_back(room);
                    continue;
                }
                None => {}
            }
            if hub.is_stopping() && !self.told_to_leave {
                self.told_to_leave = true;
                let after_ms = RETRY_AFTER_MS;
                self.postbox.push(ServerMessage::Retry { after_ms }.encode(), context);
                self.postbox
                    .close(CloseCode::Restart, "the server restarts".to_owned(), context);
                continue;
            }
            match self.next_packet(context) {
                Some(Packet::Frame(frame)) => {
                    self.heard_ms = context.now;
                    context.trace.bytes(&frame);
                    self.events.push(Event::Received(frame));
                }
                Some(Packet::Ping) => self.heard_ms = context.now,
                Some(Packet::Closed(_)) => return true,
                None => match self.woke(context) {
                    Some(Event::Woke) => self.events.push(Event::Woke),
                    Some(_) => return true,
                    None => break,
                },
            }
        }
        self.foresee(context);
        false
    }

    /// Lets the session and the rooms work off what came before. Whether all of it is done.
    fn work_off(&mut self, hub: &mut Hub, context: &mut Context) -> bool {
        loop {
            if let Some(letter) = self.blocked.take()
                && let Err(letter) = self.deliver(letter, hub, context)
            {
                self.blocked = Some(letter);
                return false;
            }
            if let Some(effect) = self.effects.pop_front() {
                let event = self.perform(effect, context);
                self.events.extend(event);
            } else if let Some(event) = self.events.pop() {
                let mut out = Vec::new();
                self.session.handle(Time::from_ms(context.now), event, &mut out);
                self.effects.extend(out);
            } else {
                return true;
            }
        }
    }

    /// Puts a letter into its room's inbox; it comes back when there is no place.
    fn deliver(&mut self, letter: Letter, hub: &mut Hub, context: &mut Context) -> Result<(), Letter> {
        let link = self.postbox.link;
        match letter {
            Letter::Tell(room, event) => match hub.post(room, Mail::Event(event), link, context) {
                Err(Mail::Event(event)) => Err(Letter::Tell(room, event)),
                Ok(()) | Err(_) => Ok(()),
            },
            Letter::Join(document, _) if hub.is_stopping() => {
                self.events.push(Event::Unbound { document });
                Ok(())
            }
            Letter::Join(document, join) => {
                let room = hub.room(&document, context);
                match hub.post(room, Mail::Join(join, self.postbox.clone()), link, context) {
                    Err(Mail::Join(join, _)) => Err(Letter::Join(document, join)),
                    Ok(()) | Err(_) => {
                        self.rooms.insert(room, self.postbox.join);
                        context.audit.joined(link, room, &document);
                        self.events.push(Event::Bound { document, room });
                        Ok(())
                    }
                }
            }
        }
    }

    fn perform(&mut self, effect: Effect, context: &mut Context) -> Option<Event> {
        match effect {
            Effect::Verify { token } => Some(self.verify(token.as_deref(), context)),
            Effect::Claim { .. } | Effect::Unpack { .. } => {
                unreachable!("the simulated clients speak the native dialect")
            }
            Effect::Join { document, join } => {
                self.postbox.join.0 += 1;
                self.blocked = Some(Letter::Join(document, join));
                None
            }
            Effect::Tell { room, event } => {
                let leaving = matches!(event, room::Event::Left { .. });
                if self.rooms.contains_key(&room) {
                    self.blocked = Some(Letter::Tell(room, event));
                }
                if leaving {
                    self.rooms.remove(&room);
                }
                None
            }
            Effect::Send(frame) | Effect::Closed { frame, .. } | Effect::Rejected { frame: Some(frame), .. } => {
                self.postbox.push(frame, context);
                None
            }
            // What the dialect has no frame for.
            Effect::Rejected { frame: None, .. } => None,
            Effect::Pause { until } => {
                context.coverage.pauses += 1;
                self.paused_until = self.paused_until.max(Some(until.ms()));
                None
            }
            Effect::Close { code, text } => {
                context.say(format_args!("session {} is closed: {text}", self.session.id()));
                self.postbox.close(code, text, context);
                None
            }
        }
    }

    /// A token is the client's name and when it ends; what it allows, the plan says.
    fn verify(&self, token: Option<&str>, context: &Context) -> Event {
        let refused = |text: &str| Event::Refused {
            code: CloseCode::Unauthorized,
            text: text.to_owned(),
        };
        let Some((name, end)) = token.and_then(|token| token.split_once(' ')) else {
            return refused("this is no token");
        };
        let end: u64 = end.parse().expect("a client's token has an end");
        if end <= context.now {
            return refused("the token has expired");
        }
        let client = &context.plan.clients[self.client];
        assert_eq!(client.name, name, "a client shows its own token");
        let documents = context.plan.documents.iter().zip(&client.access);
        let rules = documents.map(|(document, access)| Rule {
            pattern: document.as_str().parse().expect("a document's id is a pattern"),
            access: match context.mutation {
                Mutation::ReadersWrite => Access::Write,
                _ => *access,
            },
        });
        let grant = Grant::new(Subject(name.into()), None, Some(end), rules.collect());
        Event::Admitted {
            grant,
            expires: Some(Time::from_ms(end)),
        }
    }

    fn next_packet(&mut self, context: &Context) -> Option<Packet> {
        let readable = matches!(poll(self.postbox.outbox.readable()), Poll::Ready(()));
        let paused = self.paused_until.is_some_and(|until| until > context.now);
        match self.arrived.front() {
            // That the peer is gone is noticed whenever the socket is looked at; only then.
            Some(_) if readable && !paused => self.arrived.pop_front(),
            Some(_) | None => None,
        }
    }

    /// Looks at the time: `Woke` for the session, or anything else when the peer is dead.
    fn woke(&mut self, context: &mut Context) -> Option<Event> {
        let limits = &context.plan.limits;
        let silent_ms = context.now.saturating_sub(self.heard_ms);
        if silent_ms >= limits.idle_timeout_ms {
            let text = "silent".to_owned();
            return Some(Event::Refused {
                code: CloseCode::TooSlow,
                text,
            });
        }
        if silent_ms >= limits.ping_interval_ms && context.now >= self.pinged_ms + limits.ping_interval_ms {
            self.pinged_ms = context.now;
            self.postbox.outbox.ping();
            self.postbox.poke(context);
        }
        let due = self.session.next_wakeup().is_some_and(|at| at.ms() <= context.now);
        due.then_some(Event::Woke)
    }

    fn foresee(&mut self, context: &mut Context) {
        let limits = &context.plan.limits;
        let ping = self.heard_ms.max(self.pinged_ms) + limits.ping_interval_ms;
        let dead = self.heard_ms + limits.idle_timeout_ms;
        let paused = self.paused_until.filter(|until| *until > context.now);
        let session = self.session.next_wakeup().map(Time::ms);
        let wake = [Some(ping), Some(dead), paused, session];
        let at = wake.into_iter().flatten().filter(|at| *at > context.now).min();
        if at.is_some_and(|at| self.wake.is_none_or(|wake| wake > at || wake <= context.now)) {
            self.wake = at;
            let link = self.postbox.link;
            context.after(at.unwrap_or_default() - context.now, Happening::Connection { link });
        }
    }

    /// Hands what is queued to the socket, unless that is busy.
    fn write(&mut self, hub: &mut Hub, context: &mut Context) {
        let session = self.session.id();
        while let Some(room) = self.drained.pop_front() {
            let mail = Mail::Event(room::Event::Drained { session });
            if hub.post(room, mail, self.postbox.link, context).is_err() {
                self.drained.push_front(room);
                break;
            }
        }
        if self.writing.is_some() {
            return;
        }
        let mut rest = Vec::new();
        let Poll::Ready(items) = poll(self.postbox.outbox.take(&mut rest)) else {
            return;
        };
        let items: Vec<Item> = items.collect();
        let bytes: usize = items.iter().map(Item::bytes).sum();
        let closes = items.iter().any(|item| matches!(item, Item::Close { .. }));
        let ms = bytes as u64 * context.ms_per_kilobyte(self.client) / 1_000;
        self.writing = Some(Writing { items, bytes, closes });
        let link = self.postbox.link;
        context.after(ms, Happening::Flushed { link });
    }

    /// The socket has taken what was being written.
    pub(crate) fn flushed(&mut self, context: &mut Context) {
        let Some(Writing { items, bytes, closes }) = self.writing.take() else {
            return;
        };
        let link = self.postbox.link;
        for item in items {
            let packet = match item {
                Item::Frame(frame) => Packet::Frame(frame),
                Item::Text(_) => unreachable!("only an echo sends texts"),
                Item::Ping => Packet::Ping,
                Item::Close { code, .. } => Packet::Closed(Some(code.number())),
            };
            context.send(link, End::Client, packet);
        }
        context.audit.flushed(link, bytes);
        self.postbox.outbox.written(bytes);
        if closes {
            // Nothing is written any more.
            self.writing = Some(Writing {
                items: Vec::new(),
                bytes: 0,
                closes: false,
            });
            context.after(CLOSE_TIMEOUT_MS, Happening::Ended { link });
        } else {
            context.after(0, Happening::Connection { link });
        }
    }

    /// The connection is over: every room is told.
    pub(crate) fn leave(self, hub: &mut Hub, context: &mut Context) {
        let session = self.session.id();
        context.say(format_args!("session {session} is gone"));
        // A letter that has found no place is not sent any more.
        for room in self.rooms.into_keys() {
            hub.tell(room, Mail::Event(room::Event::Left { session }), context);
        }
        context.audit.gone(self.postbox.link);
    }
}

impl Context {
    /// A frame has entered a connection's queue: from now on the server may have sent it.
    fn queued(&mut self, link: LinkId, session: SessionId, frame: &Bytes) {
        self.trace.number(session.number());
        self.trace.bytes(frame);
        let bytes = self.frame_leaves(link, session, frame);
        let max = usize::try_from(self.plan.limits.send_queue_bytes_max).expect("a size");
        if bytes > 2 * max + OUTBOX_SLACK_BYTES {
            self.violated(format!(
                "{bytes} bytes wait for session {session}, with a limit of {max}"
            ));
        }
    }
}

fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
    let mut context = std::task::Context::from_waker(Waker::noop());
    pin!(future).as_mut().poll(&mut context)
}
