//! A hostile client hurts only itself: every attack has its own answer, costs little, and the others go on.

use crate::{
    peer::{Peer, counted},
    running::TestServer,
};
use bytes::Bytes;
use syncline::server::clock::Clock;
use syncline_protocol::{
    RoomNumber,
    native::{ClientMessage, ServerMessage},
};

/// What an attack may take to be answered: five times what is expected.
const ANSWER_MAX_MS: u64 = 5_000;

/// The honest members beside an attacker: an edit of one reaches the other.
struct Witnesses {
    anna: Peer,
    ben: Peer,
    room: RoomNumber,
    changes: std::vec::IntoIter<Bytes>,
    edits: u64,
}

impl Witnesses {
    fn in_document(server: &TestServer, document: &str) -> Self {
        let mut anna = Peer::connect(server.address, None);
        let mut ben = Peer::connect(server.address, None);
        let room = anna.open(document, None).opened.room;
        ben.open(document, None);
        let (_, changes) = counted(7, 200);
        Self {
            anna,
            ben,
            room,
            changes: changes.into_iter(),
            edits: 0,
        }
    }

    fn are_unhurt(&mut self, after: &str) {
        self.edits += 1;
        let change = self.changes.next().expect("enough changes");
        self.anna.edit(self.room, self.edits, vec![change.clone()]);
        self.anna
            .hear_answer(self.edits)
            .unwrap_or_else(|code| panic!("after {after}: {code}"));
        assert_eq!(self.ben.hear_diff().runs[0].changes, [change], "after {after}");
    }
}

#[test]
fn c2_malformed_frames_close_their_own_connection_alone() {
    let server = TestServer::start("");
    let mut witnesses = Witnesses::in_document(&server, "notes");
    let frames: [(&str, &[u8]); 6] = [
        ("nothing", b""),
        ("no array", b"\x01"),
        ("an unknown message", b"\x91\x7f"),
        ("an array of 4 GiB", b"\xdd\xff\xff\xff\xff"),
        ("a text of 4 GiB", b"\x92\x02\xdb\xff\xff\xff\xff"),
        ("an edit without its fields", b"\x91\x04"),
    ];
    for (name, frame) in frames {
        let mut attacker = Peer::connect(server.address, None);
        let begun = Clock::start();
        attacker.say_bytes(Bytes::from_static(frame));
        attacker.hear_refusal(4400);
        assert!(begun.monotonic_ms() < ANSWER_MAX_MS, "{name}");
        witnesses.are_unhurt(name);
    }
}

#[test]
fn h2_the_first_message_is_hello() {
    let server = TestServer::start("");
    let mut peer = Peer::silent(server.address);
    peer.say(&ClientMessage::Leave {
        room: RoomNumber::new(1),
    });
    assert_eq!(peer.hear_end().code, Some(4400));
}

#[test]
fn c2_l3_a_message_over_the_limit_is_told_so_and_closes_the_connection() {
    let server = TestServer::start("[limits]\nframe_bytes_max = 4096\n");
    let mut peer = Peer::connect(server.address, None);
    peer.say_bytes(Bytes::from(vec![0xc4; 5_000]));
    let text = peer.hear_refusal(4400);
    assert!(text.contains("larger than the limit"), "{text}");
    let metrics = server.get("/metrics");
    assert!(
        metrics.contains("connections_given_up_total{reason=\"TooLarge\"} 1"),
        "{metrics}"
    );
}

#[test]
fn m12_what_breaks_websocket_itself_is_answered_with_its_own_code() {
    let server = TestServer::start("");
    let mut witnesses = Witnesses::in_document(&server, "notes");
    // Each frame with a mask of zeros, but for the one that has none.
    let long_ping = [&[0x89, 0xfe, 0, 126][..], &[0; 4 + 126]].concat();
    let frames: [(&str, &[u8], u16); 9] = [
        ("a reserved bit", b"\xc2\x80\0\0\0\0", 1002),
        ("a reserved opcode", b"\x83\x80\0\0\0\0", 1002),
        ("no mask", b"\x82\x01\0", 1002),
        ("a ping in two frames", b"\x09\x80\0\0\0\0", 1002),
        ("a long ping", &long_ping, 1002),
        ("the end of a message that has not begun", b"\x80\x80\0\0\0\0", 1002),
        ("half of a close code", b"\x88\x81\0\0\0\0\x03", 1002),
        ("a text that is no UTF-8", b"\x81\x81\0\0\0\0\xff", 1007),
        ("a reason that is no UTF-8", b"\x88\x83\0\0\0\0\x03\xe8\xff", 1007),
    ];
    for (name, frame, code) in frames {
        let mut attacker = Peer::connect(server.address, None);
        attacker.say_raw(frame);
        let text = attacker.hear_refusal(code);
        assert!(!text.is_empty(), "{name}");
        witnesses.are_unhurt(name);
    }
    let metrics = server.get("/metrics");
    for counted in ["reason=\"BrokenFrame\"} 7", "reason=\"NotUtf8\"} 2"] {
        let line = format!("connections_given_up_total{{{counted}");
        assert!(metrics.contains(&line), "no {line} in {metrics}");
    }
}

