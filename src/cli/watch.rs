//! `syncline watch`: a document as JSON, and again at every change.

use super::{Failure, runtime, say};
use anyhow::Context;
use std::{
    cell::Cell,
    convert::Infallible,
    io::{self, Write},
    time::Duration,
};
use syncline_client::{Options, TokenSource, WatchError};
use syncline_protocol::DocumentId;

/// So long without a first line, and whoever waits for it is told.
const PATIENCE: Duration = Duration::from_secs(5);

/// Print a document as JSON, one line, and again at every change, until Ctrl-C
///
/// It waits for a server that is not there, and comes back to one that was. A certificate of your own is trusted if SSL_CERT_FILE
/// names its authority's (PEM).
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    /// The server, as `serve` printed it: http://HOST:PORT, or ws://HOST:PORT/sync, or https:// and wss:// with TLS
    #[arg(value_name = "URL")]
    url: String,
    /// The document id
    #[arg(value_name = "DOCUMENT")]
    document: DocumentId,
    /// A token that allows reading it; not needed with `serve --dev`
    #[arg(long, value_name = "TOKEN", env = "SYNCLINE_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl Watch {
    pub(super) fn run(self) -> Result<(), Failure> {
        let options = Options {
            token: self.token.map_or(TokenSource::None, TokenSource::Fixed),
            name: Some(concat!("syncline watch ", env!("CARGO_PKG_VERSION")).to_owned()),
            ..Options::new(websocket_url(&self.url))
        };
        let watching = async {
            let is_shown = Cell::new(false);
            let mut out = Out { is_shown: &is_shown };
            tokio::select! {
                ended = syncline_client::watch(options, self.document, &mut out) => ended,
                _ = tokio::signal::ctrl_c() => Ok(()),
                never = tell_who_waits(&is_shown) => match never {},
            }
        };
        match runtime().context("cannot start threads")?.block_on(watching) {
            Ok(()) => Ok(()),
            // Whoever read our output has had enough, as `head` has.
            Err(WatchError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(error @ WatchError::Connect(_)) => Err(Failure::Usage(error.to_string())),
            Err(error @ (WatchError::Refused(_) | WatchError::Write(_))) => {
                Err(Failure::Error(anyhow::Error::new(error).context("cannot watch")))
            }
        }
    }
}

/// Standard output, and whether anything was shown on it.
struct Out<'a> {
    is_shown: &'a Cell<bool>,
}

impl Write for Out<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_shown.set(true);
        io::stdout().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

/// A server that does not answer looks like one that is slow. Never ends.
async fn tell_who_waits(is_shown: &Cell<bool>) -> Infallible {
    tokio::time::sleep(PATIENCE).await;
    if !is_shown.get() {
        say(
            "nothing has come yet, still trying: does the server run at this address, and does this system trust its certificate?",
        );
    }
    std::future::pending().await
}

/// What `serve` prints is an address for browsers; the WebSocket is behind it.
fn websocket_url(url: &str) -> String {
    let secure = url.strip_prefix("https://").map(|rest| format!("wss://{rest}"));
    let plain = url.strip_prefix("http://").map(|rest| format!("ws://{rest}"));
    secure.or(plain).unwrap_or_else(|| url.to_owned())
}
