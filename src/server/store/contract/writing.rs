//! The writer: groups, order, limits, a full disk, a failed sync, closing. On a floor that fails and waits as it is told.

use std::{
    collections::VecDeque,
    ops::Range,
    sync::{Condvar, Mutex, atomic::Ordering},
    time::Duration,
};

use super::{
    super::{
        kv::{KvError, Pair, Visit},
        writer::{Done, GROUP_BYTES_MAX, GROUP_LEN_MAX, QUEUE_BYTES_MAX, QUEUE_LEN_MAX, Refused, Work, Writer},
    },
    *,
};

/// A floor in memory with a script: what the next commits answer, and whether they wait.
#[derive(Default)]
struct Scripted {
    memory: MemoryKv,
    script: Mutex<Script>,
    changed: Condvar,
}

#[derive(Default)]
struct Script {
    held: bool,
    waiting: bool,
    spoilt: bool,
    commit: VecDeque<Result<(), KvError>>,
    reserve: VecDeque<Result<(), KvError>>,
    /// Everything that was done to the floor and by it.
    calls: Vec<String>,
}

impl Scripted {
    fn call(
        &self,
        name: &str,
        answer: impl FnOnce(&mut Script) -> &mut VecDeque<Result<(), KvError>>,
    ) -> Result<(), KvError> {
        let mut script = self.script.lock().unwrap();
        script.calls.push(name.into());
        answer(&mut script).pop_front().unwrap_or(Ok(()))
    }

    fn note(&self, what: &str) {
        self.script.lock().unwrap().calls.push(what.into());
    }

    fn hold(&self, held: bool) {
        self.script.lock().unwrap().held = held;
        self.changed.notify_all();
    }

    fn await_commit(&self) {
        let script = self.script.lock().unwrap();
        drop(self.changed.wait_while(script, |script| !script.waiting).unwrap());
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().unwrap().calls)
    }
}

impl Kv for Scripted {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        self.memory.get(key)
    }

    fn scan(&self, range: Range<&[u8]>, visit: &mut Visit<'_>) -> Result<(), KvError> {
        self.memory.scan(range, visit)
    }

    fn last(&self, range: Range<&[u8]>) -> Result<Option<Pair>, KvError> {
        self.memory.last(range)
    }

    fn commit_telling(&self, batch: &Batch, durable: &mut dyn FnMut()) -> Result<(), KvError> {
        let mut script = self.script.lock().unwrap();
        script.waiting = script.held;
        self.changed.notify_all();
        let mut script = self.changed.wait_while(script, |script| script.held).unwrap();
        script.waiting = false;
        drop(script);
        self.call("commit", |script| &mut script.commit)?;
        self.memory.commit_telling(batch, durable)
    }

    fn restore_reserve(&self) -> Result<(), KvError> {
        self.call("reserve", |script| &mut script.reserve)
    }

    fn is_spoilt(&self) -> bool {
        self.script.lock().unwrap().spoilt
    }

    fn origin(&self) -> Result<Option<Vec<u8>>, KvError> {
        self.memory.origin()
    }

    fn mark_origin(&self) -> Result<Vec<u8>, KvError> {
        self.memory.mark_origin()
    }

    fn size_bytes(&self) -> u64 {
        0
    }
}

fn put(key: &str) -> Batch {
    let mut batch = Batch::default();
    batch.put(key.into(), b"value".to_vec());
    batch
}

fn sized(bytes: usize) -> Batch {
    let mut batch = Batch::default();
    batch.put(b"sized".to_vec(), vec![0; bytes - 5]);
    batch
}

fn unheard() -> Done {
    Box::new(|_| ())
}

fn failing(error: KvError) -> (Arc<Scripted>, Writer) {
    let kv = Arc::new(Scripted::default());
    let writer = Writer::start(kv.clone()).unwrap();
    writer.write(put("before")).unwrap();
    kv.calls();
    kv.script.lock().unwrap().commit = [Err(error)].into();
    (kv, writer)
}

#[test]
fn what_waits_is_committed_at_once_and_told_after_it() {
    let kv = Arc::new(Scripted::default());
    kv.hold(true);
    let writer = Writer::start(kv.clone()).unwrap();
    let submit = |n: usize| {
        let of_done = kv.clone();
        let done = Box::new(move |result| of_done.note(&format!("{n} {result:?}")));
        writer
            .try_submit(Work {
                batch: put(&format!("{n}")),
                done,
            })
            .unwrap();
    };
    submit(0);
    kv.await_commit();
    (1..=3).for_each(submit);
    assert_eq!(kv.calls(), ["reserve"]);
    kv.hold(false);
    writer.close();
    assert_eq!(
        kv.calls(),
        ["commit", "0 Ok(())", "commit", "1 Ok(())", "2 Ok(())", "3 Ok(())"]
    );
    assert_eq!(kv.get(b"3").unwrap(), Some(b"value".to_vec()));
    let figures = writer.figures();
    let [groups, batches, left] =
        [&figures.groups, &figures.batches, &figures.queue_len].map(|n| n.load(Ordering::Relaxed));
    assert_eq!((groups, batches, left), (2, 4, 0));
}

#[test]
fn a_group_has_limits() {
    let check = |batches: Vec<Batch>, groups: u64| {
        let kv = Arc::new(Scripted::default());
        kv.hold(true);
        let writer = Writer::start(kv.clone()).unwrap();
        writer
            .try_submit(Work {
                batch: put("first"),
                done: unheard(),
            })
            .unwrap();
        kv.await_commit();
        for batch in batches {
            writer.try_submit(Work { batch, done: unheard() }).unwrap();
        }
        kv.hold(false);
        writer.close();
        assert_eq!(writer.figures().groups.load(Ordering::Relaxed), 1 + groups);
    };
    check(vec![put("a"); GROUP_LEN_MAX], 1);
    check(vec![put("a"); GROUP_LEN_MAX + 1], 2);
    check(vec![sized(GROUP_BYTES_MAX / 2); 2], 1);
    check(vec![sized(GROUP_BYTES_MAX / 2 + 1); 2], 2);
    check(vec![sized(3 * GROUP_BYTES_MAX), put("a"), put("b")], 2);
}

