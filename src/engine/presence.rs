//! Who is here and where: the last value of each session wins, expires, and is never stored.
//!
//! Changes gather for a tick and go out in frames that serve all members.

use crate::engine::{gate::Subject, time::Time};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    sync::Arc,
};
use syncline_protocol::{
    RoomNumber, SessionId,
    native::{PresenceEntry, ServerMessage},
};

/// The least time between two presence frames of one room.
pub const TICK_MS: u64 = 100;
/// A presence frame is closed when its states exceed this; the next entries go into another.
const FRAME_BYTES_MAX: usize = 64 << 10;
/// What an entry takes at least, so that a frame never holds more of them than a client decodes.
const ENTRY_BYTES: usize = 16;

/// Who somebody is to the others: claims of the token that everybody in the room may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The token's subject.
    pub subject: Subject,
    /// The token's `name` claim.
    pub name: Option<Arc<str>>,
}

/// The presence states of one room. At most one per member.
#[derive(Debug, Default)]
pub struct Presence {
    shown: BTreeMap<SessionId, Shown>,
    /// When each of them expires, the first one first: looked at after every batch of the room.
    expiries: BTreeSet<(Time, SessionId)>,
    /// What changed since the last frame; a session that is not in `shown` has gone.
    changed: BTreeMap<SessionId, Person>,
    last_frame: Option<Time>,
}

#[derive(Debug)]
struct Shown {
    person: Person,
    state: Bytes,
    expires: Time,
}

impl Presence {
    /// A session shows a state, or takes it back with `None`. The state lives for `ttl_ms`. Whether it is another state than
    /// before.
    pub fn show(&mut self, now: Time, session: SessionId, person: &Person, state: Option<Bytes>, ttl_ms: u64) -> bool {
        let Some(state) = state else {
            self.hide(session);
            return true;
        };
        let expires = now.plus_ms(ttl_ms);
        let person = person.clone();
        let former = self.shown.insert(
            session,
            Shown {
                person: person.clone(),
                state: state.clone(),
                expires,
            },
        );
        if let Some(former) = &former {
            self.expiries.remove(&(former.expires, session));
        }
        self.expiries.insert((expires, session));
        let is_news = former.is_none_or(|former| former.state != state);
        if is_news {
            self.changed.insert(session, person);
        }
        is_news
    }

    /// What a session shows.
    pub fn state(&self, session: SessionId) -> Option<&Bytes> {
        self.shown.get(&session).map(|shown| &shown.state)
    }

    /// A session's state is gone.
    pub fn hide(&mut self, session: SessionId) {
        if let Some(shown) = self.shown.remove(&session) {
            self.expiries.remove(&(shown.expires, session));
            self.changed.insert(session, shown.person);
        }
    }

    /// Lets expired states go; then, if something changed and the tick allows, what changed.
    pub fn due(&mut self, now: Time) -> Vec<PresenceEntry> {
        while let Some(&(expires, session)) = self.expiries.first()
            && expires <= now
        {
            self.hide(session);
        }
        if self.changed.is_empty() || self.tick().is_some_and(|tick| tick > now) {
            return Vec::new();
        }
        self.last_frame = Some(now);
        let changed = std::mem::take(&mut self.changed);
        let entries = changed
            .into_iter()
            .map(|(session, person)| entry(session, &person, self.state(session).cloned()));
        entries.collect()
    }

    /// The next tick counts from here: not everybody was shown at once what was due.
    pub fn shown(&mut self, at: Time) {
        self.last_frame = Some(at);
    }

    /// One frame of what the sessions behind `after` show, for a session that has come up to date; with the last one in it if
    /// there are more. `None` if nothing is shown.
    pub fn slice(&self, room: RoomNumber, after: Option<SessionId>) -> Option<(Bytes, Option<SessionId>)> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut shown = self.shown.range((behind, Bound::Unbounded)).peekable();
        let (mut entries, mut bytes, mut last) = (Vec::new(), 0, None);
        while bytes < FRAME_BYTES_MAX
            && let Some((session, shown)) = shown.next()
        {
            let entry = entry(*session, &shown.person, Some(shown.state.clone()));
            bytes += entry_bytes(&entry);
            entries.push(entry);
            last = Some(*session);
        }
        let more = last.filter(|_| shown.peek().is_some());
        (!entries.is_empty()).then(|| (ServerMessage::Presence { room, entries }.encode(), more))
    }

    /// When `due` has something to do.
    pub fn next_wakeup(&self) -> Option<Time> {
        let expiry = self.expiries.first().map(|(expires, _)| *expires);
        let tick = (!self.changed.is_empty()).then(|| self.tick().unwrap_or_default());
        expiry.into_iter().chain(tick).min()
    }

    fn tick(&self) -> Option<Time> {
        self.last_frame.map(|last| last.plus_ms(TICK_MS))
    }
}

