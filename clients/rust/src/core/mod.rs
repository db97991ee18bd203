//! The client without the world: events in, effects out. No clock, no randomness but the seed, no task, no socket.
//!
//! One [`Core`] is one connection with many documents. The shell hands in what happened with [`Core::handle`], at the end of
//! each batch of events calls [`Core::settle`], does the effects in order, and comes back at [`Core::next_wakeup`]. The same
//! events at the same times with the same seed give the same effects. Times are milliseconds on any clock that never goes back.
//!
//! `connection` decides when to connect and with which token; `document` is one document in its room; `replica` is the
//! Automerge document with its unacknowledged changes; `rejoin` and `remake` save those when the document is replaced.

mod boundary;
mod config;
mod connection;
mod document;
mod loading;
mod presence;
mod random;
mod rejoin;
mod remake;
mod replica;
mod saved;
#[cfg(test)]
pub(crate) mod tests;

pub use boundary::{
    ChangeError, Changed, ConnectionStatus, DocumentState, DocumentStatus, Draft, Effect, Event, Notice, Other, Safety,
};
pub use config::{ClientLimits, Config, Credentials};
pub use connection::Token;
pub use saved::Saved;

use automerge::{Automerge, ChangeHash, transaction::CommitOptions, transaction::Transaction};
use bytes::Bytes;
use connection::{Connection, Due};
use document::{Document, Site};
use random::Random;
use replica::Replica;
use std::collections::BTreeMap;
use syncline_protocol::{
    Cursor, DocumentId, EditId, RoomNumber, SessionId,
    native::{Access, ClientMessage, ClosedCode, Edit, Opened, ServerMessage, WelcomeLimits, decode_server},
};

/// One connection and its documents.
#[derive(Debug)]
pub struct Core {
    connection: Connection,
    limits: ClientLimits,
    random: Random,
    documents: BTreeMap<DocumentId, Document>,
    rooms: BTreeMap<RoomNumber, DocumentId>,
    /// The `open`s without an answer, with the cursors they named.
    opens: BTreeMap<DocumentId, Option<Cursor>>,
    next_edit: u64,
    published: Option<ConnectionStatus>,
}

impl Core {
    /// A core that does nothing until [`Event::Started`].
    pub fn new(config: Config) -> Self {
        Self {
            random: Random::new(config.seed),
            limits: config.limits.clone(),
            connection: Connection::new(config),
            documents: BTreeMap::new(),
            rooms: BTreeMap::new(),
            opens: BTreeMap::new(),
            next_edit: 1,
            published: None,
        }
    }

