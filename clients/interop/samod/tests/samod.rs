//! samod's clients through the server: both ways, late, over a restart, beside the native client, long and many documents,
//! ephemeral messages.
//!
//! The server is the binary that `SYNCLINE_BIN` names, else the debug build; everything is on loopback.

use automerge::{Automerge, ObjType, ROOT, ReadDoc, transaction::Transactable};
use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use samod::{BackoffConfig, DialError, Dialer, DocHandle, PeerId, Repo, Transport};
use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep},
};
use tokio_tungstenite::tungstenite::{Error, Message};
use url::Url;

/// Longer than anything takes on a machine ten times slower.
const PATIENCE: Duration = Duration::from_secs(120);

struct Server {
    binary: String,
    directory: TempDir,
    port: u16,
    child: Child,
}

impl Server {
    async fn start() -> Self {
        let binary = std::env::var("SYNCLINE_BIN")
            .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/debug/syncline").to_owned());
        let directory = tempfile::tempdir().expect("a directory");
        let (child, port) = run(&binary, &directory, 0).await;
        Self { binary, directory, port, child }
    }

    async fn run_again(&mut self) {
        (self.child, self.port) = run(&self.binary, &self.directory, self.port).await;
    }

    fn url(&self) -> Url {
        format!("ws://127.0.0.1:{}/sync", self.port).parse().expect("a URL")
    }

    async fn client(&self) -> Repo {
        let repo = Repo::build_tokio().load().await;
        self.dial(&repo).await;
        repo
    }

    /// A client of this name, which does not come back when its connection ends.
    async fn client_that_stays_away(&self, name: &str) -> Repo {
        let repo = Repo::build_tokio().with_peer_id(PeerId::from_string(name.to_owned())).load().await;
        self.dial(&repo).await.store(true, Ordering::Relaxed);
        repo
    }

    /// Connects, again and again until what it answers with is set.
    async fn dial(&self, repo: &Repo) -> Arc<AtomicBool> {
        let backoff = BackoffConfig {
            max_delay: Duration::from_millis(500),
            ..BackoffConfig::default()
        };
        let stays_away = Arc::<AtomicBool>::default();
        let dialer = WebSocket { url: self.url(), stays_away: stays_away.clone() };
        let dialed = repo.dial(backoff, Arc::new(dialer)).expect("it is not stopped");
        dialed.established().await.expect("the server answers");
        stays_away
    }
}

