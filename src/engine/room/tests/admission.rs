//! Edits in a room: nothing is acknowledged or shown before it is stored.

use super::{Bench, empty, kinds, typed};
use crate::engine::{
    document::{Document, Merge},
    gate::{self, Subject},
    index::RECENT_CHANGES_MAX,
    room::{Effect, Event, Merged, Tuning},
};
use automerge::{ActorId, AutoCommit, Automerge, ObjType, ROOT, transaction::Transactable};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use syncline_protocol::{CloseCode, Limits, Position, SessionId};

#[test]
fn e4_e5_nothing_is_acknowledged_or_shown_before_it_is_stored() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.join(2);
    bench.told(1);
    bench.told(2);
    bench.edit(1, 7, &typed(1, 2));
    bench.settle();
    assert_eq!(kinds(&bench.take()), ["append"]);
    assert!(
        bench.told(1).is_empty() && bench.told(2).is_empty(),
        "it is not on disk yet"
    );
    bench.feed(Event::Stored);
    assert_eq!(bench.told(1), ["ack 7 at 2", "diff of 2 to 2"]);
    assert_eq!(bench.told(2), ["diff of 2 to 2"]);
}

#[test]
fn e8_while_one_record_is_synced_the_next_gathers_and_goes_out_as_one_diff() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.join(2);
    bench.told(1);
    bench.told(2);
    let (ours, theirs) = (typed(1, 3), typed(2, 1));
    bench.edit(1, 1, &ours[..1]);
    bench.settle();
    bench.edit(1, 2, &ours[1..2]);
    bench.edit(2, 1, &theirs);
    bench.edit(1, 3, &ours[2..]);
    assert_eq!(bench.store(), [1, 3], "the first record was on its way");
    assert_eq!(bench.told(2), ["diff of 1 to 1", "ack 1 at 4", "diff of 3 to 4"]);
}

/// A frame to each of many is what edits cost: there is one for all that come while the last ones are being sent.
#[test]
fn e8_behind_a_batch_for_many_the_next_gathers_for_a_moment() {
    for (members, rest_ms) in [(2, 0), (49, 0), (100, 2), (1_000, 5)] {
        let mut bench = Bench::open();
        (1..=members).for_each(|member| bench.join(member));
        let (ours, theirs) = (typed(1, 3), typed(2, 1));
        bench.edit(1, 1, &ours[..1]);
        assert_eq!(bench.store(), [1], "at rest an edit does not wait");
        bench.edit(1, 2, &ours[1..2]);
        if rest_ms == 0 {
            assert_eq!(bench.store(), [1], "{members} members");
            continue;
        }
        assert!(bench.store().is_empty() && bench.room.appends_next());
        assert_eq!(bench.room.next_wakeup(), Some(bench.now.plus_ms(rest_ms)));
        bench.pass(rest_ms - 1);
        bench.edit(2, 1, &theirs);
        assert!(bench.store().is_empty());
        bench.now = bench.now.plus_ms(1);
        assert_eq!(bench.store(), [2], "{members} members");
        bench.now = bench.now.plus_ms(rest_ms);
        bench.edit(1, 3, &ours[2..]);
        assert_eq!(bench.store(), [1], "at rest again");
    }
}

#[test]
fn what_gathers_is_not_forgotten_when_time_passes_after_the_room_settled() {
    let mut bench = Bench::open();
    (1..=100).for_each(|member| bench.join(member));
    let changes = typed(1, 2);
    bench.edit(1, 1, &changes[..1]);
    assert_eq!(bench.store(), [1]);
    bench.edit(1, 2, &changes[1..]);
    bench.settle();
    bench.now = bench.now.plus_ms(2);
    bench.feed(Event::Lagged {
        session: SessionId::new(2),
        at: Position::new(1),
    });
    let wake = bench.room.next_wakeup();
    assert!(wake.is_some_and(|at| at <= bench.now), "{wake:?}");
    bench.pass(0);
    assert_eq!(kinds(&bench.take()).last(), Some(&"append"));
}

