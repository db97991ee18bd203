//! A server in this process on a free port, and plain blocking clients for it.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use syncline::server::{Running, Server, config::Config};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_tungstenite::tungstenite::{
    self, Message, WebSocket, client::IntoClientRequest, handshake::client::Response, http::HeaderValue,
};

/// No read waits longer: five times what any test expects.
const READ_TIMEOUT: Duration = Duration::from_secs(20);

/// On which a server in a test serves its connections.
pub(crate) const THREADS: usize = 2;

pub(crate) struct TestServer {
    runtime: Runtime,
    running: Option<Running>,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl TestServer {
    /// Starts with `text` as the configuration file, in development mode on a free port.
    pub(crate) fn start(text: &str) -> Self {
        Self::start_with(&format!("dev = true\n{text}"))
    }

    /// Starts with `text` as the configuration file, asking everybody for a token if the text does not say otherwise.
    pub(crate) fn start_with(text: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().display();
        let text = format!("listen = '127.0.0.1:0'\ndata = '{data}'\n{text}");
        let config = Config::from_text(&text, &BTreeMap::new(), &[]).expect("a configuration");
        Self::start_as(config, directory)
    }

    /// Starts with `config`, whose data lie in `directory`.
    pub(crate) fn start_as(config: Config, directory: TempDir) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let running = runtime.block_on(Server::start(config)).expect("a server");
        Self {
            runtime,
            address: running.address,
            running: Some(running),
            _directory: directory,
        }
    }

    pub(crate) fn server(&self) -> &Server {
        self.running.as_ref().expect("it runs until it is shut down").server()
    }

    /// Drains; whether every connection ended by itself.
    pub(crate) fn shutdown(mut self) -> bool {
        let running = self.running.take().expect("it runs until it is shut down");
        self.runtime.block_on(running.shutdown())
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a time-out");
        stream
    }

    /// The answer to one request, whole.
    pub(crate) fn get(&self, path: &str) -> String {
        exchange(
            self.connect(),
            &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"),
        )
    }

    /// A WebSocket in the native dialect.
    pub(crate) fn websocket(&self) -> WebSocket<TcpStream> {
        let url = format!("ws://{}/sync", self.address);
        native(&url, self.connect()).expect("a WebSocket").0
    }
}

/// The value of the metric whose line begins so; 0 if it has none.
pub(crate) fn counter(server: &TestServer, series: &str) -> f64 {
    let metrics = server.get("/metrics");
    let line = metrics.lines().find_map(|line| line.strip_prefix(series));
    line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
}

/// Upgrades `stream` to the native dialect.
pub(crate) fn native<S: Read + Write>(url: &str, stream: S) -> Result<(WebSocket<S>, Response), String> {
    let mut request = url.into_client_request().expect("a request");
    request
        .headers_mut()
        .insert("sec-websocket-protocol", HeaderValue::from_static("syncline.v1"));
    tungstenite::client(request, stream).map_err(|error| error.to_string())
}

/// Whether the other side answers a ping of this many bytes.
pub(crate) fn is_alive<S: Read + Write>(socket: &mut WebSocket<S>, size: usize) -> bool {
    let payload = vec![b'p'; size];
    socket.send(Message::Ping(payload.clone().into())).is_ok()
        && loop {
            match socket.read() {
                Ok(Message::Pong(answer)) => break answer == payload,
                Ok(_) => {}
                Err(_) => break false,
            }
        }
}

/// Sends a request and reads until the other side ends.
pub(crate) fn exchange(mut stream: impl Read + Write, request: &str) -> String {
    // A server that refuses early may have hung up before it took the whole request.
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// A thread that nobody waits for.
pub(crate) fn thread(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new()
        .name("test".into())
        .spawn(work)
        .expect("a thread");
}
