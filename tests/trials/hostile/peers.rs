//! Rows 27, 28 and 29 in the repo dialect: who may do what, by each way in which a token comes, and for how long.

use super::access::{DOCUMENTS, EXPIRY_BITES, GRANT_BITES, GRANTS, RIGHT};
use crate::{
    checks::{Witnesses, written_by},
    client::{Client, Heard},
    clock,
    load::Author,
    peer::{COOKIE, Peer, Road, chunks, offering},
    process::{Process, Setup},
    token::{claims, guarded, lasting, signed, writer},
    trial::{Figure, Outcome, Row, Trial, ensure, on_time},
};
use automerge::Change;
use bytes::Bytes;
use std::{collections::BTreeMap, net::SocketAddr};
use syncline_protocol::{
    RoomNumber,
    native::{Diff, ServerMessage},
    repo::{Ephemeral, PeerId, RepoMessage, Sync, encode_again, encode_whole},
};

pub(crate) const READER: Row = Row {
    number: "27",
    name: "a reader tries to write (repo dialect)",
    target: "0 bytes reach others or the disk",
    ci: 1,
    soak: 20,
    run: reader,
    bites: GRANT_BITES,
};

pub(crate) const MATRIX: Row = Row {
    number: "28",
    name: "every access, document and way of a token (repo dialect)",
    target: "all cells right; deny by default; absent and forbidden look the same",
    ci: 1,
    soak: 20,
    run: matrix,
    bites: GRANT_BITES,
};

pub(crate) const EXPIRY: Row = Row {
    number: "29",
    name: "a token expires while connected (repo dialect)",
    target: "closed within 1 s with 4401",
    ci: 1,
    soak: 50,
    run: expiry,
    bites: EXPIRY_BITES,
};

const READERS_ACTOR: &[u8] = b"a reader";
/// Whoever it is, so that what is said to them can be compared.
const PEER: &str = "somebody";

/// Asks everybody for a token, which may also come in a cookie.
fn guarded_with_cookie(trial: &Trial) -> Setup {
    guarded(trial.setup(&trial.directory("store"))).variable("SYNCLINE_AUTH_COOKIE", COOKIE)
}

fn reader(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let process = guarded_with_cookie(trial).start()?;
    let mut witnesses = Witnesses::join(process.address, Some(&writer("anna")), "notes")?;
    witnesses.are_unhurt("nothing")?;
    let mut anna = Peer::join(process.address, "anna's", Some((Road::Query, &writer("anna"))))?;
    ensure!(anna.read("notes")?.is_some(), "a writer cannot read");
    let token = signed(&claims("ben", &[("notes", "read")]));
    let mut tried = 0;
    for road in Road::ALL {
        let mut ben = Peer::join(process.address, "ben's", Some((road, &token)))?;
        ensure!(ben.read("notes")?.is_some(), "a reader cannot read");
        for attempt in attempts(&ben, &anna.id) {
            ben.say(&attempt)?;
            tried += 1;
        }
        ensure!(ben.hear_all()?.is_some(), "a reader that writes is cut off");
        witnesses.are_unhurt("a reader that writes")?;
        // The name of one who may, taken over.
        let mut thief = Peer::silent(process.address, "anna's", Some((road, &token)))?;
        thief.say_join()?;
        let (_, code) = thief.hear_end()?;
        ensure!(code == Some(4403), "another's name is answered with {code:?}");
    }
    let Some(heard) = anna.hear_all()? else {
        return Err("a writer's connection ended".to_owned().into());
    };
    let was_sent = heard.iter().any(is_the_readers);
    ensure!(!was_sent, "a writer was sent what a reader wrote");
    process.kill();
    let process = trial.setup(&data).start()?;
    for document in ["notes", "other"] {
        let replica = Client::connect(process.address)?.open(document)?.document()?;
        let own = written_by(&replica, READERS_ACTOR);
        ensure!(own == 0, "{own} changes of the reader are on disk");
    }
    Ok(Figure {
        count: tried + 3,
        text: "nothing reached the others or the disk".into(),
    })
}

