//! Syncline and its rivals under the same load, and the table in the README.

mod cold;
mod table;

use super::{
    CLOSED_EDITS_PER_S, closed, idle, paced, paced_plan,
    process::{Programs, Server},
    target::Target,
};
use crate::{
    edits::{Base, Edits, Sight},
    history::History,
    report::Sample,
    yjs,
};
use anyhow::Context;
use cold::Paper;
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    rc::Rc,
    time::Duration,
};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// 1 room, 10 members, 2 writers with 25 edits/s each
    Latency,
    /// 1 writer with 50 edits/s, 200 observers
    Fanout,
    /// 50 rooms of 4 writers, each with one edit outstanding
    Throughput,
    /// 2,000 connections in rooms of 10 that do nothing
    Idle,
    /// A long document joined right after a restart, and by a client 1,000 edits behind
    Join,
}

const ALL: [Kind; 5] = [Kind::Latency, Kind::Fanout, Kind::Throughput, Kind::Idle, Kind::Join];
const TARGETS: [Target; 7] = [
    Target::Relay,
    Target::Syncline,
    Target::Hocuspocus,
    Target::YWebsocket,
    Target::YSweet,
    Target::AutomergeRepo,
    Target::Samod,
];
const OBSERVERS: usize = 200;
/// One run of one server takes no longer, or it is given up: taking the long document in and compacting it takes longest.
const RUN_MAX: Duration = Duration::from_secs(240);

/// What to compare, and how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Compare {
    /// Which workloads; all of them if none is named
    workloads: Vec<Kind>,
    /// Which servers; all of them if none is named
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Target>,
    /// Runs of each; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds of load in each run
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Connections in the idle workload
    #[arg(long, default_value_t = 2_000)]
    connections: usize,
    /// Use only so many keystrokes of the long document
    #[arg(long)]
    keystrokes: Option<usize>,
    /// The syncline binary
    #[arg(long, default_value = "target/release/syncline")]
    syncline: PathBuf,
    /// Where stores, logs and figures go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
    /// The file whose table is written, where everything was compared
    #[arg(long)]
    readme: Option<PathBuf>,
}

