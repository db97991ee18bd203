//! What the server counts, for Prometheus. Labels come from our own enums only, so that no input can make new series.

mod labels;

pub use labels::{
    CloseLabels, CodeLabels, GivenUp, GivenUpLabels, LoadFault, LoadLabels, MergeFault, MergeLabels, Outcome,
    OutcomeLabels, Refused, RefusedLabels, ReloadLabels, Reloaded, TokenLabels,
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use std::sync::atomic::AtomicU64;
use syncline_protocol::native::{ClosedCode, RejectCode};

/// Every metric; cheap to add to, shared by all.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// TCP connections that are open, in any state.
    pub connections_open: Gauge,
    /// TCP connections that came.
    pub connections: Counter,
    /// Connections and requests that were turned away.
    pub refused: Family<RefusedLabels, Counter>,
    /// WebSockets that are open.
    pub websockets_open: Gauge,
    /// WebSocket messages from clients.
    pub frames_in: Counter,
    /// WebSocket messages to clients.
    pub frames_out: Counter,
    /// Bytes of these from clients.
    pub bytes_in: Counter,
    /// Bytes of these to clients.
    pub bytes_out: Counter,
    /// Edits that were acknowledged.
    pub edits_acked: Counter,
    /// Edits that were refused, by the code on the wire.
    pub edits_rejected: Family<CodeLabels, Counter>,
    /// Sessions that the server closed, by close code.
    pub sessions_closed: Family<CloseLabels, Counter>,
    /// Connections that the server gave up, by reason.
    pub connections_given_up: Family<GivenUpLabels, Counter>,
    /// Times that a connection was not read from for a while, because it said too much.
    pub connections_paused: Counter,
    /// Diffs, presence and signals that a member with a full queue was not sent.
    pub frames_left_out: Counter,
    /// Rooms that are live.
    pub rooms_open: Gauge,
    /// Bytes of memory that the rooms take, about.
    pub rooms_memory_bytes: Gauge,
    /// Batches that wait to be written to the store.
    pub store_queue: Gauge,
    /// Syncs of the store.
    pub store_syncs: Gauge,
    /// Writes and syncs of the store that failed.
    pub store_errors: Gauge,
    /// 1 when a failed sync has made the store read-only.
    pub store_read_only: Gauge,
    /// 1 while the disk is full.
    pub store_full: Gauge,
    /// Times that the disk was full.
    pub store_fulls: Gauge,
    /// Times that there was space again.
    pub store_recoveries: Gauge,
    /// 1 while, after a restore, everybody may bring back what others wrote.
    pub store_restored: Gauge,
    /// Rooms that panicked.
    pub room_panics: Counter,
    /// Pieces of long work that panicked and were given up.
    pub work_panics: Counter,
    /// Merges, compactions and removals of former snapshots that have a place: they work, or rest.
    pub merges_under_way: Gauge,
    /// How long they worked, in seconds.
    pub merging: Counter<f64, AtomicU64>,
    /// Snapshots made.
    pub compactions: Counter,
    /// Compactions that were given up; the log stayed.
    pub compactions_failed: Counter,
    /// Documents that did not open, by reason.
    pub loads_failed: Family<LoadLabels, Counter>,
    /// Pieces of documents that could not be read for a member, by reason.
    pub reads_failed: Family<LoadLabels, Counter>,
    /// Merges that did not come to an end, by reason.
    pub merges_failed: Family<MergeLabels, Counter>,
    /// Batches that were not stored.
    pub appends_failed: Counter,
    /// Rooms reset because of changes that did not merge.
    pub resets: Counter,
    /// Resets that could not be stored; the room closed.
    pub resets_failed: Counter,
    /// Former snapshots that could not be deleted; the next compaction does it.
    pub discards_failed: Counter,
    /// Backups of the running server.
    pub backups: Family<OutcomeLabels, Counter>,
    /// Tokens that were refused, by reason.
    pub tokens_refused: Family<TokenLabels, Counter>,
    /// `closed` answers to sessions, by the code on the wire.
    pub documents_closed: Family<CodeLabels, Counter>,
    /// Rooms that were asked to let go of what can be loaded again, because memory is short.
    pub rooms_trimmed: Counter,
    /// Members whose queue was too full for a diff.
    pub members_lagged: Counter,
    /// Pieces of documents that were read and encoded for members on their way; those who ask for the same share one.
    pub pieces_read: Counter,
    /// Replaced files that were taken over, or could not be.
    pub reloads: Family<ReloadLabels, Counter>,
}

