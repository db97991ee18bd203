//! Where a change stands in the history of its actor and of the room, and what lies in its past.

use super::{COUNTER_MAX, Decoded, Refusal, Subject, Verdict, check::refuse};
use crate::engine::{
    document::Document,
    index::{ActorNumber, Footing, Index, POSITION_MAX, Standpoint},
};
use automerge::{Automerge, ChangeHash as AutomergeHash};
use std::collections::{BTreeMap, BTreeSet};
use syncline_protocol::ChangeHash;

/// How far the counters of all changes of a document together may lie above what those changes stand on.
///
/// Changes made on an older state leave such gaps (`changeAt` in JavaScript). A browser that loads the document allocates about
/// 150 bytes for every counter skipped, so that without a limit a few small changes would keep every browser from loading it.
pub(crate) const GAP_OPS_MAX: u64 = 100_000;

/// How many of the recent changes may have hashes that begin with a zero byte, whatever their number; and one in how many.
///
/// Automerge keeps for each of these a list of all before it, and compares their pasts one by one. By chance one in 256 is such, so
/// nobody who does not try for them comes near.
const LANDMARKS_MIN: usize = 64;
const LANDMARKS_SHARE: usize = 100;

const TOO_MANY_LANDMARKS: Refusal =
    Refusal::Limit("too many changes of this document have hashes that begin with a zero byte; make this one anew");

const TOO_MANY_GAPS: Refusal =
    Refusal::Limit("too many changes of this document were made on older states; make this one on the newest");

/// Merging lags further behind than the index remembers.
const OUT_OF_REACH: Refusal =
    Refusal::Limit("the change reaches further back than this server can follow now; send it again later");

/// The past of a change that may come next.
pub(super) struct Place {
    /// For each actor that the change names its number, and the first of its counters that lies outside the past.
    pub(super) actors: Vec<KnownActor>,
    /// Whether every earlier change of its own actor lies in it.
    pub(super) author_past_is_whole: bool,
    /// For taking the change in.
    pub(super) standpoint: Standpoint,
}

/// An actor that a change names.
#[derive(Clone, Copy)]
pub(super) struct KnownActor {
    pub(super) number: Option<ActorNumber>,
    /// The first of its counters that lies outside the change's past.
    pub(super) bound: u32,
}

impl KnownActor {
    /// One of whose operations nothing is known to lie in the past.
    fn unseen(number: Option<ActorNumber>) -> Self {
        Self { number, bound: 0 }
    }
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
    let last_seq = author.map_or(0, |author| index.actor_last_seq(author));
    if let Some(author) = author {
        check_author(index, document, subject, change, author)?;
    }
    let found = find_deps(index, document, change)?;
    if change.seq() != last_seq + 1 {
        return Err(refuse("there is a gap in the actor's sequence numbers"));
    }
    let author_max_op = author.map_or(0, |author| index.actor_max_op(author));
    if change.start_op() <= author_max_op.max(found.footing.max_op) {
        return Err(refuse("the change's counters are not above those that it stands on"));
    }
    let gap = change.start_op() - 1 - found.footing.max_op;
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
    let graph = index.graph();
    let landmarks_max = LANDMARKS_MIN.max(graph.recent_len() / LANDMARKS_SHARE);
    if change.hash().0[0] == 0 && graph.landmarks() >= landmarks_max {
        return Err(Verdict::Refused(TOO_MANY_LANDMARKS));
    }
    let standpoint = index.stand(change.deps(), found.footing);
    let others = change.other_actors().map(|id| index.actor_number(id));
    let mut actors: Vec<KnownActor> = std::iter::once(author).chain(others).map(KnownActor::unseen).collect();
    let is_near = |actor: &mut KnownActor| {
        let bound = index.bound(&standpoint, actor.number);
        actor.bound = bound.unwrap_or(0);
        bound.is_some()
    };
    if found.distant || !actors.iter_mut().all(is_near) {
        let outside = distant_bounds(index, document.ok_or(Verdict::Distant)?, change)?;
        for actor in &mut actors {
            let bound = |number| outside.get(&number).copied().unwrap_or(u32::MAX);
            actor.bound = actor.number.map_or(0, bound);
        }
    }
    let author_past_is_whole = author.is_none() || actors.first().is_some_and(|author| author.bound == u32::MAX);
    Ok(Place {
        actors,
        author_past_is_whole,
        standpoint,
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
    let is_foreign = !index.may_write(subject, author);
    let is_taken = change.seq() <= index.actor_last_seq(author);
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
    /// Whether there are some that the index does not know any more.
    distant: bool,
    /// Where they stand, and the highest counter of them all.
    footing: Footing,
}

fn find_deps(index: &Index, document: Option<&Automerge>, change: &Decoded) -> Result<FoundDeps, Verdict> {
    let (mut footing, mut distant) = (index.graph().footing(change.deps()), false);
    let mut distant_max_op = 0;
    for dep in footing.unknown(change.deps()) {
        if index.graph().is_whole() {
            return Err(Verdict::Missing(*dep));
        }
        let document = document.ok_or(Verdict::Distant)?;
        let meta = document
            .get_change_meta_by_hash(&AutomergeHash(dep.0))
            .ok_or(Verdict::Missing(*dep))?;
        distant = true;
        distant_max_op = distant_max_op.max(u32::try_from(meta.max_op).unwrap_or(COUNTER_MAX));
    }
    footing.max_op = footing.max_op.max(distant_max_op);
    Ok(FoundDeps { distant, footing })
}

/// The bounds of the past of a change that reaches beyond the recent graph, for all actors that have anything outside: the
/// document tells which of its changes lie outside, the recent graph which of those that the document does not have yet.
fn distant_bounds(
    index: &Index,
    document: &Automerge,
    change: &Decoded,
) -> Result<BTreeMap<ActorNumber, u32>, Verdict> {
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
    Ok(bounds)
}

fn has(document: &Automerge, hash: &ChangeHash) -> bool {
    document.get_change_meta_by_hash(&AutomergeHash(hash.0)).is_some()
}
