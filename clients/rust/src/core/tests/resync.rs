//! Coming back to a document.

use super::*;

/// A core in the room with `text` on the server, and its connection cut.
fn apart_with(server: &mut Server, document: &DocumentId, text: &str) -> Pair {
    let mut pair = Pair::live(1, server, document);
    pair.type_text(server, document, text);
    pair.run(server);
    pair.cut(server);
    pair
}

#[test]
fn o3_a_document_that_nobody_has_written_begins_with_the_first_edit() {
    let (mut server, document) = (Server::default(), id("new"));
    let mut pair = Pair::new(1);
    pair.event(
        &mut server,
        Event::Open {
            document: document.clone(),
            saved: None,
        },
    );
    pair.type_text(&mut server, &document, "made offline");
    assert_eq!(pair.state(&document).status, DocumentStatus::Opening);
    pair.event(&mut server, Event::Started);
    pair.run(&mut server);
    assert_eq!(text_of(&server.document(&document)), "made offline");
    assert!(pair.state(&document).ready);
}

#[test]
fn h4_open_goes_right_behind_hello() {
    let (mut server, document) = (Server::default(), id("a"));
    let pair = Pair::live(1, &mut server, &document);
    assert!(
        matches!(pair.sent[..2], [ClientMessage::Hello(_), ClientMessage::Open(_)]),
        "{:?}",
        pair.sent
    );
}

#[test]
fn o17_unacknowledged_edits_are_sent_again_oldest_first() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = apart_with(&mut server, &document, "one ");
    let hashes = [
        pair.type_text(&mut server, &document, "two "),
        pair.type_text(&mut server, &document, "three "),
    ];
    pair.wake(&mut server);
    assert!(pair.edits().is_empty(), "nothing before the part with end");
    pair.run(&mut server);
    assert_eq!(pair.opens()[0].cursor.unwrap().position.number(), 1);
    let sent: Vec<ChangeHash> = pair.edits()[0].changes.iter().map(|chunk| hash_of(chunk)).collect();
    assert_eq!(sent, hashes);
    assert_eq!(text_of(&server.document(&document)), "one two three ");
    assert_eq!(pair.state(&document).safety, Safety::Durable);
}

fn hash_of(chunk: &[u8]) -> ChangeHash {
    automerge::Change::try_from(chunk).unwrap().hash()
}

#[test]
fn e3_an_edit_whose_ack_was_lost_is_sent_again_and_stored_once() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    pair.type_text(&mut server, &document, "one ");
    server.sync(&mut Vec::new());
    pair.cut(&mut server);
    assert_eq!(pair.state(&document).unacknowledged, 1);
    pair.wake(&mut server);
    pair.run(&mut server);
    assert_eq!(
        (server.changes(&document).len(), pair.state(&document).safety),
        (1, Safety::Durable)
    );
}

#[test]
fn o5_a_resync_by_cursor_brings_only_what_was_missed() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = apart_with(&mut server, &document, "one ");
    let theirs = written(&server, &document, &[9], "theirs ");
    server.write(&document, theirs, &mut Vec::new());
    pair.type_quietly(&document, "two ");
    pair.wake(&mut server);
    pair.run(&mut server);
    assert_eq!(pair.text(&document), text_of(&server.document(&document)));
    assert!(pair.text(&document).contains("theirs ") && pair.text(&document).contains("two "));
    assert_eq!(pair.core.cursor(&document).unwrap().position.number(), 3);
}

#[test]
fn o6_a_whole_document_keeps_the_unacknowledged_edits() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = apart_with(&mut server, &document, "one ");
    let theirs = written(&server, &document, &[9], "theirs ");
    server.write(&document, theirs, &mut Vec::new());
    server.compact(&document);
    pair.type_quietly(&document, "two ");
    pair.wake(&mut server);
    pair.run(&mut server);
    assert_eq!(pair.text(&document), text_of(&server.document(&document)));
    assert!(pair.text(&document).contains("theirs ") && pair.text(&document).contains("two "));
    assert_eq!(pair.state(&document).safety, Safety::Durable);
}

#[test]
fn o17_after_a_change_of_epoch_everything_that_the_server_lacks_is_sent() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = apart_with(&mut server, &document, "one ");
    let theirs = written(&server, &document, &[9], "theirs ");
    server.write(&document, theirs, &mut Vec::new());
    pair.wake(&mut server);
    pair.run(&mut server);
    pair.cut(&mut server);
    pair.type_quietly(&document, "two ");
    // Back to a backup with the first change only.
    server.restore(&document, 1);
    pair.wake(&mut server);
    pair.run(&mut server);
    assert_eq!(server.changes(&document).len(), 3);
    assert_eq!(pair.text(&document), text_of(&server.document(&document)));
    assert_eq!(
        (pair.state(&document).safety, pair.state(&document).drafts),
        (Safety::Durable, 0)
    );
    // Changes of different actors do not share an edit: one refused author does not take the others along.
    assert!(pair.edits().len() >= 2);
}

