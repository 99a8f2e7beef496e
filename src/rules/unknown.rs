//! What becomes of a job that was posted and got no answer.
//!
//! Its receipt would tell, so it is given time: but only time in which a receipt could have come. The clock of an unknown
//! stands still while no webhook process could take receipts, and after such an outage for as long again, because the
//! provider comes back the later the longer it knocked in vain. When the clock has run for `resolve_after`, the missing
//! receipt still says nothing unless others arrive: only a receipt for a later message of the same account shows that they
//! do. Without any, five times as long must do.
//!
//! Then the job is sent again where its kind wants that, once, or given up: it becomes a dead letter that says `unknown`, and
//! that a late receipt still settles. It is never said to have expired, because it may have been taken.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Deserialize;

/// A webhook process proves each second that it could take receipts. After so long without any proof, it could not: three
/// may be late without harm, and a restart that takes longer is an outage.
pub const OUTAGE_AFTER: Duration = Duration::from_secs(3);

/// An outage delays receipts for as long as it lasted, but the provider tries again at least so often.
const AFTERMATH_MAX: TimeDelta = TimeDelta::hours(1);

/// So many times `resolve_after` stand for the receipt of a later message.
pub const WITHOUT_EVIDENCE: i32 = 5;

/// What to do with a job whose outcome stayed unknown although receipts were flowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// Send it once more.
    Resend,
    /// Leave it; a late receipt still settles it.
    Stop,
}

impl OnUnknown {
    /// As stored in `kind.on_unknown`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resend => "resend",
            Self::Stop => "stop",
        }
    }
}

/// A job that was posted and got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown {
    /// When it was posted, or when its shard was taken over from whoever posted it, whichever is later.
    pub since: DateTime<Utc>,
    /// How long its kind waits for the receipt.
    pub resolve_after: Duration,
    /// What its kind wants then.
    pub on_unknown: OnUnknown,
    /// How often it was sent again before.
    pub resends: i32,
    /// Not sent after this.
    pub expires_at: DateTime<Utc>,
}

/// A time in which no webhook process could take receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    /// The last proof before it.
    pub began: DateTime<Utc>,
    /// The first proof after it.
    pub ended: DateTime<Utc>,
}

/// What is known of the way on which receipts come.
#[derive(Debug, Clone, Copy)]
pub struct Receiving<'a> {
    /// When a webhook process last proved that it could take receipts; `None` when none ever did.
    pub seen_at: Option<DateTime<Utc>>,
    /// When none could, oldest first and not overlapping; those of the last hour before the unknown was posted too.
    pub outages: &'a [Outage],
    /// The evidence that receipts flow: the latest time at which a message of the same account was sent that a receipt has
    /// come for.
    pub taken_at: Option<DateTime<Utc>>,
}

/// What to do with an unknown now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// Nothing before this time; evidence may make it sooner, an outage later.
    Wait(DateTime<Utc>),
    /// Send it again.
    Resend,
    /// Send it never again. It stays unknown, as a dead letter.
    GiveUp,
}

impl Receiving<'_> {
    /// Whether receipts can come in now.
    #[must_use]
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.seen_at
            .is_some_and(|seen| now.signed_duration_since(seen) <= delta(OUTAGE_AFTER))
    }

    /// Up to when it is known: the time since the last proof may turn out to be the beginning of an outage.
    fn proven(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.seen_at.unwrap_or(DateTime::<Utc>::MIN_UTC).min(now)
    }
}

/// What to do with an unknown now, when it may be sent again `max_resends` times.
#[must_use]
pub fn resolve(
    unknown: &Unknown,
    receiving: &Receiving<'_>,
    max_resends: i32,
    now: DateTime<Utc>,
) -> Resolution {
    let clock = Clock::read(unknown.since, receiving.outages, receiving.proven(now));
    let left = patience(unknown, receiving) - clock.ran;
    if left > TimeDelta::zero() || !receiving.is_open(now) {
        return Resolution::Wait(in_future(now, left.max(TimeDelta::zero()), clock.owed));
    }
    let may_resend = unknown.on_unknown == OnUnknown::Resend && unknown.resends < max_resends;
    if may_resend && now < unknown.expires_at {
        Resolution::Resend
    } else {
        Resolution::GiveUp
    }
}

/// How long the clock must have run.
fn patience(unknown: &Unknown, receiving: &Receiving<'_>) -> TimeDelta {
    let wait = delta(unknown.resolve_after);
    match receiving.taken_at {
        Some(taken) if taken > unknown.since => wait,
        _ => wait.checked_mul(WITHOUT_EVIDENCE).unwrap_or(TimeDelta::MAX),
    }
}

/// The clock of an unknown.
struct Clock {
    /// How long it ran.
    ran: TimeDelta,
    /// How long it still stands because of outages that are over.
    owed: TimeDelta,
}

impl Clock {
    fn read(since: DateTime<Utc>, outages: &[Outage], until: DateTime<Utc>) -> Self {
        let mut clock = Self {
            ran: TimeDelta::zero(),
            owed: TimeDelta::zero(),
        };
        let mut free_from = DateTime::<Utc>::MIN_UTC;
        for outage in outages.iter().filter(|outage| outage.began < until) {
            clock.run(since, free_from, outage.began);
            let ended = outage.ended.min(until);
            clock.owed += (ended - outage.began).clamp(TimeDelta::zero(), AFTERMATH_MAX);
            free_from = free_from.max(ended);
        }
        clock.run(since, free_from, until);
        clock
    }

    /// Receipts could come in from one time to another. What is owed is paid first.
    fn run(&mut self, since: DateTime<Utc>, from: DateTime<Utc>, to: DateTime<Utc>) {
        let free = (to - from).max(TimeDelta::zero());
        let paid = self.owed.min(free);
        self.owed -= paid;
        let counts_from = since.max(from + paid);
        self.ran += (to - counts_from).max(TimeDelta::zero());
    }
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

fn in_future(now: DateTime<Utc>, left: TimeDelta, owed: TimeDelta) -> DateTime<Utc> {
    left.checked_add(&owed)
        .and_then(|wait| now.checked_add_signed(wait))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests;
