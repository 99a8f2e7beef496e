//! What Prometheus sees (DESIGN.md 4.5). One registry of our own, so that a test reads a clean one; every label has a bounded
//! set of values, with 10,000 numbers too.

use std::{array, time::Duration};

use prometheus::{
    Encoder as _, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
    process_collector::ProcessCollector,
};

use crate::{
    rules::{
        job::{Priority, State},
        outcome::{self, Answer, Outcome},
    },
    store::settle::{Accepted, Dead},
};

/// Of all pools, those that have the least room are shown.
const POOLS_SHOWN: usize = 50;

/// From a statement that finds nothing to do to one that is about to be given up.
const DATABASE_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
];
/// Around the provider's usual 80 ms, up to our timeout.
const REQUEST_BUCKETS: &[f64] = &[
    0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// From an urgent job on an idle number to bulk behind a messaging limit.
const QUEUE_BUCKETS: &[f64] = &[
    0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0, 43_200.0,
];

/// Everything that is counted here. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Jobs enqueued, by kind and producer.
    pub jobs_enqueued: IntCounterVec,
    /// Jobs that left the queue, by kind, state and reason.
    pub jobs_finished: IntCounterVec,
    /// Jobs in the queue, by priority and state.
    pub queue_jobs: IntGaugeVec,
    /// How long the oldest job that may go has waited, by priority.
    pub queue_oldest_eligible: IntGaugeVec,
    /// Jobs that were posted and got no answer.
    pub unknown_jobs: IntGauge,
    /// From enqueueing to the provider's yes, by priority.
    pub enqueue_to_accepted: [Histogram; Priority::ALL.len()],
    /// One request to the provider.
    pub provider_request_seconds: Histogram,
    /// The share of the allowed messages per second that was used, over all numbers with work.
    pub pacing_utilisation: Gauge,
    /// Shards that this instance may send for.
    pub lease_held: IntGauge,
    /// One statement, by name.
    pub database_seconds: HistogramVec,
    provider_responses: IntCounterVec,
    accepted: IntCounter,
    messaging_limit_remaining: IntGaugeVec,
    breaker_open: IntGaugeVec,
}