#[test]
fn e3_a_repeated_edit_waits_for_the_first_copy() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.told(1);
    let changes = typed(1, 1);
    bench.edit(1, 1, &changes);
    bench.settle();
    bench.edit(1, 2, &changes);
    bench.settle();
    assert!(bench.told(1).is_empty(), "neither is on disk");
    bench.feed(Event::Stored);
    assert_eq!(bench.told(1), ["ack 1 at 1", "ack 2 at 1", "diff of 1 to 1"]);
    bench.edit(1, 3, &changes);
    bench.settle();
    assert_eq!(bench.told(1), ["ack 3 at 1"]);
}

#[test]
fn e1_an_edit_is_taken_whole_or_not_at_all() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.told(1);
    let (good, other) = (typed(1, 2), typed(2, 2));
    let mixed = [good[0].clone(), Bytes::from_static(b"no change")];
    bench.edit(1, 1, &mixed);
    assert_eq!(kinds(&bench.take()), ["disconnect"]);
    bench.join(2);
    bench.told(2);
    bench.edit(2, 1, &good);
    assert_eq!(bench.store(), [2], "nothing of the refused edit had been taken in");
    bench.edit(2, 2, &[other[0].clone(), other[0].clone(), other[1].clone()]);
    assert_eq!(
        bench.store(),
        [2],
        "a change that comes twice in one edit is taken once"
    );
}

#[test]
fn e24_a_failed_append_is_rejected_for_now_and_can_be_sent_again() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.told(1);
    let changes = typed(1, 3);
    bench.edit(1, 1, &changes[..1]);
    bench.settle();
    bench.edit(1, 2, &changes[1..]);
    bench.feed(Event::StoreFailed);
    assert_eq!(bench.told(1), ["reject 1 unavailable", "reject 2 unavailable"]);
    bench.take();
    bench.edit(1, 3, &changes);
    assert_eq!(bench.store(), [3]);
    assert_eq!(bench.told(1), ["ack 3 at 3", "diff of 3 to 3"]);
}

#[test]
fn e18_an_edit_waits_for_the_changes_it_depends_on() {
    let limits = Limits {
        waiting_changes_max: 2,
        ..Limits::default()
    };
    let mut bench = Bench::open_with(limits, Tuning::default());
    bench.join(1);
    bench.join(2);
    bench.told(1);
    bench.told(2);
    let changes = typed(1, 5);
    bench.edit(2, 3, &changes[2..3]);
    bench.edit(2, 2, &changes[1..2]);
    bench.edit(2, 5, &changes[4..]);
    assert_eq!(bench.told(2), ["reject 5 missing_deps"], "only two may wait");
    assert!(bench.store().is_empty(), "what waits is not stored");
    bench.edit(1, 1, &changes[..1]);
    assert_eq!(bench.store(), [3]);
    assert_eq!(bench.told(2), ["ack 2 at 3", "ack 3 at 3", "diff of 3 to 3"]);
}

#[test]
fn e18_a_long_chain_of_waiting_edits_is_worked_off_without_using_up_the_stack() {
    const CHAIN: usize = 1_500;
    let limits = Limits {
        waiting_changes_max: CHAIN as u64,
        edits_burst: u64::MAX >> 20,
        ..Limits::default()
    };
    let mut bench = Bench::open_with(limits, Tuning::default());
    bench.join(1);
    bench.join(2);
    let changes = typed(1, CHAIN);
    for (number, change) in changes.iter().enumerate().skip(1).rev() {
        bench.edit(2, number as u64, std::slice::from_ref(change));
    }
    bench.edit(1, 1, &changes[..1]);
    assert_eq!(bench.store(), [CHAIN]);
}

#[test]
fn e19_what_waits_goes_when_the_member_leaves() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.join(2);
    let changes = typed(1, 2);
    bench.edit(2, 2, &changes[1..]);
    bench.feed(Event::Left {
        session: syncline_protocol::SessionId::new(2),
    });
    bench.edit(1, 1, &changes[..1]);
    assert_eq!(bench.store(), [1], "nobody stands for the second change any more");
}

