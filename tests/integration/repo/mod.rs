//! The repo dialect over real sockets: a bare peer that keeps its replicas with Automerge's own sync, as other peoples'
//! clients do.

mod beside;
mod hostile;
mod identity;
pub(crate) mod peer;
mod syncing;
