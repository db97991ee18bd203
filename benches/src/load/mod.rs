//! The load generator: the same workloads on the relay and on Syncline, in turn, and the ratio between them.

mod closed;
mod compare;
mod disk;
mod idle;
mod join;
mod lengths;
mod many;
mod paced;
mod peer;
mod presence;
mod process;
mod socket;
mod target;
mod ysync;

use crate::{
    edits::{Base, Edits, Sight},
    history::History,
    report::{BESIDE, Report, Sample},
};
pub(crate) use compare::Compare;
pub(crate) use disk::Appends;

use anyhow::Context;
use bytes::Bytes;
use process::Programs;
use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};
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
    /// The same with 1,500 observers
    FanoutWide,
    /// 1 room, 100 members, each a writer with 10 edits/s
    Crowd,
    /// 50 rooms of 4 writers, each sends its next edit when the last is acknowledged; nobody sees the others' edits in time
    Throughput,
    /// As throughput, but the writers see each other's edits
    Seen,
    /// 2,000 connections in rooms of 10 that do nothing
    Idle,
    /// The same over TLS, Syncline alone
    Tls,
    /// 500 members who say 5 times a second where they are, and 2 writers with 25 edits/s
    Presence,
    /// Take a long document in, join it cold after a restart, by 500 at once, resync a client 1,000 edits behind
    Join,
    /// 100,000 stored documents, 1,000 of them opened per second, and a start after a stop and after a kill
    Many,
    /// One writer, and two, in documents of 1,000 to 1,000,000 operations; takes long, so it is only run when it is named
    History,
}

