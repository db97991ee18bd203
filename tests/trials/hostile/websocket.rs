//! Row 19: Autobahn's WebSocket cases, as the package `kosoku` of PyPI runs them, through the real acceptor, limits, reader and
//! writer. The cases want an echo, which a build with failpoints gives in place of the session.

use crate::trial::{Bite, Figure, Outcome, Row, Trial, Trouble, command, ensure, is_installed};
use serde_json::Value;
use std::path::Path;

pub(crate) const ROW: Row = Row {
    number: "19",
    name: "Autobahn's WebSocket cases",
    target: "all pass",
    ci: 1,
    soak: 10,
    run,
    bites: &[Bite {
        name: "messages of up to 4 KiB only",
        environment: &[("SYNCLINE_LIMITS_REPO_MESSAGE_BYTES_MAX", "4096")],
        count: 1,
    }],
};

const PACKAGE: &str = "kosoku==0.1.0";
/// Where it is put, once; nothing is installed outside the build's directory.
const PLACE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/kosoku-0.1.0");
const SCRIPT: &str = include_str!("websocket.py");
/// A machine without a network must not wait long for it.
const INSTALL_S: &str = "60";
const CASES_S: &str = "600";
const AT_ONCE: &str = "4";
/// The cases give a peer one second, which a busy machine does not always keep: what fails is tried again, alone.
const TRIES: usize = 5;
/// The cases last longer than a client may be silent in its handshake.
const HANDSHAKE_MS: u64 = 600_000;

fn run(trial: &Trial) -> Outcome {
    install()?;
    let script = trial.scratch.join("websocket.py");
    std::fs::write(&script, SCRIPT).map_err(|error| error.to_string())?;
    let process = trial
        .setup_failing(&trial.directory("store"), "echo")?
        .variable("SYNCLINE_LIMITS_HANDSHAKE_TIMEOUT_MS", HANDSHAKE_MS)
        .start()?;
    let url = format!("ws://{}/sync", process.address);
    let mut cases = 0;
    trial.rounds(|_, _| {
        let played = play(&script, &url, AT_ONCE, &[])?;
        cases += played.len() as u64;
        let mut failed: Vec<Case> = played.into_iter().filter(|case| !case.passes()).collect();
        for _ in 1..TRIES {
            let ids: Vec<&str> = failed.iter().map(|case| case.id.as_str()).collect();
            if ids.is_empty() {
                break;
            }
            let again = play(&script, &url, "1", &ids)?;
            failed = again.into_iter().filter(|case| !case.passes()).collect();
        }
        let told: Vec<String> = failed.iter().map(Case::told).collect();
        ensure!(told.is_empty(), "{} cases fail: {}", told.len(), told.join("; "));
        Ok(())
    })?;
    ensure!(cases > 200, "only {cases} cases were run");
    let text = "all pass, close codes and all; compression, which is not offered, is left out".to_owned();
    Ok(Figure { count: cases, text })
}

/// One of Autobahn's cases, and how it went.
struct Case {
    id: String,
    behavior: String,
    close: String,
    code: u64,
    why: String,
}

impl Case {
    fn read(line: &str) -> Result<Self, String> {
        let case: Value = serde_json::from_str(line).map_err(|error| format!("{error} in {line}"))?;
        let text = |field: &str| case[field].as_str().unwrap_or_default().to_owned();
        Ok(Self {
            id: text("id"),
            behavior: text("behavior"),
            close: text("close"),
            code: case["code"].as_u64().unwrap_or(0),
            why: text("why"),
        })
    }

    fn passes(&self) -> bool {
        let is_good = |verdict: &String| ["OK", "NON-STRICT", "INFORMATIONAL"].contains(&verdict.as_str());
        is_good(&self.behavior) && is_good(&self.close)
    }

    fn told(&self) -> String {
        format!(
            "{}: {}, close {} {}: {}",
            self.id, self.behavior, self.close, self.code, self.why
        )
    }
}

/// Runs these cases, or all.
fn play(script: &Path, url: &str, at_once: &str, ids: &[&str]) -> Result<Vec<Case>, String> {
    let script = script.display().to_string();
    let words = [
        CASES_S,
        "env",
        &format!("PYTHONPATH={PLACE}"),
        "python3",
        &script,
        url,
        at_once,
    ];
    let output = command("timeout", &[&words, ids].concat())?;
    output.lines().map(Case::read).collect()
}

fn install() -> Result<(), Trouble> {
    if Path::new(PLACE).join("kosoku").is_dir() {
        return Ok(());
    }
    if !is_installed("python3") {
        return Err(Trouble::Skipped(
            "needs python3: apt-get install python3 python3-pip".into(),
        ));
    }
    let words = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--target",
        PLACE,
        PACKAGE,
    ];
    let limits = ["--kill-after=5", INSTALL_S, "python3"];
    let installed = command("timeout", &[&limits[..], &words].concat());
    installed.map(drop).map_err(|error| {
        Trouble::Skipped(format!(
            "needs {PACKAGE} of PyPI, which pip does not get ({}); by hand: python3 {}",
            error.lines().last().unwrap_or_default(),
            words.join(" ")
        ))
    })
}