/// The frames that say what changed.
pub fn frames(room: RoomNumber, entries: Vec<PresenceEntry>) -> Vec<Bytes> {
    let mut frames = Vec::new();
    let (mut open, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        bytes += entry_bytes(&entry);
        open.push(entry);
        if bytes >= FRAME_BYTES_MAX {
            frames.push(
                ServerMessage::Presence {
                    room,
                    entries: std::mem::take(&mut open),
                }
                .encode(),
            );
            bytes = 0;
        }
    }
    if !open.is_empty() {
        frames.push(ServerMessage::Presence { room, entries: open }.encode());
    }
    frames
}

fn entry(session: SessionId, person: &Person, state: Option<Bytes>) -> PresenceEntry {
    PresenceEntry {
        session,
        subject: person.subject.0.to_string(),
        name: person.name.as_deref().map(str::to_owned),
        state,
    }
}

fn entry_bytes(entry: &PresenceEntry) -> usize {
    let name = entry.name.as_ref().map_or(0, String::len);
    ENTRY_BYTES + entry.subject.len() + name + entry.state.as_ref().map_or(0, Bytes::len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_protocol::native::decode_server;

    const ROOM: RoomNumber = RoomNumber::new(7);

    fn person(name: &str) -> Person {
        Person {
            subject: Subject(name.into()),
            name: None,
        }
    }

    fn frames_due(presence: &mut Presence, now: Time) -> Vec<Bytes> {
        frames(ROOM, presence.due(now))
    }

    fn states(frames: &[Bytes]) -> Vec<(u64, Option<Bytes>)> {
        let mut states = Vec::new();
        for frame in frames {
            let Ok(ServerMessage::Presence { entries, .. }) = decode_server(frame) else {
                panic!("a presence frame")
            };
            states.extend(entries.into_iter().map(|entry| (entry.session.number(), entry.state)));
        }
        states
    }

    #[test]
    fn p2_the_last_value_wins_and_a_tick_gathers() {
        let (anna, ben) = (SessionId::new(1), SessionId::new(2));
        let mut presence = Presence::default();
        let at = Time::from_ms;
        presence.show(at(0), anna, &person("anna"), Some("a1".into()), 1_000);
        assert_eq!(states(&frames_due(&mut presence, at(0))), [(1, Some("a1".into()))]);
        presence.show(at(10), anna, &person("anna"), Some("a2".into()), 1_000);
        presence.show(at(20), anna, &person("anna"), Some("a3".into()), 1_000);
        presence.show(at(30), ben, &person("ben"), Some("b1".into()), 1_000);
        assert!(frames_due(&mut presence, at(50)).is_empty(), "the tick is not over");
        assert_eq!(presence.next_wakeup(), Some(at(100)));
        assert_eq!(
            states(&frames_due(&mut presence, at(100))),
            [(1, Some("a3".into())), (2, Some("b1".into()))]
        );
        let (frame, more) = presence.slice(ROOM, None).expect("two states");
        assert_eq!((states(&[frame]).len(), more), (2, None));
    }

    #[test]
    fn p5_the_whole_comes_in_slices_without_gaps() {
        let mut presence = Presence::default();
        for session in 0..40 {
            let state = Some(Bytes::from(vec![0; 4 << 10]));
            presence.show(Time::from_ms(0), SessionId::new(session), &person("anna"), state, 1_000);
        }
        let (mut after, mut seen, mut frames) = (None, 0, 0);
        while let Some((frame, more)) = presence.slice(ROOM, after) {
            assert!(frame.len() < FRAME_BYTES_MAX + (8 << 10), "{}", frame.len());
            (seen, frames) = (seen + states(&[frame]).len(), frames + 1);
            if more.is_none() {
                break;
            }
            after = more;
        }
        assert_eq!((seen, frames), (40, 3));
    }

    #[test]
    fn p3_a_state_expires_unless_it_is_shown_again() {
        let anna = SessionId::new(1);
        let mut presence = Presence::default();
        let at = Time::from_ms;
        presence.show(at(0), anna, &person("anna"), Some("a".into()), 1_000);
        frames_due(&mut presence, at(0));
        presence.show(at(600), anna, &person("anna"), Some("a".into()), 1_000);
        assert!(
            frames_due(&mut presence, at(1_500)).is_empty(),
            "the same state again is no news, but it lives on"
        );
        assert_eq!(states(&frames_due(&mut presence, at(1_600))), [(1, None)]);
        assert_eq!(presence.next_wakeup(), None);
    }
}