/// What is run if nothing is named.
const ALL: [Workload; 12] = [
    Workload::Latency,
    Workload::Fanout,
    Workload::FanoutWide,
    Workload::Crowd,
    Workload::Throughput,
    Workload::Seen,
    Workload::Idle,
    Workload::Tls,
    Workload::Presence,
    Workload::Join,
    Workload::Long,
    Workload::Many,
];
/// Longer than the longest run takes, which is a million changes taken in and merged.
const RUN_MAX: Duration = Duration::from_secs(15 * 60);
const OBSERVERS_MANY: usize = 1_500;
const PRESENT: usize = 500;

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
    /// Stored documents in the workload of many
    #[arg(long, default_value_t = 100_000)]
    documents: usize,
    /// How long the documents of the history workload are, shortest first
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000, 259_778, 1_000_000])]
    lengths: Vec<usize>,
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
        let mut results = String::new();
        for workload in workloads {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            let reports = local.block_on(&runtime, self.measure(*workload, &programs, history.as_ref()))?;
            for report in reports {
                let table = report.table();
                writeln!(std::io::stdout(), "{table}")?;
                report.write(&self.out)?;
                results.push_str(&table);
            }
            std::fs::write(self.out.join("RESULTS.md"), results.trim_start())?;
        }
        Ok(())
    }

    async fn measure(
        &self,
        workload: Workload,
        programs: &Programs,
        history: Option<&History>,
    ) -> anyhow::Result<Vec<Report>> {
        let history = || history.context("the history was not read");
        let report = match workload {
            Workload::Latency => self.latency(programs).await,
            Workload::Long => self.long(programs, history()?).await,
            Workload::Fanout => self.fanout("fanout", programs, self.observers).await,
            Workload::FanoutWide => self.fanout("fanout-wide", programs, OBSERVERS_MANY).await,
            Workload::Crowd => {
                let plan = paced_plan(Base::empty_text()?, 100, 100, 10, self.seconds);
                let about = format!("100 members, each a writer with 10 edits/s, {} s", self.seconds);
                self.paced(Report::new("crowd", about), programs, plan).await
            }
            Workload::Throughput => self.closed("throughput", programs, Sight::Apart).await,
            Workload::Seen => self.closed("seen", programs, Sight::Behind(SEEN_BEHIND)).await,
            Workload::Idle => {
                let report = Report::new("idle", format!("{} connections in rooms of 10", self.connections));
                self.on_both(report, programs, Duration::ZERO, async |target, server| {
                    idle::run(target, server, self.connections).await
                })
                .await
            }
            Workload::Tls => {
                let about = format!("{} connections over TLS in rooms of 10", self.connections);
                self.on_syncline(Report::new("tls", about), async |data| {
                    idle::run_tls(programs, data, self.connections).await
                })
                .await
            }
            Workload::Presence => self.presence(programs).await,
            Workload::Join => {
                let history = history()?;
                let about = format!("{}, {} changes", history.name(), history.base.changes.len());
                self.on_syncline(Report::new("join", about), async |data| {
                    join::run(programs, data, history).await
                })
                .await
            }
            Workload::Many => {
                let about = format!("{} stored documents, 1,000 of them opened per second", self.documents);
                self.on_syncline(Report::new("many", about), async |data| {
                    many::run(programs, data, self.documents, 4 * self.seconds).await
                })
                .await
            }
            Workload::History => return self.lengths(programs).await,
        };
        Ok(vec![report?])
    }

    async fn latency(&self, programs: &Programs) -> anyhow::Result<Report> {
        let plan = paced_plan(Base::empty_text()?, 10, 2, 25, self.seconds);
        let about = format!("10 members, 2 writers with 25 edits/s, {} s", self.seconds);
        self.paced(Report::new("latency", about), programs, plan).await
    }

    async fn long(&self, programs: &Programs, history: &History) -> anyhow::Result<Report> {
        let plan = paced_plan(history.base.clone(), 10, 2, 25, self.seconds);
        let about = format!(
            "latency in {}, {} changes; the writers do not see each other, {} s",
            history.name(),
            history.base.changes.len(),
            self.seconds
        );
        self.paced(Report::new("long", about), programs, plan).await
    }

    async fn fanout(&self, name: &str, programs: &Programs, observers: usize) -> anyhow::Result<Report> {
        let plan = paced_plan(Base::empty_text()?, 1 + observers, 1, 50, self.seconds);
        let about = format!("1 writer with 50 edits/s, {observers} observers, {} s", self.seconds);
        self.paced(Report::new(name, about), programs, plan).await
    }

    async fn presence(&self, programs: &Programs) -> anyhow::Result<Report> {
        let plan = Rc::new(paced_plan(Base::empty_text()?, 10, 2, 25, self.seconds));
        let about = format!(
            "{PRESENT} members, each with 5 states/s, and 10 more, 2 of them writers with 25 edits/s, {} s",
            self.seconds
        );
        self.on_syncline(Report::new("presence", about), async |data| {
            let server = programs.start(Target::Syncline, data)?;
            let sample = presence::run(&server, &plan, PRESENT).await?;
            server.stop().await?;
            Ok(sample)
        })
        .await
    }

    /// A report for each length; the first is what the others are compared with.
    async fn lengths(&self, programs: &Programs) -> anyhow::Result<Vec<Report>> {
        let (mut reports, mut shortest) = (Vec::new(), vec![None; self.runs]);
        for length in &self.lengths {
            let history = History::of_length(*length)?;
            let about = format!("{} of {length} operations, {} s", history.name(), self.seconds);
            let mut report = Report::new(&format!("history-{length}"), about);
            for shortest in &mut shortest {
                let data = tempfile::tempdir_in(&self.out)?;
                let run = lengths::run(programs, data.path(), &history, self.seconds, shortest);
                let sample = bounded(run).await?;
                report.add(Target::Syncline.name(), sample);
            }
            reports.push(report);
        }
        Ok(reports)
    }

    async fn paced(&self, report: Report, programs: &Programs, plan: paced::Plan) -> anyhow::Result<Report> {
        let pace = plan.pace();
        let plan = Rc::new(plan);
        self.on_both(report, programs, pace, async |target, server| {
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
        self.on_both(report, programs, Duration::ZERO, async |target, server| {
            closed::run(target, server, &plan).await
        })
        .await
    }

    /// Every run: Syncline alone, on an empty directory.
    async fn on_syncline(
        &self,
        mut report: Report,
        run: impl AsyncFn(&Path) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Report> {
        for _ in 0..self.runs {
            let data = tempfile::tempdir_in(&self.out)?;
            report.add(Target::Syncline.name(), bounded(run(data.path())).await?);
        }
        Ok(report)
    }

    /// Every run: a synced append, at the pace of the edits, then the relay, then Syncline, each alone in a fresh process.
    async fn on_both(
        &self,
        mut report: Report,
        programs: &Programs,
        pace: Duration,
        run: impl AsyncFn(Target, &process::Server) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<Report> {
        for _ in 0..self.runs {
            report.add(BESIDE, disk::synced_appends(programs, &self.out, pace)?);
            for target in TARGETS {
                let data = tempfile::tempdir_in(&self.out)?;
                let server = programs.start(target, data.path())?;
                let sample = bounded(run(target, &server)).await?;
                report.add(target.name(), sample);
                server.stop().await?;
            }
        }
        add_sums(&mut report);
        Ok(report)
    }
}

/// A run, given up when it takes too long: its server ends with it.
async fn bounded(run: impl Future<Output = anyhow::Result<Sample>>) -> anyhow::Result<Sample> {
    let ended = tokio::time::timeout(RUN_MAX, run).await;
    ended.context("a run took longer than any should")?
}

/// How Syncline's latency stands to the relay's and a synced append's together: nobody sees an edit that is not on disk.
fn add_sums(report: &mut Report) {
    let medians = |latency, append| {
        Some([
            report.median(Target::Syncline.name(), latency)?,
            report.median(Target::Relay.name(), latency)?,
            report.median(BESIDE, append)?,
        ])
    };
    let p50 = medians("p50_ms", "synced_append_p50_ms");
    let p99 = medians("p99_ms", "synced_append_p99_ms");
    if let (Some([p50, relay_p50, append_p50]), Some([p99, relay_p99, append_p99])) = (p50, p99) {
        let sample = vec![
            ("p50_less_append_over_relay", (p50 - append_p50) / relay_p50),
            ("p99_over_relay_and_append", p99 / (relay_p99 + append_p99)),
        ];
        report.add(BESIDE, sample);
    }
}

/// One figure of a sample.
fn figure(sample: &Sample, name: &str) -> f64 {
    let found = sample.iter().find(|(figure, _)| *figure == name);
    found.map_or(f64::NAN, |(_, value)| *value)
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
