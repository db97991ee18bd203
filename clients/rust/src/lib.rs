//! The Rust client of Syncline: documents that stay in sync.
//!
//! A [`Client`] is one connection; it comes back by itself. A [`DocHandle`] is one open document: read it, change it, wait until
//! what you changed is on the server's disk. Changes are made here at once, connected or not, and kept until the server has
//! acknowledged them.
//!
//! ```no_run
//! use automerge::{ROOT, transaction::Transactable};
//! use syncline_client::{Client, Options};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect(Options::new("ws://localhost:4400"))?;
//! let notes = client.open("team/notes".parse()?).await?;
//! notes.when_ready().await?;
//! notes.change(|tx| tx.put(ROOT, "title", "Hello")).await?;
//! notes.when_durable().await?;
//! client.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`core`] decides: it is sans-IO and deterministic, for simulators and other shells. `task` does: one thread for each client,
//! which owns the core and the socket. `client` and `handle` are what apps hold.

mod client;
mod clock;
pub mod core;
mod handle;
mod json;
mod options;
mod socket;
mod task;
#[cfg(test)]
mod tests;
mod token;
mod watch;

pub use client::{Client, Closed};
pub use core::{
    ChangeError, Changed, ClientLimits, ConnectionStatus, DocumentState, DocumentStatus, Draft, Other, Safety, Saved,
};
pub use handle::{DocHandle, Presence, SendError, Signal, Signals, WaitError};
pub use json::{JSON_DEPTH_MAX, to_json};
pub use options::{ConnectError, Options};
pub use syncline_protocol::{Cursor, DocumentId, SessionId, native::Access};
pub use token::{TokenError, TokenSource};
pub use watch::{WatchError, watch};
