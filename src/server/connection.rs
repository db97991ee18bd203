//! One WebSocket connection, from admission to its end: frames in to the session, its effects out to rooms and the socket.
//!
//! A reader and a writer share one task, and neither waits for the other, nor for a room: a peer that does not read cannot stop
//! us from hearing it, nor can a room that is busy. Both up to a bound: a connection is not read from while its queue is too
//! long, or too much of its mail is parked ([`crate::server::post`]).

use crate::{
    engine::{
        gate::{Refusal, Subject, Whole},
        room::Event as RoomEvent,
        session::{Effect, Event, Session},
        time::Time,
    },
    server::{
        Server,
        apart::apart,
        failpoints::Switch,
        gateway::{Counted, Stream},
        hub::Seat,
        memory::Share,
        metrics::{GivenUp, Refused, TokenLabels},
        outbox::{Notice, Outbox},
        peers::Claim,
        post::Post,
        room::workers::{Kind, random_number},
    },
};
use bytes::Bytes;
use futures_util::{StreamExt, stream::SplitStream};
use std::{fmt, net::IpAddr, pin::Pin, sync::Arc, time::Duration};
use syncline_protocol::{CloseCode, SessionId, native::ServerMessage, repo::PeerId};
use tokio::sync::watch;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, error::ProtocolError},
};

mod alarm;
mod silence;
mod write;

use self::{
    alarm::Alarm,
    silence::{Due, Silence},
    write::{CLOSE_TIMEOUT, write},
};

/// A WebSocket on whatever carries it; its buffers and message sizes are limited.
pub type Socket = WebSocketStream<Stream>;

/// A silent peer of the repo dialect is pinged after this time.
const REPO_PING_MS: u64 = 5_000;
/// Messages from this size on, which only peers of the repo dialect send, are charged to the rooms' memory.
const LARGE_MESSAGE_BYTES: usize = 2 << 20;
/// When a draining server wants its clients back.
const RETRY_AFTER_MS: u64 = 500;
/// When a server without memory wants those back that it turns away, so that they do not all come at once.
const OVERLOADED_RETRY_AFTER_MS: std::ops::Range<u64> = 2_000..6_000;

/// Why a connection is given up, the code that it is closed with, and what the peer is told.
type Fault = (GivenUp, CloseCode, &'static str);

const TEXT: Fault = (
    GivenUp::Text,
    CloseCode::Malformed,
    "text messages are not part of the protocol",
);

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Ours.
    Native,
    /// automerge-repo's.
    Repo,
}

/// What the gateway knows of a connection that it let in. Its `Debug` form leaves the token out: that must reach no log.
pub struct Admission {
    /// Whence: the peer, or what a trusted proxy says.
    pub address: IpAddr,
    /// Its place among those of that address, when a proxy says which.
    pub counted: Option<Counted>,
    /// The token given at the upgrade; only the repo dialect reads it.
    pub token: Option<String>,
    /// When, by [`crate::server::clock::Clock::monotonic_ms`]: the handshake's time runs from here, since a proxy may have used
    /// the connection for other requests before.
    pub upgraded_at_ms: u64,
    /// What is spoken.
    pub dialect: Dialect,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("address", &self.address)
            .field("upgraded_at_ms", &self.upgraded_at_ms)
            .finish_non_exhaustive()
    }
}

