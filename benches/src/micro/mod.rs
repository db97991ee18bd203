//! The parts one by one, without sockets: codec, gate and index, merge, opening, store.

mod codec;
mod gate;
mod open;
mod store;

use crate::{
    clock::{ms_since, now},
    report::{Report, Sample},
};
use std::{io::Write, path::PathBuf};

/// What a timing loop takes at least.
const ROUND_MS_MIN: f64 = 20.0;

/// How often.
#[derive(Debug, clap::Args)]
pub(crate) struct Micro {
    /// Runs of each bench; medians are printed
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Operations in the document before the bench; 0 is the whole recording
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 0])]
    ops: Vec<usize>,
    /// Where the store and the JSON files with all figures go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

impl Micro {
    /// Runs all of them.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.out)?;
        self.bench("micro-codec", "one keystroke per change", codec::run)?;
        for ops in &self.ops {
            let course = gate::Course::new((*ops > 0).then_some(*ops))?;
            let name = format!("micro-gate-{}", course.ops());
            self.bench(&name, course.about(), || course.run())?;
        }
        let stored = open::Stored::new(&self.out)?;
        self.bench("micro-open", stored.about(), || stored.run())?;
        self.bench("micro-store", "one keystroke per append, one sync per group", || {
            store::run(&self.out)
        })
    }

    fn bench(&self, name: &str, about: &str, run: impl Fn() -> anyhow::Result<Sample>) -> anyhow::Result<()> {
        let mut report = Report::new(name, about.to_owned());
        for _ in 0..self.runs {
            report.add("syncline", run()?);
        }
        writeln!(std::io::stdout(), "{}", report.table())?;
        report.write(&self.out)
    }
}

/// Microseconds per call.
fn each_us(mut call: impl FnMut()) -> f64 {
    let mut calls = 1;
    loop {
        let start = now();
        for _ in 0..calls {
            call();
        }
        let took_ms = ms_since(start);
        if took_ms >= ROUND_MS_MIN {
            return took_ms * 1_000.0 / f64::from(calls);
        }
        calls *= 2;
    }
}

/// What `call` returns, and how many microseconds it took.
fn once_us<T>(call: impl FnOnce() -> T) -> (T, f64) {
    let start = now();
    let result = call();
    (result, ms_since(start) * 1_000.0)
}
