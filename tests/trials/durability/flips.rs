//! Row 6: bits flipped in the store, and now and then a sector of it overwritten; what is served afterwards, and what a salvage
//! brings back where the store is refused.

use crate::{
    client::Client,
    durability::files::copy,
    load::Author,
    process::{self, Process},
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, Trouble, ensure},
};
use automerge::{Automerge, Change, ChangeHash};
use std::{collections::BTreeMap, fs, os::unix::fs::FileExt, path::Path};

pub(crate) const ROW: Row = Row {
    number: "6",
    name: "bits flipped in the store",
    target: "0 silently wrong, 0 crashes while serving; the damaged document set aside, others served",
    ci: 100,
    soak: 1_000,
    run,
    bites: &[Bite {
        name: "a log that ends early is not noticed",
        environment: &[("SYNCLINE_FAILPOINTS", "damage_unnoticed")],
        count: 40,
    }],
};

const DOCUMENTS: usize = 6;
const CHANGES: usize = 150;
/// Some edits are larger, so that the log has several segments.
const LARGE_EVERY: usize = 5;
const LARGE_BYTES: usize = 2_000;
/// One store in so many loses a sector in place of bits.
const SECTOR_EVERY: usize = 5;
const SECTOR_BYTES: usize = 512;
/// What each document is to come back as.
type History = BTreeMap<String, Vec<ChangeHash>>;

/// What came of the stores with one sort of damage.
#[derive(Default)]
struct Tally {
    stores: u64,
    /// Documents as they are served at once.
    served: Served,
    named: u64,
    refused: u64,
    salvaged: Salvaged,
}

/// Documents of a server on a damaged store, or on one made of it.
#[derive(Default)]
struct Served {
    whole: u64,
    set_aside: u64,
    /// As it was at an earlier moment: the newest edits are missing.
    cut: u64,
}

/// What came out of the stores that were refused.
#[derive(Default)]
struct Salvaged {
    /// Changes in the files.
    changes: u64,
    /// Documents in the new store.
    served: Served,
}

fn run(trial: &Trial) -> Outcome {
    let young = trial.directory("young");
    let heads = fill(trial, &young)?;
    // Its log up to here is only read where a document needs it.
    let grown = trial.scratch.join("grown");
    copy(&young, &grown)?;
    trial.setup(&grown).start()?.terminate()?;
    let (mut bits, mut sectors) = (Tally::default(), Tally::default());
    let count = trial.rounds(|round, rng| {
        let data = trial.scratch.join(format!("damaged-{round}"));
        copy(if rng.one_in(2) { &young } else { &grown }, &data)?;
        let is_sector = rng.one_in(SECTOR_EVERY);
        let tally = if is_sector { &mut sectors } else { &mut bits };
        damage(&data.join("db"), rng, is_sector)?;
        tally.stores += 1;
        match trial.setup(&data).start() {
            Ok(process) => served(trial, process, &heads, tally, &data)?,
            Err(error) => {
                ensure!(
                    error.contains("damaged") || error.contains("checksum"),
                    "it does not open: {error}"
                );
                tally.refused += 1;
                salvaged(trial, &data, &heads, &mut tally.salvaged)?;
            }
        }
        fs::remove_dir_all(&data).map_err(|error| error.to_string())
    })?;
    let text = format!(
        "1 to 4 bits: {}; a sector: {}; 0 silently wrong, 0 crashes",
        bits.text(),
        sectors.text()
    );
    if bits.served.cut + sectors.served.cut > 0 {
        return Err(Trouble::Failed(format!("newest edits are gone without a word: {text}")));
    }
    if bits.refused + sectors.refused > 0 {
        let reason = "where the log since the last start is damaged the server does not start, and names the command that makes \
                      a store of the rest";
        return Err(Trouble::Missed { figure: text, reason });
    }
    Ok(Figure { count, text })
}

