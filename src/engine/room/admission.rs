//! The way of an edit through a room: queued, read, decoded, checked by the gate, gathered, appended, acknowledged, sent.
//!
//! Nothing is acknowledged or shown before it is on disk. An edit is all or nothing.

use super::{
    Append, Effect, Phase, Room,
    again::Looked,
    member::{Busy, Candidate, Member, RawEdit, actors, decode_all},
    pipeline::Weighed,
};
use crate::engine::{
    gate::{self, Decoded, Header, Refusal},
    room::peer::Settled,
    session::AuthorisedEdit,
    time::Time,
};
use bytes::Bytes;
use syncline_protocol::{
    EditId, SessionId,
    native::{RejectCode, ServerMessage, encode_diff},
};

impl Room {
    pub(super) fn edited(&mut self, now: Time, edit: AuthorisedEdit, out: &mut Vec<Effect>) {
        let (session, id, subject, changes) = edit.into_parts();
        let raw = RawEdit { id, subject, changes };
        let open = matches!(&self.phase, Phase::Live(live) if !live.upkeep.is_resetting());
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let held = member.peer.is_some() && matches!(self.phase, Phase::Loading);
        if !open && !held {
            return self.reject(
                session,
                raw.id,
                RejectCode::Unavailable,
                "the document is being loaded",
                out,
            );
        }
        match member.queue(raw) {
            // A peer does not wait for the document to be open.
            Ok(()) if held => {}
            Ok(()) => self.admit_queued(now, session, out),
            Err(raw) => self.reject(
                session,
                raw.id,
                RejectCode::Unavailable,
                "too many edits are waiting",
                out,
            ),
        }
    }

    /// There is no memory for an edit: it has to come again.
    pub(super) fn put_off(&mut self, edit: &AuthorisedEdit, out: &mut Vec<Effect>) {
        let text = "the server has no memory for further edits; send it again later";
        self.reject(edit.session(), edit.id(), RejectCode::Unavailable, text, out);
    }

    pub(super) fn probed(&mut self, session: SessionId, edit: EditId, out: &mut Vec<Effect>) {
        if let (Phase::Live(live), true) = (&self.phase, self.members.contains_key(&session)) {
            let ack = ServerMessage::Ack {
                room: self.number,
                id: edit,
                cursor: live.cursor(),
            };
            out.push(Effect::Reply {
                to: session,
                frame: ack.encode(),
            });
        }
    }

    /// Looks at a member's edits, oldest first, until one takes long; then at those of others that waited for them. Nothing
    /// that is called from here may call it: a chain of waiting edits would use up the stack.
    pub(super) fn admit_queued(&mut self, now: Time, session: SessionId, out: &mut Vec<Effect>) {
        let mut next = Some(session);
        while let Some(session) = next {
            while let Some(edit) = self.members.get_mut(&session).and_then(Member::next_edit) {
                self.admit(now, session, edit, out);
            }
            next = self.released.pop_first();
        }
    }

    fn admit(&mut self, now: Time, session: SessionId, edit: RawEdit, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &self.phase else { return };
        let RawEdit { id, subject, changes } = edit;
        let (mut headers, mut inflated_bytes) = (Vec::with_capacity(changes.len()), 0);
        for bytes in changes {
            // Over by one change at most: clients know what they send, not what it inflates to.
            if inflated_bytes > self.limits.inflated_bytes_max {
                let refusal = Refusal::Limit("the edit inflates to more than one change may; send its changes apart");
                return self.refuse(session, id, actors(&headers), &refusal, out);
            }
            match gate::read_or_back(bytes, &self.limits) {
                Ok(header) if live.quarantined.contains(&header.hash()) => {
                    self.refuse_actors(session, actors(&[header]));
                    return self.reject(session, id, RejectCode::Quarantined, "this change was thrown out", out);
                }
                Ok(header) => {
                    inflated_bytes += header.bytes().len() as u64;
                    headers.push(header);
                }
                Err((bytes, refusal)) => {
                    let actors = actors(&headers).into_iter().chain(gate::actor(&bytes));
                    return self.refuse(session, id, actors.collect(), &refusal, out);
                }
            }
        }
        // An edit may hold many changes, so what counts is what it holds in all.
        let ops: u64 = headers.iter().map(Header::ops).sum();
        if ops > self.limits.ops_per_change_max {
            let refusal = Refusal::Limit("the edit holds more operations than one change may; send its changes apart");
            return self.refuse(session, id, actors(&headers), &refusal, out);
        }
        if ops > self.limits.ops_decoded_alone {
            if let Some(member) = self.members.get_mut(&session) {
                let ticket = self.tickets.draw();
                let bytes = headers.iter().map(|header| header.bytes().len()).sum();
                member.busy = Some(Busy::Decoding {
                    ticket,
                    id,
                    subject,
                    bytes,
                });
                out.push(Effect::Decode {
                    session,
                    ticket,
                    headers,
                });
            }
            return;
        }
        match decode_all(headers) {
            Ok(changes) => self.weigh(now, session, Candidate { id, subject, changes }, Looked::default(), out),
            Err((actors, refusal)) => self.refuse(session, id, actors, &refusal, out),
        }
    }

