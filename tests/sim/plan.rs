//! What one seed stands for: how many clients and documents, how the server is tuned, how fast things are, what goes wrong.
//!
//! The sizes are small, so that a short run sees merges, compactions, pruned logs and full queues many times over.

use crate::random::Random;
use std::num::NonZeroU64;
use syncline::{engine::room::Tuning, server::store::LogKept};
use syncline_protocol::{DocumentId, Limits, native::Access};

/// Milliseconds of a run before everything heals.
const ACTIVE_MS: u64 = 40_000;

/// The world of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) documents: Vec<DocumentId>,
    pub(crate) clients: Vec<ClientPlan>,
    pub(crate) limits: Limits,
    pub(crate) tuning: Tuning,
    pub(crate) log_kept: LogKept,
    /// Until when edits and faults happen.
    pub(crate) active_ms: u64,
    /// The longest time of a sync, of a frame on its way, of a piece of work, and of one turn of a room.
    sync_ms_max: u64,
    pub(crate) latency_ms_max: u64,
    work_ms_max: u64,
    turn_ms_max: u64,
    /// Messages that wait for a room at most.
    pub(crate) inbox_max: usize,
    /// What goes wrong, and when.
    pub(crate) faults: Vec<(u64, Fault)>,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct ClientPlan {
    pub(crate) name: String,
    /// What its token allows, for each document.
    pub(crate) access: Vec<Access>,
    /// The mean time between its edits.
    pub(crate) edit_every_ms: u64,
    /// How long the server takes to get rid of a thousand of its bytes.
    pub(crate) ms_per_kilobyte: u64,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The server's process dies, and is back after a while.
    Crash { down_ms: u64 },
    /// It dies as soon as something is written and not synced.
    CrashUnsynced { down_ms: u64 },
    /// The server stops in good order, and is back after a while.
    Stop { down_ms: u64 },
    /// A client's connection breaks; what was on its way is lost.
    Cut { client: usize },
    /// Nothing passes on a client's connection for a while.
    Stall { client: usize, ms: u64 },
    /// A client takes its frames slowly for a while.
    Slow { client: usize, ms: u64 },
    /// A client's process dies, and comes back with what it had saved, or with nothing.
    ClientCrash { client: usize, saved: bool, down_ms: u64 },
    /// A client is offline for a while, and goes on editing.
    Offline { client: usize, ms: u64 },
    /// Nobody is online for a while, so that rooms close.
    Night { ms: u64 },
    /// A client sends its last edit once more.
    Resend { client: usize },
    /// The disk is full for a while.
    Full { at_sync: bool, ms: u64 },
    /// The disk fails to sync until the server is restarted, after a while.
    Broken { ms: u64 },
    /// The next merge is said to have met a bad change.
    BadMerge,
    /// The next room that takes mail panics.
    RoomPanic,
    /// Memory is short in the server.
    Trim,
    /// The operator makes a backup.
    BackUp,
    /// The server's disk dies, and the operator puts the last backup in its place.
    Restore { down_ms: u64 },
}

impl Plan {
    pub(crate) fn new(random: &mut Random) -> Self {
        let documents = (0..random.between(1, 2)).map(|number| format!("sim/{number}").parse().expect("an id"));
        let documents: Vec<DocumentId> = documents.collect();
        let count = usize::try_from(random.between(2, 5)).expect("few");
        let clients = (0..count).map(|number| ClientPlan::new(number, documents.len(), random));
        let clients = clients.collect();
        let faults = faults(count, random);
        Self {
            documents,
            clients,
            limits: limits(random),
            tuning: tuning(random),
            log_kept: LogKept {
                changes: random.between(2, 40),
                bytes: random.between(500, 10_000),
            },
            active_ms: ACTIVE_MS,
            sync_ms_max: if random.percent(30) { 400 } else { random.between(1, 60) },
            latency_ms_max: random.between(1, 150),
            work_ms_max: if random.percent(20) {
                3_000
            } else {
                random.between(1, 300)
            },
            turn_ms_max: if random.percent(20) { 200 } else { random.between(0, 5) },
            inbox_max: usize::try_from(random.between(1, 16)).expect("few"),
            faults,
        }
    }

    pub(crate) fn sync_ms(&self, random: &mut Random) -> u64 {
        // Now and then a disk takes its time.
        random.between(0, self.sync_ms_max) * if random.percent(3) { 20 } else { 1 }
    }

    pub(crate) fn latency_ms(&self, random: &mut Random) -> u64 {
        random.between(0, self.latency_ms_max)
    }

