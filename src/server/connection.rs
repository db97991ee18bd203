//! One WebSocket connection, from admission to its end.

use crate::server::{Server, gateway::Stream};
use futures_util::{SinkExt, StreamExt};
use std::{net::IpAddr, sync::Arc};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// A WebSocket on whatever carries it; its buffers and message sizes are limited.
pub type Socket = WebSocketStream<Stream>;

/// What the gateway knows of a connection that it let in.
#[derive(Debug)]
pub struct Admission {
    /// Whence: the peer, or what a trusted proxy says.
    pub address: IpAddr,
    /// The token given at the upgrade; only the repo dialect reads it.
    pub token: Option<String>,
    /// When the TCP connection came, by [`crate::server::clock::Clock::monotonic_ms`]: the handshake's time runs from here.
    pub accepted_at_ms: u64,
}

/// Serves the connection until it ends.
pub async fn run(mut socket: Socket, _admission: Admission, server: Arc<Server>) {
    let mut draining = server.draining();
    loop {
        let message = tokio::select! {
            message = socket.next() => message,
            _ = draining.wait_for(|draining| *draining) => break,
        };
        match message {
            Some(Ok(message @ Message::Binary(_))) => {
                if socket.send(message).await.is_err() {
                    return;
                }
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return,
        }
    }
    // The peer may be gone already; there is nobody to tell then.
    let _ = socket.close(None).await;
}
