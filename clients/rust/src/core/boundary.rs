//! What crosses the core's boundary: events in, effects and notices out, and the words for where things stand.

use super::{Saved, Token};
use automerge::ChangeHash;
use bytes::Bytes;
use syncline_protocol::{
    DocumentId, SessionId,
    native::{Access, ClosedCode, RejectCode},
};

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The app wants to be connected; also after a final rejection.
    Started,
    /// The app wants the connection closed; documents stay.
    Stopped,
    /// What [`Effect::Connect`] asked for is there.
    Connected,
    /// A binary frame came.
    Received(Bytes),
    /// A ping or pong came: the server lives.
    Heard,
    /// The connection is gone, or [`Effect::Connect`] failed. Not after [`Effect::Disconnect`].
    Disconnected {
        /// The close code, if there was one.
        code: Option<u16>,
    },
    /// The answer to [`Effect::NeedToken`].
    Token(Result<Token, String>),
    /// The app wants a document. What it kept from an earlier run is `saved`.
    Open {
        /// Which document.
        document: DocumentId,
        /// What [`super::Core::save`] gave.
        saved: Option<Box<Saved>>,
    },
    /// The app lets go of a document; unacknowledged changes that it has not saved go with it.
    Close {
        /// Which document.
        document: DocumentId,
    },
    /// A local change was committed with [`super::Core::change`].
    Edited {
        /// Which document.
        document: DocumentId,
    },
    /// The app shows something of itself, or takes it back.
    SetPresence {
        /// Which document.
        document: DocumentId,
        /// Opaque; `None` takes it back.
        state: Option<Bytes>,
    },
    /// The app says something to the others in the room. Dropped while the room is not joined.
    SendSignal {
        /// Which document.
        document: DocumentId,
        /// Opaque.
        payload: Bytes,
    },
    /// The time of [`super::Core::next_wakeup`] has come.
    Woke,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Open the socket; answer with `Connected` or `Disconnected`.
    Connect,
    /// Ask the app for a new token; answer with `Token`.
    NeedToken,
    /// Send a binary frame.
    Send(Bytes),
    /// Close the socket. Nothing of this connection may be handed in afterwards.
    Disconnect,
    /// Tell the app.
    Notify(Notice),
}

/// What an app may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Where the connection stands now.
    Connection(ConnectionStatus),
    /// Where a document stands now.
    Document {
        /// Which document.
        document: DocumentId,
        /// Where it stands.
        state: DocumentState,
    },
    /// The document's content may be another: others' changes, or the own ones taken back or made anew.
    Changed {
        /// Which document.
        document: DocumentId,
    },
    /// The others' presence may be another.
    Presence {
        /// Which document.
        document: DocumentId,
    },
    /// Somebody in the room said something.
    Signal {
        /// Which document.
        document: DocumentId,
        /// Who.
        session: SessionId,
        /// Opaque.
        payload: Bytes,
    },
}

/// Where the connection stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionStatus {
    /// On the way.
    Connecting,
    /// Admitted.
    Connected,
    /// Not connected.
    Offline {
        /// When the next attempt is made, on the clock of the core; `None` if none is.
        retry_at_ms: Option<u64>,
    },
    /// Refused for good. Nothing more is tried until [`Event::Started`].
    Rejected {
        /// The close code, one of those that are final.
        code: u16,
        /// What the server said.
        text: String,
    },
}

/// Where a document stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentState {
    /// With the server.
    pub status: DocumentStatus,
    /// Whether the document was up to date once.
    pub ready: bool,
    /// How safe the own changes are.
    pub safety: Safety,
    /// Own changes without an `ack`.
    pub unacknowledged: u64,
    /// Refused changes that the app has not taken yet.
    pub drafts: u64,
}

/// Where a document stands with the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentStatus {
    /// Not in its room; it will be, as soon as there is a connection.
    Opening,
    /// On its way in.
    Loading {
        /// Bytes that have come.
        received: u64,
        /// About how many will.
        expected: u64,
    },
    /// In its room.
    Live {
        /// What this client may do there.
        access: Access,
    },
    /// The server does not let it in. Local changes are kept.
    Refused {
        /// Why, for programs.
        code: ClosedCode,
        /// Why, for people.
        text: String,
    },
}

/// How safe the own changes of a document are. Only an answer of the server makes them durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Safety {
    /// Some are only here.
    Local,
    /// All are on their way to the server.
    Sent,
    /// All are on the server's disk.
    Durable,
}

/// Changes that the server refused and that could not be made anew. They are not in the document any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Automerge change chunks, oldest first.
    pub changes: Vec<Bytes>,
    /// Why, for programs.
    pub code: RejectCode,
    /// Why, for people.
    pub text: String,
}

/// Somebody else in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Other {
    /// The subject of their token.
    pub subject: String,
    /// The name in their token.
    pub name: Option<String>,
    /// What they show.
    pub state: Bytes,
}

/// A local change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    /// The change; `None` if the closure changed nothing.
    pub hash: Option<ChangeHash>,
    /// What the closure returned.
    pub result: T,
}

/// Why a local change was not made. The document is as before.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError<E> {
    /// The closure returned an error.
    #[error("{0}")]
    Failed(E),
    /// The document is not open.
    #[error("the document is not open; open it first")]
    NotOpen,
    /// The server lets this client read only.
    #[error("this client may only read the document")]
    ReadOnly,
    /// Too much waits for the server.
    #[error("{0} changes wait for the server already; wait until some are acknowledged")]
    QueueFull(u64),
    /// Too many refused changes have not been taken.
    #[error("{0} drafts have not been taken; take or drop some first")]
    DraftsFull(u64),
    /// The change has more operations, or more bytes, than the server takes in one.
    #[error("a change may have {limit} {unit}, this one has {found}; make several")]
    TooLarge {
        /// How many it has.
        found: u64,
        /// How many it may have.
        limit: u64,
        /// `operations` or `bytes`.
        unit: &'static str,
    },
}
