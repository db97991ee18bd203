//! What a room does for its document besides edits: merge, compact, let go, put right, close.
//!
//! One piece of heavy work at a time. A merge that throws a change out leads to a reset: the culprits leave the log in one
//! store batch, under a new epoch, and every member opens the document anew.

use super::{Effect, Live, Member, Merged, Phase, Room, Snapshot, Tuning};
use crate::engine::{document::Document, time::Time};
use std::collections::VecDeque;
use syncline_protocol::{Position, SessionId, native::ClosedCode};

/// A merge is overdue, and the room takes no edits, at this multiple of what makes it due.
const OVERDUE: u64 = 2;
/// After a merge that could not be tried the next one waits for so long.
const RETRY_MS: u64 = 5_000;
/// So many changes are merged without a rest since the last merge.
const WORTH_CHANGES: u64 = 256;
/// A merge may have waited long for its turn; the rest after it is never longer.
const MERGE_RESTS_MS_MAX: u64 = 120_000;
/// While edits come, the next snapshot waits so many times as long as the last one took: each costs as much as the document
/// is long, and many changes may come at once.
const COMPACTION_RESTS: u64 = 10;
/// What a compaction that failed waits for before the next one: full disks get space again.
const COMPACT_AGAIN_MS: u64 = 300_000;
/// Who begins with nothing waits no longer for a snapshot that is being made.
const AWAITED_MS_MAX: u64 = 5_000;
/// It is worth the wait when the log after the last one has at least one in so many of its bytes.
const AWAITED_PART: u64 = 4;
/// What Automerge takes for a change of one keystroke: measured, about.
const DOCUMENT_BYTES_PER_CHANGE: u64 = 160;
/// With more operations, changes or bytes of changes it takes long to merge a document.
const SMALL_OPS_MAX: u64 = 100_000;
const SMALL_CHANGES_MAX: u64 = 100_000;
const SMALL_BYTES_MAX: u64 = 8 << 20;
/// Bytes of such a change. What a change has more of are values.
const PLAIN_CHANGE_BYTES: u64 = 128;
/// How often its values are in memory for a loaded document, about: merges and compactions copy and save it, and what they give
/// back stays with the allocator.
const VALUE_COPIES: u64 = 4;

#[derive(Debug)]
pub(super) struct Upkeep {
    document: Option<(Document, Position)>,
    /// Everything before it has been merged at least once.
    merged: Position,
    /// The bytes of all changes before `merged`.
    merged_bytes: u64,
    durable: Position,
    durable_bytes: u64,
    /// When the first change after `merged` was stored.
    unmerged_since: Option<Time>,
    /// When a merge could not be tried, the last time.
    failed: Option<Time>,
    /// While few changes are not merged, they are not before: a merge costs as much as the document is long, even for one.
    merge_rests_until: Time,
    /// Who sent the changes after `merged`: each session's runs, by their end.
    authors: VecDeque<(Position, SessionId)>,
    /// Some edit needs the document.
    wanted: bool,
    work: Work,
    snapshot: Option<Snapshot>,
    /// A former snapshot that readers may still need.
    former: Option<u64>,
    /// When a compaction failed, the last time.
    compaction_failed: Option<Time>,
    /// While edits keep coming, no snapshot is made before.
    compaction_rests_until: Time,
    /// Until when somebody waits for a snapshot.
    awaited: Option<Time>,
    last_edit: Time,
    reset: Option<Reset>,
}

/// The heavy work under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Nothing,
    Merging {
        /// Up to where the log had this many bytes.
        bytes: u64,
        since: Time,
    },
    Compacting {
        since: Time,
    },
}

/// A reset under way.
#[derive(Debug)]
enum Reset {
    /// The batch in flight has to be stored first.
    Due {
        bad: Vec<Position>,
        culprits: Vec<SessionId>,
    },
    /// The store is taking the bad changes out.
    Working { culprits: Vec<SessionId> },
}

impl Upkeep {
    pub(super) fn new(now: Time, durable: Position, durable_bytes: u64, snapshot: Option<Snapshot>) -> Self {
        Self {
            document: None,
            merged: durable,
            merged_bytes: durable_bytes,
            durable,
            durable_bytes,
            unmerged_since: None,
            failed: None,
            merge_rests_until: now,
            authors: VecDeque::new(),
            wanted: false,
            work: Work::Nothing,
            snapshot,
            former: None,
            compaction_failed: None,
            compaction_rests_until: now,
            awaited: None,
            last_edit: now,
            reset: None,
        }
    }

