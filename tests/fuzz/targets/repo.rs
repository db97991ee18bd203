//! automerge-repo's dialect: CBOR frames, the sync messages and presence within them, and values on their way between the
//! dialects.

use super::{tagged, vectors};
use bytes::Bytes;
use syncline::engine::gate;
use syncline_protocol::{
    Limits,
    repo::{
        PresenceMessage, RepoMessage, SyncMessage, channels_of, encode_channels, split_chunks, to_natives, to_peers,
    },
};

const FRAME: u8 = 0;
const SYNC: u8 = 1;
const PRESENCE: u8 = 2;
const VALUES: u8 = 3;
const CHUNKS: u8 = 4;
const PARTS: u8 = 5;

pub(super) fn run(data: &[u8]) {
    let Some((&part, rest)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(rest);
    match part % PARTS {
        FRAME => frame(&bytes),
        SYNC => sync(&bytes),
        PRESENCE => {
            if let Some(message) = PresenceMessage::decode(&bytes) {
                assert_eq!(PresenceMessage::decode(&message.encode()), Some(message));
            }
        }
        VALUES => {
            to_natives(&to_peers(&bytes));
            to_peers(&to_natives(&bytes));
            encode_channels(&channels_of(&bytes));
        }
        CHUNKS => {
            let held: usize = split_chunks(&bytes).iter().map(|chunk| chunk.len()).sum();
            assert!(held <= bytes.len());
        }
        _ => unreachable!("a rest is smaller than what it was divided by"),
    }
}

/// What lies in a frame is read, too, as a session does.
fn frame(bytes: &Bytes) {
    let Ok(message) = RepoMessage::decode(bytes) else {
        return;
    };
    let encoded = message.encode();
    assert_eq!(RepoMessage::decode(&encoded).as_ref(), Ok(&message));
    match message {
        RepoMessage::Sync(of) | RepoMessage::Request(of) => sync(&of.data),
        _ => {}
    }
}

fn sync(bytes: &Bytes) {
    let Ok(message) = SyncMessage::decode(bytes) else {
        return;
    };
    message.is_reset();
    for change in message.changes {
        // Refused or not, it must come to an end.
        let _ = gate::read(change, &Limits::default()).and_then(gate::decode);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let frames = vectors(include_str!("../../../protocol/vectors/repo.json"));
    let mut seeds: Vec<Vec<u8>> = frames.iter().map(|frame| tagged(FRAME, frame)).collect();
    for frame in &frames {
        match RepoMessage::decode(&Bytes::copy_from_slice(frame)) {
            Ok(RepoMessage::Sync(of) | RepoMessage::Request(of)) => seeds.push(tagged(SYNC, &of.data)),
            Ok(RepoMessage::Ephemeral(of)) => seeds.extend([PRESENCE, VALUES].map(|part| tagged(part, &of.data))),
            _ => {}
        }
    }
    seeds
}
