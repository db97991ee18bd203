//! Who may do what: tokens over real sockets, from the first message to their end.

use crate::{
    peer::{Ended, Peer, counted, may_write},
    running::{TestServer, counter},
};
use bytes::Bytes;
use jsonwebtoken::{EncodingKey, Header};
use std::{collections::BTreeMap, thread::sleep, time::Duration};
use syncline::server::{clock::Clock, config::Config};
use syncline_protocol::native::{Capability, ClientMessage, ClosedCode, ServerMessage};

pub(crate) const SECRET: &str = "a secret of the tests that is long enough";
/// Seconds that nothing here outlives.
const LONG_S: i64 = 600;
/// What anything may take: five times the second that the rules name.
const SOON_MS: u64 = 5_000;

/// A server that asks for tokens; `limits` are lines of that table.
pub(crate) fn guarded(limits: &str) -> TestServer {
    TestServer::start_with(&format!("[auth]\nsecret = '{SECRET}'\n[limits]\n{limits}\n"))
}

/// A token of `subject` for documents, good for so many seconds.
pub(crate) fn token(subject: &str, docs: &[(&str, &str)], seconds: i64) -> String {
    signed(SECRET, subject, docs, seconds)
}

fn signed(secret: &str, subject: &str, docs: &[(&str, &str)], seconds: i64) -> String {
    let docs: serde_json::Map<_, _> = docs
        .iter()
        .map(|(pattern, access)| ((*pattern).to_owned(), (*access).into()))
        .collect();
    let now_s = i64::try_from(Clock::start().unix_ms() / 1_000).expect("a time of our days");
    let name = format!("{subject} the tester");
    let claims = serde_json::json!({ "sub": subject, "name": name, "exp": now_s + seconds, "docs": docs });
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token")
}

fn writer(server: &TestServer, subject: &str) -> Peer {
    Peer::connect(server.address, Some(&token(subject, &[("**", "write")], LONG_S)))
}

/// What the server says last, and how it closes.
fn hear_error(peer: &mut Peer) -> (Option<u16>, Ended) {
    let mut said = None;
    loop {
        match peer.hear() {
            Ok(ServerMessage::Error { code, .. }) => said = Some(code),
            Ok(_) => said = None,
            Err(ended) => return (said, ended),
        }
    }
}

fn closed_with(code: u16) -> (Option<u16>, Ended) {
    (Some(code), Ended { code: Some(code) })
}

#[test]
fn h7_h8_a_token_that_is_not_good_is_told_and_closed_with_4401() {
    let server = guarded("");
    let good = token("anna", &[("**", "write")], LONG_S);
    let (head, signature) = good.rsplit_once('.').expect("three parts");
    let mut witness = writer(&server, "witness");
    let room = witness.open("notes", None).opened.room;
    let wrong = [
        ("none", None),
        ("empty", Some(String::new())),
        ("no token", Some("anna".to_owned())),
        ("expired", Some(token("anna", &[("**", "write")], -10))),
        (
            "of another key",
            Some(signed(&SECRET.replace('a', "b"), "anna", &[("**", "write")], LONG_S)),
        ),
        ("without its signature", Some(format!("{head}."))),
        ("with a cut signature", Some(format!("{head}.{}", &signature[1..]))),
        ("too long", Some(format!("{head}{}.{signature}", "A".repeat(9_000)))),
    ];
    for (name, token) in wrong {
        let mut peer = Peer::silent(server.address);
        peer.hello(token.as_deref(), Vec::new());
        peer.ask("notes", None);
        let begun = Clock::start();
        match peer.hear() {
            Ok(ServerMessage::Error { code: 4401, .. }) => {}
            other => panic!("{name}: {other:?}"),
        }
        assert_eq!(peer.hear_end().code, Some(4401), "{name}");
        assert!(begun.monotonic_ms() < SOON_MS, "{name}");
    }
    assert!(witness.hear_all(room).is_empty(), "nobody else notices");
    let admitted = Peer::connect(server.address, Some(&good)).open("notes", None);
    assert!(may_write(&admitted));
}

