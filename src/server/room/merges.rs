//! How many documents are merged at once, and how long merges rest: together they take a quarter of the cores while edits come.
//!
//! A room stops taking edits when it waits for its merge too long, so a small document's must not wait for another's that takes
//! seconds: the small ones have a place of their own, and do not rest while a room waits so. Then merges take more than their share.
//! Where there are many places, half of them are for whoever comes first.

use crate::server::clock::Clock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All merges together take at most one in this many cores.
const MERGE_SHARE: usize = 4;
/// One in this many places is for small documents alone, at least one, and as many are for large ones.
const OWN_SHARE: usize = 4;
/// When no room has sent anything to the log for so long, no edit waits, and merges need not rest.
const QUIET_MS: u64 = 500;
/// A merge that rests looks this often whether it still has to.
const REST_STEP: Duration = Duration::from_millis(10);
/// Whose last merge took longer waits with the large ones, whatever it seems to be.
pub(super) const SMALL_MS_MAX: u64 = 10_000;

/// How long a document takes to merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Some tenths of a second at most.
    Small,
    /// Perhaps seconds.
    Large,
}

/// The places for merges.
pub(super) struct Merges {
    large: Lane,
    small: Lane,
    /// The other places, for either.
    either: Lane,
    cores: usize,
    clock: Clock,
    /// Rooms that take no edits before their merge is done.
    held_up: Arc<AtomicUsize>,
    /// When a room last sent something to the log.
    edited_ms: Arc<AtomicU64>,
}

#[derive(Clone, Debug)]
struct Lane {
    places: Arc<Semaphore>,
    places_max: usize,
}

/// Where work may find a place.
#[derive(Clone, Debug)]
pub(super) struct Places {
    own: Arc<Semaphore>,
    either: Option<Arc<Semaphore>>,
}

/// A room that waits for its merge, counted until this is dropped.
#[derive(Debug)]
pub struct HeldUp(Arc<AtomicUsize>);

/// How long a merge rests before it gives its place back.
pub(super) struct Rest {
    clock: Clock,
    edited_ms: Arc<AtomicU64>,
    /// Ends a small document's rest.
    held_up: Option<Arc<AtomicUsize>>,
    /// As a multiple of the work, when those of the other size rest or work, too, and when not.
    beside: f64,
    alone: f64,
    other: Lane,
}

impl Merges {
    pub(super) fn new(cores: usize, clock: Clock) -> Self {
        let (own, either) = places(cores);
        Self {
            large: Lane::new(own),
            small: Lane::new(own),
            either: Lane::new(either),
            cores,
            clock,
            held_up: Arc::default(),
            edited_ms: Arc::default(),
        }
    }

    pub(super) fn places(&self, size: Size) -> Places {
        Places {
            own: self.lane(size).places.clone(),
            either: Some(self.either.places.clone()),
        }
    }

    pub(super) fn rest(&self, size: Size) -> Rest {
        let (other, held_up) = match size {
            Size::Large => (&self.small, None),
            Size::Small => (&self.large, Some(self.held_up.clone())),
        };
        let own = self.lane(size).places_max + self.either.places_max;
        Rest {
            clock: self.clock,
            edited_ms: self.edited_ms.clone(),
            held_up,
            beside: rest_share(own + other.places_max, self.cores),
            alone: rest_share(own, self.cores),
            other: other.clone(),
        }
    }

    /// A room sends something to the log: merges rest for a while, so that edits come first.
    pub(super) fn edited(&self) {
        self.edited_ms.store(self.clock.monotonic_ms(), Ordering::Relaxed);
    }

    /// A room takes no edits before its merge is done, until this is dropped: a small document's need not rest then.
    pub(super) fn held_up(&self) -> HeldUp {
        self.held_up.fetch_add(1, Ordering::Relaxed);
        HeldUp(self.held_up.clone())
    }

    /// No merge begins any more.
    pub(super) fn close(&self) {
        self.large.places.close();
        self.small.places.close();
        self.either.places.close();
    }

    fn lane(&self, size: Size) -> &Lane {
        match size {
            Size::Large => &self.large,
            Size::Small => &self.small,
        }
    }
}

impl Lane {
    fn new(places_max: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places_max)),
            places_max,
        }
    }

    fn is_idle(&self) -> bool {
        self.places.available_permits() == self.places_max
    }
}

impl Places {
    /// These alone.
    pub(super) fn of(own: &Arc<Semaphore>) -> Self {
        let (own, either) = (own.clone(), None);
        Self { own, either }
    }