/// Serves the connection until it ends. Not an `async fn`: that would keep the socket's place beside its halves for as long.
pub fn run(socket: Socket, admission: Admission, server: Arc<Server>) -> impl Future<Output = ()> + Send {
    let id = SessionId::new(random_number());
    let limits = server.limits();
    let outbox = Arc::new(Outbox::new(
        id,
        limits.send_queue_bytes_max,
        limits.subject_queue_bytes_max,
    ));
    let (sink, stream) = socket.split();
    let upgraded_at = Time::from_ms(admission.upgraded_at_ms);
    let mut reader = Reader {
        session: match admission.dialect {
            Dialect::Native => Session::new(id, limits, upgraded_at),
            Dialect::Repo => Session::repo(id, limits, server.peers.server(), upgraded_at),
        },
        dialect: admission.dialect,
        claim: None,
        outbox: outbox.clone(),
        post: Post::new(id),
        share: None,
        unpacking: None,
        seat: None,
        paused_until: None,
        now: Time::from_ms(server.clock.monotonic_ms()),
        silence: silence(admission.dialect, &server),
        server: server.clone(),
    };
    tracing::debug!(session = %id, address = %admission.address, dialect = ?admission.dialect, "connected");
    let counted = admission.counted;
    reader.handle(Event::Accepted { token: admission.token });
    async move {
        let _counted = counted;
        let idle = Duration::from_millis(server.config.limits.idle_timeout_ms);
        {
            let reading = std::pin::pin!(reader.read(stream));
            // What is only to be written does not make the reader look at everything that it waits for.
            let reading = std::pin::pin!(apart(reading));
            let writing = std::pin::pin!(write(sink, &outbox, &server, idle));
            futures_util::future::select(reading, writing).await;
        }
        reader.post.leave().await;
        tracing::debug!(session = %id, "disconnected");
    }
}

struct Reader {
    session: Session,
    dialect: Dialect,
    /// The name that the peer goes by, held for it.
    claim: Option<Claim>,
    outbox: Arc<Outbox>,
    post: Post,
    /// Of the rooms' memory, for a large message under way.
    share: Option<Share>,
    /// A whole document that is being taken apart. Nothing is read meanwhile.
    unpacking: Option<Pin<Box<dyn Future<Output = Unpacked> + Send>>>,
    seat: Option<Seat>,
    paused_until: Option<Time>,
    /// When it last woke.
    now: Time,
    silence: Silence,
    server: Arc<Server>,
}

/// What came of taking a document apart.
enum Unpacked {
    /// Its changes, and what they take of the rooms' memory.
    Done(Result<Vec<Bytes>, Refusal>, Option<Share>),
    /// There is not enough now.
    NoMemory,
}

/// What the reader waited for.
enum Came {
    Message(Option<Result<Message, tungstenite::Error>>),
    Unpacked(Unpacked),
    Notice,
    Place,
    Draining,
    Drained,
    Woke,
}

impl Reader {
    /// Reads until the peer is gone. It may be dropped at any await: nothing that was taken in is half done but for a room
    /// that is not told of it, and every room is told that the session left.
    async fn read(&mut self, mut stream: SplitStream<Socket>) {
        let mut next_stage = std::pin::pin!(comes_true(self.server.draining()));
        let mut leaving = false;
        let (mut alarm, outbox) = (Alarm::new(), self.outbox.clone());
        loop {
            self.paused_until = self.paused_until.filter(|until| *until > self.now);
            alarm.set(self.now, self.next_wakeup());
            let held_up = self.post.is_full() || self.unpacking.is_some();
            if held_up || !outbox.is_readable() {
                // It is we who do not listen.
                self.silence.broken(self.now.ms());
            }
            let reading = self.paused_until.is_none() && !leaving && !held_up && self.may_be_read();
            let message = async {
                // Here, where it is waited for: what is only looked at wakes nobody when it changes.
                outbox.readable().await;
                stream.next().await
            };
            let came = tokio::select! {
                message = message, if reading => Came::Message(message),
                unpacked = finished(&mut self.unpacking), if !leaving => Came::Unpacked(unpacked),
                () = outbox.noticed() => Came::Notice,
                () = self.post.go_on() => Came::Place,
                () = &mut next_stage => if leaving { Came::Drained } else { Came::Draining },
                () = alarm.rings() => Came::Woke,
            };
            self.now = Time::from_ms(self.server.clock.monotonic_ms());
            match came {
                Came::Message(Some(Ok(message))) => self.received(message),
                Came::Message(Some(Err(error))) => {
                    let Some(fault) = fault(&error) else { return };
                    self.fail(fault);
                    // Its rooms take what it had sent, until the writer has written the close.
                    loop {
                        self.post.go_on().await;
                    }
                }
                Came::Message(None) => return,
                Came::Unpacked(Unpacked::Done(changes, share)) => {
                    self.share = share;
                    self.handle(Event::Unpacked(changes));
                    self.let_go();
                }
                Came::Unpacked(Unpacked::NoMemory) => {
                    let refused = self.turn_away();
                    self.handle(refused);
                }
                Came::Notice => self.noticed(),
                Came::Place => self.let_go(),
                // Nothing more is taken in; what was, is answered before the close.
                Came::Draining => {
                    leaving = true;
                    next_stage.set(comes_true(self.server.drained()));
                    if self.dialect == Dialect::Native {
                        let retry = ServerMessage::Retry {
                            after_ms: RETRY_AFTER_MS,
                        };
                        self.outbox.push(retry.encode());
                    }
                }
                Came::Drained => {
                    self.outbox.close(CloseCode::Restart, "the server restarts".to_owned());
                    // What still comes is dropped; the peer's answer, or its end, ends the connection before its time is up.
                    while let Some(Ok(_)) = stream.next().await {}
                    return;
                }
                Came::Woke => {
                    if !self.woke() {
                        return;
                    }
                }
            }
        }
    }

