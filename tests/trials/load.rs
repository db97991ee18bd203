//! Load: writers with replicas of their own that keep edits under way, watchers that read, all writing down what they are
//! told, until they are told to stop or the server is gone.

use crate::{
    client::{Client, Heard},
    clock,
    journal::Journal,
    process::PATIENCE,
    rng::Rng,
};
use automerge::{ActorId, Automerge, Change, ChangeHash, ObjType, ROOT, ReadDoc, transaction::Transactable};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread::{Scope, ScopedJoinHandle},
    time::Duration,
};
use syncline_protocol::native::ServerMessage;

/// Edits of one writer that are under way at once.
const WINDOW: usize = 32;
/// Before an edit that was refused for now is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How long a watcher waits for the next message before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// An author of honest changes: keystrokes into a text of its own and keys of the root.
pub(crate) struct Author {
    replica: Automerge,
    made: u64,
}

/// Who writes what, where.
#[derive(Clone, Debug)]
pub(crate) struct Load<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) documents: &'a [String],
    pub(crate) writers_each: usize,
    pub(crate) watchers_each: usize,
    /// Pause between two edits of a writer; none means as fast as the answers come.
    pub(crate) pause: Option<Duration>,
}

impl Author {
    pub(crate) fn new(actor: &[u8]) -> Self {
        let replica = Automerge::new().with_actor(ActorId::from(actor));
        Self { replica, made: 0 }
    }

    /// The next change.
    pub(crate) fn next(&mut self) -> (ChangeHash, Bytes) {
        let name = self.replica.get_actor().to_string();
        let text = format!("text of {name}");
        let mut transaction = self.replica.transaction();
        let found = transaction.get(ROOT, &text).expect("the root is there");
        let made = match found {
            None => transaction.put_object(ROOT, &text, ObjType::Text).map(drop),
            Some(_) if self.made % 4 == 3 => {
                let key = format!("{name} {}", self.made % 16);
                transaction.put(ROOT, key, self.made as i64)
            }
            Some((_, text)) => {
                let end = transaction.length(&text);
                transaction.splice_text(&text, end, 0, "x")
            }
        };
        made.expect("the edit can be made");
        transaction.commit();
        self.made += 1;
        let change = self.replica.get_last_local_change().expect("a change was made");
        (change.hash(), Bytes::copy_from_slice(change.raw_bytes()))
    }
}

impl Author {
    /// All that it made, as it is saved.
    pub(crate) fn saved(&self) -> Bytes {
        self.replica.save().into()
    }

    /// A change that puts so many random bytes in the place of the last ones.
    pub(crate) fn large(&mut self, bytes: usize) -> Bytes {
        let mut rng = Rng::new(self.made);
        let value: Vec<u8> = (0..bytes / 8).flat_map(|_| rng.next().to_be_bytes()).collect();
        let mut transaction = self.replica.transaction();
        transaction.put(ROOT, "large", value).expect("the edit can be made");
        transaction.commit();
        self.made += 1;
        let change = self.replica.get_last_local_change().expect("a change was made");
        Bytes::copy_from_slice(change.raw_bytes())
    }
}

impl Load<'_> {
    /// Runs the load until `stop` is set or the server is gone; `meanwhile` runs beside it and sets it.
    pub(crate) fn run<T>(&self, salt: u64, journal: &Journal, meanwhile: impl FnOnce(&AtomicBool) -> T) -> T {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (place, document) in self.documents.iter().enumerate() {
                for watcher in 0..self.watchers_each {
                    let (address, stop) = (self.address, &stop);
                    spawn(scope, &format!("watcher-{watcher}"), move || {
                        watch(address, document, journal, stop);
                    });
                }
                for writer in 0..self.writers_each {
                    let (address, stop, pause) = (self.address, &stop, self.pause);
                    let actor = [salt, place as u64, writer as u64].map(u64::to_be_bytes).concat();
                    spawn(scope, &format!("writer-{writer}"), move || {
                        write(address, document, &actor, pause, journal, stop);
                    });
                }
            }
            let result = meanwhile(&stop);
            stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

/// A named thread.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn_scoped(scope, work).expect("a thread")
}

