//! Which priority takes a free slot: the most urgent that waits, but normal and bulk each keep a floor, so that a flood of
//! urgent jobs cannot starve them.

use super::job::Priority;

/// A priority that waits gets at least one of this many posts: 5 %.
pub const FLOOR_ONE_IN: u32 = 20;

/// Remembers for each priority how many posts went by while it waited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    passed_over: [u32; Priority::ALL.len()],
}

impl Turns {
    /// The priority that takes the next slot, of those for which `waits` is true.
    #[must_use]
    pub fn next(&self, waits: impl Fn(Priority) -> bool) -> Option<Priority> {
        let overdue = |p: &Priority| waits(*p) && self.passed_over[*p as usize] + 1 >= FLOOR_ONE_IN;
        // Of two that are due, the one that was passed over longer.
        let floor = [Priority::Bulk, Priority::Normal]
            .into_iter()
            .filter(overdue)
            .max_by_key(|p| self.passed_over[*p as usize]);
        floor.or_else(|| Priority::ALL.iter().copied().find(|p| waits(*p)))
    }

    /// Notes that a job of this priority took the slot.
    pub fn took(&mut self, taker: Priority, waits: impl Fn(Priority) -> bool) {
        for priority in Priority::ALL {
            let passed = &mut self.passed_over[*priority as usize];
            *passed = if *priority == taker || !waits(*priority) {
                0
            } else {
                *passed + 1
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(waits: impl Fn(Priority) -> bool + Copy, posts: usize) -> [usize; 3] {
        let (mut turns, mut shares) = (Turns::default(), [0; 3]);
        for _ in 0..posts {
            let taker = turns.next(waits).expect("somebody waits");
            shares[taker as usize] += 1;
            turns.took(taker, waits);
        }
        shares
    }

    #[test]
    fn urgent_takes_the_slot_before_normal_and_bulk() {
        assert_eq!(Turns::default().next(|_| true), Some(Priority::Urgent));
    }

    #[test]
    fn normal_and_bulk_each_keep_a_twentieth_while_urgent_could_fill_the_lane() {
        let [urgent, normal, bulk] = shares(|_| true, 1_000);
        assert!(
            (48..=52).contains(&normal) && (48..=52).contains(&bulk),
            "{urgent} {normal} {bulk}"
        );
    }

    #[test]
    fn a_priority_that_does_not_wait_takes_nothing() {
        assert_eq!(shares(|p| p == Priority::Bulk, 10), [0, 0, 10]);
        assert_eq!(Turns::default().next(|_| false), None);
    }
}
