//! The labels of metrics: reasons and outcomes, each an enum of our own.

use crate::server::auth::AuthError;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};

/// The labels of [`super::Metrics::reloads`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReloadLabels {
    /// Of what.
    pub what: Reloaded,
    /// How it ended.
    pub outcome: Outcome,
}

/// The label of [`super::Metrics::backups`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabels {
    /// How it ended.
    pub outcome: Outcome,
}

/// The label of [`super::Metrics::connections_given_up`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GivenUpLabels {
    /// Why.
    pub reason: GivenUp,
}

/// Why the server gave up a connection that it had let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum GivenUp {
    /// Its first message did not come in time.
    Handshake,
    /// Nothing was heard for `limits.idle_timeout_ms`.
    Silent,
    /// It took nothing for so long.
    TakesNothing,
    /// A message was larger than the limit.
    TooLarge,
    /// A frame broke the WebSocket protocol.
    BrokenFrame,
    /// A text, or the reason of a close, was no UTF-8.
    NotUtf8,
    /// A text message came.
    Text,
}

/// What is taken over without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Reloaded {
    /// The keys for tokens.
    Keys,
    /// The TLS certificate.
    Certificate,
}

/// How something ended that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// Well.
    Done,
    /// It was given up.
    Failed,
}

/// The label of [`super::Metrics::refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    /// Why.
    pub reason: Refused,
}

/// Why a connection or request was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Refused {
    /// `gateway.connections_max` is reached.
    Full,
    /// `gateway.connections_per_address_max` is reached.
    FullForAddress,
    /// The system has no descriptor left, or the like.
    System,
    /// The TLS handshake failed.
    Tls,
    /// The TLS handshake took too long.
    TlsSlow,
    /// The HTTP request was not one.
    Http,
    /// The HTTP request, or the speaking of HTTP in all, took too long.
    HttpSlow,
    /// The origin may not connect.
    Origin,
    /// Not a WebSocket upgrade.
    NotWebSocket,
    /// Another version of WebSocket, or a key that is none.
    Handshake,
    /// Another subprotocol.
    Subprotocol,
    /// A query that is malformed, or a token that is too long.
    Query,
    /// Another subject's connection goes by this peer id.
    PeerIdTaken,
    /// The server starts or stops.
    NotReady,
    /// The rooms' memory is used up.
    Overloaded,
    /// `limits.sessions_per_subject_max` is reached.
    FullForSubject,
}

/// The label of [`super::Metrics::edits_rejected`] and [`super::Metrics::documents_closed`]: one of the protocol's own codes, never text from outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    /// `forbidden`, `limit`, ...
    pub code: &'static str,
}

/// The label of [`super::Metrics::loads_failed`] and [`super::Metrics::reads_failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LoadLabels {
    /// Why.
    pub reason: LoadFault,
}

/// Why a document does not open, or a piece of it cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum LoadFault {
    /// Its records are damaged.
    Damaged,
    /// The store does not answer, or may hold what is not synced.
    Store,
    /// The rooms' memory is used up. No read fails by that.
    Memory,
}

/// The label of [`super::Metrics::merges_failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MergeLabels {
    /// Why.
    pub reason: MergeFault,
}

/// Why a merge did not come to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum MergeFault {
    /// A change does not merge; the room is reset.
    BadChange,
    /// The snapshot or the log is damaged.
    Damaged,
    /// It could not be tried, and will be again.
    Failed,
}

/// The label of [`super::Metrics::tokens_refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TokenLabels {
    /// Why.
    pub reason: AuthError,
}

/// The label of [`super::Metrics::sessions_closed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CloseLabels {
    /// The WebSocket close code.
    pub code: u16,
}
