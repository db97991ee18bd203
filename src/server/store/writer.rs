//! The one thread that commits: it takes all that waits in its queue, commits it as one batch, and as soon as that is durable, and
//! not before, tells everybody so. Meanwhile the next group gathers.
//!
//! When the disk is full, a group is refused, unwritten, and so is all that comes until the floor has its space set aside again.
//! What is too large is refused alone. When a commit fails in any other way, the writer refuses everything from then on: nobody
//! can know what a disk holds that failed to sync, so it is not tried again.

use std::{
    collections::VecDeque,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::server::failpoints::Switch;

use super::{
    StoreError,
    kv::{Batch, Kv, KvError},
};

/// Batches that may wait.
pub const QUEUE_LEN_MAX: usize = 10_000;
/// Bytes that may wait; a single larger batch is taken when nothing else waits.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Batches that are written with one sync.
pub const GROUP_LEN_MAX: usize = 1_000;
/// Bytes that are written with one sync; a single larger batch goes alone. The floor sets space aside for one group.
pub const GROUP_BYTES_MAX: usize = 2 << 20;
/// While the disk is full, this often the writer looks for space.
const FULL_PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// How much later is written what a fault on purpose acknowledges first.
const ACK_BEFORE_WRITE_PAUSE: Duration = Duration::from_millis(100);

/// Called on the writer's thread once the batch is durable, or has failed. It must be quick, and must not read the store: nobody can
/// until the batch is applied.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A batch, and who waits for it.
pub struct Work {
    /// What to write. An empty batch is a barrier: it is done when all before it is durable.
    pub batch: Batch,
    /// Whom to tell.
    pub done: Done,
}

/// Work that was not taken; it comes back unharmed.
#[derive(Debug)]
pub enum Refused {
    /// The queue is full: come again when some of it is done.
    Busy(Work),
    /// The writer has been closed.
    Closed(Work),
}

/// The handle of the writing thread. Dropping it closes it.
pub struct Writer {
    kv: Arc<dyn Kv>,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer has done so far, for the metrics.
#[derive(Debug, Default)]
pub struct Figures {
    /// Groups written, each with one sync.
    pub groups: AtomicU64,
    /// Batches in them.
    pub batches: AtomicU64,
    /// Bytes of keys and values in them.
    pub bytes: AtomicU64,
    /// Writes and syncs that failed.
    pub errors: AtomicU64,
    /// Batches that wait now.
    pub queue_len: AtomicU64,
    /// Bytes that wait now.
    pub queue_bytes: AtomicU64,
    /// Whether writes are refused because the disk is full.
    pub full: AtomicBool,
    /// How often the disk was full.
    pub fulls: AtomicU64,
    /// How often there was space again.
    pub recoveries: AtomicU64,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// `Io` if the system has no thread to give.
    pub fn start(kv: Arc<dyn Kv>) -> Result<Self, StoreError> {
        let shared = Arc::new(Shared::default());
        let (of_thread, written) = (Arc::clone(&shared), Arc::clone(&kv));
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                Commit {
                    kv: written,
                    shared: of_thread,
                    state: State::Writable,
                }
                .run()
            })
            .map_err(|error| StoreError::Io(format!("the writing thread does not start: {error}")))?;
        Ok(Self {
            kv,
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Hands `batch` over without waiting. Batches are written in the order in which they are handed over.
    ///
    /// # Errors
    /// `Busy` or `Closed`, with the work; `done` has then not been called.
    pub fn try_submit(&self, work: Work) -> Result<(), Refused> {
        let queue = self.shared.queue();
        if queue.closed {
            return Err(Refused::Closed(work));
        }
        if !queue.has_room(&work) {
            return Err(Refused::Busy(work));
        }
        self.shared.push(queue, work);
        Ok(())
    }

    /// Hands `batch` over, waiting for room in the queue: never on an I/O thread.
    ///
    /// # Errors
    /// `Closed`, with the work; `done` has then not been called.
    pub fn submit(&self, work: Work) -> Result<(), Refused> {
        let mut queue = self.shared.queue();
        while !queue.closed && !queue.has_room(&work) {
            queue.submitters_wait = true;
            queue = self.shared.taken.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.closed {
            return Err(Refused::Closed(work));
        }
        self.shared.push(queue, work);
        Ok(())
    }

    /// Writes `batch` and waits until it is durable: never on an I/O thread.
    ///
    /// # Errors
    /// Why it is not durable.
    pub fn write(&self, batch: Batch) -> Result<(), StoreError> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let done = Box::new(move |result| {
            // The receiver waits below; it cannot be gone.
            let _ = tell.send(result);
        });
        match self.submit(Work { batch, done }) {
            Ok(()) => told.recv().unwrap_or(Err(StoreError::Closed)),
            Err(_) => Err(StoreError::Closed),
        }
    }

    /// Whether a failed write or sync has made the store read-only, be it one that a reader met, of which the writer does not know yet.
    pub fn is_read_only(&self) -> bool {
        self.shared.read_only.load(Ordering::Relaxed) || self.kv.is_spoilt()
    }

    /// What has been done so far.
    pub fn figures(&self) -> &Figures {
        &self.shared.figures
    }

    /// Takes nothing more, writes and syncs what waits, and returns when the thread has ended.
    pub fn close(&self) {
        self.shared.queue().closed = true;
        self.shared.given.notify_all();
        self.shared.taken.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's writing thread ended in a panic");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer")
            .field("figures", self.figures())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work")
            .field("bytes", &self.batch.bytes())
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something came into the queue, or it was closed.
    given: Condvar,
    /// Something went out of the queue, or it was closed.
    taken: Condvar,
    /// The writer has given up.
    read_only: AtomicBool,
    figures: Figures,
}

#[derive(Default)]
struct Queue {
    work: VecDeque<Work>,
    bytes: usize,
    closed: bool,
    /// Who waits, for work and for room: a call into the system wakes them, which nobody needs who is awake.
    writer_waits: bool,
    submitters_wait: bool,
}

impl Queue {
    fn has_room(&self, work: &Work) -> bool {
        let bytes = self.bytes + work.batch.bytes();
        self.work.is_empty() || (self.work.len() < QUEUE_LEN_MAX && bytes <= QUEUE_BYTES_MAX)
    }

    /// The next group: everything that waits, within the limits of one group.
    fn take(&mut self) -> Vec<Work> {
        let mut group = Vec::new();
        let mut bytes = 0;
        while let Some(next) = self.work.front() {
            bytes += next.batch.bytes();
            if !group.is_empty() && (group.len() == GROUP_LEN_MAX || bytes > GROUP_BYTES_MAX) {
                break;
            }
            group.extend(self.work.pop_front());
        }
        self.bytes -= group.iter().map(|work| work.batch.bytes()).sum::<usize>();
        group
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No code that holds the lock can panic.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, work: Work) {
        queue.bytes += work.batch.bytes();
        queue.work.push_back(work);
        self.count(&queue);
        let waits = std::mem::take(&mut queue.writer_waits);
        // Who is woken before would only wait for the lock.
        drop(queue);
        if waits {
            self.given.notify_one();
        }
    }

    fn count(&self, queue: &Queue) {
        self.figures.queue_len.store(queue.work.len() as u64, Ordering::Relaxed);
        self.figures.queue_bytes.store(queue.bytes as u64, Ordering::Relaxed);
    }
}

/// The thread's own part.
struct Commit {
    kv: Arc<dyn Kv>,
    shared: Arc<Shared>,
    state: State,
}

enum State {
    Writable,
    /// The disk is full: nothing is written until the floor has its space.
    Full,
    /// A write or sync failed, for this reason; for good.
    ReadOnly(String),
}

impl Commit {
    fn run(mut self) {
        self.probe();
        while let Some(group) = self.next() {
            self.commit(group);
        }
    }

    /// The next group; waits for one. On a full disk it waits for a while whether there is work or not, looks for space, and
    /// answers with what has gathered meanwhile, if only nothing. `None` at the end.
    fn next(&mut self) -> Option<Vec<Work>> {
        let shared = Arc::clone(&self.shared);
        if matches!(self.state, State::Full) {
            let open = |queue: &mut Queue| !queue.closed;
            drop(
                shared
                    .given
                    .wait_timeout_while(shared.queue(), FULL_PROBE_INTERVAL, open),
            );
            self.probe();
        }
        let mut queue = shared.queue();
        while queue.work.is_empty() && !queue.closed && !matches!(self.state, State::Full) {
            queue.writer_waits = true;
            queue = shared.given.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.writer_waits = false;
        if queue.work.is_empty() && queue.closed {
            return None;
        }
        let group = queue.take();
        shared.count(&queue);
        let wait = std::mem::take(&mut queue.submitters_wait);
        drop(queue);
        if wait {
            shared.taken.notify_all();
        }
        Some(group)
    }

    fn commit(&mut self, group: Vec<Work>) {
        let mut merged = Batch::default();
        let mut waiting = Vec::with_capacity(group.len());
        for work in group {
            merged.extend(work.batch);
            waiting.push(work.done);
        }
        if Switch::AckBeforeWrite.is_on() {
            waiting.drain(..).for_each(|done: Done| done(Ok(())));
            std::thread::sleep(ACK_BEFORE_WRITE_PAUSE);
        }
        let (shared, bytes) = (Arc::clone(&self.shared), merged.bytes());
        let mut durable = || {
            let figures = &shared.figures;
            figures.groups.fetch_add(1, Ordering::Relaxed);
            figures.batches.fetch_add(waiting.len() as u64, Ordering::Relaxed);
            figures.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            tell(waiting.drain(..), &Ok(()));
        };
        if Switch::NeverWritten.is_on() {
            durable();
        } else if let Err(error) = self.write(&merged, &mut durable) {
            // Who was told before is right: it is durable.
            tell(waiting.drain(..), &Err(error));
        }
    }

    fn write(&mut self, batch: &Batch, durable: &mut dyn FnMut()) -> Result<(), StoreError> {
        match &self.state {
            State::ReadOnly(why) => return Err(StoreError::ReadOnly(why.clone())),
            State::Full => return Err(StoreError::Full),
            State::Writable => {}
        }
        if batch.is_empty() {
            // A barrier in a group of its own: all before it is durable.
            durable();
            return Ok(());
        }
        let Err(error) = self.kv.commit_telling(batch, durable) else {
            return Ok(());
        };
        self.shared.figures.errors.fetch_add(1, Ordering::Relaxed);
        match error {
            KvError::Full => {
                tracing::error!("the disk is full: edits are refused until there is space");
                self.enter(State::Full);
                Err(StoreError::Full)
            }
            KvError::TooLarge(_) => {
                tracing::error!(%error, "a batch is refused");
                Err(error.into())
            }
            KvError::Io(_) | KvError::Damaged(_) => Err(self.give_up(&error)),
        }
    }

    fn give_up(&mut self, error: &KvError) -> StoreError {
        tracing::error!(%error, "the store could not be synced and is read-only from now on: check the disk, then restart");
        let why = error.to_string();
        self.enter(State::ReadOnly(why.clone()));
        StoreError::ReadOnly(why)
    }

    /// Looks whether space can be set aside, which shows that there is some again.
    fn probe(&mut self) {
        let before = matches!(self.state, State::Full);
        match self.kv.restore_reserve() {
            Ok(()) if before => {
                tracing::info!("there is space on the disk again: edits are taken");
                self.enter(State::Writable);
            }
            Ok(()) => {}
            Err(error) if error != KvError::Full => {
                self.shared.figures.errors.fetch_add(1, Ordering::Relaxed);
                self.give_up(&error);
            }
            Err(error) => {
                if !before {
                    tracing::error!(%error, "there is no space for the store's reserve: edits are refused until there is");
                }
                self.enter(State::Full);
            }
        }
    }

    fn enter(&mut self, state: State) {
        let figures = &self.shared.figures;
        match (&self.state, &state) {
            (State::Writable, State::Full) => _ = figures.fulls.fetch_add(1, Ordering::Relaxed),
            (State::Full, State::Writable) => _ = figures.recoveries.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
        figures.full.store(matches!(state, State::Full), Ordering::Relaxed);
        let read_only = matches!(state, State::ReadOnly(_));
        self.shared.read_only.store(read_only, Ordering::Relaxed);
        self.state = state;
    }
}

fn tell(waiting: impl Iterator<Item = Done>, result: &Result<(), StoreError>) {
    for done in waiting {
        let result = result.clone();
        if catch_unwind(AssertUnwindSafe(move || done(result))).is_err() {
            tracing::error!("a completion of the store's writer panicked; the batch is as durable as it was told");
        }
    }
}
