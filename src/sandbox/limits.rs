//! The provider's limits: messages per second and number, messages per pair, unique recipients per portfolio. Times are
//! nanoseconds since the sandbox started.

use std::collections::{HashMap, VecDeque};

use super::setup::PairLimit;

const SECOND: u64 = 1_000_000_000;

/// The state of all limits. Numbers and portfolios go by their place in the setup, people by their symbol.
#[derive(Default)]
pub(super) struct Limits {
    numbers: HashMap<u32, VecDeque<u64>>,
    pairs: Pairs,
    portfolios: HashMap<usize, Unique>,
}

impl Limits {
    /// Takes a place in the number's second, if fewer than `most` are taken. No second, wherever it begins, holds more.
    pub(super) fn throughput(&mut self, number: u32, most: u32, now: u64) -> bool {
        let taken = self.numbers.entry(number).or_default();
        while taken.front().is_some_and(|at| now - at >= SECOND) {
            taken.pop_front();
        }
        let has_room = taken.len() < most as usize;
        if has_room {
            taken.push_back(now);
        }
        has_room
    }

    /// The messages of pairs.
    pub(super) fn pairs(&mut self) -> &mut Pairs {
        &mut self.pairs
    }

    /// The recipients of a portfolio.
    pub(super) fn unique(&mut self, portfolio: usize) -> &mut Unique {
        self.portfolios.entry(portfolio).or_default()
    }
}

/// Buckets per number and person, each kept as the time at which it will be full again.
#[derive(Default)]
pub(super) struct Pairs {
    full_at: HashMap<(u32, u32), u64>,
    /// Full buckets are forgotten when there are this many.
    sweep_at: usize,
}

impl Pairs {
    /// Whether the pair's bucket has a message left.
    pub(super) fn has_room(&self, limit: PairLimit, pair: (u32, u32), now: u64) -> bool {
        let refill = limit.refill_ms * 1_000_000;
        let missing = self
            .full_at
            .get(&pair)
            .map_or(0, |full_at| full_at.saturating_sub(now));
        missing + refill <= refill * u64::from(limit.burst)
    }

    /// Takes one.
    pub(super) fn take(&mut self, limit: PairLimit, pair: (u32, u32), now: u64) {
        if self.full_at.len() >= self.sweep_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.sweep_at = (self.full_at.len() * 2).max(100_000);
        }
        let full_at = self.full_at.entry(pair).or_insert(now);
        *full_at = (*full_at).max(now) + limit.refill_ms * 1_000_000;
    }
}

/// The recipients of the last 24 hours.
#[derive(Default)]
pub(super) struct Unique {
    last: HashMap<u32, u64>,
    order: VecDeque<(u64, u32)>,
}

impl Unique {
    /// Whether `person` counts already, or another one fits under `limit`.
    pub(super) fn has_room(&mut self, person: u32, limit: u32, day: u64, now: u64) -> bool {
        self.forget(day, now);
        self.last.contains_key(&person) || self.last.len() < limit as usize
    }

    /// Counts `person` from `now` on.
    pub(super) fn count(&mut self, person: u32, now: u64) {
        self.last.insert(person, now);
        self.order.push_back((now, person));
    }

    fn forget(&mut self, day: u64, now: u64) {
        while let Some((at, person)) = self
            .order
            .front()
            .copied()
            .filter(|(at, _)| now - at >= day)
        {
            self.order.pop_front();
            // A later message renewed it: then it leaves with that one's entry.
            if self.last.get(&person) == Some(&at) {
                self.last.remove(&person);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_wherever_it_begins_holds_more_than_the_rate() {
        let mut limits = Limits::default();
        let times = (0..3_000_u64)
            .map(|n| n * 7_919_777 % (3 * SECOND))
            .collect::<std::collections::BTreeSet<_>>();
        let taken: Vec<u64> = times
            .into_iter()
            .filter(|at| limits.throughput(0, 10, *at))
            .collect();
        assert!(
            taken
                .windows(11)
                .all(|eleven| eleven[10] - eleven[0] >= SECOND)
        );
        assert_eq!(taken.len(), 30, "and each second is used to the full");
    }

    #[test]
    fn a_pair_has_a_burst_and_then_one_message_per_refill() {
        let (mut pairs, limit) = (Pairs::default(), PairLimit::default());
        let mut send = |now| {
            let room = pairs.has_room(limit, (0, 1), now);
            if room {
                pairs.take(limit, (0, 1), now);
            }
            room
        };
        assert!((0..45).all(|_| send(0)));
        assert!(!send(0));
        assert!(!send(6 * SECOND - 1));
        assert!(send(6 * SECOND));
        assert!(!send(6 * SECOND));
        assert!(
            (0..45).all(|_| send(10_000 * SECOND)),
            "after a long rest the burst is back"
        );
        assert!(!send(10_000 * SECOND), "and no more than the burst");
    }

    #[test]
    fn a_recipient_counts_for_a_day_after_the_last_message() {
        let mut unique = Unique::default();
        let day = 100;
        unique.count(1, 0);
        unique.count(2, 10);
        assert!(!unique.has_room(3, 2, day, 50));
        assert!(unique.has_room(1, 2, day, 50));
        unique.count(1, 50);
        assert!(
            !unique.has_room(3, 2, day, 109),
            "1 was renewed at 50, 2 counts until 110"
        );
        assert!(unique.has_room(3, 2, day, 110));
        unique.count(3, 110);
        assert!(!unique.has_room(4, 2, day, 149));
        assert!(unique.has_room(4, 2, day, 150));
    }
}