    pub(super) fn document(&self) -> Option<&Document> {
        self.document.as_ref().map(|(document, _)| document)
    }

    /// Everything before it has been merged at least once.
    pub(super) fn merged_position(&self) -> Position {
        self.merged
    }

    /// About how much memory the document takes.
    pub(super) fn document_bytes(&self) -> usize {
        let Some((_, position)) = &self.document else { return 0 };
        let changes = position.number();
        let values = value_bytes(changes, self.merged_bytes);
        usize::try_from(DOCUMENT_BYTES_PER_CHANGE * changes + VALUE_COPIES * values).unwrap_or(usize::MAX)
    }

    /// The document and how far it is merged.
    pub(super) fn base(&self) -> Option<(Document, Position)> {
        self.document.clone()
    }

    pub(super) fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    pub(super) fn is_resetting(&self) -> bool {
        self.reset.is_some()
    }

    pub(super) fn document_is_full(&self, bytes_max: u64) -> bool {
        let saved = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes);
        // Saved they are deflated, and may look like nothing.
        saved >= bytes_max || value_bytes(self.durable.number(), self.durable_bytes) >= bytes_max
    }

    /// Asks for the document to be loaded and merged.
    pub(super) fn want_document(&mut self) {
        self.wanted = true;
    }

    /// Whether who begins with nothing had better wait for a snapshot. If so, one is due at once, or when snapshots have rested.
    pub(super) fn await_snapshot(&mut self, now: Time, log_bytes: u64, tuning: &Tuning) -> bool {
        let until = now.plus_ms(AWAITED_MS_MAX);
        let rests = until <= self.compaction_rests_until || self.compaction_failed_lately(now) || now < self.retry_at();
        if self.awaited.is_none() && !rests && self.is_worth_the_wait(log_bytes, tuning) {
            self.awaited = Some(until);
        }
        self.awaited.is_some()
    }

    /// Whether a snapshot made now would hold the same as the last one and the log in far fewer bytes.
    fn is_worth_the_wait(&self, log_bytes: u64, tuning: &Tuning) -> bool {
        let (changes, bytes) = self.after_snapshot(log_bytes);
        let snapshot_bytes = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes);
        changes >= tuning.compact_changes_at_rest && bytes >= snapshot_bytes / AWAITED_PART
    }

    /// Whether the snapshot may still come in time for who waits for it.
    pub(super) fn is_awaited(&mut self, now: Time) -> bool {
        self.awaited = self.awaited.filter(|until| now < *until);
        self.awaited.is_some()
    }

    pub(super) fn edited(&mut self, now: Time) {
        self.last_edit = now;
    }

    /// A batch is on disk.
    pub(super) fn stored(
        &mut self,
        now: Time,
        durable: Position,
        durable_bytes: u64,
        sessions: impl Iterator<Item = SessionId>,
    ) {
        if self.unmerged_since.is_none() {
            self.unmerged_since = Some(now);
        }
        let mut end = self.durable;
        for session in sessions {
            end = end.plus(1);
            match self.authors.back_mut() {
                Some((last, same)) if *same == session => *last = end,
                Some(_) | None => self.authors.push_back((end, session)),
            }
        }
        self.durable = durable;
        self.durable_bytes = durable_bytes;
    }

    /// Who sent the change at `position`, if it came after the last merge.
    fn author(&self, position: Position) -> Option<SessionId> {
        (position >= self.merged)
            .then(|| self.authors.iter().find(|(end, _)| position < *end))?
            .map(|(_, session)| *session)
    }

    /// The bad changes of a reset that was due; from now on it is under way.
    fn begin_reset(&mut self) -> Option<Vec<Position>> {
        match self.reset.take() {
            Some(Reset::Due { bad, culprits }) => {
                self.reset = Some(Reset::Working { culprits });
                Some(bad)
            }
            other => {
                self.reset = other;
                None
            }
        }
    }

    /// Whether the document is there, and nothing needs it soon.
    fn may_let_go(&self, now: Time) -> bool {
        let rests = self.unmerged() == 0 || (self.are_few_unmerged() && now < self.merge_rests_until);
        self.document.is_some() && rests && !self.wanted
    }

    fn unmerged(&self) -> u64 {
        self.durable.number() - self.merged.number()
    }

    fn unmerged_bytes(&self) -> u64 {
        self.durable_bytes.saturating_sub(self.merged_bytes)
    }

    /// When the changes that are not merged are old enough, or nobody adds to them any more.
    fn merge_is_due_at(&self, tuning: &Tuning) -> Option<Time> {
        let old = self.unmerged_since?.plus_ms(tuning.merge_after_ms);
        let quiet = self.last_edit.plus_ms(tuning.merge_quiet_ms);
        let due = old.min(quiet).max(self.retry_at());
        Some(if self.are_many_unmerged(tuning) {
            self.retry_at()
        } else if self.are_few_unmerged() {
            due.max(self.merge_rests_until)
        } else {
            due
        })
    }

    /// So many that nothing else is waited for.
    fn are_many_unmerged(&self, tuning: &Tuning) -> bool {
        self.unmerged() >= tuning.merge_changes || self.unmerged_bytes() >= tuning.merge_bytes
    }

    /// Too few to go through the whole document for them soon.
    fn are_few_unmerged(&self) -> bool {
        self.unmerged() < WORTH_CHANGES
    }

    fn retry_at(&self) -> Time {
        self.failed
            .map_or_else(Time::default, |failed| failed.plus_ms(RETRY_MS))
    }

    fn merge_is_due(&self, now: Time, tuning: &Tuning) -> bool {
        let due = self.merge_is_due_at(tuning).is_some_and(|at| at <= now);
        let is_behind = |(_, position): &(Document, Position)| position.plus(WORTH_CHANGES) <= self.durable;
        let is_awaited = self.awaited.is_some() && self.document.as_ref().is_none_or(is_behind);
        (self.wanted && self.document.is_none())
            || (is_awaited && self.retry_at() <= now)
            || (self.unmerged() > 0 && due)
    }

    fn compaction_failed_lately(&self, now: Time) -> bool {
        self.compaction_failed
            .is_some_and(|failed| now < failed.plus_ms(COMPACT_AGAIN_MS))
    }

    /// Changes and bytes that the log holds after the snapshot.
    fn after_snapshot(&self, log_bytes: u64) -> (u64, u64) {
        let (position, bytes) = self
            .snapshot
            .as_ref()
            .map_or((0, 0), |snapshot| (snapshot.position.number(), snapshot.log_bytes));
        (self.durable.number() - position, log_bytes.saturating_sub(bytes))
    }

    /// When edits have ceased, or after a rest.
    fn compaction_may_begin_at(&self, tuning: &Tuning) -> Time {
        let quiet = self.last_edit.plus_ms(tuning.merge_quiet_ms);
        self.compaction_rests_until.min(quiet)
    }

    /// When a document that is merged and that nobody edits is worth a snapshot of its own.
    fn compaction_at_rest_at(&self, tuning: &Tuning) -> Option<Time> {
        let (_, position) = self.document.as_ref()?;
        let worth_it = *position == self.durable && self.after_snapshot(0).0 >= tuning.compact_changes_at_rest;
        let rests = self.last_edit.plus_ms(tuning.compact_rest_ms);
        worth_it.then(|| rests.max(self.compaction_rests_until))
    }

    fn compaction_is_due(&self, log_bytes: u64, tuning: &Tuning) -> bool {
        let (changes, bytes) = self.after_snapshot(log_bytes);
        let snapshot_bytes = self.snapshot.as_ref().map_or(0, |snapshot| snapshot.bytes);
        changes >= tuning.compact_changes || bytes >= tuning.compact_bytes.max(snapshot_bytes)
    }
}

