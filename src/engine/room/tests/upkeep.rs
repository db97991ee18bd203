//! Merging, compacting, resetting and closing.

use super::{Bench, empty, kinds, typed};
use crate::engine::{
    document::{Document, Merge},
    room::{Effect, Event, Merged, Phase, Snapshot, Source, Tuning},
};
use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};
use bytes::Bytes;
use syncline_protocol::{CloseCode, Limits, Position, SessionId};

fn tuning() -> Tuning {
    Tuning {
        merge_changes: 4,
        merge_after_ms: 30_000,
        merge_quiet_ms: 40_000,
        compact_changes: 8,
        compact_changes_at_rest: 2,
        compact_rest_ms: 10_000_000,
        room_idle_ms: 60_000,
        ..Tuning::default()
    }
}

fn bench() -> Bench {
    let mut bench = Bench::open_with(Limits::default(), tuning());
    bench.join(1);
    bench
}

fn merged(changes: &[Bytes]) -> Merged {
    let Merge::Whole(document) = Document::default().merge(changes) else {
        panic!("they merge")
    };
    Merged::Whole {
        document,
        position: Position::new(changes.len() as u64),
    }
}

fn snapshot(generation: u64, position: u64) -> Snapshot {
    let (position, log_start) = (Position::new(position), Position::new(0));
    Snapshot {
        generation,
        position,
        bytes: 10,
        log_bytes: 0,
        log_start,
    }
}

fn work(bench: &mut Bench) -> Vec<&'static str> {
    let effects = bench.take();
    let work = ["merge", "compact", "discard", "quarantine", "close", "load"];
    kinds(&effects).into_iter().filter(|kind| work.contains(kind)).collect()
}

/// A room with one member, whose first change took so long to merge.
fn merged_once(change: &Bytes, took_ms: u64) -> Bench {
    let first = std::slice::from_ref(change);
    let mut bench = Bench::open_with(Limits::default(), Tuning::default());
    bench.join(1);
    bench.edit(1, 1, first);
    bench.store();
    bench.pass(2_000);
    assert_eq!(work(&mut bench), ["merge"]);
    bench.pass(took_ms);
    bench.feed(Event::Merged(merged(first)));
    bench
}

#[test]
fn a_merge_is_due_by_number_and_by_age() {
    let changes = typed(1, 5);
    let mut bench = bench();
    bench.edit(1, 1, &changes[..3]);
    bench.store();
    assert!(work(&mut bench).is_empty(), "three are too few");
    bench.edit(1, 2, &changes[3..4]);
    bench.store();
    assert_eq!(work(&mut bench), ["merge"], "four are enough");
    bench.feed(Event::Merged(merged(&changes[..4])));
    bench.edit(1, 3, &changes[4..]);
    bench.store();
    bench.pass(29_999);
    assert!(work(&mut bench).is_empty(), "one is too few, and it is young");
    bench.pass(1);
    assert_eq!(work(&mut bench), ["merge"]);
}

#[test]
fn a_merge_is_due_when_it_has_become_quiet() {
    let quiet = Tuning {
        merge_quiet_ms: 2_000,
        ..tuning()
    };
    let changes = typed(1, 2);
    let mut bench = Bench::open_with(Limits::default(), quiet);
    bench.join(1);
    bench.edit(1, 1, &changes[..1]);
    bench.store();
    bench.pass(1_500);
    bench.edit(1, 2, &changes[1..]);
    bench.store();
    bench.pass(1_999);
    assert!(work(&mut bench).is_empty(), "somebody is writing");
    assert_eq!(bench.room.next_wakeup().map(|at| at.ms_since(bench.now)), Some(1));
    bench.pass(1);
    assert_eq!(work(&mut bench), ["merge"]);
    bench.feed(Event::Merged(Merged::Failed));
    bench.pass(4_999);
    assert!(
        work(&mut bench).is_empty(),
        "what could not be tried is not tried at once"
    );
    bench.pass(1);
    assert_eq!(work(&mut bench), ["merge"]);
}

