//! What is loaded: the relay, Syncline or a rival, behind one [`Link`] that sends edits and says what came.

use super::{
    peer::Peer,
    socket::Socket,
    store_base,
    ysync::{EMPTY_STATE, Flavour, YSync},
};
use crate::{
    edits::{Base, author, split_chunks},
    yjs,
};
use anyhow::{Context, bail, ensure};
use bytes::{Bytes, BytesMut};
use rustls::ClientConfig;
use std::{net::SocketAddr, sync::Arc};
use syncline_protocol::{
    ChangeHash, Cursor, DocumentId, EditId, RoomNumber, SUBPROTOCOL, SessionId, VERSION,
    native::{Capability, ClientMessage, Edit, Hello, Open, Packing, Part, ServerMessage, decode_server},
};

/// What is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Target {
    /// The bare relay.
    Relay,
    /// Syncline.
    Syncline,
    /// Hocuspocus with its SQLite extension.
    Hocuspocus,
    /// @y/websocket-server with its LevelDB persistence.
    YWebsocket,
    /// Y-Sweet on a directory.
    YSweet,
    /// automerge-repo-sync-server with its directory.
    AutomergeRepo,
    /// samod on a directory.
    Samod,
}

/// The two that are always compared, in the order in which they are loaded.
pub(crate) const TARGETS: [Target; 2] = [Target::Relay, Target::Syncline];

/// One member of one room.
pub(crate) struct Link {
    /// The connection.
    pub(crate) socket: Socket,
    speech: Speech,
}

enum Speech {
    Yjs {
        speech: YSync,
        /// As which writer this member sends; some servers send its own edits back.
        writer: Option<usize>,
    },
    Repo(Peer),
    Relay {
        /// As which writer this member sends; its own edits coming back are its acknowledgements.
        writer: Option<usize>,
    },
    Syncline {
        room: RoomNumber,
        session: SessionId,
        /// The beginning of a chunk whose end has not come.
        catching_up: BytesMut,
    },
}

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// Somebody else's change.
    Change(Bytes),
    /// My edit with this number is accepted: stored by Syncline, sent to all by the relay.
    Acknowledged(u64),
    /// The server caught this member up from its log.
    CaughtUp,
}

/// A document as a joining member is sent it.
#[derive(Default)]
pub(crate) struct Joined {
    /// The parts, in order.
    pub(crate) parts: Vec<Part>,
    /// Where the replica stands then.
    pub(crate) cursor: Cursor,
    /// The heads there.
    pub(crate) heads: Vec<ChangeHash>,
}

