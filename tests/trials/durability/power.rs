//! Row 3 on the real store: its writes are recorded, and after a kill all that came after the last sync vanishes, or only some
//! of it is there, torn. (The simulator does the same with its own disk, on hundreds of seeds.)

use crate::{
    checks, clock,
    durability::files::copy,
    journal::Journal,
    load::{Load, wait_for_acks},
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, needs, pause},
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

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
/// A disk writes sectors of this size whole, or not.
const SECTOR_BYTES: usize = 512;
const RECORD_WAIT: Duration = Duration::from_secs(60);

fn run(trial: &Trial) -> Outcome {
    needs("strace")?;
    let (mut acks, mut vanished) = (0, 0);
    let count = trial.rounds(|round, rng| {
        let data = trial.directory(&format!("store-{round}"));
        trial.setup(&data).start()?.terminate()?;
        let before = trial.scratch.join(format!("before-{round}"));
        copy(&data, &before)?;
        let journal = Journal::create(&trial.scratch.join("journal"));
        let record = trial.scratch.join("writes");
        load_and_kill(trial, &data, &record, &journal, round, rng)?;
        let writes = Writes::read(&record)?;
        acks += journal.acks();
        vanished += writes.all.len() - writes.synced;
        for (name, torn) in [("cut", false), ("torn", true)] {
            let cut = trial.scratch.join(format!("{name}-{round}"));
            copy(&before, &cut)?;
            writes.replay(&cut.join("db"), torn.then_some(&mut *rng))?;
            let process = trial.setup(&cut).start().map_err(|error| format!("{name}: {error}"))?;
            let held = checks::holds(&process, &journal.promised(), round);
            process.kill();
            held.map_err(|error| format!("{name}: {error}"))?;
            fs::remove_dir_all(&cut).map_err(|error| error.to_string())?;
        }
        fs::remove_dir_all(&before).map_err(|error| error.to_string())
    })?;
    let text = format!("0 lost of {acks} acked; {vanished} unsynced writes vanished or were torn");
    Ok(Figure { count, text })
}

fn load_and_kill(
    trial: &Trial,
    data: &Path,
    record: &Path,
    journal: &Journal,
    salt: u64,
    rng: &mut Rng,
) -> Result<(), String> {
    let (file, out) = (data.join("db").display().to_string(), record.display().to_string());
    let wrapper = [
        "strace",
        "-D",
        "-f",
        "-q",
        "-xx",
        "-s",
        "4000000",
        "-o",
        &out,
        "-P",
        &file,
        "-e",
        "trace=pwrite64,fdatasync,fsync,ftruncate",
    ];
    let process = trial.setup(data).under(&wrapper).start()?;
    let load = Load {
        address: process.address,
        documents: &[format!("power-{salt}/a"), format!("power-{salt}/b")],
        writers_each: 2,
        watchers_each: 1,
        pause: None,
    };
    let enough = load.run(salt, journal, |_| {
        let enough = wait_for_acks(journal, ACKS_MIN);
        pause(rng, 100);
        process.kill();
        enough
    });
    ensure!(enough, "only {} acks came", journal.acks());
    let mut size = 0;
    let settled = clock::wait_until(RECORD_WAIT, || {
        std::thread::sleep(Duration::from_millis(200));
        let now = fs::metadata(record).map_or(0, |file| file.len());
        let text = fs::read(record).unwrap_or_default();
        let ended = text.ends_with(b"+++\n");
        std::mem::replace(&mut size, now) == now && ended
    });
    ensure!(settled, "the record of the writes does not end");
    Ok(())
}

/// A write that the kernel took.
struct Write {
    offset: u64,
    bytes: Vec<u8>,
}

/// All writes in order, and how many of them a sync covers that had returned.
struct Writes {
    all: Vec<Write>,
    synced: usize,
}

/// A call that has been entered.
enum Entered {
    Write(Write),
    /// With how many writes had returned by then.
    Sync(usize),
    Other,
}

impl Writes {
    /// Reads what strace wrote.
    fn read(record: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(record).map_err(|error| error.to_string())?;
        let mut writes = Self {
            all: Vec::new(),
            synced: 0,
        };
        let mut entered: BTreeMap<&str, Entered> = BTreeMap::new();
        for line in text.lines() {
            let Some((thread, call)) = line.split_once(' ') else {
                continue;
            };
            let call = call.trim_start();
            if call.starts_with("+++") || call.starts_with("---") {
                continue;
            }
            let begun = if call.starts_with("<...") {
                entered.remove(thread).unwrap_or(Entered::Other)
            } else {
                Entered::parse(call, writes.all.len())?
            };
            if call.ends_with("<unfinished ...>") {
                entered.insert(thread, begun);
            } else if let Some(result) = call
                .rsplit_once("= ")
                .and_then(|(_, result)| result.trim().parse().ok())
            {
                writes.returned(begun, result);
            }
        }
        Ok(writes)
    }

    fn returned(&mut self, call: Entered, result: i64) {
        match call {
            Entered::Write(mut write) if result > 0 => {
                write.bytes.truncate(usize::try_from(result).unwrap_or(usize::MAX));
                self.all.push(write);
            }
            Entered::Sync(written) if result == 0 => self.synced = self.synced.max(written),
            Entered::Write(_) | Entered::Sync(_) | Entered::Other => {}
        }
    }

    /// Writes to `file` what was synced; with a generator also some of the rest, in any sectors.
    fn replay(&self, file: &PathBuf, mut torn: Option<&mut Rng>) -> Result<(), String> {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options()
            .write(true)
            .open(file)
            .map_err(|error| error.to_string())?;
        for (place, write) in self.all.iter().enumerate() {
            for (sector, bytes) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                let kept = place < self.synced || torn.as_deref_mut().is_some_and(|rng| rng.one_in(2));
                if kept {
                    let offset = write.offset + (sector * SECTOR_BYTES) as u64;
                    file.write_all_at(bytes, offset).map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(())
    }
}

impl Entered {
    fn parse(call: &str, written: usize) -> Result<Self, String> {
        if call.starts_with("fdatasync(") || call.starts_with("fsync(") {
            return Ok(Self::Sync(written));
        }
        let Some(arguments) = call.strip_prefix("pwrite64(") else {
            return if call.starts_with("ftruncate(") {
                Err("the store was truncated, which the trial cannot replay".into())
            } else {
                Ok(Self::Other)
            };
        };
        let broken = || format!("a line of strace is broken: {}", &call[..call.len().min(80)]);
        let (_, rest) = arguments.split_once('"').ok_or_else(broken)?;
        let (text, rest) = rest.split_once('"').ok_or_else(broken)?;
        // The length, then the offset.
        let numbers: Vec<u64> = rest
            .split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        let bytes = text.as_bytes().chunks(4).map(|escaped| {
            let digits = escaped.get(2..).and_then(|digits| std::str::from_utf8(digits).ok());
            digits
                .and_then(|digits| u8::from_str_radix(digits, 16).ok())
                .ok_or_else(broken)
        });
        let bytes = bytes.collect::<Result<Vec<u8>, _>>()?;
        match numbers[..] {
            [length, offset, ..] if length == bytes.len() as u64 => Ok(Self::Write(Write { offset, bytes })),
            _ => Err(broken()),
        }
    }
}
