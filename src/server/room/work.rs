//! The work of one room that runs elsewhere, each piece with the event that answers it. Bounded by the engine: one append, one
//! merge or compaction; and by [`super::turns`]: per member one read, one decoding, one proof.

use crate::{
    engine::{
        gate::{self, Refusal},
        room::{Append, Effect, Event, LoadFailure, Merged, ReadFailure},
    },
    server::{
        metrics::{LoadFault, MergeFault},
        room::{
            merges::{HeldUp, SMALL_MS_MAX, Size},
            pieces::{Asked, Piece, Pieces},
            storage::Storage,
            workers::{Kind, Workers},
        },
        store::{
            SnapshotMeta, StoreError,
            writer::{Refused, Work as Write},
        },
    },
};
use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use syncline_protocol::{DocumentId, Position};
use tokio::{sync::oneshot, task::JoinSet};

/// The current snapshot and perhaps a former one that is still read.
type Snapshots = Arc<Mutex<Vec<SnapshotMeta>>>;

/// What a merge takes for each change besides the document that it begins with: a clone of that, about.
const MERGE_BYTES_PER_CHANGE: u64 = 160;
/// How much of that a compaction takes.
const COMPACTION_COPIES: u64 = 2;
/// What it takes when the document has to be loaded first: the peak while Automerge loads, about.
const LOAD_BYTES_PER_CHANGE: u64 = 1_000;

pub(super) struct Work {
    workers: Arc<Workers>,
    storage: Storage,
    document: DocumentId,
    snapshots: Snapshots,
    append: Option<oneshot::Receiver<Result<(), StoreError>>>,
    jobs: JoinSet<Event>,
    /// The size of the document, as far as the room knows.
    size: Size,
    /// Whether its last merge took long.
    took_long: Arc<AtomicBool>,
    /// While the room takes no edits before its merge is done.
    held_up: Option<HeldUp>,
    pieces: Pieces,
    /// What needs no work any more.
    answers: VecDeque<Event>,
}

