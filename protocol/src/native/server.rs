//! The server's messages, to bytes and back.

use super::{
    Access, Base, ClosedCode, DIFF_CHANGES_MAX, DIFF_RUNS_MAX, DecodeError, Diff, HEADS_MAX, Opened,
    PRESENCE_ENTRIES_MAX, Packing, Part, PresenceEntry, RejectCode, Run, ServerMessage, Welcome, WelcomeLimits,
    client::{capabilities, capabilities_bytes_max, write_capabilities},
    reader::{Decoded, Reader},
    writer::{CURSOR_BYTES_MAX, HASH_BYTES, HEAD_BYTES_MAX, NUMBER_BYTES_MAX, Writer, cursor_bytes, number_bytes},
};
use crate::{Cursor, DocumentId, EditId, RoomNumber, SessionId};
use bytes::Bytes;

const WELCOME: u64 = 16;
const OPENED: u64 = 17;
const PART: u64 = 18;
const DIFF: u64 = 19;
const ACK: u64 = 20;
const REJECT: u64 = 21;
const PRESENCE: u64 = 22;
const SIGNAL: u64 = 23;
const CLOSED: u64 = 24;
const RETRY: u64 = 25;
const ERROR: u64 = 26;

/// Reads a server's frame. Any bytes may be given; elements beyond those known are skipped.
pub fn decode_server(frame: &Bytes) -> Result<ServerMessage, DecodeError> {
    let (reader, head) = Reader::begin(frame)?;
    match head.number {
        WELCOME => reader.message(head, "welcome", 4, welcome).map(ServerMessage::Welcome),
        OPENED => reader.message(head, "opened", 8, opened).map(ServerMessage::Opened),
        PART => reader.message(head, "part", 5, part).map(ServerMessage::Part),
        DIFF => reader.message(head, "diff", 4, diff).map(ServerMessage::Diff),
        ACK => reader.message(head, "ack", 4, ack),
        REJECT => reader.message(head, "reject", 5, reject),
        PRESENCE => reader.message(head, "presence", 3, presence),
        SIGNAL => reader.message(head, "signal", 4, signal),
        CLOSED => reader.message(head, "closed", 5, closed),
        RETRY => reader.message(head, "retry", 2, |r| {
            let after_ms = r.number("retry.after_ms")?;
            Ok(ServerMessage::Retry { after_ms })
        }),
        ERROR => reader.message(head, "error", 3, |r| {
            let code = r.number_up_to("error.code", u64::from(u16::MAX))? as u16;
            let text = r.text("error.text")?.to_owned();
            Ok(ServerMessage::Error { code, text })
        }),
        number => Err(DecodeError::UnknownMessage(number)),
    }
}

/// The frame of a diff, straight from borrowed changes: the bytes that [`ServerMessage::Diff`] with these runs encodes to.
///
/// `runs` is walked twice, so it must be cheap to clone, as an iterator over slices is. From a flat list of changes in log order
/// `list.chunk_by(same_session).map(|run| (run[0].session, run.iter().map(|change| &change.bytes)))` makes it.
pub fn encode_diff<R, C>(room: RoomNumber, cursor: Cursor, runs: R) -> Bytes
where
    R: Iterator<Item = (SessionId, C)> + Clone,
    C: ExactSizeIterator<Item: AsRef<[u8]>>,
{
    let (mut count, mut bytes_max) = (0, NUMBER_BYTES_MAX + CURSOR_BYTES_MAX + HEAD_BYTES_MAX);
    for (_, changes) in runs.clone() {
        count += 1;
        bytes_max += 1 + NUMBER_BYTES_MAX + HEAD_BYTES_MAX;
        bytes_max += changes
            .map(|change| HEAD_BYTES_MAX + change.as_ref().len())
            .sum::<usize>();
    }
    let mut writer = Writer::begin(DIFF, 4, bytes_max);
    writer.number(room.number());
    writer.cursor(cursor);
    writer.array(count);
    for (session, changes) in runs {
        writer.array(2);
        writer.number(session.number());
        writer.array(changes.len());
        changes.for_each(|change| writer.bytes(change.as_ref()));
    }
    writer.finish()
}