    /// Looks at an edit, of which this is known already.
    pub(super) fn weigh(
        &mut self,
        now: Time,
        session: SessionId,
        edit: Candidate,
        looked: Looked,
        out: &mut Vec<Effect>,
    ) {
        let (Phase::Live(live), Some(member)) = (&mut self.phase, self.members.get_mut(&session)) else {
            return;
        };
        let (id, limits) = (edit.id, &self.limits);
        let welcomes = live.foreign_until.is_some_and(|until| now < until);
        live.pipeline.index.welcome_foreign(welcomes);
        match live.pipeline.weigh(member, &edit, &live.upkeep, limits, looked) {
            Weighed::Admitted { known } => {
                live.upkeep.edited(now);
                self.release_waiting(&edit, &known);
                if let Phase::Live(live) = &mut self.phase {
                    live.pipeline.gather(session, edit, &known);
                }
            }
            Weighed::Unproven { known } => match live.upkeep.base() {
                Some(base) => {
                    let pending = live.pipeline.pending().cloned();
                    let changes = pending.chain(edit.fresh(&known).map(|change| change.bytes().clone()));
                    let changes = changes.collect();
                    let ticket = self.tickets.draw();
                    out.push(Effect::Prove {
                        session,
                        ticket,
                        base: Some(base),
                        to: live.durable,
                        changes,
                    });
                    member.busy = Some(Busy::Proving(ticket, edit));
                }
                None => {
                    live.upkeep.want_document();
                    member.busy = Some(Busy::Loading(edit));
                }
            },
            Weighed::NeedsDocument => {
                live.upkeep.want_document();
                member.busy = Some(Busy::Loading(edit));
            }
            Weighed::Distant => self.weigh_elsewhere(session, edit, looked, out),
            Weighed::Waits(missing) => {
                let changes_max = usize::try_from(limits.waiting_changes_max).unwrap_or(usize::MAX);
                match member.wait_for(missing, edit, changes_max) {
                    Ok(()) => {
                        live.pipeline.waiting.entry(missing).or_default().insert(session);
                        self.peer_edit_waits(session, out);
                    }
                    Err(id) => {
                        let text = "too many changes wait for others; send dependencies first";
                        self.reject(session, id, RejectCode::MissingDeps, text, out);
                    }
                }
            }
            Weighed::AfterReject => {
                self.reject(
                    session,
                    id,
                    RejectCode::AfterReject,
                    "it stands on a refused change",
                    out,
                );
            }
            Weighed::Refused { actor, refusal } => self.refuse(session, id, vec![actor], &refusal, out),
        }
    }

    /// Edits that waited for one of these changes are to be looked at again.
    fn release_waiting(&mut self, edit: &Candidate, known: &[usize]) {
        let Phase::Live(live) = &mut self.phase else { return };
        if live.pipeline.waiting.is_empty() {
            return;
        }
        for hash in edit.fresh(known).map(Decoded::hash) {
            for session in live.pipeline.waiting.remove(&hash).into_iter().flatten() {
                if let Some(member) = self.members.get_mut(&session) {
                    member.release(&hash);
                    self.released.insert(session);
                }
            }
        }
    }

    pub(super) fn refuse(
        &mut self,
        session: SessionId,
        id: EditId,
        actors: Vec<Bytes>,
        refusal: &Refusal,
        out: &mut Vec<Effect>,
    ) {
        self.refuse_actors(session, actors);
        let text = refusal.to_string();
        let code = match refusal {
            Refusal::Limit(_) => RejectCode::Limit,
            Refusal::Inflates if self.has_inflated_too_often(session) => {
                return self.disconnect(session, "too many changes inflate past the limit".to_owned(), out);
            }
            Refusal::Inflates => RejectCode::Limit,
            Refusal::ActorConflict => RejectCode::ActorConflict,
            Refusal::ForeignActor => RejectCode::ForeignActor,
            Refusal::Dishonest(_) => {
                return self.disconnect(session, text, out);
            }
        };
        self.reject(session, id, code, &text, out);
    }

