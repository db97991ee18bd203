//! The operator's way into a running server: a socket in the data directory. Whoever may write there may ask for a backup, one
//! at a time. Nothing else is said on it.
//!
//! The question is a line, `backup DIRECTORY`; the answer is an [`Answer`] as JSON, and the end.

use crate::server::{Server, store::Store};
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
};

/// Its name in the data directory.
pub const FILE: &str = "control";
/// What a question begins with.
pub const BACKUP: &str = "backup ";
/// The longest question.
const QUESTION_BYTES_MAX: u64 = 64 << 10;
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// After the system has refused a connection.
const PAUSE: Duration = Duration::from_secs(1);

/// What came of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is on disk.
    Done {
        /// How many documents.
        documents: u64,
        /// Of these, the ones that are damaged.
        damaged: Vec<String>,
    },
    /// It is not there, and why.
    Failed(String),
}

/// Copies all documents of `store` into a new directory.
pub fn back_up(store: &Store, directory: &Path, goes_on: &dyn Fn() -> bool) -> Answer {
    match store.back_up(directory, goes_on) {
        Ok(copied) => Answer::Done {
            documents: copied.documents,
            damaged: copied.damaged.iter().map(ToString::to_string).collect(),
        },
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// Opens the socket in `data`. Only who holds the lock of the directory may, so what lies there is of a server that is gone.
pub(super) fn listen(data: &Path) -> io::Result<UnixListener> {
    let path = data.join(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Answers one after another, until the server ends.
pub(super) async fn serve(listener: UnixListener, server: Arc<Server>) {
    loop {
        let answered = match listener.accept().await {
            Ok((stream, _)) => answer(stream, &server).await,
            Err(error) => {
                tokio::time::sleep(PAUSE).await;
                Err(error)
            }
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "a question of the operator was not answered");
        }
    }
}

async fn answer(mut stream: UnixStream, server: &Arc<Server>) -> io::Result<()> {
    let mut line = String::new();
    let mut question = BufReader::new(&mut stream).take(QUESTION_BYTES_MAX);
    tokio::time::timeout(QUESTION_TIMEOUT, question.read_line(&mut line)).await??;
    let answer = match line.strip_suffix('\n').and_then(|line| line.strip_prefix(BACKUP)) {
        None => Answer::Failed("this server knows no such question: is it of another version?".into()),
        Some(directory) => {
            let (directory, server) = (PathBuf::from(directory), Arc::clone(server));
            tracing::info!(directory = %directory.display(), "a backup begins");
            let goes_on = move |server: &Server| !*server.draining.borrow();
            let work = move || back_up(&server.store, &directory, &|| goes_on(&server));
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|_| Answer::Failed("the backup panicked: see the server's log".into()))
        }
    };
    server.metrics.backed_up(!matches!(answer, Answer::Failed(_)));
    tracing::info!(?answer, "a backup has ended");
    let text = serde_json::to_vec(&answer).map_err(io::Error::other)?;
    stream.write_all(&text).await?;
    stream.shutdown().await
}
