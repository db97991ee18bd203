//! Bytes that cost Automerge gigabytes, seconds or a panic, and broken frames: all refused in microseconds.

use crate::{
    forge::{body, chunk, leb128},
    history::replica,
    stopwatch,
};
use automerge::{ROOT, transaction::Transactable};
use std::io::Write;
use syncline::engine::gate::{self, Refusal};
use syncline_protocol::Limits;

const DISHONEST: &str = "dishonest";
const LIMIT: &str = "limit";
const PASSES: &str = "passes";

fn outcome(bytes: &[u8]) -> (&'static str, String) {
    match gate::read(bytes.to_vec().into(), &Limits::default()) {
        Ok(_) => (PASSES, String::new()),
        Err(Refusal::Limit(text)) => (LIMIT, text.to_owned()),
        Err(refusal @ Refusal::Inflates) => (LIMIT, refusal.to_string()),
        Err(refusal) => (DISHONEST, refusal.to_string()),
    }
}

/// Reads `bytes` many times, and holds the gate to 500 µs for each, which leaves slack for the slowest build. The fastest of some
/// rounds counts: others use the machine, too.
fn check(name: &str, bytes: &[u8], expected: &str) {
    let (rounds, times) = (20, 10);
    let mut fastest = u64::MAX;
    for _ in 0..rounds {
        let (found, micros): ((&str, String), u64) =
            stopwatch(|| (0..times).fold(Default::default(), |_, _| outcome(bytes)));
        assert_eq!(found.0, expected, "{name}: {}", found.1);
        fastest = fastest.min(micros);
    }
    assert!(fastest / times < 500, "{name}: {fastest} µs for {times}");
}

pub(crate) fn unsigned(number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    leb128(&mut out, number);
    out
}

/// A run of `length` equal values; lengths are signed numbers.
pub(crate) fn run(length: u64, value: &[u8]) -> Vec<u8> {
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

/// A change of one actor with these columns.
fn with_columns(columns: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut out = vec![0, 1, 0xaa, 1, 1, 0, 0, 0, columns.len() as u8];
    for (spec, bytes) in columns {
        leb128(&mut out, u64::from(*spec));
        leb128(&mut out, bytes.len() as u64);
    }
    columns.iter().for_each(|(_, bytes)| out.extend(bytes));
    chunk(1, &out)
}

const KEY_COUNTER: u8 = 0x13;
const KEY_STRING: u8 = 0x15;
const INSERT: u8 = 0x34;
const ACTION: u8 = 0x42;
const VALUE_LENGTH: u8 = 0x56;
const VALUE: u8 = 0x57;
const PRED_COUNT: u8 = 0x70;
const PRED_ACTOR: u8 = 0x71;
const PRED_COUNTER: u8 = 0x73;

/// `ops` times `root.a = null`.
fn puts(ops: u64) -> Vec<(u8, Vec<u8>)> {
    vec![
        (KEY_STRING, run(ops, b"\x01a")),
        (INSERT, unsigned(ops)),
        (ACTION, run(ops, &[1])),
        (VALUE_LENGTH, run(ops, &[0])),
        (PRED_COUNT, run(ops, &[0])),
    ]
}

fn with(mut columns: Vec<(u8, Vec<u8>)>, spec: u8, bytes: Vec<u8>) -> Vec<(u8, Vec<u8>)> {
    columns.retain(|column| column.0 != spec);
    columns.push((spec, bytes));
    columns.sort();
    columns
}

#[test]
fn run_length_bombs() {
    check("two operations", &with_columns(&puts(2)), PASSES);
    check("as many operations as allowed", &with_columns(&puts(200_000)), PASSES);
    for ops in [200_001, 1_000_000, 130_000_000, i64::MAX as u64] {
        check("too many operations", &with_columns(&puts(ops)), LIMIT);
    }
    check(
        "another count in one column",
        &with_columns(&with(puts(2), ACTION, run(3, &[1]))),
        DISHONEST,
    );
    check(
        "another count of booleans",
        &with_columns(&with(puts(2), INSERT, unsigned(3))),
        DISHONEST,
    );
    check(
        "boundless booleans",
        &with_columns(&with(puts(2), INSERT, unsigned(u64::MAX))),
        LIMIT,
    );
    check(
        "boundless nulls",
        &with_columns(&with(puts(2), KEY_STRING, [vec![0], unsigned(u64::MAX)].concat())),
        LIMIT,
    );
    check(
        "an empty run of nulls",
        &with_columns(&with(puts(2), KEY_STRING, vec![0, 0])),
        DISHONEST,
    );
    check(
        "a literal run beyond the bytes",
        &with_columns(&with(puts(2), ACTION, vec![0x80, 0x40, 1])),
        DISHONEST,
    );
    let literal_of_2_to_63 = vec![0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f];
    check(
        "the longest literal run",
        &with_columns(&with(puts(2), ACTION, literal_of_2_to_63)),
        LIMIT,
    );
}

#[test]
fn predecessor_bombs() {
    let preds = |count: u64, actors: Vec<u8>, counters: Vec<u8>| {
        let columns = with(puts(2), PRED_COUNT, run(2, &unsigned(count)));
        with_columns(&with(with(columns, PRED_ACTOR, actors), PRED_COUNTER, counters))
    };
    check("one each", &preds(1, run(2, &[0]), run(2, &[0])), PASSES);
    check(
        "a million each",
        &preds(1_000_000, run(2_000_000, &[0]), run(2_000_000, &[0])),
        LIMIT,
    );
    check("boundless", &preds(u64::MAX, run(2, &[0]), run(2, &[0])), LIMIT);
    check("fewer than announced", &preds(2, run(2, &[0]), run(2, &[0])), DISHONEST);
    check("an unknown actor", &preds(1, run(2, &[1]), run(2, &[0])), DISHONEST);
    check(
        "a negative counter",
        &preds(1, run(2, &[0]), run(2, &[0x7f])),
        DISHONEST,
    );
    let large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0];
    check("a large counter", &preds(1, run(2, &[0]), run(2, &large)), DISHONEST);
}

