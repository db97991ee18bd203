//! The Rust client of Syncline: documents that stay in sync.

pub mod core;
