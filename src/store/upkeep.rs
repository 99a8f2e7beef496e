//! What has to be done now and then: partitions made and dropped, expired jobs swept.

use chrono::{Days, NaiveDate};
use sqlx::PgPool;

use super::settle::Ended;

/// Makes the partitions from the day before yesterday to a week ahead; returns how many were missing.
///
/// # Errors
/// When the database does not answer, or a lock could not be had within 2 s.
pub async fn ensure_partitions(pool: &PgPool, today: NaiveDate) -> Result<i32, sqlx::Error> {
    let made = sqlx::query_scalar!(
        r#"select postrider.ensure_partitions($1, $2) as "made!""#,
        today - Days::new(2),
        today + Days::new(7)
    )
    .fetch_one(pool)
    .await?;
    Ok(made)
}

/// Ends at most `limit` jobs whose validity is over and that nobody is sending; returns what became of them. Works for every lane,
/// also for those that are paused.
///
/// # Errors
/// When the database does not answer.
pub async fn expire(pool: &PgPool, limit: i64) -> Result<Vec<Ended>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let locked = sqlx::query_scalar!(
        "select id from postrider.queue
         where expires_at <= now() and state = 'queued'
         order by expires_at
         limit $1
         for update skip locked",
        limit
    )
    .fetch_all(&mut *transaction)
    .await?;
    if locked.is_empty() {
        return Ok(Vec::new());
    }
    let expired = sqlx::query_file_as!(Ended, "src/store/expire.sql", &locked)
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(expired)
}
