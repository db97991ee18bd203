//! The log file under the store, as the salvage reads it: segments, and the nodes and links of the tree in their messages.

#[path = "../../../src/server/store/logfile/node.rs"]
mod node;
#[path = "../../../src/server/store/logfile/segment.rs"]
mod segment;

use node::{leaf, link};
use segment::{HEAD_BYTES, Piece, SEGMENT_BYTES, mended_number, number, number_within, pieces};

/// Reads a segment whose number is the first byte.
pub(super) fn read(data: &[u8]) {
    let Some((&of, rest)) = data.split_first() else { return };
    let segment = [&[0; HEAD_BYTES], &rest[..rest.len().min(SEGMENT_BYTES - HEAD_BYTES)]].concat();
    let mut before = 0;
    pieces(&segment, u64::from(of), &mut |at, piece| {
        assert!(at >= before, "it goes on");
        before = at;
        let (Piece::Sound(message) | Piece::Mended(message, _) | Piece::Damaged(message)) = piece else {
            return;
        };
        assert!(at + message.end <= segment.len(), "it ends within the segment");
        before = at + message.end;
        leaf(&message.body);
        link(&message.body);
    });
    number_within(&segment);
    if let Some(head) = rest.first_chunk() {
        number(head);
        mended_number(head);
    }
    leaf(rest);
    link(rest);
}

/// A segment of two links, without its head.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let message = |body: &[u8]| {
        let head = [10, body.len() as u8, 5, 7];
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(body);
        hasher.update(&head);
        let crc = !hasher.finalize();
        [&crc.to_le_bytes(), &head[..], body].concat()
    };
    let set = [&[0, 3], &b"key"[..], &[5], b"value"].concat();
    let delete = [&[1, 3], &b"key"[..]].concat();
    let node = [&[0, 0, 0, 1, 1, b'k', 0, 0, 1, 2], &b"ey"[..], &[5], b"value"].concat();
    vec![[&[5], message(&set).as_slice(), &message(&delete), &message(&node)].concat()]
}
