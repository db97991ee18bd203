//! From an HTTP request to a WebSocket: who may, in which dialect, and the raw stream out of HTTP's hands.

use super::{Stream, address, http::text, origin::OriginPolicy, slots::Slots};
use crate::server::{
    Server,
    connection::{Admission, Dialect, Socket},
    metrics::Refused,
};
use axum::{
    Extension,
    extract::{Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use syncline_protocol::{Limits, SUBPROTOCOL};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

/// Allocated for as long as the connection lives, so small; larger messages grow it for their time.
const READ_BUFFER_BYTES: usize = 2 << 10;

/// Frames are gathered up to this size before they are written.
const WRITE_BUFFER_BYTES: usize = 16 << 10;

/// A connection while it speaks HTTP, and the upgrade that a request on it was granted.
#[derive(Clone, Debug)]
pub(super) struct Link {
    peer: IpAddr,
    slots: Arc<Slots>,
    granted: Arc<Mutex<Option<(OnUpgrade, Admission)>>>,
}

impl Link {
    pub(super) fn new(peer: IpAddr, slots: Arc<Slots>) -> Self {
        Self {
            peer,
            slots,
            granted: Arc::default(),
        }
    }

    /// The WebSocket, if a request was granted one; call it when HTTP has ended.
    pub(super) async fn into_socket(self, limits: &Limits) -> Option<(Socket, Admission)> {
        let granted = self.granted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (upgrade, admission) = granted?;
        // It fails when the peer left before the answer was written.
        let parts = upgrade.await.ok()?.downcast::<TokioIo<Stream>>().ok()?;
        let (stream, read) = (parts.io.into_inner(), parts.read_buf.to_vec());
        let config = config(limits, admission.dialect);
        let socket = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await;
        Some((socket, admission))
    }
}

/// Every size has a limit; tungstenite's defaults take 137 KB per idle connection.
fn config(limits: &Limits, dialect: Dialect) -> WebSocketConfig {
    let bytes = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    // A message of ours is a batch of what came in frames, or in the repo dialect a document, and goes into the buffer whole
    // or not at all.
    let (frame_bytes, message_bytes) = match dialect {
        Dialect::Native => (bytes(limits.frame_bytes_max), bytes(limits.frame_bytes_max)),
        Dialect::Repo => (bytes(limits.repo_message_bytes_max), bytes(limits.document_bytes_max)),
    };
    let unwritten_bytes = WRITE_BUFFER_BYTES + bytes(limits.send_queue_bytes_max) + frame_bytes + message_bytes;
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        .max_write_buffer_size(unwritten_bytes)
        .max_message_size(Some(frame_bytes))
        .max_frame_size(Some(frame_bytes))
}

/// `GET /sync`: answers 101 and leaves the upgrade and the admission with the connection, or says why not.
pub(super) async fn accept(
    State(server): State<Arc<Server>>,
    Extension(link): Extension<Link>,
    mut request: Request,
) -> Response {
    match admit(&server, &link, &request) {
        Ok((admission, answer)) => {
            let upgrade = hyper::upgrade::on(&mut request);
            *link.granted.lock().unwrap_or_else(PoisonError::into_inner) = Some((upgrade, admission));
            answer
        }
        Err(refusal) => {
            server.metrics.refuse(refusal.reason());
            tracing::debug!(reason = ?refusal, peer = %link.peer, "upgrade refused");
            refusal.into_response()
        }
    }
}

/// Why there is no upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    NotReady,
    FullForAddress,
    Origin,
    NotWebSocket,
    Version,
    Key,
    Subprotocol,
    Query,
    Token,
}

impl Refusal {
    fn reason(self) -> Refused {
        match self {
            Self::NotReady => Refused::NotReady,
            Self::FullForAddress => Refused::FullForAddress,
            Self::Origin => Refused::Origin,
            Self::NotWebSocket => Refused::NotWebSocket,
            Self::Version | Self::Key => Refused::Handshake,
            Self::Subprotocol => Refused::Subprotocol,
            Self::Query | Self::Token => Refused::Query,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, why) = match self {
            Self::NotReady => (
                StatusCode::SERVICE_UNAVAILABLE,
                "the server is starting or stopping; come back\n",
            ),
            Self::FullForAddress => (
                StatusCode::SERVICE_UNAVAILABLE,
                "this address has too many connections; close one first\n",
            ),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "this origin may not connect; the operator lists origins in 'allowed_origins'\n",
            ),
            Self::NotWebSocket => (StatusCode::UPGRADE_REQUIRED, "connect here with a WebSocket client\n"),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                "only version 13 of the WebSocket protocol is spoken\n",
            ),
            Self::Key => (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64\n"),
            Self::Subprotocol => (
                StatusCode::BAD_REQUEST,
                "of subprotocols only syncline.v1 is spoken here\n",
            ),
            Self::Query => (
                StatusCode::BAD_REQUEST,
                "the query is malformed, or names 'token' twice\n",
            ),
            Self::Token => (StatusCode::BAD_REQUEST, "the token is longer than this server takes\n"),
        };
        let mut response = text(status, why);
        let headers = response.headers_mut();
        match self {
            Self::NotWebSocket | Self::Version => {
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            }
            Self::NotReady | Self::FullForAddress => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}

/// RFC 6455, 4.2, and our own rules.
fn admit(server: &Server, link: &Link, request: &Request) -> Result<(Admission, Response), Refusal> {
    let headers = request.headers();
    let wants_websocket = request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && names(headers, header::CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"))
        && names(headers, header::UPGRADE).any(|name| name.eq_ignore_ascii_case("websocket"));
    if !wants_websocket {
        return Err(Refusal::NotWebSocket);
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err(Refusal::Version);
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes)
        .ok_or(Refusal::Key)?;
    if STANDARD.decode(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(Refusal::Key);
    }
    let config = &server.config;
    let origins = OriginPolicy {
        allowed: &config.allowed_origins,
        development: config.dev,
    };
    if !origins.permits(headers) {
        return Err(Refusal::Origin);
    }
    if !server.accepts() {
        return Err(Refusal::NotReady);
    }
    let dialect = if !headers.contains_key(header::SEC_WEBSOCKET_PROTOCOL) {
        Dialect::Repo
    } else if names(headers, header::SEC_WEBSOCKET_PROTOCOL).any(|name| name == SUBPROTOCOL) {
        Dialect::Native
    } else {
        return Err(Refusal::Subprotocol);
    };
    let address = address::client(link.peer, headers, &config.trusted_proxies);
    // The peer itself was counted when it connected.
    let is_forwarded = address != link.peer.to_canonical();
    let counted = is_forwarded.then(|| link.slots.count(address)).transpose();
    let admission = Admission {
        address,
        counted: counted.map_err(|_| Refusal::FullForAddress)?,
        token: token(request, config.auth.cookie.as_deref(), &config.limits)?,
        upgraded_at_ms: server.clock.monotonic_ms(),
        dialect,
    };
    Ok((admission, switch_protocols(key, dialect)))
}

fn switch_protocols(key: &[u8], dialect: Dialect) -> Response {
    let accept = HeaderValue::try_from(derive_accept_key(key)).expect("base64 is a valid header");
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accept),
    ];
    let mut response = (StatusCode::SWITCHING_PROTOCOLS, headers).into_response();
    if dialect == Dialect::Native {
        let subprotocol = HeaderValue::from_static(SUBPROTOCOL);
        response
            .headers_mut()
            .insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    response
}

/// The elements of a header that is a list, in one line or several.
fn names(headers: &HeaderMap, header: HeaderName) -> impl Iterator<Item = &str> {
    names_apart(headers, header, ',')
}

fn names_apart(headers: &HeaderMap, header: HeaderName, mark: char) -> impl Iterator<Item = &str> {
    let lines = headers
        .get_all(header)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    lines.flat_map(move |line| line.split(mark)).map(str::trim)
}

/// `?token=`, or else `Authorization: Bearer`, or else the cookie of that name.
fn token(request: &Request, cookie: Option<&str>, limits: &Limits) -> Result<Option<String>, Refusal> {
    #[derive(Deserialize)]
    struct TokenQuery {
        token: Option<String>,
    }
    let Query(query) = Query::<TokenQuery>::try_from_uri(request.uri()).map_err(|_| Refusal::Query)?;
    let bearer = || {
        let text = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    };
    let cookies = || {
        let pairs = names_apart(request.headers(), header::COOKIE, ';').filter_map(|pair| pair.split_once('='));
        let (_, token) = pairs.into_iter().find(|(name, _)| Some(*name) == cookie)?;
        Some(token.to_owned())
    };
    let token = query.token.or_else(bearer).or_else(cookies);
    let is_long = token
        .as_ref()
        .is_some_and(|token| token.len() as u64 > limits.token_bytes_max);
    if is_long { Err(Refusal::Token) } else { Ok(token) }
}
