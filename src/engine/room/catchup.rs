//! How a member gets to the present: a joiner and a lagging member alike read from the log, or from the snapshot and the log
//! after it, in parts drawn as the queue drains, and get diffs only after the last part.

use super::{
    Effect, Entry, Join, Live, Phase, ReadFailure, Room, Slice, Source, Ticket,
    member::{Greeting, Member, Standing, Stream},
};
use bytes::Bytes;
use std::collections::VecDeque;
use syncline_protocol::{
    ChangeHash, Cursor, Position, SessionId,
    native::{Base, ClosedCode, HEADS_MAX, Opened, Packing, Part, ServerMessage},
};

impl Room {
    /// A session joins; one that is a member already begins anew.
    pub(super) fn joined(&mut self, join: Join, out: &mut Vec<Effect>) {
        self.empty_since = None;
        self.audience = None;
        let session = join.session;
        match self.members.get_mut(&session) {
            Some(member) => member.standing = Standing::Joining(join),
            None => {
                let member = Member::new(join.person.clone(), join.deflate, Standing::Joining(join));
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
        let (from, to, deflate) = (stream.source, live.durable, member.deflate);
        let ticket = self.tickets.draw();
        self.set_standing(session, Standing::Reading(stream, ticket));
        out.push(Effect::Read {
            session,
            ticket,
            from,
            to,
            deflate,
        });
    }

    fn send_part(&mut self, session: SessionId, slice: Slice, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &self.phase else { return };
        if slice.next == Source::log(live.durable) {
            return self.arrive(session, slice.packing, slice.bytes, out);
        }
        let rest = live.last.since(&slice.next);
        let part = Part {
            room: self.number,
            packing: slice.packing,
            bytes: slice.bytes,
            end: None,
        };
        if let Some(rest) = rest {
            let frame = ServerMessage::Part(part).encode();
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
        out.push(Effect::Part {
            to: session,
            frame: ServerMessage::Part(part).encode(),
        });
    }

    /// The last part, and who is here; from now on the member gets every diff.
    fn arrive(&mut self, session: SessionId, packing: Packing, bytes: Bytes, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &self.phase else { return };
        let part = Part {
            room: self.number,
            packing,
            bytes,
            end: Some(live.cursor()),
        };
        out.push(Effect::Reply {
            to: session,
            frame: ServerMessage::Part(part).encode(),
        });
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
