//! The judge looks at the times of posts alone. To know that it sees, the same schedules are played with wrong buckets.

use std::collections::BTreeMap;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const PAIR: Pair = (Lane(1), 1);
const OTHER: Pair = (Lane(2), 1);

fn at(seconds: u64) -> Moment {
    Moment::from(SECOND * seconds as u32)
}

fn pairs() -> Pairs {
    Pairs::new(Allowance::default(), 100_000)
}

/// Asks, promises and keeps at once.
fn post(pairs: &mut Pairs, pair: Pair, now: Moment) -> Result<(), Moment> {
    pairs.ask(pair, now)?;
    pairs.promise(pair, now);
    pairs.keep(pair, now)
}

/// As many posts as go now.
fn burst(pairs: &mut Pairs, pair: Pair, now: Moment) -> usize {
    (0..1_000)
        .take_while(|_| post(pairs, pair, now).is_ok())
        .count()
}

// --- One rule at a time ----------------------------------------------------------------------------------------------

#[test]
fn a_pair_has_a_burst_of_45_and_then_one_message_every_6_seconds() {
    let mut pairs = pairs();
    assert_eq!(burst(&mut pairs, PAIR, at(100)), 45);
    let next = at(106) + LAG;
    assert_eq!(pairs.ask(PAIR, at(100)), Err(next));
    assert_eq!(pairs.ask(PAIR, next - Duration::from_nanos(1)), Err(next));
    assert_eq!(burst(&mut pairs, PAIR, next), 1);
    assert_eq!(
        pairs.ask(PAIR, next),
        Err(next + SECOND * 6),
        "the first of the burst is waited for once, not again for each"
    );
    assert_eq!(burst(&mut pairs, PAIR, next + SECOND * 60), 10);
    assert_eq!(
        burst(&mut pairs, OTHER, next),
        45,
        "another number has its own"
    );
    assert_eq!(
        burst(&mut pairs, PAIR, at(10_000)),
        45,
        "after a rest it is full, and not more than full"
    );
}

#[test]
fn two_jobs_attempted_at_once_do_not_go_on_one_token() {
    let mut pairs = pairs();
    for _ in 0..44 {
        assert_eq!(post(&mut pairs, PAIR, at(0)), Ok(()));
    }
    assert_eq!(pairs.ask(PAIR, at(0)), Ok(()));
    pairs.promise(PAIR, at(0));
    let next = at(6) + LAG;
    assert_eq!(
        pairs.ask(PAIR, at(0)),
        Err(next),
        "the last one is promised"
    );
    assert_eq!(pairs.ask(PAIR, next), Ok(()));
    pairs.release(PAIR);
    assert_eq!(
        pairs.ask(PAIR, at(0) + LAG),
        Ok(()),
        "the promise was not needed"
    );
}

#[test]
fn no_more_is_promised_than_a_full_bucket_holds() {
    let mut pairs = pairs();
    let promised = (0..100).take_while(|_| {
        let free = pairs.ask(PAIR, at(0)).is_ok();
        if free {
            pairs.promise(PAIR, at(0));
        }
        free
    });
    assert_eq!(promised.count(), 45);
    assert_eq!(pairs.ask(PAIR, at(1_000)), Err(at(1_006)));
}

#[test]
fn a_refusal_stops_the_pair_for_powers_of_four_and_one_message_tries_again() {
    let mut pairs = pairs();
    let mut now = at(0);
    pairs.promise(PAIR, now);
    for wait in [1, 4, 16, 64, 256, 1_024, 1_024] {
        assert_eq!(pairs.keep(PAIR, now), Ok(()));
        let until = pairs.throttled(PAIR, now);
        assert_eq!(until, now + SECOND * wait);
        let on_the_wire_together = pairs.throttled(PAIR, until - SECOND / 2);
        assert_eq!(on_the_wire_together, until);
        // After the shortest waits its token is not back yet.
        let again = until.max(now + SECOND * if wait == 4 { 6 } else { 0 });
        assert_eq!(pairs.ask(PAIR, now), Err(again));
        assert_eq!(pairs.ask(PAIR, again), Ok(()));
        pairs.promise(PAIR, again);
        assert!(pairs.ask(PAIR, again).is_err(), "one tries, not all");
        now = again;
    }
    assert_eq!(
        burst(&mut pairs, OTHER, at(0)),
        45,
        "the other pair goes on"
    );
}

