//! An open document, as an app holds it.

use crate::{
    client::Closed,
    core::{ChangeError, Changed, ConnectionStatus, Core, DocumentState, DocumentStatus, Draft, Event, Other, Saved},
    task::{Command, Done, Listening},
};
use automerge::{
    Automerge, ChangeHash,
    transaction::{CommitOptions, Transaction},
};
use bytes::Bytes;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};
use syncline_protocol::{DocumentId, SessionId, native::ClosedCode};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// A one-off message from somebody else in the room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Who sent it.
    pub session: SessionId,
    /// Opaque.
    pub payload: Bytes,
}

/// Why presence or a signal is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The client is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The server takes less.
    #[error("presence and signals have at most {limit} bytes, this one has {found}")]
    TooLarge {
        /// How many it has.
        found: u64,
        /// How many it may have.
        limit: u64,
    },
}

/// Why a document does not come to be what was waited for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The client or the document is closed.
    #[error("the document is closed")]
    Closed,
    /// The server does not let this document in.
    #[error("the server refuses the document: {text} ({code:?})")]
    Refused {
        /// Why, for programs.
        code: ClosedCode,
        /// Why, for people.
        text: String,
    },
    /// The server does not want this client.
    #[error("the server refuses the connection: {text} ({code})")]
    Rejected {
        /// The close code.
        code: u16,
        /// Why, for people.
        text: String,
    },
    /// The server refused changes; see [`DocHandle::drafts`].
    #[error("the server refused changes, {0} drafts wait to be looked at")]
    Drafts(u64),
}

/// An open document. Cheap to clone. Closures run on the client's thread, one after another: keep them short, and never wait in
/// them for the client itself.
#[derive(Clone, Debug)]
pub struct DocHandle {
    document: DocumentId,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<ConnectionStatus>,
    listening: Listening,
}

impl DocHandle {
    pub(crate) fn new(
        document: DocumentId,
        commands: mpsc::Sender<Command>,
        status: watch::Receiver<ConnectionStatus>,
        listening: Listening,
    ) -> Self {
        Self {
            document,
            commands,
            status,
            listening,
        }
    }

    /// Which document.
    pub fn id(&self) -> &DocumentId {
        &self.document
    }

    /// Waits until the document has been up to date once.
    ///
    /// # Errors
    /// When the server refuses the document or the connection, or all is closed.
    pub async fn when_ready(&self) -> Result<(), WaitError> {
        self.when(|state| state.ready).await
    }

    /// Waits until all changes made before are on the server's disk.
    ///
    /// # Errors
    /// When the server refuses changes, the document or the connection, or all is closed.
    pub async fn when_durable(&self) -> Result<(), WaitError> {
        self.when(|state| state.unacknowledged == 0).await?;
        match self.state().drafts {
            0 => Ok(()),
            drafts => Err(WaitError::Drafts(drafts)),
        }
    }

