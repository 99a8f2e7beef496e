//! From an answer to what is written about its job.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::outbox::Settlement;
use crate::{
    rules::{
        job::{FinalReason, JobId, State, WaitReason},
        outcome::{Answer, Consequence, Effect, Outcome},
        retry::{self, Next, Policy},
    },
    store::settle::{Accepted, Answered, Dead, Tags, Waiting},
};

/// A job that certainly was not posted goes again after this long.
const NOT_SENT_WAIT: Duration = Duration::from_secs(1);

/// Words of the provider are kept up to this length.
const DETAIL_MAX: usize = 500;

/// What a settlement needs to know of the attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The job.
    pub id: JobId,
    /// The attempt's number.
    pub number: i32,
    /// When it was committed.
    pub at: DateTime<Utc>,
    /// When its request was written, as far as that is known.
    pub left_at: DateTime<Utc>,
    /// Attempts that the provider's word spent before.
    pub spent: i32,
    /// Not sent after this.
    pub expires_at: DateTime<Utc>,
    /// How long its kind waits for the receipt of an unanswered request.
    pub resolve_after: Duration,
    /// What it is counted by.
    pub tags: Tags,
}

/// What is written about a job after `answer`, of which `consequence` follows. `chance` is from 0 to 1.
#[must_use]
pub fn settlement(
    attempt: &Attempt,
    answer: Answer,
    consequence: &Consequence,
    policy: &Policy,
    now: DateTime<Utc>,
    chance: f64,
) -> Settlement {
    let held = consequence.outcome == Outcome::Held;
    match (consequence.outcome, answer) {
        (Outcome::Accepted | Outcome::Held, Answer::Accepted { provider_id, .. }) => {
            Settlement::Accepted(Accepted {
                id: attempt.id,
                attempt: attempt.number,
                day: attempt.at.date_naive(),
                provider_id,
                held,
                at: now,
                tags: attempt.tags.clone(),
            })
        }
        (Outcome::Retry { spends }, answer) => {
            let spent_after = attempt.spent + i32::from(spends);
            match retry::next(
                policy,
                consequence,
                spent_after,
                attempt.expires_at,
                now,
                chance,
            ) {
                Next::At(due_at) => waiting(
                    attempt,
                    answered(consequence, answer),
                    now,
                    wait_reason(consequence),
                    due_at,
                    spends,
                ),
                Next::GiveUp(reason) => {
                    dead(attempt, answered(consequence, answer), now, reason, spends)
                }
            }
        }
        (Outcome::Refused(reason), answer) => {
            dead(attempt, answered(consequence, answer), now, reason, true)
        }
        (Outcome::NotSent, answer) => {
            let due_at = now + NOT_SENT_WAIT;
            waiting(
                attempt,
                answered(consequence, answer),
                now,
                WaitReason::BackingOff,
                due_at,
                false,
            )
        }
        (_, answer) => unknown(attempt, answered(consequence, answer), now),
    }
}

/// What is written about a job whose attempt was committed but that must not be posted any more: it goes back as it was.
#[must_use]
pub fn not_sent(
    attempt: &Attempt,
    why: &str,
    now: DateTime<Utc>,
    due_at: DateTime<Utc>,
) -> Settlement {
    let answered = Answered {
        outcome: Outcome::NotSent.as_str(),
        code: None,
        http_status: None,
        detail: Some(why.to_owned()),
    };
    waiting(
        attempt,
        answered,
        now,
        WaitReason::BackingOff,
        due_at,
        false,
    )
}

/// What is written about a job that the gate stopped.
#[must_use]
pub fn rejected(
    id: JobId,
    tries: i32,
    reason: FinalReason,
    detail: String,
    now: DateTime<Utc>,
) -> Settlement {
    Settlement::Dead(Dead {
        id,
        attempt: tries + 1,
        answered: None,
        detail: Some(detail),
        at: now,
        state: if reason == FinalReason::ValidityEnded {
            State::Expired
        } else {
            State::Rejected
        },
        reason,
        spends: false,
    })
}

fn wait_reason(consequence: &Consequence) -> WaitReason {
    match consequence.effect {
        Some(Effect::SlowNumber | Effect::SlowAccount { .. }) => WaitReason::RateLimited,
        Some(Effect::StopPair) => WaitReason::PairRateLimited,
        Some(Effect::PauseNumber { .. } | Effect::PauseAccount { .. }) => WaitReason::Paused,
        Some(Effect::PauseTemplate { .. } | Effect::StopTemplate) => WaitReason::TemplatePaused,
        _ => WaitReason::BackingOff,
    }
}

/// Its receipt may come since it left.
fn unknown(attempt: &Attempt, answered: Answered, now: DateTime<Utc>) -> Settlement {
    let since = attempt.left_at.max(attempt.at);
    Settlement::Waiting(Waiting {
        id: attempt.id,
        attempt: attempt.number,
        answered,
        at: now,
        reason: WaitReason::AwaitingReceipt,
        due_at: since + attempt.resolve_after,
        since: Some(since),
        spends: false,
    })
}

fn waiting(
    attempt: &Attempt,
    answered: Answered,
    now: DateTime<Utc>,
    reason: WaitReason,
    due_at: DateTime<Utc>,
    spends: bool,
) -> Settlement {
    Settlement::Waiting(Waiting {
        id: attempt.id,
        attempt: attempt.number,
        answered,
        at: now,
        reason,
        due_at,
        since: None,
        spends,
    })
}

