//! How a member gets to the present: a joiner and a lagging member alike read from the log, or from the snapshot and the log
//! after it, in parts drawn as the queue drains, and get diffs only after the last part.

use super::{
    BundleOf, Effect, Entry, Join, Live, Phase, ReadFailure, Room, Slice, Source, Ticket,
    member::{Greeting, Member, Standing, Stream},
    pieces::Piece,
};
use bytes::Bytes;
use std::{collections::VecDeque, ops::RangeInclusive};
use syncline_protocol::{
    ChangeHash, Cursor, Position, SessionId,
    native::{Base, ClosedCode, HEADS_MAX, Opened, Packing, Part, ServerMessage},
};

/// How many changes of the log are sent as one bundle: fewer are small as they are, more take the server too long.
const BUNDLE_CHANGES: RangeInclusive<u64> = 16..=4_000;

impl Room {
    /// A session joins; one that is a member already begins anew.
    pub(super) fn joined(&mut self, join: Join, out: &mut Vec<Effect>) {
        self.empty_since = None;
        self.audience = None;
        let session = join.session;
        match self.members.get_mut(&session) {
            Some(member) => member.standing = Standing::Joining(join),
            None => {
                let member = Member::new(join.person.clone(), join.forms, Standing::Joining(join));
                self.members.insert(session, member);
            }
        }
        if let Phase::Closed(code) = &self.phase {
            return self.dismiss(session, code.clone(), out);
        }
        self.begin_catching_up(session, out);
    }

    /// Starts a member that is joining on its way, once the room is open.
    pub(super) fn begin_catching_up(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let (Phase::Live(live), Some(member)) = (&self.phase, self.members.get(&session)) else {
            return;
        };
        let Standing::Joining(join) = &member.standing else {
            return;
        };
        let (source, base) = live.way_from(join.cursor, &join.heads);
        let greeting = Some(Greeting {
            access: join.access,
            base,
        });
        self.go_on(session, Stream { source, greeting }, out);
    }

    pub(super) fn lagged(&mut self, session: SessionId, at: Position) {
        if self.members.get(&session).is_some_and(Member::is_live) {
            self.set_standing(session, Standing::Lagging { at });
        }
    }

    pub(super) fn drained(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let (Phase::Live(live), Some(member)) = (&self.phase, self.members.get_mut(&session)) else {
            return;
        };
        let stream = match std::mem::replace(&mut member.standing, Standing::Live) {
            Standing::Draining(stream) => stream,
            Standing::Lagging { at } => {
                let cursor = Cursor {
                    epoch: live.epoch,
                    position: at,
                };
                Stream {
                    source: live.way_from(Some(cursor), &[]).0,
                    greeting: None,
                }
            }
            other => {
                member.standing = other;
                return;
            }
        };
        self.go_on(session, stream, out);
    }

    /// A piece is there, or cannot be had: for all who wait for it.
    pub(super) fn read(&mut self, ticket: Ticket, result: &Result<Slice, ReadFailure>, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &mut self.phase else { return };
        if live.upkeep.is_resetting() {
            // The log is being rewritten under the read; the members are about to be told to open the document anew.
            return;
        }
        live.pieces
            .answered(ticket, result.as_ref().ok(), self.limits.part_bytes_max);
        let waits = |member: &Member| matches!(member.standing, Standing::Reading(_, asked) if asked == ticket);
        let waiting = self.members.iter().filter(|(_, member)| waits(member));
        let waiting: Vec<SessionId> = waiting.map(|(session, _)| *session).collect();
        for session in waiting {
            self.take_piece(session, result.clone(), out);
        }
    }

    /// A member that reads is given the piece.
    fn take_piece(&mut self, session: SessionId, result: Result<Slice, ReadFailure>, out: &mut Vec<Effect>) {
        let (Phase::Live(live), Some(member)) = (&self.phase, self.members.get_mut(&session)) else {
            return;
        };
        let Standing::Reading(stream, _) = &mut member.standing else {
            return;
        };
        match result {
            Ok(slice) => {
                let greeting = stream.greeting.take();
                if let Some(greeting) = greeting {
                    let bytes = live.bytes_from(&stream.source, slice.log_bytes_before);
                    self.greet(session, &greeting, bytes, out);
                }
                self.send_part(session, slice, out);
            }
            // The client has had a piece of a change that cannot be completed.
            Err(ReadFailure::Gone) if matches!(stream.source, Source::Log { offset: 1.., .. }) => {
                self.dismiss(session, ClosedCode::Unavailable, out);
            }
            Err(ReadFailure::Gone) => {
                let greeting = stream.greeting.take();
                let (source, _) = live.way_from(None, &[]);
                self.go_on(session, Stream { source, greeting }, out);
            }
            Err(ReadFailure::Damaged) => self.dismiss(session, ClosedCode::Damaged, out),
            Err(ReadFailure::Unavailable) => self.dismiss(session, ClosedCode::Unavailable, out),
        }
    }

