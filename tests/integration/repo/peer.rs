//! A peer of the repo dialect for one thread. Its replicas are synced by Automerge's own state machine.

use automerge::{
    ActorId, Automerge, ROOT, ReadDoc,
    sync::{Message as SyncMessage, MessageFlags, State, SyncDoc},
    transaction::Transactable,
};
use bytes::Bytes;
use std::{io::ErrorKind, net::TcpStream, time::Duration};
use syncline_protocol::repo::{self, Ephemeral, PeerId, PeerMetadata, RepoMessage, Sync};
use tokio_tungstenite::tungstenite::{
    self, Error, Message, WebSocket, client::IntoClientRequest, protocol::WebSocketConfig,
};

/// No message takes longer: five times what any test expects.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// The server pings a silent peer every five seconds: so many pings without a message are silence, too.
const PINGS_MAX: u32 = 12;
/// How long a peer listens that expects to hear nothing.
const SILENCE: Duration = Duration::from_millis(400);

pub(crate) struct Peer {
    socket: WebSocket<TcpStream>,
    pub(crate) id: PeerId,
    /// What the server calls itself, once it has.
    pub(crate) server: Option<PeerId>,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<u16>,
}

/// A document on the peer's side.
pub(crate) struct Replica {
    pub(crate) name: String,
    pub(crate) document: Automerge,
    state: State,
    /// Whether its sync messages are those of an Automerge that knew no flags.
    is_old: bool,
    /// Whether it takes the server for one that reads whole documents.
    is_bold: bool,
    /// Bytes of the sync messages that it took.
    pub(crate) bytes_in: usize,
    pub(crate) messages_in: usize,
    /// Whole documents that it sent.
    pub(crate) wholes_out: usize,
}

impl Peer {
    /// Connects with this query and says nothing.
    pub(crate) fn silent(address: impl std::fmt::Display, id: &str, query: &str) -> Self {
        Self::silent_with(address, id, query, None)
    }

    /// Connects with this query and this header and says nothing.
    pub(crate) fn silent_with(
        address: impl std::fmt::Display,
        id: &str,
        query: &str,
        header: Option<(&'static str, &str)>,
    ) -> Self {
        let stream = TcpStream::connect(address.to_string()).expect("a connection");
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        let url = format!("ws://{address}/sync{query}");
        let mut request = url.into_client_request().expect("a request");
        if let Some((name, value)) = header {
            let value = value.parse().expect("a header's value");
            request.headers_mut().insert(name, value);
        }
        let config = WebSocketConfig::default();
        let (socket, _) = tungstenite::client::client_with_config(request, stream, Some(config)).expect("a WebSocket");
        let id = PeerId::new(id).expect("a peer id");
        let server = None;
        Self { socket, id, server }
    }

    /// Connects and joins.
    pub(crate) fn join(address: impl std::fmt::Display, id: &str, query: &str) -> Self {
        let mut peer = Self::silent(address, id, query);
        peer.say_join();
        match peer.hear() {
            Ok(RepoMessage::Peer {
                version,
                target,
                sender,
                ..
            }) => {
                assert_eq!((version.as_str(), target.as_str()), ("1", id));
                peer.server = Some(sender);
            }
            other => panic!("no answer to join: {other:?}"),
        }
        peer
    }

    pub(crate) fn say_join(&mut self) {
        self.say(&RepoMessage::Join {
            sender: self.id.clone(),
            metadata: PeerMetadata::default(),
            versions: Some(vec!["1".to_owned()]),
        });
    }

    pub(crate) fn say(&mut self, message: &RepoMessage) {
        self.say_bytes(message.encode());
    }

    pub(crate) fn say_bytes(&mut self, frame: Bytes) {
        self.socket.send(Message::Binary(frame)).expect("the frame is sent");
    }

    /// Sends a sync message about a document.
    pub(crate) fn say_sync(&mut self, document: &str, data: Vec<u8>) {
        let sync = Sync {
            sender: self.id.clone(),
            target: None,
            document: document.to_owned(),
            data: data.into(),
        };
        self.say(&RepoMessage::Sync(sync));
    }

    /// Broadcasts something in a document, the `count`-th time in this run.
    pub(crate) fn say_ephemeral(&mut self, document: &str, count: u64, data: &[u8]) {
        self.say(&RepoMessage::Ephemeral(Ephemeral {
            sender: self.id.clone(),
            target: None,
            document: document.to_owned(),
            session: "a run".to_owned(),
            count,
            data: Bytes::copy_from_slice(data),
        }));
    }

    /// The next ephemeral message; others are dropped.
    pub(crate) fn hear_ephemeral(&mut self) -> Ephemeral {
        loop {
            match self.hear() {
                Ok(RepoMessage::Ephemeral(heard)) => return heard,
                Ok(_) => {}
                Err(ended) => panic!("the connection ended: {ended:?}"),
            }
        }
    }

    /// The next message, or how the connection ended.
    pub(crate) fn hear(&mut self) -> Result<RepoMessage, Ended> {
        self.listen().expect("the server is not silent")
    }

    /// Whether nothing comes for a while.
    pub(crate) fn hears_nothing(&mut self) -> bool {
        self.socket
            .get_ref()
            .set_read_timeout(Some(SILENCE))
            .expect("a time-out");
        let heard = self.listen();
        self.socket
            .get_ref()
            .set_read_timeout(Some(READ_TIMEOUT))
            .expect("a time-out");
        heard.is_none()
    }

    /// Whether the server pings before it says anything.
    pub(crate) fn hears_a_ping(&mut self) -> bool {
        matches!(self.socket.read(), Ok(Message::Ping(_)))
    }

    /// Reads to the end: the last message, and how the connection ended.
    pub(crate) fn hear_end(&mut self) -> (Option<RepoMessage>, Ended) {
        let mut last = None;
        loop {
            match self.hear() {
                Ok(message) => last = Some(message),
                Err(ended) => return (last, ended),
            }
        }
    }

    fn listen(&mut self) -> Option<Result<RepoMessage, Ended>> {
        let mut pings = 0;
        loop {
            match self.socket.read() {
                Ok(Message::Binary(frame)) => {
                    return Some(Ok(RepoMessage::decode(&frame).expect("a message of the server")));
                }
                Ok(Message::Close(close)) => {
                    let code = close.map(|close| close.code.into());
                    return Some(Err(Ended { code }));
                }
                Ok(_) if pings == PINGS_MAX => return None,
                Ok(_) => pings += 1,
                Err(Error::Io(error)) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return None;
                }
                Err(_) => return Some(Err(Ended { code: None })),
            }
        }
    }

