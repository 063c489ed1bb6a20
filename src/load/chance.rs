//! What the load leaves to chance, drawn by the number of the request: the same seed sends the same requests.

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::units::Seed;

/// The draws of one load under one seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chance(Seed);

/// What is drawn for. Each has draws of its own, so that another gap does not mean another path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// The time to the next request.
    Gap,
    /// Which template is sent, and what its placeholders become.
    Request,
}

impl Chance {
    pub(super) fn new(seed: Seed) -> Self {
        Self(seed)
    }

    /// The dice that are thrown for one request.
    pub(super) fn dice(self, purpose: Purpose, index: u64) -> Dice {
        let mut hasher = SipHasher13::new_with_keys(self.0.0, 0x6c6f_6164); // "load"
        hasher.write(&[purpose as u8]);
        hasher.write(&index.to_le_bytes());
        Dice { hasher, throws: 0 }
    }
}

/// A row of throws.
#[derive(Clone, Debug)]
pub(super) struct Dice {
    hasher: SipHasher13,
    throws: u64,
}

impl Dice {
    /// The next 64 bits.
    pub(super) fn bits(&mut self) -> u64 {
        let mut hasher = self.hasher;
        hasher.write(&self.throws.to_le_bytes());
        self.throws += 1;
        hasher.finish()
    }

    /// Uniform from zero up to, not including, `end`, which is at least one. The bias is below `end`/2⁶⁴.
    pub(super) fn below(&mut self, end: u128) -> u64 {
        ((u128::from(self.bits()) * end) >> 64) as u64
    }
}

/// The upper 53 bits as a number in [0, 1).
pub(super) fn unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
