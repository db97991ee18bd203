//! Each rule of the gate, with a change that keeps it beside changes that break it.

use crate::{decoded, somebody, verdict};
use automerge::{
    ActorId, Change, ChangeHash, ExpandedChange, ObjType, ScalarValue,
    legacy::{ElementId, Key, ObjectId, Op, OpId, OpType},
};
use std::num::NonZeroU64;
use syncline::engine::{
    gate::{self, Refusal, Subject, Verdict},
    index::Index,
};
use syncline_protocol::Limits;

const ALICE: [u8; 16] = [0xaa; 16];
pub(crate) const BOB: [u8; 16] = [0xbb; 16];
pub(crate) const CAROL: [u8; 16] = [0xcc; 16];

/// The counters of Alice's first change, which the room holds.
pub(crate) const TEXT: u64 = 1;
pub(crate) const H: u64 = 2;
pub(crate) const I: u64 = 3;
pub(crate) const LIST: u64 = 4;
const LIST_COUNTER: u64 = 5;
const COUNT: u64 = 6;
const TITLE: u64 = 7;
const MAP: u64 = 8;
const DELETED: u64 = 9;
/// Where the next change begins.
pub(crate) const NEXT: u64 = 10;

pub(crate) fn op(object: ObjectId, key: Key, action: OpType) -> Op {
    Op {
        action,
        obj: object,
        key,
        pred: Vec::new().into(),
        insert: false,
    }
}

pub(crate) fn insert(object: ObjectId, key: Key, action: OpType) -> Op {
    Op {
        insert: true,
        ..op(object, key, action)
    }
}

pub(crate) fn with_preds(op: Op, preds: &[OpId]) -> Op {
    Op {
        pred: preds.to_vec().into(),
        ..op
    }
}

pub(crate) fn id(actor: [u8; 16], counter: u64) -> OpId {
    OpId::new(counter, &ActorId::from(actor))
}

pub(crate) fn alice(counter: u64) -> OpId {
    id(ALICE, counter)
}

pub(crate) fn bob(counter: u64) -> OpId {
    id(BOB, counter)
}

pub(crate) fn object(counter: u64) -> ObjectId {
    ObjectId::Id(alice(counter))
}

pub(crate) fn at(name: &str) -> Key {
    Key::Map(name.into())
}

pub(crate) fn after(element: OpId) -> Key {
    Key::Seq(ElementId::Id(element))
}

pub(crate) fn put(value: &str) -> OpType {
    OpType::Put(value.into())
}

pub(crate) fn counter() -> OpType {
    OpType::Put(ScalarValue::counter(1))
}

pub(crate) fn make(object_type: ObjType) -> OpType {
    OpType::Make(object_type)
}

pub(crate) fn change(
    actor: [u8; 16],
    seq: u64,
    start_op: u64,
    deps: &[ChangeHash],
    operations: Vec<Op>,
) -> ExpandedChange {
    ExpandedChange {
        operations,
        actor_id: ActorId::from(actor),
        hash: None,
        seq,
        start_op: NonZeroU64::new(start_op).expect("counters begin at 1"),
        time: 0,
        message: None,
        deps: deps.to_vec(),
        extra_bytes: Vec::new(),
        author: None,
    }
}

pub(crate) struct Room {
    index: Index,
}

impl Room {
    /// Alice's text "hi", a list with a counter, a counter, a title, a map and a deleted title.
    pub(crate) fn new() -> (Self, ChangeHash) {
        let root = ObjectId::Root;
        let first = change(
            ALICE,
            1,
            TEXT,
            &[],
            vec![
                op(root.clone(), at("text"), make(ObjType::Text)),
                insert(object(TEXT), Key::Seq(ElementId::Head), put("h")),
                insert(object(TEXT), after(alice(H)), put("i")),
                op(root.clone(), at("list"), make(ObjType::List)),
                insert(object(LIST), Key::Seq(ElementId::Head), counter()),
                op(root.clone(), at("count"), counter()),
                op(root.clone(), at("title"), put("t")),
                op(root.clone(), at("map"), make(ObjType::Map)),
                with_preds(op(root, at("title"), OpType::Delete), &[alice(TITLE)]),
            ],
        );
        let mut room = Self {
            index: Index::default(),
        };
        let hash = room.admit(first);
        (room, hash)
    }

