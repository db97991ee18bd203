//! The configuration, checked once at the start: from here on every value is of a type that cannot be wrong.
//!
//! Precedence: flag, then environment variable, then file, then default. `syncline.example.toml` lists every key.

mod layers;
mod network;
mod settings;

pub use layers::Flag;
pub use network::Network;

use crate::server::gateway::origin::Origin;
use layers::Layered;
use settings::{KeySettings, Settings};
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
    /// The memory of rooms, in bytes; the least recently used are closed first.
    pub rooms_memory_bytes_max: u64,
    /// A room without members is closed after this time.
    pub room_idle_timeout_ms: u64,
    /// Connections at once, in any state.
    pub connections_max: u32,
    /// How long a stopping server waits for its connections to end.
    pub drain_timeout_ms: u64,
    /// The limits of the protocol.
    pub limits: Limits,
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
        Self::parse(&Layered::stack(file, environment, flags)?)
    }

    /// Like [`Config::load`], with the text of the file given.
    pub fn from_text(text: &str, environment: &BTreeMap<String, String>, flags: &[Flag]) -> Result<Self, ConfigError> {
        Self::parse(&Layered::stack(
            Some((Path::new(DEFAULT_PATH), text)),
            environment,
            flags,
        )?)
    }

    fn parse(layered: &Layered) -> Result<Self, ConfigError> {
        let settings = &layered.settings;
        let wrong_address = || {
            let text = format!(
                "'{}' is not an address; give an IP and a port, like 127.0.0.1:4400",
                settings.listen
            );
            layered.error("listen", text)
        };
        let listen: SocketAddr = settings.listen.parse().map_err(|_| wrong_address())?;
        if settings.dev && !listen.ip().is_loopback() {
            let text = format!("{listen} is not loopback, and --dev serves without authentication; use 127.0.0.1");
            return Err(layered.error("listen", text));
        }
        if settings.data.is_empty() {
            return Err(layered.error("data", "no directory is named; give one, like ./syncline-data"));
        }
        let connections_max = u32::try_from(settings.gateway.connections_max)
            .ok()
            .filter(|max| (1..1 << 28).contains(max));
        let connections_max = connections_max
            .ok_or_else(|| layered.error("gateway.connections_max", "give a number from 1 to 268435455"))?;
        check_limits(layered)?;
        Ok(Self {
            listen,
            data: PathBuf::from(&settings.data),
            dev: settings.dev,
            tls: tls(layered)?,
            allowed_origins: each(layered, "allowed_origins", &settings.allowed_origins)?,
            trusted_proxies: each(layered, "trusted_proxies", &settings.trusted_proxies)?,
            auth: auth(layered)?,
            log: log(layered)?,
            rooms_memory_bytes_max: settings.rooms.memory_bytes_max,
            room_idle_timeout_ms: settings.rooms.idle_timeout_ms,
            connections_max,
            drain_timeout_ms: settings.gateway.drain_timeout_ms,
            limits: settings.limits.clone(),
        })
    }
}

impl Default for Config {
    /// What an empty file means.
    fn default() -> Self {
        Self::from_text("", &BTreeMap::new(), &[]).expect("the defaults are valid")
    }
}

fn set(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn each<T>(layered: &Layered, key: &str, texts: &[String]) -> Result<Vec<T>, ConfigError>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    texts
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|error: T::Err| layered.error(key, error.to_string()))
        })
        .collect()
}

fn tls(layered: &Layered) -> Result<Option<TlsFiles>, ConfigError> {
    match (set(&layered.settings.tls.cert), set(&layered.settings.tls.key)) {
        (None, None) => Ok(None),
        (Some(cert), Some(key)) => Ok(Some(TlsFiles {
            cert: cert.into(),
            key: key.into(),
        })),
        (Some(_), None) => Err(layered.error("tls.cert", "a certificate needs its key: set tls.key or --tls-key")),
        (None, Some(_)) => Err(layered.error("tls.key", "a key needs its certificate: set tls.cert or --tls-cert")),
    }
}