#[test]
fn a_full_queue_gives_the_work_back() {
    let kv = Arc::new(Scripted::default());
    kv.hold(true);
    let writer = Writer::start(kv.clone()).unwrap();
    let submit = |batch| writer.try_submit(Work { batch, done: unheard() });
    submit(put("first")).unwrap();
    kv.await_commit();
    (0..QUEUE_LEN_MAX).for_each(|_| submit(put("a")).unwrap());
    let Err(Refused::Busy(work)) = submit(put("one too many")) else {
        panic!("the queue has no limit")
    };
    assert_eq!(work.batch, put("one too many"));
    std::thread::scope(|scope| {
        let blocked = scope.spawn(|| writer.submit(work));
        kv.hold(false);
        blocked.join().unwrap().unwrap();
    });
    writer.write(Batch::default()).unwrap();
    assert_eq!(kv.get(b"one too many").unwrap(), Some(b"value".to_vec()));

    kv.hold(true);
    submit(put("first")).unwrap();
    kv.await_commit();
    submit(sized(QUEUE_BYTES_MAX + 1)).unwrap();
    assert!(matches!(submit(put("a")), Err(Refused::Busy(_))));
    kv.hold(false);
}

#[test]
fn a_full_disk_refuses_unwritten_until_there_is_space() {
    let (kv, writer) = failing(KvError::Full);
    kv.script.lock().unwrap().reserve = [Err(KvError::Full), Err(KvError::Full), Err(KvError::Full)].into();
    assert_eq!(writer.write(put("at hand")), Err(StoreError::Full));
    assert_eq!(kv.calls(), ["commit"]);
    assert!(writer.figures().full.load(Ordering::Relaxed));
    assert_eq!(writer.write(put("next")), Err(StoreError::Full));
    assert_eq!(writer.write(put("next")), Err(StoreError::Full));
    assert_eq!((kv.get(b"at hand").unwrap(), kv.get(b"next").unwrap()), (None, None));
    assert!(!kv.calls().contains(&"commit".into()));
    while writer.figures().full.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(writer.write(put("next")), Ok(()));
    assert_eq!(kv.get(b"next").unwrap(), Some(b"value".to_vec()));
    assert!(!writer.is_read_only());
}

#[test]
fn a_failed_sync_is_final() {
    let (kv, writer) = failing(KvError::Io("the fsync failed".into()));
    let refused = StoreError::ReadOnly("the fsync failed".into());
    assert_eq!(writer.write(put("a")), Err(refused.clone()));
    assert_eq!(writer.write(put("b")), Err(refused.clone()));
    assert_eq!(writer.write(Batch::default()), Err(refused));
    writer.close();
    assert_eq!(kv.calls(), ["commit"], "it was tried again");
    assert_eq!(writer.figures().errors.load(Ordering::Relaxed), 1);
}

#[test]
fn a_sync_that_fails_while_space_is_set_aside_is_final_too() {
    let kv = Arc::new(Scripted::default());
    kv.script.lock().unwrap().reserve = [Err(KvError::Full), Err(KvError::Io("the fsync failed".into()))].into();
    let writer = Writer::start(kv.clone()).unwrap();
    while !writer.is_read_only() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let refused = StoreError::ReadOnly("the fsync failed".into());
    assert_eq!(writer.write(put("a")), Err(refused));
    writer.close();
    assert_eq!(kv.calls(), ["reserve", "reserve"], "it was tried again");
}

#[test]
fn what_a_reader_has_spoilt_counts_before_anybody_writes() {
    let kv = Arc::new(Scripted::default());
    let writer = Writer::start(kv.clone()).unwrap();
    assert!(!writer.is_read_only());
    kv.script.lock().unwrap().spoilt = true;
    assert!(writer.is_read_only());
}

#[test]
fn what_is_too_large_is_refused_alone() {
    let (_kv, writer) = failing(KvError::TooLarge("a key"));
    assert_eq!(writer.write(put("a")), Err(StoreError::TooLarge("a key")));
    assert_eq!(writer.write(put("b")), Ok(()));
}

#[test]
fn closing_writes_what_waits_and_takes_nothing_more() {
    let kv = Arc::new(Scripted::default());
    kv.hold(true);
    let writer = Writer::start(kv.clone()).unwrap();
    for n in 0..50 {
        writer
            .try_submit(Work {
                batch: put(&n.to_string()),
                done: unheard(),
            })
            .unwrap();
    }
    std::thread::scope(|scope| {
        scope.spawn(|| writer.close());
        kv.await_commit();
        kv.hold(false);
    });
    assert_eq!(writer.figures().batches.load(Ordering::Relaxed), 50);
    assert!(matches!(
        writer.try_submit(Work {
            batch: put("a"),
            done: unheard()
        }),
        Err(Refused::Closed(_))
    ));
    assert_eq!(writer.write(put("a")), Err(StoreError::Closed));
}

#[test]
fn a_completion_that_panics_stops_nobody() {
    let kv = Arc::new(Scripted::default());
    let writer = Writer::start(kv).unwrap();
    writer
        .try_submit(Work {
            batch: put("a"),
            done: Box::new(|_| panic!("on purpose")),
        })
        .unwrap();
    assert_eq!(writer.write(put("b")), Ok(()));
}
