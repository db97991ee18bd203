//! A bare native client for one thread: it says what a test wants said, and keeps no replica of its own.

use crate::running::native;
use automerge::{ActorId, Automerge, ROOT, transaction::Transactable};
use bytes::Bytes;
use std::{
    io::Write,
    net::TcpStream,
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};
use syncline_protocol::{
    Cursor, DocumentId, EditId, RoomNumber, SessionId,
    native::{
        Access, Capability, ClientMessage, Diff, Edit, Hello, Open, Opened, Packing, Part, ServerMessage, Welcome,
        decode_server,
    },
};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, protocol::Role};

/// No message takes longer: five times what any test expects.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Messages that a split peer keeps for its owner: more than any test makes.
const HEARD_MAX: usize = 200_000;

/// The number of the empty edits that [`Peer::hear_all`] sends.
const SIGN_OF_LIFE: u64 = 1 << 40;

pub(crate) struct Peer {
    socket: WebSocket<TcpStream>,
    pub(crate) session: SessionId,
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<u16>,
}

/// A document as it came: what `opened` said, and all bytes of its parts, inflated.
pub(crate) struct Joined {
    pub(crate) opened: Opened,
    pub(crate) bytes: Vec<u8>,
    /// Bytes of the frames that brought it.
    pub(crate) frame_bytes: usize,
    /// How each part was packed, and its size inflated.
    pub(crate) parts: Vec<(Packing, usize)>,
    pub(crate) cursor: Cursor,
}

impl Joined {
    pub(crate) fn document(&self) -> Automerge {
        let mut document = Automerge::new();
        document
            .load_incremental(&self.bytes)
            .expect("parts hold Automerge chunks");
        document
    }
}

impl Peer {
    /// Connects and says hello with this token.
    pub(crate) fn connect(address: impl std::fmt::Display, token: Option<&str>) -> Self {
        let mut peer = Self::silent(address);
        peer.hello(token, vec![Capability::Deflate]);
        peer.hear_welcome();
        peer
    }

    /// Says hello with this token and these capabilities.
    pub(crate) fn hello(&mut self, token: Option<&str>, capabilities: Vec<Capability>) {
        self.say(&ClientMessage::Hello(Hello {
            version: 1,
            token: token.map(str::to_owned),
            client: "test".into(),
            capabilities,
        }));
    }

