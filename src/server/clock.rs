//! The only file that reads a clock. Everything else is given the time, or asks a [`Clock`].

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Two clocks: one that only goes forward, for waiting, and the wall's, for tokens and records.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Milliseconds since the start; never goes back, whatever happens to the wall clock.
    pub fn monotonic_ms(&self) -> u64 {
        if super::failpoints::Switch::WallTime.is_on() {
            return self.unix_ms();
        }
        to_ms(self.start.elapsed())
    }

    /// Unix time in milliseconds, as the machine believes it to be; it may jump. Before 1970 it is 0.
    #[expect(clippy::disallowed_methods, reason = "this is the file that reads clocks")]
    pub fn unix_ms(&self) -> u64 {
        to_ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

fn to_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
