//! Syncline over real sockets and as a real process.

mod command_line;
mod gateway;
mod running;
mod tls;
