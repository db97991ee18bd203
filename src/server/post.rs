//! A connection's ways to its rooms. Nothing here waits: mail for a room whose inbox is full is parked, in order, and goes on
//! when the room has taken some, so that one busy room does not hold up the connection's others.
//!
//! What is parked is bounded: [`Post::is_full`] says when the connection must not be read from.

use crate::{
    engine::{
        few::Few,
        room::{Event, Join},
    },
    server::{
        hub::{Hub, Unavailable},
        outbox::{JoinNumber, Outbox},
        room::{
            Figures, Handle, Mail, Member, ended,
            inbox::{Inbox, Place},
        },
    },
};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};
use syncline_protocol::{DocumentId, RoomNumber, SessionId};
use tokio::sync::mpsc::error::TrySendError;

/// Messages of one connection that may wait for one room; with so many the connection is not read from.
pub const PARKED_MAX: usize = 64;
/// Bytes of one connection's messages that may wait, for all rooms; above it the connection is not read from.
pub const PARKED_BYTES_MAX: usize = 1 << 20;

/// A place in a room's inbox, or `None` if the room has ended.
type Found = (RoomNumber, Option<Place>);

/// The ways to the rooms that a session is in, or is still leaving.
pub struct Post {
    session: SessionId,
    ways: Few<RoomNumber, Way>,
    /// The number of the last join.
    joins: JoinNumber,
    parked_bytes: usize,
    /// One for each way with parked mail.
    places: FuturesUnordered<BoxFuture<'static, Found>>,
}

struct Way {
    document: DocumentId,
    inbox: Inbox,
    figures: Arc<Figures>,
    /// The session's membership; `None` once it has left.
    join: Option<JoinNumber>,
    parked: VecDeque<Mail>,
}

impl Post {
    /// No ways yet.
    pub fn new(session: SessionId) -> Self {
        Self {
            session,
            ways: Few::default(),
            joins: JoinNumber::default(),
            parked_bytes: 0,
            places: FuturesUnordered::new(),
        }
    }

    /// Sends a join to the document's room, which is opened if need be.
    ///
    /// # Errors
    /// When the hub opens no room for it now.
    pub fn join(
        &mut self,
        hub: &Arc<Hub>,
        document: &DocumentId,
        join: &Join,
        outbox: &Arc<Outbox>,
    ) -> Result<RoomNumber, Unavailable> {
        self.joins.0 += 1;
        let number = self.joins;
        loop {
            let handle = hub.room(document)?;
            let room = handle.number;
            let member = Member {
                outbox: outbox.clone(),
                join: number,
            };
            if self.enter(document, handle, number) && self.send(room, Mail::Join(join.clone(), member)) {
                return Ok(room);
            }
            // The room closed in this moment, and is about to be unlisted.
            hub.unlist(document, room);
        }
    }

    /// Tells a room what its member does. A room that has just ended has told the session so itself.
    pub fn tell(&mut self, room: RoomNumber, event: Event) {
        let leaving = matches!(event, Event::Left { .. });
        self.send(room, Mail::Event(event));
        if leaving && let Some(way) = self.ways.get_mut(&room) {
            way.join = None;
            self.forget_if_done(room);
        }
    }

    /// The room has ended this join. Whether that is the session's present one: then the session is no longer in the room.
    pub fn dismissed(&mut self, room: RoomNumber, join: JoinNumber) -> bool {
        if self.ways.get(&room).is_none_or(|way| way.join != Some(join)) {
            return false;
        }
        self.close(room);
        true
    }

    /// Whether so much is parked that the connection must not be read from.
    pub fn is_full(&self) -> bool {
        self.parked_bytes > PARKED_BYTES_MAX || self.ways.values().any(|way| way.parked.len() >= PARKED_MAX)
    }

    /// Hands parked mail to the next room that has a place for it. Nothing is lost when it is dropped.
    pub async fn go_on(&mut self) {
        match self.places.next().await {
            Some((room, Some(place))) => {
                if let Some(mail) = self.unpark(room) {
                    place.send(mail);
                    self.took(room);
                }
                self.send_parked(room);
                self.forget_if_done(room);
            }
            Some((room, None)) => self.close(room),
            None => std::future::pending().await,
        }
    }