    /// Takes one event in. [`Self::settle`] follows, after this one or after several.
    pub fn handle(&mut self, now_ms: u64, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Started => self.connection.start(now_ms, out),
            Event::Stopped => {
                self.connection.stop(out);
                self.apart();
            }
            Event::Connected => self.connection.connected(out),
            Event::Received(frame) => self.received(now_ms, &frame, out),
            Event::Heard => self.connection.heard(now_ms),
            Event::Disconnected { code } => {
                self.connection.disconnected(now_ms, code, &mut self.random, out);
                self.apart();
            }
            Event::Token(answer) => {
                if self.connection.token(now_ms, answer, &mut self.random, out) {
                    self.forgive(&ClosedCode::Forbidden);
                }
            }
            Event::Open { document, saved } => self.open(document, saved),
            Event::Close { document } => self.close(&document, out),
            Event::Edited { .. } => {}
            Event::SetPresence { document, state } => self.set_presence(now_ms, &document, state),
            Event::SendSignal { document, payload } => self.signal(&document, payload, out),
            Event::Woke => self.woke(now_ms, out),
        }
        self.publish(out);
    }

    /// The end of a batch of events: opens what wants to be open, merges what came in as few calls as possible, sends what
    /// waits.
    pub fn settle(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.connection.is_open() {
            self.open_wanted(now_ms, out);
        }
        let may_edit = self.connection.up().is_some_and(|up| up.gone_at_ms.is_none());
        let documents: Vec<DocumentId> = self.documents.keys().cloned().collect();
        for document in documents {
            self.at(now_ms, &document, out, |document, site| document.settle(site, may_edit));
        }
        self.publish(out);
    }

    /// When [`Event::Woke`] is due at the latest.
    pub fn next_wakeup(&self) -> Option<u64> {
        let documents = self.documents.values().filter_map(Document::next_wakeup);
        let documents = documents.filter(|_| self.connection.up().is_some());
        documents.chain(self.connection.next_wakeup()).min()
    }

    /// Makes a local change: all of it, or none if `edit` fails. [`Event::Edited`] follows, so that it is sent.
    ///
    /// # Errors
    /// When the closure fails, and when a limit says no; the document is then as before.
    pub fn change<T, E>(
        &mut self,
        document: &DocumentId,
        options: CommitOptions,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E>,
    ) -> Result<Changed<T>, ChangeError<E>> {
        let (ops_max, frame_bytes_max) = self.change_limits();
        let open = self.documents.get_mut(document).ok_or(ChangeError::NotOpen)?;
        if open.access() == Some(Access::Read) {
            return Err(ChangeError::ReadOnly);
        }
        let waiting = open.replica.own().len() as u64;
        let full = open.replica.own_bytes() >= self.limits.unacknowledged_bytes_max;
        if full || waiting >= self.limits.unacknowledged_changes_max {
            return Err(ChangeError::QueueFull(waiting));
        }
        if open.drafts.len() as u64 >= self.limits.drafts_max {
            return Err(ChangeError::DraftsFull(open.drafts.len() as u64));
        }
        let mut transaction = open.replica.document.transaction();
        let result = edit(&mut transaction).map_err(ChangeError::Failed)?;
        let ops = automerge::transaction::Transactable::pending_ops(&transaction) as u64;
        if ops > ops_max {
            return Err(ChangeError::TooLarge {
                found: ops,
                limit: ops_max,
                unit: "operations",
            });
        }
        let (hash, _) = transaction.commit_with(options);
        let Some(change) = hash.and_then(|hash| open.replica.change(&hash)) else {
            return Ok(Changed { hash: None, result });
        };
        let hash = change.hash();
        let bytes = open.replica.keep(change);
        let limit = frame_bytes_max - document::FRAME_OVERHEAD_BYTES.min(frame_bytes_max);
        if bytes > limit {
            if let Err(fault) = open.take_back(hash, self.random.actor()) {
                tracing::warn!(%document, %fault, "taking back a change that is too large");
            }
            return Err(ChangeError::TooLarge {
                found: bytes,
                limit,
                unit: "bytes",
            });
        }
        Ok(Changed {
            hash: Some(hash),
            result,
        })
    }

    /// The document, to read from.
    pub fn document(&self, document: &DocumentId) -> Option<&Automerge> {
        self.documents.get(document).map(|open| &open.replica.document)
    }

    /// Where the document's replica stands in the server's log; `None` before the first resync.
    pub fn cursor(&self, document: &DocumentId) -> Option<Cursor> {
        self.documents.get(document).and_then(|open| open.replica.cursor)
    }

    /// The changes that no `ack` has covered, oldest first.
    pub fn unacknowledged(&self, document: &DocumentId) -> Vec<ChangeHash> {
        let own = self.documents.get(document).map(|open| open.replica.own().iter());
        own.into_iter().flatten().map(|own| own.change.hash()).collect()
    }

    /// Where the document stands.
    pub fn state(&self, document: &DocumentId) -> Option<DocumentState> {
        self.documents.get(document).map(Document::state)
    }

    /// Where the connection stands.
    pub fn status(&self) -> ConnectionStatus {
        self.connection.status()
    }

    /// The server's name for this connection, while there is one.
    pub fn session(&self) -> Option<SessionId> {
        self.connection.up().map(|up| up.session)
    }

    /// Who else is in the room.
    pub fn others(&self, document: &DocumentId) -> Option<&BTreeMap<SessionId, Other>> {
        self.documents.get(document).map(|open| open.presence.others())
    }

    /// The refused changes that the app has not taken yet, oldest first.
    pub fn drafts(&self, document: &DocumentId) -> &[Draft] {
        self.documents.get(document).map_or(&[], |open| &open.drafts)
    }

    /// Takes the refused changes out; they are the app's now.
    pub fn take_drafts(&mut self, document: &DocumentId) -> Vec<Draft> {
        self.documents
            .get_mut(document)
            .map(|open| std::mem::take(&mut open.drafts))
            .unwrap_or_default()
    }

    /// All that is needed to go on with the document after a restart, unacknowledged changes and drafts included.
    pub fn save(&self, document: &DocumentId) -> Option<Saved> {
        self.documents.get(document).map(|open| Saved {
            document: open.replica.document.save().into(),
            cursor: open.replica.cursor,
            unacknowledged: open.replica.own().iter().map(|own| own.bytes.clone()).collect(),
            drafts: open.drafts.clone(),
        })
    }

    /// The largest presence state, and the largest signal, in bytes. Larger ones are not sent.
    pub fn presence_bytes_max(&self) -> u64 {
        let default = syncline_protocol::Limits::default().presence_bytes_max;
        self.connection.up().map_or(default, |up| up.limits.presence_bytes_max)
    }

    fn set_presence(&mut self, now_ms: u64, document: &DocumentId, state: Option<Bytes>) {
        let fits = state
            .as_ref()
            .is_none_or(|state| state.len() as u64 <= self.presence_bytes_max());
        match self.documents.get_mut(document) {
            Some(document) if fits => document.presence.set(now_ms, state),
            Some(_) => tracing::warn!(%document, "a presence state that is too large is not sent"),
            None => {}
        }
    }

    fn signal(&mut self, document: &DocumentId, payload: Bytes, out: &mut Vec<Effect>) {
        let room = self.documents.get(document).and_then(Document::room);
        match room {
            Some(room) if payload.len() as u64 <= self.presence_bytes_max() => {
                out.push(Effect::Send(ClientMessage::Signal { room, payload }.encode()));
            }
            Some(_) => tracing::warn!(%document, "a signal that is too large is not sent"),
            None => {}
        }
    }

    fn change_limits(&self) -> (u64, u64) {
        let limits = syncline_protocol::Limits::default();
        match self.connection.up() {
            Some(up) => (up.limits.ops_per_change_max, up.limits.frame_bytes_max),
            None => (limits.ops_per_change_max, limits.frame_bytes_max),
        }
    }

    fn open(&mut self, document: DocumentId, saved: Option<Box<Saved>>) {
        if let Some(open) = self.documents.get_mut(&document) {
            return open.forgive();
        }
        let actor = self.random.actor();
        let (replica, drafts) = match saved {
            None => (Replica::new(actor), Vec::new()),
            Some(saved) => saved.restore(actor),
        };
        self.documents
            .insert(document.clone(), Document::new(document, replica, drafts));
    }

    fn close(&mut self, document: &DocumentId, out: &mut Vec<Effect>) {
        let Some(closed) = self.documents.remove(document) else {
            return;
        };
        if let Some(room) = closed.room() {
            self.rooms.remove(&room);
            out.push(Effect::Send(ClientMessage::Leave { room }.encode()));
        }
        self.forgive(&ClosedCode::Limit);
    }

    /// What was refused for this reason may be tried again.
    fn forgive(&mut self, reason: &ClosedCode) {
        self.documents
            .values_mut()
            .filter(|open| open.refusal() == Some(reason))
            .for_each(Document::forgive);
    }

    fn apart(&mut self) {
        self.rooms.clear();
        self.opens.clear();
        self.documents.values_mut().for_each(Document::disconnected);
    }

    fn open_wanted(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        for (id, document) in &mut self.documents {
            if document.wants_open(now_ms) && !self.opens.contains_key(id) {
                let open = document.open();
                self.opens.insert(id.clone(), open.cursor);
                out.push(Effect::Send(ClientMessage::Open(open).encode()));
            }
        }
    }

    fn woke(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        let before = self.connection.is_open();
        let due = self.connection.woke(now_ms, &mut self.random, out);
        if before && !self.connection.is_open() {
            self.apart();
        }
        if due == Due::Probe
            && let Some(room) = self.rooms.keys().next()
        {
            let id = EditId::new(self.next_edit);
            self.next_edit += 1;
            out.push(Effect::Send(
                ClientMessage::Edit(Edit {
                    room: *room,
                    id,
                    changes: Vec::new(),
                })
                .encode(),
            ));
        }
    }

    fn received(&mut self, now_ms: u64, frame: &Bytes, out: &mut Vec<Effect>) {
        self.connection.heard(now_ms);
        match decode_server(frame) {
            Ok(message) => self.said(now_ms, message, out),
            Err(error) => {
                tracing::warn!(%error, "the server sent a malformed frame");
                out.push(Effect::Disconnect);
                self.connection.disconnected(now_ms, None, &mut self.random, out);
                self.apart();
            }
        }
    }

    fn said(&mut self, now_ms: u64, message: ServerMessage, out: &mut Vec<Effect>) {
        match message {
            ServerMessage::Welcome(welcome) => self.connection.welcomed(now_ms, welcome),
            ServerMessage::Opened(opened) => self.opened(now_ms, opened, out),
            ServerMessage::Part(part) => {
                self.in_room(now_ms, part.room, out, |document, site| document.part(site, &part))
            }
            ServerMessage::Diff(diff) => {
                self.in_room(now_ms, diff.room, out, |document, site| document.diff(site, diff))
            }
            ServerMessage::Ack { room, id, cursor: _ } => {
                self.in_room(now_ms, room, out, |document, _| document.acked(id))
            }
            ServerMessage::Reject { room, id, code, text } => {
                self.in_room(now_ms, room, out, |document, site| {
                    document.rejected(site, id, code, &text)
                });
            }
            ServerMessage::Presence { room, entries } => self.in_room(now_ms, room, out, |document, site| {
                document
                    .presence
                    .shown(entries, site.session, site.own_limits.presences_max);
                document.notify(site, |document| Notice::Presence { document });
            }),
            ServerMessage::Signal { room, session, payload } => self.in_room(now_ms, room, out, |document, site| {
                document.notify(site, |document| Notice::Signal {
                    document,
                    session,
                    payload,
                });
            }),
            ServerMessage::Closed {
                room,
                document,
                code,
                text,
            } => self.closed(now_ms, room, &document, code, text, out),
            ServerMessage::Retry { after_ms } => self.connection.retry(now_ms, after_ms),
            ServerMessage::Error { code, text } => self.connection.errored(code, text),
        }
    }

    fn opened(&mut self, now_ms: u64, opened: Opened, out: &mut Vec<Effect>) {
        let Some(sent) = self.opens.remove(&opened.document) else {
            return;
        };
        let (room, document) = (opened.room, opened.document.clone());
        if !self.documents.contains_key(&document) {
            // Closed before the answer came.
            out.push(Effect::Send(ClientMessage::Leave { room }.encode()));
            return;
        }
        self.rooms.insert(room, document.clone());
        self.at(now_ms, &document, out, |document, site| {
            document.opened(site, opened, sent)
        });
    }

    fn closed(
        &mut self,
        now_ms: u64,
        room: Option<RoomNumber>,
        document: &DocumentId,
        code: ClosedCode,
        text: String,
        out: &mut Vec<Effect>,
    ) {
        let joined = room.is_some_and(|room| self.rooms.get(&room) == Some(document));
        // Whatever names the document answers an `open` ([O1]), also by a room's number that was never announced.
        let meant = joined || self.opens.remove(document).is_some();
        if meant {
            self.at(now_ms, document, out, |document, site| {
                document.closed(site, code, text)
            });
        }
    }

    /// Hands a room's message to its document; those for rooms that are left are ignored ([O20]).
    fn in_room(
        &mut self,
        now_ms: u64,
        room: RoomNumber,
        out: &mut Vec<Effect>,
        handle: impl FnOnce(&mut Document, &mut Site<'_>),
    ) {
        if let Some(document) = self.rooms.get(&room).cloned() {
            self.at(now_ms, &document, out, handle);
        }
    }

    /// Lets a document handle something, and forgets its room if it left.
    fn at(
        &mut self,
        now_ms: u64,
        id: &DocumentId,
        out: &mut Vec<Effect>,
        handle: impl FnOnce(&mut Document, &mut Site<'_>),
    ) {
        let Some(document) = self.documents.get_mut(id) else {
            return;
        };
        let unknown = WelcomeLimits::default();
        let up = self.connection.up();
        let mut site = Site {
            now_ms,
            session: up.map(|up| up.session).unwrap_or_default(),
            limits: up.map_or(&unknown, |up| &up.limits),
            own_limits: &self.limits,
            random: &mut self.random,
            next_edit: &mut self.next_edit,
            out,
        };
        handle(document, &mut site);
        let room = document.room();
        self.rooms.retain(|number, named| named != id || Some(*number) == room);
    }

    fn publish(&mut self, out: &mut Vec<Effect>) {
        let status = self.connection.status();
        if self.published.as_ref() != Some(&status) {
            self.published = Some(status.clone());
            out.push(Effect::Notify(Notice::Connection(status)));
        }
        self.documents.values_mut().for_each(|document| document.publish(out));
    }
}
