//! Joiners and lagging members: brought to the present in parts, never a diff before the last.

use super::{Bench, EPOCH, document, empty, kinds, typed};
use crate::engine::room::{Effect, Event, LoadFailure, ReadFailure, Slice, Snapshot, Source, Tuning};
use bytes::Bytes;
use syncline_protocol::{
    Cursor, Epoch, Limits, Position, SessionId,
    native::{ClientMessage, ClosedCode, Packing, ServerMessage, decode_server},
};

fn at(position: u64) -> Cursor {
    Cursor {
        epoch: EPOCH,
        position: Position::new(position),
    }
}

fn slice(next: Source) -> Result<Slice, ReadFailure> {
    Ok(Slice {
        packing: Packing::Plain,
        bytes: Bytes::from_static(b"piece"),
        plain_bytes: 5,
        log_bytes_before: 0,
        next,
    })
}

fn log(from: u64) -> Source {
    Source::log(Position::new(from))
}

/// A room with ten stored changes by member 9, who has left.
fn written() -> Bench {
    let mut bench = Bench::open();
    bench.join(9);
    bench.edit(9, 1, &typed(1, 10));
    assert_eq!(bench.store(), [10]);
    bench.feed(Event::Left {
        session: SessionId::new(9),
    });
    bench.take();
    bench
}

fn reads(bench: &mut Bench) -> Vec<(Source, u64)> {
    let reads = bench.take().into_iter().filter_map(|effect| match effect {
        Effect::Read { from, to, .. } => Some((from, to.number())),
        _ => None,
    });
    reads.collect()
}

#[test]
fn o1_who_joins_while_the_room_loads_is_answered_when_it_has() {
    let mut bench = Bench::loading(Limits::default(), Tuning::default());
    bench.join(1);
    assert!(bench.told(1).is_empty());
    bench.feed(Event::Loaded(Box::new(empty())));
    assert_eq!(bench.told(1), ["opened at 0", "part to 0"]);
}

#[test]
fn o23_o24_a_document_that_does_not_open_closes_its_room() {
    let check = |failure: LoadFailure, code: ClosedCode, expected: &str| {
        let mut bench = Bench::loading(Limits::default(), Tuning::default());
        bench.join(1);
        bench.feed(Event::LoadFailed(failure));
        assert_eq!(bench.told(1), [expected]);
        assert_eq!(kinds(&bench.take()), ["dismiss", "close"]);
        bench.join(2);
        assert_eq!(bench.told(2), [expected], "a join that was under way");
        let late = decode_server(&bench.room.too_late()).unwrap();
        assert!(matches!(late, ServerMessage::Closed { code: told, room: None, .. } if told == code));
    };
    check(LoadFailure::Damaged, ClosedCode::Damaged, "closed damaged");
    check(LoadFailure::Unavailable, ClosedCode::Unavailable, "closed unavailable");
}

#[test]
fn o5_o6_o25_where_a_replica_goes_on() {
    let check = |cursor: Option<Cursor>, expected: Source| {
        let mut bench = written();
        bench.join_from(1, cursor);
        assert_eq!(reads(&mut bench), [(expected, 10)], "{cursor:?}");
    };
    check(None, log(0));
    check(Some(at(4)), log(4));
    check(
        Some(Cursor {
            epoch: Epoch::new(1),
            ..at(4)
        }),
        log(0),
    );
    check(Some(at(11)), log(0));
    let mut bench = written();
    bench.join_from(1, Some(at(10)));
    assert_eq!(
        bench.told(1),
        ["opened at 10", "part to 10"],
        "who has everything needs no reading"
    );
}

#[test]
fn o15_no_diff_comes_before_the_last_part() {
    let mut bench = written();
    let more = typed(1, 11);
    bench.join(2);
    let session = SessionId::new(2);
    bench.take();
    bench.join_from(1, Some(at(10)));
    bench.told(1);
    let ticket = bench.ticket;
    bench.feed(Event::Read {
        ticket,
        session,
        result: slice(log(5)),
    });
    assert_eq!(bench.told(2), ["opened at 10", "part"]);
    bench.edit(1, 1, &more[10..]);
    assert_eq!(bench.store(), [1]);
    assert_eq!(bench.told(1), ["ack 1 at 11", "diff of 1 to 11"]);
    assert!(bench.told(2).is_empty(), "it is still on its way");
    bench.take();
    bench.feed(Event::Drained { session });
    assert_eq!(reads(&mut bench), [(log(5), 11)]);
    let ticket = bench.ticket;
    bench.feed(Event::Read {
        ticket,
        session,
        result: slice(log(11)),
    });
    assert_eq!(bench.told(2), ["part to 11"]);
    bench.edit(2, 1, &typed(2, 1));
    assert_eq!(bench.store(), [1]);
    assert_eq!(bench.told(2), ["ack 1 at 12", "diff of 1 to 12"]);
}

