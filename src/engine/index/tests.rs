//! What the index says it holds is what it holds.

use super::*;
use crate::engine::gate::{decode, read};
use automerge::{Automerge, Change, ObjType, transaction::Transactable};
use syncline_protocol::Limits;

fn admit(index: &mut Index, change: &Change) {
    let header = read(change.raw_bytes().to_vec().into(), &Limits::default()).unwrap();
    index.admit(&decode(header).unwrap(), &Subject("ada".into()));
}

/// The bytes of the tables of which only the entries are counted, with the space that is set aside.
fn allocated(index: &Index) -> usize {
    let of_actors = index.actors.iter().map(|actor| {
        actor.runs.0.capacity() * size_of::<ops::Run>() + actor.objects.capacity() * size_of::<ObjectNumber>()
    });
    of_actors.sum::<usize>()
        + index.objects.capacity() * size_of::<Object>()
        + index.elements.capacity() * size_of::<GlobalOpId>()
        + index.keys.capacity() * size_of::<Arc<str>>()
}

/// A change of a few bytes can take much more space than it is long.
#[test]
fn a_change_taken_back_leaves_no_space_set_aside() {
    let mut writer = Automerge::new().with_actor([1].into());
    let mut transaction = writer.transaction();
    let list = transaction.put_object(automerge::ROOT, "list", ObjType::List).unwrap();
    transaction.commit();
    let mut index = Index::default();
    writer
        .get_changes(&[])
        .iter()
        .for_each(|change| admit(&mut index, change));
    let (position, before) = (index.position(), allocated(&index));
    let heads = writer.get_heads();
    let mut transaction = writer.transaction();
    for n in 0..5_000 {
        transaction.insert(&list, 0, n).unwrap();
        transaction.insert_object(&list, 0, ObjType::Map).unwrap();
        transaction.put(automerge::ROOT, format!("{n}"), n).unwrap();
    }
    transaction.commit();
    let change = writer.get_changes(&heads).pop().unwrap();
    for _ in 0..2 {
        admit(&mut index, &change);
        assert!(allocated(&index) > 200_000);
        index.rollback(position);
        let after = allocated(&index);
        assert!(after <= before, "{before} bytes before, {after} after");
        assert!(index.memory_bytes() < 10_000, "{}", index.memory_bytes());
    }
}
