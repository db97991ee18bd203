//! Promises broken on purpose, for tests: only a build with the feature `failpoints` can, and only where it was told to.
//!
//! `SYNCLINE_FAILPOINTS` names the switches that are on in a process. Some of these strike only where [`MARK`] stands in what a
//! client sends; a test that shares its process with others gives a mark of its own instead (`Switch::order`).
//!
//! Without the feature nothing here reads the environment, and every question is answered with a constant `false`.

use crate::engine::{document::Merge, gate};
use bytes::Bytes;
use std::{collections::BTreeSet, time::Duration};
use syncline_protocol::{
    Cursor, DocumentId, Epoch, Limits, Position,
    native::{ServerMessage, decode_server},
};

/// What a trial writes where a fault is to be.
pub const MARK: &[u8] = b"failpoint: here";

/// How often a room that is held looks whether it may go on.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A promise that can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Edits are acknowledged and shown, and written a little later.
    AckBeforeWrite,
    /// Edits are acknowledged when they are written, without the fsync.
    AckBeforeSync,
    /// The store's journal is cut while the log that holds its batches is not durable yet.
    JournalCutEarly,
    /// Edits that are refused are acknowledged.
    AckRefused,
    /// A snapshot lies in the store with its last byte changed.
    BadSnapshot,
    /// A snapshot is not read back before the log is pruned.
    SnapshotUnread,
    /// A change that is marked does not merge.
    ThrowOut,
    /// A change that was thrown out is taken when it comes again.
    CulpritsWelcome,
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
    /// A room panics at a marked signal.
    PanicInRoom,
    /// A room that panics takes the server with it.
    PanicEndsAll,
    /// The room of a marked document stands still.
    HoldRoom,
    /// What comes on a connection goes back on it, as it came: sessions are left out, and nothing else.
    Echo,
    /// Each member has its own copy of what all are sent.
    CopyFrames,
    /// A reset keeps nothing of what was written after the change that it throws out.
    ResetLoses,
    /// Documents are merged on the threads that serve connections.
    MergesInTheWay,
}

impl Switch {
    /// Its name in the variable.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeWrite => "ack_before_write",
            Self::AckBeforeSync => "ack_before_sync",
            Self::JournalCutEarly => "journal_cut_early",
            Self::AckRefused => "ack_refused",
            Self::BadSnapshot => "bad_snapshot",
            Self::SnapshotUnread => "snapshot_unread",
            Self::ThrowOut => "throw_out",
            Self::CulpritsWelcome => "culprits_welcome",
            Self::NeverWritten => "never_written",
            Self::DamageUnnoticed => "damage_unnoticed",
            Self::BackupLoses => "backup_loses",
            Self::TokensGrantAll => "tokens_grant_all",
            Self::TokensLast => "tokens_last",
            Self::TokensLogged => "tokens_logged",
            Self::WallTime => "wall_time",
            Self::PanicInRoom => "panic_in_room",
            Self::PanicEndsAll => "panic_ends_all",
            Self::HoldRoom => "hold_room",
            Self::Echo => "echo",
            Self::CopyFrames => "copy_frames",
            Self::ResetLoses => "reset_loses",
            Self::MergesInTheWay => "merges_in_the_way",
        }
    }

    /// Whether the promise is to be broken wherever it can be.
    #[cfg(not(feature = "failpoints"))]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether the promise is to be broken here: in `bytes` stands a mark.
    #[cfg(not(feature = "failpoints"))]
    pub const fn strikes(self, _bytes: &[u8]) -> bool {
        false
    }
}

#[cfg(feature = "failpoints")]
mod orders {
    //! Where which switch strikes.

    use super::{MARK, Switch};
    use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

    /// Of the tests in this process. Few, and withdrawn with it.
    static ORDERS: Mutex<Vec<Order>> = Mutex::new(Vec::new());

    struct Order {
        switch: Switch,
        mark: Vec<u8>,
        has_struck: bool,
    }

