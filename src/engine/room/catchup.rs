//! How a member gets to the present: a joiner and a lagging member alike read from the log, or from the snapshot and the log
//! after it, in parts drawn as the queue drains, and get diffs only after the last part.

use super::{
    BundleOf, Effect, Entry, Join, Live, Phase, ReadFailure, Room, Slice, Source, Ticket,
    member::{Greeting, Member, Standing, Stream},
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
        self.census = None;
        let session = join.session;
        let is_full = self.members.len() as u64 >= self.limits.members_per_room_max;
        match self.members.get_mut(&session) {
            Some(member) => member.standing = Standing::Joining(join),
            None if is_full => {
                return self.turn_away(join, out);
            }
            None => {
                self.members.insert(session, Member::new(join));
            }
        }
        if let Phase::Closed(code) = &self.phase {
            return self.dismiss(session, code.clone(), out);
        }
        self.begin_catching_up(session, out);
    }

    fn turn_away(&mut self, join: Join, out: &mut Vec<Effect>) {
        *self.tally.closed.entry(ClosedCode::Limit).or_default() += 1;
        let session = join.session;
        let frame = match Member::new(join).peer {
            Some(peer) => peer.unavailable(&self.document),
            None => {
                let closed = ServerMessage::Closed {
                    room: None,
                    document: self.document.clone(),
                    code: ClosedCode::Limit,
                    text: "the document has as many members as this server lets in; try again later".to_owned(),
                };
                closed.encode()
            }
        };
        out.push(Effect::Dismiss { session, frame });
    }

    /// Starts a member that is joining on its way, once the room is open.
    pub(super) fn begin_catching_up(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let (Phase::Live(live), Some(member)) = (&self.phase, self.members.get(&session)) else {
            return;
        };
        let Standing::Joining(join) = &member.standing else {
            return;
        };
        if member.peer.is_some() {
            return self.peer_joined(session, out);
        }
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
                if let Some(after) = member.shown_up_to.take() {
                    self.go_on_showing(session, after, out);
                }
                return;
            }
        };
        self.census = None;
        self.go_on(session, stream, out);
    }

    pub(super) fn read(
        &mut self,
        session: SessionId,
        ticket: Ticket,
        result: Result<Slice, ReadFailure>,
        out: &mut Vec<Effect>,
    ) {
        let (Phase::Live(live), Some(member)) = (&self.phase, self.members.get_mut(&session)) else {
            return;
        };
        if live.upkeep.is_resetting() {
            // The log is being rewritten under the read; the member is about to be told to open the document anew.
            return;
        }
        let stream = match &mut member.standing {
            Standing::Reading(stream, asked) if *asked == ticket => stream,
            _ => return,
        };
        match result {
            Ok(slice) if member.peer.is_some() => self.collect(session, slice, out),
            Ok(slice) => {
                let greeting = stream.greeting.take();
                if let Some(greeting) = greeting {
                    let bytes = live.bytes_from(&stream.source, slice.log_bytes_before);
                    self.greet(session, &greeting, bytes, out);
                }
                self.send_part(session, slice, out);
            }
            Err(ReadFailure::Gone) if member.peer.is_some() => self.collect_anew(session, out),
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
    pub(super) fn go_on(&mut self, session: SessionId, mut stream: Stream, out: &mut Vec<Effect>) {
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
        let ticket = self.tickets.draw();
        self.set_standing(session, Standing::Reading(stream, ticket));
        let Phase::Live(live) = &mut self.phase else { return };
        let bundle = if forms.bundle { live.bundle_from(&from) } else { None };
        out.push(Effect::Read {
            session,
            ticket,
            from,
            to,
            deflate: forms.deflate,
            bundle,
        });
    }

    /// Whether a member has not all that is stored yet.
    pub fn brings_up(&mut self) -> bool {
        self.census().brings_up
    }

    /// A part, encoded once for all members that are sent the same bytes one after another.
    fn part_frame(&mut self, packing: Packing, bytes: Bytes, end: Option<Cursor>) -> Bytes {
        if let Some(last) = &self.last_part
            && (last.bytes.as_ptr(), last.bytes.len(), last.end) == (bytes.as_ptr(), bytes.len(), end)
        {
            return last.frame.clone();
        }
        let part = Part {
            room: self.number,
            packing,
            bytes: bytes.clone(),
            end,
        };
        let frame = ServerMessage::Part(part).encode();
        self.last_part = (!bytes.is_empty()).then(|| LastPart {
            bytes,
            end,
            frame: frame.clone(),
        });
        frame
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
        if self.members.get(&session).is_some_and(|member| member.peer.is_some()) {
            return self.peer_arrived(session, out);
        }
        let Phase::Live(live) = &self.phase else { return };
        let end = live.cursor();
        let frame = self.part_frame(packing, bytes, Some(end));
        out.push(Effect::Reply { to: session, frame });
        self.set_standing(session, Standing::Live);
        if let Some(round) = &mut self.round {
            round.arrived(session);
        }
        self.show_all(session, None, out);
    }

    /// Shows a member the rest of who is here. What a round has for it goes first: the rest may hold newer states of the same.
    fn go_on_showing(&mut self, session: SessionId, after: SessionId, out: &mut Vec<Effect>) {
        let is_live = self.members.get(&session).is_some_and(Member::is_live);
        if let Some(round) = self.round.as_mut().filter(|_| is_live) {
            let frames = round.turn_now(session).into_iter().flatten();
            out.extend(frames.map(|frame| Effect::Reply { to: session, frame }));
        }
        self.show_all(session, Some(after), out);
    }

    /// Shows a member who is here, a frame at a time as its queue drains, from behind `after`. Changes reach it as they come.
    fn show_all(&mut self, session: SessionId, after: Option<SessionId>, out: &mut Vec<Effect>) {
        let Some(member) = self.members.get_mut(&session).filter(|member| member.is_live()) else {
            return;
        };
        let (to, slice) = (session, self.presence.slice(self.number, after));
        member.shown_up_to = None;
        out.extend(slice.map(|(frame, last)| {
            member.shown_up_to = last;
            match last {
                Some(_) => Effect::Part { to, frame },
                None => Effect::Reply { to, frame },
            }
        }));
    }

    /// Keeps a stored batch at hand while somebody is on the way to the present.
    pub(super) fn keep_for_joiners(&mut self, begins: Position, entries: &[Entry]) {
        let brings_up = self.brings_up();
        let Phase::Live(live) = &mut self.phase else { return };
        if !brings_up {
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

/// The part that was encoded last. It holds the bytes, so that no others can lie where they do.
#[derive(Debug)]
pub(super) struct LastPart {
    bytes: Bytes,
    end: Option<Cursor>,
    frame: Bytes,
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
    pub(super) fn since(&self, source: &Source) -> Option<Bytes> {
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
    pub(super) fn way_from(&self, cursor: Option<Cursor>, heads: &[ChangeHash]) -> (Source, Base) {
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
    fn bundle_from(&mut self, source: &Source) -> Option<BundleOf> {
        let Source::Log { from, offset: 0 } = source else {
            return None;
        };
        let (document, end) = self.upkeep.base()?;
        if let Some((begin, last)) = &self.last_bundle
            && (*begin, last.end) == (*from, end)
        {
            return Some(last.clone());
        }
        let count = end.number().checked_sub(from.number())?;
        if !BUNDLE_CHANGES.contains(&count) {
            return None;
        }
        let graph = self.pipeline.index.graph();
        let hash = |position: u64| graph.node(u32::try_from(position).ok()?).map(|node| node.hash);
        let bundle = BundleOf {
            document,
            hashes: (from.number()..end.number()).map(hash).collect::<Option<_>>()?,
            end,
        };
        self.last_bundle = Some((*from, bundle.clone()));
        Some(bundle)
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