    /// Reads from the document.
    ///
    /// # Errors
    /// When the document is closed.
    pub async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Automerge) -> T + Send + 'static,
    ) -> Result<T, Closed> {
        let document = self.document.clone();
        let work = move |core: &mut Core| (core.document(&document).map(read), None);
        self.work(work).await?.ok_or(Closed)
    }

    /// A copy of the document.
    ///
    /// # Errors
    /// When the document is closed.
    pub async fn doc(&self) -> Result<Automerge, Closed> {
        self.read(Automerge::clone).await
    }

    /// The heads of the document.
    ///
    /// # Errors
    /// When the document is closed.
    pub async fn heads(&self) -> Result<Vec<ChangeHash>, Closed> {
        self.read(Automerge::get_heads).await
    }

    /// Changes the document, here at once and then everywhere: one change of all that `edit` does, or none if it fails.
    /// Connected or not: what cannot be sent now is kept and sent later.
    ///
    /// # Errors
    /// What `edit` returns, or why no change is taken now.
    pub async fn change<T, E>(
        &self,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Changed<T>, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        self.change_with(CommitOptions::default(), edit).await
    }

    /// As [`Self::change`], with a message or a time.
    ///
    /// # Errors
    /// What `edit` returns, or why no change is taken now.
    pub async fn change_with<T, E>(
        &self,
        options: CommitOptions,
        edit: impl FnOnce(&mut Transaction<'_>) -> Result<T, E> + Send + 'static,
    ) -> Result<Changed<T>, ChangeError<E>>
    where
        T: Send + 'static,
        E: Send + 'static,
    {
        let document = self.document.clone();
        let work = move |core: &mut Core| {
            let changed = core.change(&document, options, edit);
            (changed, Some(Event::Edited { document }))
        };
        self.work(work).await.unwrap_or(Err(ChangeError::NotOpen))
    }

    /// Waits until others changed the document, or own changes were taken back, since this was called last on this clone.
    ///
    /// # Errors
    /// When the document is closed.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.listening.changes.changed().await.map_err(|_| Closed)
    }

    /// Where the document stands.
    pub fn state(&self) -> DocumentState {
        self.listening.state.borrow().clone()
    }

    /// Where the document stands with the server.
    pub fn status(&self) -> DocumentStatus {
        self.state().status
    }

    /// Waits until the document stands elsewhere than when this was called last on this clone.
    ///
    /// # Errors
    /// When the document is closed.
    pub async fn state_changed(&mut self) -> Result<DocumentState, Closed> {
        self.listening.state.changed().await.map_err(|_| Closed)?;
        Ok(self.listening.state.borrow_and_update().clone())
    }

    /// How many own changes the server has not acknowledged.
    pub fn unacknowledged(&self) -> u64 {
        self.state().unacknowledged
    }

    /// Who else is here, and what this client shows of itself.
    pub fn presence(&mut self) -> Presence<'_> {
        Presence { handle: self }
    }

    /// Says something to the others in the room, once. Dropped while the room is not joined.
    ///
    /// # Errors
    /// When it is too large, or the client is closed.
    pub async fn signal(&self, payload: Bytes) -> Result<(), SendError> {
        let document = self.document.clone();
        self.small(payload, |payload| Event::SendSignal { document, payload })
            .await
    }

    /// What others say from now on.
    pub fn signals(&self) -> Signals {
        Signals {
            receiver: self.listening.signals.subscribe(),
        }
    }

    /// Changes that the server refused: no longer in the document, kept for the app.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn drafts(&self) -> Result<Vec<Draft>, Closed> {
        let document = self.document.clone();
        self.work(move |core: &mut Core| (core.drafts(&document).to_vec(), None))
            .await
    }

    /// Takes the refused changes out: they are the app's to show, export or drop.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn take_drafts(&self) -> Result<Vec<Draft>, Closed> {
        let document = self.document.clone();
        self.work(move |core: &mut Core| (core.take_drafts(&document), None))
            .await
    }

    /// All that is needed to go on after a restart, unacknowledged changes included; for [`crate::Client::restore`].
    ///
    /// # Errors
    /// When the document is closed.
    pub async fn save(&self) -> Result<Saved, Closed> {
        let document = self.document.clone();
        self.work(move |core: &mut Core| (core.save(&document), None))
            .await?
            .ok_or(Closed)
    }

    /// Leaves the room and lets go of the document, for all its handles. Changes that are not durable yet go with it.
    pub async fn close(self) {
        // An error says that the client is closed already.
        let _ = self
            .tell(Event::Close {
                document: self.document.clone(),
            })
            .await;
    }

    async fn when(&self, reached: impl Fn(&DocumentState) -> bool) -> Result<(), WaitError> {
        let (mut state, mut status) = (self.listening.state.clone(), self.status.clone());
        loop {
            state.mark_unchanged();
            status.mark_unchanged();
            if reached(&state.borrow()) {
                return Ok(());
            }
            self.refusal()?;
            let changed = tokio::select! {
                changed = state.changed() => changed,
                changed = status.changed() => changed,
            };
            changed.map_err(|_| WaitError::Closed)?;
        }
    }

    /// What the server said for good, if it did.
    pub(crate) fn refusal(&self) -> Result<(), WaitError> {
        if let DocumentStatus::Refused { code, text } = self.status() {
            return Err(WaitError::Refused { code, text });
        }
        match &*self.status.borrow() {
            ConnectionStatus::Rejected { code, text } => Err(WaitError::Rejected {
                code: *code,
                text: text.clone(),
            }),
            ConnectionStatus::Connecting | ConnectionStatus::Connected | ConnectionStatus::Offline { .. } => Ok(()),
        }
    }

    /// Tells the core of `payload`, if the server takes one as large.
    async fn small(
        &self,
        payload: Bytes,
        event: impl FnOnce(Bytes) -> Event + Send + 'static,
    ) -> Result<(), SendError> {
        let found = payload.len() as u64;
        let work = move |core: &mut Core| {
            let limit = core.presence_bytes_max();
            if found > limit {
                (Err(SendError::TooLarge { found, limit }), None)
            } else {
                (Ok(()), Some(event(payload)))
            }
        };
        self.work(work).await?
    }

    async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.commands.send(Command::Tell(event)).await.map_err(|_| Closed)
    }

    /// Has `work` done on the client's thread. A panic in it comes back to the caller.
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Core) -> (T, Option<Event>) + Send + 'static,
    ) -> Result<T, Closed> {
        let (reply, answer) = oneshot::channel();
        let work = move |core: &mut Core| {
            let (outcome, event) = match catch_unwind(AssertUnwindSafe(|| work(core))) {
                Ok((result, event)) => (Ok(result), event),
                Err(panic) => (Err(panic), None),
            };
            // The caller may have stopped waiting.
            Done {
                event,
                reply: Box::new(move || drop(reply.send(outcome))),
            }
        };
        self.commands
            .send(Command::Work(Box::new(work)))
            .await
            .map_err(|_| Closed)?;
        answer
            .await
            .map_err(|_| Closed)?
            .map_or_else(|panic| resume_unwind(panic), Ok)
    }
}

