//! What the system was told of the store's files, as strace recorded it, and how much of that is on the disk when the power goes.

use crate::{clock, rng::Rng, trial::ensure};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The files that must survive.
const FILES: [&str; 2] = ["journal", "db"];
/// There, durably, while a log that was there before is being opened.
const OPENING: &str = "opening";
/// A disk writes sectors of this size whole, or not.
const SECTOR_BYTES: usize = 512;
/// Earlier moments at which the power goes, too.
const MOMENTS: usize = 3;
/// After so many of the cuts, too, before the log is synced; a cut that is not synced is on the disk now and then.
const CUTS: usize = 2;
const TRIES_PER_CUT: usize = 2;
const RECORD_WAIT: Duration = Duration::from_secs(60);

/// All writes, by the name of the file.
pub(crate) type Record = BTreeMap<&'static str, Writes>;

/// What writes the record of a server on `data`.
pub(crate) fn recorder(data: &Path, record: &Path) -> Vec<String> {
    let mut command: Vec<String> = "strace -D -f -q -y -ttt -T -xx -s 8000000"
        .split(' ')
        .map(str::to_owned)
        .collect();
    command.extend(["-o".to_owned(), record.display().to_string()]);
    for file in FILES {
        command.extend(["-P".to_owned(), data.join(file).display().to_string()]);
    }
    command.extend(["-P".to_owned(), data.join(OPENING).display().to_string()]);
    command.extend(["-e", "trace=pwrite64,fdatasync,fsync,ftruncate,?unlink,unlinkat"].map(str::to_owned));
    command
}

/// Waits until strace has written all of a record whose server has ended.
pub(crate) fn wait_for_end(record: &Path) -> Result<(), String> {
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

/// Moments just before a sync of the log: any, and those behind a cut of either file.
pub(crate) fn moments(writes: &Record, rng: &mut Rng) -> Vec<f64> {
    let syncs = &writes["db"].syncs;
    let mut moments: Vec<f64> = (0..MOMENTS)
        .map(|_| rng.pick(syncs).map_or(f64::MAX, |sync| sync.returned))
        .collect();
    let cuts: Vec<f64> = writes.values().flat_map(Writes::cuts).collect();
    for cut in (0..CUTS).filter_map(|_| rng.pick(&cuts)) {
        let synced = syncs.iter().find(|sync| sync.returned > *cut);
        moments.extend(synced.iter().flat_map(|sync| [sync.returned; TRIES_PER_CUT]));
    }
    moments
}

/// Brings the files in `data`, as they were when the record begins, to where they were at `moment`: what was synced before, and with a
/// generator some of the rest, too.
pub(crate) fn replay(writes: &Record, data: &Path, moment: f64, mut torn: Option<&mut Rng>) -> Result<(), String> {
    let mut files = writes.iter();
    files.try_for_each(|(file, writes)| writes.replay(&data.join(file), moment, torn.as_deref_mut()))
}

/// Has a store that was being opened at `moment` say so, as the directory did then.
pub(crate) fn mark_opening(record: &Path, data: &Path, moment: f64) -> Result<(), String> {
    let text = fs::read_to_string(record).map_err(|error| error.to_string())?;
    let name = escaped(OPENING);
    let removed = text
        .lines()
        .find(|line| line.contains("unlink") && line.contains(&name));
    let removed = removed.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok());
    if removed.is_some_and(|removed| removed < moment) {
        return Ok(());
    }
    fs::write(data.join(OPENING), "").map_err(|error| error.to_string())
}

/// Reads what strace wrote.
pub(crate) fn read_record(record: &Path) -> Result<Record, String> {
    let text = fs::read_to_string(record).map_err(|error| error.to_string())?;
    let mut writes: BTreeMap<_, _> = FILES.map(|file| (file, Writes::default())).into();
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

/// What the kernel was told of a file, and took.
struct Step {
    what: What,
    /// When the system had it.
    returned: f64,
}

enum What {
    Write {
        offset: u64,
        bytes: Vec<u8>,
    },
    /// The file has this length.
    Cut(u64),
}

/// A sync that succeeded.
struct Sync {
    returned: f64,
    /// So many writes had returned when it was called.
    covered: usize,
}

/// All writes to a file and cuts of it, and the syncs of it, in order.
#[derive(Default)]
pub(crate) struct Writes {
    all: Vec<Step>,
    syncs: Vec<Sync>,
}

/// A call that has been entered.
enum Entered {
    Step(What),
    /// With how many writes and cuts had returned by then.
    Sync(usize),
    Other,
}

impl Writes {
    fn returned(&mut self, call: Entered, result: i64, returned: f64) {
        let what = match call {
            Entered::Step(What::Write { offset, mut bytes }) if result > 0 => {
                bytes.truncate(usize::try_from(result).unwrap_or(usize::MAX));
                What::Write { offset, bytes }
            }
            Entered::Step(What::Cut(length)) if result == 0 => What::Cut(length),
            Entered::Sync(covered) if result == 0 => return self.syncs.push(Sync { returned, covered }),
            Entered::Step(_) | Entered::Sync(_) | Entered::Other => return,
        };
        self.all.push(Step { what, returned });
    }

    /// How many bytes were written.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = self.all.iter().map(|step| match &step.what {
            What::Write { bytes, .. } => bytes.len(),
            What::Cut(_) => 0,
        });
        bytes.sum()
    }

    /// How many writes and cuts were not synced at the end.
    pub(crate) fn unsynced(&self) -> usize {
        self.all.len() - self.synced(f64::MAX)
    }

    /// When a sync of it had returned.
    pub(crate) fn synced_at(&self) -> impl Iterator<Item = f64> {
        self.syncs.iter().map(|sync| sync.returned)
    }

    /// When it was cut.
    pub(crate) fn cuts(&self) -> impl Iterator<Item = f64> {
        let cuts = self.all.iter().filter(|step| matches!(step.what, What::Cut(_)));
        cuts.map(|step| step.returned)
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
        for (place, step) in all.filter(|(place, step)| *place < synced || step.returned < moment) {
            let mut is_kept = || place < synced || torn.as_deref_mut().is_some_and(|rng| rng.one_in(2));
            let done = match &step.what {
                What::Write { offset, bytes } => {
                    let sectors = (*offset..).step_by(SECTOR_BYTES).zip(bytes.chunks(SECTOR_BYTES));
                    let mut kept = sectors.filter(|_| is_kept());
                    kept.try_for_each(|(offset, bytes)| file.write_all_at(bytes, offset))
                }
                What::Cut(length) if is_kept() => file.set_len(*length),
                What::Cut(_) => Ok(()),
            };
            done.map_err(|error| error.to_string())?;
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
        let broken = || format!("a line of strace is broken: {}", &call[..call.len().min(80)]);
        if call.starts_with("ftruncate(") {
            let length = call.split_once(">, ").map(|(_, rest)| rest);
            let length = length.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
            return Ok(Self::Step(What::Cut(length.ok_or_else(broken)?)));
        }
        let Some(arguments) = call.strip_prefix("pwrite64(") else {
            return Ok(Self::Other);
        };
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
            [length, offset, ..] if length == bytes.len() as u64 => Ok(Self::Step(What::Write { offset, bytes })),
            _ => Err(broken()),
        }
    }
}
