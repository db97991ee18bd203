//! What a document needs of its surroundings.

use super::edits::EDIT_OVERHEAD_BYTES;
use crate::core::{ClientLimits, Effect, random::Random};
use syncline_protocol::{
    SessionId,
    native::{ClientMessage, WelcomeLimits},
};

/// What a document needs of the connection while it handles one event.
pub(in crate::core) struct Site<'a> {
    pub(in crate::core) now_ms: u64,
    pub(in crate::core) session: SessionId,
    pub(in crate::core) limits: &'a WelcomeLimits,
    pub(in crate::core) own_limits: &'a ClientLimits,
    pub(in crate::core) random: &'a mut Random,
    pub(in crate::core) next_edit: &'a mut u64,
    pub(in crate::core) out: &'a mut Vec<Effect>,
}

impl Site<'_> {
    pub(in crate::core) fn send(&mut self, message: &ClientMessage) {
        self.out.push(Effect::Send(message.encode()));
    }

    pub(super) fn edit_bytes_max(&self) -> u64 {
        self.limits.frame_bytes_max.saturating_sub(EDIT_OVERHEAD_BYTES)
    }

    pub(super) fn backoff_ms(&mut self, attempts: u32) -> u64 {
        self.own_limits.backoff_ms(attempts, self.random)
    }
}
