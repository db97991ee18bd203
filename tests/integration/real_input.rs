//! Real editing histories through the real server, a crash, and back.

use crate::{
    peer::{Peer, Voice},
    process::Process,
    trace::{Patch, Trace},
};
use automerge::{ActorId, Automerge, ObjId, ObjType, ROOT, ReadDoc, transaction::Transactable};
use bytes::Bytes;
use std::{collections::VecDeque, path::Path};
use syncline_protocol::{
    RoomNumber, SessionId,
    native::{Diff, ServerMessage},
};

/// Edits on their way at once: below what the server takes in one burst.
const IN_FLIGHT_MAX: u64 = 400;

#[test]
fn two_authors_write_at_once_and_a_joiner_a_crash_and_a_restart_change_nothing() {
    let trace = Trace::find("friendsforever", || Trace::two_authors(5_000));
    let directory = tempfile::tempdir().expect("a directory");
    let process = serve(directory.path());
    let mut authors = [Author::join(&process, 0), Author::join(&process, 1)];
    let begun = authors[0].begin();
    let [first, second] = &mut authors;
    second.catch_up(1);
    assert_eq!(first.text, begun);
    second.text = begun;

    let mut made = [1, 0];
    let mut number_in_chain = Vec::with_capacity(trace.steps.len());
    let mut joiner = None;
    for (number, step) in trace.steps.iter().enumerate() {
        let author = &mut authors[step.agent];
        let known = step
            .parents
            .iter()
            .filter(|parent| trace.steps[**parent].agent != step.agent);
        if let Some(last) = known.map(|parent| number_in_chain[*parent]).max() {
            author.catch_up(last);
        }
        author.edit(&step.patches);
        made[step.agent] += 1;
        number_in_chain.push(made[step.agent]);
        if number == trace.steps.len() / 2 {
            joiner = Some(Joiner::join(&process));
        }
    }
    for (author, others) in authors.iter_mut().zip([made[1], made[0]]) {
        author.catch_up(others);
        author.settle();
        assert_eq!(author.content(), trace.end);
    }
    let heads = authors[0].document.get_heads();
    let joiner = joiner.expect("it joined in the middle").finish(&heads);
    assert_eq!(content(&joiner), trace.end);

    process.kill();
    let process = serve(directory.path());
    let fourth = Peer::connect(process.address, None).open("trace", None).document();
    assert_eq!((content(&fourth), fourth.get_heads()), (trace.end, heads));
}

#[test]
fn a_long_history_is_stored_and_joined_cold_after_a_restart() {
    const KEYSTROKES_PER_CHANGE: usize = 100;
    let trace = Trace::find("automerge-paper", || Trace::one_author(20_000));
    let directory = tempfile::tempdir().expect("a directory");
    let process = serve(directory.path());
    let mut author = Author::join(&process, 0);
    author.begin();
    let patches: Vec<Patch> = trace
        .steps
        .iter()
        .flat_map(|step| step.patches.iter().cloned())
        .collect();
    for typed in patches.chunks(KEYSTROKES_PER_CHANGE) {
        author.edit(typed);
    }
    author.settle();
    let heads = author.document.get_heads();
    assert!(process.terminate().success());

    let process = serve(directory.path());
    let joined = Peer::connect(process.address, None).open("trace", None);
    let document = joined.document();
    println!(
        "cold join: {} bytes for {} keystrokes",
        joined.frame_bytes,
        patches.len()
    );
    assert_eq!((content(&document), document.get_heads()), (trace.end, heads));
    let again = Peer::connect(process.address, None).open("trace", Some(joined.cursor));
    assert!(again.bytes.is_empty(), "who has everything is sent nothing");
}

fn serve(data: &Path) -> Process {
    let limits = [
        ("SYNCLINE_LIMITS_EDITS_PER_SECOND", "1000000"),
        ("SYNCLINE_LIMITS_EDITS_BURST", "1000000"),
    ];
    Process::serve_with(data, &limits)
}

/// One author: a replica that takes in the other's changes only when told to.
struct Author {
    document: Automerge,
    text: ObjId,
    voice: Voice,
    heard: std::sync::mpsc::Receiver<ServerMessage>,
    session: SessionId,
    room: RoomNumber,
    /// The other's changes that have come and are not taken in.
    others: VecDeque<Bytes>,
    taken: usize,
    sent: u64,
    acknowledged: u64,
}