#[test]
fn merges_of_few_changes_rest_a_thousand_times_as_long_as_the_last_one_took() {
    let changes = typed(1, 300);
    let mut bench = merged_once(&changes[0], 70);
    bench.edit(1, 2, &changes[1..2]);
    bench.store();
    bench.pass(60_000);
    assert!(
        work(&mut bench).is_empty(),
        "one change does not make a long document be gone through"
    );
    let Phase::Live(live) = &bench.room.phase else {
        panic!("it is open")
    };
    assert!(live.upkeep.document().is_none(), "nor does it keep it in memory");
    assert_eq!(bench.room.next_wakeup().map(|at| at.ms_since(bench.now)), Some(10_000));
    bench.pass(10_000);
    assert_eq!(work(&mut bench), ["merge"]);
    bench.pass(70);
    bench.feed(Event::Merged(merged(&changes[..2])));
    bench.edit(1, 3, &changes[2..]);
    bench.store();
    bench.pass(2_000);
    assert_eq!(work(&mut bench), ["merge"], "so many are worth it");
}

#[test]
fn a_room_that_cannot_merge_fast_enough_takes_no_more() {
    let changes = typed(1, 8);
    let mut bench = bench();
    bench.edit(1, 1, &changes[..4]);
    bench.store();
    bench.edit(1, 2, &changes[4..7]);
    bench.store();
    assert!(!bench.room.is_saturated());
    bench.edit(1, 3, &changes[7..]);
    bench.store();
    assert!(bench.room.is_saturated(), "twice what makes a merge due");
    bench.feed(Event::Merged(merged(&changes)));
    assert!(!bench.room.is_saturated());
}

#[test]
fn a_former_snapshot_goes_when_nobody_reads_it() {
    let changes = typed(1, 16);
    let mut bench = bench();
    bench.edit(1, 1, &changes[..8]);
    bench.store();
    bench.feed(Event::Merged(merged(&changes[..8])));
    bench.settle();
    assert_eq!(work(&mut bench), ["merge", "compact"]);
    bench.feed(Event::Compacted(Some(snapshot(1, 8))));
    bench.join(2);
    let effects = bench.take();
    let from = Source::Snapshot {
        generation: 1,
        offset: 0,
    };
    assert!(
        matches!(&effects[..], [Effect::Read { from: read, .. }] if *read == from),
        "{effects:?}"
    );
    bench.edit(1, 2, &changes[8..]);
    bench.store();
    bench.feed(Event::Merged(merged(&changes)));
    bench.settle();
    assert_eq!(work(&mut bench), ["merge", "compact"]);
    bench.feed(Event::Compacted(Some(snapshot(2, 16))));
    bench.settle();
    assert!(work(&mut bench).is_empty(), "member 2 reads the former one");
    bench.feed(Event::Left {
        session: SessionId::new(2),
    });
    bench.settle();
    assert_eq!(work(&mut bench), ["discard"]);
}

/// A room that has made a snapshot in one second, and has merged as many changes again: when the next one begins, in ms.
fn next_snapshot_after(merge_quiet_ms: u64) -> Option<u64> {
    let changes = typed(1, 16);
    let tuning = Tuning {
        merge_quiet_ms,
        ..tuning()
    };
    let mut bench = Bench::open_with(Limits::default(), tuning);
    bench.join(1);
    bench.edit(1, 1, &changes[..8]);
    bench.store();
    bench.feed(Event::Merged(merged(&changes[..8])));
    bench.settle();
    assert_eq!(work(&mut bench), ["merge", "compact"]);
    bench.pass(1_000);
    bench.feed(Event::Compacted(Some(snapshot(1, 8))));
    bench.edit(1, 2, &changes[8..]);
    bench.store();
    bench.feed(Event::Merged(merged(&changes)));
    bench.settle();
    assert_eq!(work(&mut bench), ["merge"]);
    let wakes = bench.room.next_wakeup().map(|at| at.ms_since(bench.now));
    bench.pass(wakes.unwrap_or(0) - 1);
    assert!(work(&mut bench).is_empty());
    bench.pass(1);
    assert_eq!(work(&mut bench), ["compact"]);
    wakes
}

