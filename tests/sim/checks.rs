//! What must hold when everything has come to rest.

use crate::{
    faults::{hashes, stored},
    ledger::words_in,
    load,
    world::World,
};
use automerge::{
    AutoSerde, Automerge, Change,
    legacy::{Key, OpType},
};
use std::collections::BTreeMap;
use syncline_client::core::Draft;
use syncline_protocol::DocumentId;

/// Looks at everything.
pub(crate) fn everything(world: &mut World) {
    for client in &mut world.clients {
        client.take_drafts(&mut world.context);
    }
    for (number, document) in world.context.plan.documents.clone().into_iter().enumerate() {
        if let Err(what) = document_is_whole(world, number, &document) {
            world.context.violated(what);
        }
    }
}

fn document_is_whole(world: &World, number: usize, document: &DocumentId) -> Result<(), String> {
    let stored = stored(&world.disk, document, &world.context)?;
    let json = json(&stored);
    for (index, client) in world.clients.iter().enumerate() {
        let core = client.core().ok_or_else(|| format!("client {index} is down"))?;
        let replica = core
            .document(document)
            .ok_or_else(|| format!("client {index} lacks {document}"))?;
        if replica.get_heads() != stored.get_heads() {
            return Err(format!("client {index} has other heads of {document} than the disk"));
        }
        if self::json(replica) != json {
            return Err(format!("client {index} shows another {document} than the disk"));
        }
    }
    let account = world.context.ledger.account(document);
    let held = hashes(&stored);
    let lost = account
        .promised
        .difference(&account.thrown_out)
        .find(|hash| !held.contains(*hash));
    if let Some(hash) = lost {
        return Err(format!(
            "a change of {document} is lost that somebody was told of: {hash:?}"
        ));
    }
    words_are_there(world, number, &stored)
}

/// Each word is there once, unless somebody deleted it; what was thrown out or refused, its author has made anew or kept.
fn words_are_there(world: &World, number: usize, stored: &Automerge) -> Result<(), String> {
    let context = &world.context;
    let document = &context.plan.documents[number];
    let account = context.ledger.account(document);
    let mut found: BTreeMap<usize, usize> = BTreeMap::new();
    for text in load::texts(stored) {
        for word in words_in(&text) {
            *found.entry(word).or_default() += 1;
        }
    }
    for (number, word) in context
        .ledger
        .words
        .iter()
        .enumerate()
        .filter(|(_, word)| word.document == number)
    {
        let count = found.remove(&number).unwrap_or(0);
        let client = &world.clients[word.client];
        // Made anew after a reset that a backup knows nothing of, it is there twice, too.
        let reset_undone = account.restored && !account.thrown_out.is_empty();
        if count > 1 && !word.restored && !reset_undone {
            return Err(format!("<{number}> is {count} times in {document}"));
        }
        if word.forbidden && count > 0 {
            return Err(format!("<{number}> of a reader is in {document}"));
        }
        if count > 0 || word.deleted {
            continue;
        }
        let own = word.life == client.life;
        let promised = account.promised.contains(&word.hash) && !account.thrown_out.contains(&word.hash);
        let kept = || {
            client
                .drafts()
                .iter()
                .any(|(of, draft)| of == document && holds(draft, number))
        };
        if promised || (own && !kept()) {
            let how = if promised {
                "though it was promised"
            } else {
                "and its author never gave it up"
            };
            return Err(format!(
                "<{number}> of client {} is lost from {document}, {how}",
                word.client
            ));
        }
    }
    match found.keys().next() {
        Some(word) => Err(format!("<{word}> is in {document}, where nobody wrote it")),
        None => Ok(()),
    }
}

/// Whether a draft holds the word.
fn holds(draft: &Draft, word: usize) -> bool {
    let mut text = String::new();
    for chunk in &draft.changes {
        let Ok(change) = Change::try_from(&chunk[..]) else {
            continue;
        };
        for op in change.decode().operations {
            if let Key::Map(key) = &op.key {
                text.push_str(key);
            }
            if let OpType::Put(value) = &op.action {
                text.push_str(value.as_str().unwrap_or_default());
            }
        }
    }
    words_in(&text).any(|found| found == word)
}

fn json(document: &Automerge) -> serde_json::Value {
    serde_json::to_value(AutoSerde::from(document)).expect("a document is JSON")
}
