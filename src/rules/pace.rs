//! When the next post of a number may leave.
//!
//! Two rules, both of which must agree. The *ring* of the last N post times is the limit itself: a post leaves when the
//! N-th last is older than the window and an allowance for jitter, so no window ever holds more than N, whatever stalled
//! before it. The *spacing* keeps posts apart inside the window, at twice the rate, so that a number that was idle does
//! not fire all N at once.
//!
//! A slot is taken when a post is decided, and its time is known only when its request was written, which a connection
//! that has to be made first may put off. Until then the post counts as if it left now, however late now is.
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

/// Spacing lets this much pile up, so that timers of a millisecond's grain do not cost throughput.
const SPACING_BURST: Duration = Duration::from_millis(3);

/// Messages per second that a number may post; above 0, at most 1,000 (Meta, throughput, 2026-09).
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
            Ok(Self(messages_per_second))
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
        let apart = Duration::from_secs_f64(0.5 / self.0);
        let burst = (SPACING_BURST.as_secs_f64() / apart.as_secs_f64()).ceil() as u32;
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

/// Paces one number.
#[derive(Debug)]
pub struct Pacer {
    rate: Rate,
    allowance: Duration,
    /// When the last posts left, oldest first; never more than the window may hold.
    posts: VecDeque<Duration>,
    /// Slots that were taken for posts which have not left yet.
    leaving: usize,
    spacing: RateLimiter<NotKeyed, InMemoryState, Hand, NoOpMiddleware<Shown>>,
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