    pub(crate) fn admit(&mut self, change: ExpandedChange) -> ChangeHash {
        let change = Change::from(change);
        assert_eq!(verdict(&self.index, None, change.raw_bytes()), Verdict::Vouched);
        self.index.admit(&decoded(change.raw_bytes()).unwrap(), &somebody());
        change.hash()
    }

    pub(crate) fn verdict(&self, change: ExpandedChange) -> Verdict {
        verdict(&self.index, None, Change::from(change).raw_bytes())
    }
}

/// The words of a refusal, or the verdict.
pub(crate) fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Refused(refusal) => refusal.to_string(),
        verdict => format!("{verdict:?}"),
    }
}

#[test]
fn references_of_operations() {
    let (room, first) = Room::new();
    let check = |operations: Vec<Op>, expected: &str| {
        let verdict = room.verdict(change(BOB, 1, NEXT, &[first], operations.clone()));
        assert_eq!(words(&verdict), expected, "{operations:?}");
    };
    let root = || ObjectId::Root;
    let head = || Key::Seq(ElementId::Head);
    let own = || ObjectId::Id(bob(NEXT));

    check(vec![], "Vouched");
    check(vec![op(root(), at("a"), put("x"))], "Vouched");
    check(
        vec![op(root(), at("a"), make(ObjType::Map)), op(own(), at("b"), put("x"))],
        "Vouched",
    );
    check(vec![op(object(MAP), at("b"), make(ObjType::List))], "Vouched");
    check(vec![insert(object(TEXT), after(alice(I)), put("!"))], "Vouched");
    check(
        vec![
            insert(object(TEXT), head(), put("a")),
            insert(object(TEXT), after(bob(NEXT)), put("b")),
        ],
        "Vouched",
    );

    let not_an_object = "an operation is on something that is not an object";
    check(vec![op(object(TITLE), at("a"), put("x"))], not_an_object);
    check(vec![op(object(H), at("a"), put("x"))], not_an_object);
    check(
        vec![op(root(), at("a"), put("x")), op(own(), at("b"), put("x"))],
        not_an_object,
    );
    check(
        vec![op(root(), at("a"), make(ObjType::Table))],
        "tables are not supported",
    );
}

#[test]
fn operations_name_what_comes_before_them() {
    let (room, first) = Room::new();
    let check = |operations: Vec<Op>, expected: &str| {
        let verdict = room.verdict(change(BOB, 1, NEXT, &[first], operations.clone()));
        assert_eq!(words(&verdict), expected, "{operations:?}");
    };
    let root = || ObjectId::Root;
    let own = || ObjectId::Id(bob(NEXT));
    let not_before = "an operation names one that is not before it";
    check(vec![op(own(), at("a"), make(ObjType::Map))], not_before);
    check(
        vec![
            op(ObjectId::Id(bob(NEXT + 1)), at("a"), put("x")),
            op(root(), at("m"), make(ObjType::Map)),
        ],
        not_before,
    );
    check(vec![insert(object(TEXT), after(alice(NEXT)), put("x"))], not_before);
    check(
        vec![op(ObjectId::Id(id(CAROL, 1)), at("a"), put("x"))],
        "an operation names an actor that this document does not have",
    );
}

#[test]
fn keys_fit_their_objects() {
    let (room, first) = Room::new();
    let check = |operations: Vec<Op>, expected: &str| {
        let verdict = room.verdict(change(BOB, 1, NEXT, &[first], operations.clone()));
        assert_eq!(words(&verdict), expected, "{operations:?}");
    };
    let root = || ObjectId::Root;
    let head = || Key::Seq(ElementId::Head);
    let wrong_key = "the kind of key does not fit the object";
    check(vec![op(object(TEXT), at("a"), put("x"))], wrong_key);
    check(vec![op(object(LIST), at("a"), put("x"))], wrong_key);
    check(vec![insert(object(MAP), head(), put("x"))], wrong_key);
    check(vec![insert(root(), after(alice(H)), put("x"))], wrong_key);
    check(
        vec![insert(root(), at("a"), put("x"))],
        "an operation on a map inserts or marks",
    );
    check(
        vec![op(object(TEXT), head(), put("x"))],
        "an operation changes the beginning of a sequence",
    );
    check(
        vec![insert(object(TEXT), after(alice(H)), OpType::Increment(1))],
        "a deletion or an increment inserts",
    );
    check(
        vec![insert(object(TEXT), after(alice(H)), OpType::Delete)],
        "a deletion or an increment inserts",
    );

    let not_an_element = "an operation names an element that its object does not have";
    check(vec![insert(object(LIST), after(alice(H)), put("x"))], not_an_element);
    check(
        vec![insert(object(TEXT), after(alice(TITLE)), put("x"))],
        not_an_element,
    );
    check(
        vec![insert(object(TEXT), after(alice(DELETED)), put("x"))],
        not_an_element,
    );
    let overwrite = with_preds(
        op(object(LIST), after(alice(LIST_COUNTER)), put("x")),
        &[alice(LIST_COUNTER)],
    );
    check(vec![overwrite.clone()], "Vouched");
    check(
        vec![overwrite, insert(object(LIST), after(bob(NEXT)), put("x"))],
        not_an_element,
    );
}