#[test]
fn e8_a_gap_or_a_foreign_epoch_opens_the_document_again() {
    use syncline_protocol::native::{Diff, Run, ServerMessage};
    use syncline_protocol::{Epoch, Position};
    let check = |epoch: u64, position: u64, opens: usize| {
        let (mut server, document) = (Server::default(), id("notes"));
        let mut pair = Pair::live(1, &mut server, &document);
        pair.type_text(&mut server, &document, "one ");
        pair.run(&mut server);
        let theirs = written(&server, &document, &[9], "theirs ");
        let chunk = Bytes::copy_from_slice(theirs.raw_bytes());
        let cursor = Cursor {
            epoch: Epoch::new(epoch),
            position: Position::new(position),
        };
        let runs = vec![Run {
            session: SessionId::new(77),
            changes: vec![chunk],
        }];
        let room = RoomNumber::new(1);
        pair.event(
            &mut server,
            Event::Received(ServerMessage::Diff(Diff { room, cursor, runs }).encode()),
        );
        pair.run(&mut server);
        assert_eq!(pair.opens().len(), opens, "epoch {epoch} position {position}");
        assert!(pair.core.status() == ConnectionStatus::Connected);
    };
    check(1, 2, 1);
    check(1, 1, 1);
    check(1, 3, 2);
    check(1, 0, 2);
    check(2, 2, 2);
}

#[test]
fn e9_own_runs_are_skipped_and_count_for_the_cursor() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    for at in 1..=5 {
        pair.type_text(&mut server, &document, "x");
        pair.run(&mut server);
        assert_eq!(pair.core.cursor(&document).unwrap().position.number(), at);
    }
    assert_eq!(pair.opens().len(), 1);
}

#[test]
fn o14_other_heads_than_announced_send_for_the_whole_document() {
    let (mut server, document) = (Server::default(), id("notes"));
    let pair = apart_with(&mut server, &document, "one ");
    // The server's log is another one, but its epoch and length say nothing of it.
    let mut other = Automerge::new().with_actor(automerge::ActorId::from([4]));
    let mut tx = other.transaction();
    append(&mut tx, "other ").unwrap();
    let (hash, _) = tx.commit();
    let other = other.get_change_by_hash(&hash.unwrap()).unwrap();
    server.restore(&document, 0);
    server.write(&document, other, &mut Vec::new());
    let mut saved = pair.core.save(&document).unwrap();
    saved.cursor = saved.cursor.map(|cursor| Cursor {
        epoch: syncline_protocol::Epoch::new(2),
        ..cursor
    });
    let mut again = Pair::new(2);
    again.event(
        &mut server,
        Event::Open {
            document: document.clone(),
            saved: Some(Box::new(saved)),
        },
    );
    again.event(&mut server, Event::Started);
    again.run(&mut server);
    again.wake(&mut server);
    again.run(&mut server);
    // What only the client had is sent ([O17]); two texts at one key are a conflict that one wins.
    assert_eq!(server.changes(&document).len(), 2);
    assert_eq!(again.text(&document), text_of(&server.document(&document)));
    assert_eq!(
        again.core.document(&document).unwrap().get_heads(),
        server.document(&document).get_heads()
    );
}

#[test]
fn r2_after_a_reset_own_edits_that_went_with_it_are_made_anew() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    pair.type_text(&mut server, &document, "base ");
    pair.run(&mut server);
    let bad = written(&server, &document, &[9], "bad ");
    let mut frames = Vec::new();
    server.write(&document, bad.clone(), &mut frames);
    pair.post(frames);
    pair.run(&mut server);
    pair.type_text(&mut server, &document, "mine ");
    pair.run(&mut server);
    pair.type_quietly(&document, "unsent ");
    assert_eq!(pair.text(&document), "base bad mine unsent ");
    let mut frames = Vec::new();
    server.quarantine(&document, bad.hash(), &mut frames);
    pair.post(frames);
    pair.run(&mut server);
    assert_eq!(server.changes(&document).len(), 3);
    assert_eq!(pair.text(&document), text_of(&server.document(&document)));
    let text = pair.text(&document);
    assert!(
        text.contains("base ") && text.contains("mine ") && text.contains("unsent "),
        "{text}"
    );
    assert!(!text.contains("bad"), "{text}");
    assert_eq!(
        (pair.state(&document).safety, pair.state(&document).drafts),
        (Safety::Durable, 0)
    );
}

