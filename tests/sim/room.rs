//! A room's task in virtual time: the same loop as `syncline::server::room`, one turn at a time.

use crate::{
    connection::Postbox,
    network::LinkId,
    random::Random,
    work::Work,
    world::{Context, Happening, Mutation},
    writer::Writer,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};
use syncline::{
    engine::{
        room::{Effect, Event, Join, Room},
        time::Time,
    },
    server::store::Store,
};
use syncline_protocol::{
    DocumentId, Position, RoomNumber, SessionId,
    native::{ClosedCode, ServerMessage},
};

/// A piece of a room's work, by number.
pub(crate) type JobId = u64;

/// Messages that a room takes in one go.
const BATCH_MAX: usize = 512;

/// A message to a room.
#[derive(Debug)]
pub(crate) enum Mail {
    Join(Join, Postbox),
    Event(Event),
    Stop,
}

/// One room's task.
pub(crate) struct Task {
    room: Room,
    process: u64,
    pub(crate) document: DocumentId,
    pub(crate) number: RoomNumber,
    inbox: VecDeque<Mail>,
    /// Connections that wait for a place in the inbox.
    waiting: BTreeSet<LinkId>,
    outboxes: BTreeMap<SessionId, Postbox>,
    pub(crate) work: Work,
    stage: Stage,
    told_to_stop: bool,
    /// The time of the turn that is foreseen.
    turn: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Stopping,
    Closed,
    /// It panicked; what it has under way is waited for.
    Broken,
}

impl Task {
    pub(crate) fn open(
        process: u64,
        document: DocumentId,
        number: RoomNumber,
        store: &Store,
        writer: &mut Writer,
        context: &mut Context,
    ) -> Self {
        context.coverage.rooms_opened += 1;
        context.say(format_args!("room {number} opens {document}"));
        let (mut out, plan) = (Vec::new(), &context.plan);
        let limits = Arc::new(plan.limits.clone());
        let now = Time::from_ms(context.now);
        let room = Room::new(number, document.clone(), limits, plan.tuning.clone(), now, &mut out);
        let work = Work::new(process, number, store.clone(), document.clone(), context);
        let mut task = Self {
            room,
            process,
            document,
            number,
            inbox: VecDeque::new(),
            waiting: BTreeSet::new(),
            outboxes: BTreeMap::new(),
            work,
            stage: Stage::Running,
            told_to_stop: false,
            turn: None,
        };
        task.perform(out, writer, context);
        task
    }

    /// Puts a message into the inbox, unless it is full; then `link` is told when it is not any more.
    pub(crate) fn post(&mut self, mail: Mail, link: LinkId, context: &mut Context) -> Result<(), Mail> {
        if self.inbox.len() >= context.plan.inbox_max {
            context.coverage.inbox_waits += 1;
            self.waiting.insert(link);
            return Err(mail);
        }
        self.inbox.push_back(mail);
        self.poke(context);
        Ok(())
    }

    /// Tells the room to stop, or to let go of memory; it has a place for that.
    pub(crate) fn tell(&mut self, mail: Mail, context: &mut Context) {
        self.inbox.push_back(mail);
        self.poke(context);
    }

    /// The server stops.
    pub(crate) fn stop(&mut self, context: &mut Context) {
        if !std::mem::replace(&mut self.told_to_stop, true) {
            self.tell(Mail::Stop, context);
        }
    }

