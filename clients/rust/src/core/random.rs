//! The client's own randomness: actor ids and jitter from one seed. The same seed gives the same run.

use automerge::ActorId;

/// The bytes of a fresh actor id.
const ACTOR_BYTES: usize = 16;

/// A xoshiro256++ generator. Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: [u64; 4],
}

impl Random {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        let mut state = [0; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight bytes"));
        }
        if state == [0; 4] {
            state = [0x9e37_79b9_7f4a_7c15, 0, 0, 0];
        }
        Self { state }
    }

    pub(super) fn number(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let drawn = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        drawn
    }

    /// Between half of `delay_ms` and all of it.
    pub(super) fn jitter(&mut self, delay_ms: u64) -> u64 {
        let half = delay_ms / 2;
        half + self.number() % (delay_ms - half + 1)
    }

    /// An actor that nobody else has, as far as 128 bits can tell.
    pub(super) fn actor(&mut self) -> ActorId {
        let mut bytes = [0; ACTOR_BYTES];
        for eight in bytes.chunks_exact_mut(8) {
            eight.copy_from_slice(&self.number().to_le_bytes());
        }
        ActorId::from(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_gives_one_sequence_and_another_seed_another() {
        let draw = |seed: u8| {
            let mut random = Random::new([seed; 32]);
            (0..100).map(|_| random.number()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        let mut zero = Random::new([0; 32]);
        assert_ne!(zero.actor(), zero.actor());
    }

    #[test]
    fn jitter_stays_between_half_and_all() {
        let mut random = Random::new([7; 32]);
        for delay_ms in [0, 1, 2, 100, 30_000] {
            for _ in 0..1000 {
                let drawn = random.jitter(delay_ms);
                assert!(drawn >= delay_ms / 2 && drawn <= delay_ms, "{drawn} of {delay_ms}");
            }
        }
    }
}
