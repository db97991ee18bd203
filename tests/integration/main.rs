//! The integration tests: the whole program from outside, and the tidiness of the tree.

mod command_line;
mod durability;
mod edits;
mod gateway;
mod hostile;
mod peer;
mod process;
mod real_input;
mod running;
mod tidy;
mod tls;
mod trace;
