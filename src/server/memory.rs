//! The memory of rooms against one budget: what they hold, and what work under way will take.
//!
//! Who is in is served before who comes: the last eighth is for the members of open documents, and when that is used up, too,
//! their edits wait.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The budget of a server.
#[derive(Debug)]
pub struct Memory {
    bytes_max: u64,
    held: AtomicU64,
    /// What was asked for in vain since it was last looked at.
    missed: AtomicU64,
}

/// A part of the budget, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    bytes: u64,
}

impl Memory {
    /// Nothing is held yet.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            held: AtomicU64::new(0),
            missed: AtomicU64::new(0),
        })
    }

    /// What is held, in bytes.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether nobody should be let in any more.
    pub fn is_scarce(&self) -> bool {
        self.held() >= self.for_comers()
    }

    /// Whether even open documents should not grow.
    pub fn is_full(&self) -> bool {
        self.held() >= self.bytes_max
    }

    /// How much should be let go of, for an eighth to be free for who comes, or as much as was missed.
    pub fn excess(&self) -> u64 {
        let missed = self.missed.swap(0, Ordering::Relaxed);
        let wanted = self.for_comers().saturating_sub(missed.max(self.bytes_max / 8));
        self.held().saturating_sub(wanted)
    }

    /// Whether a share of so much could be had by who comes, if nothing else were held.
    pub fn could_hold(&self, bytes: u64) -> bool {
        bytes <= self.for_comers()
    }

    fn for_comers(&self) -> u64 {
        self.bytes_max - self.bytes_max / 8
    }

    /// A share for what has to go on, whether or not it fits.
    pub fn take(self: &Arc<Self>, bytes: u64) -> Share {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Share {
            memory: self.clone(),
            bytes,
        }
    }

    /// A share for somebody who comes, if it fits.
    pub fn try_take(self: &Arc<Self>, bytes: u64) -> Option<Share> {
        let fits = |held: u64| held.checked_add(bytes).filter(|held| *held <= self.for_comers());
        match self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Some(Share {
                memory: self.clone(),
                bytes,
            }),
            Err(_) => {
                self.missed.fetch_max(bytes, Ordering::Relaxed);
                None
            }
        }
    }
}

impl Share {
    /// The share is so large now.
    pub fn set(&mut self, bytes: u64) {
        self.memory
            .held
            .fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_come_back() {
        let memory = Memory::new(800);
        let mut room = memory.take(100);
        let loading = memory.try_take(500).expect("it fits");
        assert!(memory.try_take(101).is_none(), "the last eighth is for members");
        room.set(200);
        assert_eq!((memory.is_scarce(), memory.is_full()), (true, false));
        room.set(350);
        assert_eq!((memory.held(), memory.is_full()), (850, true));
        drop(loading);
        room.set(20);
        assert_eq!((memory.held(), memory.is_scarce()), (20, false));
        drop(room);
        assert_eq!(memory.held(), 0);
    }

    #[test]
    fn what_was_missed_is_made_free() {
        let memory = Memory::new(800);
        let _held = memory.take(600);
        assert_eq!(memory.excess(), 0, "an eighth is free for who comes");
        assert!(memory.try_take(300).is_none());
        assert_eq!(memory.excess(), 200, "then 300 are");
        assert_eq!(memory.excess(), 0, "once");
    }
}
