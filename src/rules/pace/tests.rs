use proptest::{
    prelude::*,
    test_runner::{TestError, TestRunner},
};

use super::*;

const ALLOWANCE: Duration = Duration::from_millis(20);
const TICK: Duration = Duration::from_millis(1);

fn per_second(rate: f64) -> Rate {
    Rate::new(rate).expect("a rate")
}

fn pacer(rate: f64) -> Pacer {
    Pacer::new(per_second(rate), ALLOWANCE, &Hand::default())
}

/// A post that is written as soon as it may.
fn post(pacer: &mut Pacer, now: Duration) -> Result<(), Duration> {
    pacer.take(now)?;
    pacer.left(now);
    Ok(())
}

/// Posts as fast as the pacer lets us for `seconds`, asking again when it says, and returns the times.
fn run(pacer: &mut Pacer, from: Duration, seconds: u64) -> Vec<Duration> {
    let end = from + Duration::from_secs(seconds);
    let (mut now, mut posts) = (from, Vec::new());
    while now < end {
        match post(pacer, now) {
            Ok(()) => posts.push(now),
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

/// Posts on timers of a millisecond's grain that are up to 2 ms late, as the shell's are.
fn run_on_coarse_timers(pacer: &mut Pacer, from: Duration, seconds: u64) -> usize {
    let end = from + Duration::from_secs(seconds);
    let (mut now, mut posts) = (from, 0);
    for turn in 0.. {
        if now >= end {
            break;
        }
        match post(pacer, now) {
            Ok(()) => posts += 1,
            // Any sequence that is not in step with the rates would do.
            Err(again) => {
                let late = [0, 2, 1, 2, 0, 1, 1][turn % 7];
                let millis = again.as_nanos().div_ceil(TICK.as_nanos()) as u64 + late;
                now = Duration::from_millis(millis);
            }
        }
    }
    posts
}

#[test]
fn on_timers_of_a_millisecond_that_are_late_97_percent_of_the_limit_can_be_used() {
    for rate in [0.5, 2.5, 10.0, 20.0, 80.0, 1_000.0] {
        let seconds = if rate < 20.0 { 600 } else { 60 };
        let posts = run_on_coarse_timers(&mut pacer(rate), Duration::from_secs(5), seconds);
        assert!(
            posts as f64 >= 0.97 * seconds as f64 * rate,
            "{posts} posts in {seconds} s at {rate}/s"
        );
    }
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
fn a_fractional_rate_is_not_rounded_up_over_time() {
    for rate in [0.5, 1.01, 2.5, 10.5, 79.3] {
        let posts = run(&mut pacer(rate), Duration::from_secs(5), 600).len() as f64;
        assert!(
            posts <= 600.0 * rate + rate.ceil(),
            "{posts} posts in 600 s at {rate}/s"
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
    pacer.set_rate(per_second(10.0));
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
fn a_window_that_grows_longer_counts_posts_that_the_shorter_one_had_let_go() {
    let mut pacer = pacer(10.0);
    let posts = run(&mut pacer, Duration::from_secs(5), 3);
    let eleventh_last = posts[posts.len() - 11];
    // 11 posts in 1.048 s instead of 10 in one.
    let rate = per_second(10.5);
    pacer.set_rate(rate);
    let next = run(&mut pacer, posts[posts.len() - 1] + TICK, 1)[0];
    assert!(
        next >= eleventh_last + rate.window() + ALLOWANCE,
        "12 in a window of 11"
    );
}

#[test]
fn a_rate_that_is_raised_from_one_message_in_two_seconds_is_used_at_once() {
    let mut pacer = pacer(0.5);
    let posts = run(&mut pacer, Duration::from_secs(5), 3);
    let now = posts[posts.len() - 1] + Duration::from_secs(1);
    pacer.set_rate(per_second(80.0));
    let after = run(&mut pacer, now, 1);
    assert_eq!(after[0], now);
    assert_eq!(after.len(), 80);
}

#[test]
fn a_rate_that_changes_at_every_look_does_not_undo_the_spacing() {
    let mut pacer = pacer(1_000.0);
    let from = Duration::from_secs(5);
    let posts = (0..100)
        .flat_map(|tick| {
            let now = from + TICK * tick;
            pacer.set_rate(per_second(if tick % 2 == 0 { 999.0 } else { 1_000.0 }));
            std::iter::from_fn(|| post(&mut pacer, now).ok()).collect::<Vec<()>>()
        })
        .count();
    assert!(
        posts <= 206,
        "{posts} posts in 100 ms, spaced at 2,000/s with 6 at once"
    );
}

#[test]
fn the_slowest_rate_has_a_window_of_a_day() {
    for tiny in [f64::MIN_POSITIVE, 1e-30, 1.0 / 86_400.0] {
        assert_eq!(
            per_second(tiny).window().as_secs(),
            86_400,
            "{tiny} a second"
        );
        assert_eq!(
            run(&mut pacer(tiny), Duration::from_secs(5), 3_600).len(),
            1
        );
    }
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
    now += Duration::from_millis(600);
    assert_eq!(pacer.take(now), Ok(()));
    now += Duration::from_secs(30);
    let both_may_leave = pacer.take(now);
    assert_eq!(both_may_leave, Err(Duration::MAX));
    pacer.left(now);
    let one_left_the_other_may = pacer.take(now);
    assert_eq!(
        one_left_the_other_may,
        Err(now + Duration::from_secs(1) + ALLOWANCE)
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
        let limit = per_second(rate);
        prop_assert!(most_in_any(limit.window() + ALLOWANCE, &posts) <= limit.capacity());
    }
}

/// What the proof asks of whatever paces.
trait Paces {
    /// Whether an attempt may be committed now.
    fn permit(&mut self, now: Duration) -> bool;
    /// Whether a request whose attempt is committed may be written now.
    fn write(&mut self, now: Duration) -> bool;
    /// Changes the rate.
    fn change(&mut self, rate: Rate);
}

/// Ours: an attempt may be committed ahead of its slot, and the slot is taken when the request is written.
impl Paces for Pacer {
    fn permit(&mut self, _: Duration) -> bool {
        true
    }
    fn write(&mut self, now: Duration) -> bool {
        post(self, now).is_ok()
    }
    fn change(&mut self, rate: Rate) {
        self.set_rate(rate);
    }
}

/// What happens to a number that has always something to send.
#[derive(Debug, Clone)]
struct Story {
    /// Rates, each with the milliseconds for which it holds.
    rates: Vec<(Rate, u64)>,
    /// Milliseconds until the database stalls, and for how many.
    stalls: Vec<(u64, u64)>,
}

const RATES: [f64; 12] = [
    0.3, 0.5, 1.0, 1.01, 1.9, 2.5, 10.0, 10.5, 20.0, 79.3, 80.0, 1_000.0,
];
/// A commit when nothing stalls.
const COMMIT: Duration = Duration::from_millis(5);
/// Attempts that may be under way at once.
const AHEAD: usize = 100;

fn stories(changes: usize) -> impl Strategy<Value = Story> {
    let rate = prop::sample::select(RATES.as_slice()).prop_map(per_second);
    // Short ones, too: a change must find every phase of the window.
    let lasts = prop_oneof![1u64..60, 200u64..2_500];
    (
        prop::collection::vec((rate, lasts), 1..=changes),
        prop::collection::vec(
            (
                0u64..1_500,
                prop_oneof![Just(150u64), Just(400), 1u64..1_200],
            ),
            0..6,
        ),
    )
        .prop_map(|(mut rates, stalls)| {
            if let [(_, lasts)] = &mut rates[..] {
                *lasts = 4_000;
            }
            Story { rates, stalls }
        })
}

/// The time of each post, with the rate that was in force then.
fn play(pacer: &mut impl Paces, story: &Story) -> Vec<(Duration, Rate)> {
    let mut now = Duration::from_secs(1);
    let mut stalls = story.stalls.iter();
    let mut stall = (now, now);
    let mut committed = VecDeque::new();
    let mut posts = Vec::new();
    for (rate, lasts) in &story.rates {
        pacer.change(*rate);
        for _ in 0..*lasts {
            now += TICK;
            if now > stall.1
                && let Some((after, length)) = stalls.next()
            {
                stall.0 = now + Duration::from_millis(*after);
                stall.1 = stall.0 + Duration::from_millis(*length);
            }
            let stalled = (stall.0..stall.1).contains(&now);
            while committed.len() < AHEAD && pacer.permit(now) {
                committed.push_back(if stalled { stall.1 } else { now + COMMIT });
            }
            while committed.front().is_some_and(|at| *at <= now) && pacer.write(now) {
                committed.pop_front();
                posts.push((now, *rate));
            }
        }
    }
    posts
}

/// Whether a window that ends with a post holds more than the rate in force at that post allows. `spare` is how much
/// longer than the rate's own window it must be.
fn is_overfull(posts: &[(Duration, Rate)], spare: Duration) -> bool {
    posts.iter().enumerate().any(|(last, (at, rate))| {
        last.checked_sub(rate.capacity())
            .is_some_and(|before| *at < posts[before].0 + rate.window() + spare)
    })
}

/// Whether any sliding second, counted from each post on, holds more than N of the rate in force at its last post.
fn is_any_second_overfull(posts: &[(Duration, Rate)]) -> bool {
    posts.iter().enumerate().any(|(first, (start, _))| {
        let end = *start + Duration::from_secs(1);
        let second = &posts[first..posts.partition_point(|(at, _)| *at < end)];
        let (_, rate) = second[second.len() - 1];
        second.len() > rate.capacity()
    })
}

/// The proof: plays stories and looks at nothing but the times of the posts.
fn prove<P: Paces>(
    make: fn(Rate) -> P,
    changes: usize,
    spare: Duration,
) -> Result<(), TestError<Story>> {
    TestRunner::deterministic().run(&stories(changes), |story| {
        let posts = play(&mut make(story.rates[0].0), &story);
        prop_assert!(!is_overfull(&posts, spare));
        prop_assert!(!is_any_second_overfull(&posts));
        Ok(())
    })
}

fn ours(rate: Rate) -> Pacer {
    Pacer::new(rate, ALLOWANCE, &Hand::default())
}

#[test]
fn no_window_ever_holds_more_than_the_rate_whatever_stalls() {
    prove(ours, 1, ALLOWANCE).expect("the rate is kept");
}

#[test]
fn no_window_ever_holds_more_than_the_rate_at_its_last_post_however_the_rate_changes() {
    prove(ours, 12, ALLOWANCE).expect("the rate is kept");
}

/// Wrong: what piled up while idle, ten messages, leaves at once and on top of the rate.
struct TokenBucket {
    rate: Rate,
    tokens: f64,
    filled: Duration,
}

impl Paces for TokenBucket {
    fn permit(&mut self, _: Duration) -> bool {
        true
    }
    fn write(&mut self, now: Duration) -> bool {
        let earned = (now - self.filled).as_secs_f64() * self.rate.per_second();
        self.filled = now;
        self.tokens = (self.tokens + earned).min(10.0);
        let may = self.tokens >= 1.0;
        self.tokens -= f64::from(u8::from(may));
        may
    }
    fn change(&mut self, rate: Rate) {
        self.rate = rate;
    }
}

#[test]
fn the_proof_catches_a_token_bucket_with_a_burst_of_ten() {
    let bucket = |rate| TokenBucket {
        rate,
        tokens: 10.0,
        filled: Duration::ZERO,
    };
    prove(bucket, 1, Duration::ZERO).expect_err("a bucket of ten lets N + 10 through");
}

/// Wrong: counts by the second on the clock, so that the end of one and the start of the next may both be full.
struct FixedWindow {
    rate: Rate,
    window: u128,
    count: usize,
}

impl Paces for FixedWindow {
    fn permit(&mut self, _: Duration) -> bool {
        true
    }
    fn write(&mut self, now: Duration) -> bool {
        let window = now.as_nanos() / self.rate.window().as_nanos();
        if window != self.window {
            (self.window, self.count) = (window, 0);
        }
        self.count += 1;
        self.count <= self.rate.capacity()
    }
    fn change(&mut self, rate: Rate) {
        self.rate = rate;
    }
}

#[test]
fn the_proof_catches_a_window_that_does_not_slide() {
    let fixed = |rate| FixedWindow {
        rate,
        window: 0,
        count: 0,
    };
    prove(fixed, 1, Duration::ZERO).expect_err("two windows meet in one second");
}

/// Wrong: takes the slot when the attempt is permitted; what a stall gathers then leaves together.
struct TakenBeforeTheCommit(Pacer);

impl Paces for TakenBeforeTheCommit {
    fn permit(&mut self, now: Duration) -> bool {
        post(&mut self.0, now).is_ok()
    }
    fn write(&mut self, _: Duration) -> bool {
        true
    }
    fn change(&mut self, rate: Rate) {
        self.0.set_rate(rate);
    }
}

#[test]
fn the_proof_catches_a_time_that_is_taken_before_the_commit() {
    prove(|rate| TakenBeforeTheCommit(ours(rate)), 1, Duration::ZERO)
        .expect_err("a stall puts two windows' posts into one");
}

/// Wrong: begins anew at each change.
struct Forgetful(Pacer);

impl Paces for Forgetful {
    fn permit(&mut self, _: Duration) -> bool {
        true
    }
    fn write(&mut self, now: Duration) -> bool {
        post(&mut self.0, now).is_ok()
    }
    fn change(&mut self, rate: Rate) {
        if rate != self.0.rate() {
            self.0 = ours(rate);
        }
    }
}

#[test]
fn the_proof_catches_a_pacer_that_forgets_its_posts_when_the_rate_changes() {
    prove(|rate| Forgetful(ours(rate)), 12, Duration::ZERO)
        .expect_err("the posts of both rates share a window");
}
