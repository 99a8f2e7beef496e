//! Moments on the caller's monotonic clock, also from before its start.
//!
//! Most rules take a `Duration` since that start. What was posted before this process began has no such time, and the
//! limits that look back over minutes or a day must count it: hence a signed time.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A moment on the caller's monotonic clock, in nanoseconds (as exact as `Duration`) for 292 years around its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(i64);

impl Moment {
    /// Before everything that matters; what is added to it is long ago too.
    pub const LONG_AGO: Self = Self(i64::MIN);

    /// The time since the clock's start, for timers; zero for what was before.
    #[must_use]
    pub fn since_start(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }

    /// The time since an earlier moment; zero when that one is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        let nanos = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

impl From<Duration> for Moment {
    /// So long after the clock's start.
    fn from(since_start: Duration) -> Self {
        Self(nanos(since_start))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;
    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(nanos(later)))
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;
    fn sub(self, earlier: Duration) -> Self {
        Self(self.0.saturating_sub(nanos(earlier)))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn moments_before_the_start_are_in_order_and_are_no_timers() {
        let start = Moment::from(Duration::ZERO);
        let yesterday = start - 24 * HOUR;
        assert!(Moment::LONG_AGO < yesterday && yesterday < start);
        assert_eq!(yesterday.since_start(), Duration::ZERO);
        assert_eq!((yesterday + 25 * HOUR).since_start(), HOUR);
        assert_eq!(start.since(yesterday), 24 * HOUR);
        assert_eq!(yesterday.since(start), Duration::ZERO);
    }

    #[test]
    fn arithmetic_stops_at_the_ends_instead_of_wrapping() {
        assert_eq!(Moment::LONG_AGO - HOUR, Moment::LONG_AGO);
        assert!(Moment::LONG_AGO + HOUR < Moment::from(Duration::ZERO));
        assert!(Moment::from(HOUR) + Duration::MAX > Moment::from(HOUR));
    }
}
