//! What an app keeps of a document across restarts.

use super::{Draft, replica::Replica};
use automerge::{ActorId, Change};
use bytes::Bytes;
use syncline_protocol::Cursor;

/// One document with all that the server has not acknowledged. Nothing in it counts as durable on the server that was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The Automerge document, unacknowledged changes included.
    pub document: Bytes,
    /// Where the document stands in the server's log.
    pub cursor: Option<Cursor>,
    /// The change chunks without an `ack`, oldest first.
    pub unacknowledged: Vec<Bytes>,
    /// Refused changes that the app has not taken.
    pub drafts: Vec<Draft>,
}

impl Saved {
    /// The replica. A document that does not load is left away: the server has all of it but the unacknowledged changes, which
    /// are kept beside it.
    pub(super) fn restore(self, actor: ActorId) -> (Replica, Vec<Draft>) {
        let read = |chunk: &Bytes| super::replica::guarded(|| Ok(Change::try_from(&chunk[..])?)).ok();
        let own: Vec<Change> = self.unacknowledged.iter().filter_map(read).collect();
        (Replica::restore(&self.document, self.cursor, own, actor), self.drafts)
    }
}
