//! From a frame to a message of the repo dialect.

use super::{
    Ephemeral, ID_BYTES_MAX, PeerId, PeerMetadata, RemoteHeads, RepoError, RepoMessage, STORAGE_IDS_MAX, Sync,
    cbor::{Item, Reader, whole},
};
use crate::ids::NUMBER_MAX;
use bytes::Bytes;

/// The longest document id that is looked at, in bytes.
const DOCUMENT_BYTES_MAX: usize = 256;
/// Versions that a client may name.
const VERSIONS_MAX: usize = 32;
/// Heads that are taken per storage.
const REMOTE_HEADS_MAX: usize = 1_000;

impl RepoMessage {
    /// Reads one frame.
    ///
    /// # Errors
    /// If it is not one CBOR map with the fields that its `type` needs.
    pub fn decode(frame: &Bytes) -> Result<Self, RepoError> {
        Fields::read(frame)?.message(frame)
    }
}

/// All fields of all messages; each message takes what it needs.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a str>,
    sender: Option<&'a str>,
    target: Option<&'a str>,
    document: Option<&'a str>,
    session: Option<&'a str>,
    message: Option<&'a str>,
    version: Option<&'a str>,
    versions: Option<Vec<String>>,
    metadata: PeerMetadata,
    data: Option<&'a [u8]>,
    count: Option<u64>,
    add: Vec<String>,
    remove: Vec<String>,
    heads: Vec<RemoteHeads>,
}

impl<'a> Fields<'a> {
    fn read(frame: &'a [u8]) -> Result<Self, RepoError> {
        let mut reader = Reader::new(frame);
        let Item::Map(count) = reader.item()? else {
            return Err(RepoError::NotAMap);
        };
        let mut fields = Self::default();
        reader.entries(count, |reader, key, value| fields.take(reader, key, value))?;
        if !reader.is_empty() {
            return Err(RepoError::NotAMap);
        }
        Ok(fields)
    }

    /// A field that is `null` or `undefined` is as good as absent.
    fn take(&mut self, reader: &mut Reader<'a>, key: &str, value: Item<'a>) -> Result<(), RepoError> {
        match (key, value) {
            (_, Item::Nothing) => {}
            ("type", Item::Text(text)) => self.kind = Some(text),
            ("senderId", Item::Text(text)) => self.sender = Some(text),
            ("targetId", Item::Text(text)) => self.target = Some(text),
            ("documentId", Item::Text(text)) => self.document = Some(text),
            ("sessionId", Item::Text(text)) => self.session = Some(text),
            ("message", Item::Text(text)) => self.message = Some(text),
            ("selectedProtocolVersion", Item::Text(text)) => self.version = Some(text),
            ("data", Item::Bytes(bytes)) => self.data = Some(bytes),
            ("count", number) if whole(number).is_some() => self.count = whole(number),
            ("supportedProtocolVersions", Item::Array(count)) => {
                self.versions = Some(texts(reader, count, VERSIONS_MAX, "its versions")?);
            }
            ("add", Item::Array(count)) => self.add = texts(reader, count, STORAGE_IDS_MAX, "storage ids")?,
            ("remove", Item::Array(count)) => self.remove = texts(reader, count, STORAGE_IDS_MAX, "storage ids")?,
            ("peerMetadata" | "metadata", Item::Map(count)) => self.metadata = metadata(reader, count)?,
            ("newHeads", Item::Map(count)) => self.heads = remote_heads(reader, count)?,
            (_, value) => reader.skip(value)?,
        }
        Ok(())
    }

