//! A room that merges and compacts a huge document, and edits in other rooms meanwhile: a calm one, and one with so many that it has
//! merges of its own to wait for.

use crate::{
    checks::Witnesses,
    client::Client,
    clock,
    load::Author,
    process::{PATIENCE, Process},
    trial::{Bite, Figure, Outcome, Row, Trial, Trouble, ensure, on_time},
};
use automerge::{ActorId, Automerge, ObjType, ROOT, ReadDoc, transaction::Transactable};
use bytes::Bytes;
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

pub(crate) const ROW: Row = Row {
    number: "M",
    name: "other rooms while one merges a huge document",
    target: "no edit delayed by more than 50 ms",
    ci: 1,
    soak: 20,
    run,
    bites: &[Bite {
        name: "merges on the one thread that serves connections",
        environment: &[
            ("SYNCLINE_FAILPOINTS", "merges_in_the_way"),
            ("TOKIO_WORKER_THREADS", "1"),
        ],
        count: 1,
    }],
};

const DELAY_MS: f64 = 50.0;
/// Edits that wait for merges wait for so much more of the time than before; on a busy machine they do so now and then.
const HELD_UP_MAX: f64 = 0.4;
/// Each edit writes so many characters, each an operation. Past 1 MiB the document is compacted.
const CHARACTERS: usize = 9_000;
const EDITS: u64 = 130;
/// How many edits say what is usual.
const USUAL: usize = 200;
/// What the busy room is sent: a merge of its own is due every two seconds, and it takes no edits if that waits as long again.
const BUSY_CHANGES: usize = 250;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

fn run(trial: &Trial) -> Outcome {
    let (mut before, mut took, mut took_busy, mut busy_ms) = (Vec::new(), Vec::new(), Vec::new(), 0_f64);
    let count = trial.rounds(|round, _| {
        let process = trial.setup(&trial.directory(&format!("store-{round}"))).start()?;
        let mut witnesses = Witnesses::join(process.address, None, "small")?;
        for _ in 0..USUAL {
            before.push(witnesses.are_unhurt("nothing")?);
        }
        let (begun, done) = (clock::now(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let writing = crate::load::spawn(scope, "huge", || {
                let written = write_huge(&process);
                done.store(true, Ordering::Relaxed);
                written
            });
            let busy = crate::load::spawn(scope, "busy", || write_much(&process, &done));
            while !done.load(Ordering::Relaxed) {
                took.push(witnesses.are_unhurt("a merge in another room")?);
            }
            took_busy.extend(busy.join().map_err(|_| "the busy writer panicked")??);
            writing.join().map_err(|_| "the writer of the huge document panicked")?
        })?;
        busy_ms = busy_ms.max(begun.ms());
        Ok(())
    })?;
    let (held_up, held_up_before) = (held_up(&took), held_up(&before));
    let late = took.iter().filter(|ms| **ms > DELAY_MS).count();
    let most = |took: &[f64]| took.iter().copied().fold(0_f64, f64::max);
    let (edits, slowest, slowest_busy, usual) = (took.len(), most(&took), most(&took_busy), most(&before));
    let text = format!(
        "{late} of {edits} edits took longer, at most {slowest:.0} ms, p99 {:.1} ms, and {slowest_busy:.0} ms with {BUSY_CHANGES} \
         changes each in a busy room, while {} operations were merged and compacted in {:.1} s; before that at most {usual:.0} ms",
        clock::percentile(&mut took, 0.99),
        EDITS * CHARACTERS as u64,
        busy_ms / 1e3
    );
    let shares = format!(
        "held up for {:.0} % of the time, before for {:.0} %",
        100.0 * held_up,
        100.0 * held_up_before
    );
    ensure!(held_up - held_up_before <= HELD_UP_MAX, "{shares}: {text}");
    if held_up > HELD_UP_MAX {
        let (figure, reason) = (
            format!("{shares}: {text}"),
            "edits waited before the merge, too: the machine is busy",
        );
        return Err(Trouble::Missed { figure, reason });
    }
    on_time(slowest.max(slowest_busy) - usual, DELAY_MS, Figure { count, text })
}

/// The share of the time that edits were under way which took far too long.
fn held_up(took: &[f64]) -> f64 {
    let late = took.iter().filter(|ms| **ms > 5.0 * DELAY_MS).sum::<f64>();
    // The sum of none is -0.
    late.abs() / took.iter().sum::<f64>()
}

/// Writes many changes into a room of its own until `done`; how many milliseconds each edit took.
fn write_much(process: &Process, done: &AtomicBool) -> Result<Vec<f64>, String> {
    let (mut client, mut author, mut took) = (Client::connect(process.address)?, Author::new(b"busy"), Vec::new());
    let room = client.open("busy")?.opened.room;
    while !done.load(Ordering::Relaxed) {
        let changes = (0..BUSY_CHANGES).map(|_| author.next().1).collect();
        let (begun, id) = (clock::now(), took.len() as u64 + 1);
        client.edit(room, id, changes)?;
        let answer = client.answer(id);
        ensure!(answer == "ack", "edit {id} of the busy room is answered with {answer}");
        took.push(begun.ms());
        std::thread::sleep(BUSY_PAUSE);
    }
    Ok(took)
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
    let compacted = clock::wait_until(PATIENCE, || {
        let log = process.log();
        log.lines()
            .any(|line| line.contains("compacted") && line.contains("document=huge"))
    });
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