fn dead(
    attempt: &Attempt,
    answered: Answered,
    now: DateTime<Utc>,
    reason: FinalReason,
    spends: bool,
) -> Settlement {
    // Whoever runs out of time after a refusal was certainly never taken: that is expired, not failed.
    let state = if reason == FinalReason::ValidityEnded {
        State::Expired
    } else {
        State::Failed
    };
    Settlement::Dead(Dead {
        id: attempt.id,
        attempt: attempt.number,
        answered: Some(answered),
        detail: None,
        at: now,
        state,
        reason,
        spends,
    })
}

fn answered(consequence: &Consequence, answer: Answer) -> Answered {
    let outcome = consequence.outcome.as_str();
    let (code, http_status, detail) = match answer {
        Answer::Error(error) => {
            let words = if error.detail.is_empty() {
                error.title
            } else {
                format!("{}: {}", error.title, error.detail)
            };
            (
                Some(error.code),
                Some(i32::from(error.http_status)),
                Some(words),
            )
        }
        Answer::NoAnswer {
            http_status,
            detail,
        } => (None, http_status.map(i32::from), Some(detail)),
        Answer::NotSent { detail } => (None, None, Some(detail)),
        Answer::Accepted { .. } => (None, Some(200), None),
    };
    Answered {
        outcome,
        code,
        http_status,
        detail: detail.map(shortened),
    }
}

fn shortened(words: String) -> String {
    match words.char_indices().nth(DETAIL_MAX) {
        Some((end, _)) => format!("{}…", &words[..end]),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::outcome::{ProviderError, judge};

    const POLICY: Policy = Policy {
        first: Duration::from_secs(1),
        max: Duration::from_secs(60),
        max_attempts: 3,
    };

    fn attempt(spent: i32) -> Attempt {
        Attempt {
            id: JobId(7),
            number: 4,
            at: DateTime::UNIX_EPOCH,
            left_at: DateTime::UNIX_EPOCH + Duration::from_secs(1),
            spent,
            expires_at: DateTime::UNIX_EPOCH + Duration::from_secs(3_600),
            resolve_after: Duration::from_secs(120),
            tags: Tags {
                kind: "order".into(),
                priority: crate::rules::job::Priority::Normal,
                enqueued_at: DateTime::UNIX_EPOCH,
            },
        }
    }

    fn after(answer: Answer, spent: i32) -> Settlement {
        settlement(
            &attempt(spent),
            answer.clone(),
            &judge(&answer),
            &POLICY,
            DateTime::UNIX_EPOCH + Duration::from_secs(11),
            0.5,
        )
    }

    fn error(code: i32, http_status: u16) -> Answer {
        Answer::Error(ProviderError {
            code,
            subcode: None,
            http_status,
            title: "title".into(),
            detail: String::new(),
            is_transient: false,
            retry_after: None,
        })
    }

    #[test]
    fn an_accepted_job_becomes_a_message_of_its_attempts_day() {
        let answer = Answer::Accepted {
            provider_id: "wamid.x".into(),
            held: false,
            wa_id: None,
            user_id: None,
        };
        let Settlement::Accepted(accepted) = after(answer, 0) else {
            panic!("not accepted")
        };
        assert_eq!(
            (accepted.attempt, accepted.day),
            (4, DateTime::UNIX_EPOCH.date_naive())
        );
    }

    #[test]
    fn an_unanswered_request_waits_for_its_receipt_since_it_left_and_spends_nothing() {
        let answer = Answer::NoAnswer {
            http_status: None,
            detail: "timed out".into(),
        };
        let Settlement::Waiting(waiting) = after(answer, 0) else {
            panic!("not waiting")
        };
        assert_eq!(
            (waiting.reason, waiting.spends),
            (WaitReason::AwaitingReceipt, false)
        );
        let left = DateTime::UNIX_EPOCH + Duration::from_secs(1);
        assert_eq!(waiting.since, Some(left));
        assert_eq!(waiting.due_at, left + Duration::from_secs(120));
    }

    #[test]
    fn a_throttle_spends_nothing_and_a_server_error_spends_one() {
        for (code, status, spends) in [(130_429, 400, false), (131_000, 500, true)] {
            let Settlement::Waiting(waiting) = after(error(code, status), 0) else {
                panic!("{code} not waiting")
            };
            assert_eq!(waiting.spends, spends, "{code}");
        }
    }

    #[test]
    fn the_last_attempt_that_the_providers_word_spends_ends_the_job() {
        let Settlement::Dead(dead) = after(error(131_000, 500), 2) else {
            panic!("not dead")
        };
        assert_eq!(
            (dead.state, dead.reason),
            (State::Failed, FinalReason::RetriesExhausted)
        );
    }

    #[test]
    fn a_refusal_ends_the_job_with_the_providers_reason() {
        let Settlement::Dead(dead) = after(error(131_026, 400), 0) else {
            panic!("not dead")
        };
        assert_eq!(
            (dead.state, dead.reason),
            (State::Failed, FinalReason::NotReachableOnWhatsapp)
        );
        assert_eq!(
            dead.answered.map(|a| (a.outcome, a.code)),
            Some(("refused", Some(131_026)))
        );
    }
}