/// What changes hold besides what a keystroke takes, in bytes.
fn value_bytes(changes: u64, bytes: u64) -> u64 {
    bytes.saturating_sub(PLAIN_CHANGE_BYTES * changes)
}

impl Room {
    /// Whether merging the document takes long, by what is known without it.
    pub fn is_large(&self) -> bool {
        let Phase::Live(live) = &self.phase else { return false };
        live.pipeline.index.operations() > SMALL_OPS_MAX
            || live.durable.number() > SMALL_CHANGES_MAX
            || live.log_bytes > SMALL_BYTES_MAX
    }

    /// Starts what is due, one piece at a time.
    pub(super) fn keep_up(&mut self, now: Time, out: &mut Vec<Effect>) {
        self.discard_former(out);
        let Phase::Live(live) = &mut self.phase else { return };
        let (upkeep, tuning) = (&mut live.upkeep, &self.tuning);
        if upkeep.is_resetting() {
            if live.pipeline.in_flight.is_none()
                && let Some(bad) = upkeep.begin_reset()
            {
                out.push(Effect::Quarantine { bad, to: live.durable });
            }
            return;
        }
        if upkeep.work != Work::Nothing {
            return;
        }
        let closing = self
            .empty_since
            .is_some_and(|since| since.plus_ms(tuning.room_idle_ms) <= now)
            && live.pipeline.bytes() == 0;
        let worth_a_snapshot = upkeep.after_snapshot(live.log_bytes).0 >= tuning.compact_changes_at_rest;
        let at_rest = upkeep.compaction_at_rest_at(tuning).is_some_and(|at| at <= now);
        let rests = upkeep.compaction_failed_lately(now);
        let due = upkeep.compaction_is_due(live.log_bytes, tuning) && upkeep.compaction_may_begin_at(tuning) <= now;
        let awaited = upkeep.awaited.is_some() && upkeep.compaction_rests_until <= now;
        let compacting = !rests && (due || at_rest || awaited || (closing && worth_a_snapshot));
        let current = upkeep
            .document
            .as_ref()
            .is_some_and(|(_, position)| *position == live.durable);
        // Who opens the document next takes what is stored for merged.
        let last = closing && ((compacting && !current) || upkeep.unmerged() > 0) && upkeep.retry_at() <= now;
        if upkeep.merge_is_due(now, tuning) || last {
            upkeep.work = Work::Merging {
                bytes: live.log_bytes,
                since: now,
            };
            return out.push(Effect::Merge {
                base: upkeep.base(),
                to: live.durable,
            });
        }
        let snapshot_position = upkeep
            .snapshot
            .as_ref()
            .map_or(Position::new(0), |snapshot| snapshot.position);
        if compacting
            && upkeep.former.is_none()
            && let Some((document, position)) = upkeep.base()
            && position > snapshot_position
        {
            upkeep.work = Work::Compacting { since: now };
            let former = upkeep.snapshot.as_ref().map(|snapshot| snapshot.generation);
            let generation = former.unwrap_or(0) + 1;
            return out.push(Effect::Compact {
                document,
                position,
                generation,
                former,
                needed_from: self.members.values().filter_map(Member::log_needed_from).min(),
            });
        }
        if closing {
            self.phase = Phase::Closed(ClosedCode::Unavailable);
            return out.push(Effect::Close);
        }
        let idle = upkeep.last_edit.plus_ms(tuning.document_idle_ms) <= now;
        if idle && upkeep.may_let_go(now) {
            upkeep.document = None;
        }
    }

