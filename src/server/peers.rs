//! The peers of the repo dialect by name: what the server calls itself, and who goes by which peer id.
//!
//! A peer id is a claim. It is held for the connection that made it; another connection of the same subject takes it over,
//! and the former one is closed, as a tab that comes back expects. Nobody takes the name of another subject's peer.

use crate::{
    engine::{gate::Subject, session::RepoServer},
    server::outbox::Outbox,
};
use dashmap::{DashMap, Entry};
use std::{fmt::Write as _, fs, io, path::Path, sync::Arc};
use syncline_protocol::{CloseCode, repo::PeerId};

/// The file in the data directory that holds the storage id.
const STORAGE_ID_FILE: &str = "storage-id";

/// Who goes by which name. At most one entry per connection.
pub struct Peers {
    server: Arc<RepoServer>,
    held: Arc<Held>,
}

#[derive(Default)]
struct Held {
    peers: DashMap<PeerId, Holder>,
    /// Whose each storage is, and on how many connections: tabs of one browser share theirs.
    storages: DashMap<String, (Subject, usize)>,
}

struct Holder {
    subject: Subject,
    outbox: Arc<Outbox>,
}

/// A name that is held until this is dropped, or taken over.
pub struct Claim {
    peer: PeerId,
    outbox: Arc<Outbox>,
    storage_id: Option<String>,
    held: Arc<Held>,
}

impl Claim {
    /// Whether the storage that was claimed with the name is held, too: another subject's is not.
    pub fn owns_storage(&self) -> bool {
        self.storage_id.is_some()
    }
}

impl Peers {
    /// Reads the storage id in the data directory, or makes one out of `random`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(directory: &Path, random: [u8; 16], unix_ms_at_zero: u64) -> io::Result<Self> {
        let path = directory.join(STORAGE_ID_FILE);
        let storage_id = match fs::read_to_string(&path) {
            Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
            Ok(_) => fresh(&path, random)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => fresh(&path, random)?,
            Err(error) => return Err(error),
        };
        let peer =
            PeerId::new(&format!("syncline-{storage_id}")).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            server: Arc::new(RepoServer {
                peer,
                storage_id,
                unix_ms_at_zero,
            }),
            held: Arc::default(),
        })
    }

    /// What the server calls itself.
    pub fn server(&self) -> Arc<RepoServer> {
        self.server.clone()
    }

    /// Holds `peer` for a connection of `subject`, and closes the one that held it; `None` if another subject's does.
    /// With it goes the storage, unless that is another subject's.
    pub fn claim(
        &self,
        peer: &PeerId,
        storage_id: Option<String>,
        subject: &Subject,
        outbox: &Arc<Outbox>,
    ) -> Option<Claim> {
        let holder = Holder {
            subject: subject.clone(),
            outbox: outbox.clone(),
        };
        match self.held.peers.entry(peer.clone()) {
            Entry::Occupied(held) if held.get().subject != *subject => return None,
            Entry::Occupied(mut held) => {
                let former = held.insert(holder);
                let text = "another connection goes by this peer id now".to_owned();
                former.outbox.close(CloseCode::GoingAway, text);
            }
            Entry::Vacant(free) => {
                free.insert(holder);
            }
        }
        Some(Claim {
            peer: peer.clone(),
            outbox: outbox.clone(),
            storage_id: storage_id.filter(|storage_id| self.held.take_storage(storage_id, subject)),
            held: self.held.clone(),
        })
    }
}

impl Held {
    fn take_storage(&self, storage_id: &str, subject: &Subject) -> bool {
        let mut held = self
            .storages
            .entry(storage_id.to_owned())
            .or_insert_with(|| (subject.clone(), 0));
        let is_ours = held.0 == *subject;
        held.1 += usize::from(is_ours);
        is_ours
    }

    fn leave_storage(&self, storage_id: &str) {
        if let Some(mut held) = self.storages.get_mut(storage_id) {
            held.1 -= 1;
        }
        self.storages
            .remove_if(storage_id, |_, (_, connections)| *connections == 0);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(storage_id) = &self.storage_id {
            self.held.leave_storage(storage_id);
        }
        self.held
            .peers
            .remove_if(&self.peer, |_, holder| Arc::ptr_eq(&holder.outbox, &self.outbox));
    }
}

/// A UUID of version 4, written beside the store. A copy of the data directory is the same storage to clients.
fn fresh(path: &Path, mut random: [u8; 16]) -> io::Result<String> {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let mut id = String::with_capacity(36);
    for (number, byte) in random.iter().enumerate() {
        if matches!(number, 4 | 6 | 8 | 10) {
            id.push('-');
        }
        // Writing to a string does not fail.
        let _ = write!(id, "{byte:02x}");
    }
    fs::write(path, &id)?;
    Ok(id)
}
