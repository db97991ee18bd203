//! Why a connection ends: the WebSocket close codes and what a client does about each.

/// A close code that the server sends. Those of [`CloseCode::is_final`] mean: do not come back unchanged. The others: come back, with
/// jittered backoff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CloseCode {
    /// 1001: the server goes away, or this connection has ended in good order.
    GoingAway,
    /// 1002: a frame that breaks WebSocket itself.
    BrokenFrame,
    /// 1007: a text, or a close's reason, that is no UTF-8.
    NotUtf8,
    /// 1008: too slow in the handshake, or silent for too long.
    TooSlow,
    /// 1012: the server restarts.
    Restart,
    /// 1013: overloaded; come back later.
    Overloaded,
    /// 4400: a message that breaks the protocol.
    Malformed,
    /// 4401: the token is missing, wrong or expired. Fetch one new token, then stop.
    Unauthorized,
    /// 4403: the origin or the subject is refused.
    Forbidden,
    /// 4409: a change that cannot be honest.
    Dishonest,
}

impl CloseCode {
    /// Every code, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::GoingAway,
        Self::BrokenFrame,
        Self::NotUtf8,
        Self::TooSlow,
        Self::Restart,
        Self::Overloaded,
        Self::Malformed,
        Self::Unauthorized,
        Self::Forbidden,
        Self::Dishonest,
    ];

    /// The number on the wire.
    pub const fn number(self) -> u16 {
        match self {
            Self::GoingAway => 1001,
            Self::BrokenFrame => 1002,
            Self::NotUtf8 => 1007,
            Self::TooSlow => 1008,
            Self::Restart => 1012,
            Self::Overloaded => 1013,
            Self::Malformed => 4400,
            Self::Unauthorized => 4401,
            Self::Forbidden => 4403,
            Self::Dishonest => 4409,
        }
    }

    /// The code with this number, if it is one of ours.
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// Whether a client must not come back with the same token and the same data.
    pub const fn is_final(self) -> bool {
        Self::is_final_number(self.number())
    }

    /// The same for any number, of later versions and of what stands in between, too: a proxy may find a message too large (1009).
    pub const fn is_final_number(number: u16) -> bool {
        matches!(number, 1002 | 1007 | 1009 | 4400..=4499)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c3_c5_final_codes_are_4400_to_4499_and_those_of_broken_frames() {
        let check = |number: u16, is_final: bool| {
            let code = CloseCode::from_number(number);
            assert_eq!(code.map(CloseCode::number), Some(number));
            assert_eq!(code.map(CloseCode::is_final), Some(is_final), "{number}");
        };
        for number in [1001, 1008, 1012, 1013] {
            check(number, false);
        }
        for number in [1002, 1007, 4400, 4401, 4403, 4409] {
            check(number, true);
        }
        assert_eq!(CloseCode::from_number(1000), None);
        assert_eq!(CloseCode::ALL.len(), 10);
        for (number, is_final) in [(1006, false), (1009, true), (4399, false), (4499, true), (4500, false)] {
            assert_eq!(CloseCode::is_final_number(number), is_final, "{number}");
        }
    }
}
