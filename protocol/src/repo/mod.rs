//! The repo dialect: the messages of automerge-repo's WebSocket protocol, version "1", as its published packages send them.
//!
//! One CBOR map per binary frame. Unknown keys, absent optional fields, `undefined`, and floats for whole numbers are taken;
//! what is missing, of the wrong type or beyond a limit is an error, and the whole message is dropped for it.

mod cbor;
mod decode;
mod encode;
mod heads;
mod presence;
mod sync;
mod values;

pub use heads::{base58check, encode_heads};
pub use presence::{Channels, PresenceMessage, channels_of, encode_channels};
pub use sync::{Have, SyncMessage, encode_again, encode_sync, encode_whole, split_chunks};
pub use values::{to_natives, to_peers};

use bytes::Bytes;
use std::{fmt, sync::Arc};

/// The version that is spoken.
pub const REPO_VERSION: &str = "1";
/// The longest peer id, storage id or session id, in bytes.
pub const ID_BYTES_MAX: usize = 256;
/// Storage ids in one `remote-subscription-change`.
pub const STORAGE_IDS_MAX: usize = 1_000;

/// What a peer calls itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(Arc<str>);

impl PeerId {
    /// Takes 1 to 256 bytes of text.
    ///
    /// # Errors
    /// For an empty or a longer text.
    pub fn new(text: &str) -> Result<Self, RepoError> {
        if text.is_empty() || text.len() > ID_BYTES_MAX {
            return Err(RepoError::Field("a peer id"));
        }
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerId({})", self.0)
    }
}

/// What a peer says of its storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerMetadata {
    /// The same for all peers that share a storage.
    pub storage_id: Option<String>,
    /// Whether nothing should be remembered of this peer.
    pub is_ephemeral: bool,
}

/// A message, in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RepoMessage {
    /// A client's first message.
    Join {
        /// Who it says it is.
        sender: PeerId,
        /// Its storage.
        metadata: PeerMetadata,
        /// What it speaks; absent in clients older than the field.
        versions: Option<Vec<String>>,
    },
    /// The server's answer to `join`.
    Peer {
        /// The server.
        sender: PeerId,
        /// The client.
        target: PeerId,
        /// The server's storage.
        metadata: PeerMetadata,
        /// What is spoken from now on.
        version: String,
    },
    /// The sender is about to go.
    Leave {
        /// Who.
        sender: PeerId,
    },
    /// A sync message about a document that the sender has or makes.
    Sync(Sync),
    /// A sync message about a document that the sender asks for.
    Request(Sync),
    /// The sender has not got the document, nor has anybody that it knows.
    DocUnavailable {
        /// Who says so.
        sender: PeerId,
        /// To whom.
        target: Option<PeerId>,
        /// Of which document.
        document: String,
    },
    /// A one-off message to all that have the document open.
    Ephemeral(Ephemeral),
    /// From now on the sender wants to hear, or not to hear, how far these storages are.
    RemoteSubscriptionChange {
        /// Who.
        sender: PeerId,
        /// To whom.
        target: Option<PeerId>,
        /// To be added.
        add: Vec<String>,
        /// To be removed.
        remove: Vec<String>,
    },
    /// How far other storages are.
    RemoteHeadsChanged {
        /// Who says so.
        sender: PeerId,
        /// To whom.
        target: Option<PeerId>,
        /// Of which document.
        document: String,
        /// By storage id.
        heads: Vec<RemoteHeads>,
    },
    /// What went wrong; the sender closes the connection.
    Error {
        /// Who says so.
        sender: PeerId,
        /// To whom.
        target: Option<PeerId>,
        /// What.
        message: String,
    },
}

/// The body of `sync` and `request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    /// Who sends it.
    pub sender: PeerId,
    /// To whom.
    pub target: Option<PeerId>,
    /// About which document.
    pub document: String,
    /// An Automerge sync message.
    pub data: Bytes,
}

/// The body of `ephemeral`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ephemeral {
    /// Who made it, which need not be who passes it on.
    pub sender: PeerId,
    /// To whom.
    pub target: Option<PeerId>,
    /// In which document.
    pub document: String,
    /// One run of the sender.
    pub session: String,
    /// Rises within a session.
    pub count: u64,
    /// CBOR of the application.
    pub data: Bytes,
}

/// How far a storage is in a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteHeads {
    /// Which storage.
    pub storage_id: String,
    /// Its heads, as in an Automerge URL.
    pub heads: Vec<String>,
    /// When it was there, in unix milliseconds.
    pub timestamp: u64,
}

/// Why bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepoError {
    /// Not CBOR within the limits.
    #[error("malformed CBOR: {0}")]
    Cbor(&'static str),
    /// Not one map, or something behind it.
    #[error("a message is one CBOR map")]
    NotAMap,
    /// Missing, or of the wrong type, or beyond its limit.
    #[error("the message lacks {0}, or it is not of the right type and size")]
    Field(&'static str),
    /// A message that this version does not have.
    #[error("unknown message type")]
    UnknownType,
    /// Not a sync message within the limits.
    #[error("malformed sync message: {0}")]
    Sync(&'static str),
}
