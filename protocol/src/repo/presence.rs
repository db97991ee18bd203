//! The messages of automerge-repo's presence helpers: ephemeral messages of one shape, which say what a peer shows of itself.

use super::{
    cbor::{Item, Reader, Writer},
    to_peers,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// The one key of the map that such a message is.
const MARKER: &str = "__presence";
/// The channel under which peers see the state of a native member that is no map.
const WHOLE_STATE: &str = "state";

/// What a peer shows: by channel, one CBOR item each.
pub type Channels = BTreeMap<String, Bytes>;

/// What such a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceMessage {
    /// All that its sender shows.
    Snapshot(Channels),
    /// The sender shows something else in one channel.
    Update {
        /// Which.
        channel: String,
        /// One CBOR item.
        value: Bytes,
    },
    /// The sender is still there.
    Heartbeat,
    /// The sender shows nothing any more.
    Goodbye,
}

impl PresenceMessage {
    /// Reads what an ephemeral message carries; `None` if it is anything else.
    pub fn decode(data: &[u8]) -> Option<Self> {
        let body = map(data)?.into_iter().find(|(key, _)| *key == MARKER)?.1;
        let mut fields = Fields::default();
        for (key, value) in map(body)? {
            fields.take(key, value);
        }
        fields.message()
    }

    /// What an ephemeral message carries that says so.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Snapshot(channels) => message("snapshot", &[("state", &encode_channels(channels))]),
            Self::Update { channel, value } => {
                let mut name = Writer::default();
                name.text(channel);
                message("update", &[("channel", &name.finish()), ("value", value)])
            }
            Self::Heartbeat => message("heartbeat", &[]),
            Self::Goodbye => message("goodbye", &[]),
        }
    }
}

/// All channels as one CBOR map.
pub fn encode_channels(channels: &Channels) -> Bytes {
    let mut writer = Writer::default();
    writer.map(channels.len() as u64);
    for (channel, value) in channels {
        writer.text(channel).raw(value);
    }
    writer.finish().into()
}

/// The channels in which peers see a native member's state.
pub fn channels_of(state: &Bytes) -> Channels {
    let state = to_peers(state);
    match map(&state) {
        Some(pairs) => pairs.into_iter().map(own).collect(),
        None => Channels::from([(WHOLE_STATE.to_owned(), state.clone())]),
    }
}

#[derive(Default)]
struct Fields<'a> {
    kind: Option<&'a str>,
    channel: Option<&'a str>,
    value: Option<&'a [u8]>,
    state: Option<Vec<(&'a str, &'a [u8])>>,
}

impl<'a> Fields<'a> {
    fn take(&mut self, key: &str, value: &'a [u8]) {
        match key {
            "type" => self.kind = text(value),
            "channel" => self.channel = text(value),
            "value" => self.value = Some(value),
            "state" => self.state = map(value),
            _ => {}
        }
    }

    fn message(self) -> Option<PresenceMessage> {
        Some(match self.kind? {
            "snapshot" => PresenceMessage::Snapshot(self.state?.into_iter().map(own).collect()),
            "update" => {
                let (channel, value) = own((self.channel?, self.value?));
                PresenceMessage::Update { channel, value }
            }
            "heartbeat" => PresenceMessage::Heartbeat,
            "goodbye" => PresenceMessage::Goodbye,
            _ => return None,
        })
    }
}

fn message(kind: &str, fields: &[(&str, &[u8])]) -> Bytes {
    let mut writer = Writer::default();
    writer.map(1).text(MARKER).map(1 + fields.len() as u64);
    writer.text("type").text(kind);
    for (key, value) in fields {
        writer.text(key).raw(value);
    }
    writer.finish().into()
}

/// The pairs of the one map that these bytes are.
fn map(item: &[u8]) -> Option<Vec<(&str, &[u8])>> {
    let mut reader = Reader::new(item);
    let Ok(Item::Map(count)) = reader.item() else {
        return None;
    };
    let pairs = reader.pairs(count).ok()?;
    reader.is_empty().then_some(pairs)
}

/// What is kept must not hold the message that it came in.
fn own((key, value): (&str, &[u8])) -> (String, Bytes) {
    (key.to_owned(), Bytes::copy_from_slice(value))
}

fn text(item: &[u8]) -> Option<&str> {
    match Reader::new(item).item() {
        Ok(Item::Text(text)) => Some(text),
        _ => None,
    }
}
