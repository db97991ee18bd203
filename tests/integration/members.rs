//! What the members of a room may rely on, rule by rule, over real sockets.

use crate::{
    peer::{Peer, counted},
    running::{TestServer, native},
};
use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};
use bytes::Bytes;
use std::{thread::sleep, time::Duration};
use syncline::server::clock::Clock;
use syncline_protocol::{
    ChangeHash, RoomNumber,
    native::{Base, Capability, ClientMessage, ClosedCode, Open, Packing, ServerMessage, WelcomeLimits},
};

/// What anything here may take: more than five times what is expected.
const SOON_MS: u64 = 5_000;

/// Two members of `notes`.
pub(crate) fn two(server: &TestServer) -> (Peer, Peer, RoomNumber) {
    let mut anna = Peer::connect(server.address, None);
    let mut ben = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    assert_eq!(
        ben.open("notes", None).opened.room,
        room,
        "all members have the same number"
    );
    (anna, ben, room)
}

pub(crate) fn show(peer: &mut Peer, room: RoomNumber, state: Option<&'static [u8]>) {
    let state = state.map(Bytes::from_static);
    peer.say(&ClientMessage::Presence { room, state });
}

pub(crate) fn signal(peer: &mut Peer, room: RoomNumber, payload: &[u8]) {
    let payload = Bytes::copy_from_slice(payload);
    peer.say(&ClientMessage::Signal { room, payload });
}

#[test]
fn h4_h5_what_comes_right_behind_hello_is_answered_after_welcome() {
    let server = TestServer::start("");
    let mut peer = Peer::silent(server.address);
    peer.hello(None, Vec::new());
    peer.ask("notes", None);
    let welcome = peer.hear_welcome();
    assert!(welcome.session.number() > 0);
    assert_eq!(peer.hear_joined("notes").opened.document.as_str(), "notes");
}

#[test]
fn h1_the_server_selects_the_subprotocol() {
    let server = TestServer::start("");
    let url = format!("ws://{}/sync", server.address);
    let (_socket, response) = native(&url, server.connect()).expect("a WebSocket");
    let selected = response.headers().get("sec-websocket-protocol");
    assert_eq!(selected.map(|value| value.as_bytes()), Some(&b"syncline.v1"[..]));
}

#[test]
fn o26_a_full_document_lets_nobody_else_in_until_somebody_leaves() {
    let server = TestServer::start("[limits]\nmembers_per_room_max = 2\n");
    let (mut anna, mut ben, room) = two(&server);
    let mut carl = Peer::connect(server.address, None);
    let refused = |peer: &mut Peer| {
        peer.ask("notes", None);
        loop {
            match peer.hear().expect("the connection stays") {
                ServerMessage::Closed { room: None, code, .. } => break code,
                ServerMessage::Opened(_) => panic!("a third member"),
                _ => {}
            }
        }
    };
    assert_eq!(refused(&mut carl), ClosedCode::Limit);
    carl.open("others", None);
    assert_eq!(ben.open("notes", None).opened.room, room, "a member may begin anew");
    ben.say(&ClientMessage::Leave { room });
    ben.edit(room, 1, Vec::new());
    assert_eq!(ben.hear_answer(1), Err("not_open".into()), "the leave is read");
    assert_eq!(carl.open("notes", None).opened.room, room);
    assert_eq!(anna.hear_all(room), Vec::new(), "and nobody is disturbed");
}

#[test]
fn v4_v5_welcome_names_what_both_sides_know_and_nothing_else() {
    let server = TestServer::start("");
    for (named, expected) in [
        (vec![], vec![]),
        (vec![Capability::Deflate], vec![Capability::Deflate]),
        (vec![Capability::Other("telepathy".into())], vec![]),
    ] {
        let mut peer = Peer::silent(server.address);
        peer.hello(None, named);
        assert_eq!(peer.hear_welcome().capabilities, expected);
    }
}

