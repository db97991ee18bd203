//! Row 1: kill -9 at a random moment under load. The authors never come back.

use crate::{
    checks,
    journal::Journal,
    load::{Load, wait_for_acks},
    process,
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, pause},
};

pub(crate) const ROW: Row = Row {
    number: "1",
    name: "kill -9 under load",
    target: "0 edits lost that were acked or seen; all replicas equal; at least 1,000 acks per run",
    ci: 30,
    soak: 1_000,
    run,
    bites: &[Bite {
        name: "acknowledged before it is written",
        environment: &[("SYNCLINE_FAILPOINTS", "ack_before_write")],
        count: 3,
    }],
};

const ACKS_MIN: u64 = 1_000;

fn run(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let (mut acks, mut sights) = (0, 0);
    let count = trial.rounds(|round, rng| {
        let journal = Journal::create(&trial.scratch.join("journal"));
        let documents = ["a", "b"].map(|name| format!("round-{round}/{name}"));
        load_and_kill(trial, &data, &documents, &journal, round, rng)?;
        (acks, sights) = (acks + journal.acks(), sights + journal.sights());
        let process = trial.setup(&data).start()?;
        let held = checks::holds(&process, &journal.promised(), round);
        process.kill();
        held
    })?;
    process::check(&trial.program, &data)?;
    let text = format!("0 lost of {acks} acked and {sights} seen");
    Ok(Figure { count, text })
}

fn load_and_kill(
    trial: &Trial,
    data: &std::path::Path,
    documents: &[String],
    journal: &Journal,
    salt: u64,
    rng: &mut Rng,
) -> Result<(), String> {
    let process = trial.setup(data).start()?;
    let load = Load {
        address: process.address,
        documents,
        writers_each: 2,
        watchers_each: 1,
        pause: None,
    };
    let enough = load.run(salt, journal, |_| {
        let enough = wait_for_acks(journal, ACKS_MIN);
        pause(rng, 200);
        process.kill();
        enough
    });
    ensure!(enough, "only {} acks came", journal.acks());
    Ok(())
}
