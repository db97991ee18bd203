//! The one file of this crate that reads a clock.

use std::time::Instant;

/// Now.
#[allow(
    clippy::disallowed_methods,
    reason = "measuring time is what this program is for, and only here it is read"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since `start`.
pub(crate) fn ms_since(start: Instant) -> f64 {
    now().duration_since(start).as_secs_f64() * 1_000.0
}
