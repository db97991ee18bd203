//! Rows 4 and 5: the disk is full, and an fsync that fails.

use crate::{
    checks::{self},
    client::Client,
    clock,
    durability::files::SmallDisk,
    journal::Journal,
    load::{Author, Load, wait_for_acks},
    process::{PATIENCE, Process},
    trial::{Bite, Figure, Outcome, Row, Trial, Trouble, ensure, needs, needs_root, on_time},
};
use std::{sync::atomic::Ordering, time::Duration};

pub(crate) const FULL: Row = Row {
    number: "4",
    name: "disk full",
    target: "clear refusal, no false ack, reads go on, restarts while full, resumes within 1 s of space",
    ci: 1,
    soak: 20,
    run: full,
    bites: &[Bite {
        name: "acknowledged before it is written",
        environment: &[("SYNCLINE_FAILPOINTS", "ack_before_write")],
        count: 1,
    }],
};

pub(crate) const SYNC: Row = Row {
    number: "5",
    name: "fsync fails with EIO",
    target: "no ack after it; read-only; loud",
    ci: 1,
    soak: 20,
    run: sync_fails,
    bites: &[Bite {
        name: "acknowledged before the fsync",
        environment: &[("SYNCLINE_FAILPOINTS", "ack_before_sync")],
        count: 1,
    }],
};

/// The store's reserve takes 16 of these.
const DISK_MIB: u64 = 64;
const ACKS_MIN: u64 = 200;
const RESUME_MS: f64 = 1_000.0;

fn full(trial: &Trial) -> Outcome {
    needs_root()?;
    let (mut resumed_ms, mut read_only) = (0_f64, 0);
    let count = trial.rounds(|round, _| {
        let mount = trial.directory("mount");
        let disk = SmallDisk::mount(&mount, DISK_MIB)?;
        let data = mount.join("store");
        let journal = Journal::create(&trial.scratch.join("journal"));
        let documents = [format!("full-{round}")];
        let process = trial.setup(&data).start()?;
        let refused = load_until_full(&process, &documents, &disk, &journal, round)?;
        let is_read_only = process.metric("syncline_store_read_only") > 0.0;
        ensure!(
            refused == "unavailable" || is_read_only,
            "edits on a full disk are answered with {refused}; the log's first errors: {}",
            first_errors(&process.log())
        );
        if is_read_only {
            read_only += 1;
            ensure!(process.get("/readyz").contains(" 503 "), "/readyz does not say it");
        } else {
            ensure!(
                checks::lost(process.address, &journal.promised())? == 0,
                "a reader misses what was acked"
            );
        }
        process.kill();
        let process = trial
            .setup(&data)
            .start()
            .map_err(|error| format!("on the full disk: {error}"))?;
        ensure!(
            checks::lost(process.address, &journal.promised())? == 0,
            "after a restart on the full disk acked edits are missing"
        );
        disk.free()?;
        resumed_ms = resumed_ms.max(resumes(&process, &documents[0], round)?);
        checks::holds(&process, &journal.promised(), round)?;
        process.terminate()?;
        Ok(())
    })?;
    let text = format!("unavailable, 0 lost, read and restarted while full, resumed after {resumed_ms:.0} ms");
    if read_only > 0 {
        return Err(Trouble::Missed {
            figure: format!("read-only until the restart in {read_only} of {count}; then {text}"),
            reason: "the file system had no space where some had been set aside",
        });
    }
    on_time(resumed_ms, RESUME_MS, Figure { count, text })
}

/// Load, then a full disk; how edits are answered at last.
fn load_until_full(
    process: &Process,
    documents: &[String],
    disk: &SmallDisk<'_>,
    journal: &Journal,
    salt: u64,
) -> Result<String, String> {
    let load = Load {
        address: process.address,
        documents,
        writers_each: 2,
        watchers_each: 1,
        pause: Some(Duration::from_millis(1)),
    };
    load.run(salt, journal, |stop| {
        ensure!(wait_for_acks(journal, ACKS_MIN), "only {} acks came", journal.acks());
        disk.fill()?;
        let mut answer = String::new();
        let mut last = Author::new(&[b"filler".as_slice(), &salt.to_be_bytes()].concat());
        clock::wait_until(PATIENCE, || {
            answer = large_edit(process, &documents[0], &mut last).unwrap_or_else(|error| error);
            answer != "ack"
        });
        stop.store(true, Ordering::Relaxed);
        Ok(answer)
    })
}

