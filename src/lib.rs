//! Syncline: a self-hosted backend for real-time collaboration on Automerge documents.
//!
//! [`engine`] decides, `server` does, and the crate `syncline_protocol` speaks. The direction is server -> engine -> protocol,
//! never back. Without the feature `server` this library is the engine alone: no runtime, store, TLS or socket is linked.

pub mod engine;
#[cfg(feature = "server")]
pub mod server;
