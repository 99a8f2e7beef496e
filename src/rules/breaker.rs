//! Breakers: what the provider's word stopped, since when, until when, and how it begins again.
//!
//! ```text
//!            the provider says no              its time is over, one message goes
//!   Closed ───────────────────────► Open ─────────────────────────────────► HalfOpen
//!     ▲ ▲                            │ ▲                                      │  │
//!     │ └── a person or a webhook ───┘ └── no: twice as long, to a day ───────┘  │
//!     └───────────────────────── taken: all may go again ────────────────────────┘
//! ```
//!
//! A breaker without an end waits for a person or a webhook. One with an end lets exactly one message through when that has
//! come; the others wait for what becomes of it. When nothing certain becomes of it (no answer, never sent, an error about
//! something else), another one goes after a while.
//!
//! A number is sent for by one worker, an account or a template by many: whose the one message is, they claim from the
//! database first.
//!
//! What is stopped is also written down as a pause, for the other workers and instances, for restarts and for people. It
//! stands there until its message was taken, or somebody ends it; [`Breakers::seen`] holds memory against it. Times are by
//! the wall clock, because pauses outlive the process.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound, Utc};

use super::{
    job::{Lane, TemplateName},
    outcome::Effect,
};

mod breakers;
pub use breakers::{Breakers, CLAIM_AGAIN, Changed, Claim, Due, Opened};

/// When nothing certain came of the message that was let through, the next one goes: longer than any request takes.
pub const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// A breaker that re-opens stays open for twice as long as before, but no longer than this by our own doubling.
const OPEN_MAX: Duration = Duration::from_secs(24 * 3600);
/// A template that we suspect, or that the provider does not know, rests until it was read again.
const TEMPLATE_REST: Duration = Duration::from_secs(15 * 60);

/// What sort of thing a breaker stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One number.
    Number,
    /// All numbers of an account.
    Account,
    /// One template of an account, in one language.
    Template,
}

/// What a breaker stops.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// One number.
    Number(Lane),
    /// All numbers of an account, by Meta's id.
    Account(Arc<str>),
    /// One template.
    Template {
        /// Meta's id of the account.
        account: Arc<str>,
        /// Its name and language.
        name: TemplateName,
    },
}

impl Target {
    /// Whether several workers send by it.
    fn is_shared(&self) -> bool {
        match self {
            Self::Number(_) => false,
            Self::Account(_) | Self::Template { .. } => true,
        }
    }
}

/// What a message goes out by: any of these may be stopped.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    /// Its number.
    pub lane: Lane,
    /// The number's account.
    pub account: &'a Arc<str>,
    /// Its template, if it has one.
    pub template: Option<&'a TemplateName>,
}

impl Path<'_> {
    /// The part of the path that a breaker of this scope stops; `None` for the template of a message without one.
    #[must_use]
    pub fn target(&self, scope: Scope) -> Option<Target> {
        let account = || Arc::clone(self.account);
        match scope {
            Scope::Number => Some(Target::Number(self.lane)),
            Scope::Account => Some(Target::Account(account())),
            Scope::Template => self.template.map(|name| Target::Template {
                account: account(),
                name: name.clone(),
            }),
        }
    }

    /// All parts of it.
    pub fn targets(&self) -> impl Iterator<Item = Target> {
        [Scope::Number, Scope::Account, Scope::Template]
            .into_iter()
            .filter_map(|scope| self.target(scope))
    }
}

/// Why something is stopped, since when and until when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// For people: the provider's words.
    pub reason: String,
    /// The provider's error code, where it gave one.
    pub code: Option<i32>,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When one message may try; `None` when a person or a webhook must end it.
    pub until: Option<DateTime<Utc>>,
}

impl Stop {
    fn is_over(&self, now: DateTime<Utc>) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    fn lasted(&self) -> Option<Duration> {
        let lasted = self.until? - self.since;
        Some(lasted.to_std().unwrap_or_default())
    }

    fn lasts_as_long_as(&self, told: Option<Duration>) -> bool {
        match (self.lasted(), told) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(lasted), Some(told)) => lasted >= told,
        }
    }

    /// How long the next one lasts when the probe finds that it is not over: `None`, until somebody ends it.
    fn lasts_next(&self, told: Option<Duration>) -> Option<Duration> {
        Some(told?.max(self.lasted()?.saturating_mul(2).min(OPEN_MAX)))
    }
}

/// The state of one number, account or template.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Breaker {
    /// Messages go.
    #[default]
    Closed,
    /// None goes, or one when its time is over.
    Open(Stop),
    /// Its time is over, and one message went to see whether it may close.
    HalfOpen {
        /// What stopped it.
        stop: Stop,
        /// When the message went.
        probe: DateTime<Utc>,
    },
}

