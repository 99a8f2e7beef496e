//! When a job that was not taken is tried again.
//!
//! Failures that spend an attempt back off exponentially, with jitter, so that what failed together does not come back
//! together. Throttles and pauses name their own wait, or leave it to whatever was slowed: a job that spent nothing must
//! not be punished for a busy number. Nothing is ever planned past the job's validity.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{
    job::FinalReason,
    outcome::{Consequence, Outcome},
};

/// How patient we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The wait after the first failure; doubled after each further one.
    pub first: Duration,
    /// No backoff is longer.
    pub max: Duration,
    /// After as many spent attempts a job is given up.
    pub max_attempts: i32,
}

/// What comes next for a job that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Try again then.
    At(DateTime<Utc>),
    /// It ends here.
    GiveUp(FinalReason),
}

/// When to try again after `consequence`, which is a retry. `spent_after` counts the attempts spent, this one included where
/// it spends; `jitter` is a chance in 0..1.
#[must_use]
pub fn next(
    policy: &Policy,
    consequence: &Consequence,
    spent_after: i32,
    expires_at: DateTime<Utc>,
    now: DateTime<Utc>,
    jitter: f64,
) -> Next {
    let spends = consequence.outcome == Outcome::Retry { spends: true };
    if let Some(reason) = exhausted(policy, consequence, spent_after).filter(|_| spends) {
        return Next::GiveUp(reason);
    }
    let own = consequence.wait_at_least;
    let wait = if spends {
        backoff(policy, spent_after, jitter).max(own.unwrap_or_default())
    } else {
        own.unwrap_or(policy.first)
            .saturating_add(policy.first.mul_f64(unit(jitter)))
    };
    match chrono::Duration::from_std(wait)
        .ok()
        .and_then(|wait| now.checked_add_signed(wait))
    {
        Some(at) if at < expires_at => Next::At(at),
        _ => Next::GiveUp(FinalReason::ValidityEnded),
    }
}

/// How long a pair (number and recipient) rests after its `refusals`-th refusal in a row, from 1: 4^n seconds, n from 0,
/// as the provider advises. Beyond a quarter of an hour the pair's own allowance is full again anyway.
#[must_use]
pub fn pair_wait(refusals: u32) -> Duration {
    Duration::from_secs(4_u64.pow(refusals.saturating_sub(1).min(5)))
}

/// Half of the exponential wait is sure, half is chance: no wait is shorter than the longest one before it.
fn backoff(policy: &Policy, spent: i32, jitter: f64) -> Duration {
    let doublings = u32::try_from(spent.saturating_sub(1)).unwrap_or(0).min(31);
    let full = policy.first.saturating_mul(1 << doublings).min(policy.max);
    full.mul_f64(0.5 + 0.5 * unit(jitter))
}

fn exhausted(policy: &Policy, consequence: &Consequence, spent_after: i32) -> Option<FinalReason> {
    match consequence.few {
        Some(few) if spent_after >= few.attempts => Some(few.then),
        _ => (spent_after >= policy.max_attempts).then_some(FinalReason::RetriesExhausted),
    }
}

