//! Row 36: all that clients can do to a server, in random order and for as long as there is time; what it holds afterwards. Only
//! a long run says something, so an ordinary one leaves it out.

use crate::{
    checks::Witnesses,
    client::Client,
    clock,
    hostile::crafted::op_bombs,
    load::Author,
    process::Process,
    rng::Rng,
    trial::{Bite, Figure, Outcome, Row, Trial, Trouble, ensure, pause},
};
use bytes::Bytes;
use std::{io::Write, net::TcpStream, time::Duration};
use syncline_protocol::native::ClientMessage;

pub(crate) const ROW: Row = Row {
    number: "36",
    name: "mixed faults for a long time",
    target: "two hours: memory slope at most 1 MiB/h; no descriptor leak",
    ci: 0,
    soak: u64::MAX,
    run,
    bites: &[Bite {
        name: "connections that are silent are kept",
        environment: &[
            ("SYNCLINE_LIMITS_HANDSHAKE_TIMEOUT_MS", "3600000"),
            ("SYNCLINE_LIMITS_IDLE_TIMEOUT_MS", "3600000"),
        ],
        count: 40,
    }],
};

/// Between two faults: what is tried is no overload.
const PAUSE_MS_MAX: usize = 400;
const SLOPE_MAX_MIB: f64 = 1.0;
/// A server that really leaks grows by more within minutes.
const GROWTH_MAX_MIB: f64 = 64.0;
/// For files that the store opens when it likes.
const SPARE_DESCRIPTORS: usize = 4;
/// Times of the server, short, so that what is left of one fault is gone before many more come. The witnesses say nothing during a
/// fault, which on a busy machine may last some seconds.
const TIMES: [(&str, u64); 4] = [
    ("SYNCLINE_ROOMS_IDLE_TIMEOUT_MS", 2_000),
    ("SYNCLINE_LIMITS_HANDSHAKE_TIMEOUT_MS", 2_000),
    ("SYNCLINE_LIMITS_IDLE_TIMEOUT_MS", 30_000),
    ("SYNCLINE_LIMITS_PING_INTERVAL_MS", 10_000),
];
/// Until connections that are not closed have been given up, and rooms without members are.
const REST: Duration = Duration::from_secs(120);

fn run(trial: &Trial) -> Outcome {
    if trial.count == 0 {
        return Err(Trouble::Skipped("takes hours: `make soak ROW=36`".into()));
    }
    let times = TIMES
        .iter()
        .fold(trial.setup(&trial.directory("store")), |setup, (name, ms)| {
            setup.variable(name, ms)
        });
    let process = times.start()?;
    let mut witnesses = Witnesses::join(process.address, None, "witnesses")?;
    let (begun, mut memory) = (clock::now(), Vec::new());
    let before = descriptors(&process);
    let mut silent = Vec::new();
    let count = trial.rounds(|round, rng| {
        let fault = rng.below(FAULTS.len());
        FAULTS[fault](&process, &format!("soak-{round}"), rng, &mut silent)?;
        witnesses.are_unhurt("a fault")?;
        pause(rng, PAUSE_MS_MAX);
        memory.push((
            begun.elapsed().as_secs_f64() / 3_600.0,
            process.rss_kib() as f64 / 1_024.0,
        ));
        Ok(())
    })?;
    let left = || descriptors(&process).saturating_sub(before + SPARE_DESCRIPTORS);
    let are_gone = clock::wait_until(REST, || {
        // The witnesses are not silent.
        witnesses.are_unhurt("all faults").is_ok() && left() == 0
    });
    ensure!(
        are_gone,
        "{} descriptors are left over, which the server keeps open",
        left()
    );
    let (grown, slope) = slope(&memory);
    let text = format!(
        "{count} faults in {:.1} min: {grown:.1} MiB more in the last third than in the one before, {slope:.1} MiB/h; no descriptor left over",
        begun.elapsed().as_secs_f64() / 60.0
    );
    ensure!(grown <= GROWTH_MAX_MIB, "{text}");
    if slope > SLOPE_MAX_MIB {
        let reason = "what was written grows, and in a short time so do the allocator's steps; two hours say more";
        return Err(Trouble::Missed { figure: text, reason });
    }
    Ok(Figure { count, text })
}

fn descriptors(process: &Process) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.pid()));
    files.map_or(0, Iterator::count)
}

