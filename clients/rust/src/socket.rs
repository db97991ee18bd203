//! One WebSocket at a time: dialing, frames in, frames out, and its end.

use crate::options::Target;
use bytes::Bytes;
use futures_util::{FutureExt, Sink, SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use std::{collections::VecDeque, future::poll_fn, pin::Pin, time::Duration};
use tokio::{net::TcpStream, task::JoinHandle, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, WebSocketConfig, frame::coding::CloseCode},
    },
};

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The largest message that is taken from a server.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// What is read and written in one go.
const BUFFER_BYTES: usize = 32 << 10;
/// Frames that wait to be written. The app's commands are not taken while there are more.
pub(crate) const OUTBOX_FRAMES_MAX: usize = 1_024;
/// How long a good end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What came over the socket.
#[derive(Debug)]
pub(crate) enum Heard {
    Connected,
    Frame(Bytes),
    /// A ping, a pong.
    Sign,
    Gone {
        code: Option<u16>,
    },
}

/// The socket.
pub(crate) enum Socket {
    None,
    Dialing(JoinHandle<Result<Stream, Error>>),
    Open(Box<Open>),
}

pub(crate) struct Open {
    sink: SplitSink<Stream, Message>,
    stream: SplitStream<Stream>,
    outbox: VecDeque<Bytes>,
    /// Something was written that is not flushed.
    unflushed: bool,
}

impl Socket {
    pub(crate) fn dial(&mut self, target: Target) {
        let mut config = WebSocketConfig::default();
        config.read_buffer_size = BUFFER_BYTES;
        config.write_buffer_size = BUFFER_BYTES;
        config.max_message_size = Some(MESSAGE_BYTES_MAX);
        config.max_frame_size = Some(MESSAGE_BYTES_MAX);
        *self = Self::Dialing(tokio::spawn(async move {
            let Target { request, connector } = target;
            let no_delay = true;
            let dialed =
                tokio_tungstenite::connect_async_tls_with_config(request, Some(config), no_delay, connector).await;
            dialed.map(|(stream, _)| stream)
        }));
    }

    pub(crate) fn send(&mut self, frame: Bytes) {
        if let Self::Open(open) = self {
            open.outbox.push_back(frame);
        }
    }

    /// Whether more can be sent without piling up.
    pub(crate) fn has_room(&self) -> bool {
        match self {
            Self::Open(open) => open.outbox.len() < OUTBOX_FRAMES_MAX,
            Self::None | Self::Dialing(_) => true,
        }
    }

    /// Writes what is to be written until something comes. May be dropped and called again at any time.
    pub(crate) async fn drive(&mut self) -> Heard {
        loop {
            let heard = match self {
                Self::None => std::future::pending().await,
                Self::Dialing(dialing) => match dialing.await {
                    Ok(Ok(stream)) => {
                        let (sink, stream) = stream.split();
                        let (outbox, unflushed) = (VecDeque::new(), false);
                        *self = Self::Open(Box::new(Open {
                            sink,
                            stream,
                            outbox,
                            unflushed,
                        }));
                        return Heard::Connected;
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "connecting failed");
                        Some(Heard::Gone { code: None })
                    }
                    Err(_) => Some(Heard::Gone { code: None }),
                },
                Self::Open(open) => open.drive().await,
            };
            if let Some(heard) = heard {
                return self.heard(heard);
            }
        }
    }

    /// Something that has come already.
    pub(crate) fn ready(&mut self) -> Option<Heard> {
        let Self::Open(open) = self else { return None };
        let message = open.stream.next().now_or_never()?;
        let heard = heard_in(message)?;
        Some(self.heard(heard))
    }

    fn heard(&mut self, heard: Heard) -> Heard {
        if matches!(heard, Heard::Gone { .. }) {
            *self = Self::None;
        }
        heard
    }

    /// Writes what waits and says goodbye, as far as that is possible in a second.
    pub(crate) async fn close(&mut self) {
        match std::mem::replace(self, Self::None) {
            Self::None => {}
            Self::Dialing(dialing) => dialing.abort(),
            Self::Open(mut open) => {
                let frame = CloseFrame {
                    code: CloseCode::Normal,
                    reason: "".into(),
                };
                let goodbye = async {
                    open.write().await?;
                    open.sink.send(Message::Close(Some(frame))).await?;
                    while let Some(Ok(_)) = open.stream.next().await {}
                    Ok::<(), Error>(())
                };
                match timeout(CLOSE_TIMEOUT, goodbye).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::debug!(%error, "the connection broke while it was closed"),
                    Err(_) => tracing::debug!("the server did not answer the close"),
                }
            }
        }
    }
}

impl Open {
    async fn drive(&mut self) -> Option<Heard> {
        let writes = self.unflushed || !self.outbox.is_empty();
        let Self {
            sink,
            stream,
            outbox,
            unflushed,
        } = self;
        tokio::select! {
            written = write(sink, outbox, unflushed), if writes => match written {
                Ok(()) => None,
                Err(error) => {
                    tracing::debug!(%error, "the connection broke");
                    Some(Heard::Gone { code: None })
                }
            },
            message = stream.next() => heard_in(message),
        }
    }

    async fn write(&mut self) -> Result<(), Error> {
        write(&mut self.sink, &mut self.outbox, &mut self.unflushed).await
    }
}

/// Feeds all that waits, then flushes once. A frame leaves the outbox only when the sink has it.
async fn write(
    sink: &mut SplitSink<Stream, Message>,
    outbox: &mut VecDeque<Bytes>,
    unflushed: &mut bool,
) -> Result<(), Error> {
    while !outbox.is_empty() {
        poll_fn(|context| Pin::new(&mut *sink).poll_ready(context)).await?;
        if let Some(frame) = outbox.pop_front() {
            *unflushed = true;
            Pin::new(&mut *sink).start_send(Message::Binary(frame))?;
        }
    }
    poll_fn(|context| Pin::new(&mut *sink).poll_flush(context)).await?;
    *unflushed = false;
    Ok(())
}

fn heard_in(message: Option<Result<Message, Error>>) -> Option<Heard> {
    match message {
        Some(Ok(Message::Binary(frame))) => Some(Heard::Frame(frame)),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Some(Heard::Sign),
        Some(Ok(Message::Close(frame))) => Some(Heard::Gone {
            code: frame.map(|frame| frame.code.into()),
        }),
        // The native dialect has no text: an empty frame is malformed to the core.
        Some(Ok(Message::Text(_))) => Some(Heard::Frame(Bytes::new())),
        Some(Ok(Message::Frame(_))) => None,
        Some(Err(error)) => {
            tracing::debug!(%error, "the connection broke");
            Some(Heard::Gone { code: None })
        }
        None => Some(Heard::Gone { code: None }),
    }
}