/// Whether a message may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum May<'a> {
    /// Yes, and others.
    Yes,
    /// This one only, to see whether it is taken. Say so with [`Breakers::probed`] when it goes.
    Probe,
    /// Perhaps this one only: others may be about to try as well, so it has to be claimed with [`Breakers::claim`] first.
    Claim {
        /// Why it was stopped, for people.
        reason: &'a str,
    },
    /// No.
    No {
        /// When to ask again; `None` when a person or a webhook must end it.
        until: Option<DateTime<Utc>>,
        /// Why, for people.
        reason: &'a str,
    },
}

impl May<'_> {
    /// Both must agree; of two that say no, the one that ends later.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No { until: one, .. }, Self::No { until: two, .. }) => {
                if is_later(two, one) {
                    other
                } else {
                    self
                }
            }
            (Self::No { .. }, _) => self,
            (_, Self::No { .. }) => other,
            (Self::Claim { .. }, _) | (Self::Probe, Self::Yes) => self,
            _ => other,
        }
    }
}

impl Breaker {
    /// Why it is not closed; `None` when it is.
    #[must_use]
    pub fn stop(&self) -> Option<&Stop> {
        match self {
            Self::Closed => None,
            Self::Open(stop) | Self::HalfOpen { stop, .. } => Some(stop),
        }
    }

    /// Whether a message may go.
    #[must_use]
    pub fn may(&self, now: DateTime<Utc>) -> May<'_> {
        let (reason, until) = match self {
            Self::Closed => return May::Yes,
            Self::Open(stop) => (&stop.reason, stop.until),
            Self::HalfOpen { stop, probe } => (&stop.reason, Some(*probe + PROBE_AGAIN)),
        };
        if until.is_some_and(|until| until <= now) {
            return May::Probe;
        }
        May::No { until, reason }
    }

    /// A message goes; if it is the one that may try, the others wait for what becomes of it.
    pub fn probed(&mut self, now: DateTime<Utc>) {
        if self.may(now) == May::Probe
            && let Some(stop) = self.stop()
        {
            let stop = stop.clone();
            *self = Self::HalfOpen { stop, probe: now };
        }
    }

    /// The provider took a message; that closes a breaker whose time is over. One that is open hears of messages that
    /// were on the wire before it opened.
    pub fn good(&mut self) {
        if matches!(self, Self::HalfOpen { .. }) {
            *self = Self::Closed;
        }
    }

    /// The provider says no, for as long as told, or until somebody ends it. Returns whether that is news: every message
    /// that was on the wire hears the same.
    pub fn open(
        &mut self,
        reason: &str,
        code: Option<i32>,
        told: Option<Duration>,
        now: DateTime<Utc>,
    ) -> bool {
        let (since, lasts) = match self {
            Self::Open(stop) if !stop.is_over(now) => {
                if stop.lasts_as_long_as(told) {
                    return false;
                }
                (stop.since, told)
            }
            Self::HalfOpen { stop, .. } => (now, stop.lasts_next(told)),
            Self::Closed | Self::Open(_) => (now, told),
        };
        *self = Self::Open(Stop {
            reason: reason.to_owned(),
            code,
            since,
            // As Postgres keeps it: what is read back must not seem to end before what we wrote.
            until: lasts.map(|lasts| (now + lasts).trunc_subsecs(6)),
        });
        true
    }

    /// What stands written of it: by another worker or instance, by a webhook, or by us.
    fn read(&mut self, written: Stop) {
        if let Self::HalfOpen { stop, .. } = self
            && !is_later(written.until, stop.until)
        {
            // What is over, and being tried.
            return;
        }
        *self = Self::Open(written);
    }
}

/// Whether an end comes after another; no end at all comes last.
fn is_later(one: Option<DateTime<Utc>>, other: Option<DateTime<Utc>>) -> bool {
    match (one, other) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(one), Some(other)) => one > other,
    }
}

/// What an effect stops and for how long, from the provider's first word on; `None` when it stops nothing that has a
/// breaker, or not at the first time. Without a duration it lasts until a person or a webhook ends it.
#[must_use]
pub fn opens(effect: Effect) -> Option<(Scope, Option<Duration>)> {
    match effect {
        Effect::PauseNumber { for_ } => Some((Scope::Number, for_)),
        Effect::PauseAccount { for_ } => Some((Scope::Account, for_)),
        Effect::SlowAccount { for_ } => Some((Scope::Account, Some(for_))),
        Effect::PauseTemplate { for_ } => Some((Scope::Template, for_)),
        Effect::StopTemplate => Some((Scope::Template, Some(TEMPLATE_REST))),
        // See `Breakers::answered` for the fifth one, and `tempo` and `pair` for what has a state of another kind.
        Effect::SuspectTemplate
        | Effect::SlowNumber
        | Effect::StopPair
        | Effect::OptOutMarketing
        | Effect::CloseWindow
        | Effect::SuppressRecipient => None,
    }
}

#[cfg(test)]
mod tests;