/// By how many MiB the last third is above the one before on average, and what that is in an hour.
fn slope(memory: &[(f64, f64)]) -> (f64, f64) {
    let third = memory.len() / 3;
    if third == 0 {
        return (0.0, 0.0);
    }
    let mean = |part: &[(f64, f64)]| {
        let (hours, mib) = part.iter().fold((0.0, 0.0), |(h, m), (hour, mib)| (h + hour, m + mib));
        (hours / part.len() as f64, mib / part.len() as f64)
    };
    let (earlier, later) = (mean(&memory[third..2 * third]), mean(&memory[2 * third..]));
    let grown = later.1 - earlier.1;
    (grown, grown / (later.0 - earlier.0).max(f64::EPSILON))
}

/// What a client does, in a document of its own. Connections that it leaves open and silent go into the list.
type Fault = fn(&Process, &str, &mut Rng, &mut Vec<TcpStream>) -> Result<(), String>;

const FAULTS: [Fault; 7] = [crowd, deaf, half_way, broken, bombs, gone, flood];

/// Many come, one writes, all leave.
fn crowd(process: &Process, document: &str, _: &mut Rng, _: &mut Vec<TcpStream>) -> Result<(), String> {
    let mut members = Vec::new();
    for _ in 0..30 {
        let mut member = Client::connect(process.address)?;
        let room = member.open(document)?.opened.room;
        members.push((member, room));
    }
    let (writer, room) = members.first_mut().ok_or("nobody came")?;
    let mut author = Author::new(document.as_bytes());
    for id in 1..=20 {
        writer.edit(*room, id, vec![author.next().1])?;
        ensure!(writer.answer(id) == "ack", "an edit of the crowd is not taken");
    }
    Ok(())
}

/// Members that do not read while much is sent to them.
fn deaf(process: &Process, document: &str, _: &mut Rng, _: &mut Vec<TcpStream>) -> Result<(), String> {
    let mut members = Vec::new();
    for _ in 0..5 {
        let mut member = Client::connect(process.address)?;
        member.open(document)?;
        members.push(member);
    }
    let mut writer = Client::connect(process.address)?;
    let room = writer.open(document)?.opened.room;
    let mut author = Author::new(document.as_bytes());
    for id in 1..=20 {
        writer.edit(room, id, vec![author.large(40 << 10)])?;
        ensure!(writer.answer(id) == "ack", "an edit beside the deaf is not taken");
    }
    Ok(())
}

/// Half of a request, or a WebSocket without a first message, and then nothing; nor an end.
fn half_way(process: &Process, _: &str, rng: &mut Rng, silent: &mut Vec<TcpStream>) -> Result<(), String> {
    let request = b"GET /sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n";
    for _ in 0..10 {
        let client = Client::silent(process.address)?;
        silent.push(client.socket.get_ref().try_clone().map_err(|error| error.to_string())?);
        let mut stream = TcpStream::connect(process.address).map_err(|error| error.to_string())?;
        stream
            .write_all(&request[..rng.below(request.len())])
            .map_err(|error| error.to_string())?;
        silent.push(stream);
    }
    // Those of long ago were given up by the server, whatever the client still holds.
    silent.drain(..silent.len().saturating_sub(400));
    Ok(())
}

fn broken(process: &Process, document: &str, rng: &mut Rng, _: &mut Vec<TcpStream>) -> Result<(), String> {
    for _ in 0..10 {
        let mut client = Client::connect(process.address)?;
        client.open(document)?;
        let noise: Vec<u8> = (0..rng.below(200)).map(|_| rng.next() as u8).collect();
        // It may be hung up on amid it.
        let _ = client.say_bytes(noise.into());
        client.hear_within(Duration::from_millis(100));
    }
    Ok(())
}

fn bombs(process: &Process, document: &str, _: &mut Rng, _: &mut Vec<TcpStream>) -> Result<(), String> {
    for (_, bomb) in op_bombs(b"a bomber") {
        let mut client = Client::connect(process.address)?;
        let room = client.open(document)?.opened.room;
        client.edit(room, 1, vec![bomb.into()])?;
        let answer = client.answer(1);
        ensure!(answer != "ack", "a bomb is taken");
    }
    Ok(())
}

/// Gone amid what they asked for.
fn gone(process: &Process, document: &str, _: &mut Rng, _: &mut Vec<TcpStream>) -> Result<(), String> {
    for _ in 0..30 {
        Client::connect(process.address)?.ask(document, None)?;
    }
    Ok(())
}

fn flood(process: &Process, document: &str, _: &mut Rng, _: &mut Vec<TcpStream>) -> Result<(), String> {
    let mut client = Client::connect(process.address)?;
    let room = client.open(document)?.opened.room;
    let payload = Bytes::from_static(&[b'!'; 100]);
    for _ in 0..500 {
        client.say(&ClientMessage::Signal {
            room,
            payload: payload.clone(),
        })?;
    }
    Ok(())
}
