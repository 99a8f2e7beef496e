//! What the ledger of a pool is rebuilt from.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::rules::job::Lane;

/// Who counts against the messaging limit of the pool of these lanes, by keyed hash, with the time of their last counted
/// attempt. `whole_portfolio`: the limit is the portfolio's, and numbers that are no longer configured count too.
///
/// # Errors
/// When the database does not answer.
pub async fn posts(
    pool: &PgPool,
    lanes: &[Lane],
    whole_portfolio: bool,
) -> Result<Vec<(i64, DateTime<Utc>)>, sqlx::Error> {
    let lanes: Vec<i32> = lanes.iter().map(|lane| lane.0).collect();
    let rows = sqlx::query_file!("src/store/ledger.sql", &lanes, whole_portfolio)
        .fetch_all(pool)
        .await?;
    Ok(rows.into_iter().map(|row| (row.person, row.at)).collect())
}
