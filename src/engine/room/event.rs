//! What goes into a room and what comes out.

use crate::engine::{
    document::Document,
    gate::{Decoded, Header, Refusal, Subject},
    index::Index,
    presence::Person,
    room::Waits,
    session::{AuthorisedEdit, RepoServer},
    time::Time,
};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc};
use syncline_protocol::{
    ChangeHash, CloseCode, Cursor, EditId, Epoch, Position, SessionId,
    native::{Access, Packing},
    repo::{Ephemeral, PeerId, SyncMessage},
};

/// Tells a member's pieces of work apart: a session that left and joined again, or began anew, must not be given the answer
/// to what it asked for before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket(u64);

impl Ticket {
    /// A certain one, for tests of what has a ticket in its hands.
    #[cfg(all(test, feature = "server"))]
    pub(crate) fn numbered(number: u64) -> Self {
        Self(number)
    }

    /// The one after this.
    pub(super) fn draw(&mut self) -> Self {
        self.0 += 1;
        *self
    }
}

/// What happens to a room.
#[derive(Debug)]
pub enum Event {
    /// Answers [`Effect::Load`].
    Loaded(Box<Loaded>),
    /// Answers [`Effect::Load`]: there is no opening this document now.
    LoadFailed(LoadFailure),
    /// A session with a grant joins, or joins again to be brought up to date anew.
    Joined(Join),
    /// A member with write access sends changes.
    Edited(AuthorisedEdit),
    /// A member sends changes, and there is no memory for them now.
    PutOff(AuthorisedEdit),
    /// A member asks for a sign of life by an edit without changes.
    Probed {
        /// Who.
        session: SessionId,
        /// The edit that is to be acknowledged.
        edit: EditId,
    },
    /// A member shows its presence, or takes it back.
    Shown {
        /// Who.
        session: SessionId,
        /// Opaque; `None` takes it back.
        state: Option<Bytes>,
    },
    /// A member sends a one-off message to the others.
    Signalled {
        /// Who.
        session: SessionId,
        /// Opaque.
        payload: Bytes,
    },
    /// A peer of the repo dialect says how far it is. The edits that it sent with that follow.
    Synced {
        /// Who.
        session: SessionId,
        /// What it says.
        told: Box<Told>,
        /// How many edits follow.
        edits: u64,
    },
    /// A peer of the repo dialect wants to hear how far these storages are, and no others.
    Followed {
        /// Who.
        session: SessionId,
        /// Which.
        storages: Arc<BTreeSet<String>>,
    },
    /// A peer of the repo dialect sends an ephemeral message to the others.
    Broadcast {
        /// Who.
        session: SessionId,
        /// What.
        ephemeral: Box<Ephemeral>,
    },
    /// A session leaves, or its connection has ended.
    Left {
        /// Who.
        session: SessionId,
    },
    /// A member's queue was too full for a diff, and takes no more diffs until it has drained.
    Lagged {
        /// Who.
        session: SessionId,
        /// Where the first diff that the member did not get begins.
        at: Position,
    },
    /// A member's queue has drained after [`Effect::Part`] or [`Event::Lagged`].
    Drained {
        /// Who.
        session: SessionId,
    },
    /// Answers [`Effect::Read`].
    Read {
        /// For whom.
        session: SessionId,
        /// Which read it answers.
        ticket: Ticket,
        /// What was read.
        result: Result<Slice, ReadFailure>,
    },
    /// Answers [`Effect::Decode`].
    Decoded {
        /// Whose edit.
        session: SessionId,
        /// Which decoding it answers.
        ticket: Ticket,
        /// The changes in order, or why one does not decode.
        result: Result<Vec<Decoded>, Refusal>,
    },
    /// Answers [`Effect::Append`]: the batch is on disk.
    Stored,
    /// Answers [`Effect::Append`]: the batch is not, and will not be, on disk.
    StoreFailed,
    /// Answers [`Effect::Merge`].
    Merged(Merged),
    /// Answers [`Effect::Prove`].
    Proven {
        /// Whose edit.
        session: SessionId,
        /// Which proof it answers.
        ticket: Ticket,
        /// Whether the document carries it; `None` when that could not be found out now.
        holds: Option<bool>,
    },
    /// Answers [`Effect::Reach`]; to be handled where that may take long.
    Reach {
        /// Whose edit.
        session: SessionId,
        /// As in the effect.
        ticket: Ticket,
    },
    /// Answers [`Effect::Compact`].
    Compacted(Option<Snapshot>),
    /// Answers [`Effect::Quarantine`]: the stored log is free of the culprits, under a new epoch.
    Quarantined,
    /// Answers [`Effect::Quarantine`]: the store could not do it.
    QuarantineFailed,
    /// Memory is short: let go of what can be loaded again.
    Trimmed,
    /// The time that [`super::Room::next_wakeup`] named has come.
    Woke,
}

