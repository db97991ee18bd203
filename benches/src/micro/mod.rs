//! The parts one by one, without sockets: codec, gate and index, merge, opening, store. Timed by Criterion, which compares with the
//! run before; sizes, which need no statistics, are printed once.

mod codec;
mod gate;
mod open;
mod store;

use crate::report::{Report, Sample};
use criterion::Criterion;
use std::{io::Write, path::PathBuf, time::Duration};

const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
/// Samples of what takes milliseconds; of the rest Criterion takes its hundred.
const FEW_SAMPLES: usize = 10;

/// Which of them, compared with what.
#[derive(Debug, clap::Args)]
pub(crate) struct Micro {
    /// Only those whose names contain this, such as `gate/` or `store`
    filter: Option<String>,
    /// Operations in the document before the bench; 0 is the whole recording
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 0])]
    ops: Vec<usize>,
    /// Keeps the figures under this name
    #[arg(long, conflicts_with = "baseline")]
    save_baseline: Option<String>,
    /// Compares with the figures of this name instead of the last run's
    #[arg(long)]
    baseline: Option<String>,
    /// Where the store and the sizes go
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

impl Micro {
    /// Runs them.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.out)?;
        let mut criterion = self.criterion();
        self.sizes("micro-codec", "one keystroke per change", codec::run(&mut criterion)?)?;
        for ops in &self.ops {
            let course = gate::Course::new((*ops > 0).then_some(*ops))?;
            let sizes = course.run(&mut criterion)?;
            self.sizes(&format!("micro-gate-{}", course.ops()), course.about(), sizes)?;
        }
        let stored = open::Stored::new(&self.out)?;
        self.sizes("micro-open", stored.about(), stored.run(&mut criterion)?)?;
        store::run(&mut criterion, &self.out)?;
        criterion.final_summary();
        Ok(())
    }

    fn criterion(&self) -> Criterion {
        let criterion = Criterion::default()
            .without_plots()
            .warm_up_time(WARM_UP)
            .measurement_time(MEASURED);
        let criterion = match &self.filter {
            Some(filter) => criterion.with_filter(filter),
            None => criterion,
        };
        match (&self.save_baseline, &self.baseline) {
            (Some(name), _) => criterion.save_baseline(name.clone()),
            (None, Some(name)) => criterion.retain_baseline(name.clone(), true),
            (None, None) => criterion,
        }
    }

    fn sizes(&self, name: &str, about: &str, sizes: Sample) -> anyhow::Result<()> {
        let mut report = Report::new(name, about.to_owned());
        report.add("syncline", sizes);
        writeln!(std::io::stdout(), "{}", report.table())?;
        report.write(&self.out)
    }
}