impl Target {
    /// For tables and files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Syncline => "syncline",
            Self::Hocuspocus => "hocuspocus",
            Self::YWebsocket => "y-websocket",
            Self::YSweet => "y-sweet",
            Self::AutomergeRepo => "automerge-repo",
            Self::Samod => "samod",
        }
    }

    /// For people.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Relay => "bare relay",
            Self::Syncline => "Syncline",
            Self::Hocuspocus => "Hocuspocus",
            Self::YWebsocket => "@y/websocket-server",
            Self::YSweet => "Y-Sweet",
            Self::AutomergeRepo => "automerge-repo-sync-server",
            Self::Samod => "samod",
        }
    }

    /// Whether it answers an edit. Where it does not, an edit counts when another member has it.
    pub(crate) fn acknowledges(self) -> bool {
        matches!(self, Self::Relay | Self::Syncline)
    }

    /// How it speaks, if its documents are Yjs's.
    pub(crate) fn yjs(self) -> Option<Flavour> {
        match self {
            Self::Hocuspocus => Some(Flavour::Hocuspocus),
            Self::YWebsocket => Some(Flavour::Plain),
            Self::YSweet => Some(Flavour::YSweet),
            Self::Relay | Self::Syncline | Self::AutomergeRepo | Self::Samod => None,
        }
    }

    /// Makes the document that the edits stand on. A bare relay has none.
    pub(crate) async fn begin(self, address: SocketAddr, room: &str, base: &Base) -> anyhow::Result<()> {
        match self {
            Self::Relay => Ok(()),
            Self::Syncline => store_base(address, room, base).await,
            Self::Hocuspocus | Self::YWebsocket | Self::YSweet => {
                let flavour = self.yjs().context("it speaks another dialect")?;
                let (mut socket, speech) = YSync::connect(address, flavour, room).await?;
                base.changes.iter().for_each(|update| speech.queue(&mut socket, update));
                // What is asked behind it is answered behind it.
                speech.catch_up(&mut socket, EMPTY_STATE).await.map(drop)
            }
            Self::AutomergeRepo | Self::Samod => {
                let (mut socket, mut peer) = Peer::connect(address, room).await?;
                peer.store(&mut socket, &base.changes).await
            }
        }
    }

    /// A member of `room`, ready to send; `writer` if it will edit.
    pub(crate) async fn join(self, address: SocketAddr, room: &str, writer: Option<usize>) -> anyhow::Result<Link> {
        match self {
            Self::Relay => Ok(Link {
                socket: Socket::connect(address, &format!("/{room}"), None).await?,
                speech: Speech::Relay { writer },
            }),
            Self::Syncline => {
                let mut link = Link::greet(address, Vec::new()).await?;
                link.open(room, None, Vec::new()).await?;
                Ok(link)
            }
            Self::Hocuspocus | Self::YWebsocket | Self::YSweet => {
                let flavour = self.yjs().context("it speaks another dialect")?;
                let (mut socket, speech) = YSync::connect(address, flavour, room).await?;
                speech.catch_up(&mut socket, EMPTY_STATE).await?;
                let speech = Speech::Yjs { speech, writer };
                Ok(Link { socket, speech })
            }
            Self::AutomergeRepo | Self::Samod => {
                let (mut socket, mut peer) = Peer::connect(address, room).await?;
                peer.find(&mut socket).await?;
                let speech = Speech::Repo(peer);
                Ok(Link { socket, speech })
            }
        }
    }
}

impl Link {
    /// A connection to Syncline that is admitted and has nothing open.
    pub(crate) async fn greet(address: SocketAddr, capabilities: Vec<Capability>) -> anyhow::Result<Self> {
        let socket = Socket::connect(address, "/sync", Some(SUBPROTOCOL)).await?;
        Self::hello(socket, capabilities).await
    }

    /// As [`Link::greet`], over TLS.
    pub(crate) async fn greet_tls(address: SocketAddr, config: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let socket = Socket::connect_tls(address, "/sync", Some(SUBPROTOCOL), config).await?;
        Self::hello(socket, Vec::new()).await
    }

    async fn hello(mut socket: Socket, capabilities: Vec<Capability>) -> anyhow::Result<Self> {
        let hello = ClientMessage::Hello(Hello {
            version: VERSION,
            token: None,
            client: "syncline-bench".to_owned(),
            capabilities,
        });
        socket.queue(&hello.encode());
        socket.flush().await?;
        let ServerMessage::Welcome(welcome) = server_message(&mut socket).await? else {
            bail!("the first message is not the welcome");
        };
        Ok(Self {
            socket,
            speech: Speech::Syncline {
                room: RoomNumber::default(),
                session: welcome.session,
                catching_up: BytesMut::new(),
            },
        })
    }

    /// Opens a document on a greeted link, and reads to its end.
    pub(crate) async fn open(
        &mut self,
        document: &str,
        cursor: Option<Cursor>,
        heads: Vec<ChangeHash>,
    ) -> anyhow::Result<Joined> {
        let document: DocumentId = document.parse().context("not a document id")?;
        self.socket.queue(
            &ClientMessage::Open(Open {
                document,
                cursor,
                heads,
            })
            .encode(),
        );
        self.socket.flush().await?;
        let mut joined = Joined::default();
        loop {
            match server_message(&mut self.socket).await? {
                ServerMessage::Opened(opened) => {
                    joined.heads = opened.heads;
                    let Speech::Syncline { room, .. } = &mut self.speech else {
                        bail!("only Syncline opens documents");
                    };
                    *room = opened.room;
                }
                ServerMessage::Part(part) => {
                    let end = part.end;
                    joined.parts.push(part);
                    if let Some(cursor) = end {
                        joined.cursor = cursor;
                        return Ok(joined);
                    }
                }
                other => bail!("not an answer to open: {other:?}"),
            }
        }
    }