fn first_errors(log: &str) -> String {
    let errors = log
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("panicked"));
    errors.take(12).collect::<Vec<_>>().join(" / ")
}

/// Edits of some size, so that the last space goes.
fn large_edit(process: &Process, document: &str, author: &mut Author) -> Result<String, String> {
    let mut client = Client::connect(process.address)?;
    let room = client.open(document)?.opened.room;
    client.edit(room, 1, (0..200).map(|_| author.next().1).collect())?;
    Ok(client.answer(1))
}

/// Milliseconds until an edit is taken.
fn resumes(process: &Process, document: &str, salt: u64) -> Result<f64, String> {
    let begun = clock::now();
    let mut client = Client::connect(process.address)?;
    let room = client.open(document)?.opened.room;
    let (_, change) = Author::new(&[b"resumer".as_slice(), &salt.to_be_bytes()].concat()).next();
    let mut id = 0;
    let taken = clock::wait_until(PATIENCE, || {
        id += 1;
        client.edit(room, id, vec![change.clone()]).is_ok() && client.answer(id) == "ack"
    });
    ensure!(taken, "no edit is taken although there is space");
    Ok(begun.ms())
}

fn sync_fails(trial: &Trial) -> Outcome {
    needs("strace")?;
    let mut acks = 0;
    let count = trial.rounds(|round, rng| {
        let data = trial.directory(&format!("store-{round}"));
        let inject = format!("inject=fdatasync:error=EIO:when={}+", 5 + rng.below(40));
        let wrapper = ["strace", "-D", "-f", "-qq", "-o/dev/null", "-e", &inject];
        let process = trial.setup(&data).under(&wrapper).start()?;
        let journal = Journal::create(&trial.scratch.join("journal"));
        let documents = [format!("eio-{round}")];
        after_the_failure(&process, &documents, &journal, round)?;
        acks += journal.acks();
        process.kill();
        let process = trial.setup(&data).start()?;
        checks::holds(&process, &journal.promised(), round)?;
        process.kill();
        Ok(())
    })?;
    let text = format!("no ack after it, read-only, /readyz 503, logged; 0 lost of {acks}");
    Ok(Figure { count, text })
}

/// Load until the store is read-only; then nothing more is acknowledged, and everybody can see why.
fn after_the_failure(process: &Process, documents: &[String], journal: &Journal, salt: u64) -> Result<(), String> {
    let load = Load {
        address: process.address,
        documents,
        writers_each: 2,
        watchers_each: 1,
        pause: Some(Duration::from_millis(1)),
    };
    load.run(salt, journal, |stop| {
        let read_only = clock::wait_until(PATIENCE, || process.metric("syncline_store_read_only") > 0.0);
        // Whoever writes on is refused now; answers that were under way may still arrive.
        let mut settled = journal.acks();
        clock::wait_until(PATIENCE, || {
            std::thread::sleep(Duration::from_secs(1));
            std::mem::replace(&mut settled, journal.acks()) == journal.acks()
        });
        std::thread::sleep(Duration::from_secs(1));
        let late = journal.acks() - settled;
        stop.store(true, Ordering::Relaxed);
        ensure!(read_only, "the store is not read-only after {settled} acks");
        ensure!(late == 0, "{late} acks came after the failure");
        Ok::<(), String>(())
    })?;
    ensure!(
        process.metric("syncline_appends_failed_total") > 0.0,
        "no failed append is counted"
    );
    ensure!(process.get("/readyz").contains(" 503 "), "/readyz does not say it");
    let log = process.log();
    ensure!(
        log.contains("read-only") && log.contains("check the disk"),
        "the log does not say it"
    );
    let mut late = Client::connect(process.address)?;
    let opened = late.open("another");
    ensure!(
        opened.is_err(),
        "a document opens although nobody knows what is on disk"
    );
    Ok(())
}
