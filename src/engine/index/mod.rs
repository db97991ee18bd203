//! The op index of a room: which operation belongs to which object, key or element, whose actor is whose, and the recent
//! part of the change graph. Kept up per change, stored with the snapshot. It holds no values.

use crate::engine::gate::{Decoded, Subject};
use syncline_protocol::{ChangeHash, Position};

/// What a room knows of its document without the document.
#[derive(Clone, Debug, Default)]
pub struct Index {}

/// Why stored bytes are not an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a stored index: {0}")]
pub struct IndexError(pub &'static str);

impl Index {
    /// How many changes it holds.
    pub fn position(&self) -> Position {
        Position::new(0)
    }

    /// The changes that no other change stands on, in order.
    pub fn heads(&self) -> Vec<ChangeHash> {
        Vec::new()
    }

    /// Takes a change in: one that passed the gate, or one from our own log. It can be taken back with [`Index::rollback`].
    pub fn admit(&mut self, _change: &Decoded, _subject: &Subject) {}

    /// Takes back every change admitted after `position`, which is not before the last [`Index::settle`].
    pub fn rollback(&mut self, _position: Position) {}

    /// Forgets how to take back the changes before `position`.
    pub fn settle(&mut self, _position: Position) {}

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Reads the stored form; checks whatever could make a later call panic.
    pub fn decode(_bytes: &[u8]) -> Result<Self, IndexError> {
        Ok(Self::default())
    }

    /// Bytes of memory it takes, about.
    pub fn memory_bytes(&self) -> usize {
        0
    }
}
