//! Row 20 in the repo dialect: what a peer may send, with a few bytes changed at each layer (the CBOR, the sync message, changes
//! and documents under right checksums), and documents that claim or inflate to more than there is.

use crate::{
    checks::Witnesses,
    client::Client,
    forge::{mutant, rewired, scratch},
    history::Style,
    hostile::crafted::{deflate_bomb, document_bombs, op_bombs},
    peer::{Pair, Peer, offering},
    process::Process,
    rng::Rng,
    scene::{Scene, scenes},
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use bytes::Bytes;
use syncline_protocol::{
    ChangeHash,
    repo::{Channels, Ephemeral, PresenceMessage, RepoMessage, encode_whole},
};

pub(crate) const ROW: Row = Row {
    number: "20",
    name: "mutated messages, changes and documents (repo dialect)",
    target: "0 exits, 0 hangs; memory grows at most 50 MiB; others unhurt",
    ci: 3_000,
    soak: 1_000_000,
    run,
    bites: &[Bite {
        name: "no limit of operations and of inflated bytes",
        environment: &[
            ("SYNCLINE_LIMITS_OPS_PER_CHANGE_MAX", "1000000000"),
            ("SYNCLINE_LIMITS_INFLATED_BYTES_MAX", "1000000000"),
        ],
        count: 300,
    }],
};

const STYLE: Style = Style {
    writers: 4,
    steps: 60,
    marks: true,
};
const SCENES: usize = 20;
const DOCUMENT: &str = "attacked";
/// After so many attacks the honest ones are looked at.
const LOOK_EVERY: u64 = 50;
const GROWTH_MAX_KIB: u64 = 50 << 10;

fn run(trial: &Trial) -> Outcome {
    let setup = trial.setup(&trial.directory("store"));
    // What is tried is no flood; and what is measured is neither what the allocator keeps in arenas for each thread, nor what
    // the first panic of Automerge that is caught reads of the binary to print where it was.
    let process = setup
        .variable("SYNCLINE_LIMITS_PRESENCE_PER_SECOND", 1_000_000)
        .variable("MALLOC_ARENA_MAX", 1)
        .variable("RUST_BACKTRACE", 0)
        .start()?;
    let mut rng = Rng::new(trial.seed);
    let scenes = scenes(&mut rng, STYLE, SCENES);
    let (mut natives, mut peers) = (
        Witnesses::join(process.address, None, "natives")?,
        Pair::join(process.address, "peers")?,
    );
    write_history(&process, &scenes)?;
    let arms = Arms::of(&scenes);
    process.reset_peak();
    let before = process.rss_kib();
    let (mut attacker, mut ended, mut sent) = (None, 0, 0);
    while sent < trial.count && !(sent > 0 && trial.until.is_some_and(crate::clock::Moment::is_past)) {
        let mut peer = match attacker.take() {
            Some(peer) => peer,
            None => Peer::join(process.address, "attacker", None)?,
        };
        let frame = attack(&mut rng, &peer, &arms, sent)?;
        // It may be hung up on at once.
        let _ = peer.say_bytes(frame);
        let lives = peer.hear_all().map_err(|error| format!("attack {sent}: {error}"))?;
        ended += u64::from(lives.is_none());
        attacker = lives.map(|_| peer);
        sent += 1;
        if sent % LOOK_EVERY == 0 {
            natives.are_unhurt("mutants")?;
            peers.are_unhurt("mutants")?;
        }
    }
    natives.are_unhurt("mutants")?;
    peers.are_unhurt("mutants")?;
    let grown = process.peak_kib().saturating_sub(before);
    let by_peer = Peer::join(process.address, "late", None)?.read(DOCUMENT)?;
    let by_native = Client::connect(process.address)?.open(DOCUMENT)?.document()?;
    let same = by_peer.is_some_and(|replica| replica.get_heads() == by_native.get_heads());
    ensure!(same, "two late replicas of what was attacked differ");
    ensure!(grown <= GROWTH_MAX_KIB, "the memory grew by {grown} KiB");
    let text = format!("{ended} connections ended; the server lives, {grown} KiB");
    Ok(Figure { count: sent, text })
}

/// The longest of the histories, so that some of what is forged has something to stand on.
fn write_history(process: &Process, scenes: &[Scene]) -> Result<(), String> {
    let longest = scenes.iter().max_by_key(|scene| scene.log.len());
    let log = &longest.ok_or("the history is empty")?.log;
    let mut owner = Client::connect(process.address)?;
    let room = owner.open(DOCUMENT)?.opened.room;
    for (id, change) in (1..).zip(log) {
        owner.edit(room, id, vec![Bytes::copy_from_slice(change.raw_bytes())])?;
        let answer = owner.answer(id);
        ensure!(answer == "ack", "the history is answered with {answer}");
    }
    Ok(())
}

/// What attacks are made of.
struct Arms<'a> {
    scenes: &'a [Scene],
    documents: Vec<Vec<u8>>,
    bombs: Vec<Bytes>,
}

