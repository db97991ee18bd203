//! What "harmless" means: the change merges with equal bytes, saves and loads, holds at its own past and its own present,
//! every element of it can be read, and honest edits go on afterwards.

use crate::{history, rng::Rng};
use automerge::{AutoSerde, Automerge, AutomergeError, Change, ObjType, ReadDoc};
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Says what goes wrong when this change is merged into this document.
pub(crate) fn try_merge(document: &Automerge, bytes: &[u8]) -> Result<(), String> {
    let tried = catch_unwind(AssertUnwindSafe(|| merge(document, bytes)));
    tried.unwrap_or_else(|_| Err("panic".to_owned()))
}

fn merge(document: &Automerge, bytes: &[u8]) -> Result<(), String> {
    let change = Change::try_from(bytes).map_err(|error| format!("decode: {error}"))?;
    let merged = apply(document, &change).map_err(|error| format!("merge: {error}"))?;
    let past = match change.deps() {
        [] => Ok(Automerge::new()),
        deps => document
            .fork_at(deps)
            .map_err(|error| format!("fork at the past: {error}")),
    };
    apply(&past?, &change).map_err(|error| format!("merge into its past: {error}"))?;
    let present = merged
        .fork_at(&[change.hash()])
        .map_err(|error| format!("fork: {error}"))?;
    loads(&present).map_err(|error| format!("fork at the change: {error}"))?;
    let mut edited = merged.with_actor([0xee; 3].into());
    let mut rng = Rng::new(change.hash().0.iter().map(|&byte| u64::from(byte)).sum());
    (0..2).for_each(|_| history::edit(&mut edited, &mut rng, false));
    let loaded = loads(&edited).map_err(|error| format!("honest edits afterwards: {error}"))?;
    same_bytes(&loaded, &change)?;
    read_everything(&loaded).map_err(|error| format!("reading: {error}"))?;
    read_everything(&edited).map_err(|error| format!("reading: {error}"))?;
    if contents(&loaded)? == contents(&edited)? {
        Ok(())
    } else {
        Err("other contents after loading".to_owned())
    }
}

/// Applies, and compares the bytes before and after saving.
fn apply(document: &Automerge, change: &Change) -> Result<Automerge, String> {
    let mut merged = document.clone();
    merged
        .apply_changes([change.clone()])
        .map_err(|error| format!("apply: {error}"))?;
    same_bytes(&merged, change)?;
    same_bytes(&loads(&merged)?, change)?;
    Ok(merged)
}

fn loads(document: &Automerge) -> Result<Automerge, String> {
    let loaded = Automerge::load(&document.save()).map_err(|error| format!("load: {error}"))?;
    if loaded.get_heads() == document.get_heads() {
        Ok(loaded)
    } else {
        Err("other heads after loading".to_owned())
    }
}

/// All that a reader sees. Not whether a value has rivals: after a local increment Automerge 0.12 says that differently.
fn contents(document: &Automerge) -> Result<Value, String> {
    serde_json::to_value(AutoSerde::from(document)).map_err(|error| error.to_string())
}

/// Reads whatever can be asked for. Some of it panics where a whole document can still be shown.
fn read_everything(document: &Automerge) -> Result<(), AutomergeError> {
    document.hydrate(None);
    for (object, object_type) in history::objects(document) {
        match object_type {
            ObjType::Map | ObjType::Table => {
                for key in document.keys(&object) {
                    document.get(&object, &key[..])?;
                    document.get_all(&object, &key[..])?;
                }
            }
            ObjType::List | ObjType::Text => {
                for at in 0..document.length(&object) {
                    document.get(&object, at)?;
                    document.get_all(&object, at)?;
                }
            }
        }
        if object_type == ObjType::Text {
            document.text(&object)?;
            document.spans(&object)?.for_each(drop);
            document.marks(&object)?;
        }
    }
    Ok(())
}

fn same_bytes(document: &Automerge, change: &Change) -> Result<(), String> {
    match document.get_change_by_hash(&change.hash()) {
        Some(held) if held.raw_bytes() == change.raw_bytes() => Ok(()),
        Some(_) => Err("other bytes".to_owned()),
        None => Err("not in the document".to_owned()),
    }
}
