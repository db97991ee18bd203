//! What all rooms share for work that takes long: the store and its writer, and how much of it may run at once.

use crate::engine::time::Time;
use crate::server::{
    clock::Clock,
    memory::Memory,
    metrics::Metrics,
    store::{LogKept, Store, StoreError, kv::Batch, writer::Writer},
};
use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use syncline_protocol::{Epoch, Limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Pieces of documents that are read for members at once, in the whole server.
const READS_MAX: usize = 32;
/// All merges together take at most one in this many cores.
const MERGE_SHARE: usize = 4;
/// When no room has sent anything to the log for so long, no edit waits, and merges need not rest.
const QUIET_MS: u64 = 500;
/// A merge that rests looks this often whether it has become quiet.
const REST_STEP: Duration = Duration::from_millis(50);

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
    clock: Clock,
    loads: Arc<Semaphore>,
    reads: Arc<Semaphore>,
    decodes: Arc<Semaphore>,
    unpacks: Arc<Semaphore>,
    merges: Arc<Semaphore>,
    /// What a merge rests after its work, as a multiple of the work.
    merge_rest: f64,
    /// When a room last sent something to the log.
    edited_ms: Arc<AtomicU64>,
    /// How long after a restore everybody may bring back what others wrote.
    restore_window_ms: u64,
}

/// The kinds of work that are bounded each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Opening a document.
    Load,
    /// Reading a piece for a member.
    Read,
    /// Decoding a large change.
    Decode,
    /// Taking a peer's whole document apart.
    Unpack,
    /// Proving a change.
    Prove,
    /// Merging or compacting: rests afterwards.
    Merge,
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
        let merges = (cores / MERGE_SHARE).max(1);
        Self {
            store,
            writer,
            limits,
            log_kept,
            metrics,
            memory,
            clock,
            loads: Arc::new(Semaphore::new(cores.max(2))),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            decodes: Arc::new(Semaphore::new(1)),
            unpacks: Arc::new(Semaphore::new(1)),
            merges: Arc::new(Semaphore::new(merges)),
            merge_rest: share_rest(merges, cores),
            edited_ms: Arc::default(),
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
            Kind::Load => &self.loads,
            Kind::Read => &self.reads,
            Kind::Decode => &self.decodes,
            Kind::Unpack => &self.unpacks,
            Kind::Prove | Kind::Merge => &self.merges,
        };
        let (places, clock) = (places.clone(), self.clock);
        let edited_ms = (kind == Kind::Merge).then(|| self.edited_ms.clone());
        let share = self.merge_rest;
        async move {
            let Ok(place) = places.acquire_owned().await else {
                return lost;
            };
            let started_ms = clock.monotonic_ms();
            let done = tokio::task::spawn_blocking(work).await.unwrap_or(lost);
            let took = Duration::from_millis(clock.monotonic_ms() - started_ms);
            if let Some(edited_ms) = edited_ms {
                give_back_after(place, took.mul_f64(share), clock, edited_ms);
            }
            done
        }
    }

    /// A room sends something to the log: merges rest for a while, so that edits come first.
    pub fn edited(&self) {
        self.edited_ms.store(self.clock.monotonic_ms(), Ordering::Relaxed);
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

/// With `merges` at once on `cores` cores, how long each rests so that all together keep to their share.
fn share_rest(merges: usize, cores: usize) -> f64 {
    let busy_cores = u32::try_from(merges * MERGE_SHARE).unwrap_or(u32::MAX);
    let cores = u32::try_from(cores.max(1)).unwrap_or(u32::MAX);
    (f64::from(busy_cores) / f64::from(cores) - 1.0).max(0.0)
}

/// Gives the place back after a rest, or as soon as no edit waits.
fn give_back_after(place: OwnedSemaphorePermit, mut rest: Duration, clock: Clock, edited_ms: Arc<AtomicU64>) {
    if rest.is_zero() {
        return;
    }
    tokio::spawn(async move {
        while !rest.is_zero() && clock.monotonic_ms() < edited_ms.load(Ordering::Relaxed).saturating_add(QUIET_MS) {
            let step = rest.min(REST_STEP);
            tokio::time::sleep(step).await;
            rest -= step;
        }
        drop(place);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_take_a_quarter_of_the_cores() {
        let check = |cores: usize, merges: usize, rest: f64| {
            let share = (cores / MERGE_SHARE).max(1);
            assert_eq!((share, share_rest(share, cores)), (merges, rest), "{cores} cores");
        };
        check(1, 1, 3.0);
        check(2, 1, 1.0);
        check(4, 1, 0.0);
        check(16, 4, 0.0);
    }
}
