//! The one place of this crate that reads a clock.

use std::time::{Duration, Instant, SystemTime};

/// Milliseconds since it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    #[allow(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment that [`Self::now_ms`] calls `at_ms`.
    pub(crate) fn at(&self, at_ms: u64) -> tokio::time::Instant {
        (self.start + Duration::from_millis(at_ms)).into()
    }

    /// The moment that the world calls `unix_seconds`, on this clock.
    #[allow(clippy::disallowed_methods, reason = "this is the file that reads the clock")]
    pub(crate) fn of_unix_seconds(&self, unix_seconds: u64) -> u64 {
        let unix_now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let left = Duration::from_secs(unix_seconds).saturating_sub(unix_now);
        self.now_ms()
            .saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }
}
