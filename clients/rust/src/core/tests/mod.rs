//! The core against a model of the server, without a socket or a clock.

mod edits;
mod link;
mod resync;
pub(crate) mod server;
mod simulation;

use super::*;
use automerge::{ObjType, ROOT, ReadDoc, transaction::Transactable};
use server::{Outgoing, Server};
use std::convert::Infallible;
use syncline_protocol::native::{RejectCode, decode_client};

/// One core on a line to the model that delivers at once.
struct Pair {
    core: Core,
    session: Option<SessionId>,
    now_ms: u64,
    /// Everything the core sent on the present connection.
    sent: Vec<ClientMessage>,
    notices: Vec<Notice>,
    /// Frames from the server that were not delivered yet.
    inbox: Vec<Bytes>,
}

fn id(text: &str) -> DocumentId {
    text.parse().unwrap()
}

impl Pair {
    fn new(seed: u8) -> Self {
        let core = Core::new(Config::new([seed; 32]));
        Self {
            core,
            session: None,
            now_ms: 1_000,
            sent: Vec::new(),
            notices: Vec::new(),
            inbox: Vec::new(),
        }
    }

    /// A core that is in the room of `document`.
    fn live(seed: u8, server: &mut Server, document: &DocumentId) -> Self {
        let mut pair = Self::new(seed);
        pair.event(
            server,
            Event::Open {
                document: document.clone(),
                saved: None,
            },
        );
        pair.event(server, Event::Started);
        pair.run(server);
        assert!(matches!(pair.state(document).status, DocumentStatus::Live { .. }));
        pair
    }

    fn state(&self, document: &DocumentId) -> DocumentState {
        self.core.state(document).unwrap()
    }

    fn text(&self, document: &DocumentId) -> String {
        text_of(self.core.document(document).unwrap())
    }

    /// Hands an event in, settles, and does the effects against `server`.
    fn event(&mut self, server: &mut Server, event: Event) {
        let mut effects = Vec::new();
        self.core.handle(self.now_ms, event, &mut effects);
        self.core.settle(self.now_ms, &mut effects);
        self.perform(server, effects);
    }

    fn perform(&mut self, server: &mut Server, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Connect => {
                    assert!(self.session.is_none(), "one connection at a time");
                    (self.session, self.sent, self.inbox) = (Some(server.accept()), Vec::new(), Vec::new());
                    self.event(server, Event::Connected);
                }
                Effect::NeedToken => {}
                Effect::Send(frame) => {
                    self.sent.push(decode_client(&frame).unwrap());
                    let mut replies = Vec::new();
                    let session = self.session.expect("nothing is sent without a connection");
                    server.receive(session, &frame, &mut replies);
                    self.post(replies);
                }
                Effect::Disconnect => {
                    let session = self.session.take().expect("nothing is closed without a connection");
                    server.disconnect(session);
                    self.inbox.clear();
                }
                Effect::Notify(notice) => self.notices.push(notice),
            }
        }
    }

    /// Puts what is for this session into its inbox.
    fn post(&mut self, frames: Vec<Outgoing>) {
        let mine = frames.into_iter().filter(|(session, _)| Some(*session) == self.session);
        self.inbox.extend(mine.map(|(_, frame)| frame));
    }

    /// Delivers frames and syncs the server until nothing moves.
    fn run(&mut self, server: &mut Server) {
        loop {
            while !self.inbox.is_empty() {
                let frame = self.inbox.remove(0);
                self.event(server, Event::Received(frame));
            }
            let mut frames = Vec::new();
            server.sync(&mut frames);
            self.post(frames);
            if self.inbox.is_empty() {
                return;
            }
        }
    }

    /// The connection breaks, and the backoff passes.
    fn cut(&mut self, server: &mut Server) {
        server.disconnect(self.session.take().unwrap());
        self.inbox.clear();
        self.event(server, Event::Disconnected { code: None });
    }

    fn wake(&mut self, server: &mut Server) {
        self.now_ms = self.core.next_wakeup().unwrap().max(self.now_ms);
        self.event(server, Event::Woke);
    }

    /// Types `text` at the end of the document's text.
    fn type_text(&mut self, server: &mut Server, document: &DocumentId, text: &str) -> ChangeHash {
        let hash = self.type_quietly(document, text);
        self.event(
            server,
            Event::Edited {
                document: document.clone(),
            },
        );
        hash
    }

    fn type_quietly(&mut self, document: &DocumentId, text: &str) -> ChangeHash {
        let changed = self
            .core
            .change(document, CommitOptions::default(), |tx| append(tx, text));
        changed.unwrap().hash.unwrap()
    }

    fn edits(&self) -> Vec<&Edit> {
        let edits = self.sent.iter().filter_map(|message| match message {
            ClientMessage::Edit(edit) => Some(edit),
            _ => None,
        });
        edits.collect()
    }

    fn opens(&self) -> Vec<&syncline_protocol::native::Open> {
        let opens = self.sent.iter().filter_map(|message| match message {
            ClientMessage::Open(open) => Some(open),
            _ => None,
        });
        opens.collect()
    }
}

fn append(tx: &mut Transaction<'_>, text: &str) -> Result<(), Infallible> {
    let object = match tx.get(ROOT, "text").unwrap() {
        Some((_, object)) => object,
        None => tx.put_object(ROOT, "text", ObjType::Text).unwrap(),
    };
    let end = tx.length(&object);
    tx.splice_text(&object, end, 0, text).unwrap();
    Ok(())
}

fn text_of(document: &Automerge) -> String {
    match document.get(ROOT, "text").unwrap() {
        Some((_, object)) => document.text(object).unwrap(),
        None => String::new(),
    }
}

/// A change by somebody else on what the server has, by an actor of the caller's.
fn written(server: &Server, document: &DocumentId, actor: &[u8], text: &str) -> automerge::Change {
    let mut theirs = server.document(document).with_actor(automerge::ActorId::from(actor));
    let mut tx = theirs.transaction();
    append(&mut tx, text).unwrap();
    let (hash, _) = tx.commit();
    theirs.get_change_by_hash(&hash.unwrap()).unwrap()
}
