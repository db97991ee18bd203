//! Who may do what in the repo dialect: tokens at the upgrade, readers, peer ids.

use super::peer::{Ended, Peer, Replica};
use crate::{
    identity::{SECRET, guarded, token},
    running::{TestServer, counter},
};
use syncline::server::clock::Clock;
use syncline_protocol::{
    ChangeHash,
    repo::{PeerId, PeerMetadata, RepoMessage, encode_sync},
};

const LONG_S: i64 = 600;
/// What anything may take.
const SOON_MS: u64 = 30_000;

fn query(subject: &str, docs: &[(&str, &str)], seconds: i64) -> String {
    format!("?token={}", token(subject, docs, seconds))
}

fn said(end: &(Option<RepoMessage>, Ended)) -> Option<&str> {
    match &end.0 {
        Some(RepoMessage::Error { message, .. }) => Some(message),
        _ => None,
    }
}

#[test]
fn a3_without_a_good_token_the_connection_ends() {
    let server = guarded("");
    for query in ["", "?token=nonsense"] {
        let end = Peer::silent(server.address, "ada", query).hear_end();
        assert_eq!(end.1, Ended { code: Some(4401) }, "{query}");
        assert!(said(&end).is_some(), "{query}: the reason is said");
    }
    let mut ada = Peer::join(server.address, "ada", &query("ada", &[("**", "write")], 2));
    let end = ada.hear_end();
    assert_eq!(
        end.1,
        Ended { code: Some(4401) },
        "an expired token ends the connection"
    );
}

#[test]
fn a3_the_token_may_come_in_a_header_or_in_the_cookie_of_that_name() {
    let server = TestServer::start_with(&format!("[auth]\nsecret = '{SECRET}'\ncookie = 'session'\n"));
    let token = token("ada", &[("**", "write")], LONG_S);
    let bearer = format!("Bearer {token}");
    let cookie = format!("theme=dark; session={token}");
    for header in [("authorization", &bearer), ("cookie", &cookie)] {
        let mut ada = Peer::silent_with(server.address, header.0, "", Some((header.0, header.1)));
        ada.say_join();
        assert!(matches!(ada.hear(), Ok(RepoMessage::Peer { .. })), "{}", header.0);
    }
    let other = format!("other={token}");
    let end = Peer::silent_with(server.address, "bob", "", Some(("cookie", &other))).hear_end();
    assert_eq!(end.1, Ended { code: Some(4401) });
}

#[test]
fn a4_the_server_speaks_after_join_and_names_a_storage_that_lasts() {
    let server = TestServer::start("");
    let mut ada = Peer::silent(server.address, "ada", "");
    assert!(ada.hears_nothing());
    ada.say_join();
    let Ok(RepoMessage::Peer { sender, metadata, .. }) = ada.hear() else {
        panic!("no answer to join");
    };
    assert!(!metadata.is_ephemeral);
    assert_eq!(
        Some(sender.as_str()),
        metadata.storage_id.map(|id| format!("syncline-{id}")).as_deref()
    );
}

#[test]
fn a5_no_common_version_is_an_error_and_the_end() {
    let server = TestServer::start("");
    let mut ada = Peer::silent(server.address, "ada", "");
    ada.say(&RepoMessage::Join {
        sender: ada.id.clone(),
        metadata: PeerMetadata::default(),
        versions: Some(vec!["2".to_owned()]),
    });
    let end = ada.hear_end();
    assert_eq!(
        (said(&end), end.1.code),
        (Some("unsupported protocol version"), Some(4400))
    );
}

#[test]
fn a6_a_peer_id_belongs_to_one_connection_of_one_subject() {
    let server = guarded("");
    let ada = query("ada", &[("**", "write")], LONG_S);
    let mut first = Peer::join(server.address, "tab", &ada);
    let mut second = Peer::join(server.address, "tab", &ada);
    assert_eq!(
        first.hear_end().1,
        Ended { code: Some(1001) },
        "the later one replaces it"
    );
    let bob = query("bob", &[("**", "write")], LONG_S);
    let mut thief = Peer::silent(server.address, "tab", &bob);
    thief.say_join();
    assert_eq!(thief.hear_end().1, Ended { code: Some(4403) });
    let mut replica = Replica::new("still");
    replica.put(1, "ada", 1);
    second.sync(&mut replica);
    let server_id = second.server.expect("it answered to join");
    for taken in ["native-7", server_id.as_str()] {
        let mut liar = Peer::silent(server.address, taken, &bob);
        liar.say_join();
        assert_eq!(liar.hear_end().1, Ended { code: Some(4403) }, "{taken}");
    }
}

