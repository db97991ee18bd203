//! Edits out, acks and rejects in.

use super::*;

#[test]
fn e4_a_change_is_durable_only_with_its_ack() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    assert_eq!(pair.state(&document).safety, Safety::Durable);
    pair.type_quietly(&document, "a");
    assert_eq!(
        (pair.state(&document).safety, pair.state(&document).unacknowledged),
        (Safety::Local, 1)
    );
    pair.event(
        &mut server,
        Event::Edited {
            document: document.clone(),
        },
    );
    assert_eq!(
        (pair.state(&document).safety, pair.state(&document).unacknowledged),
        (Safety::Sent, 1)
    );
    pair.run(&mut server);
    assert_eq!(
        (pair.state(&document).safety, pair.state(&document).unacknowledged),
        (Safety::Durable, 0)
    );
    assert_eq!(server.changes(&document).len(), 1);
}

#[test]
fn changes_of_one_batch_go_in_one_edit() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    for _ in 0..20 {
        pair.type_quietly(&document, "a");
    }
    pair.event(
        &mut server,
        Event::Edited {
            document: document.clone(),
        },
    );
    assert_eq!(
        pair.edits().iter().map(|edit| edit.changes.len()).collect::<Vec<_>>(),
        [20]
    );
}

#[test]
fn only_so_many_edits_are_in_flight_and_the_rest_goes_together() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    for _ in 0..40 {
        pair.type_text(&mut server, &document, "a");
    }
    assert_eq!(pair.edits().len(), 16);
    pair.run(&mut server);
    assert_eq!(pair.edits().len(), 17);
    assert_eq!(server.changes(&document).len(), 40);
    assert_eq!(pair.state(&document).unacknowledged, 0);
}

#[test]
fn l3_an_edit_stays_below_the_largest_frame() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    // Text that does not deflate well, about 200 KB a change.
    let mut random = Random::new([9; 32]);
    for _ in 0..12 {
        let text: String = (0..20_000).map(|_| format!("{:016x}", random.number())).collect();
        let changed = pair
            .core
            .change(&document, CommitOptions::default(), |tx| tx.put(ROOT, "blob", text));
        changed.unwrap();
    }
    pair.event(
        &mut server,
        Event::Edited {
            document: document.clone(),
        },
    );
    let sizes: Vec<usize> = pair
        .edits()
        .iter()
        .map(|edit| ClientMessage::Edit((*edit).clone()).encode().len())
        .collect();
    assert!(
        sizes.len() > 1 && sizes.iter().all(|size| *size <= 1 << 20),
        "{sizes:?}"
    );
    pair.run(&mut server);
    assert_eq!(server.changes(&document).len(), 12);

    let large: String = (0..200_000).map(|_| format!("{:016x}", random.number())).collect();
    let refused = pair
        .core
        .change(&document, CommitOptions::default(), |tx| tx.put(ROOT, "blob", large));
    assert!(
        matches!(refused, Err(ChangeError::TooLarge { unit: "bytes", .. })),
        "{refused:?}"
    );
    assert_eq!(pair.state(&document).unacknowledged, 0);
    pair.type_text(&mut server, &document, "goes on");
    pair.run(&mut server);
    assert_eq!(
        pair.core.document(&document).unwrap().get_heads(),
        server.document(&document).get_heads()
    );
}

#[test]
fn a_change_that_fails_leaves_nothing() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    let failed = pair.core.change(&document, CommitOptions::default(), |tx| {
        append(tx, "half").unwrap();
        Err::<(), _>("no")
    });
    assert!(matches!(failed, Err(ChangeError::Failed("no"))));
    assert_eq!(pair.text(&document), "");
    let nothing = pair
        .core
        .change(&document, CommitOptions::default(), |_| Ok::<_, Infallible>(7))
        .unwrap();
    assert_eq!(nothing, Changed { hash: None, result: 7 });
}

#[test]
fn e16_a_temporary_reject_is_sent_again_after_a_backoff() {
    for code in [RejectCode::Unavailable, RejectCode::MissingDeps] {
        let (mut server, document) = (Server::default(), id("notes"));
        let mut pair = Pair::live(1, &mut server, &document);
        server.refuse = Some((code.clone(), 2));
        pair.type_text(&mut server, &document, "a");
        pair.run(&mut server);
        assert_eq!((pair.edits().len(), pair.state(&document).safety), (1, Safety::Local));
        pair.wake(&mut server);
        pair.run(&mut server);
        assert_eq!(pair.edits().len(), 2);
        pair.wake(&mut server);
        pair.run(&mut server);
        assert_eq!(
            (pair.edits().len(), pair.state(&document).safety),
            (3, Safety::Durable),
            "{code:?}"
        );
        assert_eq!(pair.state(&document).drafts, 0);
    }
}

