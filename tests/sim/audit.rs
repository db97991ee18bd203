//! What leaves the server, looked at frame by frame: nothing before it is synced, no gap, no second answer, nothing for a room
//! that the session is not in.

use crate::{
    network::LinkId,
    work,
    world::{Context, Mutation},
};
use bytes::Bytes;
use flate2::read::DeflateDecoder;
use std::{collections::BTreeMap, io::Read};
use syncline_protocol::{
    ChangeHash, Cursor, DocumentId, EditId, Limits, RoomNumber, SessionId,
    native::{Base, ClientMessage, Diff, Packing, Part, RejectCode, ServerMessage, decode_client, decode_server},
};

/// Magic bytes, checksum and type of a chunk.
const CHUNK_HEADER_BYTES: usize = 9;
/// The place of a chunk's type.
const CHUNK_TYPE: usize = 8;

/// What has left the server on every link that is open.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    links: BTreeMap<LinkId, Passage>,
}

/// What has left the server on one link.
#[derive(Debug)]
struct Passage {
    session: SessionId,
    queued_bytes: usize,
    closing: bool,
    rooms: BTreeMap<RoomNumber, Membership>,
    edits: BTreeMap<(RoomNumber, EditId), Sent>,
}

/// One room on one link.
#[derive(Debug)]
struct Membership {
    document: DocumentId,
    standing: Standing,
}

#[derive(Debug)]
enum Standing {
    /// `opened` has not come.
    Joining,
    /// Parts are coming; `chunks` is what is not looked at yet. `from` is where a member stood that lagged.
    Loading { chunks: Vec<u8>, from: Option<Cursor> },
    /// Up to date.
    Live(Cursor),
}

/// An edit that has no answer.
#[derive(Debug, Default)]
struct Sent {
    changes: Vec<ChangeHash>,
    answers_due: u64,
}

impl Audit {
    pub(crate) fn connected(&mut self, link: LinkId, session: SessionId) {
        let passage = Passage {
            session,
            queued_bytes: 0,
            closing: false,
            rooms: BTreeMap::new(),
            edits: BTreeMap::new(),
        };
        self.links.insert(link, passage);
    }

    /// The session has joined a room.
    pub(crate) fn joined(&mut self, link: LinkId, room: RoomNumber, document: &DocumentId) {
        if let Some(passage) = self.links.get_mut(&link) {
            passage.rooms.entry(room).or_insert_with(|| Membership {
                document: document.clone(),
                standing: Standing::Joining,
            });
        }
    }

    pub(crate) fn flushed(&mut self, link: LinkId, bytes: usize) {
        if let Some(passage) = self.links.get_mut(&link) {
            passage.queued_bytes -= bytes.min(passage.queued_bytes);
        }
    }

    /// The connection is being closed: nothing queues any more.
    pub(crate) fn closing(&mut self, link: LinkId) {
        if let Some(passage) = self.links.get_mut(&link) {
            passage.closing = true;
        }
    }

    pub(crate) fn gone(&mut self, link: LinkId) {
        self.links.remove(&link);
    }
}

impl Context {
    /// A client sends a frame.
    pub(crate) fn client_sends(&mut self, link: LinkId, frame: &Bytes) {
        let Ok(ClientMessage::Edit(edit)) = decode_client(frame) else {
            return;
        };
        let changes = edit.changes.iter().map(|change| work::hash(change, &self.plan.limits));
        let changes: Vec<ChangeHash> = changes.collect();
        let Some(passage) = self.audit.links.get_mut(&link) else {
            return;
        };
        let session = passage.session;
        let count = changes.len();
        let sent = passage.edits.entry((edit.room, edit.id)).or_default();
        sent.answers_due += 1;
        sent.changes = changes;
        self.say(format_args!(
            "session {session} sends edit {} with {count} changes",
            edit.id
        ));
    }