#[test]
fn r2_after_a_reset_sound_edits_are_renamed_exactly() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    pair.type_text(&mut server, &document, "base ");
    pair.run(&mut server);
    let bad = written(&server, &document, &[9], "bad ");
    // Made before the bad change came: it does not stand on it.
    pair.type_quietly(&document, "mine ");
    server.write(&document, bad.clone(), &mut Vec::new());
    let mut frames = Vec::new();
    server.quarantine(&document, bad.hash(), &mut frames);
    pair.post(frames);
    pair.run(&mut server);
    assert_eq!(
        (pair.text(&document), text_of(&server.document(&document))),
        ("base mine ".into(), "base mine ".into())
    );
    assert_eq!(
        (pair.state(&document).safety, pair.state(&document).drafts),
        (Safety::Durable, 0)
    );
}

#[test]
fn r2_what_cannot_be_made_anew_becomes_a_draft() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    let mut theirs = Automerge::new().with_actor(automerge::ActorId::from([9]));
    let mut tx = theirs.transaction();
    let list = tx.put_object(ROOT, "list", ObjType::List).unwrap();
    tx.insert(&list, 0, 1).unwrap();
    let (hash, _) = tx.commit();
    let bad = theirs.get_change_by_hash(&hash.unwrap()).unwrap();
    let mut frames = Vec::new();
    server.write(&document, bad.clone(), &mut frames);
    pair.post(frames);
    pair.run(&mut server);
    let changed = pair.core.change(&document, CommitOptions::default(), |tx| {
        let (_, list) = tx.get(ROOT, "list")?.expect("the list");
        tx.insert(&list, 1, 2)?;
        tx.put(ROOT, "title", "kept")
    });
    changed.unwrap();
    pair.event(
        &mut server,
        Event::Edited {
            document: document.clone(),
        },
    );
    pair.run(&mut server);
    let mut frames = Vec::new();
    server.quarantine(&document, bad.hash(), &mut frames);
    pair.post(frames);
    pair.run(&mut server);
    let present = pair.core.document(&document).unwrap();
    assert!(present.get(ROOT, "list").unwrap().is_none());
    assert_eq!(present.get(ROOT, "title").unwrap().unwrap().0.as_str(), Some("kept"));
    let drafts = pair.core.drafts(&document);
    assert_eq!((drafts.len(), drafts[0].changes.len()), (1, 1));
    assert_eq!(present.get_heads(), server.document(&document).get_heads());
}

#[test]
fn r4_after_quarantined_the_document_is_opened_anew() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    pair.type_text(&mut server, &document, "base ");
    pair.run(&mut server);
    server.refuse = Some((RejectCode::Quarantined, 1));
    pair.type_text(&mut server, &document, "bad ");
    pair.run(&mut server);
    assert_eq!(pair.opens().last().unwrap().cursor, None);
    assert_eq!(
        (pair.text(&document), pair.core.drafts(&document).len()),
        ("base ".into(), 1)
    );
    pair.type_text(&mut server, &document, "on ");
    pair.run(&mut server);
    assert_eq!(text_of(&server.document(&document)), "base on ");
}

#[test]
fn a_saved_document_goes_on_after_a_restart() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = apart_with(&mut server, &document, "one ");
    pair.type_quietly(&document, "two ");
    let saved = pair.core.save(&document).unwrap();
    let mut again = Pair::new(2);
    again.event(
        &mut server,
        Event::Open {
            document: document.clone(),
            saved: Some(Box::new(saved)),
        },
    );
    assert_eq!(
        (again.text(&document), again.state(&document).unacknowledged),
        ("one two ".into(), 1)
    );
    assert_eq!(again.state(&document).safety, Safety::Local);
    again.type_quietly(&document, "three ");
    again.event(&mut server, Event::Started);
    again.run(&mut server);
    assert_eq!(again.opens()[0].cursor.unwrap().position.number(), 1);
    assert_eq!(text_of(&server.document(&document)), "one two three ");

    let mut damaged = pair.core.save(&document).unwrap();
    damaged.document = damaged.document.slice(..damaged.document.len() / 2);
    let mut third = Pair::new(3);
    third.event(
        &mut server,
        Event::Open {
            document: document.clone(),
            saved: Some(Box::new(damaged)),
        },
    );
    third.event(&mut server, Event::Started);
    third.run(&mut server);
    assert_eq!(third.text(&document), "one two three ");
}

