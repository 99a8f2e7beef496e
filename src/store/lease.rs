//! The right of one instance to send for a shard: taken, renewed, handed back.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::attempt::Held;

/// A shard just taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The shard and its new epoch.
    pub held: Held,
    /// Nobody may post for it before this.
    pub free_at: DateTime<Utc>,
}

/// Takes every shard that is free, expired, or was this instance's before a restart, except those it holds now. Attempts
/// that the former holder left open are marked unknown before this returns.
///
/// # Errors
/// When the database does not answer; then nothing was taken.
pub async fn take(
    pool: &PgPool,
    instance: &str,
    ttl: Duration,
    holding: &[Held],
) -> Result<Vec<Taken>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let holding: Vec<i16> = holding.iter().map(|h| h.shard).collect();
    let rows = sqlx::query_file!(
        "src/store/lease_take.sql",
        instance,
        interval(ttl),
        &holding
    )
    .fetch_all(&mut *transaction)
    .await?;
    if let Some(since) = rows.iter().map(|row| row.settled_until).min() {
        let shards: Vec<i16> = rows.iter().map(|row| row.shard).collect();
        let orphans = sqlx::query_file!("src/store/lease_orphans.sql", &shards, since)
            .execute(&mut *transaction)
            .await?
            .rows_affected();
        if orphans > 0 {
            tracing::warn!(
                orphans,
                "{orphans} attempts were left open by a former run; they wait for their receipts"
            );
        }
    }
    transaction.commit().await?;
    Ok(rows
        .into_iter()
        .map(|row| Taken {
            held: Held {
                shard: row.shard,
                epoch: row.epoch,
            },
            free_at: row.free_at,
        })
        .collect())
}

/// Renews the leases and returns those that are still ours. `oldest_open` is the time of the oldest attempt whose outcome
/// is not written yet.
///
/// # Errors
/// When the database does not answer; then nothing was renewed.
pub async fn renew(
    pool: &PgPool,
    instance: &str,
    ttl: Duration,
    holding: &[Held],
    oldest_open: Option<DateTime<Utc>>,
) -> Result<Vec<Held>, sqlx::Error> {
    let rows = sqlx::query_file!(
        "src/store/lease_renew.sql",
        instance,
        &holding.iter().map(|h| h.shard).collect::<Vec<_>>(),
        &holding.iter().map(|h| h.epoch).collect::<Vec<_>>(),
        interval(ttl),
        oldest_open,
    )
    .fetch_all(pool)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Held {
            shard: row.shard,
            epoch: row.epoch,
        })
        .collect())
}

/// Shows people that this instance is there.
///
/// # Errors
/// When the database does not answer.
pub async fn show(pool: &PgPool, instance: &str, host: &str, pid: u32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into postrider.instance (id, host, pid, version, roles, started_at, seen_at)
         values ($1, $2, $3, $4, '{dispatch}', now(), now())
         on conflict (id) do update
         set seen_at = now(), host = excluded.host, version = excluded.version,
             started_at = case when instance.pid = excluded.pid then instance.started_at else now() end,
             pid = excluded.pid",
        instance,
        host,
        i32::try_from(pid).unwrap_or_default(),
        env!("CARGO_PKG_VERSION"),
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Gives the shards back; nobody posts for them before `settle` has passed, so that the posts of two owners never share a
/// window.
///
/// # Errors
/// When the database does not answer; then the leases run out by themselves.
pub async fn hand_back(pool: &PgPool, instance: &str, settle: Duration) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update postrider.lease
         set instance = null, expires_at = clock_timestamp(), free_at = clock_timestamp() + $2
         where instance = $1",
        instance,
        interval(settle)
    )
    .execute(pool)
    .await?;
    Ok(())
}

fn interval(duration: Duration) -> sqlx::postgres::types::PgInterval {
    sqlx::postgres::types::PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
