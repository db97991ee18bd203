//! The gate and the op index, from outside: every rule, every bomb, real histories, and the proof that what the gate vouches
//! for merges, saves and loads.

mod forge;
mod history;
mod honest;
mod oracle;
mod proof;
mod rng;
mod scene;

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
#[allow(
    clippy::disallowed_methods,
    reason = "the one place where these tests read the environment"
)]
pub(crate) fn cases(default: usize) -> usize {
    match std::env::var("SYNCLINE_GATE_CASES") {
        Ok(cases) => cases.parse().expect("SYNCLINE_GATE_CASES is a number"),
        Err(_) => default,
    }
}