/// What a room wants done.
#[derive(Debug)]
pub enum Effect {
    /// Load what the store knows of the document; answered by `Loaded` or `LoadFailed`.
    Load,
    /// Read a piece of the document; answered by `Read`.
    Read {
        /// For whom.
        session: SessionId,
        /// To be named in the answer.
        ticket: Ticket,
        /// From where on.
        from: Source,
        /// Nothing at or after this position: it may not be on disk.
        to: Position,
        /// Whether the piece may be deflated.
        deflate: bool,
        /// The same changes as a bundle, if they can be had as one.
        bundle: Option<BundleOf>,
    },
    /// Write a batch to the log and sync it; answered by `Stored` or `StoreFailed`. At most one at a time.
    Append(Append),
    /// Decode changes too large for the I/O threads, one at a time in the whole server; answered by `Decoded`.
    Decode {
        /// Whose edit.
        session: SessionId,
        /// To be named in the answer.
        ticket: Ticket,
        /// Its changes.
        headers: Vec<Header>,
    },
    /// Merge the log up to a position into the document; answered by `Merged`. At most one at a time.
    Merge {
        /// The document and the position it is merged up to; `None`: load the snapshot first.
        base: Option<(Document, Position)>,
        /// How far.
        to: Position,
    },
    /// Find out whether changes merge, save and load on top of everything admitted; answered by `Proven`.
    Prove {
        /// Whose edit.
        session: SessionId,
        /// To be named in the answer.
        ticket: Ticket,
        /// As in `Merge`.
        base: Option<(Document, Position)>,
        /// What the log holds for sure.
        to: Position,
        /// Admitted changes after `to`, then the changes to prove.
        changes: Vec<Bytes>,
    },
    /// Come back with [`Event::Reach`]: an edit has not seen so much of the document that looking at it takes long.
    Reach {
        /// Whose edit.
        session: SessionId,
        /// To be named in the event.
        ticket: Ticket,
    },
    /// Make a snapshot of the document, prove it, put it in the place of the former one; answered by `Compacted`.
    Compact {
        /// The document, merged up to `position`.
        document: Document,
        /// The position the snapshot covers.
        position: Position,
        /// The new snapshot's generation.
        generation: u64,
        /// The former one, which readers may still need.
        former: Option<u64>,
        /// The log from here on is still being read by a member.
        needed_from: Option<Position>,
    },
    /// Delete a former snapshot: nobody reads it any more.
    Discard {
        /// Its generation.
        generation: u64,
    },
    /// Take changes that do not merge out of the log, refuse them for good, begin a new epoch; answered by `Quarantined`.
    Quarantine {
        /// Where they stand.
        bad: Vec<Position>,
        /// The end of the log.
        to: Position,
    },
    /// Send a frame that must not be lost, however full the queue.
    Reply {
        /// To whom.
        to: SessionId,
        /// The frame.
        frame: Bytes,
    },
    /// Send a part, and answer with `Drained` when the queue has drained.
    Part {
        /// To whom.
        to: SessionId,
        /// The frame.
        frame: Bytes,
    },
    /// Send one frame to many. A member whose queue is too full does not get it.
    Broadcast {
        /// To whom.
        to: Arc<[SessionId]>,
        /// Not to this one.
        except: Option<SessionId>,
        /// The frame.
        frame: Bytes,
        /// Where a member that does not get it lags from, to be reported by `Lagged`: for a diff where that begins. Without
        /// it the frame may be missed.
        begins: Option<Position>,
    },
    /// A session is no longer a member; the frame says why.
    Dismiss {
        /// Whom.
        session: SessionId,
        /// The `closed` frame, or what stands for it.
        frame: Bytes,
    },
    /// Close a session's connection.
    Disconnect {
        /// Whose.
        session: SessionId,
        /// With which code.
        code: CloseCode,
        /// And which text.
        text: String,
        /// The frame that says so.
        frame: Bytes,
    },
    /// The room is empty and everything is on disk: end it.
    Close,
}

/// A session that joins.
#[derive(Clone, Debug)]
pub struct Join {
    /// Who.
    pub session: SessionId,
    /// Who that is to the others.
    pub person: Arc<Person>,
    /// What it may do, for it to know.
    pub access: Access,
    /// Where its replica stands.
    pub cursor: Option<Cursor>,
    /// Its replica's heads.
    pub heads: Vec<ChangeHash>,
    /// How it takes parts.
    pub forms: Forms,
    /// Set for a session that speaks the repo dialect.
    pub peer: Option<Box<JoinedPeer>>,
    /// Counts what waits of the session's edits, in all its rooms.
    pub(in crate::engine) waits: Arc<Waits>,
}

/// How a member takes parts besides plain: what both sides named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// Deflated.
    pub deflate: bool,
    /// The log as a bundle.
    pub bundle: bool,
}

/// Changes that may be sent as one bundle.
#[derive(Clone, Debug)]
pub struct BundleOf {
    /// Holds them.
    pub document: Document,
    /// All of them, in the order of the log.
    pub hashes: Arc<[ChangeHash]>,
    /// The position after the last one.
    pub end: Position,
}

