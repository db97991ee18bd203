//! What all rooms share for work that takes long: the store and its writer, and how much of it may run at once.

use crate::engine::time::Time;
use crate::server::{
    clock::Clock,
    failpoints::Switch,
    memory::Memory,
    metrics::{Held, Metrics},
    room::merges::{HeldUp, Merges, Places, Size},
    store::{LogKept, Store, StoreError, kv::Batch, writer::Writer},
};
use std::{future::Future, sync::Arc, time::Duration};
use syncline_protocol::{Epoch, Limits};
use tokio::sync::Semaphore;

/// For each core, pieces of documents that are read for members at once: more would wait for each other, and each thread that worked
/// once leaves the allocator with memory of its own.
const READS_PER_CORE: usize = 2;

/// Shared by all rooms of a server.
pub struct Workers {
    /// Reads documents.
    pub store: Store,
    /// Writes them.
    pub writer: Arc<Writer>,
    /// The limits in force.
    pub limits: Arc<Limits>,
    /// How much of the log stays behind a snapshot.
    pub log_kept: LogKept,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// The rooms' budget.
    pub memory: Arc<Memory>,
    /// The time.
    pub clock: Clock,
    loads: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    decodes: Arc<Semaphore>,
    unpacks: Arc<Semaphore>,
    merges: Merges,
    /// How long after a restore everybody may bring back what others wrote.
    restore_window_ms: u64,
}

/// The kinds of work that are bounded each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opening a document, or putting it right: members wait for it.
    Load,
    /// Reading a piece for a member.
    Read,
    /// Decoding a large change.
    Decode,
    /// Taking a peer's whole document apart.
    Unpack,
    /// Proving a change to a document of this size.
    Prove(Size),
    /// Merging or compacting one: rests afterwards.
    Merge(Size),
}

impl Workers {
    /// Workers for `cores` cores on `store`.
    pub fn new(
        store: Store,
        writer: Arc<Writer>,
        limits: Arc<Limits>,
        log_kept: LogKept,
        metrics: Arc<Metrics>,
        memory: Arc<Memory>,
        (clock, cores): (Clock, usize),
    ) -> Self {
        Self {
            store,
            writer,
            limits,
            log_kept,
            metrics,
            memory,
            clock,
            loads: Arc::new(Semaphore::new(cores.max(2))),
            reads: Arc::new(Semaphore::new(READS_PER_CORE * cores.max(2))),
            decodes: Arc::new(Semaphore::new(1)),
            unpacks: Arc::new(Semaphore::new(1)),
            merges: Merges::new(cores, clock),
            restore_window_ms: 0,
        }
    }

    /// For so long after a restore everybody may bring back what others wrote.
    #[must_use]
    pub fn with_restore_window(self, restore_window_ms: u64) -> Self {
        Self {
            restore_window_ms,
            ..self
        }
    }

    /// Runs `work` on a blocking thread when its kind has a place; `lost` is the answer if it panics, and to merges that have not
    /// begun when the server stops.
    pub fn run<T, W>(&self, kind: Kind, lost: T, work: W) -> impl Future<Output = T> + Send + use<T, W>
    where
        T: Send + 'static,
        W: FnOnce() -> T + Send + 'static,
    {
        let places = match kind {
            Kind::Load => Places::of(&self.loads),
            Kind::Read => Places::of(&self.reads),
            Kind::Decode => Places::of(&self.decodes),
            Kind::Unpack => Places::of(&self.unpacks),
            Kind::Prove(size) | Kind::Merge(size) => self.merges.places(size),
        };
        let (clock, metrics) = (self.clock, self.metrics.clone());
        let rest = match kind {
            Kind::Merge(size) => Some(self.merges.rest(size)),
            _ => None,
        };
        async move {
            let Some(place) = places.next().await else {
                return lost;
            };
            let merging = rest.as_ref().map(|_| Held::new(&metrics.merges_under_way));
            if rest.is_some() && Switch::MergesInTheWay.is_on() {
                return work();
            }
            let started_ms = clock.monotonic_ms();
            // The place goes along: whoever waits for the answer may be gone before the work has ended.
            let (done, place, merging) = match tokio::task::spawn_blocking(move || (work(), place, merging)).await {
                Ok(done) => done,
                Err(error) => {
                    // What the runtime drops as it ends has not even begun.
                    if error.is_panic() {
                        tracing::error!(?kind, "work of a room panicked; it counts as failed");
                        metrics.work_panics.inc();
                    }
                    return lost;
                }
            };
            let took = Duration::from_millis(clock.monotonic_ms() - started_ms);
            if let Some(rest) = rest {
                metrics.merging.inc_by(took.as_secs_f64());
                tokio::spawn(async move {
                    rest.after(took, place).await;
                    drop(merging);
                });
            }
            done
        }
    }

