//! The proof: forged changes by the hundred thousand, and for every one that the gate vouches for the [`oracle`].

use crate::{
    cases, decoded, forge,
    history::Style,
    oracle,
    rng::Rng,
    scene::{Scene, scenes},
    somebody,
};
use automerge::Change;
use std::{collections::BTreeSet, fmt};
use syncline::engine::gate::{self, Verdict};
use syncline_protocol::Limits;

/// How many forged changes are made of one honest change in one room.
const CASES_PER_SCENE: usize = 100;
const SCENES_PER_HISTORY: usize = 8;

#[derive(Default)]
struct Tally {
    forged: usize,
    decoded: usize,
    vouched: usize,
    unvouched: usize,
    proven: usize,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            forged,
            decoded,
            vouched,
            unvouched,
            proven,
        } = self;
        write!(
            f,
            "{forged} forged, {decoded} decode, {unvouched} unvouched, {vouched} vouched, {proven} distinct ones proven"
        )
    }
}

fn prove(cases: usize, seed: u64, forge: impl Fn(&mut Rng, &Scene) -> Vec<u8>) -> Tally {
    let mut tally = Tally::default();
    for history in 0.. {
        let rng = &mut Rng::new(seed.wrapping_add(history));
        let style = Style {
            writers: 1 + rng.below(5),
            steps: 10 + rng.below(80),
            marks: rng.one_in(4),
        };
        for scene in scenes(rng, style, SCENES_PER_HISTORY) {
            if tally.forged >= cases {
                return tally;
            }
            let mut proven = BTreeSet::from([scene.honest.raw_bytes().to_vec()]);
            for _ in 0..CASES_PER_SCENE.min(cases - tally.forged) {
                let bytes = forge(rng, &scene);
                tally.forged += 1;
                judge(&scene, bytes, &mut proven, &mut tally)
                    .unwrap_or_else(|harm| panic!("seed {seed}, history {history}, case {}: {harm}", tally.forged));
            }
        }
    }
    tally
}

fn judge(scene: &Scene, bytes: Vec<u8>, proven: &mut BTreeSet<Vec<u8>>, tally: &mut Tally) -> Result<(), String> {
    let Ok(change) = decoded(&bytes) else { return Ok(()) };
    tally.decoded += 1;
    match gate::check(&scene.index, None, &somebody(), &change, &Limits::default()) {
        Verdict::Vouched => tally.vouched += 1,
        Verdict::Unvouched => {
            tally.unvouched += 1;
            return Ok(());
        }
        _ => return Ok(()),
    }
    if !proven.insert(bytes.clone()) {
        return Ok(());
    }
    tally.proven += 1;
    oracle::try_merge(&scene.document, &bytes).map_err(|harm| {
        format!(
            "{harm}: {:?}",
            Change::try_from(&bytes[..]).map(|change| change.decode())
        )
    })
}

#[test]
fn vouched_mutants_are_harmless() {
    let tally = prove(cases(140_000), 1, |rng, scene| {
        forge::mutant(rng, scene.honest.raw_bytes())
    });
    println!("mutants: {tally}");
    assert!(
        tally.proven > tally.forged / 1_000,
        "{tally}: too few to prove anything"
    );
}

#[test]
fn vouched_rewired_changes_are_harmless() {
    let tally = prove(cases(60_000), 2, forge::rewired);
    println!("rewired: {tally}");
    assert!(
        tally.proven > tally.forged / 1_000,
        "{tally}: too few to prove anything"
    );
}