/// All that a reader may send to get its changes in: `another` may write.
fn attempts(ben: &Peer, another: &PeerId) -> Vec<RepoMessage> {
    let mut author = Author::new(READERS_ACTOR);
    let (first, change) = author.next();
    let mut offline = vec![change.clone()];
    let mut head = first;
    for _ in 0..20 {
        let (hash, change) = author.next();
        head = hash;
        offline.push(change);
    }
    let one = ben.envelope("notes", offering(first, &[change]));
    // What was made offline comes at once after coming back.
    let all = ben.envelope("notes", offering(head, &offline));
    let heads = [syncline_protocol::ChangeHash(head.0)];
    let whole = ben.envelope("notes", encode_whole(&heads, &author.saved()));
    let both = [author.saved(), offline.concat().into()].concat();
    let whole_and_more = ben.envelope("notes", encode_whole(&heads, &both));
    let elsewhere = Sync {
        document: "other".into(),
        ..all.clone()
    };
    let in_anothers_name = |sync: &Sync| Sync {
        sender: another.clone(),
        ..sync.clone()
    };
    let beside = Ephemeral {
        sender: ben.id.clone(),
        target: None,
        document: "notes".into(),
        session: "a run".into(),
        count: 1,
        data: all.data.clone(),
    };
    let roads = [one, all, whole, whole_and_more, elsewhere];
    let forged: Vec<Sync> = roads.iter().map(in_anothers_name).collect();
    let syncs = roads.into_iter().chain(forged);
    let both_ways = syncs.flat_map(|sync| [RepoMessage::Sync(sync.clone()), RepoMessage::Request(sync)]);
    both_ways.chain([RepoMessage::Ephemeral(beside)]).collect()
}

fn is_the_readers(message: &RepoMessage) -> bool {
    let RepoMessage::Sync(sync) = message else { return false };
    let came = chunks(&sync.data).unwrap_or_default();
    came.iter()
        .filter_map(|chunk| Change::try_from(&chunk[..]).ok())
        .any(|change| change.actor_id().to_bytes() == READERS_ACTOR)
}

/// Somebody who may write all documents, and sees what comes into each.
struct Keeper {
    anna: Client,
    rooms: BTreeMap<&'static str, (RoomNumber, Author)>,
    edits: u64,
}

impl Keeper {
    fn join(address: SocketAddr) -> Result<Self, String> {
        let mut anna = Client::connect_as(address, Some(&writer("anna")))?;
        let mut rooms = BTreeMap::new();
        for document in DOCUMENTS {
            let room = anna.open(document)?.opened.room;
            rooms.insert(document, (room, Author::new(b"the keeper")));
        }
        let mut keeper = Self { anna, rooms, edits: 0 };
        for document in DOCUMENTS {
            keeper.came(document)?;
        }
        Ok(keeper)
    }

    /// The changes that came into a document: once an edit that was sent after them is on disk, all that entered are there.
    fn came(&mut self, document: &str) -> Result<Vec<Bytes>, String> {
        let (room, author) = self.rooms.get_mut(document).ok_or("no such document")?;
        let room = *room;
        self.edits += 1;
        self.anna.edit(room, self.edits, vec![author.next().1])?;
        let mut heard = Vec::new();
        loop {
            match self.anna.hear() {
                Heard::Message(ServerMessage::Ack { id, .. }) if id.number() == self.edits => break,
                Heard::Message(message) => heard.push(message),
                other => return Err(format!("{document}: the keeper heard {other:?}")),
            }
        }
        heard.extend(self.anna.hear_all(room)?);
        let diffs = heard.into_iter().filter_map(|message| match message {
            ServerMessage::Diff(diff) => Some(diff),
            _ => None,
        });
        Ok(diffs.flat_map(changes).collect())
    }
}

fn changes(diff: Diff) -> impl Iterator<Item = Bytes> {
    diff.runs.into_iter().flat_map(|run| run.changes)
}

