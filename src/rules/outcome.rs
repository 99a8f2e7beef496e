//! What an answer of the provider means: for the job, for the lane or account it went out from, and for the template.
//!
//! The provider's error codes are data ([`TABLE`]), and [`judge`] only looks them up. Three ideas shape it:
//!
//! - A coded error is the provider's word that it did not take the message, whatever the HTTP status.
//! - Anything that may hide a message that was taken (silence, a reset, a 5xx without a code, a 200 without an id, a
//!   "duplicate request") is [`Outcome::Unknown`], and is never sent again on our own initiative here.
//! - Only an error that is about this very job spends one of its attempts. Throttles, pauses and bad credentials do not.

use std::time::Duration;

use super::job::FinalReason;

mod table;

pub use table::{Row, TABLE, row_of};

/// What came back for one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The provider took it.
    Accepted {
        /// The provider's message id (wamid). It embeds the phone number.
        provider_id: String,
        /// Taken, but held back for a quality check.
        held: bool,
        /// The phone the provider resolved the address to; may differ from what was sent.
        wa_id: Option<String>,
        /// The business-scoped id, when it was sent to one.
        user_id: Option<String>,
    },
    /// A coded JSON error.
    Error(ProviderError),
    /// The request may have reached the provider, but no usable answer came.
    NoAnswer {
        /// The status line, where one came.
        http_status: Option<u16>,
        /// What broke.
        detail: String,
    },
    /// The request certainly never left: no connection was made.
    NotSent {
        /// What broke.
        detail: String,
    },
}

/// The provider's coded error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    /// The code to branch on.
    pub code: i32,
    /// A finer code; only that of code 100 matters.
    pub subcode: Option<i32>,
    /// The HTTP status; not stable, used only for codes we do not know.
    pub http_status: u16,
    /// The provider's message.
    pub title: String,
    /// Its details, where it gave any.
    pub detail: String,
    /// The provider says that it may pass.
    pub is_transient: bool,
    /// When to come back, from `Retry-After` or the usage headers.
    pub retry_after: Option<Duration>,
}

/// What one attempt came to, for the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The provider took it.
    Accepted,
    /// The provider took it and holds it back.
    Held,
    /// Not taken; to be tried again.
    Retry {
        /// Whether it costs one of the job's attempts.
        spends: bool,
    },
    /// Not taken, and never will be.
    Refused(FinalReason),
    /// Perhaps taken.
    Unknown,
    /// Never left.
    NotSent,
}

impl Outcome {
    /// The word in `answer.outcome` and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Held => "held",
            Self::Retry { .. } => "retry",
            Self::Refused(_) => "refused",
            Self::Unknown => "unknown",
            Self::NotSent => "not_sent",
        }
    }
}

/// What an answer means beyond its job. A pause without `for_` lasts until a person or a webhook ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Halve the number's rate, then let it recover.
    SlowNumber,
    /// Stop this number towards this recipient, for [`pair_wait`](super::retry::pair_wait).
    StopPair,
    /// The account's (or app's) call limit is used up.
    SlowAccount {
        /// How long, from the usage headers where they say.
        for_: Duration,
    },
    /// The number cannot send.
    PauseNumber {
        /// How long, where known.
        for_: Option<Duration>,
    },
    /// The account cannot send.
    PauseAccount {
        /// How long, where known.
        for_: Option<Duration>,
    },
    /// The template cannot be sent for now.
    PauseTemplate {
        /// How long, where known.
        for_: Option<Duration>,
    },
    /// The template is gone or disabled; look at the provider's list again.
    StopTemplate,
    /// The job's parameters did not fit. Repeated, the template is not what we believe: pause it.
    SuspectTemplate,
    /// Record an opt-out from marketing.
    OptOutMarketing,
    /// The service window that we believed open is closed.
    CloseWindow,
    /// Count it; after several, the address is not worth trying.
    SuppressRecipient,
}

/// All that follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consequence {
    /// For the job.
    pub outcome: Outcome,
    /// For what it went out from.
    pub effect: Option<Effect>,
    /// A retry comes no sooner than this.
    pub wait_at_least: Option<Duration>,
    /// A retry that has a shorter limit than the policy's.
    pub few: Option<Few>,
}