    /// Changes the rate. Posts already made count on, so a change is no burst.
    pub fn set_rate(&mut self, rate: Rate) {
        if rate != self.rate {
            self.rate = rate;
            self.spacing = RateLimiter::direct_with_clock(rate.quota(), self.hand.clone());
        }
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
            self.posts.pop_front();
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
        // With more posts remembered than the window may hold (the rate was lowered), the newest count.
        let capacity = self.rate.capacity().saturating_sub(self.leaving);
        let Some(in_the_way) = (self.posts.len() + ahead).checked_sub(capacity) else {
            return Duration::ZERO;
        };
        self.posts.get(in_the_way).map_or(Duration::MAX, |post| {
            *post + self.rate.window() + self.allowance
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALLOWANCE: Duration = Duration::from_millis(20);

    fn pacer(rate: f64) -> Pacer {
        Pacer::new(
            Rate::new(rate).expect("a rate"),
            ALLOWANCE,
            &Hand::default(),
        )
    }

    /// Posts as fast as the pacer lets us for `seconds`, asking again when it says, and returns the times.
    fn run(pacer: &mut Pacer, from: Duration, seconds: u64) -> Vec<Duration> {
        let end = from + Duration::from_secs(seconds);
        let (mut now, mut posts) = (from, Vec::new());
        while now < end {
            match pacer.take(now) {
                Ok(()) => {
                    pacer.left(now);
                    posts.push(now);
                }
                Err(again) => now = again,
            }
        }
        posts
    }

    fn most_in_any(window: Duration, posts: &[Duration]) -> usize {
        posts
            .iter()
            .enumerate()
            .map(|(first, start)| {
                posts[first..]
                    .iter()
                    .take_while(|post| **post < *start + window)
                    .count()
            })
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn a_saturated_number_uses_at_least_97_percent_of_its_limit() {
        for rate in [0.5, 1.0, 10.0, 20.0, 80.0, 1_000.0] {
            let posts = run(&mut pacer(rate), Duration::from_secs(5), 60).len() as f64;
            assert!(
                posts >= 0.97 * 60.0 * rate,
                "{posts} posts in 60 s at {rate}/s"
            );
        }
    }

    #[test]
    fn an_idle_number_does_not_fire_its_whole_window_at_once() {
        let posts = run(&mut pacer(80.0), Duration::from_secs(100), 1);
        assert!(
            most_in_any(Duration::from_millis(100), &posts) <= 17,
            "80/s spaced at 160/s"
        );
    }

    #[test]
    fn a_lower_rate_counts_the_posts_already_made() {
        let mut pacer = pacer(80.0);
        let mut posts = run(&mut pacer, Duration::from_secs(5), 1);
        pacer.set_rate(Rate::new(10.0).expect("a rate"));
        let after = run(&mut pacer, Duration::from_secs(6), 3);
        posts.extend(&after);
        let late: Vec<_> = posts
            .into_iter()
            .filter(|post| *post >= Duration::from_millis(5_980))
            .collect();
        assert!(
            most_in_any(Duration::from_secs(1), &late) <= 12,
            "two of the old rate, ten of the new"
        );
        assert!(after[0] >= Duration::from_secs(6) + ALLOWANCE - Duration::from_millis(20));
    }

    #[test]
    fn rates_outside_the_providers_range_are_refused() {
        for bad in [0.0, -1.0, 1_000.1, f64::NAN, f64::INFINITY] {
            assert!(Rate::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slots_until_counts_what_take_then_grants() {
        let mut pacer = pacer(10.0);
        let posts = run(&mut pacer, Duration::from_secs(5), 2);
        let last = posts[posts.len() - 1];
        let horizon = last + Duration::from_millis(400);
        let promised = pacer.slots_until(horizon, 100);
        let granted = run(&mut pacer, last, 1)
            .into_iter()
            .filter(|post| *post <= horizon)
            .count();
        assert_eq!(promised, granted);
    }

    #[test]
    fn posts_that_have_not_left_hold_their_slots_until_they_do() {
        let mut pacer = pacer(2.0);
        let mut now = Duration::from_secs(10);
        assert_eq!(pacer.take(now), Ok(()));
        now += Duration::from_millis(300);
        assert_eq!(pacer.take(now), Ok(()));
        now += Duration::from_secs(30);
        assert_eq!(
            pacer.take(now),
            Err(Duration::MAX),
            "both may leave any moment"
        );
        pacer.left(now);
        assert_eq!(
            pacer.take(now),
            Err(now + Duration::from_secs(1) + ALLOWANCE),
            "one left now, the other may"
        );
        pacer.stayed();
        assert_eq!(pacer.take(now), Ok(()), "only one is in the window");
    }

    proptest! {
        #[test]
        fn no_window_ever_holds_more_than_the_rate_by_the_times_at_which_posts_left(
            rate in prop_oneof![Just(0.5), Just(2.5), Just(10.0), Just(80.0)],
            steps in prop::collection::vec((0u64..200, 0usize..4, 0usize..4), 1..400),
        ) {
            let mut pacer = pacer(rate);
            let (mut now, mut posts, mut leaving) = (Duration::from_secs(1), Vec::new(), 0);
            for (gap, taken, written) in steps {
                now += Duration::from_millis(gap);
                leaving += (0..taken).filter(|_| pacer.take(now).is_ok()).count();
                for _ in 0..written.min(leaving) {
                    leaving -= 1;
                    pacer.left(now);
                    posts.push(now);
                }
            }
            let limit = Rate::new(rate).expect("a rate");
            prop_assert!(most_in_any(limit.window() + ALLOWANCE, &posts) <= limit.capacity());
        }

        #[test]
        fn no_window_ever_holds_more_than_the_rate_whatever_stalls(
            rate in prop_oneof![Just(0.5), Just(2.5), Just(10.0), Just(80.0)],
            gaps in prop::collection::vec(0u64..400, 1..600),
        ) {
            let mut pacer = pacer(rate);
            let (mut now, mut posts) = (Duration::from_secs(1), Vec::new());
            for gap in gaps {
                now += Duration::from_millis(gap);
                while pacer.take(now).is_ok() {
                    pacer.left(now);
                    posts.push(now);
                }
            }
            let limit = Rate::new(rate).expect("a rate");
            prop_assert!(most_in_any(limit.window() + ALLOWANCE, &posts) <= limit.capacity());
        }
    }
}
