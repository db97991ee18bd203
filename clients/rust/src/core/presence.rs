//! Who else is in the room, and what this client shows of itself.
//!
//! The server says when somebody's state expires ([P3]); this client only repeats its own in time.

use super::Other;
use bytes::Bytes;
use std::collections::BTreeMap;
use syncline_protocol::{SessionId, native::PresenceEntry};

/// One room's presence.
#[derive(Debug, Default)]
pub(super) struct Presence {
    own: Option<Bytes>,
    /// When `own` has to be sent, again or for the first time; `None` when there is nothing to send.
    due_ms: Option<u64>,
    /// The earliest time of the next send, so that a fast caller stays below the server's rate.
    earliest_ms: u64,
    others: BTreeMap<SessionId, Other>,
}

impl Presence {
    pub(super) fn others(&self) -> &BTreeMap<SessionId, Other> {
        &self.others
    }

    pub(super) fn set(&mut self, now_ms: u64, state: Option<Bytes>) {
        self.own = state;
        self.due_ms = Some(now_ms);
    }

    /// The room is joined: nobody there has our state yet, and theirs comes anew.
    pub(super) fn joined(&mut self, now_ms: u64) -> bool {
        self.due_ms = self.own.is_some().then_some(now_ms);
        self.clear()
    }

    /// Forgets the others; whether there were any.
    pub(super) fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.others).is_empty()
    }

    pub(super) fn shown(&mut self, entries: Vec<PresenceEntry>, own: SessionId, others_max: u64) {
        for PresenceEntry {
            session,
            subject,
            name,
            state,
        } in entries
        {
            match state {
                _ if session == own => {}
                None => drop(self.others.remove(&session)),
                Some(state) => {
                    if self.others.contains_key(&session) || (self.others.len() as u64) < others_max {
                        self.others.insert(session, Other { subject, name, state });
                    }
                }
            }
        }
    }

    pub(super) fn next_wakeup(&self) -> Option<u64> {
        self.due_ms.map(|due_ms| due_ms.max(self.earliest_ms))
    }

    /// What to send now, if it is time. `interval_ms` is the least time between two sends.
    pub(super) fn due(&mut self, now_ms: u64, ttl_ms: u64, interval_ms: u64) -> Option<Option<Bytes>> {
        if self.next_wakeup()? > now_ms {
            return None;
        }
        self.earliest_ms = now_ms + interval_ms;
        self.due_ms = self.own.is_some().then_some(now_ms + ttl_ms / 2);
        Some(self.own.clone())
    }
}
