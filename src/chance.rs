//! Where chance comes from: a seed, and nothing else. The same seed draws the same, on every worker and every proxy.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::units::Seed;

/// A source of uniform draws that depend on nothing but the seed, the experiment and what is drawn for.
///
/// The function is SipHash-1-3 keyed with the seed (Aumasson and Bernstein 2012), so that nobody who picks their own
/// key, a cookie for instance, can pick their arm.
#[derive(Clone, Copy, Debug)]
pub struct Chance(SipHasher13);

impl Chance {
    /// The draws of one experiment under one seed.
    pub fn new(seed: Seed, experiment: &str) -> Self {
        let mut hasher = SipHasher13::new_with_keys(seed.0, 0x7072_6174_6661_6c6c); // "pratfall"
        hasher.write(experiment.as_bytes());
        hasher.write_u8(0xff);
        Self(hasher)
    }

    /// All draws for one purpose.
    pub fn purpose(&self, purpose: &str) -> Draws {
        let mut hasher = self.0;
        hasher.write(purpose.as_bytes());
        hasher.write_u8(0xff);
        Draws(hasher)
    }

    /// 64 bits for a purpose and a key.
    pub fn bits(&self, purpose: &str, key: &[u8]) -> u64 {
        self.purpose(purpose).bits(key)
    }

    /// Uniform in [0, 1).
    pub fn draw(&self, purpose: &str, key: &[u8]) -> f64 {
        self.purpose(purpose).draw(key)
    }
}

/// The draws for one purpose, for whoever draws again and again: half of a draw is to say what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Draws(SipHasher13);

impl Draws {
    /// 64 bits for a key.
    pub fn bits(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0;
        hasher.write(key);
        hasher.finish()
    }

    /// Uniform in [0, 1).
    pub fn draw(&self, key: &[u8]) -> f64 {
        unit(self.bits(key))
    }
}

/// The upper 53 bits as a number in [0, 1).
pub fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_and_experiment_and_on_nothing_else() {
        let draw = |seed, name| Chance::new(Seed(seed), name).draw("arm", b"ada");
        assert_eq!(draw(1, "a").to_bits(), draw(1, "a").to_bits());
        assert_ne!(draw(1, "a").to_bits(), draw(2, "a").to_bits());
        assert_ne!(draw(1, "a").to_bits(), draw(1, "b").to_bits());
    }

    #[test]
    fn the_draw_of_a_key_never_changes_between_versions() {
        // Written down once: a change of this figure breaks the replay of every run in every ledger.
        assert_eq!(Chance::new(Seed(42), "slow-inventory").bits("arm", b"user-1"), PINNED);
    }

    const PINNED: u64 = 18051244186308323646;
}
