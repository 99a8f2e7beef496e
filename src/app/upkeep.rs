//! What is done now and then beside sending: jobs that ran out of time are told so, partitions are made ahead, pauses that
//! are over are cleared away, and the queue is counted for the metrics.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    dispatch::meters::Meters,
    metrics::Metrics,
    store::{Store, echoes, facts, instance, ledger, sample::Sampler, upkeep, within},
};

/// An expired job is told within this.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// Jobs expired in one transaction: each holds a row lock until the commit.
const EXPIRE_BATCH: i64 = 1_000;
/// Partitions are made for a week ahead, so a day of failures does no harm.
const PARTITIONS_EVERY: Duration = Duration::from_secs(3600);
/// A person's pause that is over does not hold any more; its row is only in the way.
const PAUSES_EVERY: Duration = Duration::from_secs(60);
/// Held messages that were sent, and messages from phone apps, are remembered for a day.
const RELEASED_EVERY: Duration = Duration::from_secs(600);
/// A process that was not heard of for a day is cleared away.
const GONE_EVERY: Duration = Duration::from_secs(3600);
/// One process does all this for all. It says so as often as this, and after so long without a word another one does.
const DUTY: &str = "upkeep";
const DUTY_EVERY: Duration = Duration::from_secs(1);
const DUTY_FOR: Duration = Duration::from_secs(5);
/// What takes longer is on a connection that hangs.
const WORK_MAX: Duration = Duration::from_secs(60);
/// How fresh gauges are. Counting reads the whole queue, so after a long count it rests for much longer.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
const SAMPLE_REST: u32 = 20;

/// Makes the partitions that are needed now.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn make_partitions(store: &Store) -> Result<(), sqlx::Error> {
    let made = upkeep::ensure_partitions(store.pool(), clock::now().date_naive()).await?;
    if made > 0 {
        tracing::debug!(made, "made {made} partitions");
    }
    Ok(())
}

/// Does what is to be done until `stop`, while no other process does: one is enough.
pub(super) async fn run(
    store: Store,
    meters: Meters,
    instance: String,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut done: Option<Doing> = None;
    let mut every = tokio::time::interval(DUTY_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let taking = instance::takes_duty(store.pool(), DUTY, &instance, DUTY_FOR);
        // What is broken off at a stop rolls back.
        let Some(taken) = stop.run_until_cancelled(within(DUTY_FOR, taking)).await else {
            break;
        };
        match taken {
            Ok(true) => _ = done.get_or_insert_with(|| Doing::start(&store, &meters)),
            Ok(false) => done = None,
            // Whoever does it next does it as well, and both do no harm.
            Err(error) => tracing::debug!(%error, "the upkeep's turn could not be renewed"),
        }
    }
    if let Some(doing) = done.take() {
        doing.end().await;
        let leaving = instance::leaves_duty(store.pool(), DUTY, &instance);
        if let Err(error) = within(DUTY_EVERY, leaving).await {
            tracing::debug!(%error, "the upkeep's turn could not be given back");
        }
    }
    Ok(())
}

/// The work while it is ours. It ends when this is dropped, at the end of what it is at.
struct Doing {
    stop: CancellationToken,
    work: tokio::task::JoinHandle<()>,
}

impl Doing {
    fn start(store: &Store, meters: &Meters) -> Self {
        let stop = CancellationToken::new();
        let work = tokio::spawn(work(store.clone(), meters.clone(), stop.clone()));
        Self { stop, work }
    }

    async fn end(mut self) {
        self.stop.cancel();
        // It panics only where a statement of ours is wrong, which was logged.
        _ = (&mut self.work).await;
    }
}

impl Drop for Doing {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Ends jobs whose time is over, makes partitions, clears away what is over, until `stop`.
async fn work(store: Store, meters: Meters, stop: CancellationToken) {
    let expiring = || expire(store.clone(), meters.clone());
    let partitioning = || {
        let store = store.clone();
        async move { make_partitions(&store).await }
    };
    let clearing = || {
        let store = store.clone();
        async move { facts::expire_pauses(store.pool()).await.map(drop) }
    };
    let forgetting = || {
        let store = store.clone();
        async move {
            ledger::forget_released(store.pool()).await?;
            echoes::forget(store.pool()).await.map(drop)
        }
    };
    let burying = || {
        let store = store.clone();
        async move { instance::forget_gone(store.pool()).await.map(drop) }
    };
    tokio::join!(
        each(
            EXPIRE_EVERY,
            &stop,
            "expired jobs could not be ended",
            expiring
        ),
        each(
            PARTITIONS_EVERY,
            &stop,
            "partitions could not be made",
            partitioning
        ),
        each(
            PAUSES_EVERY,
            &stop,
            "pauses that are over could not be cleared away",
            clearing
        ),
        each(
            RELEASED_EVERY,
            &stop,
            "what no longer counts against a messaging limit could not be cleared away",
            forgetting
        ),
        each(
            GONE_EVERY,
            &stop,
            "processes that are gone could not be cleared away",
            burying
        ),
    );
}

async fn expire(store: Store, meters: Meters) -> Result<(), sqlx::Error> {
    loop {
        let ended = upkeep::expire(store.pool(), EXPIRE_BATCH).await?;
        ended.iter().for_each(|ended| meters.ended(ended));
        let jobs = ended.len();
        if jobs > 0 {
            tracing::info!(jobs, "{jobs} jobs were not sent in time");
        }
        if (jobs as i64) < EXPIRE_BATCH {
            return Ok(());
        }
    }
}

/// Counts the queue until `stop`.
pub(super) async fn sample(
    store: Store,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut sampler = Sampler::default();
    let start = Instant::now();
    loop {
        let began = Instant::now();
        let counted = sampler.take(store.pool(), start.elapsed());
        match stop.run_until_cancelled(within(WORK_MAX, counted)).await {
            Some(Ok(sample)) => metrics.show(&sample),
            Some(Err(error)) => tracing::warn!(%error, "the queue could not be counted"),
            None => return Ok(()),
        }
        let rest = SAMPLE_EVERY.max(began.elapsed() * SAMPLE_REST);
        if stop
            .run_until_cancelled(tokio::time::sleep(rest))
            .await
            .is_none()
        {
            return Ok(());
        }
    }
}

/// Does something every so often, at first after such a time: whoever starts beside it finds what there was. What fails is
/// said, and tried again the next time.
async fn each<F: Future<Output = Result<(), sqlx::Error>>>(
    period: Duration,
    stop: &CancellationToken,
    complaint: &str,
    work: impl Fn() -> F,
) {
    let mut every = tokio::time::interval_at(tokio::time::Instant::now() + period, period);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        // What is broken off rolls back.
        let worked = stop.run_until_cancelled(within(WORK_MAX, work())).await;
        if let Some(Err(error)) = worked {
            tracing::warn!(%error, "{complaint}");
        }
    }
}
