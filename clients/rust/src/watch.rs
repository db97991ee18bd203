//! `syncline watch`: a document as JSON, one line now and one at every change.

use crate::{
    client::{Client, Closed},
    handle::{DocHandle, WaitError},
    json::to_json,
    options::{ConnectError, Options},
};
use std::io::{self, Write};
use syncline_protocol::DocumentId;

/// Why watching ended.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The client cannot be made.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server does not show the document.
    #[error(transparent)]
    Refused(#[from] WaitError),
    /// The line cannot be written.
    #[error("the document cannot be written: {0}")]
    Write(#[from] io::Error),
}

impl From<Closed> for WatchError {
    fn from(_: Closed) -> Self {
        Self::Refused(WaitError::Closed)
    }
}

/// Writes the document as one line of JSON to `out`, and again whenever it has changed, until the server refuses it or `out`
/// does. To stop earlier, drop the future.
///
/// # Errors
/// Always: that is how it ends.
pub async fn watch(options: Options, document: DocumentId, out: &mut impl Write) -> Result<(), WatchError> {
    let client = Client::connect(options)?;
    let mut handle = client.open(document).await?;
    handle.when_ready().await?;
    let mut shown = None;
    loop {
        let line = handle.read(to_json).await?;
        if shown.as_ref() != Some(&line) {
            writeln!(out, "{line}")?;
            out.flush()?;
            shown = Some(line);
        }
        next_change(&mut handle, &client).await?;
    }
}

async fn next_change(handle: &mut DocHandle, client: &Client) -> Result<(), WatchError> {
    let (mut states, mut client) = (handle.clone(), client.clone());
    loop {
        handle.refusal()?;
        tokio::select! {
            changed = handle.changed() => return Ok(changed?),
            state = states.state_changed() => drop(state?),
            status = client.status_changed() => drop(status?),
        }
    }
}
