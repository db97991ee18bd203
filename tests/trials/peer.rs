//! A bare peer of the repo dialect for one thread: it says what a trial wants said, takes whatever comes, and never panics at
//! a server that dies. It keeps no replica.

use crate::{
    client::{Heard, Socket, hear, listening_for},
    load::Author,
    process::PATIENCE,
    trial::ensure,
};
use automerge::{
    Automerge, ChangeHash,
    sync::{State, SyncDoc},
};
use bytes::Bytes;
use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use syncline_protocol::repo::{
    PeerId, PeerMetadata, REPO_VERSION, RepoMessage, Sync, SyncMessage, encode_again, encode_sync,
};
use tokio_tungstenite::tungstenite::{
    self, Message,
    client::IntoClientRequest,
    http::{HeaderValue, header},
};

/// The name of the cookie that holds a token, where a server is told to look for one.
pub(crate) const COOKIE: &str = "session";
/// No document can be called so: every question about it has one answer.
const NO_DOCUMENT: &str = "no document id";

/// How a token comes with the upgrade.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Road {
    Query,
    Header,
    Cookie,
}

pub(crate) struct Peer {
    socket: Socket,
    pub(crate) id: PeerId,
}

impl Road {
    pub(crate) const ALL: [Self; 3] = [Self::Query, Self::Header, Self::Cookie];
}

impl Peer {
    /// Connects and joins, with a token or without.
    ///
    /// # Errors
    /// When the answer is no welcome.
    pub(crate) fn join(address: SocketAddr, id: &str, token: Option<(Road, &str)>) -> Result<Self, String> {
        let mut peer = Self::silent(address, id, token)?;
        peer.say_join()?;
        match peer.hear() {
            Heard::Message(RepoMessage::Peer { .. }) => Ok(peer),
            other => Err(format!("{id} is not let in: {other:?}")),
        }
    }

    /// Connects and says nothing.
    ///
    /// # Errors
    /// When there is no WebSocket.
    pub(crate) fn silent(address: SocketAddr, id: &str, token: Option<(Road, &str)>) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| format!("no connection: {error}"))?;
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let query = match token {
            Some((Road::Query, token)) => format!("?token={token}"),
            _ => String::new(),
        };
        let url = format!("ws://{address}/sync{query}");
        let mut request = url.into_client_request().expect("a request");
        let named = match token {
            Some((Road::Header, token)) => Some((header::AUTHORIZATION, format!("Bearer {token}"))),
            Some((Road::Cookie, token)) => Some((header::COOKIE, format!("theme=dark; {COOKIE}={token}"))),
            Some((Road::Query, _)) | None => None,
        };
        if let Some((name, value)) = named {
            let value = HeaderValue::from_str(&value).map_err(|error| error.to_string())?;
            request.headers_mut().insert(name, value);
        }
        let (socket, _) = tungstenite::client(request, stream).map_err(|error| error.to_string())?;
        let id = PeerId::new(id).map_err(|error| error.to_string())?;
        Ok(Self { socket, id })
    }

    /// Says who it is.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn say_join(&mut self) -> Result<(), String> {
        self.say(&RepoMessage::Join {
            sender: self.id.clone(),
            metadata: PeerMetadata::default(),
            versions: Some(vec![REPO_VERSION.into()]),
        })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn say(&mut self, message: &RepoMessage) -> Result<(), String> {
        self.say_bytes(message.encode())
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn say_bytes(&mut self, frame: Bytes) -> Result<(), String> {
        let sent = self.socket.send(Message::Binary(frame));
        sent.map_err(|error| format!("nothing can be sent: {error}"))
    }

    /// A sync message about a document in its envelope.
    pub(crate) fn envelope(&self, document: &str, data: impl Into<Bytes>) -> Sync {
        Sync {
            sender: self.id.clone(),
            target: None,
            document: document.to_owned(),
            data: data.into(),
        }
    }

    /// Sends changes of a document in one message; the last one is the head.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn offer(&mut self, document: &str, head: ChangeHash, changes: &[Bytes]) -> Result<(), String> {
        let data = offering(head, changes);
        self.say(&RepoMessage::Sync(self.envelope(document, data)))
    }

    /// The document as it is sent to somebody who has nothing of it; nothing when it is not available.
    ///
    /// # Errors
    /// When the connection ends, or what comes is no document.
    pub(crate) fn read(&mut self, document: &str) -> Result<Option<Automerge>, String> {
        let asking = Automerge::new().generate_sync_message(&mut State::new());
        let data = asking.expect("who has nothing asks").encode();
        self.say(&RepoMessage::Request(self.envelope(document, data)))?;
        loop {
            match self.hear() {
                Heard::Message(RepoMessage::DocUnavailable { document: named, .. }) if named == document => {
                    return Ok(None);
                }
                Heard::Message(RepoMessage::Sync(sync)) if sync.document == document => {
                    let mut replica = Automerge::new();
                    for chunk in chunks(&sync.data)? {
                        let loaded = replica.load_incremental(&chunk);
                        loaded.map_err(|error| format!("{document} does not load: {error}"))?;
                    }
                    return Ok(Some(replica));
                }
                Heard::Message(_) => {}
                other => return Err(format!("{document} is not answered: {other:?}")),
            }
        }
    }

    /// Reads until the server names this change as its head, which says that it is on disk.
    ///
    /// # Errors
    /// When it does not come to that.
    pub(crate) fn acked(&mut self, document: &str, head: ChangeHash) -> Result<(), String> {
        loop {
            match self.hear() {
                Heard::Message(RepoMessage::Sync(sync)) if sync.document == document => {
                    if heads(&sync.data)?.contains(&head) {
                        return Ok(());
                    }
                }
                Heard::Message(_) => {}
                other => return Err(format!("a change of {document} is not acknowledged: {other:?}")),
            }
        }
    }

    /// The changes of the next message that carries any.
    ///
    /// # Errors
    /// When none comes.
    pub(crate) fn hear_changes(&mut self) -> Result<Vec<Bytes>, String> {
        loop {
            match self.hear() {
                Heard::Message(RepoMessage::Sync(sync)) => {
                    let came = chunks(&sync.data)?;
                    if !came.is_empty() {
                        return Ok(came);
                    }
                }
                Heard::Message(_) => {}
                other => return Err(format!("no change came: {other:?}")),
            }
        }
    }

    /// All that was sent before the answer to a question that is asked now; nothing when the connection has ended.
    ///
    /// # Errors
    /// When the server is silent.
    pub(crate) fn hear_all(&mut self) -> Result<Option<Vec<RepoMessage>>, String> {
        let asked = self.say(&RepoMessage::Request(self.envelope(NO_DOCUMENT, encode_again(&[]))));
        let mut heard = Vec::new();
        loop {
            match self.hear() {
                Heard::Message(RepoMessage::DocUnavailable { document, .. }) if document == NO_DOCUMENT => {
                    return Ok(Some(heard));
                }
                Heard::Message(message) => heard.push(message),
                Heard::Ended(_) => return Ok(None),
                // A connection that nothing can be sent on may have ended unheard.
                Heard::Silence if asked.is_err() => return Ok(None),
                Heard::Silence => return Err("no sign of life".into()),
            }
        }
    }

    /// The next message, waited for as long as the slowest machine needs.
    pub(crate) fn hear(&mut self) -> Heard<RepoMessage> {
        hear(&mut self.socket, decode)
    }

    /// The next message, waited for at most so long.
    pub(crate) fn hear_within(&mut self, limit: Duration) -> Heard<RepoMessage> {
        listening_for(limit, &mut self.socket, |socket| hear(socket, decode))
    }

    /// Reads until the connection ends: the last message, and the close code.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) fn hear_end(&mut self) -> Result<(Option<RepoMessage>, Option<u16>), String> {
        let mut last = None;
        loop {
            match self.hear() {
                Heard::Message(message) => last = Some(message),
                Heard::Ended(code) => return Ok((last, code)),
                Heard::Silence => return Err("the connection does not end".into()),
            }
        }
    }
}

