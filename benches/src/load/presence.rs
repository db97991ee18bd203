//! Many members who all say where they are: how many frames that makes, and what it does to edits.

use super::{
    figure,
    paced::{self, Plan},
    process::{self, Server},
    store_base,
    target::{Link, Target},
};
use crate::{
    clock::{ms_since, now},
    report::Sample,
};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use std::{
    cell::Cell,
    collections::BTreeMap,
    rc::Rc,
    time::{Duration, Instant},
};
use syncline_protocol::{
    SessionId,
    native::{ServerMessage, decode_server},
};

/// States per second of each member.
const STATES_PER_S: u32 = 5;
/// Rounds per second in which the server shows what has changed.
const TICKS_PER_S: f64 = 10.0;
/// How long the last states may take to reach everybody.
const GRACE: Duration = Duration::from_secs(10);
/// One member in so many reads what it is shown; the others count frames, so that the load costs less than the server.
const OBSERVES_EVERY: usize = 50;
/// How a message begins: an array of this many, and the number of its kind.
const PRESENCE_HEAD: [u8; 2] = [0x93, 22];
/// How often a member that has shown all looks whether it is over.
const LOOK: Duration = Duration::from_millis(50);

/// What came to all members who say where they are.
#[derive(Default)]
struct Came {
    frames: Cell<u64>,
    bytes: Cell<u64>,
    /// What the members who read them saw.
    read_frames: Cell<u64>,
    entries: Cell<u64>,
    /// Members who read and have not seen everybody's last state yet.
    observers_left: Cell<usize>,
    /// When the first and the last frame came.
    window: Cell<Option<(Instant, Instant)>>,
}

/// One phase: the edits, and what the members cost meanwhile.
struct Phase {
    edits: Sample,
    came: Rc<Came>,
    took_s: f64,
    cpu_s: f64,
    own_cpu_s: f64,
}

/// The edits of `plan` in a room of so many silent members, then in one where all of them say where they are.
pub(crate) async fn run(server: &Server, plan: &Rc<Plan>, members: usize) -> anyhow::Result<Sample> {
    let seconds = plan.count as u32 / plan.per_second;
    let silent = phase(server, plan, members, 0).await?;
    let lively = phase(server, plan, members, STATES_PER_S * seconds).await?;
    let frames = lively.came.frames.get() as f64;
    let (silent_ms, lively_ms) = (figure(&silent.edits, "p99_ms"), figure(&lively.edits, "p99_ms"));
    let (first, last) = lively.came.window.get().context("no frame came")?;
    let window_s = last.duration_since(first).as_secs_f64();
    // Ticks are counted from the first on.
    let member_ticks = members as f64 * (window_s * TICKS_PER_S + 1.0);
    let read_frames = lively.came.read_frames.get() as f64;
    Ok(vec![
        ("frames_per_member_and_tick", frames / member_ticks),
        ("states_per_frame", lively.came.entries.get() as f64 / read_frames),
        (
            "mib_per_s_in_all",
            lively.came.bytes.get() as f64 / window_s / 1_048_576.0,
        ),
        ("p50_ms", figure(&lively.edits, "p50_ms")),
        ("p99_ms", lively_ms),
        ("p50_without_presence_ms", figure(&silent.edits, "p50_ms")),
        ("p99_without_presence_ms", silent_ms),
        ("p99_over_without_presence", lively_ms / silent_ms),
        ("cpu_share", lively.cpu_s / lively.took_s),
        ("cpu_share_without_presence", silent.cpu_s / silent.took_s),
        ("generator_cpu_share", lively.own_cpu_s / lively.took_s),
        ("rss_mib", server.rss_kib()? / 1_024.0),
    ])
}