impl ServerMessage {
    /// The frame that says this. Numbers above 2^53 - 1 become 2^53 - 1.
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Welcome(welcome) => encode_welcome(welcome),
            Self::Opened(opened) => encode_opened(opened),
            Self::Part(part) => encode_part(part),
            Self::Diff(diff) => {
                let runs = diff.runs.iter().map(|run| (run.session, run.changes.iter()));
                encode_diff(diff.room, diff.cursor, runs)
            }
            Self::Ack { room, id, cursor } => {
                // Measured: bytes without space to spare need no second allocation, and of acks there are many.
                let numbers = number_bytes(room.number()) + number_bytes(id.number());
                let mut writer = Writer::begin(ACK, 4, numbers + cursor_bytes(*cursor));
                writer.number(room.number());
                writer.number(id.number());
                writer.cursor(*cursor);
                writer.finish()
            }
            Self::Reject { room, id, code, text } => {
                let texts = 2 * HEAD_BYTES_MAX + code.as_str().len() + text.len();
                let mut writer = Writer::begin(REJECT, 5, 2 * NUMBER_BYTES_MAX + texts);
                writer.number(room.number());
                writer.number(id.number());
                writer.text(code.as_str());
                writer.text(text);
                writer.finish()
            }
            Self::Presence { room, entries } => encode_presence(*room, entries),
            Self::Signal { room, session, payload } => {
                let mut writer = Writer::begin(SIGNAL, 4, 2 * NUMBER_BYTES_MAX + HEAD_BYTES_MAX + payload.len());
                writer.number(room.number());
                writer.number(session.number());
                writer.bytes(payload);
                writer.finish()
            }
            Self::Closed {
                room,
                document,
                code,
                text,
            } => encode_closed(*room, document, code, text),
            Self::Retry { after_ms } => {
                let mut writer = Writer::begin(RETRY, 2, NUMBER_BYTES_MAX);
                writer.number(*after_ms);
                writer.finish()
            }
            Self::Error { code, text } => {
                let mut writer = Writer::begin(ERROR, 3, NUMBER_BYTES_MAX + HEAD_BYTES_MAX + text.len());
                writer.number(u64::from(*code));
                writer.text(text);
                writer.finish()
            }
        }
    }
}

fn welcome(reader: &mut Reader<'_>) -> Decoded<Welcome> {
    Ok(Welcome {
        session: SessionId::new(reader.number("welcome.session")?),
        limits: limits(reader)?,
        capabilities: capabilities(reader, "welcome.capabilities")?,
    })
}

fn limits(reader: &mut Reader<'_>) -> Decoded<WelcomeLimits> {
    let mut limits = WelcomeLimits::default();
    reader.map("welcome.limits", |r, key| {
        let Some((_, limit)) = limits.fields_mut().into_iter().find(|(name, _)| *name == key) else {
            return Ok(false);
        };
        *limit = r.number("welcome.limits")?;
        Ok(true)
    })?;
    Ok(limits)
}