    /// The connection has ended: delivers what is parked, and tells every room that the session is gone.
    pub async fn leave(mut self) {
        // Nobody polls these any more, and each may hold what the same mail would then wait for below.
        self.places.clear();
        for way in std::mem::take(&mut self.ways).into_values() {
            let parked = way.parked.len() as u64;
            let gone = way.join.map(|_| Mail::Event(Event::Left { session: self.session }));
            for mail in way.parked.into_iter().chain(gone) {
                // A room that has ended needs no telling.
                if !way.inbox.send(mail).await {
                    break;
                }
            }
            way.figures.parked.fetch_sub(parked, Ordering::AcqRel);
        }
    }

    /// Whether there is a way to the room, now that the session has joined it.
    fn enter(&mut self, document: &DocumentId, handle: Handle, join: JoinNumber) -> bool {
        if handle.inbox.is_closed() {
            return false;
        }
        let way = self.ways.get_or_insert_with(handle.number, || Way {
            document: document.clone(),
            inbox: handle.inbox,
            figures: handle.figures,
            join: None,
            parked: VecDeque::new(),
        });
        way.join = Some(join);
        true
    }

    /// Sends or parks; false if the room has ended.
    fn send(&mut self, room: RoomNumber, mail: Mail) -> bool {
        let Some(way) = self.ways.get_mut(&room) else {
            return false;
        };
        if way.parked.is_empty() {
            match way.inbox.try_send(mail) {
                Ok(()) => return true,
                Err(TrySendError::Full(mail)) => {
                    self.park(room, mail);
                    self.wait_for_place(room);
                    return true;
                }
                Err(TrySendError::Closed(_)) => {
                    self.close(room);
                    return false;
                }
            }
        }
        self.park(room, mail);
        true
    }

    fn park(&mut self, room: RoomNumber, mail: Mail) {
        if let Some(way) = self.ways.get_mut(&room) {
            self.parked_bytes += mail.bytes();
            way.figures.parked.fetch_add(1, Ordering::AcqRel);
            way.parked.push_back(mail);
        }
    }

    /// Takes the oldest parked mail out. The room still counts it until it [`Post::took`] it.
    fn unpark(&mut self, room: RoomNumber) -> Option<Mail> {
        let mail = self.ways.get_mut(&room)?.parked.pop_front()?;
        self.parked_bytes -= mail.bytes();
        Some(mail)
    }