    pub(super) fn next_upkeep(&self) -> Option<Time> {
        let Phase::Live(live) = &self.phase else { return None };
        let (upkeep, tuning) = (&live.upkeep, &self.tuning);
        if upkeep.work != Work::Nothing || upkeep.is_resetting() {
            return upkeep.awaited;
        }
        let merge = upkeep.merge_is_due_at(tuning);
        let close = self.empty_since.map(|since| since.plus_ms(tuning.room_idle_ms));
        let let_go = upkeep
            .may_let_go(self.now)
            .then(|| upkeep.last_edit.plus_ms(tuning.document_idle_ms));
        let may_begin = upkeep.compaction_may_begin_at(tuning);
        let compact = (may_begin > self.now && upkeep.compaction_is_due(live.log_bytes, tuning)).then_some(may_begin);
        let at_rest = upkeep.compaction_at_rest_at(tuning).filter(|at| *at > self.now);
        let rested = upkeep.awaited.map(|_| upkeep.compaction_rests_until);
        merge
            .into_iter()
            .chain(close)
            .chain(let_go)
            .chain(compact)
            .chain(at_rest)
            .chain(upkeep.awaited)
            .chain(rested.filter(|at| *at > self.now))
            .min()
    }

    /// Whether so much is unmerged that the room takes no edits before its merge is done.
    pub fn waits_for_merge(&self) -> bool {
        matches!(&self.phase, Phase::Live(live) if self.merge_is_overdue(live))
    }

    pub(super) fn merge_is_overdue(&self, live: &Live) -> bool {
        let (upkeep, tuning) = (&live.upkeep, &self.tuning);
        (upkeep.work != Work::Nothing || upkeep.failed.is_some())
            && (upkeep.unmerged() >= OVERDUE * tuning.merge_changes
                || upkeep.unmerged_bytes() >= OVERDUE * tuning.merge_bytes)
    }

