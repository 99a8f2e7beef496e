//! What happened, for people: what became of each kind, what was refused and why, how fast it was, and what the provider
//! made go wrong.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use serde::Serialize;

use super::{
    check::{Job, Off},
    samples::Story,
    style::{Style, count, counted},
    world::{PAUSED_TEMPLATE, PER_SECOND, STOP},
};
use crate::{
    cli::output::{duration, table},
    rules::{
        address::mask,
        job::{FinalReason, JobId, State},
    },
    sandbox::Entry,
    store::jobs::JobStatus,
};

/// The column of jobs that enqueue refused.
const NOT_ENQUEUED: &str = "not enqueued";
/// The provider's code for more messages than a number may send.
const TOO_MANY: i32 = 130_429;
/// At most so many jobs that are off are named.
const OFF_SHOWN: usize = 20;

mod text;

/// What the demo knows when it is over.
pub(super) struct Facts<'a> {
    /// Every job that was tried.
    pub(super) jobs: &'a [Job],
    /// Where they are.
    pub(super) statuses: &'a HashMap<JobId, JobStatus>,
    /// What the provider saw, in the order of arrival.
    pub(super) entries: &'a [Entry],
    /// The most requests of any number within any second.
    pub(super) fullest_second: usize,
    /// How many numbers there are.
    pub(super) numbers: usize,
    /// From the first job to the last receipt.
    pub(super) took: Duration,
    /// Jobs that are not as they should be.
    pub(super) off: Vec<Off>,
}

/// What happened.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    jobs: usize,
    kinds: Vec<KindRow>,
    refusals: Vec<Refusal>,
    mishaps: Vec<String>,
    speeds: Vec<Speed>,
    messages_per_second: f64,
    most_messages_per_second: u32,
    fullest_second_of_a_number: usize,
    took_ms: u128,
    off: Vec<Off>,
}

/// One kind and how many of its jobs came to each state.
#[derive(Debug, Serialize)]
struct KindRow {
    kind: String,
    jobs: usize,
    states: BTreeMap<&'static str, usize>,
}

/// Jobs that were not delivered for one reason.
#[derive(Debug, Serialize)]
struct Refusal {
    reason: String,
    jobs: usize,
    by: &'static str,
    meaning: &'static str,
}

/// From enqueue to the provider's answer, for one priority.
#[derive(Debug, Serialize)]
struct Speed {
    priority: String,
    messages: usize,
    p50_ms: u64,
    p99_ms: u64,
}

impl Summary {
    /// Counts it all up.
    pub(super) fn new(facts: Facts<'_>) -> Self {
        Self {
            jobs: facts.jobs.len(),
            kinds: kinds(&facts),
            refusals: refusals(&facts),
            mishaps: mishaps(&facts),
            speeds: speeds(&facts),
            messages_per_second: rate(facts.entries),
            most_messages_per_second: PER_SECOND * facts.numbers as u32,
            fullest_second_of_a_number: facts.fullest_second,
            took_ms: facts.took.as_millis(),
            off: facts.off,
        }
    }

    /// Whether every job is as it should be.
    pub(super) fn is_well(&self) -> bool {
        self.off.is_empty()
    }
}

/// States in the order of a job's life.
fn columns() -> impl Iterator<Item = &'static str> {
    let states = [
        State::Read,
        State::Delivered,
        State::Sent,
        State::Accepted,
        State::Held,
        State::Queued,
        State::Waiting,
        State::Sending,
        State::Unknown,
        State::Undelivered,
        State::Failed,
        State::Rejected,
        State::Expired,
        State::Cancelled,
    ];
    states.into_iter().map(State::as_str).chain([NOT_ENQUEUED])
}

impl KindRow {
    fn new(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            jobs: 0,
            states: BTreeMap::new(),
        }
    }

    fn has(&self, column: &str) -> bool {
        self.states.contains_key(column)
    }

    fn count(&mut self, column: &'static str) {
        self.jobs += 1;
        *self.states.entry(column).or_default() += 1;
    }

    fn plus(mut self, other: &Self) -> Self {
        self.jobs += other.jobs;
        for (column, number) in &other.states {
            *self.states.entry(column).or_default() += number;
        }
        self
    }
}

