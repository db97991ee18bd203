//! What only the disk shows: a full one, space that is used again, and how fast it syncs. Measured and tried by hand.

use std::{sync::atomic::Ordering, time::Duration};

use super::{
    super::writer::{Work, Writer},
    *,
};

fn record(author: &Author, change: Vec<u8>) -> Batch {
    let record = LogRecord {
        position: at(author.entries.len() as u64),
        bytes_before: author.bytes(),
        entries: vec![entry("ann", change)],
    };
    layout::append(&author.document, Epoch::new(7), &record, author.entries.is_empty())
}

#[test]
fn space_is_used_again() {
    let directory = TempDir::new().unwrap();
    let kv = SledKv::open(
        directory.path(),
        SledOptions {
            cache_bytes: 4 << 20,
            reserve_bytes: 1 << 16,
        },
    )
    .unwrap();
    // 2 MiB of chunks under the same keys, 20 times.
    for round in 0..20u8 {
        for batch in layout::snapshot(&id("a"), 1, &vec![round; 2 << 20], &[]) {
            write(&kv, &batch);
        }
    }
    let size = kv.size_bytes();
    // sled cleans up behind us, at its own pace: a quarter more or less of the live bytes comes and goes.
    assert!(size < 8 * (2 << 20), "2 MiB written 20 times take {size} bytes");
    assert_eq!(kv.blob_files().unwrap(), 0);
}

