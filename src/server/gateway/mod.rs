//! Lets connections in: TCP, TLS, HTTP, and the WebSocket upgrade, each with a limit in number, size and time. Past the
//! upgrade a connection belongs to [`crate::server::connection`].

mod address;
mod http;
pub mod origin;
mod page;
mod slots;
mod stream;
pub mod tls;
mod upgrade;

pub use slots::Counted;
pub use stream::Stream;

use crate::server::{
    Server, connection,
    metrics::{Held, Refused},
};
use futures_util::{FutureExt, future::OptionFuture};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use slots::{Slot, Slots};
use std::{io::Write, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tls::Certificate;
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use upgrade::Link;

/// How long one connection may speak HTTP: probes and pages are short, and come back.
const HTTP_LIFETIME: Duration = Duration::from_secs(60);

/// Room for a request line and headers beside a token.
const REQUEST_HEAD_BYTES: usize = 16 << 10;

/// Headers of one request.
const REQUEST_HEADERS_MAX: usize = 64;

/// How long to wait after the system refused to accept: it has no descriptors left, mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until the server drains, then waits for every connection to end.
pub(super) async fn serve(listener: TcpListener, certificate: Option<Certificate>, server: Arc<Server>) {
    let acceptor = certificate.as_ref().map(Certificate::acceptor);
    let follow = async {
        match certificate {
            Some(certificate) => certificate.follow(server.reloads(), &server.metrics).await,
            None => std::future::pending().await,
        }
    };
    let slots = Slots::new(&server.config);
    let mut draining = server.draining();
    tokio::select! {
        () = accept(&listener, acceptor, &slots, &server) => {}
        () = follow => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
    drop(listener);
    slots.all_free().await;
}

/// Gives every connection a task of its own.
async fn accept(listener: &TcpListener, acceptor: Option<TlsAcceptor>, slots: &Arc<Slots>, server: &Arc<Server>) {
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                server.metrics.refuse(Refused::System);
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        server.metrics.connections.inc();
        match slots.take(peer.ip()) {
            Ok(slot) => {
                tokio::spawn(serve_connection(
                    (tcp, peer),
                    acceptor.clone(),
                    slot,
                    Arc::clone(slots),
                    Arc::clone(server),
                ));
            }
            Err(reason) => {
                server.metrics.refuse(reason);
                turn_away(tcp, acceptor.is_some());
            }
        }
    }
}

/// Over the cap: says so if that costs nothing, and hangs up.
fn turn_away(tcp: TcpStream, is_tls: bool) {
    if is_tls {
        return;
    }
    if let Ok(mut tcp) = tcp.into_std() {
        // Best effort: the peer learns less if it does not fit into the empty send buffer.
        let _ = tcp.write_all(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        );
    }
}

/// The whole life of a connection. It holds its slot to the end, so that a draining server can wait for all slots.
async fn serve_connection(
    (tcp, peer): (TcpStream, SocketAddr),
    acceptor: Option<TlsAcceptor>,
    _slot: Slot,
    slots: Arc<Slots>,
    server: Arc<Server>,
) {
    let _open = Held::new(&server.metrics.connections_open);
    // Boxed, so that the state of TLS and HTTP handshakes is freed before the long life of the WebSocket; and moved whole from
    // step to step, because what is taken apart keeps its place in the task.
    let upgraded = Box::pin(shake_hands(tcp, Link::new(peer.ip(), slots), acceptor, &server)).await;
    let serving = upgraded.map(|(socket, admission)| serve_socket(socket, admission, server));
    OptionFuture::from(serving).await;
}

fn serve_socket(
    socket: connection::Socket,
    admission: connection::Admission,
    server: Arc<Server>,
) -> impl Future<Output = ()> + Send {
    let open = Held::new(&server.metrics.websockets_open);
    connection::run(socket, admission, server).map(|()| drop(open))
}

/// TLS if configured, then HTTP, to the upgrade or the end.
async fn shake_hands(
    tcp: TcpStream,
    link: Link,
    acceptor: Option<TlsAcceptor>,
    server: &Arc<Server>,
) -> Option<(connection::Socket, connection::Admission)> {
    // Fails only for a socket that is gone, which the first read tells.
    let _ = tcp.set_nodelay(true);
    let stream = match acceptor {
        None => Stream::Plain(tcp),
        Some(acceptor) => {
            let limit = Duration::from_millis(server.config.limits.handshake_timeout_ms);
            match timeout(limit, acceptor.accept(tcp)).await {
                Ok(Ok(tls)) => Stream::Tls(Box::new(tls)),
                failed => {
                    let in_time = failed.is_ok();
                    server
                        .metrics
                        .refuse(if in_time { Refused::Tls } else { Refused::TlsSlow });
                    return None;
                }
            }
        }
    };
    if let Err(reason) = speak_http(stream, &link, server).await {
        server.metrics.refuse(reason);
    }
    link.into_socket(&server.config.limits).await
}

/// Answers HTTP requests until an upgrade or the end, unless the peer breaks the protocol or is too slow.
async fn speak_http(stream: Stream, link: &Link, server: &Arc<Server>) -> Result<(), Refused> {
    let limits = &server.config.limits;
    let token_bytes = usize::try_from(limits.token_bytes_max).unwrap_or(usize::MAX);
    let service = http::service(link.clone(), Arc::clone(server));
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.handshake_timeout_ms))
        .max_buf_size(REQUEST_HEAD_BYTES.saturating_add(token_bytes))
        .max_headers(REQUEST_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut http = pin!(http);
    let mut draining = server.draining();
    let ended = timeout(HTTP_LIFETIME, async {
        tokio::select! {
            ended = http.as_mut() => return ended,
            _ = draining.wait_for(|draining| *draining) => {}
        }
        http.as_mut().graceful_shutdown();
        http.await
    });
    match ended.await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if !error.is_timeout() => Err(Refused::Http),
        Ok(Err(_)) | Err(_) => Err(Refused::HttpSlow),
    }
}
