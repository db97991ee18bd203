//! The trials: what the README promises, tried against the real binary over real sockets, row by row.
//!
//! `trials [--row N]... [--seed N] [--soak MINUTES] [--bite] [--binary BINARY]`. TRIALS.md beside this
//! file explains the rows. In each row the load, the fault and the check are separate pieces: load in [`load`], promises in
//! [`journal`], faults and checks in the row itself or in [`checks`].

#![allow(clippy::print_stdout, reason = "the trials print a report")]

mod checks;
mod client;
mod clock;
mod durability;
mod editor;
#[path = "../gate/forge.rs"]
#[allow(dead_code, reason = "the tests of the gate use more of it")]
mod forge;
#[path = "../gate/history.rs"]
#[allow(dead_code, reason = "the tests of the gate use more of it")]
mod history;
mod hostile;
mod journal;
mod load;
#[path = "../gate/oracle.rs"]
mod oracle;
mod peer;
mod process;
mod report;
#[path = "../gate/rng.rs"]
mod rng;
#[path = "../gate/scene.rs"]
#[allow(dead_code, reason = "the tests of the gate use more of it")]
mod scene;
mod service;
mod token;
mod trial;

use process::Program;
use report::Plan;
use std::{path::PathBuf, process::ExitCode, time::Duration};
use syncline::engine::gate::{self, Decoded, Refusal, Subject};
use syncline_protocol::Limits;
use trial::Row;

/// Every row, in the order of the scorecard.
const ROWS: &[&Row] = &[
    &durability::kill::ROW,
    &durability::syscalls::ROW,
    &durability::power::ROW,
    &durability::churn::ROW,
    &durability::disk::FULL,
    &durability::disk::SYNC,
    &durability::flips::ROW,
    &durability::backup::ROW,
    &service::restart::ROW,
    &service::storm::ROW,
    &hostile::slow::DEAF,
    &hostile::slow::FROZEN,
    &hostile::slow::HANDSHAKES,
    &hostile::conflict::ROW,
    &service::clocks::ROW,
    &hostile::websocket::ROW,
    &hostile::mutants::ROW,
    &hostile::peer_mutants::ROW,
    &hostile::bombs::OPS,
    &hostile::bombs::DEFLATE,
    &hostile::shapes::ROW,
    &hostile::orphans::ROW,
    &service::faults::PANIC,
    &hostile::slow::FLOOD,
    &hostile::access::READER,
    &hostile::access::MATRIX,
    &hostile::access::EXPIRY,
    &hostile::peers::READER,
    &hostile::peers::MATRIX,
    &hostile::peers::EXPIRY,
    &hostile::tokens::ROW,
    &hostile::access::ORIGIN,
    &hostile::tls::ROW,
    &hostile::secrets::ROW,
    &service::scarce::ROW,
    &service::loads::ROW,
    &service::alarm::COMPACTION,
    &service::alarm::UNSYNCED,
    &service::peers::UNSYNCED,
    &service::faults::RESET,
    &service::merging::ROW,
    &service::mixed::ROW,
];

/// The first two steps of the gate.
pub(crate) fn decoded(bytes: &[u8]) -> Result<Decoded, Refusal> {
    gate::decode(gate::read(bytes.to_vec().into(), &Limits::default())?)
}

pub(crate) fn somebody() -> Subject {
    Subject("somebody".into())
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut plan = Plan {
        program: Program::at(PathBuf::from(env!("CARGO_BIN_EXE_syncline"))),
        failpoints: Some(PathBuf::from(env!("CARGO_BIN_EXE_syncline"))),
        seed: 1,
        soak: None,
    };
    let (mut chosen, mut biting) = (Vec::new(), false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--row" => chosen.push(value()),
            "--seed" => plan.seed = value().parse().expect("--seed is a number"),
            "--soak" => {
                let minutes: u64 = value().parse().expect("--soak is a number of minutes");
                plan.soak = Some(Duration::from_secs(60 * minutes));
            }
            "--bite" => biting = true,
            // A row starts this program itself.
            durability::churn::ARGUMENT => return durability::churn::churn(&value()),
            "--binary" => plan.program.path = PathBuf::from(value()),
            other => panic!("unknown argument {other}"),
        }
    }
    let is_chosen = |row: &&Row| chosen.is_empty() || chosen.iter().any(|number| number == row.number);
    let rows: Vec<&Row> = ROWS.iter().copied().filter(is_chosen).collect();
    assert!(!rows.is_empty(), "there is no such row");
    println!("seed {}; repeat a row with --row N --seed SEED", plan.seed);
    let good = if biting {
        report::bite(&rows, &plan)
    } else {
        report::run(&rows, &plan)
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
