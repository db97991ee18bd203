//! Bad input in the repo dialect: it ends its own connection at most, and others go on.

use super::peer::{Peer, Replica};
use crate::running::TestServer;
use bytes::Bytes;
use flate2::{Compression, write::DeflateEncoder};
use sha2::{Digest, Sha256};
use std::io::Write;
use syncline_protocol::{
    ChangeHash,
    repo::{RepoMessage, SyncMessage, encode_sync, encode_whole},
};

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

/// A server with one calm document, and what makes sure that nobody is hurt: its writer goes on writing, and a reader reading.
struct Calm {
    server: TestServer,
    writer: Peer,
    replica: Replica,
}

impl Calm {
    fn start() -> Self {
        let server = TestServer::start("");
        let mut writer = Peer::join(server.address, "ada", "");
        let mut replica = Replica::new("calm");
        replica.put(1, "ada", 1);
        writer.sync(&mut replica);
        Self {
            server,
            writer,
            replica,
        }
    }

    fn join(&self, id: &str) -> Peer {
        Peer::join(self.server.address, id, "")
    }

    fn goes_on(&mut self) {
        self.replica.put(1, "after", 2);
        self.writer.sync(&mut self.replica);
        let mut late = Replica::new("calm");
        self.join("late").sync_until(&mut late, |late| late.has("after"));
        assert_eq!(late.document.get_heads(), self.replica.document.get_heads());
    }
}

