//! Row 25 and the reset: a panic inside one room, and a change that was relayed and then does not merge. Both need the build
//! with failpoints.

use crate::{
    checks::Witnesses,
    client::Client,
    clock::{self, Moment},
    editor::{Editor, edit_while},
    journal::missing,
    load::Author,
    process::Process,
    service::restart::{all_go_on, holds},
    trial::{Bite, Figure, Outcome, Row, Trial, Trouble, ensure, on_time},
};
use automerge::{
    ActorId, Automerge, ChangeHash, ROOT, ReadDoc,
    transaction::{CommitOptions, Transactable},
};
use bytes::Bytes;
use std::collections::BTreeSet;
use syncline::server::failpoints::MARK;
use syncline_protocol::native::ClientMessage;

pub(crate) const PANIC: Row = Row {
    number: "25",
    name: "a panic inside one room",
    target: "other rooms: 0 disconnects; that room back within 1 s; 0 lost",
    ci: 1,
    soak: 20,
    run: panic,
    bites: &[Bite {
        name: "a panic ends the server",
        environment: &[("SYNCLINE_FAILPOINTS", "panic_in_room,panic_ends_all")],
        count: 1,
    }],
};

pub(crate) const RESET: Row = Row {
    number: "R",
    name: "a relayed change that does not merge",
    target: "members reopen within 1 s by themselves, lose none of their edits; the culprit stays out",
    ci: 1,
    soak: 20,
    run: reset,
    bites: &[
        Bite {
            name: "what was thrown out is taken again",
            environment: &[("SYNCLINE_FAILPOINTS", "throw_out,culprits_welcome")],
            count: 1,
        },
        Bite {
            name: "what was written since is thrown out, too",
            environment: &[("SYNCLINE_FAILPOINTS", "throw_out,reset_loses")],
            count: 1,
        },
    ],
};

const BACK_MS: f64 = 1_000.0;
const APPS: usize = 3;
/// What a member writes who is gone before the reset: nobody but the server can keep it.
const PARTING_CHANGES: usize = 50;

fn panic(trial: &Trial) -> Outcome {
    let mut slowest = 0_f64;
    let mut acks = 0;
    let count = trial.rounds(|round, _| {
        let data = trial.directory(&format!("store-{round}"));
        let process = failing(trial, &data, "panic_in_room")?;
        let mut others = Witnesses::join(process.address, None, "another-room")?;
        let (editors, begun) = (Editor::some(&["sick"], APPS), clock::now());
        let back = edit_while(&editors, process.address, begun, || {
            all_go_on(&editors, 0.0)?;
            let at = begun.ms();
            break_room(&process)?;
            others.are_unhurt("a panic in another room")?;
            all_go_on(&editors, at + panicked(&process, begun, at)?)
        })??;
        slowest = back.into_iter().fold(slowest, f64::max);
        others.are_unhurt("a panic in another room")?;
        ensure!(
            process.metric("syncline_room_panics_total") == 1.0,
            "the panic is not counted"
        );
        acks += holds(&process, &editors)?;
        Ok(())
    });
    let count = skipped_or(count)?;
    let text = format!("others unhurt; edits taken again within {slowest:.0} ms; 0 lost of {acks}");
    on_time(slowest, BACK_MS, Figure { count, text })
}

fn break_room(process: &Process) -> Result<(), String> {
    let mut culprit = Client::connect(process.address)?;
    let room = culprit.open("sick")?.opened.room;
    culprit.say(&ClientMessage::Signal {
        room,
        payload: Bytes::from_static(MARK),
    })
}

/// Milliseconds until the panic is counted.
fn panicked(process: &Process, begun: Moment, at: f64) -> Result<f64, String> {
    let counted = clock::wait_until(crate::process::PATIENCE, || {
        process.metric("syncline_room_panics_total") > 0.0
    });
    ensure!(counted, "the room does not panic");
    Ok(begun.ms() - at)
}