impl Metrics {
    /// Fresh metrics in a registry of their own, with those of the process.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let make = Maker {
            registry: &registry,
        };
        make.build_info();
        make.add(ProcessCollector::for_self());
        let provider_responses = make.counters(
            "provider_responses_total",
            "Answers of the provider, by error code (0 for none) and what they came to",
            &["code", "outcome"],
        );
        Self {
            jobs_enqueued: make.counters(
                "jobs_enqueued_total",
                "Jobs enqueued since this process started, counted a minute after",
                &["kind", "producer"],
            ),
            jobs_finished: make.counters(
                "jobs_finished_total",
                "Jobs that left the queue",
                &["kind", "state", "reason"],
            ),
            queue_jobs: make.gauges("queue_jobs", "Jobs in the queue", &["priority", "state"]),
            queue_oldest_eligible: make.gauges(
                "queue_oldest_eligible_seconds",
                "How long the oldest job that may go has waited",
                &["priority"],
            ),
            unknown_jobs: make.gauge("unknown_jobs", "Jobs that were posted and got no answer"),
            enqueue_to_accepted: make.by_priority(
                "enqueue_to_accepted_seconds",
                "From enqueueing to the provider's yes",
                QUEUE_BUCKETS,
            ),
            provider_request_seconds: make.histogram(
                "provider_request_seconds",
                "One request to the provider",
                REQUEST_BUCKETS,
            ),
            pacing_utilisation: make.ratio(
                "pacing_utilisation_ratio",
                "The share of the allowed messages per second that was used, over all numbers with work",
            ),
            lease_held: make.gauge("lease_held", "Shards that this instance may send for"),
            database_seconds: make.histograms("database_seconds", "One statement", DATABASE_BUCKETS, &["statement"]),
            accepted: provider_responses.with_label_values(&["0", Outcome::Accepted.as_str()]),
            provider_responses,
            messaging_limit_remaining: make.gauges(
                "messaging_limit_remaining",
                "Recipients that a pool may still reach in its rolling 24 h, for the pools with the least room",
                &["pool"],
            ),
            breaker_open: make.gauges(
                "breaker_open",
                "What is stopped now, by scope, and why: operator, or the provider's error code",
                &["scope", "reason"],
            ),
            registry,
        }
    }

    /// Where others add metrics of their own.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Counts an answer of the provider and how long it took.
    pub fn answered(&self, answer: &Answer, took: Duration) {
        self.provider_request_seconds.observe(took.as_secs_f64());
        // The usual case, without a look-up.
        if matches!(answer, Answer::Accepted { held: false, .. }) {
            return self.accepted.inc();
        }
        let outcome = outcome::judge(answer).outcome.as_str();
        self.provider_responses
            .with_label_values(&[&code_label(answer), outcome])
            .inc();
    }

    /// Counts jobs that were settled for good. Their kind is not known here.
    pub fn settled(&self, accepted: &[Accepted], dead: &[Dead]) {
        let held = accepted.iter().filter(|accepted| accepted.held).count() as u64;
        self.finished("", State::Held, "", held);
        self.finished("", State::Accepted, "", accepted.len() as u64 - held);
        for dead in dead {
            self.finished("", dead.state, dead.reason.as_str(), 1);
        }
    }

    /// Counts jobs that left the queue.
    pub fn finished(&self, kind: &str, state: State, reason: &str, jobs: u64) {
        if jobs > 0 {
            self.jobs_finished
                .with_label_values(&[kind, state.as_str(), reason])
                .inc_by(jobs);
        }
    }

    /// Notes how long a job waited from its enqueueing to the provider's yes.
    pub fn accepted_after(&self, priority: Priority, waited: Duration) {
        self.enqueue_to_accepted[priority as usize].observe(waited.as_secs_f64());
    }

    /// Shows the room of the pools that have the least.
    pub fn show_pools(&self, mut pools: Vec<(String, i64)>) {
        pools.sort_by_key(|(_, room)| *room);
        self.messaging_limit_remaining.reset();
        for (pool, room) in pools.iter().take(POOLS_SHOWN) {
            self.messaging_limit_remaining
                .with_label_values(&[pool])
                .set(*room);
        }
    }

    /// Shows what is stopped: scope, reason, how many.
    pub fn show_breakers(&self, breakers: &[(String, String, i64)]) {
        self.breaker_open.reset();
        for (scope, reason, open) in breakers {
            self.breaker_open
                .with_label_values(&[scope, reason])
                .set(*open);
        }
    }

    /// Everything in Prometheus' text form.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("a vector takes all that is written");
        String::from_utf8(text).expect("names, labels and numbers are text")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Codes that we know by their number, the others together: the provider chooses them.
fn code_label(answer: &Answer) -> String {
    match answer {
        Answer::Error(error) if outcome::row_of(error.code).is_some() => error.code.to_string(),
        Answer::Error(_) => "other".to_owned(),
        _ => "0".to_owned(),
    }
}