#[test]
fn predecessors() {
    let (room, first) = Room::new();
    let check = |operations: Vec<Op>, expected: &str| {
        let verdict = room.verdict(change(BOB, 1, NEXT, &[first], operations.clone()));
        assert_eq!(words(&verdict), expected, "{operations:?}");
    };
    let root = |name: &str, action| op(ObjectId::Root, at(name), action);
    let text = |element, action| op(object(TEXT), after(element), action);
    let list = |action| op(object(LIST), after(alice(LIST_COUNTER)), action);

    check(vec![with_preds(root("count", put("x")), &[alice(COUNT)])], "Vouched");
    check(vec![with_preds(root("title", put("x")), &[alice(TITLE)])], "Vouched");
    check(vec![with_preds(root("map", OpType::Delete), &[alice(MAP)])], "Vouched");
    check(vec![with_preds(text(alice(H), OpType::Delete), &[alice(H)])], "Vouched");
    check(
        vec![with_preds(root("count", OpType::Increment(1)), &[alice(COUNT)])],
        "Vouched",
    );
    check(
        vec![with_preds(list(OpType::Increment(1)), &[alice(LIST_COUNTER)])],
        "Vouched",
    );
    check(
        vec![
            with_preds(list(put("x")), &[alice(LIST_COUNTER)]),
            with_preds(list(OpType::Delete), &[bob(NEXT)]),
        ],
        "Vouched",
    );
    check(
        vec![
            root("n", counter()),
            with_preds(root("n", OpType::Increment(2)), &[bob(NEXT)]),
        ],
        "Vouched",
    );

    let lacks = "a deletion, an increment or a new value of an element lacks predecessors";
    check(vec![root("title", OpType::Delete)], lacks);
    check(vec![root("count", OpType::Increment(1))], lacks);
    check(vec![text(alice(H), put("x"))], lacks);

    let elsewhere = "a predecessor is not a value at the same place";
    check(vec![with_preds(root("title", put("x")), &[alice(COUNT)])], elsewhere);
    check(vec![with_preds(root("new", put("x")), &[alice(COUNT)])], elsewhere);
    check(
        vec![with_preds(op(object(MAP), at("count"), put("x")), &[alice(COUNT)])],
        elsewhere,
    );
    check(vec![with_preds(text(alice(H), OpType::Delete), &[alice(I)])], elsewhere);
    check(vec![with_preds(list(OpType::Delete), &[alice(H)])], elsewhere);
    check(vec![with_preds(root("title", put("x")), &[alice(DELETED)])], elsewhere);
    check(
        vec![
            with_preds(root("count", OpType::Increment(1)), &[alice(COUNT)]),
            with_preds(root("count", put("x")), &[bob(NEXT)]),
        ],
        elsewhere,
    );

    let twice = with_preds(root("count", put("x")), &[alice(COUNT), alice(COUNT)]);
    check(vec![twice], "a predecessor is named twice");
    let inserting = with_preds(insert(object(TEXT), after(alice(H)), put("x")), &[alice(H)]);
    check(vec![inserting], "an insertion has predecessors");
    check(
        vec![with_preds(text(alice(H), OpType::Increment(1)), &[alice(H)])],
        "an increment of something that is not a counter",
    );
}

