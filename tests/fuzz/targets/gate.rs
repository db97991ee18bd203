//! The gate: what it vouches for is harmless. Two bytes say which of a few rooms a change comes to, and how it is wrapped; the
//! rest is a change without its frame, so that no checksum stands in the way.

use crate::{
    crafted::{chunk, op_bombs},
    history::{Style, document, history},
    oracle::try_merge,
    rng::Rng,
};
use automerge::Automerge;
use flate2::{Compression, write::DeflateEncoder};
use std::{io::Write, sync::OnceLock};
use syncline::engine::{
    gate::{self, Subject, Verdict},
    index::Index,
};
use syncline_protocol::Limits;

/// How a change is wrapped.
const FRAMED: u8 = 0;
const DEFLATED: u8 = 1;
const AS_IT_IS: u8 = 2;
const FORMS: u8 = 3;

/// A room, and an honest change that comes to it.
struct Room {
    index: Index,
    document: Automerge,
    honest: Vec<u8>,
}

pub(super) fn run(data: &[u8]) {
    let [room, form, rest @ ..] = data else { return };
    let room = &rooms()[usize::from(*room) % rooms().len()];
    let bytes = match form % FORMS {
        FRAMED => chunk(1, rest),
        DEFLATED => chunk(2, &deflated(rest)),
        _ => rest.to_vec(),
    };
    let limits = Limits::default();
    let Ok(change) = gate::read(bytes.into(), &limits).and_then(gate::decode) else {
        return;
    };
    if gate::check(&room.index, None, &somebody(), &change, &limits) == Verdict::Vouched
        && let Err(harm) = try_merge(&room.document, change.bytes())
    {
        panic!("the gate vouches for it, and it does harm: {harm}");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let honest = (0..).zip(rooms()).flat_map(|(number, room)| {
        let body = body(&room.honest);
        [FRAMED, DEFLATED].map(|form| [&[number, form], body].concat())
    });
    let bombs = op_bombs(b"a bomber").into_iter();
    let bombs = bombs.map(|(_, bomb)| [&[0, AS_IT_IS], &bomb[..]].concat());
    honest.chain(bombs).collect()
}

/// Rooms at all points of two honest histories.
fn rooms() -> &'static [Room] {
    static ROOMS: OnceLock<Vec<Room>> = OnceLock::new();
    ROOMS.get_or_init(|| {
        let mut rooms = Vec::new();
        for (seed, marks) in [(1, false), (2, true)] {
            let style = Style {
                writers: 3,
                steps: 60,
                marks,
            };
            let log = history(&mut Rng::new(seed), style);
            let mut index = Index::default();
            for (at, change) in log.iter().enumerate() {
                let bytes = change.raw_bytes().to_vec();
                let read = gate::read(bytes.clone().into(), &Limits::default()).and_then(gate::decode);
                let read = read.expect("an honest change is read");
                if at % 3 == 0 {
                    rooms.push(Room {
                        index: index.clone(),
                        document: document(&log[..at]),
                        honest: bytes,
                    });
                }
                index.admit(&read, &somebody());
            }
        }
        rooms
    })
}

fn somebody() -> Subject {
    Subject("somebody".into())
}

/// What stands behind the length of a chunk.
fn body(chunk: &[u8]) -> &[u8] {
    let length_bytes = chunk[9..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    &chunk[9 + length_bytes..]
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut deflater = DeflateEncoder::new(Vec::new(), Compression::fast());
    deflater.write_all(bytes).expect("into memory");
    deflater.finish().expect("into memory")
}
