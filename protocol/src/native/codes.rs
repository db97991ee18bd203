//! The codes that are text on the wire, each with its one spelling. An unknown text is kept, so that a newer peer is understood
//! as far as possible.

use super::{Capability, ClosedCode, RejectCode};
use std::fmt;

macro_rules! spelling {
    ($name:ident { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $name {
            /// The text on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$variant,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

spelling!(Capability {
    Deflate = "deflate",
    Bundle = "bundle",
});

spelling!(RejectCode {
    Forbidden = "forbidden",
    Limit = "limit",
    ActorConflict = "actor_conflict",
    ForeignActor = "foreign_actor",
    MissingDeps = "missing_deps",
    AfterReject = "after_reject",
    Quarantined = "quarantined",
    Unavailable = "unavailable",
    NotOpen = "not_open",
});

spelling!(ClosedCode {
    Forbidden = "forbidden",
    Reset = "reset",
    Damaged = "damaged",
    Limit = "limit",
    Unavailable = "unavailable",
});

impl RejectCode {
    /// Whether the same changes may be sent again later, and nothing of the actor's is refused on their account.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::MissingDeps | Self::Unavailable | Self::NotOpen)
    }
}

impl ClosedCode {
    /// Whether the document may be opened again after a backoff.
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::Unavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e16_e17_temporary_codes_are_three_and_no_unknown_one() {
        let check = |text: &str, is_temporary: bool| {
            let code = RejectCode::from(text);
            assert_eq!(code.as_str(), text);
            assert_eq!(code.is_temporary(), is_temporary, "{text}");
        };
        for text in ["missing_deps", "unavailable", "not_open"] {
            check(text, true);
        }
        for text in [
            "forbidden",
            "limit",
            "actor_conflict",
            "foreign_actor",
            "after_reject",
            "quarantined",
            "new",
        ] {
            check(text, false);
        }
    }
}
