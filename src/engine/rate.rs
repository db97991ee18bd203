//! A token bucket: how much may still come, and when to read on.

use crate::engine::time::Time;

/// Holds up to `burst` tokens and gains `per_second` of them each second. It may go into debt once; then its owner waits.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    per_second: u64,
    burst: u64,
    /// In thousandths of a token.
    level_milli: i64,
    at: Time,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_second: u64, burst: u64, now: Time) -> Self {
        Self {
            per_second: per_second.max(1),
            burst,
            level_milli: milli(burst),
            at: now,
        }
    }

    /// Takes one token. `Some` when there was none left: the time at which to go on.
    pub(super) fn take(&mut self, now: Time) -> Option<Time> {
        let gained = milli(now.ms_since(self.at).saturating_mul(self.per_second)) / 1_000;
        self.level_milli = (self.level_milli.saturating_add(gained)).min(milli(self.burst)) - 1_000;
        self.at = now;
        if self.level_milli >= 0 {
            return None;
        }
        let wait_ms = self.level_milli.unsigned_abs().div_ceil(self.per_second);
        Some(now.plus_ms(wait_ms.max(1)))
    }
}

fn milli(tokens: u64) -> i64 {
    i64::try_from(tokens.saturating_mul(1_000)).unwrap_or(i64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l4_a_burst_passes_and_then_the_rate_holds() {
        let start = Time::from_ms(5);
        let mut bucket = Bucket::new(100, 3, start);
        assert_eq!([(); 3].map(|()| bucket.take(start)), [None; 3]);
        assert_eq!(bucket.take(start), Some(Time::from_ms(15)));
        assert_eq!(
            bucket.take(Time::from_ms(15)),
            Some(Time::from_ms(25)),
            "still one in debt"
        );
        assert_eq!(bucket.take(Time::from_ms(10_000)), None, "full again after a pause");
    }
}