    /// Reads on, or ends the way when nothing is left to read.
    fn go_on(&mut self, session: SessionId, mut stream: Stream, out: &mut Vec<Effect>) {
        let (Phase::Live(live), Some(member)) = (&self.phase, self.members.get(&session)) else {
            return;
        };
        if stream.source == Source::log(live.durable) {
            if let Some(greeting) = stream.greeting.take() {
                self.greet(session, &greeting, 0, out);
            }
            return self.arrive(session, Packing::Plain, Bytes::new(), out);
        }
        let (from, to, forms) = (stream.source, live.durable, member.forms);
        let piece = Piece::new(from, to, forms);
        if let Some(slice) = live.pieces.kept(&piece) {
            let ticket = self.tickets.draw();
            self.set_standing(session, Standing::Reading(stream, ticket));
            return self.take_piece(session, Ok(slice), out);
        }
        let under_way = live.pieces.ticket(&piece);
        let ticket = under_way.unwrap_or_else(|| self.tickets.draw());
        self.set_standing(session, Standing::Reading(stream, ticket));
        let Phase::Live(live) = &mut self.phase else { return };
        if under_way.is_none() {
            live.pieces.ask(piece, ticket);
            out.push(Effect::Read {
                session,
                ticket,
                from,
                to,
                deflate: forms.deflate,
                bundle: forms.bundle.then(|| live.bundle_from(&from)).flatten(),
            });
        }
    }

    /// Lets go of what was shared when nobody is on the way any more.
    pub(super) fn forget_pieces(&mut self) {
        if let Phase::Live(live) = &mut self.phase
            && !live.pieces.is_empty()
            && self.members.values().all(Member::is_live)
        {
            live.pieces.forget();
        }
    }

    fn part_frame(&mut self, packing: Packing, bytes: Bytes, end: Option<Cursor>) -> Bytes {
        let room = self.number;
        let part = |bytes: Bytes| {
            ServerMessage::Part(Part {
                room,
                packing,
                bytes,
                end,
            })
            .encode()
        };
        match &mut self.phase {
            Phase::Live(live) => live.pieces.frame(&bytes, end, || part(bytes.clone())),
            Phase::Loading | Phase::Closed(_) => part(bytes),
        }
    }

    fn send_part(&mut self, session: SessionId, slice: Slice, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &self.phase else { return };
        if slice.next == Source::log(live.durable) {
            return self.arrive(session, slice.packing, slice.bytes, out);
        }
        let rest = live.last.since(&slice.next);
        let frame = self.part_frame(slice.packing, slice.bytes, None);
        if let Some(rest) = rest {
            out.push(Effect::Reply { to: session, frame });
            return self.arrive(session, Packing::Plain, rest, out);
        }
        self.set_standing(
            session,
            Standing::Draining(Stream {
                source: slice.next,
                greeting: None,
            }),
        );
        out.push(Effect::Part { to: session, frame });
    }

    /// The last part, and who is here; from now on the member gets every diff.
    fn arrive(&mut self, session: SessionId, packing: Packing, bytes: Bytes, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &self.phase else { return };
        let end = live.cursor();
        let frame = self.part_frame(packing, bytes, Some(end));
        out.push(Effect::Reply { to: session, frame });
        for frame in self.presence.whole(self.number) {
            out.push(Effect::Reply { to: session, frame });
        }
        self.set_standing(session, Standing::Live);
    }

    /// Keeps a stored batch at hand while somebody is on the way to the present.
    pub(super) fn keep_for_joiners(&mut self, begins: Position, entries: &[Entry]) {
        let Phase::Live(live) = &mut self.phase else { return };
        if self.members.values().all(Member::is_live) {
            live.last = LastBatches::default();
            return;
        }
        let changes: Vec<&[u8]> = entries.iter().map(|entry| &entry.change[..]).collect();
        let bytes_max = usize::try_from(self.limits.part_bytes_max).unwrap_or(usize::MAX);
        live.last.push(begins, changes.concat().into(), bytes_max);
    }

