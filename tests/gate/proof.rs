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
use syncline::engine::gate::{self, Refusal, Verdict};
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
            marks: rng.one_in(2),
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
    let tally = prove(cases(150_000), 1, |rng, scene| {
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
    let tally = prove(cases(50_000), 2, forge::rewired);
    println!("rewired: {tally}");
    assert!(
        tally.proven > tally.forged / 1_000,
        "{tally}: too few to prove anything"
    );
}

/// The rule for marks is exact: what it refuses does not load.
#[test]
fn vouched_marks_load_and_refused_ones_do_not() {
    let (mut vouched, mut refused) = (0, 0);
    let cases = cases(1_000);
    for seed in 0.. {
        let rng = &mut Rng::new(3_000_000 + seed);
        let style = Style {
            writers: 1 + rng.below(3),
            steps: 10 + rng.below(60),
            marks: true,
        };
        for scene in scenes(rng, style, SCENES_PER_HISTORY) {
            for _ in 0..20 {
                let Some(bytes) = forge::marked(rng, &scene) else { break };
                let change = decoded(&bytes).expect("a well-formed change");
                let merged = || oracle::try_merge(&scene.document, &bytes);
                match gate::check(&scene.index, None, &somebody(), &change, &Limits::default()) {
                    Verdict::Vouched => {
                        vouched += 1;
                        assert_eq!(
                            merged(),
                            Ok(()),
                            "seed {seed}: {:?}",
                            Change::try_from(&bytes[..]).unwrap().decode()
                        );
                    }
                    Verdict::Refused(Refusal::Limit(text)) if text.starts_with("a mark ends before it begins") => {
                        refused += 1;
                        assert!(
                            merged().is_err(),
                            "seed {seed}: {:?}",
                            Change::try_from(&bytes[..]).unwrap().decode()
                        );
                    }
                    _ => {}
                }
            }
        }
        if vouched + refused > cases {
            break;
        }
    }
    println!("marks: {vouched} vouched, {refused} refused");
    assert!(vouched.min(refused) > cases / 10);
}
