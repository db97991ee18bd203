//! The client's one task: it owns the core and the socket, and lives on a thread of its own.
//!
//! Merging a large document takes tens of milliseconds, loading one takes seconds. A thread of its own keeps that away from the
//! app's runtime, whichever that is, and lets one owner take turns instead of locks: while a document is merged, only this
//! client's socket waits. Apps with very many clients in one process pay a thread for each.

use crate::{
    clock::Clock,
    core::{ConnectionStatus, Core, DocumentState, Effect, Event, Notice, Token},
    handle::Signal,
    options::Target,
    socket::{Heard, Socket},
    token::{TokenSource, expiry},
};
use std::collections::BTreeMap;
use syncline_protocol::DocumentId;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Events that are taken in before the core settles.
const BATCH_MAX: usize = 256;
/// Signals that wait for a slow reader; the oldest are dropped.
const SIGNALS_MAX: usize = 256;

/// What the app wants of the task.
pub(crate) enum Command {
    /// Opens a document, or finds it open.
    Open {
        event: Event,
        document: DocumentId,
        reply: oneshot::Sender<Listening>,
    },
    /// Something that happened, as far as the core is concerned.
    Tell(Event),
    /// Work on the core, on its thread.
    Work(Work),
    /// The end.
    Close { reply: oneshot::Sender<()> },
}

/// Runs on the core; what it returns is done after the core has settled, so that the app sees what it did.
pub(crate) type Work = Box<dyn FnOnce(&mut Core) -> Done + Send>;

/// What follows from some work.
pub(crate) struct Done {
    pub(crate) event: Option<Event>,
    pub(crate) reply: Box<dyn FnOnce() + Send>,
}

/// The receiving ends of what a document tells.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    pub(crate) state: watch::Receiver<DocumentState>,
    pub(crate) changes: watch::Receiver<u64>,
    pub(crate) presence: watch::Receiver<u64>,
    pub(crate) signals: broadcast::Sender<Signal>,
}

struct Topics {
    state: watch::Sender<DocumentState>,
    changes: watch::Sender<u64>,
    presence: watch::Sender<u64>,
    signals: broadcast::Sender<Signal>,
}

pub(crate) struct Task {
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) target: Target,
    pub(crate) token: TokenSource,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) status: watch::Sender<ConnectionStatus>,
}

/// The task at work.
struct Running {
    core: Core,
    clock: Clock,
    target: Target,
    token: TokenSource,
    status: watch::Sender<ConnectionStatus>,
    socket: Socket,
    topics: BTreeMap<DocumentId, Topics>,
    effects: Vec<Effect>,
    replies: Vec<Box<dyn FnOnce() + Send>>,
    /// The token function's answers. It is asked once at a time.
    tokens: mpsc::Sender<Result<String, String>>,
    closing: Option<oneshot::Sender<()>>,
}