#[test]
fn snapshots_rest_while_edits_come_and_no_longer() {
    assert_eq!(
        next_snapshot_after(40_000),
        Some(10_000),
        "ten times as long as the last one took"
    );
    assert_eq!(next_snapshot_after(2_000), Some(2_000), "when it is quiet");
}

#[test]
fn a_compaction_that_fails_is_not_tried_again_and_again() {
    let changes = typed(1, 8);
    let kept = Tuning {
        document_idle_ms: 600_000,
        ..tuning()
    };
    let mut bench = Bench::open_with(Limits::default(), kept);
    bench.join(1);
    bench.edit(1, 1, &changes);
    bench.store();
    bench.feed(Event::Merged(merged(&changes)));
    bench.settle();
    assert_eq!(work(&mut bench), ["merge", "compact"]);
    bench.feed(Event::Compacted(None));
    bench.settle();
    assert!(work(&mut bench).is_empty());
    bench.pass(299_000);
    assert!(work(&mut bench).is_empty());
    bench.pass(1_000);
    assert_eq!(work(&mut bench), ["compact"], "a full disk has space again by now");
}

#[test]
fn a_room_whose_merges_fail_sleeps_between_them() {
    let changes = typed(1, 5);
    let mut bench = bench();
    bench.edit(1, 1, &changes[..4]);
    bench.store();
    bench.feed(Event::Merged(merged(&changes[..4])));
    bench.edit(1, 2, &changes[4..]);
    bench.store();
    work(&mut bench);
    bench.pass(Tuning::default().document_idle_ms + 30_000);
    assert_eq!(work(&mut bench), ["merge"]);
    bench.feed(Event::Merged(Merged::Failed));
    bench.settle();
    assert!(
        bench.room.next_wakeup() > Some(bench.now),
        "{:?}",
        bench.room.next_wakeup()
    );
}

#[test]
fn e21_a_document_full_of_values_takes_no_more_however_small_it_is_saved() {
    let limits = Limits {
        document_bytes_max: 5_000,
        ..Limits::default()
    };
    let mut document = Automerge::new().with_actor(ActorId::from([1]));
    for number in 0..3 {
        let mut transaction = document.transaction();
        transaction
            .put(ROOT, format!("{number}"), "x".repeat(6_000))
            .expect("a put");
        transaction.commit();
    }
    let changes: Vec<_> = document
        .get_changes(&[])
        .iter()
        .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
        .collect();
    let mut bench = Bench::open_with(limits, tuning());
    bench.join(1);
    bench.told(1);
    for number in 0..3 {
        bench.edit(1, number as u64, &changes[number..=number]);
        bench.store();
    }
    let told = bench.told(1);
    assert!(told.contains(&"ack 0 at 1".to_owned()), "{told:?}");
    assert!(told.contains(&"reject 1 limit".to_owned()), "{told:?}");
}

#[test]
fn what_a_room_holds_is_accounted_values_and_waiting_edits_too() {
    let mut bench = bench();
    let empty = bench.room.memory_bytes();
    assert!(empty >= 8 << 10, "a room takes something by itself");
    let changes = typed(1, 2);
    bench.edit(1, 1, &changes[1..]);
    let waiting = bench.room.memory_bytes() - empty;
    assert!(waiting >= changes[1].len(), "{waiting}");
}

