//! A part of a task that is polled when something woke it, and not whenever its task wakes for another part.

use futures_util::task::AtomicWaker;
use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

/// Wakes the task, and remembers that it was for this part.
struct Bell {
    rang: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// The same future with a waker of its own. It stays where it is: every task would hold it twice.
pub async fn apart<F: Future>(mut future: Pin<&mut F>) -> F::Output {
    let bell = Arc::new(Bell {
        rang: AtomicBool::new(true),
        task: AtomicWaker::new(),
    });
    let waker = Waker::from(bell.clone());
    poll_fn(|cx| {
        // In this order: whoever rings from here on wakes the task once more.
        bell.task.register(cx.waker());
        if bell.rang.swap(false, Ordering::AcqRel) {
            future.as_mut().poll(&mut Context::from_waker(&waker))
        } else {
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join;
    use std::{cell::Cell, pin::pin};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn it_is_polled_when_it_is_woken_and_only_then() {
        let (own, others) = (Notify::new(), Notify::new());
        let (polled, rounds) = (Cell::new(0), Cell::new(0));
        let part = async {
            let mut woken = pin!(own.notified());
            poll_fn(|cx| {
                polled.set(polled.get() + 1);
                woken.as_mut().poll(cx)
            })
            .await;
        };
        let rest = async {
            for _ in 0..10 {
                others.notify_one();
                others.notified().await;
                tokio::task::yield_now().await;
                rounds.set(rounds.get() + 1);
            }
            assert_eq!(polled.get(), 1, "the task woke for something else");
            own.notify_one();
        };
        join(apart(pin!(part)), rest).await;
        assert_eq!((polled.get(), rounds.get()), (2, 10));
    }
}
