//! `syncline serve`: the server, until Ctrl-C or SIGTERM. SIGHUP reads keys and certificate again.

use super::{ConfigFile, Failure, load_config, print, runtime, say};
use anyhow::Context;
use std::io;
use syncline::server::{
    Server, StartError,
    config::{Config, Flag},
    telemetry,
};

/// Serve documents, until Ctrl-C or SIGTERM
///
/// Prints one line, `listening on http://ADDRESS`, when it is ready. Logs go to standard error. Replaced key and certificate
/// files, and keys changed in the configuration file, are taken over within seconds, or at once on SIGHUP.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// The IP address and port to listen on; port 0 picks a free one [env: SYNCLINE_LISTEN] [default: 127.0.0.1:4400]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// The directory of the stored documents [env: SYNCLINE_DATA] [default: ./syncline-data]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// Serve without authentication, on loopback only, to try things out [env: SYNCLINE_DEV]
    #[arg(long)]
    dev: bool,
    /// Serve TLS with this certificate chain (PEM); replaced files are taken over without a restart [env: SYNCLINE_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<String>,
    /// The private key of the certificate (PEM) [env: SYNCLINE_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// Log lines for people (text) or programs (json) [env: SYNCLINE_LOG_FORMAT] [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// What to log: a level, or levels by module [env: SYNCLINE_LOG_FILTER] [default: info]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = load_config(self.file.config.as_deref(), &self.flags())?;
        telemetry::start(&config.log).context("cannot log")?;
        runtime().context("cannot start threads")?.block_on(serve(config))
    }

    fn flags(&self) -> Vec<Flag> {
        let given = [
            ("--listen", "listen", self.listen.clone()),
            ("--data", "data", self.data.clone()),
            ("--dev", "dev", self.dev.then(|| "true".to_owned())),
            ("--tls-cert", "tls.cert", self.tls_cert.clone()),
            ("--tls-key", "tls.key", self.tls_key.clone()),
            ("--log-format", "log.format", self.log_format.clone()),
            ("--log-filter", "log.filter", self.log_filter.clone()),
        ];
        given
            .into_iter()
            .filter_map(|(name, key, value)| value.map(|value| Flag { name, key, value }))
            .collect()
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    // Before anything can be told to listen: a signal from here on drains.
    let mut signals = Signals::new().context("cannot wait for signals")?;
    let running = Server::start(config).await.map_err(|error| match error {
        StartError::Keys(_) | StartError::Tls(_) => Failure::Usage(error.to_string()),
        StartError::Store { .. } | StartError::Listen { .. } => Failure::Error(error.into()),
    })?;
    if running.server().config.dev {
        say(
            "WARNING: --dev serves without authentication: every program on this machine can read and write everything",
        );
    }
    print(&format!("listening on {}", running.url())).context("cannot write to standard output")?;
    while signals.next().await == Signal::Reload {
        tracing::info!("reading the files of keys and certificate again");
        running.server().reload();
    }
    tracing::info!("stopping");
    if !running.shutdown().await {
        tracing::warn!("connections were cut off: they did not end within gateway.drain_timeout_ms");
    }
    Ok(())
}

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Stop,
    Reload,
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Stop,
            _ = self.terminate.recv() => Signal::Stop,
            _ = self.hangup.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
        Signal::Stop
    }
}
