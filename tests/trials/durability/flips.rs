//! Row 6: bits flipped in the store, and what is served afterwards.

use crate::{
    client::Client,
    durability::files::copy,
    load::Author,
    process::{self, Process},
    rng::Rng,
    trial::{Figure, Outcome, Row, Trial, Trouble, ensure},
};
use automerge::ChangeHash;
use std::{collections::BTreeMap, fs, os::unix::fs::FileExt, path::Path};

pub(crate) const ROW: Row = Row {
    number: "6",
    name: "bits flipped in the store",
    target: "0 silently wrong, 0 crashes while serving; the damaged document set aside, others served",
    ci: 100,
    soak: 1_000,
    run,
    bites: &[],
};

const DOCUMENTS: usize = 6;
const CHANGES: usize = 150;
/// What each document is to come back as.
type History = BTreeMap<String, Vec<ChangeHash>>;

/// What came of the rounds.
#[derive(Default)]
struct Tally {
    whole: u64,
    set_aside: u64,
    /// As it was at an earlier moment: the newest edits are missing.
    cut: u64,
    store_refused: u64,
    named: u64,
}

fn run(trial: &Trial) -> Outcome {
    let sound = trial.directory("sound");
    let heads = fill(trial, &sound)?;
    let mut tally = Tally::default();
    let count = trial.rounds(|round, rng| {
        let data = trial.scratch.join(format!("flipped-{round}"));
        copy(&sound, &data)?;
        flip(&data.join("db"), rng)?;
        match trial.setup(&data).start() {
            Ok(process) => served(trial, process, &heads, &mut tally, &data)?,
            Err(error) => {
                ensure!(
                    error.contains("damaged") || error.contains("checksum"),
                    "it does not open: {error}"
                );
                tally.store_refused += 1;
            }
        }
        fs::remove_dir_all(&data).map_err(|error| error.to_string())
    })?;
    let Tally {
        whole,
        cut,
        set_aside,
        store_refused,
        named,
    } = tally;
    let text = format!(
        "{count} stores, {store_refused} refused to open; documents: {whole} whole, {set_aside} set aside ({named} of \
         them named by check), {cut} cut short; 0 otherwise wrong, 0 crashes"
    );
    if cut > 0 {
        return Err(Trouble::Failed(format!("newest edits are gone without a word: {text}")));
    }
    if store_refused > 0 {
        let reason =
            "sled reads its log in order and no further than the damage; the server says so and does not start";
        return Err(Trouble::Missed { figure: text, reason });
    }
    Ok(Figure { count, text })
}

/// A store with snapshots and logs, closed in order.
fn fill(trial: &Trial, data: &Path) -> Result<History, String> {
    let process = trial.setup(data).start()?;
    let mut heads = History::new();
    for number in 0..DOCUMENTS {
        let name = format!("flips/{number}");
        let mut author = Author::new(name.as_bytes());
        let mut client = Client::connect(process.address)?;
        let room = client.open(&name)?.opened.room;
        let mut history = Vec::new();
        for edit in 0..CHANGES {
            let (hash, change) = author.next();
            client.edit(room, edit as u64 + 1, vec![change])?;
            history.push(hash);
        }
        ensure!(client.answer(CHANGES as u64) == "ack", "{name} is not filled");
        heads.insert(name, history);
    }
    process.terminate()?;
    Ok(heads)
}

/// Flips one to four bits in what is used of the file.
fn flip(path: &Path, rng: &mut Rng) -> Result<(), String> {
    let file = fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| error.to_string())?;
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let used: Vec<usize> = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte != 0)
        .map(|(place, _)| place)
        .collect();
    for _ in 0..=rng.below(4) {
        let place = *rng.pick(&used).ok_or("the store is empty")?;
        let flipped = [bytes[place] ^ 1 << rng.below(8)];
        file.write_all_at(&flipped, place as u64)
            .map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Every document is whole, or set aside under its own name; the server lives, and `check` names what is damaged.
fn served(trial: &Trial, mut process: Process, heads: &History, tally: &mut Tally, data: &Path) -> Result<(), String> {
    let mut damaged = Vec::new();
    for (name, expected) in heads {
        let mut client = Client::connect(process.address)?;
        match client.open(name) {
            Ok(joined) => {
                let found = joined.document()?.get_heads();
                if found.as_slice() == &expected[expected.len() - 1..] {
                    tally.whole += 1;
                } else {
                    let earlier = found.is_empty() || (found.len() == 1 && expected.contains(&found[0]));
                    ensure!(earlier, "{name} is silently wrong: {} bytes came", joined.bytes.len());
                    tally.cut += 1;
                }
            }
            Err(error) if error.contains("damaged") => damaged.push(name.clone()),
            Err(error) => return Err(format!("{name}: {error}")),
        }
    }
    ensure!(process.is_running(), "the server crashed");
    ensure!(
        damaged.is_empty() || process.metric("syncline_loads_failed_total") > 0.0,
        "damaged documents are not counted"
    );
    process.kill();
    if damaged.is_empty() {
        return Ok(());
    }
    tally.set_aside += damaged.len() as u64;
    let Err(said) = process::check(&trial.program, data) else {
        return Err(format!("check finds nothing, but {damaged:?} are damaged"));
    };
    tally.named += damaged.iter().filter(|name| said.contains(name.as_str())).count() as u64;
    Ok(())
}
