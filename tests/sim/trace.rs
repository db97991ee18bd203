//! What happened, in order: a hash of everything, so that two runs can be compared, and lines for people when one is replayed.

use std::fmt;

/// The trace of one run.
#[derive(Debug)]
pub(crate) struct Trace {
    /// FNV-1a, 64 bits.
    hash: u64,
    printed: bool,
}

impl Trace {
    pub(crate) fn new(printed: bool) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            printed,
        }
    }

    /// Takes bytes into the hash, behind their length.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        // Eight at a time: frames are most of what is hashed, and the build is for debugging.
        let mut chunks = bytes.chunks_exact(8);
        for eight in &mut chunks {
            self.mix(u64::from_le_bytes(eight.try_into().expect("chunks of eight")));
        }
        chunks.remainder().iter().for_each(|byte| self.mix(u64::from(*byte)));
    }

    /// Takes a number into the hash.
    pub(crate) fn number(&mut self, number: u64) {
        self.mix(number);
    }

    /// Takes a line into the hash, and prints it in a replay.
    pub(crate) fn line(&mut self, now: u64, what: fmt::Arguments<'_>) {
        self.number(now);
        let text = what.to_string();
        self.bytes(text.as_bytes());
        if self.printed {
            println!("{:>8}.{:03} {text}", now / 1000, now % 1000);
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
}