    /// A room sends something to the log: merges rest for a while, so that edits come first.
    pub fn edited(&self) {
        self.merges.edited();
    }

    /// A room takes no edits before its merge is done, until this is dropped: small documents' merges do not rest then.
    pub fn held_up(&self) -> HeldUp {
        self.merges.held_up()
    }

    /// The server stops: what is unmerged stays so, and no room waits for its turn to merge.
    pub fn stop_merging(&self) {
        self.merges.close();
    }

    /// Until when everybody may bring back what others wrote, if the store was put back from a backup lately.
    pub fn foreign_until(&self) -> Option<Time> {
        let until_ms = self.store.life().began_unix_ms.saturating_add(self.restore_window_ms);
        let left_ms = until_ms.checked_sub(self.clock.unix_ms())?;
        Some(Time::from_ms(self.clock.monotonic_ms().saturating_add(left_ms)))
    }

    /// Makes a batch durable. For blocking threads.
    ///
    /// # Errors
    /// What the writer says; nothing of the batch is durable then.
    pub fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.writer.write(batch)
    }

    /// A new epoch, drawn at random.
    pub fn fresh_epoch(&self) -> Epoch {
        Epoch::new(random_number())
    }
}

/// A random number for an id that nobody must guess.
pub fn random_number() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system gives random numbers");
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::store::memory::MemoryKv;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const CORES: usize = 3;
    const PIECES: usize = 20;

    fn workers() -> Workers {
        let kv = Arc::new(MemoryKv::default());
        Workers::new(
            Store::open(kv.clone()).unwrap(),
            Arc::new(Writer::start(kv).unwrap()),
            Arc::default(),
            LogKept::default(),
            Arc::new(Metrics::new()),
            Memory::new(0),
            (Clock::start(), CORES),
        )
    }

    /// How many of many pieces of this kind ran at once at most.
    async fn most_at_once(kind: Kind) -> usize {
        let (workers, running, most) = (workers(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let piece = || {
            let (running, most) = (running.clone(), most.clone());
            workers.run(kind, (), move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
                running.fetch_sub(1, Ordering::SeqCst);
            })
        };
        futures_util::future::join_all((0..PIECES).map(|_| piece())).await;
        most.load(Ordering::SeqCst)
    }

    #[tokio::test]
    async fn so_many_of_a_kind_run_at_once_and_no_more() {
        let check = async |kind, places: usize| {
            let most = most_at_once(kind).await;
            assert!(most <= places, "{kind:?}: {most} at once, {places} may be");
        };
        check(Kind::Load, CORES).await;
        check(Kind::Read, READS_PER_CORE * CORES).await;
        check(Kind::Decode, 1).await;
        check(Kind::Unpack, 1).await;
        check(Kind::Prove(Size::Large), 1).await;
    }

    #[tokio::test]
    async fn merges_are_counted_while_they_work_or_rest() {
        let workers = workers();
        let (under_way, merging) = (&workers.metrics.merges_under_way, &workers.metrics.merging);
        workers.edited();
        let work = || std::thread::sleep(Duration::from_millis(20));
        workers.run(Kind::Load, (), work).await;
        assert_eq!((under_way.get(), merging.get()), (0, 0.0), "it is no merge");
        workers.run(Kind::Merge(Size::Small), (), work).await;
        assert_eq!(under_way.get(), 1, "it rests");
        assert!(merging.get() >= 0.019, "{} s", merging.get());
        let rested = async {
            while under_way.get() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let rested = tokio::time::timeout(Duration::from_secs(10), rested);
        rested.await.expect("the place was given back");
    }

    #[tokio::test]
    async fn work_that_panics_is_lost_and_counted() {
        let workers = workers();
        let lost = workers.run(Kind::Load, "lost", || panic!("on purpose")).await;
        assert_eq!((lost, workers.metrics.work_panics.get()), ("lost", 1));
        assert_eq!(workers.run(Kind::Load, "lost", || "done").await, "done");
    }
}
