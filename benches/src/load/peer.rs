//! What automerge-repo's server speaks, with a peer that keeps no document: it knows its heads from the changes that come.

use super::socket::Socket;
use anyhow::bail;
use automerge::Automerge;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};
use syncline_protocol::{
    ChangeHash,
    repo::{PeerId, PeerMetadata, REPO_VERSION, RepoMessage, Sync, SyncMessage, base58check, encode_sync},
};

/// What ends a sync message whose sender takes documents whole, as Automerge's clients do: two capabilities, versions 1 and 2.
const CAPABILITIES: &[u8] = &[2, 1, 2];
/// Magic bytes, checksum, kind.
const CHUNK_HEAD_BYTES: usize = 9;

/// A member of one document.
#[derive(Debug)]
pub(crate) struct Peer {
    me: PeerId,
    server: PeerId,
    document: String,
    heads: BTreeSet<ChangeHash>,
    /// Every change that came or went.
    known: BTreeSet<ChangeHash>,
}

impl Peer {
    /// A connection that has greeted, with nothing known of the document.
    pub(crate) async fn connect(address: SocketAddr, room: &str) -> anyhow::Result<(Socket, Self)> {
        static PEERS: AtomicU64 = AtomicU64::new(0);
        let me = PeerId::new(&format!("bench-{}", PEERS.fetch_add(1, Ordering::Relaxed)))?;
        let mut socket = Socket::connect(address, "/", None).await?;
        let join = RepoMessage::Join {
            sender: me.clone(),
            metadata: PeerMetadata {
                storage_id: None,
                is_ephemeral: true,
            },
            versions: Some(vec![REPO_VERSION.to_owned()]),
        };
        socket.queue(&join.encode());
        let server = loop {
            socket.fill().await?;
            if let Some(message) = socket.message()? {
                match RepoMessage::decode(&message)? {
                    RepoMessage::Peer { sender, .. } => break sender,
                    other => bail!("not an answer to join: {other:?}"),
                }
            }
        };
        let peer = Self {
            me,
            server,
            document: document_id(room),
            heads: BTreeSet::new(),
            known: BTreeSet::new(),
        };
        Ok((socket, peer))
    }

    /// Asks for the document, and reads until it has come.
    pub(crate) async fn find(&mut self, socket: &mut Socket) -> anyhow::Result<()> {
        self.queue_sync(socket, true, &[]);
        loop {
            socket.fill().await?;
            while let Some(message) = socket.message()? {
                if let Some(sync) = self.sync(&message)?.filter(|sync| !sync.heads.is_empty()) {
                    self.known.extend(
                        changes_in(&sync)?
                            .iter()
                            .filter_map(|change| Some(hash_and_deps(change)?.0)),
                    );
                    self.heads = sync.heads.into_iter().collect();
                    if !sync.changes.is_empty() || !sync.documents.is_empty() {
                        self.queue_sync(socket, false, &[]);
                        return socket.flush().await;
                    }
                }
            }
        }
    }

    /// Asks for what stands above `heads`, and reads until it has come.
    pub(crate) async fn catch_up(&mut self, socket: &mut Socket, heads: &[ChangeHash]) -> anyhow::Result<()> {
        self.heads = heads.iter().copied().collect();
        self.find(socket).await
    }

    /// Asks with all that the server has, and reads until it says so.
    pub(crate) async fn find_from(&mut self, socket: &mut Socket, heads: &[ChangeHash]) -> anyhow::Result<()> {
        self.heads = heads.iter().copied().collect();
        self.queue_sync(socket, true, &[]);
        self.equal(socket).await
    }

    /// Sends changes, the document's first ones or edits, and reads until the server has them.
    pub(crate) async fn store(&mut self, socket: &mut Socket, changes: &[Bytes]) -> anyhow::Result<()> {
        for change in changes {
            self.take(change);
        }
        self.queue_sync(socket, false, changes);
        self.equal(socket).await
    }

    /// Reads until the server's heads are those of this peer.
    async fn equal(&self, socket: &mut Socket) -> anyhow::Result<()> {
        loop {
            socket.fill().await?;
            while let Some(message) = socket.message()? {
                let sync = self.sync(&message)?;
                if sync.is_some_and(|sync| sync.heads.into_iter().collect::<BTreeSet<_>>() == self.heads) {
                    return Ok(());
                }
            }
        }
    }

    /// Queues an edit.
    pub(crate) fn queue(&mut self, socket: &mut Socket, change: &Bytes) {
        self.take(change);
        self.queue_sync(socket, false, std::slice::from_ref(change));
    }

