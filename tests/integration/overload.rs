//! When memory is used up: who is in goes on, who comes is told when to come back.

use crate::{
    peer::{Ended, Peer, counted},
    running::{THREADS, TestServer, counter},
};
use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};
use bytes::Bytes;
use std::{thread::sleep, time::Duration};
use syncline::{
    engine::room::ROOM_BYTES,
    server::{clock::Clock, failpoints::Switch},
};
use syncline_protocol::native::{ClientMessage, ClosedCode, ServerMessage};

const BUDGET: &str = "[rooms]\nmemory_bytes_max = 16777216\n";

/// What fits into it while an eighth is kept.
const ROOMS_MAX: usize = (14_usize << 20).div_ceil(ROOM_BYTES);

/// In which a room without members is gone: a hundred times what is configured, and its merge.
const CLOSED_MS: u64 = 60_000;

/// One change with so many operations.
fn wide_change(keys: usize) -> Bytes {
    let mut document = Automerge::new().with_actor(ActorId::from([1]));
    let mut transaction = document.transaction();
    for key in 0..keys {
        let key = format!("a key with a name of some length, {key}");
        transaction.put(ROOT, key, 1).expect("a put");
    }
    transaction.commit();
    Bytes::copy_from_slice(document.get_changes(&[])[0].raw_bytes())
}

fn answer_to_open(peer: &mut Peer, document: &str) -> Option<ClosedCode> {
    peer.ask(document, None);
    loop {
        match peer.hear().expect("the connection stays") {
            ServerMessage::Closed { code, .. } => break Some(code),
            ServerMessage::Opened(_) => break None,
            _ => {}
        }
    }
}

#[test]
fn l7_o24_without_memory_members_go_on_and_who_comes_is_told_to_come_back() {
    let server = TestServer::start(BUDGET);
    let mut anna = Peer::connect(server.address, None);
    let mut ben = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let mut held = server.server().hub.memory().take(14 << 20);

    assert_eq!(answer_to_open(&mut anna, "others"), Some(ClosedCode::Unavailable));
    assert_eq!(answer_to_open(&mut ben, "notes"), None, "it is open already");
    anna.edit(room, 1, counted(1, 1).1);
    anna.hear_answer(1).expect("members go on");
    let mut carl = Peer::silent(server.address);
    carl.hello(None, Vec::new());
    match carl.hear() {
        Ok(ServerMessage::Retry { after_ms }) => assert!((2_000..6_000).contains(&after_ms), "{after_ms}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(carl.hear_end(), Ended { code: Some(1013) });
    let metrics = server.get("/metrics");
    assert!(metrics.contains("refused_total{reason=\"Overloaded\"} 1"), "{metrics}");

    held.set(16 << 20);
    anna.edit(room, 2, counted(2, 1).1);
    assert_eq!(
        anna.hear_answer(2),
        Err("unavailable".into()),
        "the last eighth is gone, too"
    );

    drop(held);
    anna.edit(room, 3, counted(2, 1).1);
    anna.hear_answer(3).expect("nothing was wrong with it");
    assert_eq!(answer_to_open(&mut anna, "others"), None, "there is space again");
    Peer::connect(server.address, None);
}

#[test]
fn l7_rooms_count_from_the_moment_they_are_opened_in() {
    const PREFIX: &[u8] = b"burst/";
    const SESSIONS: usize = 30;
    const EACH: usize = 64;
    let server = TestServer::start(BUDGET);
    let hub = &server.server().hub;
    let mut peers = [(); SESSIONS].map(|()| Peer::connect(server.address, None));
    // So that none of them loads, and says how large it is.
    Switch::HoldRoom.order(PREFIX);
    for (who, peer) in peers.iter_mut().enumerate() {
        (0..EACH).for_each(|number| peer.ask(&format!("burst/{who}/{number}"), None));
    }
    let put_off = || counter(&server, "syncline_documents_closed_total{code=\"unavailable\"}") as usize;
    let begun = Clock::start();
    while hub.rooms() + put_off() < SESSIONS * EACH {
        assert!(
            begun.monotonic_ms() < CLOSED_MS,
            "{} rooms, {} put off",
            hub.rooms(),
            put_off()
        );
        sleep(Duration::from_millis(20));
    }
    let rooms = hub.rooms();
    // Each of the server's threads may have looked before another's last room was counted.
    let rooms_max = ROOMS_MAX + THREADS;
    assert!(rooms <= rooms_max, "{rooms} rooms are open, {rooms_max} may be");
    assert!(rooms > ROOMS_MAX / 2, "only {rooms} rooms are open");
    Switch::HoldRoom.withdraw(PREFIX);
    for peer in &mut peers {
        let is_answer =
            |message: &ServerMessage| matches!(message, ServerMessage::Opened(_) | ServerMessage::Closed { .. });
        let mut answers = 0;
        while answers < EACH {
            answers += usize::from(is_answer(&peer.hear().expect("the connection stays")));
        }
    }
}

#[test]
fn memory_is_added_up_as_it_grows() {
    let server = TestServer::start(BUDGET);
    let memory = server.server().hub.memory();
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let before = memory.held();
    anna.edit(room, 1, vec![wide_change(4_000)]);
    anna.hear_answer(1).expect("acknowledged");
    let grown = memory.held() - before;
    assert!(grown > 100_000, "not only once a second: {grown} bytes");
}

#[test]
fn what_would_not_fit_is_not_loaded() {
    let server = TestServer::start("[rooms]\nmemory_bytes_max = 16777216\nidle_timeout_ms = 50\n");
    let memory = server.server().hub.memory();
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    anna.edit(room, 1, vec![wide_change(4_000)]);
    anna.hear_answer(1).expect("acknowledged");
    anna.say(&ClientMessage::Leave { room });
    let begun = Clock::start();
    while memory.held() > 0 {
        assert!(begun.monotonic_ms() < CLOSED_MS, "the room closes");
        sleep(Duration::from_millis(20));
    }
    // Not scarce: a small document opens, this one does not.
    let held = memory.take((14 << 20) - 100_000);
    assert_eq!(answer_to_open(&mut anna, "others"), None);
    assert_eq!(answer_to_open(&mut anna, "notes"), Some(ClosedCode::Unavailable));
    drop(held);
    // The room that could not open it may still be ending.
    let begun = Clock::start();
    while answer_to_open(&mut anna, "notes").is_some() {
        assert!(begun.monotonic_ms() < CLOSED_MS, "there is space again");
        sleep(Duration::from_millis(20));
    }
}
