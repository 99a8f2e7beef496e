//! The shards of this instance: what it may send for, what it gives back, and until when. Times are of the boot-time clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::world::Leases;
use crate::store::{
    attempt::Held,
    lease::{Returned, Taken},
};

/// After the last post for a shard that is given back nobody posts for this long: a pacing window and 0.1 s.
pub const REST: Duration = Duration::from_millis(1_100);

/// Nothing of a shard that is to be given back is in flight or unsettled any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiet {
    /// The shard, as it was held.
    pub held: Held,
    /// Since its last post; `None` when nothing was posted for it.
    pub silent_for: Option<Duration>,
}

/// What this instance holds.
#[derive(Debug, Default)]
pub struct Holdings {
    shards: BTreeMap<i16, Holding>,
    deadline: Duration,
}

#[derive(Debug, Clone, Copy)]
struct Holding {
    epoch: i64,
    /// The deadline is that of the last renewal: what was taken since may run out before.
    renewed: bool,
    /// Nothing may be posted before this.
    free_at: Duration,
    /// Since when it is to be given back.
    leaving_since: Option<Duration>,
}

impl Holdings {
    /// Everything it holds, also what it gives back.
    #[must_use]
    pub fn held(&self) -> Vec<Held> {
        let held = |(shard, holding): (&i16, &Holding)| Held {
            shard: *shard,
            epoch: holding.epoch,
        };
        self.shards.iter().map(held).collect()
    }

    /// These, and no others, are still ours, and may be posted for until `deadline`. Returns how many were lost.
    pub fn renewed(&mut self, still: &[Held], deadline: Duration) -> usize {
        let before = self.shards.len();
        self.shards.retain(|shard, holding| {
            holding.renewed = still.contains(&Held {
                shard: *shard,
                epoch: holding.epoch,
            });
            holding.renewed
        });
        self.deadline = deadline;
        before - self.shards.len()
    }

    /// These were taken just now; they are sent for from the next renewal on.
    pub fn took(&mut self, taken: &[Taken], now: Duration) {
        for Taken { held, free_in } in taken {
            let holding = Holding {
                epoch: held.epoch,
                renewed: false,
                free_at: now.saturating_add(*free_in),
                leaving_since: None,
            };
            self.shards.insert(held.shard, holding);
        }
    }

    /// Sets what is to be held: the rest is to be given back. Returns what is to be taken.
    pub fn aim(&mut self, wanted: &BTreeSet<i16>, now: Duration) -> Vec<i16> {
        for (shard, holding) in &mut self.shards {
            holding.leaving_since = match wanted.contains(shard) {
                true => None,
                false => holding.leaving_since.or(Some(now)),
            };
        }
        let is_missing = |shard: &&i16| !self.shards.contains_key(shard);
        wanted.iter().filter(is_missing).copied().collect()
    }

    /// How the shard is returned when nothing of it is under way any more; `None` when that is not asked any more.
    #[must_use]
    pub fn returned(&self, quiet: Quiet) -> Option<Returned> {
        let holding = self.shards.get(&quiet.held.shard)?;
        let is_meant = holding.epoch == quiet.held.epoch && holding.leaving_since.is_some();
        let rest = quiet
            .silent_for
            .map_or(Duration::ZERO, |silent| REST.saturating_sub(silent));
        is_meant.then_some(Returned {
            held: quiet.held,
            rest,
        })
    }

    /// What should have been given back by now: its next holder waits no longer, and sees to what was left open.
    #[must_use]
    pub fn overdue(&self, within: Duration, now: Duration) -> Vec<Returned> {
        let is_overdue = |(_, holding): &(&i16, &Holding)| {
            holding
                .leaving_since
                .is_some_and(|since| since + within <= now)
        };
        let returned = |(shard, holding): (&i16, &Holding)| Returned {
            held: Held {
                shard: *shard,
                epoch: holding.epoch,
            },
            rest: REST,
        };
        self.shards
            .iter()
            .filter(is_overdue)
            .map(returned)
            .collect()
    }

    /// These were given back.
    pub fn gave_back(&mut self, returned: &[Returned]) {
        for Returned { held, .. } in returned {
            self.shards.remove(&held.shard);
        }
    }

    /// What the workers are to know.
    #[must_use]
    pub fn leases(&self, now: Duration) -> Leases {
        let (leaving, kept): (Vec<_>, Vec<_>) = self
            .shards
            .iter()
            .partition(|(_, holding)| holding.leaving_since.is_some());
        let free = kept
            .into_iter()
            .filter(|(_, holding)| holding.renewed && holding.free_at <= now);
        let epoch = |(shard, holding): (&i16, &Holding)| (*shard, holding.epoch);
        Leases {
            epochs: free.map(epoch).collect(),
            leaving: leaving.into_iter().map(epoch).collect(),
            deadline: self.deadline,
        }
    }

