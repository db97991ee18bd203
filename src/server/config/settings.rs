//! The shape of the configuration file: plain values, every key with its default. [`super::Config`] is what they mean.

use serde::{Deserialize, Serialize};
use syncline_protocol::Limits;

/// The whole file. An empty text means "not set".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) listen: String,
    pub(super) data: String,
    pub(super) dev: bool,
    pub(super) allowed_origins: Vec<String>,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) tls: TlsSettings,
    pub(super) auth: AuthSettings,
    pub(super) log: LogSettings,
    pub(super) rooms: RoomSettings,
    pub(super) gateway: GatewaySettings,
    #[serde(with = "LimitSettings")]
    pub(super) limits: Limits,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct TlsSettings {
    pub(super) cert: String,
    pub(super) key: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AuthSettings {
    pub(super) secret: String,
    pub(super) jwks_file: String,
    pub(super) audience: String,
    pub(super) token_ttl_max_ms: u64,
    pub(super) cookie: String,
    pub(super) keys: Vec<KeySettings>,
}

/// One entry of `[[auth.keys]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeySettings {
    pub(super) kid: String,
    pub(super) alg: String,
    #[serde(default)]
    pub(super) secret: String,
    #[serde(default)]
    pub(super) secret_file: String,
    #[serde(default)]
    pub(super) public_key: String,
    #[serde(default)]
    pub(super) public_key_file: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogSettings {
    pub(super) format: String,
    pub(super) filter: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RoomSettings {
    pub(super) memory_bytes_max: u64,
    pub(super) idle_timeout_ms: u64,
    pub(super) restore_window_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GatewaySettings {
    pub(super) connections_max: u64,
    pub(super) connections_per_address_max: u64,
    pub(super) drain_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:4400".into(),
            data: "./syncline-data".into(),
            dev: false,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: TlsSettings::default(),
            auth: AuthSettings::default(),
            log: LogSettings::default(),
            rooms: RoomSettings::default(),
            gateway: GatewaySettings::default(),
            limits: Limits::default(),
        }
    }
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            secret: String::new(),
            jwks_file: String::new(),
            audience: String::new(),
            token_ttl_max_ms: 366 * 24 * 60 * 60 * 1_000,
            cookie: String::new(),
            keys: Vec::new(),
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: "text".into(),
            filter: "info".into(),
        }
    }
}

impl Default for RoomSettings {
    fn default() -> Self {
        Self {
            memory_bytes_max: 512 << 20,
            idle_timeout_ms: 60_000,
            restore_window_ms: 7 * 24 * 60 * 60 * 1_000,
        }
    }
}

impl Default for GatewaySettings {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_address_max: 1_000,
            drain_timeout_ms: 10_000,
        }
    }
}

/// How [`Limits`] stand in the file: the same names, checked by the compiler.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Limits", default = "Limits::default", deny_unknown_fields)]
struct LimitSettings {
    frame_bytes_max: u64,
    repo_message_bytes_max: u64,
    handshake_timeout_ms: u64,
    token_bytes_max: u64,
    documents_per_session_max: u64,
    sessions_per_subject_max: u64,
    members_per_room_max: u64,
    edits_per_second: u64,
    edits_burst: u64,
    presence_per_second: u64,
    presence_bytes_max: u64,
    presence_ttl_ms: u64,
    ops_per_change_max: u64,
    ops_decoded_alone: u64,
    mark_steps_max: u64,
    inflated_bytes_max: u64,
    waiting_changes_max: u64,
    nesting_depth_max: u64,
    document_bytes_max: u64,
    send_queue_bytes_max: u64,
    subject_queue_bytes_max: u64,
    part_bytes_max: u64,
    ping_interval_ms: u64,
    idle_timeout_ms: u64,
}
