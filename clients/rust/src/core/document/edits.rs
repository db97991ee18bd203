//! A document's edits: out, acknowledged, refused.

use super::{Document, Phase, Site};
use crate::core::{
    Draft, Notice,
    rejoin::Rejoin,
    replica::{Fault, OwnChange},
};
use automerge::{ActorId, ChangeHash};
use bytes::Bytes;
use syncline_protocol::{
    EditId,
    native::{ClientMessage, EDIT_CHANGES_MAX, Edit, RejectCode},
};

/// The bytes of an `edit` around its changes, at most.
pub(super) const EDIT_OVERHEAD_BYTES: u64 = 64;
/// The bytes around one change in an `edit`, at most.
const CHANGE_OVERHEAD_BYTES: u64 = 5;
/// The bytes around the one change of an `edit`, at most.
pub(in crate::core) const FRAME_OVERHEAD_BYTES: u64 = EDIT_OVERHEAD_BYTES + CHANGE_OVERHEAD_BYTES;
/// Temporary rejects in a row after which the room is joined anew.
const HOLDS_MAX: u32 = 4;

impl Document {
    pub(in crate::core) fn acked(&mut self, id: EditId) {
        if self.in_flight.remove(&id) {
            self.replica.acknowledge(|own| own.edit == Some(id));
            self.holds = 0;
        }
    }

    pub(in crate::core) fn rejected(&mut self, site: &mut Site<'_>, id: EditId, code: RejectCode, text: &str) {
        if !self.in_flight.remove(&id) {
            return;
        }
        match code {
            RejectCode::Unavailable | RejectCode::MissingDeps => {
                let refused = self.replica.own_mut().filter(|own| own.edit == Some(id));
                if refused.map(|own| own.edit = None).count() == 0 {
                    // Made anew or put aside while this answer was on its way.
                    return;
                }
                self.holds += 1;
                self.hold_until_ms = Some(site.now_ms + site.backoff_ms(self.holds));
                if self.holds.is_multiple_of(HOLDS_MAX) {
                    self.leave_and_wait(site);
                }
            }
            RejectCode::NotOpen => self.wait(site),
            RejectCode::Quarantined => {
                let aside = self.put_aside(site, code, text, |own| own.edit == Some(id));
                self.rejoin = Rejoin::Reset;
                self.leave(site);
                if let Err(fault) = aside {
                    tracing::warn!(document = %self.id, %fault, "rebuilding the document");
                }
            }
            RejectCode::ActorConflict
            | RejectCode::Forbidden
            | RejectCode::Limit
            | RejectCode::ForeignActor
            | RejectCode::AfterReject
            | RejectCode::Other(_) => {
                if let Err(fault) = self.put_aside(site, code, text, |own| own.edit == Some(id)) {
                    self.faulted(site, fault);
                }
            }
        }
    }

    /// Takes refused changes and all that stand on them out of the document: made anew under another actor where that helps,
    /// else kept as a draft.
    pub(super) fn put_aside(
        &mut self,
        site: &mut Site<'_>,
        code: RejectCode,
        text: &str,
        refused: impl FnMut(&OwnChange) -> bool,
    ) -> Result<(), Fault> {
        let heads = self.replica.confirmed_heads();
        let cut = self.replica.cut(refused);
        if cut.is_empty() {
            return Ok(());
        }
        let actor = site.random.actor();
        let rebuilt = self.replica.rebuild(&heads);
        let made_anew =
            rebuilt.is_ok() && code == RejectCode::ActorConflict && self.replica.rename(&cut, &actor).is_some();
        self.replica.take_actor(actor);
        if !made_anew {
            let changes = cut.into_iter().map(|own| own.bytes).collect();
            self.drafts.push(Draft {
                changes,
                code,
                text: text.to_owned(),
            });
        }
        self.notify(site, |document| Notice::Changed { document });
        rebuilt
    }

    /// A change that was just committed is too large for a frame: the document goes back to before it.
    pub(in crate::core) fn take_back(&mut self, hash: ChangeHash, actor: ActorId) -> Result<(), Fault> {
        let heads = self.replica.confirmed_heads();
        self.replica.cut(|own| own.change.hash() == hash);
        let back = self.replica.rebuild(&heads);
        self.replica.take_actor(actor);
        if back.is_err() {
            (self.rejoin, self.replica.cursor) = (Rejoin::Whole, None);
        }
        back
    }

    pub(super) fn send_edits(&mut self, site: &mut Site<'_>) {
        if self.hold_until_ms.is_some_and(|until_ms| until_ms > site.now_ms) {
            return;
        }
        self.hold_until_ms = None;
        let bytes_max = site.edit_bytes_max();
        let too_large = |own: &OwnChange| own.bytes.len() as u64 + CHANGE_OVERHEAD_BYTES > bytes_max;
        if self.is_live() && self.replica.own().iter().any(too_large) {
            let text = format!("a change is larger than the {bytes_max} bytes that the server takes");
            if let Err(fault) = self.put_aside(site, RejectCode::Limit, &text, too_large) {
                self.faulted(site, fault);
            }
        }
        let Phase::Live { room, .. } = self.phase else { return };
        while (self.in_flight.len() as u64) < site.own_limits.edits_in_flight_max {
            let id = EditId::new(*site.next_edit);
            let changes = self.pack(id, bytes_max, site.limits.ops_per_change_max);
            if changes.is_empty() {
                return;
            }
            *site.next_edit += 1;
            self.in_flight.insert(id);
            site.send(&ClientMessage::Edit(Edit { room, id, changes }));
        }
    }

    /// The next changes of one actor that go into one edit. None beyond one that is under way in another edit: that one may
    /// wait at the server for a change in this edit, which would wait for that one.
    fn pack(&mut self, id: EditId, bytes_max: u64, ops_max: u64) -> Vec<Bytes> {
        let (mut changes, mut bytes, mut ops, mut actor) = (Vec::new(), 0, 0, None);
        for own in self.replica.own_mut().skip_while(|own| own.edit.is_some()) {
            bytes += own.bytes.len() as u64 + CHANGE_OVERHEAD_BYTES;
            ops += own.change.len() as u64;
            let fits = bytes <= bytes_max && (ops <= ops_max || changes.is_empty());
            let same_actor = actor.as_ref().is_none_or(|actor| actor == own.change.actor_id());
            if own.edit.is_some() || !same_actor || changes.len() == EDIT_CHANGES_MAX || !fits {
                break;
            }
            actor.get_or_insert_with(|| own.change.actor_id().clone());
            own.edit = Some(id);
            changes.push(own.bytes.clone());
        }
        changes
    }
}
