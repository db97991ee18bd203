//! The native dialect: one MessagePack array per binary frame, its first element the message's number.
//!
//! The two enums are the boundary: whoever speaks the protocol matches them exhaustively. `decode` accepts any bytes and
//! answers with an error that says what is wrong; it never panics, and copies no payload: byte strings are slices of the frame. So whoever keeps a
//! small payload for long copies it, or the whole frame stays in memory with it.

mod client;
mod codes;
mod error;
mod reader;
mod server;
mod writer;

pub use client::decode_client;
pub use error::DecodeError;
pub use server::{decode_server, encode_diff};

use crate::{ChangeHash, Cursor, DocumentId, EditId, RoomNumber, SessionId};
use bytes::Bytes;

/// Entries of a list of capabilities.
pub const CAPABILITIES_MAX: usize = 64;
/// Hashes in a list of heads.
pub const HEADS_MAX: usize = 10_000;
/// Changes in one `edit`.
pub const EDIT_CHANGES_MAX: usize = 10_000;
/// Runs in one `diff`.
pub const DIFF_RUNS_MAX: usize = 100_000;
/// Changes in one `diff`, all runs together.
pub const DIFF_CHANGES_MAX: usize = 100_000;
/// Entries in one `presence` from the server.
pub const PRESENCE_ENTRIES_MAX: usize = 10_000;

/// What a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientMessage {
    /// 1: the first message of a connection.
    Hello(Hello),
    /// 2: a new token for the live connection.
    Auth {
        /// A JWT.
        token: String,
    },
    /// 3: join a document's room. May follow `hello` without waiting for `welcome`.
    Open(Open),
    /// 4: changes to a document. All or nothing.
    Edit(Edit),
    /// 5: who I am here and where; the last value wins.
    Presence {
        /// The room.
        room: RoomNumber,
        /// The state, opaque to the server; `None` takes it back.
        state: Option<Bytes>,
    },
    /// 6: a one-off message to the other members.
    Signal {
        /// The room.
        room: RoomNumber,
        /// Opaque to the server.
        payload: Bytes,
    },
    /// 7: leave a room.
    Leave {
        /// The room.
        room: RoomNumber,
    },
}

/// The first message of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The protocol version the client speaks.
    pub version: u64,
    /// A JWT; `None` only against a server in development mode.
    pub token: Option<String>,
    /// Name and version of the client software, for the server's operator.
    pub client: String,
    /// What the client can take beyond the plain protocol. Unknown ones are ignored.
    pub capabilities: Vec<Capability>,
}

/// Something that one side can take beyond the plain protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// `deflate`: parts may be deflated.
    Deflate,
    /// `bundle`: parts may hold Automerge bundle chunks (experimental in Automerge).
    Bundle,
    /// Any other; kept, so that a newer peer is not refused.
    Other(String),
}

/// A wish to join a document's room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which document.
    pub document: DocumentId,
    /// Where the client's replica stands; `None` without a replica, or when the replica did not come from this server.
    pub cursor: Option<Cursor>,
    /// The heads of the client's replica without its unacknowledged edits.
    pub heads: Vec<ChangeHash>,
}

/// Changes to a document, all or nothing, each an Automerge change chunk, dependencies first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The room.
    pub room: RoomNumber,
    /// The client's number for this edit; `ack` and `reject` name it.
    pub id: EditId,
    /// The change chunks. None at all asks for an `ack` as a sign of life.
    pub changes: Vec<Bytes>,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerMessage {
    /// 16: the connection is admitted.
    Welcome(Welcome),
    /// 17: a room is joined; `part`s follow.
    Opened(Opened),
    /// 18: a piece of the document on the way to the present.
    Part(Part),
    /// 19: merged changes.
    Diff(Diff),
    /// 20: an edit is on disk.
    Ack {
        /// The room.
        room: RoomNumber,
        /// The client's number of the edit.
        id: EditId,
        /// A cursor that covers the edit.
        cursor: Cursor,
    },
    /// 21: an edit is refused, as a whole.
    Reject {
        /// The room.
        room: RoomNumber,
        /// The client's number of the edit.
        id: EditId,
        /// Why, for programs.
        code: RejectCode,
        /// Why, for people.
        text: String,
    },
    /// 22: presence states that are new, changed or gone.
    Presence {
        /// The room.
        room: RoomNumber,
        /// One entry per session.
        entries: Vec<PresenceEntry>,
    },
    /// 23: a one-off message from another member.
    Signal {
        /// The room.
        room: RoomNumber,
        /// Who sent it.
        session: SessionId,
        /// Opaque to the server.
        payload: Bytes,
    },
    /// 24: this session is not, or no longer, in this document's room.
    Closed {
        /// The room; `None` when the session never joined it.
        room: Option<RoomNumber>,
        /// Which document.
        document: DocumentId,
        /// Why, for programs.
        code: ClosedCode,
        /// Why, for people.
        text: String,
    },
    /// 25: the server goes away; come back after `after_ms`.
    Retry {
        /// Milliseconds to wait.
        after_ms: u64,
    },
    /// 26: what is wrong with the connection; the close follows.
    Error {
        /// The close code's number.
        code: u16,
        /// Why, for people.
        text: String,
    },
}

