//! Proves conservation (I1) all the time, a little at once, so that a job that is off is known by the metrics and not only
//! when somebody asks `postrider verify`.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    metrics::Metrics,
    rules::conservation::{Horizon, Places},
    store::{
        Store,
        verify::{self, Standing},
        within,
    },
};

/// How often it goes on.
const EVERY: Duration = Duration::from_secs(30);
/// After a long look it rests for so many times as long, so that it takes at most 2 % of one connection.
const REST: u32 = 50;
/// A go that takes longer is on a connection that hangs.
const GO_MAX: Duration = Duration::from_secs(300);
/// Ranges of one go: a million jobs.
const RANGES_MAX: i64 = 100;

/// Verifies until `stop`.
pub(super) async fn run(
    store: Store,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut verifier = Verifier {
        store,
        horizon: Horizon::default(),
        told: BTreeSet::new(),
    };
    loop {
        let began = Instant::now();
        // What is broken off at a stop rolls back.
        let going_on = within(GO_MAX, verifier.go_on(&stop));
        let Some(gone) = stop.run_until_cancelled(going_on).await else {
            return Ok(());
        };
        match gone {
            Ok((jobs, standing)) => metrics.show_verified(jobs, &standing),
            Err(error) => {
                tracing::warn!(%error, "whether every job is in one place was not proven")
            }
        }
        let rest = EVERY.max(began.elapsed() * REST);
        if stop
            .run_until_cancelled(tokio::time::sleep(rest))
            .await
            .is_none()
        {
            return Ok(());
        }
    }
}

/// What it remembers from one go to the next.
struct Verifier {
    store: Store,
    horizon: Horizon,
    /// Jobs that are off and were told.
    told: BTreeSet<i64>,
}

impl Verifier {
    /// Looks at the ranges that are due; returns how many jobs it saw, and how everything stands.
    async fn go_on(&mut self, stop: &CancellationToken) -> Result<(i64, Standing), sqlx::Error> {
        let pool = self.store.pool();
        // In this order: see `Horizon`.
        let newest = verify::newest(pool).await?;
        self.horizon
            .saw(newest, &verify::open_transactions(pool).await?);
        verify::prepare(pool, newest).await?;
        let mut jobs = 0;
        for range in verify::due(pool, RANGES_MAX).await? {
            if stop.is_cancelled() {
                break;
            }
            let seen = verify::look(pool, range, self.horizon.decided()).await?;
            jobs += seen.jobs;
            tell(&mut self.told, &seen.off);
        }
        Ok((jobs, verify::standing(pool).await?))
    }
}

/// Tells of each job once.
fn tell(told: &mut BTreeSet<i64>, off: &[Places]) {
    for places in off {
        if let Some(problem) = places.problem()
            && told.insert(places.job)
        {
            tracing::error!(
                job.id = places.job,
                "job {} {}; `postrider verify` says what is known of it",
                places.job,
                problem.words()
            );
        }
    }
}