#[test]
fn e16_after_not_open_the_document_is_opened_again() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    server.disconnect(pair.session.unwrap());
    pair.type_text(&mut server, &document, "a");
    pair.run(&mut server);
    assert_eq!(pair.opens().len(), 2);
    assert_eq!(pair.state(&document).safety, Safety::Durable);
}

#[test]
fn e17_a_refused_change_and_what_stands_on_it_become_a_draft() {
    let codes = [
        RejectCode::Forbidden,
        RejectCode::Limit,
        RejectCode::ForeignActor,
        RejectCode::AfterReject,
        RejectCode::Other("new".to_owned()),
    ];
    for code in codes {
        let (mut server, document) = (Server::default(), id("notes"));
        let mut pair = Pair::live(1, &mut server, &document);
        pair.type_text(&mut server, &document, "kept ");
        pair.run(&mut server);
        let actor = pair.core.document(&document).unwrap().get_actor().clone();
        server.refuse = Some((code.clone(), 2));
        pair.type_text(&mut server, &document, "refused ");
        pair.type_text(&mut server, &document, "and more ");
        assert_eq!(pair.text(&document), "kept refused and more ");
        pair.run(&mut server);
        assert_eq!(pair.text(&document), "kept ");
        let drafts = pair.core.take_drafts(&document);
        assert_eq!(drafts.len(), 1);
        assert_eq!((drafts[0].changes.len(), &drafts[0].code), (2, &code));
        assert_ne!(pair.core.document(&document).unwrap().get_actor(), &actor);
        pair.type_text(&mut server, &document, "on");
        pair.run(&mut server);
        assert_eq!(
            (pair.text(&document), text_of(&server.document(&document))),
            ("kept on".into(), "kept on".into())
        );
        assert_eq!(pair.state(&document).drafts, 0);
    }
}

#[test]
fn drafts_that_nobody_takes_stop_further_changes() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    server.refuse = Some((RejectCode::Limit, 1_000));
    for _ in 0..64 {
        pair.type_text(&mut server, &document, "x");
        pair.run(&mut server);
    }
    let full = pair
        .core
        .change(&document, CommitOptions::default(), |tx| append(tx, "y"));
    assert!(matches!(full, Err(ChangeError::DraftsFull(64))));
    assert_eq!(pair.core.take_drafts(&document).len(), 64);
    pair.type_text(&mut server, &document, "y");
}

#[test]
fn e14_after_an_actor_conflict_the_changes_are_made_anew() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    pair.type_text(&mut server, &document, "one ");
    pair.run(&mut server);
    // A duplicated tab writes as the same actor.
    let actor = pair.core.document(&document).unwrap().get_actor().clone();
    let stolen = written(&server, &document, actor.to_bytes(), "twin ");
    server.write(&document, stolen, &mut Vec::new());
    pair.type_text(&mut server, &document, "two ");
    pair.type_text(&mut server, &document, "three ");
    pair.run(&mut server);
    assert_eq!(pair.state(&document).safety, Safety::Durable);
    assert_eq!(pair.state(&document).drafts, 0);
    pair.cut(&mut server);
    pair.wake(&mut server);
    pair.run(&mut server);
    let text = pair.text(&document);
    assert_eq!(text, text_of(&server.document(&document)));
    assert!(
        text.contains("two three ") && text.contains("twin ") && text.starts_with("one "),
        "{text}"
    );
}

#[test]
fn e14_a_conflict_that_comes_as_a_diff_is_stepped_aside_from() {
    let (mut server, document) = (Server::default(), id("notes"));
    let mut pair = Pair::live(1, &mut server, &document);
    pair.type_text(&mut server, &document, "one ");
    pair.run(&mut server);
    let actor = pair.core.document(&document).unwrap().get_actor().clone();
    let stolen = written(&server, &document, actor.to_bytes(), "twin ");
    pair.type_quietly(&document, "two ");
    let mut frames = Vec::new();
    server.write(&document, stolen, &mut frames);
    pair.post(frames);
    pair.run(&mut server);
    let text = pair.text(&document);
    assert_eq!(text, text_of(&server.document(&document)));
    assert!(text.contains("two ") && text.contains("twin "), "{text}");
    assert_eq!(
        (pair.state(&document).safety, pair.state(&document).drafts),
        (Safety::Durable, 0)
    );
}
