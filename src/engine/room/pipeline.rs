//! What is admitted to a room and not yet on disk: the index that knows all of it, the batch that gathers, and the one in flight.
//!
//! Asks the gate about each change of an edit, and says when the next batch may go. Never tells a member anything.

use super::{
    Entry,
    again::Looked,
    member::{Candidate, Member},
    upkeep::Upkeep,
};
use crate::engine::{
    gate::{self, Refusal, Verdict},
    index::Index,
    time::Time,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    sync::Arc,
};
use syncline_protocol::{ChangeHash, EditId, Limits, SessionId};

/// Changes that gather while a batch is being stored; at this many the room takes no further edits.
const GATHERED_CHANGES_MAX: usize = 10_000;
/// Bytes of those changes.
const GATHERED_BYTES_MAX: usize = 512 << 10;
/// No batch has to wait for longer behind the last one, in milliseconds.
const REST_MS_MAX: u64 = 5;

/// The changes that are admitted and not yet on disk.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// Knows everything admitted.
    pub(super) index: Index,
    /// Gathers until the batch in flight is stored, and its rest is over.
    pub(super) gathering: Batch,
    pub(super) in_flight: Option<Batch<Arc<[Entry]>>>,
    /// While the last batch is being sent to many, the next one gathers: one frame to each for all that comes meanwhile.
    rests_until: Time,
    /// Whether the store knows the document.
    pub(super) exists: bool,
    /// Who waits for which change.
    pub(super) waiting: BTreeMap<ChangeHash, BTreeSet<SessionId>>,
}

/// One record of the log to be: its entries are in a list while they gather, then shared with the log.
#[derive(Debug, Default)]
pub(super) struct Batch<Entries = Vec<Entry>> {
    pub(super) entries: Entries,
    pub(super) links: Vec<Link>,
    pub(super) acks: Vec<(SessionId, EditId)>,
    pub(super) bytes: usize,
}

/// What a change does to the heads.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) hash: ChangeHash,
    pub(super) deps: Vec<ChangeHash>,
}

/// What became of an edit at the gate. Most often none of its changes is known already.
pub(super) enum Weighed {
    Admitted {
        known: Vec<usize>,
    },
    Unproven {
        known: Vec<usize>,
    },
    Waits(ChangeHash),
    NeedsDocument,
    /// The document is there, and looking at it takes long.
    Distant,
    Refused {
        actor: Bytes,
        refusal: Refusal,
    },
    AfterReject,
}

impl Batch {
    /// Nothing more comes in.
    pub(super) fn sealed(self) -> Batch<Arc<[Entry]>> {
        Batch {
            entries: self.entries.into(),
            links: self.links,
            acks: self.acks,
            bytes: self.bytes,
        }
    }
}