fn reset(trial: &Trial) -> Outcome {
    let mut slowest = 0_f64;
    let mut acks = 0;
    let count = trial.rounds(|round, _| {
        let data = trial.directory(&format!("store-{round}"));
        let process = failing(trial, &data, "throw_out")?;
        let (editors, begun) = (Editor::some(&["sick"], APPS), clock::now());
        let mut others = Witnesses::join(process.address, None, "another-room")?;
        let (back, thrown_out) = edit_while(&editors, process.address, begun, || {
            all_go_on(&editors, 0.0)?;
            let thrown_out = send_bad(&process)?;
            let at = begun.ms();
            Ok::<_, String>((all_go_on(&editors, at)?, thrown_out))
        })??;
        slowest = back.into_iter().fold(slowest, f64::max);
        let ThrownOut { bad, ended, parting } = thrown_out;
        ensure!(ended == Some(4409), "the culprit is closed with {ended:?}");
        ensure!(
            process.metric("syncline_resets_total") >= 1.0,
            "the reset is not counted"
        );
        others.are_unhurt("a reset of another room")?;
        acks += holds(&process, &editors)? + parting.len();
        let mut again = Client::connect(process.address)?;
        let joined = again.open("sick")?;
        let document = joined.document()?;
        ensure!(
            document.get(ROOT, "bad").is_ok_and(|found| found.is_none()),
            "the culprit is still there"
        );
        let lost = missing(&document, &parting);
        ensure!(
            lost == 0,
            "{lost} of {} acked changes of a member that has left are lost",
            parting.len()
        );
        again.edit(joined.opened.room, 1, vec![bad])?;
        let answer = again.answer(1);
        ensure!(
            answer == "quarantined",
            "the culprit sent again is answered with {answer}"
        );
        Ok(())
    });
    let count = skipped_or(count)?;
    let text = format!("edits taken again within {slowest:.0} ms; 0 lost of {acks}; the culprit is closed and refused");
    on_time(slowest, BACK_MS, Figure { count, text })
}

/// What a reset was about.
struct ThrownOut {
    bad: Bytes,
    /// How its sender ended.
    ended: Option<u16>,
    /// What was acknowledged after it to a member that left.
    parting: BTreeSet<ChangeHash>,
}

/// A change that the failpoint throws out when it is merged, which many others make due.
fn send_bad(process: &Process) -> Result<ThrownOut, String> {
    let (mut culprit, mut guest) = (Client::connect(process.address)?, Client::connect(process.address)?);
    let room = culprit.open("sick")?.opened.room;
    guest.open("sick")?;
    let mut document = Automerge::new().with_actor(ActorId::from(b"culprit".as_slice()));
    let mut transaction = document.transaction();
    transaction.put(ROOT, "bad", 1).map_err(|error| error.to_string())?;
    transaction.commit_with(CommitOptions::default().with_message(String::from_utf8_lossy(MARK)));
    let bad = document.get_last_local_change().ok_or("no change was made")?;
    let bad = Bytes::copy_from_slice(bad.raw_bytes());
    culprit.edit(room, 1, vec![bad.clone()])?;
    ensure!(culprit.answer(1) == "ack", "the change is not taken");
    let mut author = Author::new(b"guest");
    let (parting, changes) = (0..PARTING_CHANGES).map(|_| author.next()).unzip();
    guest.edit(room, 1, changes)?;
    ensure!(guest.answer(1) == "ack", "what the guest writes is not taken");
    drop(guest);
    let mut author = Author::new(b"many");
    for id in 2..=11 {
        culprit.edit(room, id, (0..600).map(|_| author.next().1).collect())?;
    }
    let ended = culprit.hear_end().ok_or("the culprit is not closed")?;
    Ok(ThrownOut { bad, ended, parting })
}

fn failing(trial: &Trial, data: &std::path::Path, failpoint: &str) -> Result<Process, String> {
    match trial.setup_failing(data, failpoint) {
        Ok(setup) => setup.start(),
        Err(Trouble::Skipped(text)) => Err(format!("{SKIP}{text}")),
        Err(trouble) => Err(format!("{trouble:?}")),
    }
}

const SKIP: &str = "skip: ";

/// Rounds know only failures; a row that cannot run says so.
fn skipped_or(rounds: Result<u64, Trouble>) -> Result<u64, Trouble> {
    match rounds {
        Err(Trouble::Failed(text)) => match text.split_once(SKIP) {
            Some((_, how)) => Err(Trouble::Skipped(how.to_owned())),
            None => Err(Trouble::Failed(text)),
        },
        other => other,
    }
}
