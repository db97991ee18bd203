//! What Syncline decides: sans-IO state machines, event in, effects out.
//!
//! Nothing here reads a clock, draws a random number, starts a task, takes a lock or opens a socket or file; time, ids and
//! seeds are passed in, and every map is ordered, so that the same events always give the same effects.

pub mod document;
pub mod few;
pub mod gate;
pub mod grant;
pub mod index;
pub mod presence;
mod rate;
pub mod room;
pub mod session;
pub mod time;
