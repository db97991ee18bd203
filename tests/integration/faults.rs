//! What happens after faults that no client can bring about; the server's failpoints do.

use crate::{
    peer::{Peer, counted},
    repo::peer::{Peer as RepoPeer, Replica},
    running::{TestServer, counter},
};
use bytes::Bytes;
use std::{io::Write, net::TcpStream, thread::sleep, time::Duration};
use syncline::server::{
    clock::Clock,
    failpoints::Switch,
    post::PARKED_BYTES_MAX,
    room::inbox::{INBOX_BYTES_MAX, INBOX_MAX},
};
use syncline_protocol::{
    ChangeHash, EditId, RoomNumber,
    native::{ClientMessage, ClosedCode, Edit, Open, ServerMessage},
};

/// As many unmerged changes make a merge due.
const MERGED_CHANGES: u32 = 5_000;

#[test]
fn r1_r2_r3_r5_e22_a_change_that_does_not_merge_leaves_its_document_and_nothing_else() {
    let server = TestServer::start("");
    let [mut anna, mut ben, mut carl] = [(); 3].map(|()| Peer::connect(server.address, None));
    let before = ben.open("reset/notes", None);
    let (room, others) = (before.opened.room, ben.open("reset/others", None).opened.room);
    anna.open("reset/notes", None);
    carl.open("reset/others", None);
    let (_, bad) = counted(201, 1);
    Switch::ThrowOut.order(&bad[0]);
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

    let (_, bad) = counted(206, 1);
    Switch::ThrowOut.order(&bad[0]);
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
    const DOCUMENT: &[u8] = b"held/notes";
    let mut anna = Peer::connect(server.address, None);
    let held = anna.open("held/notes", None).opened.room;
    let free = anna.open("held/others", None).opened.room;
    Switch::HoldRoom.order(DOCUMENT);
    // The room looks up once more, and is held; whether it has answered by then does not matter.
    anna.edit(held, 0, Vec::new());
    while !Switch::HoldRoom.has_struck(DOCUMENT) {
        std::thread::sleep(Duration::from_millis(5));
    }

    // More than its inbox takes, and fewer than the connection parks.
    let last = INBOX_MAX as u64 + 40;
    (1..=last).for_each(|edit| anna.edit(held, edit, Vec::new()));
    let (_, change): (_, Vec<Bytes>) = counted(204, 1);
    anna.edit(free, 1 << 20, change);
    anna.hear_answer(1 << 20).expect("the other room goes on");
    Switch::HoldRoom.withdraw(DOCUMENT);
    for edit in 1..=last {
        anna.hear_answer(edit).expect("in order, and none is lost");
    }
}

/// How long the server may read nothing before it has read all that it wants: once it has read as much as a room may hold, and before.
const SETTLED_MS: u64 = 1_000;
const STALLED_MS: u64 = 60_000;

/// What the senders below send in all, each.
const SENT_BYTES: usize = 12_000_000;

#[test]
fn what_waits_for_a_room_is_bounded_in_bytes() {
    waits_within_bounds("held/large", 1_000_000, |room, id, bytes| {
        ClientMessage::Edit(Edit {
            room,
            id: EditId::new(id),
            changes: vec![vec![0; bytes].into()],
        })
    });
}

#[test]
fn joins_that_wait_for_a_room_are_bounded_in_bytes() {
    waits_within_bounds("held/joins", 32_000, |_, _, bytes| {
        ClientMessage::Open(Open {
            document: "held/joins".parse().expect("a document id"),
            cursor: None,
            heads: vec![ChangeHash([7; 32]); bytes / size_of::<ChangeHash>()],
        })
    });
}

/// Four members send messages of `frame_bytes` to a room that is held: the server reads no more than may wait for it.
fn waits_within_bounds(document: &str, frame_bytes: usize, message: fn(RoomNumber, u64, usize) -> ClientMessage) {
    let server = TestServer::start("[limits]\nedits_per_second = 100000\nedits_burst = 100000\n");
    let connect = || {
        let stream = TcpStream::connect(server.address).expect("a connection");
        let raw = stream.try_clone().expect("another handle");
        let mut peer = Peer::on(stream, server.address);
        peer.hello(None, Vec::new());
        peer.hear_welcome();
        let room = peer.open(document, None).opened.room;
        (peer, raw, room)
    };
    let mut senders = [(); 4].map(|()| connect());
    let mark = document.as_bytes();
    Switch::HoldRoom.order(mark);
    let room = senders[0].2;
    senders[0].0.edit(room, 0, Vec::new());
    while !Switch::HoldRoom.has_struck(mark) {
        sleep(Duration::from_millis(5));
    }
    for (_, raw, _) in &senders {
        let mut raw = raw.try_clone().expect("another handle");
        crate::running::thread(move || {
            for id in 1..=SENT_BYTES / frame_bytes {
                // It stops being read, and ends with the test.
                let _ = raw.write_all(&masked(&message(room, id as u64, frame_bytes)));
            }
        });
    }
    let read = || counter(&server, "syncline_bytes_in_total");
    let (begun, mut last, mut since_ms) = (Clock::start(), 0.0, 0);
    loop {
        sleep(Duration::from_millis(50));
        let now = read();
        if now > last {
            (last, since_ms) = (now, begun.monotonic_ms());
        }
        let quiet_ms = begun.monotonic_ms() - since_ms;
        if last > INBOX_BYTES_MAX as f64 && quiet_ms >= SETTLED_MS {
            break;
        }
        assert!(quiet_ms < STALLED_MS, "{last} bytes: the senders are not read from");
    }
    // What a connection parks may be exceeded by the last frame.
    let frame_bytes = masked(&message(room, 1, frame_bytes)).len();
    let mut bound = INBOX_BYTES_MAX + senders.len() * (PARKED_BYTES_MAX + frame_bytes) + frame_bytes;
    // A message is a little longer than what is kept of it.
    bound += bound / 10;
    assert!(
        last <= bound as f64,
        "{last} bytes were read for a room that takes none, {bound} may be"
    );
    Switch::HoldRoom.withdraw(mark);
}

/// The message as a WebSocket frame.
fn masked(message: &ClientMessage) -> Vec<u8> {
    let message = message.encode();
    // A whole binary message of a length of eight bytes, under a mask of zeros.
    let mut frame = vec![0x82, 0xff];
    frame.extend((message.len() as u64).to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(&message[..]);
    frame
}
