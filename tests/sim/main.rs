//! The simulator: Syncline in virtual time, from one seed.
//!
//! Real wire bytes go through the server's sessions, rooms, outboxes and storage and through the Rust client's core; the
//! simulator plays what lies around them (the room's task, the connection, the writer, the network, the disk) in one queue
//! ordered by time and sequence. `world` is the queue, `plan` what a seed stands for, `faults` what goes wrong, `audit` and
//! `checks` what must hold all the same.
//!
//! `cargo test --test sim` runs the regressions, 300 seeds, the mutations and the determinism of the trace;
//! `cargo test --test sim -- --seeds 10000` runs more; `--seed 42` replays one run and prints what happens in it.

#![allow(clippy::print_stdout, reason = "a test without a harness prints its own report")]

mod audit;
mod checks;
mod client;
mod connection;
mod coverage;
mod disk;
mod faults;
mod ledger;
mod load;
mod network;
mod plan;
mod random;
mod regressions;
mod room;
mod server;
mod trace;
mod work;
mod world;
mod writer;

use coverage::Coverage;
use std::process::{Command, ExitCode};
use world::{Mutation, Outcome};

fn main() -> ExitCode {
    let mut seeds = 300;
    let mut first = 1;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).expect("a number");
        match argument.as_str() {
            "--seed" => return replay(number()),
            "--hash" => {
                println!("{:016x}", run(number(), Mutation::None, false).hash);
                return ExitCode::SUCCESS;
            }
            "--seeds" => seeds = number(),
            "--first" => first = number(),
            _ => {}
        }
    }
    let (mut total, mut failed) = (Coverage::default(), 0);
    for seed in first..first + seeds {
        let outcome = run(seed, Mutation::None, false);
        total.add(&outcome.coverage);
        if let Some(what) = outcome.violation {
            failed += 1;
            println!("seed {seed}: {what}");
        }
    }
    for (name, count) in total.counters() {
        println!("{name:>20} {count}");
    }
    println!("{failed} of {seeds} failed");
    let _ = Command::new("true");
    ExitCode::from(u8::from(failed > 0))
}

fn replay(seed: u64) -> ExitCode {
    let outcome = world::run(seed, Mutation::None, true);
    println!("{outcome:#?}");
    ExitCode::from(u8::from(outcome.violation.is_some()))
}

/// Runs a seed; a panic is a broken promise, too.
fn run(seed: u64, mutation: Mutation, printed: bool) -> Outcome {
    let run = std::panic::AssertUnwindSafe(|| world::run(seed, mutation, printed));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| Outcome {
        hash: 0,
        coverage: Coverage::default(),
        violation: Some(format!("panicked: {:?}", panic.downcast_ref::<String>())),
    })
}