    /// When the next shard may be posted for that may not yet.
    #[must_use]
    pub fn next_free(&self, now: Duration) -> Option<Duration> {
        let times = self.shards.values().map(|holding| holding.free_at);
        times.filter(|free_at| *free_at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    const fn held(shard: i16) -> Held {
        Held { shard, epoch: 7 }
    }

    fn holdings(shards: &[i16]) -> Holdings {
        let mut holdings = Holdings::default();
        let taken: Vec<Taken> = shards
            .iter()
            .map(|shard| Taken {
                held: held(*shard),
                free_in: Duration::ZERO,
            })
            .collect();
        holdings.took(&taken, ms(0));
        renew(&mut holdings);
        holdings
    }

    fn renew(holdings: &mut Holdings) {
        let held = holdings.held();
        assert_eq!(holdings.renewed(&held, ms(9)), 0);
    }

    fn sent_for(holdings: &Holdings, now: Duration) -> BTreeSet<i16> {
        holdings.leases(now).epochs.into_keys().collect()
    }

    #[test]
    fn a_shard_that_was_handed_back_is_sent_for_when_its_rest_is_over() {
        let mut holdings = holdings(&[1]);
        let resting = Taken {
            held: held(2),
            free_in: ms(900),
        };
        holdings.took(&[resting], ms(100));
        renew(&mut holdings);
        assert_eq!(sent_for(&holdings, ms(100)), [1].into());
        assert_eq!(holdings.next_free(ms(100)), Some(ms(1_000)));
        assert_eq!(sent_for(&holdings, ms(1_000)), [1, 2].into());
        assert_eq!(holdings.next_free(ms(1_000)), None);
    }

    #[test]
    fn what_was_taken_since_the_last_renewal_is_not_sent_for_before_the_next() {
        let mut holdings = holdings(&[1]);
        let taken = Taken {
            held: held(2),
            free_in: ms(0),
        };
        holdings.took(&[taken], ms(100));
        assert_eq!(sent_for(&holdings, ms(100)), [1].into());
        renew(&mut holdings);
        assert_eq!(sent_for(&holdings, ms(100)), [1, 2].into());
    }

    #[test]
    fn what_is_to_be_given_back_is_renewed_but_not_sent_for() {
        let mut holdings = holdings(&[1, 2]);
        assert_eq!(holdings.aim(&[1, 3].into(), ms(50)), [3]);
        assert_eq!(holdings.held(), [held(1), held(2)]);
        let leases = holdings.leases(ms(50));
        assert_eq!(leases.epochs, [(1, 7)].into());
        assert_eq!(leases.leaving, [(2, 7)].into());
    }

    #[test]
    fn a_shard_rests_for_what_is_left_of_the_window_since_its_last_post() {
        let mut holdings = holdings(&[1]);
        holdings.aim(&[].into(), ms(0));
        let quiet = |silent_for| Quiet {
            held: held(1),
            silent_for,
        };
        let rest = |silent_for| holdings.returned(quiet(silent_for)).map(|it| it.rest);
        assert_eq!(rest(Some(ms(300))), Some(ms(800)));
        assert_eq!(rest(Some(ms(5_000))), Some(ms(0)));
        assert_eq!(rest(None), Some(ms(0)));
    }

    #[test]
    fn a_shard_that_is_wanted_again_is_not_given_back() {
        let mut holdings = holdings(&[1]);
        holdings.aim(&[].into(), ms(0));
        assert!(holdings.aim(&[1].into(), ms(10)).is_empty());
        let quiet = Quiet {
            held: held(1),
            silent_for: None,
        };
        assert_eq!(holdings.returned(quiet), None);
        assert_eq!(sent_for(&holdings, ms(10)), [1].into());
    }

    #[test]
    fn a_shard_that_does_not_become_quiet_is_given_back_all_the_same() {
        let mut holdings = holdings(&[1]);
        holdings.aim(&[].into(), ms(0));
        holdings.aim(&[].into(), ms(400));
        assert_eq!(holdings.overdue(ms(1_000), ms(999)), []);
        let overdue = holdings.overdue(ms(1_000), ms(1_000));
        assert_eq!(
            overdue,
            [Returned {
                held: held(1),
                rest: REST
            }]
        );
        holdings.gave_back(&overdue);
        assert_eq!(holdings.held(), []);
    }

    #[test]
    fn what_was_not_renewed_is_lost() {
        let mut holdings = holdings(&[1, 2]);
        let other_epoch = Held { shard: 2, epoch: 8 };
        assert_eq!(holdings.renewed(&[held(1), other_epoch], ms(9)), 1);
        assert_eq!(holdings.held(), [held(1)]);
        assert_eq!(holdings.leases(ms(0)).deadline, ms(9));
    }
}
