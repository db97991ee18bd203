//! Who is here, and one-off messages, rule by rule, over real sockets.

use crate::{
    members::{show, signal, two},
    peer::{Peer, counted},
    process::Process,
    running::TestServer,
};
use bytes::Bytes;
use std::{thread::sleep, time::Duration};
use syncline::server::clock::Clock;
use syncline_protocol::{
    RoomNumber,
    native::{ClientMessage, PresenceEntry, ServerMessage},
};

/// What anything here may take: more than five times what is expected.
const SOON_MS: u64 = 5_000;

fn hear_presence(peer: &mut Peer) -> Vec<PresenceEntry> {
    loop {
        if let ServerMessage::Presence { entries, .. } = peer.hear().expect("presence comes") {
            return entries;
        }
    }
}

#[test]
fn p1_s5_l2_large_presence_and_signals_are_malformed() {
    let server = TestServer::start("[limits]\npresence_bytes_max = 100\n");
    let mut announced = Peer::silent(server.address);
    announced.hello(None, Vec::new());
    assert_eq!(announced.hear_welcome().limits.presence_bytes_max, 100);
    for large in [101, 5_000] {
        let (mut anna, mut ben, room) = two(&server);
        let bytes = Bytes::from(vec![7; large]);
        anna.say(&ClientMessage::Presence {
            room,
            state: Some(bytes.clone()),
        });
        assert_eq!(anna.hear_end().code, Some(4400));
        signal(&mut ben, room, &bytes);
        assert_eq!(ben.hear_end().code, Some(4400));
    }
}

#[test]
fn p2_the_last_value_wins_and_frames_are_rare() {
    let server = TestServer::start("");
    let (mut anna, mut ben, room) = two(&server);
    let begun = Clock::start();
    let states: [&'static [u8]; 8] = [b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"z"];
    for state in states {
        show(&mut anna, room, Some(state));
        sleep(Duration::from_millis(10));
    }
    let mut frames = 0;
    loop {
        let entries = hear_presence(&mut ben);
        frames += 1;
        assert_eq!(entries.len(), 1);
        if entries[0].state.as_deref() == Some(b"z") {
            break;
        }
    }
    let allowed = begun.monotonic_ms() / 100 + 2;
    assert!(frames <= allowed, "{frames} frames, {allowed} allowed");
}

#[test]
fn p3_p4_c8_a_state_expires_or_is_taken_back() {
    let server = TestServer::start("[limits]\npresence_ttl_ms = 400\n");
    let (mut anna, mut ben, room) = two(&server);
    let begun = Clock::start();
    show(&mut anna, room, Some(b"here"));
    assert_eq!(hear_presence(&mut ben)[0].state.as_deref(), Some(&b"here"[..]));
    assert_eq!(hear_presence(&mut ben)[0].state, None, "it was not sent again");
    assert!((400..SOON_MS).contains(&begun.monotonic_ms()));
    // Here nothing expires.
    let server = TestServer::start("[limits]\npresence_ttl_ms = 600000\n");
    let (anna, mut ben, room) = two(&server);
    let gone = |ben: &mut Peer, end: fn(Peer, RoomNumber) -> Option<Peer>| {
        let mut guest = Peer::connect(server.address, None);
        guest.open("notes", None);
        show(&mut guest, room, Some(b"guest"));
        let session = guest.session;
        let mut is = |state: Option<&[u8]>| {
            let entries = hear_presence(ben);
            assert!(
                entries
                    .iter()
                    .any(|entry| entry.session == session && entry.state.as_deref() == state),
                "{entries:?}"
            );
        };
        is(Some(b"guest"));
        let kept = end(guest, room);
        is(None);
        drop(kept);
    };
    gone(&mut ben, |mut guest, room| {
        show(&mut guest, room, None);
        Some(guest)
    });
    gone(&mut ben, |mut guest, room| {
        guest.say(&ClientMessage::Leave { room });
        Some(guest)
    });
    gone(&mut ben, |guest, _| {
        drop(guest);
        None
    });
    drop(anna);
}

#[test]
fn p5_p6_a_joiner_gets_all_presence_behind_its_last_part() {
    let server = TestServer::start("");
    let (mut anna, mut ben, room) = two(&server);
    show(&mut anna, room, Some(b"anna"));
    show(&mut ben, room, Some(b"ben"));
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 2 {
        seen.extend(hear_presence(&mut ben).into_iter().map(|entry| entry.session));
    }
    let mut carl = Peer::connect(server.address, None);
    carl.ask("notes", None);
    let mut order = Vec::new();
    let entries = loop {
        match carl.hear().expect("the document and who is here") {
            ServerMessage::Opened(_) => order.push("opened"),
            ServerMessage::Part(part) => order.push(if part.end.is_some() { "end" } else { "part" }),
            ServerMessage::Presence { entries, .. } => break entries,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(order, ["opened", "end"]);
    let shown: Vec<_> = entries.iter().map(|entry| entry.state.as_deref()).collect();
    assert!(
        shown.len() == 2 && shown.contains(&Some(b"anna")) && shown.contains(&Some(b"ben")),
        "{entries:?}"
    );
}

#[test]
fn p10_presence_is_never_stored() {
    let directory = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        let process = Process::serve(directory.path());
        let mut anna = Peer::connect(process.address, None);
        let room = anna.open("notes", None).opened.room;
        assert!(anna.hear_all(room).is_empty(), "nobody is here after a crash");
        show(&mut anna, room, Some(b"here"));
        assert_eq!(hear_presence(&mut anna)[0].state.as_deref(), Some(&b"here"[..]));
        anna.edit(room, 1, counted(1, 1).1);
        anna.hear_answer(1).expect("acknowledged");
        process.kill();
    }
}

#[test]
fn s1_s2_s4_signals_go_to_the_others_in_order_and_to_nobody_later() {
    let server = TestServer::start("");
    let (mut anna, mut ben, room) = two(&server);
    for number in 0..20_u8 {
        signal(&mut anna, room, &[number]);
    }
    let mut heard = Vec::new();
    while heard.len() < 20 {
        match ben.hear().expect("a signal") {
            ServerMessage::Signal { session, payload, .. } => {
                assert_eq!(session, anna.session);
                heard.push(payload[0]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(heard, (0..20).collect::<Vec<_>>());
    assert!(anna.hear_all(room).is_empty(), "not to the sender");
    let mut carl = Peer::connect(server.address, None);
    carl.open("notes", None);
    assert!(carl.hear_all(room).is_empty(), "not to who joins later");
}
