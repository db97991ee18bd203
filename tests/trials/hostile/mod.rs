//! A hostile client hurts only itself.

pub(crate) mod access;
pub(crate) mod bombs;
pub(crate) mod conflict;
pub(crate) mod crafted;
pub(crate) mod mutants;
pub(crate) mod orphans;
pub(crate) mod peer_mutants;
pub(crate) mod peers;
pub(crate) mod secrets;
pub(crate) mod shapes;
pub(crate) mod slow;
pub(crate) mod tls;
pub(crate) mod tokens;
pub(crate) mod websocket;