#[test]
fn e23_a_change_that_cannot_be_honest_ends_its_session() {
    let mut bench = Bench::open();
    bench.join(1);
    let mut change = typed(1, 1)[0].to_vec();
    change[6] ^= 1;
    bench.edit(1, 1, &[change.into()]);
    let effects = bench.take();
    assert!(
        matches!(
            effects[..],
            [Effect::Disconnect {
                code: CloseCode::Dishonest,
                ..
            }]
        ),
        "{effects:?}"
    );
    assert_eq!(bench.room.members(), 0);
}

#[test]
fn e21_a_large_change_is_decoded_elsewhere_and_one_over_the_limit_is_rejected() {
    let limits = Limits {
        ops_decoded_alone: 3,
        ops_per_change_max: 20,
        ..Limits::default()
    };
    let mut bench = Bench::open_with(limits, Tuning::default());
    bench.join(1);
    bench.told(1);
    let changes = pasted(&["0123456789", "and so on for more than twenty characters"]);
    bench.edit(1, 1, &changes[..1]);
    bench.edit(1, 2, &changes[1..]);
    let mut effects = bench.take();
    let Some(Effect::Decode {
        session,
        ticket,
        headers,
    }) = effects.pop()
    else {
        panic!("no decode: {effects:?}")
    };
    let result = headers.into_iter().map(crate::engine::gate::decode).collect();
    bench.feed(Event::Decoded {
        session,
        ticket,
        result,
    });
    assert_eq!(
        bench.told(1),
        ["reject 2 limit"],
        "the second was looked at after the first"
    );
    assert_eq!(bench.store(), [1]);
    assert_eq!(bench.told(1), ["ack 1 at 1", "diff of 1 to 1"]);
}

#[test]
fn e21_the_operations_of_an_edit_count_in_all() {
    let limits = Limits {
        ops_per_change_max: 20,
        ..Limits::default()
    };
    let mut bench = Bench::open_with(limits, Tuning::default());
    bench.join(1);
    bench.told(1);
    let changes = pasted(&["0123456789", "0123456789"]);
    bench.edit(1, 1, &changes);
    assert_eq!(bench.told(1), ["reject 1 limit"]);
    bench.edit(1, 2, &changes[..1]);
    assert_eq!(bench.told(1), ["reject 2 after_reject"], "its actor is remembered");
    bench.join(2);
    bench.told(2);
    bench.edit(2, 1, &changes[..1]);
    bench.edit(2, 2, &changes[1..]);
    assert_eq!(bench.store(), [2], "apart they are small enough");
}

#[test]
fn what_the_gate_does_not_vouch_for_is_proven_on_the_document_before_it_is_stored() {
    let mut bench = Bench::open();
    bench.join(1);
    bench.told(1);
    let changes = [typed(1, 1), vec![with_extra_bytes(&typed(2, 1)[0])]].concat();
    bench.edit(1, 1, &changes[..1]);
    assert_eq!(bench.store(), [1]);
    bench.edit(1, 2, &changes[1..]);
    bench.settle();
    bench
        .take()
        .into_iter()
        .find(|effect| matches!(effect, Effect::Merge { .. }))
        .expect("the document is wanted");
    let crate::engine::document::Merge::Whole(document) = Document::default().merge(&changes[..1]) else {
        panic!("the first change merges")
    };
    bench.told(1);
    bench.feed(Event::Merged(Merged::Whole {
        document: document.clone(),
        position: Position::new(1),
    }));
    bench.settle();
    let proof = bench.take().into_iter().find_map(|effect| match effect {
        Effect::Prove { session, changes, .. } => Some((session, changes)),
        _ => None,
    });
    let (session, to_prove) = proof.expect("the second change is to be proven");
    assert!(bench.told(1).is_empty(), "nothing is acknowledged before");
    let ticket = bench.ticket;
    bench.feed(Event::Proven {
        ticket,
        session,
        holds: Some(document.carries(&to_prove)),
    });
    assert_eq!(bench.store(), [1]);
    assert_eq!(bench.told(1), ["ack 2 at 2", "diff of 1 to 2"]);
}

/// A change for each text, pasted at the front.
fn pasted(texts: &[&str]) -> Vec<Bytes> {
    let mut document = Automerge::new().with_actor(ActorId::from([1]));
    for text in texts {
        let mut transaction = document.transaction();
        let object = transaction.put_object(ROOT, "text", ObjType::Text).expect("a text");
        transaction.splice_text(&object, 0, 0, text).expect("a splice");
        transaction.commit();
    }
    changes_of(&document)
}

