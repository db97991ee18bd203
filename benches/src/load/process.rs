//! The server under load: a child process on core 0, this process on core 1, and what /proc says of them.

use super::target::Target;
use anyhow::{Context, ensure};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::File,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Clock ticks per second in /proc/PID/stat, on every Linux there is.
const TICKS_PER_SECOND: f64 = 100.0;
const STOP_TIMEOUT_MS: f64 = 30_000.0;
const START_TIMEOUT_MS: f64 = 60_000.0;
const LISTENS_BEFORE_IT_HEARS: Duration = Duration::from_secs(1);
/// Where `make compare` installs the rivals that are built.
const BUILT_RIVALS: &str = "target/rivals/bin";
const RIVALS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/rivals");
const SERVER_CORE: &str = "0";
const GENERATOR_CORE: &str = "1";
/// The limits that a load from one machine with one name would run into.
const SERVER_ENVIRONMENT: [(&str, &str); 8] = [
    ("SYNCLINE_LIMITS_EDITS_PER_SECOND", "1000000000"),
    ("SYNCLINE_LIMITS_EDITS_BURST", "1000000000"),
    ("SYNCLINE_LIMITS_SESSIONS_PER_SUBJECT_MAX", "1000000"),
    ("SYNCLINE_LIMITS_SUBJECT_QUEUE_BYTES_MAX", "1073741824"),
    ("SYNCLINE_LIMITS_MEMBERS_PER_ROOM_MAX", "1000000"),
    ("SYNCLINE_LIMITS_IDLE_TIMEOUT_MS", "600000"),
    ("SYNCLINE_LIMITS_DOCUMENTS_PER_SESSION_MAX", "1000000"),
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
    /// The npm package that has the rivals.
    pub(crate) rivals: PathBuf,
}

/// How it is known where a server listens.
#[derive(Clone, Copy)]
enum Listens {
    /// It says so.
    Says,
    /// It was told.
    On(SocketAddr),
}

/// What to run, as `command.mjs` prints it.
#[derive(serde::Deserialize)]
struct How {
    file: String,
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    versions: Vec<String>,
}

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// Kept open: a server that cannot write its output would fail.
    _stdout: Option<BufReader<ChildStdout>>,
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
            rivals: PathBuf::from(RIVALS),
        })
    }

    /// Starts `target` on a free port, Syncline on the store in `data`.
    pub(crate) fn start(&self, target: Target, data: &Path) -> anyhow::Result<Server> {
        self.start_with(target, data, &[])
    }

    /// As [`Programs::start`], with more of its environment.
    pub(crate) fn start_with(
        &self,
        target: Target,
        data: &Path,
        environment: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let listens = match target {
            Target::Relay | Target::Syncline => Listens::Says,
            _ => Listens::On(free_port()?),
        };
        let mut command = match (target, listens) {
            (Target::Relay, _) => {
                let mut command = self.pinned(&self.bench);
                command.args(["relay", "--listen", "127.0.0.1:0"]);
                command
            }
            (_, Listens::Says) => {
                let mut command = self.pinned(&self.syncline);
                command
                    .args(["serve", "--dev", "--listen", "127.0.0.1:0", "--data"])
                    .arg(data);
                command.envs(SERVER_ENVIRONMENT).envs(environment.iter().copied());
                command
            }
            (Target::YSweet, Listens::On(address)) => {
                let mut command = self.pinned(built(target)?);
                let port = address.port().to_string();
                command
                    .args(["serve", "--host", "127.0.0.1", "--port", &port])
                    .arg(data);
                command
            }
            (Target::Samod, Listens::On(address)) => {
                let mut command = self.pinned(built(target)?);
                command.arg(address.port().to_string()).arg(data);
                command
            }
            (_, Listens::On(address)) => self.rival(target, address, data)?,
        };
        let log = || File::options().append(true).open(&self.log);
        command.stdin(Stdio::null()).stderr(log()?);
        command.stdout(match listens {
            Listens::Says => Stdio::piped(),
            Listens::On(_) => Stdio::from(log()?),
        });
        let child = command
            .spawn()
            .with_context(|| format!("cannot start the {}", target.name()))?;
        match listens {
            Listens::Says => Server::told(child, target),
            Listens::On(address) => Server::reached(child, address, target),
        }
    }

    /// A command that runs on the server's core.
    pub(super) fn pinned(&self, program: impl AsRef<OsStr>) -> Command {
        if !self.pinned {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", SERVER_CORE]).arg(program);
        command
    }

    /// What was installed of a rival, with its version.
    pub(crate) fn versions(&self, target: Target) -> anyhow::Result<Vec<String>> {
        match target {
            Target::Relay => Ok(Vec::new()),
            Target::Syncline => {
                let said = Command::new(&self.syncline).arg("--version").output()?;
                Ok(vec![String::from_utf8_lossy(&said.stdout).trim().to_owned()])
            }
            Target::YSweet => {
                let said = Command::new(built(target)?).arg("version").output()?;
                Ok(vec![format!(
                    "y-sweet {}",
                    String::from_utf8_lossy(&said.stdout).trim()
                )])
            }
            Target::Samod => {
                let said = Command::new(built(target)?).arg("--version").output()?;
                Ok(vec![String::from_utf8_lossy(&said.stdout).trim().to_owned()])
            }
            _ => Ok(self.how(target, 0, Path::new("."))?.versions),
        }
    }

    fn rival(&self, target: Target, address: SocketAddr, data: &Path) -> anyhow::Result<Command> {
        let how = self.how(target, address.port(), data)?;
        let mut command = self.pinned(how.file);
        command.args(how.args).envs(how.env).current_dir(data);
        Ok(command)
    }

    /// What `benches/rivals` says how a rival is started.
    fn how(&self, target: Target, port: u16, data: &Path) -> anyhow::Result<How> {
        let asked = Command::new("node")
            .arg(self.rivals.join("command.mjs"))
            .args([target.name(), &port.to_string()])
            .arg(data.canonicalize()?)
            .output()
            .context("cannot run node")?;
        ensure!(
            asked.status.success(),
            "{} cannot be started; `make compare` installs it: {}",
            target.name(),
            String::from_utf8_lossy(&asked.stderr)
        );
        Ok(serde_json::from_slice(&asked.stdout)?)
    }
}

