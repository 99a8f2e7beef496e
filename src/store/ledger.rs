//! What the ledger of a pool is rebuilt from, and what it has to know of beside its own posts.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt;
use sqlx::PgPool;

use super::facts::interval;
use crate::rules::{
    job::Lane,
    pair::{Allowance, Pair},
};

/// A person, by keyed hash, with the time of their last attempt that counts or, where the provider held a message, of its
/// sending.
pub type LastCounted = (i64, DateTime<Utc>);

/// Who counts against the messaging limits of these pools, each given by its lanes. `whole_portfolios`: the limits are those
/// of portfolios, and numbers that are no longer configured count too.
///
/// # Errors
/// When the database does not answer.
pub async fn posts(
    pool: &PgPool,
    pools: &[Vec<Lane>],
    whole_portfolios: bool,
) -> Result<Vec<Vec<LastCounted>>, sqlx::Error> {
    let lanes = (0_i32..)
        .zip(pools)
        .flat_map(|(pool, lanes)| lanes.iter().map(move |lane| (lane.0, pool)));
    let (lanes, pool_of): (Vec<i32>, Vec<i32>) = lanes.unzip();
    let mut rows =
        sqlx::query_file!("src/store/ledger.sql", &lanes, &pool_of, whole_portfolios).fetch(pool);
    let mut posts = vec![Vec::new(); pools.len()];
    while let Some(row) = rows.try_next().await? {
        posts[row.pool as usize].push((row.person, row.at));
    }
    Ok(posts)
}

/// How many messages each pair of these lanes got within [`Allowance::memory`], for [`Pairs::rebuild`]. `margin` is what may
/// lie between an attempt and its post. Of messages from phone apps, those of which we had been told at `asked_at`.
///
/// [`Pairs::rebuild`]: crate::rules::pair::Pairs::rebuild
///
/// # Errors
/// When the database does not answer.
pub async fn pairs(
    pool: &PgPool,
    lanes: &[Lane],
    allowance: Allowance,
    margin: Duration,
    asked_at: DateTime<Utc>,
) -> Result<Vec<(Pair, u32)>, sqlx::Error> {
    let lanes: Vec<i32> = lanes.iter().map(|lane| lane.0).collect();
    let rows = sqlx::query_file!(
        "src/store/pairs.sql",
        &lanes,
        interval(allowance.memory() + margin),
        interval(allowance.refill + margin),
        asked_at
    )
    .fetch_all(pool)
    .await?;
    let counted = rows.into_iter().map(|row| {
        let messages = u32::try_from(row.messages).unwrap_or(u32::MAX);
        ((row.lane, row.recipient_hash), messages)
    });
    Ok(counted.collect())
}

/// A message that the provider held and has sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Released {
    /// The number that it goes out from.
    pub lane: Lane,
    /// Keyed hash of the person.
    pub recipient_hash: i64,
    /// When it was sent, by the provider's clock.
    pub at: DateTime<Utc>,
    /// When we were told.
    pub noted_at: DateTime<Utc>,
}

/// The held messages of which we were told since then that they are sent, in the order in which we were told. Those of the
/// half minute before come again, because one that is committed late was noted before.
///
/// # Errors
/// When the database does not answer.
pub async fn released_since(
    pool: &PgPool,
    since: DateTime<Utc>,
) -> Result<Vec<Released>, sqlx::Error> {
    sqlx::query_file_as!(Released, "src/store/released_since.sql", since)
        .fetch_all(pool)
        .await
}

/// Deletes what no ledger needs any more; returns how many.
///
/// # Errors
/// When the database does not answer.
pub async fn forget_released(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let deleted =
        sqlx::query!("delete from postrider.released where noted_at < now() - interval '25 hours'")
            .execute(pool)
            .await?;
    Ok(deleted.rows_affected())
}
