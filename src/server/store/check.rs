//! Looks at every record of a store and says what is damaged: the whole of `syncline check`.

use std::{
    collections::BTreeSet,
    fmt,
    ops::{ControlFlow, Range},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use syncline_protocol::DocumentId;

use super::{
    Store, StoreError, Stored,
    key::{Key, Kind},
    kv::Kv,
    record::unseal,
    sled::{SledKv, SledOptions},
};

/// More findings than this are counted and not kept.
pub const FINDINGS_MAX: usize = 1_000;
const KINDS: [Kind; 5] = [Kind::Meta, Kind::Log, Kind::Snapshot, Kind::Index, Kind::Quarantine];

/// What a check found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Documents that were looked at.
    pub documents: u64,
    /// Records and chunks that were looked at.
    pub records: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// What is not as it should be, at most [`FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub findings_more: u64,
}

/// One thing that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which document it concerns; `None` for the store as a whole.
    pub document: Option<DocumentId>,
    /// What is wrong.
    pub what: String,
    /// Whether nothing is lost: the server copes with it by itself.
    pub harmless: bool,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = if self.harmless { "harmless" } else { "DAMAGED" };
        match &self.document {
            Some(document) => write!(f, "{grade}: document {document}: {}", self.what),
            None => write!(f, "{grade}: {}", self.what),
        }
    }
}

impl Report {
    /// Whether nothing is lost.
    pub fn is_sound(&self) -> bool {
        self.findings_more == 0 && self.findings.iter().all(|finding| finding.harmless)
    }

    fn find(&mut self, document: Option<&DocumentId>, harmless: bool, what: impl Into<String>) {
        let finding = Finding {
            document: document.cloned(),
            what: what.into(),
            harmless,
        };
        if self.findings.contains(&finding) {
            return;
        }
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_more += 1;
        }
    }
}

/// Checks the store in `directory`. `opens` is given each document with its snapshot (empty if there is none) and says what
/// is wrong with them, if anything: the place to load the snapshot.
///
/// # Errors
/// When the store as a whole cannot be opened; damage within it is in the report.
pub fn check(
    directory: &Path,
    opens: &mut dyn FnMut(&DocumentId, &Stored, &Bytes) -> Result<(), String>,
) -> Result<Report, StoreError> {
    if !directory.join("db").is_file() {
        return Err(StoreError::Io(format!(
            "{} holds no store: name the directory given to `serve`",
            directory.display()
        )));
    }
    let kv = SledKv::open(directory, SledOptions::default())?;
    let blobs = kv.blob_files().map_err(|error| StoreError::Io(error.to_string()))?;
    let mended = kv.mended();
    let mut report = check_kv(Arc::new(kv), opens)?;
    if mended > 0 {
        let what = format!("{mended} flipped bits in the log were put right: check the disk and the memory");
        report.find(None, true, what);
    }
    if blobs > 0 {
        report.find(
            None,
            false,
            format!("{blobs} values lie outside the log file, where they are never synced"),
        );
    }
    Ok(report)
}

/// As [`check`], on any floor.
///
/// # Errors
/// As [`check`].
pub fn check_kv(
    kv: Arc<dyn Kv>,
    opens: &mut dyn FnMut(&DocumentId, &Stored, &Bytes) -> Result<(), String>,
) -> Result<Report, StoreError> {
    let store = Store::open(Arc::clone(&kv))?;
    let mut report = Report::default();
    let mut documents = BTreeSet::new();
    for kind in KINDS {
        check_chunks(&*kv, kind, &mut report, &mut documents);
    }
    for document in &documents {
        report.documents += 1;
        check_document(&store, document, opens, &mut report);
    }
    Ok(report)
}

/// Every key and checksum of one kind. Goes on behind what the floor cannot read.
fn check_chunks(kv: &dyn Kv, kind: Kind, report: &mut Report, documents: &mut BTreeSet<DocumentId>) {
    let Range { mut start, end } = kind.everywhere();
    loop {
        let mut last = None;
        let scanned = kv.scan(&start..&end, &mut |key, value| {
            report.records += 1;
            report.bytes += (key.len() + value.len()) as u64;
            last = Some(key.to_vec());
            let Some(parsed) = Key::parse(key) else {
                report.find(None, false, "a key is garbled");
                return ControlFlow::Continue(());
            };
            let Some(document) = parsed.into_document() else {
                return ControlFlow::Continue(());
            };
            if let Err(damage) = unseal(key, value) {
                report.find(Some(&document), false, damage.what);
            }
            documents.insert(document);
            ControlFlow::Continue(())
        });
        let Err(error) = scanned else { return };
        report.find(None, false, error.to_string());
        // One byte more than the last key that could be read: the next one there is. If that fails again, the rest cannot
        // be reached by a scan; the documents known so far are still looked at one by one.
        match last {
            Some(mut last) => {
                last.push(0);
                start = last;
            }
            None => return,
        }
    }
}

/// What the records of one document say of each other.
fn check_document(
    store: &Store,
    document: &DocumentId,
    opens: &mut dyn FnMut(&DocumentId, &Stored, &Bytes) -> Result<(), String>,
    report: &mut Report,
) {
    let tell = |report: &mut Report, error: StoreError| match error {
        StoreError::Damaged { document, what } => report.find(Some(&document), false, what),
        other => report.find(Some(document), false, other.to_string()),
    };
    let stored = match store.load(document) {
        Ok(Some(stored)) => stored,
        Ok(None) => return report.find(Some(document), true, "chunks of a document that does not exist"),
        Err(error) => return tell(report, error),
    };
    match store.leftovers(document, &[]) {
        Ok(left) if left.is_empty() => {}
        Ok(_) => report.find(
            Some(document),
            true,
            "an interrupted compaction left chunks, which the next one removes",
        ),
        Err(error) => tell(report, error),
    }
    let mut log = stored.meta.log_start;
    let covered = stored.meta.snapshot_end();
    if let Err(error) = store.scan_log(document, log, |record| {
        log = record.end();
        ControlFlow::Continue(())
    }) {
        tell(report, error);
    } else if log < covered {
        report.find(
            Some(document),
            false,
            format!("its log ends at {log}, before its snapshot's end at {covered}"),
        );
    }
    if let Err(error) = store.quarantined(document) {
        tell(report, error);
    }
    let snapshot = match &stored.meta.snapshot {
        Some(snapshot) => store.read_back(document, snapshot).map(|(bytes, _)| bytes),
        None => Ok(Bytes::new()),
    };
    match snapshot {
        Ok(snapshot) => {
            if let Err(what) = opens(document, &stored, &snapshot) {
                report.find(Some(document), false, what);
            }
        }
        Err(error) => tell(report, error),
    }
}
