//! LISTEN: urgent jobs ring when they are committed.

use sqlx::{PgConnection, postgres::PgListener};

use super::Store;
use crate::rules::job::Lane;

/// The channel's name; the payload is the lane.
const CHANNEL: &str = "postrider_bell";

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

/// A connection that listens.
pub struct Bell {
    listener: PgListener,
}

impl Bell {
    /// Starts to listen. Register before looking, so that nothing falls between.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn listen(store: &Store) -> Result<Self, sqlx::Error> {
        let mut listener = PgListener::connect_with(store.pool()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Self { listener })
    }

    /// Waits for the next ring; `None` when the connection was lost and made again, so that rings may have been missed.
    ///
    /// # Errors
    /// When the connection is lost for good.
    pub async fn ring(&mut self) -> Result<Option<Lane>, sqlx::Error> {
        let notification = self.listener.try_recv().await?;
        Ok(notification
            .and_then(|n| n.payload().parse().ok())
            .map(Lane))
    }
}
