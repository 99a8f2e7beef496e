//! Moving jobs to another number of their sender pool when theirs cannot send.
//!
//! A move locks the queue rows first and looks for open attempts in a second statement, as `cancel` does: what may have been
//! posted stays where it is. The attempt statement joins on the lane, so a copy that is still in somebody's memory under
//! the old lane gets no permission. Together: no job goes out twice because it moved.

use sqlx::PgPool;

use crate::rules::job::{JobId, Lane};

/// Jobs of one statement.
pub const BATCH_MAX: usize = 1_000;

/// Lanes with jobs whose shard the instance holds, also of numbers that the configuration no longer names.
///
/// # Errors
/// When the database does not answer.
pub async fn lanes(pool: &PgPool, instance: &str) -> Result<Vec<Lane>, sqlx::Error> {
    sqlx::query_file_scalar!("src/store/moves_lanes.sql", instance)
        .fetch_all(pool)
        .await
}

/// Moves at most [`BATCH_MAX`] due jobs of the lane, urgent ones first, each to the next lane of its pool among those that
/// are `usable`; returns how many came to which lane. Nothing moves while another instance holds the lane's lease, out of a
/// pool that is strict and still has the lane, and where no attempt may be open.
///
/// # Errors
/// When the database does not answer; then nothing is moved.
pub async fn away(
    pool: &PgPool,
    instance: &str,
    lane: Lane,
    usable: &[Lane],
) -> Result<Vec<(Lane, u64)>, sqlx::Error> {
    let usable: Vec<i32> = usable.iter().map(|lane| lane.0).collect();
    let mut transaction = pool.begin().await?;
    let locked = sqlx::query_file!(
        "src/store/moves_lock.sql",
        instance,
        lane.0,
        &usable,
        BATCH_MAX as i64
    )
    .fetch_all(&mut *transaction)
    .await?;
    if locked.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, lanes): (Vec<i64>, Vec<i32>) =
        locked.iter().map(|row| (row.id.0, row.lane.0)).unzip();
    let moved = sqlx::query_file!("src/store/moves.sql", &ids, &lanes)
        .fetch_all(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok(moved
        .into_iter()
        .map(|row| (row.lane, row.jobs.unsigned_abs()))
        .collect())
}