impl Task {
    /// Works until the app closes the client or lets go of it.
    pub(crate) async fn run(self) {
        let Self {
            core,
            clock,
            target,
            token,
            mut commands,
            status,
        } = self;
        let (tokens, mut answers) = mpsc::channel(1);
        let (socket, topics) = (Socket::None, BTreeMap::new());
        let (effects, replies, closing) = (Vec::new(), Vec::new(), None);
        let mut task = Running {
            core,
            clock,
            target,
            token,
            status,
            socket,
            topics,
            effects,
            replies,
            tokens,
            closing,
        };
        task.event(Event::Started);
        task.settle().await;
        loop {
            let due = task.core.next_wakeup().map(|at_ms| clock.at(at_ms));
            let has_room = task.socket.has_room();
            let open = tokio::select! {
                heard = task.socket.drive() => {
                    task.heard(heard);
                    true
                }
                command = commands.recv(), if has_room => task.command(command),
                Some(answer) = answers.recv() => {
                    task.answered(answer);
                    true
                }
                () = sleep_until(due) => {
                    task.event(Event::Woke);
                    true
                }
            };
            let open = open && task.batch(&mut commands);
            task.settle().await;
            if !open {
                return;
            }
        }
    }
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Running {
    fn event(&mut self, event: Event) {
        self.core.handle(self.clock.now_ms(), event, &mut self.effects);
    }

    /// Takes in what else has come already.
    fn batch(&mut self, commands: &mut mpsc::Receiver<Command>) -> bool {
        for _ in 0..BATCH_MAX {
            if self.effects.contains(&Effect::Disconnect) {
                // What else came belongs to a connection that is over.
                return true;
            }
            let heard = self.socket.ready();
            let command = if self.socket.has_room() {
                commands.try_recv().ok()
            } else {
                None
            };
            if heard.is_none() && command.is_none() {
                return true;
            }
            if let Some(heard) = heard {
                self.heard(heard);
            }
            if command.is_some() && !self.command(command) {
                return false;
            }
        }
        true
    }

    /// The end of a batch: the core decides, and what it decided is done.
    async fn settle(&mut self) {
        self.core.settle(self.clock.now_ms(), &mut self.effects);
        for effect in std::mem::take(&mut self.effects) {
            match effect {
                Effect::Connect => self.socket.dial(self.target.clone()),
                Effect::NeedToken => self.ask_token(),
                Effect::Send(frame) => self.socket.send(frame),
                Effect::Disconnect => self.socket.close().await,
                Effect::Notify(notice) => self.tell(notice),
            }
        }
        for reply in std::mem::take(&mut self.replies) {
            reply();
        }
        if let Some(closing) = self.closing.take() {
            // Nobody may be waiting any more.
            let _ = closing.send(());
        }
    }

    /// Whether the client goes on.
    fn command(&mut self, command: Option<Command>) -> bool {
        match command {
            Some(Command::Open { event, document, reply }) => {
                self.event(event);
                let listening = self.listening(&document);
                self.replies.push(Box::new(move || drop(reply.send(listening))));
            }
            Some(Command::Tell(event)) => {
                if let Event::Close { document } = &event {
                    self.topics.remove(document);
                }
                self.event(event);
            }
            Some(Command::Work(work)) => {
                let Done { event, reply } = work(&mut self.core);
                self.replies.push(reply);
                event.into_iter().for_each(|event| self.event(event));
            }
            Some(Command::Close { reply }) => {
                self.closing = Some(reply);
                self.event(Event::Stopped);
                return false;
            }
            None => {
                self.event(Event::Stopped);
                return false;
            }
        }
        true
    }

    fn heard(&mut self, heard: Heard) {
        match heard {
            Heard::Connected => self.event(Event::Connected),
            Heard::Frame(frame) => self.event(Event::Received(frame)),
            Heard::Sign => self.event(Event::Heard),
            Heard::Gone { code } => self.event(Event::Disconnected { code }),
        }
    }

    fn ask_token(&self) {
        let TokenSource::Function(function) = &self.token else {
            return;
        };
        let (asked, tokens) = (function(), self.tokens.clone());
        tokio::spawn(async move {
            let answer = asked.await.map_err(|error| error.to_string());
            // The task may be gone.
            let _ = tokens.send(answer).await;
        });
    }

    fn answered(&mut self, answer: Result<String, String>) {
        let answer = answer.map(|text| {
            let expires_at_ms = expiry(&text).map(|seconds| self.clock.of_unix_seconds(seconds));
            Token { text, expires_at_ms }
        });
        self.event(Event::Token(answer));
    }

    fn listening(&mut self, document: &DocumentId) -> Listening {
        let state = self.core.state(document).expect("a document that was just opened");
        let topics = self.topics.entry(document.clone()).or_insert_with(|| Topics {
            state: watch::Sender::new(state),
            changes: watch::Sender::new(0),
            presence: watch::Sender::new(0),
            signals: broadcast::Sender::new(SIGNALS_MAX),
        });
        Listening {
            state: topics.state.subscribe(),
            changes: topics.changes.subscribe(),
            presence: topics.presence.subscribe(),
            signals: topics.signals.clone(),
        }
    }

    fn tell(&mut self, notice: Notice) {
        match notice {
            Notice::Connection(status) => {
                self.status.send_replace(status);
            }
            Notice::Document { document, state } => {
                if let Some(topics) = self.topics.get(&document) {
                    topics.state.send_replace(state);
                }
            }
            Notice::Changed { document } => {
                if let Some(topics) = self.topics.get(&document) {
                    topics.changes.send_modify(|count| *count += 1);
                }
            }
            Notice::Presence { document } => {
                if let Some(topics) = self.topics.get(&document) {
                    topics.presence.send_modify(|count| *count += 1);
                }
            }
            Notice::Signal {
                document,
                session,
                payload,
            } => {
                if let Some(topics) = self.topics.get(&document) {
                    // Nobody may be listening.
                    let _ = topics.signals.send(Signal { session, payload });
                }
            }
        }
    }
}
