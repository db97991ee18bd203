//! The one place of the trials that reads a clock.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A moment to measure from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(Instant);

#[allow(clippy::disallowed_methods, reason = "the one place where the trials read a clock")]
pub(crate) fn now() -> Moment {
    Moment(Instant::now())
}

/// Seconds since 1970, for tokens.
pub(crate) fn unix_s() -> i64 {
    i64::try_from(since_1970().as_secs()).expect("our days")
}

/// The time since 1970, as strace tells it.
#[allow(clippy::disallowed_methods, reason = "the one place where the trials read a clock")]
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("our days")
}

impl Moment {
    pub(crate) fn elapsed(self) -> Duration {
        now().0 - self.0
    }

    pub(crate) fn ms(self) -> f64 {
        self.elapsed().as_secs_f64() * 1_000.0
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }

    pub(crate) fn is_past(self) -> bool {
        now() >= self
    }
}

/// Asks every 20 ms until it is so, at most so long. Whether it became so.
pub(crate) fn wait_until(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begun = now();
    loop {
        if is_so() {
            return true;
        }
        if begun.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The value that a share of the sorted values does not exceed.
pub(crate) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values
        .get((last as f64 * share).round() as usize)
        .copied()
        .unwrap_or(0.0)
}
