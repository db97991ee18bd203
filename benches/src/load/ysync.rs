//! What Yjs's servers speak: sync steps and updates, in Hocuspocus each behind the document's name.

use super::socket::Socket;
use crate::yjs::{number, take_number, take_with_length, typed};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use std::net::SocketAddr;

const SYNC: u64 = 0;
const AUTH: u64 = 2;
/// Hocuspocus's way to answer the first step: as `SYNC`, but it asks for nothing in turn.
const SYNC_REPLY: u64 = 4;
const STEP_1: u64 = 0;
const STEP_2: u64 = 1;
const UPDATE: u64 = 2;
const TOKEN: u64 = 0;
const PERMISSION_DENIED: u64 = 1;
const NOTHING: &[u8] = &[0, 0];
/// The state of a replica that has nothing.
pub(crate) const EMPTY_STATE: &[u8] = &[0];

/// Which of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// One connection for one document, which stands in the path.
    Plain,
    /// The same, twice.
    YSweet,
    /// Messages name their document.
    Hocuspocus,
}

/// A member's way to talk.
#[derive(Debug)]
pub(crate) struct YSync {
    /// What stands before each message.
    prefix: Vec<u8>,
}

/// What came.
enum Said<'a> {
    /// The answer to a first step: all that the member lacks.
    Missing(&'a [u8]),
    Update(&'a [u8]),
    /// It asks for what the member has.
    Asks,
    Admits,
    Other,
}

impl YSync {
    /// A connection to the document, on which nothing is asked yet.
    pub(crate) async fn connect(address: SocketAddr, flavour: Flavour, room: &str) -> anyhow::Result<(Socket, Self)> {
        let mut prefix = Vec::new();
        let path = match flavour {
            Flavour::Plain => format!("/{room}"),
            Flavour::YSweet => format!("/d/{room}/ws/{room}"),
            Flavour::Hocuspocus => {
                crate::yjs::with_length(&mut prefix, room.as_bytes());
                "/".to_owned()
            }
        };
        let mut socket = Socket::connect(address, &path, None).await?;
        let speech = Self { prefix };
        if flavour == Flavour::Hocuspocus {
            // Any token will do where no hook looks at it; then the version of the provider.
            socket.queue(&speech.message(AUTH, &[TOKEN], &[b"none", b"4.7.0"]));
            speech.admitted(&mut socket).await?;
        }
        Ok((socket, speech))
    }

    /// Reads until the server says that it lets the member in: before that it takes little.
    async fn admitted(&self, socket: &mut Socket) -> anyhow::Result<()> {
        loop {
            socket.fill().await?;
            while let Some(message) = socket.message()? {
                if matches!(self.said(&message)?, Said::Admits) {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for what a replica in `state` lacks, and reads until it has come. Gives how large it was.
    pub(crate) async fn catch_up(&self, socket: &mut Socket, state: &[u8]) -> anyhow::Result<usize> {
        socket.queue(&self.message(SYNC, &[STEP_1], &[state]));
        socket.flush().await?;
        loop {
            socket.fill().await?;
            while let Some(message) = socket.message()? {
                match self.said(&message)? {
                    Said::Missing(update) => return Ok(update.len()),
                    Said::Asks => self.answer(socket),
                    Said::Update(_) | Said::Admits | Said::Other => {}
                }
            }
        }
    }

    /// Reads until an update of at least so many bytes has come, as the answer to a first step or after it. Gives its size.
    pub(crate) async fn large_update(&self, socket: &mut Socket, bytes_min: usize) -> anyhow::Result<usize> {
        loop {
            while let Some(message) = socket.message()? {
                match self.said(&message)? {
                    Said::Missing(update) | Said::Update(update) if update.len() >= bytes_min => {
                        return Ok(update.len());
                    }
                    Said::Asks => self.answer(socket),
                    _ => {}
                }
            }
            socket.fill().await?;
        }
    }

    /// Queues a first step.
    pub(crate) fn ask(&self, socket: &mut Socket, state: &[u8]) {
        socket.queue(&self.message(SYNC, &[STEP_1], &[state]));
    }

    /// Queues an edit.
    pub(crate) fn queue(&self, socket: &mut Socket, update: &[u8]) {
        socket.queue(&self.message(SYNC, &[UPDATE], &[update]));
    }

    /// Gives every character in a message to `on`, and answers what has to be answered.
    pub(crate) fn each(
        &self,
        socket: &mut Socket,
        message: &[u8],
        on: &mut impl FnMut(Bytes) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self.said(message)? {
            Said::Missing(update) | Said::Update(update) => typed(update)?
                .into_iter()
                .try_for_each(|typed| on(Bytes::copy_from_slice(&typed)))?,
            Said::Asks => self.answer(socket),
            Said::Admits | Said::Other => {}
        }
        Ok(())
    }

    fn answer(&self, socket: &mut Socket) {
        socket.queue(&self.message(SYNC, &[STEP_2], &[NOTHING]));
    }

    fn message(&self, kind: u64, numbers: &[u64], parts: &[&[u8]]) -> Vec<u8> {
        let mut out = self.prefix.clone();
        number(&mut out, kind);
        numbers.iter().for_each(|value| number(&mut out, *value));
        parts.iter().for_each(|part| crate::yjs::with_length(&mut out, part));
        out
    }

    fn said<'a>(&self, message: &'a [u8]) -> anyhow::Result<Said<'a>> {
        let mut rest = message
            .strip_prefix(&self.prefix[..])
            .context("a message about another document")?;
        match take_number(&mut rest)? {
            SYNC | SYNC_REPLY => Ok(match take_number(&mut rest)? {
                STEP_1 => Said::Asks,
                STEP_2 => Said::Missing(take_with_length(&mut rest)?),
                UPDATE => Said::Update(take_with_length(&mut rest)?),
                other => bail!("step {other} of the sync"),
            }),
            AUTH => {
                ensure!(
                    take_number(&mut rest)? != PERMISSION_DENIED,
                    "the server does not let the load in"
                );
                Ok(Said::Admits)
            }
            _ => Ok(Said::Other),
        }
    }
}
