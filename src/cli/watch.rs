//! `syncline watch`: a document as JSON, and again at every change.

use super::Failure;
use anyhow::anyhow;
use syncline_protocol::DocumentId;

/// Print a document as JSON, and again at every change
#[derive(Debug, clap::Args)]
pub(super) struct Watch {
    /// The server: ws://HOST:PORT/sync or wss://HOST/sync
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
        watch(&self.url, &self.document, self.token.as_deref())
    }
}

fn watch(_url: &str, _document: &DocumentId, _token: Option<&str>) -> Result<(), Failure> {
    Err(anyhow!("watch is not built yet").into())
}
