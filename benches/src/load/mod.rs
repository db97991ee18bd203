//! The load generator: the same workloads on the relay and on Syncline, in turn, and the ratio between them.

mod closed;
mod disk;
mod idle;
mod join;
mod paced;
mod process;
mod socket;
mod target;

use crate::{
    edits::{Base, Edits, Sight},
    history::History,
    report::{BESIDE, Report, Sample},
};
use bytes::Bytes;
use process::Programs;
use std::{io::Write, net::SocketAddr, path::PathBuf, rc::Rc};
use target::{Link, TARGETS, Target};

/// One edit of a loaded document has at most so many bytes and changes.
const LOAD_EDIT_BYTES: usize = 512 << 10;
const LOAD_EDIT_CHANGES: usize = 5_000;
/// Edits that one writer can make in a second of closed loop, at the very most.
const CLOSED_EDITS_PER_S: usize = 3_000;
/// The document's edits that a writer has not seen yet, where writers see each other.
const SEEN_BEHIND: usize = 8;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// 1 room, 10 members, 2 writers with 25 edits/s each
    Latency,
    /// As latency, in a document of 260,000 operations
    Long,
    /// 1 writer with 50 edits/s, 200 observers
    Fanout,
    /// 1 room, 100 members, each a writer with 10 edits/s
    Crowd,
    /// 50 rooms of 4 writers, each sends its next edit when the last is acknowledged; nobody sees the others' edits in time
    Throughput,
    /// As throughput, but the writers see each other's edits
    Seen,
    /// 2,000 connections in rooms of 10 that do nothing
    Idle,
    /// Take a long document in, join it cold after a restart, by 500 at once, resync a client 1,000 edits behind
    Join,
}

const ALL: [Workload; 8] = [
    Workload::Latency,
    Workload::Fanout,
    Workload::Crowd,
    Workload::Throughput,
    Workload::Seen,
    Workload::Idle,
    Workload::Join,
    Workload::Long,
];

/// What to measure, and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Load {
    /// Which workloads; all of them if none is named
    workloads: Vec<Workload>,
    /// Runs of each workload; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds of load in each run
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Connections in the idle workload
    #[arg(long, default_value_t = 2_000)]
    connections: usize,
    /// Members who only listen in the fanout workload
    #[arg(long, default_value_t = 200)]
    observers: usize,
    /// Use only so many keystrokes of the long document
    #[arg(long)]
    keystrokes: Option<usize>,
    /// The syncline binary
    #[arg(long, default_value = "target/release/syncline")]
    syncline: PathBuf,
    /// Where the stores and the JSON files with all figures go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

