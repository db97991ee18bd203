//! What Syncline does: sockets, disk, clock and keys around the engine.
//!
//! [`Server::start`] binds and serves in the background; [`Running::shutdown`] drains. Nothing is printed here.

pub mod apart;
pub mod auth;
pub mod clock;
pub mod config;
pub mod connection;
#[cfg(unix)]
pub mod control;
pub mod failpoints;
pub mod gateway;
pub mod hub;
pub mod memory;
pub mod metrics;
pub mod outbox;
pub mod peers;
pub mod post;
pub mod room;
pub mod store;
pub mod telemetry;
pub mod watched;

use crate::engine::room::Tuning;
use auth::{KeyError, Verifier};
use clock::Clock;
use config::Config;
use gateway::tls::TlsError;
use hub::Hub;
use memory::Memory;
use metrics::Metrics;
use peers::Peers;
use room::workers::{Workers, random_number};
use std::{
    io,
    net::SocketAddr,
    num::NonZero,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use store::{
    Life, LogKept, Store, StoreError,
    sled::{SledKv, SledOptions},
    writer::Writer,
};
use syncline_protocol::Limits;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// What every connection shares.
pub struct Server {
    /// How it was set up.
    pub config: Config,
    /// Tokens to grants.
    pub verifier: Verifier,
    /// The time.
    pub clock: Clock,
    /// The counters.
    pub metrics: Arc<Metrics>,
    /// The rooms.
    pub hub: Arc<Hub>,
    /// The peers of the repo dialect by name.
    pub peers: Peers,
    limits: Arc<Limits>,
    store: Store,
    writer: Arc<Writer>,
    ready: AtomicBool,
    draining: watch::Sender<bool>,
    drained: watch::Sender<bool>,
    /// How often the operator has asked for keys and certificate to be read again.
    reloads: watch::Sender<u64>,
}

/// A server that accepts connections, until [`Running::shutdown`] or until it is dropped.
pub struct Running {
    /// Where it listens; with port 0 in the configuration, the port it got.
    pub address: SocketAddr,
    server: Arc<Server>,
    gateway: JoinHandle<()>,
    sweeper: JoinHandle<()>,
    keys: JoinHandle<()>,
    control: Option<JoinHandle<()>>,
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
    /// The store does not open.
    #[error("cannot open {}: {error}", directory.display())]
    Store {
        /// Its directory.
        directory: PathBuf,
        /// Why not.
        error: StoreError,
    },
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
        let server = Arc::new(Self::open(config, verifier).await?);
        let sweeper = tokio::spawn(server.hub.clone().sweep());
        let keys = tokio::spawn({
            let server = server.clone();
            async move { server.verifier.follow(server.reloads(), &server.metrics).await }
        });
        let control = Self::control(&server);
        let gateway = tokio::spawn(gateway::serve(listener, certificate, Arc::clone(&server)));
        Ok(Running {
            address,
            server,
            gateway,
            sweeper,
            keys,
            control,
        })
    }

    /// Lets the operator in, by the data directory.
    #[cfg(unix)]
    fn control(server: &Arc<Self>) -> Option<JoinHandle<()>> {
        match control::listen(&server.config.data) {
            Ok(listener) => Some(tokio::spawn(control::serve(listener, Arc::clone(server)))),
            Err(error) => {
                tracing::warn!(%error, "there is no socket in the data directory: `syncline backup` needs the server stopped");
                None
            }
        }
    }

    #[cfg(not(unix))]
    fn control(_: &Arc<Self>) -> Option<JoinHandle<()>> {
        None
    }

    /// Opens the store, on a blocking thread, and puts the hub on top of it.
    async fn open(config: Config, verifier: Verifier) -> Result<Self, StartError> {
        let directory = config.data.clone();
        let clock = Clock::start();
        let next = Life {
            number: random_number(),
            began_unix_ms: clock.unix_ms(),
        };
        let opened = tokio::task::spawn_blocking({
            let directory = directory.clone();
            move || -> Result<(Store, Writer, Peers), StoreError> {
                let kv = Arc::new(SledKv::open(&directory, SledOptions::default())?);
                let (low, high) = (random_number(), random_number());
                let random = (u128::from(low) << 64 | u128::from(high)).to_be_bytes();
                let unix_ms_at_zero = clock.unix_ms().saturating_sub(clock.monotonic_ms());
                let store = Store::begin(kv.clone(), next)?;
                let peers = Peers::open(&directory, random, unix_ms_at_zero)
                    .map_err(|error| StoreError::Io(error.to_string()))?;
                Ok((store, Writer::start(kv)?, peers))
            }
        });
        let opened = opened
            .await
            .unwrap_or_else(|_| Err(StoreError::Io("opening it panicked".into())));
        let (store, writer, peers) = opened.map_err(|error| StartError::Store { directory, error })?;
        let (writer, limits, metrics) = (
            Arc::new(writer),
            Arc::new(config.limits.clone()),
            Arc::new(Metrics::new()),
        );
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let workers = Workers::new(
            store.clone(),
            writer.clone(),
            limits.clone(),
            LogKept::default(),
            metrics.clone(),
            Memory::new(config.rooms_memory_bytes_max),
            (clock, cores),
        )
        .with_restore_window(config.restore_window_ms);
        let tuning = Tuning {
            room_idle_ms: config.room_idle_timeout_ms,
            ..Tuning::default()
        };
        let hub = Hub::new(Arc::new(workers), clock, tuning);
        Ok(Self {
            config,
            verifier,
            clock,
            metrics,
            hub,
            peers,
            limits,
            store,
            writer,
            ready: AtomicBool::new(true),
            draining: watch::Sender::new(false),
            drained: watch::Sender::new(false),
            reloads: watch::Sender::new(0),
        })
    }

    /// The limits in force.
    pub fn limits(&self) -> Arc<Limits> {
        self.limits.clone()
    }

    /// Becomes true when the server is to stop: tell the peer, finish what is under way, end.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Becomes true when the rooms have stored and answered everything that was taken in before the drain.
    pub fn drained(&self) -> watch::Receiver<bool> {
        self.drained.subscribe()
    }

    /// Reads keys and certificate again now, and not when their files are next looked at.
    pub fn reload(&self) {
        self.reloads.send_modify(|reloads| *reloads += 1);
    }

    /// Tells of every [`Server::reload`].
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.reloads.subscribe()
    }

    /// All metrics in OpenMetrics text.
    pub fn metrics_text(&self) -> String {
        let (metrics, store) = (&self.metrics, self.writer.figures());
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.rooms_memory_bytes.set(number(self.hub.memory().held()));
        metrics.store_queue.set(number(store.queue_len.load(Ordering::Relaxed)));
        metrics.store_syncs.set(number(store.groups.load(Ordering::Relaxed)));
        metrics.store_errors.set(number(store.errors.load(Ordering::Relaxed)));
        metrics.store_read_only.set(i64::from(self.writer.is_read_only()));
        metrics.store_full.set(i64::from(store.full.load(Ordering::Relaxed)));
        metrics.store_fulls.set(number(store.fulls.load(Ordering::Relaxed)));
        metrics
            .store_recoveries
            .set(number(store.recoveries.load(Ordering::Relaxed)));
        let restored = self.hub.workers().foreign_until().is_some();
        metrics.store_restored.set(i64::from(restored));
        metrics.render()
    }

    /// Whether new connections are welcome. A store that cannot write any more still serves readers.
    pub fn accepts(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && !*self.draining.borrow()
    }

    /// Whether the server does all its work; what `/readyz` says.
    pub fn is_ready(&self) -> bool {
        self.accepts() && !self.writer.is_read_only()
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

    /// Stops accepting and reading, lets the rooms store and answer what was taken in, then tells every connection and waits
    /// for them to end, each for at most the configured time; then the store is closed. Whether all ended by themselves.
    pub async fn shutdown(mut self) -> bool {
        let grace = Duration::from_millis(self.server.config.drain_timeout_ms);
        self.server.draining.send_replace(true);
        let stored = tokio::time::timeout(grace, self.server.hub.stop()).await.is_ok();
        self.server.drained.send_replace(true);
        let ended = tokio::time::timeout(grace, &mut self.gateway).await.is_ok();
        let writer = self.server.writer.clone();
        let closed = tokio::task::spawn_blocking(move || writer.close()).await.is_ok();
        ended && stored && closed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.draining.send_replace(true);
        self.server.drained.send_replace(true);
        self.gateway.abort();
        self.sweeper.abort();
        self.keys.abort();
        if let Some(control) = &self.control {
            control.abort();
        }
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
