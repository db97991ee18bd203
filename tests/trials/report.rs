//! Runs rows one after another and says what came of each, as a table.

use crate::{
    clock::{self, Moment},
    process::Program,
    trial::{Bite, Figure, Outcome, Row, Trial, Trouble},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

/// What was asked for on the command line.
pub(crate) struct Plan {
    pub(crate) program: Program,
    pub(crate) failpoints: Option<PathBuf>,
    pub(crate) seed: u64,
    /// In a long run: how long all rows together may take.
    pub(crate) soak: Option<Duration>,
}

/// One line of the table.
struct Line {
    row: &'static str,
    name: String,
    count: String,
    target: &'static str,
    figure: String,
    verdict: &'static str,
    seconds: f64,
}

/// Runs all rows. Whether none failed.
pub(crate) fn run(rows: &[&Row], plan: &Plan) -> bool {
    let begun = clock::now();
    let mut lines = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        // What is left of the time is shared by the rows that are left.
        let share = plan.soak.map(|whole| {
            let left = whole.saturating_sub(begun.elapsed());
            clock::now().plus(left / u32::try_from(rows.len() - place).unwrap_or(1))
        });
        let count = if plan.soak.is_some() { row.soak } else { row.ci };
        let (outcome, seconds) = attempt(row, plan, count, share, &[], plan.seed);
        lines.push(line(row, outcome, seconds));
        println!("{}", brief(&lines[lines.len() - 1]));
    }
    print(&lines);
    lines.iter().all(|line| line.verdict != "FAIL")
}

/// Runs each row against each server that breaks what it is about, where it must fail. Whether all did.
pub(crate) fn bite(rows: &[&Row], plan: &Plan) -> bool {
    let mut lines = Vec::new();
    for row in rows {
        for bite in row.bites {
            let (outcome, seconds) = attempt(row, plan, bite.count, None, bite.environment, plan.seed);
            lines.push(bitten(row, bite, outcome, seconds));
            println!("{}", brief(&lines[lines.len() - 1]));
        }
    }
    print(&lines);
    lines.iter().all(|line| line.verdict != "PASSED")
}

fn attempt(
    row: &Row,
    plan: &Plan,
    count: u64,
    until: Option<Moment>,
    environment: &[(&str, &str)],
    seed: u64,
) -> (Outcome, f64) {
    let scratch = tempfile::tempdir().expect("a directory");
    let mut program = plan.program.clone();
    if !environment.is_empty() {
        let failpoints = plan.failpoints.clone();
        program.path = failpoints.unwrap_or(program.path);
    }
    program.environment.extend(
        environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let trial = Trial {
        count,
        seed,
        until,
        program,
        failpoints: plan.failpoints.clone(),
        scratch: scratch.path().to_owned(),
    };
    let begun = clock::now();
    let outcome = catch_unwind(AssertUnwindSafe(|| (row.run)(&trial)));
    let outcome = outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        Err(Trouble::Failed(format!(
            "the trial panicked: {}",
            text.unwrap_or_default()
        )))
    });
    if matches!(outcome, Err(Trouble::Failed(_))) && environment.is_empty() {
        keep(scratch.path());
        // What is to be looked at stays.
        let kept = scratch.keep();
        println!("  kept: {}", kept.display());
    }
    (outcome, begun.elapsed().as_secs_f64())
}

/// Shows the ends of the logs of a row that failed.
fn keep(scratch: &Path) {
    let files = std::fs::read_dir(scratch).into_iter().flatten().flatten();
    for path in files
        .map(|file| file.path())
        .filter(|path| path.extension().is_some_and(|end| end == "log"))
    {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        for line in &lines[lines.len().saturating_sub(5)..] {
            println!("  {}: {line}", path.file_name().unwrap_or_default().to_string_lossy());
        }
    }
}

fn line(row: &Row, outcome: Outcome, seconds: f64) -> Line {
    let (count, figure, verdict) = match outcome {
        Ok(Figure { count, text }) => (count.to_string(), text, "pass"),
        Err(Trouble::Failed(text)) => (String::new(), text, "FAIL"),
        Err(Trouble::Missed { figure, reason }) => (String::new(), format!("{figure}: {reason}"), "MISS"),
        Err(Trouble::Skipped(text)) => (String::new(), text, "skipped"),
    };
    Line {
        row: row.number,
        name: row.name.to_owned(),
        count,
        target: row.target,
        figure,
        verdict,
        seconds,
    }
}

fn bitten(row: &Row, bite: &Bite, outcome: Outcome, seconds: f64) -> Line {
    let (figure, verdict) = match outcome {
        Err(Trouble::Failed(text)) => (text, "bites"),
        Err(Trouble::Skipped(text)) => (text, "skipped"),
        Err(Trouble::Missed { figure, .. }) => (figure, "PASSED"),
        Ok(Figure { text, .. }) => (text, "PASSED"),
    };
    Line {
        row: row.number,
        name: format!("{}, {}", row.name, bite.name),
        count: bite.count.to_string(),
        target: "must fail",
        figure,
        verdict,
        seconds,
    }
}

fn brief(line: &Line) -> String {
    let Line {
        row,
        name,
        figure,
        verdict,
        seconds,
        ..
    } = line;
    format!("{verdict:>7}  {row:>3}  {name}: {figure} ({seconds:.1} s)")
}

fn print(lines: &[Line]) {
    println!("\n| row | trial | count | target | figure | verdict | seconds |\n|---|---|---|---|---|---|---|");
    for line in lines {
        let Line {
            row,
            name,
            count,
            target,
            figure,
            verdict,
            seconds,
        } = line;
        println!("| {row} | {name} | {count} | {target} | {figure} | {verdict} | {seconds:.1} |");
    }
}
