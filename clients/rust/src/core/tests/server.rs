//! A small model of the server: documents as logs with an epoch, synced when told, decoded from and encoded to real frames.

use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::{
    Cursor, DocumentId, EditId, Epoch, Position, RoomNumber, SessionId,
    native::{
        Access, Base, ClientMessage, ClosedCode, Diff, Edit, Open, Opened, Packing, Part, PresenceEntry, RejectCode,
        Run, ServerMessage, Welcome, WelcomeLimits, decode_client,
    },
};

/// One entry of a document's log.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) session: SessionId,
    pub(crate) change: Change,
}

#[derive(Default)]
struct Log {
    room: RoomNumber,
    epoch: u64,
    /// On disk.
    synced: Vec<Entry>,
    /// Taken in, not on disk: a crash forgets these.
    unsynced: Vec<(Entry, EditId, bool)>,
    acks: Vec<(SessionId, EditId)>,
    /// Positions before this one cannot be resynced from.
    kept_from: usize,
    members: BTreeSet<SessionId>,
    quarantined: BTreeSet<ChangeHash>,
}

impl Log {
    fn cursor(&self) -> Cursor {
        Cursor {
            epoch: Epoch::new(self.epoch),
            position: Position::new(self.synced.len() as u64),
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.synced.iter().chain(self.unsynced.iter().map(|(entry, ..)| entry))
    }

    fn heads(&self) -> Vec<syncline_protocol::ChangeHash> {
        let deps: BTreeSet<ChangeHash> = self
            .synced
            .iter()
            .flat_map(|entry| entry.change.deps().iter().copied())
            .collect();
        let hashes = self.synced.iter().map(|entry| entry.change.hash());
        hashes
            .filter(|hash| !deps.contains(hash))
            .map(|hash| syncline_protocol::ChangeHash(hash.0))
            .collect()
    }
}

/// The model.
#[derive(Default)]
pub(crate) struct Server {
    logs: BTreeMap<DocumentId, Log>,
    next_room: u64,
    next_session: u64,
    /// All changes that were acknowledged or shown to others, by document.
    pub(crate) promised: BTreeMap<DocumentId, BTreeSet<ChangeHash>>,
    /// Rejects every edit with this code, so many times.
    pub(crate) refuse: Option<(RejectCode, u32)>,
}

/// A frame to a session.
pub(crate) type Outgoing = (SessionId, Bytes);

impl Server {
    pub(crate) fn accept(&mut self) -> SessionId {
        self.next_session += 1;
        SessionId::new(self.next_session)
    }

    pub(crate) fn disconnect(&mut self, session: SessionId) {
        self.logs.values_mut().for_each(|log| {
            log.members.remove(&session);
        });
    }

    /// Power fails: what was not synced is gone, and so are all sessions and rooms.
    pub(crate) fn crash(&mut self) {
        for log in self.logs.values_mut() {
            log.unsynced.clear();
            log.acks.clear();
            log.members.clear();
        }
    }

    /// The log up to now cannot be resynced from any more.
    pub(crate) fn compact(&mut self, document: &DocumentId) {
        if let Some(log) = self.logs.get_mut(document) {
            log.kept_from = log.synced.len();
        }
    }

    /// An old backup takes the place of the document.
    pub(crate) fn restore(&mut self, document: &DocumentId, changes: usize) {
        let log = self.logs.get_mut(document).expect("a document that was written");
        log.epoch += 1;
        log.synced.truncate(changes);
        log.unsynced.clear();
    }

    /// Throws changes out of the document, with all that stands on them.
    pub(crate) fn quarantine(&mut self, document: &DocumentId, hash: ChangeHash, out: &mut Vec<Outgoing>) {
        let log = self.logs.get_mut(document).expect("a document that was written");
        let mut bad = BTreeSet::from([hash]);
        log.synced.retain(|entry| {
            let stays = !bad.contains(&entry.change.hash()) && !entry.change.deps().iter().any(|dep| bad.contains(dep));
            if !stays {
                bad.insert(entry.change.hash());
            }
            stays
        });
        log.quarantined.extend(bad);
        log.unsynced.clear();
        log.epoch += 1;
        for session in std::mem::take(&mut log.members) {
            let (document, text) = (document.clone(), "reset".to_owned());
            let closed = ServerMessage::Closed {
                room: Some(log.room),
                document,
                code: ClosedCode::Reset,
                text,
            };
            out.push((session, closed.encode()));
        }
    }