/// The same change with bytes behind its columns that no version of Automerge knows yet.
fn with_extra_bytes(change: &Bytes) -> Bytes {
    const BODY: usize = 10;
    assert!(
        change[BODY - 1] < 0x7f - 3,
        "the length takes one byte, before and after"
    );
    let mut longer = [&change[..], b"new"].concat();
    longer[BODY - 1] += 3;
    let hash = Sha256::digest(&longer[BODY - 2..]);
    longer[4..8].copy_from_slice(&hash[..4]);
    longer.into()
}

fn changes_of(document: &Automerge) -> Vec<Bytes> {
    document
        .get_changes(&[])
        .iter()
        .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
        .collect()
}

#[test]
fn an_edit_that_reaches_far_back_is_looked_at_where_that_may_take_long() {
    let history = typed(1, RECENT_CHANGES_MAX as usize + 50);
    let mut loaded = empty();
    for change in &history {
        let change = gate::decode(gate::read(change.clone(), &Limits::default()).unwrap()).unwrap();
        loaded.index.admit(&change, &Subject("ada".into()));
    }
    let position = loaded.index.position();
    loaded.index.settle(position);
    let mut bench = Bench::loading(Limits::default(), Tuning::default());
    bench.feed(Event::Loaded(Box::new(loaded)));
    bench.join(1);
    let Merge::Whole(document) = Document::default().merge(&history) else {
        panic!("they merge")
    };
    let old = document.automerge().get_changes(&[])[9].hash();
    let mut late = document
        .automerge()
        .fork_at(&[old])
        .unwrap()
        .with_actor(ActorId::from([2]));
    let mut transaction = late.transaction();
    transaction.put(ROOT, "late", true).unwrap();
    transaction.commit();
    let late = Bytes::copy_from_slice(late.get_last_local_change().unwrap().raw_bytes());

    bench.take();
    bench.edit(1, 1, &[late]);
    bench.settle();
    assert_eq!(kinds(&bench.take()), ["merge"], "the document is loaded for it");
    bench.feed(Event::Merged(Merged::Whole { document, position }));
    let wanted = bench.take();
    let [Effect::Reach { session, ticket }] = wanted[..] else {
        panic!("{:?}", kinds(&wanted))
    };
    bench.feed(Event::Reach { session, ticket });
    bench.settle();
    assert_eq!(kinds(&bench.take()), ["append", "compact"]);
    bench.feed(Event::Reach { session, ticket });
    assert_eq!(kinds(&bench.take()), [""; 0], "once");
}

/// Two changes that were made beside each other, in one replica: the second one's counters lie above the first one's.
fn beside_each_other(texts: [&str; 2]) -> Vec<Bytes> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([3]));
    for text in texts {
        document.isolate(&[]);
        document.put(ROOT, "last", text.len() as i64).unwrap();
        let object = document.put_object(ROOT, "text", ObjType::Text).unwrap();
        document.splice_text(&object, 0, 0, text).unwrap();
        document.commit();
        document.integrate();
    }
    let changes = document.get_changes(&[]);
    changes
        .iter()
        .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
        .collect()
}

#[test]
fn e15_a_change_that_is_numbered_after_a_refused_one_is_no_fault() {
    let limits = Limits {
        ops_per_change_max: 20,
        ..Limits::default()
    };
    let changes = beside_each_other(["more than the limit is", "short"]);
    let mut bench = Bench::open_with(limits, Tuning::default());
    (1..=2).for_each(|member| bench.join(member));
    (1..=2).for_each(|member| drop(bench.told(member)));
    bench.edit(1, 1, &changes[..1]);
    bench.edit(1, 2, &changes[1..]);
    assert_eq!(bench.told(1), ["reject 1 limit", "reject 2 after_reject"]);
    bench.take();
    bench.edit(2, 1, &changes[1..]);
    assert_eq!(
        kinds(&bench.take()),
        ["disconnect"],
        "for whom nothing was refused it is one"
    );
}