#[test]
fn place_in_the_history() {
    let (mut room, first) = Room::new();
    let write = |name: &str| vec![op(ObjectId::Root, at(name), put("x"))];
    let second = room.admit(change(ALICE, 2, NEXT, &[first], write("a")));
    let concurrent = room.admit(change(BOB, 1, NEXT, &[first], write("b")));
    let check = |actor, seq, start_op, deps: &[ChangeHash], expected: &str| {
        let verdict = room.verdict(change(actor, seq, start_op, deps, write("c")));
        assert_eq!(words(&verdict), expected, "seq {seq}, start op {start_op}, {deps:?}");
    };
    check(ALICE, 3, NEXT + 1, &[second, concurrent], "Vouched");
    check(ALICE, 3, NEXT + 1, &[second], "Vouched");
    check(BOB, 2, NEXT + 1, &[concurrent], "Vouched");
    check(CAROL, 1, NEXT, &[first], "Vouched");
    check(CAROL, 1, 1, &[], "Vouched");
    check(CAROL, 1, NEXT + 1, &[first], "Vouched");

    let gap = "there is a gap in the actor's sequence numbers";
    check(ALICE, 4, NEXT + 1, &[second], gap);
    check(CAROL, 2, NEXT, &[first], gap);
    let not_its_own = "the change does not stand on its actor's last change";
    check(ALICE, 3, NEXT + 1, &[concurrent], not_its_own);
    check(ALICE, 3, NEXT + 1, &[], not_its_own);
    check(BOB, 2, NEXT + 1, &[second], not_its_own);

    let too_low = "the change's counters are not above those that it stands on";
    check(ALICE, 3, NEXT, &[second, concurrent], too_low);
    check(CAROL, 1, NEXT - 1, &[first], too_low);
    check(
        CAROL,
        1,
        NEXT + 2,
        &[second, concurrent],
        "the change's counters leave a gap",
    );
    check(
        CAROL,
        1,
        u64::from(u32::MAX) - 1,
        &[second],
        "the operation counters are out of range",
    );

    let unknown = ChangeHash([7; 32]);
    assert_eq!(
        room.verdict(change(CAROL, 1, NEXT, &[unknown], write("c"))),
        Verdict::Missing(syncline_protocol::ChangeHash([7; 32]))
    );
}

#[test]
fn operations_outside_the_past_of_the_change() {
    let (mut room, first) = Room::new();
    let type_after = |element, letter: &str| vec![insert(object(TEXT), after(element), put(letter))];
    let second = room.admit(change(ALICE, 2, NEXT, &[first], type_after(alice(I), "!")));
    let seen = |deps: &[ChangeHash], operations| room.verdict(change(BOB, 1, NEXT + 1, deps, operations));
    assert_eq!(seen(&[second], type_after(alice(NEXT), "?")), Verdict::Vouched);
    let verdict = seen(&[first], type_after(alice(NEXT), "?"));
    assert_eq!(words(&verdict), "an operation names one that is not in its past");
    let verdict = seen(&[], type_after(alice(I), "?"));
    assert_eq!(words(&verdict), "an operation names one that is not in its past");
}

#[test]
fn e13_e26_an_actor_belongs_to_who_first_wrote_with_it() {
    let (room, first) = Room::new();
    let operations = vec![op(ObjectId::Root, at("a"), put("x"))];
    let next = Change::from(change(ALICE, 2, NEXT, &[first], operations.clone()));
    let other = Subject("somebody else".into());
    let check = |subject: &Subject, bytes: &[u8], expected: Verdict| {
        let change = decoded(bytes).unwrap();
        assert_eq!(
            gate::check(&room.index, None, subject, &change, &Limits::default()),
            expected
        );
    };
    check(&somebody(), next.raw_bytes(), Verdict::Vouched);
    check(&other, next.raw_bytes(), Verdict::Refused(Refusal::ForeignActor));
    assert_eq!(room.index.owner(&ALICE), Some(&somebody()));
    let mut after_a_restore = room.index.clone();
    after_a_restore.welcome_foreign(true);
    let brought = decoded(next.raw_bytes()).unwrap();
    let verdict = gate::check(&after_a_restore, None, &other, &brought, &Limits::default());
    assert_eq!(verdict, Verdict::Vouched, "after a restore");
    let taken = Change::from(change(ALICE, 1, 1, &[], operations));
    check(&somebody(), taken.raw_bytes(), Verdict::Refused(Refusal::ActorConflict));
    check(&other, taken.raw_bytes(), Verdict::Refused(Refusal::ForeignActor));
}

