//! Real editing histories through the gate, and what they cost. Where the traces are not there, generated ones stand in.

use crate::{decoded, history::replica, rng::Rng, somebody, stopwatch, traces_directory};
use automerge::{AutoCommit, Automerge, Change, ObjId, ObjType, ROOT, ReadDoc, transaction::Transactable};
use serde_json::Value;
use std::{fs::File, io::Read};
use syncline::engine::{
    document::Document,
    gate::{self, Verdict},
    index::Index,
};
use syncline_protocol::Limits;

/// One edit of a text: where, how many characters go, what comes; on the history that `parents` name.
struct Edit {
    parents: Vec<usize>,
    agent: usize,
    at: usize,
    deleted: isize,
    inserted: String,
}

fn trace(name: &str) -> Option<Vec<Edit>> {
    let file = File::open(traces_directory().join(name)).ok()?;
    let mut json = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut json)
        .expect("the trace is readable");
    let trace: Value = serde_json::from_str(&json).expect("the trace is JSON");
    let number = |value: &Value| value.as_u64().expect("a number") as usize;
    let edits = trace["txns"].as_array().expect("transactions").iter().map(|edit| Edit {
        parents: edit["parents"]
            .as_array()
            .map_or_else(Vec::new, |parents| parents.iter().map(number).collect()),
        agent: edit["agent"].as_u64().unwrap_or(0) as usize,
        at: number(&edit["patches"][0][0]),
        deleted: number(&edit["patches"][0][1]) as isize,
        inserted: edit["patches"][0][2].as_str().expect("text").to_owned(),
    });
    Some(edits.collect())
}

/// Two writers who type at once and hear of each other now and then.
fn generated(edits: usize) -> Vec<Edit> {
    let rng = &mut Rng::new(5);
    let mut last = [None, None];
    let edits = (0..edits).map(|n| {
        let agent = rng.below(2);
        let parents = if rng.one_in(10) && last[1 - agent].is_some() {
            last.iter().flatten().copied().collect()
        } else {
            last[agent].into_iter().collect()
        };
        last[agent] = Some(n);
        Edit {
            parents,
            agent,
            at: 0,
            deleted: 0,
            inserted: "x".to_owned(),
        }
    });
    edits.collect()
}

/// A writer's replica, and which edits of the trace it holds.
struct Writer {
    replica: AutoCommit,
    text: ObjId,
    holds: Vec<bool>,
}

impl Writer {
    /// Brings the replica to the history that `parents` name.
    fn advance(&mut self, edits: &[Edit], changes: &[Change], parents: &[usize]) {
        let (mut missing, mut pending) = (Vec::new(), parents.to_vec());
        while let Some(edit) = pending.pop() {
            if !std::mem::replace(&mut self.holds[edit], true) {
                missing.push(edit);
                pending.extend(&edits[edit].parents);
            }
        }
        missing.sort_unstable();
        let missing: Vec<_> = missing.into_iter().map(|edit| changes[edit].clone()).collect();
        if !missing.is_empty() {
            self.replica.apply_changes(missing).expect("honest changes apply");
        }
    }
}

/// The changes that the edits make, after one that makes the text.
fn replay(edits: &[Edit]) -> Vec<Change> {
    let mut first = replica(0);
    let text = first.put_object(ROOT, "text", ObjType::Text).unwrap();
    let first = first.get_last_local_change().unwrap();
    let mut writers: Vec<_> = (1..=2)
        .map(|actor| {
            let mut replica = replica(actor);
            replica.apply_changes([first.clone()]).unwrap();
            Writer {
                replica,
                text: text.clone(),
                holds: vec![false; edits.len()],
            }
        })
        .collect();
    let mut changes = Vec::with_capacity(edits.len());
    for (n, edit) in edits.iter().enumerate() {
        let writer = &mut writers[edit.agent];
        writer.advance(edits, &changes, &edit.parents);
        writer.holds[n] = true;
        writer
            .replica
            .splice_text(&writer.text, edit.at, edit.deleted, &edit.inserted)
            .unwrap();
        changes.push(writer.replica.get_last_local_change().expect("an edit"));
    }
    changes.insert(0, first);
    changes
}

fn passes_whole(edits: &[Edit]) {
    let changes = replay(edits);
    let mut index = Index::default();
    for (n, change) in changes.iter().enumerate() {
        let change = decoded(change.raw_bytes()).unwrap();
        let verdict = gate::take_in(&mut index, None, &somebody(), &change, &Limits::default());
        assert_eq!(verdict, Verdict::Vouched, "change {n}");
        index.settle(index.position());
    }
    let stored = index.encode();
    println!(
        "{} changes: index of {} B, {} B stored",
        changes.len(),
        index.memory_bytes(),
        stored.len()
    );
    assert_eq!(Index::decode(&stored).unwrap().encode(), stored);
}

