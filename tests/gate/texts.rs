//! The rules of the gate for texts: their characters keep the values that they were inserted with, and marks are in order.

use crate::rules::{
    BOB, CAROL, H, I, LIST, NEXT, Room, TEXT, after, alice, at, bob, change, counter, id, insert, make, object, op,
    put, with_preds, words,
};
use automerge::{
    ObjType,
    legacy::{ElementId, Key, MarkData, ObjectId, OpId, OpType},
};
use syncline::engine::gate::{Refusal, Verdict};

/// An app can increment a counter inside a text, and every peer that reads it afterwards panics; it can give a character
/// another value, and when two did so at once, whoever merges the deletion of one of the values panics.
#[test]
fn e21_characters_of_texts_are_not_given_other_values() {
    let (mut room, first) = Room::new();
    let text = |element, action| op(object(TEXT), after(element), action);
    let inserted = insert(object(TEXT), after(alice(H)), counter());
    let second = room.admit(change(BOB, 1, NEXT, &[first], vec![inserted]));
    let check = |element: OpId, action: OpType| {
        let ops = vec![with_preds(text(element.clone(), action), &[element])];
        room.verdict(change(CAROL, 1, NEXT + 1, &[second], ops))
    };
    let refused = |verdict: Verdict| assert!(matches!(verdict, Verdict::Refused(Refusal::Limit(_))), "{verdict:?}");
    refused(check(bob(NEXT), OpType::Increment(1)));
    refused(check(bob(NEXT), counter()));
    refused(check(alice(H), put("x")));
    refused(check(alice(H), make(ObjType::Map)));
    assert_eq!(check(bob(NEXT), OpType::Delete), Verdict::Vouched);
    assert_eq!(check(alice(H), OpType::Delete), Verdict::Vouched);
    let own = id(CAROL, NEXT + 1);
    let at_once = vec![
        insert(object(TEXT), after(alice(H)), counter()),
        with_preds(text(own.clone(), OpType::Increment(1)), &[own]),
    ];
    refused(room.verdict(change(CAROL, 1, NEXT + 1, &[second], at_once)));
}

#[test]
fn e21_marks_end_behind_their_beginning() {
    let (room, first) = Room::new();
    let begin = || {
        OpType::MarkBegin(MarkData {
            name: "bold".into(),
            value: true.into(),
            expand: false,
        })
    };
    let end = || OpType::MarkEnd(false);
    let head = || Key::Seq(ElementId::Head);
    let verdict = |operations| words(&room.verdict(change(BOB, 1, NEXT, &[first], operations)));
    let check = |from: Key, to: Key, expected: &str| {
        let mark = vec![
            insert(object(TEXT), from.clone(), begin()),
            insert(object(TEXT), to.clone(), end()),
        ];
        assert_eq!(verdict(mark), expected, "from {from:?} to {to:?}");
    };
    check(after(alice(H)), after(alice(I)), "Vouched");
    check(head(), after(alice(H)), "Vouched");
    check(head(), after(alice(I)), "Vouched");
    check(after(alice(H)), after(bob(NEXT)), "Vouched");
    let backwards =
        "a mark ends before it begins, as older Automerge wrote empty ones; no document with it can be loaded";
    check(after(alice(I)), after(alice(H)), backwards);
    check(after(alice(H)), after(alice(H)), backwards);
    check(after(alice(H)), head(), backwards);
    check(head(), head(), backwards);

    let typed = |letter, at| insert(object(TEXT), at, put(letter));
    let mark = |from, to| [insert(object(TEXT), from, begin()), insert(object(TEXT), to, end())];
    let behind_h = [typed("a", after(alice(H))), typed("b", after(bob(NEXT)))];
    let write = |from, to| verdict([&behind_h[..], &mark(from, to)].concat());
    assert_eq!(write(after(bob(NEXT)), after(bob(NEXT + 1))), "Vouched");
    assert_eq!(write(after(bob(NEXT)), after(alice(I))), "Vouched", "hi becomes habi");
    assert_eq!(write(after(alice(I)), after(bob(NEXT))), backwards, "hi becomes habi");
    assert_eq!(write(after(bob(NEXT + 1)), after(bob(NEXT))), backwards);

    let alone = "a mark ends that the operation before does not begin";
    assert_eq!(verdict(vec![insert(object(TEXT), after(alice(H)), end())]), alone);
    let [from, to] = mark(after(alice(H)), after(alice(I)));
    assert_eq!(verdict(vec![from.clone(), typed("x", after(alice(H))), to]), alone);
    let in_list = vec![
        insert(object(LIST), head(), begin()),
        insert(object(LIST), head(), end()),
    ];
    assert_eq!(verdict(in_list), "only texts have marks");
    assert_eq!(verdict(vec![from]), "Unvouched");
    assert_eq!(
        verdict(vec![op(object(TEXT), after(alice(H)), begin())]),
        "a mark does not insert"
    );
    assert_eq!(
        verdict(vec![op(ObjectId::Root, at("a"), begin())]),
        "an operation on a map inserts or marks"
    );
}
