//! How much of its configured rate a number uses: it slows down by itself when the provider throttles it or holds its
//! messages back, and recovers by itself.
//!
//! A throttle halves the rate (*multiplicative decrease*), and each second without one gives a twentieth of the configured
//! rate back (*additive increase*): the way in which senders that cannot see each other have always shared a line. Requests
//! that were on the wire together are throttled together, and that is one throttle: only the answer to a request that was
//! written after the last decrease can tell that the number is still too fast.
//!
//! While the provider holds many messages back to see what people make of them (Meta, template and portfolio pacing,
//! 2026-09), more of them would only wait with the others, and be dropped with them if the verdict is bad. So the number
//! goes at a quarter until most of what it sends is taken again.
//!
//! Times are durations since some fixed start of the caller's monotonic clock.

use std::time::Duration;

use super::pace::Rate;

/// The rate moves in steps of a twentieth of the configured one, so that it changes once a second and not with each answer.
const STEPS: f64 = 20.0;
/// Of the configured rate, given back for each second without a throttle.
const RECOVERY_PER_SECOND: f64 = 0.05;
/// Throttles slow a number to this share of its configured rate, and no further.
const FLOOR: f64 = 1.0 / 16.0;
/// Nor to less than one message a minute, unless it is configured so.
const FLOOR_PER_SECOND: f64 = 1.0 / 60.0;

/// The first hold after a throttle; doubled by each further one until a message is taken again.
const HOLD: Duration = Duration::from_secs(1);
const HOLD_MAX: Duration = Duration::from_secs(60);

/// Of the last 100 messages taken, more held back than this slow the number.
const HELD_MANY: u32 = 20;
/// As few end that. Lower than the other, so that a share in between does not make the rate flutter.
const HELD_FEW: u32 = 10;
/// The share of the configured rate that a number uses while many of its messages are held back.
const SHARE_WHILE_HELD: f64 = 0.25;

/// The rate of one number, between its floor and what is configured.
#[derive(Debug, Clone, PartialEq)]
pub struct Tempo {
    configured: Rate,
    /// Of the configured rate, above 0 and at most 1; the floor is kept by `rate`.
    share: f64,
    /// When it was slowed last; answers to what was written before tell nothing about the present rate.
    slowed_at: Option<Duration>,
    /// Until when the recovery is reckoned in.
    recovered_to: Duration,
    throttles_in_a_row: u32,
    held: LastTaken,
}

impl Tempo {
    /// A number that uses its whole rate.
    #[must_use]
    pub fn new(configured: Rate) -> Self {
        Self {
            configured,
            share: 1.0,
            slowed_at: None,
            recovered_to: Duration::ZERO,
            throttles_in_a_row: 0,
            held: LastTaken::default(),
        }
    }

    /// The rate to post at now: the configured one, or a whole number of its twentieths, but never less than the floor.
    #[must_use]
    pub fn rate(&self) -> Rate {
        let configured = self.configured.per_second();
        if self.share >= 1.0 {
            return self.configured;
        }
        // Multiplied first: 200 × 11 / 20 is 110, while 200 × 0.55 is a hair more and would be 111 in a stretched window.
        let slowed = configured * (self.share * STEPS).floor() / STEPS;
        let floor = (configured * FLOOR).max(FLOOR_PER_SECOND);
        Rate::new(slowed.max(floor).min(configured)).unwrap_or(self.configured)
    }

    /// The share of the configured rate that is used, above 0 and at most 1; 1 when nothing slows the number.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.rate().per_second() / self.configured.per_second()
    }

    /// Whether the number goes slowly because many of its messages are held back.
    #[must_use]
    pub fn is_slowed_by_held(&self) -> bool {
        self.held.are_many
    }

    /// An operator or the provider changed the rate. What slowed the number slows it still, by the same share.
    pub fn set_configured(&mut self, rate: Rate) {
        self.configured = rate;
    }

    /// The provider throttled a request that was written at `sent`. Returns for how long, from `now`, nothing of this number
    /// is to be posted; `None` when the request was written before the number slowed down, so that this is no news.
    pub fn throttled(&mut self, sent: Duration, now: Duration) -> Option<Duration> {
        if !self.is_news(sent) {
            return None;
        }
        let doublings = self.throttles_in_a_row.min(16);
        let hold = HOLD.saturating_mul(1 << doublings).min(HOLD_MAX);
        self.throttles_in_a_row += 1;
        self.slowed_at = Some(now);
        self.recovered_to = now + hold;
        self.share /= 2.0;
        Some(hold)
    }

    /// The provider took a message that was written at `sent`, and perhaps holds it back (`held`).
    pub fn accepted(&mut self, sent: Duration, held: bool, now: Duration) {
        self.held.note(held);
        if self.is_news(sent) {
            self.throttles_in_a_row = 0;
            let quiet = now.saturating_sub(self.recovered_to).as_secs_f64();
            self.share = (self.share + quiet * RECOVERY_PER_SECOND).min(1.0);
            self.recovered_to = now;
        }
        if self.held.are_many {
            self.share = self.share.min(SHARE_WHILE_HELD);
        }
    }

    /// Whether the answer to a request written then says anything about the present rate.
    fn is_news(&self, sent: Duration) -> bool {
        self.slowed_at.is_none_or(|slowed_at| sent > slowed_at)
    }
}

/// Which of the last 100 messages that the provider took it held back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LastTaken {
    /// A bit for each, the newest lowest.
    held: u128,
    are_many: bool,
}

impl LastTaken {
    fn note(&mut self, held: bool) {
        const LAST_100: u128 = (1 << 100) - 1;
        self.held = (self.held << 1 | u128::from(held)) & LAST_100;
        let count = self.held.count_ones();
        self.are_many = count > HELD_MANY || self.are_many && count > HELD_FEW;
    }
}

#[cfg(test)]
mod tests;