    /// How many changes a crash would forget.
    pub(crate) fn unsynced(&self, document: &DocumentId) -> usize {
        self.logs.get(document).map_or(0, |log| log.unsynced.len())
    }

    /// The changes on disk.
    pub(crate) fn changes(&self, document: &DocumentId) -> Vec<Change> {
        self.logs
            .get(document)
            .into_iter()
            .flat_map(|log| &log.synced)
            .map(|entry| entry.change.clone())
            .collect()
    }

    pub(crate) fn document(&self, document: &DocumentId) -> Automerge {
        let mut merged = Automerge::new();
        merged.apply_changes(self.changes(document)).unwrap();
        merged
    }

    /// Writes as nobody's session, synced at once.
    pub(crate) fn write(&mut self, document: &DocumentId, change: Change, out: &mut Vec<Outgoing>) {
        let log = self.log(document);
        log.unsynced.push((
            Entry {
                session: SessionId::new(999_999),
                change,
            },
            EditId::new(0),
            false,
        ));
        self.sync(out);
    }

    pub(crate) fn receive(&mut self, session: SessionId, frame: &Bytes, out: &mut Vec<Outgoing>) {
        let mut say = |message: ServerMessage| out.push((session, message.encode()));
        match decode_client(frame).expect("clients speak the protocol") {
            ClientMessage::Hello(_) => {
                let limits = WelcomeLimits {
                    frame_bytes_max: 1 << 20,
                    ..WelcomeLimits::default()
                };
                say(ServerMessage::Welcome(Welcome {
                    session,
                    limits,
                    capabilities: Vec::new(),
                }));
            }
            ClientMessage::Auth { .. } => {}
            ClientMessage::Open(open) => self.open(session, open).into_iter().for_each(say),
            ClientMessage::Edit(edit) => self.edit(session, edit, out),
            ClientMessage::Presence { room, state } => {
                let (subject, name) = (session.to_string(), None);
                let entries = vec![PresenceEntry {
                    session,
                    subject,
                    name,
                    state,
                }];
                let frame = ServerMessage::Presence { room, entries }.encode();
                out.extend(self.members(room).map(|member| (member, frame.clone())));
            }
            ClientMessage::Signal { room, payload } => {
                let frame = ServerMessage::Signal { room, session, payload }.encode();
                let others = self.members(room).filter(|member| *member != session);
                out.extend(others.map(|member| (member, frame.clone())));
            }
            ClientMessage::Leave { room } => {
                if let Some(log) = self.logs.values_mut().find(|log| log.room == room) {
                    log.members.remove(&session);
                }
            }
        }
    }

    fn members(&self, room: RoomNumber) -> impl Iterator<Item = SessionId> {
        self.logs
            .values()
            .filter(move |log| log.room == room)
            .flat_map(|log| log.members.iter().copied())
    }

    fn log(&mut self, document: &DocumentId) -> &mut Log {
        let next_room = &mut self.next_room;
        self.logs.entry(document.clone()).or_insert_with(|| {
            *next_room += 1;
            Log {
                room: RoomNumber::new(*next_room),
                epoch: 1,
                ..Log::default()
            }
        })
    }

