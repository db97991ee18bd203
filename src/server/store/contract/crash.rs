//! The floor on disk after a process was killed, and after the power went: what was committed is there, whatever of the log is.

use super::{
    super::{journal::Content, logfile::SEGMENT_BYTES, rebuild::rebuild},
    *,
};
use std::{collections::BTreeMap, fs, path::Path};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

const OPTIONS: SledOptions = SledOptions {
    cache_bytes: 4 << 20,
    reserve_bytes: 64 << 10,
};

fn open(directory: &Path) -> Result<SledKv, StoreError> {
    SledKv::open(directory, OPTIONS)
}

/// What a killed process leaves: its files, as the system has them.
fn copy(from: &Path) -> TempDir {
    let to = TempDir::new().unwrap();
    for file in fs::read_dir(from).unwrap().map(Result::unwrap) {
        if file.file_type().unwrap().is_file() {
            fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
        }
    }
    fs::create_dir(to.path().join("blobs")).unwrap();
    to
}

fn pairs(kv: &dyn Kv) -> Map {
    let mut pairs = Map::new();
    kv.scan(&[]..&[u8::MAX], &mut |key, value| {
        pairs.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    pairs
}

/// Commits puts and removals of some keys, of `size` bytes, and has them in `map`.
fn change(kv: &dyn Kv, map: &mut Map, number: usize, size: usize) {
    let mut batch = Batch::default();
    let key = |number: usize| format!("key {:03}", number * 7 % 300).into_bytes();
    for place in 0..1 + number % 4 {
        let value = vec![number as u8; size + place];
        batch.put(key(number + place), value.clone());
        map.insert(key(number + place), value);
    }
    batch.delete(key(number + 50));
    map.remove(&key(number + 50));
    kv.commit(&batch).unwrap();
}

#[test]
fn a_killed_store_opens_with_all_that_was_committed() {
    let directory = TempDir::new().unwrap();
    let (mut kv, mut map) = (open(directory.path()).unwrap(), Map::new());
    for number in 0..60 {
        change(&kv, &mut map, number, 500);
        if number % 3 == 0 {
            let killed = copy(directory.path());
            let opened = open(killed.path()).unwrap();
            assert_eq!(pairs(&opened), map, "after {number}");
            // Killed again, with a journal that has begun anew.
            let mut map = map.clone();
            change(&opened, &mut map, number, 20);
            let again = copy(killed.path());
            assert_eq!(pairs(&open(again.path()).unwrap()), map, "again after {number}");
        }
        if number % 20 == 19 {
            drop(kv);
            kv = open(directory.path()).unwrap();
            assert_eq!(pairs(&kv), map);
        }
    }
}

#[test]
fn a_journal_that_starts_over_loses_nothing() {
    let directory = TempDir::new().unwrap();
    let (kv, mut map) = (open(directory.path()).unwrap(), Map::new());
    // Batches up to 400 KB, of values as large as the store has them; one is larger than the journal.
    for number in 0..60 {
        let mut batch = Batch::default();
        let puts = if number == 33 { 1_300 } else { 100 };
        for place in 0..puts {
            let key = format!("key {}", (number * 100 + place * 13) % 2_000).into_bytes();
            batch.put(key.clone(), vec![number as u8; 4_000]);
            map.insert(key, vec![number as u8; 4_000]);
        }
        kv.commit(&batch).unwrap();
        if number % 6 == 3 {
            let killed = copy(directory.path());
            assert!(pairs(&open(killed.path()).unwrap()) == map, "after {number}");
        }
    }
    drop(kv);
    assert!(pairs(&open(directory.path()).unwrap()) == map);
}

#[test]
fn what_the_log_had_not_synced_is_not_needed() {
    let directory = TempDir::new().unwrap();
    let (mut kv, mut map) = (open(directory.path()).unwrap(), Map::new());
    (0..40).for_each(|number| change(&kv, &mut map, number, 300));
    drop(kv);
    kv = open(directory.path()).unwrap();
    // Less than a segment follows, so this is what was synced.
    let synced = fs::read(directory.path().join("db")).unwrap();
    for number in 40..90 {
        change(&kv, &mut map, number, 300);
        // Reading may have sled write.
        assert_eq!(pairs(&kv), map);
    }
    let used = synced.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let now = copy(directory.path());
    let log = now.path().join("db");
    let mut torn = fs::read(&log).unwrap();
    torn[used + 700..].iter_mut().step_by(3).for_each(|byte| *byte = !*byte);
    for bytes in [synced, torn] {
        let cut = copy(now.path());
        fs::write(cut.path().join("db"), bytes).unwrap();
        assert_eq!(pairs(&open(cut.path()).unwrap()), map);
    }
}

#[test]
fn a_place_in_the_log_that_is_being_given_away_is_no_damage() {
    const SECTOR: usize = 512;
    let directory = TempDir::new().unwrap();
    let (kv, mut map) = (open(directory.path()).unwrap(), Map::new());
    let (mut note, mut log, mut base, mut tried) = (None, Vec::new(), 0, 0);
    for number in 0..2_000 {
        change(&kv, &mut map, number, 3_000);
        let Content::Records(records) = Content::read(directory.path()).unwrap() else {
            panic!("it is being written to")
        };
        let Some(given) = records.given.filter(|given| note.replace(*given) != Some(*given)) else {
            continue;
        };
        let now = fs::read(directory.path().join("db")).unwrap();
        let before = std::mem::replace(&mut log, now.clone());
        let is_same_lap = std::mem::replace(&mut base, records.base) == records.base;
        let place = given.place as usize..given.place as usize + SEGMENT_BYTES;
        if !is_same_lap || before.len() < place.end || before[place.start..][..20].iter().all(|byte| *byte == 0) {
            continue;
        }
        // Some sectors of the first write to the new segment are there, and not the one that names it.
        let mut torn = now;
        torn[place.clone()].copy_from_slice(&before[place.clone()]);
        for sector in [1, 2, 4, 5, 7, 9, 10] {
            let sector = place.start + sector * SECTOR..place.start + (sector + 1) * SECTOR;
            torn[sector.clone()].copy_from_slice(&log[sector]);
        }
        let cut = copy(directory.path());
        fs::write(cut.path().join("db"), torn).unwrap();
        assert!(pairs(&open(cut.path()).unwrap()) == map, "after {number}, {given:?}");
        tried += 1;
        if tried == 10 {
            return;
        }
    }
    panic!("only {tried} places were given away");
}

#[test]
fn a_segment_that_was_wiped_in_part_while_the_store_opened_is_no_damage() {
    let directory = TempDir::new().unwrap();
    let (kv, mut map) = (open(directory.path()).unwrap(), Map::new());
    let mut tried = 0;
    for number in 0..400 {
        change(&kv, &mut map, number, 3_000);
        if number % 20 != 19 {
            continue;
        }
        let (killed, opened) = (copy(directory.path()), copy(directory.path()));
        drop(open(opened.path()).unwrap());
        let [before, after] = [&killed, &opened].map(|store| fs::read(store.path().join("db")).unwrap());
        let mut torn = before.clone();
        let places = (0..before.len().min(after.len())).step_by(SEGMENT_BYTES);
        let wiped = places.filter(|place| {
            let [before, after] =
                [&before, &after].map(|bytes| &bytes[*place..(place + SEGMENT_BYTES).min(bytes.len())]);
            before.iter().any(|byte| *byte != 0) && after.iter().all(|byte| *byte == 0)
        });
        for place in wiped {
            // Its head is there, and every second sector behind it is not.
            let sectors = torn[place..place + SEGMENT_BYTES].chunks_mut(512);
            sectors.skip(1).step_by(2).for_each(|sector| sector.fill(0));
            tried += 1;
        }
        if torn == before {
            continue;
        }
        fs::write(killed.path().join("db"), torn).unwrap();
        let unsaid = copy(killed.path());
        assert!(matches!(open(unsaid.path()).err(), Some(StoreError::StoreDamaged(_))));
        fs::write(killed.path().join("opening"), "").unwrap();
        assert!(pairs(&open(killed.path()).unwrap()) == map, "after {number}");
        assert!(!killed.path().join("opening").exists());
    }
    assert!(tried > 0, "nothing was wiped");
}

#[test]
fn damage_of_the_journal_is_put_right_or_told() {
    let directory = TempDir::new().unwrap();
    let kv = Arc::new(open(directory.path()).unwrap());
    let store = Store::open(kv.clone()).unwrap();
    let mut author = Author::new("a");
    author.append_some(&*kv, 20);
    drop(store);
    let sound = fs::read(directory.path().join("journal")).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for place in [10, used / 2, used - 3] {
        let place = (place..).find(|place| sound[*place] != 0).unwrap();
        let mut bytes = sound.clone();
        bytes[place] ^= 4;
        let killed = copy(directory.path());
        fs::write(killed.path().join("journal"), &bytes).unwrap();
        let opened = open(killed.path()).unwrap();
        assert_eq!(opened.mended(), 1, "one bit at {place}");
        author.check(&Store::open(Arc::new(opened)).unwrap());

        bytes[place..place + 8].iter_mut().for_each(|byte| *byte ^= 0x5a);
        let killed = copy(directory.path());
        fs::write(killed.path().join("journal"), &bytes).unwrap();
        match open(killed.path()).err() {
            Some(StoreError::StoreDamaged(what)) => {
                assert!(what.contains("its journal") || what.contains("head"), "{what}")
            }
            other => panic!("{other:?} at {place}"),
        }
        assert_eq!(
            fs::read(killed.path().join("journal")).unwrap(),
            bytes,
            "nothing was changed"
        );
        let new = TempDir::new().unwrap();
        match rebuild(killed.path(), new.path()) {
            Ok((kv, missing)) if place < 512 => {
                assert_eq!(missing, Default::default(), "the records are all there");
                author.check(&Store::open(Arc::new(kv)).unwrap());
            }
            Ok((kv, missing)) => {
                assert!(missing.batches > 0, "at {place}");
                let stored = Store::open(Arc::new(kv)).unwrap().load(&author.document).unwrap();
                assert!(stored.is_none_or(|stored| stored.end < at(author.entries.len() as u64)));
            }
            Err(error) => assert!(matches!(error, StoreError::Unreadable(_)), "{error}"),
        }
    }
    let killed = copy(directory.path());
    fs::remove_file(killed.path().join("journal")).unwrap();
    assert!(matches!(open(killed.path()).err(), Some(StoreError::StoreDamaged(_))));
}

#[test]
fn a_killed_store_is_made_anew_with_its_journal() {
    let directory = TempDir::new().unwrap();
    let kv = Arc::new(open(directory.path()).unwrap());
    Store::open(kv.clone()).unwrap();
    let mut author = Author::new("a");
    author.append_some(&*kv, 20);
    let killed = copy(directory.path());
    let new = TempDir::new().unwrap();
    let (made, missing) = rebuild(killed.path(), new.path()).unwrap();
    assert_eq!(missing, Default::default());
    author.check(&Store::open(Arc::new(made)).unwrap());
}

#[test]
fn a_store_without_a_journal_opens_and_is_marked_when_it_is_served() {
    let directory = TempDir::new().unwrap();
    let kv = Arc::new(open(directory.path()).unwrap());
    Store::begin(kv.clone(), Life::default()).unwrap();
    let mut author = Author::new("a");
    author.append_some(&*kv, 20);
    let mut older = Batch::default();
    older.put(b"v".to_vec(), super::super::record::seal(b"v", &1u64.to_be_bytes()));
    write(&*kv, &older);
    drop(kv);
    fs::remove_file(directory.path().join("journal")).unwrap();
    let kv = Arc::new(open(directory.path()).unwrap());
    author.check(&Store::open(kv.clone()).unwrap());
    assert_eq!(version(&*kv), Ok(Version::Is(1)), "looking changes nothing");
    let store = Store::begin(kv.clone(), Life::default()).unwrap();
    author.check(&store);
    assert_eq!(version(&*kv), Ok(Version::Is(2)));
}

#[test]
fn a_store_of_the_former_format_that_was_looked_at_is_not_tied_to_a_journal() {
    let directory = TempDir::new().unwrap();
    let mut author = Author::new("a");
    let mut serve = |looked_at: &Path| {
        let kv = Arc::new(open(looked_at).unwrap());
        let mut older = Batch::default();
        older.put(b"v".to_vec(), super::super::record::seal(b"v", &1u64.to_be_bytes()));
        write(&*kv, &older);
        author.append_some(&*kv, 5);
        author.check(&Store::open(kv).unwrap());
        // What a build leaves that knows no journal.
        fs::remove_file(looked_at.join("journal")).unwrap();
        fs::remove_file(looked_at.join("tally")).unwrap();
    };
    serve(directory.path());
    let looking = Arc::new(open(directory.path()).unwrap());
    let killed = copy(directory.path());
    drop(looking);
    let left: Vec<_> = ["journal", "tally"]
        .map(|file| (killed.path().join(file), fs::read(killed.path().join(file)).unwrap()))
        .into();
    serve(killed.path());
    left.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let kv = Arc::new(open(killed.path()).unwrap());
    author.check(&Store::open(kv.clone()).unwrap());
    author.append_some(&*kv, 5);
    author.check(&Store::open(Arc::new(open(copy(killed.path()).path()).unwrap())).unwrap());
}

/// Where the journal's `number`-th record begins, if each takes so many sectors.
fn record_at(sectors: usize, number: usize) -> usize {
    1_024 + 512 * sectors * (number - 1)
}

#[test]
fn damage_amid_the_journal_is_told_without_a_tally() {
    let directory = TempDir::new().unwrap();
    let kv = Arc::new(open(directory.path()).unwrap());
    let mut map = Map::new();
    for number in 0..6 {
        let mut batch = Batch::default();
        batch.put(vec![b'k', number], vec![number; 50]);
        map.insert(vec![b'k', number], vec![number; 50]);
        kv.commit(&batch).unwrap();
    }
    let killed = copy(directory.path());
    fs::remove_file(killed.path().join("tally")).unwrap();
    let journal = killed.path().join("journal");
    let sound = fs::read(&journal).unwrap();
    for damaged in [1, 3, 5] {
        let mut bytes = sound.clone();
        bytes[record_at(1, damaged) + 40..][..4].fill(0x5a);
        fs::write(&journal, &bytes).unwrap();
        match open(killed.path()).err() {
            Some(StoreError::StoreDamaged(what)) => assert!(what.contains("its journal"), "{what}"),
            other => panic!("{other:?} with {damaged} damaged"),
        }
        assert!(fs::read(&journal).unwrap() == bytes, "nothing was changed");
        let new = TempDir::new().unwrap();
        match rebuild(killed.path(), new.path()) {
            Ok((_, missing)) => assert!(missing.batches > 0, "{damaged} is damaged"),
            Err(error) => assert!(damaged == 1 && matches!(error, StoreError::Unreadable(_)), "{error}"),
        }
    }
    // The last one may be torn, and is.
    let mut bytes = sound;
    bytes[record_at(1, 6) + 40..][..4].fill(0x5a);
    fs::write(&journal, &bytes).unwrap();
    map.remove(&[b'k', 5][..]);
    assert_eq!(pairs(&open(killed.path()).unwrap()), map);
}

#[test]
fn a_journal_that_ends_before_the_pages_do_is_told_and_sets_nothing_back() {
    let directory = TempDir::new().unwrap();
    let kv = open(directory.path()).unwrap();
    let (key, kept) = (super::super::key::log(&id("a"), at(7), 0), 20);
    let number_of = |value: &[u8]| value[value.len() - 1];
    for number in 1..=250 {
        let mut batch = Batch::default();
        batch.put(key.clone(), [vec![0; 3_500], vec![number]].concat());
        kv.commit(&batch).unwrap();
    }
    let killed = copy(directory.path());
    fs::remove_file(killed.path().join("tally")).unwrap();
    let journal = killed.path().join("journal");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[record_at(7, kept + 1)..].fill(0x5a);
    fs::write(&journal, &bytes).unwrap();
    match open(killed.path()).err() {
        Some(StoreError::StoreDamaged(what)) => assert!(what.contains("its journal ends early"), "{what}"),
        other => panic!("{other:?}"),
    }
    // A store that was refused is let go of when the process ends.
    let (killed, new) = (copy(killed.path()), TempDir::new().unwrap());
    let (made, missing) = rebuild(killed.path(), new.path()).unwrap();
    assert!(missing.batches > 0);
    let value = made.get(&key).unwrap().unwrap();
    assert!(number_of(&value) > kept as u8, "{} is older", number_of(&value));
}

#[test]
fn a_journal_without_a_head_does_not_pass_for_a_closed_one() {
    let directory = TempDir::new().unwrap();
    let kv = Arc::new(open(directory.path()).unwrap());
    Store::open(kv.clone()).unwrap();
    let mut author = Author::new("a");
    author.append_some(&*kv, 20);
    let killed = copy(directory.path());
    fs::remove_file(killed.path().join("tally")).unwrap();
    let journal = killed.path().join("journal");
    let mut bytes = fs::read(&journal).unwrap();
    bytes[..1_024].fill(0);
    fs::write(&journal, &bytes).unwrap();
    assert!(matches!(open(killed.path()).err(), Some(StoreError::StoreDamaged(_))));
    let new = TempDir::new().unwrap();
    let (made, missing) = rebuild(killed.path(), new.path()).unwrap();
    assert_eq!(missing, Default::default());
    author.check(&Store::open(Arc::new(made)).unwrap());
    // Nothing is left of it: the tally tells.
    for length in [0, 700] {
        let killed = copy(directory.path());
        fs::write(killed.path().join("journal"), vec![0; length]).unwrap();
        assert!(matches!(open(killed.path()).err(), Some(StoreError::StoreDamaged(_))));
    }
    // That of a store that was closed is not needed.
    drop(kv);
    let closed = copy(directory.path());
    fs::remove_file(closed.path().join("tally")).unwrap();
    author.check(&Store::open(Arc::new(open(closed.path()).unwrap())).unwrap());
}

#[test]
fn a_first_start_that_was_killed_starts_again() {
    let begun = |journal: &[u8]| {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("lock"), "").unwrap();
        fs::write(directory.path().join("journal"), journal).unwrap();
        directory
    };
    for journal in [&[][..], &[0; 600], &[0; 1 << 20]] {
        assert!(open(begun(journal).path()).is_ok());
        let further = begun(journal);
        fs::create_dir(further.path().join("blobs")).unwrap();
        assert!(open(further.path()).is_ok());
    }
    // But what is left of a store is not.
    let directory = TempDir::new().unwrap();
    let kv = open(directory.path()).unwrap();
    change(&kv, &mut Map::new(), 1, 9);
    let live = fs::read(directory.path().join("journal")).unwrap();
    drop(kv);
    let closed = fs::read(directory.path().join("journal")).unwrap();
    for journal in [live, closed, b"Dear journal".to_vec()] {
        let error = open(begun(&journal).path()).err();
        assert_eq!(error, Some(StoreError::NotAStore("journal".into())));
    }
}
