//! Row 23: changes whose shape alone breaks a library: nested without end, counters at their end, a gap in seq.

use crate::{
    checks::Witnesses,
    client::Client,
    hostile::crafted,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use automerge::{
    ActorId, Change, ExpandedChange, ObjType, ROOT,
    legacy::{Key, ObjectId, Op, OpId, OpType},
};
use bytes::Bytes;
use std::num::NonZeroU64;

pub(crate) const ROW: Row = Row {
    number: "23",
    name: "shapes that break libraries",
    target: "nesting 100,000 deep, start op at the limit, gap in seq: refused; the document still works",
    ci: 1,
    soak: 10,
    run,
    bites: &[Bite {
        name: "no limit of nesting",
        environment: &[("SYNCLINE_LIMITS_NESTING_DEPTH_MAX", "1000000")],
        count: 1,
    }],
};

fn run(trial: &Trial) -> Outcome {
    let process = trial.setup(&trial.directory("store")).start()?;
    let mut witnesses = Witnesses::join(process.address, None, "notes")?;
    let shapes = shapes();
    trial.rounds(|_, _| {
        for (name, change, expected) in &shapes {
            let mut attacker = Client::connect(process.address)?;
            let room = attacker.open("notes")?.opened.room;
            attacker.edit(room, 1, vec![change.clone()])?;
            let answer = attacker.answer(1);
            ensure!(expected.contains(&answer.as_str()), "{name}: answered with {answer}");
            witnesses.are_unhurt(name)?;
        }
        Ok(())
    })?;
    let replica = Client::connect(process.address)?.open("notes")?.document()?;
    let json = automerge::AutoSerde::from(&replica);
    ensure!(
        serde_json::to_string(&json).is_ok_and(|text| text.contains("text of")),
        "the document cannot be read afterwards"
    );
    let count = shapes.len() as u64;
    let text = "all refused; the document works".into();
    Ok(Figure { count, text })
}

fn shapes() -> Vec<(&'static str, Bytes, &'static [&'static str])> {
    const DISHONEST: &[&str] = &["4409"];
    const REFUSED: &[&str] = &["4409", "limit"];
    let last = u64::from(u32::MAX);
    let at = |seq, start| Bytes::from(crafted::change(b"a shaper", seq, start, &crafted::puts(1)));
    vec![
        ("nested 100,000 deep", nested(100_000), REFUSED),
        ("nested 65 deep", nested(65), REFUSED),
        ("start op at the limit", at(1, last), REFUSED),
        ("start op before the limit", at(1, last - 1), REFUSED),
        ("start op past the limit", at(1, last + 1), REFUSED),
        ("start op without end", at(1, u64::MAX), REFUSED),
        ("start op 0", at(1, 0), DISHONEST),
        ("a gap in seq", at(7, 1), DISHONEST),
        ("seq 0", at(0, 1), DISHONEST),
        ("seq without end", at(u64::MAX, 1), DISHONEST),
    ]
}

/// One change that makes a map in a map in a map.
fn nested(depth: u64) -> Bytes {
    let actor = ActorId::from(b"a nester".as_slice());
    let operation = |level: u64| Op {
        action: OpType::Make(ObjType::Map),
        obj: if level == 0 {
            ObjectId::Root
        } else {
            ObjectId::Id(OpId::new(level, &actor))
        },
        key: Key::Map("m".into()),
        pred: Vec::new().into(),
        insert: false,
    };
    debug_assert_eq!(ROOT, automerge::ObjId::Root);
    let change = Change::from(ExpandedChange {
        operations: (0..depth).map(operation).collect(),
        actor_id: actor.clone(),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN,
        time: 0,
        message: None,
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    });
    Bytes::copy_from_slice(change.raw_bytes())
}