impl Consequence {
    const fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            effect: None,
            wait_at_least: None,
            few: None,
        }
    }
}

/// "Retry a few times, then it is final": for errors that now and then pass, and mostly do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Few {
    /// As many spent attempts as it gets.
    pub attempts: i32,
    /// What it ends as.
    pub then: FinalReason,
}

/// "Invalid parameter" with this subcode means that the object in the path is missing or not ours: the number.
const OBJECT_MISSING: (i32, i32) = (100, 33);
/// "Parameter value is not valid"; about the recipient when its details speak of a phone number.
const VALUE_INVALID: i32 = 131_009;
/// An answer that we do not know and that is about credentials: pause briefly, then one probe.
const CREDENTIALS_PROBE: Duration = Duration::from_secs(5 * 60);
/// No header is believed beyond this; the limits it speaks of are of an hour or a day.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// What follows from an answer.
#[must_use]
pub fn judge(answer: &Answer) -> Consequence {
    match answer {
        Answer::Accepted { held: false, .. } => Consequence::of(Outcome::Accepted),
        Answer::Accepted { held: true, .. } => Consequence::of(Outcome::Held),
        Answer::NotSent { .. } => Consequence::of(Outcome::NotSent),
        Answer::NoAnswer { http_status, .. } => judge_status(*http_status),
        Answer::Error(error) => judge_error(error),
    }
}

/// The reason of a job whose message failed with this code after it was taken.
#[must_use]
pub fn failure_reason(code: i32) -> FinalReason {
    row_of(code).map_or(FinalReason::ProviderRefused, |row| row.reason)
}

fn judge_error(error: &ProviderError) -> Consequence {
    if (error.code, error.subcode) == (OBJECT_MISSING.0, Some(OBJECT_MISSING.1)) {
        return Consequence {
            effect: Some(Effect::PauseNumber { for_: None }),
            ..retry(false)
        };
    }
    let known = row_of(error.code).and_then(Row::consequence);
    let mut consequence =
        known.unwrap_or_else(|| judge_unlisted(error.http_status, error.is_transient));
    if error.code == VALUE_INVALID && error.detail.to_ascii_lowercase().contains("phone") {
        consequence.outcome = Outcome::Refused(FinalReason::RecipientInvalid);
    }
    heed(
        &mut consequence,
        error.retry_after.map(|wait| wait.min(LONGEST_WAIT)),
    );
    consequence
}

/// Takes the provider's own word for how long to stay away.
fn heed(consequence: &mut Consequence, told: Option<Duration>) {
    if !matches!(consequence.outcome, Outcome::Retry { .. }) {
        return;
    }
    if let (Some(Effect::SlowAccount { for_ }), Some(told)) = (&mut consequence.effect, told) {
        *for_ = told;
        consequence.wait_at_least = Some(told);
    }
    consequence.wait_at_least = consequence.wait_at_least.max(told);
}

/// An HTTP status without a coded error: a 4xx is a refusal by whoever stands before the provider, nothing else is sure.
fn judge_status(http_status: Option<u16>) -> Consequence {
    match http_status {
        // 408: the request was cut short somewhere, and we cannot tell where.
        Some(status @ 400..=499) if status != 408 => judge_unlisted(status, false),
        _ => Consequence::of(Outcome::Unknown),
    }
}

/// The rule for codes that the table does not have. It is ours, not the provider's.
fn judge_unlisted(http_status: u16, is_transient: bool) -> Consequence {
    let probe = Effect::PauseAccount {
        for_: Some(CREDENTIALS_PROBE),
    };
    match http_status {
        _ if is_transient => retry(true),
        500.. => retry(true),
        429 => Consequence {
            effect: Some(Effect::SlowNumber),
            ..retry(false)
        },
        401 | 403 => Consequence {
            effect: Some(probe),
            wait_at_least: Some(CREDENTIALS_PROBE),
            ..retry(false)
        },
        _ => Consequence {
            few: Some(Few {
                attempts: 2,
                then: FinalReason::ProviderRefused,
            }),
            ..retry(true)
        },
    }
}

const fn retry(spends: bool) -> Consequence {
    Consequence::of(Outcome::Retry { spends })
}

#[cfg(test)]
mod tests;