    pub(crate) fn work_ms(&self, random: &mut Random) -> u64 {
        random.between(0, self.work_ms_max) * if random.percent(5) { 10 } else { 1 }
    }

    pub(crate) fn turn_ms(&self, random: &mut Random) -> u64 {
        random.between(0, self.turn_ms_max)
    }
}

impl ClientPlan {
    fn new(number: usize, documents: usize, random: &mut Random) -> Self {
        // The first one writes everything: a world of readers has nothing to say.
        let access = |random: &mut Random| match random.percent(25) && number > 0 {
            true => Access::Read,
            false => Access::Write,
        };
        Self {
            name: format!("client-{number}"),
            access: (0..documents).map(|_| access(random)).collect(),
            edit_every_ms: random.between(600, 3_000),
            ms_per_kilobyte: if random.percent(30) {
                random.between(50, 1_500)
            } else {
                1
            },
        }
    }
}

fn limits(random: &mut Random) -> Limits {
    Limits {
        edits_per_second: random.between(2, 50),
        edits_burst: random.between(2, 30),
        ops_decoded_alone: random.between(10, 100),
        // Where a mark must be proven that the gate could have looked up.
        mark_steps_max: if random.percent(50) { 0 } else { 10_000 },
        waiting_changes_max: random.between(1, 64),
        send_queue_bytes_max: random.between(600, 6_000),
        part_bytes_max: random.between(4_500, 9_000),
        presence_ttl_ms: 10_000,
        ..Limits::default()
    }
}

fn tuning(random: &mut Random) -> Tuning {
    let (merge_changes, merge_bytes) = (random.between(2, 20), random.between(500, 5_000));
    let (merge_after_ms, merge_quiet_ms) = (random.between(100, 3_000), random.between(50, 3_000));
    Tuning {
        merge_changes,
        merge_bytes,
        merge_after_ms,
        merge_quiet_ms,
        merge_rests: merge_quiet_ms % 3 * 20,
        compact_changes: random.between(4, 40),
        compact_bytes: random.between(500, 10_000),
        compact_changes_at_rest: random.between(1, 20),
        // Longer than a world lasts: what a document at rest does, a room that closes does often enough.
        compact_rest_ms: 1_000_000,
        document_idle_ms: random.between(200, 5_000),
        room_idle_ms: random.between(100, 4_000),
        // In some worlds a batch rests behind every other.
        deliveries_per_ms: if merge_quiet_ms % 4 == 1 {
            NonZeroU64::MIN
        } else {
            Tuning::default().deliveries_per_ms
        },
    }
}

fn faults(clients: usize, random: &mut Random) -> Vec<(u64, Fault)> {
    // Some seeds are rough, some are calm.
    let count = random.between(2, 30);
    let mut faults: Vec<(u64, Fault)> = (0..count)
        .map(|_| (random.between(500, ACTIVE_MS - 500), fault(clients, random)))
        .collect();
    faults.sort_by_key(|(at, _)| *at);
    faults
}

fn fault(clients: usize, random: &mut Random) -> Fault {
    let client = random.index(clients);
    match random.below(110) {
        0..=3 => Fault::Crash {
            down_ms: random.between(50, 3_000),
        },
        4..=13 => Fault::CrashUnsynced {
            down_ms: random.between(50, 3_000),
        },
        14..=17 => Fault::Stop {
            down_ms: random.between(50, 1_000),
        },
        18..=35 => Fault::Cut { client },
        36..=43 => Fault::Stall {
            client,
            ms: random.between(200, 8_000),
        },
        44..=51 => Fault::Slow {
            client,
            ms: random.between(1_000, 10_000),
        },
        52..=61 => Fault::ClientCrash {
            client,
            saved: random.percent(70),
            down_ms: random.between(100, 8_000),
        },
        62..=67 => Fault::Offline {
            client,
            ms: random.between(500, 15_000),
        },
        68..=71 => Fault::Night {
            ms: random.between(500, 8_000),
        },
        72..=76 => Fault::Resend { client },
        77..=80 => Fault::Full {
            at_sync: random.percent(50),
            ms: random.between(200, 5_000),
        },
        81..=84 => Fault::Broken {
            ms: random.between(500, 10_000),
        },
        85..=89 => Fault::BadMerge,
        90..=95 => Fault::RoomPanic,
        96..=99 => Fault::Trim,
        100..=104 => Fault::BackUp,
        _ => Fault::Restore {
            down_ms: random.between(50, 3_000),
        },
    }
}
