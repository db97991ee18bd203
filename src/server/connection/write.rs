//! Frames out: what is in a connection's outbox goes into its WebSocket, many frames per flush.
//!
//! Knows no session and no room. It gives a peer up that takes nothing, and never waits longer for one.

use super::Socket;
use crate::server::{
    Server,
    metrics::{CloseLabels, GivenUp},
    outbox::{Item, Outbox},
};
use bytes::Bytes;
use futures_util::{SinkExt, stream::SplitSink};
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{
        CloseFrame,
        frame::{
            Frame,
            coding::{CloseCode as WireCode, Data, OpCode},
        },
    },
};

/// How long a peer may take to answer our close.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest reason in a close frame, in bytes (RFC 6455, 5.5.1: 125 with the code).
const REASON_BYTES_MAX: usize = 123;
/// So many places in the queue are kept for what comes next.
const ITEMS_KEPT_MAX: usize = 8;
/// Messages above this size are written in pieces of it.
const PIECE_BYTES: usize = 64 << 10;

/// Writes what is queued, many frames per flush, until a close is written or the peer takes nothing for `idle`.
pub(super) async fn write(mut sink: SplitSink<Socket, Message>, outbox: &Outbox, server: &Server, idle: Duration) {
    let mut rest = Vec::new();
    loop {
        let items = outbox.take(&mut rest).await;
        let (mut bytes, mut frames, mut close) = (0, 0, false);
        for item in items {
            bytes += item.bytes();
            frames += u64::from(matches!(item, Item::Frame(_)));
            if let Item::Close { code, .. } = &item {
                close = true;
                let label = CloseLabels { code: code.number() };
                server.metrics.sessions_closed.get_or_create(&label).inc();
            }
            for message in messages(item) {
                if !is_taken(idle, sink.feed(message), outbox, server).await {
                    return;
                }
            }
        }
        if !is_taken(idle, sink.flush(), outbox, server).await {
            return;
        }
        if rest.capacity() > ITEMS_KEPT_MAX {
            rest = Vec::new();
        }
        server.metrics.frames_out.inc_by(frames);
        server.metrics.bytes_out.inc_by(bytes as u64);
        outbox.written(bytes);
        if close {
            // The reader sees the peer's answer, or its end.
            return tokio::time::sleep(CLOSE_TIMEOUT).await;
        }
    }
}

/// Whether the peer takes it within `idle`; one that takes nothing is given up. Most often it does at once, and no clock is set.
async fn is_taken<W>(idle: Duration, mut writing: W, outbox: &Outbox, server: &Server) -> bool
where
    W: Future<Output = Result<(), tungstenite::Error>> + Unpin,
{
    let written = match futures_util::future::poll_immediate(&mut writing).await {
        Some(written) => Ok(written),
        None => timeout(idle, writing).await,
    };
    // Who is being closed was given up before, for another reason.
    if written.is_err() && !outbox.is_closed() {
        tracing::info!(session = %outbox.session(), "given up: it takes nothing");
        server.metrics.give_up(GivenUp::TakesNothing);
    }
    matches!(written, Ok(Ok(())))
}

/// What goes into the WebSocket for an item. A large message goes in piece by piece, as frames of one message: the WebSocket
/// copies each into a buffer, which stays as large as the largest was.
fn messages(item: Item) -> impl Iterator<Item = Message> {
    let (mut rest, mut whole) = match item {
        Item::Frame(frame) if frame.len() > PIECE_BYTES => (frame, None),
        item => (Bytes::new(), Some(message(item))),
    };
    let mut opcode = Data::Binary;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return whole.take();
        }
        let piece = rest.split_to(rest.len().min(PIECE_BYTES));
        let frame = Frame::message(piece, OpCode::Data(opcode), rest.is_empty());
        opcode = Data::Continue;
        Some(Message::Frame(frame))
    })
}

fn message(item: Item) -> Message {
    match item {
        Item::Frame(frame) => Message::Binary(frame),
        Item::Text(text) => Message::Text(text.into()),
        Item::Ping => Message::Ping(Bytes::new()),
        Item::Close { code, text } => {
            let mut end = text.len().min(REASON_BYTES_MAX);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let code = WireCode::from(code.number());
            Message::Close(Some(CloseFrame {
                code,
                reason: text[..end].into(),
            }))
        }
    }
}