#[test]
fn r1_r2_a_change_that_does_not_merge_resets_the_room_and_its_sender_leaves_for_good() {
    let (ours, theirs) = (typed(1, 2), typed(2, 4));
    let mut bench = bench();
    bench.join(2);
    bench.edit(1, 1, &ours);
    bench.store();
    bench.edit(2, 1, &theirs[..3]);
    bench.store();
    assert_eq!(work(&mut bench), ["merge"]);
    bench.edit(2, 2, &theirs[3..]);
    bench.settle();
    bench.take();
    let culprits = vec![Position::new(3)];
    let descendants = vec![Position::new(4)];
    bench.feed(Event::Merged(Merged::Bad { culprits, descendants }));
    bench.settle();
    assert!(
        work(&mut bench).is_empty(),
        "the record in flight has to be stored first"
    );
    bench.feed(Event::Stored);
    bench.settle();
    let effects = bench.take();
    let bad = effects.iter().find_map(|effect| match effect {
        Effect::Quarantine { bad, to } => Some((bad.clone(), *to)),
        _ => None,
    });
    assert_eq!(bad, Some((vec![Position::new(3), Position::new(4)], Position::new(6))));
    bench.told(1);
    bench.told(2);
    bench.edit(1, 9, &typed(3, 1));
    assert_eq!(bench.told(1), ["reject 9 unavailable"]);
    bench.feed(Event::Quarantined);
    let effects = bench.take();
    let sent_away = effects.iter().find_map(|effect| match effect {
        Effect::Disconnect { session, code, .. } => Some((session.number(), *code)),
        _ => None,
    });
    assert_eq!(sent_away, Some((2, CloseCode::Dishonest)));
    assert_eq!(bench.told(1), ["closed reset"]);
    assert!(kinds(&effects).ends_with(&["load"]));
    bench.feed(Event::Loaded(Box::new(empty())));
    bench.join(1);
    assert_eq!(bench.told(1), ["opened at 0", "part to 0"]);
}

#[test]
fn an_empty_room_makes_a_snapshot_and_closes() {
    let changes = typed(1, 3);
    let mut bench = bench();
    bench.edit(1, 1, &changes);
    bench.store();
    bench.feed(Event::Left {
        session: SessionId::new(1),
    });
    bench.pass(59_999);
    let early = work(&mut bench);
    assert_eq!(early, ["merge"], "after half a minute");
    bench.feed(Event::Merged(merged(&changes)));
    bench.pass(1);
    assert_eq!(work(&mut bench), ["compact"]);
    bench.feed(Event::Compacted(Some(snapshot(1, 3))));
    bench.settle();
    assert_eq!(work(&mut bench), ["close"]);
}

#[test]
fn a_room_merges_before_it_closes_though_merges_rest() {
    let changes = typed(1, 2);
    let mut bench = merged_once(&changes[0], 100);
    bench.edit(1, 2, &changes[1..]);
    bench.store();
    bench.feed(Event::Left {
        session: SessionId::new(1),
    });
    bench.pass(59_999);
    assert!(work(&mut bench).is_empty(), "it rests");
    bench.pass(1);
    assert_eq!(work(&mut bench), ["merge"], "who comes next takes all for merged");
    bench.feed(Event::Merged(merged(&changes)));
    bench.settle();
    assert_eq!(work(&mut bench), ["close"]);
}

#[test]
fn a_document_at_rest_makes_a_snapshot_though_members_stay() {
    let rests = Tuning {
        merge_quiet_ms: 2_000,
        compact_rest_ms: 10_000,
        ..tuning()
    };
    let changes = typed(1, 3);
    let mut bench = Bench::open_with(Limits::default(), rests);
    bench.join(1);
    bench.edit(1, 1, &changes);
    bench.store();
    bench.pass(2_000);
    assert_eq!(work(&mut bench), ["merge"]);
    bench.feed(Event::Merged(merged(&changes)));
    bench.settle();
    assert!(work(&mut bench).is_empty());
    let wakes = bench.room.next_wakeup().map(|at| at.ms_since(bench.now));
    assert_eq!(wakes, Some(8_000), "the room wakes for it by itself");
    bench.pass(8_000);
    assert_eq!(work(&mut bench), ["compact"]);
    bench.feed(Event::Compacted(Some(snapshot(1, 3))));
    bench.pass(1_000_000);
    assert!(work(&mut bench).is_empty(), "once");
}

#[test]
fn a_member_keeps_the_room_open_and_sleeping_rooms_are_not_woken() {
    let mut bench = bench();
    bench.pass(1_000_000);
    assert!(work(&mut bench).is_empty());
    assert_eq!(bench.room.next_wakeup(), None, "nothing is due, so nobody wakes it");
    bench.feed(Event::Left {
        session: SessionId::new(1),
    });
    let wake = bench.room.next_wakeup().expect("it is to close");
    assert_eq!(wake.ms_since(bench.now), 60_000);
}
