//! A room's task: it owns the engine's room, feeds it what arrives, and does what it wants done.
//!
//! It takes all that is in its inbox, settles it in one go, and never waits for a connection: a queue that is full is left out
//! and caught up later. Work that takes long runs elsewhere ([`workers`]) and comes back as an event.

pub mod inbox;
mod merges;
mod pieces;
pub mod storage;
mod turns;
mod work;
pub mod workers;

use crate::{
    engine::{
        room::{Effect, Event, Join, Room},
        time::Time,
    },
    server::{
        failpoints,
        hub::Hub,
        memory::Share,
        metrics::Refused,
        outbox::{JoinNumber, Outbox},
    },
};
use bytes::Bytes;
use futures_util::FutureExt;
use inbox::{INBOX_MAX, Inbox, Letter};
use merges::Size;
use std::{
    collections::{BTreeMap, VecDeque},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use syncline_protocol::{
    CloseCode, DocumentId, Position, RoomNumber, SessionId,
    native::{ClosedCode, ServerMessage},
};
use tokio::{runtime::RuntimeFlavor, sync::mpsc};
use turns::Turns;
use work::Work;

/// Messages that a room takes in one go.
const BATCH_MAX: usize = 512;
/// So long a room looks at mail before it lets others of its thread have a turn, in milliseconds.
const TURN_MS: u64 = 5;
/// A frame to one member from this size on is charged to the memory: only peers of the repo dialect are sent such.
const LARGE_FRAME_BYTES: usize = 2 << 20;
/// So often a room yields before it settles. On an idle thread that takes no time, on a busy one it takes all the longer, the more there is
/// to be gathered.
const YIELDS: usize = 3;
/// A room adds up its memory when it has taken in so much since the last time, or this time has passed.
const ACCOUNT_BYTES: usize = 64 << 10;
const ACCOUNT_INTERVAL_MS: u64 = 1_000;

/// A frame with what it takes of the memory.
struct Charged {
    frame: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Charged {
    fn as_ref(&self) -> &[u8] {
        &self.frame
    }
}

/// A message to a room.
#[derive(Debug)]
pub enum Mail {
    /// A session joins with its connection's queue.
    Join(Join, Member),
    /// Anything else that happens to the room.
    Event(Event),
    /// The server stops: store what is there and end.
    Stop,
}

/// The way to a member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its connection's queue.
    pub outbox: Arc<Outbox>,
    /// Which of its joins made it one.
    pub join: JoinNumber,
}

/// What the hub knows of a room.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The room's number.
    pub number: RoomNumber,
    /// Where to send it mail.
    pub inbox: Inbox,
    /// What it reports of itself.
    pub figures: Arc<Figures>,
}

/// What a room reports of itself after every batch.
#[derive(Debug, Default)]
pub struct Figures {
    /// About how much memory it takes.
    pub memory_bytes: AtomicU64,
    /// How many members it has.
    pub members: AtomicU64,
    /// When it last had mail, on the server's clock.
    pub active_ms: AtomicU64,
    /// Mail that connections keep for it, because its inbox was full.
    pub parked: AtomicU64,
}

/// A room's task.
pub(super) struct Task {
    room: Room,
    document: DocumentId,
    number: RoomNumber,
    hub: Arc<Hub>,
    inbox: mpsc::Receiver<Box<Letter>>,
    /// Taken out of the inbox and not looked at yet: what is left here when the room panics still needs an answer.
    mail: VecDeque<Box<Letter>>,
    members: BTreeMap<SessionId, Member>,
    audience: Option<Audience>,
    work: Work,
    turns: Turns,
    /// Joins that wait for the session's queue to drain, the last one of each.
    joining: BTreeMap<SessionId, Join>,
    figures: Arc<Figures>,
    /// Its part of the memory budget.
    share: Share,
    /// When its memory is to be added up again: that takes longer than a small batch.
    next_account: Time,
    /// What came since it was added up; a document that has just been loaded or merged counts as much.
    grown_bytes: usize,
    stage: Stage,
}

