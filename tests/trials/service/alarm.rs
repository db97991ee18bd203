//! Compaction can never lose, and nobody sees what is not on disk.

use crate::{
    checks,
    client::{Client, Heard},
    clock,
    journal::Journal,
    load::Author,
    process::{PATIENCE, Process, Setup},
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, needs},
};
use std::time::Duration;
use syncline_protocol::native::ServerMessage;

pub(crate) const COMPACTION: Row = Row {
    number: "C",
    name: "a snapshot that does not read back",
    target: "the log stays; an alarm in log and metrics; 0 lost",
    ci: 1,
    soak: 20,
    run: compaction,
    bites: &[Bite {
        name: "the snapshot is not read back",
        environment: &[("SYNCLINE_FAILPOINTS", "bad_snapshot,snapshot_unread")],
        count: 1,
    }],
};

pub(crate) const UNSYNCED: Row = Row {
    number: "E5",
    name: "nobody sees an edit that is not on disk",
    target: "neither ack nor diff before the fsync has returned; 0 seen lost",
    ci: 10,
    soak: 200,
    run: unsynced,
    bites: UNSYNCED_BITES,
};

/// In either dialect.
pub(super) const UNSYNCED_BITES: &[Bite] = &[
    Bite {
        name: "acknowledged before the fsync",
        environment: &[("SYNCLINE_FAILPOINTS", "ack_before_sync")],
        count: 2,
    },
    Bite {
        name: "acknowledged before it is written",
        environment: &[("SYNCLINE_FAILPOINTS", "ack_before_write")],
        count: 2,
    },
];

/// What makes a snapshot due.
const CHANGES: u64 = 6_000;
const PER_EDIT: u64 = 500;

fn compaction(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let process = trial.setup_failing(&data, "bad_snapshot")?.start()?;
    let journal = Journal::create(&trial.scratch.join("journal"));
    write_much(&process, &journal)?;
    let alarms = || process.metric("syncline_compactions_failed_total");
    let ended = clock::wait_until(PATIENCE, || {
        alarms() + process.metric("syncline_compactions_total") > 0.0
    });
    ensure!(ended && alarms() > 0.0, "no failed compaction is counted");
    ensure!(process.log().contains("compaction given up"), "the log does not say it");
    ensure!(
        process.metric("syncline_compactions_total") == 0.0,
        "the bad snapshot counts as made"
    );
    checks::holds(&process, &journal.promised(), 1)?;
    process.kill();
    let process = trial.setup(&data).start()?;
    checks::holds(&process, &journal.promised(), 2)?;
    let text = format!(
        "given up, counted and logged; 0 lost of {} acked, now and after a restart",
        journal.acks()
    );
    Ok(Figure { count: 1, text })
}

fn write_much(process: &Process, journal: &Journal) -> Result<(), String> {
    let mut client = Client::connect(process.address)?;
    let room = client.open("compacted")?.opened.room;
    let mut author = Author::new(b"much");
    for id in 1..=CHANGES / PER_EDIT {
        let made: Vec<_> = (0..PER_EDIT).map(|_| author.next()).collect();
        client.edit(room, id, made.iter().map(|(_, change)| change.clone()).collect())?;
        let answer = client.answer(id);
        ensure!(answer == "ack", "edit {id} is answered with {answer}");
        made.iter().for_each(|(hash, _)| journal.acked("compacted", *hash));
    }
    Ok(())
}

/// Every fsync is made to last so long.
pub(super) const DELAY_MS: u64 = 700;

fn unsynced(trial: &Trial) -> Outcome {
    needs("strace")?;
    let mut earliest = f64::MAX;
    let count = trial.rounds(|round, rng| {
        let data = trial.directory(&format!("store-{round}"));
        let process = with_slow_fsyncs(trial.setup(&data)).start()?;
        let (mut anna, mut ben) = (Client::connect(process.address)?, Client::connect(process.address)?);
        let room = anna.open("slow")?.opened.room;
        ben.open("slow")?;
        let mut author = Author::new(b"slow");
        for id in 1..=2 {
            let begun = clock::now();
            anna.edit(room, id, vec![author.next().1])?;
            let ack = anna.answer(id);
            let acked = begun.ms();
            ensure!(ack == "ack", "answered with {ack}");
            ensure!(
                acked >= DELAY_MS as f64,
                "acknowledged after {acked:.0} ms, before the fsync of {DELAY_MS} ms"
            );
            earliest = earliest.min(acked);
        }
        // Killed while the fsync is under way: by then nobody may have seen it.
        let (hash, change) = author.next();
        let begun = clock::now();
        anna.edit(room, 3, vec![change])?;
        let wait = Duration::from_millis(rng.below(DELAY_MS as usize / 2) as u64);
        let mut seen = shown(&mut ben, wait);
        let early = seen.contains(&hash) && begun.ms() < DELAY_MS as f64;
        process.kill();
        seen.extend(shown(&mut ben, Duration::from_secs(1)));
        ensure!(!early, "shown before the fsync");
        let process = trial.setup(&data).start()?;
        let replica = Client::connect(process.address)?.open("slow")?.document()?;
        let lost = crate::journal::missing(&replica, &seen.into_iter().collect());
        ensure!(lost == 0, "{lost} changes that were shown are lost");
        process.kill();
        Ok(())
    })?;
    let text = format!("with fsyncs of {DELAY_MS} ms no ack before {earliest:.0} ms; nothing shown was lost");
    Ok(Figure { count, text })
}

/// A server whose every fsync lasts [`DELAY_MS`].
pub(super) fn with_slow_fsyncs(setup: Setup) -> Setup {
    let inject = format!("inject=fdatasync:delay_enter={}", DELAY_MS * 1_000);
    setup.under(&["strace", "-D", "-f", "-qq", "-o/dev/null", "-e", &inject])
}

/// The changes that come within so long.
fn shown(member: &mut Client, limit: Duration) -> Vec<automerge::ChangeHash> {
    let (begun, mut seen) = (clock::now(), Vec::new());
    loop {
        let left = limit.saturating_sub(begun.elapsed()).max(Duration::from_millis(1));
        match member.hear_within(left) {
            Heard::Message(ServerMessage::Diff(diff)) => {
                let changes = diff.runs.iter().flat_map(|run| &run.changes);
                let hash = |change: &bytes::Bytes| automerge::Change::try_from(change.as_ref()).ok().map(|c| c.hash());
                seen.extend(changes.filter_map(hash));
            }
            Heard::Message(_) => {}
            Heard::Ended(_) | Heard::Silence => return seen,
        }
    }
}
