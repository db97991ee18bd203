//! What goes wrong, and how it is put right again.

use crate::{
    disk::{self, Disk},
    plan::Fault,
    server::Server,
    world::{Context, Happening, Mutation, World},
};
use std::{collections::BTreeSet, sync::Arc};
use syncline::{
    engine::room::{LoadFailure, Merged},
    server::{room::storage::Storage, store::Store},
};
use syncline_client::core::{ConnectionStatus, DocumentStatus, Safety};
use syncline_protocol::{ChangeHash, DocumentId, Epoch, Position};

impl World {
    pub(crate) fn start_server(&mut self) {
        if self.server.is_none() {
            self.processes += 1;
            self.server = Server::start(self.processes, &self.disk, &mut self.context);
            if self.server.is_none() {
                // Its supervisor tries again.
                self.context.after(200, Happening::ServerStarts);
            }
        }
    }

    pub(crate) fn fault(&mut self, number: usize) {
        let fault = self.context.plan.faults[number].1;
        if self.context.healed {
            return;
        }
        let context = &mut self.context;
        context.say(format_args!("fault: {fault:?}"));
        match fault {
            Fault::Crash { down_ms } => self.crash(down_ms),
            Fault::CrashUnsynced { down_ms } => self.dies_unsynced = Some(down_ms),
            Fault::Stop { down_ms } => {
                if let Some(server) = &mut self.server {
                    server.stop(context);
                    self.down_ms = down_ms;
                }
            }
            Fault::Cut { client } => {
                if let Some(link) = self.clients[client].link() {
                    context.coverage.cuts += 1;
                    context.cut(link);
                }
            }
            Fault::Stall { client, ms } => {
                if let Some(link) = self.clients[client].link() {
                    context.coverage.stalls += 1;
                    context.stall(link, ms);
                }
            }
            Fault::Slow { client, ms } => {
                context.coverage.slow_members += 1;
                let until = context.now + ms;
                context.slow_until.insert(client, until);
            }
            Fault::ClientCrash { client, saved, down_ms } => {
                self.clients[client].crash(saved, context);
                context.after(down_ms, Happening::ClientStarts { client });
            }
            Fault::Offline { client, ms } => {
                context.coverage.offline += 1;
                self.clients[client].go_offline(context);
                context.after(ms, Happening::Online { client });
            }
            Fault::Night { ms } => {
                for client in 0..self.clients.len() {
                    self.clients[client].go_offline(context);
                    context.after(ms, Happening::Online { client });
                }
            }
            Fault::Resend { client } => self.clients[client].resend(context),
            Fault::Full { at_sync: true, ms } => self.spoil(disk::Fault::FullAtSync, ms),
            Fault::Full { at_sync: false, ms } => self.spoil(disk::Fault::Full, ms),
            Fault::Broken { ms } => self.spoil(disk::Fault::Broken, ms),
            Fault::BadMerge => context.bad_merges += 1,
            Fault::RoomPanic => context.room_panics += 1,
            Fault::Trim => {
                if let Some(server) = &mut self.server {
                    server.trim(context);
                }
            }
            Fault::BackUp => self.disk.back_up(),
            Fault::Restore { down_ms } => self.restore(down_ms),
        }
    }

    /// Something is wrong with the disk for a while, unless something is already.
    fn spoil(&mut self, fault: disk::Fault, ms: u64) {
        if self.disk.fault() != disk::Fault::None {
            return;
        }
        self.disk.set_fault(fault);
        let heals = match fault {
            disk::Fault::Broken => {
                self.context.coverage.broken_disks += 1;
                // Whoever opens the document anew reads what is durable.
                self.breaks_unsynced = true;
                Happening::Repaired
            }
            // Whoever met it goes on after a restart.
            disk::Fault::FullAtSync => Happening::Repaired,
            disk::Fault::None | disk::Fault::Full => Happening::DiskHeals,
        };
        self.context.after(ms, heals);
    }

    /// The server's process dies; the disk keeps what was synced and perhaps some of the rest.
    pub(crate) fn crash(&mut self, down_ms: u64) {
        let Some(server) = self.server.take() else { return };
        self.context.coverage.crashes += 1;
        server.die(&mut self.context);
        self.lose();
        self.context.after(down_ms, Happening::ServerStarts);
    }

    fn lose(&mut self) {
        let unsynced = self.disk.unsynced();
        let kept = self.context.random.index(unsynced + 1);
        self.disk.crash(kept);
        let context = &mut self.context;
        context.coverage.unsynced_kept += kept as u64;
        context.coverage.unsynced_lost += (unsynced - kept) as u64;
        context.say(format_args!(
            "the server is dead; of {unsynced} unsynced batches {kept} are on the disk"
        ));
        context.ledger.died();
        survivors(&self.disk, context);
    }

    /// The server's process dies, and an older copy of its disk is put in the place of what it had.
    fn restore(&mut self, down_ms: u64) {
        let notably = self.context.mutation != Mutation::RestoreUnnoticed;
        let Some(server) = self.server.take() else { return };
        server.die(&mut self.context);
        if !self.disk.restore(notably) {
            // There is no backup, and it was the cable after all.
            self.lose();
            return self.context.after(down_ms, Happening::ServerStarts);
        }
        let context = &mut self.context;
        context.coverage.restores += 1;
        context.say(format_args!("the server is dead, and a backup is in its place"));
        context.ledger.died();
        for document in context.plan.documents.clone() {
            match stored(&self.disk, &document, context) {
                Err(what) => context.violated(what),
                Ok(whole) => context.ledger.restored(&document, hashes(&whole)),
            }
        }
        self.context.after(down_ms, Happening::ServerStarts);
    }

