//! Folds receipts as they come, and looks now and then anyway: other processes receive webhooks too, and early receipts
//! become due by themselves.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::meters::Meters;
use crate::{
    clock,
    store::{
        fold::{self, FoldReport},
        within,
    },
};

/// Receipts in one transaction: what a rush brings while it gathers.
const BATCH: i64 = 30_000;

/// How long receipts gather after the first rings. Nobody waits for a status as long as that.
const GATHER: Duration = Duration::from_millis(50);

/// From this many at once on there is a rush, and they gather for longer: the receipts of a message come within moments
/// of each other, and those that meet cost one update instead of one each.
const RUSH: usize = 500;
const GATHER_IN_A_RUSH: Duration = Duration::from_millis(2_000);

/// How long nobody may ring before we look anyway.
const LOOK_ANYWAY: Duration = Duration::from_millis(250);

/// A batch that takes longer is on a connection that hangs; it rolls back.
const FOLD_MAX: Duration = Duration::from_secs(20);

/// After the database did not let us.
const PAUSE: Duration = Duration::from_secs(1);

/// Folds until `stop`; `bell` is rung when receipts were committed.
pub async fn run(pool: PgPool, stop: CancellationToken, bell: Arc<Notify>, meters: Meters) {
    let working = async {
        loop {
            let pause = match within(FOLD_MAX, fold::fold(&pool, BATCH)).await {
                Ok(report) => told(&report, &meters),
                Err(error) => failed(&error),
            };
            rest(&bell, pause).await;
        }
    };
    // A fold that is broken off rolls back.
    stop.run_until_cancelled(working).await;
}

/// How the loop goes on.
enum Pause {
    /// There is more.
    No,
    /// Until the bell rings, or for a while, and then until some have gathered.
    UntilRung(Duration),
    /// Until the database may be back.
    Long,
}

fn told(report: &FoldReport, meters: &Meters) -> Pause {
    if let Some(oldest) = report.oldest {
        let lag = (clock::now() - oldest).to_std().unwrap_or_default();
        meters.observe_lag(lag);
    }
    meters.count_finished(&report.left_queue);
    if report.settled > 0 {
        tracing::info!(
            jobs = report.settled,
            "receipts settled jobs whose answer was lost"
        );
    }
    match report.taken {
        taken if taken as i64 >= BATCH => Pause::No,
        taken if taken >= RUSH => Pause::UntilRung(GATHER_IN_A_RUSH),
        _ => Pause::UntilRung(GATHER),
    }
}

fn failed(error: &sqlx::Error) -> Pause {
    tracing::warn!(%error, "receipts cannot be folded; they wait in the inbox");
    Pause::Long
}

async fn rest(bell: &Notify, pause: Pause) {
    match pause {
        Pause::No => {}
        Pause::Long => tokio::time::sleep(PAUSE).await,
        Pause::UntilRung(gather) => {
            let _ = tokio::time::timeout(LOOK_ANYWAY, bell.notified()).await;
            tokio::time::sleep(gather).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch;

    #[test]
    fn jobs_that_receipts_took_out_of_the_queue_are_counted_as_finished() {
        let finished = dispatch::meters::Meters::default().finished;
        let meters = Meters::new(finished.clone());
        let report = FoldReport {
            settled: 3,
            left_queue: vec!["otp".into(), "otp".into()],
            ..FoldReport::default()
        };
        told(&report, &meters);
        let counted = finished.with_label_values(&["otp", "accepted", ""]).get();
        assert_eq!(counted, 2);
    }
}
