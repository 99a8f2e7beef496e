//! What is left of the messaging limits, for people to see. The ledger itself is in the memory of the instance that sends.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// How much of a messaging limit is used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolUsage {
    /// What the limit applies to: a portfolio's id, or a number's where `limit_scope` is `number`.
    pub pool: String,
    /// Unique recipients per rolling 24 h; `None` when unlimited.
    pub messaging_limit: Option<i32>,
    /// How many of them count now.
    pub used: i32,
    /// How many more may get a normal or bulk message now; `None` when unlimited.
    pub room_normal: Option<i32>,
    /// How many more may get an urgent one, reserve included; `None` when unlimited.
    pub room_urgent: Option<i32>,
    /// When the next of those that count leave; `None` when none does.
    pub next_return_at: Option<DateTime<Utc>>,
    /// How many leave then, or within the minute after.
    pub returns: i32,
}

/// Shows them, for a minute. The owner of a pool calls this every few seconds.
///
/// # Errors
/// When the database does not answer.
pub async fn show(pool: &PgPool, rows: &[PoolUsage]) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/store/usage_show.sql",
        &rows.iter().map(|it| it.pool.clone()).collect::<Vec<_>>(),
        &rows.iter().map(|it| it.messaging_limit).collect::<Vec<_>>() as &[Option<i32>],
        &rows.iter().map(|it| it.used).collect::<Vec<_>>(),
        &rows.iter().map(|it| it.room_normal).collect::<Vec<_>>() as &[Option<i32>],
        &rows.iter().map(|it| it.room_urgent).collect::<Vec<_>>() as &[Option<i32>],
        &rows.iter().map(|it| it.next_return_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        &rows.iter().map(|it| it.returns).collect::<Vec<_>>(),
    )
    .execute(pool)
    .await?;
    Ok(())
}
