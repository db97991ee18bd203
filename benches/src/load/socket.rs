//! The client's end of a WebSocket, no more than a load generator needs: it must cost less than the server that it loads.
//!
//! Binary messages in one frame each, masked with zeros (which changes nothing, and is what RFC 6455 asks of a client that has
//! nobody to protect); pings are answered.

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
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// One connection.
pub(crate) struct Socket {
    stream: Stream,
    input: BytesMut,
    output: BytesMut,
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
        while let Some((opcode, payload)) = self.frame_in()? {
            match opcode {
                BINARY => return Ok(Some(payload)),
                PING => self.frame_out(PONG, &payload),
                PONG => {}
                CLOSE => {
                    let (code, reason) = payload.split_at(payload.len().min(2));
                    bail!("closed by the server: {code:?} {}", String::from_utf8_lossy(reason));
                }
                other => bail!("a frame of kind {other} came"),
            }
        }
        Ok(None)
    }

    fn frame_in(&mut self) -> anyhow::Result<Option<(u8, Bytes)>> {
        let [first, second, ..] = self.input[..] else {
            return Ok(None);
        };
        ensure!(
            first & FIN != 0 && second & MASKED == 0,
            "a frame that this reader does not know"
        );
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
        Ok(Some((first & 0x0f, self.input.split_to(length).freeze())))
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
