//! Changes that no library makes: columns written by hand, under a right checksum.

use sha2::{Digest, Sha256};

const KEY_STRING: u8 = 0x15;
const INSERT: u8 = 0x34;
const ACTION: u8 = 0x42;
const VALUE_LENGTH: u8 = 0x56;
const PRED_COUNT: u8 = 0x70;
const PRED_ACTOR: u8 = 0x71;
const PRED_COUNTER: u8 = 0x73;

/// A column: what it is, and its bytes.
pub(crate) type Column = (u8, Vec<u8>);

pub(crate) fn leb128(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// A chunk with a right checksum.
pub(crate) fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let framed = [&[kind], leb128(body.len() as u64).as_slice(), body].concat();
    let hash = Sha256::digest(&framed);
    [&[0x85, 0x6f, 0x4a, 0x83], &hash[..4], &framed].concat()
}

/// A run of `length` equal values; its length is a signed number.
fn run(length: u64, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = length;
    while rest >= 0x40 {
        out.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend(value);
    out
}

/// A change of `actor` with these columns.
pub(crate) fn change(actor: &[u8], seq: u64, start_op: u64, columns: &[Column]) -> Vec<u8> {
    let mut body = vec![0];
    body.extend(leb128(actor.len() as u64));
    body.extend(actor);
    body.extend(leb128(seq));
    body.extend(leb128(start_op));
    body.extend([0, 0, 0, columns.len() as u8]);
    for (spec, bytes) in columns {
        body.extend(leb128(u64::from(*spec)));
        body.extend(leb128(bytes.len() as u64));
    }
    columns.iter().for_each(|(_, bytes)| body.extend(bytes));
    chunk(1, &body)
}

/// `ops` times `root.a = null`.
pub(crate) fn puts(ops: u64) -> Vec<Column> {
    vec![
        (KEY_STRING, run(ops, b"\x01a")),
        (INSERT, leb128(ops)),
        (ACTION, run(ops, &[1])),
        (VALUE_LENGTH, run(ops, &[0])),
        (PRED_COUNT, run(ops, &[0])),
    ]
}

/// Two puts that claim so many predecessors each.
pub(crate) fn predecessors(each: u64, held: u64) -> Vec<Column> {
    let mut columns = puts(2);
    columns.pop();
    columns.extend([
        (PRED_COUNT, run(2, &leb128(each))),
        (PRED_ACTOR, run(held, &[0])),
        (PRED_COUNTER, run(held, &[0])),
    ]);
    columns
}

/// The columns with one of them replaced.
pub(crate) fn with(mut columns: Vec<Column>, spec: u8, bytes: Vec<u8>) -> Vec<Column> {
    columns.retain(|column| column.0 != spec);
    columns.push((spec, bytes));
    columns.sort();
    columns
}

/// Run lengths that claim millions of operations, or values without end.
pub(crate) fn op_bombs(actor: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut bombs: Vec<(String, Vec<Column>)> = [200_001, 1_000_000, 5_000_000, 130_000_000, i64::MAX as u64]
        .map(|ops| (format!("{ops} operations"), puts(ops)))
        .into();
    bombs.extend([
        ("a million predecessors each".into(), predecessors(1_000_000, 2_000_000)),
        ("predecessors without end".into(), predecessors(u64::MAX, 2)),
        ("booleans without end".into(), with(puts(2), INSERT, leb128(u64::MAX))),
        (
            "nulls without end".into(),
            with(puts(2), KEY_STRING, [vec![0], leb128(u64::MAX)].concat()),
        ),
        (
            "a key of 900 MB".into(),
            with(puts(2), KEY_STRING, run(2, &leb128(900_000_000))),
        ),
    ]);
    bombs
        .into_iter()
        .map(|(name, columns)| (name, change(actor, 1, 1, &columns)))
        .collect()
}

/// A deflated change of about so many bytes, and how many it becomes.
pub(crate) fn deflate_bomb(bytes: usize) -> (Vec<u8>, usize) {
    let (body, inflated) = deflated_zeros(bytes);
    let head = [0x85, 0x6f, 0x4a, 0x83, 0, 0, 0, 0, 2];
    let bomb = [&head, leb128(body.len() as u64).as_slice(), &body].concat();
    (bomb, inflated)
}

/// About so many bytes of deflated zeros, and how many these are.
fn deflated_zeros(bytes: usize) -> (Vec<u8>, usize) {
    use std::io::Write;
    let zeros = vec![0; 1 << 19];
    let mut deflater = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    deflater
        .write_all(&zeros)
        .and_then(|()| deflater.flush())
        .expect("into memory");
    // Flushed, a block ends with a whole byte, so that it can be repeated.
    let block = deflater.get_ref().clone();
    let times = (bytes / block.len()).max(1);
    ([block.repeat(times).as_slice(), &[3, 0]].concat(), times * zeros.len())
}

/// Documents that inflate to a hundred megabytes, or claim changes and dependencies without end.
pub(crate) fn document_bombs() -> Vec<Vec<u8>> {
    const ACTOR: u8 = 0x01;
    const DEPENDENCIES: u8 = 0x40;
    const DEFLATED: u8 = 0x08;
    // One actor, no heads, one column of the changes and none of the operations.
    let document = |spec: u8, column: &[u8]| {
        let table = [&[1, 1, 0xaa, 0, 1, spec], leb128(column.len() as u64).as_slice(), &[0]].concat();
        chunk(0, &[table.as_slice(), column].concat())
    };
    vec![
        document(ACTOR | DEFLATED, &deflated_zeros(100 << 10).0),
        document(ACTOR, &run(1 << 40, &[0])),
        document(DEPENDENCIES, &run(2, &leb128(1 << 31))),
    ]
}
