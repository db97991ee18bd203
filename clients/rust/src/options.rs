//! What an app says when it connects.

use crate::{core::ClientLimits, token::TokenSource};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::CertificateDer};
use std::sync::Arc;
use syncline_protocol::SUBPROTOCOL;
use tokio_tungstenite::{
    Connector,
    tungstenite::{
        client::IntoClientRequest,
        handshake::client::Request,
        http::{HeaderValue, Uri, header::SEC_WEBSOCKET_PROTOCOL, uri::PathAndQuery},
    },
};

/// Where the server is, and as whom to come.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `ws://HOST:PORT` or `wss://HOST:PORT`; without a path, `/sync` is meant.
    pub url: String,
    /// Where tokens come from.
    pub token: TokenSource,
    /// Name and version of the app, for the server's operator.
    pub name: Option<String>,
    /// Certificates to trust beside those of the system.
    pub root_certificates: Vec<CertificateDer<'static>>,
    /// What the client holds and how long it waits.
    pub limits: ClientLimits,
    /// Makes actor ids and jitter repeatable. Only for tests: two clients with one seed would write as the same actors.
    pub seed: Option<[u8; 32]>,
}

impl Options {
    /// The defaults, without a token.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none.
    #[error("'{url}' is not a URL of a server, such as ws://localhost:4400/sync: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A root certificate, or the TLS set-up, is no good.
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
    /// The system gave no randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The system gave no thread.
    #[error("the client's thread cannot be started: {0}")]
    Thread(std::io::Error),
}

/// Where to dial. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) request: Request,
    pub(crate) connector: Option<Connector>,
}

impl Target {
    pub(crate) fn new(options: &Options) -> Result<Self, ConnectError> {
        let wrong = |reason: &str| ConnectError::Url {
            url: options.url.clone(),
            reason: reason.to_owned(),
        };
        let mut parts = options
            .url
            .parse::<Uri>()
            .map_err(|error| wrong(&error.to_string()))?
            .into_parts();
        let secure = match parts.scheme.as_ref().map(|scheme| scheme.as_str()) {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(wrong("it must begin with ws:// or wss://")),
        };
        if parts.path_and_query.as_ref().is_none_or(|path| path.as_str() == "/") {
            parts.path_and_query = Some(PathAndQuery::from_static("/sync"));
        }
        let url = Uri::from_parts(parts).map_err(|error| wrong(&error.to_string()))?;
        let mut request = url.into_client_request().map_err(|error| wrong(&error.to_string()))?;
        request
            .headers_mut()
            .insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let connector = if secure {
            Some(Connector::Rustls(trust(&options.root_certificates)?))
        } else {
            None
        };
        Ok(Self { request, connector })
    }
}

fn trust(certificates: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::debug!(%error, "a certificate of the system is left out");
    }
    roots.add_parsable_certificates(system.certs);
    for certificate in certificates {
        roots.add(certificate.clone())?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |url: &str, expected: Option<&str>| {
            let target = Target::new(&Options::new(url));
            assert_eq!(
                target
                    .as_ref()
                    .ok()
                    .map(|target| target.request.uri().to_string())
                    .as_deref(),
                expected,
                "{url}"
            );
        };
        check("ws://localhost:4400", Some("ws://localhost:4400/sync"));
        check("ws://localhost:4400/", Some("ws://localhost:4400/sync"));
        check("wss://example.org/other", Some("wss://example.org/other"));
        check("http://localhost:4400", None);
        check("localhost:4400", None);
        check("", None);
        check("ws://", None);
    }

    #[test]
    fn a_certificate_that_is_none_is_an_error() {
        let root_certificates = vec![CertificateDer::from(vec![1, 2, 3])];
        let options = Options {
            root_certificates,
            ..Options::new("wss://localhost")
        };
        assert!(matches!(Target::new(&options), Err(ConnectError::Tls(_))));
    }
}
