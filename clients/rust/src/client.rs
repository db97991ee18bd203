//! A connection to a server, as an app holds it.

use crate::{
    clock::Clock,
    core::{Config, ConnectionStatus, Core, Credentials, Event, Saved},
    handle::DocHandle,
    options::{ConnectError, Options, Target},
    task::{Command, Task},
    token::TokenSource,
};
use syncline_protocol::DocumentId;
use tokio::sync::{mpsc, oneshot, watch};

/// Calls that wait for the client's thread; further ones wait before they are taken.
const COMMANDS_MAX: usize = 1_024;
/// Of the client's thread: Automerge goes back along chains of changes by recursion. What is not used takes no memory.
const STACK_BYTES: usize = 64 << 20;

/// The client is closed, or its thread is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is closed")]
pub struct Closed;

/// A connection to a server, and the documents open on it. Cheap to clone; when the last clone and the last handle are gone,
/// the connection is closed.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<ConnectionStatus>,
}

impl Client {
    /// Starts a client. It returns at once; the client connects, and connects again, by itself until it is closed or the
    /// server says for good that it does not want it: see [`Self::status`].
    ///
    /// # Errors
    /// When the options cannot work: a wrong URL, a certificate that is none.
    pub fn connect(options: Options) -> Result<Self, ConnectError> {
        let target = Target::new(&options)?;
        let seed = match options.seed {
            Some(seed) => seed,
            None => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed).map_err(ConnectError::Random)?;
                seed
            }
        };
        let mut config = Config::new(seed);
        config.limits = options.limits;
        config.name = options.name.unwrap_or(config.name);
        config.credentials = match &options.token {
            TokenSource::None => Credentials::None,
            TokenSource::Fixed(token) => Credentials::Fixed(token.clone()),
            TokenSource::Function(_) => Credentials::Asked,
        };
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let sender = watch::Sender::new(ConnectionStatus::Connecting);
        let status = sender.subscribe();
        let (core, clock, token) = (Core::new(config), Clock::start(), options.token);
        let task = Task {
            core,
            clock,
            target,
            token,
            commands: receiver,
            status: sender,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ConnectError::Thread)?;
        std::thread::Builder::new()
            .name("syncline-client".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || runtime.block_on(task.run()))
            .map_err(ConnectError::Thread)?;
        Ok(Self { commands, status })
    }

    /// Opens a document, or gives another handle of one that is open. It stays open until [`DocHandle::close`], so that what
    /// was changed reaches the server whatever becomes of the handle.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn open(&self, document: DocumentId) -> Result<DocHandle, Closed> {
        self.open_saved(document, None).await
    }

    /// Opens a document that [`DocHandle::save`] kept, with all that the server had not acknowledged then.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn restore(&self, document: DocumentId, saved: Saved) -> Result<DocHandle, Closed> {
        self.open_saved(document, Some(Box::new(saved))).await
    }

    async fn open_saved(&self, document: DocumentId, saved: Option<Box<Saved>>) -> Result<DocHandle, Closed> {
        let (reply, answer) = oneshot::channel();
        let event = Event::Open {
            document: document.clone(),
            saved,
        };
        let command = Command::Open {
            event,
            document: document.clone(),
            reply,
        };
        self.commands.send(command).await.map_err(|_| Closed)?;
        let listening = answer.await.map_err(|_| Closed)?;
        Ok(DocHandle::new(
            document,
            self.commands.clone(),
            self.status.clone(),
            listening,
        ))
    }

    /// Where the connection stands.
    pub fn status(&self) -> ConnectionStatus {
        self.status.borrow().clone()
    }

    /// Waits until the connection stands elsewhere than when this was called last on this clone.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn status_changed(&mut self) -> Result<ConnectionStatus, Closed> {
        self.status.changed().await.map_err(|_| Closed)?;
        Ok(self.status.borrow_and_update().clone())
    }

    /// Connects again after a rejection, with a token asked anew.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn reconnect(&self) -> Result<(), Closed> {
        self.commands
            .send(Command::Tell(Event::Started))
            .await
            .map_err(|_| Closed)
    }

    /// Closes the connection and ends the client, for all its clones. Changes that are not durable yet are lost with it, unless
    /// [`DocHandle::when_durable`] was awaited or [`DocHandle::save`] was kept.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Close { reply }).await.is_ok() {
            // An error says that it is closed already.
            let _ = answer.await;
        }
    }
}
