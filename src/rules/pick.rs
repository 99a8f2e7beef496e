//! Which priority takes a free slot: the most urgent that waits, but normal and bulk each keep a floor, so that a flood of
//! urgent jobs cannot starve them.

use super::job::Priority;

/// The share of the posts that normal and bulk each keep while they wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    millionths: u32,
}

/// A whole post.
const ONE: u32 = 1_000_000;

impl Floor {
    /// From 0 (urgent jobs may take all) to 0.5 (they may get nothing); what lies beyond is taken for the nearest.
    #[must_use]
    pub fn new(share: f64) -> Self {
        let millionths = (share.clamp(0.0, 0.5) * f64::from(ONE)).round();
        Self {
            millionths: millionths as u32,
        }
    }
}

impl Default for Floor {
    /// A twentieth.
    fn default() -> Self {
        Self::new(0.05)
    }
}

/// Remembers for each priority how much of a post it is owed, since it waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turns {
    floor: Floor,
    owed: [u32; Priority::ALL.len()],
}

impl Turns {
    /// From now on normal and bulk keep this. What they are owed already they are owed still.
    pub fn set_floor(&mut self, floor: Floor) {
        self.floor = floor;
    }

    /// The priority that takes the next slot, of those for which `waits` is true.
    #[must_use]
    pub fn next(&self, waits: impl Fn(Priority) -> bool) -> Option<Priority> {
        let due = |p: &Priority| waits(*p) && self.owed[*p as usize] + self.floor.millionths >= ONE;
        // Of two that are due, the one that is owed more.
        let floor = [Priority::Bulk, Priority::Normal]
            .into_iter()
            .filter(due)
            .max_by_key(|p| self.owed[*p as usize]);
        floor.or_else(|| Priority::ALL.iter().copied().find(|p| waits(*p)))
    }

    /// Notes that a job of this priority took the slot.
    pub fn took(&mut self, taker: Priority, waits: impl Fn(Priority) -> bool) {
        for priority in Priority::ALL {
            let owed = &mut self.owed[*priority as usize];
            let with_this = *owed + self.floor.millionths;
            *owed = match *priority {
                priority if !waits(priority) => 0,
                priority if priority == taker => with_this.saturating_sub(ONE),
                // Somebody who waits behind another that is due as well is not owed ever more.
                _ => with_this.min(2 * ONE),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(floor: f64, waits: impl Fn(Priority) -> bool + Copy, posts: usize) -> [usize; 3] {
        let (mut turns, mut shares) = (Turns::default(), [0; 3]);
        turns.set_floor(Floor::new(floor));
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
        assert_eq!(Floor::default(), Floor::new(0.05));
        let [urgent, normal, bulk] = shares(0.05, |_| true, 1_000);
        assert!(
            (48..=52).contains(&normal) && (48..=52).contains(&bulk),
            "{urgent} {normal} {bulk}"
        );
    }

    #[test]
    fn any_floor_is_kept_to_a_post_and_the_rest_is_urgent() {
        for floor in [0.0, 0.01, 0.1, 0.25, 0.3, 0.4] {
            let [urgent, normal, bulk] = shares(floor, |_| true, 1_000);
            let kept = (floor * 1_000.0) as usize;
            let most = if kept == 0 { 0 } else { kept + 1 };
            for share in [normal, bulk] {
                assert!(
                    (kept.saturating_sub(1)..=most).contains(&share),
                    "{floor}: {urgent} {normal} {bulk}"
                );
            }
        }
    }

    #[test]
    fn no_ten_posts_in_a_row_go_without_a_tenth() {
        let mut turns = Turns::default();
        turns.set_floor(Floor::new(0.1));
        let mut since = 0;
        for _ in 0..1_000 {
            let taker = turns.next(|p| p != Priority::Normal).expect("two wait");
            turns.took(taker, |p| p != Priority::Normal);
            since = if taker == Priority::Bulk {
                0
            } else {
                since + 1
            };
            assert!(since < 10);
        }
    }

    #[test]
    fn bulk_keeps_its_floor_beside_normal_jobs_too() {
        let [urgent, normal, bulk] = shares(0.2, |p| p != Priority::Urgent, 100);
        assert_eq!([urgent, normal, bulk], [0, 80, 20]);
    }

    #[test]
    fn a_priority_that_does_not_wait_takes_nothing() {
        assert_eq!(shares(0.05, |p| p == Priority::Bulk, 10), [0, 0, 10]);
        assert_eq!(Turns::default().next(|_| false), None);
    }
}
