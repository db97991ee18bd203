//! Rows 11, 12 and 13: members that do not read, a client that is frozen, handshakes that never end.

use crate::{
    checks::Witnesses,
    client::{Client, Heard},
    clock,
    load::Author,
    process::{PATIENCE, Process},
    trial::{Bite, Figure, Outcome, Row, Trial, Trouble, ensure},
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};
use syncline_protocol::native::ServerMessage;

pub(crate) const DEAF: Row = Row {
    number: "11",
    name: "100 members that do not read",
    target: "at most 256 KiB each",
    ci: 1,
    soak: 20,
    run: deaf,
    bites: &[],
};

pub(crate) const FROZEN: Row = Row {
    number: "12",
    name: "a frozen client (times at a tenth)",
    target: "cut within 45 s; resyncs when thawed",
    ci: 1,
    soak: 20,
    run: frozen,
    bites: &[Bite {
        name: "no limit of silence",
        environment: &[("SYNCLINE_LIMITS_IDLE_TIMEOUT_MS", "600000")],
        count: 1,
    }],
};

pub(crate) const HANDSHAKES: Row = Row {
    number: "13",
    name: "slow handshakes, half requests",
    target: "closed within 10 s; honest connects unhurt",
    ci: 200,
    soak: 2_000,
    run: handshakes,
    bites: &[Bite {
        name: "no limit of the handshake",
        environment: &[("SYNCLINE_LIMITS_HANDSHAKE_TIMEOUT_MS", "600000")],
        count: 20,
    }],
};

const DEAF_MEMBERS: u64 = 100;
const EACH_KIB: u64 = 256;
/// Above it memory is not bounded at all: parts of 256 KiB in the queue, in the socket's buffer and on their way from the disk
/// are far less.
const BOUND_KIB: u64 = 4 << 10;
/// So much is sent to everybody: many times what a queue and the kernel's buffers hold.
const SENT_BYTES: u64 = 12 << 20;
const EDIT_BYTES: u64 = 64 << 10;
/// After each edit, so that the document is merged as often with these members as without.
const EDIT_PAUSE: Duration = Duration::from_millis(10);

fn deaf(trial: &Trial) -> Outcome {
    let (mut each, mut grown) = (0, String::new());
    let count = trial.rounds(|round, _| {
        // What the same edits need without these members is the document's and not theirs.
        let without = growth(trial, &format!("without-{round}"), 0)?;
        let with = growth(trial, &format!("with-{round}"), DEAF_MEMBERS)?;
        each = each.max(with.saturating_sub(without) / DEAF_MEMBERS);
        grown = format!("{} MiB with them, {} without", with >> 10, without >> 10);
        Ok(())
    })?;
    let text = format!("{each} KiB for each of {DEAF_MEMBERS} (at last {grown})");
    ensure!(each <= BOUND_KIB, "{text}");
    if each > EACH_KIB {
        let reason = "parts that wait for it, and the socket's buffer";
        return Err(Trouble::Missed { figure: text, reason });
    }
    Ok(Figure { count, text })
}

/// How much the server grows, in KiB, while much is sent to so many members that do not read.
fn growth(trial: &Trial, name: &str, deaf: u64) -> Result<u64, String> {
    let setup = trial.setup(&trial.directory(name));
    // What glibc keeps of freed memory, in as many arenas as happened to be used, is 100 MB more or less from run to run.
    let process = setup.variable("MALLOC_ARENA_MAX", 1).start()?;
    let mut anna = Client::connect(process.address)?;
    let room = anna.open("notes")?.opened.room;
    let mut members = Vec::new();
    for _ in 0..deaf {
        let mut member = Client::connect(process.address)?;
        member.open("notes")?;
        members.push(member);
    }
    process.reset_peak();
    let before = process.rss_kib();
    send_much(&mut anna, room)?;
    Ok(process.peak_kib().saturating_sub(before))
}

/// Edits that everybody in the room is sent, one after another.
fn send_much(anna: &mut Client, room: syncline_protocol::RoomNumber) -> Result<(), String> {
    let mut author = Author::new(b"much");
    for id in 1..=SENT_BYTES / EDIT_BYTES {
        anna.edit(room, id, vec![author.large(EDIT_BYTES as usize)])?;
        let answer = anna.answer(id);
        ensure!(
            answer == "ack",
            "an edit of {EDIT_BYTES} bytes is answered with {answer}"
        );
        std::thread::sleep(EDIT_PAUSE);
    }
    Ok(())
}