fn kinds(facts: &Facts<'_>) -> Vec<KindRow> {
    let mut kinds: BTreeMap<&str, KindRow> = BTreeMap::new();
    for job in facts.jobs {
        let column = match &job.taken {
            Err(_) => NOT_ENQUEUED,
            Ok(id) => facts
                .status(*id)
                .map_or("lost", |status| column(&status.state)),
        };
        kinds
            .entry(&job.kind)
            .or_insert_with(|| KindRow::new(&job.kind))
            .count(column);
    }
    let mut kinds: Vec<_> = kinds.into_values().collect();
    kinds.sort_by_key(|row| std::cmp::Reverse(row.jobs));
    kinds
}

fn column(state: &str) -> &'static str {
    columns().find(|column| *column == state).unwrap_or("lost")
}

impl Facts<'_> {
    fn status(&self, id: JobId) -> Option<&JobStatus> {
        self.statuses.get(&id)
    }

    /// The jobs of a story, each with what the provider saw of it.
    fn story(&self, story: Story) -> Vec<(&Job, Vec<&Entry>)> {
        let told = self.jobs.iter().filter(|job| job.story == Some(story));
        told.map(|job| (job, self.posts(job))).collect()
    }

    fn posts(&self, job: &Job) -> Vec<&Entry> {
        let id = job.taken.as_ref().ok().map(|id| id.0);
        self.entries
            .iter()
            .filter(|entry| id.is_some() && entry.job() == id)
            .collect()
    }
}

fn refusals(facts: &Facts<'_>) -> Vec<Refusal> {
    let mut refusals: BTreeMap<(&'static str, String), usize> = BTreeMap::new();
    for job in facts.jobs {
        let key = match &job.taken {
            Err(code) => Some(("enqueue", code.clone())),
            Ok(id) => facts.status(*id).and_then(refusal),
        };
        if let Some(key) = key {
            *refusals.entry(key).or_default() += 1;
        }
    }
    let mut refusals: Vec<_> = refusals
        .into_iter()
        .map(|((by, reason), jobs)| Refusal {
            meaning: meaning(&reason),
            reason,
            jobs,
            by,
        })
        .collect();
    refusals.sort_by_key(|refusal| std::cmp::Reverse(refusal.jobs));
    refusals
}

/// By whom and why a job ended without being delivered.
fn refusal(status: &JobStatus) -> Option<(&'static str, String)> {
    let by = match status.state.parse() {
        Ok(State::Failed) => "provider",
        Ok(State::Expired) => "time",
        _ => "gate",
    };
    let reason = status.reason.clone().filter(|_| status.r#final)?;
    Some((by, reason))
}

/// What a reason means, in a few words.
fn meaning(reason: &str) -> &'static str {
    match reason {
        "PR001" => "the recipient is not written as + and country code",
        "PR003" => "there is no such priority",
        "PR005" => "it was to be sent before a time that has passed",
        "PR006" => "its parameters have the wrong shape",
        _ => reason.parse().map_or("", meaning_of),
    }
}

fn meaning_of(reason: FinalReason) -> &'static str {
    match reason {
        FinalReason::NoOptIn => "the person never agreed to be messaged",
        FinalReason::OptedOut => "the person asked not to be messaged any more",
        FinalReason::TemplateUnknown => "there is no template of that name",
        FinalReason::TemplateNotApproved => "the provider has not approved the template",
        FinalReason::TemplateDisabled => "the provider has disabled the template",
        FinalReason::CategoryNotAllowed => "a marketing template was to leave as an order",
        FinalReason::ParameterMismatch => "the parameters do not fit the template",
        FinalReason::ServiceWindowClosed => "free words, but the person has not written to us",
        FinalReason::NotReachableOnWhatsapp => "taken, but the person is not on WhatsApp",
        FinalReason::ValidityEnded => "its time ran out while the template was paused",
        _ => "",
    }
}

/// Each mishap and how it was dealt with; those that did not happen are left out.
fn mishaps(facts: &Facts<'_>) -> Vec<String> {
    let mishaps = [
        again(
            facts,
            Story::Error500,
            "answered 500 with an error code",
            "tried again, taken",
        ),
        again(
            facts,
            Story::Throttle,
            "answered “too many messages”",
            "its number slowed down, and it was taken",
        ),
        throttles(facts),
        once(
            facts,
            Story::Reset,
            "taken, but the connection broke before the answer",
        ),
        once(
            facts,
            Story::Edge503,
            "taken, but something on the way answered 503",
        ),
        once(
            facts,
            Story::NoId,
            "taken, but the answer had no message id",
        ),
        held(facts),
        stop(facts),
        unpaused(facts),
    ];
    mishaps.into_iter().flatten().collect()
}