#[test]
fn an_accepted_message_and_a_long_rest_end_the_row_of_refusals() {
    let mut pairs = pairs();
    let until = pairs.throttled(PAIR, at(0));
    let until = pairs.throttled(PAIR, until);
    assert_eq!(until, at(1 + 4));
    assert_eq!(post(&mut pairs, PAIR, until), Ok(()));
    pairs.accepted(PAIR);
    assert_eq!(pairs.throttled(PAIR, at(20)), at(21));
    assert_eq!(pairs.throttled(PAIR, at(10_000)), at(10_001));
}

#[test]
fn a_promise_is_not_kept_while_the_provider_has_stopped_the_pair() {
    let mut pairs = pairs();
    pairs.promise(PAIR, at(0));
    pairs.promise(PAIR, at(0));
    pairs.promise(PAIR, at(0));
    assert_eq!(pairs.keep(PAIR, at(0)), Ok(()));
    let until = pairs.throttled(PAIR, at(1));
    assert_eq!(pairs.keep(PAIR, at(1)), Err(until));
    assert_eq!(pairs.keep(PAIR, until), Ok(()));
    assert!(pairs.ask(PAIR, until).is_err());
}

#[test]
fn a_take_over_is_no_burst() {
    let mut pairs = pairs();
    let start = Moment::from(Duration::ZERO);
    pairs.rebuild([(PAIR, 20)], start);
    assert_eq!(burst(&mut pairs, PAIR, start), 45 - 20);
    assert_eq!(burst(&mut pairs, OTHER, start), 45);
}

#[test]
fn a_take_over_after_a_whole_burst_waits_for_the_slowest_of_it_too() {
    let mut pairs = pairs();
    pairs.rebuild([(PAIR, 45)], at(0));
    assert_eq!(pairs.ask(PAIR, at(0)), Err(at(6) + LAG));
}

#[test]
fn a_take_over_forgets_nothing_that_memory_knows() {
    let mut pairs = pairs();
    assert_eq!(burst(&mut pairs, PAIR, at(0)), 45);
    pairs.rebuild([(PAIR, 1)], at(0));
    assert_eq!(burst(&mut pairs, PAIR, at(0)), 0);
}

#[test]
fn a_message_that_went_another_way_costs_a_token_and_no_promise() {
    let mut pairs = pairs();
    pairs.promise(PAIR, at(0));
    for _ in 0..30 {
        pairs.count(PAIR, at(0), at(0));
    }
    assert_eq!(burst(&mut pairs, PAIR, at(0)), 14);
    assert_eq!(
        pairs.keep(PAIR, at(0)),
        Ok(()),
        "what was promised is there"
    );
}

#[test]
fn a_changed_allowance_is_no_burst() {
    let mut pairs = pairs();
    assert_eq!(burst(&mut pairs, PAIR, at(0)), 45);
    let slower = Allowance {
        burst: 50,
        refill: SECOND * 60,
    };
    pairs.set_allowance(slower, at(16));
    assert_eq!(
        burst(&mut pairs, PAIR, at(16)),
        2 + 5,
        "two that came back, and the five more"
    );
    assert_eq!(pairs.ask(PAIR, at(12)), Err(at(36) + LAG));
}