/// The defaults, 20 s and 45 s, at a tenth; ten times that is asserted.
const PING_MS: u64 = 2_000;
const IDLE_MS: u64 = 4_500;

fn frozen(trial: &Trial) -> Outcome {
    let mut cut_ms = 0_f64;
    let count = trial.rounds(|round, _| {
        let setup = trial.setup(&trial.directory(&format!("store-{round}")));
        let setup = setup
            .variable("SYNCLINE_LIMITS_PING_INTERVAL_MS", PING_MS)
            .variable("SYNCLINE_LIMITS_IDLE_TIMEOUT_MS", IDLE_MS);
        let process = setup.start()?;
        cut_ms = cut_ms.max(freeze_and_thaw(trial, &process)?);
        Ok(())
    })?;
    let text = format!(
        "cut after {:.1} s of {:.1} s; its document is whole when thawed",
        cut_ms / 1e3,
        IDLE_MS as f64 / 1e3
    );
    Ok(Figure { count, text })
}

fn freeze_and_thaw(trial: &Trial, process: &Process) -> Result<f64, String> {
    let url = format!("ws://{}", process.address);
    let mut watcher = Command::new(&trial.program.path)
        .args(["watch", &url, "notes"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let lines = BufReader::new(watcher.stdout.take().expect("it is piped"));
    let result = (|| {
        let mut lines = lines.lines();
        // The document as it is at first.
        lines.next();
        let mut anna = Client::connect(process.address)?;
        let room = anna.open("notes")?.opened.room;
        let open = process.metric("syncline_websockets_open");
        signal("-STOP", watcher.id());
        let begun = clock::now();
        let limit = Duration::from_millis(IDLE_MS * 10);
        let cut = clock::wait_until(limit, || {
            // Anna is alive.
            anna.hear_all(room).is_ok() && process.metric("syncline_websockets_open") < open
        });
        let ms = begun.ms();
        ensure!(cut, "still connected after {ms:.0} ms");
        let mut author = Author::new(b"meanwhile");
        for id in 1..=5 {
            anna.edit(room, id, vec![author.next().1])?;
            ensure!(anna.answer(id) == "ack", "an edit meanwhile is not taken");
        }
        signal("-CONT", watcher.id());
        // Every edit but one goes into the text, which then has three letters.
        let whole = lines.map_while(Result::ok).any(|line| line.contains("\"xxx\""));
        ensure!(whole, "the thawed client does not come back");
        Ok(ms)
    })();
    // It is no child of the server and does not end by itself.
    let _ = watcher.kill();
    let _ = watcher.wait();
    result
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill {name} runs");
}

const CLOSED_MAX: Duration = Duration::from_secs(10);

fn handshakes(trial: &Trial) -> Outcome {
    let process = trial.setup(&trial.directory("store")).start()?;
    let mut witnesses = Witnesses::join(process.address, None, "notes")?;
    let begun = clock::now();
    let mut streams = Vec::new();
    for number in 0..trial.count {
        streams.push((kind(number), slow(&process, number)?));
    }
    let mut connects: Vec<f64> = Vec::new();
    for _ in 0..20 {
        let begun = clock::now();
        Client::connect(process.address)?.open("notes")?;
        connects.push(begun.ms());
        witnesses.are_unhurt("slow handshakes")?;
    }
    let mut slowest = 0_f64;
    for (name, mut stream) in streams {
        let left = (CLOSED_MAX * 5)
            .saturating_sub(begun.elapsed())
            .max(Duration::from_millis(100));
        stream.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        ensure!(
            ended.as_ref().is_ok() || ended.as_ref().is_err_and(reset),
            "{name}: not closed after {:.0} ms",
            begun.ms()
        );
        slowest = slowest.max(begun.ms());
    }
    let honest = clock::percentile(&mut connects, 0.99);
    ensure!(
        slowest <= 5.0 * CLOSED_MAX.as_secs_f64() * 1e3,
        "closed after {slowest:.0} ms"
    );
    ensure!(honest <= 30_000.0, "an honest connect took {honest:.0} ms");
    let text = format!(
        "all closed within {:.1} s; honest connects p99 {honest:.1} ms",
        slowest / 1e3
    );
    Ok(Figure {
        count: trial.count,
        text,
    })
}

fn kind(number: u64) -> &'static str {
    [
        "nothing",
        "half a request line",
        "half the headers",
        "no hello",
        "half a frame",
    ][number as usize % 5]
}

/// A connection that stops amid its handshake.
fn slow(process: &Process, number: u64) -> Result<TcpStream, String> {
    let mut stream = TcpStream::connect(process.address).map_err(|error| error.to_string())?;
    let said: &[u8] = match kind(number) {
        "nothing" => b"",
        "half a request line" => b"GET /sy",
        "half the headers" => b"GET /sync HTTP/1.1\r\nHost: x\r\nUpgrade: webso",
        other => {
            let mut client = Client::upgrade(stream, process.address, None)?;
            if other == "half a frame" {
                let half: &[u8] = &[0x82, 0xfe, 0x01];
                client
                    .socket
                    .get_mut()
                    .write_all(half)
                    .map_err(|error| error.to_string())?;
            }
            return client
                .socket
                .get_ref()
                .try_clone()
                .map_err(|error| error.to_string())
                .inspect(|_| {
                    // The clone keeps the connection open; the client would only drop its own handle.
                    std::mem::forget(client);
                });
        }
    };
    stream.write_all(said).map_err(|error| error.to_string())?;
    Ok(stream)
}

pub(crate) const FLOOD: Row = Row {
    number: "26",
    name: "presence and signal flood",
    target: "10,000/s limited; edits go on",
    ci: 1,
    soak: 10,
    run: flood,
    bites: &[Bite {
        name: "no limit of presence and signals",
        environment: &[("SYNCLINE_LIMITS_PRESENCE_PER_SECOND", "1000000")],
        count: 1,
    }],
};

const FLOOD_S: u64 = 3;
/// The default.
const PRESENCE_PER_SECOND: u64 = 30;

fn flood(trial: &Trial) -> Outcome {
    let process = trial.setup(&trial.directory("store")).start()?;
    let mut witnesses = Witnesses::join(process.address, None, "notes")?;
    let mut before: Vec<f64> = Vec::new();
    for _ in 0..100 {
        before.push(witnesses.are_unhurt("nothing")?);
    }
    let mut victim = Client::connect(process.address)?;
    victim.open("lobby")?;
    let (mut during, mut came, mut allowed, mut sent) = (Vec::new(), 0, 0, 0);
    std::thread::scope(|scope| -> Result<(), String> {
        let attacker = crate::load::spawn(scope, "flood", || shout(&process));
        let begun = clock::now();
        while !attacker.is_finished() {
            during.push(witnesses.are_unhurt("a flood")?);
        }
        sent = attacker.join().map_err(|_| "the flood panicked")??;
        while let Heard::Message(message) = victim.hear_within(Duration::from_millis(1_000)) {
            if begun.elapsed() >= Duration::from_secs(3 * FLOOD_S) {
                break;
            }
            came += u64::from(matches!(message, ServerMessage::Signal { .. }));
        }
        allowed = 2 * PRESENCE_PER_SECOND * (begun.elapsed().as_secs() + 2);
        Ok(())
    })?;
    ensure!(came <= allowed, "{came} signals reached another member, {allowed} may");
    ensure!(came > 0, "no signal came at all");
    let (before, during) = (
        clock::percentile(&mut before, 0.99),
        clock::percentile(&mut during, 0.99),
    );
    let text = format!("{came} of {sent} signals passed; edits p99 {before:.1} ms before, {during:.1} ms during");
    Ok(Figure { count: sent, text })
}

/// Sends as much as the server takes; how many frames that were.
fn shout(process: &Process) -> Result<u64, String> {
    use bytes::Bytes;
    use syncline_protocol::native::ClientMessage;
    let mut attacker = Client::connect(process.address)?;
    let room = attacker.open("lobby")?.opened.room;
    let stream = attacker.socket.get_ref();
    stream
        .set_write_timeout(Some(Duration::from_millis(200)))
        .map_err(|error| error.to_string())?;
    let payload = Bytes::from_static(&[b'!'; 100]);
    let signal = ClientMessage::Signal {
        room,
        payload: payload.clone(),
    };
    let presence = ClientMessage::Presence {
        room,
        state: Some(payload),
    };
    let (begun, mut sent) = (clock::now(), 0);
    while begun.elapsed() < Duration::from_secs(FLOOD_S) {
        let message = if sent % 2 == 0 { &signal } else { &presence };
        match attacker.say(message) {
            Ok(()) => sent += 1,
            // The server reads slowly, and the buffers between are full.
            Err(_) => break,
        }
    }
    let left = Duration::from_secs(FLOOD_S).saturating_sub(begun.elapsed());
    std::thread::sleep(left.min(PATIENCE));
    Ok(sent)
}
