//! samod as a sync server: its repo with its directory behind a WebSocket, all with its defaults. samod has no server of its own.

use anyhow::Context;
use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use samod::{AcceptorHandle, Repo, Transport, storage::TokioFilesystemStorage};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
};
use tokio_tungstenite::tungstenite::{Error, Message, protocol::WebSocketConfig};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1).peekable();
    if args.peek().is_some_and(|arg| arg == "--version") {
        println!("samod {}", env!("CARGO_PKG_VERSION"));
        return Ok(());
    }
    let (port, directory) = (args.next())
        .zip(args.next())
        .context("usage: samod-server PORT DIRECTORY")?;
    let storage = TokioFilesystemStorage::new(directory);
    let repo = Repo::build_tokio().with_storage(storage).load().await;
    let address = format!("127.0.0.1:{port}");
    let acceptor = repo.make_acceptor(format!("ws://{address}").parse()?)?;
    let listener = TcpListener::bind(&address).await?;
    let mut stopped = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                tokio::spawn(serve(accepted?.0, acceptor.clone()));
            }
            _ = stopped.recv() => {
                repo.stop().await;
                return Ok(());
            }
        }
    }
}

/// A peer that breaks off, or that is no WebSocket, is no concern of the others.
async fn serve(stream: TcpStream, acceptor: AcceptorHandle) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
    let socket = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await?;
    let (sink, stream) = socket.split();
    let stream = stream.try_filter_map(|message| {
        future::ready(Ok::<_, Error>(match message {
            Message::Binary(bytes) => Some(bytes.to_vec()),
            _ => None,
        }))
    });
    let sink = sink.with(|bytes: Vec<u8>| future::ready(Ok::<_, Error>(Message::Binary(bytes.into()))));
    acceptor.accept(Transport::new(stream, sink))?;
    Ok(())
}
