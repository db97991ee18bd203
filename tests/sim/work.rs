//! A room's work in virtual time: each effect runs through the server's own `Storage`, some time after it was asked for, and is
//! answered some time later.
//!
//! What rewrites the store commits several batches and waits for each. Such a piece of work runs on a thread of its own that
//! only ever moves while the simulator waits for it, so that everything else happens between its commits, crashes included.

use crate::{
    room::JobId,
    world::{Context, Happening, Mutation},
    writer::{Ticket, Writer},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
};
use syncline::{
    engine::{
        gate,
        room::{Append, Effect, Event, LoadFailure, Merged},
        time::Time,
    },
    server::{
        room::storage::Storage,
        store::{Life, LogEntry, LogKept, SnapshotMeta, Store, StoreError, kv::Batch},
    },
};
use syncline_protocol::{ChangeHash, DocumentId, Epoch, Limits, Position, RoomNumber};

type Snapshots = Arc<Mutex<Vec<SnapshotMeta>>>;
/// Work that reads.
type Reading = Box<dyn FnOnce(&Storage, &Snapshots) -> Event>;
/// Work that rewrites the store.
type Rewriting = Box<dyn FnOnce(&Storage, &Snapshots, &Commit) -> Event + Send>;

/// The work of one room.
pub(crate) struct Work {
    process: u64,
    number: RoomNumber,
    store: Store,
    storage: Storage,
    document: DocumentId,
    limits: Limits,
    log_kept: LogKept,
    snapshots: Snapshots,
    /// Appends that are under way.
    appends: usize,
    jobs: BTreeMap<JobId, Job>,
    answers: VecDeque<Event>,
    next: JobId,
}

enum Job {
    /// Waits to begin.
    Reading(Reading),
    /// Waits to begin.
    Rewriting(Rewriting),
    /// Waits for a commit.
    Committing(Coroutine),
    /// Done; the answer is on its way.
    Answering(Event),
}

