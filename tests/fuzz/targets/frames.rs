//! The native codec, in both directions: what it reads it can write, and reads again as the same.

use super::{tagged, vectors};
use bytes::Bytes;
use syncline_protocol::native::{decode_client, decode_server};

const FROM_CLIENT: u8 = 0;
const FROM_SERVER: u8 = 1;

pub(super) fn run(data: &[u8]) {
    let Some((&from, rest)) = data.split_first() else {
        return;
    };
    let frame = Bytes::copy_from_slice(rest);
    if from % 2 == FROM_CLIENT {
        if let Ok(message) = decode_client(&frame) {
            assert_eq!(decode_client(&message.encode()).as_ref(), Ok(&message));
        }
    } else if let Ok(message) = decode_server(&frame) {
        assert_eq!(decode_server(&message.encode()).as_ref(), Ok(&message));
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let files = [
        (FROM_CLIENT, include_str!("../../../protocol/vectors/client.json")),
        (FROM_SERVER, include_str!("../../../protocol/vectors/server.json")),
        (FROM_CLIENT, include_str!("../../../protocol/vectors/malformed.json")),
        (FROM_SERVER, include_str!("../../../protocol/vectors/malformed.json")),
        (FROM_CLIENT, include_str!("../../../protocol/vectors/lenient.json")),
        (FROM_SERVER, include_str!("../../../protocol/vectors/lenient.json")),
    ];
    let frames = files
        .into_iter()
        .flat_map(|(from, text)| vectors(text).into_iter().map(move |frame| (from, frame)));
    frames.map(|(from, frame)| tagged(from, &frame)).collect()
}
