//! The hub finds, opens and closes rooms. It holds no document and no lock across an await.

use crate::{
    engine::{
        gate::Subject,
        room::{Event, Tuning},
        time::Time,
    },
    server::{
        clock::Clock,
        memory::Memory,
        metrics::{LoadFault, Metrics},
        outbox::Shared,
        room::{self, Handle, Mail, workers::Workers},
    },
};
use dashmap::{DashMap, Entry};
use std::{
    collections::BTreeSet,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use syncline_protocol::{DocumentId, Limits, RoomNumber};
use tokio::sync::Notify;

/// How often the rooms' memory is added up.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// All rooms of a server.
pub struct Hub {
    rooms: DashMap<DocumentId, Handle>,
    next_number: AtomicU64,
    workers: Arc<Workers>,
    clock: Clock,
    tuning: Tuning,
    seats: DashMap<Subject, Seats>,
    stopping: AtomicBool,
    unlisted: Notify,
}

/// Why a session cannot join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room can be opened now")]
pub struct Unavailable;

/// One connection of a subject, counted until it is dropped.
pub struct Seat {
    hub: Arc<Hub>,
    subject: Subject,
    /// What the subject's queues hold together.
    pub queues: Arc<Shared>,
}

/// The connections of a subject.
#[derive(Default)]
struct Seats {
    taken: u64,
    queues: Arc<Shared>,
}

impl Hub {
    /// A hub without rooms.
    pub fn new(workers: Arc<Workers>, clock: Clock, tuning: Tuning) -> Arc<Self> {
        Arc::new(Self {
            rooms: DashMap::new(),
            next_number: AtomicU64::new(1),
            workers,
            clock,
            tuning,
            seats: DashMap::new(),
            stopping: AtomicBool::new(false),
            unlisted: Notify::new(),
        })
    }

    /// Takes a seat for a connection of `subject`, unless `seats_max` are taken.
    pub fn seat(self: &Arc<Self>, subject: &Subject, seats_max: u64) -> Option<Seat> {
        let mut seats = self.seats.entry(subject.clone()).or_default();
        if seats.taken >= seats_max {
            return None;
        }
        seats.taken += 1;
        Some(Seat {
            hub: self.clone(),
            subject: subject.clone(),
            queues: seats.queues.clone(),
        })
    }

    /// Keeps the rooms within their memory, until the server ends.
    pub async fn sweep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(SWEEP_INTERVAL).await;
            self.trim();
        }
    }

    /// Stops every room once its edits are stored, and waits for that.
    pub async fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.workers.stop_merging();
        let mut told = BTreeSet::new();
        loop {
            let unlisted = self.unlisted.notified();
            let rooms: Vec<Handle> = self.rooms.iter().map(|room| room.value().clone()).collect();
            if rooms.is_empty() {
                return;
            }
            for room in rooms.into_iter().filter(|room| told.insert(room.number)) {
                // A room that is gone already needs no telling.
                room.inbox.send(Mail::Stop).await;
            }
            unlisted.await;
        }
    }

    /// Whether the server stops: merges that have not begun never will.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// The number of live rooms.
    pub fn rooms(&self) -> usize {
        self.rooms.len()
    }

    pub(super) fn now(&self) -> Time {
        Time::from_ms(self.clock.monotonic_ms())
    }

    pub(super) fn limits(&self) -> Arc<Limits> {
        self.workers.limits.clone()
    }

    pub(super) fn tuning(&self) -> Tuning {
        self.tuning.clone()
    }

    pub(super) fn workers(&self) -> Arc<Workers> {
        self.workers.clone()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.workers.metrics
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    /// Takes a room off the list, if it is still the one listed.
    pub(super) fn unlist(&self, document: &DocumentId, number: RoomNumber) {
        if self
            .rooms
            .remove_if(document, |_, handle| handle.number == number)
            .is_some()
        {
            self.metrics().rooms_open.dec();
        }
        self.unlisted.notify_one();
    }

    /// The document's room, which is opened if need be.
    ///
    /// # Errors
    /// When the server stops, or its rooms use up the memory budget and the document is not open yet.
    pub fn room(self: &Arc<Self>, document: &DocumentId) -> Result<Handle, Unavailable> {
        if self.is_stopping() {
            return Err(Unavailable);
        }
        if let Some(handle) = self.rooms.get(document) {
            return Ok(handle.clone());
        }
        if self.is_overloaded() {
            tracing::warn!(%document, "the rooms' memory is used up; a document was not opened");
            self.metrics().load_failed(LoadFault::Memory);
            return Err(Unavailable);
        }
        match self.rooms.entry(document.clone()) {
            Entry::Occupied(listed) => Ok(listed.get().clone()),
            Entry::Vacant(place) => {
                let number = RoomNumber::new(self.next_number.fetch_add(1, Ordering::Relaxed));
                let handle = room::open(self, document.clone(), number);
                self.metrics().rooms_open.inc();
                place.insert(handle.clone());
                Ok(handle)
            }
        }
    }

    /// The rooms' budget.
    pub fn memory(&self) -> &Arc<Memory> {
        &self.workers.memory
    }

    /// Whether there is no memory for anybody who comes now; then what can be let go is asked for.
    pub fn is_overloaded(&self) -> bool {
        let scarce = self.memory().is_scarce();
        if scarce {
            self.trim();
        }
        scarce
    }

    /// Over the budget, asks the rooms to let go of what they can, the longest unused first, until enough should be free.
    fn trim(&self) {
        let mut over = self.memory().excess();
        if over == 0 {
            return;
        }
        let mut rooms: Vec<Handle> = self.rooms.iter().map(|room| room.value().clone()).collect();
        rooms.sort_by_key(|room| {
            (
                room.figures.members.load(Ordering::Relaxed) > 0,
                room.figures.active_ms.load(Ordering::Relaxed),
            )
        });
        for room in rooms {
            if over == 0 {
                return;
            }
            // A room whose inbox is full is in use.
            if room.inbox.try_send(Mail::Event(Event::Trimmed)).is_ok() {
                self.metrics().rooms_trimmed.inc();
                over = over.saturating_sub(room.figures.memory_bytes.load(Ordering::Relaxed));
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Entry::Occupied(mut seats) = self.hub.seats.entry(self.subject.clone()) {
            seats.get_mut().taken -= 1;
            if seats.get().taken == 0 {
                seats.remove();
            }
        }
    }
}
