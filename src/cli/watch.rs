//! `syncline watch`: a document as JSON, and again at every change.

use super::{Failure, runtime};
use anyhow::Context;
use std::io;
use syncline_client::{Options, TokenSource, WatchError};
use syncline_protocol::DocumentId;

/// Print a document as JSON, one line, and again at every change, until Ctrl-C
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
            let mut out = io::stdout();
            tokio::select! {
                ended = syncline_client::watch(options, self.document, &mut out) => ended,
                _ = tokio::signal::ctrl_c() => Ok(()),
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

/// What `serve` prints is an address for browsers; the WebSocket is behind it.
fn websocket_url(url: &str) -> String {
    let secure = url.strip_prefix("https://").map(|rest| format!("wss://{rest}"));
    let plain = url.strip_prefix("http://").map(|rest| format!("ws://{rest}"));
    secure.or(plain).unwrap_or_else(|| url.to_owned())
}