fn forged(count: u32) -> Vec<ChangeHash> {
    let hash = |number: u32| {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        ChangeHash(hash)
    };
    (0..count).map(hash).collect()
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// A chunk with a right checksum.
fn chunk(kind: u8, contents: &[u8]) -> Vec<u8> {
    let framed = [&[kind], leb128(contents.len()).as_slice(), contents].concat();
    let hash = Sha256::digest(&framed);
    [&[0x85, 0x6f, 0x4a, 0x83], &hash[..4], &framed].concat()
}

#[test]
fn a10_a_filter_of_2_to_the_32_probes_in_16_bytes_is_not_read() {
    let mut calm = Calm::start();
    let bomb = b"\x42\x00\x00\x01\x00\x09\x01\x0a\xff\xff\xff\xff\x0f\xff\xff\x00";
    assert_eq!(bomb.len(), 16);
    let mut bob = calm.join("bob");
    bob.say_sync("calm", bomb.to_vec());
    assert!(
        matches!(bob.hear(), Ok(RepoMessage::Sync(_))),
        "it is answered like any other"
    );
    calm.goes_on();
}

#[test]
fn a10_a_filter_without_bits_in_47_bytes_is_not_read() {
    let mut calm = Calm::start();
    let head = [7; 32];
    let bomb = [
        &b"\x42\x01"[..],
        &head,
        b"\x00\x01\x00\x05\x01\x00\x07\x00\x00\x00\x02\x02\x84",
    ]
    .concat();
    assert_eq!(bomb.len(), 47);
    let mut bob = calm.join("bob");
    bob.say_sync("calm", bomb);
    assert!(
        matches!(bob.hear(), Ok(RepoMessage::Sync(_))),
        "it is answered like any other"
    );
    calm.goes_on();
}

#[test]
fn a11_forged_heads_are_answered_once_and_not_asked_for_without_end() {
    let mut calm = Calm::start();
    let mut bob = calm.join("bob");
    let message = encode_sync(&forged(1_000), std::iter::empty());
    for _ in 0..20 {
        bob.say_sync("calm", message.clone());
    }
    assert!(matches!(bob.hear(), Ok(RepoMessage::Sync(_))));
    assert!(bob.hears_nothing(), "the same heads are no news");
    calm.goes_on();
}

#[test]
fn a9_documents_that_are_named_with_forged_heads_do_not_come_to_be() {
    let mut calm = Calm::start();
    let mut bob = calm.join("bob");
    for number in 0..100 {
        bob.say_sync(&format!("never-{number}"), encode_sync(&forged(10), std::iter::empty()));
        assert!(matches!(bob.hear(), Ok(RepoMessage::Sync(_))));
    }
    let mut eve = calm.join("eve");
    eve.offer(&mut Replica::new("never-7"));
    assert!(
        matches!(eve.hear(), Ok(RepoMessage::DocUnavailable { .. })),
        "nobody has written it"
    );
    calm.goes_on();
}

#[test]
fn a10_needs_for_a_million_hashes_end_their_connection() {
    let mut calm = Calm::start();
    let mut million = vec![0x42, 0x00];
    million.extend([0xc0, 0x84, 0x3d]);
    million.resize(million.len() + 32_000_000, 7);
    let mut eve = calm.join("eve");
    eve.say_sync("calm", million);
    assert_eq!(eve.hear_end().1.code, Some(4400));
    calm.goes_on();
}

#[test]
fn a24_needs_for_what_nobody_has_are_answered_eight_times_and_no_more() {
    let mut calm = Calm::start();
    let mut bob = calm.join("bob");
    let mut his = Replica::new("calm");
    bob.sync(&mut his);
    let heads = his.document.get_heads();
    let mut message = vec![0x42, 0x01];
    message.extend(heads[0].0);
    message.push(0x01);
    message.extend([7; 32]);
    message.extend([0x00, 0x00]);
    bob.say_sync("calm", message.clone());
    assert!(matches!(bob.hear(), Ok(RepoMessage::Sync(_))));
    for _ in 0..30 {
        bob.say_sync("calm", message.clone());
    }
    // What he writes then is answered last, and by other heads.
    his.put(2, "bob", 1);
    bob.offer(&mut his);
    let mut answers = 1;
    while let Ok(RepoMessage::Sync(sync)) = bob.hear()
        && SyncMessage::decode(&sync.data).is_ok_and(|said| said.heads[0].0 == heads[0].0)
    {
        answers += 1;
    }
    assert!(answers <= 9, "{answers} answers");
    calm.replica = his;
    calm.writer = bob;
    calm.goes_on();
}

#[test]
fn a10_a_whole_document_is_taken_as_its_changes() {
    let mut calm = Calm::start();
    let mut bob = calm.join("bob");
    let mut his = Replica::bold("whole");
    for number in 0..300 {
        his.put(2, &format!("{}", number % 10), number);
    }
    bob.sync(&mut his);
    assert_eq!(his.wholes_out, 1);
    let mut late = Replica::new("whole");
    calm.join("eve").sync_until(&mut late, |late| late.has("9"));
    assert_eq!(late.document.get_heads(), his.document.get_heads());
    // What another wrote meanwhile, and himself offline: on both sides are changes that the other has not.
    late.put(3, "eve", 1);
    calm.join("eve").sync(&mut late.reconnected());
    his.put(2, "offline", 1);
    let mut again = his.forgetful();
    calm.join("bob").sync_until(&mut again, |again| again.has("eve"));
    let mut all = Replica::new("whole");
    calm.join("all")
        .sync_until(&mut all, |all| all.has("offline") && all.has("eve"));
    calm.goes_on();
}

/// A document of one actor without heads and operations, and with this column of changes.
fn column(spec: u8, bytes: &[u8]) -> Vec<u8> {
    let table = [&[1, 1, 0xaa, 0, 1, spec], leb128(bytes.len()).as_slice(), &[0]].concat();
    chunk(0, &[table.as_slice(), bytes].concat())
}

/// A document that inflates to so many bytes.
fn inflating(bytes: usize) -> Vec<u8> {
    let mut deflated = DeflateEncoder::new(Vec::new(), Compression::best());
    deflated.write_all(&vec![0; bytes]).expect("it deflates");
    column(0x09, &deflated.finish().expect("it deflates"))
}

#[test]
fn a10_sixteen_documents_that_inflate_too_far_are_passed_over_and_no_more() {
    let mut calm = Calm::start();
    let bomb = encode_whole(&forged(1), &inflating(9 << 20));
    let mut bob = calm.join("bob");
    for _ in 0..16 {
        bob.say_sync("calm", bomb.clone());
    }
    bob.say_sync("no document id", bomb.clone());
    loop {
        match bob.hear() {
            Ok(RepoMessage::DocUnavailable { .. }) => break,
            Ok(_) => {}
            Err(ended) => panic!("the connection ended: {ended:?}"),
        }
    }
    bob.say_sync("calm", bomb);
    assert_eq!(bob.hear_end().1.code, Some(4409));
    calm.goes_on();
}

#[test]
fn a10_documents_that_inflate_or_claim_much_are_passed_over() {
    let mut calm = Calm::start();
    let run = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x00];
    for bomb in [
        inflating(64 << 20),
        column(0x01, &[run.to_vec(), vec![0; 20_000]].concat()),
    ] {
        let mut bob = calm.join("bob");
        bob.say_sync("calm", encode_whole(&forged(1), &bomb));
        assert!(
            matches!(bob.hear(), Ok(RepoMessage::Sync(_))),
            "it is answered as if it had not come"
        );
    }
    calm.goes_on();
}

#[test]
fn a10_a_document_that_no_automerge_writes_ends_its_connection() {
    let mut calm = Calm::start();
    let mut bob = calm.join("bob");
    bob.say_sync("calm", encode_whole(&forged(1), &chunk(0, b"no document")));
    assert_eq!(bob.hear_end().1.code, Some(4409));
    calm.goes_on();
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
