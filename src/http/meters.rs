//! What the webhook counts. The metrics are the application's; these are handles on them.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts};

use crate::{
    rules::{job::State, receipt::Status},
    store::receipts::Receipt,
};

/// Handles on the metrics of the webhook and the fold.
#[derive(Debug, Clone)]
pub struct Meters {
    /// `postrider_receipts_total{status}`.
    pub receipts: IntCounterVec,
    /// `postrider_webhook_requests_total{status}`, by the HTTP status that we answered.
    pub requests: IntCounterVec,
    /// `postrider_receipt_lag_seconds`: from a receipt's coming to its message's knowing.
    pub lag: Histogram,
    /// `postrider_jobs_finished_total{kind,state,reason}`, which the dispatcher counts too.
    finished: IntCounterVec,
}

impl Meters {
    /// Metrics in no registry yet; [`Meters::register`] puts them there. `finished` is somebody else's to register: jobs
    /// leave the queue by their answers, and here by receipts where the answer was lost.
    #[must_use]
    pub fn new(finished: IntCounterVec) -> Self {
        let counter = |name, help, label| {
            IntCounterVec::new(Opts::new(name, help), &[label]).expect("valid names")
        };
        let lag = HistogramOpts::new(
            "postrider_receipt_lag_seconds",
            "From the arrival of the oldest receipt of a batch to its folding",
        )
        .buckets(vec![
            0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0,
        ]);
        Meters {
            receipts: counter(
                "postrider_receipts_total",
                "Status updates from the provider",
                "status",
            ),
            requests: counter(
                "postrider_webhook_requests_total",
                "Webhook requests by our answer",
                "status",
            ),
            lag: Histogram::with_opts(lag).expect("valid names"),
            finished,
        }
    }

    /// Lets a registry show them.
    pub fn register(&self, registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
        registry.register(Box::new(self.receipts.clone()))?;
        registry.register(Box::new(self.requests.clone()))?;
        registry.register(Box::new(self.lag.clone()))
    }

    /// Statuses that we do not know share a label, because the provider chooses them.
    pub(super) fn count_receipts(&self, receipts: &[Receipt]) {
        for receipt in receipts {
            let status =
                Status::parse(&receipt.status).map_or("other", |_| receipt.status.as_str());
            self.receipts.with_label_values(&[status]).inc();
        }
    }

    pub(super) fn count_request(&self, status: u16) {
        self.requests
            .with_label_values(&[status.to_string().as_str()])
            .inc();
    }

    /// Receipts took jobs of these kinds out of the queue.
    pub(super) fn count_finished(&self, kinds: &[String]) {
        for kind in kinds {
            self.finished
                .with_label_values(&[kind.as_str(), State::Accepted.as_str(), ""])
                .inc();
        }
    }

    pub(super) fn observe_lag(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }
}