#[test]
fn e11_a_readers_edit_is_rejected_and_nobody_sees_it() {
    let server = guarded("");
    let mut anna = writer(&server, "anna");
    let mut ben = Peer::connect(server.address, Some(&token("ben", &[("notes", "read")], LONG_S)));
    let room = anna.open("notes", None).opened.room;
    let joined = ben.open("notes", None);
    assert!(!may_write(&joined));
    let (_, theirs) = counted(2, 1);
    ben.edit(room, 1, theirs);
    assert_eq!(ben.hear_answer(1), Err("forbidden".into()));
    let counted_as = "syncline_edits_rejected_total{code=\"forbidden\"}";
    assert_eq!(counter(&server, counted_as), 1.0);
    let (document, ours) = counted(1, 1);
    anna.edit(room, 1, ours.clone());
    anna.hear_answer(1).expect("a writer's edit is taken");
    let diff = ben.hear_diff();
    assert_eq!(diff.runs[0].changes, ours, "the reader stays in the room");
    assert_eq!(diff.cursor.position.number(), 1, "nothing of the reader's entered");
    let joined = writer(&server, "carl").open("notes", None);
    assert_eq!(joined.document().get_heads(), document.get_heads());
}

#[test]
fn o3_p9_a_reader_waits_for_the_first_edit_and_may_show_itself_and_signal() {
    let server = guarded("");
    let mut ben = Peer::connect(server.address, Some(&token("ben", &[("notes", "read")], LONG_S)));
    let joined = ben.open("notes", None);
    assert_eq!(
        (joined.opened.cursor.position.number(), joined.opened.heads.len()),
        (0, 0)
    );
    let mut anna = writer(&server, "anna");
    let room = anna.open("notes", None).opened.room;
    let (_, changes) = counted(1, 1);
    anna.edit(room, 1, changes.clone());
    assert_eq!(ben.hear_diff().runs[0].changes, changes);

    let payload = Bytes::from_static(b"hello");
    ben.say(&ClientMessage::Signal {
        room,
        payload: payload.clone(),
    });
    ben.say(&ClientMessage::Presence {
        room,
        state: Some(payload.clone()),
    });
    let (mut signalled, mut shown) = (false, false);
    while !(signalled && shown) {
        match anna.hear().expect("both come") {
            ServerMessage::Signal {
                session, payload: p, ..
            } => signalled = session == ben.session && p == payload,
            ServerMessage::Presence { entries, .. } => {
                shown = entries
                    .iter()
                    .any(|entry| entry.session == ben.session && entry.state.as_ref() == Some(&payload));
            }
            _ => {}
        }
    }
}

#[test]
fn o2_a_forbidden_document_is_closed_whether_it_exists_or_not() {
    let server = guarded("");
    let mut anna = writer(&server, "anna");
    let room = anna.open("secret/there", None).opened.room;
    anna.edit(room, 1, counted(1, 1).1);
    anna.hear_answer(1).expect("acknowledged");
    let mut ben = Peer::connect(server.address, Some(&token("ben", &[("notes", "write")], LONG_S)));
    let mut answer = |document: &str| {
        ben.ask(document, None);
        match ben.hear().expect("an answer") {
            ServerMessage::Closed {
                room,
                document: named,
                code,
                text,
            } => {
                assert_eq!((room, named.as_str()), (None, document));
                (code, text)
            }
            other => panic!("{document}: {other:?}"),
        }
    };
    let there = answer("secret/there");
    assert_eq!(there.0, ClosedCode::Forbidden);
    assert_eq!(answer("secret/nowhere"), there);
    assert!(
        may_write(&ben.open("notes", None)),
        "the connection and its other documents go on"
    );
}

#[test]
fn h12_h9_a_connection_ends_with_its_token_unless_a_new_one_came() {
    let server = guarded("");
    let docs = [("**", "write")];
    let begun = Clock::start();
    let mut leaving = Peer::connect(server.address, Some(&token("anna", &docs, 2)));
    let mut staying = Peer::connect(server.address, Some(&token("anna", &docs, 2)));
    let room = staying.open("notes", None).opened.room;
    staying.say(&ClientMessage::Auth {
        token: token("anna", &docs, LONG_S),
    });
    assert!(
        staying.hear_all(room).is_empty(),
        "a new token has no answer of its own"
    );
    assert_eq!(hear_error(&mut leaving), closed_with(4401));
    let ended_ms = begun.monotonic_ms();
    assert!((900..2_000 + SOON_MS).contains(&ended_ms), "{ended_ms} ms");
    sleep(Duration::from_millis(2_200_u64.saturating_sub(ended_ms)));
    staying.edit(room, 1, counted(1, 1).1);
    staying.hear_answer(1).expect("the renewed connection lives");
}