/// The queues of the last broadcast's members: most broadcasts go to the same.
struct Audience {
    sessions: Arc<[SessionId]>,
    outboxes: Vec<Arc<Outbox>>,
}

impl Audience {
    fn of(sessions: &Arc<[SessionId]>, members: &BTreeMap<SessionId, Member>) -> Self {
        let outboxes = sessions
            .iter()
            .filter_map(|session| Some(members.get(session)?.outbox.clone()));
        Self {
            sessions: sessions.clone(),
            outboxes: outboxes.collect(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// The server stops: the room ends once everything taken in is stored.
    Stopping,
    /// The engine has closed the room.
    Closed,
}

/// Starts a room's task and answers with its handle.
pub(super) fn open(hub: &Arc<Hub>, document: DocumentId, number: RoomNumber) -> Handle {
    let (sender, inbox) = inbox::inbox(INBOX_MAX);
    let figures = Arc::new(Figures::default());
    let handle = Handle {
        number,
        inbox: sender,
        figures: figures.clone(),
    };
    let mut out = Vec::new();
    let now = hub.now();
    let room = Room::new(number, document.clone(), hub.limits(), hub.tuning(), now, &mut out);
    // Many may be opened before the first has loaded.
    let memory = room.memory_bytes() as u64;
    figures.memory_bytes.store(memory, Ordering::Relaxed);
    // Nor is it the longest unused.
    figures.active_ms.store(now.ms(), Ordering::Relaxed);
    let share = hub.memory().take(memory);
    let mut task = Task {
        room,
        work: Work::new(hub.workers(), document.clone()),
        document,
        number,
        hub: hub.clone(),
        inbox,
        mail: VecDeque::new(),
        members: BTreeMap::new(),
        audience: None,
        turns: Turns::default(),
        joining: BTreeMap::new(),
        figures,
        share,
        next_account: now,
        grown_bytes: 0,
        stage: Stage::Running,
    };
    hub.spawn(async move {
        task.perform(out);
        if AssertUnwindSafe(task.run()).catch_unwind().await.is_err() {
            task.broke();
        }
        task.finish_work().await;
        task.end();
    });
    handle
}

/// The `closed` frame of a room that has ended without its members' doing.
pub(super) fn ended(document: &DocumentId, room: Option<RoomNumber>) -> Bytes {
    let closed = ServerMessage::Closed {
        room,
        document: document.clone(),
        code: ClosedCode::Unavailable,
        text: "the room has ended; open the document again".to_owned(),
    };
    closed.encode()
}

/// Does what takes long: another thread goes on with the tasks of this one meanwhile. Where there is one thread alone, they wait.
fn lend_thread<T>(work: impl FnOnce() -> T) -> T {
    match tokio::runtime::Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

impl Mail {
    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        let payload = match self {
            Self::Join(join, _) => size_of_val(&join.heads[..]),
            Self::Event(Event::Edited(edit)) => edit.changes().iter().map(Bytes::len).sum(),
            Self::Event(Event::Shown { state, .. }) => state.as_ref().map_or(0, Bytes::len),
            Self::Event(Event::Signalled { payload, .. }) => payload.len(),
            Self::Event(Event::Synced { told, .. }) => told.bytes(),
            Self::Event(Event::Broadcast { ephemeral, .. }) => ephemeral.data.len(),
            Self::Event(_) | Self::Stop => 0,
        };
        size_of::<Self>() + payload
    }
}

impl Task {
    async fn run(&mut self) {
        let mut received = Vec::new();
        while self.stage != Stage::Closed {
            failpoints::pass(&self.document).await;
            let wake = self
                .room
                .next_wakeup()
                .map(|at| Duration::from_millis(at.ms_since(self.hub.now())));
            let saturated = self.is_saturated();
            self.work.hold_up(saturated && self.room.waits_for_merge());
            let has_mail = !self.mail.is_empty();
            let is_idle = self.work.is_idle() && !self.room.appends_next();
            if self.stage == Stage::Stopping && !has_mail && self.nothing_comes() && is_idle {
                return;
            }
            let event = tokio::select! {
                biased;
                event = self.work.next(), if !self.work.is_idle() => Some(event),
                () = std::future::ready(()), if has_mail && !saturated => None,
                _ = self.inbox.recv_many(&mut received, BATCH_MAX), if !has_mail && !saturated => None,
                () = tokio::time::sleep(wake.unwrap_or_default()), if wake.is_some() => Some(Event::Woke),
            };
            let now = self.hub.now();
            if let Some(event) = event {
                self.go_on(now, event);
            }
            self.mail.extend(received.drain(..));
            self.take_in(now);
            // Whoever shares the thread comes in between, and what they are about to send goes into the same batch: it is stored,
            // synced and shown at once. Where nothing is to be stored, and nothing waits for another turn, that would only wake another
            // thread.
            for _ in 0..YIELDS {
                if !self.room.appends_next() && self.mail.is_empty() {
                    break;
                }
                tokio::task::yield_now().await;
                if self.is_saturated() || !self.mail.is_empty() || self.hub.now().ms_since(now) >= TURN_MS {
                    break;
                }
                let arrived = std::iter::from_fn(|| self.inbox.try_recv().ok());
                self.mail.extend(arrived.take(BATCH_MAX));
                self.take_in(self.hub.now());
            }
            let now = self.hub.now();
            let mut out = Vec::new();
            self.room.settle(now, &mut out);
            self.perform(out);
            if self.work.kept_bytes() > 0 && !self.room.brings_up() {
                self.work.forget_pieces();
            }
            self.report(now);
        }
    }

    /// Work has come to an end, or it is time for something.
    fn go_on(&mut self, now: Time, event: Event) {
        let answered = turns::answered(&event);
        if matches!(event, Event::Loaded(_) | Event::Merged(_) | Event::Proven { .. }) {
            self.grown_bytes += ACCOUNT_BYTES;
        }
        match event {
            Event::Reach { .. } => lend_thread(|| self.handle(now, event)),
            // The former document, which may be large, is freed.
            Event::Merged(_) if self.room.is_large() => lend_thread(|| self.handle(now, event)),
            event => self.handle(now, event),
        }
        let next = answered.and_then(|turn| self.turns.answered(turn, self.number));
        self.perform(next.into_iter().collect());
    }

    /// Whether the room has enough for now. When the server stops, nothing is merged any more, so merges are not waited for.
    fn is_saturated(&self) -> bool {
        self.room.is_saturated() && !(self.hub.is_stopping() && self.room.waits_for_merge())
    }

    /// Looks at the mail, until the room has enough or its turn is over.
    fn take_in(&mut self, now: Time) {
        while !self.is_saturated()
            && let Some(letter) = self.mail.pop_front()
        {
            let Letter { mail, space } = *letter;
            self.grown_bytes += mail.bytes();
            self.receive(now, mail);
            drop(space);
            if !self.mail.is_empty() && self.hub.now().ms_since(now) >= TURN_MS {
                return;
            }
        }
    }

    /// Whether no mail is on its way. What is parked is counted until it is in the inbox, so it is looked at first.
    fn nothing_comes(&self) -> bool {
        self.figures.parked.load(Ordering::Acquire) == 0 && self.inbox.is_empty()
    }

    fn receive(&mut self, now: Time, mail: Mail) {
        match mail {
            Mail::Join(join, member) => {
                let session = join.session;
                let crowded = member.outbox.is_crowded();
                self.members.insert(session, member);
                self.audience = None;
                if crowded {
                    self.joining.insert(session, join);
                    self.tell_when_drained(session);
                } else {
                    self.joining.remove(&session);
                    self.handle(now, Event::Joined(join));
                }
            }
            Mail::Event(Event::Left { session }) => {
                self.handle(now, Event::Left { session });
                self.members.remove(&session);
                self.joining.remove(&session);
                self.turns.forget(session);
                self.audience = None;
            }
            Mail::Event(Event::Drained { session }) => {
                if let Some(join) = self.joining.remove(&session) {
                    self.handle(now, Event::Joined(join));
                } else if let Some(read) = self.turns.drained(session) {
                    self.perform(vec![read]);
                } else {
                    self.handle(now, Event::Drained { session });
                }
            }
            Mail::Event(Event::Edited(edit)) if self.hub.memory().is_full() => self.handle(now, Event::PutOff(edit)),
            Mail::Event(event) => self.handle(now, event),
            Mail::Stop => self.stage = Stage::Stopping,
        }
    }

    fn handle(&mut self, now: Time, event: Event) {
        if let Event::Signalled { payload, .. } = &event {
            failpoints::signalled(payload);
        }
        let mut out = Vec::new();
        self.room.handle(now, event, &mut out);
        self.perform(out);
    }

    /// Does what the engine wants done. What members miss because their queues are full goes back in at once.
    fn perform(&mut self, effects: Vec<Effect>) {
        let mut lagging = Vec::new();
        for effect in effects {
            match effect {
                Effect::Reply { to, frame } => self.reply(to, failpoints::answer(frame)),
                Effect::Part { to, frame } => {
                    self.with(to, |outbox| outbox.push(frame));
                    self.tell_when_drained(to);
                }
                Effect::Broadcast {
                    to,
                    except,
                    frame,
                    begins,
                } => {
                    self.broadcast(&to, except, &frame, begins, &mut lagging);
                }
                Effect::Dismiss { session, frame } => {
                    let number = self.number;
                    if let Some(member) = self.members.remove(&session) {
                        member.outbox.dismiss(number, member.join, frame);
                    }
                    self.audience = None;
                }
                Effect::Disconnect {
                    session,
                    code,
                    text,
                    frame,
                } => {
                    tracing::warn!(document = %self.document, %session, code = code.number(), text, "disconnected by a room");
                    self.with(session, |outbox| {
                        outbox.push(frame);
                        outbox.close(code, text);
                    });
                    self.members.remove(&session);
                    self.audience = None;
                }
                Effect::Close => self.stage = Stage::Closed,
                work => {
                    if let Effect::Append(append) = &work {
                        let changes = append.entries.iter();
                        self.grown_bytes += changes.map(|entry| entry.change.len()).sum::<usize>();
                    }
                    self.start(work);
                }
            }
        }
        if lagging.is_empty() {
            return;
        }
        let now = self.hub.now();
        self.hub.metrics().members_lagged.inc_by(lagging.len() as u64);
        for (session, at) in lagging {
            self.handle(now, Event::Lagged { session, at });
            self.tell_when_drained(session);
        }
    }

    /// A large frame, a document for a peer of the repo dialect, is charged to the rooms' memory until it is written.
    fn reply(&self, to: SessionId, frame: Bytes) {
        if frame.len() < LARGE_FRAME_BYTES {
            return self.with(to, |outbox| outbox.push(frame));
        }
        match self.hub.memory().try_take(frame.len() as u64) {
            Some(share) => {
                let charged = Bytes::from_owner(Charged { frame, _share: share });
                self.with(to, |outbox| outbox.push(charged));
            }
            None => {
                self.hub.metrics().refuse(Refused::Overloaded);
                self.with(to, |outbox| {
                    let text = "the server has no memory left to send this document; come back later";
                    outbox.close(CloseCode::Overloaded, text.to_owned());
                });
            }
        }
    }

    fn start(&mut self, work: Effect) {
        let session = match &work {
            Effect::Read { session, .. } | Effect::Decode { session, .. } | Effect::Prove { session, .. } => {
                Some(*session)
            }
            _ => None,
        };
        let member = session.and_then(|session| self.members.get(&session));
        let outbox = member.map(|member| &member.outbox);
        let part_bytes = usize::try_from(self.hub.limits().part_bytes_max).unwrap_or(usize::MAX);
        if let Some(work) = self.turns.ask(work, self.number, outbox, part_bytes) {
            let size = if self.room.is_large() { Size::Large } else { Size::Small };
            self.work.start(work, size);
        }
    }

    fn broadcast(
        &mut self,
        to: &Arc<[SessionId]>,
        except: Option<SessionId>,
        frame: &Bytes,
        begins: Option<Position>,
        lagging: &mut Vec<(SessionId, Position)>,
    ) {
        let (audience, all) = match self.audience.take() {
            Some(known) if Arc::ptr_eq(&known.sessions, to) => (known, None),
            // Presence is shown to a few at a time, amid what goes to all, which is kept. When a few lag, it is all the others
            // to whom everything goes: those are kept.
            Some(all) if 2 * to.len() < all.sessions.len() => (Audience::of(to, &self.members), Some(all)),
            Some(_) | None => (Audience::of(to, &self.members), None),
        };
        for outbox in &audience.outboxes {
            if except == Some(outbox.session()) || outbox.try_push(failpoints::shared(frame)) {
                continue;
            }
            self.hub.metrics().frames_left_out.inc();
            if let Some(begins) = begins {
                lagging.push((outbox.session(), begins));
            }
        }
        self.audience = all.or(Some(audience));
    }

    fn with(&self, session: SessionId, act: impl FnOnce(&Outbox)) {
        if let Some(member) = self.members.get(&session) {
            act(&member.outbox);
        }
    }

    fn tell_when_drained(&self, session: SessionId) {
        self.with(session, |outbox| outbox.tell_when_drained(self.number));
    }

    fn report(&mut self, now: Time) {
        let (tally, metrics) = (self.room.take_tally(), self.hub.metrics());
        metrics.edits_acked.inc_by(tally.acked);
        for (code, count) in tally.rejected {
            metrics.reject(&code, count);
        }
        for (code, count) in tally.closed {
            metrics.closed(&code, count);
        }
        if now >= self.next_account || self.grown_bytes >= ACCOUNT_BYTES {
            self.next_account = now.plus_ms(ACCOUNT_INTERVAL_MS);
            self.grown_bytes = 0;
            let memory = self.room.memory_bytes() as u64 + self.work.kept_bytes();
            self.figures.memory_bytes.store(memory, Ordering::Relaxed);
            self.share.set(memory);
        }
        self.figures
            .members
            .store(self.room.members() as u64, Ordering::Relaxed);
        self.figures.active_ms.store(now.ms(), Ordering::Relaxed);
    }

    /// The room has a bug: its members are told to come back, nothing acknowledged is lost, nobody else notices.
    fn broke(&mut self) {
        tracing::error!(document = %self.document, "the room panicked; its members will open it anew");
        self.hub.metrics().room_panics.inc();
        self.joining.clear();
        let frame = ended(&self.document, Some(self.number));
        for member in self.members.values() {
            member.outbox.dismiss(self.number, member.join, frame.clone());
        }
        self.hub
            .metrics()
            .closed(&ClosedCode::Unavailable, self.members.len() as u64);
    }

    /// Waits for what is under way: the next room of the document must not read, nor rewrite, what this one still writes.
    async fn finish_work(&mut self) {
        while !self.work.is_idle() {
            self.work.next().await;
        }
    }

    /// The room is no longer listed; whoever has joined meanwhile comes again, to the next one.
    fn end(&mut self) {
        self.hub.unlist(&self.document, self.number);
        self.share.set(0);
        self.inbox.close();
        self.turns.end(self.number);
        let late = self.room.too_late();
        for session in std::mem::take(&mut self.joining).into_keys() {
            if let Some(member) = self.members.remove(&session) {
                member.outbox.dismiss(self.number, member.join, late.clone());
            }
        }
        while let Some(letter) = self.mail.pop_front().or_else(|| self.inbox.try_recv().ok()) {
            if let Mail::Join(_, member) = letter.mail {
                member.outbox.dismiss(self.number, member.join, late.clone());
            }
        }
    }
}
