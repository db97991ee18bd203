//! What can still be read of a damaged store, document by document: the whole of `syncline salvage` but for its files.
//!
//! All keys and values that can be read go into a new store. Of each document the snapshot that reads is taken, and the log
//! after it as far as that is whole; it comes out as bytes that Automerge was seen to load. Nothing is written to the damaged
//! directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::{ControlFlow, Range},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use syncline_protocol::{DocumentId, Position};

use crate::engine::document::{Document, Merge};

use super::{
    FORMAT_VERSION, Life, Meta, SnapshotMeta, Store, StoreError, Version,
    key::{self, Key, Kind},
    kv::{Batch, Kv, KvError, Pair},
    log::LogRecord,
    rebuild::rebuild,
    record::unseal,
    version,
};

pub use super::rebuild::Missing;

/// The kinds without which a document is nothing.
const KINDS: [Kind; 3] = [Kind::Meta, Kind::Log, Kind::Snapshot];

/// One document, as far as it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// Its id.
    pub document: DocumentId,
    /// As Automerge saves it, proven to load; `None` if nothing of it can be read.
    pub saved: Option<Vec<u8>>,
    /// What is wrong with it; nothing if it is whole.
    pub losses: Vec<Loss>,
}

impl Salvaged {
    /// Whether nothing is missing, as far as the store can tell.
    pub fn is_whole(&self) -> bool {
        self.losses.iter().all(Loss::is_harmless)
    }
}

/// What is wrong with a document, in words for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// What comes before this position is there, what comes after is not.
    Cut {
        /// Where.
        at: Position,
        /// Why.
        what: String,
    },
    /// The snapshot cannot be read; what there is of the log begins here.
    Snapshot {
        /// The first change; with 0 the log holds the whole document.
        log_from: Position,
        /// Why.
        what: String,
    },
    /// What is current in it is not known.
    Meta(String),
    /// So many changes of the log do not merge and are left out.
    Unmerged(usize),
    /// The store lacks something, and nobody knows of which document: what came after this position, if anything did, is not
    /// there.
    Early(Position),
    /// The store lacks something that was of this document or its neighbours.
    Doubtful(Position),
    /// There is no document in what can be read.
    Nothing,
}

impl Loss {
    fn is_harmless(&self) -> bool {
        matches!(self, Self::Snapshot { log_from, .. } if log_from.number() == 0)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { at, what } => write!(f, "cut after position {at} ({what})"),
            Self::Snapshot { log_from, what } if log_from.number() == 0 => {
                write!(f, "snapshot damaged, log from 0 ({what})")
            }
            Self::Snapshot { log_from, what } => {
                write!(
                    f,
                    "snapshot damaged, log from {log_from}: merge it with an older copy ({what})"
                )
            }
            Self::Meta(what) => write!(
                f,
                "put together without its meta record, its end may be missing ({what})"
            ),
            Self::Unmerged(count) => write!(f, "{count} changes of its log do not merge and are left out"),
            Self::Early(at) => write!(f, "up to position {at}; the store lacks edits, maybe of this document"),
            Self::Doubtful(at) => write!(
                f,
                "up to position {at}; the store lacks something of this document or of one beside it"
            ),
            Self::Nothing => f.write_str("nothing can be read"),
        }
    }
}

/// What a salvage came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Documents that were found.
    pub documents: u64,
    /// How many of them lack something.
    pub not_whole: u64,
    /// What the store lacks, of nobody knows which document.
    pub missing: Missing,
    /// Why there may be documents that were not found.
    pub unlisted: Option<String>,
}

impl Report {
    /// Whether nothing is missing.
    pub fn is_whole(&self) -> bool {
        self.not_whole == 0 && self.missing == Missing::default() && self.unlisted.is_none()
    }
}

/// Takes each document as it comes, in the order of their ids.
type Each<'a> = dyn FnMut(Salvaged) -> Result<(), StoreError> + 'a;

/// Reads the store in `directory`, which is not changed, and makes a new one in `new` of what can be read. What is damaged is
/// damaged there, too, so whoever serves it refuses these documents and serves the others.
///
/// # Errors
/// `InUse` if somebody serves the store, `Unreadable` if there is nothing in it, `Version`, `Io`, and what `each` says.
pub fn salvage(directory: &Path, new: &Path, each: &mut Each<'_>) -> Result<Report, StoreError> {
    let (kv, missing) = rebuild(directory, new)?;
    salvage_kv(Arc::new(kv), missing, each)
}