#[test]
fn a_larger_allowance_does_not_end_a_stop() {
    let mut pairs = pairs();
    let until = pairs.throttled(PAIR, at(0));
    let larger = Allowance {
        burst: 100,
        refill: SECOND,
    };
    pairs.set_allowance(larger, at(0));
    assert_eq!(pairs.ask(PAIR, until - SECOND / 2), Err(until));
    assert_eq!(pairs.ask(PAIR, until), Ok(()));
}

#[test]
fn memory_is_bounded_and_what_misses_least_is_forgotten_first() {
    let mut pairs = Pairs::new(Allowance::default(), 2_000);
    assert_eq!(burst(&mut pairs, PAIR, at(0)), 45);
    let stopped = pairs.throttled(OTHER, at(0));
    for person in 2..10_000 {
        assert_eq!(post(&mut pairs, (Lane(1), person), at(0)), Ok(()));
        assert!(pairs.remembered() <= 2_000);
    }
    assert!(
        pairs.forgotten_early() >= 8_000,
        "and says so: {}",
        pairs.forgotten_early()
    );
    assert!(pairs.ask(PAIR, at(0)).is_err(), "it misses most");
    assert_eq!(pairs.ask(OTHER, at(0)), Err(stopped));
}

#[test]
fn what_no_longer_matters_is_forgotten_and_that_costs_nobody_a_token() {
    let mut pairs = Pairs::new(Allowance::default(), 2_000);
    pairs.promise(PAIR, at(0));
    for person in 0..100_000 {
        // Each bucket is full again after 6 s, in which a thousand others post.
        let now = Moment::from(Duration::from_millis(person * 6));
        assert_eq!(post(&mut pairs, (Lane(2), person as i64), now), Ok(()));
    }
    assert!(pairs.remembered() <= 2_000);
    assert_eq!(pairs.forgotten_early(), 0);
    assert_eq!(
        burst(&mut pairs, PAIR, at(601)),
        44,
        "what is promised is not forgotten"
    );
}

// --- Any schedule ----------------------------------------------------------------------------------------------------

/// The first window with more posts of a pair than the burst and what came back in it.
fn violation(posts: &[(Pair, Moment)]) -> Option<String> {
    let Allowance { burst, refill } = Allowance::default();
    [PAIR, OTHER].into_iter().find_map(|pair| {
        let times: Vec<Moment> = posts
            .iter()
            .filter(|(to, _)| *to == pair)
            .map(|(_, at)| *at)
            .collect();
        (0..times.len()).find_map(|first| {
            times
                .iter()
                .enumerate()
                .skip(first)
                .find_map(|(last, end)| {
                    let came_back = end.since(times[first]).as_nanos() / refill.as_nanos();
                    let most = u128::from(burst) + came_back;
                    let posted = (last - first + 1) as u128;
                    (posted > most)
                        .then(|| format!("{posted} posts where {most} may go, to {end:?}"))
                })
        })
    })
}

#[test]
fn the_judge_sees_one_too_many_in_any_window() {
    let mut posts: Vec<(Pair, Moment)> = (0..45).map(|_| (PAIR, at(10))).collect();
    posts.push((OTHER, at(10)));
    posts.push((PAIR, at(16)));
    assert_eq!(violation(&posts), None);
    posts.push((PAIR, at(21)));
    assert!(violation(&posts).is_some());
}

#[test]
fn the_first_of_a_burst_may_be_as_slow_as_the_lag_and_no_slower() {
    let arrivals = |way: Duration| {
        let mut pairs = pairs();
        let burst = burst(&mut pairs, PAIR, at(0));
        let mut arrivals = vec![(PAIR, at(0) + way); burst];
        let next = pairs.ask(PAIR, at(0)).expect_err("none is left");
        arrivals.push((PAIR, next));
        arrivals
    };
    assert_eq!(violation(&arrivals(LAG)), None);
    let slower = LAG + Duration::from_millis(1);
    assert!(violation(&arrivals(slower)).is_some(), "the judge sees it");
}

