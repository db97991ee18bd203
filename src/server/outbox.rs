//! What waits to be sent on one connection: a bounded queue between rooms and the connection's writer.
//!
//! Frames that may be missed (diffs, presence, signals) are refused while the queue is full; whoever is refused is brought up
//! to date from the log once it has drained. Frames that may not (acks, replies) always enter: they are few, because a
//! connection whose queue is full is not read from. Parts and what greets a joiner are large, so a room asks for their space
//! before it makes them ([`Outbox::reserve`]).
//!
//! All queues of one subject share a second limit ([`Shared`]). A frame enters an empty queue whatever the others hold, so that
//! every connection moves on.

use crate::engine::few::Few;
use bytes::Bytes;
use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};
use syncline_protocol::{CloseCode, RoomNumber, SessionId};

/// Above this multiple of its limit the queue's connection is not read from.
const READ_STOPS_AT: usize = 2;

/// What all queues of one subject hold, in bytes.
#[derive(Debug, Default)]
pub struct Shared(AtomicUsize);

/// Tells one session's joins apart: a dismissal may cross the session's next join.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JoinNumber(pub u64);

/// The queue of one connection.
#[derive(Debug)]
pub struct Outbox {
    session: SessionId,
    bytes_max: usize,
    /// For all queues of the subject.
    shared_bytes_max: usize,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    items: Items,
    /// The connection's writer, while it waits for an item.
    writer: Option<Waker>,
    /// The connection's reader, while it waits for a notice or for the queue to be short.
    reader: Option<Waker>,
    /// Whether it waits for the latter, too.
    holds_reader_up: bool,
    /// Of frames that are not written out yet, those being written included.
    bytes: usize,
    /// Space that rooms have asked for and not used yet.
    reserved: Few<RoomNumber, usize>,
    /// What the subject's queues hold, once the subject is known.
    shared: Arc<Shared>,
    /// Of all frames ever queued, and of those written out.
    queued_in_all: u64,
    written_in_all: u64,
    /// Rooms that want to know when what was queued is written out. At most one entry per room.
    waiting: Vec<Waiting>,
    notices: VecDeque<Notice>,
    closed: bool,
}

/// What is queued, in order. Most often that is one item, which gets no allocation of its own.
#[derive(Debug, Default)]
struct Items {
    /// There is one if there are any.
    first: Option<Item>,
    rest: Vec<Item>,
}

/// A room that waits for `written_in_all` to reach its mark.
#[derive(Debug)]
struct Waiting {
    room: RoomNumber,
    mark: u64,
}

/// Something to write.
#[derive(Debug)]
pub enum Item {
    /// A binary message.
    Frame(Bytes),
    /// A text message, which only an echo is.
    Text(String),
    /// A WebSocket ping.
    Ping,
    /// A WebSocket close; nothing follows.
    Close {
        /// Its code.
        code: CloseCode,
        /// Its reason.
        text: String,
    },
}

/// What a room has to say to the session itself.
#[derive(Debug)]
pub enum Notice {
    /// The session is no longer in this room, unless it has joined again since.
    Dismissed {
        /// Which room.
        room: RoomNumber,
        /// Which of the session's joins this ends.
        join: JoinNumber,
    },
    /// All that was queued when this room asked is written out.
    Drained {
        /// Which room.
        room: RoomNumber,
    },
}

impl Outbox {
    /// An empty queue for `session`.
    pub fn new(session: SessionId, bytes_max: u64, shared_bytes_max: u64) -> Self {
        Self {
            session,
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            shared_bytes_max: usize::try_from(shared_bytes_max).unwrap_or(usize::MAX),
            queue: Mutex::default(),
        }
    }

    /// Whose queue it is.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// From now on the queue counts among its subject's.
    pub fn share(&self, shared: Arc<Shared>) {
        let mut queue = self.queue();
        shared.0.fetch_add(queue.bytes, Ordering::Relaxed);
        let former = std::mem::replace(&mut queue.shared, shared);
        former.0.fetch_sub(queue.bytes, Ordering::Relaxed);
    }

