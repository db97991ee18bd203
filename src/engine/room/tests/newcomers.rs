//! Peers that come with nothing: they wait for a snapshot when what there is would be much longer, and not for ever.

use super::{
    document, empty, kinds,
    peers::{Mutation, World},
    typed,
};
use crate::engine::{
    document::{Document, Merge},
    gate::{self, Subject},
    room::{Event, Merged, Snapshot},
    time::Time,
};
use syncline_protocol::{Position, repo::RepoMessage};

/// Begins a sync message that holds a whole document, and one that holds changes.
const WHOLE: u8 = 0x43;
const CHANGES: u8 = 0x42;
/// As long as anybody waits for a snapshot.
const WAIT_MS: u64 = 5_000;

/// A room with a log of so many changes and no snapshot, and a peer that asks for all of it.
fn asked(changes: usize) -> World {
    let mut world = World::new(1, Mutation::None);
    world.log = typed(1, changes);
    let mut loaded = empty();
    for change in &world.log {
        let header = gate::read(change.clone(), &world.limits).unwrap();
        let change = gate::decode(header).unwrap();
        loaded.index.admit(&change, &Subject("ada".into()));
        loaded.log_bytes += change.bytes().len() as u64;
    }
    loaded.index.settle(Position::new(changes as u64));
    world.due = [Event::Loaded(Box::new(loaded))].into();
    world.tell_room();
    join(&mut world, 0);
    world
}

fn join(world: &mut World, client: usize) {
    world.connect(client);
    for _ in 0..10 {
        world.deliver_to_server(client);
        world.tell_room();
    }
}

/// How the sync messages begin that a peer was sent, oldest first.
fn heard(world: &World, client: usize) -> Vec<u8> {
    let link = &world.links[&world.clients[client].link.unwrap()];
    let messages = link.to_client.iter().map(|frame| RepoMessage::decode(frame).unwrap());
    let syncs = messages.filter_map(|message| match message {
        RepoMessage::Sync(sync) => {
            assert_eq!(sync.document, document().to_string());
            Some(sync.data[0])
        }
        _ => None,
    });
    syncs.collect()
}

fn work(world: &mut World) -> Vec<&'static str> {
    kinds(&std::mem::take(&mut world.wanted))
}

fn merge(world: &mut World) {
    let Merge::Whole(document) = Document::default().merge(&world.log) else {
        panic!("they merge")
    };
    let position = Position::new(world.log.len() as u64);
    world.tell(Event::Merged(Merged::Whole { document, position }));
}

/// The room hears of a snapshot of the first so many changes, and reads it for two at most.
fn compact(world: &mut World, changes: usize) {
    let log_bytes = world.log[..changes].concat().len() as u64;
    world.tell(Event::Compacted(Some(Snapshot {
        generation: 1,
        position: Position::new(changes as u64),
        bytes: log_bytes / 4,
        log_bytes,
        log_start: Position::new(0),
    })));
    (0..2).for_each(|_| world.tell_room());
}

#[test]
fn a12_who_comes_with_nothing_waits_for_a_snapshot_and_all_who_wait_share_it() {
    let mut world = asked(300);
    assert_eq!(work(&mut world), ["merge"], "the document is not there yet");
    join(&mut world, 1);
    merge(&mut world);
    assert_eq!(work(&mut world), ["compact"], "at once, and once");
    assert!(heard(&world, 0).is_empty() && heard(&world, 1).is_empty());
    compact(&mut world, 300);
    assert_eq!((heard(&world, 0), heard(&world, 1)), (vec![WHOLE], vec![WHOLE]));
    join(&mut world, 2);
    assert_eq!(heard(&world, 2), [WHOLE], "and who comes later does not wait");
}

#[test]
fn a_snapshot_that_leaves_a_long_log_behind_it_is_followed_by_another() {
    let mut world = asked(300);
    merge(&mut world);
    compact(&mut world, 10);
    assert_eq!(work(&mut world), ["merge", "compact", "compact"]);
    assert!(heard(&world, 0).is_empty());
    compact(&mut world, 300);
    assert_eq!(heard(&world, 0), [WHOLE]);
}

/// Snapshots rest ten times as long as the last one took.
#[test]
fn who_comes_while_snapshots_rest_waits_for_the_next_one_if_that_may_come_in_time() {
    for (took_ms, is_near) in [(100, true), (1_000, false)] {
        let mut world = asked(600);
        merge(&mut world);
        assert_eq!(work(&mut world), ["merge", "compact"]);
        world.pass(took_ms);
        compact(&mut world, 10);
        join(&mut world, 1);
        for client in 0..2 {
            assert_eq!(heard(&world, client).is_empty(), is_near, "{client} after {took_ms} ms");
        }
        assert!(!work(&mut world).contains(&"compact"), "it rests");
        world.pass(WAIT_MS.min(10 * took_ms));
        assert_eq!(work(&mut world).contains(&"compact"), is_near, "after {took_ms} ms");
    }
}

#[test]
fn nobody_is_woken_for_a_snapshot_that_nobody_waits_for_any_more() {
    let mut world = asked(300);
    world.disconnect(0);
    world.tell_room();
    world.pass(WAIT_MS);
    let now = Time::from_ms(1_000 + WAIT_MS);
    assert!(world.room.next_wakeup().is_none_or(|at| at > now), "it would spin");
}

#[test]
fn who_waits_for_a_snapshot_that_does_not_come_is_sent_the_log() {
    let mut world = asked(300);
    merge(&mut world);
    world.tell(Event::Compacted(None));
    world.tell_room();
    let all_of = |world: &World, client| {
        let all = heard(world, client);
        assert_eq!(all, [CHANGES], "all in one message");
    };
    all_of(&world, 0);
    join(&mut world, 1);
    all_of(&world, 1);

    let mut world = asked(300);
    world.pass(WAIT_MS - 1);
    assert!(heard(&world, 0).is_empty());
    assert!(world.room.next_wakeup().is_some(), "it wakes by itself");
    world.pass(1);
    world.tell_room();
    all_of(&world, 0);
}

#[test]
fn a_short_log_is_sent_at_once() {
    let mut world = asked(200);
    assert_eq!(work(&mut world), [""; 0]);
    assert_eq!(heard(&world, 0), [CHANGES]);
}
