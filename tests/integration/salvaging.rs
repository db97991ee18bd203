//! `syncline salvage`: whatever is damaged, the rest comes out, and nothing is called whole that is not.

use crate::{
    peer::{Peer, counted},
    process::Process,
};
use automerge::{AutoCommit, Automerge, ChangeHash};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::Path,
    process::{Command, Output},
    sync::Arc,
};
use syncline::server::store::{
    LogEntry, LogRecord, Meta, SnapshotMeta, Store, StoreError,
    kv::{Batch, Kv},
    layout,
    memory::MemoryKv,
    salvage::{Loss, Missing, Report, Salvaged, salvage_kv},
    sled::{SledKv, SledOptions},
};
use syncline_protocol::{
    DocumentId, Epoch, Position,
    native::{ClosedCode, ServerMessage},
};

const CHANGES: usize = 30;
const PER_RECORD: usize = 3;
/// What the snapshot covers.
const COVERED: usize = 15;

fn write(kv: &dyn Kv, batch: &Batch) {
    kv.commit(batch).expect("it is written");
}

/// Writes a document of ten records, with a snapshot that covers five of them. Its log begins at `log_start`.
fn fill(kv: &dyn Kv, document: &DocumentId, changes: &[Bytes], log_start: usize) {
    let mut bytes_before = 0;
    let at = |number: usize| Position::new(number as u64);
    let bytes = |changes: &[Bytes]| changes.iter().map(|change| change.len() as u64).sum::<u64>();
    for (number, piece) in changes.chunks(PER_RECORD).enumerate() {
        let entry = |change: &Bytes| LogEntry {
            subject: "ann".into(),
            change: change.clone(),
        };
        let record = LogRecord {
            position: at(number * PER_RECORD),
            bytes_before,
            entries: piece.iter().map(entry).collect(),
        };
        bytes_before += bytes(piece);
        if record.position >= at(log_start) {
            write(kv, &layout::append(document, Epoch::new(7), &record, number == 0));
        }
    }
    let mut covered = AutoCommit::load(&changes[..COVERED].concat()).expect("it loads");
    let heads = covered.get_heads().into_iter();
    let heads = heads.map(|head| syncline_protocol::ChangeHash(head.0)).collect();
    let (saved, index) = (covered.save(), [1; 100]);
    layout::snapshot(document, 1, &saved, &index).for_each(|batch| write(kv, &batch));
    let place = (at(COVERED), bytes(&changes[..COVERED]));
    let meta = Meta {
        epoch: Epoch::new(7),
        log_start: at(log_start),
        log_end_min: at(COVERED),
        snapshot: None,
    };
    let snapshot = SnapshotMeta::new(1, place, heads, &saved, &index);
    write(kv, &layout::flip(document, &meta, snapshot).1);
}

/// The keys of one kind, by its letter.
fn keys(kv: &dyn Kv, kind: u8) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    kv.scan(&[kind]..&[kind + 1], &mut |key, _| {
        keys.push(key.to_vec());
        ControlFlow::Continue(())
    })
    .expect("it is read");
    keys
}

/// Flips a bit in what lies under `key`.
fn flip(kv: &dyn Kv, key: &[u8], place: usize) {
    let mut value = kv.get(key).expect("it is read").expect("it is there");
    let place = place % value.len();
    value[place] ^= 1;
    let mut batch = Batch::default();
    batch.put(key.to_vec(), value);
    write(kv, &batch);
}

fn salvage(kv: Arc<MemoryKv>, missing: Missing) -> (Report, Vec<Salvaged>) {
    let mut salvaged = Vec::new();
    let report = salvage_kv(kv, missing, &mut |document| {
        salvaged.push(document);
        Ok(())
    });
    (report.expect("it is salvaged"), salvaged)
}

/// A store with one document, the changes in it and their hashes.
fn store(log_start: usize) -> (Arc<MemoryKv>, Vec<Bytes>, Vec<ChangeHash>) {
    let kv = Arc::new(MemoryKv::default());
    let (document, changes) = counted(1, CHANGES as u32);
    fill(&*kv, &"notes".parse().expect("an id"), &changes, log_start);
    let hashes = document.get_changes(&[]).iter().map(automerge::Change::hash).collect();
    (kv, changes, hashes)
}

