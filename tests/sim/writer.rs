//! The store's writer in virtual time: everything that waits becomes one group, committed as one batch, and only when that is
//! durable is everybody told. It takes the same decisions as `syncline::server::store::writer` on a full and on a broken disk.

use crate::{
    disk::Disk,
    room::JobId,
    world::{Context, Happening},
};
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use syncline::server::store::{
    StoreError,
    kv::{Batch, Kv, KvError},
};
use syncline_protocol::RoomNumber;

/// How often a writer on a full disk looks for space.
const FULL_PROBE_MS: u64 = 250;

/// Who waits for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ticket {
    /// A room's append.
    Append(RoomNumber),
    /// One commit of a room's job.
    Job(RoomNumber, JobId),
}

/// The writer of one process.
pub(crate) struct Writer {
    process: u64,
    disk: Arc<Disk>,
    queue: VecDeque<(Batch, Ticket)>,
    group: Group,
    state: State,
    /// Whether a failed sync has made the store read-only.
    pub(crate) read_only: Arc<AtomicBool>,
}

/// What is being made durable.
enum Group {
    Nothing,
    /// To be written at the next turn.
    Starting,
    Syncing(Vec<Ticket>),
}

enum State {
    Writable,
    Full,
    ReadOnly(String),
}

impl Writer {
    pub(crate) fn start(process: u64, disk: Arc<Disk>) -> Self {
        let mut writer = Self {
            process,
            disk,
            queue: VecDeque::new(),
            group: Group::Nothing,
            state: State::Writable,
            read_only: Arc::default(),
        };
        writer.probe();
        writer
    }

    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.state, State::ReadOnly(_))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && matches!(self.group, Group::Nothing)
    }

    pub(crate) fn submit(&mut self, batch: Batch, ticket: Ticket, context: &mut Context) {
        self.queue.push_back((batch, ticket));
        if matches!(self.group, Group::Nothing) {
            self.group = Group::Starting;
            let process = self.process;
            context.after(0, Happening::Writer { process });
        }
    }

    /// One turn: writes a group, or completes the one that was being synced. Answers with whom to tell what.
    pub(crate) fn turn(&mut self, context: &mut Context) -> Vec<(Ticket, Result<(), StoreError>)> {
        let process = self.process;
        match std::mem::replace(&mut self.group, Group::Nothing) {
            Group::Nothing => Vec::new(),
            Group::Starting => {
                if matches!(self.state, State::Full) {
                    self.probe();
                }
                let len = context.random.between(1, 8).min(self.queue.len() as u64);
                let (mut batch, mut tickets) = (Batch::default(), Vec::new());
                for (work, ticket) in self.queue.drain(..usize::try_from(len).expect("few")) {
                    batch.extend(work);
                    tickets.push(ticket);
                }
                let written = match &self.state {
                    State::ReadOnly(why) => Err(StoreError::ReadOnly(why.clone())),
                    State::Full => Err(StoreError::Full),
                    State::Writable => match self.disk.write(&batch) {
                        Ok(()) => Ok(()),
                        Err(KvError::Full) => Err(self.overflow(context)),
                        Err(error) => Err(self.give_up(&error)),
                    },
                };
                match written {
                    Ok(()) => {
                        self.group = Group::Syncing(tickets);
                        let sync_ms = context.plan.sync_ms(&mut context.random);
                        context.after(sync_ms, Happening::Writer { process });
                        Vec::new()
                    }
                    Err(error) => self.complete(tickets, &Err(error), context),
                }
            }
            Group::Syncing(tickets) => match self.disk.sync() {
                Ok(()) => self.complete(tickets, &Ok(()), context),
                Err(error) => {
                    let error = self.give_up(&error);
                    self.complete(tickets, &Err(error), context)
                }
            },
        }
    }

    /// The disk is full: this group is refused, and so are later ones until there is space.
    fn overflow(&mut self, context: &mut Context) -> StoreError {
        context.coverage.full_disks += 1;
        self.state = State::Full;
        let process = self.process;
        context.after(FULL_PROBE_MS, Happening::Probe { process });
        StoreError::Full
    }

    fn complete(
        &mut self,
        tickets: Vec<Ticket>,
        result: &Result<(), StoreError>,
        context: &mut Context,
    ) -> Vec<(Ticket, Result<(), StoreError>)> {
        if !self.queue.is_empty() {
            self.group = Group::Starting;
            let process = self.process;
            context.after(0, Happening::Writer { process });
        }
        context.coverage.store_errors += u64::from(result.is_err());
        let told = tickets.into_iter().map(|ticket| (ticket, result.clone()));
        told.collect()
    }

    /// Looks for space on a full disk.
    pub(crate) fn look(&mut self, context: &mut Context) {
        if matches!(self.state, State::Full) {
            self.probe();
        }
        if matches!(self.state, State::Full) {
            let process = self.process;
            context.after(FULL_PROBE_MS, Happening::Probe { process });
        }
    }

    fn probe(&mut self) {
        match self.disk.restore_reserve() {
            Ok(()) => self.state = State::Writable,
            Err(_) => self.state = State::Full,
        }
    }

    fn give_up(&mut self, error: &KvError) -> StoreError {
        let why = error.to_string();
        self.read_only.store(true, Ordering::Relaxed);
        self.state = State::ReadOnly(why.clone());
        StoreError::ReadOnly(why)
    }
}