/// The connection is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The server's name for this connection.
    pub session: SessionId,
    /// What the client has to keep to.
    pub limits: WelcomeLimits,
    /// What the server will make use of.
    pub capabilities: Vec<Capability>,
}

/// The limits that a client has to keep to; see [`crate::Limits`]. On the wire a map, so that it can grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WelcomeLimits {
    /// The largest WebSocket message.
    pub frame_bytes_max: u64,
    /// Edit messages per second, sustained.
    pub edits_per_second: u64,
    /// Presence and signal messages per second.
    pub presence_per_second: u64,
    /// The largest presence state or signal.
    pub presence_bytes_max: u64,
    /// How long a presence state lives without being sent again.
    pub presence_ttl_ms: u64,
    /// Operations in one change.
    pub ops_per_change_max: u64,
    /// Open documents of one session.
    pub documents_per_session_max: u64,
    /// Silence after which the server gives the connection up.
    pub idle_timeout_ms: u64,
}

/// What a session may do with a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// 0: see it.
    Read,
    /// 1: see and change it.
    Write,
}

/// A room is joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The room's number, for all further messages.
    pub room: RoomNumber,
    /// Which document this answers.
    pub document: DocumentId,
    /// What this session may do.
    pub access: Access,
    /// The heads of the document at `cursor`.
    pub heads: Vec<ChangeHash>,
    /// Where the document stands now.
    pub cursor: Cursor,
    /// What the parts build on.
    pub base: Base,
    /// About how many bytes of document follow in parts, before deflation; for progress bars.
    pub bytes: u64,
}

/// What the parts after an `opened` build on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Base {
    /// 0: the client's replica at its cursor: only changes follow.
    Replica,
    /// 1: nothing: the whole document follows. The client keeps its unacknowledged edits.
    Nothing,
}

/// A piece of the document. The inflated bytes of all parts up to the one with `end` are Automerge chunks, one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The room.
    pub room: RoomNumber,
    /// How `bytes` are packed.
    pub packing: Packing,
    /// The piece; a chunk may go on in the next part.
    pub bytes: Bytes,
    /// Set on the last part: the cursor that is reached.
    pub end: Option<Cursor>,
}

/// How the bytes of a part are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Packing {
    /// 0: as they are.
    Plain,
    /// 1: raw deflate, each part by itself.
    Deflate,
}

/// A batch of merged changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The room.
    pub room: RoomNumber,
    /// The cursor after these changes.
    pub cursor: Cursor,
    /// The changes in log order, in runs of one session each.
    pub runs: Vec<Run>,
}

/// Consecutive changes that one session made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Who made them, so that the author can skip them.
    pub session: SessionId,
    /// Automerge change chunks.
    pub changes: Vec<Bytes>,
}

impl Diff {
    /// How many changes the diff holds; its first is at `cursor.position - len`.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.changes.len() as u64).sum()
    }

    /// Whether there are no changes.
    pub fn is_empty(&self) -> bool {
        self.runs.iter().all(|run| run.changes.is_empty())
    }
}

/// One session's presence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceEntry {
    /// Whose connection.
    pub session: SessionId,
    /// The subject of its token.
    pub subject: String,
    /// The `name` claim of its token.
    pub name: Option<String>,
    /// The state; `None` when it is gone.
    pub state: Option<Bytes>,
}

/// Why an edit is refused. Text on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RejectCode {
    /// `forbidden`: the grant is for reading.
    Forbidden,
    /// `limit`: more than the server takes: ops, depth, inflated size, document size.
    Limit,
    /// `actor_conflict`: the same actor and seq with other content is in the document.
    ActorConflict,
    /// `foreign_actor`: the actor belongs to another subject.
    ForeignActor,
    /// `missing_deps`: changes it depends on did not come, and no more may wait for theirs.
    MissingDeps,
    /// `after_reject`: it stands on a refused change.
    AfterReject,
    /// `quarantined`: the change was thrown out earlier.
    Quarantined,
    /// `unavailable`: nothing is wrong with the edit; send it again later.
    Unavailable,
    /// `not_open`: the session is not in that room.
    NotOpen,
    /// Any other.
    Other(String),
}

/// Why a session is not in a room. Text on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClosedCode {
    /// `forbidden`: the grant does not name the document.
    Forbidden,
    /// `reset`: drop the replica, open the document anew, make your own unacknowledged edits anew under a new actor.
    Reset,
    /// `damaged`: the stored document cannot be read.
    Damaged,
    /// `limit`: too many open documents.
    Limit,
    /// `unavailable`: come back later.
    Unavailable,
    /// Any other.
    Other(String),
}