/// Waits until the journal holds so many acks. Whether it came to that.
pub(crate) fn wait_for_acks(journal: &Journal, acks: u64) -> bool {
    clock::wait_until(PATIENCE, || journal.acks() >= acks)
}

/// Edits that are not answered, by their numbers.
type Waiting = BTreeMap<u64, (ChangeHash, Bytes)>;

/// What a writer does after a message.
enum Next {
    GoOn,
    /// Send this edit again: it was refused for now.
    Again(u64),
    End,
}

/// Writes until told to stop; then waits for the answers that are still to come, unless the server takes nothing now.
fn write(
    address: SocketAddr,
    document: &str,
    actor: &[u8],
    pause: Option<Duration>,
    journal: &Journal,
    stop: &AtomicBool,
) {
    // A server that is gone is what a trial is about.
    let Ok(mut client) = Client::connect(address) else {
        return;
    };
    let Ok(joined) = client.open(document) else { return };
    let room = joined.opened.room;
    let (mut author, mut waiting, mut id) = (Author::new(actor), Waiting::new(), 0);
    loop {
        let stopping = stop.load(Ordering::Relaxed);
        if stopping && waiting.is_empty() {
            return;
        }
        if !stopping && waiting.len() < WINDOW {
            let (hash, change) = author.next();
            id += 1;
            waiting.insert(id, (hash, change.clone()));
            if client.edit(room, id, vec![change]).is_err() {
                // What was answered before the end may still lie in the socket.
                while !matches!(take(client.hear(), document, &mut waiting, journal), Next::End) {}
                return;
            }
            if let Some(pause) = pause {
                std::thread::sleep(pause);
            } else if waiting.len() < WINDOW {
                continue;
            }
        }
        match take(client.hear(), document, &mut waiting, journal) {
            Next::GoOn => {}
            Next::End => return,
            Next::Again(_) if stop.load(Ordering::Relaxed) => return,
            Next::Again(id) => {
                std::thread::sleep(AGAIN_AFTER);
                let change = waiting.get(&id).map(|(_, change)| change.clone());
                if client.edit(room, id, change.into_iter().collect()).is_err() {
                    return;
                }
            }
        }
    }
}

/// Notes what came.
fn take(heard: Heard, document: &str, waiting: &mut Waiting, journal: &Journal) -> Next {
    match heard {
        Heard::Message(ServerMessage::Ack { id, .. }) => {
            if let Some((hash, _)) = waiting.remove(&id.number()) {
                journal.acked(document, hash);
            }
            Next::GoOn
        }
        Heard::Message(ServerMessage::Reject { id, .. }) => Next::Again(id.number()),
        Heard::Message(ServerMessage::Closed { .. }) | Heard::Ended(_) | Heard::Silence => Next::End,
        Heard::Message(_) => Next::GoOn,
    }
}

fn watch(address: SocketAddr, document: &str, journal: &Journal, stop: &AtomicBool) {
    let Ok(mut client) = Client::connect(address) else {
        return;
    };
    if client.open(document).is_err() {
        return;
    }
    let mut look = LOOK;
    loop {
        match client.hear_within(look) {
            Heard::Message(ServerMessage::Diff(diff)) => {
                for change in diff.runs.iter().flat_map(|run| &run.changes) {
                    let change = Change::try_from(change.as_ref()).expect("a diff holds changes");
                    journal.seen(document, change.hash());
                }
            }
            Heard::Message(_) => {}
            Heard::Ended(_) => return,
            Heard::Silence if stop.load(Ordering::Relaxed) => return,
            Heard::Silence => look = LOOK,
        }
    }
}
