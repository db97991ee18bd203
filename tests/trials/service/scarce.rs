//! Row 35: a machine with 256 MB, and twice the load that the server can hold there.

use crate::{
    client::{Client, Heard},
    clock,
    load::Author,
    process::Process,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};
use bytes::Bytes;
use std::{net::SocketAddr, time::Duration};
use syncline_protocol::{RoomNumber, native::ServerMessage};

pub(crate) const ROW: Row = Row {
    number: "35",
    name: "256 MB, and twice the load that fits",
    target: "sheds with 1013; never over 256 MB; who is in goes on",
    ci: 1,
    soak: 1,
    run,
    bites: &[Bite {
        name: "no budget",
        environment: &[("SYNCLINE_ROOMS_MEMORY_BYTES_MAX", "17179869184")],
        count: 1,
    }],
};

/// What is told to the server: the rest is for connections, the store's cache and the allocator.
pub(super) const BUDGET_BYTES: u64 = 48 << 20;
/// What the machine has.
pub(super) const MACHINE_KIB: u64 = 256_000;
/// Operations of each document: most of what it takes is its index, which cannot be let go while somebody is in.
const OPS: usize = 9_000;
/// At so many documents nothing is refused any more.
const DOCUMENTS_MAX: usize = 600;
/// How long an edit of who is in may be put off.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the rooms may take to close when all have left.
const SPACE_WAIT: Duration = Duration::from_secs(60);

fn run(trial: &Trial) -> Outcome {
    let process = trial
        .setup(&trial.directory("store"))
        .variable("SYNCLINE_ROOMS_MEMORY_BYTES_MAX", BUDGET_BYTES)
        .variable("SYNCLINE_ROOMS_IDLE_TIMEOUT_MS", 1_000)
        .start()?;
    let mut calm = Calm::join(process.address)?;
    let change = wide();
    let (mut members, mut refused, mut polite) = (Vec::new(), 0, 0);
    let mut fitted = DOCUMENTS_MAX;
    while members.len() + refused < 2 * fitted {
        ensure!(
            members.len() < DOCUMENTS_MAX,
            "{DOCUMENTS_MAX} documents, and nobody is refused"
        );
        match come(process.address, members.len() + refused, &change)? {
            Came::In(client) => members.push(client),
            Came::Refused { told_when } => {
                (fitted, refused) = (fitted.min(members.len()), refused + 1);
                polite += usize::from(told_when);
            }
        }
        calm.edit()?;
    }
    ensure!(
        polite > 0,
        "of {refused} refusals none was a 1013 with a time to come back"
    );
    let peak_kib = process.peak_kib();
    ensure!(peak_kib <= MACHINE_KIB, "{peak_kib} KiB at its peak");
    let held = members.len();
    drop(members);
    is_there_space(&process, &change)?;
    let slowest = calm.slowest_ms;
    let text = format!(
        "{held} documents of {OPS} operations in, {refused} refused ({polite} by 1013 with a time to come back), {} MiB at its peak; \
         a member's slowest edit meanwhile {slowest:.0} ms",
        peak_kib >> 10
    );
    Ok(Figure { count: 1, text })
}

/// Somebody who is in before the others come.
struct Calm {
    client: Client,
    room: RoomNumber,
    author: Author,
    edits: u64,
    slowest_ms: f64,
}

impl Calm {
    fn join(address: SocketAddr) -> Result<Self, String> {
        let mut client = Client::connect(address)?;
        let room = client.open("calm")?.opened.room;
        Ok(Self {
            client,
            room,
            author: Author::new(b"calm"),
            edits: 0,
            slowest_ms: 0.0,
        })
    }

    fn edit(&mut self) -> Result<(), String> {
        let (begun, change) = (clock::now(), self.author.next().1);
        loop {
            self.edits += 1;
            self.client.edit(self.room, self.edits, vec![change.clone()])?;
            match self.client.answer(self.edits).as_str() {
                "ack" => break,
                // While what the last one brought is merged, even the part kept for members may be used up.
                "unavailable" if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
                other => return Err(format!("who is in is refused: {other}")),
            }
        }
        self.slowest_ms = self.slowest_ms.max(begun.ms());
        Ok(())
    }
}

/// How it went for somebody who came.
enum Came {
    In(Box<Client>),
    Refused { told_when: bool },
}

/// Comes with a document that is new, and stays with it.
fn come(address: SocketAddr, number: usize, change: &Bytes) -> Result<Came, String> {
    let mut client = Client::silent(address)?;
    client.hello(None)?;
    match client.hear() {
        Heard::Message(ServerMessage::Welcome(_)) => {}
        Heard::Message(ServerMessage::Retry { after_ms }) => {
            let end = client.hear_end();
            ensure!(
                end == Some(Some(1013)) && after_ms > 0,
                "turned away with {end:?} after {after_ms} ms"
            );
            return Ok(Came::Refused { told_when: true });
        }
        other => return Err(format!("no welcome: {other:?}")),
    }
    let refused = Ok(Came::Refused { told_when: false });
    let room = match client.open(&format!("load/{number}")) {
        Ok(joined) => joined.opened.room,
        Err(text) if text.contains("unavailable") => return refused,
        Err(text) => return Err(text),
    };
    client.edit(room, 1, vec![change.clone()])?;
    match client.answer(1).as_str() {
        "ack" => Ok(Came::In(Box::new(client))),
        "unavailable" => refused,
        other => Err(format!("an edit of who has come is answered with {other}")),
    }
}

fn is_there_space(process: &Process, change: &Bytes) -> Result<(), String> {
    let mut number = DOCUMENTS_MAX;
    let is_in = clock::wait_until(SPACE_WAIT, || {
        number += 1;
        matches!(come(process.address, number, change), Ok(Came::In(_)))
    });
    ensure!(is_in, "nobody comes in when all have left");
    Ok(())
}

/// A change of many operations, each on a key of its own.
pub(super) fn wide() -> Bytes {
    let mut document = Automerge::new().with_actor(ActorId::from([1]));
    let mut transaction = document.transaction();
    for key in 0..OPS {
        let key = format!("a key with a name of some length, {key}");
        transaction.put(ROOT, key, 1).expect("the edit can be made");
    }
    transaction.commit();
    let change = document.get_last_local_change().expect("a change was made");
    Bytes::copy_from_slice(change.raw_bytes())
}