#[test]
fn o16_a_lagging_member_gets_nothing_until_it_has_drained() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.join(2);
    let session = SessionId::new(2);
    let changes = typed(1, 3);
    bench.edit(1, 1, &changes[..1]);
    bench.store();
    bench.feed(Event::Lagged {
        session,
        at: Position::new(0),
    });
    bench.told(2);
    bench.edit(1, 2, &changes[1..2]);
    bench.store();
    assert!(bench.told(2).is_empty());
    bench.take();
    bench.feed(Event::Drained { session });
    assert_eq!(reads(&mut bench), [(log(0), 2)], "from where it stopped");
    let ticket = bench.ticket;
    bench.feed(Event::Read {
        ticket,
        session,
        result: slice(log(2)),
    });
    assert_eq!(bench.told(2), ["part to 2"], "without a new opened");
    bench.edit(1, 3, &changes[2..]);
    bench.store();
    assert_eq!(bench.told(2), ["diff of 1 to 3"]);
}

#[test]
fn the_last_step_to_the_present_needs_no_reading() {
    let mut bench = written();
    bench.join(2);
    bench.join_from(1, Some(at(10)));
    bench.told(1);
    let more = typed(1, 11);
    bench.edit(1, 1, &more[10..]);
    assert_eq!(bench.store(), [1]);
    let ticket = bench.ticket;
    let result = slice(log(10));
    bench.feed(Event::Read {
        session: SessionId::new(2),
        ticket,
        result,
    });
    assert_eq!(bench.told(2), ["opened at 11", "part", "part to 11"]);
}

#[test]
fn o9_a_batch_larger_than_a_queue_travels_in_parts() {
    let limits = Limits {
        send_queue_bytes_max: 100,
        ..Limits::default()
    };
    let mut bench = Bench::open_with(limits, Tuning::default());
    bench.join(1);
    bench.told(1);
    bench.edit(1, 1, &typed(1, 3));
    assert_eq!(bench.store(), [3]);
    assert_eq!(bench.told(1), ["ack 1 at 3"], "no diff");
    assert_eq!(reads(&mut bench), [(log(0), 3)]);
    let ticket = bench.ticket;
    let result = slice(log(3));
    bench.feed(Event::Read {
        session: SessionId::new(1),
        ticket,
        result,
    });
    assert_eq!(bench.told(1), ["part to 3"]);
}

#[test]
fn a_piece_that_was_compacted_away_begins_anew_at_the_snapshot() {
    let mut bench = written();
    bench.join_from(1, Some(at(2)));
    bench.take();
    let snapshot = Snapshot {
        generation: 1,
        position: Position::new(10),
        bytes: 100,
        log_bytes: 1_000,
        log_start: Position::new(8),
    };
    bench.feed(Event::Compacted(Some(snapshot)));
    let ticket = bench.ticket;
    bench.feed(Event::Read {
        ticket,
        session: SessionId::new(1),
        result: Err(ReadFailure::Gone),
    });
    assert_eq!(
        reads(&mut bench),
        [(
            Source::Snapshot {
                generation: 1,
                offset: 0
            },
            10
        )]
    );
}

#[test]
fn o19_opening_again_begins_anew_in_the_same_room() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.told(1);
    bench.join(1);
    assert_eq!(bench.told(1), ["opened at 0", "part to 0"]);
    assert_eq!(bench.room.members(), 1);
}

#[test]
fn s1_s3_a_signal_goes_to_the_other_members_that_are_up_to_date() {
    let mut bench = written();
    bench.join_from(1, Some(at(10)));
    bench.join_from(2, Some(at(10)));
    bench.join(3);
    (1..=3).for_each(|member| drop(bench.told(member)));
    let room = bench.room.number();
    bench.say(
        1,
        &ClientMessage::Signal {
            room,
            payload: Bytes::from_static(b"ring"),
        },
    );
    assert!(bench.told(1).is_empty() && bench.told(3).is_empty());
    assert_eq!(bench.told(2).len(), 1);
    assert_eq!(document().as_str(), "notes");
}
