//! Bad input in the repo dialect: it ends its own connection at most, and others go on.

use super::peer::{Peer, Replica};
use crate::running::TestServer;
use bytes::Bytes;
use syncline_protocol::{
    ChangeHash,
    repo::{RepoMessage, encode_sync},
};

/// A filter that claims 2^32 - 1 probes, and one without bits: decoders abort over the first and panic over the second.
const BOMBS: [&[u8]; 2] = [
    b"\x42\x00\x00\x01\x00\x07\x01\x0a\xff\xff\xff\xff\x0f\x00",
    b"\x42\x00\x00\x01\x00\x03\x01\x00\x07\x00",
];

#[test]
fn a2_what_cannot_be_read_ends_its_own_connection_and_no_other() {
    let server = TestServer::start("");
    let mut ada = Peer::join(server.address, "ada", "");
    let mut mine = Replica::new("calm");
    mine.put(1, "ada", 1);
    ada.sync(&mut mine);
    let deep = [vec![0x81; 100], vec![0x00]].concat();
    let bad: [(&str, Vec<u8>); 5] = [
        ("nothing", Vec::new()),
        ("no map", vec![0x01]),
        (
            "more than there is",
            vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        ("too deep", [b"\xa1\x61x".to_vec(), deep].concat()),
        ("two items", vec![0xa0, 0xa0]),
    ];
    for (what, frame) in bad {
        let mut bob = Peer::join(server.address, "bob", "");
        bob.say_bytes(Bytes::from(frame));
        assert_eq!(bob.hear_end().1.code, Some(4400), "{what}");
    }
    mine.put(1, "after", 2);
    ada.sync(&mut mine);
}

#[test]
fn a10_filters_are_not_read_and_odd_sync_messages_are_harmless() {
    let server = TestServer::start("");
    let mut ada = Peer::join(server.address, "ada", "");
    let mut mine = Replica::new("calm");
    mine.put(1, "ada", 1);
    ada.sync(&mut mine);
    let forged: Vec<ChangeHash> = (0..1_000_u32)
        .map(|n| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            ChangeHash(hash)
        })
        .collect();
    for bomb in BOMBS {
        let mut bob = Peer::join(server.address, "bob", "");
        bob.say_sync("calm", bomb.to_vec());
        assert!(
            matches!(bob.hear(), Ok(RepoMessage::Sync(_))),
            "it is answered like any other"
        );
    }
    let mut bob = Peer::join(server.address, "bob", "");
    bob.say_sync("calm", encode_sync(&forged, std::iter::empty()));
    bob.say_sync("never opened", encode_sync(&forged, std::iter::empty()));
    let mut million = vec![0x42, 0x00];
    million.extend([0xc0, 0x84, 0x3d]);
    million.resize(million.len() + 32_000_000, 7);
    let mut eve = Peer::join(server.address, "eve", "");
    eve.say_sync("calm", million);
    assert_eq!(eve.hear_end().1.code, Some(4400), "a million needs");

    let mut his = Replica::new("calm");
    bob.sync_until(&mut his, |his| his.has("ada"));
    mine.put(1, "after", 2);
    ada.sync(&mut mine);
    bob.sync_until(&mut his, |his| his.has("after"));
}

#[test]
fn a14_a_dishonest_change_ends_the_connection_and_enters_nothing() {
    let server = TestServer::start("");
    let mut ada = Peer::join(server.address, "ada", "");
    let mut mine = Replica::new("honest");
    mine.put(1, "ada", 1);
    ada.sync(&mut mine);
    let mut chunk = mine.document.get_changes(&[])[0].raw_bytes().to_vec();
    let last = chunk.len() - 1;
    chunk[last] ^= 1;
    let mut bob = Peer::join(server.address, "bob", "");
    bob.say_sync("honest", encode_sync(&[], [&chunk[..]].into_iter()));
    assert_eq!(bob.hear_end().1.code, Some(4409));
    let mut late = Replica::new("honest");
    Peer::join(server.address, "eve", "").sync(&mut late);
    assert_eq!(late.document.get_heads(), mine.document.get_heads());
}