#[test]
fn the_beginning_of_a_session_of_two_authors_passes_whole() {
    let edits = trace("friendsforever.json.gz").unwrap_or_else(|| generated(3_000));
    passes_whole(&edits[..3_000]);
}

#[test]
#[ignore = "minutes long"]
fn a_session_of_two_authors_passes_whole() {
    passes_whole(&trace("friendsforever.json.gz").expect("the trace"));
}

/// What each step costs on average over `changes`, which come next, in nanoseconds.
fn cost(index: &mut Index, document: Option<&Document>, changes: &[Change]) -> String {
    let limits = Limits::default();
    let raw: Vec<bytes::Bytes> = changes
        .iter()
        .map(|change| change.raw_bytes().to_vec().into())
        .collect();
    let read = || {
        raw.into_iter()
            .map(|bytes| gate::read(bytes, &limits).unwrap())
            .collect::<Vec<_>>()
    };
    let (headers, read) = stopwatch(read);
    let decode = || {
        headers
            .into_iter()
            .map(|header| gate::decode(header).unwrap())
            .collect::<Vec<_>>()
    };
    let (all, decode) = stopwatch(decode);
    let subject = somebody();
    let (_, check) = stopwatch(|| {
        for change in &all {
            assert_eq!(
                gate::take_in(index, document, &subject, change, &limits),
                Verdict::Vouched
            );
        }
    });
    let each = |micros: u64| micros * 1_000 / changes.len() as u64;
    format!(
        "read {} ns, decode {} ns, take in {} ns",
        each(read),
        each(decode),
        each(check)
    )
}

/// Takes the steps at several sizes of a long text; run it in a release build: `cargo test --release --test gate -- --ignored
/// --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure() {
    let Some(edits) = trace("automerge-paper.json.gz") else {
        return;
    };
    let mut writer = replica(1);
    let text = writer.put_object(ROOT, "text", ObjType::Text).unwrap();
    writer.commit();
    let mut index = Index::default();
    let mut sent = Vec::new();
    for (n, edit) in edits.iter().enumerate() {
        let behind = [1_000, 100_000, 250_000]
            .contains(&n)
            .then(|| writer.document().clone());
        writer
            .splice_text(&text, edit.at, edit.deleted, &edit.inserted)
            .unwrap();
        writer.commit();
        if n % 1_000 == 999 || n + 1 == edits.len() {
            let news = writer.get_changes(&sent);
            sent = writer.get_heads();
            let cost = cost(&mut index, None, &news);
            index.settle(index.position());
            if [999, 99_999, 249_999].contains(&n) || n + 1 == edits.len() {
                println!("one after another, {} edits: {cost}", n + 1);
            }
        }
        if let Some(behind) = behind {
            measure_concurrent(n, &mut writer, &index, behind, &text, &edits[n + 1..n + 1_001]);
        }
    }
    let stored = index.encode();
    let (back, micros) = stopwatch(|| Index::decode(&stored).unwrap());
    let ops = edits.len();
    println!(
        "index of {ops} edits: {} B in memory, {} B stored, read back in {micros} µs",
        index.memory_bytes(),
        stored.len()
    );
    println!(
        "{:.2} B of memory per edit, {:.2} stored",
        back.memory_bytes() as f64 / ops as f64,
        stored.len() as f64 / ops as f64
    );
}

/// Somebody who has missed the last 1,000 edits makes 200.
fn measure_concurrent(
    n: usize,
    writer: &mut AutoCommit,
    index: &Index,
    behind: Automerge,
    text: &ObjId,
    missed: &[Edit],
) {
    let mut index = index.clone();
    let mut ahead = AutoCommit::load(&writer.save()).unwrap().with_actor([3; 16].into());
    for edit in missed {
        let at = edit.at.min(ahead.length(text));
        ahead.splice_text(text, at, 0, "y").unwrap();
        ahead.commit();
    }
    let missed: Vec<_> = ahead.get_changes(&writer.get_heads());
    // The index is at the last full thousand, the document one edit further.
    for change in writer.get_changes(&behind.get_heads()).iter().chain(&missed) {
        index.admit(&decoded(change.raw_bytes()).unwrap(), &somebody());
    }
    let heads = behind.get_heads();
    let mut offline = behind.with_actor([2; 16].into());
    for at in 0..200 {
        let mut transaction = offline.transaction();
        transaction.splice_text(text, at, 0, "z").unwrap();
        transaction.commit();
    }
    println!(
        "1,000 behind, {n} edits: {}",
        cost(&mut index, None, &offline.get_changes(&heads))
    );
}
