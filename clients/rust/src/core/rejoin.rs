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

/// How the present document is looked at when the server's comes whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejoin {
    /// All that it has and the server lacks is sent: the server's log is another one, or this is the first time ([O17]).
    Trusting,
    /// Only the unacknowledged changes are kept: everything else the server has.
    Distrusting,
    /// The own changes that the server lacks, acknowledged ones too, are made anew under a new actor ([R2]).
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
        if self == Self::Distrusting {
            if replica.replace(chunks).is_ok() {
                return Ok(Vec::new());
            }
            // The own changes do not fit: perhaps somebody else wrote as this actor.
            return Self::Reset.replace(replica, chunks, random);
        }
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
        match self {
            Self::Trusting if replica.merge(lacked.clone()).is_ok() => {
                for change in lacked {
                    replica.keep(change);
                }
                Ok(Vec::new())
            }
            Self::Trusting | Self::Distrusting | Self::Reset => {
                let of_mine = |change: &Change| replica.actors().contains(change.actor_id());
                let mine = lacked.into_iter().filter(of_mine).collect();
                Ok(make_anew(replica, mine, random))
            }
        }
    }
}

/// The changes once each, dependencies first: a change starts above all operations that it depends on.
pub(super) fn lacked_by(mut changes: Vec<Change>) -> Vec<Change> {
    let mut seen: BTreeSet<ChangeHash> = BTreeSet::new();
    changes.retain(|change| seen.insert(change.hash()));
    changes.sort_by(|a, b| (a.start_op(), a.actor_id()).cmp(&(b.start_op(), b.actor_id())));
    changes
}

/// Makes own changes anew under a new actor: exactly as they were as long as all that they stand on is there, then by value.
fn make_anew(replica: &mut Replica, changes: Vec<Change>, random: &mut Random) -> Vec<Draft> {
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
    drafts(left)
}

fn drafts(changes: Vec<Bytes>) -> Vec<Draft> {
    if changes.is_empty() {
        return Vec::new();
    }
    let text = "what this change stood on was thrown out of the document".to_owned();
    vec![Draft {
        changes,
        code: RejectCode::Quarantined,
        text,
    }]
}