#[test]
fn a6_a_peer_id_is_free_once_its_connection_ended() {
    let server = guarded("");
    let (ada, bob) = (
        query("ada", &[("**", "write")], LONG_S),
        query("bob", &[("**", "write")], LONG_S),
    );
    drop(Peer::join(server.address, "tab", &ada));
    let clock = Clock::start();
    loop {
        let mut other = Peer::silent(server.address, "tab", &bob);
        other.say_join();
        match other.hear() {
            Ok(RepoMessage::Peer { .. }) => return,
            // The server has not seen the end of the former connection yet.
            Ok(RepoMessage::Error { .. }) => assert!(clock.monotonic_ms() < SOON_MS, "the id is never free"),
            heard => panic!("{heard:?}"),
        }
    }
}

#[test]
fn a7_without_a_grant_a_document_is_unavailable() {
    let server = guarded("");
    let mut ada = Peer::join(server.address, "ada", &query("ada", &[("mine/*", "write")], LONG_S));
    for name in ["theirs", "not a document id"] {
        let mut replica = Replica::new(name);
        replica.put(1, "ada", 1);
        ada.offer(&mut replica);
        let answer = ada.hear();
        assert!(matches!(answer, Ok(RepoMessage::DocUnavailable { document, .. }) if document == name));
    }
}

#[test]
fn a15_a_readers_changes_stay_with_him_and_he_goes_on_receiving() {
    let server = guarded("");
    let mut ada = Peer::join(server.address, "ada", &query("ada", &[("**", "write")], LONG_S));
    let mut bob = Peer::join(server.address, "bob", &query("bob", &[("**", "read")], LONG_S));
    let (mut mine, mut his) = (Replica::new("read"), Replica::new("read"));
    mine.put(1, "ada", 1);
    ada.sync(&mut mine);
    bob.sync_until(&mut his, |his| his.has("ada"));
    his.put(2, "bob", 2);
    his.put(2, "bob too", 2);
    bob.offer(&mut his);
    let counted_as = "syncline_edits_rejected_total{code=\"forbidden\"}";
    let begun = Clock::start();
    while counter(&server, counted_as) == 0.0 {
        assert!(begun.monotonic_ms() < SOON_MS, "the operator can see it");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(counter(&server, counted_as), 1.0, "a message counts once");
    mine.put(1, "more", 2);
    ada.sync(&mut mine);
    bob.sync_until(&mut his, |his| his.has("more"));
    let mut late = Replica::new("read");
    Peer::join(server.address, "eve", &query("eve", &[("**", "read")], LONG_S)).sync(&mut late);
    assert!(late.has("more") && !late.has("bob"));
}

#[test]
fn a6_a_message_in_anothers_name_is_dropped() {
    let server = TestServer::start("");
    let mut ada = Peer::join(server.address, "ada", "");
    let id = std::mem::replace(&mut ada.id, PeerId::new("bob").expect("a peer id"));
    let mut replica = Replica::new("named");
    ada.offer(&mut replica);
    assert!(ada.hears_nothing());
    ada.id = id;
    ada.offer(&mut Replica::new("named"));
    assert!(matches!(ada.hear(), Ok(RepoMessage::DocUnavailable { .. })));
}

#[test]
fn a20_a_silent_peer_is_pinged() {
    let server = TestServer::start("");
    let mut ada = Peer::join(server.address, "ada", "");
    assert!(ada.hears_a_ping());
}

#[test]
fn a21_a_connection_names_so_many_documents_and_no_more() {
    let server = TestServer::start("");
    let mut ada = Peer::join(server.address, "ada", "");
    let message = encode_sync(&[ChangeHash([7; 32])], std::iter::empty());
    for number in 0..=1_024 {
        ada.say_sync(&format!("document-{number}"), message.clone());
        let answer = ada.hear();
        match answer {
            Ok(RepoMessage::Sync(_)) => assert!(number < 1_024, "one more is not available"),
            Ok(RepoMessage::DocUnavailable { .. }) => assert_eq!(number, 1_024),
            other => panic!("{other:?}"),
        }
    }
}