#[test]
fn l1_l2_the_defaults_are_the_ones_that_are_written_down() {
    let server = TestServer::start("");
    let mut peer = Peer::silent(server.address);
    peer.hello(None, Vec::new());
    let expected = WelcomeLimits {
        frame_bytes_max: 1 << 20,
        edits_per_second: 100,
        presence_per_second: 30,
        presence_bytes_max: 4 << 10,
        presence_ttl_ms: 60_000,
        ops_per_change_max: 200_000,
        documents_per_session_max: 64,
        idle_timeout_ms: 45_000,
    };
    assert_eq!(peer.hear_welcome().limits, expected);
    let limits = server.server().limits();
    assert_eq!((limits.handshake_timeout_ms, limits.token_bytes_max), (5_000, 8 << 10));
    assert_eq!((limits.sessions_per_subject_max, limits.edits_burst), (50, 500));
    assert_eq!(
        (limits.inflated_bytes_max, limits.document_bytes_max),
        (8 << 20, 32 << 20)
    );
    assert_eq!((limits.waiting_changes_max, limits.nesting_depth_max), (256, 64));
    assert_eq!(
        (limits.send_queue_bytes_max, limits.part_bytes_max),
        (256 << 10, 256 << 10)
    );
    assert_eq!(limits.ping_interval_ms, 20_000);
    assert_eq!(
        (limits.repo_message_bytes_max, limits.ops_decoded_alone),
        (32 << 20, 10_000)
    );
    assert_eq!(
        (limits.members_per_room_max, limits.subject_queue_bytes_max),
        (2_000, 8 << 20)
    );
}

#[test]
fn h3_m1_d2_a_second_hello_a_text_and_a_wrong_id_are_malformed() {
    let server = TestServer::start("");
    let check = |name: &str, frame: &[u8]| {
        let mut peer = Peer::connect(server.address, None);
        peer.say_bytes(Bytes::copy_from_slice(frame));
        assert_eq!(peer.hear_end().code, Some(4400), "{name}");
    };
    check("a second hello", b"\x95\x01\x01\xc0\xa4demo\x90");
    check("an id with an empty part", b"\x94\x03\xa4a//b\xc0\x90");
    check("an id that climbs", b"\x94\x03\xa4a/..\xc0\x90");
    check("an empty id", b"\x94\x03\xa0\xc0\x90");
    check("bytes after the message", b"\x92\x07\x01\x00");
}

