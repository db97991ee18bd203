//! A client that takes bundles is brought up with one, once the document is merged.

use crate::{
    peer::{Joined, Peer, counted},
    running::TestServer,
};
use automerge::Automerge;
use bytes::Bytes;
use std::time::Duration;
use syncline_protocol::{Cursor, native::Capability};

/// The place of a chunk's type.
const CHUNK_TYPE: usize = 8;
/// How often a joiner asks until the room has merged, which it does two seconds after the last edit.
const ATTEMPTS: usize = 400;

fn join(server: &TestServer, capabilities: Vec<Capability>, cursor: Cursor) -> Joined {
    let mut peer = Peer::silent(server.address);
    peer.hello(None, capabilities.clone());
    assert_eq!(peer.hear_welcome().capabilities, capabilities);
    peer.open("notes", Some(cursor))
}

fn completed(before: &[Bytes], joined: &Joined) -> Automerge {
    let mut document = Automerge::new();
    let bytes = [&before.concat()[..], &joined.bytes].concat();
    document.load_incremental(&bytes).expect("chunks");
    document
}

#[test]
fn o11_o28_v5_who_takes_bundles_gets_the_log_as_one() {
    let server = TestServer::start("");
    let (document, changes) = counted(1, 300);
    let mut anna = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    anna.edit(room, 1, changes[..50].to_vec());
    let cursor = anna.hear_answer(1).expect("acknowledged");
    anna.edit(room, 2, changes[50..].to_vec());
    anna.hear_answer(2).expect("acknowledged");

    let bundled = (0..ATTEMPTS).find_map(|_| {
        let joined = join(&server, vec![Capability::Bundle], cursor);
        let is_bundle = joined.bytes[CHUNK_TYPE] == 3;
        if !is_bundle {
            std::thread::sleep(Duration::from_millis(50));
        }
        is_bundle.then_some(joined)
    });
    let bundled = bundled.expect("a bundle");
    assert_eq!(completed(&changes[..50], &bundled).get_heads(), document.get_heads());
    assert_eq!(bundled.opened.bytes, bundled.bytes.len() as u64);
    let plain = join(&server, Vec::new(), cursor);
    assert_eq!(plain.bytes[CHUNK_TYPE], 1, "who names nothing gets changes");
    assert_eq!(completed(&changes[..50], &plain).get_heads(), document.get_heads());
    let (small, large) = (bundled.bytes.len(), plain.bytes.len());
    assert!(small * 3 < large, "{small} bytes instead of {large}");
    assert!(server.shutdown());
}
