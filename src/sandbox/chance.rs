//! How long things take, drawn from a distribution.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};
use serde::Deserialize;

/// A log-normal duration: most are near the median, a few take much longer.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delay {
    /// Half are shorter than this.
    pub median_ms: f64,
    /// The spread; 0 makes each exactly the median, 0.5 puts one in a hundred above three times the median.
    pub sigma: f64,
    /// None is longer than this.
    pub max_ms: f64,
}

impl Default for Delay {
    fn default() -> Self {
        Delay::around(80)
    }
}

impl Delay {
    /// Around a median, with the spread that public networks show.
    #[must_use]
    pub fn around(median_ms: u32) -> Delay {
        Delay {
            median_ms: f64::from(median_ms),
            sigma: 0.35,
            max_ms: f64::from(median_ms) * 20.0,
        }
    }

    /// Always the same.
    #[must_use]
    pub fn fixed(ms: u32) -> Delay {
        Delay {
            median_ms: f64::from(ms),
            sigma: 0.0,
            max_ms: f64::from(ms),
        }
    }

    /// Not at all.
    #[must_use]
    pub fn none() -> Delay {
        Delay::fixed(0)
    }

    /// One draw.
    pub(super) fn draw(&self, rng: &mut StdRng) -> Duration {
        let ms = if self.sigma == 0.0 || self.median_ms == 0.0 {
            self.median_ms
        } else {
            (self.median_ms * (self.sigma * normal(rng)).exp()).min(self.max_ms)
        };
        Duration::from_nanos((ms * 1e6) as u64)
    }
}

/// A standard normal draw (Box and Muller).
fn normal(rng: &mut StdRng) -> f64 {
    let (u, v): (f64, f64) = (rng.random(), rng.random());
    // 1 - u is never 0, whose logarithm would be infinite.
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn half_of_the_draws_lie_below_the_median_and_none_above_the_maximum() {
        let (delay, mut rng) = (Delay::around(80), StdRng::seed_from_u64(7));
        let draws: Vec<_> = (0..10_000).map(|_| delay.draw(&mut rng)).collect();
        let below = draws
            .iter()
            .filter(|draw| **draw < Duration::from_millis(80))
            .count();
        assert!((4_800..5_200).contains(&below), "{below}");
        assert!(
            draws
                .iter()
                .all(|draw| *draw <= Duration::from_millis(1_600))
        );
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draws = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            (0..50)
                .map(|_| Delay::around(80).draw(&mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(draws(3), draws(3));
        assert_ne!(draws(3), draws(4));
    }
}
