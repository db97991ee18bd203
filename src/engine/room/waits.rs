//! What the edits of one session that wait for missing dependencies hold, in all its rooms together.
//!
//! The rooms of a session work at the same time, so this counts, and decides nothing else. What was taken is given back when
//! the [`Hold`] ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Bytes of one session's edits that wait. One more is rejected as `missing_deps`.
const BYTES_MAX: usize = 4 << 20;

/// A session's count.
#[derive(Debug, Default)]
pub(in crate::engine) struct Waits {
    changes: AtomicUsize,
    bytes: AtomicUsize,
}

/// A part of it, until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    waits: Arc<Waits>,
    changes: usize,
    bytes: usize,
}

impl Waits {
    /// Takes a part, if there is as much.
    pub(super) fn hold(self: &Arc<Self>, changes: usize, bytes: usize, changes_max: usize) -> Option<Hold> {
        // Made first, it gives back what turns out to be too much.
        let hold = Hold {
            waits: self.clone(),
            changes,
            bytes,
        };
        let changes = self.changes.fetch_add(changes, Ordering::Relaxed) + changes;
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        (changes <= changes_max && bytes <= BYTES_MAX).then_some(hold)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.waits.changes.fetch_sub(self.changes, Ordering::Relaxed);
        self.waits.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_takes_nothing_and_what_ends_is_given_back() {
        let waits = Arc::new(Waits::default());
        let first = waits.hold(3, 10, 4).expect("it fits");
        assert!(waits.hold(2, 10, 4).is_none());
        assert!(waits.hold(1, BYTES_MAX, 4).is_none());
        let second = waits.hold(1, 10, 4).expect("what did not fit took nothing");
        drop((first, second));
        assert!(waits.hold(4, BYTES_MAX, 4).is_some());
    }
}
