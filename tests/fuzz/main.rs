//! What the fuzz targets read, without the fuzzer: their seeds, every input in `found/` that once broke something, and as many
//! mutants of these as an ordinary test run has time for. `make fuzz` runs the same targets under libFuzzer, for as long as
//! one likes.

#[path = "../trials/hostile/crafted.rs"]
#[allow(dead_code, reason = "the trials use more of it")]
mod crafted;
#[path = "../gate/history.rs"]
#[allow(dead_code, reason = "the tests of the gate use more of it")]
mod history;
#[path = "../gate/oracle.rs"]
mod oracle;
#[path = "../gate/rng.rs"]
mod rng;
mod targets;

use rng::Rng;
use std::{fs, panic, path::Path};
use targets::{TARGETS, Target};

/// Mutants of each target.
const MUTANTS: usize = 3_000;
/// No longer than the fuzzer's.
const BYTES_MAX: usize = 4_096;

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target")
}

/// The inputs that once broke something, by their names.
fn found(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/found")
        .join(target.name);
    let files = fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<(String, Vec<u8>)> = files
        .map(|file| {
            let path = file.expect("an entry of ours can be read").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read(path).expect("a file of ours can be read"))
        })
        .collect();
    found.sort();
    found
}

fn check(name: &str) {
    let target = target(name);
    let found = found(target);
    for (file, input) in &found {
        let held = panic::catch_unwind(|| (target.run)(input));
        assert!(held.is_ok(), "tests/fuzz/found/{name}/{file} breaks it again");
    }
    let inputs: Vec<Vec<u8>> = found
        .into_iter()
        .map(|(_, input)| input)
        .chain((target.seeds)())
        .collect();
    inputs.iter().for_each(|input| (target.run)(input));
    let mut rng = Rng::new(1);
    for _ in 0..MUTANTS {
        let mut input = rng.pick(&inputs).expect("there are seeds").clone();
        input.truncate(BYTES_MAX);
        mutate(&mut rng, &mut input);
        (target.run)(&input);
    }
}

fn mutate(rng: &mut Rng, input: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        let at = rng.below(input.len());
        match rng.below(4) {
            0 => input.insert(at, rng.next() as u8),
            1 if !input.is_empty() => drop(input.remove(at)),
            2 => input.truncate(at + 1),
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = byte.wrapping_add(rng.next() as u8);
                }
            }
        }
    }
}

#[test]
fn the_gate_vouches_for_nothing_that_does_harm() {
    check("gate");
}

#[test]
fn m11_frames_are_read_or_refused() {
    check("frames");
}

#[test]
fn a1_a10_frames_of_peers_are_read_or_refused() {
    check("repo");
}

#[test]
fn records_of_the_store_are_read_or_called_damaged() {
    check("store");
}
