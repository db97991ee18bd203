//! The gate: what may enter a room. Automerge is not safe on bytes from outside, so every change is proven harmless first.
//!
//! In three steps, cheapest first: [`read`] looks at the bytes without expanding anything, [`decode`] expands them and proves
//! the encoding canonical, [`check`] holds every reference against the room's [`Index`] and the causal past of the change.
//! No step changes anything.

use crate::engine::{document::Document, index::Index};
use bytes::Bytes;
use syncline_protocol::{ChangeHash, Limits};

/// Who writes: the `sub` of a token. An actor belongs to the subject that first wrote with it in the document.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Subject(pub std::sync::Arc<str>);

/// Why a change is kept out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No honest client makes this. The session is closed with 4409.
    #[error("{0}")]
    Dishonest(&'static str),
    /// More than the server takes.
    #[error("{0}")]
    Limit(&'static str),
    /// The actor has another change with this seq.
    #[error("this actor and sequence number already stand for another change; go on under a new actor")]
    ActorConflict,
    /// The actor belongs to another subject.
    #[error("this actor belongs to another subject; go on under a new actor")]
    ForeignActor,
}

/// A change whose frame, checksum and column metadata are sound and within the limits; its columns are still unread.
#[derive(Clone, Debug)]
pub struct Header {
    // raw: Bytes (type 1, inflated if it came deflated), hash, actor, seq, start_op, ops, deps, ...
}

/// A change that decodes and whose encoding is canonical.
#[derive(Clone, Debug)]
pub struct Decoded {}

/// What the gate says of a decoded change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every rule holds: it merges, saves and loads.
    Vouched,
    /// Every rule that the gate knows holds, but merging must prove it first (marks, extra bytes).
    Unvouched,
    /// The room has exactly this change already.
    Known,
    /// It depends on a change the room does not have.
    Missing(ChangeHash),
    /// It reaches beyond the recent graph: ask again with the merged document.
    Distant,
    /// Keep it out.
    Refused(Refusal),
}

/// Reads the chunk: size, type, checksum, header, column metadata, summed run lengths. Expands nothing but a capped inflate.
pub fn read(_bytes: Bytes, _limits: &Limits) -> Result<Header, Refusal> {
    Err(Refusal::Dishonest("stub"))
}

/// Expands the columns and proves that the same change encodes to the same bytes. CPU-heavy for large changes.
pub fn decode(_header: Header) -> Result<Decoded, Refusal> {
    Err(Refusal::Dishonest("stub"))
}

/// Holds a change against the room's index; `document` is the merged document, needed only after [`Verdict::Distant`].
pub fn check(
    _index: &Index,
    _document: Option<&Document>,
    _subject: &Subject,
    _change: &Decoded,
    _limits: &Limits,
) -> Verdict {
    Verdict::Refused(Refusal::Dishonest("stub"))
}

impl Header {
    /// The hash that names the change.
    pub fn hash(&self) -> ChangeHash {
        ChangeHash([0; 32])
    }

    /// How many operations it holds.
    pub fn ops(&self) -> u64 {
        0
    }

    /// The actor that made it.
    pub fn actor(&self) -> &[u8] {
        &[]
    }
}

impl Decoded {
    /// The hash that names the change.
    pub fn hash(&self) -> ChangeHash {
        ChangeHash([0; 32])
    }

    /// The actor that made it.
    pub fn actor(&self) -> &[u8] {
        &[]
    }

    /// The changes it stands on.
    pub fn deps(&self) -> &[ChangeHash] {
        &[]
    }

    /// The plain (never deflated) change chunk.
    pub fn bytes(&self) -> &Bytes {
        unimplemented!()
    }
}