/// What came of all runs: figures, or why there are none.
#[derive(Default)]
struct Results {
    figures: BTreeMap<(Kind, Target, &'static str), Vec<f64>>,
    failures: BTreeMap<(Kind, Target), String>,
}

/// The same load in each server's own terms.
struct Plans<P> {
    automerge: Rc<P>,
    yjs: Rc<P>,
}

impl Compare {
    /// Runs what was asked for.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.out)?;
        let programs = Programs::find(self.syncline.clone(), self.out.join("compare.log"))?;
        let kinds = if self.workloads.is_empty() {
            &ALL[..]
        } else {
            &self.workloads
        };
        let targets = if self.servers.is_empty() {
            TARGETS.to_vec()
        } else {
            self.servers.clone()
        };
        let mut results = Results::default();
        for kind in kinds {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, self.compare(*kind, &targets, &programs, &mut results))?;
            table::write(&self.out, &results, kinds, &targets)?;
        }
        let notes = table::notes(&programs, &targets, self.runs, self.seconds)?;
        let text = format!("{}\n{notes}", table::markdown_of(&results, kinds, &targets));
        writeln!(std::io::stdout(), "\n{text}")?;
        std::fs::write(self.out.join("COMPARE.md"), &text)?;
        match &self.readme {
            Some(readme) => table::put_into(readme, &text),
            None => Ok(()),
        }
    }

    async fn compare(
        &self,
        kind: Kind,
        targets: &[Target],
        programs: &Programs,
        results: &mut Results,
    ) -> anyhow::Result<()> {
        match kind {
            Kind::Latency => {
                let plans = self.paced_plans(10, 2, 25)?;
                self.on_servers(kind, targets, programs, results, async |target, server| {
                    paced::run(target, server, plans.of(target)).await
                })
                .await
            }
            Kind::Fanout => {
                let plans = self.paced_plans(1 + OBSERVERS, 1, 50)?;
                self.on_servers(kind, targets, programs, results, async |target, server| {
                    paced::run(target, server, plans.of(target)).await
                })
                .await
            }
            Kind::Throughput => {
                let plans = self.closed_plans()?;
                self.on_servers(kind, targets, programs, results, async |target, server| {
                    closed::run(target, server, plans.of(target)).await
                })
                .await
            }
            Kind::Idle => {
                self.on_servers(kind, targets, programs, results, async |target, server| {
                    idle::run(target, server, self.connections).await
                })
                .await
            }
            Kind::Join => {
                let history = History::paper(self.keystrokes)?;
                let paper = Paper::prepare(&history, programs, &self.out)?;
                // A relay has no document.
                let targets: Vec<_> = targets
                    .iter()
                    .copied()
                    .filter(|target| *target != Target::Relay)
                    .collect();
                self.each(kind, &targets, results, async |target, data| {
                    cold::run(programs, target, data, &history, &paper).await
                })
                .await
            }
        }
    }

    /// As [`Compare::each`], each time on a server of its own.
    async fn on_servers(
        &self,
        kind: Kind,
        targets: &[Target],
        programs: &Programs,
        results: &mut Results,
        run: impl AsyncFn(Target, &Server) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<()> {
        self.each(kind, targets, results, async |target, data| {
            let server = programs.start(target, data)?;
            let sample = run(target, &server).await?;
            server.stop().await?;
            Ok(sample)
        })
        .await
    }

    /// Every server in turn, as often as asked for. One that fails is noted, and the others go on.
    async fn each(
        &self,
        kind: Kind,
        targets: &[Target],
        results: &mut Results,
        run: impl AsyncFn(Target, &Path) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<()> {
        for number in 1..=self.runs {
            for target in targets {
                let data = tempfile::tempdir_in(&self.out)?;
                let ended = tokio::time::timeout(RUN_MAX, run(*target, data.path())).await;
                let what = match ended.context("it took too long").and_then(|ended| ended) {
                    Ok(sample) => {
                        for (name, value) in sample {
                            results.figures.entry((kind, *target, name)).or_default().push(value);
                        }
                        "done".to_owned()
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        results.failures.insert((kind, *target), error.clone());
                        error
                    }
                };
                writeln!(std::io::stdout(), "{kind:?}, run {number}, {}: {what}", target.name())?;
            }
        }
        Ok(())
    }

    fn paced_plans(&self, members: usize, writers: usize, per_second: u32) -> anyhow::Result<Plans<paced::Plan>> {
        let count = (per_second * self.seconds) as usize;
        Ok(Plans {
            automerge: Rc::new(paced_plan(
                Base::empty_text()?,
                members,
                writers,
                per_second,
                self.seconds,
            )),
            yjs: Rc::new(paced::Plan {
                members,
                per_second,
                count,
                base: Base::of_yjs(None),
                edits: yjs::prepare(None, writers, count),
            }),
        })
    }

    fn closed_plans(&self) -> anyhow::Result<Plans<closed::Plan>> {
        let (base, count) = (Base::empty_text()?, CLOSED_EDITS_PER_S * self.seconds as usize);
        let edits = Edits::prepare(&base, 4, count, Sight::Apart);
        let plan = |base, edits| {
            Rc::new(closed::Plan {
                rooms: 50,
                seconds: self.seconds,
                sight: Sight::Apart,
                base,
                edits,
            })
        };
        Ok(Plans {
            automerge: plan(base, edits),
            yjs: plan(Base::of_yjs(None), yjs::prepare(None, 4, count)),
        })
    }
}

impl<P> Plans<P> {
    fn of(&self, target: Target) -> &Rc<P> {
        match target.yjs() {
            Some(_) => &self.yjs,
            None => &self.automerge,
        }
    }
}