impl Pipeline {
    pub(super) fn new(index: Index, exists: bool) -> Self {
        Self {
            index,
            gathering: Batch::default(),
            in_flight: None,
            rests_until: Time::default(),
            exists,
            waiting: BTreeMap::new(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.gathering.entries.len() >= GATHERED_CHANGES_MAX || self.gathering.bytes >= GATHERED_BYTES_MAX
    }

    /// Whether the next record of the log has begun, or edits wait to be acknowledged with it.
    pub(super) fn gathers(&self) -> bool {
        !self.gathering.acks.is_empty()
    }

    /// When the batch that gathers may go to the log; `None` if there is none, or the one before it is not stored.
    pub(super) fn goes_at(&self) -> Option<Time> {
        let goes_at = if self.is_full() {
            Time::default()
        } else {
            self.rests_until
        };
        (self.gathers() && self.in_flight.is_none()).then_some(goes_at)
    }

    /// The batch in flight is stored, and takes about so long to be sent.
    pub(super) fn rest(&mut self, now: Time, sending_ms: u64) {
        self.rests_until = now.plus_ms(sending_ms.min(REST_MS_MAX));
    }

    /// Bytes of the changes that are not on disk.
    pub(super) fn bytes(&self) -> usize {
        self.gathering.bytes + self.in_flight.as_ref().map_or(0, |batch| batch.bytes)
    }

    /// The changes that are admitted and not on disk, in order.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Bytes> {
        let in_flight = self.in_flight.iter().flat_map(|batch| batch.entries.iter());
        in_flight.chain(&self.gathering.entries).map(|entry| &entry.change)
    }

    /// A member has gone: its edits wait for nothing any more.
    pub(super) fn forget_waiting(&mut self, session: SessionId, member: &Member) {
        for missing in member.missing() {
            if let btree_map::Entry::Occupied(mut sessions) = self.waiting.entry(missing) {
                sessions.get_mut().remove(&session);
                if sessions.get().is_empty() {
                    sessions.remove();
                }
            }
        }
    }

    /// The gate's word on each change in order, on top of everything admitted. Unless all pass, nothing is.
    pub(super) fn weigh(
        &mut self,
        member: &Member,
        edit: &Candidate,
        upkeep: &Upkeep,
        limits: &Limits,
        looked: Looked,
    ) -> Weighed {
        let document = upkeep.document().filter(|_| looked.reaches);
        let before = self.index.position();
        let mut known = Vec::new();
        let mut unproven = false;
        let mut stop = None;
        for (number, change) in edit.changes.iter().enumerate() {
            let is_full = upkeep.document_is_full(limits.document_bytes_max);
            let verdict = if is_full || member.has_refused(change.actor()) {
                gate::check(&self.index, document, &edit.subject, change, limits)
            } else {
                gate::take_in(&mut self.index, document, &edit.subject, change, limits)
            };
            stop = match verdict {
                Verdict::Known => {
                    known.push(number);
                    None
                }
                _ if is_full => {
                    let refusal = Refusal::Limit("the document has reached its size limit");
                    Some(Weighed::Refused {
                        actor: Bytes::copy_from_slice(change.actor()),
                        refusal,
                    })
                }
                _ if member.has_refused(change.actor()) => Some(Weighed::AfterReject),
                // It need not stand on a refused change to be numbered after it.
                Verdict::Refused(_) if member.has_refused_any() && change.start_op() > self.index.max_op() + 1 => {
                    Some(Weighed::AfterReject)
                }
                Verdict::Vouched => None,
                Verdict::Unvouched => {
                    unproven = !looked.proven;
                    None
                }
                Verdict::Missing(hash) => Some(Weighed::Waits(hash)),
                Verdict::Distant if upkeep.document().is_none() => Some(Weighed::NeedsDocument),
                Verdict::Distant if !looked.reaches => Some(Weighed::Distant),
                Verdict::Distant => {
                    let refusal = Refusal::Limit("the change stands on a part of the history that is too old");
                    Some(Weighed::Refused {
                        actor: Bytes::copy_from_slice(change.actor()),
                        refusal,
                    })
                }
                Verdict::Refused(refusal) => Some(Weighed::Refused {
                    actor: Bytes::copy_from_slice(change.actor()),
                    refusal,
                }),
            };
            if stop.is_some() {
                break;
            }
        }
        if stop.is_some() || unproven {
            self.index.rollback(before);
        }
        match stop {
            Some(stop) => stop,
            None if unproven => Weighed::Unproven { known },
            None => Weighed::Admitted { known },
        }
    }

    /// Puts the admitted changes of an edit into the batch that gathers.
    pub(super) fn gather(&mut self, session: SessionId, edit: Candidate, known: &[usize]) {
        let batch = &mut self.gathering;
        if known.len() == edit.changes.len()
            && batch.entries.is_empty()
            && let Some(in_flight) = &mut self.in_flight
        {
            // A repeated edit whose first copy is in flight is acknowledged with it.
            return in_flight.acks.push((session, edit.id));
        }
        for (number, change) in edit.changes.into_iter().enumerate() {
            if known.binary_search(&number).is_ok() {
                continue;
            }
            let (hash, deps, change) = change.into_parts();
            batch.bytes += change.len();
            batch.links.push(Link { hash, deps });
            batch.entries.push(Entry {
                session,
                subject: edit.subject.clone(),
                change,
            });
        }
        batch.acks.push((session, edit.id));
    }
}
