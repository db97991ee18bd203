//! Whole documents from peers: taken apart into exactly their changes, or refused before anything is expanded.

use crate::{
    bombs::{run, unsigned},
    cases, decoded, forge,
    forge::{chunk, leb128},
    history::{Style, document, history},
    rng::Rng,
    somebody,
};
use automerge::{
    ActorId, Automerge, Change, ObjType, ROOT, SaveOptions,
    legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType},
    transaction::Transactable,
};
use bytes::Bytes;
use std::io::Write;
use syncline::engine::{
    gate::{self, Refusal, Verdict, Whole},
    index::Index,
};
use syncline_protocol::Limits;

/// Columns of a document's table of changes, by the number that Automerge gives each.
const ACTOR: u64 = 0x01;
const SEQ: u64 = 0x03;
const MAX_OP: u64 = 0x13;
const MESSAGE: u64 = 0x35;
const DEPS: u64 = 0x40;
const EXTRA: u64 = 0x56;
/// Columns of its table of operations.
const ID_ACTOR: u64 = 0x21;
const KEY: u64 = 0x15;
const SUCCESSORS: u64 = 0x80;
const VALUES: u64 = 0x57;
/// Added to the number of a column that is deflated.
const DEFLATED: u64 = 0x08;

fn saved(document: &Automerge, deflate: bool) -> Bytes {
    let options = SaveOptions {
        deflate,
        ..SaveOptions::default()
    };
    document.save_with_options(options).into()
}

fn take_apart(bytes: Bytes) -> Result<Vec<Bytes>, Refusal> {
    Whole::read(bytes, &Limits::default())?.changes()
}

fn styles(seed: u64) -> (Rng, Style) {
    let mut rng = Rng::new(seed);
    let style = Style {
        writers: 1 + rng.below(4),
        steps: 5 + rng.below(60),
        marks: rng.one_in(3),
    };
    (rng, style)
}

#[test]
fn a10_a_document_is_taken_apart_into_the_changes_that_it_holds() {
    for seed in 0..40 {
        let (mut rng, style) = styles(5_000_000 + seed);
        let log = history(&mut rng, style);
        let document = document(&log);
        let mut expected: Vec<_> = log.iter().map(|change| change.raw_bytes().to_vec()).collect();
        expected.sort();
        for deflate in [false, true] {
            let apart = take_apart(saved(&document, deflate)).expect("honest documents are taken");
            let mut known = std::collections::BTreeSet::new();
            for change in &apart {
                let header = gate::read(change.clone(), &Limits::default()).expect("a plain change");
                assert!(
                    header.deps().iter().all(|dep| known.contains(dep)),
                    "dependencies come first"
                );
                known.insert(header.hash());
            }
            let mut apart: Vec<_> = apart.iter().map(|change| change.to_vec()).collect();
            apart.sort();
            assert!(apart == expected, "seed {seed}: the changes are others");
        }
    }
}

