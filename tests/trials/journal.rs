//! The ack journal: what clients were told, written down as it comes, read back by a check that knows nothing else.

use automerge::{Automerge, ChangeHash, ReadDoc};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// A file of lines: `acked DOCUMENT HASH` by the author, `seen DOCUMENT HASH` by another member.
pub(crate) struct Journal {
    path: PathBuf,
    file: Mutex<BufWriter<File>>,
    acks: AtomicU64,
    seen: AtomicU64,
}

/// What was promised, by document.
pub(crate) type Promised = BTreeMap<String, BTreeSet<ChangeHash>>;

impl Journal {
    pub(crate) fn create(path: &Path) -> Self {
        let file = File::create(path).expect("the journal can be written");
        Self {
            path: path.to_owned(),
            file: Mutex::new(BufWriter::new(file)),
            acks: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        }
    }

    /// The author was told that the change is on disk.
    pub(crate) fn acked(&self, document: &str, hash: ChangeHash) {
        self.write("acked", document, hash);
        self.acks.fetch_add(1, Ordering::Relaxed);
    }

    /// Another member was shown the change.
    pub(crate) fn seen(&self, document: &str, hash: ChangeHash) {
        self.write("seen", document, hash);
        self.seen.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn acks(&self) -> u64 {
        self.acks.load(Ordering::Relaxed)
    }

    pub(crate) fn sights(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    fn write(&self, what: &str, document: &str, hash: ChangeHash) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(file, "{what} {document} {hash}").expect("the journal can be written");
    }

    /// Reads the file back.
    pub(crate) fn promised(&self) -> Promised {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.flush().expect("the journal can be written");
        let text = std::fs::read_to_string(&self.path).expect("the journal can be read");
        let mut promised = Promised::new();
        for line in text.lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(document), Some(hash)) = (words.next(), words.next()) else {
                panic!("a line of the journal is broken: {line}");
            };
            let hash = hash.parse().expect("a hash");
            promised.entry(document.to_owned()).or_default().insert(hash);
        }
        promised
    }
}

/// How many of these changes a replica lacks.
pub(crate) fn missing(replica: &Automerge, hashes: &BTreeSet<ChangeHash>) -> usize {
    let lacks = |hash: &&ChangeHash| replica.get_change_by_hash(hash).is_none();
    hashes.iter().filter(lacks).count()
}
