//! LISTEN: urgent jobs ring when they are committed.

use sqlx::postgres::PgListener;

use super::Store;
use crate::rules::job::Lane;

/// The channel's name; the payload is the lane.
const CHANNEL: &str = "postrider_bell";

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
