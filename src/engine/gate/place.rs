//! Where a change stands in the history of its actor and of the room, and what lies in its past.

use super::{COUNTER_MAX, Decoded, Refusal, Subject, Verdict, check::refuse};
use crate::engine::{
    document::Document,
    index::{ActorNumber, Index, POSITION_MAX, Past},
};
use automerge::{Automerge, ChangeHash as AutomergeHash};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::ChangeHash;

/// How far the counters of all changes of a document together may lie above what those changes stand on.
///
/// Changes made on an older state leave such gaps (`changeAt` in JavaScript). A browser that loads the document allocates about
/// 150 bytes for every counter skipped, so that without a limit a few small changes would keep every browser from loading it.
pub(crate) const GAP_OPS_MAX: u64 = 100_000;

const TOO_MANY_GAPS: Refusal =
    Refusal::Limit("too many changes of this document were made on older states; make this one on the newest");

/// Merging lags further behind than the index remembers.
const OUT_OF_REACH: Refusal =
    Refusal::Limit("the change reaches further back than this server can follow now; send it again later");

/// The past of a change that may come next.
pub(super) struct Place {
    pub(super) past: Past,
    /// Whether every earlier change of its own actor lies in it.
    pub(super) author_past_is_whole: bool,
}

/// Finds the place, or the verdict if there is none.
pub(super) fn place(
    index: &Index,
    document: Option<&Document>,
    subject: &Subject,
    change: &Decoded,
) -> Result<Place, Verdict> {
    let document = document.map(Document::automerge);
    if index.contains_recent(&change.hash()) {
        return Err(Verdict::Known);
    }
    let author = index.actor_number(change.actor());
    let last_seq = index.last_seq(change.actor());
    if let Some(author) = author {
        check_author(index, document, subject, change, author)?;
    }
    let found = find_deps(index, document, change)?;
    if change.seq() != last_seq + 1 {
        return Err(refuse("there is a gap in the actor's sequence numbers"));
    }
    let author_max_op = author.map_or(0, |author| index.actor_max_op(author));
    if change.start_op() <= author_max_op.max(found.max_op) {
        return Err(refuse("the change's counters are not above those that it stands on"));
    }
    let gap = change.start_op() - 1 - found.max_op;
    if gap > 0 && change.ops.is_empty() {
        return Err(refuse("an empty change's counter is not the next one"));
    }
    if change.start_op() > index.max_op() + 1 {
        return Err(refuse("the change's counters leave a gap"));
    }
    if gap > 0 && (found.distant || index.gap_ops().saturating_add(gap.into()) > GAP_OPS_MAX) {
        return Err(Verdict::Refused(TOO_MANY_GAPS));
    }
    if index.position().number() >= POSITION_MAX.into() {
        return Err(Verdict::Refused(Refusal::Limit(
            "the document has as many changes as it can",
        )));
    }
    let past = if index.graph().are_heads(change.deps()) {
        Past::All
    } else {
        let near = if found.distant {
            None
        } else {
            index.graph().past(&found.positions)
        };
        match (near, document) {
            (Some(past), _) => past,
            (None, None) => return Err(Verdict::Distant),
            (None, Some(document)) => distant_past(index, document, change)?,
        }
    };
    let author_past_is_whole = author.is_none_or(|author| past.bound(author) == u32::MAX);
    Ok(Place {
        past,
        author_past_is_whole,
    })
}

/// The actor belongs to the subject and has not gone further than this change, or the change is known.
fn check_author(
    index: &Index,
    document: Option<&Automerge>,
    subject: &Subject,
    change: &Decoded,
    author: ActorNumber,
) -> Result<(), Verdict> {
    let is_foreign = index.owner(change.actor()) != Some(subject);
    let is_taken = change.seq() <= index.last_seq(change.actor());
    if is_taken && !index.graph().is_whole() && index.graph().find_seq(author, change.seq()).is_none() {
        let document = document.ok_or(Verdict::Distant)?;
        if has(document, &change.hash()) {
            return Err(Verdict::Known);
        }
    }
    match (is_foreign, is_taken) {
        (true, _) => Err(Verdict::Refused(Refusal::ForeignActor)),
        (false, true) => Err(Verdict::Refused(Refusal::ActorConflict)),
        (false, false) => Ok(()),
    }
}

/// The dependencies of a change, all known.
struct FoundDeps {
    /// The positions of those that the index still knows.
    positions: Vec<u32>,
    /// Whether there are others.
    distant: bool,
    /// The highest counter of them all.
    max_op: u32,
}

fn find_deps(index: &Index, document: Option<&Automerge>, change: &Decoded) -> Result<FoundDeps, Verdict> {
    let mut found = FoundDeps {
        positions: Vec::with_capacity(change.deps().len()),
        distant: false,
        max_op: 0,
    };
    for dep in change.deps() {
        if let Some(known) = index.graph().find_dep(dep) {
            found.positions.push(known.position);
            found.max_op = found.max_op.max(known.max_op);
        } else if index.graph().is_whole() {
            return Err(Verdict::Missing(*dep));
        } else {
            let document = document.ok_or(Verdict::Distant)?;
            let meta = document
                .get_change_meta_by_hash(&AutomergeHash(dep.0))
                .ok_or(Verdict::Missing(*dep))?;
            found.distant = true;
            found.max_op = found.max_op.max(u32::try_from(meta.max_op).unwrap_or(COUNTER_MAX));
        }
    }
    Ok(found)
}

/// The past of a change that reaches beyond the recent graph: the document tells which of its changes lie outside, the
/// recent graph which of those that the document does not have yet.
fn distant_past(index: &Index, document: &Automerge, change: &Decoded) -> Result<Past, Verdict> {
    let mut covered = BTreeSet::new();
    let mut merged = Vec::new();
    let mut pending = change.deps().to_vec();
    while let Some(hash) = pending.pop() {
        if !covered.insert(hash) {
            continue;
        }
        if has(document, &hash) {
            merged.push(AutomergeHash(hash.0));
        } else {
            pending.extend(index.graph().deps_of(&hash).ok_or(Verdict::Refused(OUT_OF_REACH))?);
        }
    }
    let mut bounds = BTreeMap::new();
    let mut lies_outside = |actor: ActorNumber, start_op: u32| {
        let bound = bounds.entry(actor).or_insert(start_op);
        *bound = start_op.min(*bound);
    };
    for meta in document.get_changes_meta(&merged) {
        if let Some(actor) = index.actor_number(meta.actor.to_bytes()) {
            lies_outside(actor, u32::try_from(meta.start_op).unwrap_or(0));
        }
    }
    for node in index.graph().recent() {
        if !covered.contains(&node.hash) && !has(document, &node.hash) {
            lies_outside(node.actor, node.start_op);
        }
    }
    Ok(Past::Except(bounds))
}

fn has(document: &Automerge, hash: &ChangeHash) -> bool {
    document.get_change_meta_by_hash(&AutomergeHash(hash.0)).is_some()
}