impl Tally {
    fn text(&self) -> String {
        let Self {
            stores,
            served,
            named,
            refused,
            salvaged,
        } = self;
        let changes = refused * (DOCUMENTS * CHANGES) as u64;
        format!(
            "of {stores} stores {} served at once ({} documents whole, {} set aside, {named} of them named by check), {refused} \
             after a salvage ({} whole, {} set aside, {} shorter as the salvage had said; {} of {changes} changes)",
            stores - refused,
            served.whole,
            served.set_aside,
            salvaged.served.whole,
            salvaged.served.set_aside,
            salvaged.served.cut,
            salvaged.changes
        )
    }
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
            let (hash, change) = if edit % LARGE_EVERY == 0 {
                let change = author.large(LARGE_BYTES);
                let read = Change::try_from(change.as_ref()).map_err(|error| error.to_string())?;
                (read.hash(), change)
            } else {
                author.next()
            };
            client.edit(room, edit as u64 + 1, vec![change])?;
            history.push(hash);
        }
        ensure!(client.answer(CHANGES as u64) == "ack", "{name} is not filled");
        heads.insert(name, history);
    }
    process.terminate()?;
    Ok(heads)
}

/// Flips one to four bits in what is used of the file, or overwrites a sector.
fn damage(path: &Path, rng: &mut Rng, is_sector: bool) -> Result<(), String> {
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
    let pick = |rng: &mut Rng| rng.pick(&used).copied().ok_or("the store is empty");
    let write = |place: usize, bytes: &[u8]| {
        file.write_all_at(bytes, place as u64)
            .map_err(|error| error.to_string())
    };
    if is_sector {
        let garbage: Vec<u8> = (0..SECTOR_BYTES).map(|_| rng.below(256) as u8).collect();
        return write(pick(rng)? / SECTOR_BYTES * SECTOR_BYTES, &garbage);
    }
    for _ in 0..=rng.below(4) {
        let place = pick(rng)?;
        write(place, &[bytes[place] ^ 1 << rng.below(8)])?;
    }
    Ok(())
}

/// Every document is whole, or set aside under its own name; the server lives, and `check` names what is damaged.
fn served(trial: &Trial, mut process: Process, heads: &History, tally: &mut Tally, data: &Path) -> Result<(), String> {
    let damaged = look(&mut process, heads, &mut tally.served, &|_| false)?;
    process.kill();
    if damaged.is_empty() {
        return Ok(());
    }
    let Err(said) = process::check(&trial.program, data) else {
        return Err(format!("check finds nothing, but {damaged:?} are damaged"));
    };
    tally.named += damaged.iter().filter(|name| said.contains(name.as_str())).count() as u64;
    Ok(())
}

/// Opens every document, and names those that are refused as damaged.
fn look(
    process: &mut Process,
    heads: &History,
    tally: &mut Served,
    is_called_whole: &dyn Fn(&str) -> bool,
) -> Result<Vec<String>, String> {
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
                    ensure!(!is_called_whole(name), "{name} is called whole, and lacks edits");
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
    tally.set_aside += damaged.len() as u64;
    Ok(damaged)
}

/// A salvage of a refused store leaves it as it is, writes nothing that was never there, and calls no document whole that is
/// not. The store that it makes is served.
fn salvaged(trial: &Trial, data: &Path, heads: &History, tally: &mut Salvaged) -> Result<(), String> {
    let log = || fs::read(data.join("db")).map_err(|error| error.to_string());
    let (before, out) = (log()?, data.with_extension("salvaged"));
    let (said, is_whole) = match process::salvage(&trial.program, data, &out) {
        Ok(said) => (said, true),
        Err(said) => (said, false),
    };
    ensure!(log()? == before, "a salvage changed the store");
    let mut whole = 0;
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
        whole += usize::from(reached == CHANGES);
        tally.changes += reached as u64;
    }
    ensure!(
        !is_whole || whole == heads.len(),
        "the store is called whole, and {whole} documents are: {said}"
    );
    let mut process = trial.setup(&out.join("store")).start()?;
    look(&mut process, heads, &mut tally.served, &|name| {
        said.contains(&format!("{name}: ok"))
    })?;
    process.kill();
    fs::remove_dir_all(&out).map_err(|error| error.to_string())
}
