//! LISTEN: urgent jobs ring when they are committed.

use std::time::{Duration, Instant};

use sqlx::{PgConnection, postgres::PgListener};

use super::{Store, within};
use crate::rules::job::Lane;

/// The channel's name; the payload is the lane.
const CHANNEL: &str = "postrider_bell";
/// When nothing rang for so long, we ask whether anybody is there: a connection that is half-open is silent too.
const QUIET: Duration = Duration::from_secs(10);
/// What is asked takes no time.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Rings for these lanes when the transaction commits.
///
/// # Errors
/// When the database is away.
pub(super) async fn ring_for(conn: &mut PgConnection, lanes: &[i32]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select pg_notify($1, lane::text) from unnest($2::int[]) as lane",
        CHANNEL,
        lanes
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A connection that listens. It is nobody else's, so that one that hangs takes no place in a pool.
pub struct Bell {
    listener: PgListener,
    store: Store,
    since: Instant,
}

impl Bell {
    /// Starts to listen. Register before looking, so that nothing falls between.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn listen(store: &Store) -> Result<Self, sqlx::Error> {
        let since = Instant::now();
        let pool = store.route.private_pool();
        let mut listener = within(ANSWER_MAX, PgListener::connect_with(&pool)).await?;
        within(ANSWER_MAX, listener.listen(CHANNEL)).await?;
        Ok(Self {
            listener,
            store: store.clone(),
            since,
        })
    }

    /// Waits for the next ring; `None` when the connection was lost and made again, so that rings may have been missed.
    ///
    /// # Errors
    /// When the connection is lost for good, or leads to a server that is no longer used.
    pub async fn ring(&mut self) -> Result<Option<Lane>, sqlx::Error> {
        loop {
            let Ok(rung) = tokio::time::timeout(QUIET, self.listener.try_recv()).await else {
                self.check().await?;
                continue;
            };
            return Ok(rung?.and_then(|n| n.payload().parse().ok()).map(Lane));
        }
    }

    async fn check(&mut self) -> Result<(), sqlx::Error> {
        if !self.store.route.trusts(self.since.elapsed()) {
            let gone = "the server that it leads to is no longer used";
            return Err(sqlx::Error::Configuration(gone.into()));
        }
        let asking = sqlx::raw_sql("select 1").execute(&mut self.listener);
        within(ANSWER_MAX, asking).await.map(drop)
    }
}
