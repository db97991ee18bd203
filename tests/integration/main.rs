//! The integration tests: the whole program from outside, and the tidiness of the tree.

mod command_line;
mod gateway;
mod running;
mod tidy;
mod tls;