#[test]
fn e23_changes_that_cannot_be_honest_are_refused_and_nobody_sees_them() {
    let server = TestServer::start("");
    let mut witnesses = Witnesses::in_document(&server, "notes");
    let (_, changes) = counted(1, 3);
    let mut wrong_checksum = changes[0].to_vec();
    wrong_checksum[5] ^= 1;
    let mut a_document = changes[0].to_vec();
    a_document[8] = 0;
    let attacks: [(&str, Bytes); 5] = [
        ("a wrong checksum", wrong_checksum.into()),
        ("a document chunk", a_document.into()),
        ("no chunk at all", Bytes::from_static(b"hello")),
        ("an empty change", Bytes::new()),
        ("a bomb of a deflated chunk", deflate_bomb()),
    ];
    for (name, change) in attacks {
        let mut attacker = Peer::connect(server.address, None);
        let room = attacker.open("notes", None).opened.room;
        let begun = Clock::start();
        attacker.edit(room, 1, vec![change]);
        match attacker.hear() {
            Ok(ServerMessage::Reject { .. }) => {}
            _ => assert_eq!(attacker.hear_end().code, Some(4409), "{name}"),
        }
        assert!(begun.monotonic_ms() < ANSWER_MAX_MS, "{name}");
        witnesses.are_unhurt(name);
    }
}

#[test]
fn e14_e15_an_actor_conflict_is_a_reject_and_what_stands_on_it_too() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let (_, changes) = counted(1, 1);
    anna.edit(room, 1, changes);
    anna.hear_answer(1).expect("the first is taken");
    let mut other = automerge::Automerge::new().with_actor(automerge::ActorId::from([1]));
    for text in ["x", "y"] {
        let mut transaction = other.transaction();
        automerge::transaction::Transactable::put(&mut transaction, automerge::ROOT, "other", text).expect("a put");
        transaction.commit();
    }
    for (edit, change) in other.get_changes(&[]).iter().enumerate() {
        anna.edit(room, 10 + edit as u64, vec![Bytes::copy_from_slice(change.raw_bytes())]);
    }
    assert_eq!(anna.hear_answer(10), Err("actor_conflict".into()));
    assert_eq!(anna.hear_answer(11), Err("after_reject".into()));
}

#[test]
fn e18_what_waits_counts_in_all_rooms_of_a_session() {
    let server = TestServer::start("[limits]\nwaiting_changes_max = 4\n");
    let mut anna = Peer::connect(server.address, None);
    let (_, changes) = counted(1, 6);
    let (one, other) = (anna.open("one", None).opened.room, anna.open("other", None).opened.room);
    anna.edit(one, 1, changes[1..4].to_vec());
    assert!(anna.hear_all(one).is_empty(), "they wait before any in the other room");
    anna.edit(other, 2, changes[1..3].to_vec());
    assert_eq!(
        anna.hear_answer(2),
        Err("missing_deps".into()),
        "three wait in the other room"
    );
    anna.edit(other, 3, changes[1..2].to_vec());
    anna.edit(one, 4, changes[..1].to_vec());
    anna.hear_answer(1).expect("what it waited for came");
    anna.edit(other, 5, changes[2..5].to_vec());
    anna.edit(other, 6, changes[..1].to_vec());
    anna.hear_answer(5)
        .expect("there is space again, and what it waited for came");
}

#[test]
fn e21_who_sends_bombs_again_and_again_is_closed() {
    let server = TestServer::start("");
    let mut attacker = Peer::connect(server.address, None);
    let room = attacker.open("notes", None).opened.room;
    let bomb = deflate_bomb();
    for edit in 0..17 {
        attacker.edit(room, edit, vec![bomb.clone()]);
    }
    for edit in 0..16 {
        assert_eq!(attacker.hear_answer(edit), Err("limit".into()), "the {edit}th");
    }
    attacker.hear_refusal(4409);
}

/// A deflated change chunk of a few kilobytes that inflates to 16 MiB.
fn deflate_bomb() -> Bytes {
    use std::io::Write;
    let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflater.write_all(&vec![0; 16 << 20]).expect("into memory");
    let body = deflater.finish().expect("into memory");
    let mut chunk = vec![0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 2];
    let mut length = body.len();
    while length >= 0x80 {
        chunk.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    chunk.push(length as u8);
    chunk.extend(body);
    chunk.into()
}