/// Requests that were refused, and accepted later.
fn again(facts: &Facts<'_>, story: Story, what: &str, then: &str) -> Option<String> {
    let delays: Vec<String> = facts
        .story(story)
        .iter()
        .filter_map(|(_, posts)| Some((posts.first()?, posts.iter().find(|post| post.accepted)?)))
        .map(|(first, accepted)| duration(accepted.at().saturating_sub(first.at())))
        .collect();
    let requests = counted(delays.len(), "request");
    (!delays.is_empty())
        .then(|| format!("{requests} {what}: {then} after {}", delays.join(" and ")))
}

/// Those that nobody asked for. A busy machine delays requests, and then two seconds' worth arrive within one.
fn throttles(facts: &Facts<'_>) -> Option<String> {
    let on_purpose = facts.story(Story::Throttle).len();
    let throttled = facts
        .entries
        .iter()
        .filter(|entry| entry.code == Some(TOO_MANY))
        .count();
    let more = throttled.saturating_sub(on_purpose);
    (more > 0).then(|| {
        format!(
            "{} so by chance, because this machine is busy",
            counted(more, "more request")
        )
    })
}

/// Messages that were taken, although the answer did not say so.
fn once(facts: &Facts<'_>, story: Story, what: &str) -> Option<String> {
    let told = facts.story(story);
    let messages = counted(told.len(), "message");
    (!told.is_empty()).then(|| format!("{messages} {what}: not sent again, the receipt told"))
}

fn held(facts: &Facts<'_>) -> Option<String> {
    let told = facts.story(Story::Held);
    let messages = counted(told.len(), "message");
    (!told.is_empty())
        .then(|| format!("{messages} held back by the provider for a quality check, then released"))
}

fn stop(facts: &Facts<'_>) -> Option<String> {
    let (job, _) = facts.story(Story::AnswersStop).into_iter().next()?;
    let later = facts
        .jobs
        .iter()
        .filter(|other| other.recipient == job.recipient && other.story.is_none())
        .count();
    let who = mask(&job.recipient);
    Some(format!(
        "{who} wrote “{STOP}” half-way: {} to them were rejected",
        counted(later, "later job")
    ))
}

fn unpaused(facts: &Facts<'_>) -> Option<String> {
    let is_its =
        |entry: &&Entry| entry.accepted && entry.template.as_deref() == Some(PAUSED_TEMPLATE.0);
    let waited = facts.entries.iter().filter(is_its).count();
    let said = || {
        format!(
            "the provider had paused {}: {} waited and then went",
            PAUSED_TEMPLATE.0,
            counted(waited, "job")
        )
    };
    (waited > 0).then(said)
}

/// By priority, urgent first.
fn speeds(facts: &Facts<'_>) -> Vec<Speed> {
    let mut waits: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for status in facts.statuses.values() {
        if let Some(accepted_at) = status.accepted_at {
            let ms = (accepted_at - status.enqueued_at).num_milliseconds();
            waits
                .entry(&status.priority)
                .or_default()
                .push(ms.max(0).unsigned_abs());
        }
    }
    let speed = |priority: &str| {
        let mut waits = waits.remove(priority)?;
        waits.sort_unstable();
        Some(Speed {
            priority: priority.to_owned(),
            messages: waits.len(),
            p50_ms: quantile(&waits, 0.5),
            p99_ms: quantile(&waits, 0.99),
        })
    };
    ["urgent", "normal", "bulk"]
        .into_iter()
        .filter_map(speed)
        .collect()
}

/// Of ascending numbers; 0 of none.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted
        .get(place.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(0)
}

/// Messages a second while there was enough to do: between the first tenth and the last.
fn rate(entries: &[Entry]) -> f64 {
    let times: Vec<Duration> = entries
        .iter()
        .filter(|entry| entry.accepted)
        .map(Entry::at)
        .collect();
    let (from, to) = (times.len() / 10, times.len() * 9 / 10);
    match (times.get(from), times.get(to)) {
        (Some(first), Some(last)) if last > first => {
            (to - from) as f64 / (*last - *first).as_secs_f64()
        }
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests;
