//! The contract of the store: one suite, run on every floor.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use syncline_protocol::{ChangeHash, DocumentId, Epoch, Position};
use tempfile::TempDir;

use super::{
    Culprit, Life, LogEntry, LogKept, LogRecord, Meta, SnapshotMeta, Store, StoreError, Version,
    kv::{Batch, Kv},
    layout,
    memory::MemoryKv,
    record::VALUE_BYTES_MAX,
    sled::{SledKv, SledOptions},
    version,
};

mod crash;
mod damage;
mod disk;
mod documents;
mod floor;
mod life;
mod rebuilt;
mod writing;

/// Something to test on: gives a floor, and can close it and open the same one again.
trait Floor {
    fn kv(&self) -> Arc<dyn Kv>;
    fn reopen(&mut self);
    /// What must hold at the end of every test.
    fn check(&self) {}

    fn store(&self) -> Store {
        Store::open(self.kv()).unwrap()
    }
}

struct Memory(Arc<MemoryKv>);

impl Floor for Memory {
    fn kv(&self) -> Arc<dyn Kv> {
        self.0.clone()
    }

    fn reopen(&mut self) {}
}

struct OnDisk {
    directory: TempDir,
    kv: Option<Arc<SledKv>>,
}

impl OnDisk {
    fn open(&self) -> Option<Arc<SledKv>> {
        let options = SledOptions {
            cache_bytes: 4 << 20,
            reserve_bytes: 64 << 10,
        };
        Some(Arc::new(SledKv::open(self.directory.path(), options).unwrap()))
    }
}

impl Floor for OnDisk {
    fn kv(&self) -> Arc<dyn Kv> {
        self.kv.clone().unwrap()
    }

    fn reopen(&mut self) {
        let kv = self.kv.take().unwrap();
        assert_eq!(Arc::strong_count(&kv), 1, "a test holds the store across reopen");
        drop(kv);
        self.kv = self.open();
    }

    fn check(&self) {
        assert_eq!(
            self.kv.as_ref().unwrap().blob_files().unwrap(),
            0,
            "values lie outside the log file"
        );
    }
}

/// Runs `test` on every floor.
fn on_every_floor(test: impl Fn(&mut dyn Floor)) {
    let mut memory = Memory(Arc::default());
    test(&mut memory);
    let mut disk = OnDisk {
        directory: TempDir::new().unwrap(),
        kv: None,
    };
    disk.kv = disk.open();
    test(&mut disk);
    disk.check();
}

/// Runs `test` on every floor, with a store begun on it.
fn on_every_store(test: impl Fn(&mut dyn Floor)) {
    on_every_floor(|floor| {
        floor.store();
        test(floor);
    });
}

fn id(text: &str) -> DocumentId {
    text.parse().unwrap()
}

fn at(position: u64) -> Position {
    Position::new(position)
}

fn entry(subject: &str, change: impl Into<Vec<u8>>) -> LogEntry {
    LogEntry {
        subject: subject.into(),
        change: Bytes::from(change.into()),
    }
}

fn write(kv: &dyn Kv, batch: &Batch) {
    kv.commit(batch).unwrap();
}

/// A document as a room would write it: appends, and remembers what must be there.
struct Author {
    document: DocumentId,
    entries: Vec<LogEntry>,
    /// Where its records begin.
    starts: Vec<usize>,
}

impl Author {
    fn new(name: &str) -> Self {
        Self {
            document: id(name),
            entries: Vec::new(),
            starts: Vec::new(),
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes_to(self.entries.len())
    }

    fn bytes_to(&self, position: usize) -> u64 {
        self.entries[..position]
            .iter()
            .map(|entry| entry.change.len() as u64)
            .sum()
    }

    /// Appends one record of these changes, synced.
    fn append(&mut self, kv: &dyn Kv, entries: Vec<LogEntry>) {
        let first = self.entries.is_empty();
        let record = LogRecord {
            position: at(self.entries.len() as u64),
            bytes_before: self.bytes(),
            entries: entries.clone(),
        };
        write(kv, &layout::append(&self.document, Epoch::new(7), &record, first));
        self.append_unwritten(entries);
    }

    /// Remembers one record that is written elsewhere.
    fn append_unwritten(&mut self, entries: Vec<LogEntry>) {
        self.starts.push(self.entries.len());
        self.entries.extend(entries);
    }

    /// Appends `records` records of one to four changes of some dozen bytes.
    fn append_some(&mut self, kv: &dyn Kv, records: usize) {
        for _ in 0..records {
            let number = self.entries.len();
            let change = |n: usize| entry(["ann", "bob"][n % 2], format!("change {n} of {}", self.document));
            let entries = (number..number + 1 + number % 4).map(change).collect();
            self.append(kv, entries);
        }
    }

    /// A snapshot of all that is appended: here just the changes, one after another.
    fn snapshot(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|entry| entry.change.to_vec()).collect()
    }

    fn describe(&self, generation: u64, snapshot: &[u8], index: &[u8]) -> SnapshotMeta {
        let head = ChangeHash([self.entries.len() as u8; 32]);
        SnapshotMeta::new(
            generation,
            (at(self.entries.len() as u64), self.bytes()),
            vec![head],
            snapshot,
            index,
        )
    }

    /// The document loads, and takes about what was said before; the snapshot and the log after it are exactly what was appended.
    fn check(&self, store: &Store) -> Meta {
        let stored = store.load(&self.document).unwrap().expect("the document is there");
        assert_eq!(
            (stored.end, stored.bytes),
            (at(self.entries.len() as u64), self.bytes()),
            "{}",
            self.document
        );
        let covered = stored.meta.snapshot_end().number() as usize;
        let after: Vec<_> = stored
            .records
            .iter()
            .flat_map(|record| record.entries.clone())
            .collect();
        assert_eq!(after, self.entries[covered..]);
        let (index_bytes, log_bytes) = store.load_bytes(&self.document).unwrap();
        assert_eq!(index_bytes, stored.index.len() as u64);
        let more = log_bytes.checked_sub(self.bytes() - self.bytes_to(covered));
        assert!(more.is_some_and(|more| more <= 2 * VALUE_BYTES_MAX as u64), "{more:?}");
        if let Some(snapshot) = &stored.meta.snapshot {
            let (bytes, index) = store.read_back(&self.document, snapshot).unwrap();
            assert_eq!(bytes.len() as u64, self.bytes_to(covered));
            assert_eq!(bytes, self.snapshot()[..bytes.len()]);
            assert_eq!(index, stored.index);
        }
        stored.meta
    }
}