#[test]
fn a_change_that_the_room_has_is_known_whoever_sends_it() {
    let (mut room, first) = Room::new();
    let next = Change::from(change(BOB, 1, NEXT, &[first], vec![]));
    let bytes = decoded(next.raw_bytes()).unwrap();
    room.index.admit(&bytes, &somebody());
    for subject in [somebody(), Subject("somebody else".into())] {
        assert_eq!(
            gate::check(&room.index, None, &subject, &bytes, &Limits::default()),
            Verdict::Known
        );
    }
}

#[test]
fn empty_changes_have_the_next_counter() {
    let (mut room, first) = Room::new();
    let second = room.admit(change(
        ALICE,
        2,
        NEXT,
        &[first],
        vec![op(ObjectId::Root, at("a"), put("x"))],
    ));
    let check = |start_op, deps: &[ChangeHash], expected: &str| {
        assert_eq!(words(&room.verdict(change(BOB, 1, start_op, deps, vec![]))), expected);
    };
    check(NEXT + 1, &[second], "Vouched");
    check(NEXT, &[first], "Vouched");
    check(1, &[], "Vouched");
    check(NEXT + 1, &[first], "an empty change's counter is not the next one");
}

#[test]
fn skipped_counters_are_limited() {
    let (mut room, first) = Room::new();
    let many: Vec<_> = (0..60_000)
        .map(|n| op(ObjectId::Root, at(&n.to_string()), put("")))
        .collect();
    room.admit(change(ALICE, 2, NEXT, &[first], many));
    let late = |actor| {
        change(
            actor,
            1,
            NEXT + 60_000,
            &[first],
            vec![op(ObjectId::Root, at("late"), put("x"))],
        )
    };
    room.admit(late(BOB));
    let verdict = room.verdict(late(CAROL));
    assert!(matches!(verdict, Verdict::Refused(Refusal::Limit(_))), "{verdict:?}");
}

#[test]
fn hashes_that_were_sought_are_limited() {
    let (mut room, first) = Room::new();
    // Automerge keeps a list of the others for each change whose hash begins with a zero byte.
    let sought = |actor, seq, start_op, dep| {
        let timed = |time| ExpandedChange {
            time,
            ..change(actor, seq, start_op, &[dep], vec![])
        };
        let mut changes = (0..).map(timed);
        changes
            .find(|change| Change::from(change.clone()).hash().0[0] == 0)
            .expect("one in 256")
    };
    let mut last = room.admit(change(BOB, 1, NEXT, &[first], vec![]));
    for seq in 2..=65 {
        last = room.admit(sought(BOB, seq, NEXT, last));
    }
    let verdict = room.verdict(sought(BOB, 66, NEXT, last));
    assert!(matches!(verdict, Verdict::Refused(Refusal::Limit(_))), "{verdict:?}");
    let other = (1..).map(|time| ExpandedChange {
        time,
        ..change(BOB, 66, NEXT, &[last], vec![])
    });
    room.admit(
        other
            .into_iter()
            .find(|change| Change::from(change.clone()).hash().0[0] != 0)
            .expect("most"),
    );
}

#[test]
fn nesting_is_limited() {
    let (room, first) = Room::new();
    let nested = |depth: u64| {
        let ops = (0..depth).map(|n| {
            let object = if n == 0 {
                ObjectId::Root
            } else {
                ObjectId::Id(bob(NEXT + n - 1))
            };
            op(object, at("in"), make(ObjType::Map))
        });
        room.verdict(change(BOB, 1, NEXT, &[first], ops.collect()))
    };
    assert_eq!(nested(64), Verdict::Vouched);
    assert!(matches!(nested(65), Verdict::Refused(Refusal::Limit(_))));
}

#[test]
fn extra_bytes_are_merged_before_they_are_believed() {
    let (room, first) = Room::new();
    let mut extra = change(BOB, 1, NEXT, &[first], vec![]);
    extra.extra_bytes = vec![1, 2, 3];
    assert_eq!(room.verdict(extra.clone()), Verdict::Unvouched);
    extra.seq = 2;
    assert_eq!(
        words(&room.verdict(extra)),
        "there is a gap in the actor's sequence numbers"
    );
}
