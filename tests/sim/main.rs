//! The simulator: Syncline in virtual time, from one seed.
//!
//! Real wire bytes go through the server's sessions, rooms, outboxes and storage and through the Rust client's core; the
//! simulator plays what lies around them (the room's task, the connection, the writer, the network, the disk) in one queue
//! ordered by time and sequence. `world` is the queue, `plan` what a seed stands for, `faults` what goes wrong, `audit` and
//! `checks` what must hold all the same.
//!
//! `cargo test --test sim` runs the regressions, 300 seeds, the mutations, and the same seed in two processes;
//! `cargo test --test sim -- --seeds 10000` runs more seeds, `--first 5000` other ones; `--seed 42` replays one run and
//! prints what happens in it, with `--mutation NAME` under a built-in fault.

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
mod suite;
mod trace;
mod work;
mod world;
mod writer;

use std::process::ExitCode;
use world::Mutation;

/// Seeds of an ordinary test run.
const SEEDS: u64 = 300;

/// What the command line asks for.
enum Asked {
    Suite {
        first: u64,
        seeds: u64,
    },
    Replay {
        seed: u64,
        mutation: Mutation,
    },
    /// The hash of one run's trace, for a comparison with another process.
    Hash {
        seed: u64,
    },
    /// A test runner asks for names: there are none.
    Nothing,
}

fn main() -> ExitCode {
    let succeeded = match asked(std::env::args().skip(1)) {
        Asked::Suite { first, seeds } => suite::run(first, seeds),
        Asked::Replay { seed, mutation } => suite::replay(seed, mutation),
        Asked::Hash { seed } => {
            println!("{:016x}", suite::quietly(seed, Mutation::None).hash);
            true
        }
        Asked::Nothing => true,
    };
    ExitCode::from(u8::from(!succeeded))
}

/// Reads the arguments; those of Rust's own test harness that mean nothing here are ignored.
fn asked(mut arguments: impl Iterator<Item = String>) -> Asked {
    let (mut first, mut seeds, mut mutation, mut seed) = (1, SEEDS, Mutation::None, None);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        let number = |text: String| text.parse().unwrap_or_else(|_| panic!("{text} is not a number"));
        match argument.as_str() {
            "--seed" => seed = Some(number(value())),
            "--hash" => return Asked::Hash { seed: number(value()) },
            "--seeds" => seeds = number(value()),
            "--first" => first = number(value()),
            "--mutation" => {
                let name = value();
                let found = Mutation::ALL.iter().find(|mutation| format!("{mutation:?}") == name);
                mutation = *found.unwrap_or_else(|| panic!("the mutations are {:?}", Mutation::ALL));
            }
            "--list" => return Asked::Nothing,
            _ => {}
        }
    }
    match seed {
        Some(seed) => Asked::Replay { seed, mutation },
        None => Asked::Suite { first, seeds },
    }
}
