//! How far other storages are: peers of the repo dialect that ask for it hear of each one's heads in this document.
//!
//! A peer speaks for its own storage only, so that nobody is told what a third one heard.

use super::{Effect, Room};
use crate::engine::time::Time;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use syncline_protocol::{
    ChangeHash, SessionId,
    repo::{RemoteHeads, RepoMessage, encode_heads},
};

/// Storages of which a room remembers how far they are; of one more nothing is passed on.
const STORAGES_MAX: usize = 256;
/// Heads of one storage that are remembered; where one says it has more, nothing of it is passed on.
const HEADS_MAX: usize = 100;

/// About what one storage takes besides its heads.
const ENTRY_BYTES: usize = 512;

/// How far each storage was when it last said so.
#[derive(Debug, Default)]
pub(super) struct Gossip(BTreeMap<String, (Arc<[ChangeHash]>, Time)>);

impl Gossip {
    /// About how much memory it takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.0
            .values()
            .map(|(heads, _)| ENTRY_BYTES + size_of_val(&**heads))
            .sum()
    }
}

impl Room {
    /// A peer has said how far it is: those who asked for its storage hear of it.
    pub(super) fn spread_heads(&mut self, session: SessionId, out: &mut Vec<Effect>) {
        let now = self.now;
        let Some(peer) = self.members.get(&session).and_then(|member| member.peer.as_ref()) else {
            return;
        };
        let Some(storage_id) = peer.storage_id.clone() else {
            return;
        };
        let heads = &peer.told.heads;
        let known = self.gossip.0.get(&storage_id).map(|(heads, _)| heads);
        if known == Some(heads) || heads.len() > HEADS_MAX || (known.is_none() && self.gossip.0.len() >= STORAGES_MAX) {
            return;
        }
        self.gossip.0.insert(storage_id.clone(), (heads.clone(), now));
        let listeners: Vec<SessionId> = self
            .members
            .iter()
            .filter(|(other, member)| {
                let listens = member
                    .peer
                    .as_ref()
                    .is_some_and(|peer| peer.follows.contains(&storage_id));
                **other != session && listens
            })
            .map(|(session, _)| *session)
            .collect();
        if let Some(remote) = self.remote_heads(&storage_id) {
            for listener in listeners {
                self.tell_heads(listener, &remote, out);
            }
        }
    }

    /// From now on a peer follows these storages; it is told where the new ones are.
    pub(super) fn followed(&mut self, session: SessionId, follows: Arc<BTreeSet<String>>, out: &mut Vec<Effect>) {
        let Some(peer) = self.members.get_mut(&session).and_then(|member| member.peer.as_mut()) else {
            return;
        };
        let before = std::mem::replace(&mut peer.follows, follows.clone());
        for remote in follows.difference(&before).filter_map(|id| self.remote_heads(id)) {
            self.tell_heads(session, &remote, out);
        }
    }

    /// Tells a peer that has just come where the storages are that it follows.
    pub(super) fn tell_all_heads(&self, session: SessionId, out: &mut Vec<Effect>) {
        let peer = self.members.get(&session).and_then(|member| member.peer.as_ref());
        let follows = peer.into_iter().flat_map(|peer| peer.follows.iter());
        for remote in follows.filter_map(|id| self.remote_heads(id)) {
            self.tell_heads(session, &remote, out);
        }
    }

    /// Where a storage is, as peers are told it: written once for all of them.
    fn remote_heads(&self, storage_id: &str) -> Option<(RemoteHeads, Time)> {
        let (heads, at) = self.gossip.0.get(storage_id)?;
        let remote = RemoteHeads {
            storage_id: storage_id.to_owned(),
            heads: encode_heads(&heads[..]),
            timestamp: 0,
        };
        Some((remote, *at))
    }

    fn tell_heads(&self, session: SessionId, (remote, at): &(RemoteHeads, Time), out: &mut Vec<Effect>) {
        let Some(peer) = self.members.get(&session).and_then(|member| member.peer.as_ref()) else {
            return;
        };
        let message = RepoMessage::RemoteHeadsChanged {
            sender: peer.host.peer.clone(),
            target: Some(peer.id.clone()),
            document: self.document.to_string(),
            heads: vec![RemoteHeads {
                timestamp: peer.host.unix_ms_at_zero + at.ms(),
                ..remote.clone()
            }],
        };
        out.push(Effect::Broadcast {
            to: peer.audience.clone(),
            except: None,
            frame: message.encode(),
            begins: None,
        });
    }
}
