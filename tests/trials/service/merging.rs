//! A room that merges and compacts a huge document, and edits in another room meanwhile.

use crate::{
    checks::Witnesses,
    client::Client,
    clock,
    process::{PATIENCE, Process},
    trial::{Figure, Outcome, Row, Trial, ensure, on_time},
};
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc, transaction::Transactable};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) const ROW: Row = Row {
    number: "M",
    name: "another room merges a huge document",
    target: "no edit delayed by more than 50 ms",
    ci: 1,
    soak: 20,
    run,
    bites: &[],
};

const DELAY_MS: f64 = 50.0;
/// Each edit writes so many characters, each an operation. Past 1 MiB the document is compacted.
const CHARACTERS: usize = 9_000;
const EDITS: u64 = 130;
/// How many edits say what is usual.
const USUAL: usize = 200;

fn run(trial: &Trial) -> Outcome {
    let (mut usual, mut took, mut busy_ms) = (0_f64, Vec::new(), 0_f64);
    let count = trial.rounds(|round, _| {
        let process = trial.setup(&trial.directory(&format!("store-{round}"))).start()?;
        let mut witnesses = Witnesses::join(process.address, None, "small")?;
        for _ in 0..USUAL {
            usual = usual.max(witnesses.are_unhurt("nothing")?);
        }
        let (begun, done) = (clock::now(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let writing = crate::load::spawn(scope, "huge", || {
                let written = write_huge(&process);
                done.store(true, Ordering::Relaxed);
                written
            });
            while !done.load(Ordering::Relaxed) {
                took.push(witnesses.are_unhurt("a merge in another room")?);
            }
            writing.join().map_err(|_| "the writer of the huge document panicked")?
        })?;
        busy_ms = busy_ms.max(begun.ms());
        Ok(())
    })?;
    let late = took.iter().filter(|ms| **ms > DELAY_MS).count();
    let (edits, slowest) = (took.len(), took.iter().copied().fold(0_f64, f64::max));
    let text = format!(
        "{late} of {edits} edits took longer, at most {slowest:.0} ms, p99 {:.1} ms, while {} operations were merged and compacted \
         in {:.1} s; before that at most {usual:.0} ms",
        clock::percentile(&mut took, 0.99),
        EDITS * CHARACTERS as u64,
        busy_ms / 1e3
    );
    on_time(slowest - usual, DELAY_MS, Figure { count, text })
}

/// Writes a long text and waits until it is compacted.
fn write_huge(process: &Process) -> Result<(), String> {
    let mut replica = Automerge::new().with_actor(ActorId::from(b"huge".as_slice()));
    let mut client = Client::connect(process.address)?;
    let room = client.open("huge")?.opened.room;
    for id in 1..=EDITS {
        client.edit(room, id, vec![typed(&mut replica)])?;
        let answer = client.answer(id);
        ensure!(answer == "ack", "edit {id} is answered with {answer}");
    }
    let compacted = clock::wait_until(PATIENCE, || process.metric("syncline_compactions_total") > 0.0);
    ensure!(compacted, "the huge document is not compacted");
    Ok(())
}

/// A change that inserts much amid the text.
fn typed(replica: &mut Automerge) -> Bytes {
    let mut transaction = replica.transaction();
    let text = match transaction.get(ROOT, "text").expect("the root is there") {
        Some((_, text)) => text,
        None => transaction.put_object(ROOT, "text", ObjType::Text).expect("a text"),
    };
    let middle = transaction.length(&text) / 2;
    let characters: String = (0..CHARACTERS)
        .map(|place| char::from(b'a' + (place % 26) as u8))
        .collect();
    transaction
        .splice_text(&text, middle, 0, &characters)
        .expect("it is inserted");
    transaction.commit();
    let change = replica.get_last_local_change().expect("a change was made");
    Bytes::copy_from_slice(change.raw_bytes())
}