impl<'a> Arms<'a> {
    fn of(scenes: &'a [Scene]) -> Self {
        let changes = op_bombs(b"bomber").into_iter().map(|(_, bomb)| bomb);
        let deflated = [deflate_bomb(100 << 10).0];
        let changes = changes.chain(deflated).map(|bomb| offering(NO_HEAD, &[bomb.into()]));
        let documents = document_bombs().into_iter().map(|bomb| whole(&bomb));
        Self {
            scenes,
            documents: scenes.iter().map(|scene| scene.document.save()).collect(),
            bombs: changes.chain(documents).map(Bytes::from).collect(),
        }
    }
}

const NO_HEAD: automerge::ChangeHash = automerge::ChangeHash([7; 32]);

fn whole(document: &[u8]) -> Vec<u8> {
    encode_whole(&[ChangeHash(NO_HEAD.0)], document)
}

/// The next frame to send.
fn attack(rng: &mut Rng, peer: &Peer, arms: &Arms<'_>, number: u64) -> Result<Bytes, String> {
    let scene = rng.pick(arms.scenes).ok_or("the history is empty")?;
    let document = rng.pick(&arms.documents).ok_or("the history is empty")?;
    let honest = Bytes::copy_from_slice(scene.honest.raw_bytes());
    let data: Bytes = match number % 6 {
        0 => {
            let mut frame = any_message(rng, peer, offering(scene.honest.hash(), &[honest]))
                .encode()
                .to_vec();
            scratch(rng, &mut frame);
            return Ok(frame.into());
        }
        1 => {
            let mut data = if rng.one_in(2) {
                offering(scene.honest.hash(), &[honest])
            } else {
                whole(document)
            };
            scratch(rng, &mut data);
            data.into()
        }
        2 => offering(NO_HEAD, &[mutant(rng, &honest).into()]).into(),
        3 => offering(NO_HEAD, &[rewired(rng, scene).into()]).into(),
        4 => whole(&mutant(rng, document)).into(),
        _ => rng.pick(&arms.bombs).ok_or("there are no bombs")?.clone(),
    };
    Ok(RepoMessage::Sync(peer.envelope(DOCUMENT, data)).encode())
}

/// An honest message of any kind.
fn any_message(rng: &mut Rng, peer: &Peer, data: Vec<u8>) -> RepoMessage {
    let (sender, sync) = (peer.id.clone(), peer.envelope(DOCUMENT, data));
    match rng.below(6) {
        0 => RepoMessage::Sync(sync),
        1 => RepoMessage::Request(sync),
        2 => RepoMessage::Leave { sender },
        3 => RepoMessage::RemoteSubscriptionChange {
            sender,
            target: None,
            add: vec!["a storage".into(), "another".into()],
            remove: vec!["a third".into()],
        },
        _ => {
            let shown = Channels::from([("cursor".to_owned(), Bytes::from_static(b"\x07"))]);
            RepoMessage::Ephemeral(Ephemeral {
                sender,
                target: None,
                document: DOCUMENT.into(),
                session: "a run".into(),
                count: rng.next() >> 12,
                data: PresenceMessage::Snapshot(shown).encode(),
            })
        }
    }
}
