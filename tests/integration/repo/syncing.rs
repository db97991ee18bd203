//! Documents come together: new, late, behind, ahead, forgetful, beside native members.

use super::peer::{Peer, Replica};
use crate::{
    peer::{Peer as NativePeer, counted},
    running::TestServer,
};
use syncline_protocol::repo::RepoMessage;

#[test]
fn d4_a9_a11_two_peers_and_a_native_member_see_each_others_edits() {
    let server = TestServer::start("");
    let (mut ada, mut bob) = (
        Peer::join(server.address, "ada", ""),
        Peer::join(server.address, "bob", ""),
    );
    let (mut mine, mut his) = (Replica::new("shared"), Replica::new("shared"));
    mine.put(1, "ada", 1);
    ada.sync(&mut mine);
    bob.sync_until(&mut his, |his| his.has("ada"));

    let mut native = NativePeer::connect(server.address, None);
    let joined = native.open("shared", None);
    assert_eq!(joined.document().get_heads(), mine.document.get_heads());
    let (_, changes) = counted(9, 1);
    native.edit(joined.opened.room, 1, changes);
    native.hear_answer(1).expect("the edit is taken");
    ada.sync_until(&mut mine, |mine| mine.has("9-0"));
    bob.sync_until(&mut his, |his| his.has("9-0"));

    his.put(2, "bob", 2);
    bob.sync(&mut his);
    ada.sync_until(&mut mine, |mine| mine.has("bob"));
    assert_eq!(mine.document.get_heads(), his.document.get_heads());
    // The next diff is of the native member's own edit; then comes bob's.
    native.hear_diff();
    assert_eq!(native.hear_diff().runs.len(), 1);
}

#[test]
fn a8_a_request_for_an_absent_document_is_answered_once_and_then_by_the_document() {
    let server = TestServer::start("");
    let mut bob = Peer::join(server.address, "bob", "");
    let mut his = Replica::new("later");
    bob.offer(&mut his);
    assert!(matches!(bob.hear(), Ok(RepoMessage::DocUnavailable { document, .. }) if document == "later"));
    assert!(bob.hears_nothing(), "it is said once");
    let mut ada = Peer::join(server.address, "ada", "");
    let mut mine = Replica::new("later");
    mine.put(1, "ada", 1);
    ada.sync(&mut mine);
    bob.sync_until(&mut his, |his| his.has("ada"));
}

#[test]
fn a13_a_peer_that_was_away_gets_what_it_lacks_and_brings_what_it_made() {
    let server = TestServer::start("");
    let mut ada = Peer::join(server.address, "ada", "");
    let mut mine = Replica::new("away");
    for number in 0..200 {
        mine.put(1, &format!("before {number}"), number);
    }
    ada.sync(&mut mine);
    let mut his = Replica::new("away");
    let mut bob = Peer::join(server.address, "bob", "");
    bob.sync_until(&mut his, |his| his.has("before 199"));
    let whole = his.bytes_in;
    drop(bob);

    mine.put(1, "meanwhile", 1);
    ada.sync(&mut mine);
    his.put(2, "offline", 2);
    for state_is_kept in [true, false] {
        let mut again = if state_is_kept {
            his.reconnected()
        } else {
            his.forgetful()
        };
        let mut bob = Peer::join(server.address, "bob", "");
        bob.sync(&mut again);
        assert!(again.has("meanwhile") && again.has("offline"));
        if state_is_kept {
            assert!(again.bytes_in < whole / 10, "{} of {whole} bytes", again.bytes_in);
        }
        his = again;
        his.put(2, "offline again", 3);
    }
    ada.sync_until(&mut mine, |mine| mine.has("offline"));
}

#[test]
fn a12_a16_an_import_is_answered_once_and_an_empty_peer_gets_it_as_it_is_saved() {
    let server = TestServer::start("");
    let mut ada = Peer::join(server.address, "ada", "");
    let mut mine = Replica::new("long");
    for number in 0..6_000 {
        mine.put(1, "the same key", number);
    }
    ada.sync(&mut mine);
    assert!(mine.messages_in <= 3, "{} answers to one import", mine.messages_in);
    let log: usize = mine
        .document
        .get_changes(&[])
        .iter()
        .map(|change| change.raw_bytes().len())
        .sum();
    // The snapshot is made in the background once there are enough changes; some come behind it.
    loop {
        let mut late = Replica::new("long");
        Peer::join(server.address, "late", "").sync_until(&mut late, |late| late.has("the same key"));
        assert_eq!(late.document.get_heads(), mine.document.get_heads());
        if late.bytes_in < log / 3 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let mut old = Replica::old("long");
    Peer::join(server.address, "old", "").sync_until(&mut old, |old| old.has("the same key"));
    assert_eq!(old.document.get_heads(), mine.document.get_heads());
}
