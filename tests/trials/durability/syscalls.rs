//! Row 2: killed in the middle of its n-th system call that writes, while serving and while it recovers.

use crate::{
    checks,
    journal::Journal,
    load::Load,
    process,
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, needs},
};
use std::{path::Path, time::Duration};

pub(crate) const ROW: Row = Row {
    number: "2",
    name: "killed at the n-th write call",
    target: "0 acked lost, always opens",
    ci: 50,
    soak: 2_000,
    run,
    bites: &[Bite {
        name: "acknowledged before it is written",
        environment: &[("SYNCLINE_FAILPOINTS", "ack_before_write")],
        count: 5,
    }],
};

/// How long the load runs if the call never comes.
const LOAD_MAX: Duration = Duration::from_secs(5);
/// Write calls of a start, about; and of a load of a few hundred edits.
const STARTING: usize = 6;
const SERVING: usize = 40;

fn run(trial: &Trial) -> Outcome {
    needs("strace")?;
    let data = trial.directory("store");
    let (mut acks, mut killed) = (0, 0);
    let count = trial.rounds(|round, rng| {
        let journal = Journal::create(&trial.scratch.join("journal"));
        let document = format!("round-{round}/a");
        killed += load_until_killed(trial, &data, &document, &journal, round, rng)?;
        acks += journal.acks();
        if rng.one_in(3) {
            killed += start_until_killed(trial, &data, rng);
        }
        let process = trial.setup(&data).start()?;
        let held = checks::holds(&process, &journal.promised(), round);
        process.kill();
        held
    })?;
    process::check(&trial.program, &data)?;
    let text = format!("0 lost of {acks} acked; {killed} times killed in a write; it always opened");
    Ok(Figure { count, text })
}

/// strace that lets the server be our own child, and kills it at its n-th call.
fn killing(calls: &str, n: usize) -> [String; 7] {
    let inject = format!("inject={calls}:signal=KILL:when={n}");
    ["strace", "-D", "-f", "-qq", "-o/dev/null", "-e", &inject].map(str::to_owned)
}

fn load_until_killed(
    trial: &Trial,
    data: &Path,
    document: &str,
    journal: &Journal,
    salt: u64,
    rng: &mut Rng,
) -> Result<u64, String> {
    let calls = *rng
        .pick(&["pwrite64", "pwrite64", "fdatasync", "sync_file_range"])
        .expect("calls");
    let wrapper = killing(calls, STARTING + 1 + rng.below(SERVING));
    let setup = trial.setup(data).under(&wrapper.each_ref().map(String::as_str));
    let Ok(mut process) = setup.start() else {
        // The call came while it started.
        return Ok(1);
    };
    let documents = [document.to_owned()];
    let load = Load {
        address: process.address,
        documents: &documents,
        writers_each: 2,
        watchers_each: 1,
        pause: None,
    };
    let ended = load.run(salt, journal, |_| {
        let ended = process.wait(LOAD_MAX).is_some();
        process.kill();
        ended
    });
    Ok(u64::from(ended))
}

fn start_until_killed(trial: &Trial, data: &Path, rng: &mut Rng) -> u64 {
    let wrapper = killing("pwrite64", 1 + rng.below(STARTING));
    match trial.setup(data).under(&wrapper.each_ref().map(String::as_str)).start() {
        Ok(process) => {
            process.kill();
            0
        }
        Err(_) => 1,
    }
}