/// Found by the schedules below: no token was ever missing, and yet the last two went on tokens that the late arrival of the
/// first had not brought back at the provider.
#[test]
fn a_token_that_came_back_is_later_at_the_provider_also_when_the_bucket_was_never_empty() {
    let mut pairs = pairs();
    assert_eq!(
        (0..29)
            .filter(|_| post(&mut pairs, PAIR, at(0)).is_ok())
            .count(),
        29
    );
    let mut arrivals = vec![(PAIR, at(0) + LAG); 29];
    let now = at(12);
    let more = burst(&mut pairs, PAIR, now);
    arrivals.extend((0..more).map(|_| (PAIR, now)));
    assert_eq!(violation(&arrivals), None);
    assert_eq!(
        more,
        45 - 29 + 1,
        "the second token is back at the provider in 4 s"
    );
}

#[test]
fn a_bucket_that_is_full_here_is_not_yet_full_at_the_provider() {
    let mut pairs = pairs();
    let first = burst(&mut pairs, PAIR, at(0));
    let mut arrivals = vec![(PAIR, at(0) + LAG); first];
    let full_at = at(6 * 45);
    let second = burst(&mut pairs, PAIR, full_at);
    arrivals.extend((0..second).map(|_| (PAIR, full_at)));
    assert_eq!(violation(&arrivals), None);
    assert_eq!(second, 44);
    assert_eq!(burst(&mut pairs, PAIR, full_at + LAG), 1);
}

/// How wrong the buckets of a play are.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The token is taken with the attempt, and the post leaves later.
    TokenAtTheAttempt,
    /// Nothing is promised.
    WithoutPromises,
    /// What was posted before a restart is not counted.
    NotRebuilt,
}

#[derive(Debug, Clone)]
enum Step {
    /// So many jobs, each of which has its slot so many milliseconds later, and then takes up to so many to arrive.
    Jobs {
        other: bool,
        count: usize,
        pipeline: u64,
        way: u64,
    },
    Throttled {
        other: bool,
    },
    Restart,
}

