//! What the workers count. The registry is the application's; these are handles on the metrics in it.

use std::{borrow::Cow, time::Duration};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry,
};

use super::{limits::PoolRoom, worker::Report};
use crate::{
    rules::{
        job::{FinalReason, Priority, State},
        outcome::{Answer, judge, row_of},
    },
    store::{
        settle::{Accepted, Ended},
        unknown::Resolved,
    },
};

/// Handles on the metrics of dispatch.
#[derive(Debug, Clone)]
pub struct Meters {
    /// `postrider_jobs_finished_total{kind,state,reason}`: jobs that left the queue.
    pub finished: IntCounterVec,
    /// `postrider_enqueue_to_accepted_seconds{priority}`.
    pub enqueue_to_accepted: HistogramVec,
    /// `postrider_provider_request_seconds`.
    pub request: Histogram,
    /// `postrider_provider_responses_total{code,outcome}`; code 0 stands for none.
    pub responses: IntCounterVec,
    /// `postrider_database_seconds{statement}`.
    pub database: HistogramVec,
    /// `postrider_unknown_resent_total`: jobs that went out again after an outcome that stayed unknown.
    pub resent: IntCounter,
    /// `postrider_jobs_moved_total`: jobs that went over to another number of their sender pool.
    pub moved: IntCounter,
    /// `postrider_messaging_limit_remaining{pool}`: new recipients for normal and bulk jobs.
    pub room: IntGaugeVec,
    /// `postrider_pacing_utilisation_ratio`: posts by what the rates allow, of numbers that have more to send.
    pub utilisation: Gauge,
}

/// Pools shown at most: where each number has its own limit, there may be thousands.
const POOLS_SHOWN: usize = 100;

impl Default for Meters {
    fn default() -> Self {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels).expect("valid names")
        };
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::new(name, help).buckets(buckets.to_vec())
        };
        let latency = [
            0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
        ];
        let waiting = [
            0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0, 3_600.0, 86_400.0,
        ];
        let quick = [
            0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0,
        ];
        Self {
            finished: counter(
                "postrider_jobs_finished_total",
                "Jobs that left the queue",
                &["kind", "state", "reason"],
            ),
            enqueue_to_accepted: HistogramVec::new(
                histogram(
                    "postrider_enqueue_to_accepted_seconds",
                    "From enqueue to the provider's acceptance",
                    &waiting,
                ),
                &["priority"],
            )
            .expect("valid names"),
            request: Histogram::with_opts(histogram(
                "postrider_provider_request_seconds",
                "From a request's writing to its answer, or to giving up",
                &latency,
            ))
            .expect("valid names"),
            responses: counter(
                "postrider_provider_responses_total",
                "Answers of the provider, by its error code (0: none) and what they came to",
                &["code", "outcome"],
            ),
            database: HistogramVec::new(
                histogram(
                    "postrider_database_seconds",
                    "How long statements took, waiting included",
                    &quick,
                ),
                &["statement"],
            )
            .expect("valid names"),
            resent: IntCounter::new(
                "postrider_unknown_resent_total",
                "Jobs that were sent again, because neither an answer nor a receipt came",
            )
            .expect("a valid name"),
            moved: IntCounter::new(
                "postrider_jobs_moved_total",
                "Jobs that went over to another number because theirs could not send",
            )
            .expect("a valid name"),
            room: IntGaugeVec::new(
                Opts::new(
                    "postrider_messaging_limit_remaining",
                    "New recipients that normal and bulk jobs may have now, where fewest are left",
                ),
                &["pool"],
            )
            .expect("valid names"),
            utilisation: Gauge::new(
                "postrider_pacing_utilisation_ratio",
                "Posts by what the rates in force allow, of numbers that have more to send",
            )
            .expect("a valid name"),
        }
    }
}

impl Meters {
    /// Lets a registry show them.
    ///
    /// # Errors
    /// When it has metrics of these names already.
    pub fn register(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.finished.clone()))?;
        registry.register(Box::new(self.enqueue_to_accepted.clone()))?;
        registry.register(Box::new(self.request.clone()))?;
        registry.register(Box::new(self.responses.clone()))?;
        registry.register(Box::new(self.database.clone()))?;
        registry.register(Box::new(self.resent.clone()))?;
        registry.register(Box::new(self.moved.clone()))?;
        registry.register(Box::new(self.room.clone()))?;
        registry.register(Box::new(self.utilisation.clone()))
    }

    /// An answer came, or did not.
    pub fn answered(&self, answer: &Answer, took: Duration) {
        self.request.observe(took.as_secs_f64());
        let outcome = judge(answer).outcome.as_str();
        let code = code_label(answer);
        self.responses
            .with_label_values(&[code.as_ref(), outcome])
            .inc();
    }

    /// The provider took this job.
    pub fn accepted(&self, accepted: &Accepted) {
        let state = if accepted.held {
            State::Held
        } else {
            State::Accepted
        };
        self.finished
            .with_label_values(&[&*accepted.tags.kind, state.as_str(), ""])
            .inc();
        let waited = (accepted.at - accepted.tags.enqueued_at).as_seconds_f64();
        self.enqueue_to_accepted
            .with_label_values(&[accepted.tags.priority.as_str()])
            .observe(waited.max(0.0));
    }

    /// This job ended unsent.
    pub fn ended(&self, ended: &Ended) {
        self.finished
            .with_label_values(&[&ended.kind, &ended.state, &ended.reason])
            .inc();
    }

    /// Unknown jobs were decided on.
    pub fn resolved(&self, resolved: &Resolved) {
        self.resent
            .inc_by(u64::try_from(resolved.resent).unwrap_or(0));
        for kind in &resolved.given_up {
            let labels = [
                kind.as_str(),
                State::Unknown.as_str(),
                FinalReason::OutcomeUnknown.as_str(),
            ];
            self.finished.with_label_values(&labels).inc();
        }
    }

    /// What holds the workers back now.
    pub fn report(&self, report: &Report) {
        let mut rooms: Vec<&PoolRoom> = report.rooms.iter().collect();
        rooms.sort_unstable_by_key(|room| room.room);
        self.room.reset();
        for room in rooms.into_iter().take(POOLS_SHOWN) {
            let left = i64::try_from(room.room).unwrap_or(i64::MAX);
            self.room.with_label_values(&[&*room.pool]).set(left);
        }
        let ratio = match report.allowed {
            allowed if allowed > 0.0 => f64::from(report.posted) / allowed,
            _ => 0.0,
        };
        self.utilisation.set(ratio);
    }

    /// Series that alerts ask for are there from the start, not from the first event on.
    pub fn prepare(&self) {
        for priority in Priority::ALL {
            self.enqueue_to_accepted
                .with_label_values(&[priority.as_str()]);
        }
    }
}

/// Codes that we know by their number, the others together: the provider chooses them, and labels must stay few.
fn code_label(answer: &Answer) -> Cow<'static, str> {
    match answer {
        Answer::Error(error) if row_of(error.code).is_some() => Cow::Owned(error.code.to_string()),
        Answer::Error(_) => Cow::Borrowed("other"),
        _ => Cow::Borrowed("0"),
    }
}
