//! Who is in a room, counted once and anew only after a change: every batch asks for it, and a room may have many members.

use super::Member;
use std::{collections::BTreeMap, sync::Arc};
use syncline_protocol::SessionId;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Census {
    /// The live members that speak the native dialect, as `Broadcast` takes them: they get every diff.
    pub(super) audience: Arc<[SessionId]>,
    /// Whether some member has not all that is stored yet.
    pub(super) brings_up: bool,
    /// Whether some member speaks the repo dialect.
    pub(super) has_peers: bool,
}

impl Census {
    pub(super) fn of(members: &BTreeMap<SessionId, Member>) -> Self {
        let is_audience = |member: &Member| member.is_live() && member.peer.is_none();
        let audience = members.iter().filter(|(_, member)| is_audience(member));
        Self {
            audience: audience.map(|(session, _)| *session).collect(),
            brings_up: !members.values().all(Member::is_live),
            has_peers: members.values().any(|member| member.peer.is_some()),
        }
    }
}
