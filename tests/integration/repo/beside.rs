//! What is said beside the document: ephemeral messages and signals, presence in both dialects.

use super::peer::{Peer, Replica};
use crate::{
    members::{show, signal},
    peer::Peer as NativePeer,
    running::TestServer,
};
use bytes::Bytes;
use syncline_protocol::{
    RoomNumber,
    native::{PresenceEntry, ServerMessage},
    repo::{Channels, Ephemeral, PresenceMessage, RepoMessage},
};

const DOCUMENT: &str = "talk";

/// A peer that has the document open, which nobody has written.
fn present(server: &TestServer, id: &str) -> Peer {
    let mut peer = Peer::join(server.address, id, "");
    peer.offer(&mut Replica::new(DOCUMENT));
    assert!(matches!(peer.hear(), Ok(RepoMessage::DocUnavailable { .. })));
    peer
}

fn native(server: &TestServer) -> (NativePeer, RoomNumber) {
    let mut native = NativePeer::connect(server.address, None);
    let room = native.open(DOCUMENT, None).opened.room;
    (native, room)
}

fn channel(name: &str, value: &'static [u8]) -> Channels {
    Channels::from([(name.to_owned(), Bytes::from_static(value))])
}

/// The next presence entry; anything else that a native member is sent fails.
fn hear_entry(native: &mut NativePeer) -> PresenceEntry {
    match native.hear() {
        Ok(ServerMessage::Presence { mut entries, .. }) if entries.len() == 1 => entries.remove(0),
        other => panic!("no presence of one: {other:?}"),
    }
}

fn hear_presence(peer: &mut Peer) -> (String, PresenceMessage) {
    let heard = peer.hear_ephemeral();
    let message = PresenceMessage::decode(&heard.data).expect("a helper's message");
    (heard.sender.as_str().to_owned(), message)
}

#[test]
fn a17_a18_ephemeral_messages_reach_all_others_with_their_sender() {
    let server = TestServer::start("");
    let (mut ada, mut bob) = (
        Peer::join(server.address, "ada", ""),
        Peer::join(server.address, "bob", ""),
    );
    let (mut mine, mut his) = (Replica::new("talk"), Replica::new("talk"));
    mine.put(1, "ada", 1);
    ada.sync(&mut mine);
    bob.sync_until(&mut his, |his| his.has("ada"));
    let mut native = NativePeer::connect(server.address, None);
    let room = native.open("talk", None).opened.room;

    let mut said = Ephemeral {
        sender: ada.id.clone(),
        target: None,
        document: "talk".into(),
        session: "a run".into(),
        count: 1 << 40,
        data: vec![0xa1, 0x61, b'x', 0x01].into(),
    };
    ada.say(&RepoMessage::Ephemeral(said.clone()));
    // Said twice, and then in another's name: neither is passed on.
    ada.say(&RepoMessage::Ephemeral(said.clone()));
    ada.say(&RepoMessage::Ephemeral(Ephemeral {
        sender: bob.id.clone(),
        ..said.clone()
    }));
    said.count += 1;
    ada.say(&RepoMessage::Ephemeral(said.clone()));
    for count in [said.count - 1, said.count] {
        let heard = bob.hear_ephemeral();
        assert_eq!(
            (&heard.sender, &heard.session, heard.count),
            (&ada.id, &said.session, count)
        );
        assert_eq!((&heard.data, &heard.target), (&said.data, &Some(bob.id.clone())));
        match native.hear() {
            Ok(ServerMessage::Signal { payload, .. }) => assert_eq!(&payload[..], b"{\"x\":1}"),
            other => panic!("no signal: {other:?}"),
        }
    }
    signal(&mut native, room, b"hello");
    let heard = bob.hear_ephemeral();
    assert_eq!(heard.sender.as_str(), format!("native-{}", native.session));
    assert_eq!(&heard.data[..], b"\x45hello", "a CBOR byte string");
    ada.offer(&mut mine);
    assert!(
        matches!(ada.hear(), Ok(RepoMessage::Ephemeral(heard)) if heard.sender != ada.id),
        "never one's own"
    );
}

#[test]
fn a17_what_is_too_large_or_about_a_document_not_named_is_dropped() {
    let server = TestServer::start("");
    let (mut ada, mut bob) = (present(&server, "ada"), present(&server, "bob"));
    ada.say_ephemeral(DOCUMENT, 1, &vec![7; (64 << 10) + 1]);
    ada.say_ephemeral("elsewhere", 2, b"\xa0");
    ada.say_ephemeral("no document id", 3, b"\xa0");
    ada.say_ephemeral(DOCUMENT, 4, &vec![7; 64 << 10]);
    assert_eq!(bob.hear_ephemeral().count, 4);
}

#[test]
fn a17_a21_a_flood_of_one_is_read_slowly_and_others_are_heard() {
    let server = TestServer::start("[limits]\npresence_per_second = 20\n");
    let (mut ada, mut bob) = (present(&server, "ada"), present(&server, "bob"));
    let mut eve = present(&server, "eve");
    // Twenty seconds of what may be said.
    for count in 1..=400 {
        ada.say_ephemeral(DOCUMENT, count, b"\xa0");
    }
    bob.say_ephemeral(DOCUMENT, 1, b"\xa1\x61x\x01");
    let mut before = 0;
    while eve.hear_ephemeral().sender != bob.id {
        before += 1;
    }
    assert!(before < 300, "bob was heard after {before} of ada's");
}

