//! Row 17: the wall clock jumps while the server runs.

use crate::{
    checks,
    client::Client,
    clock,
    journal::Journal,
    load::Author,
    process::Process,
    token::{claims, guarded, lasting, signed},
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, needs},
};
use std::{fs, path::Path, time::Duration};

pub(crate) const ROW: Row = Row {
    number: "17",
    name: "the wall clock jumps",
    target: "±1 h, ±10 days: no effect on data; timers unharmed; tokens follow the clock",
    ci: 1,
    soak: 10,
    run,
    bites: &[Bite {
        name: "all times are the wall clock's",
        environment: &[("SYNCLINE_FAILPOINTS", "wall_time")],
        count: 1,
    }],
};

/// After a jump nothing is said for a few pings, so that the server's timers look at the time by themselves.
const PING_MS: u64 = 200;
const SILENCE: Duration = Duration::from_millis(4 * PING_MS);
const JUMPS: [(&str, i64); 4] = [("+1h", 3_600), ("-1h", -3_600), ("+10d", 864_000), ("-10d", -864_000)];

fn run(trial: &Trial) -> Outcome {
    needs("faketime")?;
    let library = find_library()?;
    let (data, jump) = (trial.directory("store"), trial.scratch.join("jump"));
    set(&jump, "+0")?;
    let journal = Journal::create(&trial.scratch.join("journal"));
    let setup = guarded(trial.setup(&data))
        .variable("LD_PRELOAD", &library)
        .variable("SYNCLINE_LIMITS_PING_INTERVAL_MS", PING_MS)
        .variable("FAKETIME_TIMESTAMP_FILE", jump.display())
        .variable("FAKETIME_NO_CACHE", 1)
        .variable("DONT_FAKE_MONOTONIC", 1)
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", 1);
    let process = setup.start()?;
    let long = signed(&lasting("anna", &[("**", "write")], 40 * 86_400));
    let mut anna = Client::connect_as(process.address, Some(&long))?;
    let room = anna.open("notes")?.opened.room;
    let mut author = Author::new(b"a jumper");
    let mut slowest = 0_f64;
    for (id, (name, seconds)) in (1..).zip(JUMPS) {
        set(&jump, name)?;
        std::thread::sleep(SILENCE);
        let (hash, change) = author.next();
        let begun = clock::now();
        anna.edit(room, id, vec![change])?;
        let answer = anna.answer(id);
        ensure!(
            answer == "ack",
            "{name}: an edit of a connection that was there is answered with {answer}"
        );
        journal.acked("notes", hash);
        slowest = slowest.max(begun.ms());
        tokens_follow(&process, name, seconds)?;
    }
    process.kill();
    set(&jump, "+0")?;
    let process = trial.setup(&data).start()?;
    checks::holds(&process, &journal.promised(), 1)?;
    let text = format!("connections and data unharmed, edits within {slowest:.0} ms; admission follows the clock");
    Ok(Figure {
        count: JUMPS.len() as u64,
        text,
    })
}

/// Tokens of the moment that the server believes in are taken, and those of another time are not.
fn tokens_follow(process: &Process, name: &str, seconds: i64) -> Result<(), String> {
    let of = |shift: i64| {
        let mut claims = claims("ben", &[("**", "write")]);
        claims["exp"] = serde_json::json!(clock::unix_s() + shift);
        Client::connect_as(process.address, Some(&signed(&claims)))
    };
    ensure!(
        of(seconds + 300).is_ok(),
        "{name}: a token that is good by the server's clock is refused"
    );
    ensure!(
        of(seconds - 120).is_err(),
        "{name}: a token that has expired by the server's clock is taken"
    );
    Ok(())
}

fn set(file: &Path, jump: &str) -> Result<(), String> {
    fs::write(file, format!("{jump}\n")).map_err(|error| error.to_string())
}

fn find_library() -> Result<String, String> {
    let found = crate::trial::command("sh", &["-c", "ls /usr/lib/*/faketime/libfaketime.so.1 | head -n 1"])?;
    ensure!(!found.trim().is_empty(), "libfaketime is not where Debian puts it");
    Ok(found.trim().to_owned())
}
