//! What is done, and not done, after a sync has failed.

use super::*;
use crate::server::store::kv::Write;
use std::{collections::BTreeMap, fs, sync::atomic::AtomicUsize};
use tempfile::TempDir;

fn open(directory: &TempDir) -> SledKv {
    let options = SledOptions {
        cache_bytes: 4 << 20,
        reserve_bytes: 64 << 10,
    };
    SledKv::open(directory.path(), options).unwrap()
}

/// So many values of 4 KiB, under keys that begin with `name`.
fn values(name: &str, count: usize) -> Batch {
    let mut batch = Batch::default();
    (0..count).for_each(|number| batch.put(format!("{name}{number:03}").into(), vec![7; 4 << 10]));
    batch
}

#[test]
fn who_waited_while_a_sync_failed_does_not_try_again() {
    let directory = TempDir::new().unwrap();
    let kv = open(&directory);
    kv.commit(&values("a", 1)).unwrap();
    let told = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writing = kv.writing();
        let waits =
            scope.spawn(|| kv.commit_telling(&values("b", 1), &mut || _ = told.fetch_add(1, Ordering::Relaxed)));
        std::thread::sleep(Duration::from_millis(100));
        let synced = kv.change(|pages| {
            pages.break_syncs(directory.path(), true);
            let flushed = pages.flush();
            pages.break_syncs(directory.path(), false);
            flushed
        });
        assert!(matches!(synced, Err(KvError::Io(_))), "{synced:?}");
        drop(writing);
        let committed = waits.join().unwrap();
        assert!(matches!(committed, Err(KvError::Io(_))), "{committed:?}");
    });
    assert!(kv.is_spoilt());
    assert_eq!(told.load(Ordering::Relaxed), 0, "it was called durable");
    assert_eq!(kv.get(b"b000").unwrap(), None);
    assert!(kv.get(b"a000").unwrap().is_some(), "what was there is read");
    let tried = kv.change(|_| -> Result<(), KvError> { panic!("the pages are written to") });
    assert!(matches!(tried, Err(KvError::Io(_))), "{tried:?}");
}

#[test]
fn half_a_batch_is_not_read() {
    let directory = TempDir::new().unwrap();
    let kv = open(&directory);
    kv.commit(&values("a", 1)).unwrap();
    kv.change(|pages| {
        pages.break_syncs(directory.path(), true);
        Ok(())
    })
    .unwrap();
    // More than a segment, so that there is a sync amid it.
    let mut told = 0;
    let committed = kv.commit_telling(&values("b", 300), &mut || told += 1);
    assert!(matches!(committed, Err(KvError::Io(_))), "{committed:?}");
    assert_eq!(told, 1, "the journal has it");
    for key in ["a000", "b000", "b299"] {
        let read = kv.get(key.as_bytes());
        assert!(matches!(read, Err(KvError::Io(_))), "{key}: {read:?}");
    }
    let scanned = kv.scan(b"a"..b"z", &mut |_, _| ControlFlow::Continue(()));
    assert!(matches!(scanned, Err(KvError::Io(_))), "{scanned:?}");
}

/// The files as they lie there: a killed process leaves these.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let files = files.filter(|file| file.file_type().unwrap().is_file());
    files
        .map(|file| (file.file_name().into(), fs::read(file.path()).unwrap()))
        .collect()
}

fn pairs(kv: &SledKv) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut pairs = BTreeMap::new();
    let scanned = kv.scan(&[]..&[u8::MAX], &mut |key, value| {
        pairs.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    });
    scanned.unwrap();
    pairs
}