impl Work {
    pub(super) fn new(workers: Arc<Workers>, document: DocumentId) -> Self {
        let storage = Storage::new(workers.store.clone(), document.clone(), workers.limits.as_ref().clone());
        Self {
            workers,
            storage,
            document,
            snapshots: Snapshots::default(),
            append: None,
            jobs: JoinSet::new(),
            size: Size::Small,
            took_long: Arc::default(),
            held_up: None,
            pieces: Pieces::default(),
            answers: VecDeque::new(),
        }
    }

    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.append.is_none() && self.jobs.is_empty() && self.answers.is_empty()
    }

    /// The next answer. Only to be called while something is under way; nothing is lost when it is dropped.
    pub(super) async fn next(&mut self) -> Event {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return answer;
            }
            let has_append = self.append.is_some();
            let append = async {
                match self.append.as_mut() {
                    Some(append) => append.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                stored = append, if has_append => {
                    self.append = None;
                    return self.appended(stored.unwrap_or(Err(StoreError::Closed)));
                }
                job = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    // A job answers even for work that panics; it ends otherwise only with the whole process.
                    if let Some(Ok(event)) = job {
                        self.share(&event);
                        return event;
                    }
                }
                else => return Event::Woke,
            }
        }
    }

    /// What was read is for all who asked for it.
    fn share(&mut self, event: &Event) {
        let Event::Read { ticket, result, .. } = event else {
            return;
        };
        let others = self
            .pieces
            .answered(*ticket, result, self.workers.limits.part_bytes_max);
        self.answers
            .extend(others.into_iter().map(|(session, ticket)| Event::Read {
                session,
                ticket,
                result: result.clone(),
            }));
    }

    /// Whether the room takes no edits before its merge is done.
    pub(super) fn hold_up(&mut self, is_held_up: bool) {
        if is_held_up != self.held_up.is_some() {
            self.held_up = is_held_up.then(|| self.workers.held_up());
        }
    }

    /// Nobody is on the way to the present: what was read is not kept for them.
    pub(super) fn forget_pieces(&mut self) {
        self.pieces.forget();
    }

    /// Bytes of what is kept.
    pub(super) fn kept_bytes(&self) -> u64 {
        self.pieces.kept_bytes()
    }

    /// Starts what an effect asks for, for a document of this size.
    pub(super) fn start(&mut self, effect: Effect, size: Size) {
        self.size = size;
        match effect {
            Effect::Append(append) => self.append(&append),
            Effect::Load => self.load(),
            Effect::Read { .. } | Effect::Decode { .. } | Effect::Prove { .. } => self.serve_member(effect),
            Effect::Merge { base, to } => {
                let bytes = merge_bytes(base.is_some(), to);
                self.run_long(Kind::Merge, Event::Merged(Merged::Failed), move |storage, workers| {
                    let _share = workers.memory.take(bytes);
                    let merged = storage.merge(base, to);
                    if let Some(fault) = fault(&merged) {
                        workers.metrics.merge_failed(fault);
                    }
                    Event::Merged(merged)
                });
            }
            Effect::Reach { session, ticket } => self.answers.push_back(Event::Reach { session, ticket }),
            Effect::Compact { .. } | Effect::Discard { .. } | Effect::Quarantine { .. } => self.rewrite(effect),
            Effect::Reply { .. }
            | Effect::Part { .. }
            | Effect::Broadcast { .. }
            | Effect::Dismiss { .. }
            | Effect::Disconnect { .. }
            | Effect::Close => unreachable!("the task does these itself"),
        }
    }

    /// What one member waits for. Every answer names the ticket of its question.
    fn serve_member(&mut self, effect: Effect) {
        match effect {
            Effect::Read {
                session,
                ticket,
                from,
                to,
                deflate,
                bundle,
            } => {
                let (snapshots, log) = (self.snapshots.clone(), self.document.clone());
                let answer = move |result| Event::Read {
                    session,
                    ticket,
                    result,
                };
                let piece = Piece::new(from, to, deflate, bundle.as_ref().map(|bundle| bundle.end));
                match self.pieces.ask(piece, (session, ticket)) {
                    Asked::Anew => {}
                    Asked::Shared => return,
                    Asked::Kept(slice) => return self.answers.push_back(answer(Ok(slice))),
                }
                self.run(
                    Kind::Read,
                    answer(Err(ReadFailure::Unavailable)),
                    move |storage, workers| {
                        workers.metrics.pieces_read.inc();
                        let known = lock(&snapshots).clone();
                        let read = storage.read(&known, from, to, deflate, bundle.as_ref());
                        if let Some(fault) = read.as_ref().err().and_then(read_fault) {
                            tracing::error!(document = %log, ?fault, "a piece of the document cannot be read");
                            workers.metrics.read_failed(fault);
                        }
                        answer(read)
                    },
                );
            }
            Effect::Decode {
                session,
                ticket,
                headers,
            } => {
                let answer = move |result| Event::Decoded {
                    session,
                    ticket,
                    result,
                };
                let lost = Err(Refusal::Dishonest("the change cannot be decoded"));
                self.run(Kind::Decode, answer(lost), move |_, _| {
                    answer(headers.into_iter().map(gate::decode).collect())
                });
            }
            Effect::Prove {
                session,
                ticket,
                base,
                to,
                changes,
            } => {
                let answer = move |holds| Event::Proven { session, ticket, holds };
                let bytes = merge_bytes(base.is_some(), to);
                self.run_long(Kind::Prove, answer(None), move |storage, workers| {
                    let _share = workers.memory.take(bytes);
                    answer(storage.prove(base, to, &changes))
                });
            }
            _ => unreachable!("only what serves one member comes here"),
        }
    }

    /// What replaces or removes stored data.
    fn rewrite(&mut self, effect: Effect) {
        let (snapshots, log) = (self.snapshots.clone(), self.document.clone());
        self.pieces.forget();
        match effect {
            Effect::Compact {
                document,
                position,
                generation,
                needed_from,
                ..
            } => {
                // It is saved, and loaded back to be compared.
                let bytes = COMPACTION_COPIES * merge_bytes(true, position);
                self.run_long(Kind::Merge, Event::Compacted(None), move |storage, workers| {
                    let _share = workers.memory.take(bytes);
                    let commit = |batch| workers.commit(batch);
                    let kept = workers.log_kept.at_least_from(position, needed_from);
                    let result = storage.compact(&document, position, generation, kept, &commit);
                    match result {
                        Ok(snapshot) => {
                            lock(&snapshots).extend(storage.current_snapshot().ok().flatten());
                            tracing::info!(document = %log, position = %position, bytes = snapshot.bytes, "compacted");
                            workers.metrics.compactions.inc();
                            Event::Compacted(Some(snapshot))
                        }
                        Err(error) => {
                            tracing::error!(document = %log, %error, "compaction given up; the log stays");
                            workers.metrics.compactions_failed.inc();
                            Event::Compacted(None)
                        }
                    }
                });
            }
            Effect::Discard { generation } => {
                lock(&snapshots).retain(|snapshot| snapshot.generation != generation);
                self.run(Kind::Merge(Size::Small), Event::Woke, move |storage, workers| {
                    if let Err(error) = storage.discard(generation, &|batch| workers.commit(batch)) {
                        tracing::warn!(document = %log, %error, "a former snapshot stays until the next compaction");
                        workers.metrics.discards_failed.inc();
                    }
                    Event::Woke
                });
            }
            Effect::Quarantine { bad, to } => {
                self.run(Kind::Load, Event::QuarantineFailed, move |storage, workers| {
                    tracing::error!(document = %log, changes = bad.len(), "changes do not merge: quarantined, room reset");
                    workers.metrics.resets.inc();
                    let epoch = workers.fresh_epoch();
                    match storage.quarantine(&bad, to, epoch, &|batch| workers.commit(batch)) {
                        Ok(()) => Event::Quarantined,
                        Err(error) => {
                            tracing::error!(document = %log, %error, "quarantine failed; the room closes");
                            workers.metrics.resets_failed.inc();
                            Event::QuarantineFailed
                        }
                    }
                });
            }
            _ => unreachable!("only what rewrites the store comes here"),
        }
    }

    fn load(&mut self) {
        // After a reset the same positions hold something else.
        self.pieces = Pieces::default();
        let snapshots = self.snapshots.clone();
        let log = self.document.clone();
        self.run(
            Kind::Load,
            Event::LoadFailed(LoadFailure::Unavailable),
            move |storage, workers| {
                if workers.writer.is_read_only() {
                    // What is read now may be what could not be synced: nobody may see that.
                    tracing::error!(document = %log, "the store is read-only: the document is not opened");
                    workers.metrics.load_failed(LoadFault::Store);
                    return Event::LoadFailed(LoadFailure::Unavailable);
                }
                // What cannot be estimated cannot be read either, and opening it says why.
                let bytes = storage.open_bytes().unwrap_or_default();
                let Some(_share) = workers.memory.try_take(bytes) else {
                    tracing::warn!(document = %log, bytes, "the rooms' memory is used up; the document is not opened");
                    workers.metrics.load_failed(LoadFault::Memory);
                    return Event::LoadFailed(LoadFailure::Unavailable);
                };
                let current = storage.current_snapshot().ok().flatten();
                *lock(&snapshots) = current.into_iter().collect();
                match storage.open(workers.fresh_epoch()) {
                    Ok(mut loaded) => {
                        loaded.foreign_until = workers.foreign_until();
                        Event::Loaded(Box::new(loaded))
                    }
                    Err(failure) => {
                        tracing::error!(document = %log, ?failure, "the document does not open");
                        workers.metrics.load_failed(match failure {
                            LoadFailure::Damaged => LoadFault::Damaged,
                            LoadFailure::Unavailable => LoadFault::Store,
                        });
                        Event::LoadFailed(failure)
                    }
                }
            },
        );
    }

    fn append(&mut self, append: &Append) {
        self.workers.edited();
        let (tell, told) = oneshot::channel();
        self.append = Some(told);
        let done = Box::new(move |result| {
            // The room may have been torn down; the record is in the log all the same.
            let _ = tell.send(result);
        });
        let write = Write {
            batch: self.storage.append(append),
            done,
        };
        match self.workers.writer.try_submit(write) {
            Ok(()) => {}
            Err(Refused::Busy(write)) => {
                let writer = self.workers.writer.clone();
                tokio::task::spawn_blocking(move || {
                    // A closed writer drops the work, and with it `tell`: the room hears that it is not stored.
                    let _ = writer.submit(write);
                });
            }
            Err(Refused::Closed(write)) => drop(write),
        }
    }

    fn appended(&self, stored: Result<(), StoreError>) -> Event {
        match stored {
            Ok(()) => Event::Stored,
            Err(error) => {
                tracing::error!(document = %self.document, %error, "edits could not be stored");
                self.workers.metrics.appends_failed.inc();
                Event::StoreFailed
            }
        }
    }

    fn run(&mut self, kind: Kind, lost: Event, work: impl FnOnce(&Storage, &Workers) -> Event + Send + 'static) {
        let (storage, workers) = (self.storage.clone(), self.workers.clone());
        self.jobs
            .spawn(self.workers.run(kind, lost, move || work(&storage, &workers)));
    }

    /// Runs what needs the whole document, and notes whether that takes long.
    fn run_long(
        &mut self,
        kind: fn(Size) -> Kind,
        lost: Event,
        work: impl FnOnce(&Storage, &Workers) -> Event + Send + 'static,
    ) {
        let took_long = self.took_long.clone();
        let size = if took_long.load(Ordering::Relaxed) {
            Size::Large
        } else {
            self.size
        };
        self.run(kind(size), lost, move |storage, workers| {
            let begun_ms = workers.clock.monotonic_ms();
            let event = work(storage, workers);
            let took_ms = workers.clock.monotonic_ms() - begun_ms;
            took_long.store(took_ms > SMALL_MS_MAX, Ordering::Relaxed);
            event
        });
    }
}

/// A piece that was compacted away meanwhile is no fault: the member reads anew.
fn read_fault(failure: &ReadFailure) -> Option<LoadFault> {
    match failure {
        ReadFailure::Gone => None,
        ReadFailure::Damaged => Some(LoadFault::Damaged),
        ReadFailure::Unavailable => Some(LoadFault::Store),
    }
}

fn fault(merged: &Merged) -> Option<MergeFault> {
    match merged {
        Merged::Whole { .. } => None,
        Merged::Bad { .. } => Some(MergeFault::BadChange),
        Merged::Damaged => Some(MergeFault::Damaged),
        Merged::Failed => Some(MergeFault::Failed),
    }
}

/// About how much memory a merge up to `to` takes until it is done.
fn merge_bytes(has_base: bool, to: Position) -> u64 {
    let per_change = if has_base {
        MERGE_BYTES_PER_CHANGE
    } else {
        LOAD_BYTES_PER_CHANGE
    };
    to.number().saturating_mul(per_change)
}

fn lock(snapshots: &Snapshots) -> std::sync::MutexGuard<'_, Vec<SnapshotMeta>> {
    snapshots.lock().unwrap_or_else(PoisonError::into_inner)
}