async fn run(binary: &str, directory: &TempDir, port: u16) -> (Child, u16) {
    let mut child = Command::new(binary)
        .args(["serve", "--dev", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the server's binary, built by `cargo build`");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    while let Some(line) = lines.next_line().await.expect("what it prints") {
        if let Some(address) = line.strip_prefix("listening on http://127.0.0.1:") {
            return (child, address.parse().expect("a port"));
        }
    }
    panic!("{binary} ended before it listened");
}

/// A way to the server. samod's own brings a TLS library along.
struct WebSocket {
    url: Url,
    stays_away: Arc<AtomicBool>,
}

impl Dialer for WebSocket {
    type Error = Infallible;

    fn url(&self) -> Url {
        self.url.clone()
    }

    fn connect(&self) -> Pin<Box<dyn Future<Output = Result<Transport, DialError<Infallible>>> + Send>> {
        let (url, stays_away) = (self.url.to_string(), self.stays_away.load(Ordering::Relaxed));
        Box::pin(async move {
            if stays_away {
                return future::pending().await;
            }
            let (socket, _) = tokio_tungstenite::connect_async(url).await.map_err(DialError::transient)?;
            let (sink, stream) = socket.split();
            let stream = stream.try_filter_map(|message| {
                future::ready(Ok::<_, Error>(match message {
                    Message::Binary(bytes) => Some(bytes.to_vec()),
                    _ => None,
                }))
            });
            let sink = sink.with(|bytes: Vec<u8>| future::ready(Ok::<_, Error>(Message::Binary(bytes.into()))));
            Ok(Transport::new(stream, sink))
        })
    }
}

fn put(handle: &DocHandle, key: &str) {
    handle.with_document(|document| {
        let mut transaction = document.transaction();
        transaction.put(ROOT, key, true).expect("a put");
        transaction.commit();
    });
}

fn has(handle: &DocHandle, keys: &[&str]) -> bool {
    handle.with_document(|document| keys.iter().all(|key| document.get(ROOT, *key).is_ok_and(|value| value.is_some())))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn find(repo: &Repo, handle: &DocHandle) -> DocHandle {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = repo.find(handle.document_id().clone()).await.expect("it is not stopped") {
            return found;
        }
        assert!(Instant::now() < deadline, "the document is never found");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_converge_both_ways_and_a_third_joins_late() {
    let server = Server::start().await;
    let (ada, bob) = (server.client().await, server.client().await);
    let mine = ada.create(Automerge::new()).await.expect("it is not stopped");
    put(&mine, "ada");
    let his = find(&bob, &mine).await;
    until("bob has ada's", || has(&his, &["ada"])).await;
    put(&his, "bob");
    put(&mine, "ada again");
    let all = ["ada", "ada again", "bob"];
    until("ada has all", || has(&mine, &all)).await;
    until("bob has all", || has(&his, &all)).await;
    let eve = server.client().await;
    let late = find(&eve, &mine).await;
    until("eve has all", || has(&late, &all)).await;
    put(&late, "eve");
    until("ada has eve's", || has(&mine, &["eve"])).await;
    is_watched(&server, &mine, "\"eve\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_the_server_is_away_comes_together() {
    let mut server = Server::start().await;
    let (ada, bob) = (server.client().await, server.client().await);
    let mine = ada.create(Automerge::new()).await.expect("it is not stopped");
    put(&mine, "ada");
    let his = find(&bob, &mine).await;
    until("bob has ada's", || has(&his, &["ada"])).await;
    server.child.kill().await.expect("it was running");
    put(&mine, "ada offline");
    put(&his, "bob offline");
    server.run_again().await;
    let all = ["ada", "ada offline", "bob offline"];
    until("ada has all", || has(&mine, &all)).await;
    until("bob has all", || has(&his, &all)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_and_an_absent_one() {
    let server = Server::start().await;
    let (ada, bob) = (server.client().await, server.client().await);
    let mut long = Automerge::new();
    for number in 0..2_000 {
        let mut transaction = long.transaction();
        transaction.put(ROOT, format!("{number}"), number).expect("a put");
        transaction.commit();
    }
    let mine = ada.create(long).await.expect("it is not stopped");
    let his = find(&bob, &mine).await;
    until("bob has all of it", || has(&his, &["0", "1999"])).await;
    let nobodys = "2j9knpCseyhnK8izDmLpGP5WMdZQ".parse().expect("a document id");
    assert!(bob.find(nobodys).await.expect("it is not stopped").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_of_260_000_operations_goes_on_being_written() {
    let server = Server::start().await;
    let (ada, bob) = (server.client().await, server.client().await);
    let mut long = Automerge::new();
    let mut transaction = long.transaction();
    let text = transaction.put_object(ROOT, "text", ObjType::Text).expect("a text");
    transaction.commit();
    for number in 0..260 {
        let mut transaction = long.transaction();
        transaction.splice_text(&text, number, 0, &"x".repeat(1_000)).expect("a splice");
        transaction.commit();
    }
    let mine = ada.create(long).await.expect("it is not stopped");
    let his = find(&bob, &mine).await;
    until("bob has all of it", || his.with_document(|document| document.length(&text) == 260_000)).await;
    put(&his, "bob");
    until("ada has bob's", || has(&mine, &["bob"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_documents_at_once() {
    let server = Server::start().await;
    let (ada, bob) = (server.client().await, server.client().await);
    let mut mine = Vec::new();
    for _ in 0..50 {
        let handle = ada.create(Automerge::new()).await.expect("it is not stopped");
        put(&handle, "ada");
        mine.push(handle);
    }
    let his = future::join_all(mine.iter().map(|handle| find(&bob, handle))).await;
    his.iter().for_each(|handle| put(handle, "bob"));
    until("ada has all of bob's", || mine.iter().all(|handle| has(handle, &["bob"]))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_messages_reach_the_other() {
    let server = Server::start().await;
    let (ada, bob) = (server.client().await, server.client().await);
    let mine = ada.create(Automerge::new()).await.expect("it is not stopped");
    put(&mine, "ada");
    let his = find(&bob, &mine).await;
    let mut heard = his.ephemera();
    let wave = b"\xa1\x64wave\x01".to_vec();
    let mut echoes = mine.ephemera();
    mine.broadcast(wave.clone());
    assert_eq!(tokio::time::timeout(PATIENCE, heard.next()).await, Ok(Some(wave)));
    let nod = b"\xa1\x63nod\x01".to_vec();
    his.broadcast(nod.clone());
    // The first that ada hears is bob's, not her own.
    assert_eq!(tokio::time::timeout(PATIENCE, echoes.next()).await, Ok(Some(nod)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_second_socket_with_one_peer_id_takes_the_first_ones_place() {
    let server = Server::start().await;
    let first = server.client_that_stays_away("one-tab").await;
    let mine = first.create(Automerge::new()).await.expect("it is not stopped");
    put(&mine, "first");
    let bob = server.client().await;
    let his = find(&bob, &mine).await;
    until("bob has the first one's", || has(&his, &["first"])).await;

    let second = server.client_that_stays_away("one-tab").await;
    until("the first one's connection ends", || first.connected_peers().0.is_empty()).await;
    let place = find(&second, &mine).await;
    put(&place, "second");
    until("bob has the second one's", || has(&his, &["second"])).await;
    put(&his, "bob");
    until("the second one has bob's", || has(&place, &["first", "second", "bob"])).await;
    assert!(!has(&mine, &["second"]) && !has(&mine, &["bob"]), "the first one is told nothing more");
}

/// The native client, of the binary, prints the document with this text in it.
async fn is_watched(server: &Server, handle: &DocHandle, text: &str) {
    let mut child = Command::new(&server.binary)
        .args(["watch", &format!("http://127.0.0.1:{}", server.port), &handle.document_id().to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the native client");
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let found = async {
        while let Some(line) = lines.next_line().await.expect("what it prints") {
            if line.contains(text) {
                return;
            }
        }
        panic!("it ended");
    };
    tokio::time::timeout(PATIENCE, found).await.expect("the native client sees the document");
}
