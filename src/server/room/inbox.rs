//! A room's inbox: what its sessions have said and it has not looked at, bounded in messages and in bytes.
//!
//! Mail that finds no place stays with whoever sends it ([`crate::server::post`]).

use super::Mail;
use std::{future::Future, sync::Arc};
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, OwnedPermit, Receiver, Sender, error::TrySendError},
};

/// Messages that may wait for a room.
pub const INBOX_MAX: usize = 1_024;
/// Bytes of large messages that may wait for it; a single larger one comes when no other large one is there.
pub const INBOX_BYTES_MAX: usize = 4 << 20;
/// Smaller ones are only counted: as many as there may be take no more than the large ones.
const LARGE_BYTES: usize = 4 << 10;

/// Mail in the inbox. Its bytes are free again when it is dropped. It travels in a box: the channel keeps places for 32, whether
/// anything is in them or not.
#[derive(Debug)]
pub(in crate::server) struct Letter {
    pub(in crate::server) mail: Mail,
    pub(in crate::server) space: Option<OwnedSemaphorePermit>,
}

/// The senders' side.
#[derive(Clone, Debug)]
pub struct Inbox {
    letters: Sender<Box<Letter>>,
    space: Arc<Semaphore>,
}

/// A place in the inbox for one piece of mail.
#[derive(Debug)]
pub struct Place {
    letters: OwnedPermit<Box<Letter>>,
    space: Option<OwnedSemaphorePermit>,
}

/// An inbox that holds so many messages, and the room's side of it.
pub(in crate::server) fn inbox(messages_max: usize) -> (Inbox, Receiver<Box<Letter>>) {
    let (letters, received) = mpsc::channel(messages_max);
    let space = Arc::new(Semaphore::new(INBOX_BYTES_MAX));
    (Inbox { letters, space }, received)
}

impl Inbox {
    /// Whether the room has ended.
    pub fn is_closed(&self) -> bool {
        self.letters.is_closed()
    }

    /// Sends mail if there is place for it now.
    ///
    /// # Errors
    /// The mail comes back when there is none, or the room has ended.
    pub fn try_send(&self, mail: Mail) -> Result<(), TrySendError<Mail>> {
        let Some(space) = self.try_space(&mail) else {
            return Err(TrySendError::Full(mail));
        };
        self.letters
            .try_send(Box::new(Letter { mail, space }))
            .map_err(|error| match error {
                TrySendError::Full(letter) => TrySendError::Full(letter.mail),
                TrySendError::Closed(letter) => TrySendError::Closed(letter.mail),
            })
    }

    /// A place for this mail, if there is one now.
    pub fn try_reserve(&self, mail: &Mail) -> Option<Place> {
        let space = self.try_space(mail)?;
        let letters = self.letters.clone().try_reserve_owned().ok()?;
        Some(Place { letters, space })
    }

    /// Waits for a place for this mail; `None` if the room has ended. The bytes come first: who has a place keeps nobody waiting.
    pub fn reserve(&self, mail: &Mail) -> impl Future<Output = Option<Place>> + Send + use<> {
        let (bytes, inbox) = (weight(mail), self.clone());
        async move {
            let mut space = None;
            if let Some(bytes) = bytes {
                tokio::select! {
                    acquired = inbox.space.acquire_many_owned(bytes) => space = acquired.ok(),
                    () = inbox.letters.closed() => return None,
                }
            }
            let letters = inbox.letters.reserve_owned().await.ok()?;
            Some(Place { letters, space })
        }
    }

    /// Sends mail as soon as there is place; whether it was sent before the room ended.
    pub async fn send(&self, mail: Mail) -> bool {
        let place = self.reserve(&mail).await;
        place.map(|place| place.send(mail)).is_some()
    }
}

impl Inbox {
    /// The bytes for this mail, if there are as many; nothing inside, if it needs none.
    fn try_space(&self, mail: &Mail) -> Option<Option<OwnedSemaphorePermit>> {
        let Some(bytes) = weight(mail) else { return Some(None) };
        let space = self.space.clone().try_acquire_many_owned(bytes);
        space.ok().map(Some)
    }
}

impl Place {
    /// Sends the mail for which it was reserved.
    pub fn send(self, mail: Mail) {
        let space = self.space;
        self.letters.send(Box::new(Letter { mail, space }));
    }
}

/// What large mail takes of the inbox's bytes.
fn weight(mail: &Mail) -> Option<u32> {
    let bytes = mail.bytes();
    let weight = u32::try_from(bytes.min(INBOX_BYTES_MAX)).expect("an inbox holds less than 4 GiB");
    (bytes > LARGE_BYTES).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::room::Event;
    use syncline_protocol::SessionId;

    fn mail(bytes: usize) -> Mail {
        Mail::Event(Event::Signalled {
            session: SessionId::new(1),
            payload: vec![0; bytes].into(),
        })
    }

    #[tokio::test]
    async fn large_mail_is_bounded_in_bytes() {
        let (inbox, mut letters) = inbox(16);
        inbox.try_send(mail(INBOX_BYTES_MAX / 2)).expect("it fits");
        assert!(matches!(
            inbox.try_send(mail(INBOX_BYTES_MAX / 2)),
            Err(TrySendError::Full(_))
        ));
        inbox.try_send(mail(1)).expect("small mail is counted alone");
        let waiting = inbox.reserve(&mail(2 * INBOX_BYTES_MAX));
        drop(letters.recv().await.expect("the large one"));
        waiting
            .await
            .expect("a larger one comes alone")
            .send(mail(2 * INBOX_BYTES_MAX));
        assert!(inbox.try_send(mail(LARGE_BYTES + 1)).is_err());
        let held = [letters.recv().await, letters.recv().await];
        assert!(
            inbox.try_send(mail(LARGE_BYTES + 1)).is_err(),
            "not before it was looked at"
        );
        drop(held);
        inbox.try_send(mail(LARGE_BYTES + 1)).expect("all is free");
    }

    #[tokio::test]
    async fn who_waits_for_bytes_hears_of_the_end() {
        let (inbox, letters) = inbox(16);
        inbox.try_send(mail(INBOX_BYTES_MAX)).expect("it fits");
        let waiting = inbox.reserve(&mail(LARGE_BYTES + 1));
        drop(letters);
        assert!(waiting.await.is_none());
        assert!(inbox.is_closed() && !inbox.send(mail(1)).await);
    }
}
