//! TLS 1.2 and 1.3 with a certificate that can be replaced on disk without a restart.

use crate::server::{
    config::TlsFiles,
    metrics::{Metrics, Reloaded},
    watched::Watched,
};
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// Why a certificate cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file is not there, or not PEM, or holds nothing of the kind.
    #[error("{}: {text}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        text: String,
    },
    /// Both can be read but not used together.
    #[error("{} and {}: {text}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What is wrong.
        text: String,
    },
}

/// The certificate in use and the files it comes from.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    watched: Watched,
    provider: Arc<CryptoProvider>,
    current: Arc<Current>,
}

/// What rustls asks at every handshake.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl Certificate {
    /// Reads both files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let watched = Watched::new(vec![files.cert.clone(), files.key.clone()]);
        let current = read(&files, &provider)?;
        Ok(Self {
            files,
            watched,
            provider,
            current: Arc::new(Current(RwLock::new(Arc::new(current)))),
        })
    }

    /// What makes TLS of TCP, with whatever certificate is current.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider knows TLS 1.2 and 1.3");
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&self.current) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }

    /// Takes over new files as they come, for ever. Files that cannot be used are logged once and the old ones kept.
    pub(super) async fn follow(mut self, mut asked: watch::Receiver<u64>, metrics: &Metrics) {
        let mut last_error = None;
        loop {
            self.watched.changed(&mut asked).await;
            match read(&self.files, &self.provider) {
                Ok(new) => {
                    tracing::info!(cert = %self.files.cert.display(), "certificate replaced");
                    metrics.reloaded(Reloaded::Certificate, true);
                    self.current.replace(new);
                    self.watched.taken();
                    last_error = None;
                }
                // It may be half written: looked at again, whether or not it changes.
                Err(error) if last_error.as_ref() != Some(&error) => {
                    tracing::error!(%error, "the new certificate cannot be used; the old one stays");
                    metrics.reloaded(Reloaded::Certificate, false);
                    last_error = Some(error);
                }
                Err(_) => {}
            }
        }
    }
}

impl Current {
    fn replace(&self, new: CertifiedKey) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Reads both files and checks that they belong together.
fn read(files: &TlsFiles, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let wrong = |path: &Path, text: String| TlsError::File {
        path: path.to_owned(),
        text,
    };
    let bytes = |path: &Path| std::fs::read(path).map_err(|error| wrong(path, error.to_string()));
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes(&files.cert)?).collect();
    let chain = chain.map_err(|error| wrong(&files.cert, format!("not a certificate in PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(&files.cert, "no certificate in PEM in it".into()));
    }
    let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?)
        .map_err(|error| wrong(&files.key, format!("not a private key in PEM: {error}")))?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        let text = match error {
            rustls::Error::InconsistentKeys(_) => "the key is not the certificate's".into(),
            other => other.to_string(),
        };
        TlsError::Pair {
            cert: files.cert.clone(),
            key: files.key.clone(),
            text,
        }
    })
}
