//! Which processes there are, for people and for each other.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

/// A process that shows itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// Its id, from its state directory.
    pub id: String,
    /// Where it runs.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// dispatch, webhook, upkeep, metrics.
    pub roles: Vec<String>,
}

/// A process that was heard of lately, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// Its id.
    pub instance: String,
    /// Where it runs.
    pub host: String,
    /// Its process id.
    pub pid: i32,
    /// Its release.
    pub version: String,
    /// What it does.
    pub roles: Vec<String>,
    /// Since when.
    pub started_at: DateTime<Utc>,
    /// Shards that it holds and that have numbers.
    pub shards: i64,
    /// Configured numbers that it sends for.
    pub numbers: i64,
}

/// Shows that the process is there.
///
/// # Errors
/// When the database does not answer.
pub async fn show(pool: &PgPool, presence: &Presence) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/store/instance_show.sql",
        presence.id,
        presence.host,
        i32::try_from(presence.pid).unwrap_or_default(),
        env!("CARGO_PKG_VERSION"),
        &presence.roles,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// The processes that were heard of within the last 15 s.
///
/// # Errors
/// When the database does not answer.
pub async fn seen(pool: &PgPool) -> Result<Vec<Seen>, sqlx::Error> {
    sqlx::query_file_as!(Seen, "src/store/instance_seen.sql")
        .fetch_all(pool)
        .await
}

/// The process ended in good order.
///
/// # Errors
/// When the database does not answer.
pub async fn leave(pool: &PgPool, id: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("delete from postrider.instance where id = $1", id)
        .execute(pool)
        .await?;
    Ok(())
}

/// Clears away who was not heard of for a day.
///
/// # Errors
/// When the database does not answer.
pub async fn forget_gone(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let gone =
        sqlx::query!("delete from postrider.instance where seen_at < now() - interval '1 day'")
            .execute(pool)
            .await?;
    Ok(gone.rows_affected())
}

/// Whether this instance does what one does for all: it does already, or nobody did for `period`. Then it is its to do for so
/// long.
///
/// # Errors
/// When the database does not answer.
pub async fn takes_duty(
    pool: &PgPool,
    name: &str,
    instance: &str,
    period: Duration,
) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query!(
        "insert into postrider.duty (name, instance, expires_at)
         values ($1, $2, clock_timestamp() + make_interval(secs => $3))
         on conflict (name) do update
         set instance = excluded.instance, expires_at = excluded.expires_at
         where duty.instance = excluded.instance or duty.expires_at <= clock_timestamp()",
        name,
        instance,
        period.as_secs_f64()
    )
    .execute(pool)
    .await?;
    Ok(taken.rows_affected() > 0)
}

/// Whoever wants the duty can have it at once.
///
/// # Errors
/// When the database does not answer; then it runs out by itself.
pub async fn leaves_duty(pool: &PgPool, name: &str, instance: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from postrider.duty where name = $1 and instance = $2",
        name,
        instance
    )
    .execute(pool)
    .await?;
    Ok(())
}