    /// Keeps space for what `room` is about to send, until [`Outbox::release`]. Whether there was space; if not, the room may
    /// ask again when it is told that the queue has drained.
    pub fn reserve(&self, room: RoomNumber, bytes: usize) -> bool {
        let mut queue = self.queue();
        let held = queue.bytes + queue.reserved.values().sum::<usize>();
        let has_space = held == 0
            || (held + bytes <= self.bytes_max.saturating_mul(READ_STOPS_AT) && self.shared_has_space(&queue, bytes));
        if has_space {
            *queue.reserved.get_or_insert_with(room, || 0) += bytes;
        }
        has_space
    }

    /// Whether the queue is so long that nobody should join by it now.
    pub fn is_crowded(&self) -> bool {
        let queue = self.queue();
        queue.bytes > 0 && (queue.bytes > self.bytes_max || !self.shared_has_space(&queue, 0))
    }

    /// Gives back what `room` has reserved.
    pub fn release(&self, room: RoomNumber) {
        let mut queue = self.queue();
        queue.reserved.remove(&room);
        queue.notice_drained();
        wake_reader(queue);
    }

    /// Queues a frame that must not be missed.
    pub fn push(&self, frame: Bytes) {
        let mut queue = self.queue();
        queue.push(Item::Frame(frame));
        wake_writer(queue);
    }

    /// Queues a frame unless the queue is full. Whether it was queued.
    pub fn try_push(&self, frame: Bytes) -> bool {
        let mut queue = self.queue();
        let room = self.has_space(&queue, frame.len());
        if room {
            queue.push(Item::Frame(frame));
            wake_writer(queue);
        }
        room
    }

    /// Queues a text message.
    pub fn push_text(&self, text: String) {
        let mut queue = self.queue();
        queue.push(Item::Text(text));
        wake_writer(queue);
    }

    /// Queues a ping.
    pub fn ping(&self) {
        let mut queue = self.queue();
        queue.push(Item::Ping);
        wake_writer(queue);
    }

    /// Tells `room` by [`Notice::Drained`] when all that is queued now has been written out, whatever is queued after it.
    pub fn tell_when_drained(&self, room: RoomNumber) {
        let mut queue = self.queue();
        if queue.closed || queue.waiting.iter().any(|waiting| waiting.room == room) {
            return;
        }
        let mark = queue.queued_in_all;
        queue.waiting.push(Waiting { room, mark });
        queue.notice_drained();
        wake_reader(queue);
    }

    /// Queues the `closed` frame of a room, and tells the session that it is out.
    pub fn dismiss(&self, room: RoomNumber, join: JoinNumber, frame: Bytes) {
        let mut queue = self.queue();
        queue.push(Item::Frame(frame));
        queue.notices.push_back(Notice::Dismissed { room, join });
        queue.waiting.retain(|waiting| waiting.room != room);
        wake_writer(queue);
        wake_reader(self.queue());
    }

    /// Ends the connection after all that is queued.
    pub fn close(&self, code: CloseCode, text: String) {
        let mut queue = self.queue();
        queue.push(Item::Close { code, text });
        queue.closed = true;
        wake_writer(queue);
    }

