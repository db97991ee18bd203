//! The HTTP routes: the page, the probes, the metrics, and the door to WebSockets.

use super::{
    page,
    upgrade::{self, Link},
};
use crate::server::Server;
use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::{Request, body::Incoming, service::Service};
use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc};
use tower::ServiceExt;

/// The routes of one connection.
pub(super) fn service(link: Link, server: Arc<Server>) -> Routes {
    let router = Router::new()
        .route("/", get(page::index))
        .route("/{file}", get(page::file))
        .route("/assets/{file}", get(page::file))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/sync", get(upgrade::accept))
        .fallback(nothing)
        .with_state(server);
    Routes { router, link }
}

/// The routes, told of which connection a request is.
#[derive(Debug)]
pub(super) struct Routes {
    router: Router,
    link: Link,
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.link.clone());
        Box::pin(self.router.clone().oneshot(request))
    }
}

/// A short answer in plain text.
pub(super) fn text(status: StatusCode, text: &'static str) -> Response {
    (
        status,
        [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CACHE_CONTROL, "no-store"),
        ],
        text,
    )
        .into_response()
}

async fn health() -> Response {
    text(StatusCode::OK, "alive\n")
}

async fn readiness(State(server): State<Arc<Server>>) -> Response {
    if server.is_ready() {
        text(StatusCode::OK, "ready\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(State(server): State<Arc<Server>>) -> Response {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], server.metrics_text()).into_response()
}

pub(super) async fn nothing() -> Response {
    text(StatusCode::NOT_FOUND, "nothing is here; WebSockets connect at /sync\n")
}