impl Server {
    /// One that says on its first line where it listens.
    fn told(mut child: Child, target: Target) -> anyhow::Result<Self> {
        let mut stdout = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let address = (line.trim().strip_prefix("listening on http://"))
            .or_else(|| line.trim().strip_prefix("listening on https://"));
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
        Ok(Self {
            child,
            _stdout: Some(stdout),
            address,
        })
    }

    /// One that is ready when it takes connections.
    fn reached(child: Child, address: SocketAddr, target: Target) -> anyhow::Result<Self> {
        let mut server = Self {
            child,
            _stdout: None,
            address,
        };
        let start = crate::clock::now();
        while std::net::TcpStream::connect(address).is_err() {
            ensure!(
                server.child.try_wait()?.is_none(),
                "{} ended at once: see its log",
                target.name()
            );
            ensure!(
                crate::clock::ms_since(start) < START_TIMEOUT_MS,
                "{} does not listen",
                target.name()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        // automerge-repo's hears nobody who connects before it has opened its storage, and says nothing when it has.
        std::thread::sleep(LISTENS_BEFORE_IT_HEARS);
        Ok(server)
    }

    /// CPU seconds so far, of all threads; exact to 10 ms.
    pub(crate) fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_s(&self.child.id().to_string())
    }

    /// The milliseconds of CPU that its threads have used, exact: for what takes less than a tick, and ends no thread.
    pub(crate) fn cpu_of_threads_ms(&self) -> anyhow::Result<f64> {
        let mut used_ns = 0;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let used = stat.split(' ').next().context("schedstat is empty")?;
            used_ns += used.parse::<u64>()?;
        }
        Ok(used_ns as f64 / 1e6)
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

    /// A counter or gauge of Syncline, as /metrics shows it; 0 for one that has not counted yet.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let [metric] = self.metrics([name]).await?;
        Ok(metric)
    }

    /// Several at once.
    pub(crate) async fn metrics<const COUNT: usize>(&self, names: [&str; COUNT]) -> anyhow::Result<[f64; COUNT]> {
        let mut stream = TcpStream::connect(self.address).await?;
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let mut metrics = [0.0; COUNT];
        for (metric, name) in metrics.iter_mut().zip(names) {
            let found = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse());
            if let Some(value) = answer.lines().find_map(found) {
                *metric = value.context("a metric is not a number")?;
            }
        }
        Ok(metrics)
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
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

/// The program of a rival that is built, not installed by npm.
fn built(target: Target) -> anyhow::Result<PathBuf> {
    let program = Path::new(BUILT_RIVALS).join(target.name());
    program
        .canonicalize()
        .with_context(|| format!("{} is not there: `make compare` builds it", program.display()))
}

fn free_port() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
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
