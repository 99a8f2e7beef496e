//! The right of one instance to send for a shard: taken, renewed, handed back.
//!
//! What is told of times is told as how far off they are by the database's clock. A take-over locks the lease, and an attempt
//! shares that lock until it is committed, so no attempt of a former holder commits after a take-over: whoever has one under
//! way is waited for, and if that takes too long its session is ended.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::attempt::Held;
use crate::rules::job::Lane;

/// Who takes and renews.
#[derive(Debug, Clone)]
pub struct Holder {
    /// The instance's id, from its state directory.
    pub instance: String,
    /// What the names of this process's sessions begin with: other processes' sessions may be ended.
    pub session: String,
    /// How long a lease holds without renewal.
    pub ttl: Duration,
    /// A take-over waits so long for attempts of a former holder before it ends their sessions.
    pub patience: Duration,
}

/// A shard just taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The shard and its new epoch.
    pub held: Held,
    /// Nobody may post for it before so long has passed.
    pub free_in: Duration,
}

/// A shard that has numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The shard.
    pub shard: i16,
    /// Who holds it, or did last.
    pub instance: Option<String>,
    /// Until the lease runs out; `None` when it has.
    pub expires_in: Option<Duration>,
}

/// Who holds what, and who sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    /// Every shard that has numbers.
    pub rows: Vec<Row>,
    /// The instances that were lately heard of and do not stop.
    pub senders: BTreeSet<String>,
}

/// A shard to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Returned {
    /// The shard and the epoch in which it was held.
    pub held: Held,
    /// Nobody posts for it before so long has passed.
    pub rest: Duration,
}

/// Takes those of these shards that are free, expired, or were this instance's before a restart. Attempts that a former
/// holder left open are marked unknown before this returns.
///
/// # Errors
/// When the database does not answer; then nothing was taken, or it is not known to be.
pub async fn take(
    pool: &PgPool,
    holder: &Holder,
    shards: &[i16],
) -> Result<Vec<Taken>, sqlx::Error> {
    let mut taken = take_unlocked(pool, holder, shards).await?;
    let left: Vec<i16> = shards
        .iter()
        .copied()
        .filter(|shard| taken.iter().all(|taken| taken.held.shard != *shard))
        .collect();
    if left.is_empty() {
        return Ok(taken);
    }
    // Somebody else was faster, or an attempt of the former holder is under way.
    match wait_for_locks(pool, holder, &left).await {
        Ok(false) => return Ok(taken),
        Ok(true) => {}
        Err(error) if is_lock_timeout(&error) => end_sessions(pool, holder, &left).await?,
        Err(error) => return Err(error),
    }
    taken.extend(take_unlocked(pool, holder, &left).await?);
    Ok(taken)
}

async fn take_unlocked(
    pool: &PgPool,
    holder: &Holder,
    shards: &[i16],
) -> Result<Vec<Taken>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    wait_at_most(&mut transaction, holder.patience).await?;
    let rows = sqlx::query_file!(
        "src/store/lease_take.sql",
        holder.instance,
        interval(holder.ttl),
        shards
    )
    .fetch_all(&mut *transaction)
    .await?;
    if let Some(since) = rows.iter().filter_map(|row| row.open_since).min() {
        let shards: Vec<i16> = rows.iter().map(|row| row.shard).collect();
        // Before the first look.
        let orphans = sqlx::query_scalar!(
            r#"select postrider.mark_left_open(array(select lane from postrider.number where shard = any ($1)), $2) as "jobs!""#,
            &shards,
            since
        )
        .fetch_one(&mut *transaction)
        .await?;
        if orphans > 0 {
            tracing::warn!(
                orphans,
                "{orphans} attempts were left open by a former run; they wait for their receipts"
            );
        }
        // That may have taken a while: the lease counts from its end.
        sqlx::query!(
            "update postrider.lease set expires_at = clock_timestamp() + $2 where shard = any ($1)",
            &shards,
            interval(holder.ttl)
        )
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    let taken = rows.into_iter().map(|row| Taken {
        held: Held {
            shard: row.shard,
            epoch: row.epoch,
        },
        free_in: ahead(row.free_in).unwrap_or_default(),
    });
    Ok(taken.collect())
}

/// Whether any of the shards can still be taken, as soon as nobody has it locked.
async fn wait_for_locks(
    pool: &PgPool,
    holder: &Holder,
    shards: &[i16],
) -> Result<bool, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    wait_at_most(&mut transaction, holder.patience).await?;
    let free = sqlx::query_file!("src/store/lease_wait.sql", holder.instance, shards)
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(!free.is_empty())
}

