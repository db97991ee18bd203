//! Closed loop: many rooms, every member a writer with one edit outstanding; edits count when they are acknowledged.

use super::{
    process::{self, Server},
    target::{Came, Link, Target},
};
use crate::{
    clock::{ms_since, now},
    edits::{Base, Edits, Sight},
    report::{Sample, percentile},
};
use anyhow::{bail, ensure};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long deliveries may lag behind the last acknowledgement.
const GRACE: Duration = Duration::from_secs(20);

/// How much, and what.
pub(crate) struct Plan {
    pub(crate) rooms: usize,
    /// How long edits are sent.
    pub(crate) seconds: u32,
    /// What the writers have of each other when they edit.
    pub(crate) sight: Sight,
    pub(crate) base: Base,
    /// The same edits go to every room.
    pub(crate) edits: Edits,
}

struct Course {
    plan: Rc<Plan>,
    deadline: Instant,
    acks: Cell<u64>,
    acks_ms: RefCell<Vec<f64>>,
    catch_ups: Cell<u32>,
}

/// What the members of one room know of each other.
struct Room {
    /// How many edits each has sent, once it has stopped.
    sent: RefCell<Vec<Option<usize>>>,
    /// Where the server acknowledges nothing: how many edits of each have come to another member.
    delivered: Option<RefCell<Vec<usize>>>,
    wake: Vec<Notify>,
}

struct Member {
    course: Rc<Course>,
    link: Link,
    writer: usize,
    room: Rc<Room>,
    /// How many edits of each writer came.
    had: Vec<usize>,
    acknowledged: usize,
}

/// Runs the plan on a running server.
pub(crate) async fn run(target: Target, server: &Server, plan: &Rc<Plan>) -> anyhow::Result<Sample> {
    let writers = plan.edits.writers();
    let mut links = Vec::new();
    for number in 0..plan.rooms {
        let room = format!("closed-{number}");
        target.begin(server.address, &room, &plan.base).await?;
        let of_room = Rc::new(Room {
            sent: RefCell::new(vec![None; writers]),
            delivered: (!target.acknowledges()).then(|| RefCell::new(vec![0; writers])),
            wake: (0..writers).map(|_| Notify::new()).collect(),
        });
        for writer in 0..writers {
            links.push((
                target.join(server.address, &room, Some(writer)).await?,
                writer,
                of_room.clone(),
            ));
        }
    }
    let (cpu_s, own_cpu_s, start) = (server.cpu_s()?, process::own_cpu_s()?, now());
    let course = Rc::new(Course {
        plan: plan.clone(),
        deadline: start + Duration::from_secs(plan.seconds.into()),
        acks: Cell::new(0),
        acks_ms: RefCell::default(),
        catch_ups: Cell::new(0),
    });
    let members = links.into_iter().map(|(link, writer, room)| {
        let member = Member {
            course: course.clone(),
            link,
            writer,
            room,
            had: vec![0; writers],
            acknowledged: 0,
        };
        tokio::task::spawn_local(member.run())
    });
    let members: Vec<_> = members.collect();
    tokio::time::sleep_until(course.deadline.into()).await;
    let (acks, cpu_s, took_s) = (course.acks.get(), server.cpu_s()? - cpu_s, ms_since(start) / 1_000.0);
    let own_cpu_s = process::own_cpu_s()? - own_cpu_s;
    for member in members {
        member.await??;
    }
    let mut acks_ms = course.acks_ms.take();
    Ok(vec![
        ("edits_per_s", acks as f64 / took_s),
        ("ack_p50_ms", percentile(&mut acks_ms, 50.0)),
        ("ack_p95_ms", percentile(&mut acks_ms, 95.0)),
        ("ack_p99_ms", percentile(&mut acks_ms, 99.0)),
        ("cpu_ms_per_1k_edits", cpu_s * 1_000.0 / (acks as f64 / 1_000.0)),
        ("cpu_share", cpu_s / took_s),
        ("generator_cpu_share", own_cpu_s / took_s),
        ("catch_ups", f64::from(course.catch_ups.get())),
        ("rss_mib", server.rss_kib()? / 1_024.0),
    ])
}