fn decode(frame: &Bytes) -> Result<RepoMessage, String> {
    RepoMessage::decode(frame).map_err(|error| error.to_string())
}

/// A sync message with these changes, the last of which is the head.
pub(crate) fn offering(head: ChangeHash, changes: &[Bytes]) -> Vec<u8> {
    let heads = [syncline_protocol::ChangeHash(head.0)];
    encode_sync(&heads, changes.iter().map(|change| &change[..]))
}

/// The heads that a sync message names.
///
/// # Errors
/// When it is none.
pub(crate) fn heads(data: &Bytes) -> Result<Vec<ChangeHash>, String> {
    let message = SyncMessage::decode(data).map_err(|error| error.to_string())?;
    Ok(message.heads.iter().map(|head| ChangeHash(head.0)).collect())
}

/// The documents and changes that a sync message carries.
///
/// # Errors
/// When it is none.
pub(crate) fn chunks(data: &Bytes) -> Result<Vec<Bytes>, String> {
    let message = SyncMessage::decode(data).map_err(|error| error.to_string())?;
    Ok(message.documents.into_iter().chain(message.changes).collect())
}

/// An honest pair in a document of its own, whom an attack must not hurt.
pub(crate) struct Pair {
    anna: Peer,
    ben: Peer,
    document: String,
    author: Author,
}

impl Pair {
    pub(crate) fn join(address: SocketAddr, document: &str) -> Result<Self, String> {
        let (mut anna, mut ben) = (Peer::join(address, "anna", None)?, Peer::join(address, "ben", None)?);
        for peer in [&mut anna, &mut ben] {
            ensure!(peer.read(document)?.is_none(), "{document} is there already");
        }
        let author = Author::new(&[b"pair ", document.as_bytes()].concat());
        let document = document.to_owned();
        Ok(Self {
            anna,
            ben,
            document,
            author,
        })
    }

    /// One edit, acknowledged and seen, and no other change came meanwhile.
    pub(crate) fn are_unhurt(&mut self, after: &str) -> Result<(), String> {
        let (head, change) = self.author.next();
        let told = |error| format!("after {after}: {error}");
        self.anna
            .offer(&self.document, head, std::slice::from_ref(&change))
            .map_err(told)?;
        self.anna.acked(&self.document, head).map_err(told)?;
        let came = self.ben.hear_changes().map_err(told)?;
        ensure!(came == [change], "after {after}: {} changes came", came.len());
        Ok(())
    }
}
