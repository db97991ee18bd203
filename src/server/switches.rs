//! Promises broken on purpose, for the trials: a build with the feature `failpoints` breaks what `SYNCLINE_FAILPOINTS` names.
//! Tests in one process order their faults from `failpoints` instead.
//!
//! Without the feature nothing here reads the environment, and every question is answered with a constant `false`.

/// A promise that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Edits are acknowledged and shown, and written a little later.
    AckBeforeWrite,
    /// Edits are acknowledged when they are written, without the fsync.
    AckBeforeSync,
    /// A snapshot lies in the store with its last byte changed.
    BadSnapshot,
    /// A change that holds [`MARK`] does not merge.
    ThrowOut,
    /// Edits are acknowledged and never written.
    NeverWritten,
    /// A log that ends before the last synced edit passes for whole.
    DamageUnnoticed,
    /// A backup lacks what was just read for it.
    BackupLoses,
    /// Every token lets its bearer write everything.
    TokensGrantAll,
    /// Tokens do not expire.
    TokensLast,
    /// Tokens stand in the log.
    TokensLogged,
    /// All times are the wall clock's.
    WallTime,
    /// A room panics at a signal that begins with [`MARK`].
    PanicInRoom,
}

/// What a trial writes where a fault is to be.
pub const MARK: &[u8] = b"failpoint: here";

impl Switch {
    /// Its name in the variable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeWrite => "ack_before_write",
            Self::AckBeforeSync => "ack_before_sync",
            Self::BadSnapshot => "bad_snapshot",
            Self::ThrowOut => "throw_out",
            Self::NeverWritten => "never_written",
            Self::DamageUnnoticed => "damage_unnoticed",
            Self::BackupLoses => "backup_loses",
            Self::TokensGrantAll => "tokens_grant_all",
            Self::TokensLast => "tokens_last",
            Self::TokensLogged => "tokens_logged",
            Self::WallTime => "wall_time",
            Self::PanicInRoom => "panic_in_room",
        }
    }

    /// Whether the promise is to be broken.
    #[cfg(not(feature = "failpoints"))]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether the promise is to be broken.
    #[cfg(feature = "failpoints")]
    pub fn is_on(self) -> bool {
        named().iter().any(|name| name == self.name())
    }

    /// Whether it is on, and `bytes` hold [`MARK`].
    pub fn is_marked(self, bytes: &[u8]) -> bool {
        self.is_on() && bytes.windows(MARK.len()).any(|window| window == MARK)
    }
}

#[cfg(feature = "failpoints")]
fn named() -> &'static [String] {
    use std::sync::OnceLock;
    static NAMED: OnceLock<Vec<String>> = OnceLock::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "faults are no configuration, and no ordinary build has them"
    )]
    let read = || std::env::var("SYNCLINE_FAILPOINTS").unwrap_or_default();
    NAMED.get_or_init(|| read().split(',').map(|name| name.trim().to_owned()).collect())
}
