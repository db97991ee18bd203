//! A round of presence: in a large room what has changed goes to some members after others, so that edits come in between.
//!
//! A round is encoded once. From one to the next a member's turn never comes in less than a tick.

use super::{Effect, Phase, Room, member::Member};
use crate::engine::{presence, time::Time};
use bytes::Bytes;
use std::{collections::BTreeSet, sync::Arc};
use syncline_protocol::SessionId;

/// So many members at least are shown a round at once: writing to them takes half a millisecond, about.
pub(super) const TURN_MEMBERS: usize = 32;
/// A round has at most so many turns, so that it takes little of a tick.
pub(super) const TURNS_MAX: usize = 16;
/// A turn comes so long after the one before.
const TURN_MS: u64 = 1;

/// The frames of a tick, on their way to the members.
#[derive(Debug)]
pub(super) struct Round {
    frames: Vec<Bytes>,
    /// The members when it began, in order.
    to: Arc<[SessionId]>,
    /// How many of them have had their turn.
    done: usize,
    /// When the next ones have theirs.
    next: Time,
    /// How many turns there were.
    turns: u64,
    /// Who has no turn any more: it has come up to date since the round began and was sent all that is shown, which is newer, or
    /// it had its turn early.
    arrived: BTreeSet<SessionId>,
}

impl Round {
    /// A member has been sent all that is shown.
    pub(super) fn arrived(&mut self, session: SessionId) {
        self.arrived.insert(session);
    }

    /// The frames for a member that waits for its turn, which it has now: what it is sent next may be newer.
    pub(super) fn turn_now(&mut self, session: SessionId) -> Option<Vec<Bytes>> {
        let waits = self.to[self.done..].binary_search(&session).is_ok();
        (waits && self.arrived.insert(session)).then(|| self.frames.clone())
    }

    /// When the next members have their turn.
    pub(super) fn next_wakeup(&self) -> Time {
        self.next
    }

    /// Whose turn it is now, but for those that this does not concern.
    fn turn(&mut self, now: Time, is_live: impl Fn(&SessionId) -> bool) -> Arc<[SessionId]> {
        let begin = self.done;
        let members = TURN_MEMBERS.max(self.to.len().div_ceil(TURNS_MAX));
        self.done = self.to.len().min(begin + members);
        self.next = now.plus_ms(TURN_MS);
        self.turns += 1;
        if self.done - begin == self.to.len() {
            return self.to.clone();
        }
        let turn = self.to[begin..self.done].iter().copied();
        turn.filter(|session| is_live(session) && !self.arrived.contains(session))
            .collect()
    }

    fn is_over(&self) -> bool {
        self.done == self.to.len()
    }

    /// When it would have begun if all turns had come as late as the last one did, at `end`.
    fn latest_begin(&self, end: Time) -> Time {
        Time::from_ms(end.ms().saturating_sub((self.turns - 1) * TURN_MS))
    }
}

impl Room {
    /// Goes on with the round, or begins one if it is time. A member whose queue is too full for it lags, and is sent everything
    /// that is shown when it has drained.
    pub(super) fn show_presence(&mut self, now: Time, out: &mut Vec<Effect>) {
        if self.round.is_none() {
            self.round = self.next_round(now, out);
        }
        let Some(mut round) = self.round.take_if(|round| round.next <= now) else {
            return;
        };
        let begins = match &self.phase {
            Phase::Live(live) => Some(live.durable),
            Phase::Loading | Phase::Closed(_) => None,
        };
        let to = round.turn(now, |session| self.members.get(session).is_some_and(Member::is_live));
        out.extend(round.frames.iter().map(|frame| Effect::Broadcast {
            to: to.clone(),
            except: None,
            frame: frame.clone(),
            begins,
        }));
        if round.is_over() {
            self.presence.shown(round.latest_begin(now));
            self.last_round = Some((round.to, now));
        } else {
            self.round = Some(round);
        }
    }

    fn next_round(&mut self, now: Time, out: &mut Vec<Effect>) -> Option<Round> {
        let to = self.audience();
        // Among other members some have their turn earlier than the last time.
        if let Some((_, end)) = self.last_round.take_if(|(members, _)| !Arc::ptr_eq(members, &to)) {
            self.presence.shown(end);
        }
        let entries = self.presence.due(now);
        self.show_to_peers(&entries, out);
        let frames = presence::frames(self.number, entries);
        (!frames.is_empty()).then(|| Round {
            frames,
            to,
            done: 0,
            next: now,
            turns: 0,
            arrived: BTreeSet::new(),
        })
    }
}
