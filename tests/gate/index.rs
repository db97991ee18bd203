//! The op index: what it stores, takes back, and reads from damaged bytes.

use crate::{
    decoded,
    history::{Style, document, history, replica},
    honest::admit_all,
    rng::Rng,
    somebody, verdict,
};
use automerge::{AutoCommit, Change, ObjType, ROOT, transaction::Transactable};
use syncline::engine::{
    document::Document,
    gate::{self, Subject, Verdict},
    index::{Index, RECENT_CHANGES_MAX},
};
use syncline_protocol::{Limits, Position};

fn log(seed: u64) -> Vec<Change> {
    let rng = &mut Rng::new(seed);
    let style = Style {
        writers: 1 + rng.below(5),
        steps: 20 + rng.below(100),
        marks: rng.one_in(3),
    };
    history(rng, style)
}

/// Somebody's first subject owns an actor, so the tests give every actor one of a few.
fn subject_of(change: &Change) -> Subject {
    Subject(format!("subject {}", change.actor_id().to_bytes()[0] % 3).into())
}

fn admit(index: &mut Index, change: &Change) {
    index.admit(&decoded(change.raw_bytes()).unwrap(), &subject_of(change));
}

/// As [`verdict`] would have it.
fn admit_as_somebody(index: &mut Index, change: &Change) {
    index.admit(&decoded(change.raw_bytes()).unwrap(), &somebody());
}

fn at(position: usize) -> Position {
    Position::new(position as u64)
}

#[test]
fn an_index_comes_back_as_it_was_stored() {
    for seed in 0..20 {
        let mut index = Index::default();
        assert_eq!(Index::decode(&index.encode()).unwrap().encode(), index.encode());
        for change in &log(seed) {
            admit(&mut index, change);
        }
        let stored = index.encode();
        let back = Index::decode(&stored).unwrap();
        assert_eq!(back.encode(), stored, "seed {seed}");
        assert_eq!(
            (back.position(), back.heads(), back.max_op()),
            (index.position(), index.heads(), index.max_op())
        );
        for change in &log(seed) {
            let actor = change.actor_id().to_bytes();
            assert_eq!(
                (back.owner(actor), back.last_seq(actor)),
                (index.owner(actor), index.last_seq(actor))
            );
        }
    }
}

/// The room takes changes in on what the gate has just looked up.
#[test]
fn taking_in_is_checking_and_admitting() {
    let limits = Limits::default();
    for seed in 0..10 {
        let (mut taken, mut admitted) = (Index::default(), Index::default());
        for change in &log(seed) {
            let change = &decoded(change.raw_bytes()).unwrap();
            let verdict = gate::take_in(&mut taken, None, &somebody(), change, &limits);
            assert_eq!(verdict, gate::check(&admitted, None, &somebody(), change, &limits));
            admitted.admit(change, &somebody());
            let stored = taken.encode();
            assert_eq!(stored, admitted.encode(), "seed {seed}");
            let verdict = gate::take_in(&mut taken, None, &somebody(), change, &limits);
            assert_eq!((verdict, taken.encode()), (Verdict::Known, stored), "seed {seed}");
        }
    }
}

#[test]
fn heads_are_those_of_the_document() {
    for seed in 0..20 {
        let log = log(seed);
        let mut index = Index::default();
        log.iter().for_each(|change| admit(&mut index, change));
        let heads: Vec<_> = document(&log).get_heads().iter().map(|head| head.0).collect();
        assert_eq!(index.heads().iter().map(|head| head.0).collect::<Vec<_>>(), heads);
    }
}

#[test]
fn taking_changes_back_restores_the_index_exactly() {
    for seed in 0..20 {
        let (log, rng) = (log(seed), &mut Rng::new(seed));
        let mut index = Index::default();
        let mut stored = vec![index.encode()];
        for change in &log {
            admit(&mut index, change);
            stored.push(index.encode());
        }
        for _ in 0..5 {
            let position = rng.below(log.len() + 1);
            index.rollback(at(position));
            assert_eq!(index.encode(), stored[position], "seed {seed}, back to {position}");
            for change in &log[position..] {
                admit(&mut index, change);
            }
            assert_eq!(index.encode(), stored[log.len()], "seed {seed}, again from {position}");
        }
    }
}

#[test]
fn settled_changes_are_not_taken_back() {
    let log = log(7);
    let mut index = Index::default();
    log.iter().for_each(|change| admit(&mut index, change));
    let middle = log.len() / 2;
    index.settle(at(middle));
    index.rollback(at(0));
    assert_eq!(index.position(), at(middle));
    index.settle(at(log.len()));
    assert_eq!(index.position(), at(middle));
}

#[test]
fn damaged_bytes_are_refused_or_harmless() {
    let (mut refused, mut read) = (0, 0);
    for seed in 0..20 {
        let (log, rng) = (log(seed), &mut Rng::new(seed));
        let half = log.len() / 2;
        let mut index = Index::default();
        log[..half].iter().for_each(|change| admit(&mut index, change));
        let stored = index.encode();
        let rest: Vec<_> = log[half..]
            .iter()
            .map(|change| decoded(change.raw_bytes()).unwrap())
            .collect();
        for _ in 0..500 {
            let mut damaged = stored.clone();
            for _ in 0..1 + rng.below(3) {
                let place = rng.below(damaged.len());
                damaged[place] = rng.next() as u8;
            }
            damaged.truncate(damaged.len() - rng.below(2) * rng.below(damaged.len()));
            let Ok(mut index) = Index::decode(&damaged) else {
                refused += 1;
                continue;
            };
            read += 1;
            for change in &rest {
                let _ = gate::check(&index, None, &somebody(), change, &Limits::default());
                index.admit(change, &somebody());
            }
            let _ = (index.encode(), index.heads(), index.memory_bytes());
            index.rollback(at(0));
        }
    }
    assert!(refused > 1_000 && read > 1_000, "{refused} refused, {read} read");
}