    /// Peers of the repo dialect send large messages, but only those that were let in: their token came before all messages.
    fn may_be_read(&self) -> bool {
        self.dialect == Dialect::Native || self.seat.is_some()
    }

    /// The peer does not speak WebSocket as it is spoken here.
    fn fail(&mut self, (reason, code, text): Fault) {
        // Who is being closed was given up before, for another reason.
        if !self.outbox.is_closed() {
            self.server.metrics.give_up(reason);
        }
        let text = text.to_owned();
        if Switch::Echo.is_on() {
            return self.outbox.close(code, text);
        }
        self.handle(Event::Refused { code, text });
    }

    fn received(&mut self, message: Message) {
        self.silence.broken(self.now.ms());
        if Switch::Echo.is_on() {
            return self.echo(message);
        }
        // What the peer says now, it says after it was told of these.
        self.noticed();
        match message {
            Message::Binary(_) | Message::Text(_) if self.outbox.is_closed() => {}
            Message::Binary(frame) => {
                self.server.metrics.frames_in.inc();
                self.server.metrics.bytes_in.inc_by(frame.len() as u64);
                self.binary(frame);
            }
            Message::Text(_) => self.fail(TEXT),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }

    /// All but the session is as ever.
    fn echo(&self, message: Message) {
        match message {
            Message::Binary(frame) => self.outbox.push(frame),
            Message::Text(text) => self.outbox.push_text(text.to_string()),
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => {}
        }
    }

    /// A large message takes a share of the rooms' memory until its rooms have taken it in.
    fn binary(&mut self, frame: Bytes) {
        if frame.len() >= LARGE_MESSAGE_BYTES {
            // The frame, and its changes one by one.
            self.share = self.server.hub.memory().try_take(2 * frame.len() as u64);
            if self.share.is_none() {
                let refused = self.turn_away();
                return self.handle(refused);
            }
        }
        self.handle(Event::Received(frame));
        self.let_go();
    }

    fn let_go(&mut self) {
        if !self.post.is_full() && self.unpacking.is_none() {
            self.share = None;
        }
    }

    fn noticed(&mut self) {
        while let Some(notice) = self.outbox.notice() {
            match notice {
                Notice::Dismissed { room, join } => {
                    if self.post.dismissed(room, join) {
                        self.handle(Event::Dismissed { room });
                    }
                }
                Notice::Drained { room } => {
                    let session = self.session.id();
                    self.post.tell(room, RoomEvent::Drained { session });
                }
            }
        }
    }

    /// Pings a silent peer, gives up a dead one, and lets the session look at the time. Whether to go on.
    fn woke(&mut self) -> bool {
        let now = self.now;
        match self.silence.due(now.ms()) {
            Due::Nothing => {}
            Due::Ping => self.outbox.ping(),
            Due::GiveUp => {
                if !self.outbox.is_closed() {
                    self.server.metrics.give_up(GivenUp::Silent);
                }
                let text = "nothing was heard for too long".to_owned();
                self.outbox.close(CloseCode::TooSlow, text);
            }
            Due::End => return false,
        }
        if self.session.next_wakeup().is_some_and(|at| at <= now) {
            self.handle(Event::Woke);
        }
        true
    }

    fn next_wakeup(&self) -> Time {
        let others = self.session.next_wakeup().into_iter().chain(self.paused_until);
        others.fold(Time::from_ms(self.silence.next_ms()), Time::min)
    }

    /// Feeds the session, and does what it wants done; what that leads to is fed back in before anything else.
    fn handle(&mut self, event: Event) {
        let (mut next, mut events) = (Some(event), Vec::new());
        while let Some(event) = next {
            let mut out = Vec::new();
            self.session.handle(self.now, event, &mut out);
            for effect in out {
                events.extend(self.perform(effect));
            }
            next = events.pop();
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Verify { token } => Some(self.verify(token.as_deref())),
            Effect::Claim {
                peer,
                storage_id,
                subject,
            } => Some(self.claim(&peer, storage_id, &subject)),
            Effect::Join { document, join } => match self.post.join(&self.server.hub, &document, &join, &self.outbox) {
                Ok(room) => Some(Event::Bound { document, room }),
                Err(_) => Some(Event::Unbound { document }),
            },
            Effect::Tell { room, event } => {
                self.post.tell(room, event);
                None
            }
            Effect::Unpack { document } => {
                self.unpack(document);
                None
            }
            Effect::Send(frame) => {
                self.outbox.push(frame);
                None
            }
            Effect::Closed { code, frame } => {
                self.server.metrics.closed(&code, 1);
                self.outbox.push(frame);
                None
            }
            Effect::Rejected { code, edits, frame } => {
                self.server.metrics.reject(&code, edits);
                frame.into_iter().for_each(|frame| self.outbox.push(frame));
                None
            }
            Effect::Pause { until } => {
                self.server.metrics.connections_paused.inc();
                self.paused_until = self.paused_until.max(Some(until));
                None
            }
            Effect::Close { code, text } => {
                tracing::info!(session = %self.session.id(), code = code.number(), text, "closing");
                if code == CloseCode::TooSlow {
                    self.server.metrics.give_up(GivenUp::Handshake);
                }
                self.outbox.close(code, text);
                None
            }
        }
    }

    fn claim(&mut self, peer: &PeerId, storage_id: Option<String>, subject: &Subject) -> Event {
        match self.server.peers.claim(peer, storage_id, subject, &self.outbox) {
            Some(claim) => {
                let owns_storage = claim.owns_storage();
                self.claim = Some(claim);
                Event::Claimed { owns_storage }
            }
            None => {
                self.server.metrics.refuse(Refused::PeerIdTaken);
                Event::Refused {
                    code: CloseCode::Forbidden,
                    text: "somebody else goes by this peer id".to_owned(),
                }
            }
        }
    }

    /// Takes a peer's document apart, one at a time in the whole server.
    fn unpack(&mut self, document: Bytes) {
        let (limits, memory) = (self.server.limits(), self.server.hub.memory().clone());
        let work = move || {
            let whole = match Whole::read(document, &limits) {
                Ok(whole) => whole,
                Err(refusal) => return Unpacked::Done(Err(refusal), None),
            };
            match memory.try_take(whole.memory_bytes()) {
                Some(share) => Unpacked::Done(whole.changes(), Some(share)),
                None if memory.could_hold(whole.memory_bytes()) => Unpacked::NoMemory,
                None => Unpacked::Done(Err(Refusal::Limit("the document is too large for this server")), None),
            }
        };
        let lost = Unpacked::Done(Err(Refusal::Dishonest("the document cannot be taken apart")), None);
        self.unpacking = Some(Box::pin(self.server.hub.workers().run(Kind::Unpack, lost, work)));
    }

    fn verify(&mut self, token: Option<&str>) -> Event {
        let unix_ms = self.server.clock.unix_ms();
        let grant = match self.server.verifier.admit(token, unix_ms) {
            Ok(grant) => grant,
            Err(error) => {
                let label = TokenLabels { reason: error };
                self.server.metrics.tokens_refused.get_or_create(&label).inc();
                return Event::Refused {
                    code: CloseCode::Unauthorized,
                    text: error.to_string(),
                };
            }
        };
        if self.seat.is_none() {
            if self.server.hub.is_overloaded() {
                return self.turn_away();
            }
            self.seat = self
                .server
                .hub
                .seat(&grant.subject, self.server.config.limits.sessions_per_subject_max);
            if let Some(seat) = &self.seat {
                self.outbox.share(seat.queues.clone());
            } else {
                self.server.metrics.refuse(Refused::FullForSubject);
                let text = "this subject has too many connections; close one first".to_owned();
                return Event::Refused {
                    code: CloseCode::Overloaded,
                    text,
                };
            }
        }
        let expires = grant
            .expires_at_ms
            .map(|at| self.now.plus_ms(at.saturating_sub(unix_ms)));
        Event::Admitted { grant, expires }
    }

    /// There is no memory for one more; those who are in go on.
    fn turn_away(&self) -> Event {
        self.server.metrics.refuse(Refused::Overloaded);
        let range = OVERLOADED_RETRY_AFTER_MS;
        let after_ms = range.start + random_number() % (range.end - range.start);
        if self.dialect == Dialect::Native {
            self.outbox.push(ServerMessage::Retry { after_ms }.encode());
        }
        Event::Refused {
            code: CloseCode::Overloaded,
            text: "the server has no memory left; come back later".to_owned(),
        }
    }
}

/// What a document was taken apart into, once it is. Nothing is lost when this is dropped.
async fn finished(unpacking: &mut Option<Pin<Box<dyn Future<Output = Unpacked> + Send>>>) -> Unpacked {
    let Some(under_way) = unpacking.as_mut() else {
        return std::future::pending().await;
    };
    let unpacked = under_way.await;
    *unpacking = None;
    unpacked
}

/// Ends when it is so, or the server is gone.
async fn comes_true(mut whether: watch::Receiver<bool>) {
    let _ = whether.wait_for(|is_so| *is_so).await;
}

/// Peers of the repo dialect are used to hear from their server often.
fn silence(dialect: Dialect, server: &Server) -> Silence {
    let limits = &server.config.limits;
    let ping_ms = match dialect {
        Dialect::Native => limits.ping_interval_ms,
        Dialect::Repo => limits.ping_interval_ms.min(REPO_PING_MS),
    };
    Silence::new(server.clock.monotonic_ms(), ping_ms, limits.idle_timeout_ms)
}

/// What is wrong after an error of the WebSocket; `None` when the peer is gone.
fn fault(error: &tungstenite::Error) -> Option<Fault> {
    let fault = match error {
        // Programs are killed, networks fail: most connections end so.
        tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        tungstenite::Error::Protocol(_) => (
            GivenUp::BrokenFrame,
            CloseCode::BrokenFrame,
            "the frame is no WebSocket's",
        ),
        tungstenite::Error::Utf8(_) => (GivenUp::NotUtf8, CloseCode::NotUtf8, "the text is no UTF-8"),
        tungstenite::Error::Capacity(_) => {
            let text = "the message is larger than the limit";
            (GivenUp::TooLarge, CloseCode::Malformed, text)
        }
        _ => return None,
    };
    Some(fault)
}