/// What a token of each pattern may do with each document, by each way in which it comes.
fn matrix(trial: &Trial) -> Outcome {
    let process = guarded_with_cookie(trial).start()?;
    let mut keeper = Keeper::join(process.address)?;
    let (mut cells, mut forbidden) = (0, Vec::new());
    for road in Road::ALL {
        for (grants, right) in GRANTS.iter().zip(RIGHT) {
            for (document, right) in DOCUMENTS.iter().zip(right.chars()) {
                let found = cell(&process, &mut keeper, road, grants, document, &mut forbidden)?;
                ensure!(
                    found == right,
                    "{road:?}, {grants:?} on {document}: {found} for {right}"
                );
                cells += 1;
            }
        }
    }
    // One may write everything, and it is not there.
    let mut anna = Peer::join(process.address, PEER, Some((Road::Query, &writer("anna"))))?;
    ensure!(anna.read("b")?.is_none(), "a document that nobody made is there");
    forbidden.push(unavailable(&mut anna, "b2")?);
    forbidden.sort();
    forbidden.dedup();
    ensure!(forbidden.len() == 1, "forbidden looks different: {forbidden:?}");
    let bad = signed(&lasting("anna", &[("**", "write")], -3_600));
    let ways = Road::ALL.map(|road| Some((road, bad.as_str())));
    for token in ways.into_iter().chain([None]) {
        let (last, code) = Peer::silent(process.address, PEER, token)?.hear_end()?;
        ensure!(code == Some(4401), "{token:?}: answered with {code:?}");
        ensure!(matches!(last, Some(RepoMessage::Error { .. })), "{token:?}: {last:?}");
        cells += 1;
    }
    Ok(Figure {
        count: cells,
        text: "all right; absent and forbidden get one and the same answer".into(),
    })
}

fn cell(
    process: &Process,
    keeper: &mut Keeper,
    road: Road,
    grants: &[(&str, &str)],
    document: &'static str,
    forbidden: &mut Vec<String>,
) -> Result<char, String> {
    let subject = format!("{road:?} {grants:?}");
    let token = signed(&claims(&subject, grants));
    let mut peer = Peer::join(process.address, PEER, Some((road, &token)))?;
    let reads = peer.read(document)?.is_some();
    if !reads {
        forbidden.push(unavailable(&mut peer, document)?);
    }
    let (head, change) = Author::new(format!("{subject}{document}").as_bytes()).next();
    peer.offer(document, head, std::slice::from_ref(&change))?;
    ensure!(peer.hear_all()?.is_some(), "{document}: who may not write is cut off");
    let writes = keeper.came(document)?.contains(&change);
    match (reads, writes) {
        (false, false) => Ok('.'),
        (true, false) => Ok('r'),
        (true, true) => Ok('w'),
        (false, true) => Err(format!("{document}: who may not read writes")),
    }
}

/// What is said when a document is asked for that is not available, without its name.
fn unavailable(peer: &mut Peer, document: &str) -> Result<String, String> {
    let asking = peer.envelope(document, encode_again(&[]));
    peer.say(&RepoMessage::Request(asking))?;
    match peer.hear() {
        Heard::Message(RepoMessage::DocUnavailable {
            sender,
            target,
            document: named,
        }) if named == document => Ok(format!("{sender} to {target:?}")),
        other => Err(format!("{document}: {other:?}")),
    }
}

fn expiry(trial: &Trial) -> Outcome {
    const LIVES_S: i64 = 6;
    let process = guarded_with_cookie(trial).start()?;
    let mut latest = 0_f64;
    let count = trial.rounds(|_, _| {
        let begun = clock::now();
        let token = signed(&lasting("anna", &[("**", "write")], LIVES_S));
        let mut peers = Vec::new();
        for road in Road::ALL {
            let mut peer = Peer::join(process.address, &format!("{road:?}"), Some((road, &token)))?;
            peer.read("notes")?;
            peers.push(peer);
        }
        for mut peer in peers {
            let (last, code) = peer.hear_end()?;
            let late = begun.ms() - LIVES_S as f64 * 1e3;
            ensure!(code == Some(4401), "closed with {code:?}");
            ensure!(
                matches!(last, Some(RepoMessage::Error { .. })),
                "no reason is said: {last:?}"
            );
            ensure!(late >= -1_001.0, "closed {:.0} ms before its end", -late);
            latest = latest.max(late);
        }
        Ok(())
    })?;
    let text = format!("closed with 4401 at most {:.0} ms after its end", latest.max(0.0));
    on_time(latest, 1_000.0, Figure { count, text })
}