/// What is in a store that is known to lack something. A document of which that is likely gets an empty record at its end,
/// which nobody takes for a record, so that whoever serves the store refuses it.
///
/// # Errors
/// `Version`, what the floor says of writing, and what `each` says.
pub fn salvage_kv(kv: Arc<dyn Kv>, missing: Missing, each: &mut Each<'_>) -> Result<Report, StoreError> {
    check_version(&*kv)?;
    let mut report = Report {
        missing,
        ..Report::default()
    };
    let mut documents = BTreeSet::new();
    for kind in KINDS {
        if let Err(error) = list(&*kv, kind, &mut documents) {
            report.unlisted = Some(error.to_string());
        }
    }
    let life = Life::default();
    let store = Store {
        kv: Arc::clone(&kv),
        life,
    };
    let mut places = Batch::default();
    for document in documents {
        let (mut salvaged, end) = read(&store, document);
        if salvaged.is_whole() && is_doubtful(&salvaged.document, &report.missing) {
            salvaged.losses.push(Loss::Doubtful(end));
            places.put(key::log(&salvaged.document, end, 0), Vec::new());
        } else if salvaged.is_whole() && report.missing.is_anywhere() {
            salvaged.losses.push(Loss::Early(end));
        }
        report.documents += 1;
        report.not_whole += u64::from(!salvaged.is_whole());
        each(salvaged)?;
    }
    if !places.is_empty() {
        kv.commit(&places)?;
    }
    Ok(report)
}

fn is_doubtful(document: &DocumentId, missing: &Missing) -> bool {
    let keys = KINDS.map(|kind| kind.all(document));
    let mut doubts = missing.doubts.iter();
    doubts.any(|doubt| keys.iter().any(|keys| keys.start < doubt.end && doubt.start < keys.end))
}

/// A version that cannot be read is no reason to give up; another one is.
fn check_version(kv: &dyn Kv) -> Result<(), StoreError> {
    match version(kv) {
        Ok(Version::Is(found)) if !(1..=FORMAT_VERSION).contains(&found) => Err(StoreError::Version {
            found: found.to_string(),
            known: FORMAT_VERSION,
        }),
        _ => Ok(()),
    }
}

/// Every document of which there is a key of this kind. A walk cannot pass what the floor cannot read, so there is one from
/// either end.
fn list(kv: &dyn Kv, kind: Kind, found: &mut BTreeSet<DocumentId>) -> Result<(), KvError> {
    let Range { mut start, mut end } = kind.everywhere();
    let owner = |key: &[u8]| Key::parse(key).and_then(Key::into_document);
    let failed = loop {
        match first(kv, &start..&end) {
            Err(error) => break error,
            Ok(None) => return Ok(()),
            Ok(Some((mut key, _))) => {
                start = match owner(&key) {
                    Some(document) => {
                        let next = kind.all(&document).end;
                        found.insert(document);
                        next
                    }
                    None => {
                        key.push(0);
                        key
                    }
                };
            }
        }
    };
    while let Ok(Some((key, _))) = kv.last(&start..&end) {
        end = match owner(&key) {
            Some(document) => {
                let begin = kind.all(&document).start;
                found.insert(document);
                begin
            }
            None => key,
        };
    }
    Err(failed)
}

fn first(kv: &dyn Kv, range: Range<&[u8]>) -> Result<Option<Pair>, KvError> {
    let mut first = None;
    kv.scan(range, &mut |key, value| {
        first = Some((key.to_vec(), value.to_vec()));
        ControlFlow::Break(())
    })?;
    Ok(first)
}

/// What the log is put on top of.
struct Base {
    document: Document,
    /// Where the log goes on; `None` if that is not known, or lies before the log.
    end: Option<Position>,
}

/// One document, and up to where.
fn read(store: &Store, document: DocumentId) -> (Salvaged, Position) {
    let mut losses = Vec::new();
    let meta = store
        .meta(&document)
        .and_then(|meta| meta.ok_or_else(|| StoreError::NoDocument(document.clone())));
    let meta = meta.map_err(|error| losses.push(Loss::Meta(reason(error)))).ok();
    let (base, snapshot_damage) = base(store, &document, meta.as_ref());
    let from = match (base.end, &meta) {
        (Some(end), _) => end,
        (None, Some(meta)) => meta.log_start,
        (None, None) => Position::new(0),
    };
    let log = Log::read(store, &document, from, base.end.is_some());
    let (log_from, end) = (log.start(), log.end());
    losses.extend(snapshot_damage.map(|what| Loss::Snapshot { log_from, what }));
    let end_min = meta.map_or(end, |meta| meta.log_end_min);
    let short = || (end < end_min).then(|| format!("its log ends before {end_min}"));
    losses.extend(
        log.damage
            .clone()
            .or_else(short)
            .map(|what| Loss::Cut { at: end, what }),
    );

    let is_anchored = base.end.is_some() || log_from.number() == 0;
    let changes = log.changes();
    let saved = if is_anchored || base.document.carries(&changes) {
        merged(&base.document, &changes, &mut losses)
    } else {
        loose(&base.document, &changes)
    };
    if saved.is_none() {
        losses.push(Loss::Nothing);
    }
    let salvaged = Salvaged {
        document,
        saved,
        losses,
    };
    (salvaged, end)
}

