//! Who may come in: a JWT in, a [`Grant`] out. Nothing here trusts a byte of the token before its signature is checked,
//! and no error text holds any part of it.

mod claims;
mod keys;

pub use keys::{KeyError, read_material};

use crate::{
    engine::grant::Grant,
    server::{
        config::{AuthConfig, Config, Source},
        metrics::{Metrics, Reloaded},
        watched::Watched,
    },
};
use claims::Claims;
use jsonwebtoken::errors::ErrorKind;
use keys::{Key, Keys};
use prometheus_client::encoding::EncodeLabelValue;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};
use tokio::sync::watch;

/// How far an issuer's clock may run ahead of ours before its `nbf` counts as the future. `exp` has no leeway: the instant
/// in [`Grant::expires_at_ms`] is the one for admission and for closing.
pub const NOT_BEFORE_LEEWAY_MS: u64 = 60_000;

/// The longest `sub`, `name` and `aud`, in bytes: members see the first two of each other.
pub const NAME_BYTES_MAX: usize = 256;

/// Turns tokens into grants.
#[derive(Debug)]
pub enum Verifier {
    /// `--dev`: everybody may do everything.
    Development,
    /// Tokens signed with one of these keys are believed.
    Tokens(Box<TokenVerifier>),
}

/// What a token is held against.
#[derive(Debug)]
pub struct TokenVerifier {
    config: AuthConfig,
    /// Where the keys stand, or are named.
    source: Option<Source>,
    /// Replaced when the files are.
    keys: RwLock<Arc<Keys>>,
    watched: Mutex<Option<Watched>>,
    token_bytes_max: usize,
}

/// Why a token is refused. The texts hold no part of the token, so they may be logged and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue, thiserror::Error)]
pub enum AuthError {
    /// No token where one is needed.
    #[error("a token is needed; `syncline token` or your application makes one")]
    Missing,
    /// More than `limits.token_bytes_max`.
    #[error("the token is longer than this server takes")]
    TooLong,
    /// Not three parts, not a header, not an algorithm of ours (`none` is not), or a `crit` extension.
    #[error("the token is not a JWT signed with HS256, RS256, ES256 or EdDSA")]
    Malformed,
    /// No key has this `kid`, or none is named and there are several.
    #[error("the token's 'kid' names no key of this server, or is missing while there are several keys")]
    UnknownKey,
    /// The header's algorithm is not the key's.
    #[error("the token's 'alg' is not the algorithm of its key")]
    Algorithm,
    /// Not signed with the key.
    #[error("the token's signature is wrong")]
    Signature,
    /// A claim is missing, given twice, or of the wrong type.
    #[error(
        "the token's claims are not: 'sub', a text of 1 to 256 bytes; 'exp', a number; and optional 'nbf', 'aud', 'name' \
         and 'docs', a map from document pattern to \"read\" or \"write\"; each once"
    )]
    Claims,
    /// `exp` is past.
    #[error("the token has expired")]
    Expired,
    /// `exp` is further ahead than `auth.token_ttl_max_ms`.
    #[error("the token expires later than this server takes")]
    ExpiresTooLate,
    /// `nbf` is ahead.
    #[error("the token is not valid yet")]
    NotYet,
    /// `aud` is not the configured audience, or there is one and none is configured.
    #[error("the token is for another audience than this server's")]
    Audience,
}

impl Verifier {
    /// Reads the keys; without any, only a server in development mode can start.
    pub fn new(config: &Config) -> Result<Self, KeyError> {
        if config.dev {
            return Ok(Self::Development);
        }
        let source = config.source.clone();
        let files: Vec<PathBuf> = source.iter().map(Source::file).chain(config.auth.files()).collect();
        let watched = (!files.is_empty()).then(|| Watched::new(files));
        Ok(Self::Tokens(Box::new(TokenVerifier {
            config: config.auth.clone(),
            source,
            keys: RwLock::new(Arc::new(Keys::read(&config.auth)?)),
            watched: Mutex::new(watched),
            token_bytes_max: usize::try_from(config.limits.token_bytes_max).unwrap_or(usize::MAX),
        })))
    }

