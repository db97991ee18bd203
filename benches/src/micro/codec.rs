//! Messages to frames and back.

use crate::{
    edits::{Base, Edits, Sight},
    report::Sample,
};
use bytes::Bytes;
use criterion::Criterion;
use std::hint::black_box;
use syncline_protocol::{
    Cursor, EditId, RoomNumber, SessionId,
    native::{ClientMessage, Edit, decode_client, decode_server, encode_diff},
};

pub(super) fn run(criterion: &mut Criterion) -> anyhow::Result<Sample> {
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
    let mut group = criterion.benchmark_group("codec");
    group.bench_function("edit encode", |bencher| bencher.iter(|| black_box(&edit).encode()));
    group.bench_function("edit decode", |bencher| {
        bencher.iter(|| decode_client(black_box(&frame)))
    });
    group.bench_function("diff of 1 encode", |bencher| bencher.iter(|| diff(black_box(1))));
    group.bench_function("diff of 1 decode", |bencher| {
        bencher.iter(|| decode_server(black_box(&diff_1)));
    });
    group.bench_function("diff of 50 encode", |bencher| bencher.iter(|| diff(black_box(50))));
    group.bench_function("diff of 50 decode", |bencher| {
        bencher.iter(|| decode_server(black_box(&diff_50)));
    });
    group.finish();
    Ok(vec![
        ("edit_bytes", frame.len() as f64),
        ("diff_of_1_bytes", diff_1.len() as f64),
        ("diff_of_50_bytes", diff_50.len() as f64),
    ])
}
