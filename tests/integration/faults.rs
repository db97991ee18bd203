//! What happens after faults that no client can bring about; the server's failpoints do.

use crate::{
    peer::{Peer, counted},
    repo::peer::{Peer as RepoPeer, Replica},
    running::TestServer,
};
use automerge::Automerge;
use bytes::Bytes;
use std::{io::Write, net::TcpStream, thread::sleep, time::Duration};
use syncline::server::{
    clock::Clock,
    failpoints,
    post::PARKED_BYTES_MAX,
    room::inbox::{INBOX_BYTES_MAX, INBOX_MAX},
};
use syncline_protocol::{
    ChangeHash, DocumentId, EditId,
    native::{ClientMessage, ClosedCode, Edit, ServerMessage},
};

/// As many unmerged changes make a merge due.
const MERGED_CHANGES: u32 = 5_000;

fn hash(document: &Automerge) -> ChangeHash {
    ChangeHash(document.get_heads()[0].0)
}

#[test]
fn r1_r2_r3_r5_e22_a_change_that_does_not_merge_leaves_its_document_and_nothing_else() {
    let server = TestServer::start("");
    let [mut anna, mut ben, mut carl] = [(); 3].map(|()| Peer::connect(server.address, None));
    let before = ben.open("reset/notes", None);
    let (room, others) = (before.opened.room, ben.open("reset/others", None).opened.room);
    anna.open("reset/notes", None);
    carl.open("reset/others", None);
    let (culprit, bad) = counted(201, 1);
    failpoints::spoil(hash(&culprit));
    // Made before, or the bad change is merged alone: two seconds after the last edit.
    let (good, changes) = counted(202, MERGED_CHANGES);

    anna.edit(room, 1, bad.clone());
    anna.hear_answer(1).expect("the gate lets it in");
    ben.edit(room, 1, changes);
    let reset = loop {
        match ben
            .hear()
            .expect("the connection of a member that is not to blame goes on")
        {
            ServerMessage::Closed { room, code, .. } => break (room, code),
            ServerMessage::Diff(_) | ServerMessage::Ack { .. } | ServerMessage::Part(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reset, (Some(room), ClosedCode::Reset));
    assert_eq!(anna.hear_end().code, Some(4409), "who sent it");

    let (_, change) = counted(203, 1);
    carl.edit(others, 1, change.clone());
    carl.hear_answer(1).expect("other rooms go on");
    assert_eq!(ben.hear_diff().runs[0].changes, change);

    let after = ben.open("reset/notes", None);
    assert_ne!(after.cursor.epoch, before.cursor.epoch, "a new epoch");
    assert_eq!(after.document().get_heads(), good.get_heads(), "without the bad change");
    ben.edit(after.opened.room, 2, bad);
    assert_eq!(ben.hear_answer(2), Err("quarantined".into()));
    let metrics = server.get("/metrics");
    for counted in [
        "merges_failed_total{reason=\"BadChange\"} 1",
        "sessions_closed_total{code=\"4409\"} 1",
        "documents_closed_total{code=\"reset\"} 1",
        "resets_total 1",
    ] {
        assert!(metrics.contains(counted), "{counted} in {metrics}");
    }
}

#[test]
fn a23_peers_go_on_after_a_reset_and_new_ones_are_not_sent_what_was_thrown_out() {
    let server = TestServer::start("");
    let [mut anna, mut ben] = [(); 2].map(|()| Peer::connect(server.address, None));
    let mut ada = RepoPeer::join(server.address, "ada", "");
    let mut hers = Replica::new("reset/peers");
    hers.put(1, "ada", 1);
    ada.sync(&mut hers);
    let room = ben.open("reset/peers", None).opened.room;
    anna.open("reset/peers", None);

    let (culprit, bad) = counted(206, 1);
    failpoints::spoil(hash(&culprit));
    let (_, changes) = counted(207, MERGED_CHANGES);
    anna.edit(room, 1, bad);
    anna.hear_answer(1).expect("the gate lets it in");
    ben.edit(room, 1, changes);
    assert_eq!(anna.hear_end().code, Some(4409), "who sent it");

    let mut late = Peer::connect(server.address, None);
    let room = late.open("reset/peers", None).opened.room;
    late.edit(room, 1, counted(208, 1).1);
    late.hear_answer(1).expect("the room goes on");
    ada.sync_until(&mut hers, |hers| hers.has("208-0"));
    let mut bob = RepoPeer::join(server.address, "bob", "");
    let mut his = Replica::new("reset/peers");
    bob.sync_until(&mut his, |his| his.has("208-0"));
    assert!(his.has("ada") && his.has("207-0") && !his.has("206-0"));
}

#[test]
fn l9_a_room_that_does_not_keep_up_holds_up_no_other_room_of_the_connection() {
    let server = TestServer::start("[limits]\nedits_per_second = 100000\nedits_burst = 100000\n");
    let document: DocumentId = "held/notes".parse().expect("a document id");
    let mut anna = Peer::connect(server.address, None);
    let held = anna.open("held/notes", None).opened.room;
    let free = anna.open("held/others", None).opened.room;
    failpoints::hold(&document);
    // The room looks up once more, and is held; whether it has answered by then does not matter.
    anna.edit(held, 0, Vec::new());
    while !failpoints::stands(&document) {
        std::thread::sleep(Duration::from_millis(5));
    }

    // More than its inbox takes, and fewer than the connection parks.
    let last = INBOX_MAX as u64 + 40;
    (1..=last).for_each(|edit| anna.edit(held, edit, Vec::new()));
    let (_, change): (_, Vec<Bytes>) = counted(204, 1);
    anna.edit(free, 1 << 20, change);
    anna.hear_answer(1 << 20).expect("the other room goes on");
    failpoints::release(&document);
    for edit in 1..=last {
        anna.hear_answer(edit).expect("in order, and none is lost");
    }
}

/// How long the server may read nothing before it has read all that it wants.
const SETTLED_MS: u64 = 1_000;

#[test]
fn what_waits_for_a_room_is_bounded_in_bytes() {
    const FRAMES: usize = 12;
    const FRAME_BYTES: usize = 1_000_000;
    let server = TestServer::start("[limits]\nedits_per_second = 100000\nedits_burst = 100000\n");
    let document: DocumentId = "held/large".parse().expect("a document id");
    let connect = || {
        let stream = TcpStream::connect(server.address).expect("a connection");
        let raw = stream.try_clone().expect("another handle");
        let mut peer = Peer::on(stream, server.address);
        peer.hello(None, Vec::new());
        peer.hear_welcome();
        let room = peer.open("held/large", None).opened.room;
        (peer, raw, room)
    };
    let mut senders = [(); 4].map(|()| connect());
    failpoints::hold(&document);
    let room = senders[0].2;
    senders[0].0.edit(room, 0, Vec::new());
    while !failpoints::stands(&document) {
        sleep(Duration::from_millis(5));
    }
    for (_, raw, _) in &senders {
        let mut raw = raw.try_clone().expect("another handle");
        crate::running::thread(move || {
            for id in 1..=FRAMES as u64 {
                // It stops being read, and ends with the test.
                let _ = raw.write_all(&masked_edit(room, id, FRAME_BYTES));
            }
        });
    }
    let read = || counter(&server, "syncline_bytes_in_total");
    let (begun, mut last, mut since_ms) = (Clock::start(), 0.0, 0);
    while last == 0.0 || begun.monotonic_ms() < since_ms + SETTLED_MS {
        sleep(Duration::from_millis(50));
        let now = read();
        if now > last {
            (last, since_ms) = (now, begun.monotonic_ms());
        }
    }
    // What a connection parks may be exceeded by the last frame.
    let bound = INBOX_BYTES_MAX + senders.len() * (PARKED_BYTES_MAX + FRAME_BYTES) + FRAME_BYTES;
    assert!(
        last <= bound as f64,
        "{last} bytes were read for a room that takes none, {bound} may be"
    );
    assert!(
        last > INBOX_BYTES_MAX as f64,
        "{last} bytes: the senders were not read from"
    );
    failpoints::release(&document);
}

/// An edit with one change of so many zeros, as a WebSocket frame.
fn masked_edit(room: syncline_protocol::RoomNumber, id: u64, bytes: usize) -> Vec<u8> {
    let edit = ClientMessage::Edit(Edit {
        room,
        id: EditId::new(id),
        changes: vec![vec![0; bytes].into()],
    });
    let message = edit.encode();
    // A whole binary message of a length of eight bytes, under a mask of zeros.
    let mut frame = vec![0x82, 0xff];
    frame.extend((message.len() as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(&message[..]);
    frame
}

fn counter(server: &TestServer, name: &str) -> f64 {
    let metrics = server.get("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}