/// Presence of one document.
#[derive(Debug)]
pub struct Presence<'a> {
    handle: &'a mut DocHandle,
}

impl Presence<'_> {
    /// Shows `state` to the others, until it is set anew or taken back. The last value wins.
    ///
    /// # Errors
    /// When it is too large, or the client is closed.
    pub async fn set(&self, state: Bytes) -> Result<(), SendError> {
        let document = self.handle.document.clone();
        let event = |state| Event::SetPresence {
            document,
            state: Some(state),
        };
        self.handle.small(state, event).await
    }

    /// Takes the own state back.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn clear(&self) -> Result<(), Closed> {
        self.handle
            .tell(Event::SetPresence {
                document: self.handle.document.clone(),
                state: None,
            })
            .await
    }

    /// The others, by connection.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn others(&self) -> Result<BTreeMap<SessionId, Other>, Closed> {
        let document = self.handle.document.clone();
        self.handle
            .work(move |core: &mut Core| (core.others(&document).cloned().unwrap_or_default(), None))
            .await
    }

    /// Waits until the others' presence changed since this was called last on this handle.
    ///
    /// # Errors
    /// When the document is closed.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        self.handle.listening.presence.changed().await.map_err(|_| Closed)
    }
}

/// What others say in a room. Who reads too slowly misses the oldest.
#[derive(Debug)]
pub struct Signals {
    receiver: broadcast::Receiver<Signal>,
}

impl Signals {
    /// The next one; `None` when the document is closed.
    pub async fn next(&mut self) -> Option<Signal> {
        loop {
            match self.receiver.recv().await {
                Ok(signal) => return Some(signal),
                Err(broadcast::error::RecvError::Lagged(missed)) => tracing::debug!(missed, "signals were missed"),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}