/// The current snapshot; without it an empty document, or, if nobody knows which one is current, the newest that loads.
fn base(store: &Store, document: &DocumentId, meta: Option<&Meta>) -> (Base, Option<String>) {
    let nothing = |end| Base {
        document: Document::default(),
        end,
    };
    let Some(meta) = meta else {
        let newest = newest(store, document).unwrap_or_default();
        return (
            Base {
                document: newest,
                end: None,
            },
            None,
        );
    };
    let Some(snapshot) = &meta.snapshot else {
        return (nothing(Some(meta.log_start)), None);
    };
    match current(store, document, snapshot) {
        Ok(document) => (
            Base {
                document,
                end: Some(snapshot.position),
            },
            None,
        ),
        Err(what) => (nothing(None), Some(what)),
    }
}

fn current(store: &Store, document: &DocumentId, snapshot: &SnapshotMeta) -> Result<Document, String> {
    let bytes = store
        .read_snapshot(document, snapshot, 0, snapshot.bytes)
        .map_err(reason)?;
    if crc32fast::hash(&bytes) != snapshot.crc {
        return Err("it does not match its checksum".into());
    }
    let loaded = Document::load(&bytes).map_err(|error| error.to_string())?;
    if loaded.heads() != snapshot.heads {
        return Err("it loads with other heads than it was saved with".into());
    }
    Ok(loaded)
}

/// The newest snapshot that loads. That all of its chunks are there is for Automerge's own checksum to say.
fn newest(store: &Store, document: &DocumentId) -> Option<Document> {
    let Range { start, end } = Kind::Snapshot.all(document);
    let mut generations: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    // What was visited before an error is good.
    let _ = store.kv.scan(&start..&end, &mut |key, value| {
        if let (Some(Key::Snapshot { generation, .. }), Ok(payload)) = (Key::parse(key), unseal(key, value)) {
            generations.entry(generation).or_default().extend(payload);
        }
        ControlFlow::Continue(())
    });
    let mut loaded = generations.values().rev().map(|bytes| Document::load(bytes));
    loaded.find_map(Result::ok)
}

/// A document's log as far as it is whole.
struct Log {
    from: Position,
    records: Vec<LogRecord>,
    damage: Option<String>,
}

impl Log {
    /// The log from `from`, or, if it need not begin there, from where it does.
    fn read(store: &Store, document: &DocumentId, from: Position, begins_there: bool) -> Self {
        let mut records: Vec<LogRecord> = Vec::new();
        let scanned = store.scan_log(document, from, |mut record| {
            record.trim_before(from);
            if !record.entries.is_empty() {
                records.push(record);
            }
            ControlFlow::Continue(())
        });
        let mut damage = scanned.err().map(reason);
        if begins_there && records.first().is_some_and(|first| first.position != from) {
            records.clear();
            damage = damage.or_else(|| Some(format!("its log does not go on from {from}")));
        }
        Self { from, records, damage }
    }

    fn start(&self) -> Position {
        self.records.first().map_or(self.from, |first| first.position)
    }

    fn end(&self) -> Position {
        self.records.last().map_or(self.from, LogRecord::end)
    }

    fn changes(&self) -> Vec<Bytes> {
        let entries = self.records.iter().flat_map(|record| &record.entries);
        entries.map(|entry| entry.change.clone()).collect()
    }
}

/// The changes on top of the document, saved.
fn merged(document: &Document, changes: &[Bytes], losses: &mut Vec<Loss>) -> Option<Vec<u8>> {
    let merged = match document.merge(changes) {
        Merge::Whole(merged) => merged,
        Merge::Bad { culprits, descendants } => {
            let bad: BTreeSet<usize> = culprits.into_iter().chain(descendants).collect();
            losses.push(Loss::Unmerged(bad.len()));
            let good = (0..).zip(changes).filter(|(number, _)| !bad.contains(number));
            let good: Vec<Bytes> = good.map(|(_, change)| change.clone()).collect();
            match document.merge(&good) {
                Merge::Whole(merged) => merged,
                Merge::Bad { .. } => return None,
            }
        }
    };
    if merged.heads().is_empty() {
        return None;
    }
    merged.snapshot().ok()
}

/// The document and changes that stand on something else, one after another: behind a saved document, be it an empty one,
/// Automerge keeps such changes until it is given what they stand on.
fn loose(document: &Document, changes: &[Bytes]) -> Option<Vec<u8>> {
    if document.heads().is_empty() && changes.is_empty() {
        return None;
    }
    let saved = [document.snapshot().ok()?, changes.concat()].concat();
    Document::load(&saved).is_ok().then_some(saved)
}

/// What is wrong, without the name of the document and without advice.
fn reason(error: StoreError) -> String {
    match error {
        StoreError::Damaged { what, .. } => what,
        StoreError::NoDocument(_) => "it is missing".into(),
        other => other.to_string(),
    }
}
