//! Edits over real sockets: to the disk, to everyone, and back.

use crate::{
    peer::{Peer, counted, may_write},
    running::TestServer,
};
use bytes::Bytes;
use std::sync::Arc;
use syncline::{
    engine::{
        grant::Grant,
        session::{self, Session},
        time::Time,
    },
    server::{failpoints::Switch, outbox::Outbox, post::Post},
};
use syncline_protocol::{
    Limits, SessionId,
    native::{Base, ClientMessage, Hello, Open, ServerMessage},
};

/// A document whose room rests between its batches, since it has so many members.
const CROWDED: &str = "crowded";
const MANY: u64 = 300;

#[test]
fn e1_an_edit_is_acknowledged_and_reaches_the_others() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let mut ben = Peer::connect(server.address, None);
    let empty = anna.open("notes", None);
    assert!(may_write(&empty) && empty.bytes.is_empty());
    let room = ben.open("notes", None).opened.room;
    let (_, changes) = counted(1, 3);
    anna.edit(empty.opened.room, 1, changes.clone());
    let cursor = anna.hear_answer(1).expect("an honest edit is acknowledged");
    assert_eq!(cursor.position.number(), 3);
    let diff = ben.hear_diff();
    assert_eq!((diff.room, diff.cursor), (room, cursor));
    assert_eq!(diff.runs.len(), 1);
    assert_eq!((diff.runs[0].session, &diff.runs[0].changes), (anna.session, &changes));
    assert!(server.shutdown());
}

#[test]
fn e3_a_repeated_edit_is_acknowledged_and_shown_once() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let (_, changes) = counted(1, 2);
    anna.edit(room, 1, changes.clone());
    anna.edit(room, 2, changes);
    let first = anna.hear_answer(1).expect("acknowledged");
    let second = anna.hear_answer(2).expect("acknowledged again");
    assert_eq!((first.position.number(), second.position.number()), (2, 2));
}

#[test]
fn o5_a_joiner_gets_the_document_and_a_returning_client_what_it_missed() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let (document, changes) = counted(1, 300);
    anna.edit(room, 1, changes[..200].to_vec());
    let cursor = anna.hear_answer(1).expect("acknowledged");
    anna.edit(room, 2, changes[200..].to_vec());
    anna.hear_answer(2).expect("acknowledged");

    let mut fresh = Peer::connect(server.address, None);
    let whole = fresh.open("notes", None);
    assert_eq!(whole.opened.base, Base::Nothing);
    assert_eq!(whole.document().get_heads(), document.get_heads());

    let mut returning = Peer::connect(server.address, None);
    let missed = returning.open("notes", Some(cursor));
    assert_eq!(missed.opened.base, Base::Replica);
    assert!(missed.bytes.len() < whole.bytes.len() / 2, "only what was missed");
    let mut replica = automerge::Automerge::new();
    replica
        .load_incremental(&changes[..200].concat())
        .expect("the former state");
    replica.load_incremental(&missed.bytes).expect("what was missed");
    assert_eq!(replica.get_heads(), document.get_heads());
}

#[test]
fn o13_parts_may_hold_what_the_client_has_and_automerge_ignores_it() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let joined = anna.open("notes", None);
    let (mut replica, changes) = counted(1, 3);
    anna.edit(joined.opened.room, 1, changes.clone());
    anna.hear_answer(1).expect("acknowledged");
    let again = anna.open("notes", Some(joined.cursor));
    let own: usize = changes.iter().map(Bytes::len).sum();
    assert_eq!(again.bytes.len(), own, "the parts hold its own changes");
    let heads = replica.get_heads();
    replica.load_incremental(&again.bytes).expect("whole chunks");
    assert_eq!((replica.get_heads(), replica.get_changes(&[]).len()), (heads, 3));
}

#[test]
fn e25_edits_may_stand_on_unanswered_ones_but_not_on_both_sides_of_them() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let (_, ordered) = counted(1, 50);
    for (edit, change) in ordered.iter().enumerate() {
        anna.edit(room, edit as u64, vec![change.clone()]);
    }
    for edit in 0..50 {
        anna.hear_answer(edit).expect("sent without waiting, in order");
    }

    let (_, changes) = counted(2, 3);
    let [first, second, third] = &changes[..] else {
        panic!("three changes")
    };
    anna.edit(room, 101, vec![second.clone()]);
    anna.edit(room, 102, vec![first.clone(), third.clone()]);
    let heard = anna.hear_all(room);
    let answered = heard
        .iter()
        .any(|message| matches!(message, ServerMessage::Ack { .. } | ServerMessage::Reject { .. }));
    assert!(!answered, "each waits for the other: {heard:?}");
    anna.edit(room, 103, changes.clone());
    let mut open: Vec<u64> = vec![101, 102, 103];
    while !open.is_empty() {
        match anna.hear().expect("all are answered now") {
            ServerMessage::Ack { id, .. } => open.retain(|edit| *edit != id.number()),
            ServerMessage::Diff(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Behind a batch for so many the next one gathers for a moment, in which the server stops.
#[test]
fn c9_edits_that_gather_are_stored_and_answered_when_the_server_stops() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open(CROWDED, None).opened.room;
    let others: Vec<Post> = (1..=MANY).map(|number| join_unheard(number, &server)).collect();
    anna.hear_all(room);
    let moment = std::time::Duration::from_millis(100);
    // So that the room waits for mail, and takes the first edit before it is held.
    std::thread::sleep(moment);
    let (_, changes) = counted(1, 2);
    let read = &server.server().metrics.frames_in;
    Switch::HoldRoom.order(CROWDED.as_bytes());
    for (edit, change) in changes.iter().enumerate() {
        let before = read.get();
        anna.edit(room, edit as u64, vec![change.clone()]);
        // The first one is being stored, the second one is in the inbox.
        while read.get() == before || !Switch::HoldRoom.has_struck(CROWDED.as_bytes()) {
            std::thread::yield_now();
        }
    }
    let stopped = std::thread::Builder::new().spawn(|| server.shutdown());
    // So that the room is told of it before it goes on.
    std::thread::sleep(moment);
    Switch::HoldRoom.withdraw(CROWDED.as_bytes());
    for edit in 0..changes.len() as u64 {
        assert!(anna.hear_answer(edit).is_ok(), "edit {edit}");
    }
    drop((anna, others));
    assert!(stopped.expect("a thread").join().expect("it stops"));
}

/// A member of the crowded room without a connection: sending to it takes no time.
fn join_unheard(number: u64, server: &TestServer) -> Post {
    let (id, now, document) = (SessionId::new(number), Time::default(), CROWDED.parse().expect("an id"));
    let mut session = Session::new(id, Arc::new(Limits::default()), now);
    let hello = Hello {
        version: 1,
        token: None,
        client: String::new(),
        capabilities: Vec::new(),
    };
    let open = Open {
        document: CROWDED.parse().expect("an id"),
        cursor: None,
        heads: Vec::new(),
    };
    let grant = Grant::development();
    let mut out = Vec::new();
    for event in [
        session::Event::Received(ClientMessage::Hello(hello).encode()),
        session::Event::Admitted { grant, expires: None },
        session::Event::Received(ClientMessage::Open(open).encode()),
    ] {
        session.handle(now, event, &mut out);
    }
    let mut post = Post::new(id);
    for effect in out {
        if let session::Effect::Join { join, .. } = effect {
            let outbox = Arc::new(Outbox::new(id, 1 << 20, 1 << 20));
            let joined = post.join(&server.server().hub, &document, &join, &outbox);
            joined.expect("the room is open");
        }
    }
    post
}