    /// A frame enters a connection's queue: the server may send it from now on. Answers with the bytes in the queue.
    pub(crate) fn frame_leaves(&mut self, link: LinkId, session: SessionId, frame: &Bytes) -> usize {
        let Some(mut passage) = self.audit.links.remove(&link) else {
            // The connection has ended, and a room does not know yet.
            return 0;
        };
        if !passage.closing {
            assert_eq!(passage.session, session, "a link has one session");
            passage.queued_bytes += frame.len();
            if let Err(what) = self.inspect(&mut passage, frame) {
                self.violated(format!("session {session}: {what}"));
            }
        }
        let queued_bytes = passage.queued_bytes;
        self.audit.links.insert(link, passage);
        queued_bytes
    }

    fn inspect(&mut self, passage: &mut Passage, frame: &Bytes) -> Result<(), String> {
        let message =
            decode_server(frame).map_err(|error| format!("a frame of the server does not decode: {error}"))?;
        match message {
            ServerMessage::Opened(opened) => {
                match opened.base {
                    Base::Nothing if opened.cursor.position.number() > 0 => self.coverage.snapshot_joins += 1,
                    Base::Nothing | Base::Replica => self.coverage.log_joins += 1,
                }
                let room = member(passage, opened.room)?;
                room.standing = Standing::Loading {
                    chunks: Vec::new(),
                    from: None,
                };
                Ok(())
            }
            ServerMessage::Part(part) => self.inspect_part(passage, &part),
            ServerMessage::Diff(diff) => self.inspect_diff(passage, &diff),
            ServerMessage::Ack { room, id, .. } => {
                let document = member(passage, room)?.document.clone();
                let changes = answered(passage, room, id)?;
                self.coverage.acks += 1;
                self.say(format_args!("session {} has edit {id} acknowledged", passage.session));
                self.promised(&document, &changes, "acknowledges")
            }
            ServerMessage::Reject { room, id, code, .. } => {
                match &code {
                    RejectCode::Unavailable | RejectCode::MissingDeps | RejectCode::NotOpen => {
                        self.coverage.rejects_temporary += 1;
                    }
                    _ => self.coverage.rejects_permanent += 1,
                }
                self.say(format_args!(
                    "session {} has edit {id} refused: {code:?}",
                    passage.session
                ));
                answered(passage, room, id).map(drop)
            }
            ServerMessage::Presence { room, .. } | ServerMessage::Signal { room, .. } => {
                match member(passage, room)?.standing {
                    Standing::Live(_) => Ok(()),
                    _ => Err(format!("room {room} shows presence before the document is there")),
                }
            }
            ServerMessage::Closed { room, .. } => {
                if let Some(room) = room {
                    member(passage, room)?;
                    passage.rooms.remove(&room);
                }
                Ok(())
            }
            ServerMessage::Welcome(_) | ServerMessage::Retry { .. } | ServerMessage::Error { .. } => Ok(()),
        }
    }

    fn inspect_part(&mut self, passage: &mut Passage, part: &Part) -> Result<(), String> {
        self.coverage.parts += 1;
        let limits = self.plan.limits.clone();
        let room = member(passage, part.room)?;
        let document = room.document.clone();
        if let Standing::Live(cursor) = room.standing {
            self.coverage.catch_ups += 1;
            room.standing = Standing::Loading {
                chunks: Vec::new(),
                from: Some(cursor),
            };
        }
        let Standing::Loading { chunks, from } = &mut room.standing else {
            return Err(format!("room {} sends a part before opened", part.room));
        };
        let before = chunks.len();
        inflate(part, chunks)?;
        if (chunks.len() - before) as u64 > limits.part_bytes_max {
            return Err(format!("a part has {} bytes", chunks.len() - before));
        }
        let (mut changes, mut bundles) = (Vec::new(), 0);
        while let Some(len) = chunk_len(chunks) {
            let chunk: Vec<u8> = chunks.drain(..len).collect();
            bundles += u64::from(chunk[CHUNK_TYPE] == 3);
            changes_of(&chunk, &limits, &mut changes);
        }
        if let Some(end) = part.end {
            let went_back = from.is_some_and(|from| end.epoch != from.epoch || end.position < from.position);
            if !chunks.is_empty() || went_back {
                return Err(format!("the parts of room {} do not end at {end:?}", part.room));
            }
            room.standing = Standing::Live(end);
        }
        self.coverage.bundles += bundles;
        self.promised(&document, &changes, "sends in a part")
    }

