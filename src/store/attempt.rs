//! The committed permission to post a job once.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::rules::job::{JobId, Lane};

/// A job that memory wants to post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The job.
    pub id: JobId,
    /// Its lane.
    pub lane: Lane,
    /// Attempts answered, as memory believes.
    pub tries: i32,
    /// The shard of its number.
    pub shard: i16,
    /// Keyed hash of the person.
    pub recipient_hash: i64,
    /// Whether it counts against the messaging limit.
    pub counted: bool,
}

/// The right to send for a shard, in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The shard.
    pub shard: i16,
    /// The epoch in which it was taken.
    pub epoch: i64,
}

/// Commits an attempt for each job that may go now, and returns those with the time of the attempt. The others may not be
/// posted: somebody moved, cancelled, answered or opted out of them, or the lease is not ours any more.
///
/// # Errors
/// When the database does not answer; then nothing may be posted, and the attempts may exist all the same.
pub async fn attempt(
    pool: &PgPool,
    held: &[Held],
    wanted: &[Wanted],
) -> Result<Vec<(JobId, DateTime<Utc>)>, sqlx::Error> {
    let rows = sqlx::query_file!(
        "src/store/attempt.sql",
        &held.iter().map(|h| h.shard).collect::<Vec<_>>(),
        &held.iter().map(|h| h.epoch).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.id.0).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.lane.0).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.tries).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.shard).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.recipient_hash).collect::<Vec<_>>(),
        &wanted.iter().map(|w| w.counted).collect::<Vec<_>>(),
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (JobId(row.job), row.at))
        .collect())
}
