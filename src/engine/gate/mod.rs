//! The gate: what may enter a room. Automerge is not safe on bytes from outside, so every change is proven harmless first.
//!
//! In three steps, cheapest first: [`read`] looks at the bytes without expanding anything, [`decode`] expands them and proves
//! the encoding canonical, [`check`] holds every reference against the room's index and the causal past of the change.
//! No step changes anything; [`take_in`] is the third and, if the change passes, takes it into the index. What a peer sends as a
//! whole document is taken apart first ([`Whole`]).

mod check;
mod columns;
mod decoded;
mod header;
mod marks;
mod place;
mod reader;
mod single;
mod whole;

pub use check::{check, take_in};
pub(in crate::engine) use decoded::decode_or_whose;
pub(in crate::engine) use decoded::{Action, Key, ObjectType, OpId};
pub use decoded::{Decoded, decode};
pub(in crate::engine) use header::{COUNTER_MAX, read_or_back};
pub use header::{Header, actor, read};
pub(in crate::engine) use reader::{Reader, write_unsigned};
pub use whole::Whole;

use syncline_protocol::ChangeHash;

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
    /// It inflates past the limit, which is known only when the work is done: it costs the server more than its sender.
    #[error("the change inflates to more than this server takes")]
    Inflates,
    /// The actor has another change with this seq.
    #[error("this actor and sequence number already stand for another change; go on under a new actor")]
    ActorConflict,
    /// The actor belongs to another subject.
    #[error("this actor belongs to another subject; go on under a new actor")]
    ForeignActor,
}

/// What the gate says of a decoded change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Every rule holds: it merges, saves and loads.
    Vouched,
    /// Every rule that the gate knows holds, but merging must prove it first (extra bytes; marks far apart).
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
