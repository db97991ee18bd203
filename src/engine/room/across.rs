//! What members say to each other beside the document, in both dialects: signals and ephemeral messages, presence and the
//! messages of automerge-repo's presence helpers.
//!
//! A peer takes part in presence from the first message of such a helper on, so that nobody else is sent what it does not
//! expect. Nobody speaks for another: what the server adds comes from peer ids that are its own.

use super::{Effect, Room, peer::Peer};
use bytes::Bytes;
use std::collections::BTreeSet;
use syncline_protocol::{
    SessionId,
    native::{PresenceEntry, ServerMessage},
    repo::{
        Channels, Ephemeral, PeerId, PresenceMessage, RepoMessage, channels_of, encode_channels, to_natives, to_peers,
    },
};

/// The peer id under which a native member appears to peers begins so.
pub const NATIVE_PEER_PREFIX: &str = "native-";
/// Bytes of native members' states that a peer is sent when it begins to take part; of further members it hears when they
/// show something else.
const SHOWN_AT_FIRST_BYTES_MAX: usize = 64 << 10;

/// What a room remembers of what was said across the dialects.
#[derive(Debug, Default)]
pub(super) struct Across {
    /// Ephemeral messages that the server made.
    said: u64,
    /// Native members that show something.
    natives: BTreeSet<SessionId>,
}

/// What a peer shows of itself.
#[derive(Debug, Default)]
pub(super) struct Showing {
    channels: Channels,
    /// Whether it has said what it shows, not just that it is there.
    is_known: bool,
}

impl Showing {
    fn take(&mut self, message: PresenceMessage) {
        match message {
            PresenceMessage::Snapshot(channels) => self.channels.extend(channels),
            PresenceMessage::Update { channel, value } => {
                self.channels.insert(channel, value);
            }
            PresenceMessage::Heartbeat | PresenceMessage::Goodbye => return,
        }
        self.is_known = true;
    }
}

impl Room {
    /// An ephemeral message goes to the other peers as it is, and to native members as presence if it is that, else as a
    /// signal.
    pub(super) fn broadcast(&mut self, session: SessionId, ephemeral: &Ephemeral, out: &mut Vec<Effect>) {
        if !self.is_peer(session) {
            return;
        }
        self.pass_on(ephemeral, |to, _| to != session, out);
        if let Some(message) = PresenceMessage::decode(&ephemeral.data) {
            return self.peer_shows(session, message, out);
        }
        let payload = to_natives(&ephemeral.data);
        if payload.len() as u64 <= self.limits.presence_bytes_max {
            let room = self.number;
            let signal = ServerMessage::Signal { room, session, payload };
            out.push(Effect::Broadcast {
                to: self.audience(),
                except: Some(session),
                frame: signal.encode(),
                begins: None,
            });
        }
    }

    /// A native member's signal appears to peers as an ephemeral message of a peer that is named after its session.
    pub(super) fn signal_peers(&mut self, session: SessionId, payload: &Bytes, out: &mut Vec<Effect>) {
        if self.has_peers() {
            let ephemeral = self.ephemeral_of(session, to_peers(payload));
            self.pass_on(&ephemeral, |_, _| true, out);
        }
    }

    /// What native members show now, and no longer show, for the peers that take part.
    pub(super) fn show_to_peers(&mut self, entries: &[PresenceEntry], out: &mut Vec<Effect>) {
        for entry in entries {
            let session = entry.session;
            let is_native = self.members.contains_key(&session) && !self.is_peer(session);
            let message = match &entry.state {
                Some(state) if is_native => {
                    self.across.natives.insert(session);
                    PresenceMessage::Snapshot(channels_of(state))
                }
                None if self.across.natives.remove(&session) => PresenceMessage::Goodbye,
                Some(_) | None => continue,
            };
            self.tell_of_native(session, &message, out);
        }
    }