    pub(crate) fn disk_heals(&mut self) {
        if self.disk.fault() != disk::Fault::Broken {
            self.disk.set_fault(disk::Fault::None);
        }
    }

    /// The operator has changed the disk's cable, and restarts the server if that is needed.
    pub(crate) fn repaired(&mut self) {
        self.disk.set_fault(disk::Fault::None);
        if self.server.as_ref().is_some_and(Server::is_read_only) {
            self.crash(100);
        }
    }

    /// Takes away a server that has stopped in good order.
    pub(crate) fn reap_server(&mut self) {
        let context = &mut self.context;
        if self.server.as_mut().is_some_and(|server| server.has_stopped(context)) {
            let read_only = self.server.take().is_some_and(|server| server.is_read_only());
            context.coverage.stops += 1;
            context.say(format_args!("the server has stopped"));
            if self.disk.unsynced() > 0 && !read_only {
                context.violated("a server stops in good order and leaves something unsynced".to_owned());
            }
            let down_ms = self.down_ms;
            self.lose();
            self.context.after(down_ms, Happening::ServerStarts);
        }
    }

    pub(crate) fn heal_world(&mut self) {
        let context = &mut self.context;
        context.slow_until.clear();
        for client in 0..self.clients.len() {
            context.after(0, Happening::ClientStarts { client });
            context.after(1, Happening::Online { client });
        }
        context.after(0, Happening::Repaired);
    }

    /// Whether nothing moves any more; if not, what does.
    pub(crate) fn is_at_rest(&mut self) -> Result<(), String> {
        let Some(server) = &self.server else {
            return Err("the server is down".to_owned());
        };
        if server.is_read_only() {
            return Err("the server is read-only".to_owned());
        }
        for (index, client) in self.clients.iter_mut().enumerate() {
            let Some(core) = client.core() else {
                return Err(format!("client {index} is down"));
            };
            if let ConnectionStatus::Rejected { .. } = core.status() {
                // Somebody presses the button.
                client.online(&mut self.context);
                return Err(format!("client {index} was rejected"));
            }
            for document in &self.context.plan.documents {
                let state = core.state(document).expect("the document is open");
                let live = matches!(state.status, DocumentStatus::Live { .. });
                if !live || state.safety != Safety::Durable || state.unacknowledged > 0 {
                    return Err(format!("client {index} has {document} as {state:?}"));
                }
            }
        }
        let same_heads = |document: &DocumentId| {
            let heads =
                |core: &syncline_client::core::Core| core.document(document).map(automerge::Automerge::get_heads);
            let mut all = self.clients.iter().filter_map(|client| client.core()).map(heads);
            let first = all.next();
            all.all(|heads| Some(heads) == first)
        };
        match self
            .context
            .plan
            .documents
            .iter()
            .find(|document| !same_heads(document))
        {
            Some(document) => Err(format!("the replicas of {document} differ")),
            None => Ok(()),
        }
    }
}

/// What the disk holds of a document after a crash: everything that was synced, whole and loadable.
fn survivors(disk: &Arc<Disk>, context: &mut Context) {
    for document in context.plan.documents.clone() {
        match stored(disk, &document, context) {
            Err(what) => context.violated(what),
            Ok(document_stored) => {
                let hashes = hashes(&document_stored);
                let account = context.ledger.account_mut(&document);
                let owed = account.durable.union(&account.promised);
                let lost = owed.filter(|hash| !hashes.contains(*hash) && !account.thrown_out.contains(*hash));
                let lost = lost.count();
                account.durable.extend(hashes);
                if lost > 0 {
                    context.violated(format!(
                        "a crash lost {lost} changes of {document} that were synced or promised"
                    ));
                }
            }
        }
    }
}

/// The document as it lies on the disk.
pub(crate) fn stored(
    disk: &Arc<Disk>,
    document: &DocumentId,
    context: &Context,
) -> Result<automerge::Automerge, String> {
    let Ok(store) = Store::open(disk.clone()) else {
        return Ok(automerge::Automerge::new());
    };
    let storage = Storage::new(store, document.clone(), context.plan.limits.clone());
    let loaded = match storage.open(Epoch::new(1)) {
        Ok(loaded) if loaded.exists => loaded,
        Ok(_) => return Ok(automerge::Automerge::new()),
        Err(LoadFailure::Damaged) => return Err(format!("{document} is damaged on the disk")),
        Err(LoadFailure::Unavailable) => return Err(format!("{document} cannot be read from the disk")),
    };
    let end: Position = loaded.index.position();
    match storage.merge(None, end) {
        Merged::Whole { document: whole, .. } => Ok(whole.automerge().clone()),
        other => Err(format!("{document} on the disk does not merge: {other:?}")),
    }
}

/// The hashes of all changes in a document.
pub(crate) fn hashes(document: &automerge::Automerge) -> BTreeSet<ChangeHash> {
    let changes = document.get_changes(&[]);
    changes.iter().map(|change| ChangeHash(change.hash().0)).collect()
}