    /// The next one that is free; `None` when no work begins any more.
    pub(super) async fn next(self) -> Option<OwnedSemaphorePermit> {
        let Some(either) = self.either else {
            return self.own.acquire_owned().await.ok();
        };
        tokio::select! {
            biased;
            place = self.own.acquire_owned() => place.ok(),
            place = either.acquire_owned() => place.ok(),
        }
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Rest {
    /// Rests after work that took so long, unless no edit comes or only merges are waited for, and gives the place back.
    pub(super) async fn after(self, took: Duration, place: OwnedSemaphorePermit) {
        let mut rested = 0.0;
        while rested < 1.0 && self.is_due() {
            let whole = took.mul_f64(if self.other.is_idle() { self.alone } else { self.beside });
            if whole.is_zero() {
                break;
            }
            let step = REST_STEP.min(whole);
            tokio::time::sleep(step).await;
            rested += step.as_secs_f64() / whole.as_secs_f64();
        }
        drop(place);
    }

    fn is_due(&self) -> bool {
        let edited_ms = self.edited_ms.load(Ordering::Relaxed);
        let is_quiet = self.clock.monotonic_ms() >= edited_ms.saturating_add(QUIET_MS);
        let held_up = self.held_up.as_ref().map_or(0, |rooms| rooms.load(Ordering::Relaxed));
        !is_quiet && held_up == 0
    }
}

/// How many documents of either size alone are merged at once, and how many besides.
fn places(cores: usize) -> (usize, usize) {
    let places = (cores / MERGE_SHARE).max(2);
    let own = (places / OWN_SHARE).max(1);
    (own, places - 2 * own)
}

/// With so many merges at once on `cores` cores, how long each rests so that all together keep to their share.
fn rest_share(merges: usize, cores: usize) -> f64 {
    let busy_cores = u32::try_from(merges * MERGE_SHARE).unwrap_or(u32::MAX);
    let cores = u32::try_from(cores.max(1)).unwrap_or(u32::MAX);
    (f64::from(busy_cores) / f64::from(cores) - 1.0).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn merges_take_a_quarter_of_the_cores() {
        let check = |cores: usize, at_once: (usize, usize), beside: f64, alone: f64| {
            let merges = Merges::new(cores, Clock::start());
            let (large, small) = (merges.rest(Size::Large), merges.rest(Size::Small));
            assert_eq!(places(cores), at_once, "{cores} cores");
            assert_eq!((large.beside, small.beside), (beside, beside), "{cores} cores");
            assert_eq!(large.alone, alone, "{cores} cores");
        };
        check(1, (1, 0), 7.0, 3.0);
        check(2, (1, 0), 3.0, 1.0);
        check(4, (1, 0), 1.0, 0.0);
        check(8, (1, 0), 0.0, 0.0);
        check(16, (1, 2), 0.0, 0.0);
        check(64, (4, 8), 0.0, 0.0);
    }

    /// A place that is free now.
    fn take(merges: &Merges, size: Size) -> Option<OwnedSemaphorePermit> {
        merges.places(size).next().now_or_never().flatten()
    }

    #[tokio::test]
    async fn a_small_document_waits_for_no_large_one() {
        let merges = Merges::new(2, Clock::start());
        let _large = take(&merges, Size::Large).expect("a place");
        assert!(take(&merges, Size::Large).is_none(), "one large one at once");
        let small = take(&merges, Size::Small).expect("another");
        merges.edited();
        let held_up = merges.held_up();
        // Hours, if it rested.
        merges.rest(Size::Small).after(Duration::from_secs(3_600), small).await;
        assert!(take(&merges, Size::Small).is_some());
        drop(held_up);
        assert_eq!(merges.held_up.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn what_no_large_document_needs_is_for_small_ones_but_for_one_place() {
        for (many, few) in [(Size::Small, Size::Large), (Size::Large, Size::Small)] {
            let merges = Merges::new(16, Clock::start());
            let _taken: Vec<_> = (0..3).map(|_| take(&merges, many).expect("a place")).collect();
            let waiting = tokio::spawn(merges.places(many).next());
            let own = take(&merges, few).expect("a place of its own");
            assert!(take(&merges, few).is_none());
            drop(own);
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished(), "that one is not for {many:?} documents");
            merges.close();
            assert!(
                waiting.await.expect("it does not panic").is_none(),
                "no merge begins any more"
            );
        }
    }
}
