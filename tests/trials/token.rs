//! Tokens, right and wrong, and a server that asks for them.

use crate::{clock::unix_s, process::Setup};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

pub(crate) const SECRET: &str = "a secret of the trials that is long enough";

/// Asks everybody for a token signed with [`SECRET`].
pub(crate) fn guarded(setup: Setup) -> Setup {
    setup.arguments(&[]).variable("SYNCLINE_AUTH_SECRET", SECRET)
}

/// Claims of `subject` that are good for an hour.
pub(crate) fn claims(subject: &str, docs: &[(&str, &str)]) -> Value {
    lasting(subject, docs, 3_600)
}

/// Claims that are good for so many seconds.
pub(crate) fn lasting(subject: &str, docs: &[(&str, &str)], seconds: i64) -> Value {
    let docs: serde_json::Map<_, _> = docs
        .iter()
        .map(|(pattern, access)| ((*pattern).to_owned(), (*access).into()))
        .collect();
    json!({ "sub": subject, "exp": unix_s() + seconds, "docs": docs })
}

/// Signs with the server's own secret.
pub(crate) fn signed(claims: &Value) -> String {
    signed_with(&Header::default(), claims, SECRET.as_bytes())
}

/// Signs with HS256 and this header and secret.
pub(crate) fn signed_with(header: &Header, claims: &Value, secret: &[u8]) -> String {
    debug_assert!(matches!(
        header.alg,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    ));
    jsonwebtoken::encode(header, claims, &EncodingKey::from_secret(secret)).expect("a token")
}

/// A token that lets `subject` write everything.
pub(crate) fn writer(subject: &str) -> String {
    signed(&claims(subject, &[("**", "write")]))
}
