//! Bytes to messages and back.

use super::{ClientMessage, ServerMessage};
use bytes::Bytes;

/// Why bytes are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Placeholder.
    #[error("malformed")]
    Malformed,
}

/// Reads a client's frame.
pub fn decode_client(_frame: &Bytes) -> Result<ClientMessage, DecodeError> {
    Err(DecodeError::Malformed)
}

/// Reads a server's frame.
pub fn decode_server(_frame: &Bytes) -> Result<ServerMessage, DecodeError> {
    Err(DecodeError::Malformed)
}

impl ClientMessage {
    /// The frame that says this.
    pub fn encode(&self) -> Bytes {
        Bytes::new()
    }
}

impl ServerMessage {
    /// The frame that says this.
    pub fn encode(&self) -> Bytes {
        Bytes::new()
    }
}
