//! Row 20: mutated frames and changes with right checksums, and changes rewired to other parts of the history. In bulk against
//! the gate, with an oracle for what passes; fewer over sockets, where the server must live on.

use crate::{
    checks::Witnesses,
    client::Client,
    forge::{mutant, rewired},
    history::Style,
    oracle::try_merge,
    process::Process,
    rng::Rng,
    scene::{Scene, scenes},
    somebody,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use bytes::Bytes;
use syncline::engine::gate::{self, Verdict};
use syncline_protocol::{
    EditId, Limits,
    native::{ClientMessage, Edit},
};

pub(crate) const ROW: Row = Row {
    number: "20",
    name: "mutated frames and changes",
    target: "nothing passes the gate and fails the oracle; 0 exits, 0 hangs; memory grows at most 50 MiB; others unhurt",
    ci: 30_000,
    soak: 10_000_000,
    run,
    bites: &[Bite {
        name: "the gate's last step left out",
        environment: &[(UNCHECKED, "1")],
        count: BATCH,
    }],
};

/// The bulk is tried here and not in a server, so what breaks it is said to the row.
const UNCHECKED: &str = "TRIAL_UNCHECKED";
const STYLE: Style = Style {
    writers: 4,
    steps: 120,
    marks: false,
};
const SCENES: usize = 20;
/// Mutants of one history.
const BATCH: u64 = 10_000;
/// One of so many goes over a socket, too.
const SOCKET_SHARE: u64 = 200;
const GROWTH_MAX_KIB: u64 = 50 << 10;

fn run(trial: &Trial) -> Outcome {
    let (mut tried, mut passed) = (0, 0);
    while tried < trial.count && !(tried > 0 && trial.until.is_some_and(crate::clock::Moment::is_past)) {
        let seed = trial.seed + tried;
        passed += quiet(|| in_bulk(&mut Rng::new(seed), trial.is_told(UNCHECKED)))
            .map_err(|text| format!("seed {seed}: {text}"))?;
        tried += BATCH;
    }
    let process = trial.setup(&trial.directory("store")).start()?;
    let sent = over_sockets(&process, trial, tried / SOCKET_SHARE)?;
    let grown = sent.1;
    ensure!(grown <= GROWTH_MAX_KIB, "the memory grew by {grown} KiB");
    let text = format!(
        "{passed} passed the gate, all of them harmless; {} over sockets: the server lives, {grown} KiB",
        sent.0
    );
    Ok(Figure { count: tried, text })
}

/// Panics of the library, which the oracle looks for, are not printed.
fn quiet<T>(run: impl FnOnce() -> T) -> T {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let result = run();
    std::panic::set_hook(hook);
    result
}

/// How many of a batch passed; an error when one of these does harm.
fn in_bulk(rng: &mut Rng, unchecked: bool) -> Result<u64, String> {
    let scenes = scenes(rng, STYLE, SCENES);
    let (limits, mut passed) = (Limits::default(), 0);
    for number in 0..BATCH {
        let scene = rng.pick(&scenes).ok_or("the history is empty")?;
        let bytes = forged(rng, scene, number);
        let header = gate::read(Bytes::from(bytes.clone()), &limits);
        let Ok(change) = header.and_then(gate::decode) else {
            continue;
        };
        if unchecked || gate::check(&scene.index, None, &somebody(), &change, &limits) == Verdict::Vouched {
            try_merge(&scene.document, &bytes).map_err(|error| format!("mutant {number}: {error}"))?;
            passed += 1;
        }
    }
    Ok(passed)
}

fn forged(rng: &mut Rng, scene: &Scene, number: u64) -> Vec<u8> {
    if number.is_multiple_of(2) {
        mutant(rng, scene.honest.raw_bytes())
    } else {
        rewired(rng, scene)
    }
}

/// How many were sent, and how much the memory grew, in KiB.
fn over_sockets(process: &Process, trial: &Trial, count: u64) -> Result<(u64, u64), String> {
    let mut rng = Rng::new(trial.seed);
    let scenes = scenes(&mut rng, STYLE, SCENES);
    let mut witnesses = Witnesses::join(process.address, None, "witnesses")?;
    // One room with the whole history, as far as it goes.
    let mut owner = Client::connect(process.address)?;
    let room = owner.open("attacked")?.opened.room;
    let longest = scenes
        .iter()
        .max_by_key(|scene| scene.log.len())
        .ok_or("the history is empty")?;
    for (id, change) in (1..).zip(&longest.log) {
        owner.edit(room, id, vec![Bytes::copy_from_slice(change.raw_bytes())])?;
        let answer = owner.answer(id);
        ensure!(answer == "ack", "the history is answered with {answer}");
    }
    process.reset_peak();
    let before = process.rss_kib();
    let mut attacker = None;
    for number in 0..count {
        let scene = rng.pick(&scenes).ok_or("the history is empty")?;
        let change = Bytes::from(forged(&mut rng, scene, number));
        let client = match attacker.take() {
            Some(client) => client,
            None => joined(process)?,
        };
        attacker = attack(client, change, number, &mut rng)?;
        if number.is_multiple_of(100) {
            witnesses.are_unhurt("mutants")?;
        }
    }
    witnesses.are_unhurt("mutants")?;
    Client::connect(process.address)?.open("attacked")?.document()?;
    Ok((count, process.peak_kib().saturating_sub(before)))
}

fn joined(process: &Process) -> Result<(Client, syncline_protocol::RoomNumber), String> {
    let mut client = Client::connect(process.address)?;
    let room = client.open("attacked")?.opened.room;
    Ok((client, room))
}

/// Sends a forged change, or a frame with a few bytes changed. What is left of the connection.
fn attack(
    (mut client, room): (Client, syncline_protocol::RoomNumber),
    change: Bytes,
    number: u64,
    rng: &mut Rng,
) -> Result<Option<(Client, syncline_protocol::RoomNumber)>, String> {
    let id = number + 1;
    if number % 4 == 3 {
        let edit = Edit {
            room,
            id: EditId::new(id),
            changes: vec![change],
        };
        let mut frame = ClientMessage::Edit(edit).encode().to_vec();
        for _ in 0..=rng.below(3) {
            let at = rng.below(frame.len());
            frame[at] = rng.next() as u8;
        }
        // It may hang up at once.
        let _ = client.say_bytes(frame.into());
        return Ok(client.hear_all(room).is_ok().then_some((client, room)));
    }
    client.edit(room, id, vec![change])?;
    // What waits for others has no answer; a sign of life comes all the same.
    Ok(client.hear_all(room).is_ok().then_some((client, room)))
}