impl Member {
    async fn run(mut self) -> anyhow::Result<()> {
        let course = self.course.clone();
        let mut place = 0;
        while now() < course.deadline {
            let Some(edit) = course.plan.edits.edit(self.writer, place) else {
                bail!(
                    "{place} edits were not enough for {} s: prepare more",
                    course.plan.seconds
                );
            };
            if !self.see(place).await? {
                break;
            }
            self.link.queue_edit(place as u64, std::slice::from_ref(edit));
            let sent = now();
            self.link.socket.flush().await?;
            place += 1;
            while self.acknowledged < place {
                self.fill().await?;
            }
            course.acks_ms.borrow_mut().push(ms_since(sent));
            if now() < course.deadline {
                course.acks.set(course.acks.get() + 1);
            }
        }
        self.room.sent.borrow_mut()[self.writer] = Some(place);
        let deadline = course.deadline + GRACE;
        while !self.complete() {
            ensure!(
                now() < deadline,
                "a member had only {:?} of {:?}",
                self.had,
                self.room.sent.borrow()
            );
            // When the others are slower than this member, nothing comes that would wake it: look again.
            if let Ok(filled) = tokio::time::timeout(Duration::from_millis(50), self.link.socket.fill()).await {
                filled?;
                self.receive()?;
            }
        }
        Ok(())
    }

    /// Waits for the others' edits that the edit at `place` stands on. Whether they came in time.
    async fn see(&mut self, place: usize) -> anyhow::Result<bool> {
        let Sight::Behind(behind) = self.course.plan.sight else {
            return Ok(true);
        };
        let own = self.writer;
        while (self.had.iter().enumerate()).any(|(writer, had)| writer != own && had + behind <= place) {
            let deadline = self.course.deadline;
            match tokio::time::timeout_at(deadline.into(), self.link.socket.fill()).await {
                Ok(filled) => filled?,
                Err(_) => return Ok(false),
            }
            self.receive()?;
        }
        Ok(true)
    }

    async fn fill(&mut self) -> anyhow::Result<()> {
        let Some(delivered) = &self.room.delivered else {
            self.link.socket.fill().await?;
            return self.receive();
        };
        tokio::select! {
            filled = self.link.socket.fill() => {
                filled?;
                self.receive()
            }
            () = self.room.wake[self.writer].notified() => {
                self.acknowledged = delivered.borrow()[self.writer];
                Ok(())
            }
        }
    }

    fn receive(&mut self) -> anyhow::Result<()> {
        let (course, had, acknowledged) = (&self.course, &mut self.had, &mut self.acknowledged);
        let (room, own) = (&self.room, self.writer);
        self.link.each(|came| {
            match came {
                Came::Change(bytes) => {
                    let Some((writer, place)) = course.plan.edits.recognise(&bytes) else {
                        bail!("a change came that nobody sent");
                    };
                    ensure!(
                        place <= had[writer],
                        "edit {place} of writer {writer} came before {}",
                        had[writer]
                    );
                    had[writer] = had[writer].max(place + 1);
                    if let Some(delivered) = room.delivered.as_ref().filter(|_| writer != own) {
                        let delivered = &mut delivered.borrow_mut()[writer];
                        *delivered = (*delivered).max(place + 1);
                        room.wake[writer].notify_one();
                    }
                }
                Came::Acknowledged(id) => {
                    ensure!(id == *acknowledged as u64, "edit {id} was acknowledged out of turn");
                    *acknowledged += 1;
                }
                Came::CaughtUp => course.catch_ups.set(course.catch_ups.get() + 1),
            }
            Ok(())
        })
    }

    fn complete(&self) -> bool {
        let sent = self.room.sent.borrow();
        let mut of_all = sent.iter().zip(&self.had).enumerate();
        of_all.all(|(writer, (sent, had))| match sent {
            Some(sent) => writer == self.writer || sent == had,
            None => false,
        })
    }
}
