//! The client's end of a WebSocket, no more than a load generator needs: it must cost less than the server that it loads.
//!
//! Binary messages. Those that go out go in one frame each, masked with zeros (which changes nothing, and is what RFC 6455 asks of a
//! client that has nobody to protect); those that come in may come in pieces. Pings are answered.

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// What a read may take at least.
const READ_BYTES_MIN: usize = 2 << 10;
const READ_BYTES: usize = 16 << 10;
const HANDSHAKE_BYTES_MAX: usize = 8 << 10;
/// A message that comes in pieces may not be longer than this.
const PIECED_BYTES_MAX: usize = 256 << 20;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// One connection.
pub(crate) struct Socket {
    stream: Stream,
    input: BytesMut,
    output: BytesMut,
    /// The message that comes in pieces, as far as it has come.
    pieces: Option<BytesMut>,
    /// Bytes read after the handshake, frame headers included.
    pub(crate) bytes_in: u64,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// Connects and upgrades.
    pub(crate) async fn connect(address: SocketAddr, path: &str, subprotocol: Option<&str>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        Self::upgrade(Stream::Plain(stream), address, path, subprotocol).await
    }

    /// Connects to `localhost` by TLS, and upgrades.
    pub(crate) async fn connect_tls(
        address: SocketAddr,
        path: &str,
        subprotocol: Option<&str>,
        config: &Arc<ClientConfig>,
    ) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").context("not a name")?;
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await;
        let stream = Stream::Tls(Box::new(stream.context("no TLS")?));
        Self::upgrade(stream, address, path, subprotocol).await
    }

    async fn upgrade(
        stream: Stream,
        address: SocketAddr,
        path: &str,
        subprotocol: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut socket = Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            pieces: None,
            bytes_in: 0,
        };
        let protocol = subprotocol.map_or_else(String::new, |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{protocol}\r\n"
        );
        socket.output.extend_from_slice(request.as_bytes());
        socket.flush().await?;
        let end = loop {
            socket.fill().await?;
            if let Some(at) = socket.input.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            ensure!(
                socket.input.len() < HANDSHAKE_BYTES_MAX,
                "the answer to the upgrade has no end"
            );
        };
        let head = socket.input.split_to(end);
        let status = String::from_utf8_lossy(&head);
        ensure!(
            status.starts_with("HTTP/1.1 101 "),
            "the upgrade was refused: {}",
            status.trim()
        );
        socket.bytes_in = socket.input.len() as u64;
        Ok(socket)
    }

    /// Queues a binary message; [`Socket::flush`] sends it.
    pub(crate) fn queue(&mut self, payload: &[u8]) {
        self.frame_out(BINARY, payload);
    }

    /// Sends what is queued. It may be dropped while it waits.
    pub(crate) async fn flush(&mut self) -> anyhow::Result<()> {
        while !self.output.is_empty() {
            let written = self.stream.write(&self.output).await.context("cannot send")?;
            ensure!(written > 0, "the server takes nothing more");
            self.output.advance(written);
        }
        self.stream.flush().await.context("cannot send")
    }

    /// Sends what is queued, and reads once. It may be dropped while it waits.
    pub(crate) async fn fill(&mut self) -> anyhow::Result<()> {
        if !self.output.is_empty() {
            self.flush().await?;
        }
        if self.input.capacity() - self.input.len() < READ_BYTES_MIN {
            self.input.reserve(READ_BYTES);
        }
        let read = self.stream.read(&mut self.input).await.context("cannot read")?;
        ensure!(read > 0, "the server ended the connection");
        self.bytes_in += read as u64;
        Ok(())
    }

    /// The next message that has arrived whole.
    pub(crate) fn message(&mut self) -> anyhow::Result<Option<Bytes>> {
        while let Some((first, payload)) = self.frame_in()? {
            match (first & 0x0f, first & FIN != 0) {
                (BINARY, true) if self.pieces.is_none() => return Ok(Some(payload)),
                (BINARY, false) if self.pieces.is_none() => self.pieces = Some(BytesMut::from(&payload[..])),
                (CONTINUATION, last) => {
                    if let Some(whole) = self.piece(&payload, last)? {
                        return Ok(Some(whole));
                    }
                }
                (BINARY, _) => bail!("a message began before the one in pieces had ended"),
                (PING, true) => self.frame_out(PONG, &payload),
                (PONG, true) => {}
                (CLOSE, true) => {
                    let (code, reason) = payload.split_at(payload.len().min(2));
                    bail!("closed by the server: {code:?} {}", String::from_utf8_lossy(reason));
                }
                (_, false) => bail!("a frame that this reader does not know"),
                (other, true) => bail!("a frame of kind {other} came"),
            }
        }
        Ok(None)
    }

    /// Puts one more piece to those before it; the message, if it was the last.
    fn piece(&mut self, payload: &[u8], last: bool) -> anyhow::Result<Option<Bytes>> {
        let mut pieces = self.pieces.take().context("a piece of no message came")?;
        ensure!(
            pieces.len() + payload.len() <= PIECED_BYTES_MAX,
            "a message in pieces is longer than {PIECED_BYTES_MAX} bytes"
        );
        pieces.extend_from_slice(payload);
        if last {
            return Ok(Some(pieces.freeze()));
        }
        self.pieces = Some(pieces);
        Ok(None)
    }

    /// The next frame that has arrived whole: its first byte and its payload.
    fn frame_in(&mut self) -> anyhow::Result<Option<(u8, Bytes)>> {
        let [first, second, ..] = self.input[..] else {
            return Ok(None);
        };
        ensure!(second & MASKED == 0, "a frame that this reader does not know");
        let (head, length) = match (second, &self.input[2..]) {
            (126, [a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, rest) if rest.len() >= 8 => (10, (&rest[..8]).get_u64()),
            (126 | 127, _) => return Ok(None),
            (short, _) => (2, u64::from(short)),
        };
        let length = usize::try_from(length)?;
        if self.input.len() < head + length {
            self.input.reserve(head + length - self.input.len());
            return Ok(None);
        }
        self.input.advance(head);
        Ok(Some((first, self.input.split_to(length).freeze())))
    }

    fn frame_out(&mut self, opcode: u8, payload: &[u8]) {
        self.output.put_u8(FIN | opcode);
        match payload.len() {
            short @ 0..=125 => self.output.put_u8(MASKED | short as u8),
            middle @ 126..=0xffff => {
                self.output.put_u8(MASKED | 126);
                self.output.extend_from_slice(&(middle as u16).to_be_bytes());
            }
            long => {
                self.output.put_u8(MASKED | 127);
                self.output.extend_from_slice(&(long as u64).to_be_bytes());
            }
        }
        self.output.extend_from_slice(&[0; 4]);
        self.output.extend_from_slice(payload);
    }
}

