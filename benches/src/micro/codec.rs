//! Messages to frames and back.

use super::each_us;
use crate::{
    edits::{Base, Edits, Sight},
    report::Sample,
};
use bytes::Bytes;
use std::hint::black_box;
use syncline_protocol::{
    Cursor, EditId, RoomNumber, SessionId,
    native::{ClientMessage, Edit, decode_client, decode_server, encode_diff},
};

pub(super) fn run() -> anyhow::Result<Sample> {
    let edits = Edits::prepare(&Base::empty_text()?, 1, 50, Sight::Apart);
    let changes: Vec<Bytes> = (0..50).filter_map(|place| edits.edit(0, place).cloned()).collect();
    let (room, cursor, session) = (RoomNumber::new(7), Cursor::default(), SessionId::new(1 << 50));
    let edit = ClientMessage::Edit(Edit {
        room,
        id: EditId::new(9),
        changes: changes[..1].to_vec(),
    });
    let frame = edit.encode();
    let diff = |count: usize| encode_diff(room, cursor, [(session, changes[..count].iter())].into_iter());
    let (diff_1, diff_50) = (diff(1), diff(50));
    Ok(vec![
        ("edit_bytes", frame.len() as f64),
        ("edit_encode_us", each_us(|| drop(black_box(black_box(&edit).encode())))),
        (
            "edit_decode_us",
            each_us(|| drop(black_box(decode_client(black_box(&frame))))),
        ),
        ("diff_of_1_bytes", diff_1.len() as f64),
        ("diff_of_1_encode_us", each_us(|| drop(black_box(diff(1))))),
        (
            "diff_of_1_decode_us",
            each_us(|| drop(black_box(decode_server(black_box(&diff_1))))),
        ),
        ("diff_of_50_encode_us", each_us(|| drop(black_box(diff(50))))),
        (
            "diff_of_50_decode_us",
            each_us(|| drop(black_box(decode_server(black_box(&diff_50))))),
        ),
    ])
}
