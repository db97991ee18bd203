//! The shell over real sockets, against a small server around the model of the core's tests.

use crate::core::tests::server::{Outgoing, Server};
use crate::*;
use automerge::{ObjType, ROOT, ReadDoc, transaction::Transactable};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use syncline_protocol::native::{ClientMessage, ServerMessage, decode_client};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    Message,
    handshake::server::{ErrorResponse, Request, Response},
    protocol::CloseFrame,
};

/// Generous: nothing here should take a tenth of it.
const SOON: Duration = Duration::from_secs(20);

/// A WebSocket server around the model.
#[derive(Clone)]
struct Fake {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

#[derive(Default)]
struct State {
    model: Server,
    sessions: BTreeMap<SessionId, mpsc::Sender<Message>>,
    /// The token that is let in, if one is asked for.
    token: Option<String>,
    /// Nothing is acknowledged while this is set.
    disk_is_slow: bool,
    /// The close codes that clients sent.
    closes: Vec<Option<u16>>,
}

impl State {
    fn route(&mut self, frames: Vec<Outgoing>) {
        for (session, frame) in frames {
            if let Some(sender) = self.sessions.get(&session) {
                sender.try_send(Message::Binary(frame)).unwrap();
            }
        }
    }

    fn sync(&mut self) {
        let mut frames = Vec::new();
        self.model.sync(&mut frames);
        self.route(frames);
    }
}

impl Fake {
    async fn start() -> Self {
        let fake = Self::bind().await;
        fake.0.serve(fake.1, |stream| async { stream });
        fake.0
    }

    async fn bind() -> (Self, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (
            Self {
                state: Arc::default(),
                address,
            },
            listener,
        )
    }

    fn serve<S, F>(&self, listener: TcpListener, wrap: impl Fn(tokio::net::TcpStream) -> F + Send + Sync + 'static)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Future<Output = S> + Send + 'static,
    {
        let state = self.state.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, stream) = (state.clone(), wrap(stream));
                tokio::spawn(async move { connection(state, stream.await).await });
            }
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    fn text(&self, document: &DocumentId) -> String {
        text_of(&self.state().model.document(document))
    }

    /// All connections break without a word.
    fn cut(&self) {
        self.state().sessions.clear();
    }