impl Stream {
    async fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes).await,
            Self::Tls(stream) => stream.write(bytes).await,
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush().await,
        }
    }

    async fn read(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(into).await,
            Self::Tls(stream) => stream.read_buf(into).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A socket whose server has sent these bytes.
    async fn received(bytes: &[u8]) -> Socket {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let stream = TcpStream::connect(address).await.expect("it listens");
        Socket {
            stream: Stream::Plain(stream),
            input: BytesMut::from(bytes),
            output: BytesMut::new(),
            pieces: None,
            bytes_in: 0,
        }
    }

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, payload.len() as u8], payload].concat()
    }

    #[tokio::test]
    async fn a_message_in_pieces_is_put_together_around_a_ping() {
        let frames = [
            frame(BINARY, b"one "),
            frame(CONTINUATION, b"and "),
            frame(FIN | PING, b"?"),
            frame(FIN | CONTINUATION, b"two"),
            frame(FIN | BINARY, b"three"),
        ];
        let mut socket = received(&frames[..3].concat()).await;
        assert_eq!(socket.message().expect("these are frames"), None);
        assert_eq!(socket.output[..], [FIN | PONG, MASKED | 1, 0, 0, 0, 0, b'?']);
        socket.input.extend_from_slice(&frames[3..].concat());
        for whole in [&b"one and two"[..], b"three"] {
            assert_eq!(socket.message().expect("these are frames").as_deref(), Some(whole));
        }
        assert_eq!(socket.message().expect("there is nothing"), None);
    }

    #[tokio::test]
    async fn pieces_out_of_order_are_refused() {
        let refused = [
            frame(FIN | CONTINUATION, b"of nothing"),
            [frame(BINARY, b"one"), frame(FIN | BINARY, b"two")].concat(),
            [frame(BINARY, b"one"), frame(BINARY, b"two")].concat(),
            frame(PING, b"in pieces"),
        ];
        for frames in refused {
            let mut socket = received(&frames).await;
            assert!(socket.message().is_err(), "{frames:?}");
        }
    }

    #[tokio::test]
    async fn a_message_in_pieces_has_a_limit() {
        let mut socket = received(&frame(FIN | CONTINUATION, b"!")).await;
        socket.pieces = Some(BytesMut::zeroed(PIECED_BYTES_MAX));
        assert!(socket.message().is_err());
    }
}
