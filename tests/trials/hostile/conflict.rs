//! Row 16: two tabs write with one actor, so that one seq stands for two changes.

use crate::{
    checks,
    client::Client,
    journal::Journal,
    load::Author,
    trial::{Bite, Figure, Outcome, Row, Trial, ensure},
};
use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};
use bytes::Bytes;

pub(crate) const ROW: Row = Row {
    number: "16",
    name: "one actor's seq used twice",
    target: "the second refused with a clear code; nothing splits",
    ci: 1,
    soak: 20,
    run,
    bites: &[Bite {
        name: "what is refused is acknowledged",
        environment: &[("SYNCLINE_FAILPOINTS", "ack_refused")],
        count: 1,
    }],
};

const ACTOR: &[u8] = b"a duplicated tab";

fn run(trial: &Trial) -> Outcome {
    let data = trial.directory("store");
    let process = trial.setup(&data).start()?;
    let journal = Journal::create(&trial.scratch.join("journal"));
    let count = trial.rounds(|round, _| {
        let document = format!("notes-{round}");
        let (mut anna, mut ben) = (Client::connect(process.address)?, Client::connect(process.address)?);
        let room = anna.open(&document)?.opened.room;
        ben.open(&document)?;
        let (hash, first) = Author::new(ACTOR).next();
        let twin = twin();
        anna.edit(room, 1, vec![first])?;
        ensure!(anna.answer(1) == "ack", "the first was not taken");
        journal.acked(&document, hash);
        for (id, change) in (1..).zip(twin) {
            ben.edit(room, id, vec![change])?;
            let expected = if id == 1 { "actor_conflict" } else { "after_reject" };
            let answer = ben.answer(id);
            ensure!(answer == expected, "change {id} of the twin is answered with {answer}");
        }
        let (hash, own) = Author::new(b"ben, under a new actor").next();
        ben.edit(room, 10, vec![own])?;
        ensure!(ben.answer(10) == "ack", "the twin cannot go on under a new actor");
        journal.acked(&document, hash);
        let heads = Client::connect(process.address)?
            .open(&document)?
            .document()?
            .get_heads();
        ensure!(heads.len() == 2, "the document has {} heads", heads.len());
        Ok(())
    })?;
    process.kill();
    let process = trial.setup(&data).start()?;
    checks::holds(&process, &journal.promised(), 0)?;
    let text = "actor_conflict, then after_reject; a new actor goes on".into();
    Ok(Figure { count, text })
}

/// Two changes of the same actor that know nothing of the first tab's.
fn twin() -> Vec<Bytes> {
    let mut document = Automerge::new().with_actor(ActorId::from(ACTOR));
    for text in ["x", "y"] {
        let mut transaction = document.transaction();
        transaction.put(ROOT, "other", text).expect("a put");
        transaction.commit();
    }
    let changes = document.get_changes(&[]);
    changes
        .iter()
        .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
        .collect()
}