#[test]
fn mutated_documents_are_refused_or_taken_apart_and_nothing_else_happens() {
    let (mut taken, mut refused, mut broken, total) = (0, 0, 0, cases(4_000));
    for seed in 0.. {
        if taken + refused + broken >= total {
            break;
        }
        let (mut rng, style) = styles(6_000_000 + seed);
        let document = document(&history(&mut rng, style));
        let honest = saved(&document, rng.one_in(4));
        for _ in 0..50 {
            let mutant = forge::mutant(&mut rng, &honest);
            match Whole::read(mutant.into(), &Limits::default()).map(Whole::changes) {
                Err(_) => refused += 1,
                Ok(Err(_)) => broken += 1,
                Ok(Ok(_)) => taken += 1,
            }
        }
    }
    println!("{refused} refused unseen, {broken} by Automerge, {taken} taken apart");
    assert!(broken > total / 20, "too few reach Automerge to show anything");
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A document of these actors with these columns.
fn with(actors: u64, changes: &[(u64, Vec<u8>)], operations: &[(u64, Vec<u8>)]) -> Bytes {
    let mut out = unsigned(actors);
    (0..actors).for_each(|_| out.extend([1, 0xaa]));
    out.extend(unsigned(0));
    for columns in [changes, operations] {
        leb128(&mut out, columns.len() as u64);
        for (spec, bytes) in columns {
            leb128(&mut out, *spec);
            leb128(&mut out, bytes.len() as u64);
        }
    }
    for (_, bytes) in changes.iter().chain(operations) {
        out.extend(bytes);
    }
    chunk(0, &out).into()
}

/// The document is refused, and was not large.
fn is_too_much(name: &str, document: Bytes, bytes_max: usize) {
    assert!(document.len() < bytes_max, "{name}: {} bytes", document.len());
    let result = Whole::read(document, &Limits::default());
    let is_refused = matches!(result, Err(Refusal::Limit(_) | Refusal::Inflates));
    assert!(is_refused, "{name}: {result:?}");
}

fn changes(count: u64) -> Vec<(u64, Vec<u8>)> {
    let column = |spec, value| (spec, run(count, &[value]));
    vec![column(ACTOR, 0), column(SEQ, 1), column(MAX_OP, 1)]
}

#[test]
fn a10_runs_of_a_document_are_not_expanded() {
    let check = |name, actors, changes: &[_], operations: &[_]| {
        is_too_much(name, with(actors, changes, operations), 20_000);
    };
    let one = &changes(1);
    check("many changes", 1, &changes(10_001), &[]);
    check("very many changes", 1, &changes(1 << 40), &[]);
    check("many actors", 1_001, one, &[]);
    check("many operations", 1, one, &[(ID_ACTOR, run(200_001, &[0]))]);
    check(
        "boundless operations",
        1,
        one,
        &[(ID_ACTOR, run(i64::MAX as u64, &[0]))],
    );
    let nulls = [vec![0], unsigned(u64::MAX)].concat();
    check("boundless nulls", 1, one, &[(KEY, nulls)]);
    let dependencies = (DEPS, run(2, &unsigned(1 << 31)));
    check("many dependencies", 1, &[(ACTOR, run(2, &[0])), dependencies], &[]);
    check("many successors", 1, one, &[(SUCCESSORS, run(3, &unsigned(100_000)))]);
    check("extra bytes", 1, &[(EXTRA, run(1_000, &unsigned(1 << 30)))], &[]);
}

#[test]
fn a10_what_a_document_inflates_to_is_limited() {
    let zeros = |megabytes: usize| deflated(&vec![0; megabytes << 20]);
    is_too_much("a column", with(1, &[(ACTOR | DEFLATED, zeros(16))], &[]), 20_000);
    let values = [(VALUES | DEFLATED, zeros(5)), (0xe0 | VALUES | DEFLATED, zeros(5))];
    is_too_much("columns together", with(1, &[], &values), 20_000);
    let repeated = run(1_000, &[unsigned(1 << 20), vec![b'x'; 1 << 20]].concat());
    let message = [(MESSAGE, repeated.clone())];
    is_too_much("a long message for each change", with(1, &message, &[]), 2 << 20);
    let key = [(KEY, repeated)];
    is_too_much("a long key for each operation", with(1, &changes(1), &key), 2 << 20);
    let values = [(VALUES, vec![0; 9 << 20])];
    is_too_much("more than one edit may hold", with(1, &[], &values), 10 << 20);
}

#[test]
fn a10_columns_that_speak_of_different_numbers_of_rows_are_refused() {
    let actors = |count| (ACTOR, run(count, &[0]));
    let columns = [
        with(1, &[actors(1), (SEQ, run(4_000, &[1]))], &[]),
        with(1, &[(SEQ, run(2, &[1])), (MAX_OP, run(3, &[1]))], &[]),
        with(
            1,
            &changes(1),
            &[(KEY, run(2, b"\x01a")), (ID_ACTOR, run(200_000, &[0]))],
        ),
    ];
    for document in columns {
        let result = Whole::read(document, &Limits::default());
        assert!(matches!(result, Err(Refusal::Dishonest(_))), "{result:?}");
    }
    let no_messages = [changes(3), vec![(MESSAGE, Vec::new())]].concat();
    let result = Whole::read(with(1, &no_messages, &[]), &Limits::default());
    assert!(result.is_ok(), "an empty column is one of nulls: {result:?}");
}

/// Automerge merges and saves such a mark, and loads the document no more; of old it wrote empty marks so.
#[test]
fn e21_a10_a_document_whose_mark_ends_before_it_begins_is_passed_over() {
    let author = ActorId::from([7; 16]);
    let id = |counter| OpId::new(counter, &author);
    let mut document = Automerge::new().with_actor(author.clone());
    let mut transaction = document.transaction();
    let made = transaction.put_object(ROOT, "text", ObjType::Text).unwrap();
    transaction.splice_text(&made, 0, 0, "hi").unwrap();
    transaction.commit();
    let mut change = document.get_last_local_change().unwrap().decode();
    let mark = |action| Op {
        action,
        obj: ObjectId::Id(id(1)),
        key: Key::Seq(ElementId::Id(id(2))),
        pred: Vec::new().into(),
        insert: true,
    };
    let begin = OpType::MarkBegin(MarkData {
        name: "bold".into(),
        value: true.into(),
        expand: false,
    });
    // Of two that are inserted behind the same element the later one comes first.
    change.operations.extend([mark(begin), mark(OpType::MarkEnd(false))]);
    let change = Change::from(change);
    let mut old = Automerge::new();
    old.apply_changes([change.clone()]).unwrap();
    let result = take_apart(saved(&old, true));
    assert!(matches!(result, Err(Refusal::Limit(_))), "{result:?}");
    let change = decoded(change.raw_bytes()).expect("a well-formed change");
    let verdict = gate::check(&Index::default(), None, &somebody(), &change, &Limits::default());
    assert!(matches!(verdict, Verdict::Refused(Refusal::Limit(_))), "{verdict:?}");
}

#[test]
fn a10_what_is_no_document_is_refused() {
    let honest = saved(&document(&history(&mut Rng::new(1), styles(1).1)), false);
    let mut broken = honest.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    let bad_text = vec![3, 2, 0xff, 0xfe];
    let checks: [(&str, Bytes); 6] = [
        ("nothing", Bytes::new()),
        ("a wrong checksum", broken.into()),
        ("another kind of chunk", chunk(1, forge::body(&honest)).into()),
        ("an empty one", chunk(0, &[]).into()),
        ("text that is none", with(1, &[(MESSAGE, bad_text)], &[])),
        ("a column beyond the bytes", chunk(0, &[0, 0, 1, 1, 0x7f, 0]).into()),
    ];
    for (name, document) in checks {
        let result = Whole::read(document, &Limits::default());
        assert!(matches!(result, Err(Refusal::Dishonest(_))), "{name}: {result:?}");
    }
}
