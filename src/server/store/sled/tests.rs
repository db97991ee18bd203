//! What is done, and not done, after a sync of the pages has failed.

use super::*;
use std::sync::atomic::AtomicUsize;
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
