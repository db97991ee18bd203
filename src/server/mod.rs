//! What Syncline does: sockets, disk, clock and keys around the engine.

pub mod store;