/// Makes metrics and registers them. Names and labels are ours, so a mistake in them is found by the first test that runs.
struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn add(&self, collector: impl Collector + 'static) {
        self.registry
            .register(Box::new(collector))
            .expect("each name is registered once");
    }

    fn added<C: Collector + Clone + 'static>(&self, collector: Result<C, prometheus::Error>) -> C {
        let collector = collector.expect("names and labels are valid");
        self.add(collector.clone());
        collector
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.added(IntCounterVec::new(opts(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.added(IntGaugeVec::new(opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.added(IntGauge::with_opts(opts(name, help)))
    }

    fn ratio(&self, name: &str, help: &str) -> Gauge {
        self.added(Gauge::with_opts(opts(name, help)))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        self.added(Histogram::with_opts(histogram_opts(name, help, buckets)))
    }

    fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        self.added(HistogramVec::new(
            histogram_opts(name, help, buckets),
            labels,
        ))
    }

    /// One child for each priority, resolved once.
    fn by_priority(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
    ) -> [Histogram; Priority::ALL.len()] {
        let all = self.histograms(name, help, buckets, &["priority"]);
        array::from_fn(|index| all.with_label_values(&[Priority::ALL[index].as_str()]))
    }

    fn build_info(&self) {
        let info = self.gauges("build_info", "Which release this is", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("postrider")
}

fn histogram_opts(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(name, help)
        .namespace("postrider")
        .buckets(buckets.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::outcome::ProviderError;

    fn error(code: i32) -> Answer {
        Answer::Error(ProviderError {
            code,
            subcode: None,
            http_status: 400,
            title: String::new(),
            detail: String::new(),
            is_transient: false,
            retry_after: None,
        })
    }

    fn accepted() -> Answer {
        Answer::Accepted {
            provider_id: "wamid.1".to_owned(),
            held: false,
            wa_id: None,
            user_id: None,
        }
    }

    #[test]
    fn answers_are_counted_by_code_and_outcome_and_unknown_codes_together() {
        let metrics = Metrics::new();
        metrics.answered(&accepted(), Duration::from_millis(80));
        metrics.answered(&error(130_429), Duration::from_millis(10));
        metrics.answered(&error(987_654), Duration::from_millis(10));
        metrics.answered(&error(987_655), Duration::from_millis(10));
        let text = metrics.render();
        for line in [
            "postrider_provider_responses_total{code=\"0\",outcome=\"accepted\"} 1",
            "postrider_provider_responses_total{code=\"130429\",outcome=\"retry\"} 1",
            "postrider_provider_responses_total{code=\"other\",outcome=\"retry\"} 2",
            "postrider_provider_request_seconds_count 4",
        ] {
            assert!(text.contains(line), "{line} not in\n{text}");
        }
        assert!(!text.contains("987654"));
    }

    #[test]
    fn every_metric_of_the_design_is_there_before_anything_happened_or_after_its_first_event() {
        let metrics = Metrics::new();
        metrics.finished("otp", State::Accepted, "", 1);
        metrics
            .jobs_enqueued
            .with_label_values(&["otp", "shop"])
            .inc();
        metrics
            .queue_jobs
            .with_label_values(&["urgent", "queued"])
            .set(1);
        metrics
            .queue_oldest_eligible
            .with_label_values(&["urgent"])
            .set(1);
        metrics
            .database_seconds
            .with_label_values(&["look"])
            .observe(0.01);
        metrics.show_pools(vec![("1".to_owned(), 5)]);
        metrics.show_breakers(&[("number".to_owned(), "131048".to_owned(), 1)]);
        metrics.accepted_after(Priority::Urgent, Duration::from_millis(200));
        let text = metrics.render();
        for name in [
            "jobs_enqueued_total{kind=\"otp\",producer=\"shop\"} 1",
            "jobs_finished_total{kind=\"otp\",reason=\"\",state=\"accepted\"} 1",
            "queue_jobs{priority=\"urgent\",state=\"queued\"} 1",
            "queue_oldest_eligible_seconds{priority=\"urgent\"} 1",
            "enqueue_to_accepted_seconds_bucket{priority=\"urgent\",le=\"0.25\"} 1",
            "provider_request_seconds_count 0",
            "provider_responses_total{code=\"0\",outcome=\"accepted\"} 0",
            "pacing_utilisation_ratio 0",
            "messaging_limit_remaining{pool=\"1\"} 5",
            "unknown_jobs 0",
            "lease_held 0",
            "breaker_open{reason=\"131048\",scope=\"number\"} 1",
            "database_seconds_count{statement=\"look\"} 1",
            concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(
                text.contains(&format!("postrider_{name}")),
                "{name} not in\n{text}"
            );
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn ten_thousand_pools_show_only_those_with_the_least_room() {
        let metrics = Metrics::new();
        metrics.show_pools(
            (0..10_000)
                .map(|room| (format!("pool{room}"), room))
                .collect(),
        );
        let shown = metrics
            .render()
            .matches("messaging_limit_remaining{")
            .count();
        assert_eq!(shown, POOLS_SHOWN);
        assert!(metrics.render().contains("{pool=\"pool0\"} 0"));
    }

    #[test]
    fn what_is_no_longer_stopped_is_no_longer_shown() {
        let metrics = Metrics::new();
        metrics.show_breakers(&[("account".to_owned(), "190".to_owned(), 1)]);
        metrics.show_breakers(&[]);
        assert!(!metrics.render().contains("breaker_open{"));
    }
}