/// What a room knows of a session that speaks the repo dialect.
#[derive(Clone, Debug)]
pub struct JoinedPeer {
    /// What it calls itself.
    pub id: PeerId,
    /// What the server calls itself.
    pub host: Arc<RepoServer>,
    /// Its storage, unless that is another subject's.
    pub storage_id: Option<String>,
    /// The storages that it follows.
    pub follows: Arc<BTreeSet<String>>,
    /// Whether it was in a former room of the document, so that nothing it says is on its way.
    pub again: bool,
}

/// What a peer of the repo dialect says of its replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its heads.
    pub heads: Arc<[ChangeHash]>,
    /// What it takes both sides to have, with all that these stand on.
    pub shared: Vec<ChangeHash>,
    /// Changes that it misses.
    pub need: Vec<ChangeHash>,
    /// Whether it asks for the document rather than offering it.
    pub is_request: bool,
    /// Whether it knows nothing of what we last said that we share.
    pub is_reset: bool,
    /// Whether it reads a saved document, not only changes.
    pub reads_whole: bool,
}

impl Told {
    /// About what it takes in memory.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + (self.heads.len() + self.shared.len() + self.need.len()) * size_of::<ChangeHash>()
    }

    /// What a sync message says besides its changes.
    pub fn new(message: SyncMessage, is_request: bool) -> Self {
        let is_reset = message.is_reset();
        Self {
            heads: message.heads.into(),
            shared: message.have.into_iter().flat_map(|have| have.last_sync).collect(),
            need: message.need,
            is_request,
            is_reset,
            reads_whole: message.has_flags,
        }
    }
}

/// What the store knows of a document.
#[derive(Debug)]
pub struct Loaded {
    /// The epoch; drawn anew when there is no document yet.
    pub epoch: Epoch,
    /// Whether the store has the document at all.
    pub exists: bool,
    /// The index of everything in the log.
    pub index: Index,
    /// The first position still in the log.
    pub log_start: Position,
    /// The bytes of all changes of this epoch.
    pub log_bytes: u64,
    /// The snapshot, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Changes that are refused for good.
    pub quarantined: BTreeSet<ChangeHash>,
    /// Until then everybody who may write may bring back what others wrote: the store was put back from a backup.
    pub foreign_until: Option<Time>,
}

/// Why a document does not load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadFailure {
    /// Its records are damaged; it stays as it is, for `syncline check` and `syncline salvage`.
    Damaged,
    /// The store does not answer now, or the server is overloaded.
    Unavailable,
}

/// A stored snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number; each is higher than the one before.
    pub generation: u64,
    /// The position it covers.
    pub position: Position,
    /// Its size.
    pub bytes: u64,
    /// The sum of the change bytes that it covers.
    pub log_bytes: u64,
    /// The first position still in the log.
    pub log_start: Position,
}

/// Where a member's catching up goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// In a snapshot.
    Snapshot {
        /// Which.
        generation: u64,
        /// At which byte.
        offset: u64,
    },
    /// In the log.
    Log {
        /// At which change.
        from: Position,
        /// At which of its bytes: a change may be larger than a part.
        offset: u64,
    },
}

impl Source {
    /// In the log, at the beginning of a change.
    pub const fn log(from: Position) -> Self {
        Self::Log { from, offset: 0 }
    }
}

/// A piece of the document, packed for one `part`.
#[derive(Clone, Debug)]
pub struct Slice {
    /// How it is packed.
    pub packing: Packing,
    /// The piece.
    pub bytes: Bytes,
    /// The size before packing.
    pub plain_bytes: u64,
    /// For a piece of the log, the sum of change bytes before its first change.
    pub log_bytes_before: u64,
    /// Where to go on.
    pub next: Source,
}

/// Why a piece could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFailure {
    /// It is compacted away; begin anew.
    Gone,
    /// Its records are damaged.
    Damaged,
    /// The store does not answer now.
    Unavailable,
}

/// A batch on its way to the log.
#[derive(Clone, Debug)]
pub struct Append {
    /// The log's epoch.
    pub epoch: Epoch,
    /// The position of the first change.
    pub first: Position,
    /// The bytes of all changes before it.
    pub log_bytes_before: u64,
    /// The changes.
    pub entries: Arc<[Entry]>,
    /// Whether the document begins with this batch.
    pub begins_document: bool,
}

/// A change on its way to the log.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Who sent it.
    pub session: SessionId,
    /// To whom its actor belongs.
    pub subject: Subject,
    /// The plain change chunk.
    pub change: Bytes,
}

/// What came of a merge.
#[derive(Debug)]
pub enum Merged {
    /// The document is merged up to the position.
    Whole {
        /// The new document.
        document: Document,
        /// Up to where.
        position: Position,
    },
    /// These changes of the log do not merge.
    Bad {
        /// Where the ones stand that are bad themselves.
        culprits: Vec<Position>,
        /// Where the ones stand that depend on a culprit.
        descendants: Vec<Position>,
    },
    /// The snapshot does not load, or its records are damaged.
    Damaged,
    /// It could not be tried now; try again later.
    Failed,
}