/// A jitter that is not a number, or outside 0..1, must not move a retry out of its bounds.
fn unit(jitter: f64) -> f64 {
    if jitter.is_nan() {
        0.5
    } else {
        jitter.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;
    use crate::rules::outcome::{Answer, ProviderError, TABLE, judge};

    const POLICY: Policy = Policy {
        first: Duration::from_secs(2),
        max: Duration::from_secs(600),
        max_attempts: 8,
    };

    fn now() -> DateTime<Utc> {
        Utc.with_ymd_and_hms(2026, 11, 21, 12, 0, 0).unwrap()
    }

    fn in_secs(secs: i64) -> DateTime<Utc> {
        now() + chrono::Duration::seconds(secs)
    }

    fn after_code(code: i32) -> Consequence {
        judge(&Answer::Error(ProviderError {
            code,
            subcode: None,
            http_status: 500,
            title: String::new(),
            detail: String::new(),
            is_transient: false,
            retry_after: None,
        }))
    }

    fn free(wait_at_least: Option<Duration>) -> Consequence {
        Consequence {
            wait_at_least,
            ..after_code(130_429)
        }
    }

    #[test]
    fn failures_back_off_exponentially_up_to_the_maximum() {
        let waits: Vec<_> = [1, 2, 3, 9, 10, 100]
            .map(|spent| backoff(&POLICY, spent, 1.0).as_secs())
            .into_iter()
            .collect();
        assert_eq!(waits, [2, 4, 8, 512, 600, 600]);
    }

    #[test]
    fn a_job_ends_when_its_attempts_are_spent() {
        let last = next(&POLICY, &after_code(131_000), 8, in_secs(9999), now(), 0.0);
        assert_eq!(last, Next::GiveUp(FinalReason::RetriesExhausted));
        assert!(matches!(
            next(&POLICY, &after_code(131_000), 7, in_secs(9999), now(), 0.0),
            Next::At(_)
        ));
    }

    #[test]
    fn media_that_cannot_be_fetched_gets_three_attempts() {
        assert!(matches!(
            next(&POLICY, &after_code(131_053), 2, in_secs(9999), now(), 0.0),
            Next::At(_)
        ));
        let third = next(&POLICY, &after_code(131_053), 3, in_secs(9999), now(), 0.0);
        assert_eq!(third, Next::GiveUp(FinalReason::MediaFailed));
    }

    #[test]
    fn a_retry_that_would_come_too_late_ends_the_job_now() {
        let consequence = after_code(134_101); // ten minutes
        assert_eq!(
            next(&POLICY, &consequence, 1, in_secs(600), now(), 0.0),
            Next::GiveUp(FinalReason::ValidityEnded)
        );
        assert_eq!(
            next(&POLICY, &consequence, 1, in_secs(601), now(), 0.0),
            Next::At(in_secs(600))
        );
    }

    #[test]
    fn exhaustion_is_the_truer_reason_when_both_hold() {
        let both = next(&POLICY, &after_code(131_000), 8, in_secs(0), now(), 0.0);
        assert_eq!(both, Next::GiveUp(FinalReason::RetriesExhausted));
    }

    #[test]
    fn a_pair_rests_by_powers_of_four() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6, 99].map(|n| pair_wait(n).as_secs()),
            [1, 1, 4, 16, 64, 256, 1024, 1024]
        );
    }

    proptest! {
        #[test]
        fn no_retry_comes_before_its_wait_or_after_the_validity(
            row in 0..TABLE.len(), spent in 0..20_i32, jitter in -1.0..2.0_f64, validity in 0..100_000_i64,
        ) {
            let consequence = after_code(TABLE[row].first);
            prop_assume!(matches!(consequence.outcome, Outcome::Retry { .. }));
            if let Next::At(at) = next(&POLICY, &consequence, spent, in_secs(validity), now(), jitter) {
                let wait = (at - now()).to_std().unwrap();
                prop_assert!(wait >= consequence.wait_at_least.unwrap_or_default());
                prop_assert!(wait > Duration::ZERO);
                prop_assert!(at < in_secs(validity));
            }
        }

        #[test]
        fn each_backoff_is_at_least_as_long_as_any_before_it(spent in 1..60_i32, a in 0.0..1.0_f64, b in 0.0..1.0_f64) {
            let (earlier, later) = (backoff(&POLICY, spent, a), backoff(&POLICY, spent + 1, b));
            // At the maximum both draw from the same range.
            prop_assert!(later >= earlier || later >= POLICY.max / 2);
            prop_assert!(later <= POLICY.max);
        }

        #[test]
        fn a_throttle_never_exhausts_a_job(wait in proptest::option::of(0..10_000_u64), spent in 0..1000_i32, jitter in 0.0..1.0_f64) {
            let throttle = free(wait.map(Duration::from_secs));
            let at = next(&POLICY, &throttle, spent, in_secs(20_000), now(), jitter);
            prop_assert!(matches!(at, Next::At(_)), "{at:?}");
            let late = next(&POLICY, &throttle, spent, now(), now(), jitter);
            prop_assert_eq!(late, Next::GiveUp(FinalReason::ValidityEnded));
        }
    }
}