#[test]
fn claims_of_length() {
    let key = |length| {
        with_columns(&with(
            puts(2),
            KEY_STRING,
            run(2, &[unsigned(length), vec![b'a']].concat()),
        ))
    };
    check("a key of 900 MB", &key(900_000_000), DISHONEST);
    check("a key without end", &key(u64::MAX), DISHONEST);
    let value = |length: u64, bytes: usize| {
        let columns = with(puts(1), VALUE_LENGTH, run(1, &unsigned(length << 4 | 7)));
        with_columns(&with(columns, VALUE, vec![0; bytes]))
    };
    check("a value of 8 bytes", &value(8, 8), PASSES);
    check("a value of 1 GB", &value(1 << 30, 8), DISHONEST);
    check("half a value", &value(4, 8), DISHONEST);
    let count = |before: &[u8]| {
        chunk(
            1,
            &[before, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]].concat(),
        )
    };
    check("dependencies without end", &count(&[]), DISHONEST);
    check("an actor without end", &count(&[0]), DISHONEST);
    check("a message without end", &count(&[0, 1, 0xaa, 1, 1, 0]), DISHONEST);
    check("actors without end", &count(&[0, 1, 0xaa, 1, 1, 0, 0]), DISHONEST);
    check("columns without end", &count(&[0, 1, 0xaa, 1, 1, 0, 0, 0]), DISHONEST);
    check(
        "a column without end",
        &count(&[0, 1, 0xaa, 1, 1, 0, 0, 0, 1, ACTION]),
        DISHONEST,
    );
}

#[test]
fn columns_that_automerge_does_not_write() {
    check("unknown", &with_columns(&with(puts(2), 0x62, run(2, &[0]))), DISHONEST);
    check(
        "deflated",
        &with_columns(&with(puts(2), ACTION | 8, run(2, &[0]))),
        DISHONEST,
    );
    check("empty", &with_columns(&with(puts(2), KEY_COUNTER, vec![])), DISHONEST);
    let mut columns = puts(2);
    columns.swap(0, 1);
    check("out of order", &with_columns(&columns), DISHONEST);
    let twice = [puts(2)[0].clone(), puts(2)[0].clone()];
    check("twice", &with_columns(&twice), DISHONEST);
    check(
        "an unknown action",
        &with_columns(&with(puts(2), ACTION, run(2, &[8]))),
        DISHONEST,
    );
    check("no actions", &with_columns(&puts(2)[..2]), DISHONEST);
    check("nothing at all", &with_columns(&[]), PASSES);
}

