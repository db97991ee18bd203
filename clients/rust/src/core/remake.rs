//! Own changes made anew under another actor, when the server cannot take them as they are.
//!
//! [`rename`] is exact: the same operations on the same history, only the author's name differs. It needs everything below
//! the changes to be still there. [`replay`] makes the operations anew by value where part of that history is gone: what a
//! change put, inserted, deleted or incremented is done again at the same place of the fresh document, as far as that place
//! exists. Text that was inserted between elements that are gone goes to the beginning of its text; marks are not replayed.

use super::replica::{Fault, guarded};
use automerge::{
    ActorId, Automerge, AutomergeError, Change, ChangeHash, Cursor, ExpandedChange, ObjId, ObjType, Prop, ReadDoc,
    ScalarValue, Value,
    legacy::{ElementId, Key, ObjectId, Op, OpId, OpType},
    transaction::{CommitOptions, Transactable},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

/// The same changes under `actor`, of whom the document must have nothing yet; `None` if Automerge cannot take them apart.
pub(super) fn rename(changes: &[&Change], actor: &ActorId) -> Option<Vec<Change>> {
    let mine: Vec<(ActorId, RangeInclusive<u64>)> = changes
        .iter()
        .map(|change| (change.actor_id().clone(), change.start_op().get()..=change.max_op()))
        .collect();
    let renamed = |id: &OpId| -> OpId {
        let is_mine = mine
            .iter()
            .any(|(former, ops)| former == id.actor() && ops.contains(&id.counter()));
        OpId::new(id.counter(), if is_mine { actor } else { id.actor() })
    };
    let mut hashes: BTreeMap<ChangeHash, ChangeHash> = BTreeMap::new();
    let mut made = Vec::with_capacity(changes.len());
    for (seq, change) in (1..).zip(changes) {
        let anew = guarded(|| {
            let mut expanded = change.decode();
            expanded.actor_id = actor.clone();
            expanded.seq = seq;
            expanded.hash = None;
            for dep in &mut expanded.deps {
                *dep = hashes.get(dep).copied().unwrap_or(*dep);
            }
            if let Some(former) = made.last().map(Change::hash)
                && !expanded.deps.contains(&former)
            {
                expanded.deps.push(former);
            }
            expanded.deps.sort_unstable();
            for op in &mut expanded.operations {
                rename_op(op, &renamed);
            }
            Ok(Change::from(expanded))
        });
        let anew = anew.ok()?;
        hashes.insert(change.hash(), anew.hash());
        made.push(anew);
    }
    Some(made)
}

fn rename_op(op: &mut Op, renamed: &impl Fn(&OpId) -> OpId) {
    if let ObjectId::Id(id) = &mut op.obj {
        *id = renamed(id);
    }
    if let Key::Seq(ElementId::Id(id)) = &mut op.key {
        *id = renamed(id);
    }
    op.pred = op.pred.iter().map(renamed).collect();
}

/// Makes one change anew after another on a document that lacks part of what they stood on.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Where the objects and elements of replayed changes are now.
    moved: BTreeMap<(u64, ActorId), (u64, ActorId)>,
    /// What could not be made anew: operations on these objects are left out, too.
    lost: BTreeSet<(u64, ActorId)>,
}

impl Replay {
    /// `change` was made anew exactly, under `actor`.
    pub(super) fn renamed(&mut self, change: &Change, actor: &ActorId) {
        for counter in change.start_op().get()..=change.max_op() {
            self.moved
                .insert((counter, change.actor_id().clone()), (counter, actor.clone()));
        }
    }

    /// Does on `document`, under its present actor, what `change` did, as far as that is possible. After a fault the document
    /// must not be used any more.
    pub(super) fn replay(&mut self, document: &mut Automerge, change: &Change) -> Result<Replayed, Fault> {
        guarded(|| {
            let expanded = change.decode();
            let mut options = CommitOptions::default().with_time(expanded.time);
            if let Some(message) = &expanded.message {
                options.set_message(message.clone());
            }
            let mut transaction = document.transaction();
            let whole = self.operations(&mut transaction, &expanded);
            let (hash, _) = transaction.commit_with(options);
            Ok(Replayed {
                change: hash.and_then(|hash| document.get_change_by_hash(&hash)),
                whole,
            })
        })
    }

    fn operations(&mut self, transaction: &mut impl Transactable, change: &ExpandedChange) -> bool {
        let mut whole = true;
        for (counter, op) in (change.start_op.get()..).zip(&change.operations) {
            let id = (counter, change.actor_id.clone());
            match self.operation(transaction, op) {
                Ok(Some(made)) => {
                    self.moved.insert(id, made);
                }
                Ok(None) => {}
                // What is to be deleted is gone already.
                Err(_) if op.action == OpType::Delete => {}
                Err(_) => {
                    whole = false;
                    self.lost.insert(id);
                }
            }
        }
        whole
    }

