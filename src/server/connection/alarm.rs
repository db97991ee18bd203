//! When a connection has to look at the time: one timer, which is not set anew for every message.
//!
//! Most messages put off a little what is to be done at it. It may ring early, then, and whoever hears it looks what is due.

use crate::engine::time::Time;
use std::{pin::Pin, time::Duration};
use tokio::time::{Sleep, sleep};

#[derive(Debug)]
pub(super) struct Alarm {
    timer: Pin<Box<Sleep>>,
    /// When it rings, if it is set.
    at: Option<Time>,
}

impl Alarm {
    /// Not set.
    pub(super) fn new() -> Self {
        Self {
            timer: Box::pin(sleep(Duration::ZERO)),
            at: None,
        }
    }

    /// From now on it rings at this time at the latest, once. It is put off only for what is twice as far away.
    pub(super) fn set(&mut self, now: Time, at: Time) {
        let wait_ms = at.ms_since(now).max(1);
        let is_near = |set: Time| (wait_ms / 2..=wait_ms).contains(&set.ms_since(now));
        if !self.at.is_some_and(is_near) {
            self.timer.set(sleep(Duration::from_millis(wait_ms)));
            self.at = Some(at);
        }
    }

    /// Waits for it. It has to be set.
    pub(super) async fn rings(&mut self) {
        self.timer.as_mut().await;
        self.at = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const NOW: Time = Time::from_ms(1_000);
    const LATE: Time = NOW.plus_ms(1_000_000);

    async fn rings_within(alarm: &mut Alarm, ms: u64) -> bool {
        timeout(Duration::from_millis(ms), alarm.rings()).await.is_ok()
    }

    #[tokio::test]
    async fn it_rings_no_later_than_it_was_told_last_and_once() {
        let mut alarm = Alarm::new();
        for (first, second) in [(LATE, NOW.plus_ms(10)), (NOW.plus_ms(10), NOW.plus_ms(15)), (NOW, NOW)] {
            alarm.set(NOW, first);
            alarm.set(NOW, second);
            assert!(rings_within(&mut alarm, 20_000).await, "{first:?}, {second:?}");
            alarm.set(NOW, LATE);
            assert!(!rings_within(&mut alarm, 50).await);
        }
        alarm.set(NOW, NOW.plus_ms(1));
        alarm.set(NOW, LATE);
        assert!(!rings_within(&mut alarm, 50).await, "put off");
    }
}
