//! Row 3 on the floor of the store by itself, under writes that have its files cut: values are written over until the log is shorter
//! again, and a batch comes that is larger than the journal. The power goes as in `power`, and once more while the store recovers.
//!
//! The floor is in a process of its own, this very program under strace. Each batch follows from its number, so it is known what must
//! be there: all up to some batch, whole, and that is no earlier one than the last that was said to be durable.

use crate::{
    clock,
    durability::{
        files::copy,
        record::{Record, mark_opening, moments, read_record, recorder, replay, wait_for_end},
    },
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, needs},
};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};
use syncline::server::store::{
    kv::{Batch, Kv, Write},
    sled::{SledKv, SledOptions},
};

pub(crate) const ROW: Row = Row {
    number: "3",
    name: "power cut, the floor of the store",
    target: "0 durable batches lost",
    ci: 1,
    soak: 300,
    run,
    bites: &[
        Bite {
            name: "acknowledged before the fsync",
            environment: &[("SYNCLINE_FAILPOINTS", "ack_before_sync")],
            count: 1,
        },
        Bite {
            name: "the journal is cut before the log is synced",
            environment: &[("SYNCLINE_FAILPOINTS", "journal_cut_early")],
            count: 3,
        },
    ],
};

/// With a directory, a seed and a number of batches behind it: what the other process is to do.
pub(crate) const ARGUMENT: &str = "--churn";

const BATCHES: u64 = 32;
const KEYS: usize = 300;
const PUTS: usize = 30;
const VALUE_BYTES: usize = 4_000;
/// One batch is larger than the journal, and a later one takes away all that it has put.
const LARGE_BATCH: u64 = 4;
const SMALL_AGAIN: u64 = 14;
const LARGE_PUTS: usize = 1_100;
/// The key that says which batch was the last.
const LAST: &[u8] = b"last";

/// Opens the floor in a directory, says that it is open, commits the batches up to a number and says of each when it is durable; then
/// waits to be killed.
pub(crate) fn churn(order: &str) -> ExitCode {
    let mut words = order.split(' ');
    let mut word = || words.next().expect("a directory, a seed and a number");
    let (directory, seed, batches) = (word(), word(), word());
    let kv = open(Path::new(directory)).expect("it opens");
    let mut said = std::io::stdout();
    writeln!(said, "0").expect("somebody listens");
    let (seed, batches): (u64, u64) = (seed.parse().expect("a number"), batches.parse().expect("a number"));
    for number in 1..=batches {
        kv.commit(&batch(seed, number)).expect("it is committed");
        writeln!(said, "{number}").expect("somebody listens");
    }
    // Until then the store is not closed.
    let _ = std::io::stdin().lines().next();
    std::process::exit(1)
}

fn open(directory: &Path) -> Result<SledKv, String> {
    let options = SledOptions {
        cache_bytes: 4 << 20,
        reserve_bytes: 64 << 10,
    };
    SledKv::open(directory, options).map_err(|error| error.to_string())
}

fn batch(seed: u64, number: u64) -> Batch {
    let mut rng = Rng::new(seed << 32 | number);
    let mut batch = Batch::default();
    batch.put(LAST.to_vec(), number.to_be_bytes().to_vec());
    for place in 0..LARGE_PUTS {
        let key = format!("large {place:04}").into_bytes();
        match number {
            LARGE_BATCH => batch.put(key, vec![rng.next() as u8; VALUE_BYTES]),
            SMALL_AGAIN => batch.delete(key),
            _ => break,
        }
    }
    for _ in 0..PUTS {
        let key = |place: usize| format!("key {place:04}").into_bytes();
        let value = vec![rng.next() as u8; 1 + rng.below(VALUE_BYTES)];
        batch.put(key(rng.below(KEYS)), value);
        if rng.one_in(4) {
            batch.delete(key(rng.below(KEYS)));
        }
    }
    batch
}

/// What is there after each batch.
type States = Vec<BTreeMap<Vec<u8>, Vec<u8>>>;

fn states(seed: u64) -> States {
    let mut states = vec![BTreeMap::new()];
    for number in 1..=BATCHES {
        let mut state = states[states.len() - 1].clone();
        for write in batch(seed, number).writes() {
            match write {
                Write::Put { key, value } => state.insert(key.clone(), value.clone()),
                Write::Delete { key } => state.remove(key),
            };
        }
        states.push(state);
    }
    states
}