    /// Queues changes as one edit.
    pub(crate) fn queue_edit(&mut self, id: u64, changes: &[Bytes]) {
        let socket = &mut self.socket;
        match &mut self.speech {
            Speech::Yjs { speech, .. } => changes.iter().for_each(|update| speech.queue(socket, update)),
            Speech::Repo(peer) => changes.iter().for_each(|change| peer.queue(socket, change)),
            Speech::Relay { .. } => changes.iter().for_each(|change| socket.queue(change)),
            Speech::Syncline { room, .. } => {
                let edit = Edit {
                    room: *room,
                    id: EditId::new(id),
                    changes: changes.to_vec(),
                };
                socket.queue(&ClientMessage::Edit(edit).encode());
            }
        }
    }

    /// Queues a presence state.
    pub(crate) fn queue_presence(&mut self, state: Bytes) {
        if let Speech::Syncline { room, .. } = &self.speech {
            let state = Some(state);
            self.socket
                .queue(&ClientMessage::Presence { room: *room, state }.encode());
        }
    }

    /// Sends an edit and waits until it is accepted; what else comes is dropped.
    pub(crate) async fn store(&mut self, id: u64, changes: &[Bytes]) -> anyhow::Result<()> {
        self.queue_edit(id, changes);
        self.socket.flush().await?;
        let mut accepted = false;
        while !accepted {
            self.socket.fill().await?;
            self.each(|came| {
                accepted |= came == Came::Acknowledged(id);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives everything that has arrived whole to `on`.
    pub(crate) fn each(&mut self, mut on: impl FnMut(Came) -> anyhow::Result<()>) -> anyhow::Result<()> {
        while let Some(message) = self.socket.message()? {
            match &mut self.speech {
                Speech::Yjs { speech, writer } => {
                    speech.each(&mut self.socket, &message, &mut |typed| match yjs::author(&typed) {
                        Some((author, _)) if Some(author) == *writer => Ok(()),
                        _ => on(Came::Change(typed)),
                    })?
                }
                Speech::Repo(peer) => peer.each(&mut self.socket, &message, &mut |change| on(Came::Change(change)))?,
                Speech::Relay { writer } => match author(&message) {
                    Some((author, place)) if Some(author) == *writer => on(Came::Acknowledged(place as u64))?,
                    _ => on(Came::Change(message))?,
                },
                Speech::Syncline {
                    session, catching_up, ..
                } => each_of(decode_server(&message)?, *session, catching_up, &mut on)?,
            }
        }
        Ok(())
    }
}

fn each_of(
    message: ServerMessage,
    session: SessionId,
    catching_up: &mut BytesMut,
    on: &mut impl FnMut(Came) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    match message {
        ServerMessage::Diff(diff) => {
            for run in diff.runs.into_iter().filter(|run| run.session != session) {
                run.changes
                    .into_iter()
                    .try_for_each(|change| on(Came::Change(change)))?;
            }
        }
        ServerMessage::Ack { id, .. } => on(Came::Acknowledged(id.number()))?,
        ServerMessage::Part(part) => {
            ensure!(part.packing == Packing::Plain, "a deflated part was not asked for");
            catching_up.extend_from_slice(&part.bytes);
            for chunk in split_chunks(catching_up)? {
                on(Came::Change(chunk))?;
            }
            on(Came::CaughtUp)?;
        }
        ServerMessage::Presence { .. } | ServerMessage::Signal { .. } => {}
        other => bail!("the server said {other:?}"),
    }
    Ok(())
}

async fn server_message(socket: &mut Socket) -> anyhow::Result<ServerMessage> {
    loop {
        if let Some(message) = socket.message()? {
            return match decode_server(&message)? {
                ServerMessage::Error { code, text } => bail!("error {code}: {text}"),
                message => Ok(message),
            };
        }
        socket.fill().await?;
    }
}
