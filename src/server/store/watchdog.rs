//! A thread that does something about a call that takes suspiciously long, again and again until the call returns.

use std::{
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// Watches one call at a time.
pub(super) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    watched: Mutex<Watched>,
    changed: Condvar,
}

#[derive(Default)]
struct Watched {
    /// How many calls have begun.
    begun: u64,
    running: bool,
    /// The thread waits without a limit: only then it must be woken.
    idle: bool,
    closed: bool,
}

impl Watchdog {
    /// Starts the thread. It runs `act` whenever a call has lasted `interval`, and after each further `interval`.
    pub(super) fn start(interval: Duration, act: impl Fn() + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-watchdog".into())
            .spawn(move || {
                while of_thread.lasts(interval) {
                    act();
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Runs `call` watched.
    pub(super) fn watch<T>(&self, call: impl FnOnce() -> T) -> T {
        let mut watched = self.shared.watched();
        watched.begun += 1;
        watched.running = true;
        if watched.idle {
            self.shared.changed.notify_all();
        }
        drop(watched);
        // Whatever way the call ends.
        let _end = End(&self.shared);
        call()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.watched().closed = true;
        self.shared.changed.notify_all();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the store's watchdog ended in a panic");
        }
    }
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.watched().running = false;
    }
}

impl Shared {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one call has lasted `interval`; `false` when closed.
    fn lasts(&self, interval: Duration) -> bool {
        let mut watched = self.watched();
        loop {
            while !watched.running && !watched.closed {
                watched.idle = true;
                watched = self.changed.wait(watched).unwrap_or_else(PoisonError::into_inner);
            }
            watched.idle = false;
            let call = watched.begun;
            let closed = |watched: &mut Watched| !watched.closed;
            let waited = self.changed.wait_timeout_while(watched, interval, closed);
            watched = waited.unwrap_or_else(PoisonError::into_inner).0;
            if watched.closed {
                return false;
            }
            if watched.running && watched.begun == call {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{RecvTimeoutError, sync_channel};

    #[test]
    fn it_acts_on_long_calls_alone() {
        let (tell, told) = sync_channel(10);
        let interval = Duration::from_millis(100);
        let watchdog = Watchdog::start(interval, move || tell.try_send(()).unwrap_or_default()).unwrap();
        let patience = Duration::from_secs(10);
        watchdog.watch(|| {
            told.recv_timeout(patience).unwrap();
            told.recv_timeout(patience).unwrap();
        });
        (0..1_000).for_each(|_| watchdog.watch(|| ()));
        assert_eq!(told.recv_timeout(3 * interval), Err(RecvTimeoutError::Timeout));
        watchdog.watch(|| told.recv_timeout(patience).unwrap());
    }
}