#[test]
fn headers() {
    let header = |actor: &[u8], seq: u8, start_op: &[u8]| {
        chunk(
            1,
            &[&[0, actor.len() as u8], actor, &[seq], start_op, &[0, 0, 0, 0]].concat(),
        )
    };
    check("sound", &header(&[1], 1, &[1]), PASSES);
    check("an actor of 64 bytes", &header(&[1; 64], 1, &[1]), PASSES);
    check("an actor of 65 bytes", &header(&[1; 65], 1, &[1]), DISHONEST);
    check("no actor", &header(&[], 1, &[1]), DISHONEST);
    check("no seq", &header(&[1], 0, &[1]), DISHONEST);
    check("no start op", &header(&[1], 1, &[0]), DISHONEST);
    check(
        "a start op near 2^32",
        &header(&[1], 1, &unsigned(u64::from(u32::MAX) - 1)),
        DISHONEST,
    );
    check("a start op near 2^64", &header(&[1], 1, &unsigned(u64::MAX)), DISHONEST);
    check(
        "a number that is longer than need be",
        &header(&[1], 1, &[0x81, 0]),
        DISHONEST,
    );
    let hash = [7_u8; 32];
    let deps = [&[2][..], &hash, &hash, &[1, 1, 1, 1, 0, 0, 0, 0]].concat();
    check("the same dependency twice", &chunk(1, &deps), DISHONEST);
}

fn honest() -> Vec<u8> {
    let mut replica = replica(1);
    let text = replica.put_object(ROOT, "text", automerge::ObjType::Text).unwrap();
    replica.splice_text(&text, 0, 0, &"hello ".repeat(100)).unwrap();
    replica.get_last_local_change().unwrap().raw_bytes().to_vec()
}

#[test]
fn frames() {
    let honest = honest();
    check("honest", &honest, PASSES);
    check("nothing", &[], DISHONEST);
    check("half of it", &honest[..honest.len() / 2], DISHONEST);
    check("more than it", &[&honest[..], &[0]].concat(), DISHONEST);
    let changed = |at: usize| {
        let mut bytes = honest.clone();
        bytes[at] ^= 1;
        bytes
    };
    check("another magic", &changed(0), DISHONEST);
    check("another checksum", &changed(4), DISHONEST);
    check("another last byte", &changed(honest.len() - 1), DISHONEST);
    for kind in [0, 3, 4, 255] {
        check("not a change", &chunk(kind, body(&honest)), DISHONEST);
    }
    let length = Limits::default().inflated_bytes_max + 1;
    assert_eq!(outcome(&vec![0; length as usize]).0, LIMIT);
}

fn deflated(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(body).unwrap();
    let mut out = chunk(2, &encoder.finish().unwrap());
    // The checksum is that of the plain change.
    out[4..8].copy_from_slice(&chunk(1, body)[4..8]);
    out
}

#[test]
fn deflated_changes() {
    let honest = honest();
    let plain = gate::read(honest.clone().into(), &Limits::default()).unwrap();
    let inflated = gate::read(deflated(body(&honest)).into(), &Limits::default()).unwrap();
    assert_eq!((inflated.hash(), inflated.bytes()), (plain.hash(), plain.bytes()));
    let mut replica = replica(2);
    replica.load_incremental(&honest).unwrap();
    let mut change = replica.get_changes(&[]).remove(0);
    assert_eq!(change.bytes()[8], 2, "Automerge deflates this one");
    assert_eq!(
        gate::read(change.bytes().to_vec().into(), &Limits::default())
            .unwrap()
            .hash(),
        plain.hash()
    );

    check("not deflated", &chunk(2, body(&honest)), DISHONEST);
    let mut wrong = deflated(body(&honest));
    wrong[4] ^= 1;
    check("another checksum", &wrong, DISHONEST);
    let bomb = deflated(&vec![0; 32 << 20]);
    let (found, micros) = stopwatch(|| outcome(&bomb));
    assert_eq!(found.0, LIMIT, "{}", found.1);
    assert!(micros < 1_000_000, "{micros} µs");
}