async fn end_sessions(pool: &PgPool, holder: &Holder, shards: &[i16]) -> Result<(), sqlx::Error> {
    let own = format!("{} ", holder.session);
    let ended = sqlx::query_file!("src/store/lease_terminate.sql", shards, own)
        .fetch_all(pool)
        .await?;
    for row in ended {
        tracing::warn!(
            session = row.session,
            ended = row.ended,
            "a former holder has an attempt under way that does not end, so its session is ended"
        );
    }
    Ok(())
}

/// For the rest of the transaction.
async fn wait_at_most(
    connection: &mut PgConnection,
    patience: Duration,
) -> Result<(), sqlx::Error> {
    let patience = format!("{}ms", patience.as_millis().max(1));
    sqlx::query!(
        r#"select set_config('lock_timeout', $1, true) as "set!""#,
        patience
    )
    .fetch_one(connection)
    .await?;
    Ok(())
}

/// 55P03: a lock could not be had in time.
fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code == "55P03")
}

/// Renews the leases and returns those that are still ours. `oldest_open` is the time of the oldest attempt whose outcome
/// is not written yet.
///
/// # Errors
/// When the database does not answer; then nothing was renewed.
pub async fn renew(
    pool: &PgPool,
    holder: &Holder,
    holding: &[Held],
    oldest_open: Option<DateTime<Utc>>,
) -> Result<Vec<Held>, sqlx::Error> {
    let (shards, epochs) = apart(holding);
    let rows = sqlx::query_file!(
        "src/store/lease_renew.sql",
        holder.instance,
        &shards,
        &epochs,
        interval(holder.ttl),
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

/// Counts this instance among those that send for so long, or not any more.
///
/// # Errors
/// When the database does not answer.
pub async fn send_for(
    pool: &PgPool,
    instance: &str,
    period: Option<Duration>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update postrider.instance set sends_until = clock_timestamp() + $2 where id = $1",
        instance,
        period.map(interval) as _
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Who holds what, and who sends.
///
/// # Errors
/// When the database does not answer.
pub async fn table(pool: &PgPool) -> Result<Table, sqlx::Error> {
    let rows = sqlx::query_file!("src/store/lease_table.sql")
        .fetch_all(pool)
        .await?;
    let senders = sqlx::query_scalar!(
        "select id from postrider.instance where sends_until > clock_timestamp()"
    )
    .fetch_all(pool)
    .await?;
    Ok(Table {
        rows: rows
            .into_iter()
            .map(|row| Row {
                shard: row.shard,
                instance: row.instance,
                expires_in: ahead(row.expires_in),
            })
            .collect(),
        senders: senders.into_iter().collect(),
    })
}

/// Sees to what the former holders of numbers that came into these shards left open; returns the numbers' lanes.
///
/// # Errors
/// When the database does not answer.
pub async fn adopt(
    pool: &PgPool,
    holder: &Holder,
    holding: &[Held],
) -> Result<Vec<Lane>, sqlx::Error> {
    let (shards, epochs) = apart(holding);
    let lanes = sqlx::query_file_scalar!(
        "src/store/lease_adopt.sql",
        holder.instance,
        &shards,
        &epochs
    )
    .fetch_all(pool)
    .await?;
    Ok(lanes.into_iter().map(Lane).collect())
}

/// Gives these shards back; each rests as it says.
///
/// # Errors
/// When the database does not answer; then the leases run out by themselves.
pub async fn hand_back(
    pool: &PgPool,
    instance: &str,
    returned: &[Returned],
) -> Result<(), sqlx::Error> {
    let held: Vec<Held> = returned.iter().map(|returned| returned.held).collect();
    let (shards, epochs) = apart(&held);
    let rests: Vec<_> = returned
        .iter()
        .map(|returned| interval(returned.rest))
        .collect();
    sqlx::query_file!(
        "src/store/lease_hand_back.sql",
        instance,
        &shards,
        &epochs,
        &rests
    )
    .execute(pool)
    .await?;
    Ok(())
}

fn apart(held: &[Held]) -> (Vec<i16>, Vec<i64>) {
    held.iter().map(|held| (held.shard, held.epoch)).unzip()
}

/// Seconds to come.
fn ahead(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

fn interval(duration: Duration) -> sqlx::postgres::types::PgInterval {
    sqlx::postgres::types::PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
