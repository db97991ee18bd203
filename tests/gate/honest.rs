//! Every honest change passes.

use crate::{
    decoded,
    history::{Style, history},
    rng::Rng,
    somebody,
};
use automerge::Change;
use serde_json::Value;
use syncline::engine::{
    gate::{self, Verdict},
    index::Index,
};
use syncline_protocol::Limits;

/// Takes a log through the gate into an index, and says how many changes were vouched for.
pub(crate) fn admit_all<'a>(index: &mut Index, log: impl IntoIterator<Item = &'a Change>) -> usize {
    let mut vouched = 0;
    for (at, change) in log.into_iter().enumerate() {
        let decoded =
            decoded(change.raw_bytes()).unwrap_or_else(|refusal| panic!("change {at}: {refusal}: {change:?}"));
        match gate::take_in(index, None, &somebody(), &decoded, &Limits::default()) {
            Verdict::Vouched => vouched += 1,
            Verdict::Unvouched => {}
            verdict => panic!("change {at}: {verdict:?}: {:?}", change.decode()),
        }
    }
    vouched
}

#[test]
fn every_honest_change_passes() {
    for seed in 0..80 {
        let rng = &mut Rng::new(seed);
        let style = Style {
            writers: 1 + rng.below(5),
            steps: 20 + rng.below(120),
            marks: seed % 2 == 0,
        };
        let log = history(rng, style);
        let mut index = Index::default();
        let vouched = admit_all(&mut index, &log);
        assert!(vouched == log.len(), "seed {seed}");
        assert_eq!(index.heads().len(), crate::history::document(&log).get_heads().len());
    }
}

/// Made by `javascript.mjs`.
#[test]
fn changes_made_in_javascript_pass() {
    let steps: Value = serde_json::from_str(include_str!("javascript.json")).unwrap();
    let mut index = Index::default();
    for step in steps.as_array().unwrap() {
        let name = step["name"].as_str().unwrap();
        if name == "another document" {
            index = Index::default();
        }
        let hex = step["change"].as_str().unwrap().as_bytes();
        let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        let change = decoded(&hex.chunks(2).map(byte).collect::<Vec<_>>()).unwrap();
        let verdict = gate::take_in(&mut index, None, &somebody(), &change, &Limits::default());
        assert_eq!(verdict, Verdict::Vouched, "{name}");
    }
}