    fn message(self, frame: &Bytes) -> Result<RepoMessage, RepoError> {
        let sender = PeerId::new(self.sender.ok_or(RepoError::Field("senderId"))?)?;
        let target = self.target.map(PeerId::new).transpose()?;
        let document = || match self.document {
            Some(document) if document.len() <= DOCUMENT_BYTES_MAX => Ok(document.to_owned()),
            Some(_) | None => Err(RepoError::Field("documentId")),
        };
        let data = || match self.data {
            Some(data) if !data.is_empty() => Ok(frame.slice_ref(data)),
            Some(_) | None => Err(RepoError::Field("data")),
        };
        Ok(match self.kind.ok_or(RepoError::Field("type"))? {
            "join" => RepoMessage::Join {
                sender,
                metadata: self.metadata,
                versions: self.versions,
            },
            "peer" => RepoMessage::Peer {
                sender,
                target: target.ok_or(RepoError::Field("targetId"))?,
                metadata: self.metadata,
                version: bounded(self.version, "selectedProtocolVersion")?,
            },
            "leave" => RepoMessage::Leave { sender },
            kind @ ("sync" | "request") => {
                let sync = Sync {
                    sender,
                    target,
                    document: document()?,
                    data: data()?,
                };
                if kind == "sync" {
                    RepoMessage::Sync(sync)
                } else {
                    RepoMessage::Request(sync)
                }
            }
            "doc-unavailable" => RepoMessage::DocUnavailable {
                sender,
                target,
                document: document()?,
            },
            "ephemeral" => RepoMessage::Ephemeral(Ephemeral {
                sender,
                target,
                document: document()?,
                session: bounded(self.session, "sessionId")?,
                count: in_range(self.count)?,
                data: data()?,
            }),
            "remote-subscription-change" => RepoMessage::RemoteSubscriptionChange {
                sender,
                target,
                add: self.add,
                remove: self.remove,
            },
            "remote-heads-changed" => RepoMessage::RemoteHeadsChanged {
                sender,
                target,
                document: document()?,
                heads: self.heads,
            },
            "error" => RepoMessage::Error {
                sender,
                target,
                message: self.message.unwrap_or_default().to_owned(),
            },
            _ => return Err(RepoError::UnknownType),
        })
    }
}

fn in_range(count: Option<u64>) -> Result<u64, RepoError> {
    count
        .filter(|count| *count <= NUMBER_MAX)
        .ok_or(RepoError::Field("count"))
}

fn bounded(text: Option<&str>, field: &'static str) -> Result<String, RepoError> {
    match text {
        Some(text) if text.len() <= ID_BYTES_MAX => Ok(text.to_owned()),
        Some(_) | None => Err(RepoError::Field(field)),
    }
}

/// At most `max` short texts; whatever else stands between them is passed over.
fn texts(
    reader: &mut Reader<'_>,
    count: Option<u64>,
    max: usize,
    field: &'static str,
) -> Result<Vec<String>, RepoError> {
    let mut texts = Vec::new();
    reader.elements(count, |reader, item| {
        match item {
            Item::Text(_) if texts.len() == max => return Err(RepoError::Field(field)),
            Item::Text(text) => texts.push(bounded(Some(text), field)?),
            item => reader.skip(item)?,
        }
        Ok(())
    })?;
    Ok(texts)
}

fn metadata(reader: &mut Reader<'_>, count: Option<u64>) -> Result<PeerMetadata, RepoError> {
    let mut metadata = PeerMetadata::default();
    reader.entries(count, |reader, key, value| {
        match (key, value) {
            ("storageId", Item::Text(text)) => metadata.storage_id = Some(bounded(Some(text), "storageId")?),
            ("isEphemeral", Item::Bool(value)) => metadata.is_ephemeral = value,
            (_, value) => reader.skip(value)?,
        }
        Ok(())
    })?;
    Ok(metadata)
}

fn remote_heads(reader: &mut Reader<'_>, count: Option<u64>) -> Result<Vec<RemoteHeads>, RepoError> {
    let mut all = Vec::new();
    reader.entries(count, |reader, storage_id, value| {
        let Item::Map(count) = value else {
            return reader.skip(value);
        };
        if all.len() == STORAGE_IDS_MAX {
            return Err(RepoError::Field("newHeads"));
        }
        let mut one = RemoteHeads {
            storage_id: bounded(Some(storage_id), "a storage id")?,
            heads: Vec::new(),
            timestamp: 0,
        };
        reader.entries(count, |reader, key, value| {
            match (key, value) {
                ("heads", Item::Array(count)) => one.heads = texts(reader, count, REMOTE_HEADS_MAX, "heads")?,
                ("timestamp", number) if whole(number).is_some() => {
                    one.timestamp = whole(number).unwrap_or_default().min(NUMBER_MAX);
                }
                (_, value) => reader.skip(value)?,
            }
            Ok(())
        })?;
        all.push(one);
        Ok(())
    })?;
    Ok(all)
}