impl WelcomeLimits {
    /// Every limit with its name on the wire, in the order in which they are written.
    fn fields_mut(&mut self) -> [(&'static str, &mut u64); 8] {
        [
            ("frame_bytes_max", &mut self.frame_bytes_max),
            ("edits_per_second", &mut self.edits_per_second),
            ("presence_per_second", &mut self.presence_per_second),
            ("presence_bytes_max", &mut self.presence_bytes_max),
            ("presence_ttl_ms", &mut self.presence_ttl_ms),
            ("ops_per_change_max", &mut self.ops_per_change_max),
            ("documents_per_session_max", &mut self.documents_per_session_max),
            ("idle_timeout_ms", &mut self.idle_timeout_ms),
        ]
    }
}

fn opened(reader: &mut Reader<'_>) -> Decoded<Opened> {
    Ok(Opened {
        room: RoomNumber::new(reader.number("opened.room")?),
        document: reader.document("opened.document")?,
        access: reader.one_of("opened.access", |value| match value {
            0 => Some(Access::Read),
            1 => Some(Access::Write),
            _ => None,
        })?,
        heads: reader.list("opened.heads", HEADS_MAX, HASH_BYTES, |r| r.hash("opened.heads"))?,
        cursor: reader.cursor("opened.cursor")?,
        base: reader.one_of("opened.base", |value| match value {
            0 => Some(Base::Replica),
            1 => Some(Base::Nothing),
            _ => None,
        })?,
        bytes: reader.number("opened.bytes")?,
    })
}

fn part(reader: &mut Reader<'_>) -> Decoded<Part> {
    Ok(Part {
        room: RoomNumber::new(reader.number("part.room")?),
        packing: reader.one_of("part.packing", |value| match value {
            0 => Some(Packing::Plain),
            1 => Some(Packing::Deflate),
            _ => None,
        })?,
        bytes: reader.bytes("part.bytes")?,
        end: reader.optional(|r| r.cursor("part.end"))?,
    })
}

fn diff(reader: &mut Reader<'_>) -> Decoded<Diff> {
    let room = RoomNumber::new(reader.number("diff.room")?);
    let cursor = reader.cursor("diff.cursor")?;
    let mut changes_left = DIFF_CHANGES_MAX;
    let runs = reader.list("diff.runs", DIFF_RUNS_MAX, 3, |r| {
        r.tuple("diff.runs", 2, |r| {
            let session = SessionId::new(r.number("diff.runs.session")?);
            let changes = r.list("diff.runs.changes", changes_left, 2, |r| r.bytes("diff.runs.changes"))?;
            changes_left -= changes.len();
            Ok(Run { session, changes })
        })
    })?;
    Ok(Diff { room, cursor, runs })
}

fn ack(reader: &mut Reader<'_>) -> Decoded<ServerMessage> {
    let room = RoomNumber::new(reader.number("ack.room")?);
    let id = EditId::new(reader.number("ack.id")?);
    let cursor = reader.cursor("ack.cursor")?;
    Ok(ServerMessage::Ack { room, id, cursor })
}

fn reject(reader: &mut Reader<'_>) -> Decoded<ServerMessage> {
    let room = RoomNumber::new(reader.number("reject.room")?);
    let id = EditId::new(reader.number("reject.id")?);
    let code = RejectCode::from(reader.text("reject.code")?);
    let text = reader.text("reject.text")?.to_owned();
    Ok(ServerMessage::Reject { room, id, code, text })
}

fn presence(reader: &mut Reader<'_>) -> Decoded<ServerMessage> {
    let room = RoomNumber::new(reader.number("presence.room")?);
    let entries = reader.list("presence.entries", PRESENCE_ENTRIES_MAX, 5, |r| {
        r.tuple("presence.entries", 4, |r| {
            Ok(PresenceEntry {
                session: SessionId::new(r.number("presence.entries.session")?),
                subject: r.text("presence.entries.subject")?.to_owned(),
                name: r.optional(|r| r.text("presence.entries.name").map(str::to_owned))?,
                state: r.optional(|r| r.bytes("presence.entries.state"))?,
            })
        })
    })?;
    Ok(ServerMessage::Presence { room, entries })
}

fn signal(reader: &mut Reader<'_>) -> Decoded<ServerMessage> {
    let room = RoomNumber::new(reader.number("signal.room")?);
    let session = SessionId::new(reader.number("signal.session")?);
    let payload = reader.bytes("signal.payload")?;
    Ok(ServerMessage::Signal { room, session, payload })
}

fn closed(reader: &mut Reader<'_>) -> Decoded<ServerMessage> {
    let room = reader.optional(|r| r.number("closed.room"))?.map(RoomNumber::new);
    let document = reader.document("closed.document")?;
    let code = ClosedCode::from(reader.text("closed.code")?);
    let text = reader.text("closed.text")?.to_owned();
    Ok(ServerMessage::Closed {
        room,
        document,
        code,
        text,
    })
}

fn encode_welcome(welcome: &Welcome) -> Bytes {
    let mut limits = welcome.limits.clone();
    let limits = limits.fields_mut();
    let limits_bytes = limits
        .iter()
        .map(|(name, _)| HEAD_BYTES_MAX + name.len() + NUMBER_BYTES_MAX)
        .sum::<usize>();
    let bytes_max = NUMBER_BYTES_MAX + HEAD_BYTES_MAX + limits_bytes + capabilities_bytes_max(&welcome.capabilities);
    let mut writer = Writer::begin(WELCOME, 4, bytes_max);
    writer.number(welcome.session.number());
    writer.map(limits.len());
    for (name, limit) in limits {
        writer.text(name);
        writer.number(*limit);
    }
    write_capabilities(&mut writer, &welcome.capabilities);
    writer.finish()
}

fn encode_opened(opened: &Opened) -> Bytes {
    let document = HEAD_BYTES_MAX + opened.document.as_str().len();
    let heads = HEAD_BYTES_MAX + opened.heads.len() * HASH_BYTES;
    let mut writer = Writer::begin(OPENED, 8, 4 * NUMBER_BYTES_MAX + CURSOR_BYTES_MAX + document + heads);
    writer.number(opened.room.number());
    writer.document(&opened.document);
    writer.number(match opened.access {
        Access::Read => 0,
        Access::Write => 1,
    });
    writer.heads(&opened.heads);
    writer.cursor(opened.cursor);
    writer.number(match opened.base {
        Base::Replica => 0,
        Base::Nothing => 1,
    });
    writer.number(opened.bytes);
    writer.finish()
}

fn encode_part(part: &Part) -> Bytes {
    let mut writer = Writer::begin(
        PART,
        5,
        2 * NUMBER_BYTES_MAX + HEAD_BYTES_MAX + part.bytes.len() + CURSOR_BYTES_MAX,
    );
    writer.number(part.room.number());
    writer.number(match part.packing {
        Packing::Plain => 0,
        Packing::Deflate => 1,
    });
    writer.bytes(&part.bytes);
    writer.optional(part.end, Writer::cursor);
    writer.finish()
}

fn encode_presence(room: RoomNumber, entries: &[PresenceEntry]) -> Bytes {
    let entry_bytes_max = |entry: &PresenceEntry| {
        let payload = entry.subject.len()
            + entry.name.as_ref().map_or(0, String::len)
            + entry.state.as_ref().map_or(0, Bytes::len);
        1 + NUMBER_BYTES_MAX + 3 * HEAD_BYTES_MAX + payload
    };
    let entries_bytes_max = entries.iter().map(entry_bytes_max).sum::<usize>();
    let mut writer = Writer::begin(PRESENCE, 3, NUMBER_BYTES_MAX + HEAD_BYTES_MAX + entries_bytes_max);
    writer.number(room.number());
    writer.list(entries, |writer, entry| {
        writer.array(4);
        writer.number(entry.session.number());
        writer.text(&entry.subject);
        writer.optional(entry.name.as_ref(), |writer, name| writer.text(name));
        writer.optional(entry.state.as_ref(), |writer, state| writer.bytes(state));
    });
    writer.finish()
}

fn encode_closed(room: Option<RoomNumber>, document: &DocumentId, code: &ClosedCode, text: &str) -> Bytes {
    let texts = 3 * HEAD_BYTES_MAX + document.as_str().len() + code.as_str().len() + text.len();
    let mut writer = Writer::begin(CLOSED, 5, NUMBER_BYTES_MAX + texts);
    writer.optional(room, |writer, room| writer.number(room.number()));
    writer.document(document);
    writer.text(code.as_str());
    writer.text(text);
    writer.finish()
}
