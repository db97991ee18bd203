//! The commands that look at documents from outside: `watch` at a live one, `check` at a store.

use crate::process::Process;
use automerge::{ROOT, transaction::Transactable};
use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use syncline_client::{Client, Options};

fn syncline(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syncline"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn check(data: &Path) -> Output {
    syncline(&["check", "--data", &data.display().to_string()])
        .output()
        .expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Puts keys into `document` and waits until they are on disk.
fn write(address: SocketAddr, document: &str, keys: &[(&str, &str)]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let client = Client::connect(Options::new(format!("ws://{address}"))).expect("a client");
        let handle = client.open(document.parse().expect("an id")).await.expect("it is open");
        handle.when_ready().await.expect("it is ready");
        for (key, value) in keys {
            let (key, value) = ((*key).to_owned(), (*value).to_owned());
            handle
                .change(move |tx| tx.put(ROOT, key, value))
                .await
                .expect("a change");
        }
        handle.when_durable().await.expect("acknowledged");
        client.close().await;
    });
}

#[test]
fn watch_prints_a_document_now_and_at_every_change() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::serve(directory.path());
    write(process.address, "team/notes", &[("title", "Hello")]);
    let url = format!("http://{}", process.address);
    let mut watch = syncline(&["watch", &url, "team/notes"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(watch.stdout.take().expect("a pipe")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    assert_eq!(line(), r#"{"title":"Hello"}"#);
    write(process.address, "team/notes", &[("done", "yes")]);
    assert_eq!(line(), r#"{"done":"yes","title":"Hello"}"#);
    write(process.address, "team/notes", &[("title", "Bye")]);
    assert_eq!(line(), r#"{"done":"yes","title":"Bye"}"#);
    let interrupted = Command::new("kill").args(["-INT", &watch.id().to_string()]).status();
    assert!(interrupted.expect("kill runs").success());
    assert!(watch.wait().expect("it ends").success(), "Ctrl-C is how it ends");
}

#[test]
fn check_passes_a_sound_store_and_finds_flipped_bytes() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::serve(directory.path());
    let value = "something to damage ".repeat(500);
    write(process.address, "sound", &[("key", "value")]);
    write(process.address, "victim", &[("canary", &value)]);
    let in_use = check(directory.path());
    assert_eq!(in_use.status.code(), Some(1), "{}", text(&in_use.stderr));
    assert_eq!(text(&in_use.stderr).lines().count(), 1, "{}", text(&in_use.stderr));
    assert!(process.terminate().success());

    let sound = check(directory.path());
    assert_eq!(
        sound.status.code(),
        Some(0),
        "{}{}",
        text(&sound.stdout),
        text(&sound.stderr)
    );
    assert!(text(&sound.stdout).contains("2 documents"), "{}", text(&sound.stdout));

    let flip = |word: &[u8]| {
        let flipped = files(directory.path()).into_iter().filter(|file| damage(file, word));
        assert!(flipped.count() > 0, "the change lies in a file as it came");
    };
    flip(b"canary");
    let mended = check(directory.path());
    let said = text(&mended.stdout);
    assert!(mended.status.success() && said.contains("put right"), "{said}");

    flip(b"to damage");
    let damaged = check(directory.path());
    let (said, error) = (text(&damaged.stdout), text(&damaged.stderr));
    assert_eq!(damaged.status.code(), Some(1), "{said}{error}");
    assert!(
        said.contains("victim") || said.contains("the store") || error.contains("damaged"),
        "{said}{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_directory_in_use_is_told_in_one_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::serve(directory.path());
    let data = directory.path().display().to_string();
    let second = syncline(&[
        "serve",
        "--dev",
        "--listen",
        "127.0.0.1:0",
        "--log-filter",
        "error",
        "--data",
        &data,
    ])
    .output()
    .expect("it runs");
    let error = text(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{error}");
    assert!(error.contains(&data) && error.contains("another syncline"), "{error}");
    assert_eq!(
        error.lines().filter(|line| line.starts_with("syncline: ")).count(),
        1,
        "{error}"
    );
    write(process.address, "notes", &[("the first", "is unhurt")]);
}

/// All files under `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").path());
    // A socket is neither.
    let entries = entries.filter(|path| path.is_dir() || path.is_file());
    let (directories, mut found): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    found.extend(directories.iter().flat_map(|directory| files(directory)));
    found
}

/// Flips a bit in every place where the file holds `word`. Whether there was one.
fn damage(file: &Path, word: &[u8]) -> bool {
    let mut bytes = fs::read(file).expect("a file");
    let places: Vec<usize> = bytes
        .windows(word.len())
        .enumerate()
        .filter_map(|(place, window)| (window == word).then_some(place))
        .collect();
    for place in &places {
        bytes[*place] ^= 1;
    }
    fs::write(file, bytes).expect("a file");
    !places.is_empty()
}
