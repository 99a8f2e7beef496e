//! Proves conservation (I1) on a busy system, range by range of the jobs' ids. Each range is one statement, so one snapshot,
//! and one short transaction; what is finished is closed and not looked at again.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgPool, types::Json};

use crate::rules::conservation::Places;

/// Ids of a range; `verify_range` counts in these.
pub const RANGE: i64 = 10_000;
/// So many jobs that are off are named in a range; all of them are counted.
const NAMED_MAX: i64 = 1_000;

/// What one look at a range saw.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Jobs that were enqueued.
    pub jobs: i64,
    /// Rows of the queue.
    pub queue: i64,
    /// Messages.
    pub message: i64,
    /// Dead letters.
    pub dead_letter: i64,
    /// Dead letters that were dropped.
    pub dropped: i64,
    /// Jobs that were off.
    pub jobs_off: i64,
    /// Those of them that are named, by id.
    pub off: Vec<Places>,
    /// Whether the range is closed now.
    pub is_closed: bool,
}

/// Which ranges are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that are not closed.
    Open,
    /// Closed ones too.
    All,
}

/// What is known of all ranges together, by the last look at each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// Jobs that were off.
    pub jobs_off: i64,
    /// Jobs of closed ranges.
    pub jobs_closed: i64,
    /// The first id that is not in a closed range; everything before it is proven and finished.
    pub open_from: i64,
}

/// The newest id that was given to a job. Its transaction may not have ended.
///
/// # Errors
/// When the database does not answer.
pub async fn newest(pool: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!("select last_value from postrider.job_id")
        .fetch_one(pool)
        .await
}

/// Transactions that took an id and have not ended, by the lock on the sequence that each holds until then, prepared ones
/// included (PostgreSQL 14 to 18, commands/sequence.c, `lock_and_open_sequence`).
///
/// # Errors
/// When the database does not answer.
pub async fn open_transactions(pool: &PgPool) -> Result<BTreeSet<String>, sqlx::Error> {
    let names = sqlx::query_scalar!(
        r#"select virtualtransaction as "name!" from pg_locks
           where locktype = 'relation' and relation = 'postrider.job_id'::regclass and mode = 'RowExclusiveLock'
             and database = (select oid from pg_database where datname = current_database())"#
    )
    .fetch_all(pool)
    .await?;
    Ok(names.into_iter().collect())
}

/// Makes the ranges up to an id that are not there yet, and lets Postgres find them quickly.
///
/// # Errors
/// When the database does not answer.
pub async fn prepare(pool: &PgPool, newest: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into postrider.verify_range (range)
         select generate_series((select coalesce(max(range) + 1, 0) from postrider.verify_range), $1)
         on conflict do nothing",
        newest / RANGE
    )
    .execute(pool)
    .await?;
    sqlx::query!("select postrider.summarize_enqueued()")
        .execute(pool)
        .await?;
    Ok(())
}

/// At most `limit` open ranges, those first that were not looked at for the longest, and none that somebody else has just
/// looked at.
///
/// # Errors
/// When the database does not answer.
pub async fn due(pool: &PgPool, limit: i64) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "select range from postrider.verify_range
         where closed_at is null and (looked_at is null or looked_at < now() - interval '20 seconds')
         order by looked_at nulls first, range limit $1",
        limit
    )
    .fetch_all(pool)
    .await
}

/// The ranges, in the order of their ids.
///
/// # Errors
/// When the database does not answer.
pub async fn ranges(pool: &PgPool, which: Which) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "select range from postrider.verify_range where closed_at is null or $1 order by range",
        which == Which::All
    )
    .fetch_all(pool)
    .await
}

