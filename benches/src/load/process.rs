//! The server under load: a child process on core 0, this process on core 1, and what /proc says of them.

use super::target::Target;
use anyhow::{Context, ensure};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// Clock ticks per second in /proc/PID/stat, on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;
const STOP_TIMEOUT_MS: f64 = 30_000.0;
const SERVER_CORE: &str = "0";
const GENERATOR_CORE: &str = "1";
/// The limits that a load from one machine with one name would run into.
const SERVER_ENVIRONMENT: [(&str, &str); 7] = [
    ("SYNCLINE_LIMITS_EDITS_PER_SECOND", "1000000000"),
    ("SYNCLINE_LIMITS_EDITS_BURST", "1000000000"),
    ("SYNCLINE_LIMITS_SESSIONS_PER_SUBJECT_MAX", "1000000"),
    ("SYNCLINE_LIMITS_SUBJECT_QUEUE_BYTES_MAX", "1073741824"),
    ("SYNCLINE_LIMITS_MEMBERS_PER_ROOM_MAX", "1000000"),
    ("SYNCLINE_LIMITS_IDLE_TIMEOUT_MS", "600000"),
    ("SYNCLINE_LOG_FILTER", "warn"),
];

/// How to start servers.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The `syncline` binary.
    pub(crate) syncline: PathBuf,
    /// This very binary, for the relay.
    pub(crate) bench: PathBuf,
    /// Whether `taskset` pins the server to one core and this process to another.
    pub(crate) pinned: bool,
    /// Where the servers' logs go.
    pub(crate) log: PathBuf,
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Kept open: a server that cannot write its output would fail.
    _stdout: BufReader<ChildStdout>,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Programs {
    /// Moves this process to its core, if that can be done.
    pub(crate) fn find(syncline: PathBuf, log: PathBuf) -> anyhow::Result<Self> {
        ensure!(
            syncline.exists(),
            "{} is not there: build it with `cargo build --release --bin syncline`",
            syncline.display()
        );
        let bench = std::env::current_exe().context("cannot find this program")?;
        let own = std::process::id().to_string();
        let moved = Command::new("taskset")
            .args(["-a", "-p", "-c", GENERATOR_CORE, &own])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        let pinned = moved.is_ok_and(|status| status.success());
        File::create(&log)?;
        Ok(Self {
            syncline,
            bench,
            pinned,
            log,
        })
    }

    /// Starts `target` on a free port, Syncline on the store in `data`.
    pub(crate) fn start(&self, target: Target, data: &Path) -> anyhow::Result<Server> {
        let program = match target {
            Target::Relay => &self.bench,
            Target::Syncline => &self.syncline,
        };
        let mut command = if self.pinned {
            let mut command = Command::new("taskset");
            command.args(["-c", SERVER_CORE]).arg(program);
            command
        } else {
            Command::new(program)
        };
        match target {
            Target::Relay => command.args(["relay", "--listen", "127.0.0.1:0"]),
            Target::Syncline => command
                .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
                .arg(data)
                .envs(SERVER_ENVIRONMENT),
        };
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::options().append(true).open(&self.log)?)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://");
        let address = address.with_context(|| format!("{} did not start: {line}", target.name()));
        let address = match address.and_then(|address| address.parse().context("not an address")) {
            Ok(address) => address,
            Err(error) => {
                // It may have ended already; then there is nothing to kill.
                let _ = child.kill();
                child.wait()?;
                return Err(error);
            }
        };
        Ok(Server {
            child,
            _stdout: stdout,
            address,
        })
    }
}

impl Server {
    /// CPU seconds so far, of all threads; exact to 10 ms.
    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_s(&self.child.id().to_string())
    }

    /// Resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|line| line.split_whitespace().next())
            .context("status has no VmRSS")?;
        Ok(kib.parse()?)
    }

    /// Waits until the server has used no CPU for so long: what it does behind the edits is done, or rests.
    pub(crate) async fn quiet(&self, seconds: u32) -> anyhow::Result<()> {
        let (mut before, mut still) = (self.cpu_s()?, 0);
        for _ in 0..300 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let after = self.cpu_s()?;
            still = if after - before < 0.02 { still + 1 } else { 0 };
            if still == seconds {
                return Ok(());
            }
            before = after;
        }
        anyhow::bail!("the server did not come to rest within five minutes")
    }

    /// Stops it with SIGTERM and waits for its end.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        let start = crate::clock::now();
        while self.child.try_wait()?.is_none() {
            ensure!(
                crate::clock::ms_since(start) < STOP_TIMEOUT_MS,
                "the server does not stop"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

/// CPU seconds that this process has used so far.
pub(crate) fn own_cpu_s() -> anyhow::Result<f64> {
    cpu_s("self")
}

fn cpu_s(process: &str) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').context("stat has no name")?;
    // The fields after the name begin with the third: utime and stime are the 14th and 15th.
    let ticks = fields.split_whitespace().skip(11).take(2);
    Ok(ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND)
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, and needs not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