#[test]
fn a_log_that_is_damaged_amid_does_not_pass_for_a_shorter_one() {
    let directory = TempDir::new().unwrap();
    let open = || SledKv::open(directory.path(), SledOptions::default());
    let kv = Arc::new(open().unwrap());
    Store::open(kv.clone()).unwrap();
    let mut author = Author::new("a");
    for number in 0..100 {
        let change = vec![number; 300];
        write(&*kv, &record(&author, change.clone()));
        author.append_unwritten(vec![entry("ann", change)]);
    }
    drop(kv);
    let log = directory.path().join("db");
    let sound = std::fs::read(&log).unwrap();
    let used = sound.iter().rposition(|byte| *byte != 0).unwrap();
    // Behind the last count lies a message that was withdrawn.
    for place in [5, used / 2, used - 8] {
        let mut bytes = sound.clone();
        bytes[place] ^= 1;
        std::fs::write(&log, &bytes).unwrap();
        let kv = open().unwrap();
        assert_eq!(kv.mended(), 1, "one bit at {place} is put right");
        author.check(&Store::open(Arc::new(kv)).unwrap());
        std::fs::write(&log, &sound).unwrap();
        for file in std::fs::read_dir(directory.path()).unwrap().map(Result::unwrap) {
            if file.file_name().to_string_lossy().starts_with("snap.") {
                std::fs::remove_file(file.path()).unwrap();
            }
        }
    }
    let mut bytes = sound;
    bytes[used / 2..used / 2 + 9].fill(0);
    std::fs::write(&log, &bytes).unwrap();
    match open().err() {
        Some(StoreError::StoreDamaged(what)) => assert!(what.contains("edits that were synced lie behind"), "{what}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(&log).unwrap(), bytes, "nothing is wiped");
    for told in ["tally", "journal"] {
        std::fs::remove_file(directory.path().join(told)).unwrap();
    }
    let store = Store::open(Arc::new(open().unwrap())).unwrap();
    let left = store.load(&author.document).unwrap().unwrap();
    assert!((1..100).contains(&left.end.number()), "{} are left", left.end);
}

/// `mkdir /tmp/syncline-small-disk && mount -t tmpfs -o size=64m none /tmp/syncline-small-disk`
#[test]
#[ignore = "needs a small disk, mounted by hand"]
fn a_full_disk_refuses_and_goes_on() {
    let small = std::env::temp_dir().join("syncline-small-disk");
    let directory = small.join("data");
    let options = SledOptions {
        reserve_bytes: 4 << 20,
        ..SledOptions::default()
    };
    let open = || Arc::new(SledKv::open(&directory, options).unwrap());
    for round in 0..10 {
        let _ = std::fs::remove_dir_all(&directory);
        let mut kv = open();
        Store::open(kv.clone()).unwrap();
        let mut author = Author::new(&format!("document-{round}"));
        let mut writer = Writer::start(kv.clone()).unwrap();
        std::fs::write(small.join("filler"), vec![0; (22 + round) << 20]).unwrap();
        let refused = loop {
            let change = vec![author.entries.len() as u8; 100_000];
            if let Err(error) = writer.write(record(&author, change.clone())) {
                break error;
            }
            author.append_unwritten(vec![entry("ann", change)]);
            assert!(author.entries.len() < 1_000);
        };
        assert_eq!(refused, StoreError::Full);
        author.check(&Store::open(kv.clone()).unwrap());
        println!(
            "round {round}: full after {} x 100 kB, {} bytes",
            author.entries.len(),
            kv.size_bytes()
        );
        if round % 2 == 0 {
            // Restarts while full.
            drop(writer);
            assert_eq!(Arc::strong_count(&kv), 1);
            drop(kv);
            kv = open();
            author.check(&Store::open(kv.clone()).unwrap());
            writer = Writer::start(kv.clone()).unwrap();
            assert_eq!(writer.write(record(&author, vec![1])), Err(StoreError::Full));
        }
        std::fs::remove_file(small.join("filler")).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        writer.write(record(&author, vec![1])).unwrap();
        author.append_unwritten(vec![entry("ann", vec![1])]);
        let store = Store::open(kv.clone()).unwrap();
        author.check(&store);
        assert!(!writer.figures().full.load(Ordering::Relaxed));
    }
}

/// As above.
#[test]
#[ignore = "needs a small disk, mounted by hand"]
fn a_store_that_was_put_back_begins_on_a_full_disk() {
    let small = std::env::temp_dir().join("syncline-small-disk");
    let (directory, filler) = (small.join("restored"), small.join("rest"));
    let begin = || {
        let options = SledOptions {
            reserve_bytes: 8 << 20,
            ..SledOptions::default()
        };
        let kv = Arc::new(SledKv::open(&directory, options).unwrap());
        let next = Life {
            number: 7,
            began_unix_ms: 1,
        };
        (Store::begin(kv.clone(), next).unwrap().life(), kv)
    };
    let (life, kv) = begin();
    drop(Writer::start(kv.clone()).unwrap());
    drop(kv);
    // Whoever copies a store copies no spare blocks.
    let log = directory.join("db");
    let copy = std::fs::read(&log).unwrap();
    std::fs::write(&log, copy).unwrap();
    std::fs::remove_file(directory.join("origin")).unwrap();
    let full = std::fs::write(&filler, vec![0; 1 << 30]);
    assert!(full.is_err(), "the disk is small");
    // sled opens without a word, but nothing can be set aside.
    let filled = std::fs::File::options().write(true).open(&filler).unwrap();
    filled.set_len(filled.metadata().unwrap().len() - (512 << 10)).unwrap();
    let (next, kv) = begin();
    assert_ne!(life, next);
    drop(kv);
    std::fs::remove_file(&filler).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
#[ignore = "a measurement"]
fn synced_appends_per_second() {
    for group in [1, 10, 100, 1_000] {
        let directory = TempDir::new_in("target").unwrap();
        let kv = Arc::new(SledKv::open(directory.path(), SledOptions::default()).unwrap());
        let writer = Writer::start(kv.clone()).unwrap();
        let mut authors: Vec<_> = (0..group).map(|n| Author::new(&format!("room-{n}"))).collect();
        let rounds = (20_000 / group).clamp(20, 2_000);
        let began = std::fs::metadata(directory.path()).unwrap().modified().unwrap();
        for _ in 0..rounds {
            let (tell, told) = std::sync::mpsc::sync_channel(group);
            for author in &mut authors {
                let tell = tell.clone();
                let batch = record(author, vec![7; 120]);
                author.append_unwritten(vec![entry("ann", vec![7; 120])]);
                writer
                    .submit(Work {
                        batch,
                        done: Box::new(move |result| tell.send(result).unwrap()),
                    })
                    .unwrap();
            }
            drop(tell);
            assert_eq!(told.iter().filter(|result| result.is_ok()).count(), group);
        }
        std::fs::write(directory.path().join("end"), b"").unwrap();
        let ended = std::fs::metadata(directory.path().join("end"))
            .unwrap()
            .modified()
            .unwrap();
        let seconds = ended.duration_since(began).unwrap().as_secs_f64();
        let groups = writer.figures().groups.load(Ordering::Relaxed);
        let appends = rounds * group;
        println!(
            "{group} at once: {:.0} appends/s, {groups} syncs, {} bytes",
            appends as f64 / seconds,
            kv.size_bytes()
        );
    }
}
