//! The meters of all parts, in one registry.

use prometheus::Registry;

use crate::{dispatch, http};

/// What the parts count.
#[derive(Debug, Clone)]
pub(super) struct Meters {
    /// What the workers count.
    pub(super) dispatch: dispatch::meters::Meters,
    /// What the webhook and the fold count.
    pub(super) http: http::meters::Meters,
}

impl Meters {
    /// Makes them, and lets the registry show them.
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let dispatch = dispatch::meters::Meters::default();
        dispatch.register(registry)?;
        dispatch.prepare();
        let http = http::meters::Meters::new(dispatch.finished.clone());
        http.register(registry)?;
        Ok(Self { dispatch, http })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{metrics::Metrics, rules::outcome::Answer, store::sample::Sample};

    #[test]
    fn the_metrics_of_all_parts_are_in_one_registry() {
        let metrics = Metrics::new();
        let meters = Meters::register(metrics.registry()).unwrap();
        metrics.show(&Sample::default());
        let accepted = Answer::Accepted {
            provider_id: "wamid.1".into(),
            held: false,
            wa_id: None,
            user_id: None,
        };
        meters
            .dispatch
            .answered(&accepted, Duration::from_millis(80));
        meters
            .dispatch
            .finished
            .with_label_values(&["otp", "accepted", ""])
            .inc();
        meters
            .dispatch
            .database
            .with_label_values(&["look"])
            .observe(0.01);
        meters.http.receipts.with_label_values(&["read"]).inc();
        meters.http.requests.with_label_values(&["200"]).inc();
        let text = metrics.render();
        for line in [
            "jobs_finished_total{kind=\"otp\",reason=\"\",state=\"accepted\"} 1",
            "enqueue_to_accepted_seconds_count{priority=\"urgent\"} 0",
            "provider_request_seconds_count 1",
            "provider_responses_total{code=\"0\",outcome=\"accepted\"} 1",
            "unknown_jobs 0",
            "receipts_total{status=\"read\"} 1",
            "receipt_lag_seconds_count 0",
            "webhook_requests_total{status=\"200\"} 1",
            "lease_held 0",
            "database_seconds_count{statement=\"look\"} 1",
            "jobs_moved_total 0",
            "unknown_resent_total 0",
            concat!("build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(
                text.contains(&format!("postrider_{line}")),
                "{line} not in\n{text}"
            );
        }
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