    /// A native member shows what it has shown before: to peers, too, it is still there.
    pub(super) fn native_lives(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        if self.across.natives.contains(&session) {
            self.tell_of_native(session, &PresenceMessage::Heartbeat, out);
        }
    }

    fn tell_of_native(&mut self, session: SessionId, message: &PresenceMessage, out: &mut Vec<Effect>) {
        if self.has_peers() {
            let ephemeral = self.ephemeral_of(session, message.encode());
            self.pass_on(&ephemeral, |_, peer| peer.showing.is_some(), out);
        }
    }

    /// A peer's helper says what the peer shows. Native members see all of it as one state.
    fn peer_shows(&mut self, session: SessionId, message: PresenceMessage, out: &mut Vec<Effect>) {
        let (now, limits) = (self.now, self.limits.clone());
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let is_live = member.is_live();
        let Some(peer) = member.peer.as_mut() else { return };
        if message == PresenceMessage::Goodbye {
            peer.showing = None;
            return self.presence.hide(session);
        }
        // On its way to the present it is sent nothing. Helpers repeat themselves.
        if !is_live {
            return;
        }
        let begins = peer.showing.is_none();
        let showing = peer.showing.get_or_insert_default();
        showing.take(message);
        let state = to_natives(&encode_channels(&showing.channels));
        if state.len() as u64 > limits.presence_bytes_max {
            *showing = Showing::default();
        }
        let state = showing.is_known.then_some(state);
        let is_known = showing.is_known;
        self.presence
            .show(now, session, &member.person, state, limits.presence_ttl_ms);
        if begins {
            self.show_natives(session, out);
        }
        if !is_known {
            self.ask_what_it_shows(session, out);
        }
    }

    /// Shows a peer that begins to take part which native members are here.
    fn show_natives(&mut self, to: SessionId, out: &mut Vec<Effect>) {
        let mut left = SHOWN_AT_FIRST_BYTES_MAX;
        for native in self.across.natives.clone() {
            let Some(state) = self.presence.state(native) else {
                continue;
            };
            let data = PresenceMessage::Snapshot(channels_of(state)).encode();
            let Some(rest) = left.checked_sub(data.len()) else {
                return;
            };
            left = rest;
            let ephemeral = self.ephemeral_of(native, data);
            self.pass_on(&ephemeral, |session, _| session == to, out);
        }
    }

    /// A helper says all that it shows to whoever it has not heard of.
    fn ask_what_it_shows(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let Some(peer) = self.peer_mut(session) else { return };
        let sender = peer.host.peer.clone();
        let ephemeral = self.ephemeral(sender, PresenceMessage::Heartbeat.encode());
        self.pass_on(&ephemeral, |to, _| to == session, out);
    }

    fn ephemeral_of(&mut self, native: SessionId, data: Bytes) -> Ephemeral {
        let sender = PeerId::new(&format!("{NATIVE_PEER_PREFIX}{native}")).expect("a number behind a prefix is short");
        self.ephemeral(sender, data)
    }

    fn ephemeral(&mut self, sender: PeerId, data: Bytes) -> Ephemeral {
        self.across.said += 1;
        Ephemeral {
            sender,
            target: None,
            document: self.document.to_string(),
            session: self.number.to_string(),
            count: self.across.said,
            data,
        }
    }

    pub(super) fn has_peers(&mut self) -> bool {
        self.census().has_peers
    }

    fn pass_on(&self, ephemeral: &Ephemeral, to: impl Fn(SessionId, &Peer) -> bool, out: &mut Vec<Effect>) {
        for (session, member) in &self.members {
            let Some(peer) = member.peer.as_ref() else { continue };
            if !member.is_live() || !to(*session, peer) {
                continue;
            }
            let ephemeral = Ephemeral {
                target: Some(peer.id.clone()),
                ..ephemeral.clone()
            };
            out.push(Effect::Broadcast {
                to: peer.audience.clone(),
                except: None,
                frame: RepoMessage::Ephemeral(ephemeral).encode(),
                begins: None,
            });
        }
    }
}
