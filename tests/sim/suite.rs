//! What an ordinary run of the simulator proves, one step after another: the regressions hold, many seeds hold and contained
//! what they are to contain, every built-in fault is found, and a seed gives one trace.

use crate::{
    coverage::Coverage,
    regressions::REGRESSIONS,
    world::{self, Mutation, Outcome},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};
use syncline::server::clock::Clock;

/// Seeds that a built-in fault may take until it is found.
const MUTATION_SEEDS_MAX: u64 = 1_500;
/// The least number of seeds that are expected to contain everything.
const COVERED_SEEDS_MIN: u64 = 100;
/// The seeds whose traces are compared between processes.
const COMPARED: [u64; 2] = [7, 8];

/// Answers with a report, of what held or of what did not.
type Step<'a> = dyn Fn() -> Result<String, String> + 'a;

/// Runs everything. Whether all of it holds.
pub(crate) fn run(first: u64, seeds: u64) -> bool {
    silence_panics();
    let clock = Clock::start();
    let steps: [(&str, &Step<'_>); 4] = [
        ("regressions", &regressions),
        ("seeds", &|| many(first, seeds)),
        ("mutations", &mutations),
        ("determinism", &determinism),
    ];
    let mut succeeded = true;
    for (name, step) in steps {
        let began_ms = clock.monotonic_ms();
        let result = step();
        let took_ms = clock.monotonic_ms() - began_ms;
        let (word, report) = match &result {
            Ok(report) => ("ok", report),
            Err(report) => ("FAILED", report),
        };
        println!("simulator: {name} ... {word} ({took_ms} ms)\n{report}");
        succeeded &= result.is_ok();
    }
    succeeded
}

/// Runs one seed and prints all that happens. Whether every promise was kept.
pub(crate) fn replay(seed: u64, mutation: Mutation) -> bool {
    let Outcome {
        hash,
        coverage,
        violation,
    } = world::run(seed, mutation, true);
    println!("{}trace {hash:016x}", table(&coverage));
    match &violation {
        Some(what) => println!("seed {seed}: {what}"),
        None => println!("seed {seed}: every promise was kept"),
    }
    violation.is_none()
}

/// Runs one seed without printing; a panic is a broken promise, too.
pub(crate) fn quietly(seed: u64, mutation: Mutation) -> Outcome {
    let run = AssertUnwindSafe(|| world::run(seed, mutation, false));
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Outcome {
            hash: 0,
            coverage: Coverage::default(),
            violation: Some(format!("panicked: {}", text.unwrap_or_default())),
        }
    })
}

/// Automerge's panics are caught by those who expect them, and ours are reported with their seed.
fn silence_panics() {
    std::panic::set_hook(Box::new(|_| {}));
}

fn regressions() -> Result<String, String> {
    for regression in REGRESSIONS {
        if let Some(what) = quietly(regression.seed, Mutation::None).violation {
            return Err(format!("seed {} ({}): {what}", regression.seed, regression.found));
        }
    }
    Ok(format!("{} seeds that once found something\n", REGRESSIONS.len()))
}

fn many(first: u64, seeds: u64) -> Result<String, String> {
    let (mut total, mut broken) = (Coverage::default(), Vec::new());
    for seed in first..first + seeds {
        let Outcome {
            coverage, violation, ..
        } = quietly(seed, Mutation::None);
        total.add(&coverage);
        broken.extend(violation.map(|what| format!("seed {seed}: {what}\n")));
    }
    let report = format!("{seeds} seeds from {first}\n{}", table(&total));
    let missing: Vec<&str> = match seeds >= COVERED_SEEDS_MIN {
        true => total
            .counters()
            .into_iter()
            .filter(|(_, count)| *count == 0)
            .map(|(name, _)| name)
            .collect(),
        false => Vec::new(),
    };
    match (broken.is_empty(), missing.is_empty()) {
        (true, true) => Ok(report),
        (true, false) => Err(format!("{report}these never happened: {missing:?}\n")),
        (false, _) => Err(format!("{report}{}{} seeds failed\n", broken.concat(), broken.len())),
    }
}

/// Every built-in fault breaks a promise within a few seeds.
fn mutations() -> Result<String, String> {
    let mut report = String::new();
    for mutation in Mutation::ALL {
        let found = (1..=MUTATION_SEEDS_MAX)
            .find_map(|seed| quietly(seed, mutation).violation.map(|violation| (seed, violation)));
        match found {
            Some((seed, what)) => report.push_str(&format!("{mutation:?}: found by seed {seed}: {what}\n")),
            None => return Err(format!("{mutation:?} is not found by {MUTATION_SEEDS_MAX} seeds\n")),
        }
    }
    Ok(report)
}

/// The same seed gives the same trace in every process, another seed another.
fn determinism() -> Result<String, String> {
    let executable = std::env::current_exe().map_err(|error| format!("who am I? {error}\n"))?;
    let hash = |seed: u64| {
        let output = Command::new(&executable).arg("--hash").arg(seed.to_string()).output();
        let output = output.map_err(|error| format!("a second process does not start: {error}\n"))?;
        let text = String::from_utf8(output.stdout).map_err(|_| "a hash is text\n".to_owned())?;
        Ok::<String, String>(text.trim().to_owned())
    };
    let [one, other] = COMPARED;
    let (first, second, third) = (hash(one)?, hash(one)?, hash(other)?);
    let here = format!("{:016x}", quietly(one, Mutation::None).hash);
    if first != second || first != here {
        return Err(format!("seed {one} gives {first}, {second} and {here}\n"));
    }
    if first == third {
        return Err(format!("seeds {one} and {other} both give {first}\n"));
    }
    Ok(format!(
        "seed {one} gives {first} three times, seed {other} gives {third}\n"
    ))
}

fn table(coverage: &Coverage) -> String {
    let counters = coverage.counters();
    let lines = counters.chunks(4).map(|chunk| {
        let cells = chunk.iter().map(|(name, count)| format!("{name:>20} {count:<9}"));
        format!("{}\n", cells.collect::<String>().trim_end())
    });
    lines.collect()
}
