//! The binary as a newcomer and a service manager meet it: one line that helps, and the right exit code.

use crate::running::exchange;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Output, Stdio},
};
use syncline::server::{auth::Verifier, clock::Clock, config::Config};
use tempfile::TempDir;

/// The binary in `directory`, with nothing of ours in its environment.
fn syncline(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.args(arguments).current_dir(directory).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYNCLINE_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(directory: &TempDir, arguments: &[&str]) -> Output {
    syncline(directory.path(), arguments).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// A server process that is ready, and where.
struct Process {
    child: Child,
    line: String,
    address: String,
}

impl Process {
    fn start(directory: &TempDir, arguments: &[&str]) -> Self {
        let arguments = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        let mut command = syncline(directory.path(), &arguments);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        let address = line.trim().rsplit('/').next().expect("an address").to_owned();
        Self { child, line, address }
    }

    /// Sends a signal and gives the exit code and all that was written to standard error.
    fn stop(mut self, signal: &str) -> (Option<i32>, String) {
        let killed = Command::new("kill")
            .args([signal, &self.child.id().to_string()])
            .status();
        assert!(killed.expect("kill runs").success());
        let mut log = String::new();
        self.child
            .stderr
            .take()
            .expect("piped")
            .read_to_string(&mut log)
            .expect("text");
        (self.child.wait().expect("it ends").code(), log)
    }
}

#[test]
fn wrong_usage_and_configuration_are_one_line_and_exit_2() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("bad.toml"), "lisen = 'x'").expect("written");
    fs::write(directory.path().join("weak.toml"), "auth.secret = 'short'").expect("written");
    let check = |arguments: &[&str], part: &str| {
        let output = run(&directory, arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{arguments:?}: {error}");
        assert!(
            error.starts_with("syncline: ") && error.contains(part),
            "{arguments:?}: {error}"
        );
        assert!(output.stdout.is_empty(), "{arguments:?}");
    };
    check(&["serve", "--fast"], "unexpected argument '--fast'");
    check(&["swerve"], "unrecognized subcommand 'swerve'");
    check(&["serve"], "syncline key");
    check(&["serve", "--listen", "here"], "--listen: 'here' is not an address");
    check(&["serve", "--dev", "--listen", "0.0.0.0:0"], "not loopback");
    check(
        &["serve", "--config", "bad.toml"],
        "bad.toml, line 1: unknown field `lisen`",
    );
    check(&["serve", "--config", "missing.toml"], "missing.toml: ");
    check(&["serve", "--config", "weak.toml"], "at least 32 bytes");
    check(&["serve", "--dev", "--tls-cert", "missing.pem"], "needs its key");
    check(
        &[
            "serve",
            "--dev",
            "--tls-cert",
            "missing.pem",
            "--tls-key",
            "missing.pem",
        ],
        "missing.pem: ",
    );
    check(&["token", "--sub", "ann"], "--doc");
    check(
        &["token", "--sub", "ann", "--doc", "a=admin"],
        "'admin' is neither read nor write",
    );
    check(
        &["token", "--sub", "ann", "--doc", "a=read"],
        "no HS256 secret is configured",
    );
    check(&["key", "--alg", "none"], "invalid value 'none'");
    check(&["watch", "ws://localhost/sync", "a b"], "a document id is made of");
}

#[test]
fn help_and_version_are_for_everybody() {
    let directory = tempfile::tempdir().expect("a directory");
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["serve", "--help"],
        &["token", "--help"],
        &["help", "key"],
    ] {
        let output = run(&directory, arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(text(&output.stdout).contains("syncline"), "{arguments:?}");
    }
    let output = run(&directory, &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("serve"));
}

#[test]
fn a_busy_port_is_told_and_exits_1() {
    let directory = tempfile::tempdir().expect("a directory");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let output = run(&directory, &["serve", "--dev", "--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    let line = error.lines().last().expect("a line");
    assert!(
        line.contains(&address) && line.contains("in use") && line.contains("--listen"),
        "{error}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn serve_prints_one_line_and_ends_in_order() {
    for signal in ["-TERM", "-INT"] {
        let directory = tempfile::tempdir().expect("a directory");
        let mut process = Process::start(&directory, &["--dev"]);
        assert_eq!(process.line, format!("listening on http://{}\n", process.address));
        let stream = std::net::TcpStream::connect(&process.address).expect("a connection");
        let request = "GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
        assert!(exchange(stream, request).starts_with("HTTP/1.1 200"));
        let stdout = process.child.stdout.take().expect("piped");
        let (code, log) = process.stop(signal);
        assert_eq!(code, Some(0), "{log}");
        assert!(
            log.contains("WARNING") && log.contains("without authentication"),
            "{log}"
        );
        assert_eq!(
            BufReader::new(stdout).lines().count(),
            0,
            "nothing else goes to standard output"
        );
    }
}

#[test]
fn variables_and_the_file_in_the_directory_count() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("syncline.toml"), "listen = 'from the file'").expect("written");
    let check = |variable: Option<&str>, part: &str| {
        let mut command = syncline(directory.path(), &["serve"]);
        command.envs(variable.map(|value| ("SYNCLINE_LISTEN", value)));
        let error = text(&command.output().expect("it runs").stderr);
        assert!(error.contains(part), "{error}");
    };
    check(None, "syncline.toml, key 'listen': 'from the file'");
    check(Some("from the environment"), "SYNCLINE_LISTEN: 'from the environment'");
}

#[test]
fn a_variable_that_looks_like_a_setting_is_told_and_stops_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = |arguments: &[&str]| {
        let mut command = syncline(directory.path(), arguments);
        let output = command.env("SYNCLINE_AUTH_TOKEN", "canary").output().expect("it runs");
        let error = text(&output.stderr);
        assert!(
            error.contains("SYNCLINE_AUTH_TOKEN sets nothing; was it to be "),
            "{error}"
        );
        assert!(!error.contains("canary"), "{error}");
        (output.status.code(), error)
    };
    let (code, error) = run(&["serve"]);
    assert_eq!(code, Some(2), "it goes on to what is wrong");
    assert!(error.contains("no key is configured"), "{error}");
    let secret = "auth.secret = '0123456789abcdef0123456789abcdef'";
    fs::write(directory.path().join("syncline.toml"), secret).expect("written");
    assert_eq!(run(&["token", "--sub", "ann", "--doc", "**=read"]).0, Some(0));
}

#[test]
fn a_made_key_signs_tokens_that_the_server_takes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("syncline.toml");
    fs::write(&path, run(&directory, &["key", "--alg", "HS256"]).stdout).expect("written");
    let arguments = [
        "token",
        "--sub",
        "ann",
        "--name",
        "Ann",
        "--doc",
        "notes/*=write",
        "--doc",
        "**=read",
        "--ttl",
        "2h",
    ];
    let output = run(&directory, &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let config = Config::load(Some(&path), &BTreeMap::new(), &[]).expect("a configuration");
    let grant = Verifier::new(&config)
        .expect("keys")
        .admit(Some(text(&output.stdout).trim()), now_ms())
        .expect("a grant");
    assert_eq!((&*grant.subject.0, grant.name.as_deref()), ("ann", Some("Ann")));
    let remaining_ms = grant.expires_at_ms.expect("an end") - now_ms();
    assert!((7_100_000..=7_200_000).contains(&remaining_ms), "{remaining_ms}");
}

#[test]
fn made_key_pairs_are_two_halves() {
    for (name, algorithm) in [("EdDSA", Algorithm::EdDSA), ("ES256", Algorithm::ES256)] {
        let directory = tempfile::tempdir().expect("a directory");
        let output = text(&run(&directory, &["key", "--alg", name]).stdout);
        let (private, entry) = output.split_once("\n# The entry").expect("two parts");
        let config = Config::from_text(&format!("# {entry}"), &BTreeMap::new(), &[]).expect("a configuration");
        let signing = match algorithm {
            Algorithm::EdDSA => EncodingKey::from_ed_pem(private.as_bytes()),
            _ => EncodingKey::from_ec_pem(private.as_bytes()),
        };
        let claims = serde_json::json!({ "sub": "ann", "exp": now_ms() / 1_000 + 60 });
        let token = jsonwebtoken::encode(&Header::new(algorithm), &claims, &signing.expect("a key")).expect("a token");
        let grant = Verifier::new(&config).expect("keys").admit(Some(&token), now_ms());
        assert_eq!(&*grant.expect("a grant").subject.0, "ann", "{name}");
    }
}

#[test]
fn tokens_and_queries_never_reach_the_log() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(&directory, &["--dev", "--log-filter", "trace", "--log-format", "json"]);
    let request =
        "GET /sync?token=canary HTTP/1.1\r\nHost: test\r\nAuthorization: Bearer canary\r\nConnection: close\r\n\r\n";
    for request in [
        request.to_owned(),
        request.replace("close", "close, Upgrade\r\nUpgrade: websocket"),
    ] {
        let stream = std::net::TcpStream::connect(&process.address).expect("a connection");
        exchange(stream, &request);
    }
    let (code, log) = process.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.lines().any(|line| line.starts_with('{')), "the log is on: {log}");
    assert!(!log.contains("canary"), "{log}");
}

fn now_ms() -> u64 {
    Clock::start().unix_ms()
}
