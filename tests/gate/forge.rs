//! Two ways to forge a change with a right checksum: wild bytes, and well-formed changes that refer to the wrong things.

use crate::{rng::Rng, scene::Scene};
use automerge::{
    Change, ExpandedChange, ObjType, ScalarValue,
    legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType},
};
use sha2::{Digest, Sha256};
use std::num::NonZeroU64;

/// A chunk of the same kind with a few bytes changed, put in, taken out or repeated.
pub(crate) fn mutant(rng: &mut Rng, honest: &[u8]) -> Vec<u8> {
    let mut body = body(honest).to_vec();
    scratch(rng, &mut body);
    chunk(honest[8], &body)
}

/// Changes, puts in, takes out or repeats a few of these bytes.
pub(crate) fn scratch(rng: &mut Rng, body: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(4) {
        let at = rng.below(body.len());
        match rng.below(12) {
            0 => body.insert(at, rng.next() as u8),
            1 => drop(body.remove(at)),
            2 => {
                let end = (at + 1 + rng.below(8)).min(body.len());
                let copy = body[at..end].to_vec();
                let to = rng.below(body.len() + 1);
                body.splice(to..to, copy);
            }
            3 => body[at] = rng.next() as u8,
            4 => body[at] ^= 1 << rng.below(8),
            5 => body[at] = 0x80 | rng.next() as u8,
            6..=8 => body[at] = body[at].wrapping_add(1),
            _ => body[at] = body[at].wrapping_sub(1),
        }
        if body.is_empty() {
            break;
        }
    }
}

/// What stands behind the chunk's length.
pub(crate) fn body(chunk: &[u8]) -> &[u8] {
    let length_bytes = chunk[9..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
    &chunk[9 + length_bytes..]
}

/// A chunk with a right checksum.
pub(crate) fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut framed = vec![kind];
    leb128(&mut framed, body.len() as u64);
    framed.extend(body);
    let hash = Sha256::digest(&framed);
    [&[0x85, 0x6f, 0x4a, 0x83], &hash[..4], &framed].concat()
}

