//! The integration tests: the whole program from outside, and the tidiness of the tree.

#![allow(clippy::print_stdout, reason = "tests say what they measured")]

mod bundles;
mod cable;
mod client;
mod command_line;
mod dependencies;
mod durability;
mod edits;
mod faults;
mod gateway;
mod hostile;
mod identity;
mod lagging;
mod members;
mod overload;
mod peer;
mod presence;
mod process;
mod real_input;
mod repo;
mod restoring;
mod running;
mod salvaging;
mod tidy;
mod tls;
mod trace;
mod watching;