    /// Takes over new keys as they come, for ever: in their files, and in the one of the configuration, of which nothing else is
    /// taken over. Files that cannot be used are logged once and the old keys kept. Sessions that are in stay until their tokens expire.
    pub async fn follow(&self, mut asked: watch::Receiver<u64>, metrics: &Metrics) {
        let Self::Tokens(verifier) = self else { return };
        let watched = verifier.watched.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut watched) = watched else { return };
        let mut last_error = None;
        loop {
            watched.changed(&mut asked).await;
            match verifier.read_again() {
                Ok((keys, files)) => {
                    tracing::info!(keys = keys.len(), "keys replaced");
                    metrics.reloaded(Reloaded::Keys, true);
                    *verifier.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
                    watched = files;
                    last_error = None;
                }
                // A file may be half written: looked at again, whether or not it changes.
                Err(error) => {
                    let text = error.to_string();
                    if last_error.as_ref() != Some(&text) {
                        tracing::error!(error = text, "the new keys cannot be used; the old ones stay");
                        metrics.reloaded(Reloaded::Keys, false);
                        last_error = Some(text);
                    }
                }
            }
        }
    }

    /// The grant of whoever shows `token`, or nothing, at `now_ms` in unix milliseconds.
    pub fn admit(&self, token: Option<&str>, now_ms: u64) -> Result<Grant, AuthError> {
        match (self, token) {
            (Self::Development, _) => Ok(Grant::development()),
            (Self::Tokens(_), None) => Err(AuthError::Missing),
            (Self::Tokens(verifier), Some(token)) => verifier.verify(token, now_ms),
        }
    }
}

impl TokenVerifier {
    /// The keys as they are configured now, and the files to follow from here on. These are looked at before they are read.
    fn read_again(&self) -> Result<(Keys, Watched), KeyError> {
        let watched = Watched::new(self.source.iter().map(Source::file).collect());
        let config = match &self.source {
            Some(source) => source.read()?.auth,
            None => self.config.clone(),
        };
        let watched = watched.and(config.files());
        Ok((Keys::read(&config)?, watched))
    }

    /// The grant in `token`, at `now_ms` in unix milliseconds.
    pub fn verify(&self, token: &str, now_ms: u64) -> Result<Grant, AuthError> {
        if token.len() > self.token_bytes_max {
            return Err(AuthError::TooLong);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        if header.crit.is_some() {
            return Err(AuthError::Malformed);
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner).clone();
        let key = keys.find(header.kid.as_deref()).ok_or(AuthError::UnknownKey)?;
        if header.alg != key.algorithm() {
            return Err(AuthError::Algorithm);
        }
        if crate::server::failpoints::Switch::TokensLogged.is_on() {
            tracing::info!(token, "a token comes");
        }
        let claims = open(token, key)?;
        self.check_audience(&claims)?;
        let expires_at_ms = self.check_times(&claims, now_ms)?;
        Ok(claims.into_grant(expires_at_ms))
    }

    /// RFC 7519, 4.1.3: a token for an audience is refused by whoever is not in it.
    fn check_audience(&self, claims: &Claims) -> Result<(), AuthError> {
        let is_ours = match (&self.config.audience, &claims.audience) {
            (None, None) => true,
            (Some(ours), Some(theirs)) => theirs.contains(ours),
            (Some(_), None) | (None, Some(_)) => false,
        };
        if is_ours { Ok(()) } else { Err(AuthError::Audience) }
    }

    /// The end of the grant, in unix milliseconds.
    fn check_times(&self, claims: &Claims, now_ms: u64) -> Result<u64, AuthError> {
        if claims.expires_at_ms <= now_ms {
            return Err(AuthError::Expired);
        }
        if claims.expires_at_ms - now_ms > self.config.token_ttl_max_ms {
            return Err(AuthError::ExpiresTooLate);
        }
        if claims.not_before_ms > now_ms.saturating_add(NOT_BEFORE_LEEWAY_MS) {
            return Err(AuthError::NotYet);
        }
        Ok(claims.expires_at_ms)
    }
}

/// Checks the signature, then reads the claims.
fn open(token: &str, key: &Key) -> Result<Claims, AuthError> {
    // The library would read the system's clock; times and audience are checked here instead.
    let mut validation = jsonwebtoken::Validation::new(key.algorithm());
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let data = jsonwebtoken::decode(token, key.decoding(), &validation);
    data.map(|data| data.claims).map_err(|error| match error.kind() {
        ErrorKind::Json(_) | ErrorKind::Utf8(_) | ErrorKind::InvalidClaimFormat(_) => AuthError::Claims,
        ErrorKind::InvalidToken | ErrorKind::Base64(_) => AuthError::Malformed,
        _ => AuthError::Signature,
    })
}

#[cfg(test)]
mod tests;