fn schedule() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let gap = prop_oneof![4 => 0..500_u64, 4 => 0..20_000_u64, 1 => 0..400_000_u64];
    let step = prop_oneof![
        20 => (any::<bool>(), 1..30_usize, 0..30_000_u64, 0..=LAG.as_millis() as u64)
            .prop_map(|(other, count, pipeline, way)| Step::Jobs { other, count, pipeline, way }),
        1 => any::<bool>().prop_map(|other| Step::Throttled { other }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec((gap, step), 10..80)
}

struct Play {
    pairs: Pairs,
    fault: Fault,
    /// By slot, the pair, and how long the message is on its way.
    slots: BTreeMap<(Moment, usize), (Pair, Duration)>,
    posts: Vec<(Pair, Moment)>,
    /// The same as they arrive.
    arrivals: Vec<(Pair, Moment)>,
    /// Promises that found no token although nobody had stopped the pair.
    broken: usize,
    throttled: bool,
}

impl Play {
    fn attempt(&mut self, pair: Pair, now: Moment, slot: Moment, way: Duration) {
        if self.pairs.ask(pair, now).is_err() {
            return;
        }
        match self.fault {
            Fault::WithoutPromises => {}
            _ => self.pairs.promise(pair, now),
        }
        if self.fault == Fault::TokenAtTheAttempt {
            _ = self.pairs.keep(pair, now);
        }
        self.slots
            .insert((slot, self.slots.len() + self.posts.len()), (pair, way));
    }

    fn post_until(&mut self, now: Moment) {
        while let Some((slot, _)) = self.slots.keys().next().copied()
            && slot <= now
        {
            let Some((_, (pair, way))) = self.slots.pop_first() else {
                return;
            };
            let kept = match self.fault {
                Fault::TokenAtTheAttempt => Ok(()),
                _ => self.pairs.keep(pair, slot),
            };
            match kept {
                Ok(()) => {
                    self.posts.push((pair, slot));
                    self.arrivals.push((pair, slot + way));
                }
                Err(_) => self.broken += usize::from(!self.throttled),
            }
        }
    }

    fn step(&mut self, step: &Step, now: Moment) {
        let pair = |other| if other { OTHER } else { PAIR };
        match *step {
            Step::Jobs {
                other,
                count,
                pipeline,
                way,
            } => {
                let slot = now + Duration::from_millis(pipeline);
                for n in 0..count as u64 {
                    // Neither the same for all, nor in their order.
                    let way = Duration::from_millis(way * (10 + n * 7 % 10) / 19);
                    self.attempt(pair(other), now, slot, way);
                }
            }
            Step::Throttled { other } => {
                self.throttled = true;
                self.pairs.throttled(pair(other), now);
            }
            Step::Restart => {
                self.slots.clear();
                self.pairs = pairs();
                if self.fault != Fault::NotRebuilt {
                    let since = now - Allowance::default().memory();
                    let posts = self.posts.iter().filter(|(_, at)| *at >= since);
                    let mut counts = BTreeMap::new();
                    posts.for_each(|(pair, _)| *counts.entry(*pair).or_default() += 1);
                    self.pairs.rebuild(counts, now);
                }
            }
        }
    }
}

fn played(fault: Fault, steps: &[(u64, Step)]) -> Play {
    let mut play = Play {
        pairs: pairs(),
        fault,
        slots: BTreeMap::new(),
        posts: Vec::new(),
        arrivals: Vec::new(),
        broken: 0,
        throttled: false,
    };
    let mut now = at(1_000);
    for (gap, step) in steps {
        now = now + Duration::from_millis(*gap);
        play.post_until(now);
        play.step(step, now);
    }
    play.post_until(now + SECOND * 60);
    play.arrivals.sort_by_key(|(_, at)| *at);
    play
}

proptest! {
    #[test]
    fn no_window_holds_more_posts_to_a_pair_than_burst_and_refill(steps in schedule()) {
        let play = played(Fault::None, &steps);
        prop_assert_eq!(violation(&play.posts), None);
        prop_assert_eq!(violation(&play.arrivals), None, "as they arrive");
        prop_assert_eq!(play.broken, 0, "a promised token was not there");
    }
}

#[test]
fn the_same_schedules_find_fault_with_every_wrong_bucket_and_not_with_the_right_one() {
    let faults = |fault| {
        let mut runner = TestRunner::deterministic();
        let schedules = (0..30).map(|_| {
            schedule()
                .new_tree(&mut runner)
                .expect("a schedule")
                .current()
        });
        schedules
            .map(|steps| played(fault, &steps))
            .filter(|play| violation(&play.arrivals).is_some() || play.broken > 0)
            .count()
    };
    assert_eq!(faults(Fault::None), 0);
    for fault in [
        Fault::TokenAtTheAttempt,
        Fault::WithoutPromises,
        Fault::NotRebuilt,
    ] {
        assert!(faults(fault) > 0, "{fault:?}: nobody noticed");
    }
}

#[test]
fn an_allowance_that_is_told_again_and_again_holds_nobody_up() {
    let allowance = Allowance {
        burst: 1,
        refill: SECOND * 6,
    };
    let mut pairs = Pairs::new(allowance, 100);
    for message in 0..5 {
        let now = message * 20;
        assert_eq!(post(&mut pairs, PAIR, at(now)), Ok(()), "message {message}");
        for second in 1..20 {
            pairs.set_allowance(allowance, at(now + second));
        }
    }
}

#[test]
fn a_bucket_that_was_full_long_ago_is_so_under_another_allowance_too() {
    let mut pairs = pairs();
    assert_eq!(burst(&mut pairs, PAIR, at(0)), 45);
    let slower = Allowance {
        burst: 45,
        refill: SECOND * 12,
    };
    pairs.set_allowance(slower, at(1_000));
    assert_eq!(burst(&mut pairs, PAIR, at(1_000)), 45);
}
