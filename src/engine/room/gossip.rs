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

/// How far each storage was when it last said so.
#[derive(Debug, Default)]
pub(super) struct Gossip(BTreeMap<String, (Vec<ChangeHash>, Time)>);

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
        if known == Some(heads) || (known.is_none() && self.gossip.0.len() >= STORAGES_MAX) {
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
        for listener in listeners {
            self.tell_heads_of(listener, &storage_id, out);
        }
    }

    /// From now on a peer follows these storages; it is told where the new ones are.
    pub(super) fn followed(&mut self, session: SessionId, follows: Arc<BTreeSet<String>>, out: &mut Vec<Effect>) {
        let Some(peer) = self.members.get_mut(&session).and_then(|member| member.peer.as_mut()) else {
            return;
        };
        let before = std::mem::replace(&mut peer.follows, follows.clone());
        for storage_id in follows.difference(&before) {
            self.tell_heads_of(session, storage_id, out);
        }
    }

    /// Tells a peer that has just come where the storages are that it follows.
    pub(super) fn tell_all_heads(&self, session: SessionId, out: &mut Vec<Effect>) {
        let peer = self.members.get(&session).and_then(|member| member.peer.as_ref());
        for storage_id in peer.into_iter().flat_map(|peer| peer.follows.iter()) {
            self.tell_heads_of(session, storage_id, out);
        }
    }

    fn tell_heads_of(&self, session: SessionId, storage_id: &str, out: &mut Vec<Effect>) {
        let Some((heads, at)) = self.gossip.0.get(storage_id) else {
            return;
        };
        let Some(peer) = self.members.get(&session).and_then(|member| member.peer.as_ref()) else {
            return;
        };
        let message = RepoMessage::RemoteHeadsChanged {
            sender: peer.host.peer.clone(),
            target: Some(peer.id.clone()),
            document: self.document.to_string(),
            heads: vec![RemoteHeads {
                storage_id: storage_id.to_owned(),
                heads: encode_heads(heads),
                timestamp: peer.host.unix_ms_at_zero + at.ms(),
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
