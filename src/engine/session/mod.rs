//! Our side of one connection: frames in, authorised room events and replies out, in either dialect.
//!
//! Permission is decided here and nowhere else: a room cannot receive an edit that was not authorised, because an
//! [`AuthorisedEdit`] has no other constructor. What a peer says of itself is a claim; the session's id is ours.

mod native;
mod repo;

pub use repo::RepoServer;

use crate::engine::{
    gate::{Refusal, Subject},
    grant::Grant,
    room::{self, Join},
    time::Time,
};
use bytes::Bytes;
use native::NativeSession;
use repo::RepoSession;
use std::sync::Arc;
use syncline_protocol::{
    CloseCode, DocumentId, EditId, Limits, RoomNumber, SessionId,
    native::{ClosedCode, RejectCode},
    repo::{PeerId, RepoMessage, SyncMessage},
};

/// What happens to a session.
#[derive(Debug)]
pub enum Event {
    /// The connection is there, with the token that the upgrade brought. Only the repo dialect has a use for that.
    Accepted {
        /// The token.
        token: Option<String>,
    },
    /// Answers [`Effect::Claim`]: the name is this connection's.
    Claimed {
        /// Whether the storage is not another subject's.
        owns_storage: bool,
    },
    /// A binary message arrived.
    Received(Bytes),
    /// Answers [`Effect::Unpack`]: the changes of the document, or why there are none.
    Unpacked(Result<Vec<Bytes>, Refusal>),
    /// Answers [`Effect::Verify`]: the token is good. `expires` is the grant's end on the engine's clock.
    Admitted {
        /// What it allows.
        grant: Grant,
        /// When the session must end.
        expires: Option<Time>,
    },
    /// Answers [`Effect::Verify`]: the token is not good, or the server has no place for its subject.
    Refused {
        /// With which code the connection closes.
        code: CloseCode,
        /// Why, without the token.
        text: String,
    },
    /// Answers [`Effect::Join`]: the room that it led to.
    Bound {
        /// Which document.
        document: DocumentId,
        /// Its room.
        room: RoomNumber,
    },
    /// Answers [`Effect::Join`]: the server cannot open a room now.
    Unbound {
        /// Which document.
        document: DocumentId,
    },
    /// A room dismissed the session.
    Dismissed {
        /// Which room.
        room: RoomNumber,
    },
    /// The time that [`Session::next_wakeup`] named has come.
    Woke,
}

/// What a session wants done.
#[derive(Debug)]
pub enum Effect {
    /// Verify a token; answered by `Admitted` or `Refused` before any further event.
    Verify {
        /// The token.
        token: Option<String>,
    },
    /// Hold a peer's name for this connection; a connection of the same subject that held it is closed. Answered by `Claimed`
    /// or `Refused` before any further event.
    Claim {
        /// The name.
        peer: PeerId,
        /// The storage that goes with it.
        storage_id: Option<String>,
        /// Whose connection it is.
        subject: Subject,
    },
    /// Join a document's room; answered by `Bound` or `Unbound` before any further event.
    Join {
        /// Which document.
        document: DocumentId,
        /// As whom, and from where on.
        join: Join,
    },
    /// Tell a room something.
    Tell {
        /// Which room.
        room: RoomNumber,
        /// What.
        event: room::Event,
    },
    /// Take a whole document apart ([`crate::engine::gate::Whole`]), not on an I/O thread; answered by `Unpacked` before any
    /// further message is received.
    Unpack {
        /// The document chunk.
        document: Bytes,
    },
    /// Send a frame.
    Send(Bytes),
    /// Send the frame that says that a document is closed to the session.
    Closed {
        /// Why.
        code: ClosedCode,
        /// The frame.
        frame: Bytes,
    },
    /// Edits are refused before any room hears of them.
    Rejected {
        /// Why.
        code: RejectCode,
        /// How many.
        edits: u64,
        /// The frame that says so, in a dialect that has one.
        frame: Option<Bytes>,
    },
    /// Read nothing more before then.
    Pause {
        /// When to read on.
        until: Time,
    },
    /// Close the connection; nothing is received after that.
    Close {
        /// With which code.
        code: CloseCode,
        /// And which text.
        text: String,
    },
}

/// An edit of a session that may write the document. Only a session makes one.
#[derive(Debug)]
pub struct AuthorisedEdit {
    session: SessionId,
    subject: Subject,
    id: EditId,
    changes: Vec<Bytes>,
}

impl AuthorisedEdit {
    fn new(session: SessionId, subject: Subject, id: EditId, changes: Vec<Bytes>) -> Self {
        Self {
            session,
            subject,
            id,
            changes,
        }
    }

    /// Whose connection it came by.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Who writes.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The client's number for it.
    pub fn id(&self) -> EditId {
        self.id
    }

    /// The change chunks as they came; at least one.
    pub fn changes(&self) -> &[Bytes] {
        &self.changes
    }

    /// All of it.
    pub fn into_parts(self) -> (SessionId, EditId, Subject, Vec<Bytes>) {
        (self.session, self.id, self.subject, self.changes)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Session(Speaks);

/// What it speaks.
#[derive(Debug)]
enum Speaks {
    Native(NativeSession),
    Repo(RepoSession),
}

impl Session {
    /// A connection that has just been accepted and speaks the native dialect.
    pub fn new(id: SessionId, limits: Arc<Limits>, now: Time) -> Self {
        Self(Speaks::Native(NativeSession::new(id, limits, now)))
    }

    /// A connection that has just been accepted and speaks the repo dialect; feed it [`Event::Accepted`] first.
    pub fn repo(id: SessionId, limits: Arc<Limits>, host: Arc<RepoServer>, now: Time) -> Self {
        Self(Speaks::Repo(RepoSession::new(id, limits, host, now)))
    }

    /// The server's name for the connection.
    pub fn id(&self) -> SessionId {
        match &self.0 {
            Speaks::Native(session) => session.id(),
            Speaks::Repo(session) => session.id(),
        }
    }

    /// When to send [`Event::Woke`].
    pub fn next_wakeup(&self) -> Option<Time> {
        match &self.0 {
            Speaks::Native(session) => session.next_wakeup(),
            Speaks::Repo(session) => session.next_wakeup(),
        }
    }

    /// Takes one event in; what is to be done is appended to `out`, in order.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Vec<Effect>) {
        match &mut self.0 {
            Speaks::Native(session) => session.handle(now, event, out),
            Speaks::Repo(session) => session.handle(now, event, out),
        }
    }
}

/// What is not to be had: a peer of the repo dialect is told the same whatever the reason; the server counts them apart.
fn unavailable(host: &RepoServer, peer: &PeerId, document: &str, code: ClosedCode) -> Effect {
    let message = RepoMessage::DocUnavailable {
        sender: host.peer.clone(),
        target: Some(peer.clone()),
        document: document.to_owned(),
    };
    let frame = message.encode();
    Effect::Closed { code, frame }
}

/// A reader's changes, of which the repo dialect says nothing. A message of them counts once: whoever is not told of it says the
/// same changes again each time.
fn refused_unsaid(message: &SyncMessage) -> Option<Effect> {
    let has_edits = !(message.changes.is_empty() && message.documents.is_empty());
    has_edits.then_some(Effect::Rejected {
        code: RejectCode::Forbidden,
        edits: 1,
        frame: None,
    })
}
