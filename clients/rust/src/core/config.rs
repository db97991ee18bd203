//! What a client is told at construction, and its own limits: every buffer and queue of the core is named here.

use super::random::Random;

/// How a core behaves. `seed` is its only randomness.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name and version of the software, sent in `hello`.
    pub name: String,
    /// Where tokens come from.
    pub credentials: Credentials,
    /// Seeds actor ids and jitter. Must be random for every client in the world.
    pub seed: [u8; 32],
    /// Sizes and times.
    pub limits: ClientLimits,
}

impl Config {
    /// The defaults, without a token.
    pub fn new(seed: [u8; 32]) -> Self {
        let name = concat!("syncline-client ", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            name,
            credentials: Credentials::None,
            seed,
            limits: ClientLimits::default(),
        }
    }
}

/// Where tokens come from.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// No token: a server in development mode.
    None,
    /// This one, always.
    Fixed(String),
    /// The core asks with [`super::Effect::NeedToken`] and keeps what [`super::Event::Token`] brings until it runs out.
    Asked,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Fixed(_) => "Fixed(..)",
            Self::Asked => "Asked",
        })
    }
}

/// What one client holds and how long it waits. Sizes in bytes, times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Bytes of one document on its way in, inflated. Above it the document is given up with `limit`.
    pub loading_bytes_max: u64,
    /// Bytes of diffs that wait for `settle`. Above it they are applied at once.
    pub waiting_bytes_max: u64,
    /// Unacknowledged changes of one document. Above it `change` refuses.
    pub unacknowledged_changes_max: u64,
    /// Bytes of the unacknowledged changes of one document. Above it `change` refuses.
    pub unacknowledged_bytes_max: u64,
    /// Drafts of one document. Above it `change` refuses until the app has taken some.
    pub drafts_max: u64,
    /// Edit messages of one document that wait for their `ack`. Above it changes wait their turn and are packed together.
    pub edits_in_flight_max: u64,
    /// Others whose presence is held per document. Above it newcomers are not shown.
    pub presences_max: u64,
    /// The first wait before a reconnect; doubled at each failure.
    pub backoff_first_ms: u64,
    /// The longest wait before a reconnect.
    pub backoff_max_ms: u64,
    /// The longest `retry` of a server that is believed.
    pub retry_max_ms: u64,
    /// The longest time from `Connect` to `welcome`.
    pub connect_timeout_ms: u64,
    /// Silence, half of it, after which the core asks for a sign of life, if the server announces no idle timeout.
    pub idle_timeout_ms: u64,
    /// How long before its end a token is renewed; a quarter of the remaining time, if that is less.
    pub renewal_margin_ms: u64,
}

impl ClientLimits {
    /// The wait before attempt `attempts`, counted from 1 ([C5]).
    pub(super) fn backoff_ms(&self, attempts: u32, random: &mut Random) -> u64 {
        let doublings = attempts.saturating_sub(1).min(20);
        random.jitter(
            self.backoff_first_ms
                .saturating_mul(1 << doublings)
                .min(self.backoff_max_ms),
        )
    }
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self {
            loading_bytes_max: 128 << 20,
            waiting_bytes_max: 4 << 20,
            unacknowledged_changes_max: 100_000,
            unacknowledged_bytes_max: 64 << 20,
            drafts_max: 64,
            edits_in_flight_max: 16,
            presences_max: 10_000,
            backoff_first_ms: 100,
            backoff_max_ms: 30_000,
            retry_max_ms: 300_000,
            connect_timeout_ms: 10_000,
            idle_timeout_ms: 45_000,
            renewal_margin_ms: 60_000,
        }
    }
}
