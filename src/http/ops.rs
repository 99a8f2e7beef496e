//! What monitoring asks: `/metrics`, `/healthz` (the process lives) and `/readyz` (it can do its work). For the loopback or
//! a private network: there is no login.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::{sync::watch, time::Instant};

/// Whether the process can do its work: each part says so for itself.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: watch::Sender<BTreeMap<&'static str, Part>>,
}

#[derive(Debug, Clone)]
enum Part {
    Ready,
    ReadyUntil(Instant),
    NotReady(String),
}

impl Part {
    fn problem(&self, now: Instant) -> Option<&str> {
        match self {
            Part::Ready => None,
            Part::ReadyUntil(end) => (now > *end).then_some("has not been heard of for too long"),
            Part::NotReady(problem) => Some(problem),
        }
    }
}

impl Readiness {
    /// No part is known yet; name each by [`Readiness::not_ready`] before it starts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// This part can do its work from now on.
    pub fn ready(&self, part: &'static str) {
        self.set(part, Part::Ready);
    }

    /// This part can do its work and will say so again within `period`.
    pub fn ready_for(&self, part: &'static str, period: Duration) {
        self.set(part, Part::ReadyUntil(Instant::now() + period));
    }

    /// This part cannot do its work, and why.
    pub fn not_ready(&self, part: &'static str, problem: impl Into<String>) {
        self.set(part, Part::NotReady(problem.into()));
    }

    /// What is not ready, and why; empty when everything is.
    #[must_use]
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let now = Instant::now();
        let problem =
            |(name, part): (&&'static str, &Part)| Some((*name, part.problem(now)?.to_owned()));
        self.parts.borrow().iter().filter_map(problem).collect()
    }

    /// Waits until everything is ready.
    pub async fn wait(&self) {
        let is_ready = |parts: &BTreeMap<&'static str, Part>| {
            let now = Instant::now();
            !parts.is_empty() && parts.values().all(|part| part.problem(now).is_none())
        };
        self.parts
            .subscribe()
            .wait_for(is_ready)
            .await
            .expect("we hold the sender");
    }

    fn set(&self, name: &'static str, part: Part) {
        self.parts.send_modify(|parts| {
            parts.insert(name, part);
        });
    }
}

#[derive(Clone)]
struct Ops {
    registry: Registry,
    readiness: Readiness,
}

/// The routes of `ops.listen`.
pub fn ops(registry: Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .with_state(Ops {
            registry,
            readiness,
        })
}

async fn metrics(State(ops): State<Ops>) -> Response {
    let (encoder, mut text) = (TextEncoder::new(), Vec::new());
    match encoder.encode(&ops.registry.gather(), &mut text) {
        Ok(()) => ([(CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn readyz(State(ops): State<Ops>) -> Response {
    let problems = ops.readiness.problems();
    if problems.is_empty() {
        return "ready\n".into_response();
    }
    let lines = problems
        .iter()
        .fold(String::new(), |mut lines, (part, problem)| {
            let _ = writeln!(lines, "{part}: {problem}");
            lines
        });
    (StatusCode::SERVICE_UNAVAILABLE, lines).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_part_that_stops_saying_that_it_is_ready_is_not() {
        let readiness = Readiness::new();
        readiness.ready("schema");
        readiness.ready_for("leases", Duration::from_secs(5));
        assert_eq!(readiness.problems(), []);
        tokio::time::advance(Duration::from_secs(6)).await;
        let [(part, _)] = readiness.problems().try_into().unwrap();
        assert_eq!(part, "leases");
    }

    #[tokio::test]
    async fn waiting_ends_when_the_last_part_is_ready() {
        let readiness = Readiness::new();
        readiness.not_ready("database", "connection refused");
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        readiness.ready("database");
        waiting.await.unwrap();
    }
}
