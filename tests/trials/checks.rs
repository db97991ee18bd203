//! Checks after a fault, by clients that were not there before it.

use crate::{
    client::Client,
    journal::{Promised, missing},
    load::Author,
    process::Process,
    trial::ensure,
};
use automerge::Automerge;
use std::net::SocketAddr;

/// Everything promised is there, two fresh replicas of each document are equal, and each takes a further edit.
pub(crate) fn holds(process: &Process, promised: &Promised, salt: u64) -> Result<(), String> {
    for (document, hashes) in promised {
        let mut anna = Client::connect(process.address)?;
        let joined = anna.open(document)?;
        let replica = joined.document()?;
        let lost = missing(&replica, hashes);
        ensure!(
            lost == 0,
            "{document}: {lost} of {} promised changes are lost",
            hashes.len()
        );
        let other = Client::connect(process.address)?.open(document)?.document()?;
        ensure!(
            replica.get_heads() == other.get_heads(),
            "{document}: two replicas differ"
        );
        let (_, change) = Author::new(&[b"check", salt.to_be_bytes().as_slice()].concat()).next();
        anna.edit(joined.opened.room, 1, vec![change])?;
        let answer = anna.answer(1);
        ensure!(
            answer == "ack",
            "{document}: an honest edit afterwards is answered with {answer}"
        );
    }
    Ok(())
}

/// How many changes that were promised are lost, all documents together.
pub(crate) fn lost(address: SocketAddr, promised: &Promised) -> Result<usize, String> {
    let mut lost = 0;
    for (document, hashes) in promised {
        lost += missing(&Client::connect(address)?.open(document)?.document()?, hashes);
    }
    Ok(lost)
}

/// How many changes of an actor a replica holds.
pub(crate) fn written_by(replica: &Automerge, actor: &[u8]) -> usize {
    let changes = replica.get_changes(&[]);
    changes
        .iter()
        .filter(|change| change.actor_id().to_bytes() == actor)
        .count()
}

/// An honest pair in a document of its own, whom an attack must not hurt.
pub(crate) struct Witnesses {
    anna: Client,
    ben: Client,
    room: syncline_protocol::RoomNumber,
    author: Author,
    edits: u64,
}

impl Witnesses {
    pub(crate) fn join(address: SocketAddr, token: Option<&str>, document: &str) -> Result<Self, String> {
        let mut anna = Client::connect_as(address, token)?;
        let mut ben = Client::connect_as(address, token)?;
        let room = anna.open(document)?.opened.room;
        ben.open(document)?;
        let author = Author::new(&[b"witness ", document.as_bytes()].concat());
        Ok(Self {
            anna,
            ben,
            room,
            author,
            edits: 0,
        })
    }

    /// One edit, acknowledged and seen, and nothing else came meanwhile. How many milliseconds it took.
    pub(crate) fn are_unhurt(&mut self, after: &str) -> Result<f64, String> {
        use crate::client::Heard;
        use syncline_protocol::native::ServerMessage;
        self.edits += 1;
        let (_, change) = self.author.next();
        let begun = crate::clock::now();
        self.anna.edit(self.room, self.edits, vec![change.clone()])?;
        let answer = self.anna.answer(self.edits);
        ensure!(
            answer == "ack",
            "after {after}: an honest edit is answered with {answer}"
        );
        let ms = begun.ms();
        loop {
            match self.ben.hear() {
                Heard::Message(ServerMessage::Diff(diff)) => {
                    let came: Vec<_> = diff.runs.iter().flat_map(|run| &run.changes).collect();
                    ensure!(came == [&change], "after {after}: {} changes came besides", came.len());
                    return Ok(ms);
                }
                Heard::Message(_) => {}
                other => return Err(format!("after {after}: the other member heard {other:?}")),
            }
        }
    }
}
