//! The gate and the op index, from outside: every rule, every bomb, real histories, and the proof that what the gate vouches
//! for merges, saves and loads.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test stops when it cannot go on, and says what it counted"
)]

mod bombs;
mod forge;
mod history;
mod honest;
mod index;
mod oracle;
mod proof;
mod rng;
mod rules;
mod scene;
mod texts;
mod traces;
mod whole;

use std::path::{Path, PathBuf};
use syncline::engine::{
    document::Document,
    gate::{self, Decoded, Refusal, Subject, Verdict},
    index::Index,
};
use syncline_protocol::Limits;

/// The first two steps.
pub(crate) fn decoded(bytes: &[u8]) -> Result<Decoded, Refusal> {
    gate::decode(gate::read(bytes.to_vec().into(), &Limits::default())?)
}

/// All three steps, for somebody.
pub(crate) fn verdict(index: &Index, document: Option<&Document>, bytes: &[u8]) -> Verdict {
    match decoded(bytes) {
        Ok(change) => gate::check(index, document, &somebody(), &change, &Limits::default()),
        Err(refusal) => Verdict::Refused(refusal),
    }
}

pub(crate) fn somebody() -> Subject {
    Subject("somebody".into())
}

/// How many cases each proof runs: `SYNCLINE_GATE_CASES`, or what fits in an ordinary test run.
pub(crate) fn cases(default: usize) -> usize {
    match variable("SYNCLINE_GATE_CASES") {
        Some(cases) => cases.parse().expect("SYNCLINE_GATE_CASES is a number"),
        None => default,
    }
}

/// Where the editing traces lie: `SYNCLINE_TRACES`, or beside the repository.
pub(crate) fn traces_directory() -> PathBuf {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/traces");
    variable("SYNCLINE_TRACES").map_or_else(beside, PathBuf::from)
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place where these tests read the environment"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Runs it, and says how many microseconds it took.
#[allow(clippy::disallowed_methods, reason = "the one place where these tests read a clock")]
pub(crate) fn stopwatch<T>(run: impl FnOnce() -> T) -> (T, u64) {
    let begin = std::time::Instant::now();
    let result = run();
    (result, begin.elapsed().as_micros() as u64)
}