impl Load {
    /// Runs what was asked for.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.out)?;
        let programs = Programs::find(self.syncline.clone(), self.out.join("servers.log"))?;
        if !programs.pinned {
            writeln!(
                std::io::stdout(),
                "not pinned: server and generator share their cores, so the figures say little"
            )?;
        }
        let workloads = if self.workloads.is_empty() {
            &ALL[..]
        } else {
            &self.workloads
        };
        let long = workloads
            .iter()
            .any(|workload| matches!(workload, Workload::Long | Workload::Join));
        let history = if long {
            Some(History::paper(self.keystrokes)?)
        } else {
            None
        };
        for workload in workloads {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            let report = local.block_on(&runtime, self.measure(*workload, &programs, history.as_ref()))?;
            writeln!(std::io::stdout(), "{}", report.table())?;
            report.write(&self.out)?;
        }
        Ok(())
    }

    async fn measure(
        &self,
        workload: Workload,
        programs: &Programs,
        history: Option<&History>,
    ) -> anyhow::Result<Report> {
        let seconds = self.seconds;
        match workload {
            Workload::Latency => {
                let plan = paced_plan(Base::empty_text()?, 10, 2, 25, seconds);
                let about = format!("10 members, 2 writers with 25 edits/s, {seconds} s");
                let report = self.paced(Report::new("latency", about), programs, plan).await?;
                Ok(report)
            }
            Workload::Long => {
                let Some(history) = history else {
                    anyhow::bail!("the history was not read")
                };
                let plan = paced_plan(history.base.clone(), 10, 2, 25, seconds);
                let (name, changes) = (history.name(), history.base.changes.len());
                let about =
                    format!("latency in {name}, {changes} changes; the writers do not see each other, {seconds} s");
                self.paced(Report::new("long", about), programs, plan).await
            }
            Workload::Fanout => {
                let plan = paced_plan(Base::empty_text()?, 1 + self.observers, 1, 50, seconds);
                let about = format!("1 writer with 50 edits/s, {} observers, {seconds} s", self.observers);
                self.paced(Report::new("fanout", about), programs, plan).await
            }
            Workload::Crowd => {
                let plan = paced_plan(Base::empty_text()?, 100, 100, 10, seconds);
                let about = format!("100 members, each a writer with 10 edits/s, {seconds} s");
                self.paced(Report::new("crowd", about), programs, plan).await
            }
            Workload::Throughput => self.closed("throughput", programs, Sight::Apart).await,
            Workload::Seen => self.closed("seen", programs, Sight::Behind(SEEN_BEHIND)).await,
            Workload::Idle => {
                let report = Report::new("idle", format!("{} connections in rooms of 10", self.connections));
                self.on_both(report, programs, async |target, server| {
                    idle::run(target, server, self.connections).await
                })
                .await
            }
            Workload::Join => {
                let Some(history) = history else {
                    anyhow::bail!("the history was not read")
                };
                let about = format!("{}, {} changes", history.name(), history.base.changes.len());
                let mut report = Report::new("join", about);
                for _ in 0..self.runs {
                    let data = tempfile::tempdir_in(&self.out)?;
                    report.add(
                        Target::Syncline.name(),
                        join::run(programs, data.path(), history).await?,
                    );
                }
                Ok(report)
            }
        }
    }

    async fn paced(&self, report: Report, programs: &Programs, plan: paced::Plan) -> anyhow::Result<Report> {
        let plan = Rc::new(plan);
        self.on_both(report, programs, async |target, server| {
            paced::run(target, server, &plan).await
        })
        .await
    }

    async fn closed(&self, name: &str, programs: &Programs, sight: Sight) -> anyhow::Result<Report> {
        let base = Base::empty_text()?;
        let edits = Edits::prepare(&base, 4, CLOSED_EDITS_PER_S * self.seconds as usize, sight);
        let plan = Rc::new(closed::Plan {
            rooms: 50,
            seconds: self.seconds,
            sight,
            base,
            edits,
        });
        let eyes = match sight {
            Sight::Apart => "who never see each other's edits".to_owned(),
            Sight::Behind(behind) => format!("who see each other's edits but the last {behind}"),
        };
        let about = format!("50 rooms of 4 writers {eyes}, closed loop, {} s", self.seconds);
        let report = Report::new(name, about);
        self.on_both(report, programs, async |target, server| {
            closed::run(target, server, &plan).await
        })
        .await
    }

    /// Every run: a synced append measured alone, then the relay, then Syncline, each in a fresh process.
    async fn on_both(
        &self,
        mut report: Report,
        programs: &Programs,
        run: impl AsyncFn(Target, &process::Server) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Report> {
        for _ in 0..self.runs {
            report.add(BESIDE, disk::synced_appends(&self.out)?);
            for target in TARGETS {
                let data = tempfile::tempdir_in(&self.out)?;
                let server = programs.start(target, data.path())?;
                let sample = run(target, &server).await?;
                report.add(target.name(), sample);
                server.stop().await?;
            }
        }
        add_sum(
            &mut report,
            "p50_ms",
            "synced_append_p50_ms",
            "p50_over_relay_and_append",
        );
        add_sum(
            &mut report,
            "p99_ms",
            "synced_append_p99_ms",
            "p99_over_relay_and_append",
        );
        Ok(report)
    }
}

/// How Syncline's latency stands to the relay's and a synced append's together.
fn add_sum(report: &mut Report, latency: &'static str, append: &'static str, name: &'static str) {
    let medians = [
        report.median(Target::Syncline.name(), latency),
        report.median(Target::Relay.name(), latency),
        report.median(BESIDE, append),
    ];
    if let [Some(ours), Some(relay), Some(append)] = medians {
        report.add(BESIDE, vec![(name, ours / (relay + append))]);
    }
}

fn paced_plan(base: Base, members: usize, writers: usize, per_second: u32, seconds: u32) -> paced::Plan {
    let count = (per_second * seconds) as usize;
    let edits = Edits::prepare(&base, writers, count, Sight::Apart);
    paced::Plan {
        members,
        per_second,
        count,
        base,
        edits,
    }
}

/// Stores what the writers begin from, in large edits, and leaves.
async fn store_base(address: SocketAddr, document: &str, base: &Base) -> anyhow::Result<()> {
    let mut link = Link::greet(address, Vec::new()).await?;
    link.open(document, None, Vec::new()).await?;
    for (id, changes) in batches(&base.changes).enumerate() {
        link.store(id as u64, changes).await?;
    }
    Ok(())
}

fn batches(changes: &[Bytes]) -> impl Iterator<Item = &[Bytes]> {
    let mut rest = changes;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = rest.iter().take(LOAD_EDIT_CHANGES).take_while(|change| {
            bytes += change.len();
            bytes <= LOAD_EDIT_BYTES
        });
        let count = fits.count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}