    fn open(&mut self, session: SessionId, open: Open) -> Vec<ServerMessage> {
        let log = self.log(&open.document);
        assert!(log.members.insert(session), "O19: the document is open already");
        let from = open.cursor.filter(|cursor| cursor.epoch.number() == log.epoch);
        let from = from.map(|cursor| cursor.position.number() as usize);
        let from = from.filter(|from| *from >= log.kept_from && *from <= log.synced.len());
        let (room, cursor) = (log.room, log.cursor());
        let base = if from.is_some() { Base::Replica } else { Base::Nothing };
        let entries = &log.synced[from.unwrap_or(0)..];
        let bytes: Vec<u8> = match base {
            Base::Replica => entries
                .iter()
                .flat_map(|entry| entry.change.raw_bytes().to_vec())
                .collect(),
            Base::Nothing => {
                let mut whole = Automerge::new();
                whole
                    .apply_changes(entries.iter().map(|entry| entry.change.clone()).collect::<Vec<_>>())
                    .unwrap();
                if entries.is_empty() { Vec::new() } else { whole.save() }
            }
        };
        let (document, heads) = (open.document, log.heads());
        let opened = Opened {
            room,
            document,
            access: Access::Write,
            heads,
            cursor,
            base,
            bytes: bytes.len() as u64,
        };
        let half = bytes.len() / 2;
        let part = |bytes: &[u8], end| {
            let bytes = Bytes::copy_from_slice(bytes);
            ServerMessage::Part(Part {
                room,
                packing: Packing::Plain,
                bytes,
                end,
            })
        };
        vec![
            ServerMessage::Opened(opened),
            part(&bytes[..half], None),
            part(&bytes[half..], Some(cursor)),
        ]
    }

    fn edit(&mut self, session: SessionId, edit: Edit, out: &mut Vec<Outgoing>) {
        let Edit { room, id, changes } = edit;
        let mut reject = |code: RejectCode| {
            let text = "no".to_owned();
            out.push((session, ServerMessage::Reject { room, id, code, text }.encode()));
        };
        let Some(log) = self
            .logs
            .values_mut()
            .find(|log| log.room == room && log.members.contains(&session))
        else {
            return reject(RejectCode::NotOpen);
        };
        if let Some((code, left)) = &mut self.refuse
            && *left > 0
        {
            *left -= 1;
            return reject(code.clone());
        }
        let mut taken: Vec<Entry> = Vec::new();
        for chunk in &changes {
            let change = Change::try_from(&chunk[..]).expect("an honest change");
            let same =
                |entry: &&Entry| (entry.change.actor_id(), entry.change.seq()) == (change.actor_id(), change.seq());
            if log.quarantined.contains(&change.hash()) {
                return reject(RejectCode::Quarantined);
            }
            match log.entries().find(same) {
                Some(entry) if entry.change.hash() == change.hash() => continue,
                Some(_) => return reject(RejectCode::ActorConflict),
                None => {}
            }
            let holds = |dep: &ChangeHash| log.entries().chain(&taken).any(|entry| entry.change.hash() == *dep);
            if !change.deps().iter().all(holds) {
                return reject(RejectCode::MissingDeps);
            }
            taken.push(Entry { session, change });
        }
        let count = taken.len();
        for (at, entry) in (1..).zip(taken) {
            log.unsynced.push((entry, id, at == count));
        }
        if count == 0 {
            log.acks.push((session, id));
        }
    }

    /// The disk has everything: acks and diffs go out.
    pub(crate) fn sync(&mut self, out: &mut Vec<Outgoing>) {
        for (document, log) in &mut self.logs {
            let promised = self.promised.entry(document.clone()).or_default();
            let mut runs: Vec<Run> = Vec::new();
            let mut acks = std::mem::take(&mut log.acks);
            for (entry, id, last) in std::mem::take(&mut log.unsynced) {
                let chunk = Bytes::copy_from_slice(entry.change.raw_bytes());
                match runs.last_mut() {
                    Some(run) if run.session == entry.session => run.changes.push(chunk),
                    _ => runs.push(Run {
                        session: entry.session,
                        changes: vec![chunk],
                    }),
                }
                promised.insert(entry.change.hash());
                if last {
                    acks.push((entry.session, id));
                }
                log.synced.push(entry);
            }
            let (room, cursor) = (log.room, log.cursor());
            if !runs.is_empty() {
                let frame = ServerMessage::Diff(Diff { room, cursor, runs }).encode();
                out.extend(log.members.iter().map(|member| (*member, frame.clone())));
            }
            for (session, id) in acks {
                if log.members.contains(&session) {
                    out.push((session, ServerMessage::Ack { room, id, cursor }.encode()));
                }
            }
        }
    }
}
