//! Chance that is the same for the same seed, on every machine and with every version of every library.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014): one number of state, every seed a good one.
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1, without 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// True in this share of all cases.
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// From 0 to `n`, without `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Between two times, each order of magnitude as likely as the next: most trouble is short, some is very long.
    pub(crate) fn between(&mut self, from: Duration, to: Duration) -> Duration {
        let (from, to) = (from.as_secs_f64().max(1e-6), to.as_secs_f64());
        Duration::from_micros((from * (to / from).powf(self.unit()) * 1e6) as u64)
    }

    /// Between two times, each as likely as the other.
    pub(crate) fn within(&mut self, from: Duration, to: Duration) -> Duration {
        from + (to.saturating_sub(from)).mul_f64(self.unit())
    }
}
