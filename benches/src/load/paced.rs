//! A few writers at a steady pace, everybody listening: how long from the send to the receipt at each other member.

use super::{
    process::Server,
    target::{Came, Link, Target},
};
use crate::{
    clock::{ms_since, now},
    edits::{Base, Edits},
    report::{Sample, percentile},
};
use anyhow::{bail, ensure};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};

/// How long deliveries may lag behind the last send.
const GRACE: Duration = Duration::from_secs(10);

/// Who writes how fast, and what.
pub(crate) struct Plan {
    /// Connections in the one room, writers included.
    pub(crate) members: usize,
    /// Edits per second of each writer.
    pub(crate) per_second: u32,
    /// Edits of each writer.
    pub(crate) count: usize,
    /// The document at the start.
    pub(crate) base: Base,
    /// What the writers send, [`Plan::count`] of each.
    pub(crate) edits: Edits,
}

impl Plan {
    /// The time between two edits, whoever makes them.
    pub(crate) fn pace(&self) -> Duration {
        Duration::from_secs(1) / (self.per_second * self.edits.writers() as u32)
    }
}

struct Course {
    plan: Rc<Plan>,
    start: Instant,
    /// By writer and place.
    sent: RefCell<Vec<Vec<Instant>>>,
    latencies_ms: RefCell<Vec<f64>>,
    catch_ups: Cell<u32>,
}

/// Runs the plan on a running server.
pub(crate) async fn run(target: Target, server: &Server, plan: &Rc<Plan>) -> anyhow::Result<Sample> {
    let room = "paced";
    if target != Target::Relay {
        target.begin(server.address, room, &plan.base).await?;
        server.quiet(if plan.base.changes.len() > 1 { 6 } else { 1 }).await?;
    }
    run_in(target, server, room, plan).await
}

/// Runs the plan in a room whose document is the plan's at the start.
pub(crate) async fn run_in(target: Target, server: &Server, room: &str, plan: &Rc<Plan>) -> anyhow::Result<Sample> {
    let mut links = Vec::new();
    for number in 0..plan.members {
        let writer = (number < plan.edits.writers()).then_some(number);
        links.push((target.join(server.address, room, writer).await?, writer));
    }
    let cpu_s = server.cpu_s()?;
    let course = Rc::new(Course {
        plan: plan.clone(),
        start: now() + Duration::from_millis(200),
        sent: RefCell::new(vec![Vec::new(); plan.edits.writers()]),
        latencies_ms: RefCell::default(),
        catch_ups: Cell::new(0),
    });
    let members = links.into_iter().map(|(link, writer)| {
        let course = course.clone();
        tokio::task::spawn_local(async move { course.member(link, writer).await })
    });
    for member in members.collect::<Vec<_>>() {
        member.await??;
    }
    let cpu_s = server.cpu_s()? - cpu_s;
    let mut latencies = course.latencies_ms.take();
    let deliveries = latencies.len() as f64;
    Ok(vec![
        ("p50_ms", percentile(&mut latencies, 50.0)),
        ("p99_ms", percentile(&mut latencies, 99.0)),
        ("max_ms", percentile(&mut latencies, 100.0)),
        ("deliveries", deliveries),
        ("cpu_s_per_100k_deliveries", cpu_s / deliveries * 100_000.0),
        ("catch_ups", f64::from(course.catch_ups.get())),
        ("rss_mib", server.rss_kib()? / 1_024.0),
    ])
}

impl Course {
    async fn member(&self, mut link: Link, writer: Option<usize>) -> anyhow::Result<()> {
        let writers = self.plan.edits.writers();
        let mut had = vec![0; writers];
        let mut next = 0;
        let deadline = self.send_at(0, self.plan.count) + GRACE;
        while !self.complete(&had, writer) || writer.is_some() && next < self.plan.count {
            let due = writer
                .filter(|_| next < self.plan.count)
                .map(|writer| self.send_at(writer, next));
            tokio::select! {
                () = tokio::time::sleep_until(due.unwrap_or(deadline).into()) => match writer {
                    Some(writer) if due.is_some() => {
                        self.send(&mut link, writer, next).await?;
                        next += 1;
                    }
                    _ => bail!("after {GRACE:?} a member had {had:?} of {} edits each", self.plan.count),
                },
                filled = link.socket.fill() => {
                    filled?;
                    self.receive(&mut link, &mut had)?;
                }
            }
        }
        Ok(())
    }

    async fn send(&self, link: &mut Link, writer: usize, place: usize) -> anyhow::Result<()> {
        let edit = self.plan.edits.edit(writer, place).cloned();
        link.queue_edit(place as u64, edit.as_slice());
        self.sent.borrow_mut()[writer].push(now());
        link.socket.flush().await
    }

    fn receive(&self, link: &mut Link, had: &mut [usize]) -> anyhow::Result<()> {
        let mut latencies = self.latencies_ms.borrow_mut();
        let sent = self.sent.borrow();
        link.each(|came| {
            match came {
                Came::Change(bytes) => {
                    let Some((writer, place)) = self.plan.edits.recognise(&bytes) else {
                        bail!("a change came that nobody sent");
                    };
                    ensure!(
                        place <= had[writer],
                        "edit {place} of writer {writer} came before {}",
                        had[writer]
                    );
                    if place == had[writer] {
                        had[writer] += 1;
                        latencies.push(ms_since(sent[writer][place]));
                    }
                }
                Came::CaughtUp => self.catch_ups.set(self.catch_ups.get() + 1),
                Came::Acknowledged(_) => {}
            }
            Ok(())
        })
    }

    fn complete(&self, had: &[usize], own: Option<usize>) -> bool {
        let of_others = had.iter().enumerate().filter(|(writer, _)| Some(*writer) != own);
        of_others.into_iter().all(|(_, count)| *count == self.plan.count)
    }

    /// The writers take turns, evenly spread.
    fn send_at(&self, writer: usize, place: usize) -> Instant {
        let turns = place * self.plan.edits.writers() + writer;
        let apart_s = 1.0 / f64::from(self.plan.per_second) / self.plan.edits.writers() as f64;
        self.start + Duration::from_secs_f64(apart_s * turns as f64)
    }
}
