//! From settings, which are texts and numbers, to [`Config`], which cannot be wrong; or an error that names the place.

use super::{
    Algorithm, AuthConfig, Config, ConfigError, KeyConfig, KeyMaterial, LogConfig, LogFormat, TlsFiles,
    layers::Layered, settings::KeySettings,
};
use std::{net::SocketAddr, path::PathBuf};

/// Below this a single larger document would not open.
const ROOMS_MEMORY_BYTES_MIN: u64 = 16 << 20;

/// The configuration that the layers come to.
pub(super) fn config(layered: &Layered) -> Result<Config, ConfigError> {
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
    check_limits(layered)?;
    if settings.rooms.memory_bytes_max < ROOMS_MEMORY_BYTES_MIN {
        return Err(layered.error(
            "rooms.memory_bytes_max",
            "give at least 16777216 bytes, or few documents fit",
        ));
    }
    Ok(Config {
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
        restore_window_ms: settings.rooms.restore_window_ms,
        connections_max: count(layered, "gateway.connections_max", settings.gateway.connections_max)?,
        connections_per_address_max: count(
            layered,
            "gateway.connections_per_address_max",
            settings.gateway.connections_per_address_max,
        )?,
        drain_timeout_ms: settings.gateway.drain_timeout_ms,
        limits: settings.limits.clone(),
        source: None,
    })
}

/// A number of connections, as the semaphore takes it.
fn count(layered: &Layered, key: &str, number: u64) -> Result<u32, ConfigError> {
    let count = u32::try_from(number).ok().filter(|count| (1..1 << 28).contains(count));
    count.ok_or_else(|| layered.error(key, "give a number from 1 to 268435455"))
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
        cookie: set(&settings.cookie).map(str::to_owned),
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
    if tracing_subscriber::EnvFilter::try_new(&settings.filter).is_err() || !settings.filter.split(',').all(is_meant) {
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

/// A word that is no level names a module, and silences all others: most likely it was to be a level.
fn is_meant(directive: &str) -> bool {
    let directive = directive.trim();
    directive.contains(['=', '[', ':'])
        || directive.starts_with("syncline")
        || directive.parse::<tracing_subscriber::filter::LevelFilter>().is_ok()
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
    for (key, bytes) in [
        ("limits.frame_bytes_max", limits.frame_bytes_max),
        ("limits.repo_message_bytes_max", limits.repo_message_bytes_max),
    ] {
        if !(4 << 10..=1 << 30).contains(&bytes) {
            return Err(layered.error(key, "give a size from 4096 to 1073741824 bytes"));
        }
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