pub(crate) fn leb128(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The honest change with other dependencies, another place in the history, or operations that name other operations.
pub(crate) fn rewired(rng: &mut Rng, scene: &Scene) -> Vec<u8> {
    let mut change = scene.honest.decode();
    for _ in 0..1 + rng.below(3) {
        match rng.below(11) {
            10 => change.operations.extend(counting(rng, scene)),
            0..=2 => rewire_deps(rng, scene, &mut change),
            3 => change.seq = (change.seq + rng.below(3) as u64).saturating_sub(1),
            4 => move_to(&mut change, scene.document_max_op() + 1),
            5 => {
                let start = (change.start_op.get() + rng.below(5) as u64).saturating_sub(2);
                move_to(&mut change, start.max(1));
            }
            6 => rewire_author(rng, scene, &mut change),
            _ => rewire_ops(rng, scene, &mut change),
        }
    }
    if rng.one_in(2) {
        move_to(&mut change, scene.document_max_op() + 1);
    }
    Change::from(change).raw_bytes().to_vec()
}

impl Scene {
    fn document_max_op(&self) -> u64 {
        self.log.iter().map(Change::max_op).max().unwrap_or(0)
    }
}

/// Other valid dependencies: some added, some dropped, or any few.
fn rewire_deps(rng: &mut Rng, scene: &Scene, change: &mut ExpandedChange) {
    if rng.one_in(2) {
        change.deps.clear();
    } else if rng.one_in(2) {
        change.deps.pop();
    }
    for _ in 0..rng.below(3) {
        change.deps.extend(rng.pick(&scene.log).map(Change::hash));
    }
    if rng.one_in(4) {
        change.deps = scene.document.get_heads();
    }
    change.deps.sort();
    if !rng.one_in(20) {
        change.deps.dedup();
    }
}

/// The same operations, by another actor.
fn rewire_author(rng: &mut Rng, scene: &Scene, change: &mut ExpandedChange) {
    let Some(model) = rng.pick(&scene.log) else { return };
    change.actor_id = model.actor_id().clone();
    let last = scene
        .log
        .iter()
        .filter(|other| other.actor_id() == model.actor_id())
        .map(Change::seq)
        .max();
    change.seq = last.unwrap_or(0) + 1;
}

/// Gives the operations new counters; what they say of each other moves with them.
fn move_to(change: &mut ExpandedChange, start: u64) {
    let (from, actor) = (change.start_op.get(), change.actor_id.clone());
    let moved = |id: &mut OpId| {
        if id.1 == actor && id.0 >= from {
            id.0 = id.0 - from + start;
        }
    };
    for op in &mut change.operations {
        if let ObjectId::Id(id) = &mut op.obj {
            moved(id);
        }
        if let Key::Seq(ElementId::Id(id)) = &mut op.key {
            moved(id);
        }
        let mut preds: Vec<OpId> = op.pred.iter().cloned().collect();
        preds.iter_mut().for_each(moved);
        op.pred = preds.into();
    }
    change.start_op = NonZeroU64::new(start).expect("counters begin at 1");
}

fn rewire_ops(rng: &mut Rng, scene: &Scene, change: &mut ExpandedChange) {
    let count = change.operations.len();
    if count == 0 {
        return;
    }
    let at = rng.below(count);
    let own: Vec<(u64, _)> = (0..count as u64 + 1)
        .map(|n| (change.start_op.get() + n, change.actor_id.clone()))
        .collect();
    let id = |rng: &mut Rng| {
        let from = if rng.one_in(3) || scene.ops.is_empty() {
            &own
        } else {
            &scene.ops
        };
        let (counter, actor) = rng.pick(from)?;
        Some(OpId::new(*counter, actor))
    };
    match rng.below(14) {
        0 => change.operations.swap(at, rng.below(count)),
        1 => drop(change.operations.remove(at)),
        2 => change.operations.insert(at, change.operations[at].clone()),
        n => rewire_op(rng, n, &mut change.operations[at], id),
    }
}

fn rewire_op(rng: &mut Rng, way: usize, op: &mut Op, id: impl Fn(&mut Rng) -> Option<OpId>) {
    let mut preds: Vec<OpId> = op.pred.iter().cloned().collect();
    match way {
        3 => op.obj = id(rng).map_or(ObjectId::Root, ObjectId::Id),
        4 => op.obj = ObjectId::Root,
        5 | 6 => op.key = Key::Seq(id(rng).map_or(ElementId::Head, ElementId::Id)),
        7 => op.key = Key::Map((*rng.pick(&["a", "b", "c", "title", "new"]).expect("keys")).into()),
        8 => op.insert = !op.insert,
        9 => drop(preds.pop()),
        10 | 11 => {
            if rng.one_in(2) {
                preds.clear();
            }
            preds.extend(id(rng));
        }
        _ => op.action = action(rng),
    }
    op.pred = preds.into();
}

/// An increment or another value of some element that the room holds, whatever it is.
fn counting(rng: &mut Rng, scene: &Scene) -> Option<Op> {
    let from = if rng.one_in(4) {
        &scene.elements
    } else {
        &scene.counters
    };
    let (object, element) = rng.pick(from)?.clone();
    Some(Op {
        action: if rng.one_in(3) {
            action(rng)
        } else {
            OpType::Increment(3)
        },
        obj: object,
        key: Key::Seq(ElementId::Id(element.clone())),
        pred: vec![element].into(),
        insert: false,
    })
}

fn action(rng: &mut Rng) -> OpType {
    match rng.below(10) {
        0 => OpType::Make(ObjType::Map),
        1 => OpType::Make(ObjType::List),
        2 => OpType::Make(ObjType::Text),
        3 => OpType::Make(ObjType::Table),
        4 => OpType::Delete,
        5 => OpType::Increment(3),
        6 => OpType::Put(ScalarValue::counter(7)),
        7 => OpType::MarkEnd(true),
        8 => OpType::MarkBegin(MarkData {
            name: "bold".into(),
            value: true.into(),
            expand: false,
        }),
        _ => OpType::Put("forged".into()),
    }
}

/// The honest change with a mark between two elements of a sequence, in any order.
pub(crate) fn marked(rng: &mut Rng, scene: &Scene) -> Option<Vec<u8>> {
    let mut change = scene.honest.decode();
    let own = elements(&change);
    let from = if rng.one_in(3) && !own.is_empty() {
        &own
    } else {
        &scene.elements
    };
    let (object, first) = rng.pick(from)?.clone();
    let near: Vec<_> = scene
        .elements
        .iter()
        .chain(&own)
        .filter(|(other, _)| *other == object)
        .collect();
    let second = rng.pick(&near)?.1.clone();
    let key = |rng: &mut Rng, id| {
        Key::Seq(if rng.one_in(10) {
            ElementId::Head
        } else {
            ElementId::Id(id)
        })
    };
    let mark = |key, action| Op {
        action,
        obj: object.clone(),
        key,
        pred: Vec::new().into(),
        insert: true,
    };
    let begin = OpType::MarkBegin(MarkData {
        name: "bold".into(),
        value: true.into(),
        expand: rng.one_in(2),
    });
    let begin = mark(key(rng, first), begin);
    change.operations.push(begin);
    let end = mark(key(rng, second), OpType::MarkEnd(rng.one_in(2)));
    change.operations.push(end);
    Some(Change::from(change).raw_bytes().to_vec())
}

/// The elements that a change inserts, each with its sequence.
pub(crate) fn elements(change: &ExpandedChange) -> Vec<(ObjectId, OpId)> {
    inserted(change, |_| true)
}

/// Those of them that are counters.
pub(crate) fn counters(change: &ExpandedChange) -> Vec<(ObjectId, OpId)> {
    inserted(change, |op| matches!(&op.action, OpType::Put(ScalarValue::Counter(_))))
}

fn inserted(change: &ExpandedChange, which: impl Fn(&Op) -> bool) -> Vec<(ObjectId, OpId)> {
    let ids = (change.start_op.get()..).map(|counter| OpId::new(counter, &change.actor_id));
    let inserted = change.operations.iter().zip(ids);
    let chosen = inserted.filter(|(op, _)| op.insert && which(op));
    chosen.map(|(op, id)| (op.obj.clone(), id)).collect()
}
