//! Row L: many documents asked for in one moment by members who are in, several times what fits into the budget. Loads wait for
//! each other, what does not fit is put off, and in the end everybody is in.

use super::scarce::{BUDGET_BYTES, MACHINE_KIB, wide};
use crate::{
    client::{Client, Heard},
    clock,
    process::Process,
    trial::{Bite, Figure, Outcome, Row, Trial, Trouble, ensure},
};
use bytes::Bytes;
use std::time::Duration;
use syncline_protocol::native::{ClosedCode, ServerMessage};

pub(crate) const ROW: Row = Row {
    number: "L",
    name: "many large documents asked for at once",
    target: "never over 256 MB; who is put off is told so, and gets in when others have left",
    ci: 1,
    soak: 20,
    run,
    bites: &[Bite {
        name: "no budget",
        environment: &[("SYNCLINE_ROOMS_MEMORY_BYTES_MAX", "17179869184")],
        count: 1,
    }],
};

/// About seven times what fits.
const DOCUMENTS: usize = 200;
/// Less than what they take together. Between that and the target lies what the allocator keeps, which is no promise.
const WITHOUT_BUDGET_KIB: u64 = 350 << 10;
/// Until everybody was in.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between two rounds of those who were put off.
const PAUSE: Duration = Duration::from_millis(100);

fn run(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let process = trial.setup(&data).start()?;
    write(&process, &wide())?;
    let status = process.terminate()?;
    ensure!(status.success(), "the server ended with {status}");
    let process = trial
        .setup(&data)
        .variable("SYNCLINE_ROOMS_MEMORY_BYTES_MAX", BUDGET_BYTES)
        .variable("SYNCLINE_ROOMS_IDLE_TIMEOUT_MS", 1_000)
        // A guest hears nothing until it is its turn.
        .variable("SYNCLINE_LIMITS_IDLE_TIMEOUT_MS", 600_000)
        // What glibc keeps of freed memory, once for each arena, is no load's.
        .variable("MALLOC_ARENA_MAX", 1)
        .start()?;
    let mut members = Vec::new();
    for number in 0..DOCUMENTS {
        members.push(Guest {
            client: Client::connect(process.address)?,
            document: document(number),
        });
    }
    let begun = clock::now();
    let mut waiting = ask_all(members)?;
    let first = DOCUMENTS - waiting.len();
    ensure!(first > 0, "nobody is let in");
    ensure!(
        first < DOCUMENTS,
        "all {DOCUMENTS} are let in at once, with {} MiB at the peak",
        process.peak_kib() >> 10
    );
    while !waiting.is_empty() {
        ensure!(begun.elapsed() < PATIENCE, "{} were never let in", waiting.len());
        std::thread::sleep(PAUSE);
        waiting = ask_all(waiting)?;
    }
    let peak_kib = process.peak_kib();
    ensure!(
        peak_kib < WITHOUT_BUDGET_KIB,
        "{peak_kib} KiB at its peak, with {first} of {DOCUMENTS} documents open at once"
    );
    let text = format!(
        "of {DOCUMENTS} documents asked for at once {first} opened, the others were put off, and all had been open after {:.1} s; \
         {} MiB at its peak",
        begun.elapsed().as_secs_f64(),
        peak_kib >> 10
    );
    if peak_kib > MACHINE_KIB {
        let reason = "over the target, and far from what all take: what does the allocator keep?";
        return Err(Trouble::Missed { figure: text, reason });
    }
    Ok(Figure { count: 1, text })
}

struct Guest {
    client: Client,
    document: String,
}

fn document(number: usize) -> String {
    format!("load/{number}")
}

/// Writes the documents.
fn write(process: &Process, change: &Bytes) -> Result<(), String> {
    for number in 0..DOCUMENTS {
        let mut client = Client::connect(process.address)?;
        let room = client.open(&document(number))?.opened.room;
        client.edit(room, 1, vec![change.clone()])?;
        let answer = client.answer(1);
        ensure!(answer == "ack", "document {number} is answered with {answer}");
    }
    Ok(())
}

/// All ask in one moment, and stay until each has its answer; those who got in leave then. Who was put off.
fn ask_all(mut guests: Vec<Guest>) -> Result<Vec<Guest>, String> {
    for guest in &mut guests {
        guest.client.ask(&guest.document, None)?;
    }
    let mut is_in = Vec::new();
    for guest in &mut guests {
        is_in.push(hear_whether_in(guest)?);
    }
    let mut is_in = is_in.into_iter();
    guests.retain(|_| !is_in.next().unwrap_or_default());
    Ok(guests)
}

fn hear_whether_in(guest: &mut Guest) -> Result<bool, String> {
    loop {
        match guest.client.hear() {
            Heard::Message(ServerMessage::Part(part)) if part.end.is_some() => return Ok(true),
            Heard::Message(ServerMessage::Closed { code, text, .. }) => {
                ensure!(
                    code == ClosedCode::Unavailable,
                    "{} is closed: {code} {text}",
                    guest.document
                );
                return Ok(false);
            }
            Heard::Message(_) => {}
            other => return Err(format!("{} is not answered: {other:?}", guest.document)),
        }
    }
}