    fn has_inflated_too_often(&mut self, session: SessionId) -> bool {
        self.members.get_mut(&session).is_some_and(Member::inflates_too_often)
    }

    fn refuse_actors(&mut self, session: SessionId, actors: Vec<Bytes>) {
        if let Some(member) = self.members.get_mut(&session) {
            actors.into_iter().for_each(|actor| member.refuse_actor(actor));
        }
    }

    /// Sends what has gathered to the log, unless a batch is on its way already, or the last one is still being sent to many.
    pub(super) fn append(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &mut self.phase else { return };
        let pipeline = &mut live.pipeline;
        if live.upkeep.is_resetting() || pipeline.goes_at().is_none_or(|at| at > now) {
            return;
        }
        let batch = std::mem::take(&mut pipeline.gathering);
        if batch.entries.is_empty() {
            // Only repeated edits: all that they hold is on disk.
            let cursor = live.cursor();
            return self.acknowledge(batch.acks, cursor, Settled::Known, out);
        }
        let batch = batch.sealed();
        out.push(Effect::Append(Append {
            epoch: live.epoch,
            first: live.durable,
            log_bytes_before: live.log_bytes,
            entries: batch.entries.clone(),
            begins_document: !pipeline.exists,
        }));
        pipeline.in_flight = Some(batch);
    }

    pub(super) fn stored(&mut self, now: Time, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &mut self.phase else { return };
        let Some(batch) = live.pipeline.in_flight.take() else {
            return;
        };
        let begins = live.durable;
        live.pipeline.exists = true;
        live.pipeline
            .rest(now, self.members.len() as u64 / self.tuning.deliveries_per_ms);
        live.durable = begins.plus(batch.entries.len() as u64);
        live.log_bytes += batch.bytes as u64;
        for link in batch.links {
            link.deps.iter().for_each(|dep| {
                live.heads.remove(dep);
            });
            live.heads.insert(link.hash);
        }
        live.upkeep.stored(
            now,
            live.durable,
            live.log_bytes,
            batch.entries.iter().map(|entry| entry.session),
        );
        let cursor = live.cursor();
        let runs = batch.entries.chunk_by(|a, b| a.session == b.session);
        let runs = runs.map(|run| (run[0].session, run.iter().map(|entry| &entry.change)));
        let frame = encode_diff(self.number, cursor, runs);
        live.pipeline.index.settle(live.upkeep.merged_position());
        self.keep_for_joiners(begins, &batch.entries);
        self.tell_peers(begins, &batch.entries, out);
        self.acknowledge(batch.acks, cursor, Settled::Told, out);
        if frame.len() as u64 > self.limits.send_queue_bytes_max {
            return self.send_in_parts(begins, out);
        }
        let to = self.audience();
        out.push(Effect::Broadcast {
            to,
            except: None,
            frame,
            begins: Some(begins),
        });
    }

    fn acknowledge(
        &mut self,
        acks: Vec<(SessionId, EditId)>,
        cursor: syncline_protocol::Cursor,
        settled: Settled,
        out: &mut Vec<Effect>,
    ) {
        self.tally.acked += acks.len() as u64;
        // And for what goes to all, behind them.
        out.reserve(acks.len() + 1);
        for (to, id) in acks {
            if self.is_peer(to) {
                self.peer_edit_settled(to, settled, out);
            } else if self.members.contains_key(&to) {
                out.push(Effect::Reply {
                    to,
                    frame: ServerMessage::Ack {
                        room: self.number,
                        id,
                        cursor,
                    }
                    .encode(),
                });
            }
        }
    }

    /// The batch in flight is not on disk, so all that was admitted since is taken back; its authors keep it and send it again.
    pub(super) fn store_failed(&mut self, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &mut self.phase else { return };
        let pipeline = &mut live.pipeline;
        pipeline.index.rollback(live.durable);
        let failed = pipeline.in_flight.take().map(|batch| batch.acks);
        let gathered = std::mem::take(&mut pipeline.gathering).acks;
        for (session, id) in failed.into_iter().flatten().chain(gathered) {
            self.reject(
                session,
                id,
                RejectCode::Unavailable,
                "the edit could not be stored; send it again later",
                out,
            );
        }
    }
}