    pub(super) fn merged(&mut self, now: Time, merged: Merged, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &mut self.phase else { return };
        let upkeep = &mut live.upkeep;
        let work = std::mem::replace(&mut upkeep.work, Work::Nothing);
        upkeep.wanted = false;
        match merged {
            Merged::Whole { document, position } => {
                upkeep.document = Some((document, position));
                upkeep.merged = upkeep.merged.max(position);
                upkeep.failed = None;
                live.pipeline.index.settle(upkeep.merged);
                if let Work::Merging { bytes, since } = work {
                    upkeep.merged_bytes = bytes;
                    let rest_ms = now.ms_since(since) * self.tuning.merge_rests;
                    upkeep.merge_rests_until = now.plus_ms(rest_ms.min(MERGE_RESTS_MS_MAX));
                }
                upkeep.unmerged_since = (upkeep.unmerged() > 0).then_some(now);
                while upkeep.authors.front().is_some_and(|(end, _)| *end <= position) {
                    upkeep.authors.pop_front();
                }
                self.document_settled(now, out);
            }
            Merged::Bad { culprits, descendants } => {
                upkeep.document = None;
                let sessions = culprits
                    .iter()
                    .filter_map(|position| upkeep.author(*position))
                    .collect();
                let bad = culprits.into_iter().chain(descendants).collect();
                upkeep.reset = Some(Reset::Due {
                    bad,
                    culprits: sessions,
                });
                self.document_settled(now, out);
            }
            Merged::Damaged => self.fail(ClosedCode::Damaged, out),
            Merged::Failed => {
                upkeep.failed = Some(now);
                upkeep.unmerged_since = (upkeep.unmerged() > 0).then_some(now);
                self.empty_since = self.empty_since.map(|_| now);
                self.document_settled(now, out);
            }
        }
    }

    pub(super) fn compacted(&mut self, now: Time, snapshot: Option<Snapshot>) {
        let Phase::Live(live) = &mut self.phase else { return };
        let upkeep = &mut live.upkeep;
        if let Work::Compacting { since } = std::mem::replace(&mut upkeep.work, Work::Nothing) {
            let rest_ms = now.ms_since(since) * COMPACTION_RESTS;
            upkeep.compaction_rests_until = now.plus_ms(rest_ms);
        }
        match snapshot {
            Some(snapshot) => {
                live.log_start = snapshot.log_start;
                upkeep.former = upkeep.snapshot.take().map(|former| former.generation);
                upkeep.snapshot = Some(snapshot);
                upkeep.compaction_failed = None;
                // One that had begun before it was waited for may leave a long log behind it. Another may come in time.
                let rests_until = upkeep.compaction_rests_until;
                let waits_on = upkeep.is_worth_the_wait(live.log_bytes, &self.tuning);
                upkeep.awaited = upkeep.awaited.filter(|until| waits_on && rests_until < *until);
            }
            // The log is untouched, so nothing is lost.
            None => (upkeep.compaction_failed, upkeep.awaited) = (Some(now), None),
        }
    }

    /// Deletes the former snapshot as soon as nobody reads it.
    fn discard_former(&mut self, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &mut self.phase else { return };
        if let Some(generation) = live.upkeep.former
            && !self
                .members
                .values()
                .any(|member| member.generation() == Some(generation))
        {
            live.upkeep.former = None;
            out.push(Effect::Discard { generation });
        }
    }

    /// The log is clean again: whoever sent a change that is gone leaves for good, the others open the document anew.
    pub(super) fn quarantined(&mut self, out: &mut Vec<Effect>) {
        let Phase::Live(live) = &mut self.phase else { return };
        let Some(Reset::Working { culprits }) = live.upkeep.reset.take() else {
            return;
        };
        for session in culprits {
            self.disconnect(session, "a change that was sent does not merge".to_owned(), out);
        }
        self.dismiss_all(&ClosedCode::Reset, out);
        self.phase = Phase::Loading;
        out.push(Effect::Load);
    }

    pub(super) fn trimmed(&mut self) {
        if self.members.is_empty() {
            // It closes now.
            self.empty_since = Some(Time::default());
        }
        if let Phase::Live(live) = &mut self.phase
            && live.upkeep.work == Work::Nothing
            && live.upkeep.may_let_go(self.now)
        {
            live.upkeep.document = None;
        }
    }
}
