//! A member that does not read: it lags, costs a bounded queue, and gets to the present when it reads again.

use crate::{
    peer::{Peer, inflate},
    running::TestServer,
};
use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};
use bytes::Bytes;
use syncline_protocol::native::{ClientMessage, ServerMessage};

/// More than what the sockets between hold, so that the server's queue fills.
const CHANGES: u8 = 14;
const CHANGE_BYTES: usize = 900_000;

/// Changes that no compression makes small.
fn large_changes() -> (Automerge, Vec<Bytes>) {
    let mut document = Automerge::new().with_actor(ActorId::from([3]));
    let mut state = 1_u64;
    for key in 0..CHANGES {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(CHANGE_BYTES)
        .collect();
        let mut transaction = document.transaction();
        transaction.put(ROOT, format!("{key}"), noise).expect("a put");
        transaction.commit();
    }
    let changes = document.get_changes(&[]);
    let changes = changes.iter().map(|change| Bytes::copy_from_slice(change.raw_bytes()));
    let changes = changes.collect();
    (document, changes)
}

#[test]
fn o16_l5_s3_a_member_that_does_not_read_lags_and_is_brought_up_in_parts() {
    lags_and_is_brought_up("[limits]\nsend_queue_bytes_max = 65536\n");
}

#[test]
fn l8_all_queues_of_a_subject_together_are_bounded() {
    lags_and_is_brought_up(
        "[limits]\nsend_queue_bytes_max = 67108864\nsubject_queue_bytes_max = 65536\nframe_bytes_max = 1048576\n",
    );
}

/// A member that does not read is left out of diffs that its queue has no space for, as it is configured.
fn lags_and_is_brought_up(config: &str) {
    let server = TestServer::start(config);
    let mut anna = Peer::connect(server.address, None);
    let mut slow = Peer::connect(server.address, None);
    let room = anna.open("notes", None).opened.room;
    slow.open("notes", None);
    let (document, changes) = large_changes();
    for (edit, change) in changes.iter().enumerate() {
        anna.edit(room, edit as u64, vec![change.clone()]);
        anna.hear_answer(edit as u64).expect("others are not held up");
    }
    anna.say(&ClientMessage::Signal {
        room,
        payload: Bytes::from_static(b"missed"),
    });
    anna.say(&ClientMessage::Presence {
        room,
        state: Some(Bytes::from_static(b"anna")),
    });
    anna.hear_all(room);

    let mut replica = Automerge::new();
    let (mut joined, mut position, mut parts, mut shown) = (Vec::new(), 0, 0, false);
    while position < u64::from(CHANGES) {
        match slow.hear().expect("it is not closed for being slow") {
            ServerMessage::Diff(diff) => {
                assert!(joined.is_empty(), "no diff before the part with the end");
                let found: usize = diff.runs.iter().map(|run| run.changes.len()).sum();
                assert_eq!(diff.cursor.position.number(), position + found as u64, "contiguous");
                position = diff.cursor.position.number();
                for change in diff.runs.iter().flat_map(|run| &run.changes) {
                    replica.load_incremental(change).expect("a change");
                }
            }
            ServerMessage::Part(part) => {
                parts += 1;
                joined.extend(inflate(&part));
                if let Some(end) = part.end {
                    replica
                        .load_incremental(&std::mem::take(&mut joined))
                        .expect("whole chunks");
                    position = end.position.number();
                }
            }
            ServerMessage::Presence { .. } => shown = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(
        parts > 0,
        "it lagged: the queue of 64 KiB did not take {CHANGES} large diffs"
    );
    assert_eq!(replica.get_heads(), document.get_heads());
    let heard = slow.hear_all(room);
    shown |= heard
        .iter()
        .any(|message| matches!(message, ServerMessage::Presence { .. }));
    assert!(shown, "who is here, behind the last part: {heard:?}");

    anna.edit(room, 100, crate::peer::counted(1, 1).1);
    anna.hear_answer(100).expect("acknowledged");
    assert_eq!(
        slow.hear_diff().cursor.position.number(),
        position + 1,
        "diffs go on from there"
    );
}

#[test]
fn who_spoke_while_a_long_queue_was_being_written_is_heard_when_that_is_out() {
    // Nothing else wakes the connection: it is not pinged for minutes. The log is one part, and all of it is queued.
    let server = TestServer::start(
        "[limits]\nsend_queue_bytes_max = 65536\npart_bytes_max = 33554432\nping_interval_ms = 300000\nidle_timeout_ms = 600000\n",
    );
    let mut anna = Peer::connect(server.address, None);
    let mut slow = Peer::connect(server.address, None);
    let empty = anna.open("notes", None);
    let room = empty.opened.room;
    let (document, changes) = large_changes();
    for (edit, change) in changes.iter().enumerate() {
        anna.edit(room, edit as u64, vec![change.clone()]);
        anna.hear_answer(edit as u64).expect("acknowledged");
    }
    // A member who does not lag hears every signal.
    let mut ben = Peer::connect(server.address, None);
    ben.open("notes", None);
    ben.hear_all(room);
    slow.ask("notes", Some(empty.cursor));
    slow.wait_for_bytes();
    slow.say(&ClientMessage::Signal {
        room,
        payload: Bytes::from_static(b"meanwhile"),
    });
    let heard = ben.hear().expect("it was still read from");
    assert!(matches!(heard, ServerMessage::Signal { .. }));
    let joined = slow.hear_joined("notes");
    assert_eq!(joined.document().get_heads(), document.get_heads());
    slow.hear_all(room);
}
