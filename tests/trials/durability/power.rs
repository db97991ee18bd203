//! Row 3 on the real store: its writes to journal and log are recorded, and after a kill all that came after each file's last
//! sync vanishes, or only some of it is there, torn; what a file was cut to counts like what was written to it. So too at earlier moments,
//! just before a sync of the log. (The simulator does the same with its own disk, on hundreds of seeds.)

use crate::{
    checks,
    client::Client,
    clock,
    durability::{
        files::copy,
        record::{moments, read_record, recorder, replay, wait_for_end},
    },
    journal::{Journal, Promised},
    load::{Author, Load, wait_for_acks},
    process::Process,
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, needs, pause},
};
use automerge::{Change, ChangeHash};
use std::{fs, path::Path};

pub(crate) const ROW: Row = Row {
    number: "3",
    name: "power cut, the real store",
    target: "0 acked lost",
    ci: 5,
    soak: 300,
    run,
    bites: &[Bite {
        name: "acknowledged before the fsync",
        environment: &[("SYNCLINE_FAILPOINTS", "ack_before_sync")],
        count: 2,
    }],
};

const ACKS_MIN: u64 = 300;
/// Edits that have the log go on through several segments, and their size.
const LARGE_EDITS: u64 = 150;
const LARGE_BYTES: usize = 12_000;
fn run(trial: &Trial) -> Outcome {
    needs("strace")?;
    let (mut acks, mut vanished, mut written, mut earlier, mut file_cuts) = (0, 0, 0, 0, 0);
    let count = trial.rounds(|round, rng| {
        let data = trial.directory(&format!("store-{round}"));
        trial.setup(&data).start()?.terminate()?;
        let before = trial.scratch.join(format!("before-{round}"));
        copy(&data, &before)?;
        let journal = Journal::create(&trial.scratch.join("journal"));
        let record = trial.scratch.join("writes");
        let large = load_and_kill(trial, &data, &record, &journal, round, rng)?;
        let writes = read_record(&record)?;
        acks += journal.acks();
        for file in writes.values() {
            vanished += file.unsynced();
            written += file.bytes();
        }
        let moments = moments(&writes, rng);
        file_cuts += writes.values().map(|file| file.cuts().count()).sum::<usize>();
        let at = |moment: f64| -> Promised {
            let acked = large.iter().filter(|(heard, _)| *heard < moment);
            [(large_name(round), acked.map(|(_, hash)| *hash).collect())].into()
        };
        let mut cuts = vec![
            (f64::MAX, false, journal.promised()),
            (f64::MAX, true, journal.promised()),
        ];
        earlier += moments.len();
        cuts.extend(moments.into_iter().map(|moment| (moment, true, at(moment))));
        for (moment, is_torn, promised) in cuts {
            let cut = trial.scratch.join(format!("cut-{round}"));
            copy(&before, &cut)?;
            replay(&writes, &cut, moment, is_torn.then_some(&mut *rng))?;
            let held = holds_after(trial, &cut, &promised, round);
            held.map_err(|error| match moment {
                f64::MAX => format!("cut at the end, torn {is_torn}: {error}"),
                _ => format!("cut at {moment}, torn {is_torn}: {error}"),
            })?;
            fs::remove_dir_all(&cut).map_err(|error| error.to_string())?;
        }
        fs::remove_dir_all(&before).map_err(|error| error.to_string())
    })?;
    let mib = written >> 20;
    let text = format!(
        "0 lost of {acks} acked; {mib} MiB written, {file_cuts} times a file was cut; {vanished} unsynced writes vanished or were torn \
         at the end, and others just before {earlier} syncs of the log"
    );
    Ok(Figure { count, text })
}

fn holds_after(trial: &Trial, data: &Path, promised: &Promised, salt: u64) -> Result<(), String> {
    let process = trial.setup(data).start()?;
    let held = checks::holds(&process, promised, salt);
    process.kill();
    held
}

fn load_and_kill(
    trial: &Trial,
    data: &Path,
    record: &Path,
    journal: &Journal,
    salt: u64,
    rng: &mut Rng,
) -> Result<Vec<(f64, ChangeHash)>, String> {
    let wrapper = recorder(data, record);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let process = trial.setup(data).under(&wrapper).start()?;
    let load = Load {
        address: process.address,
        documents: &[format!("power-{salt}/a"), format!("power-{salt}/b")],
        writers_each: 2,
        watchers_each: 1,
        pause: None,
    };
    let (enough, large) = load.run(salt, journal, |_| {
        let large = large_edits(&process, salt);
        let enough = wait_for_acks(journal, ACKS_MIN);
        pause(rng, 100);
        process.kill();
        large.map(|large| (enough, large))
    })?;
    ensure!(enough, "only {} acks came", journal.acks());
    wait_for_end(record)?;
    Ok(large)
}

fn large_name(salt: u64) -> String {
    format!("power-{salt}/large")
}

/// When each was known to be acknowledged.
fn large_edits(process: &Process, salt: u64) -> Result<Vec<(f64, ChangeHash)>, String> {
    let mut author = Author::new(&[b"large".as_slice(), &salt.to_be_bytes()].concat());
    let mut client = Client::connect(process.address)?;
    let room = client.open(&large_name(salt))?.opened.room;
    let mut acked = Vec::new();
    for id in 1..=LARGE_EDITS {
        let change = author.large(LARGE_BYTES);
        let hash = Change::try_from(change.as_ref())
            .map_err(|error| error.to_string())?
            .hash();
        client.edit(room, id, vec![change])?;
        let answer = client.answer(id);
        ensure!(answer == "ack", "a large edit is answered with {answer}");
        acked.push((clock::since_1970().as_secs_f64(), hash));
    }
    Ok(acked)
}