impl Metrics {
    /// Everything at zero.
    #[expect(clippy::new_without_default, reason = "metrics are made once, in one place")]
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("syncline"),
            connections_open: Gauge::default(),
            connections: Counter::default(),
            refused: Family::default(),
            websockets_open: Gauge::default(),
            frames_in: Counter::default(),
            frames_out: Counter::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            edits_acked: Counter::default(),
            edits_rejected: Family::default(),
            sessions_closed: Family::default(),
            connections_given_up: Family::default(),
            connections_paused: Counter::default(),
            frames_left_out: Counter::default(),
            rooms_open: Gauge::default(),
            rooms_memory_bytes: Gauge::default(),
            store_queue: Gauge::default(),
            store_syncs: Gauge::default(),
            store_errors: Gauge::default(),
            store_read_only: Gauge::default(),
            store_full: Gauge::default(),
            store_fulls: Gauge::default(),
            store_recoveries: Gauge::default(),
            store_restored: Gauge::default(),
            room_panics: Counter::default(),
            work_panics: Counter::default(),
            merges_under_way: Gauge::default(),
            merging: Counter::default(),
            compactions: Counter::default(),
            compactions_failed: Counter::default(),
            loads_failed: Family::default(),
            reads_failed: Family::default(),
            merges_failed: Family::default(),
            appends_failed: Counter::default(),
            resets: Counter::default(),
            resets_failed: Counter::default(),
            discards_failed: Counter::default(),
            backups: Family::default(),
            tokens_refused: Family::default(),
            documents_closed: Family::default(),
            rooms_trimmed: Counter::default(),
            members_lagged: Counter::default(),
            pieces_read: Counter::default(),
            reloads: Family::default(),
        };
        metrics.register_sessions();
        metrics.register_reasons();
        metrics.register_rooms();
        metrics.register_gauges();
        metrics
    }

    /// Connections, and what goes over them.
    fn register_sessions(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "connections_open",
            "TCP connections that are open",
            self.connections_open.clone(),
        );
        registry.register("connections", "TCP connections that came", self.connections.clone());
        registry.register("refused", "Connections and requests turned away", self.refused.clone());
        registry.register(
            "websockets_open",
            "WebSockets that are open",
            self.websockets_open.clone(),
        );
        registry.register("frames_in", "WebSocket messages from clients", self.frames_in.clone());
        registry.register("frames_out", "WebSocket messages to clients", self.frames_out.clone());
        registry.register("bytes_in", "Bytes of messages from clients", self.bytes_in.clone());
        registry.register("bytes_out", "Bytes of messages to clients", self.bytes_out.clone());
        registry.register("edits_acked", "Edits that are on disk", self.edits_acked.clone());
        registry.register("edits_rejected", "Edits that were refused", self.edits_rejected.clone());
        registry.register(
            "sessions_closed",
            "Sessions that the server closed",
            self.sessions_closed.clone(),
        );
        registry.register(
            "connections_given_up",
            "Connections that the server gave up",
            self.connections_given_up.clone(),
        );
        registry.register(
            "connections_paused",
            "Times that a connection was not read from, because it said too much",
            self.connections_paused.clone(),
        );
        registry.register("rooms_open", "Rooms that are live", self.rooms_open.clone());
    }

    /// What went wrong, by reason.
    fn register_reasons(&mut self) {
        let registry = &mut self.registry;
        registry.register("loads_failed", "Documents that did not open", self.loads_failed.clone());
        registry.register(
            "reads_failed",
            "Pieces of documents that could not be read",
            self.reads_failed.clone(),
        );
        registry.register(
            "merges_failed",
            "Merges that did not come to an end",
            self.merges_failed.clone(),
        );
        registry.register(
            "tokens_refused",
            "Tokens that were refused",
            self.tokens_refused.clone(),
        );
        registry.register(
            "documents_closed",
            "Sessions told that a document is closed to them",
            self.documents_closed.clone(),
        );
        registry.register(
            "reloads",
            "Replaced keys and certificates that were taken over, or could not be",
            self.reloads.clone(),
        );
        registry.register("backups", "Backups of the running server", self.backups.clone());
    }

    fn register_rooms(&mut self) {
        let counters = [
            ("room_panics", "Rooms that panicked", &self.room_panics),
            (
                "work_panics",
                "Pieces of long work that panicked and were given up",
                &self.work_panics,
            ),
            ("compactions", "Snapshots made", &self.compactions),
            (
                "compactions_failed",
                "Compactions that were given up; the log stayed",
                &self.compactions_failed,
            ),
            ("appends_failed", "Batches that were not stored", &self.appends_failed),
            (
                "resets",
                "Rooms reset because of changes that did not merge",
                &self.resets,
            ),
            (
                "resets_failed",
                "Resets that could not be stored; the room closed",
                &self.resets_failed,
            ),
            (
                "discards_failed",
                "Former snapshots that could not be deleted",
                &self.discards_failed,
            ),
            (
                "frames_left_out",
                "Frames that a member with a full queue was not sent",
                &self.frames_left_out,
            ),
            (
                "rooms_trimmed",
                "Rooms asked to let go of what can be loaded again",
                &self.rooms_trimmed,
            ),
            (
                "members_lagged",
                "Members whose queue was too full for a diff",
                &self.members_lagged,
            ),
            (
                "pieces_read",
                "Pieces of documents read and encoded for members on their way",
                &self.pieces_read,
            ),
        ];
        for (name, help, counter) in counters {
            self.registry.register(name, help, counter.clone());
        }
        self.registry.register(
            "merges_under_way",
            "Merges, compactions and removals of former snapshots that work, or rest",
            self.merges_under_way.clone(),
        );
        self.registry.register_with_unit(
            "merging",
            "How long merges, compactions and removals of former snapshots worked",
            Unit::Seconds,
            self.merging.clone(),
        );
    }

    /// What is looked up when somebody asks.
    fn register_gauges(&mut self) {
        let gauges = [
            (
                "rooms_memory_bytes",
                "Memory that the rooms take",
                &self.rooms_memory_bytes,
            ),
            ("store_queue", "Batches that wait for the store", &self.store_queue),
            ("store_syncs", "Syncs of the store since the start", &self.store_syncs),
            ("store_errors", "Writes and syncs that failed", &self.store_errors),
            (
                "store_read_only",
                "1 when a failed sync has made the store read-only",
                &self.store_read_only,
            ),
            ("store_full", "1 while the disk is full", &self.store_full),
            (
                "store_fulls",
                "Times since the start that the disk was full",
                &self.store_fulls,
            ),
            (
                "store_recoveries",
                "Times since the start that there was space again",
                &self.store_recoveries,
            ),
            (
                "store_restored",
                "1 while everybody may bring back what a restore lost",
                &self.store_restored,
            ),
        ];
        for (name, help, gauge) in gauges {
            self.registry.register(name, help, gauge.clone());
        }
    }

    /// Counts refused edits. Codes are our own, so there are few.
    pub fn reject(&self, code: &RejectCode, count: u64) {
        let code = match code {
            RejectCode::Forbidden => "forbidden",
            RejectCode::Limit => "limit",
            RejectCode::ActorConflict => "actor_conflict",
            RejectCode::ForeignActor => "foreign_actor",
            RejectCode::MissingDeps => "missing_deps",
            RejectCode::AfterReject => "after_reject",
            RejectCode::Quarantined => "quarantined",
            RejectCode::Unavailable => "unavailable",
            RejectCode::NotOpen => "not_open",
            RejectCode::Other(_) => "other",
        };
        self.edits_rejected.get_or_create(&CodeLabels { code }).inc_by(count);
    }

    /// Counts `closed` answers.
    pub fn closed(&self, code: &ClosedCode, count: u64) {
        let code = match code {
            ClosedCode::Forbidden => "forbidden",
            ClosedCode::Reset => "reset",
            ClosedCode::Damaged => "damaged",
            ClosedCode::Limit => "limit",
            ClosedCode::Unavailable => "unavailable",
            ClosedCode::Other(_) => "other",
        };
        self.documents_closed.get_or_create(&CodeLabels { code }).inc_by(count);
    }

    /// Counts a document that did not open.
    pub fn load_failed(&self, reason: LoadFault) {
        self.loads_failed.get_or_create(&LoadLabels { reason }).inc();
    }

    /// Counts a piece of a document that could not be read.
    pub fn read_failed(&self, reason: LoadFault) {
        self.reads_failed.get_or_create(&LoadLabels { reason }).inc();
    }

    /// Counts a merge that did not come to an end.
    pub fn merge_failed(&self, reason: MergeFault) {
        self.merges_failed.get_or_create(&MergeLabels { reason }).inc();
    }

    /// Counts something that was turned away.
    pub fn refuse(&self, reason: Refused) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    /// Counts a connection that the server gave up.
    pub fn give_up(&self, reason: GivenUp) {
        self.connections_given_up.get_or_create(&GivenUpLabels { reason }).inc();
    }

    /// Counts a backup that has ended.
    pub fn backed_up(&self, done: bool) {
        let outcome = if done { Outcome::Done } else { Outcome::Failed };
        self.backups.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Counts replaced files that were taken over, or could not be.
    pub fn reloaded(&self, what: Reloaded, done: bool) {
        let outcome = if done { Outcome::Done } else { Outcome::Failed };
        self.reloads.get_or_create(&ReloadLabels { what, outcome }).inc();
    }

    /// All of them in OpenMetrics text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a text cannot fail");
        text
    }
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Counts one.
    pub fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_with_their_labels() {
        let metrics = Metrics::new();
        metrics.connections.inc();
        metrics.refuse(Refused::Origin);
        metrics
            .edits_rejected
            .get_or_create(&CodeLabels { code: "limit" })
            .inc_by(3);
        let text = metrics.render();
        assert!(text.contains("syncline_connections_total 1\n"), "{text}");
        assert!(text.contains("syncline_refused_total{reason=\"Origin\"} 1\n"), "{text}");
        assert!(
            text.contains("syncline_edits_rejected_total{code=\"limit\"} 3\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
