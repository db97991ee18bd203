//! What Syncline does: sockets, disk, clock and keys around the engine.
//!
//! [`Server::start`] binds and serves in the background; [`Running::shutdown`] drains. Nothing is printed here.

pub mod auth;
pub mod clock;
pub mod config;
pub mod connection;
pub mod gateway;
pub mod metrics;
pub mod telemetry;

use auth::{KeyError, Verifier};
use clock::Clock;
use config::Config;
use gateway::tls::TlsError;
use metrics::Metrics;
use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What every connection shares.
#[derive(Debug)]
pub struct Server {
    /// How it was set up.
    pub config: Config,
    /// Tokens to grants.
    pub verifier: Verifier,
    /// The time.
    pub clock: Clock,
    /// The counters.
    pub metrics: Metrics,
    ready: AtomicBool,
    draining: watch::Sender<bool>,
}

/// A server that accepts connections, until [`Running::shutdown`] or until it is dropped.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; with port 0 in the configuration, the port it got.
    pub address: SocketAddr,
    server: Arc<Server>,
    gateway: JoinHandle<()>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The certificate or its key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The address is taken, or not ours.
    #[error("cannot listen on {address}: {}; {}", reason(error), advice(error))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
}

impl Server {
    /// Binds, and serves in the background of the current tokio runtime.
    pub async fn start(config: Config) -> Result<Running, StartError> {
        let verifier = Verifier::new(&config)?;
        let certificate = config.tls.clone().map(gateway::tls::Certificate::load).transpose()?;
        let address = config.listen;
        let listening = |error| StartError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(listening)?;
        let address = listener.local_addr().map_err(listening)?;
        let server = Arc::new(Self {
            config,
            verifier,
            clock: Clock::start(),
            metrics: Metrics::new(),
            ready: AtomicBool::new(true),
            draining: watch::Sender::new(false),
        });
        let gateway = tokio::spawn(gateway::serve(listener, certificate, Arc::clone(&server)));
        Ok(Running {
            address,
            server,
            gateway,
        })
    }

    /// Becomes true when the server is to stop: tell the peer, finish what is under way, end.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Whether new work is welcome; what `/readyz` says.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && !*self.draining.borrow()
    }

    /// Says whether new work is welcome: not while the store opens or cannot write.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Relaxed);
    }
}

impl Running {
    /// `http://ADDRESS`, or `https://ADDRESS` with TLS.
    pub fn url(&self) -> String {
        let scheme = if self.server.config.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}", self.address)
    }

    /// What the connections share.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// Stops accepting, tells every connection, and waits for them to end, at most for the configured time. Whether all
    /// ended by themselves.
    pub async fn shutdown(mut self) -> bool {
        self.server.draining.send_replace(true);
        let grace = Duration::from_millis(self.server.config.drain_timeout_ms);
        tokio::time::timeout(grace, &mut self.gateway).await.is_ok()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.draining.send_replace(true);
        self.gateway.abort();
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is in use".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "stop the other program or give another port with --listen; port 0 picks a free one"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege; give another with --listen",
        _ => "give another address with --listen",
    }
}