impl Author {
    fn join(process: &Process, number: u8) -> Self {
        let mut peer = Peer::connect(process.address, None);
        let joined = peer.open("trace", None);
        let (session, room) = (peer.session, joined.opened.room);
        let (voice, heard) = peer.split();
        Self {
            document: Automerge::new().with_actor(ActorId::from([number + 1; 16])),
            text: ROOT,
            voice,
            heard,
            session,
            room,
            others: VecDeque::new(),
            taken: 0,
            sent: 0,
            acknowledged: 0,
        }
    }

    /// Makes the empty text.
    fn begin(&mut self) -> ObjId {
        let mut transaction = self.document.transaction();
        self.text = transaction.put_object(ROOT, "text", ObjType::Text).expect("a text");
        transaction.commit();
        self.send();
        self.text.clone()
    }

    fn edit(&mut self, patches: &[Patch]) {
        let mut transaction = self.document.transaction();
        for Patch(position, deleted, inserted) in patches {
            transaction
                .splice_text(&self.text, *position, *deleted, inserted)
                .expect("a splice");
        }
        transaction.commit();
        self.send();
    }

    fn send(&mut self) {
        let change = self.document.get_last_local_change().expect("a change was made");
        self.sent += 1;
        self.voice
            .edit(self.room, self.sent, vec![Bytes::copy_from_slice(change.raw_bytes())]);
        while let Ok(message) = self.heard.try_recv() {
            self.hear(message);
        }
        while self.sent - self.acknowledged > IN_FLIGHT_MAX {
            self.wait();
        }
    }

    /// Takes in the other's changes up to the `count`th.
    fn catch_up(&mut self, count: usize) {
        while self.taken + self.others.len() < count {
            self.wait();
        }
        let wanted = count.saturating_sub(self.taken);
        let changes = self
            .others
            .drain(..wanted)
            .map(|bytes| bytes.to_vec())
            .collect::<Vec<_>>();
        self.taken += wanted;
        self.document
            .load_incremental(&changes.concat())
            .expect("honest changes");
    }

    /// Waits until everything sent is acknowledged.
    fn settle(&mut self) {
        while self.acknowledged < self.sent {
            self.wait();
        }
    }

    fn wait(&mut self) {
        let message = self.heard.recv().expect("the server answers");
        self.hear(message);
    }

    fn hear(&mut self, message: ServerMessage) {
        match message {
            ServerMessage::Ack { .. } => self.acknowledged += 1,
            ServerMessage::Diff(Diff { runs, .. }) => {
                let others = runs.into_iter().filter(|run| run.session != self.session);
                self.others.extend(others.flat_map(|run| run.changes));
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn content(&self) -> String {
        content(&self.document)
    }
}

/// A third client, which joins in the middle.
struct Joiner {
    document: Automerge,
    heard: std::sync::mpsc::Receiver<ServerMessage>,
    _voice: Voice,
}

impl Joiner {
    fn join(process: &Process) -> Self {
        let mut peer = Peer::connect(process.address, None);
        let document = peer.open("trace", None).document();
        let (voice, heard) = peer.split();
        Self {
            document,
            heard,
            _voice: voice,
        }
    }

    /// Takes in all that came, in one call, up to these heads.
    fn finish(mut self, heads: &[automerge::ChangeHash]) -> Automerge {
        let mut missed = Vec::new();
        while !heads
            .iter()
            .all(|head| self.document.get_change_meta_by_hash(head).is_some())
        {
            missed.clear();
            let first = self.heard.recv().expect("diffs come");
            for message in std::iter::once(first).chain(self.heard.try_iter()) {
                if let ServerMessage::Diff(diff) = message {
                    diff.runs
                        .iter()
                        .flat_map(|run| &run.changes)
                        .for_each(|change| missed.extend_from_slice(change));
                }
            }
            self.document.load_incremental(&missed).expect("honest changes");
        }
        self.document
    }
}

fn content(document: &Automerge) -> String {
    let (_, text) = document.get(ROOT, "text").expect("readable").expect("a text");
    document.text(&text).expect("a text")
}
