//! The configuration, checked once at the start: from here on every value is of a type that cannot be wrong. Only the keys are read again.
//!
//! Precedence: flag, then environment variable, then file, then default. `syncline.example.toml` lists every key.

mod layers;
mod network;
mod parse;
mod settings;
mod variables;

pub use layers::Flag;
pub use network::Network;

use crate::server::gateway::origin::Origin;
use layers::Layered;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};
use syncline_protocol::Limits;

/// The file that is read when none is named, if it is there.
pub const DEFAULT_PATH: &str = "syncline.toml";

/// The variable that names the file.
pub const PATH_VARIABLE: &str = "SYNCLINE_CONFIG";

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// The directory of the store.
    pub data: PathBuf,
    /// Serve without authentication, on loopback only.
    pub dev: bool,
    /// Serve TLS with these files; `None` is plain TCP.
    pub tls: Option<TlsFiles>,
    /// The foreign origins that browsers may come from.
    pub allowed_origins: Vec<Origin>,
    /// The proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<Network>,
    /// Whose tokens are believed.
    pub auth: AuthConfig,
    /// How to log.
    pub log: LogConfig,
    /// The memory of rooms, in bytes; beyond it rooms let go of what can be loaded again, the longest unused first, and no
    /// further document is opened.
    pub rooms_memory_bytes_max: u64,
    /// A room without members is closed after this time.
    pub room_idle_timeout_ms: u64,
    /// For how long after a restore from a backup everybody who may write may bring back what others wrote.
    pub restore_window_ms: u64,
    /// Connections at once, in any state.
    pub connections_max: u32,
    /// Connections at once from one address; loopback and trusted proxies are not counted.
    pub connections_per_address_max: u32,
    /// How long a stopping server waits for its connections to end.
    pub drain_timeout_ms: u64,
    /// The limits of the protocol.
    pub limits: Limits,
    /// Where all this came from; `None` if it was given as a text.
    pub source: Option<Source>,
}

/// Where a configuration came from, to read it again.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    path: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    flags: Vec<Flag>,
}

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Whose tokens are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// What `aud` has to name; `None` takes only tokens without `aud`.
    pub audience: Option<String>,
    /// How far ahead `exp` may lie.
    pub token_ttl_max_ms: u64,
    /// The cookie that holds a token at the upgrade; only the repo dialect looks at it.
    pub cookie: Option<String>,
    /// Keys that are listed one by one.
    pub keys: Vec<KeyConfig>,
    /// A JSON Web Key Set with more keys.
    pub jwks_file: Option<PathBuf>,
}

/// One key, its material still unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyConfig {
    /// The name that tokens call it by.
    pub kid: String,
    /// The one algorithm it is for.
    pub algorithm: Algorithm,
    /// Where it is.
    pub material: KeyMaterial,
}

/// The algorithms that tokens may be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Algorithm {
    /// HMAC with SHA-256 and a shared secret.
    Hs256,
    /// RSA PKCS #1 1.5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

/// A secret for HS256 or a public key in PEM for the others.
#[derive(Clone, PartialEq, Eq)]
pub enum KeyMaterial {
    /// In the configuration itself.
    Inline(String),
    /// In a file; white space at the end of a secret does not count.
    File(PathBuf),
}

/// How to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Lines for people or for programs.
    pub format: LogFormat,
    /// What to log, as tracing-subscriber's `EnvFilter` reads it.
    pub filter: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What is wrong with the configuration, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {error}; name another file with --config", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file is not TOML, or has a key that does not exist or is of another type.
    #[error("{}, line {line}: {message}; syncline.example.toml lists every key", path.display())]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// A value that cannot be.
    #[error("{place}: {text}")]
    Value {
        /// The flag, the variable, or the file and key.
        place: String,
        /// What is wrong and what to do.
        text: String,
    },
}

impl Config {
    /// Reads the file at `path` (or [`PATH_VARIABLE`], or [`DEFAULT_PATH`] if there is one) and lays the environment and
    /// the flags over it.
    pub fn load(
        path: Option<&Path>,
        environment: &BTreeMap<String, String>,
        flags: &[Flag],
    ) -> Result<Self, ConfigError> {
        let named = path.or_else(|| environment.get(PATH_VARIABLE).map(Path::new));
        let path = named.unwrap_or_else(|| Path::new(DEFAULT_PATH));
        let text = match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(ConfigError::Unreadable {
                    path: path.to_owned(),
                    error,
                });
            }
        };
        let file = text.as_deref().map(|text| (path, text));
        let config = parse::config(&Layered::stack(file, environment, flags)?)?;
        let source = Source {
            path: named.map(Path::to_path_buf),
            environment: environment.clone(),
            flags: flags.to_vec(),
        };
        Ok(Self {
            source: Some(source),
            ..config
        })
    }

    /// Like [`Config::load`], with the text of the file given.
    pub fn from_text(text: &str, environment: &BTreeMap<String, String>, flags: &[Flag]) -> Result<Self, ConfigError> {
        parse::config(&Layered::stack(
            Some((Path::new(DEFAULT_PATH), text)),
            environment,
            flags,
        )?)
    }
}

impl Source {
    /// The file, whether or not it is there.
    pub fn file(&self) -> PathBuf {
        self.path.clone().unwrap_or_else(|| DEFAULT_PATH.into())
    }

    /// Reads the configuration as it is now, with the variables and flags of then.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(&self) -> Result<Config, ConfigError> {
        Config::load(self.path.as_deref(), &self.environment, &self.flags)
    }
}

impl std::fmt::Debug for Source {
    /// Names the file; never shows a secret, which may be in the environment.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Source({})", self.file().display())
    }
}

impl AuthConfig {
    /// The files that keys are read from.
    pub fn files(&self) -> Vec<PathBuf> {
        let keys = self.keys.iter().filter_map(|key| match &key.material {
            KeyMaterial::File(path) => Some(path),
            KeyMaterial::Inline(_) => None,
        });
        keys.chain(&self.jwks_file).cloned().collect()
    }
}

impl Default for Config {
    /// What an empty file means.
    fn default() -> Self {
        Self::from_text("", &BTreeMap::new(), &[]).expect("the defaults are valid")
    }
}

impl Algorithm {
    /// The name in a token's header.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }
}

impl std::str::FromStr for Algorithm {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::Hs256, Self::Rs256, Self::Es256, Self::EdDsa];
        let found = all.into_iter().find(|algorithm| algorithm.name() == name);
        found.ok_or_else(|| format!("'{name}' is not an algorithm; give HS256, RS256, ES256 or EdDSA"))
    }
}

impl std::fmt::Debug for KeyMaterial {
    /// Names the file; never shows a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inline(_) => f.write_str("Inline(..)"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

#[cfg(test)]
mod tests;