/// Looks at a range and notes what it saw. Closes it when nothing is off and everything has ended, if `decided`, the id up
/// to which no transaction can add a job, lies behind it.
///
/// # Errors
/// When the database does not answer; then nothing is noted.
pub async fn look(pool: &PgPool, range: i64, decided: i64) -> Result<Seen, sqlx::Error> {
    let mut tx = pool.begin().await?;
    by_indexes(&mut tx).await?;
    let may_close = decided >= (range + 1) * RANGE - 1 && nobody_moves(&mut tx, range).await?;
    let row = sqlx::query_file!(
        "src/store/verify_look.sql",
        range * RANGE,
        (range + 1) * RANGE,
        NAMED_MAX
    )
    .fetch_one(&mut *tx)
    .await?;
    let seen = Seen {
        jobs: row.jobs,
        queue: row.queue,
        message: row.message,
        dead_letter: row.dead_letter,
        dropped: row.dropped,
        jobs_off: row.jobs_off,
        off: row.off.0,
        is_closed: may_close && row.queue == 0 && row.jobs_off == 0,
    };
    note(&mut tx, range, &seen).await?;
    tx.commit().await?;
    Ok(seen)
}

/// Has the rest of a transaction planned by indexes. Ten thousand ids look like much to Postgres, and it would read whole
/// tables, with several processes, wherever the session allows it.
///
/// # Errors
/// When the database does not answer.
pub async fn by_indexes(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select set_config('enable_seqscan', 'off', true) as scans,
                set_config('max_parallel_workers_per_gather', '0', true) as workers"
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Keeps dead letters of the range where they are until the transaction ends, unless one of them is on its way already.
async fn nobody_moves(conn: &mut PgConnection, range: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(hashtext('postrider.verify'), $1::bigint::integer) as "locked!""#,
        range
    )
    .fetch_one(conn)
    .await
}

/// A range that was closed stays so while nothing is off: a look at it again closes nothing and opens nothing.
async fn note(conn: &mut PgConnection, range: i64, seen: &Seen) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update postrider.verify_range
         set looked_at = clock_timestamp(), jobs = $2, jobs_off = $3,
             closed_at = case
               when $3 = 0 then coalesce(closed_at, case when $4 then clock_timestamp() end)
             end
         where range = $1",
        range,
        i32::try_from(seen.jobs).unwrap_or(i32::MAX),
        i32::try_from(seen.jobs_off).unwrap_or(i32::MAX),
        seen.is_closed
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// All ranges together.
///
/// # Errors
/// When the database does not answer.
pub async fn standing(pool: &PgPool) -> Result<Standing, sqlx::Error> {
    let row = sqlx::query!(
        r#"select
             coalesce(sum(jobs_off), 0)::bigint as "jobs_off!",
             coalesce(sum(jobs) filter (where closed_at is not null), 0)::bigint as "jobs_closed!",
             coalesce(min(range) filter (where closed_at is null), max(range) + 1, 0) as "open_from!"
           from postrider.verify_range"#
    )
    .fetch_one(pool)
    .await?;
    Ok(Standing {
        jobs_off: row.jobs_off,
        jobs_closed: row.jobs_closed,
        open_from: row.open_from * RANGE,
    })
}

/// A job that is off, with all that is known of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Known {
    /// The job.
    pub job: i64,
    /// What it is about.
    pub kind: Option<String>,
    /// The database role that enqueued it.
    pub producer: Option<String>,
    /// When.
    pub enqueued_at: Option<DateTime<Utc>>,
    /// Where it is.
    pub places: Vec<String>,
    /// How often permission to post it was written.
    pub attempts: i64,
    /// When last.
    pub last_attempt_at: Option<DateTime<Utc>>,
    /// What the provider said last, where that was no acceptance.
    pub last_answer: Option<String>,
    /// Receipts of it that found no message.
    pub receipts_waiting: i64,
}

/// What is known of these jobs, by id.
///
/// # Errors
/// When the database does not answer.
pub async fn known(pool: &PgPool, jobs: &[i64]) -> Result<Vec<Known>, sqlx::Error> {
    sqlx::query_file_as!(Known, "src/store/verify_known.sql", jobs)
        .fetch_all(pool)
        .await
}