impl Work {
    pub(crate) fn new(process: u64, number: RoomNumber, store: Store, document: DocumentId, context: &Context) -> Self {
        let limits = context.plan.limits.clone();
        Self {
            process,
            number,
            storage: Storage::new(store.clone(), document.clone(), limits.clone()),
            store,
            document,
            limits,
            log_kept: context.plan.log_kept,
            snapshots: Snapshots::default(),
            appends: 0,
            jobs: BTreeMap::new(),
            answers: VecDeque::new(),
            next: 0,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.appends == 0 && self.jobs.is_empty() && self.answers.is_empty()
    }

    pub(crate) fn is_appending(&self) -> bool {
        self.appends > 0
    }

    pub(crate) fn has_answer(&self) -> bool {
        !self.answers.is_empty()
    }

    pub(crate) fn answer(&mut self) -> Option<Event> {
        self.answers.pop_front()
    }

    pub(crate) fn answered(&mut self, event: Event) {
        self.answers.push_back(event);
    }

    /// Starts what an effect asks for; perhaps it is answered at once.
    pub(crate) fn start(&mut self, effect: Effect, writer: &mut Writer, context: &mut Context) -> Option<Event> {
        match effect {
            Effect::Append(append) => return self.append(&append, writer, context),
            Effect::Load => {
                let fresh = Epoch::new(context.random.number() >> 11);
                let read_only = writer.read_only.clone();
                let careless = context.mutation == Mutation::ReadUnsynced;
                self.read(context, move |storage, snapshots| {
                    let read_only = read_only.load(Ordering::Relaxed) && !careless;
                    load(storage, snapshots, fresh, read_only)
                });
            }
            Effect::Read {
                session,
                ticket,
                from,
                to,
                deflate,
                bundle,
            } => self.read(context, move |storage, snapshots| {
                let result = storage.read(&lock(snapshots).clone(), from, to, deflate, bundle.as_ref());
                Event::Read {
                    session,
                    ticket,
                    result,
                }
            }),
            Effect::Decode {
                session,
                ticket,
                headers,
            } => {
                context.coverage.decodes += 1;
                self.read(context, move |_, _| Event::Decoded {
                    session,
                    ticket,
                    result: headers.into_iter().map(gate::decode).collect(),
                });
            }
            Effect::Merge { base, to } => {
                context.coverage.merges += 1;
                if context.bad_merges > 0
                    && let Some(bad) = self.invent(base.as_ref().map(|(_, position)| *position), to, context)
                {
                    context.bad_merges -= 1;
                    context.coverage.bad_merges += 1;
                    self.read(context, move |_, _| Event::Merged(bad));
                } else {
                    self.read(context, move |storage, _| Event::Merged(storage.merge(base, to)));
                }
            }
            Effect::Reach { session, ticket } => self.read(context, move |_, _| Event::Reach { session, ticket }),
            Effect::Prove {
                session,
                ticket,
                base,
                to,
                changes,
            } => {
                context.coverage.proofs += 1;
                self.read(context, move |storage, _| Event::Proven {
                    session,
                    ticket,
                    holds: storage.prove(base, to, &changes),
                });
            }
            rewriting => self.rewrite(rewriting, context),
        }
        None
    }

    fn append(&mut self, append: &Append, writer: &mut Writer, context: &mut Context) -> Option<Event> {
        let hashes = append.entries.iter().map(|entry| hash(&entry.change, &self.limits));
        context.ledger.submitted(self.number, &self.document, hashes.collect());
        self.appends += 1;
        writer.submit(self.storage.append(append), Ticket::Append(self.number), context);
        match context.mutation {
            Mutation::AckBeforeSync | Mutation::AckBeforeSyncUnseen => Some(Event::Stored),
            _ => None,
        }
    }

    /// The writer is done with the append.
    pub(crate) fn appended(&mut self, result: &Result<(), StoreError>, context: &mut Context) {
        self.appends -= 1;
        match context.mutation {
            Mutation::AckBeforeSync | Mutation::AckBeforeSyncUnseen => {}
            _ => self.answers.push_back(match result {
                Ok(()) => Event::Stored,
                Err(_) => Event::StoreFailed,
            }),
        }
    }

    fn rewrite(&mut self, effect: Effect, context: &mut Context) {
        let kept = self.log_kept;
        match effect {
            Effect::Compact {
                document,
                position,
                generation,
                needed_from,
                ..
            } => self.write(context, move |storage, snapshots, commit| {
                let commit = |batch| commit.durably(batch);
                match storage.compact(
                    &document,
                    position,
                    generation,
                    kept.at_least_from(position, needed_from),
                    &commit,
                ) {
                    Ok(snapshot) => {
                        lock(snapshots).extend(storage.current_snapshot().ok().flatten());
                        Event::Compacted(Some(snapshot))
                    }
                    Err(_) => Event::Compacted(None),
                }
            }),
            Effect::Discard { generation } => {
                lock(&self.snapshots).retain(|snapshot| snapshot.generation != generation);
                self.write(context, move |storage, _, commit| {
                    // What is left over is removed by the next compaction.
                    let _ = storage.discard(generation, &|batch| commit.durably(batch));
                    Event::Woke
                });
            }
            Effect::Quarantine { bad, to } => {
                let epoch = Epoch::new(context.random.number() >> 11);
                let hashes = self.descendants(&bad, to);
                context.coverage.quarantined += hashes.len() as u64;
                context.say(format_args!("{bad:?} of {} are to be quarantined", self.document));
                context.ledger.thrown_out(&self.document, &hashes);
                self.write(context, move |storage, _, commit| {
                    match storage.quarantine(&bad, to, epoch, &|batch| commit.durably(batch)) {
                        Ok(()) => Event::Quarantined,
                        Err(_) => Event::QuarantineFailed,
                    }
                });
            }
            other => unreachable!("the task does {other:?} itself"),
        }
    }

    fn read(&mut self, context: &mut Context, piece: impl FnOnce(&Storage, &Snapshots) -> Event + 'static) {
        self.add(Job::Reading(Box::new(piece)), context);
    }

    fn write(
        &mut self,
        context: &mut Context,
        piece: impl FnOnce(&Storage, &Snapshots, &Commit) -> Event + Send + 'static,
    ) {
        self.add(Job::Rewriting(Box::new(piece)), context);
    }

    fn add(&mut self, job: Job, context: &mut Context) {
        self.next += 1;
        self.jobs.insert(self.next, job);
        self.foresee(self.next, context);
    }

    fn foresee(&self, job: JobId, context: &mut Context) {
        let (process, number) = (self.process, self.number);
        let ms = context.plan.work_ms(&mut context.random);
        context.after(ms, Happening::Job { process, number, job });
    }

    /// A job goes on: it begins, or its answer has arrived. Whether there is an answer now.
    pub(crate) fn go_on(&mut self, id: JobId, writer: &mut Writer, context: &mut Context) -> bool {
        match self.jobs.remove(&id) {
            Some(Job::Reading(piece)) => {
                let event = piece(&self.storage, &self.snapshots);
                self.jobs.insert(id, Job::Answering(event));
                self.foresee(id, context);
                false
            }
            Some(Job::Rewriting(piece)) => {
                let coroutine = Coroutine::start(piece, self.storage.clone(), self.snapshots.clone());
                self.advance(id, coroutine, None, writer, context);
                false
            }
            Some(Job::Answering(event)) => {
                count(&event, context);
                self.answers.push_back(event);
                true
            }
            Some(committing @ Job::Committing(_)) => {
                self.jobs.insert(id, committing);
                false
            }
            None => false,
        }
    }

    /// The writer is done with a commit of a job.
    pub(crate) fn committed(
        &mut self,
        id: JobId,
        result: Result<(), StoreError>,
        writer: &mut Writer,
        context: &mut Context,
    ) {
        if let Some(Job::Committing(coroutine)) = self.jobs.remove(&id) {
            self.advance(id, coroutine, Some(result), writer, context);
        }
    }

    fn advance(
        &mut self,
        id: JobId,
        mut coroutine: Coroutine,
        result: Option<Result<(), StoreError>>,
        writer: &mut Writer,
        context: &mut Context,
    ) {
        match coroutine.advance(result) {
            Step::Commit(batch) => {
                writer.submit(batch, Ticket::Job(self.number, id), context);
                self.jobs.insert(id, Job::Committing(coroutine));
            }
            Step::Done(event) => {
                self.jobs.insert(id, Job::Answering(*event));
                self.foresee(id, context);
            }
        }
    }

    /// The process dies, or nobody waits for the work any more.
    pub(crate) fn abandon(&mut self) {
        self.jobs.clear();
    }

    /// Says of one change that is to be merged that it does not merge, and what stands on it.
    fn invent(&self, base: Option<Position>, to: Position, context: &mut Context) -> Option<Merged> {
        let snapshot = || self.storage.current_snapshot().ok().flatten().map(|meta| meta.position);
        let from = base.or_else(snapshot).unwrap_or(Position::new(0));
        if from >= to {
            return None;
        }
        let culprit = from.plus(context.random.below(to.number() - from.number()));
        let slice = self.store.read_log(&self.document, culprit, to, u64::MAX).ok()?;
        let bad = descending(&slice.entries, 1, &self.limits);
        let bad: Vec<Position> = bad.into_iter().map(|(number, _)| culprit.plus(number)).collect();
        context.say(format_args!("{culprit} of {} is to be bad", self.document));
        Some(Merged::Bad {
            culprits: bad[..1].to_vec(),
            descendants: bad[1..].to_vec(),
        })
    }

    /// The bad changes, and all that stand on them.
    fn descendants(&self, bad: &[Position], to: Position) -> Vec<ChangeHash> {
        let first = *bad.iter().min().expect("a reset has a culprit");
        let slice = self.store.read_log(&self.document, first, to, u64::MAX);
        let entries = slice.expect("what is to be quarantined is in the log").entries;
        let bad = descending(&entries, 1, &self.limits);
        bad.into_iter().map(|(_, hash)| hash).collect()
    }
}

/// The first `roots` changes and all that stand on them, by number.
fn descending(entries: &[LogEntry], roots: usize, limits: &Limits) -> Vec<(u64, ChangeHash)> {
    let mut bad: BTreeSet<ChangeHash> = BTreeSet::new();
    let mut named = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let header = gate::read(entry.change.clone(), limits).expect("a stored change has a header");
        if number < roots || header.deps().iter().any(|dep| bad.contains(dep)) {
            bad.insert(header.hash());
            named.push((number as u64, header.hash()));
        }
    }
    named
}