async fn phase(server: &Server, plan: &Rc<Plan>, members: usize, states: u32) -> anyhow::Result<Phase> {
    let room = format!("presence-{states}");
    store_base(server.address, &room, &plan.base).await?;
    let mut links = Vec::with_capacity(members);
    for _ in 0..members {
        let mut link = Link::greet(server.address, Vec::new()).await?;
        link.open(&room, None, Vec::new()).await?;
        links.push(link);
    }
    let (came, edited) = (Rc::new(Came::default()), Rc::new(Cell::new(false)));
    came.observers_left.set(members.div_ceil(OBSERVES_EVERY));
    let (start, cpu_s, own_cpu_s) = (
        now() + Duration::from_millis(500),
        server.cpu_s()?,
        process::own_cpu_s()?,
    );
    let tasks: Vec<_> = (links.into_iter().enumerate())
        .map(|(number, link)| {
            let member = Member {
                link,
                number,
                members,
                start,
                last: states,
                came: came.clone(),
                edited: edited.clone(),
            };
            tokio::task::spawn_local(member.run())
        })
        .collect();
    let edits = paced::run_in(Target::Syncline, server, &room, plan).await?;
    edited.set(true);
    for task in tasks {
        task.await??;
    }
    Ok(Phase {
        edits,
        came,
        took_s: ms_since(start) / 1_000.0,
        cpu_s: server.cpu_s()? - cpu_s,
        own_cpu_s: process::own_cpu_s()? - own_cpu_s,
    })
}

struct Member {
    link: Link,
    number: usize,
    members: usize,
    start: Instant,
    /// How many states it shows.
    last: u32,
    came: Rc<Came>,
    /// Whether the edits are over.
    edited: Rc<Cell<bool>>,
}

impl Member {
    /// Shows its states at an even pace, and goes on until the edits are over and who reads has everybody's last state.
    async fn run(mut self) -> anyhow::Result<()> {
        let (mut shown, mut latest) = (0, BTreeMap::<SessionId, u32>::new());
        let (mut over, mut observes) = (None, self.number.is_multiple_of(OBSERVES_EVERY));
        let left = |came: &Came| came.observers_left.get();
        loop {
            if shown == self.last && self.edited.get() {
                // Everybody else's; whether a member is shown its own does not matter.
                let complete = latest.values().filter(|state| **state == self.last).count();
                if observes && (self.last == 0 || complete >= self.members - 1) {
                    self.came.observers_left.set(left(&self.came) - 1);
                    observes = false;
                }
                if left(&self.came) == 0 {
                    return Ok(());
                }
                let over = *over.get_or_insert_with(now);
                ensure!(now() < over + GRACE, "a member has the last states of only {complete}");
            }
            let due = if shown < self.last {
                self.due(shown)
            } else {
                now() + LOOK
            };
            tokio::select! {
                () = tokio::time::sleep_until(due.into()) => {
                    if shown < self.last {
                        shown += 1;
                        self.show(shown).await?;
                    }
                }
                filled = self.link.socket.fill() => {
                    filled?;
                    self.receive(observes.then_some(&mut latest))?;
                }
            }
        }
    }

    /// About as large as a caret and a name are.
    async fn show(&mut self, state: u32) -> anyhow::Result<()> {
        let mut bytes = vec![0; 32];
        bytes[..4].copy_from_slice(&state.to_be_bytes());
        self.link.queue_presence(Bytes::from(bytes));
        self.link.socket.flush().await
    }

    fn receive(&mut self, mut latest: Option<&mut BTreeMap<SessionId, u32>>) -> anyhow::Result<()> {
        let add = |cell: &Cell<u64>, count: usize| cell.set(cell.get() + count as u64);
        while let Some(message) = self.link.socket.message()? {
            if !message.starts_with(&PRESENCE_HEAD) {
                continue;
            }
            add(&self.came.frames, 1);
            add(&self.came.bytes, message.len());
            let first = self.came.window.get().map_or_else(now, |(first, _)| first);
            self.came.window.set(Some((first, now())));
            let Some(latest) = &mut latest else { continue };
            let ServerMessage::Presence { entries, .. } = decode_server(&message)? else {
                bail!("a message that begins as presence does is none");
            };
            add(&self.came.read_frames, 1);
            add(&self.came.entries, entries.len());
            for entry in entries {
                let state = entry.state.as_ref().and_then(|state| state.first_chunk());
                if let Some(state) = state {
                    latest.insert(entry.session, u32::from_be_bytes(*state));
                }
            }
        }
        Ok(())
    }

    /// The members take turns, evenly spread.
    fn due(&self, state: u32) -> Instant {
        let turn = f64::from(state) + self.number as f64 / self.members as f64;
        self.start + Duration::from_secs_f64(turn / f64::from(STATES_PER_S))
    }
}