    /// Syncs a replica until this holds of it; messages about anything else are dropped.
    pub(crate) fn sync_until(&mut self, replica: &mut Replica, holds: impl Fn(&Replica) -> bool) {
        self.offer(replica);
        while !holds(replica) {
            match self.hear() {
                Ok(RepoMessage::Sync(sync)) if sync.document == replica.name => {
                    replica.take(&sync.data);
                    self.offer(replica);
                }
                Ok(_) => {}
                Err(ended) => panic!("the connection ended: {ended:?}"),
            }
        }
    }

    /// Says what the replica has to say.
    pub(crate) fn offer(&mut self, replica: &mut Replica) {
        let Some(mut message) = replica.document.generate_sync_message(&mut replica.state) else {
            return;
        };
        if replica.is_old {
            message.flags = None;
        }
        let data: Bytes = message.encode().into();
        let read = repo::SyncMessage::decode(&data).expect("a sync message");
        replica.wholes_out += read.documents.len();
        let sync = Sync {
            sender: self.id.clone(),
            target: None,
            document: replica.name.clone(),
            data,
        };
        if replica.document.get_heads().is_empty() {
            self.say(&RepoMessage::Request(sync));
        } else {
            self.say(&RepoMessage::Sync(sync));
        }
    }

    /// Takes a replica to the server's heads and its own to the server.
    pub(crate) fn sync(&mut self, replica: &mut Replica) {
        self.sync_until(replica, |replica| {
            let heads = replica.document.get_heads();
            replica.messages_in > 0 && replica.state.their_heads.as_ref() == Some(&heads)
        });
    }
}

impl Replica {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            document: Automerge::new(),
            state: State::new(),
            is_old: false,
            is_bold: false,
            bytes_in: 0,
            messages_in: 0,
            wholes_out: 0,
        }
    }

    /// A replica whose sync messages have no section of flags, and which reads changes only.
    pub(crate) fn old(name: &str) -> Self {
        Self {
            is_old: true,
            ..Self::new(name)
        }
    }

    /// A replica that is sent as a whole, whatever the server announces.
    pub(crate) fn bold(name: &str) -> Self {
        Self {
            is_bold: true,
            ..Self::new(name)
        }
    }

    /// The same replica on another connection, remembering what a stored state remembers.
    pub(crate) fn reconnected(self) -> Self {
        let state = State::decode(&self.state.encode()).expect("its own state");
        Self {
            state,
            bytes_in: 0,
            messages_in: 0,
            ..self
        }
    }

    /// The same replica when nothing but the document was kept.
    pub(crate) fn forgetful(self) -> Self {
        Self {
            document: self.document,
            is_bold: self.is_bold,
            ..Self::new(&self.name)
        }
    }

    pub(crate) fn put(&mut self, actor: u8, key: &str, value: i64) {
        self.document.set_actor(ActorId::from([actor; 16]));
        let mut transaction = self.document.transaction();
        transaction.put(ROOT, key, value).expect("a put");
        transaction.commit();
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.document.get(ROOT, key).expect("a look-up").is_some()
    }

    fn take(&mut self, data: &[u8]) {
        self.bytes_in += data.len();
        self.messages_in += 1;
        assert!(!self.is_old || data[0] == 0x42, "it comes change by change");
        let mut message = SyncMessage::decode(data).expect("a sync message");
        assert!(message.flags.is_none(), "the server announces nothing");
        message.flags = self.is_bold.then(MessageFlags::new);
        self.document
            .receive_sync_message(&mut self.state, message)
            .expect("what the server sends is taken");
    }
}