    /// Takes everything queued, in order, waiting until there is something; only the connection's writer does. Its bytes count until
    /// [`Outbox::written`] is told. `rest` is for what is behind the first; its space goes to the queue.
    pub async fn take<'a>(&self, rest: &'a mut Vec<Item>) -> impl Iterator<Item = Item> + use<'a> {
        let first = poll_fn(|cx| {
            let mut queue = self.queue();
            let Some(first) = queue.items.first.take() else {
                queue.writer = Some(cx.waker().clone());
                return Poll::Pending;
            };
            debug_assert!(rest.is_empty(), "what was taken before is written");
            std::mem::swap(&mut queue.items.rest, rest);
            Poll::Ready(first)
        })
        .await;
        std::iter::once(first).chain(rest.drain(..))
    }

    /// `bytes` of what was taken are written out: rooms that waited for no more than that are told.
    pub fn written(&self, bytes: usize) {
        let mut queue = self.queue();
        let bytes_out = bytes.min(queue.bytes);
        queue.bytes -= bytes_out;
        queue.shared.0.fetch_sub(bytes_out, Ordering::Relaxed);
        queue.written_in_all += bytes as u64;
        queue.notice_drained();
        if queue.holds_reader_up && self.is_short(&queue) {
            queue.holds_reader_up = false;
            return wake(queue, |queue| queue.reader.take());
        }
        wake_reader(queue);
    }

    /// Whether the connection is being closed: nothing that still comes in counts.
    pub fn is_closed(&self) -> bool {
        self.queue().closed
    }

    /// The next notice, if there is one.
    pub fn notice(&self) -> Option<Notice> {
        self.queue().notices.pop_front()
    }

    /// Waits for a notice; only the connection's reader does, and for the queue to be short.
    pub async fn noticed(&self) {
        poll_fn(|cx| {
            let mut queue = self.queue();
            if queue.notices.is_empty() {
                queue.keep_reader(cx);
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Whether the queue is short enough for the connection to be read from.
    pub fn is_readable(&self) -> bool {
        self.is_short(&self.queue())
    }

    /// Waits until the queue is short enough for the connection to be read from.
    pub async fn readable(&self) {
        poll_fn(|cx| {
            let mut queue = self.queue();
            if self.is_short(&queue) {
                return Poll::Ready(());
            }
            queue.keep_reader(cx);
            queue.holds_reader_up = true;
            Poll::Pending
        })
        .await;
    }

    fn has_space(&self, queue: &Queue, bytes: usize) -> bool {
        queue.bytes == 0 || (queue.bytes + bytes <= self.bytes_max && self.shared_has_space(queue, bytes))
    }

    fn shared_has_space(&self, queue: &Queue, bytes: usize) -> bool {
        queue.shared.0.load(Ordering::Relaxed) + bytes <= self.shared_bytes_max
    }

    fn is_short(&self, queue: &Queue) -> bool {
        let stop = self.bytes_max.saturating_mul(READ_STOPS_AT);
        queue.bytes == 0 || (queue.bytes <= stop && self.shared_has_space(queue, 0))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn push(&mut self, item: Item) {
        if self.closed {
            return;
        }
        self.bytes += item.bytes();
        self.shared.0.fetch_add(item.bytes(), Ordering::Relaxed);
        self.queued_in_all += item.bytes() as u64;
        self.items.push(item);
    }

    fn keep_reader(&mut self, cx: &Context<'_>) {
        match &mut self.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }

    /// Reserved space will soon be used: whoever waits, waits for that, too.
    fn notice_drained(&mut self) {
        if !self.reserved.is_empty() {
            return;
        }
        let written = self.written_in_all;
        let reached = self.waiting.extract_if(.., |waiting| waiting.mark <= written);
        self.notices
            .extend(reached.map(|waiting| Notice::Drained { room: waiting.room }));
    }
}

/// Something is there to be sent.
fn wake_writer(queue: MutexGuard<'_, Queue>) {
    wake(queue, |queue| queue.writer.take());
}

/// Only for what there is: every frame that is written out comes by here.
fn wake_reader(queue: MutexGuard<'_, Queue>) {
    wake(queue, |queue| queue.reader.take_if(|_| !queue.notices.is_empty()));
}

fn wake(mut queue: MutexGuard<'_, Queue>, who: impl FnOnce(&mut Queue) -> Option<Waker>) {
    let waker = who(&mut queue);
    drop(queue);
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Items {
    fn push(&mut self, item: Item) {
        match self.first {
            None => self.first = Some(item),
            Some(_) => {
                // Most often it is an ack, and a diff behind it: a list that grows by itself begins with four.
                if self.rest.capacity() == 0 {
                    self.rest.reserve_exact(1);
                }
                self.rest.push(item);
            }
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Item {
    /// What the item counts in the queue.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Text(text) => text.len(),
            Self::Ping | Self::Close { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOMS: [RoomNumber; 2] = [RoomNumber::new(1), RoomNumber::new(2)];

    fn outbox(shared: &Arc<Shared>) -> Outbox {
        let outbox = Outbox::new(SessionId::new(1), 100, 150);
        outbox.share(shared.clone());
        outbox
    }

    fn frame(bytes: usize) -> Bytes {
        vec![0; bytes].into()
    }

    fn notices(outbox: &Outbox) -> usize {
        std::iter::from_fn(|| outbox.notice()).count()
    }

    #[test]
    fn all_queues_of_a_subject_together_are_bounded() {
        let shared = Arc::new(Shared::default());
        let queues: Vec<Outbox> = std::iter::repeat_with(|| outbox(&shared)).take(3).collect();
        assert!(queues[0].try_push(frame(90)) && queues[1].try_push(frame(50)));
        assert!(!queues[1].try_push(frame(20)), "the subject's limit, not its own");
        assert!(
            queues[2].try_push(frame(90)),
            "an empty queue takes one, or nothing would move"
        );
        assert!(queues[0].is_crowded() && !outbox(&shared).is_crowded());
        queues[0].written(90);
        drop(queues);
        assert_eq!(shared.0.load(Ordering::Relaxed), 0, "what is dropped is not held");
    }

    #[tokio::test]
    async fn what_is_queued_is_taken_in_order_and_wakes_who_waits() {
        let outbox = Arc::new(outbox(&Arc::default()));
        let lengths = |items: Vec<Item>| items.iter().map(Item::bytes).collect::<Vec<_>>();
        let mut rest = Vec::new();
        for _ in 0..3 {
            let waiting = tokio::spawn({
                let outbox = outbox.clone();
                async move { outbox.take(&mut Vec::new()).await.collect::<Vec<_>>() }
            });
            tokio::task::yield_now().await;
            outbox.push(frame(1));
            let taken = waiting.await.expect("it is woken");
            assert_eq!(lengths(taken), [1]);
            (2..6).for_each(|bytes| outbox.push(frame(bytes)));
            assert_eq!(lengths(outbox.take(&mut rest).await.collect()), [2, 3, 4, 5]);
        }
    }

    #[tokio::test]
    async fn the_reader_is_woken_when_it_may_read_on_and_for_a_notice() {
        let outbox = Arc::new(outbox(&Arc::default()));
        let patience = std::time::Duration::from_secs(20);
        (0..2).for_each(|_| outbox.push(frame(120)));
        let held_up = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.readable().await }
        });
        tokio::task::yield_now().await;
        outbox.written(30);
        tokio::task::yield_now().await;
        assert!(!held_up.is_finished(), "210 bytes are more than twice the limit");
        outbox.written(100);
        let goes_on = tokio::time::timeout(patience, held_up).await;
        assert!(matches!(goes_on, Ok(Ok(()))));

        outbox.tell_when_drained(ROOMS[0]);
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.noticed().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "110 bytes are still to be written");
        outbox.written(110);
        let hears = tokio::time::timeout(patience, waiting).await;
        assert!(matches!(hears, Ok(Ok(()))));
        assert_eq!(notices(&outbox), 1);
    }

    #[test]
    fn space_is_reserved_before_parts_are_made() {
        let outbox = outbox(&Arc::default());
        assert!(outbox.reserve(ROOMS[0], 150), "an empty queue takes one of any size");
        assert!(!outbox.reserve(ROOMS[1], 60), "twice the limit is not exceeded");
        outbox.tell_when_drained(ROOMS[1]);
        assert_eq!(notices(&outbox), 0, "what is reserved is still to come");
        assert!(outbox.try_push(frame(100)), "diffs are not held up by it");
        outbox.release(ROOMS[0]);
        assert_eq!(notices(&outbox), 1, "all that was queued when it asked is written");
        assert!(outbox.reserve(ROOMS[1], 50));
    }
}
