//! Row 3 on the real store: its writes to journal and log are recorded, and after a kill all that came after each file's last
//! sync vanishes, or only some of it is there, torn. So too at earlier moments, just before a sync of the log. (The simulator does the same with its own disk, on hundreds of seeds.)

use crate::{
    checks,
    client::Client,
    clock,
    durability::files::copy,
    journal::{Journal, Promised},
    load::{Author, Load, wait_for_acks},
    process::Process,
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure, needs, pause},
};
use automerge::{Change, ChangeHash};
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
/// The files that must survive.
const FILES: [&str; 2] = ["journal", "db"];
/// Edits that have the log go on through several segments, and their size.
const LARGE_EDITS: u64 = 150;
const LARGE_BYTES: usize = 12_000;
/// A disk writes sectors of this size whole, or not.
const SECTOR_BYTES: usize = 512;
/// Earlier moments at which the power goes, too, in each round.
const MOMENTS: usize = 3;
const RECORD_WAIT: Duration = Duration::from_secs(60);

fn run(trial: &Trial) -> Outcome {
    needs("strace")?;
    let (mut acks, mut vanished, mut written, mut earlier) = (0, 0, 0, 0);
    let count = trial.rounds(|round, rng| {
        let data = trial.directory(&format!("store-{round}"));
        trial.setup(&data).start()?.terminate()?;
        let before = trial.scratch.join(format!("before-{round}"));
        copy(&data, &before)?;
        let journal = Journal::create(&trial.scratch.join("journal"));
        let record = trial.scratch.join("writes");
        let large = load_and_kill(trial, &data, &record, &journal, round, rng)?;
        let writes = Writes::read(&record)?;
        acks += journal.acks();
        for file in writes.values() {
            vanished += file.all.len() - file.synced(f64::MAX);
            written += file.all.iter().map(|write| write.bytes.len()).sum::<usize>();
        }
        let at = |moment: f64| -> Promised {
            let acked = large.iter().filter(|(heard, _)| *heard < moment);
            [(large_name(round), acked.map(|(_, hash)| *hash).collect())].into()
        };
        let mut cuts = vec![
            (f64::MAX, false, journal.promised()),
            (f64::MAX, true, journal.promised()),
        ];
        for _ in 0..MOMENTS {
            let moment = rng.pick(&writes["db"].syncs).map_or(f64::MAX, |sync| sync.returned);
            cuts.push((moment, true, at(moment)));
            earlier += 1;
        }
        for (moment, is_torn, promised) in cuts {
            let cut = trial.scratch.join(format!("cut-{round}"));
            copy(&before, &cut)?;
            for (file, writes) in &writes {
                writes.replay(&cut.join(file), moment, is_torn.then_some(&mut *rng))?;
            }
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
        "0 lost of {acks} acked; {mib} MiB written; {vanished} unsynced writes vanished or were torn at the end, and others just \
         before {earlier} syncs of the log"
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
    let [journal_file, log_file] = FILES.map(|file| data.join(file).display().to_string());
    let out = record.display().to_string();
    let wrapper = [
        "strace",
        "-D",
        "-f",
        "-q",
        "-y",
        "-ttt",
        "-T",
        "-xx",
        "-s",
        "4000000",
        "-o",
        &out,
        "-P",
        &journal_file,
        "-P",
        &log_file,
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
    let (enough, large) = load.run(salt, journal, |_| {
        let large = large_edits(&process, salt);
        let enough = wait_for_acks(journal, ACKS_MIN);
        pause(rng, 100);
        process.kill();
        large.map(|large| (enough, large))
    })?;
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

/// A write that the kernel took.
struct Write {
    offset: u64,
    bytes: Vec<u8>,
    /// When the system had it.
    returned: f64,
}

/// A sync that succeeded.
struct Sync {
    returned: f64,
    /// So many writes had returned when it was called.
    covered: usize,
}

/// All writes to a file, and the syncs of it, in order.
#[derive(Default)]
struct Writes {
    all: Vec<Write>,
    syncs: Vec<Sync>,
}

/// A call that has been entered.
enum Entered {
    Write(Write),
    /// With how many writes had returned by then.
    Sync(usize),
    Other,
}

impl Writes {
    /// Reads what strace wrote, by the name of the file.
    fn read(record: &Path) -> Result<BTreeMap<&'static str, Self>, String> {
        let text = fs::read_to_string(record).map_err(|error| error.to_string())?;
        let mut writes: BTreeMap<_, _> = FILES.map(|file| (file, Self::default())).into();
        let mut entered: BTreeMap<&str, (&str, Entered)> = BTreeMap::new();
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else {
                continue;
            };
            let Some((time, call)) = rest.trim_start().split_once(' ') else {
                continue;
            };
            let time: f64 = time
                .parse()
                .map_err(|_| format!("a line of strace has no time: {time}"))?;
            if call.starts_with("+++") || call.starts_with("---") {
                continue;
            }
            let (file, begun) = if call.starts_with("<...") {
                let Some(begun) = entered.remove(thread) else { continue };
                begun
            } else {
                let path = call.split('>').next().unwrap_or_default();
                let Some(file) = FILES.into_iter().find(|file| path.ends_with(&escaped(file))) else {
                    continue;
                };
                (file, Entered::parse(call, writes[file].all.len())?)
            };
            if call.ends_with("<unfinished ...>") {
                entered.insert(thread, (file, begun));
            } else if let Some((_, result)) = call.rsplit_once("= ")
                && let Some((result, took)) = result.split_once(" <")
                && let (Ok(result), Ok(took)) = (result.parse(), took.trim_end_matches('>').parse::<f64>())
                && let Some(writes) = writes.get_mut(file)
            {
                // A call that was broken off has the time of its end.
                let ahead = if call.starts_with("<...") { 0.0 } else { took };
                writes.returned(begun, result, time + ahead);
            }
        }
        Ok(writes)
    }

    fn returned(&mut self, call: Entered, result: i64, returned: f64) {
        match call {
            Entered::Write(mut write) if result > 0 => {
                write.bytes.truncate(usize::try_from(result).unwrap_or(usize::MAX));
                write.returned = returned;
                self.all.push(write);
            }
            Entered::Sync(covered) if result == 0 => self.syncs.push(Sync { returned, covered }),
            Entered::Write(_) | Entered::Sync(_) | Entered::Other => {}
        }
    }

    /// How many were surely on the disk then.
    fn synced(&self, moment: f64) -> usize {
        let before = self.syncs.iter().filter(|sync| sync.returned < moment);
        before.map(|sync| sync.covered).max().unwrap_or(0)
    }

    /// Writes to `file` what was synced before `moment`; with a generator also some of the rest, in any sectors.
    fn replay(&self, file: &PathBuf, moment: f64, mut torn: Option<&mut Rng>) -> Result<(), String> {
        use std::os::unix::fs::FileExt;
        let file = fs::File::options()
            .write(true)
            .open(file)
            .map_err(|error| error.to_string())?;
        let synced = self.synced(moment);
        let all = self.all.iter().enumerate();
        for (place, write) in all.filter(|(place, write)| *place < synced || write.returned < moment) {
            for (sector, bytes) in write.bytes.chunks(SECTOR_BYTES).enumerate() {
                let kept = place < synced || torn.as_deref_mut().is_some_and(|rng| rng.one_in(2));
                if kept {
                    let offset = write.offset + (sector * SECTOR_BYTES) as u64;
                    file.write_all_at(bytes, offset).map_err(|error| error.to_string())?;
                }
            }
        }
        Ok(())
    }
}

/// The end of a path as strace writes it.
fn escaped(file: &str) -> String {
    let bytes = b"/".iter().chain(file.as_bytes());
    bytes.map(|byte| format!("\\x{byte:02x}")).collect()
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
            [length, offset, ..] if length == bytes.len() as u64 => Ok(Self::Write(Write {
                offset,
                bytes,
                returned: f64::MAX,
            })),
            _ => Err(broken()),
        }
    }
}