#[test]
fn h10_h11_a_new_token_that_is_wrong_or_anothers_closes_the_connection() {
    let server = guarded("");
    let docs = [("**", "write")];
    let cases = [
        ("nonsense".to_owned(), 4401),
        (token("anna", &docs, -10), 4401),
        ("A".repeat(9_000), 4401),
        (token("ben", &docs, LONG_S), 4403),
    ];
    for (token, code) in cases {
        let mut anna = writer(&server, "anna");
        anna.open("notes", None);
        anna.say(&ClientMessage::Auth { token });
        assert_eq!(hear_error(&mut anna), closed_with(code));
    }
}

#[test]
fn h13_what_a_new_token_no_longer_grants_is_closed_or_read_only() {
    let server = guarded("");
    let mut anna = writer(&server, "anna");
    let mut ben = writer(&server, "ben");
    let [kept, demoted, lost] = ["kept", "demoted", "lost"].map(|document| {
        ben.open(document, None);
        anna.open(document, None).opened.room
    });
    let docs = [("kept", "write"), ("demoted", "read")];
    anna.say(&ClientMessage::Auth {
        token: token("anna", &docs, LONG_S),
    });
    match anna.hear().expect("an answer") {
        ServerMessage::Closed {
            room, document, code, ..
        } => {
            assert_eq!(
                (room, document.as_str(), code),
                (Some(lost), "lost", ClosedCode::Forbidden)
            );
        }
        other => panic!("{other:?}"),
    }
    anna.edit(lost, 1, counted(1, 1).1);
    assert_eq!(anna.hear_answer(1), Err("not_open".into()));
    anna.edit(demoted, 2, counted(1, 1).1);
    assert_eq!(anna.hear_answer(2), Err("forbidden".into()));
    ben.edit(lost, 1, counted(2, 1).1);
    ben.hear_answer(1).expect("others go on");
    assert!(anna.hear_all(kept).is_empty(), "nothing more comes of what was lost");
    anna.edit(kept, 3, counted(1, 1).1);
    anna.hear_answer(3).expect("what is still granted goes on");
}

#[test]
fn l6_one_connection_of_a_subject_too_many_is_closed_with_1013() {
    let server = guarded("sessions_per_subject_max = 2");
    let _first = writer(&server, "anna");
    let second = writer(&server, "anna");
    let connect = |subject: &str| {
        let mut peer = Peer::silent(server.address);
        peer.hello(Some(&token(subject, &[("**", "write")], LONG_S)), Vec::new());
        match peer.hear() {
            Ok(ServerMessage::Welcome(_)) => None,
            _ => Some(peer.hear_end()),
        }
    };
    assert_eq!(connect("anna"), Some(Ended { code: Some(1013) }));
    assert_eq!(connect("ben"), None, "another subject has places of its own");
    drop(second);
    let begun = Clock::start();
    while connect("anna").is_some() {
        assert!(
            begun.monotonic_ms() < SOON_MS,
            "a place becomes free when its connection ends"
        );
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn h7_a_rotated_key_is_taken_over_and_a_broken_one_is_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("secret");
    let write = |secret: &str| std::fs::write(&file, secret).expect("a file");
    write(SECRET);
    let server = TestServer::start_with(&format!(
        "[[auth.keys]]\nkid = 'app'\nalg = 'HS256'\nsecret_file = '{}'\n",
        file.display()
    ));
    check_rotation(&server, write);
}

#[test]
fn h7_a_key_in_the_configuration_is_rotated_like_one_in_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("syncline.toml");
    let data = directory.path().join("data").display().to_string();
    let write = |secret: &str| {
        let text = format!("listen = '127.0.0.1:0'\ndata = '{data}'\nauth.secret = '{secret}'\n");
        // At once, as an editor does: half of it would be another error.
        let written = directory.path().join("written");
        std::fs::write(&written, text).expect("a file");
        std::fs::rename(&written, &file).expect("a file");
    };
    write(SECRET);
    let config = Config::load(Some(&file), &BTreeMap::new(), &[]).expect("a configuration");
    let place = tempfile::tempdir().expect("a directory");
    check_rotation(&TestServer::start_as(config, place), write);
}

