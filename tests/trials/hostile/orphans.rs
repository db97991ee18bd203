//! Row 24: a flood of changes that depend on some that nobody has.

use crate::{
    checks::Witnesses,
    client::Client,
    clock,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use automerge::{
    ActorId, Change, ChangeHash, ExpandedChange,
    legacy::{Key, ObjectId, Op, OpType},
};
use bytes::Bytes;
use std::{collections::BTreeMap, num::NonZeroU64};
use syncline_protocol::native::ServerMessage;

pub(crate) const ROW: Row = Row {
    number: "24",
    name: "flood of changes with unknown deps",
    target: "refused past the limit; at most 5 MiB; linear",
    ci: 1,
    soak: 10,
    run,
    bites: &[Bite {
        name: "no limit of waiting changes",
        environment: &[("SYNCLINE_LIMITS_WAITING_CHANGES_MAX", "1000000")],
        count: 1,
    }],
};

const CHANGES: u64 = 100_000;
const PER_EDIT: u64 = 1_000;
/// What one session may keep waiting.
const WAITING_MAX: u64 = 256;
const GROWTH_MAX_KIB: u64 = 5 << 10;

fn run(trial: &Trial) -> Outcome {
    let process = trial.setup(&trial.directory("store")).start()?;
    let mut witnesses = Witnesses::join(process.address, None, "notes")?;
    let mut attacker = Client::connect(process.address)?;
    let room = attacker.open("notes")?.opened.room;
    // The first edits also grow the buffers that every connection has.
    flood(&mut attacker, room, 0, 2 * PER_EDIT)?;
    process.reset_peak();
    let before = process.rss_kib();
    let (first, first_ms) = flood(&mut attacker, room, 2 * PER_EDIT, CHANGES / 2)?;
    let (second, second_ms) = flood(&mut attacker, room, CHANGES / 2, CHANGES)?;
    let grown = process.peak_kib().saturating_sub(before);
    witnesses.are_unhurt("the flood")?;
    let refused = first + second;
    ensure!(
        refused >= (CHANGES - 2 * PER_EDIT) / PER_EDIT - 1,
        "only {refused} edits were refused"
    );
    ensure!(grown <= GROWTH_MAX_KIB, "the memory grew by {grown} KiB");
    ensure!(
        second_ms <= 5.0 * first_ms.max(1_000.0),
        "not linear: {first_ms:.0} ms, then {second_ms:.0} ms"
    );
    one_by_one(&mut attacker, room)?;
    witnesses.are_unhurt("single orphans")?;
    let text = format!("{refused} edits refused, {grown} KiB, {first_ms:.0} ms then {second_ms:.0} ms");
    Ok(Figure { count: CHANGES, text })
}

/// Sends changes `from` to `to`, many in an edit: how many edits were refused, and how long it took.
fn flood(attacker: &mut Client, room: syncline_protocol::RoomNumber, from: u64, to: u64) -> Result<(u64, f64), String> {
    let edits: Vec<_> = (from..to)
        .step_by(PER_EDIT as usize)
        .map(|first| (first, (first..first + PER_EDIT).map(orphan).collect::<Vec<_>>()))
        .collect();
    let begun = clock::now();
    let mut refused = 0;
    for (id, changes) in edits {
        attacker.edit(room, id + 1, changes)?;
        refused += u64::from(is_refused(&attacker.answer(id + 1))?);
    }
    Ok((refused, begun.ms()))
}

/// Sends single ones, which wait up to the limit: those past it are refused.
fn one_by_one(attacker: &mut Client, room: syncline_protocol::RoomNumber) -> Result<(), String> {
    let first = CHANGES + 1;
    for number in first..=first + 2 * WAITING_MAX {
        attacker.edit(room, number, vec![orphan(number)])?;
    }
    let mut answers = BTreeMap::new();
    for message in attacker.hear_all(room)? {
        if let ServerMessage::Reject { id, code, .. } = message {
            answers.insert(id.number(), code.to_string());
        }
    }
    let refused = answers.values().filter(|code| *code == "missing_deps").count() as u64;
    ensure!(
        refused >= WAITING_MAX,
        "only {refused} of {} single ones were refused",
        2 * WAITING_MAX
    );
    Ok(())
}

fn is_refused(answer: &str) -> Result<bool, String> {
    match answer {
        "missing_deps" => Ok(true),
        other => Err(format!("an edit of orphans is answered with {other}")),
    }
}

/// A change of an actor of its own that depends on one that never was.
fn orphan(number: u64) -> Bytes {
    let mut dep = [0xdd; 32];
    dep[..8].copy_from_slice(&number.to_be_bytes());
    let change = Change::from(ExpandedChange {
        operations: vec![Op {
            action: OpType::Put("x".into()),
            obj: ObjectId::Root,
            key: Key::Map("k".into()),
            pred: Vec::new().into(),
            insert: false,
        }],
        actor_id: ActorId::from([b"orphan".as_slice(), &number.to_be_bytes()].concat()),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN.saturating_add(1),
        time: 0,
        message: None,
        deps: vec![ChangeHash(dep)],
        extra_bytes: Vec::new(),
        author: None,
    });
    Bytes::copy_from_slice(change.raw_bytes())
}
