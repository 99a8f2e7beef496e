//! What Prometheus sees (DESIGN.md 4.5): one registry of our own, so that a test reads a clean one, and in it what is true of
//! the process and of the queue as a whole. Dispatch and the webhook register their own meters. Every label has a bounded set
//! of values, with 10,000 numbers too.

use prometheus::{
    Encoder as _, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector, process_collector::ProcessCollector,
};

use crate::store::{sample::Sample, verify::Standing};

/// Everything that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Shards that this instance may send for.
    pub lease_held: IntGauge,
    jobs_enqueued: IntCounterVec,
    queue_jobs: IntGaugeVec,
    queue_oldest_eligible: IntGaugeVec,
    unknown_jobs: IntGauge,
    breaker_open: IntGaugeVec,
    verify_jobs: IntCounter,
    verify_jobs_off: IntGauge,
    verify_proven_up_to: IntGauge,
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
        Self {
            lease_held: make.gauge("lease_held", "Shards that this instance may send for"),
            jobs_enqueued: make.counters(
                "jobs_enqueued_total",
                "Jobs enqueued since this process started, counted a minute later",
                &["kind", "producer"],
            ),
            queue_jobs: make.gauges("queue_jobs", "Jobs in the queue", &["priority", "state"]),
            queue_oldest_eligible: make.gauges(
                "queue_oldest_eligible_seconds",
                "How long the oldest job that is due has waited",
                &["priority"],
            ),
            unknown_jobs: make.gauge("unknown_jobs", "Jobs that were posted and got no answer"),
            breaker_open: make.gauges(
                "breaker_open",
                "What is stopped now, by scope and by why: operator, or the provider's error code",
                &["scope", "reason"],
            ),
            verify_jobs: make.counter(
                "verify_jobs_total",
                "Jobs that were looked at to prove that each is in exactly one place",
            ),
            verify_jobs_off: make.gauge(
                "verify_jobs_off",
                "Jobs that are not in exactly one place; anything but 0 is an alarm",
            ),
            verify_proven_up_to: make.gauge(
                "verify_proven_up_to",
                "Every job before this id is proven to be in one place, and has ended",
            ),
            registry,
        }
    }

    /// For whoever shows it.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Shows the queue as it was just seen.
    pub fn show(&self, sample: &Sample) {
        self.queue_jobs.reset();
        self.queue_oldest_eligible.reset();
        for jobs in &sample.queued {
            let priority = jobs.priority.as_str();
            self.queue_jobs
                .with_label_values(&[priority, &jobs.state])
                .add(jobs.count);
            if let Some(waited) = jobs.oldest_waited_s {
                self.queue_oldest_eligible
                    .with_label_values(&[priority])
                    .set(waited);
            }
        }
        self.unknown_jobs.set(sample.unknown());
        self.breaker_open.reset();
        for stopped in &sample.stopped {
            self.breaker_open
                .with_label_values(&[&stopped.scope, &stopped.reason])
                .set(stopped.count);
        }
        for enqueued in &sample.enqueued {
            let count = u64::try_from(enqueued.count).unwrap_or(0);
            self.jobs_enqueued
                .with_label_values(&[&enqueued.kind, &enqueued.producer])
                .inc_by(count);
        }
    }

    /// Shows what was verified just now: so many jobs more, and how everything stands.
    pub fn show_verified(&self, jobs: i64, standing: &Standing) {
        self.verify_jobs.inc_by(u64::try_from(jobs).unwrap_or(0));
        self.verify_jobs_off.set(standing.jobs_off);
        self.verify_proven_up_to.set(standing.open_from);
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

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.added(IntCounter::with_opts(opts(name, help)))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.added(IntGaugeVec::new(opts(name, help), labels))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.added(IntGauge::with_opts(opts(name, help)))
    }

    fn build_info(&self) {
        let info = self.gauges("build_info", "Which release this is", &["version"]);
        info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("postrider")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        rules::job::Priority,
        store::sample::{Enqueued, Queued, Stopped},
    };

    fn sample() -> Sample {
        Sample {
            queued: vec![
                Queued {
                    priority: Priority::Urgent,
                    state: "queued".into(),
                    count: 3,
                    oldest_waited_s: Some(7),
                },
                Queued {
                    priority: Priority::Normal,
                    state: "unknown".into(),
                    count: 2,
                    oldest_waited_s: None,
                },
            ],
            stopped: vec![Stopped {
                scope: "number".into(),
                reason: "131048".into(),
                count: 1,
            }],
            enqueued: vec![Enqueued {
                kind: "otp".into(),
                producer: "shop".into(),
                count: 5,
            }],
        }
    }

    #[test]
    fn the_queue_and_what_is_stopped_are_shown() {
        let metrics = Metrics::new();
        metrics.show(&sample());
        let text = metrics.render();
        for line in [
            "jobs_enqueued_total{kind=\"otp\",producer=\"shop\"} 5",
            "queue_jobs{priority=\"urgent\",state=\"queued\"} 3",
            "queue_oldest_eligible_seconds{priority=\"urgent\"} 7",
            "unknown_jobs 2",
            "lease_held 0",
            "breaker_open{reason=\"131048\",scope=\"number\"} 1",
            concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(
                text.contains(&format!("postrider_{line}")),
                "{line} not in\n{text}"
            );
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }

    #[test]
    fn what_is_verified_is_shown() {
        let metrics = Metrics::new();
        let standing = Standing {
            jobs_off: 2,
            jobs_closed: 9,
            open_from: 10_000,
        };
        metrics.show_verified(7, &standing);
        metrics.show_verified(7, &standing);
        let text = metrics.render();
        for line in [
            "verify_jobs_total 14",
            "verify_jobs_off 2",
            "verify_proven_up_to 10000",
        ] {
            assert!(text.contains(&format!("postrider_{line}")), "{text}");
        }
    }

    #[test]
    fn what_is_gone_is_no_longer_shown_and_counters_only_grow() {
        let metrics = Metrics::new();
        metrics.show(&sample());
        metrics.show(&Sample {
            enqueued: sample().enqueued,
            ..Sample::default()
        });
        let text = metrics.render();
        assert!(
            !text.contains("breaker_open{") && !text.contains("queue_jobs{"),
            "{text}"
        );
        assert!(text.contains("postrider_unknown_jobs 0"), "{text}");
        assert!(
            text.contains("jobs_enqueued_total{kind=\"otp\",producer=\"shop\"} 10"),
            "{text}"
        );
    }
}