    /// The room has its turn. Whether it has ended.
    pub(crate) fn turn(&mut self, writer: &mut Writer, context: &mut Context) -> bool {
        if self.turn.is_none_or(|at| at > context.now) {
            return false;
        }
        self.turn = None;
        let now = Time::from_ms(context.now);
        if self.stage == Stage::Broken || self.stage == Stage::Closed {
            while self.work.answer().is_some() {}
            return self.has_ended(context);
        }
        let event = self.work.answer();
        if event.is_none() && self.is_reading() && !self.inbox.is_empty() {
            let taken = self.inbox.len().min(BATCH_MAX);
            let mut mail: VecDeque<Mail> = self.inbox.drain(..taken).collect();
            for link in std::mem::take(&mut self.waiting) {
                context.after(0, Happening::Connection { link });
            }
            // Rather over several messages, which a room that is loading or merging gathers; or with an append under way, where that
            // is what it is about.
            let is_ripe = |random: &mut Random| match context.mutation {
                Mutation::OpenTooEarly => self.work.is_appending(),
                _ => mail.len() > 1 || random.percent(20),
            };
            if context.room_panics > 0 && is_ripe(&mut context.random) {
                context.room_panics -= 1;
                // It panics over the first message; the others are still to be answered.
                if let Some(Mail::Join(join, postbox)) = mail.pop_front() {
                    self.outboxes.insert(join.session, postbox);
                }
                if context.mutation != Mutation::LoseMail {
                    self.inbox.extend(mail);
                }
                self.break_down(context);
                return self.has_ended(context);
            }
            for mail in mail {
                self.receive(now, mail, writer, context);
            }
        } else if let Some(event) = event {
            self.handle(now, event, writer, context);
        } else if self.room.next_wakeup().is_some_and(|at| at <= now) {
            self.handle(now, Event::Woke, writer, context);
        } else {
            return self.rest(context);
        }
        let mut out = Vec::new();
        self.room.settle(now, &mut out);
        self.perform(out, writer, context);
        context.coverage.rests += u64::from(self.room.appends_next());
        self.rest(context)
    }

    /// Foresees the next turn. Whether the room has ended.
    fn rest(&mut self, context: &mut Context) -> bool {
        if self.has_ended(context) {
            return true;
        }
        let busy = self.work.has_answer() || (self.is_reading() && !self.inbox.is_empty());
        if busy {
            self.poke(context);
        } else if let Some(at) = self.room.next_wakeup() {
            let at = at.ms().max(context.now + 1);
            self.turn_at(at, context);
        }
        false
    }

    fn has_ended(&self, context: &Context) -> bool {
        let idle = self.work.is_idle() || context.mutation == Mutation::OpenTooEarly;
        match self.stage {
            Stage::Running => false,
            Stage::Stopping => self.work.is_idle() && !self.room.appends_next(),
            Stage::Closed | Stage::Broken => idle,
        }
    }

    fn is_reading(&self) -> bool {
        self.stage == Stage::Running && !self.room.is_saturated()
    }

    /// Something has come for the room.
    pub(crate) fn poke(&mut self, context: &mut Context) {
        let ms = context.plan.turn_ms(&mut context.random);
        let at = context.now + ms;
        self.turn_at(at, context);
    }

    fn turn_at(&mut self, at: u64, context: &mut Context) {
        if self.turn.is_none_or(|turn| turn > at) {
            self.turn = Some(at);
            let (process, number) = (self.process, self.number);
            context.after(at - context.now, Happening::Room { process, number });
        }
    }

    fn receive(&mut self, now: Time, mail: Mail, writer: &mut Writer, context: &mut Context) {
        match mail {
            Mail::Join(join, postbox) => {
                self.outboxes.insert(join.session, postbox);
                self.handle(now, Event::Joined(join), writer, context);
            }
            Mail::Event(Event::Left { session }) => {
                self.handle(now, Event::Left { session }, writer, context);
                self.outboxes.remove(&session);
            }
            Mail::Event(event) => self.handle(now, event, writer, context),
            Mail::Stop => self.stage = Stage::Stopping,
        }
    }

    fn handle(&mut self, now: Time, event: Event, writer: &mut Writer, context: &mut Context) {
        let mut out = Vec::new();
        self.room.handle(now, event, &mut out);
        self.perform(out, writer, context);
    }

