//! What the members of one room make it do elsewhere, one piece of each sort per member at a time.
//!
//! Whoever opens a document again and again, or leaves and comes back, asks anew before the former answer is there: the new
//! question waits for its turn, in the place of one that waits already. Reads also wait for space in the member's queue.

use crate::{
    engine::room::{Effect, Event},
    server::outbox::Outbox,
};
use std::{collections::BTreeMap, sync::Arc};
use syncline_protocol::{RoomNumber, SessionId};

/// The sorts of work of which each member has one piece under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sort {
    Read,
    Decode,
    Prove,
}

type Turn = (SessionId, Sort);

/// Who waits for what.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// With the queue in which space is reserved.
    under_way: BTreeMap<Turn, Option<Arc<Outbox>>>,
    waiting: BTreeMap<Turn, Effect>,
}

impl Turns {
    /// What is to be started now, if it is the member's turn; otherwise it is kept. `outbox` is the member's queue.
    pub(super) fn ask(
        &mut self,
        effect: Effect,
        room: RoomNumber,
        outbox: Option<&Arc<Outbox>>,
        bytes: usize,
    ) -> Option<Effect> {
        let Some(turn) = turn_of(&effect) else {
            return Some(effect);
        };
        let (session, sort) = turn;
        if self.under_way.contains_key(&turn) {
            self.waiting.insert(turn, effect);
            return None;
        }
        let outbox = outbox.filter(|_| sort == Sort::Read);
        if let Some(outbox) = outbox
            && !outbox.reserve(room, bytes)
        {
            debug_assert_eq!(outbox.session(), session, "a member's own queue");
            self.waiting.insert(turn, effect);
            outbox.tell_when_drained(room);
            return None;
        }
        self.under_way.insert(turn, outbox.cloned());
        Some(effect)
    }

    /// Its answer has been worked off. What waited for it is next, to be asked for again.
    pub(super) fn answered(&mut self, turn: Answered, room: RoomNumber) -> Option<Effect> {
        let outbox = self.under_way.remove(&turn.0).flatten();
        if let Some(outbox) = outbox {
            outbox.release(room);
        }
        self.waiting.remove(&turn.0)
    }

    /// The member's queue has drained: its read, if it waits for that.
    pub(super) fn drained(&mut self, session: SessionId) -> Option<Effect> {
        let turn = (session, Sort::Read);
        if self.under_way.contains_key(&turn) {
            return None;
        }
        self.waiting.remove(&turn)
    }

    /// The room has ended, and sends nothing more.
    pub(super) fn end(&mut self, room: RoomNumber) {
        self.waiting.clear();
        for outbox in std::mem::take(&mut self.under_way).into_values().flatten() {
            outbox.release(room);
        }
    }

    /// The session has left: what waits is not asked any more.
    pub(super) fn forget(&mut self, session: SessionId) {
        self.waiting.retain(|(whose, _), _| *whose != session);
    }
}

/// Whose turn an answer ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answered(Turn);

/// The turn that an event ends.
pub(super) fn answered(event: &Event) -> Option<Answered> {
    let turn = match event {
        Event::Read { session, .. } => (*session, Sort::Read),
        Event::Decoded { session, .. } => (*session, Sort::Decode),
        Event::Proven { session, .. } => (*session, Sort::Prove),
        _ => return None,
    };
    Some(Answered(turn))
}

fn turn_of(effect: &Effect) -> Option<Turn> {
    match effect {
        Effect::Read { session, .. } => Some((*session, Sort::Read)),
        Effect::Decode { session, .. } => Some((*session, Sort::Decode)),
        Effect::Prove { session, .. } => Some((*session, Sort::Prove)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::room::{Source, Ticket};
    use syncline_protocol::Position;

    const ANNA: SessionId = SessionId::new(1);
    const ROOM: RoomNumber = RoomNumber::new(9);

    fn read(from: u64) -> Effect {
        Effect::Read {
            session: ANNA,
            ticket: Ticket::default(),
            from: Source::log(Position::new(from)),
            to: Position::new(100),
            deflate: false,
            bundle: None,
        }
    }

    fn from(effect: Option<Effect>) -> Option<u64> {
        match effect? {
            Effect::Read {
                from: Source::Log { from, .. },
                ..
            } => Some(from.number()),
            other => panic!("{other:?}"),
        }
    }

    fn outbox() -> Arc<Outbox> {
        Arc::new(Outbox::new(ANNA, 100, 1_000))
    }

    #[test]
    fn one_read_per_member_however_often_it_asks() {
        let (mut turns, outbox) = (Turns::default(), outbox());
        let turn = Answered((ANNA, Sort::Read));
        assert_eq!(from(turns.ask(read(1), ROOM, Some(&outbox), 10)), Some(1));
        for again in 2..1_000 {
            assert!(turns.ask(read(again), ROOM, Some(&outbox), 10).is_none());
        }
        assert_eq!(turns.waiting.len(), 1, "the last one alone");
        assert_eq!(from(turns.answered(turn, ROOM)), Some(999));
        assert_eq!(from(turns.answered(turn, ROOM)), None);
    }

    #[test]
    fn a_read_waits_for_space_in_the_queue() {
        let (mut turns, outbox) = (Turns::default(), outbox());
        outbox.push(vec![0; 150].into());
        assert!(turns.ask(read(1), ROOM, Some(&outbox), 100).is_none());
        assert!(outbox.notice().is_none());
        outbox.written(150);
        assert!(outbox.notice().is_some());
        let waiting = turns.drained(ANNA).expect("it waited for that");
        assert_eq!(from(turns.ask(waiting, ROOM, Some(&outbox), 100)), Some(1));
        turns.end(ROOM);
        assert!(outbox.reserve(RoomNumber::new(10), 200), "the space is free again");
    }
}