fn run(trial: &Trial) -> Outcome {
    needs("strace")?;
    let (mut file_cuts, mut written, mut power_cuts) = (0, 0, 0);
    let count = trial.rounds(|round, rng| {
        let seed = trial.seed + round;
        let states = states(seed);
        let data = trial.scratch.join(format!("floor-{round}"));
        drop(open(&data)?);
        let before = trial.scratch.join(format!("before-{round}"));
        copy(&data, &before)?;
        let (writes, heard) = recorded(trial, &data, seed, BATCHES)?;
        file_cuts += cuts(&writes);
        written += writes.values().map(|file| file.bytes()).sum::<usize>();
        let mut tries = vec![(f64::MAX, false), (f64::MAX, true)];
        tries.extend(moments(&writes, rng).into_iter().map(|moment| (moment, true)));
        for (place, (moment, is_torn)) in tries.into_iter().enumerate() {
            let cut = trial.scratch.join(format!("cut-{round}-{place}"));
            copy(&before, &cut)?;
            replay(&writes, &cut, moment, is_torn.then_some(&mut *rng))?;
            let durable = heard.iter().filter(|heard| **heard < moment).count();
            let what = |error: String| format!("cut at {moment}, torn {is_torn}: {error}");
            file_cuts += cut_again(trial, &cut, seed, rng, &states[durable..]).map_err(what)?;
            holds(&cut, &states[durable..]).map_err(what)?;
            power_cuts += 2;
            fs::remove_dir_all(&cut).map_err(|error| error.to_string())?;
        }
        fs::remove_file(record(&data)).map_err(|error| error.to_string())?;
        fs::remove_dir_all(&before).map_err(|error| error.to_string())
    })?;
    let mib = written >> 20;
    let text = format!(
        "0 lost of {} durable batches in {power_cuts} power cuts, half of them amid a recovery; {mib} MiB written, {file_cuts} times a \
         file was cut",
        count * BATCHES
    );
    Ok(Figure { count, text })
}

/// The power goes while the store in `data` recovers; how often that has cut a file.
fn cut_again(
    trial: &Trial,
    data: &Path,
    seed: u64,
    rng: &mut Rng,
    states: &[BTreeMap<Vec<u8>, Vec<u8>>],
) -> Result<usize, String> {
    let again = data.with_extension("again");
    copy(data, &again)?;
    let recovering = data.with_extension("recovering");
    copy(data, &recovering)?;
    let (writes, _) = recorded(trial, &recovering, seed, 0)?;
    let syncs: Vec<f64> = writes.values().flat_map(|file| file.synced_at()).collect();
    let moment = rng.pick(&syncs).copied().unwrap_or(f64::MAX);
    replay(&writes, &again, moment, Some(rng))?;
    mark_opening(&record(&recovering), &again, moment)?;
    fs::remove_file(record(&recovering)).map_err(|error| error.to_string())?;
    holds(&again, states).map_err(|error| format!("and again at {moment}: {error}"))?;
    for directory in [again, recovering] {
        fs::remove_dir_all(directory).map_err(|error| error.to_string())?;
    }
    Ok(cuts(&writes))
}

fn cuts(writes: &Record) -> usize {
    writes.values().map(|file| file.cuts().count()).sum()
}

/// Has so many batches committed in `data` and kills who did it; what was written, and when each was heard to be durable.
fn recorded(trial: &Trial, data: &Path, seed: u64, batches: u64) -> Result<(Record, Vec<f64>), String> {
    let record = record(data);
    let wrapper = recorder(data, &record);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(&wrapper[0])
        .args(&wrapper[1..])
        .arg(program)
        .args([ARGUMENT, &format!("{} {seed} {batches}", data.display())])
        .envs(trial.program.environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let said = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut heard = Vec::new();
    for line in said.lines() {
        let line = line.map_err(|error| error.to_string())?;
        heard.push(clock::since_1970().as_secs_f64());
        if line == batches.to_string() {
            break;
        }
    }
    // It may have ended.
    let _ = child.kill();
    let _ = child.wait();
    ensure!(
        heard.len() as u64 == batches + 1,
        "it ended after {} of {batches} batches",
        heard.len()
    );
    wait_for_end(&record)?;
    let writes = read_record(&record)?;
    Ok((writes, heard.split_off(1)))
}

/// Where the writes to the store in `data` are recorded.
fn record(data: &Path) -> PathBuf {
    data.with_extension("writes")
}

/// What is in the store is what one of the batches has left, the first of `states` or a later one.
fn holds(data: &Path, states: &[BTreeMap<Vec<u8>, Vec<u8>>]) -> Result<(), String> {
    let kv = open(data)?;
    let mut found = BTreeMap::new();
    let scanned = kv.scan(&[]..&[u8::MAX], &mut |key, value| {
        found.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    });
    scanned.map_err(|error| error.to_string())?;
    let number = |state: &BTreeMap<Vec<u8>, Vec<u8>>| {
        let last = state.get(LAST).and_then(|last| last.as_slice().try_into().ok());
        last.map_or(0, u64::from_be_bytes)
    };
    ensure!(
        states.contains(&found),
        "it holds what no batch from the {}th on has left; its last is the {}th",
        number(&states[0]),
        number(&found)
    );
    Ok(())
}
