//! The server under trial: a process of its own on a free port, and what /proc and /metrics say of it.

use crate::clock;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    time::Duration,
};

/// A start, a stop and an answer take at most so long, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The limits that a load from one machine with one name would run into.
const ROOMY: [(&str, &str); 4] = [
    ("SYNCLINE_LIMITS_EDITS_PER_SECOND", "1000000000"),
    ("SYNCLINE_LIMITS_EDITS_BURST", "1000000000"),
    ("SYNCLINE_LIMITS_SESSIONS_PER_SUBJECT_MAX", "1000000"),
    ("SYNCLINE_LOG_FILTER", "info"),
];

/// A binary and what is always set for it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) environment: Vec<(String, String)>,
}

impl Program {
    pub(crate) fn at(path: PathBuf) -> Self {
        Self {
            path,
            environment: Vec::new(),
        }
    }
}

/// How a server is started.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    program: Program,
    wrapper: Vec<String>,
    data: PathBuf,
    listen: String,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
}

/// A running server, killed when dropped.
pub(crate) struct Process {
    child: Child,
    /// Kept open: a server that cannot write its output would fail.
    _stdout: BufReader<ChildStdout>,
    pub(crate) address: SocketAddr,
    log: PathBuf,
}

impl Setup {
    pub(crate) fn new(program: &Program, data: &Path) -> Self {
        Self {
            program: program.clone(),
            wrapper: Vec::new(),
            data: data.to_owned(),
            listen: "127.0.0.1:0".into(),
            arguments: vec!["--dev".into()],
            variables: ROOMY.map(|(name, value)| (name.into(), value.into())).into(),
        }
    }

    /// With an environment variable.
    #[must_use]
    pub(crate) fn variable(mut self, name: &str, value: impl ToString) -> Self {
        self.variables.push((name.into(), value.to_string()));
        self
    }

    /// At this very address.
    #[must_use]
    pub(crate) fn at(mut self, address: SocketAddr) -> Self {
        self.listen = address.to_string();
        self
    }

    /// With these arguments in place of `--dev`.
    #[must_use]
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self
    }

    /// Under a command that becomes the server, or starts it as a process that this one can wait for.
    #[must_use]
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// Where the log goes: beside the store.
    pub(crate) fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends instead; with the end of its log.
    pub(crate) fn start(&self) -> Result<Process, String> {
        let path = self.program.path.display().to_string();
        let mut words = self.wrapper.clone();
        words.push(path.clone());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(["serve", "--listen", &self.listen, "--data"]);
        command.arg(&self.data).args(&self.arguments);
        command.envs(self.variables.iter().cloned());
        // Last, so that what a row is tried against wins over what it sets itself.
        command.envs(self.program.environment.iter().cloned());
        let log = self.log();
        let stderr = File::options().create(true).append(true).open(&log);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.map_err(|error| format!("{}: {error}", log.display()))?)
            .spawn()
            .map_err(|error| format!("{path}: {error}"))?;
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        // An error here is an empty line below.
        let _ = stdout.read_line(&mut line);
        let address = line
            .trim()
            .rsplit_once("//")
            .and_then(|(_, address)| address.parse().ok());
        let Some(address) = address else {
            // It may have ended already.
            let _ = child.kill();
            let status = child.wait();
            return Err(format!("the server did not start ({status:?}): {}", tail(&log)));
        };
        Ok(Process {
            child,
            _stdout: stdout,
            address,
            log,
        })
    }
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// kill -9.
    pub(crate) fn kill(mut self) {
        // It may have been killed already, which is what a row may be about.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.pid().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {name} runs");
    }

    /// SIGTERM, and how it ended.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) fn terminate(mut self) -> Result<ExitStatus, String> {
        self.signal("-TERM");
        self.wait(PATIENCE)
            .ok_or_else(|| format!("the server does not stop: {}", tail(&self.log)))
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let mut ended = None;
        clock::wait_until(limit, || {
            ended = self.child.try_wait().ok().flatten();
            ended.is_some()
        });
        ended
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resident memory now, in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The highest resident memory since the last [`Self::reset_peak`], in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Begins the peak anew.
    pub(crate) fn reset_peak(&self) {
        // Without it the peak is that of the whole life, which is stricter.
        let _ = std::fs::write(format!("/proc/{}/clear_refs", self.pid()), "5");
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0)
    }

    /// The sum of all series of a metric.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            (series.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// The whole answer to a request.
    pub(crate) fn get(&self, path: &str) -> String {
        self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.address
        ))
    }

    /// Sends bytes and reads until the server ends, which it does for `Connection: close`.
    pub(crate) fn exchange(&self, request: &str) -> String {
        let Ok(mut stream) = TcpStream::connect(self.address) else {
            return String::new();
        };
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        // A server that refuses early may have hung up before it took the whole request.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            answer.extend_from_slice(&chunk[..count]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(3)..].join(" | ")
}

/// What `syncline check` says of a store.
pub(crate) fn check(program: &Program, data: &Path) -> Result<String, String> {
    run(program, &["check", "--data", &data.display().to_string()])
}

/// What `syncline salvage` says of a store, and whether it found all of it whole.
pub(crate) fn salvage(program: &Program, data: &Path, out: &Path) -> Result<String, String> {
    let (data, out) = (data.display().to_string(), out.display().to_string());
    run(program, &["salvage", "--data", &data, "--out", &out])
}

/// Runs a command of the binary: its output, or that and its error.
pub(crate) fn run(program: &Program, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(&program.path).args(arguments).output();
    let output = output.map_err(|error| error.to_string())?;
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(out);
    }
    Err(format!(
        "{}: {out}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}