    /// Reads the welcome, which is the next message.
    pub(crate) fn hear_welcome(&mut self) -> Welcome {
        match self.hear() {
            Ok(ServerMessage::Welcome(welcome)) => {
                self.session = welcome.session;
                welcome
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    /// Connects and says nothing.
    pub(crate) fn silent(address: impl std::fmt::Display) -> Self {
        let stream = TcpStream::connect(address.to_string()).expect("a connection");
        Self::on(stream, address)
    }

    /// Upgrades a connection that is there, and says nothing.
    pub(crate) fn on(stream: TcpStream, address: impl std::fmt::Display) -> Self {
        stream.set_read_timeout(Some(READ_TIMEOUT)).expect("a time-out");
        stream.set_nodelay(true).expect("no delay");
        let (socket, _) = native(&format!("ws://{address}/sync"), stream).expect("a WebSocket");
        Self {
            socket,
            session: SessionId::new(0),
        }
    }

    pub(crate) fn say(&mut self, message: &ClientMessage) {
        self.say_bytes(message.encode());
    }

    pub(crate) fn say_bytes(&mut self, frame: Bytes) {
        self.socket.send(Message::Binary(frame)).expect("the frame is sent");
    }

    /// Sends bytes below WebSocket.
    pub(crate) fn say_raw(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).expect("the bytes are sent");
    }

    /// Waits for something to hear, and leaves it where it is.
    pub(crate) fn wait_for_bytes(&self) {
        let begun = self.socket.get_ref().peek(&mut [0]).expect("the server says something");
        assert_eq!(begun, 1, "the server has hung up");
    }

    /// The next message, or how the connection ended.
    pub(crate) fn hear(&mut self) -> Result<ServerMessage, Ended> {
        self.hear_sized().map(|(message, _)| message)
    }

    fn hear_sized(&mut self) -> Result<(ServerMessage, usize), Ended> {
        loop {
            match self.socket.read() {
                Ok(Message::Binary(frame)) => {
                    return Ok((decode_server(&frame).expect("a message of the server"), frame.len()));
                }
                Ok(Message::Close(close)) => {
                    return Err(Ended {
                        code: close.map(|close| close.code.into()),
                    });
                }
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    panic!("the server is silent")
                }
                Err(_) => return Err(Ended { code: None }),
            }
        }
    }

    /// Reads until the connection ends; messages on the way are dropped.
    pub(crate) fn hear_end(&mut self) -> Ended {
        loop {
            if let Err(ended) = self.hear() {
                return ended;
            }
        }
    }

    /// Reads until an `error` with this code comes, and with the next message the close with it.
    pub(crate) fn hear_refusal(&mut self, refused: u16) -> String {
        loop {
            match self.hear() {
                Ok(ServerMessage::Error { code, text }) => {
                    let end = self.hear().expect_err("the close follows");
                    assert_eq!((code, end.code), (refused, Some(refused)), "{text}");
                    return text;
                }
                Ok(_) => {}
                Err(end) => panic!("it ended without an error: {end:?}"),
            }
        }
    }

    /// Opens a document and reads it to the end of its parts.
    pub(crate) fn open(&mut self, document: &str, cursor: Option<Cursor>) -> Joined {
        self.ask(document, cursor);
        self.hear_joined(document)
    }

    /// Asks to open a document.
    pub(crate) fn ask(&mut self, document: &str, cursor: Option<Cursor>) {
        self.say(&ClientMessage::Open(Open {
            document: document.parse().expect("a document id"),
            cursor,
            heads: Vec::new(),
        }));
    }

    /// Reads a document that was asked for to the end of its parts.
    pub(crate) fn hear_joined(&mut self, document: &str) -> Joined {
        let document: DocumentId = document.parse().expect("a document id");
        let (mut bytes, mut frame_bytes, mut opened, mut parts) = (Vec::new(), 0, None, Vec::new());
        loop {
            let (message, size) = self.hear_sized().expect("the document opens");
            match message {
                ServerMessage::Opened(answer) if answer.document == document => {
                    frame_bytes += size;
                    opened = Some(answer);
                }
                ServerMessage::Part(part) => {
                    frame_bytes += size;
                    let inflated = inflate(&part);
                    parts.push((part.packing, inflated.len()));
                    bytes.extend(inflated);
                    if let Some(cursor) = part.end {
                        let opened = opened.expect("opened comes before its parts");
                        return Joined {
                            opened,
                            bytes,
                            frame_bytes,
                            parts,
                            cursor,
                        };
                    }
                }
                ServerMessage::Closed { code, text, .. } => panic!("closed: {code} {text}"),
                _ => {}
            }
        }
    }

    /// Sends changes as one edit.
    pub(crate) fn edit(&mut self, room: RoomNumber, id: u64, changes: Vec<Bytes>) {
        self.say(&ClientMessage::Edit(Edit {
            room,
            id: EditId::new(id),
            changes,
        }));
    }

    /// Reads until an edit is answered: its cursor, or the code of its refusal.
    pub(crate) fn hear_answer(&mut self, edit: u64) -> Result<Cursor, String> {
        loop {
            match self.hear().expect("the edit is answered") {
                ServerMessage::Ack { id, cursor, .. } if id.number() == edit => return Ok(cursor),
                ServerMessage::Reject { id, code, .. } if id.number() == edit => return Err(code.to_string()),
                _ => {}
            }
        }
    }

    /// All that was sent before the answer to a sign of life, which is asked for now.
    pub(crate) fn hear_all(&mut self, room: RoomNumber) -> Vec<ServerMessage> {
        self.edit(room, SIGN_OF_LIFE, Vec::new());
        let mut heard = Vec::new();
        loop {
            match self.hear().expect("a sign of life is answered") {
                ServerMessage::Ack { id, .. } if id.number() == SIGN_OF_LIFE => return heard,
                message => heard.push(message),
            }
        }
    }

    /// From now on a thread hears, however slow this one is. Meant for less than the server's ping interval of silence.
    pub(crate) fn split(mut self) -> (Voice, Receiver<ServerMessage>) {
        let stream = self.socket.get_ref().try_clone().expect("a second handle");
        let voice = Voice(WebSocket::from_raw_socket(stream, Role::Client, None));
        let (tell, heard) = sync_channel(HEARD_MAX);
        let hear = move || {
            while let Ok(message) = self.hear() {
                if tell.send(message).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new()
            .name("peer".into())
            .spawn(hear)
            .expect("a thread");
        (voice, heard)
    }

    /// Reads until a diff comes.
    pub(crate) fn hear_diff(&mut self) -> Diff {
        loop {
            if let ServerMessage::Diff(diff) = self.hear().expect("a diff comes") {
                return diff;
            }
        }
    }
}

/// The speaking half of a peer whose hearing half runs on a thread of its own.
pub(crate) struct Voice(WebSocket<TcpStream>);

impl Voice {
    /// Sends changes as one edit.
    pub(crate) fn edit(&mut self, room: RoomNumber, id: u64, changes: Vec<Bytes>) {
        let edit = ClientMessage::Edit(Edit {
            room,
            id: EditId::new(id),
            changes,
        });
        self.0.send(Message::Binary(edit.encode())).expect("the frame is sent");
    }
}

impl Drop for Voice {
    fn drop(&mut self) {
        // Ends the hearing thread; the server may have ended the connection already.
        let _ = self.0.get_ref().shutdown(std::net::Shutdown::Both);
    }
}

/// The bytes of the document in a part.
pub(crate) fn inflate(part: &Part) -> Vec<u8> {
    match part.packing {
        Packing::Plain => part.bytes.to_vec(),
        Packing::Deflate => {
            let mut inflated = Vec::new();
            let mut inflater = flate2::read::DeflateDecoder::new(&part.bytes[..]);
            std::io::copy(&mut inflater, &mut inflated).expect("a part inflates");
            inflated
        }
    }
}

/// A document of one actor, and the changes that make it.
pub(crate) fn counted(actor: u8, keys: u32) -> (Automerge, Vec<Bytes>) {
    let mut document = Automerge::new().with_actor(ActorId::from([actor]));
    for key in 0..keys {
        let mut transaction = document.transaction();
        transaction
            .put(ROOT, format!("{actor}-{key}"), i64::from(key))
            .expect("a put");
        transaction.commit();
    }
    let changes = document.get_changes(&[]);
    let changes = changes
        .iter()
        .map(|change| Bytes::copy_from_slice(change.raw_bytes()))
        .collect();
    (document, changes)
}

/// Whether the peer may write the document it joined.
pub(crate) fn may_write(joined: &Joined) -> bool {
    joined.opened.access == Access::Write
}
