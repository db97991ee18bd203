//! What a row is, what it gets to run with, and what it has to say.

use crate::{
    clock::Moment,
    process::{Program, Setup},
    rng::Rng,
};
use std::{path::Path, path::PathBuf, time::Duration};

/// A row of the scorecard.
pub(crate) struct Row {
    /// Its number there.
    pub(crate) number: &'static str,
    pub(crate) name: &'static str,
    pub(crate) target: &'static str,
    /// How often it is repeated in an ordinary run, and at most in a long one.
    pub(crate) ci: u64,
    pub(crate) soak: u64,
    /// The program.
    pub(crate) run: fn(&Trial) -> Outcome,
    /// Servers that it must fail on.
    pub(crate) bites: &'static [Bite],
}

/// A server that breaks what a row is about.
pub(crate) struct Bite {
    pub(crate) name: &'static str,
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// How many repetitions are enough to notice.
    pub(crate) count: u64,
}

/// What one run of a row has.
pub(crate) struct Trial {
    /// How many repetitions.
    pub(crate) count: u64,
    /// Everything random follows from it.
    pub(crate) seed: u64,
    /// No repetition begins after this.
    pub(crate) until: Option<Moment>,
    /// The server under trial.
    pub(crate) program: Program,
    /// The build with failpoints, if there is one.
    pub(crate) failpoints: Option<PathBuf>,
    /// For stores, logs and journals; removed afterwards.
    pub(crate) scratch: PathBuf,
}

/// What a row found.
pub(crate) type Outcome = Result<Figure, Trouble>;

/// What was measured when all is as it should be.
#[derive(Debug)]
pub(crate) struct Figure {
    /// How many repetitions, inputs or cases there were.
    pub(crate) count: u64,
    pub(crate) text: String,
}

/// Why there is no good figure.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The promise is broken.
    Failed(String),
    /// The promise holds, the figure is not the target's; the reason is known.
    Missed { figure: String, reason: &'static str },
    /// It cannot run here, and how it could.
    Skipped(String),
}

/// The figure of what took so long. Later than five times the target is no failure, since a busy machine does that, too, but
/// no pass either.
pub(crate) fn on_time(took_ms: f64, target_ms: f64, figure: Figure) -> Outcome {
    if took_ms <= 5.0 * target_ms {
        return Ok(figure);
    }
    let reason = "later than five times the target: is the machine busy?";
    Err(Trouble::Missed {
        figure: figure.text,
        reason,
    })
}

impl From<String> for Trouble {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

/// Ends a row or a repetition of it when something is not so.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {{
        let holds: bool = $condition;
        if !holds {
            return Err(format!($($text)+).into());
        }
    }};
}
pub(crate) use ensure;

impl Trial {
    /// Runs `round` as often as the trial says, each time with a generator of its own; a failure names the seed that
    /// repeats it. How many rounds there were.
    pub(crate) fn rounds(&self, mut round: impl FnMut(u64, &mut Rng) -> Result<(), String>) -> Result<u64, Trouble> {
        let mut done = 0;
        while done < self.count && !(done > 0 && self.until.is_some_and(Moment::is_past)) {
            let seed = self.seed + done;
            round(done, &mut Rng::new(seed)).map_err(|text| format!("seed {seed}: {text}"))?;
            done += 1;
        }
        Ok(done)
    }

    /// A directory of this name.
    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        let directory = self.scratch.join(name);
        std::fs::create_dir_all(&directory).expect("the scratch directory can be written");
        directory
    }

    /// Whether a bite says so to the row itself, because what is to be broken is no server's.
    pub(crate) fn is_told(&self, what: &str) -> bool {
        self.program.environment.iter().any(|(name, _)| name == what)
    }

    /// A server in development mode on `data`, on a free port.
    pub(crate) fn setup(&self, data: &Path) -> Setup {
        Setup::new(&self.program, data)
    }

    /// The same from the build with failpoints, with these switched on.
    ///
    /// # Errors
    /// When there is no such build.
    pub(crate) fn setup_failing(&self, data: &Path, failpoints: &str) -> Result<Setup, Trouble> {
        let Some(program) = &self.failpoints else {
            return Err(Trouble::Skipped(
                "needs the build with failpoints: run `make trials`".into(),
            ));
        };
        let mut program = Program::at(program.clone());
        program.environment.extend(self.program.environment.iter().cloned());
        Ok(Setup::new(&program, data).variable("SYNCLINE_FAILPOINTS", failpoints))
    }
}

/// Whether a command is there.
pub(crate) fn is_installed(command: &str) -> bool {
    let found = std::process::Command::new("sh")
        .args(["-c", &format!("command -v {command}")])
        .stdout(std::process::Stdio::null())
        .status();
    found.is_ok_and(|status| status.success())
}

/// Says that a row needs a Debian package.
pub(crate) fn needs(command: &str) -> Result<(), Trouble> {
    if is_installed(command) {
        return Ok(());
    }
    Err(Trouble::Skipped(format!("needs {command}: apt-get install {command}")))
}

/// Says that a row needs to be root, for mounts and limits.
pub(crate) fn needs_root() -> Result<(), Trouble> {
    let id = std::process::Command::new("id").arg("-u").output();
    if id.is_ok_and(|output| output.stdout == b"0\n") {
        return Ok(());
    }
    Err(Trouble::Skipped(
        "needs to be root: run it in a container or with sudo".into(),
    ))
}

/// Runs a command that must work.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{program} {}: {}", arguments.join(" "), error.trim()))
}

/// A random moment within so many milliseconds.
pub(crate) fn pause(rng: &mut Rng, ms_max: usize) {
    std::thread::sleep(Duration::from_millis(rng.below(ms_max.max(1)) as u64));
}