#[test]
fn typing_costs_little() {
    let mut writer = replica(1);
    let text = writer.put_object(ROOT, "text", ObjType::Text).unwrap();
    let mut index = Index::default();
    for at in 0..5_000 {
        writer.splice_text(&text, at, 0, "x").unwrap();
        admit(&mut index, &writer.get_last_local_change().unwrap());
    }
    let before = Index::default().memory_bytes();
    let of_changes = index.memory_bytes() - before;
    index.settle(index.position());
    let bytes = Index::decode(&index.encode()).unwrap().memory_bytes();
    assert!(
        bytes <= of_changes && bytes < 5_000 * 150,
        "{bytes} bytes, nearly all of it the recent changes"
    );
}

/// A writer, and an index and document with more of its changes than the index calls recent.
fn long_history() -> (AutoCommit, Index, Document) {
    let mut writer = replica(1);
    let text = writer.put_object(ROOT, "text", ObjType::Text).unwrap();
    let mut index = Index::default();
    admit_as_somebody(&mut index, &writer.get_last_local_change().unwrap());
    for n in 0..RECENT_CHANGES_MAX as usize + 200 {
        if n % 10 == 0 {
            writer.splice_text(&text, n / 10, 0, "x").unwrap();
        } else {
            writer.put(ROOT, "n", n as i64).unwrap();
        }
        admit_as_somebody(&mut index, &writer.get_last_local_change().unwrap());
    }
    index.settle(index.position());
    let document = Document::new(writer.document().clone());
    (writer, index, document)
}

#[test]
fn what_reaches_beyond_the_recent_changes_is_settled_with_the_document() {
    let (mut writer, mut index, document) = long_history();
    let history: Vec<_> = writer.get_changes(&[]);
    let check = |index: &Index, document: Option<&Document>, bytes: &[u8], expected: Verdict| {
        assert_eq!(verdict(index, document, bytes), expected);
    };
    let (old, newest) = (&history[100], history.last().unwrap());

    // A change that everybody has had for long.
    check(&index, None, old.raw_bytes(), Verdict::Distant);
    check(&index, Some(&document), old.raw_bytes(), Verdict::Known);
    check(&index, None, newest.raw_bytes(), Verdict::Known);

    // An honest edit on an old state.
    let mut offline = writer.fork_at(&[old.hash()]).unwrap().with_actor([2; 16].into());
    let text = automerge::ReadDoc::get(&offline, ROOT, "text").unwrap().unwrap().1;
    offline.splice_text(&text, 3, 0, "old").unwrap();
    let late = offline.get_last_local_change().unwrap();
    check(&index, None, late.raw_bytes(), Verdict::Distant);
    check(&index, Some(&document), late.raw_bytes(), Verdict::Vouched);

    // The same text, but behind an element that its past does not have.
    let mut forged = late.decode();
    let automerge::legacy::Key::Seq(automerge::legacy::ElementId::Id(after)) = &mut forged.operations[0].key else {
        panic!("an insertion");
    };
    after.0 = history[history.len() - 10..]
        .iter()
        .find(|change| text_op(change))
        .unwrap()
        .max_op();
    forged.start_op = std::num::NonZeroU64::new(newest.max_op() + 1).unwrap();
    let forged = Change::from(forged);
    check(&index, None, forged.raw_bytes(), Verdict::Distant);
    let Verdict::Refused(_) = verdict(&index, Some(&document), forged.raw_bytes()) else {
        panic!("refused");
    };

    // What stands on the late change is near again, though the document does not have it yet.
    admit_as_somebody(&mut index, &late);
    offline.splice_text(&text, 4, 0, "er").unwrap();
    let later = offline.get_last_local_change().unwrap();
    check(&index, None, later.raw_bytes(), Verdict::Distant);
    check(&index, Some(&document), later.raw_bytes(), Verdict::Vouched);
    writer.merge(&mut offline).unwrap();
    let unknown = automerge::ChangeHash([9; 32]);
    let mut orphan = later.decode();
    orphan.deps = vec![unknown];
    let orphan = Change::from(orphan);
    check(
        &index,
        Some(&document),
        orphan.raw_bytes(),
        Verdict::Missing(syncline_protocol::ChangeHash([9; 32])),
    );

    // The recent part is bounded, and survives being stored.
    let back = Index::decode(&index.encode()).unwrap();
    check(&back, None, later.raw_bytes(), Verdict::Distant);
    check(&back, Some(&document), later.raw_bytes(), Verdict::Vouched);
}

fn text_op(change: &Change) -> bool {
    change.decode().operations.iter().any(|op| op.insert)
}

#[test]
fn honest_histories_pass_on_an_index_read_back() {
    for seed in 0..20 {
        let log = log(seed);
        let (first, second) = log.split_at(log.len() / 2);
        let mut index = Index::default();
        admit_all(&mut index, first);
        let mut index = Index::decode(&index.encode()).unwrap();
        admit_all(&mut index, second);
        assert_eq!(index.position(), at(log.len()));
    }
}