fn load(storage: &Storage, snapshots: &Snapshots, fresh: Epoch, read_only: bool) -> Event {
    if read_only {
        // What is read now may be what could not be synced.
        return Event::LoadFailed(LoadFailure::Unavailable);
    }
    let current = storage.current_snapshot().ok().flatten();
    *lock(snapshots) = current.into_iter().collect();
    match storage.open(fresh) {
        Ok(mut loaded) => {
            // Nobody waits until the window closes.
            let was_restored = storage.life() != Life::default();
            loaded.foreign_until = was_restored.then_some(Time::from_ms(u64::MAX));
            Event::Loaded(Box::new(loaded))
        }
        Err(failure) => Event::LoadFailed(failure),
    }
}

fn count(event: &Event, context: &mut Context) {
    match event {
        Event::Compacted(Some(_)) => context.coverage.compactions += 1,
        Event::Compacted(None) => context.coverage.compactions_failed += 1,
        Event::Quarantined => context.coverage.resets += 1,
        _ => {}
    }
}

/// The hash of a change that came in whole.
pub(crate) fn hash(change: &bytes::Bytes, limits: &Limits) -> ChangeHash {
    let header = gate::read(change.clone(), limits).expect("an honest change has a header");
    header.hash()
}

fn lock(snapshots: &Snapshots) -> MutexGuard<'_, Vec<SnapshotMeta>> {
    snapshots.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Step {
    Commit(Batch),
    Done(Box<Event>),
}

