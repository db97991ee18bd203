//! The Rust client against the real server: what an app may rely on, through cut cables, crashes and restarts.

use crate::{
    cable::Cable,
    identity::{guarded, token},
    process::Process,
    running::TestServer,
};
use automerge::{Automerge, AutomergeError, ChangeHash, ObjType, ROOT, ReadDoc, transaction::Transactable};
use bytes::Bytes;
use std::{
    future::Future,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use syncline::server::clock::Clock;
use syncline_client::{
    Client, ClientLimits, ConnectionStatus, DocHandle, DocumentStatus, Options, TokenSource, WaitError,
};
use syncline_protocol::native::{ClosedCode, RejectCode};
use tokio::time::{sleep, timeout};

/// No test waits longer in all: more than five times what any of them takes.
const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the app's side of a test.
fn run<T>(app: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(async { timeout(TEST_TIMEOUT, app).await.expect("the test does not hang") })
}

fn options(address: SocketAddr) -> Options {
    Options {
        limits: ClientLimits {
            backoff_max_ms: 500,
            ..ClientLimits::default()
        },
        ..Options::new(format!("ws://{address}"))
    }
}

/// One user's client, and its handle of a document that is ready.
async fn join(options: Options, document: &str) -> (Client, DocHandle) {
    let client = Client::connect(options).expect("a client");
    let handle = open(&client, document).await;
    (client, handle)
}

async fn open(client: &Client, document: &str) -> DocHandle {
    let handle = client.open(document.parse().expect("an id")).await.expect("it is open");
    handle.when_ready().await.expect("it is ready");
    handle
}

async fn put(handle: &DocHandle, key: &str, value: i64) {
    let key = key.to_owned();
    handle
        .change(move |tx| tx.put(ROOT, key, value))
        .await
        .expect("a change");
}

/// Types at the end of the text.
async fn append(handle: &DocHandle, text: &str) {
    let text = text.to_owned();
    let typed = handle.change(move |tx| {
        let object = match tx.get(ROOT, "text")? {
            Some((_, object)) => object,
            None => tx.put_object(ROOT, "text", ObjType::Text)?,
        };
        let end = tx.length(&object);
        tx.splice_text(&object, end, 0, &text)?;
        Ok::<_, AutomergeError>(())
    });
    typed.await.expect("a change");
}

async fn heads(handle: &DocHandle) -> Vec<ChangeHash> {
    handle.heads().await.expect("it is open")
}

/// Waits until the documents are the same and nobody waits for the server.
async fn converged(handles: &[&DocHandle]) {
    loop {
        let mut all = Vec::new();
        for handle in handles {
            handle.when_durable().await.expect("nothing is refused");
            all.push(heads(handle).await);
        }
        if all.windows(2).all(|pair| pair[0] == pair[1]) {
            return;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

async fn when_offline(client: &mut Client) {
    while !matches!(client.status(), ConnectionStatus::Offline { .. }) {
        client.status_changed().await.expect("it is open");
    }
}

/// A port outside the range from which the system picks, so that nobody takes it while a server is down.
fn quiet_address() -> SocketAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = u64::from(std::process::id()) % 5_000;
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let address: SocketAddr = format!("127.0.0.1:{port}").parse().expect("an address");
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

#[test]
fn two_clients_see_each_others_changes() {
    let server = TestServer::start("");
    run(async {
        let (anna, a) = join(options(server.address), "notes").await;
        let (_ben, mut b) = join(options(server.address), "notes").await;
        append(&a, "Hello").await;
        while heads(&b).await != heads(&a).await {
            b.changed().await.expect("it is open");
        }
        for round in 0..20 {
            put(&a, &format!("a{round}"), round).await;
            put(&b, &format!("b{round}"), round).await;
            append(if round % 2 == 0 { &a } else { &b }, "!").await;
        }
        converged(&[&a, &b]).await;
        assert_eq!((a.unacknowledged(), b.unacknowledged()), (0, 0));
        let read = |document: &Automerge| (document.length(ROOT), syncline_client::to_json(document));
        let (keys, json) = b.read(read).await.expect("it is open");
        assert_eq!(keys, 41);
        assert!(json.contains("Hello!!!!!!!!!!!!!!!!!!!!"), "{json}");
        anna.close().await;
    });
    assert!(server.shutdown());
}

#[test]
fn c5_c7_edits_on_both_sides_of_a_cut_cable_converge() {
    let server = TestServer::start("");
    let (near, far) = (Cable::to(server.address), Cable::to(server.address));
    run(async {
        let (mut anna, a) = join(options(near.address), "notes").await;
        let (mut ben, b) = join(options(far.address), "notes").await;
        append(&a, "both ").await;
        converged(&[&a, &b]).await;
        for round in 0..3 {
            near.cut();
            far.cut();
            when_offline(&mut anna).await;
            when_offline(&mut ben).await;
            for number in 0..30 {
                append(&a, "a").await;
                append(&b, "b").await;
                put(&b, "last", round * 100 + number).await;
            }
            assert_eq!((a.unacknowledged(), b.unacknowledged()), (30, 60));
            near.mend();
            far.mend();
            converged(&[&a, &b]).await;
        }
        let text = |document: &Automerge| match document.get(ROOT, "text") {
            Ok(Some((_, text))) => document.text(&text).unwrap_or_default(),
            _ => String::new(),
        };
        let text = a.read(text).await.expect("it is open");
        assert_eq!(text.len(), "both ".len() + 180, "{text}");
    });
}

#[test]
fn e4_kill_9_while_two_type_loses_nothing_and_they_come_back_by_themselves() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = quiet_address();
    let serve = || Process::serve_at(directory.path(), &address.to_string(), &[]);
    let mut process = serve();
    run(async {
        let (_anna, a) = join(options(address), "notes").await;
        let (_ben, b) = join(options(address), "notes").await;
        let mut acknowledged = Vec::new();
        for crash in 0..3 {
            for number in 0..60 {
                append(&a, "a").await;
                put(&b, &format!("{crash}-{number}"), number).await;
                if number == 20 {
                    a.when_durable().await.expect("acknowledged");
                    acknowledged.extend(heads(&a).await);
                }
                if number == 40 {
                    // In the middle of typing, with edits on their way.
                    process.kill();
                    process = serve();
                }
            }
        }
        converged(&[&a, &b]).await;
        assert_eq!((a.unacknowledged(), b.unacknowledged()), (0, 0));
        let (_carl, c) = join(options(address), "notes").await;
        assert_eq!(heads(&c).await, heads(&a).await);
        let all = c.doc().await.expect("it is open");
        assert!(
            acknowledged.iter().all(|hash| all.get_change_by_hash(hash).is_some()),
            "what was acknowledged is there"
        );
        let (_, text) = all.get(ROOT, "text").expect("a key").expect("a text");
        assert_eq!(all.text(&text).expect("a text"), "a".repeat(180));
        assert_eq!(
            all.length(ROOT),
            181,
            "what was not acknowledged was kept and sent again"
        );
        assert!(process.terminate().success());
    });
}

#[test]
fn c6_a_restart_is_told_and_clients_come_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = quiet_address();
    let serve = || Process::serve_at(directory.path(), &address.to_string(), &[]);
    let process = serve();
    run(async {
        let (mut anna, a) = join(options(address), "notes").await;
        let (_ben, b) = join(options(address), "notes").await;
        append(&a, "before ").await;
        converged(&[&a, &b]).await;
        assert!(process.terminate().success(), "a drain is a success");
        when_offline(&mut anna).await;
        append(&a, "meanwhile ").await;
        let process = serve();
        converged(&[&a, &b]).await;
        append(&b, "after").await;
        converged(&[&a, &b]).await;
        let json = a.read(syncline_client::to_json).await.expect("it is open");
        assert_eq!(json, r#"{"text":"before meanwhile after"}"#);
        assert!(process.terminate().success());
    });
}

#[test]
fn presence_is_seen_and_goes_with_the_connection_or_its_time() {
    let server = TestServer::start("[limits]\npresence_ttl_ms = 1000\n");
    let cable = Cable::to(server.address);
    run(async {
        let (anna, mut a) = join(options(server.address), "notes").await;
        let (_ben, mut b) = join(options(cable.address), "notes").await;
        let wait = async |handle: &mut DocHandle, expected: &[&[u8]]| loop {
            let others = handle.presence().others().await.expect("it is open");
            let states: Vec<_> = others.values().map(|other| &other.state[..]).collect();
            if states == expected {
                return;
            }
            handle.presence().changed().await.expect("it is open");
        };
        a.presence()
            .set(Bytes::from_static(b"line 1"))
            .await
            .expect("it is set");
        wait(&mut b, &[b"line 1"]).await;
        a.presence()
            .set(Bytes::from_static(b"line 2"))
            .await
            .expect("it is set");
        wait(&mut b, &[b"line 2"]).await;
        sleep(Duration::from_millis(2_500)).await;
        wait(&mut b, &[b"line 2"]).await;
        b.presence().set(Bytes::from_static(b"ben")).await.expect("it is set");
        wait(&mut a, &[b"ben"]).await;
        cable.cut();
        wait(&mut a, &[]).await;
        cable.mend();
        wait(&mut a, &[b"ben"]).await;
        wait(&mut b, &[b"line 2"]).await;
        a.presence().clear().await.expect("it is cleared");
        wait(&mut b, &[]).await;
        a.presence().set(Bytes::from_static(b"back")).await.expect("it is set");
        wait(&mut b, &[b"back"]).await;
        anna.close().await;
        wait(&mut b, &[]).await;
    });
}

#[test]
fn signals_reach_the_others_in_order() {
    let server = TestServer::start("");
    run(async {
        let (_anna, a) = join(options(server.address), "notes").await;
        let (_ben, b) = join(options(server.address), "notes").await;
        let mut signals = b.signals();
        for number in 0..10_u8 {
            a.signal(Bytes::from(vec![number])).await.expect("it is sent");
        }
        for number in 0..10_u8 {
            assert_eq!(&signals.next().await.expect("it is open").payload[..], [number]);
        }
    });
}

#[test]
fn o5_a_client_that_missed_a_thousand_edits_is_sent_those_alone() {
    let server = TestServer::start("[limits]\nedits_per_second = 100000\nedits_burst = 100000\n");
    let cable = Cable::to(server.address);
    run(async {
        let (_anna, a) = join(options(server.address), "notes").await;
        append(&a, &"A long text that was there before. ".repeat(5_000)).await;
        a.when_durable().await.expect("acknowledged");
        let (mut ben, b) = join(options(cable.address), "notes").await;
        converged(&[&a, &b]).await;
        let cold = cable.down_bytes();
        cable.cut();
        when_offline(&mut ben).await;
        for _ in 0..1_000 {
            append(&a, "x").await;
        }
        a.when_durable().await.expect("acknowledged");
        let before = cable.down_bytes();
        cable.mend();
        converged(&[&a, &b]).await;
        let missed = cable.down_bytes() - before;
        assert!(missed < 200_000, "{missed} bytes for 1,000 edits");
        assert!(missed > 1_000, "{missed} bytes, after a cold join of {cold}");
    });
}

#[test]
fn e17_a_refused_change_becomes_a_draft_and_the_client_goes_on() {
    let server = TestServer::start("[limits]\nnesting_depth_max = 4\n");
    run(async {
        let (_anna, a) = join(options(server.address), "notes").await;
        let (_ben, b) = join(options(server.address), "notes").await;
        put(&a, "good", 1).await;
        a.when_durable().await.expect("acknowledged");
        a.change(|tx| {
            let mut object = ROOT;
            for _ in 0..10 {
                object = tx.put_object(&object, "deeper", ObjType::Map)?;
            }
            Ok::<_, AutomergeError>(())
        })
        .await
        .expect("a change");
        assert_eq!(a.when_durable().await, Err(WaitError::Drafts(1)));
        let drafts = a.take_drafts().await.expect("it is open");
        assert_eq!((drafts.len(), &drafts[0].code), (1, &RejectCode::Limit));
        put(&a, "after", 2).await;
        converged(&[&a, &b]).await;
        let json = b.read(syncline_client::to_json).await.expect("it is open");
        assert_eq!(json, r#"{"after":2,"good":1}"#);
    });
}

#[test]
fn e12_actors_are_fresh_for_each_document_and_run() {
    let server = TestServer::start("");
    run(async {
        let (anna, first) = join(options(server.address), "first").await;
        let second = open(&anna, "second").await;
        let mut actors = std::collections::BTreeSet::new();
        let mut saved = None;
        for handle in [&first, &second] {
            put(handle, "key", 1).await;
            handle.when_durable().await.expect("acknowledged");
            saved = Some(handle.save().await.expect("it is open"));
        }
        anna.close().await;
        let again = Client::connect(options(server.address)).expect("a client");
        let document = "second".parse().expect("an id");
        let restored = again
            .restore(document, saved.expect("saved"))
            .await
            .expect("it is open");
        put(&restored, "key", 2).await;
        restored.when_durable().await.expect("acknowledged");
        let reader = open(&again, "first").await;
        for handle in [&restored, &reader] {
            let document = handle.doc().await.expect("it is open");
            let found = document.get_changes(&[]);
            actors.extend(found.iter().map(|change| change.actor_id().to_bytes().to_vec()));
        }
        assert_eq!(actors.len(), 3, "{actors:?}");
        assert!(actors.iter().all(|actor| actor.len() == 16), "{actors:?}");
    });
}

#[test]
fn many_documents_share_a_connection_up_to_the_limit() {
    let server = TestServer::start("[limits]\ndocuments_per_session_max = 40\n");
    run(async {
        let anna = Client::connect(options(server.address)).expect("a client");
        let ben = Client::connect(options(server.address)).expect("a client");
        let mut pairs = Vec::new();
        for number in 0..40 {
            let document = format!("many/{number}");
            pairs.push((open(&anna, &document).await, open(&ben, &document).await));
        }
        for (number, (a, b)) in pairs.iter().enumerate() {
            put(a, "from anna", number as i64).await;
            put(b, "from ben", number as i64).await;
        }
        for (a, b) in &pairs {
            converged(&[a, b]).await;
        }
        let beyond = anna.open("many/too".parse().expect("an id")).await.expect("it is open");
        match beyond.when_ready().await {
            Err(WaitError::Refused {
                code: ClosedCode::Limit,
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn c3_c4_what_the_server_refuses_for_good_is_told() {
    let server = guarded("");
    run(async {
        let wrong = Client::connect(Options {
            token: TokenSource::Fixed("nonsense".to_owned()),
            ..options(server.address)
        })
        .expect("a client");
        let handle = wrong.open("notes".parse().expect("an id")).await.expect("it is open");
        match handle.when_ready().await {
            Err(WaitError::Rejected { code: 4401, text }) => assert!(!text.is_empty()),
            other => panic!("{other:?}"),
        }
        let anna = Client::connect(Options {
            token: TokenSource::Fixed(token("anna", &[("mine", "write"), ("read", "read")], 600)),
            ..options(server.address)
        })
        .expect("a client");
        let theirs = anna.open("theirs".parse().expect("an id")).await.expect("it is open");
        match theirs.when_ready().await {
            Err(WaitError::Refused {
                code: ClosedCode::Forbidden,
                ..
            }) => {}
            other => panic!("{other:?}"),
        }
        let mine = open(&anna, "mine").await;
        put(&mine, "key", 1).await;
        mine.when_durable().await.expect("the other document goes on");
        let read = open(&anna, "read").await;
        assert!(
            matches!(read.status(), DocumentStatus::Live { .. }),
            "{:?}",
            read.status()
        );
        assert!(
            read.change(|tx| tx.put(ROOT, "key", 1)).await.is_err(),
            "a reader is told at once"
        );
    });
}

#[test]
fn h9_a_client_renews_its_token_on_the_live_connection() {
    let server = guarded("");
    let cable = Cable::to(server.address);
    let asked = Arc::new(AtomicU64::new(0));
    let counted = asked.clone();
    let source = TokenSource::function(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let token = token("anna", &[("**", "write")], 3);
        async move { Ok(token) }
    });
    run(async {
        let (mut anna, a) = join(
            Options {
                token: source,
                ..options(cable.address)
            },
            "notes",
        )
        .await;
        let begun = Clock::start();
        let mut number = 0;
        while begun.monotonic_ms() < 5_000 {
            put(&a, "number", number).await;
            a.when_durable().await.expect("acknowledged");
            number += 1;
            if let Ok(status) = timeout(Duration::from_millis(100), anna.status_changed()).await {
                assert_eq!(status, Ok(ConnectionStatus::Connected), "it never breaks");
            }
        }
        assert!((2..20).contains(&asked.load(Ordering::Relaxed)), "{asked:?}");
    });
}
