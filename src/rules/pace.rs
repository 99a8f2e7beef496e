//! When the next post of a number may leave.
//!
//! Two rules, both of which must agree. The *ring* of the last N post times is the limit itself: a post leaves when the
//! N-th last is older than the window and an allowance for jitter, so no window ever holds more than N, whatever stalled
//! before it. The *spacing* keeps posts apart inside the window, nearly as far as the rate alone would, so that slots are
//! spread over it: a code that comes while a number is busy finds the next slot soon, and a number that was idle does not
//! fire all N at once. (Closer together, all slots of a second fall into its first half, and the code waits for the next.)
//!
//! A slot is taken when a post is decided, and its time is known only when its request was written, which a connection
//! that has to be made first may put off. Until then the post counts as if it left now, however late now is.
//!
//! The promise, also while the rate changes: at the moment of each post, the window that ends with it holds no more posts
//! than the rate in force at that moment allows, those made under an earlier rate included. So any sliding window holds
//! at most what the rate in force at its last post allows: a lower rate binds at once, a higher one makes no burst. As no
//! window is shorter than a second, no sliding second ever holds more than N either.
//!
//! Times are durations since some fixed start of the caller's monotonic clock.

use std::{
    collections::VecDeque,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, Reference},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

/// Posts are at least this share of the rate's period apart. The rest is slack for timers, which are late and never early.
const SPACING: f64 = 0.95;

/// From this far apart on no slots pile up.
const COARSE: Duration = Duration::from_millis(40);

/// Spacing lets this much pile up, so that timers of a millisecond's grain do not cost throughput.
const SPACING_BURST: Duration = Duration::from_millis(3);

/// One message a day: what is slower than this is taken for this, so that windows stay lengths of time that can be
/// reckoned with.
const SLOWEST: f64 = 1.0 / 86_400.0;

/// Messages per second that a number may post; above 0, at most 1,000 (Meta, throughput, 2026-09). Anything slower than
/// one a day is one a day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(f64);

/// A rate outside of what the provider knows.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{0} messages per second is not above 0 and at most 1,000")]
pub struct RateError(f64);

impl Rate {
    /// A rate in messages per second.
    ///
    /// # Errors
    /// When it is not above 0 and at most 1,000.
    pub fn new(messages_per_second: f64) -> Result<Self, RateError> {
        if messages_per_second > 0.0 && messages_per_second <= 1_000.0 {
            Ok(Self(messages_per_second.max(SLOWEST)))
        } else {
            Err(RateError(messages_per_second))
        }
    }

    /// In messages per second.
    #[must_use]
    pub fn per_second(self) -> f64 {
        self.0
    }

    /// How many posts the window may hold: the rate, rounded up.
    #[must_use]
    pub fn capacity(self) -> usize {
        self.0.ceil() as usize
    }

    /// The window that may hold `capacity` posts: one second, stretched for a rate that is no whole number.
    #[must_use]
    pub fn window(self) -> Duration {
        Duration::from_secs_f64(self.0.ceil() / self.0)
    }

    fn quota(self) -> Quota {
        let apart = Duration::from_secs_f64(SPACING / self.0);
        let burst = match apart {
            // What timers are late by is small beside the slack that `SPACING` leaves.
            apart if apart >= COARSE => 1,
            _ => ((SPACING_BURST.as_secs_f64() / apart.as_secs_f64()).ceil() as u32).max(2),
        };
        Quota::with_period(apart)
            .expect("the rate is finite and above zero")
            .allow_burst(NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN))
    }
}

/// What the provider lets a number post, from what it says of it (Meta, throughput, 2026-09): 20 messages a second when
/// the number is also used on the phone app, 1,000 at the level HIGH, 80 at STANDARD; where it says nothing, the brief's
/// careful 10.
#[must_use]
pub fn provider_rate(throughput_level: Option<&str>, is_on_biz_app: bool) -> Rate {
    Rate(match throughput_level {
        _ if is_on_biz_app => 20.0,
        Some("HIGH") => 1_000.0,
        Some("STANDARD") => 80.0,
        _ => 10.0,
    })
}

/// The hand that moves all pacers of one thread: governor asks it for the time that the caller was given.
#[derive(Debug, Clone, Default)]
pub struct Hand(Arc<AtomicU64>);

/// The time on a [`Hand`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown(u64);

impl Reference for Shown {
    fn duration_since(&self, earlier: Self) -> governor::nanos::Nanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: governor::nanos::Nanos) -> Self {
        Self(self.0.saturating_sub(duration.into()))
    }
}

impl std::ops::Add<governor::nanos::Nanos> for Shown {
    type Output = Self;
    fn add(self, duration: governor::nanos::Nanos) -> Self {
        Self(self.0 + u64::from(duration))
    }
}

