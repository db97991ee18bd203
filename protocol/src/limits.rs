//! The limits of the contract: defaults that a server may configure and announces in `welcome`.

/// The version in `hello`.
pub const VERSION: u64 = 1;

/// The WebSocket subprotocol that selects the native dialect.
pub const SUBPROTOCOL: &str = "syncline.v1";

/// What the server accepts. Sizes in bytes, times in milliseconds. `Limits::default()` is the contract's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest WebSocket message from a client.
    pub frame_bytes_max: u64,
    /// The largest WebSocket message from a peer of the repo dialect: an import comes in one.
    pub repo_message_bytes_max: u64,
    /// The time from the TCP connection to a valid `hello`.
    pub handshake_timeout_ms: u64,
    /// The longest token.
    pub token_bytes_max: u64,
    /// Open documents of one session.
    pub documents_per_session_max: u64,
    /// Connections of one subject.
    pub sessions_per_subject_max: u64,
    /// Members of one room.
    pub members_per_room_max: u64,
    /// Edit messages per second, sustained; above it the server reads more slowly.
    pub edits_per_second: u64,
    /// Edit messages that may come at once before `edits_per_second` holds.
    pub edits_burst: u64,
    /// Presence and signal messages per second; above it the server reads more slowly.
    pub presence_per_second: u64,
    /// The largest presence state, and the largest signal.
    pub presence_bytes_max: u64,
    /// How long a presence state lives without being sent again.
    pub presence_ttl_ms: u64,
    /// Operations in one change.
    pub ops_per_change_max: u64,
    /// Changes with more operations than this are decoded one at a time in the whole server.
    pub ops_decoded_alone: u64,
    /// Steps to find out where the marks of one change stand; what takes more is proven by merging it.
    pub mark_steps_max: u64,
    /// A deflated column or change after inflation.
    pub inflated_bytes_max: u64,
    /// Changes of one session that wait for changes they depend on.
    pub waiting_changes_max: u64,
    /// Objects inside objects.
    pub nesting_depth_max: u64,
    /// The saved size of one document.
    pub document_bytes_max: u64,
    /// Frames queued for one session before it counts as lagging.
    pub send_queue_bytes_max: u64,
    /// Frames queued for all sessions of one subject, above which each of them lags that has any queued.
    pub subject_queue_bytes_max: u64,
    /// Bytes of document in one `part`.
    pub part_bytes_max: u64,
    /// Silence after which the server pings.
    pub ping_interval_ms: u64,
    /// Silence after which the server gives a connection up.
    pub idle_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 1 << 20,
            repo_message_bytes_max: 32 << 20,
            handshake_timeout_ms: 5_000,
            token_bytes_max: 8 << 10,
            documents_per_session_max: 64,
            sessions_per_subject_max: 50,
            members_per_room_max: 2_000,
            edits_per_second: 100,
            edits_burst: 500,
            presence_per_second: 30,
            presence_bytes_max: 4 << 10,
            presence_ttl_ms: 60_000,
            ops_per_change_max: 200_000,
            ops_decoded_alone: 10_000,
            mark_steps_max: 10_000,
            inflated_bytes_max: 8 << 20,
            waiting_changes_max: 256,
            nesting_depth_max: 64,
            document_bytes_max: 32 << 20,
            send_queue_bytes_max: 256 << 10,
            subject_queue_bytes_max: 8 << 20,
            part_bytes_max: 256 << 10,
            ping_interval_ms: 20_000,
            idle_timeout_ms: 45_000,
        }
    }
}
