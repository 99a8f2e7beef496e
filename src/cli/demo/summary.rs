//! What happened, for people: what became of each kind, what was refused and why, how fast it was, and what the provider
//! made go wrong.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
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

    /// For people.
    pub(super) fn text(&self, style: Style) -> String {
        let mut text = String::new();
        self.write_kinds(&mut text, style);
        self.write_refusals(&mut text, style);
        self.write_mishaps(&mut text, style);
        self.write_speeds(&mut text, style);
        self.write_verdict(&mut text, style);
        text.truncate(text.trim_end().len());
        text
    }

    fn write_kinds(&self, text: &mut String, style: Style) {
        let heading = format!("What became of {}", counted(self.jobs, "job"));
        let columns: Vec<&str> = columns()
            .filter(|column| self.kinds.iter().any(|row| row.has(column)))
            .collect();
        let headings: Vec<&str> = ["kind", "jobs"]
            .into_iter()
            .chain(columns.iter().copied())
            .collect();
        let total = self.kinds.iter().fold(KindRow::new("all"), KindRow::plus);
        let rows = self.kinds.iter().chain([&total]).map(|row| {
            let numbers = columns
                .iter()
                .map(|column| row.states.get(column).copied().unwrap_or(0));
            let numbers = [row.jobs].into_iter().chain(numbers).map(count);
            [row.kind.clone()].into_iter().chain(numbers).collect()
        });
        section(text, style, &heading, &table(&headings, rows).to_string());
    }

    fn write_refusals(&self, text: &mut String, style: Style) {
        let rows = self.refusals.iter().map(|refusal| {
            vec![
                count(refusal.jobs),
                refusal.reason.clone(),
                refusal.by.to_owned(),
                refusal.meaning.to_owned(),
            ]
        });
        let refusals = table(&["jobs", "reason", "by", "that is"], rows).to_string();
        section(text, style, "What was not delivered, and why", &refusals);
    }

    fn write_mishaps(&self, text: &mut String, style: Style) {
        section(
            text,
            style,
            "What went wrong, on purpose",
            &self.mishaps.join("\n"),
        );
    }

    fn write_speeds(&self, text: &mut String, style: Style) {
        let ms = |ms| duration(Duration::from_millis(ms));
        let rows = self.speeds.iter().map(|speed| {
            vec![
                speed.priority.clone(),
                count(speed.messages),
                ms(speed.p50_ms),
                ms(speed.p99_ms),
            ]
        });
        let mut speeds = table(
            &["priority", "messages", "half within", "99 % within"],
            rows,
        )
        .to_string();
        let _ = write!(
            speeds,
            "\n\nFrom enqueue to the provider's answer. Orders, deliveries and trips were enqueued all at\n\
             once and took their turn; codes came in meanwhile, a few at a time, and went first.\n\
             {:.0} messages a second, of {} that the numbers may send. In the fullest second of a\n\
             number {} arrived; {} may be sent, and the network may bunch them a little.",
            self.messages_per_second,
            self.most_messages_per_second,
            self.fullest_second_of_a_number,
            PER_SECOND
        );
        section(text, style, "How fast it was", &speeds);
    }

    fn write_verdict(&self, text: &mut String, style: Style) {
        let _ = writeln!(text);
        if self.is_well() {
            let jobs = counted(self.jobs, "job");
            let said = format!(
                "All {jobs} are as the samples say they must be, held against the provider's own book:"
            );
            let _ = writeln!(text, "{}", style.good(&said));
            let _ = writeln!(
                text,
                "  each that had to go was taken exactly once, no other left, and every receipt is in."
            );
            return;
        }
        let said = match self.off.len() {
            1 => "1 job is not as it should be:".to_owned(),
            many => format!("{} jobs are not as they should be:", count(many)),
        };
        let _ = writeln!(text, "{}", style.bad(&said));
        for off in self.off.iter().take(OFF_SHOWN) {
            let _ = writeln!(text, "  {off}");
        }
        if let Some(more) = self
            .off
            .len()
            .checked_sub(OFF_SHOWN)
            .filter(|more| *more > 0)
        {
            let _ = writeln!(text, "  … and {} more", count(more));
        }
    }
}

/// A heading, and under it some lines, moved in a little.
fn section(text: &mut String, style: Style, heading: &str, lines: &str) {
    let _ = writeln!(text, "\n{}\n", style.bold(heading));
    for line in lines.lines() {
        let _ = writeln!(text, "{}", format!("  {line}").trim_end());
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
mod tests {
    use super::*;

    fn summary(off: usize) -> Summary {
        let off = (1..=off).map(|n| Off {
            job: format!("job {n}"),
            what: "the provider accepted it 2 times".to_owned(),
        });
        Summary {
            jobs: 3_200,
            kinds: vec![KindRow {
                kind: "order".to_owned(),
                jobs: 3_200,
                states: BTreeMap::from([("read", 3_200)]),
            }],
            refusals: vec![],
            mishaps: vec![],
            speeds: vec![Speed {
                priority: "urgent".to_owned(),
                messages: 3_200,
                p50_ms: 90,
                p99_ms: 1_500,
            }],
            messages_per_second: 319.6,
            most_messages_per_second: 320,
            fullest_second_of_a_number: 80,
            took_ms: 10_000,
            off: off.collect(),
        }
    }

    #[test]
    fn the_first_twenty_jobs_that_are_off_are_named() {
        let text = summary(23).text(Style::default());
        assert!(
            text.contains("✗ 23 jobs are not as they should be:"),
            "{text}"
        );
        assert_eq!(text.matches("the provider accepted it 2 times").count(), 20);
        assert!(text.ends_with("… and 3 more"), "{text}");
        assert!(
            summary(1)
                .text(Style::default())
                .contains("✗ 1 job is not as it should be:")
        );
    }

    #[test]
    fn only_states_that_occurred_have_a_column_and_numbers_are_grouped() {
        let text = summary(0).text(Style::default());
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for line in [
            "KIND    JOBS   READ",
            "order  3,200  3,200",
            "all    3,200  3,200",
        ] {
            assert!(lines.contains(&line), "{line} in\n{text}");
        }
        assert!(text.contains("✓ All 3,200 jobs are as"), "{text}");
    }

    #[test]
    fn half_and_ninety_nine_of_a_hundred_are_told_by_quantiles() {
        let sorted: Vec<u64> = (0..200).collect();
        assert_eq!(
            (quantile(&sorted, 0.5), quantile(&sorted, 0.99)),
            (100, 198)
        );
        assert_eq!((quantile(&[7], 0.99), quantile(&[], 0.5)), (7, 0));
    }
}
