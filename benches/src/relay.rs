//! The yardstick: a WebSocket room relay that neither merges nor stores.
//!
//! `/NAME` joins the room NAME. A binary message goes to all members of its room, back to its author too: that is the author's
//! acknowledgement. A member whose queue is full misses the
//! message: a relay has nothing to catch up from.

use anyhow::Context;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        protocol::WebSocketConfig,
    },
};

/// The buffers that Syncline's gateway has, too.
const READ_BUFFER_BYTES: usize = 2 << 10;
const WRITE_BUFFER_BYTES: usize = 16 << 10;
const UNWRITTEN_BYTES_MAX: usize = 4 << 20;
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Messages that may wait for one member.
const QUEUE_MAX: usize = 1_024;

type Members = Arc<[(u64, mpsc::Sender<Bytes>)]>;

/// The rooms and their members. A list of members is replaced, never changed, so that sending holds no lock.
#[derive(Default)]
struct Rooms {
    next_member: u64,
    rooms: BTreeMap<String, Members>,
}

/// Serves until the process is ended. Prints `listening on http://ADDR` when it is ready.
pub(crate) async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    writeln!(std::io::stdout(), "listening on http://{}", listener.local_addr()?)?;
    let rooms = Arc::new(Mutex::new(Rooms::default()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let rooms = rooms.clone();
        tokio::spawn(async move {
            // A member that breaks off is no concern of the others, and a relay has nobody else to tell.
            let _ = member(stream, &rooms).await;
        });
    }
}

async fn member(stream: TcpStream, rooms: &Mutex<Rooms>) -> anyhow::Result<()> {
    let (mut socket, room) = accept(stream).await?;
    let (sender, mut queue) = mpsc::channel(QUEUE_MAX);
    let number = lock(rooms).join(&room, sender);
    let result = relay(&mut socket, &mut queue, || lock(rooms).members(&room)).await;
    lock(rooms).leave(&room, number);
    result
}

async fn relay(
    socket: &mut WebSocketStream<TcpStream>,
    queue: &mut mpsc::Receiver<Bytes>,
    members: impl Fn() -> Members,
) -> anyhow::Result<()> {
    let (mut sink, mut stream) = socket.split();
    let writing = async {
        while let Some(payload) = queue.recv().await {
            sink.feed(Message::Binary(payload)).await?;
            while let Ok(payload) = queue.try_recv() {
                sink.feed(Message::Binary(payload)).await?;
            }
            sink.flush().await?;
        }
        anyhow::Ok(())
    };
    let reading = async {
        while let Some(message) = stream.next().await {
            if let Message::Binary(payload) = message? {
                for (_, member) in members().iter() {
                    // One whose queue is full is missed out, and the generator reports the edits that did not come.
                    let _ = member.try_send(payload.clone());
                }
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        written = writing => written,
        read = reading => read,
    }
}

async fn accept(stream: TcpStream) -> anyhow::Result<(WebSocketStream<TcpStream>, String)> {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(UNWRITTEN_BYTES_MAX)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    let mut room = String::new();
    #[allow(clippy::result_large_err, reason = "tungstenite's callback is made so")]
    let path = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        request.uri().path().clone_into(&mut room);
        Ok(response)
    };
    let socket = accept_hdr_async_with_config(stream, path, Some(config)).await?;
    Ok((socket, room))
}

impl Rooms {
    fn join(&mut self, room: &str, sender: mpsc::Sender<Bytes>) -> u64 {
        let number = self.next_member;
        self.next_member += 1;
        let others = self.members(room);
        let members = others.iter().cloned().chain([(number, sender)]).collect();
        self.rooms.insert(room.to_owned(), members);
        number
    }

    fn leave(&mut self, room: &str, number: u64) {
        let others = self.members(room);
        let others: Members = others.iter().filter(|(other, _)| *other != number).cloned().collect();
        if others.is_empty() {
            self.rooms.remove(room);
        } else {
            self.rooms.insert(room.to_owned(), others);
        }
    }

    fn members(&self, room: &str) -> Members {
        self.rooms.get(room).cloned().unwrap_or_default()
    }
}

fn lock(rooms: &Mutex<Rooms>) -> std::sync::MutexGuard<'_, Rooms> {
    rooms.lock().unwrap_or_else(PoisonError::into_inner)
}