    /// Brings every member that is up to date to the present in parts: the batch is larger than a queue holds.
    pub(super) fn send_in_parts(&mut self, begins: Position, out: &mut Vec<Effect>) {
        for session in self.audience().iter().copied() {
            let source = Source::log(begins);
            self.go_on(session, Stream { source, greeting: None }, out);
        }
    }

    fn greet(&self, session: SessionId, greeting: &Greeting, bytes: u64, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &self.phase else { return };
        let opened = Opened {
            room: self.number,
            document: self.document.clone(),
            access: greeting.access,
            heads: live.announced_heads(),
            cursor: live.cursor(),
            base: greeting.base,
            bytes,
        };
        out.push(Effect::Reply {
            to: session,
            frame: ServerMessage::Opened(opened).encode(),
        });
    }
}

/// The batches that were stored while somebody was on the way to the present, without a gap up to the log's end.
#[derive(Debug, Default)]
pub(super) struct LastBatches {
    batches: VecDeque<(Position, Bytes)>,
    bytes: usize,
}

impl LastBatches {
    fn push(&mut self, begins: Position, changes: Bytes, bytes_max: usize) {
        self.bytes += changes.len();
        self.batches.push_back((begins, changes));
        while self.bytes > bytes_max {
            let Some((_, dropped)) = self.batches.pop_front() else {
                return;
            };
            self.bytes -= dropped.len();
        }
    }

    /// All changes from there to the log's end, if they are at hand.
    fn since(&self, source: &Source) -> Option<Bytes> {
        let first = self
            .batches
            .iter()
            .position(|(begins, _)| *source == Source::log(*begins))?;
        let rest: Vec<&[u8]> = self.batches.range(first..).map(|(_, changes)| &changes[..]).collect();
        Some(rest.concat().into())
    }
}

impl Live {
    /// Where the way to the present begins for a replica with this cursor and these heads, and what it builds on.
    fn way_from(&self, cursor: Option<Cursor>, heads: &[ChangeHash]) -> (Source, Base) {
        if let Some(Cursor { epoch, position }) = cursor
            && epoch == self.epoch
            && (self.log_start..=self.durable).contains(&position)
        {
            return (Source::log(position), Base::Replica);
        }
        if !heads.is_empty() && heads.len() == self.heads.len() && heads.iter().all(|head| self.heads.contains(head)) {
            return (Source::log(self.durable), Base::Replica);
        }
        match self.upkeep.snapshot() {
            Some(snapshot) => (
                Source::Snapshot {
                    generation: snapshot.generation,
                    offset: 0,
                },
                Base::Nothing,
            ),
            None => (Source::log(Position::new(0)), Base::Nothing),
        }
    }

    /// The log from there on as a bundle, as far as the document has it, if that is neither little nor much.
    fn bundle_from(&self, source: &Source) -> Option<BundleOf> {
        let Source::Log { from, offset: 0 } = source else {
            return None;
        };
        let (document, end) = self.upkeep.base()?;
        let count = end.number().checked_sub(from.number())?;
        if !BUNDLE_CHANGES.contains(&count) {
            return None;
        }
        let graph = self.pipeline.index.graph();
        let hash = |position: u64| graph.node(u32::try_from(position).ok()?).map(|node| node.hash);
        Some(BundleOf {
            document,
            hashes: (from.number()..end.number()).map(hash).collect::<Option<_>>()?,
            end,
        })
    }

    /// The heads, or none when there are more than a frame can name.
    fn announced_heads(&self) -> Vec<ChangeHash> {
        if self.heads.len() > HEADS_MAX {
            return Vec::new();
        }
        self.heads.iter().copied().collect()
    }

    /// About how many bytes lie between there and the present.
    fn bytes_from(&self, source: &Source, log_bytes_before: u64) -> u64 {
        match (source, self.upkeep.snapshot()) {
            (Source::Snapshot { offset, .. }, Some(snapshot)) => {
                snapshot.bytes.saturating_sub(*offset) + self.log_bytes.saturating_sub(snapshot.log_bytes)
            }
            (Source::Snapshot { .. } | Source::Log { .. }, _) => self.log_bytes.saturating_sub(log_bytes_before),
        }
    }
}
