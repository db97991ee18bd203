//! The numbers of the protocol, each in a type of its own. All stay below 2^53, so that JavaScript holds them exactly.

use std::fmt;

/// The largest number on the wire: 2^53 - 1, `Number.MAX_SAFE_INTEGER` in JavaScript.
pub(crate) const NUMBER_MAX: u64 = (1 << 53) - 1;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Wraps `number`; its bits above 2^53 - 1 are dropped.
            pub const fn new(number: u64) -> Self {
                Self(number & NUMBER_MAX)
            }

            /// The number as it stands on the wire.
            pub const fn number(self) -> u64 {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A room, as the server numbers it for as long as it is open. The same number for all its members.
    RoomNumber
}
number! {
    /// One connection, as the server names it. Drawn at random, never reused within a process.
    SessionId
}
number! {
    /// An edit, as the client numbers it within one connection.
    EditId
}
number! {
    /// The life of a document's log. Another epoch means that positions of the former one say nothing.
    Epoch
}
number! {
    /// A place in a document's log: how many changes come before it.
    Position
}

impl Position {
    /// The position `changes` later.
    #[must_use]
    pub const fn plus(self, changes: u64) -> Self {
        Self::new(self.0 + changes)
    }
}

/// A place in the log of one document's one epoch. Every diff carries it; clients store it with their replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// Which log.
    pub epoch: Epoch,
    /// Where in it.
    pub position: Position,
}

/// The SHA-256 by which Automerge names a change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeHash(pub [u8; 32]);

impl fmt::Display for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChangeHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChangeHash({self})")
    }
}
