//! What becomes of the present document when the server's comes whole: what is kept, what is sent, what is made anew.

use super::{
    Draft,
    random::Random,
    remake::{Replay, Replayed},
    replica::{Fault, OwnChange, Replica, guarded},
};
use automerge::{Automerge, Change, ChangeHash};
use bytes::Bytes;
use std::collections::BTreeSet;
use syncline_protocol::native::RejectCode;

/// What the next whole document means for the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejoin {
    /// Nothing is wrong: the document is opened with its cursor and heads.
    Trusting,
    /// The present document does not fit what the server sent: the whole of the server's is asked for. What it lacks is sent
    /// ([O14], [O17]).
    Whole,
    /// The whole is asked for, and of what it lacks only the own changes are kept, acknowledged ones too: made anew under a new
    /// actor ([R2]).
    Reset,
}

impl Rejoin {
    /// Puts the document that `chunks` make in the place of the present one. What could not be kept comes back as drafts.
    pub(super) fn replace(
        self,
        replica: &mut Replica,
        chunks: &[u8],
        random: &mut Random,
    ) -> Result<Vec<Draft>, Fault> {
        let own = replica.take_own();
        let former = match replica.replace(chunks) {
            Ok(former) => former,
            Err(fault) => {
                for change in own {
                    replica.keep(change);
                }
                return Err(fault);
            }
        };
        let added = guarded(|| Ok(replica.document.get_changes_added(&former))).unwrap_or_default();
        drop(former);
        let unacknowledged = own.into_iter().filter(|change| !replica.holds(&change.hash()));
        let lacked = lacked_by(added.into_iter().chain(unacknowledged).collect());
        if self != Self::Reset && keep_all(replica, &lacked) {
            return Ok(Vec::new());
        }
        let (mine, theirs): (Vec<Change>, Vec<Change>) = lacked
            .into_iter()
            .partition(|change| replica.actors().contains(change.actor_id()));
        let mut left = make_anew(replica, mine, random);
        if self != Self::Reset && !keep_all(replica, &theirs) {
            left.extend(theirs.into_iter().map(|change| OwnChange::new(change).bytes));
        }
        Ok(drafts(left))
    }
}

/// Merges the changes and keeps them until the server has them.
fn keep_all(replica: &mut Replica, changes: &[Change]) -> bool {
    let merged = replica.merge(changes.to_vec()).is_ok();
    if merged {
        for change in changes {
            replica.keep(change.clone());
        }
    }
    merged
}

/// The changes once each, dependencies first: a change starts above all operations that it depends on.
pub(super) fn lacked_by(mut changes: Vec<Change>) -> Vec<Change> {
    let mut seen: BTreeSet<ChangeHash> = BTreeSet::new();
    changes.retain(|change| seen.insert(change.hash()));
    changes.sort_by(|a, b| (a.start_op(), a.actor_id()).cmp(&(b.start_op(), b.actor_id())));
    changes
}

/// Makes own changes anew under a new actor: exactly as they were as long as all that they stand on is there, then by value.
fn make_anew(replica: &mut Replica, changes: Vec<Change>, random: &mut Random) -> Vec<Bytes> {
    let actor = random.actor();
    replica.take_actor(actor.clone());
    let mut standing: BTreeSet<ChangeHash> = BTreeSet::new();
    let sound = changes.iter().take_while(|change| {
        let stands = change
            .deps()
            .iter()
            .all(|dep| standing.contains(dep) || replica.holds(dep));
        standing.insert(change.hash());
        stands
    });
    let sound = sound.count();
    let mut changes: Vec<OwnChange> = changes.into_iter().map(OwnChange::new).collect();
    let mut replay = Replay::default();
    let mut rest = changes.split_off(sound);
    if replica.rename(&changes, &actor).is_some() {
        changes.iter().for_each(|own| replay.renamed(&own.change, &actor));
    } else {
        changes.append(&mut rest);
        rest = changes;
    }
    let mut left = Vec::new();
    for own in rest {
        match replay.replay(&mut replica.document, &own.change) {
            Ok(Replayed { change, whole }) => {
                if let Some(change) = change {
                    replica.keep(change);
                }
                left.extend((!whole).then_some(own.bytes));
            }
            Err(_) => {
                // A document that panicked is not looked at again: the check of the heads sends for another one.
                replica.document = Automerge::new().with_actor(actor.clone());
                left.push(own.bytes);
            }
        }
    }
    left
}

fn drafts(changes: Vec<Bytes>) -> Vec<Draft> {
    if changes.is_empty() {
        return Vec::new();
    }
    let text = "this does not fit the document that the server has now".to_owned();
    vec![Draft {
        changes,
        code: RejectCode::AfterReject,
        text,
    }]
}
