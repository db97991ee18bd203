//! Presence in a room of many: its members have their turns one after another, and edits do not wait for the last.

use super::{Bench, kinds, typed};
use crate::engine::room::{
    Effect, Event,
    round::{TURN_MEMBERS, TURNS_MAX},
};
use bytes::Bytes;
use syncline_protocol::{Position, SessionId, native::ServerMessage};

/// Three turns.
const MEMBERS: u64 = 2 * TURN_MEMBERS as u64 + 10;

/// A room in which member 1 has shown a state, and the first turn is over.
fn showing() -> Bench {
    let mut bench = Bench::open();
    (1..=MEMBERS).for_each(|member| bench.join(member));
    bench.take();
    bench.heard.clear();
    show(&mut bench, "here");
    bench.settle();
    bench
}

fn show(bench: &mut Bench, state: &'static str) {
    show_as(bench, 1, Bytes::from_static(state.as_bytes()));
}

fn show_as(bench: &mut Bench, member: u64, state: Bytes) {
    bench.feed(Event::Shown {
        session: SessionId::new(member),
        state: Some(state),
    });
}

/// What this member was shown of member 1.
fn shown(bench: &mut Bench, member: u64) -> Vec<Bytes> {
    shown_of(bench, member, 1)
}

/// What this member was shown of another.
fn shown_of(bench: &mut Bench, member: u64, other: u64) -> Vec<Bytes> {
    let messages = bench.heard.remove(&member).unwrap_or_default();
    let entries = messages.into_iter().filter_map(|message| match message {
        ServerMessage::Presence { entries, .. } => Some(entries),
        _ => None,
    });
    let of_other = entries.flatten().filter(|entry| entry.session.number() == other);
    of_other.filter_map(|entry| entry.state).collect()
}

#[test]
fn edits_do_not_wait_for_all_to_be_shown_presence() {
    let mut bench = showing();
    assert_eq!(bench.heard.len(), TURN_MEMBERS);
    assert_eq!(bench.room.next_wakeup(), Some(bench.now.plus_ms(1)));
    bench.take();
    bench.edit(1, 1, &typed(1, 1));
    bench.settle();
    bench.feed(Event::Stored);
    let to = |effect: Effect| match effect {
        Effect::Broadcast { to, .. } => to.len(),
        other => panic!("{other:?}"),
    };
    let effects = bench.take();
    assert_eq!(kinds(&effects), ["append", "broadcast"]);
    assert_eq!(
        effects.into_iter().skip(1).map(to).next(),
        Some(MEMBERS as usize),
        "the diff goes to all at once"
    );
    bench.pass(1);
    bench.pass(1);
    let turns: Vec<usize> = bench.take().into_iter().map(to).collect();
    assert_eq!(turns, [TURN_MEMBERS, 10]);
    assert!(
        (1..=MEMBERS).all(|member| shown(&mut bench, member) == ["here"]),
        "each once"
    );
}

#[test]
fn a_round_has_few_turns_in_the_largest_room() {
    let mut bench = Bench::open();
    let members = 1_000;
    (1..=members).for_each(|member| bench.join(member));
    bench.heard.clear();
    show(&mut bench, "here");
    bench.settle();
    (1..TURNS_MAX).for_each(|_| bench.pass(1));
    assert!((1..=members).all(|member| shown(&mut bench, member) == ["here"]));
}

#[test]
fn p2_no_member_has_two_turns_within_a_tick() {
    let mut bench = showing();
    show(&mut bench, "there");
    // The turns come late: at 0, 60 and 80 ms.
    bench.pass(60);
    bench.pass(20);
    bench.heard.clear();
    bench.pass(97);
    assert!(bench.heard.is_empty(), "the last members' turn would come too early");
    bench.pass(1);
    assert_eq!(bench.heard.len(), TURN_MEMBERS);
}

#[test]
fn p2_who_is_among_the_first_when_others_leave_waits_for_a_tick() {
    let mut bench = showing();
    show(&mut bench, "there");
    bench.pass(1);
    bench.pass(1);
    (2..MEMBERS).for_each(|member| {
        bench.feed(Event::Left {
            session: SessionId::new(member),
        });
    });
    bench.heard.clear();
    bench.pass(99);
    assert!(bench.heard.is_empty(), "the last member had its turn 99 ms ago");
    assert_eq!(bench.room.next_wakeup(), Some(bench.now.plus_ms(1)));
    bench.pass(1);
    assert_eq!(shown(&mut bench, MEMBERS), ["there"]);
}

#[test]
fn p6_who_lags_or_arrives_amid_a_round_has_no_turn_in_it() {
    let mut bench = showing();
    show(&mut bench, "there");
    // Both would be in the last turn.
    let (lags, arrives) = (MEMBERS - 1, MEMBERS);
    for member in [lags, arrives] {
        bench.feed(Event::Lagged {
            session: SessionId::new(member),
            at: Position::new(0),
        });
    }
    bench.feed(Event::Drained {
        session: SessionId::new(arrives),
    });
    bench.pass(1);
    bench.pass(1);
    assert_eq!(shown(&mut bench, lags), Vec::<Bytes>::new());
    assert_eq!(
        shown(&mut bench, arrives),
        ["there"],
        "what is shown now, and nothing older behind it"
    );
    assert_eq!(shown(&mut bench, MEMBERS - 2), ["here"]);
}

#[test]
fn p2_who_is_still_shown_the_whole_amid_a_round_gets_nothing_older_behind_it() {
    let mut bench = Bench::open();
    (1..MEMBERS).for_each(|member| bench.join(member));
    // Two states fill a frame: the third comes in the next one.
    (1..=2).for_each(|member| show_as(&mut bench, member, Bytes::from(vec![7; 40_000])));
    show_as(&mut bench, 3, Bytes::from_static(b"first"));
    bench.settle();
    (0..2).for_each(|_| bench.pass(1));
    bench.heard.clear();
    let late = MEMBERS;
    bench.join(late);
    show_as(&mut bench, 3, Bytes::from_static(b"old"));
    bench.pass(100);
    show_as(&mut bench, 3, Bytes::from_static(b"new"));
    assert_eq!(
        shown_of(&mut bench, late, 3),
        Vec::<Bytes>::new(),
        "its turn is the last"
    );
    bench.feed(Event::Drained {
        session: SessionId::new(late),
    });
    (0..2).for_each(|_| bench.pass(1));
    assert_eq!(shown_of(&mut bench, late, 3), ["old", "new"]);
    assert_eq!(
        shown_of(&mut bench, late - 1, 3),
        ["old"],
        "the others wait for the next round"
    );
}