/// How many of the changes are in what was saved.
fn reached(salvaged: &Salvaged, hashes: &[ChangeHash]) -> usize {
    let Some(saved) = &salvaged.saved else { return 0 };
    let heads = Automerge::load(saved).expect("it loads").get_heads();
    if heads.is_empty() {
        return 0;
    }
    assert_eq!(heads.len(), 1, "one author, one line");
    1 + hashes.iter().position(|hash| *hash == heads[0]).expect("one of them")
}

#[test]
fn what_is_not_damaged_comes_out() {
    // The kind and number of the damaged chunk, the number of changes that come out, and what is said.
    let cases = [
        (None, CHANGES, "[]", true),
        // Before the snapshot's end the log is not needed.
        (Some((b'l', 1)), CHANGES, "[]", true),
        (Some((b'l', 7)), 21, "cut after position 21", false),
        (Some((b'l', 5)), COVERED, "cut after position 15", false),
        (Some((b's', 0)), CHANGES, "snapshot damaged, log from 0", true),
        (Some((b'i', 0)), CHANGES, "[]", true),
        (Some((b'm', 0)), CHANGES, "without its meta record", false),
    ];
    for (hit, expected, said, is_whole) in cases {
        for place in [0, 5, 50] {
            let (kv, _, hashes) = store(0);
            if let Some((kind, number)) = hit {
                flip(&*kv, &keys(&*kv, kind)[number], place);
            }
            let (report, salvaged) = salvage(kv, Missing::default());
            assert_eq!((report.documents, report.is_whole()), (1, is_whole), "{hit:?}");
            assert_eq!(reached(&salvaged[0], &hashes), expected, "{hit:?}: {salvaged:?}");
            let losses: Vec<String> = salvaged[0].losses.iter().map(ToString::to_string).collect();
            assert!(
                losses.iter().any(|loss| loss.contains(said)) || (losses.is_empty() && said == "[]"),
                "{hit:?}: {losses:?}"
            );
        }
    }
}

#[test]
fn any_two_chunks_may_be_damaged_and_nothing_is_called_whole_that_is_not() {
    let (kv, changes, hashes) = store(0);
    let documents: [DocumentId; 2] = ["other", "notes"].map(|name| name.parse().expect("an id"));
    fill(&*kv, &documents[0], &changes, 0);
    let all: Vec<Vec<u8>> = [b'l', b's', b'i', b'm']
        .iter()
        .flat_map(|kind| keys(&*kv, *kind))
        .collect();
    let of_notes = all.iter().filter(|key| key[1..].starts_with(b"notes"));
    let of_notes: Vec<_> = of_notes.collect();
    let (mut whole, mut cut, mut nothing) = (0, 0, 0);
    for (number, one) in of_notes.iter().enumerate() {
        for two in &of_notes[number..] {
            let values = [one, two].map(|key| kv.get(key).expect("it is read").expect("it is there"));
            flip(&*kv, one, 30);
            if one != two {
                flip(&*kv, two, 30);
            }
            let (_, salvaged) = salvage(kv.clone(), Missing::default());
            let of = |document| salvaged.iter().find(|salvaged| salvaged.document == document);
            let [other, notes] = documents.clone().map(|document| of(document).expect("it is found"));
            assert!(other.losses.is_empty() && reached(other, &hashes) == CHANGES);
            match (&notes.saved, reached(notes, &hashes)) {
                (None, _) => nothing += 1,
                (Some(_), CHANGES) => whole += 1,
                (Some(_), _) => cut += 1,
            }
            assert!(
                !notes.is_whole() || reached(notes, &hashes) == CHANGES,
                "{one:?}, {two:?}: {:?}",
                notes.losses
            );
            let mut batch = Batch::default();
            batch.put(one.to_vec(), values[0].clone());
            batch.put(two.to_vec(), values[1].clone());
            write(&*kv, &batch);
        }
    }
    assert!(
        whole > 20 && cut > 50 && nothing < 5,
        "{whole} whole, {cut} cut, {nothing} with nothing"
    );
}

#[test]
fn a_log_without_its_beginning_is_kept_for_an_older_copy() {
    let (kv, changes, hashes) = store(6);
    assert!(salvage(kv.clone(), Missing::default()).0.is_whole());
    flip(&*kv, &keys(&*kv, b's')[0], 9);
    let (report, salvaged) = salvage(kv.clone(), Missing::default());
    assert!(!report.is_whole());
    let loss = salvaged[0].losses[0].to_string();
    assert!(loss.starts_with("snapshot damaged, log from 6: "), "{loss}");
    let mut older = Automerge::load(&changes[..6].concat()).expect("it loads");
    older
        .load_incremental(salvaged[0].saved.as_ref().expect("the log"))
        .expect("it is taken");
    assert_eq!(older.get_heads(), hashes[CHANGES - 1..], "nothing is missing now");

    for key in keys(&*kv, b'l') {
        flip(&*kv, &key, 9);
    }
    let (_, salvaged) = salvage(kv, Missing::default());
    assert!(salvaged[0].saved.is_none());
    assert_eq!(salvaged[0].losses.last(), Some(&Loss::Nothing));
}

