//! Edits that are looked at again, once something is found out that they wait for: what their changes hold, whether they merge,
//! the document, or what they have not seen of a long history. Until then nothing of them is admitted.

use super::{
    Effect, Phase, Room, Ticket,
    member::{Busy, Candidate},
};
use crate::engine::{
    gate::{Decoded, Refusal},
    time::Time,
};
use syncline_protocol::{SessionId, native::RejectCode};

const TRY_AGAIN: &str = "the document cannot be loaded now; send the edit again later";

/// What is known of an edit that is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Looked {
    /// It merges.
    pub(super) proven: bool,
    /// The document may be asked, though that takes as long as the history is that an edit has not seen.
    pub(super) reaches: bool,
}

impl Room {
    pub(super) fn decoded(
        &mut self,
        now: Time,
        session: SessionId,
        ticket: Ticket,
        result: Result<Vec<Decoded>, Refusal>,
        out: &mut Vec<Effect>,
    ) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let (id, subject) = match member.busy.take() {
            Some(Busy::Decoding {
                ticket: asked,
                id,
                subject,
                ..
            }) if asked == ticket => (id, subject),
            busy => return member.busy = busy,
        };
        match result {
            Ok(changes) => self.weigh(now, session, Candidate { id, subject, changes }, Looked::default(), out),
            Err(refusal) => self.refuse(session, id, Vec::new(), &refusal, out),
        }
        self.admit_queued(now, session, out);
    }

    pub(super) fn proven(
        &mut self,
        now: Time,
        session: SessionId,
        ticket: Ticket,
        holds: Option<bool>,
        out: &mut Vec<Effect>,
    ) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let edit = match member.busy.take() {
            Some(Busy::Proving(asked, edit)) if asked == ticket => edit,
            busy => return member.busy = busy,
        };
        match holds {
            Some(true) => {
                let looked = Looked {
                    proven: true,
                    ..Looked::default()
                };
                self.weigh(now, session, edit, looked, out);
            }
            Some(false) => {
                let refusal = Refusal::Dishonest("the change does not merge");
                self.refuse(session, edit.id, Vec::new(), &refusal, out);
            }
            None => self.reject(session, edit.id, RejectCode::Unavailable, TRY_AGAIN, out),
        }
        self.admit_queued(now, session, out);
    }

    /// The document is there, or cannot be had: looks again at the edits that asked for it.
    pub(super) fn document_settled(&mut self, now: Time, out: &mut Vec<Effect>) {
        let sessions: Vec<SessionId> = self.members.keys().copied().collect();
        for session in sessions {
            let Some(member) = self.members.get_mut(&session) else {
                continue;
            };
            match member.busy.take() {
                Some(Busy::Loading(edit)) if matches!(&self.phase, Phase::Live(live) if live.upkeep.document().is_some()) =>
                {
                    self.weigh(now, session, edit, Looked::default(), out);
                }
                Some(Busy::Loading(edit)) => self.reject(session, edit.id, RejectCode::Unavailable, TRY_AGAIN, out),
                busy => {
                    member.busy = busy;
                    continue;
                }
            }
            self.admit_queued(now, session, out);
        }
    }

    /// An edit reaches beyond the recent graph: it is looked at where that may take long.
    pub(super) fn weigh_elsewhere(
        &mut self,
        session: SessionId,
        edit: Candidate,
        looked: Looked,
        out: &mut Vec<Effect>,
    ) {
        let ticket = self.tickets.draw();
        if let Some(member) = self.members.get_mut(&session) {
            member.busy = Some(Busy::Reaching(ticket, edit, looked));
            out.push(Effect::Reach { session, ticket });
        }
    }

    /// This may take long.
    pub(super) fn reach(&mut self, now: Time, session: SessionId, ticket: Ticket, out: &mut Vec<Effect>) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        match member.busy.take() {
            Some(Busy::Reaching(asked, edit, looked)) if asked == ticket => {
                let looked = Looked {
                    reaches: true,
                    ..looked
                };
                self.weigh(now, session, edit, looked, out);
            }
            busy => return member.busy = busy,
        }
        self.admit_queued(now, session, out);
    }
}