/// Has `write` give another secret, a bad one first.
fn check_rotation(server: &TestServer, write: impl Fn(&str)) {
    let code = |secret: &str| {
        let mut peer = Peer::silent(server.address);
        peer.hello(Some(&signed(secret, "anna", &[("**", "write")], LONG_S)), Vec::new());
        match peer.hear() {
            Ok(ServerMessage::Welcome(_)) => None,
            _ => peer.hear_end().code,
        }
    };
    let wait_for = |metric: &str| {
        let begun = Clock::start();
        while !server.get("/metrics").contains(metric) {
            assert!(begun.monotonic_ms() < 60_000, "{metric}");
            sleep(Duration::from_millis(50));
        }
    };
    const NEXT: &str = "the next secret, which has more than 32 bytes";
    let mut anna = writer(server, "anna");
    assert_eq!((code(SECRET), code(NEXT)), (None, Some(4401)));

    write("too short");
    server.server().reload();
    wait_for("syncline_reloads_total{what=\"Keys\",outcome=\"Failed\"} 1\n");
    assert_eq!(code(SECRET), None, "the old key stays");

    write(NEXT);
    wait_for("syncline_reloads_total{what=\"Keys\",outcome=\"Done\"} 1\n");
    assert_eq!((code(SECRET), code(NEXT)), (Some(4401), None));
    anna.open("notes", None);
}

#[test]
fn e13_an_actor_belongs_to_the_subject_that_first_wrote_with_it() {
    let server = guarded("");
    let (mut anna, mut ben) = (writer(&server, "anna"), writer(&server, "ben"));
    let room = anna.open("notes", None).opened.room;
    ben.open("notes", None);
    let (_, changes) = counted(1, 4);
    anna.edit(room, 1, changes[..2].to_vec());
    anna.hear_answer(1).expect("acknowledged");
    ben.edit(room, 1, changes[2..3].to_vec());
    assert_eq!(ben.hear_answer(1), Err("foreign_actor".into()));
    ben.edit(room, 2, counted(2, 1).1);
    ben.hear_answer(2).expect("under an actor of its own it may write");
    let mut again = writer(&server, "anna");
    again.open("notes", None);
    again.edit(room, 1, changes[2..].to_vec());
    again
        .hear_answer(1)
        .expect("the same subject on another connection may go on");
}

#[test]
fn d3_grants_are_by_pattern_and_byte_by_byte() {
    let server = guarded("");
    let docs = [
        ("team/*", "read"),
        ("team/notes", "write"),
        ("logs/**", "read"),
        ("mine/**", "write"),
        ("Exact", "write"),
    ];
    let mut anna = Peer::connect(server.address, Some(&token("anna", &docs, LONG_S)));
    let mut check = |document: &str, expected: &str| {
        anna.ask(document, None);
        let mut access = None;
        loop {
            match anna.hear().expect("an answer") {
                ServerMessage::Opened(opened) => access = Some(opened.access as u8),
                ServerMessage::Part(part) if part.end.is_some() => break,
                ServerMessage::Closed { code, .. } => {
                    assert_eq!(code, ClosedCode::Forbidden, "{document}");
                    break;
                }
                _ => {}
            }
        }
        let found = access.map_or("none", |access| ["read", "write"][usize::from(access)]);
        assert_eq!(found, expected, "{document}");
    };
    check("team/notes", "write");
    check("team/plan", "read");
    check("team/a/b", "none");
    check("team", "none");
    check("teams/plan", "none");
    check("logs/a", "read");
    check("logs/a/b/c", "read");
    check("mine/x", "write");
    check("mine/x/y", "write");
    check("Exact", "write");
    check("exact", "none");
    check("Exact2", "none");
}

#[test]
fn p7_p8_presence_names_who_the_token_says_and_all_are_sent_the_same() {
    let server = guarded("");
    let (mut anna, mut ben) = (writer(&server, "anna"), writer(&server, "ben"));
    let room = anna.open("notes", None).opened.room;
    ben.open("notes", None);
    anna.say(&ClientMessage::Presence {
        room,
        state: Some(Bytes::from_static(b"I am ben")),
    });
    let entries = |peer: &mut Peer| loop {
        if let ServerMessage::Presence { entries, .. } = peer.hear().expect("presence comes") {
            break entries;
        }
    };
    let (own, others) = (entries(&mut anna), entries(&mut ben));
    assert_eq!(own, others);
    assert_eq!(
        (&*others[0].subject, others[0].name.as_deref()),
        ("anna", Some("anna the tester"))
    );
    assert_eq!(others[0].session, anna.session);
}

#[test]
fn v4_welcome_names_only_what_both_know() {
    let server = guarded("");
    let check = |offered: Vec<Capability>, expected: Vec<Capability>| {
        let mut peer = Peer::silent(server.address);
        peer.hello(Some(&token("anna", &[("**", "write")], LONG_S)), offered);
        assert_eq!(peer.hear_welcome().capabilities, expected);
    };
    check(Vec::new(), Vec::new());
    check(vec![Capability::from("juggling")], Vec::new());
    check(
        vec![Capability::from("juggling"), Capability::Deflate],
        vec![Capability::Deflate],
    );
}