#[test]
fn a_store_whose_sync_failed_reopens_with_what_was_acknowledged() {
    for is_journal in [true, false] {
        let directory = TempDir::new().unwrap();
        let kv = open(&directory);
        (0..9).for_each(|number| kv.commit(&values(&format!("a{number}-"), 20)).unwrap());
        kv.settle().unwrap();
        let settled = files(directory.path());
        (0..3).for_each(|number| kv.commit(&values(&format!("b{number}-"), 7)).unwrap());
        let acknowledged = pairs(&kv);
        let disk = files(directory.path());
        if is_journal {
            kv.writing().journal.break_syncs();
        } else {
            let broken = kv.change(|pages| {
                pages.break_syncs(directory.path(), true);
                Ok(())
            });
            broken.unwrap();
        }
        // More than a segment, so that the pages are synced amid it.
        let last = values("c", 300);
        let mut told = 0;
        let failed = kv.commit_telling(&last, &mut || told += 1);
        assert!(matches!(failed, Err(KvError::Io(_))), "{failed:?}");
        assert_eq!(told, usize::from(!is_journal));
        let cached = files(directory.path());
        for _ in 0..2 {
            assert!(matches!(kv.commit(&values("d", 1)), Err(KvError::Io(_))));
            assert!(matches!(kv.settle(), Err(KvError::Io(_))));
        }
        drop(kv);
        assert!(
            files(directory.path()) == cached,
            "something was written after the failure"
        );

        let mut with_last = acknowledged.clone();
        for write in last.writes() {
            if let Write::Put { key, value } = write {
                with_last.insert(key.clone(), value.clone());
            }
        }
        // What the system could not write may be read for a while, from its memory, or not at all, each file by itself.
        for (journal, log) in [
            (&cached, &cached),
            (&cached, &settled),
            (&disk, &cached),
            (&disk, &settled),
        ] {
            if !is_journal && std::ptr::eq(journal, &disk) {
                continue;
            }
            let killed = TempDir::new().unwrap();
            fs::create_dir(killed.path().join("blobs")).unwrap();
            for (name, bytes) in &cached {
                let from = match name.to_str() {
                    Some(Journal::FILE) => journal,
                    Some(LOG_FILE) => log,
                    _ => &cached,
                };
                fs::write(killed.path().join(name), from.get(name).unwrap_or(bytes)).unwrap();
            }
            let kv = open(&killed);
            let has_last = std::ptr::eq(journal, &cached);
            let expected = if has_last { &with_last } else { &acknowledged };
            assert!(
                pairs(&kv) == *expected,
                "journal's: {is_journal}, its record: {has_last}"
            );
            kv.commit(&values("d", 1)).unwrap();
        }
    }
}

#[test]
fn a_batch_that_is_too_large_is_refused_and_the_next_one_is_not() {
    let directory = TempDir::new().unwrap();
    let kv = open(&directory);
    let mut long = Batch::default();
    long.put(vec![7; 100_000], Vec::new());
    let refused = kv.commit(&long);
    assert!(matches!(refused, Err(KvError::TooLarge(_))), "{refused:?}");
    let value = vec![0; 8 << 10];
    let mut large = Batch::default();
    (0..=BATCH_BYTES_MAX / value.len()).for_each(|_| large.put(b"a".to_vec(), value.clone()));
    let refused = kv.commit(&large);
    assert!(matches!(refused, Err(KvError::TooLarge(_))), "{refused:?}");
    kv.commit(&values("a", 1)).unwrap();
}

/// Whether the first bytes of a file can be had without the disk; `None` where the system does not say.
#[cfg(target_os = "linux")]
fn is_cached(path: &Path) -> Option<bool> {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let file = File::open(path).unwrap();
    let mut bytes = [0; 512];
    match preadv2(&file, &mut [io::IoSliceMut::new(&mut bytes)], 0, ReadWriteFlags::NOWAIT) {
        Ok(_) => Some(true),
        Err(Errno::AGAIN) => Some(false),
        Err(_) => None,
    }
}

/// Where the file system keeps its files in memory, there is nothing else to read.
#[cfg(target_os = "linux")]
#[test]
fn a_start_reads_from_the_disk() {
    let directory = TempDir::new().unwrap();
    let kv = open(&directory);
    kv.commit(&values("a", 20)).unwrap();
    drop(kv);
    let other = directory.path().join("other");
    fs::write(&other, [7; 4 << 10]).unwrap();
    let other_file = File::open(&other).unwrap();
    other_file.sync_all().unwrap();
    rustix::fs::fadvise(&other_file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    if is_cached(&other) != Some(false) {
        return;
    }
    let files = [Journal::FILE, LOG_FILE].map(|file| directory.path().join(file));
    for file in &files {
        fs::read(file).unwrap();
        assert_eq!(is_cached(file), Some(true), "{}", file.display());
    }
    directory::sync(directory.path()).unwrap();
    directory::let_cached_go(directory.path());
    for file in &files {
        assert_eq!(is_cached(file), Some(false), "{}", file.display());
    }
}
