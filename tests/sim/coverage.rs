//! What happened in runs, counted: a run in which nothing went wrong proves nothing.

macro_rules! coverage {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often things happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Coverage {
            $($(#[$doc])* pub(crate) $name: u64,)*
        }

        impl Coverage {
            /// Adds what happened in another run.
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Each counter with its name.
            pub(crate) fn counters(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }
        }
    };
}

coverage! {
    /// Turns of the queue.
    happenings,
    /// Changes that users made.
    edits,
    /// Deletions of what others had written.
    deletions,
    /// Changes with marks, which must be proven before they enter.
    marks,
    /// Edits that were acknowledged.
    acks,
    /// Edits that were refused for now.
    rejects_temporary,
    /// Edits that were refused for good.
    rejects_permanent,
    /// Turns after which a batch rested behind the last one.
    rests,
    /// Diffs that entered a queue.
    diffs,
    /// Parts that entered a queue.
    parts,
    /// Bundles of changes in parts.
    bundles,
    /// Joins that were brought a snapshot.
    snapshot_joins,
    /// Joins that went on from their cursor.
    log_joins,
    /// Members that were brought up from the log again.
    catch_ups,
    /// Diffs that did not fit into a member's queue.
    lagged,
    /// Crashes of the server.
    crashes,
    /// Batches that crashes took.
    unsynced_lost,
    /// Batches that were not synced and survived a crash all the same.
    unsynced_kept,
    /// Orderly stops of the server.
    stops,
    /// Backups that were put back.
    restores,
    /// Links that broke.
    cuts,
    /// Links that stalled.
    stalls,
    /// Clients that took their frames slowly.
    slow_members,
    /// Clients that came back with what they had saved.
    clients_restored,
    /// Clients that came back with nothing.
    clients_emptied,
    /// Clients that were offline.
    offline,
    /// Edits that were sent twice on one connection.
    resends,
    /// Times that the disk was full.
    full_disks,
    /// Times that the disk failed to sync.
    broken_disks,
    /// Batches that could not be stored.
    store_errors,
    /// Rooms that were opened.
    rooms_opened,
    /// Rooms that closed because nobody was there.
    rooms_closed,
    /// Rooms that panicked.
    room_panics,
    /// Merges.
    merges,
    /// Changes that were proven.
    proofs,
    /// Changes that were decoded elsewhere.
    decodes,
    /// Compactions.
    compactions,
    /// Compactions that were given up.
    compactions_failed,
    /// Merges that were said to have met a bad change.
    bad_merges,
    /// Rooms that were reset.
    resets,
    /// Changes that were taken out of a log.
    quarantined,
    /// Drafts that clients kept.
    drafts,
    /// Edits that readers tried.
    reader_edits,
    /// Times that a full inbox made a connection wait.
    inbox_waits,
    /// Times that a connection was not read from because of its rate.
    pauses,
    /// Tokens that were renewed or ran out.
    tokens,
}
