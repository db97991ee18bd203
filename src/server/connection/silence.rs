//! How long a peer has been silent, and what is due for it: a ping, then our close, then the end.
//!
//! It is told the time, touches nothing, and decides nothing else.

use super::CLOSE_TIMEOUT;

/// Times are milliseconds of one clock that only goes forward.
#[derive(Debug)]
pub(super) struct Silence {
    /// After so long a peer is pinged, and again.
    ping_ms: u64,
    /// After so long it is given up.
    idle_ms: u64,
    heard_ms: u64,
    pinged_ms: u64,
    is_given_up: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Ping,
    /// Said once.
    GiveUp,
    /// The peer has not answered our close either.
    End,
}

impl Silence {
    pub(super) fn new(now_ms: u64, ping_ms: u64, idle_ms: u64) -> Self {
        Self {
            ping_ms,
            idle_ms,
            heard_ms: now_ms,
            pinged_ms: 0,
            is_given_up: false,
        }
    }

    /// The peer was heard, or it is we who do not listen.
    pub(super) fn broken(&mut self, now_ms: u64) {
        self.heard_ms = now_ms;
        self.is_given_up = false;
    }

    pub(super) fn due(&mut self, now_ms: u64) -> Due {
        let silent_ms = now_ms.saturating_sub(self.heard_ms);
        if silent_ms >= self.idle_ms + close_ms() {
            if self.is_given_up {
                return Due::End;
            }
            // We were to look long before: the process or the machine slept, and what the peer said meanwhile is not read yet.
            self.broken(now_ms);
            self.pinged_ms = now_ms;
            return Due::Ping;
        }
        if silent_ms >= self.idle_ms {
            let was_given_up = std::mem::replace(&mut self.is_given_up, true);
            return if was_given_up { Due::Nothing } else { Due::GiveUp };
        }
        if silent_ms >= self.ping_ms && now_ms >= self.pinged_ms + self.ping_ms {
            self.pinged_ms = now_ms;
            return Due::Ping;
        }
        Due::Nothing
    }

    /// When something is due next.
    pub(super) fn next_ms(&self) -> u64 {
        let idle_at = self.heard_ms + self.idle_ms;
        if self.is_given_up {
            return idle_at + close_ms();
        }
        idle_at.min(self.heard_ms.max(self.pinged_ms) + self.ping_ms)
    }
}

fn close_ms() -> u64 {
    u64::try_from(CLOSE_TIMEOUT.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING_MS: u64 = 5_000;

    /// What is due to a peer that says nothing, and when.
    fn all_due(idle_ms: u64) -> Vec<(u64, Due)> {
        let mut silence = Silence::new(100, PING_MS, idle_ms);
        let (mut now_ms, mut all) = (0, Vec::new());
        loop {
            assert!(silence.next_ms() > now_ms, "woken again and again at {now_ms}");
            now_ms = silence.next_ms();
            let due = silence.due(now_ms);
            all.push((now_ms - 100, due));
            if due == Due::End {
                return all;
            }
        }
    }

    #[test]
    fn a20_a_silent_peer_is_pinged_given_up_and_ended_and_wakes_for_nothing_else() {
        let end = [(15_000, Due::GiveUp), (17_000, Due::End)];
        let pings = [(5_000, Due::Ping), (10_000, Due::Ping)];
        assert_eq!(all_due(15_000), [pings, end].concat());
        // Where a ping would be due between the two.
        assert_eq!(
            all_due(13_000),
            [pings, [(13_000, Due::GiveUp), (15_000, Due::End)]].concat()
        );
    }

    #[test]
    fn who_is_heard_again_begins_anew() {
        let mut silence = Silence::new(0, PING_MS, 15_000);
        assert_eq!(silence.due(15_000), Due::GiveUp);
        silence.broken(15_500);
        assert_eq!(silence.next_ms(), 20_500);
        assert_eq!(silence.due(20_500), Due::Ping);
    }

    #[test]
    fn who_is_looked_at_late_is_given_up_before_it_ends() {
        let mut silence = Silence::new(0, PING_MS, 15_000);
        assert!(silence.next_ms() <= 16_000);
        assert_eq!(silence.due(16_000), Due::GiveUp);
        assert_eq!(silence.due(16_500), Due::Nothing);
        assert_eq!(silence.next_ms(), 17_000);
    }

    #[test]
    fn who_is_looked_at_far_too_late_begins_anew_and_is_pinged() {
        let mut silence = Silence::new(0, PING_MS, 15_000);
        assert_eq!(silence.due(60_000), Due::Ping, "it is we who slept");
        assert_eq!(silence.next_ms(), 65_000);
        assert_eq!(silence.due(75_000), Due::GiveUp);
        // Its time to answer the close is over, however long ago.
        assert_eq!(silence.due(200_000), Due::End);
    }
}