#[test]
fn a26_what_a_peers_helper_shows_is_presence_to_natives() {
    let server = TestServer::start("");
    let (mut native, _) = native(&server);
    let mut ada = present(&server, "ada");
    ada.say_ephemeral(
        DOCUMENT,
        1,
        &PresenceMessage::Snapshot(channel("cursor", b"\x07")).encode(),
    );
    let shown = hear_entry(&mut native);
    assert_eq!(shown.subject, "dev");
    assert_eq!(shown.state.as_deref(), Some(&b"{\"cursor\":7}"[..]));
    let update = PresenceMessage::Update {
        channel: "typing".into(),
        value: Bytes::from_static(b"\xf5"),
    };
    ada.say_ephemeral(DOCUMENT, 2, &update.encode());
    let both = Some(&b"{\"cursor\":7,\"typing\":true}"[..]);
    assert_eq!(hear_entry(&mut native).state.as_deref(), both);
    ada.say_ephemeral(DOCUMENT, 3, &PresenceMessage::Goodbye.encode());
    assert_eq!(hear_entry(&mut native).state, None);
    let large = Bytes::from([b"\x59\x10\x00".as_slice(), &[b'a'; 4 << 10]].concat());
    let large = PresenceMessage::Snapshot(Channels::from([("large".to_owned(), large)]));
    ada.say_ephemeral(DOCUMENT, 4, &large.encode());
    ada.say_ephemeral(
        DOCUMENT,
        5,
        &PresenceMessage::Snapshot(channel("small", b"\x41\x01")).encode(),
    );
    let bytes = b"\xa1\x65small\x41\x01";
    assert_eq!(
        hear_entry(&mut native).state.as_deref(),
        Some(&bytes[..]),
        "as it is: JSON has no bytes"
    );
    drop(ada);
    assert_eq!(hear_entry(&mut native).state, None);
}

#[test]
fn a27_what_natives_show_comes_to_peers_that_take_part_and_to_no_others() {
    let server = TestServer::start("");
    let (mut native, room) = native(&server);
    let mut other = present(&server, "other");
    let mut ada = present(&server, "ada");
    show(&mut native, room, Some(b"{\"cursor\":1}"));
    hear_entry(&mut native);
    ada.say_ephemeral(DOCUMENT, 1, &PresenceMessage::Snapshot(Channels::new()).encode());
    let name = format!("native-{}", native.session);
    let cursor = |value| PresenceMessage::Snapshot(channel("cursor", value));
    assert_eq!(
        hear_presence(&mut ada),
        (name.clone(), cursor(b"\x01")),
        "what was shown before"
    );
    show(&mut native, room, Some(b"{\"cursor\":2}"));
    assert_eq!(hear_presence(&mut ada), (name.clone(), cursor(b"\x02")));
    show(&mut native, room, Some(b"{\"cursor\":2}"));
    assert_eq!(hear_presence(&mut ada), (name.clone(), PresenceMessage::Heartbeat));
    show(&mut native, room, Some(b"opaque"));
    let opaque = PresenceMessage::Snapshot(channel("state", b"\x46opaque"));
    assert_eq!(hear_presence(&mut ada), (name.clone(), opaque));
    show(&mut native, room, None);
    assert_eq!(hear_presence(&mut ada), (name.clone(), PresenceMessage::Goodbye));
    show(&mut native, room, Some(b"{\"cursor\":3}"));
    assert_eq!(hear_presence(&mut ada), (name.clone(), cursor(b"\x03")));
    drop(native);
    assert_eq!(hear_presence(&mut ada), (name, PresenceMessage::Goodbye));
    let heard = other.hear_ephemeral();
    assert_eq!(
        heard.sender, ada.id,
        "whoever takes no part hears the peer and no native"
    );
    assert!(other.hears_nothing());
}

#[test]
fn a27_a_natives_state_that_expires_is_gone_to_peers_too() {
    let server = TestServer::start("[limits]\npresence_ttl_ms = 500\n");
    let (mut native, room) = native(&server);
    let mut ada = present(&server, "ada");
    ada.say_ephemeral(DOCUMENT, 1, &PresenceMessage::Snapshot(Channels::new()).encode());
    show(&mut native, room, Some(b"{}"));
    let name = format!("native-{}", native.session);
    assert_eq!(
        hear_presence(&mut ada),
        (name.clone(), PresenceMessage::Snapshot(Channels::new()))
    );
    assert_eq!(hear_presence(&mut ada), (name, PresenceMessage::Goodbye));
}

#[test]
fn a28_a_helper_that_came_back_is_asked_what_it_shows() {
    let server = TestServer::start("");
    let mut ada = present(&server, "ada");
    ada.say_ephemeral(DOCUMENT, 1, &PresenceMessage::Heartbeat.encode());
    let server_id = ada.server.clone().expect("it answered to join");
    let asked = (server_id.as_str().to_owned(), PresenceMessage::Heartbeat);
    assert_eq!(hear_presence(&mut ada), asked);
    ada.say_ephemeral(
        DOCUMENT,
        2,
        &PresenceMessage::Snapshot(channel("cursor", b"\x07")).encode(),
    );
    ada.say_ephemeral(DOCUMENT, 3, &PresenceMessage::Heartbeat.encode());
    assert!(ada.hears_nothing(), "it is known now");
}
