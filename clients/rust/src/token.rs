//! Where tokens come from. A token is the server's to judge: here only its expiry is read, so that a new one is asked in time.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use std::{fmt, future::Future, pin::Pin, sync::Arc};

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Why an app's token function has no token. Its text is logged.
pub type TokenError = Box<dyn std::error::Error + Send + Sync>;

/// Where tokens come from.
#[derive(Clone, Default)]
pub enum TokenSource {
    /// No token: a server in development mode.
    #[default]
    None,
    /// This one, always.
    Fixed(String),
    /// Asked at the first connection, before the token expires, and once when the server refuses it.
    Function(Arc<dyn Fn() -> TokenFuture + Send + Sync>),
}

impl TokenSource {
    /// Asks `function` whenever a token is needed. It runs on the client's own thread: it may wait, it must not block.
    pub fn function<F, T>(function: F) -> Self
    where
        F: Fn() -> T + Send + Sync + 'static,
        T: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self::Function(Arc::new(move || Box::pin(function())))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed(..)",
            Self::Function(_) => "Function(..)",
        })
    }
}

/// The `exp` of a JWT, in seconds since 1970, unverified.
pub(crate) fn expiry(token: &str) -> Option<u64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let expiry = claims.get("exp")?;
    expiry.as_u64().or_else(|| {
        expiry
            .as_f64()
            .filter(|seconds| *seconds >= 0.0)
            .map(|seconds| seconds as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expiry_is_read_without_trust() {
        let check = |claims: &str, expected: Option<u64>| {
            let token = format!("e30.{}.sig", URL_SAFE_NO_PAD.encode(claims));
            assert_eq!(expiry(&token), expected, "{claims}");
        };
        check(r#"{"exp":1700000000}"#, Some(1_700_000_000));
        check(r#"{"exp":1700000000.9}"#, Some(1_700_000_000));
        check(r#"{"exp":"1700000000"}"#, None);
        check(r#"{"exp":-1}"#, None);
        check("{}", None);
        check("not json", None);
        check(&"[".repeat(100_000), None);
        for token in ["", "a", "a.b", "a.!!!.c", "..."] {
            assert_eq!(expiry(token), None, "{token}");
        }
    }
}
