//! A client's messages, to bytes and back.

use super::{
    CAPABILITIES_MAX, Capability, ClientMessage, DecodeError, EDIT_CHANGES_MAX, Edit, HEADS_MAX, Hello, Open,
    reader::{Decoded, Reader},
    writer::{CURSOR_BYTES_MAX, HASH_BYTES, HEAD_BYTES_MAX, NUMBER_BYTES_MAX, Writer},
};
use crate::{EditId, RoomNumber};
use bytes::Bytes;

const HELLO: u64 = 1;
const AUTH: u64 = 2;
const OPEN: u64 = 3;
const EDIT: u64 = 4;
const PRESENCE: u64 = 5;
const SIGNAL: u64 = 6;
const LEAVE: u64 = 7;

/// Reads a client's frame. Any bytes may be given; elements beyond those known are skipped.
pub fn decode_client(frame: &Bytes) -> Result<ClientMessage, DecodeError> {
    let (reader, head) = Reader::begin(frame)?;
    match head.number {
        HELLO => reader.message(head, "hello", 5, hello).map(ClientMessage::Hello),
        AUTH => reader.message(head, "auth", 2, |r| {
            Ok(ClientMessage::Auth {
                token: r.text("auth.token")?.to_owned(),
            })
        }),
        OPEN => reader.message(head, "open", 4, open).map(ClientMessage::Open),
        EDIT => reader.message(head, "edit", 4, edit).map(ClientMessage::Edit),
        PRESENCE => reader.message(head, "presence", 3, |r| {
            let room = RoomNumber::new(r.number("presence.room")?);
            let state = r.optional(|r| r.bytes("presence.state"))?;
            Ok(ClientMessage::Presence { room, state })
        }),
        SIGNAL => reader.message(head, "signal", 3, |r| {
            let room = RoomNumber::new(r.number("signal.room")?);
            let payload = r.bytes("signal.payload")?;
            Ok(ClientMessage::Signal { room, payload })
        }),
        LEAVE => reader.message(head, "leave", 2, |r| {
            let room = RoomNumber::new(r.number("leave.room")?);
            Ok(ClientMessage::Leave { room })
        }),
        number => Err(DecodeError::UnknownMessage(number)),
    }
}

impl ClientMessage {
    /// The frame that says this. Numbers above 2^53 - 1 become 2^53 - 1.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Hello(hello) => encode_hello(hello),
            Self::Auth { token } => {
                let mut writer = Writer::begin(AUTH, 2, HEAD_BYTES_MAX + token.len());
                writer.text(token);
                writer.finish()
            }
            Self::Open(open) => encode_open(open),
            Self::Edit(edit) => encode_edit(edit),
            Self::Presence { room, state } => {
                let state_bytes = state.as_ref().map_or(0, Bytes::len);
                let mut writer = Writer::begin(PRESENCE, 3, NUMBER_BYTES_MAX + HEAD_BYTES_MAX + state_bytes);
                writer.number(room.number());
                writer.optional(state.as_ref(), |writer, state| writer.bytes(state));
                writer.finish()
            }
            Self::Signal { room, payload } => {
                let mut writer = Writer::begin(SIGNAL, 3, NUMBER_BYTES_MAX + HEAD_BYTES_MAX + payload.len());
                writer.number(room.number());
                writer.bytes(payload);
                writer.finish()
            }
            Self::Leave { room } => {
                let mut writer = Writer::begin(LEAVE, 2, NUMBER_BYTES_MAX);
                writer.number(room.number());
                writer.finish()
            }
        }
    }
}

/// Reads the `capabilities` of `hello` or `welcome`.
pub(super) fn capabilities(reader: &mut Reader<'_>, field: &'static str) -> Decoded<Vec<Capability>> {
    reader.list(field, CAPABILITIES_MAX, 1, |r| r.text(field).map(Capability::from))
}

/// Writes the `capabilities` of `hello` or `welcome`.
pub(super) fn write_capabilities(writer: &mut Writer, capabilities: &[Capability]) {
    writer.list(capabilities, |writer, capability| writer.text(capability.as_str()));
}

/// The most bytes that [`write_capabilities`] takes.
pub(super) fn capabilities_bytes_max(capabilities: &[Capability]) -> usize {
    let entry = |capability: &Capability| HEAD_BYTES_MAX + capability.as_str().len();
    HEAD_BYTES_MAX + capabilities.iter().map(entry).sum::<usize>()
}

fn hello(reader: &mut Reader<'_>) -> Decoded<Hello> {
    Ok(Hello {
        version: reader.number("hello.version")?,
        token: reader.optional(|r| r.text("hello.token").map(str::to_owned))?,
        client: reader.text("hello.client")?.to_owned(),
        capabilities: capabilities(reader, "hello.capabilities")?,
    })
}

fn open(reader: &mut Reader<'_>) -> Decoded<Open> {
    Ok(Open {
        document: reader.document("open.document")?,
        cursor: reader.optional(|r| r.cursor("open.cursor"))?,
        heads: reader.list("open.heads", HEADS_MAX, HASH_BYTES, |r| r.hash("open.heads"))?,
    })
}

fn edit(reader: &mut Reader<'_>) -> Decoded<Edit> {
    Ok(Edit {
        room: RoomNumber::new(reader.number("edit.room")?),
        id: EditId::new(reader.number("edit.id")?),
        changes: reader.list("edit.changes", EDIT_CHANGES_MAX, 2, |r| r.bytes("edit.changes"))?,
    })
}

fn encode_hello(hello: &Hello) -> Bytes {
    let token_bytes = hello.token.as_ref().map_or(0, String::len);
    let texts = 2 * HEAD_BYTES_MAX + token_bytes + hello.client.len();
    let mut writer = Writer::begin(
        HELLO,
        5,
        NUMBER_BYTES_MAX + texts + capabilities_bytes_max(&hello.capabilities),
    );
    writer.number(hello.version);
    writer.optional(hello.token.as_ref(), |writer, token| writer.text(token));
    writer.text(&hello.client);
    write_capabilities(&mut writer, &hello.capabilities);
    writer.finish()
}

fn encode_open(open: &Open) -> Bytes {
    let document = HEAD_BYTES_MAX + open.document.as_str().len();
    let heads = HEAD_BYTES_MAX + open.heads.len() * HASH_BYTES;
    let mut writer = Writer::begin(OPEN, 4, document + CURSOR_BYTES_MAX + heads);
    writer.document(&open.document);
    writer.optional(open.cursor, Writer::cursor);
    writer.heads(&open.heads);
    writer.finish()
}

fn encode_edit(edit: &Edit) -> Bytes {
    let changes = edit
        .changes
        .iter()
        .map(|change| HEAD_BYTES_MAX + change.len())
        .sum::<usize>();
    let mut writer = Writer::begin(EDIT, 4, 2 * NUMBER_BYTES_MAX + HEAD_BYTES_MAX + changes);
    writer.number(edit.room.number());
    writer.number(edit.id.number());
    writer.list(&edit.changes, |writer, change| writer.bytes(change));
    writer.finish()
}