    fn disk_is_slow(&self, slow: bool) {
        let mut state = self.state();
        state.disk_is_slow = slow;
        if !slow {
            state.sync();
        }
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(state: Arc<Mutex<State>>, stream: S) {
    #[allow(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let select = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        assert_eq!(request.uri().path(), "/sync");
        let offered = request.headers()["sec-websocket-protocol"].clone();
        assert_eq!(offered, syncline_protocol::SUBPROTOCOL);
        response.headers_mut().insert("sec-websocket-protocol", offered);
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, select).await.unwrap();
    let (sender, mut outgoing) = mpsc::channel(100_000);
    let session = {
        let mut state = state.lock().unwrap();
        let session = state.model.accept();
        state.sessions.insert(session, sender);
        session
    };
    loop {
        tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => {
                    let last = message.is_close();
                    if socket.send(message).await.is_err() || last {
                        break;
                    }
                }
                None => break,
            },
            message = socket.next() => match message {
                Some(Ok(Message::Binary(frame))) => received(&mut state.lock().unwrap(), session, &frame),
                Some(Ok(Message::Close(frame))) => {
                    state.lock().unwrap().closes.push(frame.map(|frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
        }
    }
    let mut state = state.lock().unwrap();
    state.sessions.remove(&session);
    state.model.disconnect(session);
}

fn received(state: &mut State, session: SessionId, frame: &Bytes) {
    if let ClientMessage::Hello(hello) = decode_client(frame).unwrap()
        && state.token.is_some()
        && hello.token != state.token
    {
        let sender = state.sessions[&session].clone();
        let error = ServerMessage::Error {
            code: 4401,
            text: "the token is not good".to_owned(),
        };
        sender.try_send(Message::Binary(error.encode())).unwrap();
        let close = CloseFrame {
            code: 4401.into(),
            reason: "".into(),
        };
        sender.try_send(Message::Close(Some(close))).unwrap();
        return;
    }
    let mut frames = Vec::new();
    state.model.receive(session, frame, &mut frames);
    state.route(frames);
    if !state.disk_is_slow {
        state.sync();
    }
}

fn text_of(document: &automerge::Automerge) -> String {
    match document.get(ROOT, "text").unwrap() {
        Some((_, object)) => document.text(object).unwrap(),
        None => String::new(),
    }
}

fn id(text: &str) -> DocumentId {
    text.parse().unwrap()
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.expect("it takes too long")
}

async fn append(handle: &DocHandle, text: &'static str) {
    let changed = handle.change(move |tx| {
        let object = match tx.get(ROOT, "text")? {
            Some((_, object)) => object,
            None => tx.put_object(ROOT, "text", ObjType::Text)?,
        };
        let end = tx.length(&object);
        tx.splice_text(&object, end, 0, text)
    });
    assert!(changed.await.unwrap().hash.is_some());
}

async fn open(fake: &Fake, document: &DocumentId) -> (Client, DocHandle) {
    let client = Client::connect(Options::new(fake.url())).unwrap();
    let handle = client.open(document.clone()).await.unwrap();
    soon(handle.when_ready()).await.unwrap();
    (client, handle)
}

async fn until_text(handle: &mut DocHandle, expected: &str) {
    let wait = async {
        while text_of(&handle.doc().await.unwrap()) != expected {
            handle.changed().await.unwrap();
        }
    };
    soon(wait).await;
}

#[tokio::test]
async fn two_clients_see_each_other() {
    let (fake, document) = (Fake::start().await, id("team/notes"));
    let (alice, mut a) = open(&fake, &document).await;
    append(&a, "hello ").await;
    soon(a.when_durable()).await.unwrap();
    assert_eq!((a.unacknowledged(), fake.text(&document).as_str()), (0, "hello "));
    let (_bob, mut b) = open(&fake, &document).await;
    until_text(&mut b, "hello ").await;
    append(&b, "you").await;
    until_text(&mut a, "hello you").await;
    assert_eq!(a.heads().await.unwrap(), b.heads().await.unwrap());
    assert_eq!(alice.status(), ConnectionStatus::Connected);
    soon(alice.close()).await;
    assert_eq!(a.read(|_| ()).await, Err(Closed));
    assert_eq!(fake.state().closes, [Some(1000)], "C8");
}

#[tokio::test]
async fn durable_waits_for_the_ack() {
    let (fake, document) = (Fake::start().await, id("notes"));
    let (_client, handle) = open(&fake, &document).await;
    fake.disk_is_slow(true);
    append(&handle, "a").await;
    assert_eq!(handle.unacknowledged(), 1);
    assert!(
        timeout(Duration::from_millis(200), handle.when_durable())
            .await
            .is_err()
    );
    fake.disk_is_slow(false);
    soon(handle.when_durable()).await.unwrap();
    assert_eq!(handle.state().safety, Safety::Durable);
}

#[tokio::test]
async fn what_is_changed_offline_arrives_after_the_reconnect() {
    let (fake, document) = (Fake::start().await, id("notes"));
    let (mut client, handle) = open(&fake, &document).await;
    client.status_changed().await.unwrap();
    for word in ["one ", "two ", "three "] {
        fake.cut();
        append(&handle, word).await;
    }
    soon(handle.when_durable()).await.unwrap();
    assert_eq!(fake.text(&document), "one two three ");
}

#[tokio::test]
async fn c4_a_token_function_is_asked_once_more_and_then_the_client_stops() {
    let (fake, document) = (Fake::start().await, id("notes"));
    fake.state().token = Some("token 2".to_owned());
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    let token = TokenSource::function(move || {
        let mut count = counted.lock().unwrap();
        *count += 1;
        let token = format!("token {count}");
        async move { Ok(token) }
    });
    let client = Client::connect(Options {
        token,
        ..Options::new(fake.url())
    })
    .unwrap();
    let handle = client.open(document.clone()).await.unwrap();
    soon(handle.when_ready()).await.unwrap();
    assert_eq!(*count.lock().unwrap(), 2);

    fake.state().token = Some("never".to_owned());
    fake.cut();
    append(&handle, "kept").await;
    let rejected = soon(handle.when_durable()).await;
    assert_eq!(
        rejected,
        Err(WaitError::Rejected {
            code: 4401,
            text: "the token is not good".to_owned()
        })
    );
    assert_eq!(handle.unacknowledged(), 1);

    let fixed = Options {
        token: TokenSource::Fixed("wrong".to_owned()),
        ..Options::new(fake.url())
    };
    let other = Client::connect(fixed).unwrap();
    let refused = other.open(document).await.unwrap();
    assert!(matches!(
        soon(refused.when_ready()).await,
        Err(WaitError::Rejected { code: 4401, .. })
    ));
}

#[tokio::test]
async fn presence_and_signals_reach_the_others() {
    let (fake, document) = (Fake::start().await, id("notes"));
    let (_alice, mut a) = open(&fake, &document).await;
    let (_bob, mut b) = open(&fake, &document).await;
    a.presence().set(Bytes::from_static(b"here")).await.unwrap();
    soon(b.presence().changed()).await.unwrap();
    let others = b.presence().others().await.unwrap();
    assert_eq!(
        others.values().map(|other| &other.state[..]).collect::<Vec<_>>(),
        [b"here"]
    );
    assert!(a.presence().others().await.unwrap().is_empty(), "P8");
    a.presence().clear().await.unwrap();
    soon(b.presence().changed()).await.unwrap();
    assert!(b.presence().others().await.unwrap().is_empty());

    let mut signals = a.signals();
    b.signal(Bytes::from_static(b"knock")).await.unwrap();
    assert_eq!(&soon(signals.next()).await.unwrap().payload[..], b"knock");

    let large = Bytes::from(vec![0; 5_000]);
    let refused = Err(SendError::TooLarge {
        found: 5_000,
        limit: 4_096,
    });
    assert_eq!(b.signal(large.clone()).await, refused, "S5");
    assert_eq!(a.presence().set(large).await, refused, "P1");
}

#[tokio::test]
async fn a_panic_in_a_closure_is_the_callers() {
    let (fake, document) = (Fake::start().await, id("notes"));
    let (_client, handle) = open(&fake, &document).await;
    let broken = handle.clone();
    let panicked = tokio::spawn(async move {
        let changed = broken.change(|tx| {
            tx.put(ROOT, "half", 1)?;
            if tx.pending_ops() > 0 {
                panic!("the app's bug");
            }
            Ok::<_, automerge::AutomergeError>(())
        });
        changed.await.map(|_| ())
    });
    assert!(panicked.await.unwrap_err().is_panic());
    append(&handle, "goes on").await;
    soon(handle.when_durable()).await.unwrap();
    let json = handle.read(to_json).await.unwrap();
    assert_eq!(json, r#"{"text":"goes on"}"#);
}

#[tokio::test]
async fn a_document_is_kept_across_a_restart() {
    let (fake, document) = (Fake::start().await, id("notes"));
    let (client, handle) = open(&fake, &document).await;
    fake.disk_is_slow(true);
    append(&handle, "unsafe").await;
    let saved = handle.save().await.unwrap();
    soon(client.close()).await;
    fake.state().model.crash();
    fake.disk_is_slow(false);
    assert_eq!(fake.text(&document), "");
    let client = Client::connect(Options::new(fake.url())).unwrap();
    let handle = client.restore(document.clone(), saved).await.unwrap();
    soon(handle.when_durable()).await.unwrap();
    assert_eq!(fake.text(&document), "unsafe");
    handle.close().await;
}

#[tokio::test]
async fn watch_writes_a_line_at_every_change() {
    /// Sends every line on.
    struct Lines(mpsc::Sender<String>);
    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0
                .try_send(String::from_utf8(bytes.to_vec()).unwrap())
                .map_err(std::io::Error::other)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.0.try_send("|".to_owned()).map_err(std::io::Error::other)
        }
    }
    let (fake, document) = (Fake::start().await, id("notes"));
    let (_client, handle) = open(&fake, &document).await;
    let (sender, mut pieces) = mpsc::channel(1_000);
    let (options, watched) = (Options::new(fake.url()), document.clone());
    let watching = tokio::spawn(async move { watch(options, watched, &mut Lines(sender)).await });
    let line = async |pieces: &mut mpsc::Receiver<String>| {
        let mut line = String::new();
        loop {
            match soon(pieces.recv()).await.unwrap().as_str() {
                "|" => return line,
                piece => line.push_str(piece),
            }
        }
    };
    assert_eq!(line(&mut pieces).await, "{}\n");
    append(&handle, "a").await;
    assert_eq!(line(&mut pieces).await, "{\"text\":\"a\"}\n");
    append(&handle, "b").await;
    assert_eq!(line(&mut pieces).await, "{\"text\":\"ab\"}\n");
    drop(pieces);
    append(&handle, "c").await;
    assert!(matches!(soon(watching).await.unwrap(), Err(WatchError::Write(_))));
}

#[tokio::test]
async fn watch_ends_when_the_server_refuses() {
    let (fake, document) = (Fake::start().await, id("notes"));
    fake.state().token = Some("secret".to_owned());
    let ended = soon(watch(Options::new(fake.url()), document, &mut Vec::new())).await;
    assert!(
        matches!(ended, Err(WatchError::Refused(WaitError::Rejected { code: 4401, .. }))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn tls_with_a_root_certificate_of_ones_own() {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (fake, listener) = Fake::bind().await;
    fake.serve(listener, move |stream| {
        let acceptor = acceptor.clone();
        async move { acceptor.accept(stream).await.unwrap() }
    });
    let url = format!("wss://localhost:{}", fake.address.port());
    let root_certificates = vec![own.cert.der().clone()];
    let client = Client::connect(Options {
        root_certificates,
        ..Options::new(url)
    })
    .unwrap();
    let handle = client.open(id("notes")).await.unwrap();
    soon(handle.when_ready()).await.unwrap();
    append(&handle, "sealed").await;
    soon(handle.when_durable()).await.unwrap();
    assert_eq!(fake.text(&id("notes")), "sealed");
}
