//! Row 6: bits flipped in the store, what is served afterwards, and what a salvage brings back where the store is refused.

use crate::{
    client::Client,
    durability::files::copy,
    load::Author,
    process::{self, Process},
    rng::Rng,
    trial::{Figure, Outcome, Row, Trial, Trouble, ensure},
};
use automerge::{Automerge, ChangeHash};
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
    salvaged: Salvaged,
}

/// What came out of the stores that were refused.
#[derive(Default)]
struct Salvaged {
    /// Documents of which there was something.
    documents: u64,
    /// Of these, the ones with all their changes.
    whole: u64,
    changes: u64,
    /// Stores of which there was nothing.
    nothing: u64,
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
                salvaged(trial, &data, &heads, &mut tally.salvaged)?;
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
        salvaged,
    } = tally;
    let there = store_refused * DOCUMENTS as u64;
    let text = format!(
        "{count} stores, {store_refused} refused to open; documents: {whole} whole, {set_aside} set aside ({named} of \
         them named by check), {cut} cut short; 0 otherwise wrong, 0 crashes; salvaged of the refused: {} of {there} \
         documents, {} of them whole, {} of {} changes; nothing of {} stores",
        salvaged.documents,
        salvaged.whole,
        salvaged.changes,
        there * CHANGES as u64,
        salvaged.nothing
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

/// A salvage of a refused store leaves it as it is, writes nothing that was never there, and calls no document whole that is
/// not.
fn salvaged(trial: &Trial, data: &Path, heads: &History, tally: &mut Salvaged) -> Result<(), String> {
    let log = || fs::read(data.join("db")).map_err(|error| error.to_string());
    let (before, out) = (log()?, data.with_extension("salvaged"));
    let said = match process::salvage(&trial.program, data, &out) {
        Ok(said) => return Err(format!("all of a refused store is called whole: {said}")),
        Err(said) => said,
    };
    ensure!(log()? == before, "a salvage changed the store");
    let mut found = 0;
    for (name, expected) in heads {
        let file = out.join(format!("{}.automerge", name.replace('/', "+")));
        let Ok(bytes) = fs::read(&file) else { continue };
        let document = Automerge::load(&bytes).map_err(|error| format!("{name} as salvaged: {error}"))?;
        let found_heads = document.get_heads();
        let reached = expected.iter().position(|hash| found_heads == [*hash]);
        let reached = 1 + reached.ok_or_else(|| format!("{name} as salvaged was never so: {said}"))?;
        ensure!(
            reached == CHANGES || !said.contains(&format!("{name}: ok")),
            "{name} lacks changes and is called whole: {said}"
        );
        found += 1;
        tally.documents += 1;
        tally.whole += u64::from(reached == CHANGES);
        tally.changes += reached as u64;
    }
    ensure!(
        found > 0 || said.contains("nothing can be read") || said.contains(" 0 documents"),
        "there is nothing, and it is not said: {said}"
    );
    tally.nothing += u64::from(found == 0);
    fs::remove_dir_all(&out).map_err(|error| error.to_string())
}
