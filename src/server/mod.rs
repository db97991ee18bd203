//! What Syncline does: sockets, disk, clock and keys around the engine.