    fn perform(&mut self, effects: Vec<Effect>, writer: &mut Writer, context: &mut Context) {
        let mut lagging = Vec::new();
        for effect in effects {
            match effect {
                Effect::Reply { to, frame } => self.push(to, frame, context),
                Effect::Part { to, frame } => {
                    self.push(to, frame, context);
                    self.tell_when_drained(to, context);
                }
                Effect::Broadcast {
                    to,
                    except,
                    frame,
                    begins,
                } => self.broadcast(&to, except, &frame, begins, &mut lagging, context),
                Effect::Dismiss { session, frame } => {
                    if let Some(postbox) = self.outboxes.remove(&session) {
                        postbox.dismiss(self.number, frame, context);
                    }
                }
                Effect::Disconnect {
                    session,
                    code,
                    text,
                    frame,
                } => {
                    context.say(format_args!("room {} disconnects {session}: {text}", self.number));
                    if let Some(postbox) = self.outboxes.remove(&session) {
                        postbox.push(frame, context);
                        postbox.close(code, text, context);
                    }
                }
                Effect::Close => {
                    context.coverage.rooms_closed += 1;
                    self.stage = Stage::Closed;
                }
                work => {
                    if let Some(answer) = self.work.start(work, writer, context) {
                        self.work.answered(answer);
                        self.poke(context);
                    }
                }
            }
        }
        let now = Time::from_ms(context.now);
        for (session, at) in lagging {
            context.coverage.lagged += 1;
            if context.mutation != Mutation::LoseLagged {
                self.handle(now, Event::Lagged { session, at }, writer, context);
            }
            self.tell_when_drained(session, context);
        }
    }

    fn broadcast(
        &self,
        to: &Arc<[SessionId]>,
        except: Option<SessionId>,
        frame: &Bytes,
        begins: Option<Position>,
        lagging: &mut Vec<(SessionId, Position)>,
        context: &mut Context,
    ) {
        for session in to.iter().filter(|session| except != Some(**session)) {
            let Some(postbox) = self.outboxes.get(session) else {
                context.violated(format!("room {} sends to {session}, which is no member", self.number));
                continue;
            };
            if !postbox.try_push(frame.clone(), context)
                && let Some(begins) = begins
            {
                lagging.push((*session, begins));
            }
        }
    }

    fn push(&self, to: SessionId, frame: Bytes, context: &mut Context) {
        if let Some(postbox) = self.outboxes.get(&to) {
            postbox.push(frame, context);
        }
    }

    fn tell_when_drained(&self, session: SessionId, context: &mut Context) {
        if let Some(postbox) = self.outboxes.get(&session) {
            postbox.tell_when_drained(self.number, context);
        }
    }

    /// The room panics: its members are told to come back.
    fn break_down(&mut self, context: &mut Context) {
        context.coverage.room_panics += 1;
        context.say(format_args!("room {} panics", self.number));
        self.stage = Stage::Broken;
        let frame = self.closed(Some(self.number));
        for postbox in std::mem::take(&mut self.outboxes).into_values() {
            postbox.dismiss(self.number, frame.clone(), context);
        }
    }

    fn closed(&self, room: Option<RoomNumber>) -> Bytes {
        let closed = ServerMessage::Closed {
            room,
            document: self.document.clone(),
            code: ClosedCode::Unavailable,
            text: "the room has ended; open the document again".to_owned(),
        };
        closed.encode()
    }

    /// The room is no longer listed; whoever has joined meanwhile comes again, to the next one.
    pub(crate) fn end(mut self, context: &mut Context) {
        context.say(format_args!("room {} ends", self.number));
        let closed = self.room.too_late();
        for mail in std::mem::take(&mut self.inbox) {
            if let Mail::Join(_, postbox) = mail {
                postbox.dismiss(self.number, closed.clone(), context);
            }
        }
        for link in self.waiting {
            context.after(0, Happening::Connection { link });
        }
        self.work.abandon();
    }
}
