//! A bare native client for one thread: it says what a trial wants said, takes whatever comes, and never panics at a server
//! that dies.

use crate::{clock, process::PATIENCE};
use automerge::Automerge;
use bytes::Bytes;
use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};
use syncline_protocol::{
    Cursor, DocumentId, EditId, RoomNumber, SessionId,
    native::{Capability, ClientMessage, Edit, Hello, Open, Opened, Packing, Part, ServerMessage, decode_server},
};
use tokio_tungstenite::tungstenite::{self, Error, Message, WebSocket, client::IntoClientRequest, http::HeaderValue};

/// The number of the empty edits that ask for a sign of life.
const SIGN_OF_LIFE: u64 = 1 << 40;

pub(crate) type Socket = WebSocket<TcpStream>;

pub(crate) struct Client {
    pub(crate) socket: Socket,
    pub(crate) session: SessionId,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Heard<M = ServerMessage> {
    Message(M),
    /// The connection is gone, with this close code.
    Ended(Option<u16>),
    /// Nothing came in time.
    Silence,
}

/// A document as it came.
pub(crate) struct Joined {
    pub(crate) opened: Opened,
    pub(crate) bytes: Vec<u8>,
}

impl Joined {
    /// The replica that the parts make.
    ///
    /// # Errors
    /// When the bytes are no document.
    pub(crate) fn document(&self) -> Result<Automerge, String> {
        let mut document = Automerge::new();
        document
            .load_incremental(&self.bytes)
            .map_err(|error| format!("the document does not load: {error}"))?;
        Ok(document)
    }
}

impl Client {
    /// Connects and says hello without a token.
    ///
    /// # Errors
    /// When there is no welcome.
    pub(crate) fn connect(address: SocketAddr) -> Result<Self, String> {
        Self::connect_as(address, None)
    }

    /// Connects and says hello with this token.
    ///
    /// # Errors
    /// When there is no welcome.
    pub(crate) fn connect_as(address: SocketAddr, token: Option<&str>) -> Result<Self, String> {
        let mut client = Self::silent(address)?;
        client.hello(token)?;
        match client.hear() {
            Heard::Message(ServerMessage::Welcome(welcome)) => client.session = welcome.session,
            other => return Err(format!("no welcome: {other:?}")),
        }
        Ok(client)
    }

    /// Connects and says nothing.
    ///
    /// # Errors
    /// When there is no WebSocket.
    pub(crate) fn silent(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| format!("no connection: {error}"))?;
        stream.set_nodelay(true).expect("no delay");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Self::upgrade(stream, address, None)
    }

    /// Asks for a WebSocket in the native dialect on `stream`, from this origin.
    ///
    /// # Errors
    /// When it is refused.
    pub(crate) fn upgrade(stream: TcpStream, address: SocketAddr, origin: Option<&str>) -> Result<Self, String> {
        let mut request = format!("ws://{address}/sync").into_client_request().expect("a request");
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", HeaderValue::from_static("syncline.v1"));
        if let Some(origin) = origin {
            headers.insert(
                "origin",
                HeaderValue::from_str(origin).map_err(|error| error.to_string())?,
            );
        }
        let (socket, _) = tungstenite::client(request, stream).map_err(|error| error.to_string())?;
        let session = SessionId::new(0);
        Ok(Self { socket, session })
    }

    /// Says hello.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn hello(&mut self, token: Option<&str>) -> Result<(), String> {
        self.say(&ClientMessage::Hello(Hello {
            version: 1,
            token: token.map(str::to_owned),
            client: "trial".into(),
            capabilities: vec![Capability::Deflate],
        }))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn say(&mut self, message: &ClientMessage) -> Result<(), String> {
        self.say_bytes(message.encode())
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn say_bytes(&mut self, frame: Bytes) -> Result<(), String> {
        self.socket
            .send(Message::Binary(frame))
            .map_err(|error| format!("nothing can be sent: {error}"))
    }

    /// The next message, waited for as long as the slowest machine needs.
    pub(crate) fn hear(&mut self) -> Heard {
        hear(&mut self.socket, decode)
    }

    /// The next message, waited for at most so long.
    pub(crate) fn hear_within(&mut self, limit: Duration) -> Heard {
        listening_for(limit, &mut self.socket, |socket| hear(socket, decode))
    }

    /// Reads until the connection ends; messages on the way are dropped. `None` when it does not end.
    pub(crate) fn hear_end(&mut self) -> Option<Option<u16>> {
        loop {
            match self.hear() {
                Heard::Message(_) => {}
                Heard::Ended(code) => return Some(code),
                Heard::Silence => return None,
            }
        }
    }

    /// Opens a document and reads it to the end of its parts.
    ///
    /// # Errors
    /// When it is refused, or the connection ends.
    pub(crate) fn open(&mut self, document: &str) -> Result<Joined, String> {
        self.ask(document, None)?;
        self.hear_joined(document)
    }

    /// Asks for a document.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn ask(&mut self, document: &str, cursor: Option<Cursor>) -> Result<(), String> {
        self.say(&ClientMessage::Open(Open {
            document: document.parse().expect("a document id"),
            cursor,
            heads: Vec::new(),
        }))
    }

