//! What is fuzzed. A target takes any bytes and panics if something goes wrong that must not, whatever they are.

mod frames;
mod gate;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the readers of the store stand here as they are, and the store uses more of them"
)]
mod logfile;
mod repo;
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the readers of the store stand here as they are, and the store uses more of them"
)]
mod store;

use serde_json::Value;

/// Something that reads bytes from outside or from the disk.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&[u8]),
    /// What to begin with.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub(crate) const TARGETS: [Target; 4] = [
    Target {
        name: "gate",
        run: gate::run,
        seeds: gate::seeds,
    },
    Target {
        name: "frames",
        run: frames::run,
        seeds: frames::seeds,
    },
    Target {
        name: "repo",
        run: repo::run,
        seeds: repo::seeds,
    },
    Target {
        name: "store",
        run: store::run,
        seeds: store::seeds,
    },
];

/// The frames of a file of `protocol/vectors`.
fn vectors(text: &str) -> Vec<Vec<u8>> {
    let vectors: Vec<Value> = serde_json::from_str(text).expect("the vectors are JSON");
    let frames = vectors.iter().filter_map(|vector| vector["hex"].as_str());
    frames.map(bytes).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits
        .chunks_exact(2)
        .map(|pair| (16 * pair[0] + pair[1]) as u8)
        .collect()
}

/// Behind a byte that says which part of a target reads it.
fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    [&[tag], rest].concat()
}
