//! Decides what becomes of jobs that got no answer, when their time is over: sent again, or given up.
//!
//! Every instance does so for all numbers, whoever sends for them: each takes what no other one holds at that moment, and what
//! is put back into the queue is found by whoever sends for its number.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::meters::Meters;
use crate::store::{Store, unknown, within};

/// A job whose time is over is decided on within this.
const EVERY: Duration = Duration::from_secs(1);
/// What takes longer is on a connection that hangs.
const ROUND_MAX: Duration = Duration::from_secs(30);
/// Jobs decided on in one transaction: each is locked until its end.
const BATCH: i64 = 1_000;
/// Looking for jobs that are due may be slow when there are very many; then it rests so many times as long as it took. But a
/// round is slow too while the database has much else to do, and when that is over nobody should wait for it any longer.
const REST_FACTOR: u32 = 20;
const REST_MAX: Duration = Duration::from_secs(5);

/// What decides.
pub struct Resolving {
    /// Where the jobs are.
    pub store: Store,
    /// How often a job may be sent again; a reload may change it.
    pub max_resends: Box<dyn Fn() -> i32 + Send + Sync>,
    /// What is counted.
    pub meters: Meters,
}

impl Resolving {
    /// Decides until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut rest = EVERY;
        while stop
            .run_until_cancelled(tokio::time::sleep(rest))
            .await
            .is_some()
        {
            let began = Instant::now();
            // What is broken off at a stop rolls back.
            let round = within(ROUND_MAX, self.round());
            let Some(done) = stop.run_until_cancelled(round).await else {
                return;
            };
            rest = match done {
                Ok(true) => Duration::ZERO,
                Ok(false) => rest_after(began.elapsed()),
                Err(error) => {
                    tracing::warn!(%error, "unknown jobs could not be decided on");
                    EVERY
                }
            };
        }
    }

    /// Whether there may be more to do at once.
    async fn round(&self) -> Result<bool, sqlx::Error> {
        let asked = Instant::now();
        let resolved = unknown::resolve(self.store.pool(), (self.max_resends)(), BATCH).await?;
        self.meters
            .database
            .with_label_values(&["resolve"])
            .observe(asked.elapsed().as_secs_f64());
        self.meters.resolved(&resolved);
        if resolved.resent > 0 {
            tracing::info!(
                jobs = resolved.resent,
                "{} jobs got neither an answer nor a receipt; they are sent again",
                resolved.resent
            );
        }
        if !resolved.given_up.is_empty() {
            tracing::warn!(
                jobs = resolved.given_up.len(),
                "{} jobs are given up: neither an answer nor a receipt came; `postrider jobs list --state unknown` names them",
                resolved.given_up.len()
            );
        }
        Ok(resolved.len() as i64 >= BATCH)
    }
}

/// How long it rests after a round that found all there was and took so long.
fn rest_after(took: Duration) -> Duration {
    (took * REST_FACTOR).clamp(EVERY, REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_round_is_followed_by_a_rest_that_ends_soon() {
        assert_eq!(rest_after(Duration::from_millis(1)), EVERY);
        let slow = Duration::from_millis(100);
        assert_eq!(rest_after(slow), slow * REST_FACTOR);
        assert_eq!(rest_after(ROUND_MAX), REST_MAX);
    }
}