#[test]
fn a_document_is_not_called_whole_where_the_store_ends_early() {
    let (kv, _, hashes) = store(0);
    let missing = Missing {
        batches: 3,
        ..Missing::default()
    };
    let (report, salvaged) = salvage(kv, missing);
    assert_eq!((report.missing.batches, report.not_whole), (3, 1));
    assert_eq!(salvaged[0].losses, [Loss::Early(Position::new(CHANGES as u64))]);
    assert_eq!(reached(&salvaged[0], &hashes), CHANGES);
}

#[test]
fn a_document_that_may_lack_something_is_refused_afterwards_and_others_are_not() {
    let kv = Arc::new(MemoryKv::default());
    Store::open(kv.clone()).expect("it is begun");
    let (whole, changes) = counted(1, CHANGES as u32);
    let hashes: Vec<_> = whole.get_changes(&[]).iter().map(automerge::Change::hash).collect();
    let [notes, other] = ["notes", "other"].map(|name| name.parse::<DocumentId>().expect("an id"));
    fill(&*kv, &notes, &changes, 0);
    fill(&*kv, &other, &changes, 0);
    let missing = Missing {
        doubts: vec![b"lnotes\0".to_vec()..b"lnotes\x01".to_vec()],
        ..Missing::default()
    };
    let (report, salvaged) = salvage(kv.clone(), missing);
    assert_eq!((report.documents, report.not_whole), (2, 1));
    assert_eq!(salvaged[0].losses, [Loss::Doubtful(Position::new(CHANGES as u64))]);
    assert_eq!(reached(&salvaged[0], &hashes), CHANGES, "what there is comes out");
    let opened = Store::open(kv).expect("it opens");
    assert!(matches!(opened.load(&notes), Err(StoreError::Damaged { .. })));
    assert!(opened.load(&other).expect("it is whole").is_some());
}

fn run(data: &Path, out: &Path) -> (Option<i32>, String, String) {
    let (data, out) = (data.display().to_string(), out.display().to_string());
    let Output { status, stdout, stderr } = syncline(&["salvage", "--data", &data, "--out", &out]);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

fn syncline(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.args(arguments).output().expect("it runs")
}

/// Every file of a directory with its bytes.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry"));
    let files = entries.filter(|entry| entry.path().is_file());
    files
        .map(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            (name, fs::read(file.path()).expect("a file"))
        })
        .collect()
}

/// Wipes these bytes wherever the log file holds them.
fn wipe_in_file(data: &Path, bytes: &[u8]) {
    let path = data.join("db");
    let mut log = fs::read(&path).expect("a file");
    let places: Vec<usize> = (0..log.len())
        .filter(|place| log[*place..].starts_with(bytes))
        .collect();
    assert!(!places.is_empty(), "a change lies in the file as it came");
    for place in places {
        log[place..place + bytes.len()].fill(0);
    }
    fs::write(path, log).expect("it is written");
}

/// A server whose two documents hold the same changes; the changes and their hashes.
fn serve_two(data: &Path) -> (Process, Vec<Bytes>, Vec<ChangeHash>) {
    let process = Process::serve(data);
    let (document, changes) = counted(1, CHANGES as u32);
    let mut anna = Peer::connect(process.address, None);
    for name in ["notes", "team/plans"] {
        let room = anna.open(name, None).opened.room;
        for (number, change) in (0..).zip(&changes) {
            anna.edit(room, number, vec![change.clone()]);
            anna.hear_answer(number).expect("acknowledged");
        }
    }
    let hashes = document.get_changes(&[]).iter().map(automerge::Change::hash).collect();
    (process, changes, hashes)
}

fn heads(file: &Path) -> Vec<ChangeHash> {
    let bytes = fs::read(file).expect("it was written");
    Automerge::load(&bytes).expect("it loads").get_heads()
}