    /// Reads a document that was asked for to the end of its parts.
    ///
    /// # Errors
    /// When it is refused, or the connection ends.
    pub(crate) fn hear_joined(&mut self, document: &str) -> Result<Joined, String> {
        let document: DocumentId = document.parse().expect("a document id");
        let (mut bytes, mut opened) = (Vec::new(), None);
        loop {
            match self.hear() {
                Heard::Message(ServerMessage::Opened(answer)) if answer.document == document => opened = Some(answer),
                Heard::Message(ServerMessage::Part(part)) => {
                    bytes.extend(inflate(&part)?);
                    if part.end.is_some() {
                        let opened = opened.ok_or("a part came before opened")?;
                        return Ok(Joined { opened, bytes });
                    }
                }
                Heard::Message(ServerMessage::Closed { code, text, .. }) => {
                    return Err(format!("closed: {code} {text}"));
                }
                Heard::Message(_) => {}
                other => return Err(format!("{document} does not open: {other:?}")),
            }
        }
    }

    /// Sends changes as one edit.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn edit(&mut self, room: RoomNumber, id: u64, changes: Vec<Bytes>) -> Result<(), String> {
        let id = EditId::new(id);
        self.say(&ClientMessage::Edit(Edit { room, id, changes }))
    }

    /// Reads until an edit is answered: `ack`, the code of its refusal, or the close code of the connection.
    pub(crate) fn answer(&mut self, edit: u64) -> String {
        loop {
            match self.hear() {
                Heard::Message(ServerMessage::Ack { id, .. }) if id.number() == edit => return "ack".into(),
                Heard::Message(ServerMessage::Reject { id, code, .. }) if id.number() == edit => {
                    return code.to_string();
                }
                Heard::Message(_) => {}
                Heard::Ended(code) => return code.map_or_else(|| "gone".into(), |code| code.to_string()),
                Heard::Silence => return "silence".into(),
            }
        }
    }

    /// All that was sent before the answer to a sign of life, which is asked for now.
    ///
    /// # Errors
    /// When the connection is gone.
    pub(crate) fn hear_all(&mut self, room: RoomNumber) -> Result<Vec<ServerMessage>, String> {
        self.edit(room, SIGN_OF_LIFE, Vec::new())?;
        let mut heard = Vec::new();
        loop {
            match self.hear() {
                Heard::Message(ServerMessage::Ack { id, .. }) if id.number() == SIGN_OF_LIFE => return Ok(heard),
                Heard::Message(message) => heard.push(message),
                other => return Err(format!("no sign of life: {other:?}")),
            }
        }
    }
}

fn decode(frame: &Bytes) -> Result<ServerMessage, String> {
    decode_server(frame).map_err(|error| error.to_string())
}

/// The next message of a socket, waited for as long as the slowest machine needs.
pub(crate) fn hear<M>(socket: &mut Socket, decode: impl Fn(&Bytes) -> Result<M, String>) -> Heard<M> {
    let begun = clock::now();
    loop {
        match socket.read() {
            Ok(Message::Binary(frame)) => match decode(&frame) {
                Ok(message) => return Heard::Message(message),
                Err(error) => panic!("the server sent what is no message: {error}"),
            },
            Ok(Message::Close(close)) => return Heard::Ended(close.map(|close| close.code.into())),
            // Pings come all the time.
            Ok(_) if begun.elapsed() >= PATIENCE => return Heard::Silence,
            Ok(_) => {}
            Err(Error::Io(error)) if is_time_out(&error) => return Heard::Silence,
            Err(_) => return Heard::Ended(None),
        }
    }
}

/// What comes of this while the socket waits at most so long.
pub(crate) fn listening_for<T>(limit: Duration, socket: &mut Socket, listen: impl FnOnce(&mut Socket) -> T) -> T {
    let time_out = |socket: &Socket, limit| socket.get_ref().set_read_timeout(Some(limit));
    time_out(socket, limit).expect("a time-out");
    let heard = listen(socket);
    time_out(socket, PATIENCE).expect("a time-out");
    heard
}

fn is_time_out(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    )
}

fn inflate(part: &Part) -> Result<Vec<u8>, String> {
    match part.packing {
        Packing::Plain => Ok(part.bytes.to_vec()),
        Packing::Deflate => {
            let mut inflated = Vec::new();
            let mut inflater = flate2::read::DeflateDecoder::new(&part.bytes[..]);
            std::io::copy(&mut inflater, &mut inflated).map_err(|error| error.to_string())?;
            Ok(inflated)
        }
    }
}