    fn took(&self, room: RoomNumber) {
        if let Some(way) = self.ways.get(&room) {
            way.figures.parked.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Sends parked mail for as long as there is place, then waits for one.
    fn send_parked(&mut self, room: RoomNumber) {
        while let Some(way) = self.ways.get(&room) {
            let Some(next) = way.parked.front() else { return };
            let Some(place) = way.inbox.try_reserve(next) else {
                return self.wait_for_place(room);
            };
            if let Some(mail) = self.unpark(room) {
                place.send(mail);
                self.took(room);
            }
        }
    }

    /// A room that has ended answers at once.
    fn wait_for_place(&mut self, room: RoomNumber) {
        if let Some((way, next)) = self.ways.get(&room).and_then(|way| Some((way, way.parked.front()?))) {
            let place = way.inbox.reserve(next);
            self.places.push(Box::pin(async move { (room, place.await) }));
        }
    }

    /// Nothing reaches the room any more. Joins that are still parked are answered in its stead.
    fn close(&mut self, room: RoomNumber) {
        let Some(way) = self.ways.remove(&room) else { return };
        way.figures.parked.fetch_sub(way.parked.len() as u64, Ordering::AcqRel);
        for mail in way.parked {
            self.parked_bytes -= mail.bytes();
            if let Mail::Join(_, member) = mail {
                member.outbox.dismiss(room, member.join, ended(&way.document, None));
            }
        }
        // A room that stops waits for what is parked; if its inbox is full, it is awake.
        let _ = way.inbox.try_send(Mail::Event(Event::Woke));
    }

    fn forget_if_done(&mut self, room: RoomNumber) {
        if let Some(way) = self.ways.get(&room)
            && way.join.is_none()
            && way.parked.is_empty()
        {
            self.ways.remove(&room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::room::inbox::{Letter, inbox};
    use std::time::Duration;
    use tokio::sync::mpsc::Receiver;

    const SESSION: SessionId = SessionId::new(7);

    /// A way to a room whose inbox holds so much, as a member.
    fn way(post: &mut Post, room: u64, capacity: usize) -> Receiver<Box<Letter>> {
        let (inbox, mail) = inbox(capacity);
        let handle = Handle {
            number: RoomNumber::new(room),
            inbox,
            figures: Arc::default(),
        };
        let document = "notes".parse().expect("a document id");
        assert!(post.enter(&document, handle, JoinNumber(room)));
        mail
    }

    fn tell(post: &mut Post, room: u64, byte: u8) {
        let state = Some(vec![byte].into());
        post.tell(
            RoomNumber::new(room),
            Event::Shown {
                session: SESSION,
                state,
            },
        );
    }

    fn taken(mail: &mut Receiver<Box<Letter>>) -> Option<u8> {
        match mail.try_recv().ok()?.mail {
            Mail::Event(Event::Shown { state, .. }) => state.map(|state| state[0]),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn who_leaves_lets_go_of_the_place_that_it_waited_for() {
        let mut post = Post::new(SESSION);
        let mut busy = way(&mut post, 1, 8);
        for _ in 0..2 {
            let payload = vec![0; 3 << 20].into();
            let large = Event::Signalled {
                session: SESSION,
                payload,
            };
            post.tell(RoomNumber::new(1), large);
        }
        assert!(futures_util::future::poll_immediate(post.go_on()).await.is_none());
        // The bytes that this gives back go to the place that is waited for.
        drop(busy.recv().await);
        tokio::spawn(post.leave());
        let next = tokio::time::timeout(Duration::from_secs(5), busy.recv()).await;
        assert!(matches!(next, Ok(Some(_))), "nobody polls that place any more");
    }

    #[tokio::test]
    async fn a_busy_room_holds_up_no_other_and_its_mail_keeps_its_order() {
        let mut post = Post::new(SESSION);
        let busy_room = RoomNumber::new(1);
        let (mut busy, mut idle) = (way(&mut post, 1, 2), way(&mut post, 2, 8));
        for number in 0..10 {
            tell(&mut post, 1, number);
            if number < 8 {
                tell(&mut post, 2, number);
            }
        }
        for number in 0..8 {
            assert_eq!(taken(&mut idle), Some(number), "the other room has it at once");
        }
        for number in 0..10 {
            assert_eq!(taken(&mut busy), Some(number));
            if post.ways.get(&busy_room).is_some_and(|way| !way.parked.is_empty()) {
                post.go_on().await;
            }
        }
        assert_eq!((taken(&mut busy), post.parked_bytes), (None, 0));
        let counted = post
            .ways
            .get(&busy_room)
            .map(|way| way.figures.parked.load(Ordering::Acquire));
        assert_eq!(counted, Some(0));
    }

    #[tokio::test]
    async fn so_much_is_parked_and_no_more() {
        let mut post = Post::new(SESSION);
        let mut busy = way(&mut post, 1, 1);
        for number in 0..=PARKED_MAX {
            assert!(!post.is_full(), "{number} are not too many");
            tell(&mut post, 1, 0);
        }
        assert!(post.is_full());
        assert_eq!(taken(&mut busy), Some(0));
        post.go_on().await;
        assert!(!post.is_full(), "a place is free again");
    }

    #[tokio::test]
    async fn the_bytes_of_all_rooms_together_are_bounded() {
        let mut post = Post::new(SESSION);
        let _inboxes: Vec<Receiver<Box<Letter>>> = (1..=3).map(|room| way(&mut post, room, 1)).collect();
        for room in 1..=3 {
            tell(&mut post, room, 0);
            let payload = vec![0; PARKED_BYTES_MAX / 2].into();
            post.tell(
                RoomNumber::new(room),
                Event::Signalled {
                    session: SESSION,
                    payload,
                },
            );
            assert_eq!(post.is_full(), room > 1, "{room}");
        }
    }

    #[tokio::test]
    async fn who_leaves_is_gone_only_behind_what_was_said_before() {
        let mut post = Post::new(SESSION);
        let mut busy = way(&mut post, 1, 1);
        (0..3).for_each(|number| tell(&mut post, 1, number));
        post.tell(RoomNumber::new(1), Event::Left { session: SESSION });
        for number in 0..3 {
            assert_eq!(taken(&mut busy), Some(number));
            post.go_on().await;
        }
        let last = busy.try_recv().expect("one more").mail;
        assert!(matches!(last, Mail::Event(Event::Left { .. })));
        assert!(post.ways.is_empty());
    }

    #[tokio::test]
    async fn a_room_that_ends_takes_what_is_parked_with_it() {
        let mut post = Post::new(SESSION);
        let busy = way(&mut post, 1, 1);
        (0..3).for_each(|number| tell(&mut post, 1, number));
        drop(busy);
        post.go_on().await;
        assert_eq!((post.ways.len(), post.parked_bytes), (0, 0));
    }
}