#[test]
fn a_store_in_use_and_wrong_directories_are_told_in_one_line() {
    let root = tempfile::tempdir().expect("a directory");
    let data = root.path().join("data");
    let failed = |data: &Path, name: &str, part: &str| {
        let (code, said, error) = run(data, &root.path().join(name));
        assert_eq!((code, said.as_str()), (Some(1), ""), "{error}");
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    };
    let (process, ..) = serve_two(&data);
    failed(&data, "busy", "another syncline serves");
    assert!(process.terminate().success());
    failed(root.path(), "wrong", "holds no store");
    failed(&data, "data", "is not empty");
    failed(&data, "data/within", "lies in the data directory");
}

#[test]
fn the_command_writes_all_of_a_good_store_and_the_rest_of_a_damaged_one() {
    let root = tempfile::tempdir().expect("a directory");
    let (data, out) = (root.path().join("data"), |name: &str| root.path().join(name));
    let (process, _, hashes) = serve_two(&data);
    assert!(process.terminate().success());
    let sound = contents(&data);
    let (code, said, error) = run(&data, &out("sound"));
    assert_eq!(code, Some(0), "{said}{error}");
    assert_eq!(
        said,
        "notes: ok; notes.automerge\nteam/plans: ok; team+plans.automerge\n2 documents, 2 of them whole\n"
    );
    assert_eq!(contents(&data), sound, "nothing is written there");
    assert_eq!(
        fs::read_dir(out("sound")).expect("a directory").count(),
        3,
        "files and the new store"
    );
    for file in ["notes.automerge", "team+plans.automerge"] {
        assert_eq!(heads(&out("sound").join(file)), hashes[CHANGES - 1..]);
    }

    {
        // The last record of the second document.
        let kv = SledKv::open(&data, SledOptions::default()).expect("it opens");
        flip(&kv, keys(&kv, b'l').last().expect("a log"), 40);
    }
    let (code, said, error) = run(&data, &out("record"));
    assert_eq!(code, Some(1), "{said}{error}");
    assert!(said.starts_with("notes: ok; "), "{said}");
    assert!(said.contains("team/plans: cut after position 29 ("), "{said}");
    assert!(error.contains("1 of 2 documents lack something"), "{error}");
    assert_eq!(heads(&out("record").join("team+plans.automerge")), hashes[28..29]);
}

#[test]
fn a_store_that_does_not_open_names_salvage_which_makes_one_that_does() {
    let root = tempfile::tempdir().expect("a directory");
    let (data, out) = (root.path().join("data"), root.path().join("out"));
    let (process, changes, hashes) = serve_two(&data);
    let mut peer = Peer::connect(process.address, None);
    let room = peer.open("sound", None).opened.room;
    peer.edit(room, 1, vec![counted(9, 1).1[0].clone()]);
    peer.hear_answer(1).expect("acknowledged");
    assert!(process.terminate().success());
    wipe_in_file(&data, &changes[20]);
    let before = contents(&data);
    let name = data.display().to_string();
    let serve = ["serve", "--dev", "--listen", "127.0.0.1:0", "--data", &name];
    for arguments in [&serve[..], &["check", "--data", &name]] {
        let refused = syncline(arguments);
        let error = String::from_utf8(refused.stderr).expect("text");
        assert_eq!(refused.status.code(), Some(1), "{error}");
        assert!(error.contains("`syncline salvage`"), "{error}");
    }
    assert_eq!(contents(&data)["db"], before["db"], "whoever refuses it wipes nothing");
    let (code, said, error) = run(&data, &out);
    assert_eq!(code, Some(1), "{said}{error}");
    assert_eq!(contents(&data)["db"], before["db"], "nothing is written there");
    for name in ["notes", "team/plans"] {
        assert!(said.contains(&format!("{name}: cut after position 20 (")), "{said}");
    }
    assert!(
        error.contains("2 of 3 documents lack something") && error.lines().count() == 1,
        "{error}"
    );
    assert_eq!(heads(&out.join("notes.automerge")), hashes[19..20]);

    let again = Process::serve(&out.join("store"));
    let mut peer = Peer::connect(again.address, None);
    assert_eq!(peer.open("sound", None).opened.cursor.position, Position::new(1));
    for name in ["notes", "team/plans"] {
        peer.ask(name, None);
        let code = loop {
            if let ServerMessage::Closed { code, .. } = peer.hear().expect("an answer") {
                break code;
            }
        };
        assert_eq!(code, ClosedCode::Damaged, "{name}");
    }
    assert!(again.terminate().success());
}