#[test]
fn v1_another_version_is_told_which_ones_are_spoken() {
    let server = TestServer::start("");
    let mut peer = Peer::silent(server.address);
    peer.say_bytes(Bytes::from_static(b"\x95\x01\x02\xc0\xa4demo\x90"));
    match peer.hear() {
        Ok(ServerMessage::Error { code: 4400, text }) => assert!(text.contains("version 1"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(peer.hear_end().code, Some(4400));
}

#[test]
fn h6_c10_who_is_silent_is_closed_with_1008_and_who_answers_pings_is_not() {
    let server =
        TestServer::start("[limits]\nhandshake_timeout_ms = 300\nping_interval_ms = 200\nidle_timeout_ms = 2500\n");
    let begun = Clock::start();
    let mut dumb = Peer::silent(server.address);
    let mut deaf = Peer::connect(server.address, None);
    let mut alive = Peer::connect(server.address, None);
    let room = alive.open("notes", None).opened.room;
    let (mut voice, heard) = alive.split();
    assert_eq!(dumb.hear_end().code, Some(1008), "no hello came");
    assert!((200..SOON_MS).contains(&begun.monotonic_ms()));
    // It reads nothing, so it answers no ping.
    sleep(Duration::from_millis(3_500));
    assert_eq!(deaf.hear_end().code, Some(1008), "nothing was heard");
    voice.edit(room, 1, Vec::new());
    let answer = heard.recv_timeout(Duration::from_millis(SOON_MS));
    assert!(matches!(answer, Ok(ServerMessage::Ack { .. })), "{answer:?}");
}

#[test]
fn o1_o4_each_open_is_answered_once_and_the_limit_says_so() {
    let server = TestServer::start("[limits]\ndocuments_per_session_max = 3\n");
    let mut peer = Peer::connect(server.address, None);
    for document in ["a", "b", "c", "d", "e"] {
        peer.ask(document, None);
    }
    let (mut opened, mut closed, mut ends) = (Vec::new(), Vec::new(), 0);
    while ends + closed.len() < 5 {
        match peer.hear().expect("an answer") {
            ServerMessage::Opened(answer) => opened.push((answer.document.to_string(), answer.room)),
            ServerMessage::Closed { document, code, .. } => closed.push((document.to_string(), code)),
            ServerMessage::Part(part) => ends += usize::from(part.end.is_some()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(opened.len(), 3, "{closed:?}");
    assert!(closed.iter().all(|(_, code)| *code == ClosedCode::Limit), "{closed:?}");
    peer.say(&ClientMessage::Leave { room: opened[0].1 });
    let joined = peer.open(&closed[0].0, None);
    assert_eq!(joined.opened.document.as_str(), closed[0].0);
}

#[test]
fn o22_the_limit_counts_open_documents_and_not_opens() {
    let server = TestServer::start("[limits]\ndocuments_per_session_max = 1\n");
    let mut peer = Peer::connect(server.address, None);
    for _ in 0..3 {
        peer.open("notes", None);
    }
    peer.ask("other", None);
    let closed = peer.hear().expect("an answer");
    assert!(
        matches!(
            &closed,
            ServerMessage::Closed {
                code: ClosedCode::Limit,
                ..
            }
        ),
        "{closed:?}"
    );
}

#[test]
fn o7_o18_a_replica_without_a_cursor_that_lacks_nothing_is_sent_nothing() {
    let server = TestServer::start("");
    let (mut anna, _ben, room) = two(&server);
    let (document, changes) = counted(1, 20);
    anna.edit(room, 1, changes);
    let cursor = anna.hear_answer(1).expect("acknowledged");
    let mut heads = document
        .get_heads()
        .iter()
        .map(|head| ChangeHash(head.0))
        .collect::<Vec<_>>();
    let open = |heads: Vec<ChangeHash>| {
        let mut peer = Peer::connect(server.address, None);
        peer.say(&ClientMessage::Open(Open {
            document: "notes".parse().expect("an id"),
            cursor: None,
            heads,
        }));
        let joined = peer.hear_joined("notes");
        assert_eq!((joined.opened.room, joined.cursor), (room, cursor));
        (joined.opened.base, joined.bytes.is_empty())
    };
    assert_eq!(open(heads.clone()), (Base::Replica, true));
    heads[0].0[0] ^= 1;
    assert_eq!(open(heads), (Base::Nothing, false), "heads that nobody knows");
}

#[test]
fn o8_o9_o10_o12_v3_parts_are_small_and_deflated_only_when_named() {
    let server = TestServer::start("[limits]\npart_bytes_max = 8192\n");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let (document, changes) = counted(1, 700);
    anna.edit(room, 1, changes);
    anna.hear_answer(1).expect("acknowledged");
    let mut plain = Peer::silent(server.address);
    plain.hello(None, Vec::new());
    plain.hear_welcome();
    let mut deflating = Peer::connect(server.address, None);
    for (peer, packing) in [(&mut plain, Packing::Plain), (&mut deflating, Packing::Deflate)] {
        let joined = peer.open("notes", None);
        assert!(joined.parts.len() > 5, "{:?}", joined.parts);
        for (found, size) in &joined.parts {
            assert!(*size <= 8_192, "{size}");
            assert!(*found == packing || packing == Packing::Deflate, "{found:?}");
        }
        assert!(joined.parts.iter().any(|(found, _)| *found == packing));
        assert_eq!(joined.document().get_heads(), document.get_heads());
        assert_eq!(
            joined.opened.bytes,
            joined.bytes.len() as u64,
            "opened says how many come"
        );
    }
}

#[test]
fn o19_a_second_open_begins_anew_even_while_the_first_is_on_its_way() {
    let server = TestServer::start("[limits]\npart_bytes_max = 4096\n");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let (document, changes) = counted(1, 300);
    anna.edit(room, 1, changes[..290].to_vec());
    let cursor = anna.hear_answer(1).expect("acknowledged");
    anna.edit(room, 2, changes[290..].to_vec());
    anna.hear_answer(2).expect("acknowledged");
    for round in 0..20 {
        let mut peer = Peer::connect(server.address, None);
        peer.ask("notes", Some(cursor));
        peer.ask("notes", None);
        // Whatever was sent for the first, an `opened` is followed by what it names.
        let (mut parts, mut base) = (Vec::new(), None);
        loop {
            match peer.hear().expect("the document opens") {
                ServerMessage::Opened(opened) => {
                    assert_eq!(opened.room, room);
                    parts.clear();
                    base = Some(opened.base);
                }
                ServerMessage::Part(part) => {
                    parts.extend(crate::peer::inflate(&part));
                    if part.end.is_some() && base == Some(Base::Nothing) {
                        break;
                    }
                }
                other => panic!("round {round}: {other:?}"),
            }
        }
        let mut replica = Automerge::new();
        replica.load_incremental(&parts).expect("whole chunks");
        assert_eq!(replica.get_heads(), document.get_heads(), "round {round}");
    }
}

#[test]
fn o20_o21_who_left_gets_nothing_and_what_it_still_sends_is_harmless() {
    let server = TestServer::start("");
    let (mut anna, mut ben, room) = two(&server);
    let other = ben.open("other", None).opened.room;
    ben.say(&ClientMessage::Leave { room });
    show(&mut ben, room, Some(b"here"));
    signal(&mut ben, room, b"hello");
    ben.say(&ClientMessage::Leave { room });
    ben.edit(room, 1, counted(2, 1).1);
    assert_eq!(ben.hear_answer(1), Err("not_open".into()));
    ben.edit(RoomNumber::new(999), 2, counted(2, 1).1);
    assert_eq!(ben.hear_answer(2), Err("not_open".into()));
    anna.edit(room, 1, counted(1, 1).1);
    anna.hear_answer(1).expect("acknowledged");
    assert!(ben.hear_all(other).is_empty(), "nothing of a room that was left");
    sleep(Duration::from_millis(250));
    let heard = anna.hear_all(room);
    assert!(
        heard.iter().all(|message| matches!(message, ServerMessage::Diff(_))),
        "{heard:?}"
    );
}

#[test]
fn o25_a_cursor_beyond_the_log_or_of_another_epoch_gets_the_whole_document() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let (document, changes) = counted(1, 5);
    anna.edit(room, 1, changes);
    let cursor = anna.hear_answer(1).expect("acknowledged");
    let mut beyond = cursor;
    beyond.position = cursor.position.plus(1);
    let mut elsewhere = cursor;
    elsewhere.epoch = syncline_protocol::Epoch::new(cursor.epoch.number() ^ 1);
    for wrong in [beyond, elsewhere] {
        let joined = Peer::connect(server.address, None).open("notes", Some(wrong));
        assert_eq!(joined.opened.base, Base::Nothing);
        assert_eq!(joined.document().get_heads(), document.get_heads());
        assert_eq!(joined.cursor, cursor);
    }
}

#[test]
fn e5_e6_e8_e9_e10_every_edit_is_answered_once_and_diffs_are_contiguous() {
    let server = TestServer::start("");
    let (mut anna, mut ben, room) = two(&server);
    let (_, changes) = counted(1, 120);
    let mut edits = 0;
    for change in &changes {
        for _ in 0..2 {
            anna.edit(room, edits, vec![change.clone()]);
            edits += 1;
        }
    }
    let (mut answered, mut shown, mut own) = (vec![0; edits as usize], Vec::new(), 0);
    while answered.contains(&0) || own < changes.len() {
        match anna.hear().expect("an answer or a diff") {
            ServerMessage::Ack { id, .. } => answered[id.number() as usize] += 1,
            ServerMessage::Diff(diff) => {
                for run in &diff.runs {
                    assert_eq!(run.session, anna.session, "the author is named");
                    own += run.changes.len();
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(anna.hear_all(room).is_empty(), "no second answer");
    assert!(answered.iter().all(|count| *count == 1));
    while shown.len() < changes.len() {
        let diff = ben.hear_diff();
        let before = shown.len() as u64;
        shown.extend(diff.runs.into_iter().flat_map(|run| run.changes));
        assert_eq!(diff.cursor.position.number(), shown.len() as u64, "after {before}");
    }
    assert_eq!(shown, changes);
}

#[test]
fn e2_changes_come_deflated_or_not_and_dependencies_first() {
    let server = TestServer::start("");
    let (mut anna, mut ben, room) = two(&server);
    let mut document = Automerge::new().with_actor(ActorId::from([5]));
    for key in ["first", "second"] {
        let mut transaction = document.transaction();
        transaction.put(ROOT, key, "long ".repeat(200)).expect("a put");
        transaction.commit();
    }
    let mut changes: Vec<Bytes> = Vec::new();
    for mut change in document.get_changes(&[]) {
        changes.push(Bytes::copy_from_slice(&change.bytes()));
    }
    assert!(changes.iter().all(|change| change[8] == 2), "deflated chunks");
    anna.edit(room, 1, vec![changes[1].clone(), changes[0].clone()]);
    assert!(
        anna.hear_all(room).is_empty(),
        "the wrong way round it waits for the first"
    );
    anna.edit(room, 2, vec![changes[0].clone()]);
    anna.hear_answer(2).expect("acknowledged");
    let mut replica = Automerge::new();
    while replica.get_heads() != document.get_heads() {
        for change in ben.hear_diff().runs.iter().flat_map(|run| &run.changes) {
            replica.load_incremental(change).expect("a change");
        }
    }
}

#[test]
fn e7_a_replica_opened_from_an_acks_cursor_lacks_nothing_of_the_edit() {
    let server = TestServer::start("");
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    let (document, changes) = counted(1, 30);
    for (edit, change) in changes.iter().enumerate() {
        anna.edit(room, edit as u64, vec![change.clone()]);
        let cursor = anna.hear_answer(edit as u64).expect("acknowledged");
        let missed = Peer::connect(server.address, None).open("notes", Some(cursor));
        assert!(missed.bytes.is_empty(), "edit {edit}");
    }
    let joined = Peer::connect(server.address, None).open("notes", None);
    assert_eq!(joined.document().get_heads(), document.get_heads());
}

#[test]
fn e18_e19_changes_wait_for_what_they_depend_on_unseen() {
    let server = TestServer::start("[limits]\nwaiting_changes_max = 4\n");
    let (mut anna, mut ben, room) = two(&server);
    let (_, changes) = counted(1, 6);
    for edit in (2..6).rev() {
        anna.edit(room, edit, vec![changes[edit as usize].clone()]);
    }
    anna.edit(room, 1, vec![changes[1].clone()]);
    assert_eq!(anna.hear_answer(1), Err("missing_deps".into()), "the fifth is too many");
    assert!(anna.hear_all(room).is_empty(), "the others are not answered yet");
    let unseen = Peer::connect(server.address, None).open("notes", None);
    assert!(unseen.bytes.is_empty() && unseen.opened.heads.is_empty());
    anna.edit(room, 0, changes[..2].to_vec());
    for edit in [0, 2, 3, 4, 5] {
        anna.edit(room, 100 + edit, Vec::new());
    }
    let mut answered = Vec::new();
    while answered.len() < 5 {
        match anna.hear().expect("an answer") {
            ServerMessage::Ack { id, .. } if id.number() < 100 => answered.push(id.number()),
            ServerMessage::Reject { id, code, .. } => panic!("{id:?} {code}"),
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [0, 2, 3, 4, 5]);
    let mut shown = Vec::new();
    while shown.len() < changes.len() {
        shown.extend(ben.hear_diff().runs.into_iter().flat_map(|run| run.changes));
    }
    assert_eq!(shown, changes, "shown in the order of their dependencies");
}

#[test]
fn e19_waiting_changes_go_when_their_session_leaves() {
    let server = TestServer::start("");
    let (mut anna, mut ben, room) = two(&server);
    let (_, changes) = counted(1, 2);
    anna.edit(room, 1, vec![changes[1].clone()]);
    assert!(anna.hear_all(room).is_empty());
    drop(anna);
    // The end of a connection is not told to the others: give it time to be noticed.
    sleep(Duration::from_millis(300));
    ben.edit(room, 1, vec![changes[0].clone()]);
    let cursor = ben.hear_answer(1).expect("acknowledged");
    assert_eq!(cursor.position.number(), 1);
    assert_eq!(ben.hear_diff().cursor, cursor);
    assert!(ben.hear_all(room).is_empty(), "what waited is gone");
}

#[test]
fn e20_an_empty_edit_is_a_sign_of_life() {
    let server = TestServer::start("");
    let (mut anna, mut ben, room) = two(&server);
    anna.edit(room, 1, counted(1, 3).1);
    let cursor = anna.hear_answer(1).expect("acknowledged");
    anna.edit(room, 2, Vec::new());
    assert_eq!(anna.hear_answer(2), Ok(cursor));
    ben.hear_diff();
    assert!(ben.hear_all(room).is_empty(), "nothing is shown");
}

#[test]
fn e21_c1_an_edit_over_a_limit_is_rejected_and_the_connection_goes_on() {
    let server = TestServer::start("[limits]\nops_per_change_max = 10\n");
    let (mut anna, mut ben, room) = two(&server);
    let mut document = Automerge::new().with_actor(ActorId::from([9]));
    let mut transaction = document.transaction();
    for key in 0..11 {
        transaction.put(ROOT, format!("k{key}"), 1).expect("a put");
    }
    transaction.commit();
    let large = Bytes::copy_from_slice(document.get_changes(&[])[0].raw_bytes());
    anna.edit(room, 1, vec![large]);
    assert_eq!(anna.hear_answer(1), Err("limit".into()));
    let (_, changes) = counted(1, 1);
    anna.edit(room, 2, changes.clone());
    anna.hear_answer(2).expect("acknowledged");
    assert_eq!(ben.hear_diff().runs[0].changes, changes, "only the good one is seen");
}

#[test]
fn e21_an_edit_whose_changes_inflate_to_too_much_together_is_rejected() {
    let server = TestServer::start("[limits]\ninflated_bytes_max = 10000\n");
    let (mut anna, _ben, room) = two(&server);
    let mut document = Automerge::new().with_actor(ActorId::from([9]));
    for key in 0..5 {
        let mut transaction = document.transaction();
        transaction
            .put(ROOT, format!("k{key}"), "x".repeat(4_000))
            .expect("a put");
        transaction.commit();
    }
    let mut changes = document.get_changes(&[]);
    let deflated: Vec<Bytes> = changes
        .iter_mut()
        .map(|change| change.bytes().into_owned().into())
        .collect();
    assert!(
        deflated.iter().map(Bytes::len).sum::<usize>() < 2_000,
        "they are small as sent"
    );
    anna.edit(room, 1, deflated[..2].to_vec());
    anna.hear_answer(1).expect("acknowledged");
    anna.edit(room, 2, deflated[2..].to_vec());
    anna.hear_answer(2).expect("three are over by one at most");
    let (mut carl, room) = (Peer::connect(server.address, None), room);
    carl.open("notes", None);
    carl.edit(room, 1, [&deflated[..], &deflated[..]].concat());
    assert_eq!(carl.hear_answer(1), Err("limit".into()));
}

#[test]
fn l4_over_the_rate_the_server_reads_more_slowly_and_loses_nothing() {
    let server = TestServer::start("[limits]\nedits_per_second = 20\nedits_burst = 5\n");
    let (mut anna, mut ben, room) = two(&server);
    let (_, changes) = counted(1, 30);
    let begun = Clock::start();
    for (edit, change) in changes.iter().enumerate() {
        anna.edit(room, edit as u64, vec![change.clone()]);
    }
    ben.edit(room, 0, counted(2, 1).1);
    ben.hear_answer(0).expect("no other session notices");
    assert!(begun.monotonic_ms() < 900, "while the fast one is held back");
    anna.hear_answer(29).expect("every edit is taken in the end");
    let took_ms = begun.monotonic_ms();
    assert!((900..20_000).contains(&took_ms), "{took_ms} ms for 30 edits at 20/s");
}