    /// Gives every change in a message to `on`, and says that they are here.
    pub(crate) fn each(
        &mut self,
        socket: &mut Socket,
        message: &Bytes,
        on: &mut impl FnMut(Bytes) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Some(sync) = self.sync(message)? else { return Ok(()) };
        let mut came = changes_in(&sync)?;
        came.retain(|change| self.take(change));
        if !came.is_empty() {
            self.queue_sync(socket, false, &[]);
        }
        came.into_iter().try_for_each(on)
    }

    /// What a message says of this document.
    fn sync_data(&self, message: &Bytes) -> anyhow::Result<Option<Bytes>> {
        match RepoMessage::decode(message)? {
            RepoMessage::Sync(sync) | RepoMessage::Request(sync) if sync.document == self.document => {
                Ok(Some(sync.data))
            }
            RepoMessage::DocUnavailable { .. } => bail!("the server says that it has not got the document"),
            RepoMessage::Error { message, .. } => bail!("the server says: {message}"),
            _ => Ok(None),
        }
    }

    fn send(&self, socket: &mut Socket, asks: bool, data: Vec<u8>) {
        let sync = Sync {
            sender: self.me.clone(),
            target: Some(self.server.clone()),
            document: self.document.clone(),
            data: data.into(),
        };
        let message = if asks {
            RepoMessage::Request(sync)
        } else {
            RepoMessage::Sync(sync)
        };
        socket.queue(&message.encode());
    }

    fn sync(&self, message: &Bytes) -> anyhow::Result<Option<SyncMessage>> {
        let data = self.sync_data(message)?;
        Ok(data.map(|data| SyncMessage::decode(&data)).transpose()?)
    }

    fn queue_sync(&self, socket: &mut Socket, asks: bool, changes: &[Bytes]) {
        let heads: Vec<_> = self.heads.iter().copied().collect();
        let mut data = encode_sync(&heads, changes.iter().map(|change| &change[..]));
        data.extend_from_slice(CAPABILITIES);
        self.send(socket, asks, data);
    }

    /// The heads with one more change; whether it is new. What is no change is none of the load's, and fails the run where it is
    /// recognised.
    fn take(&mut self, change: &[u8]) -> bool {
        let Some((hash, deps)) = hash_and_deps(change) else {
            return true;
        };
        if !self.known.insert(hash) {
            return false;
        }
        for dep in deps {
            self.heads.remove(&dep);
        }
        self.heads.insert(hash);
        true
    }
}

/// The changes that a message brings. Newer Automerge sends the whole document rather than more than a third of its changes.
fn changes_in(sync: &SyncMessage) -> anyhow::Result<Vec<Bytes>> {
    let mut changes = sync.changes.clone();
    for document in &sync.documents {
        let whole = Automerge::load(document)?.get_changes(&[]);
        changes.extend(whole.into_iter().map(|mut change| change.bytes().to_vec().into()));
    }
    Ok(changes)
}

/// A change's name is the hash of all behind its checksum.
fn hash_and_deps(change: &[u8]) -> Option<(ChangeHash, Vec<ChangeHash>)> {
    let hash = ChangeHash(Sha256::digest(change.get(CHUNK_HEAD_BYTES - 1..)?).into());
    let mut rest = change.get(CHUNK_HEAD_BYTES..)?;
    crate::yjs::take_number(&mut rest).ok()?;
    let deps = usize::try_from(crate::yjs::take_number(&mut rest).ok()?).ok()?;
    let deps = rest.get(..deps.checked_mul(32)?)?;
    Some((hash, deps.as_chunks().0.iter().map(|hash| ChangeHash(*hash)).collect()))
}

/// A document id of automerge-repo's own form, the same for the same room: a UUID and a checksum in base 58.
fn document_id(room: &str) -> String {
    let mut name: [u8; 32] = Sha256::digest(room).into();
    // Version and variant of a random UUID; it takes no other.
    name[6] = name[6] & 0x0f | 0x40;
    name[8] = name[8] & 0x3f | 0x80;
    base58check(&name[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edits::{Base, Edits, Sight};
    use automerge::Change;

    #[test]
    fn a_change_is_named_as_automerge_names_it() {
        let edits = Edits::prepare(&Base::empty_text().unwrap(), 2, 3, Sight::Behind(1));
        let bytes = edits.edit(1, 2).unwrap();
        let change = Change::from_bytes(bytes.to_vec()).unwrap();
        let (hash, deps) = hash_and_deps(bytes).unwrap();
        assert_eq!(hash.0, change.hash().0);
        let expected: Vec<_> = change.deps().iter().map(|dep| ChangeHash(dep.0)).collect();
        assert_eq!(deps, expected);
    }

    #[test]
    fn a_document_id_has_its_form() {
        // As bs58check writes it.
        assert_eq!(document_id("paced"), "255fBXnkmrtSRQWXYRKogChAzxfP");
        assert_ne!(document_id("paced"), document_id("other"));
    }
}
