//! All that is stopped, as one worker knows it: by what it heard, by what stands written, and by what it claimed.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};

use super::{
    super::outcome::{Consequence, Effect, Outcome},
    Breaker, May, PROBE_AGAIN, Path, Scope, Stop, TEMPLATE_REST, Target, is_later, opens,
};

/// A claim that was not answered is made again.
pub const CLAIM_AGAIN: Duration = Duration::from_secs(5);
/// A template whose parameters were refused so often in a row is not what we believe it to be.
const SUSPICIONS_MAX: u32 = 5;
/// What we opened, and find nowhere among the pauses after this long, was not written down, or ended since. What we closed and
/// still find there was not cleared away.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// Who may try a thing that several workers send by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Whoever asked, within [`PROBE_AGAIN`].
    Granted,
    /// Another one does.
    Taken,
    /// All may go: it was tried, or somebody ended it.
    Ended,
}

/// All that is stopped. Usually that is nothing, and then it costs nothing.
#[derive(Debug, Default)]
pub struct Breakers {
    /// Those that are closed go when that stands written.
    breakers: HashMap<Target, Known>,
    /// How often in a row a template's parameters were refused.
    suspicions: HashMap<Target, u32>,
    /// To be asked for.
    claims: Vec<Due>,
}

#[derive(Debug, Default)]
struct Known {
    breaker: Breaker,
    /// When we opened or closed it, while that does not stand among the pauses yet.
    to_be_written: Option<DateTime<Utc>>,
    claim: Claiming,
}

/// How far we are with claiming the message that may try.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Claiming {
    #[default]
    Not,
    /// Asked for at that time.
    Asked(DateTime<Utc>),
    /// Ours; it was asked for at that time.
    Granted(DateTime<Utc>),
}

impl Known {
    /// Whether it may be that our word is on its way to the pauses still.
    fn is_being_written(&self, now: DateTime<Utc>) -> bool {
        self.to_be_written
            .is_some_and(|at| now < at + WRITTEN_WITHIN)
    }

    fn may(&self, target: &Target, now: DateTime<Utc>) -> May<'_> {
        let may = self.breaker.may(now);
        let (May::Probe, Some(Stop { reason, .. })) = (may, self.breaker.stop()) else {
            return may;
        };
        match self.claim {
            _ if !target.is_shared() => may,
            Claiming::Granted(at) if now < at + PROBE_AGAIN => may,
            Claiming::Asked(at) if now < at + CLAIM_AGAIN => May::No {
                until: Some(at + CLAIM_AGAIN),
                reason,
            },
            _ => May::Claim { reason },
        }
    }

    /// Whether what stands written is from before our own word.
    fn makes_stale(&self, written: &Stop, now: DateTime<Utc>) -> bool {
        self.is_being_written(now)
            && match self.breaker.stop() {
                None => written.is_over(now),
                Some(ours) => is_later(ours.until, written.until),
            }
    }

    /// What stands written of it.
    fn read(&mut self, written: Stop) {
        if self.breaker.stop().map(|stop| stop.until) != Some(written.until) {
            self.claim = Claiming::Not;
        }
        self.breaker.read(written);
        self.to_be_written = None;
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

/// A pause whose time is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What is paused.
    pub target: Target,
    /// Until when, as far as is known here: one that was made longer since is another.
    pub until: DateTime<Utc>,
}