    /// Does one operation; the id of the element or object that it made, if it made one.
    fn operation(
        &self,
        transaction: &mut impl Transactable,
        op: &Op,
    ) -> Result<Option<(u64, ActorId)>, AutomergeError> {
        let object = self.object(&op.obj)?;
        match (&op.key, &op.action) {
            (_, OpType::MarkBegin(_) | OpType::MarkEnd(_)) => Err(AutomergeError::Fail),
            (Key::Map(key), OpType::Make(kind)) if op.pred.is_empty() => {
                // Made where nothing was. What others have made there since is not to be hidden under an empty object.
                match transaction.get(&object, key.as_str())? {
                    Some((Value::Object(there), id)) if there == *kind => Ok(exact(&id)),
                    _ => put(transaction, &object, key.as_str().into(), &op.action),
                }
            }
            (Key::Map(key), action) => put(transaction, &object, key.as_str().into(), action),
            (Key::Seq(after), OpType::Make(kind)) if op.insert => {
                let index = self.behind(transaction, &object, after);
                Ok(exact(&transaction.insert_object(&object, index, *kind)?))
            }
            (Key::Seq(after), OpType::Put(value)) if op.insert => {
                let index = self.behind(transaction, &object, after);
                insert(transaction, &object, index, value)
            }
            (Key::Seq(element), action) => {
                let index = self.index(transaction, &object, element)?;
                put(transaction, &object, index.into(), action)
            }
        }
    }

    fn object(&self, object: &ObjectId) -> Result<ObjId, AutomergeError> {
        match object {
            ObjectId::Root => Ok(ObjId::Root),
            ObjectId::Id(id) => {
                let (counter, actor) = self.present(id)?;
                Ok(ObjId::Id(counter, actor, 0))
            }
        }
    }

    /// Where the element is; an error where it is gone.
    fn index(&self, transaction: &impl ReadDoc, object: &ObjId, element: &ElementId) -> Result<usize, AutomergeError> {
        match self.seek(transaction, object, element)? {
            (index, Some(_)) => Ok(index),
            (index, None) => Err(AutomergeError::InvalidIndex(index)),
        }
    }

    /// Where something inserted behind `element` goes.
    fn behind(&self, transaction: &impl ReadDoc, object: &ObjId, element: &ElementId) -> usize {
        match self.seek(transaction, object, element) {
            Ok((index, Some(width))) => index + width,
            Ok((index, None)) => index,
            Err(_) => 0,
        }
    }

    /// The place of `element`, and its width unless it is deleted.
    fn seek(
        &self,
        transaction: &impl ReadDoc,
        object: &ObjId,
        element: &ElementId,
    ) -> Result<(usize, Option<usize>), AutomergeError> {
        let ElementId::Id(id) = element else {
            return Ok((0, None));
        };
        let (counter, actor) = self.present(id)?;
        let name = format!("{counter}@{actor}");
        let cursor = Cursor::try_from(name.as_str())?;
        let index = guarded(|| transaction.get_cursor_position(object, &cursor, None));
        let index = index.map_err(|_| AutomergeError::InvalidCursor(cursor))?;
        let width = |value: &Value<'_>| match value.as_str() {
            Some(text) if transaction.object_type(object).is_ok_and(|kind| kind == ObjType::Text) => {
                text.chars().count()
            }
            _ => 1,
        };
        Ok((
            index,
            transaction
                .get(object, index)?
                .filter(|(_, at)| at.to_string() == name)
                .map(|(v, _)| width(&v)),
        ))
    }

    fn present(&self, id: &OpId) -> Result<(u64, ActorId), AutomergeError> {
        let id = (id.counter(), id.actor().clone());
        if self.lost.contains(&id) {
            return Err(AutomergeError::InvalidObjId(format!("{}@{}", id.0, id.1)));
        }
        Ok(self.moved.get(&id).cloned().unwrap_or(id))
    }
}

/// What came of making a change anew by value.
pub(super) struct Replayed {
    /// The change that took its place, if it still changes anything.
    pub(super) change: Option<Change>,
    /// Whether nothing of it was left out.
    pub(super) whole: bool,
}

/// Does what is done to a key or an element that exists; the id of the object that it made, if it made one.
fn put(
    transaction: &mut impl Transactable,
    object: &ObjId,
    place: Prop,
    action: &OpType,
) -> Result<Option<(u64, ActorId)>, AutomergeError> {
    match action {
        OpType::Put(value) => transaction.put(object, place, value.clone())?,
        OpType::Make(kind) => return Ok(exact(&transaction.put_object(object, place, *kind)?)),
        OpType::Delete => transaction.delete(object, place)?,
        OpType::Increment(by) => transaction.increment(object, place, *by)?,
        OpType::MarkBegin(_) | OpType::MarkEnd(_) => return Err(AutomergeError::Fail),
    }
    Ok(None)
}

fn exact(object: &ObjId) -> Option<(u64, ActorId)> {
    match object {
        ObjId::Root => None,
        ObjId::Id(counter, actor, _) => Some((*counter, actor.clone())),
    }
}

/// Inserts a value and says which element it became.
fn insert(
    transaction: &mut impl Transactable,
    object: &ObjId,
    index: usize,
    value: &ScalarValue,
) -> Result<Option<(u64, ActorId)>, AutomergeError> {
    match (transaction.object_type(object)?, value) {
        (ObjType::Text, ScalarValue::Str(text)) => transaction.splice_text(object, index, 0, text)?,
        _ => transaction.insert(object, index, value.clone())?,
    }
    let made = transaction.get(object, index)?;
    Ok(made.and_then(|(_, id)| exact(&id)))
}