    impl Switch {
        /// Whether the promise is to be broken wherever it can be.
        pub fn is_on(self) -> bool {
            named().iter().any(|name| name == self.name())
        }

        /// Whether the promise is to be broken here: in `bytes` stands a mark.
        pub fn strikes(self, bytes: &[u8]) -> bool {
            let ordered = |order: &&mut Order| order.switch == self && holds(bytes, &order.mark);
            if let Some(order) = orders().iter_mut().find(ordered) {
                order.has_struck = true;
                return true;
            }
            self.is_on() && holds(bytes, MARK)
        }

        /// From now on it strikes where `mark` stands.
        pub fn order(self, mark: &[u8]) {
            let (switch, mark) = (self, mark.to_vec());
            let has_struck = false;
            orders().push(Order {
                switch,
                mark,
                has_struck,
            });
        }

        /// Whether it has struck at `mark` since it was ordered.
        pub fn has_struck(self, mark: &[u8]) -> bool {
            let is_it = |order: &Order| order.switch == self && order.mark == mark && order.has_struck;
            orders().iter().any(is_it)
        }

        /// No longer.
        pub fn withdraw(self, mark: &[u8]) {
            orders().retain(|order| order.switch != self || order.mark != mark);
        }
    }

    fn holds(bytes: &[u8], mark: &[u8]) -> bool {
        bytes.windows(mark.len()).any(|window| window == mark)
    }

    fn orders() -> MutexGuard<'static, Vec<Order>> {
        ORDERS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn named() -> &'static [String] {
        static NAMED: OnceLock<Vec<String>> = OnceLock::new();
        #[expect(
            clippy::disallowed_methods,
            reason = "faults are no configuration, and no ordinary build has them"
        )]
        let read = || std::env::var("SYNCLINE_FAILPOINTS").unwrap_or_default();
        NAMED.get_or_init(|| read().split(',').map(|name| name.trim().to_owned()).collect())
    }
}

/// The frame for one of those that are sent it.
pub(super) fn shared(frame: &Bytes) -> Bytes {
    if Switch::CopyFrames.is_on() {
        return Bytes::copy_from_slice(frame);
    }
    frame.clone()
}

/// The answer as it goes to a member.
pub(super) fn answer(frame: Bytes) -> Bytes {
    if !Switch::AckRefused.is_on() {
        return frame;
    }
    let Ok(ServerMessage::Reject { room, id, .. }) = decode_server(&frame) else {
        return frame;
    };
    let cursor = Cursor {
        epoch: Epoch::new(1),
        position: Position::new(0),
    };
    ServerMessage::Ack { room, id, cursor }.encode()
}

/// A signal comes to a room.
pub(super) fn signalled(payload: &[u8]) {
    if !Switch::PanicInRoom.strikes(payload) {
        return;
    }
    if Switch::PanicEndsAll.is_on() {
        std::process::abort();
    }
    panic!("a panic on purpose");
}

/// Waits while the room of this document is held.
pub(super) async fn pass(document: &DocumentId) {
    while Switch::HoldRoom.strikes(document.as_str().as_bytes()) {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What a merge finds if a change to be thrown out is among these.
pub(super) fn merge(changes: &[Bytes]) -> Option<Merge> {
    let thrown_out: BTreeSet<usize> = (0..changes.len())
        .filter(|&number| Switch::ThrowOut.strikes(&changes[number]))
        .collect();
    if thrown_out.is_empty() {
        return None;
    }
    let (mut bad, mut descendants) = (BTreeSet::new(), Vec::new());
    for (number, bytes) in changes.iter().enumerate() {
        let header = gate::read(bytes.clone(), &Limits::default()).ok()?;
        let stands_on_it = header.deps().iter().any(|dep| bad.contains(dep));
        if stands_on_it && !thrown_out.contains(&number) {
            descendants.push(number);
        }
        if stands_on_it || thrown_out.contains(&number) {
            bad.insert(header.hash());
        }
    }
    let culprits = thrown_out.into_iter().collect();
    Some(Merge::Bad { culprits, descendants })
}