impl Clock for Hand {
    type Instant = Shown;
    fn now(&self) -> Shown {
        Shown(self.0.load(Ordering::Relaxed))
    }
}

impl Hand {
    fn show(&self, now: Duration) {
        self.0.store(
            u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
    }
}

type Spacing = RateLimiter<NotKeyed, InMemoryState, Hand, NoOpMiddleware<Shown>>;

/// Paces one number.
#[derive(Debug)]
pub struct Pacer {
    rate: Rate,
    allowance: Duration,
    /// When the last posts left, oldest first: as many as the window may hold at the highest rate since they were made.
    posts: VecDeque<Duration>,
    /// The last post that is no longer among them. Under a higher rate or in a longer window it may count again.
    dropped: Option<Duration>,
    /// Slots that were taken for posts which have not left yet.
    leaving: usize,
    spacing: Spacing,
    hand: Hand,
}

impl Pacer {
    /// A pacer that has not posted yet. `allowance` is added to the window against jitter on the way to the provider.
    #[must_use]
    pub fn new(rate: Rate, allowance: Duration, hand: &Hand) -> Self {
        Self {
            rate,
            allowance,
            posts: VecDeque::new(),
            dropped: None,
            leaving: 0,
            spacing: RateLimiter::direct_with_clock(rate.quota(), hand.clone()),
            hand: hand.clone(),
        }
    }

    /// The rate that holds now.
    #[must_use]
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Changes the rate. Posts already made count on, in the window and in the spacing, so a change is no burst.
    pub fn set_rate(&mut self, rate: Rate) {
        if rate != self.rate {
            self.rate = rate;
            self.spacing = self.spacing_since_last_post();
        }
    }

    /// A new spacing starts full, which would be a burst at each change: it is made as of the last post and emptied.
    fn spacing_since_last_post(&self) -> Spacing {
        let quota = self.rate.quota();
        let Some(last) = self.posts.back() else {
            return RateLimiter::direct_with_clock(quota, self.hand.clone());
        };
        self.hand.show(*last);
        let spacing = RateLimiter::direct_with_clock(quota, self.hand.clone());
        let emptied = spacing.check_n(quota.burst_size());
        debug_assert!(
            matches!(emptied, Ok(Ok(()))),
            "a full burst fits into a new limiter"
        );
        spacing
    }

    /// Takes a slot if a post may leave now; otherwise says when to ask again. Whoever takes a slot says what became of it,
    /// by [`left`](Self::left) or [`stayed`](Self::stayed).
    ///
    /// # Errors
    /// The earliest time at which a post may leave; [`Duration::MAX`] when that depends on posts that have not left yet.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let free_at = self.ring_free_at(0);
        if free_at > now {
            return Err(free_at);
        }
        self.hand.show(now);
        if let Err(refused) = self.spacing.check() {
            return Err(now
                + refused
                    .wait_time_from(Shown(now.as_nanos() as u64))
                    .max(Duration::from_micros(1)));
        }
        self.leaving += 1;
        Ok(())
    }

    /// The post of a taken slot was written at that time.
    pub fn left(&mut self, at: Duration) {
        self.leaving = self.leaving.saturating_sub(1);
        // Nearly always the last; connections may finish in another order.
        let place = self.posts.partition_point(|post| *post <= at);
        self.posts.insert(place, at);
        while self.posts.len() > self.rate.capacity() {
            self.dropped = self.dropped.max(self.posts.pop_front());
        }
    }

    /// The post of a taken slot will not leave.
    pub fn stayed(&mut self) {
        self.leaving = self.leaving.saturating_sub(1);
    }

    /// How many posts may leave until `then` by the ring alone, at most `most`.
    #[must_use]
    pub fn slots_until(&self, then: Duration, most: usize) -> usize {
        (0..most.min(self.rate.capacity()))
            .take_while(|&ahead| self.ring_free_at(ahead) <= then)
            .count()
    }

    /// When the ring lets the post leave that comes `ahead` posts after the next one.
    fn ring_free_at(&self, ahead: usize) -> Duration {
        let window = self.rate.window() + self.allowance;
        let capacity = self.rate.capacity().saturating_sub(self.leaving);
        // With more posts remembered than the window may hold (the rate was lowered), the newest count.
        match (self.posts.len() + ahead).checked_sub(capacity) {
            // All that we no longer know is older than the last that was dropped.
            None => self.dropped.map_or(Duration::ZERO, |post| post + window),
            Some(in_the_way) => self
                .posts
                .get(in_the_way)
                .map_or(Duration::MAX, |post| *post + window),
        }
    }
}

#[cfg(test)]
mod tests;