/// What an answer changed, to be written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// What opened, or stays open for longer.
    pub opened: Option<Opened>,
    /// What closed because the message that tried was taken.
    pub closed: Vec<Due>,
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
            .filter_map(|target| Some(self.breakers.get(&target)?.may(&target, now)))
            .fold(May::Yes, May::and)
    }

    /// A message may go if it is ours to try: what has to be claimed for it is put down for [`Breakers::take_claims`]. Of
    /// several, the first; the next when that is granted, so that no two workers wait for what the other has.
    pub fn claim(&mut self, targets: impl IntoIterator<Item = Target>, now: DateTime<Utc>) {
        for target in targets {
            let Some(known) = self.breakers.get_mut(&target) else {
                continue;
            };
            if matches!(known.may(&target, now), May::Claim { .. })
                && let Some(until) = known.breaker.stop().and_then(|stop| stop.until)
            {
                known.claim = Claiming::Asked(now);
                self.claims.push(Due { target, until });
                return;
            }
        }
    }

    /// What is to be claimed. One that is not answered by [`Breakers::claimed`] is put down again after [`CLAIM_AGAIN`].
    pub fn take_claims(&mut self) -> Vec<Due> {
        std::mem::take(&mut self.claims)
    }

    /// A claim was answered.
    pub fn claimed(&mut self, target: &Target, claim: Claim, now: DateTime<Utc>) {
        let Some(known) = self.breakers.get_mut(target) else {
            return;
        };
        // Otherwise something changed since, and the answer is about what was before.
        let (Claiming::Asked(at), Some(stop)) = (known.claim, known.breaker.stop()) else {
            return;
        };
        match claim {
            Claim::Granted => known.claim = Claiming::Granted(at),
            Claim::Taken => {
                let stop = stop.clone();
                known.claim = Claiming::Not;
                known.breaker = Breaker::HalfOpen { stop, probe: now };
            }
            Claim::Ended => _ = self.breakers.remove(target),
        }
    }

    /// A message goes, or is chosen to: those of the targets whose time is over wait for what becomes of it.
    pub fn probed(&mut self, targets: impl IntoIterator<Item = Target>, now: DateTime<Utc>) {
        if self.breakers.is_empty() {
            return;
        }
        for target in targets {
            if let Some(known) = self.breakers.get_mut(&target) {
                known.breaker.probed(now);
                known.claim = Claiming::Not;
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
    ) -> Changed {
        let closed = match consequence.outcome {
            Outcome::Accepted | Outcome::Held => self.taken(path, now),
            _ => Vec::new(),
        };
        let opened = consequence.effect.and_then(|effect| {
            let (scope, told) = opens(effect).or_else(|| self.suspect(effect, path))?;
            self.open(path.target(scope)?, reason, code, told, now)
        });
        Changed { opened, closed }
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
        known.claim = Claiming::Not;
        let stop = known.breaker.stop()?.clone();
        Some(Opened { target, stop })
    }

    /// Takes note of the pauses by the provider's word that stand written now, all of them. Those that are over wait for the
    /// message that tries.
    ///
    /// What is missing there was ended: by a person, by a webhook, or because another worker's message was taken; unless we
    /// opened it just now. Returns whether anything was ended.
    pub fn seen(
        &mut self,
        written: impl IntoIterator<Item = (Target, Stop)>,
        now: DateTime<Utc>,
    ) -> bool {
        let mut before = std::mem::take(&mut self.breakers);
        for (target, stop) in written {
            let mut known = before.remove(&target).unwrap_or_default();
            if !known.makes_stale(&stop, now) {
                known.read(stop);
            }
            self.breakers.insert(target, known);
        }
        before.retain(|_, known| known.breaker != Breaker::Closed);
        let missing = before.len();
        before.retain(|_, known| known.is_being_written(now));
        let has_ended = before.len() < missing;
        self.breakers.extend(before);
        has_ended
    }

    /// All that is not closed.
    pub fn iter(&self) -> impl Iterator<Item = (&Target, &Breaker)> {
        self.breakers
            .iter()
            .map(|(target, known)| (target, &known.breaker))
            .filter(|(_, breaker)| **breaker != Breaker::Closed)
    }

    /// The provider took a message that went by these. Returns what that closed.
    fn taken(&mut self, path: Path<'_>, now: DateTime<Utc>) -> Vec<Due> {
        if !self.suspicions.is_empty()
            && let Some(template) = path.target(Scope::Template)
        {
            self.suspicions.remove(&template);
        }
        let mut closed = Vec::new();
        if self.breakers.is_empty() {
            return closed;
        }
        for target in path.targets() {
            if let Some(known) = self.breakers.get_mut(&target)
                && let Some(until) = known.breaker.stop().and_then(|stop| stop.until)
            {
                known.breaker.good();
                if known.breaker == Breaker::Closed {
                    known.to_be_written = Some(now);
                    closed.push(Due { target, until });
                }
            }
        }
        closed
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
