//! The integration tests: the whole program from outside, and the tidiness of the tree.

mod durability;
mod edits;
mod hostile;
mod peer;
mod process;
mod running;
mod tidy;