fn auth(layered: &Layered) -> Result<AuthConfig, ConfigError> {
    let settings = &layered.settings.auth;
    let mut keys = Vec::new();
    if let Some(secret) = set(&settings.secret) {
        let material = KeyMaterial::Inline(secret.to_owned());
        keys.push(KeyConfig {
            kid: "default".into(),
            algorithm: Algorithm::Hs256,
            material,
        });
    }
    for entry in &settings.keys {
        keys.push(key(entry).map_err(|text| layered.error("auth.keys", format!("key '{}': {text}", entry.kid)))?);
    }
    Ok(AuthConfig {
        audience: set(&settings.audience).map(str::to_owned),
        token_ttl_max_ms: settings.token_ttl_max_ms,
        keys,
        jwks_file: set(&settings.jwks_file).map(PathBuf::from),
    })
}

fn key(entry: &KeySettings) -> Result<KeyConfig, String> {
    if entry.kid.is_empty() {
        return Err("a key needs a 'kid', the name that tokens call it by".into());
    }
    let algorithm: Algorithm = entry.alg.parse()?;
    let is_secret = algorithm == Algorithm::Hs256;
    let (inline, file, others) = if is_secret {
        (
            &entry.secret,
            &entry.secret_file,
            [&entry.public_key, &entry.public_key_file],
        )
    } else {
        (
            &entry.public_key,
            &entry.public_key_file,
            [&entry.secret, &entry.secret_file],
        )
    };
    let material = match (set(inline), set(file)) {
        (Some(text), None) => KeyMaterial::Inline(text.to_owned()),
        (None, Some(path)) => KeyMaterial::File(path.into()),
        _ if is_secret => return Err("HS256 needs either 'secret' or 'secret_file'".into()),
        _ => return Err(format!("{} needs either 'public_key' or 'public_key_file'", entry.alg)),
    };
    if others.iter().any(|text| !text.is_empty()) {
        return Err(format!(
            "{} has a secret or a public key, never both; `syncline key` prints an entry",
            entry.alg
        ));
    }
    Ok(KeyConfig {
        kid: entry.kid.clone(),
        algorithm,
        material,
    })
}

fn log(layered: &Layered) -> Result<LogConfig, ConfigError> {
    let settings = &layered.settings.log;
    let format = match settings.format.as_str() {
        "text" => LogFormat::Text,
        "json" => LogFormat::Json,
        other => return Err(layered.error("log.format", format!("'{other}' is not a format; give text or json"))),
    };
    if tracing_subscriber::EnvFilter::try_new(&settings.filter).is_err() {
        let text = format!(
            "'{}' is not a filter; give a level like info, or info,syncline=debug",
            settings.filter
        );
        return Err(layered.error("log.filter", text));
    }
    Ok(LogConfig {
        format,
        filter: settings.filter.clone(),
    })
}

/// A limit of zero would stop everything; the rest has to fit together.
fn check_limits(layered: &Layered) -> Result<(), ConfigError> {
    let table = toml::Table::try_from(&layered.settings).expect("settings can be written as TOML");
    let limits = table["limits"].as_table().expect("limits are a table");
    if let Some((name, _)) = limits.iter().find(|(_, value)| value.as_integer() == Some(0)) {
        return Err(layered.error(
            &format!("limits.{name}"),
            "a limit of 0 lets nothing through; give at least 1",
        ));
    }
    let limits = &layered.settings.limits;
    if !(4 << 10..=1 << 30).contains(&limits.frame_bytes_max) {
        return Err(layered.error("limits.frame_bytes_max", "give a size from 4096 to 1073741824 bytes"));
    }
    if limits.token_bytes_max > 256 << 10 {
        return Err(layered.error("limits.token_bytes_max", "give a size of at most 262144 bytes"));
    }
    if limits.ping_interval_ms >= limits.idle_timeout_ms {
        let text = "a connection would be given up before it is asked; give less than limits.idle_timeout_ms";
        return Err(layered.error("limits.ping_interval_ms", text));
    }
    Ok(())
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

impl Settings {
    /// Every key with its default, as TOML.
    #[cfg(test)]
    fn defaults_table() -> toml::Table {
        toml::Table::try_from(Self::default()).expect("the defaults can be written as TOML")
    }
}

#[cfg(test)]
mod tests;
