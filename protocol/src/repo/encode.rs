//! From a message of the repo dialect to a frame.

use super::{Ephemeral, PeerId, PeerMetadata, RemoteHeads, RepoMessage, Sync, cbor::Writer};
use bytes::Bytes;

/// What a frame takes besides its data, about.
const ENVELOPE_BYTES: usize = 256;

impl RepoMessage {
    /// The frame.
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(ENVELOPE_BYTES + self.data_bytes());
        let out = &mut writer;
        match self {
            Self::Join {
                sender,
                metadata,
                versions,
            } => encode_join(out, sender, metadata, versions.as_deref()),
            Self::Peer {
                sender,
                target,
                metadata,
                version,
            } => {
                out.map(5);
                envelope(out, "peer", sender);
                encode_metadata(out, metadata);
                out.text("selectedProtocolVersion").text(version);
                encode_target(out, Some(target));
            }
            Self::Leave { sender } => {
                out.map(2);
                envelope(out, "leave", sender);
            }
            Self::Sync(sync) => encode_sync(out, "sync", sync),
            Self::Request(sync) => encode_sync(out, "request", sync),
            Self::DocUnavailable {
                sender,
                target,
                document,
            } => {
                out.map(3 + u64::from(target.is_some()));
                envelope(out, "doc-unavailable", sender);
                out.text("documentId").text(document);
                encode_target(out, target.as_ref());
            }
            Self::Ephemeral(ephemeral) => encode_ephemeral(out, ephemeral),
            Self::RemoteSubscriptionChange {
                sender,
                target,
                add,
                remove,
            } => {
                out.map(4 + u64::from(target.is_some()));
                envelope(out, "remote-subscription-change", sender);
                out.text("add");
                texts(out, add);
                out.text("remove");
                texts(out, remove);
                encode_target(out, target.as_ref());
            }
            Self::RemoteHeadsChanged {
                sender,
                target,
                document,
                heads,
            } => encode_remote_heads(out, sender, target.as_ref(), document, heads),
            Self::Error {
                sender,
                target,
                message,
            } => {
                out.map(3 + u64::from(target.is_some()));
                envelope(out, "error", sender);
                out.text("message").text(message);
                encode_target(out, target.as_ref());
            }
        }
        writer.finish().into()
    }

    fn data_bytes(&self) -> usize {
        match self {
            Self::Sync(sync) | Self::Request(sync) => sync.data.len(),
            Self::Ephemeral(ephemeral) => ephemeral.data.len(),
            _ => 0,
        }
    }
}

fn envelope(writer: &mut Writer, kind: &str, sender: &PeerId) {
    writer.text("type").text(kind).text("senderId").text(sender.as_str());
}

fn encode_target(writer: &mut Writer, target: Option<&PeerId>) {
    if let Some(target) = target {
        writer.text("targetId").text(target.as_str());
    }
}

fn encode_join(writer: &mut Writer, sender: &PeerId, metadata: &PeerMetadata, versions: Option<&[String]>) {
    writer.map(3 + u64::from(versions.is_some()));
    envelope(writer, "join", sender);
    encode_metadata(writer, metadata);
    if let Some(versions) = versions {
        writer.text("supportedProtocolVersions");
        texts(writer, versions);
    }
}

fn encode_ephemeral(writer: &mut Writer, ephemeral: &Ephemeral) {
    writer.map(6 + u64::from(ephemeral.target.is_some()));
    envelope(writer, "ephemeral", &ephemeral.sender);
    writer.text("documentId").text(&ephemeral.document);
    writer.text("sessionId").text(&ephemeral.session);
    writer.text("count").number(ephemeral.count);
    writer.text("data").bytes(&ephemeral.data);
    encode_target(writer, ephemeral.target.as_ref());
}

fn encode_remote_heads(
    writer: &mut Writer,
    sender: &PeerId,
    target: Option<&PeerId>,
    document: &str,
    heads: &[RemoteHeads],
) {
    writer.map(4 + u64::from(target.is_some()));
    envelope(writer, "remote-heads-changed", sender);
    writer.text("documentId").text(document);
    writer.text("newHeads").map(heads.len() as u64);
    for storage in heads {
        writer.text(&storage.storage_id).map(2).text("heads");
        texts(writer, &storage.heads);
        writer.text("timestamp").number(storage.timestamp);
    }
    encode_target(writer, target);
}

fn encode_sync(writer: &mut Writer, kind: &str, sync: &Sync) {
    writer.map(4 + u64::from(sync.target.is_some()));
    envelope(writer, kind, &sync.sender);
    writer.text("documentId").text(&sync.document);
    encode_target(writer, sync.target.as_ref());
    writer.text("data").bytes(&sync.data);
}

fn encode_metadata(writer: &mut Writer, metadata: &PeerMetadata) {
    writer
        .text("peerMetadata")
        .map(1 + u64::from(metadata.storage_id.is_some()));
    if let Some(storage_id) = &metadata.storage_id {
        writer.text("storageId").text(storage_id);
    }
    writer.text("isEphemeral").bool(metadata.is_ephemeral);
}

fn texts(writer: &mut Writer, texts: &[String]) {
    writer.array(texts.len() as u64);
    for text in texts {
        writer.text(text);
    }
}
