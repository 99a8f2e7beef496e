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
//! What is stopped is also written down as a pause, for the other instances, for restarts and for people; [`Breakers::seen`]
//! holds memory against it. Times are by the wall clock, because pauses outlive the process.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound, Utc};

use super::{
    job::{Lane, TemplateName},
    outcome::{Consequence, Effect, Outcome},
};

/// When nothing certain came of the message that was let through, the next one goes: longer than any request takes.
const PROBE_AGAIN: Duration = Duration::from_secs(60);
/// A breaker that re-opens stays open for twice as long as before, but no longer than this by our own doubling.
const OPEN_MAX: Duration = Duration::from_secs(24 * 3600);
/// A template that we suspect, or that the provider does not know, rests until it was read again.
const TEMPLATE_REST: Duration = Duration::from_secs(15 * 60);
/// A template whose parameters were refused so often in a row is not what we believe it to be.
const SUSPICIONS_MAX: u32 = 5;
/// What we opened and still find nowhere among the pauses after this long was not written down, or ended since.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

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
            (Self::No { .. }, _) | (Self::Probe, Self::Yes) => self,
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

/// All that is stopped. Usually that is nothing, and then it costs nothing.
#[derive(Debug, Default)]
pub struct Breakers {
    /// None of them closed.
    breakers: HashMap<Target, Known>,
    /// How often in a row a template's parameters were refused.
    suspicions: HashMap<Target, u32>,
    /// Whether what stands written was read before.
    has_seen: bool,
}

#[derive(Debug, Default)]
struct Known {
    breaker: Breaker,
    /// When we opened it, while that does not stand among the pauses yet.
    to_be_written: Option<DateTime<Utc>>,
}

impl Known {
    /// Whether it may be that our word is on its way to the pauses still.
    fn is_being_written(&self, now: DateTime<Utc>) -> bool {
        self.to_be_written
            .is_some_and(|at| now < at + WRITTEN_WITHIN)
    }
}

/// A breaker that has just opened, or stays open for longer: to be written down as a pause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What.
    pub target: Target,
    /// Why, since when, until when.
    pub stop: Stop,
}

impl Breakers {
    /// Whether a message may go that would go by all of these.
    #[must_use]
    pub fn may(&self, targets: impl IntoIterator<Item = Target>, now: DateTime<Utc>) -> May<'_> {
        if self.breakers.is_empty() {
            return May::Yes;
        }
        targets
            .into_iter()
            .filter_map(|target| Some(self.breakers.get(&target)?.breaker.may(now)))
            .fold(May::Yes, May::and)
    }

    /// A message goes, or is chosen to: those of the targets whose time is over wait for what becomes of it.
    pub fn probed(&mut self, targets: impl IntoIterator<Item = Target>, now: DateTime<Utc>) {
        if self.breakers.is_empty() {
            return;
        }
        for target in targets {
            if let Some(known) = self.breakers.get_mut(&target) {
                known.breaker.probed(now);
            }
        }
    }

    /// Takes note of what the answer to a message says about what it went by; `reason` and `code` are the provider's
    /// words. Returns what is to be written down.
    pub fn answered(
        &mut self,
        path: Path<'_>,
        consequence: &Consequence,
        reason: &str,
        code: Option<i32>,
        now: DateTime<Utc>,
    ) -> Option<Opened> {
        if matches!(consequence.outcome, Outcome::Accepted | Outcome::Held) {
            self.taken(path);
        }
        let effect = consequence.effect?;
        let (scope, told) = opens(effect).or_else(|| self.suspect(effect, path))?;
        self.open(path.target(scope)?, reason, code, told, now)
    }

    /// Stops a target for as long as told, or until somebody ends it. Returns what is to be written down, if it is news.
    pub fn open(
        &mut self,
        target: Target,
        reason: &str,
        code: Option<i32>,
        told: Option<Duration>,
        now: DateTime<Utc>,
    ) -> Option<Opened> {
        let known = self.breakers.entry(target.clone()).or_default();
        if !known.breaker.open(reason, code, told, now) {
            return None;
        }
        known.to_be_written = Some(now);
        let stop = known.breaker.stop()?.clone();
        Some(Opened { target, stop })
    }

    /// Takes note of the pauses by the provider's word that stand written now, all of them.
    ///
    /// Some may be over and not cleared away yet. What was over before we began to read waits for its probe, as if we had
    /// been there; what we do not know of later was probed by us.
    ///
    /// What is missing there was ended by a person, by a webhook or by another instance, unless its time is over (then it
    /// waits for its probe) or we opened it just now. Returns whether anything was ended.
    pub fn seen(
        &mut self,
        written: impl IntoIterator<Item = (Target, Stop)>,
        now: DateTime<Utc>,
    ) -> bool {
        let mut before = std::mem::take(&mut self.breakers);
        let has_seen = std::mem::replace(&mut self.has_seen, true);
        for (target, stop) in written {
            if has_seen && stop.is_over(now) && !before.contains_key(&target) {
                continue;
            }
            let mut known = before.remove(&target).unwrap_or_default();
            let ours = known.breaker.stop().and_then(|stop| stop.until);
            let is_stale = known.is_being_written(now) && is_later(ours, stop.until);
            if !is_stale {
                known.breaker.read(stop);
                known.to_be_written = None;
            }
            self.breakers.insert(target, known);
        }
        let missing = before.len();
        before.retain(|_, known| {
            known.is_being_written(now)
                || known.breaker.stop().is_some_and(|stop| stop.is_over(now))
        });
        let has_ended = before.len() < missing;
        self.breakers.extend(before);
        has_ended
    }

    /// All that is not closed.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Breaker)> {
        self.breakers
            .iter()
            .map(|(target, known)| (target, &known.breaker))
    }

    /// The provider took a message that went by these.
    fn taken(&mut self, path: Path<'_>) {
        if !self.suspicions.is_empty()
            && let Some(template) = path.target(Scope::Template)
        {
            self.suspicions.remove(&template);
        }
        if self.breakers.is_empty() {
            return;
        }
        for target in path.targets() {
            if let Some(known) = self.breakers.get_mut(&target) {
                known.breaker.good();
                if known.breaker == Breaker::Closed {
                    self.breakers.remove(&target);
                }
            }
        }
    }

    /// Parameters that do not fit are the job's fault once, and the template's when it happens to every job.
    fn suspect(&mut self, effect: Effect, path: Path<'_>) -> Option<(Scope, Option<Duration>)> {
        if effect != Effect::SuspectTemplate {
            return None;
        }
        let template = path.target(Scope::Template)?;
        let times = self.suspicions.entry(template.clone()).or_default();
        *times += 1;
        if *times < SUSPICIONS_MAX {
            return None;
        }
        self.suspicions.remove(&template);
        Some((Scope::Template, Some(TEMPLATE_REST)))
    }
}

#[cfg(test)]
mod tests;