    fn inspect_diff(&mut self, passage: &mut Passage, diff: &Diff) -> Result<(), String> {
        self.coverage.diffs += 1;
        let room = member(passage, diff.room)?;
        let document = room.document.clone();
        let Standing::Live(cursor) = &mut room.standing else {
            return Err(format!("room {} sends a diff before the last part", diff.room));
        };
        let contiguous =
            cursor.epoch == diff.cursor.epoch && cursor.position.number() + diff.len() == diff.cursor.position.number();
        if !contiguous {
            return Err(format!("a diff to {:?} does not go on from {cursor:?}", diff.cursor));
        }
        *cursor = diff.cursor;
        let limits = self.plan.limits.clone();
        let changes = diff.runs.iter().flat_map(|run| &run.changes);
        let changes: Vec<ChangeHash> = changes.map(|change| work::hash(change, &limits)).collect();
        self.promised(&document, &changes, "sends in a diff")
    }

    /// The server may have told somebody of these changes: they are never to be lost.
    fn promised(&mut self, document: &DocumentId, changes: &[ChangeHash], how: &str) -> Result<(), String> {
        let account = self.ledger.account_mut(document);
        account.promised.extend(changes);
        let unsynced = changes.iter().find(|change| !account.durable.contains(change));
        match unsynced {
            Some(change) if self.mutation != Mutation::AckBeforeSyncUnseen => Err(format!(
                "the server {how} a change of {document} that is not synced: {change:?}"
            )),
            Some(_) | None => Ok(()),
        }
    }
}

fn member(passage: &mut Passage, room: RoomNumber) -> Result<&mut Membership, String> {
    let member = passage.rooms.get_mut(&room);
    member.ok_or_else(|| format!("a message for room {room}, which the session is not in"))
}

fn answered(passage: &mut Passage, room: RoomNumber, id: EditId) -> Result<Vec<ChangeHash>, String> {
    match passage.edits.get_mut(&(room, id)) {
        Some(sent) if sent.answers_due > 0 => {
            sent.answers_due -= 1;
            Ok(sent.changes.clone())
        }
        Some(_) | None => Err(format!("an answer too many to edit {id} in room {room}")),
    }
}

fn inflate(part: &Part, chunks: &mut Vec<u8>) -> Result<(), String> {
    match part.packing {
        Packing::Plain => chunks.extend_from_slice(&part.bytes),
        Packing::Deflate => {
            let inflated = DeflateDecoder::new(&part.bytes[..]).read_to_end(chunks);
            inflated.map_err(|error| format!("a part does not inflate: {error}"))?;
        }
    }
    Ok(())
}

/// The length of the first chunk, if all of it is there.
fn chunk_len(bytes: &[u8]) -> Option<usize> {
    let (mut len, mut shift, mut at) = (0_usize, 0, CHUNK_HEADER_BYTES);
    loop {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7f) << shift;
        (shift, at) = (shift + 7, at + 1);
        if byte & 0x80 == 0 {
            break;
        }
    }
    (bytes.len() >= at + len).then_some(at + len)
}

fn changes_of(chunk: &[u8], limits: &Limits, changes: &mut Vec<ChangeHash>) {
    if chunk[CHUNK_TYPE] == 0 {
        let document = automerge::Automerge::load(chunk).expect("a snapshot loads");
        let all = document.get_changes(&[]);
        changes.extend(all.iter().map(|change| ChangeHash(change.hash().0)));
    } else if chunk[CHUNK_TYPE] == 3 {
        let bundle = automerge::Bundle::try_from(chunk).expect("a bundle is read");
        let all = bundle.to_changes().expect("a bundle holds changes");
        changes.extend(all.iter().map(|change| ChangeHash(change.hash().0)));
    } else {
        changes.push(work::hash(&Bytes::copy_from_slice(chunk), limits));
    }
}