/// The thread's side of the commits.
pub(crate) struct Commit {
    steps: SyncSender<Step>,
    results: Receiver<Result<(), StoreError>>,
}

impl Commit {
    fn durably(&self, batch: Batch) -> Result<(), StoreError> {
        let sent = self.steps.send(Step::Commit(batch));
        sent.map_err(|_| StoreError::Closed)?;
        self.results.recv().unwrap_or(Err(StoreError::Closed))
    }
}

/// Work that waits for its commits. It moves only inside `advance`.
struct Coroutine {
    steps: Receiver<Step>,
    results: Option<SyncSender<Result<(), StoreError>>>,
    thread: Option<JoinHandle<()>>,
}

impl Coroutine {
    fn start(piece: Rewriting, storage: Storage, snapshots: Snapshots) -> Self {
        let (give_step, steps) = sync_channel(1);
        let (results, take_result) = sync_channel(1);
        let thread = std::thread::Builder::new().name("sim-work".into());
        let thread = thread.spawn(move || {
            let commit = Commit {
                steps: give_step,
                results: take_result,
            };
            let event = piece(&storage, &snapshots, &commit);
            // Nobody waits for it when the process has died.
            let _ = commit.steps.send(Step::Done(Box::new(event)));
        });
        Self {
            steps,
            results: Some(results),
            thread: Some(thread.expect("the system has threads")),
        }
    }

    fn advance(&mut self, result: Option<Result<(), StoreError>>) -> Step {
        if let (Some(result), Some(results)) = (result, &self.results) {
            results.send(result).expect("the work waits for the answer");
        }
        self.steps.recv().expect("the work does not panic")
    }
}

impl Drop for Coroutine {
    fn drop(&mut self) {
        // Whatever it commits from now on fails; it is over before anything else happens.
        self.results = None;
        while let Ok(Step::Commit(_)) = self.steps.recv() {}
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