#[test]
fn closed_documents_answer_by_their_code() {
    use syncline_protocol::native::ServerMessage;
    let check = |code: ClosedCode, refused: bool| {
        let (mut server, document) = (Server::default(), id("notes"));
        let mut pair = Pair::live(1, &mut server, &document);
        server.disconnect(pair.session.unwrap());
        let (room, text) = (Some(RoomNumber::new(1)), String::new());
        let closed = ServerMessage::Closed {
            room,
            document: document.clone(),
            code: code.clone(),
            text,
        };
        pair.event(&mut server, Event::Received(closed.encode()));
        pair.run(&mut server);
        assert_eq!(
            matches!(pair.state(&document).status, DocumentStatus::Refused { .. }),
            refused,
            "{code:?}"
        );
        pair.type_quietly(&document, "kept");
        pair.event(
            &mut server,
            Event::Open {
                document: document.clone(),
                saved: None,
            },
        );
        pair.run(&mut server);
        assert_eq!(text_of(&server.document(&document)), "kept", "{code:?}");
    };
    check(ClosedCode::Forbidden, true);
    check(ClosedCode::Damaged, true);
    check(ClosedCode::Limit, true);
    check(ClosedCode::Other("new".to_owned()), true);
    check(ClosedCode::Unavailable, false);
    check(ClosedCode::Reset, false);
}

#[test]
fn o20_a_document_that_is_closed_before_the_answer_is_left() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::new(1);
    pair.event(&mut server, Event::Started);
    pair.event(
        &mut server,
        Event::Open {
            document: document.clone(),
            saved: None,
        },
    );
    pair.event(
        &mut server,
        Event::Close {
            document: document.clone(),
        },
    );
    pair.event(
        &mut server,
        Event::Open {
            document: document.clone(),
            saved: None,
        },
    );
    pair.run(&mut server);
    assert_eq!(pair.opens().len(), 1, "O19");
    assert!(matches!(pair.state(&document).status, DocumentStatus::Live { .. }));
    pair.event(
        &mut server,
        Event::Close {
            document: document.clone(),
        },
    );
    assert!(matches!(pair.sent.last(), Some(ClientMessage::Leave { .. })));
    pair.event(
        &mut server,
        Event::Open {
            document: document.clone(),
            saved: None,
        },
    );
    pair.event(&mut server, Event::Close { document });
    pair.run(&mut server);
    assert!(matches!(pair.sent.last(), Some(ClientMessage::Leave { .. })));
}

#[test]
fn o11_parts_may_be_bundles() {
    use syncline_protocol::native::{Base, Opened, Packing, Part, ServerMessage};
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = apart_with(&mut server, &document, "one ");
    for word in ["two ", "three ", "four "] {
        let theirs = written(&server, &document, &[9], word);
        server.write(&document, theirs, &mut Vec::new());
    }
    pair.type_quietly(&document, "mine ");
    pair.wake(&mut server);
    pair.inbox.truncate(1);
    let whole = server.document(&document);
    let missed: Vec<ChangeHash> = server.changes(&document)[1..]
        .iter()
        .map(|change| change.hash())
        .collect();
    let bytes = Bytes::copy_from_slice(whole.bundle(missed).unwrap().bytes());
    let room = RoomNumber::new(1);
    let sent = pair.opens()[0].cursor.unwrap();
    let cursor = Cursor {
        position: sent.position.plus(3),
        ..sent
    };
    let heads = whole
        .get_heads()
        .iter()
        .map(|hash| syncline_protocol::ChangeHash(hash.0))
        .collect();
    let (access, base) = (Access::Write, Base::Replica);
    let opened = Opened {
        room,
        document: document.clone(),
        access,
        heads,
        cursor,
        base,
        bytes: bytes.len() as u64,
    };
    pair.inbox.push(ServerMessage::Opened(opened).encode());
    let (packing, end) = (Packing::Plain, Some(cursor));
    pair.inbox.push(
        ServerMessage::Part(Part {
            room,
            packing,
            bytes,
            end,
        })
        .encode(),
    );
    pair.run(&mut server);
    assert_eq!(pair.opens().len(), 1);
    assert_eq!(
        (pair.text(&document), pair.state(&document).safety),
        (text_of(&server.document(&document)), Safety::Durable)
    );
    assert!(pair.text(&document).contains("three ") && pair.text(&document).contains("mine "));
}
