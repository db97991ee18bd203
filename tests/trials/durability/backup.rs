//! Row 8: a backup of the running server under load, then its store is gone and the backup takes its place.

use crate::{
    checks,
    journal::{Journal, Promised},
    load::{Load, wait_for_acks},
    process,
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, pause},
};
use std::{fs, path::Path};

pub(crate) const ROW: Row = Row {
    number: "8",
    name: "backup while under load, put back",
    target: "every edit acked before the backup is there",
    ci: 3,
    soak: 20,
    run,
    bites: &[Bite {
        name: "a backup that lacks something",
        environment: &[("SYNCLINE_FAILPOINTS", "backup_loses")],
        count: 1,
    }],
};

const ACKS_MIN: u64 = 500;

fn run(trial: &Trial) -> Outcome {
    let (mut promised_before, mut acks) = (0, 0);
    let mut longest_ms = 0_f64;
    let count = trial.rounds(|round, rng| {
        let (data, out) = (
            trial.directory(&format!("store-{round}")),
            trial.scratch.join(format!("backup-{round}")),
        );
        let journal = Journal::create(&trial.scratch.join("journal"));
        let (promised, ms) = load_and_back_up(trial, &data, &out, &journal, round, rng)?;
        longest_ms = longest_ms.max(ms);
        promised_before += promised.values().map(|hashes| hashes.len() as u64).sum::<u64>();
        acks += journal.acks();
        fs::remove_dir_all(&data).map_err(|error| error.to_string())?;
        process::check(&trial.program, &out)?;
        let process = trial.setup(&out).start()?;
        let held = checks::holds(&process, &promised, round);
        process.kill();
        held
    })?;
    let text = format!(
        "0 lost of {promised_before} acked or seen before, while {acks} were acked in all; at most {longest_ms:.0} ms"
    );
    Ok(Figure { count, text })
}

/// What was promised before the backup began, and how long it took.
fn load_and_back_up(
    trial: &Trial,
    data: &Path,
    out: &Path,
    journal: &Journal,
    salt: u64,
    rng: &mut Rng,
) -> Result<(Promised, f64), String> {
    let process = trial.setup(data).start()?;
    let documents = ["a", "b", "c"].map(|name| format!("round-{salt}/{name}"));
    let load = Load {
        address: process.address,
        documents: &documents,
        writers_each: 2,
        watchers_each: 1,
        pause: None,
    };
    load.run(salt, journal, |_| {
        let enough = wait_for_acks(journal, ACKS_MIN);
        pause(rng, 200);
        let (promised, begun) = (journal.promised(), crate::clock::now());
        let (data, copy) = (data.display().to_string(), out.display().to_string());
        let said = process::run(&trial.program, &["backup", "--data", &data, "--out", &copy]);
        let (ms, acks) = (begun.ms(), journal.acks());
        // It goes on while the load does.
        let goes_on = crate::clock::wait_until(process::PATIENCE, || journal.acks() > acks);
        process.kill();
        ensure!(enough, "only {} acks came", journal.acks());
        let said = said?;
        ensure!(said.contains("3 documents"), "the backup says: {said}");
        ensure!(goes_on, "no edit was acknowledged after the backup");
        Ok((promised, ms))
    })
}
