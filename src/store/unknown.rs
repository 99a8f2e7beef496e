//! What becomes of jobs that were posted and got no answer: read when they are due, decided by `rules::unknown`, written.
//!
//! Any number of instances may do this at once. Each locks the jobs it decides and leaves those that another one holds, and
//! every statement asks again that the job is as it was when it was decided on.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool};

use super::{bell, facts::interval, receipts::column};
use crate::rules::{
    job::{JobId, Priority},
    unknown::{self, OnUnknown, Outage, Receiving, Resolution, Unknown, WITHOUT_EVIDENCE},
};

/// What was decided in one transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Jobs that go out again.
    pub resent: usize,
    /// The kinds of those that were given up, each as often as it was.
    pub given_up: Vec<String>,
    /// Jobs that wait longer.
    pub postponed: usize,
}

impl Resolved {
    /// How many jobs were decided on.
    #[must_use]
    pub fn len(&self) -> usize {
        self.resent + self.given_up.len() + self.postponed
    }

    /// Whether nothing was due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A job that may be due.
struct Due {
    id: JobId,
    tries: i32,
    unknown: Unknown,
    taken_at: Option<DateTime<Utc>>,
}

/// Proves that receipts can be committed now. Returns how long nobody could, when that is more than
/// [`unknown::OUTAGE_AFTER`].
///
/// # Errors
/// When the database did not commit it; then it proves nothing.
pub async fn beat(pool: &PgPool) -> Result<Option<Duration>, sqlx::Error> {
    let lasted = sqlx::query_file_scalar!(
        "src/store/receiving_beat.sql",
        interval(unknown::OUTAGE_AFTER)
    )
    .fetch_optional(pool)
    .await?;
    Ok(lasted.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// Decides at most `limit` jobs whose time may be over, when receipts can come in.
///
/// # Errors
/// When the database does not answer; then nothing was decided, or all of it and we were not told.
pub async fn resolve(pool: &PgPool, max_resends: i32, limit: i64) -> Result<Resolved, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let way =
        sqlx::query!(r#"select seen_at, clock_timestamp() as "now!" from postrider.receiving"#)
            .fetch_one(&mut *transaction)
            .await?;
    let receiving = Receiving {
        seen_at: way.seen_at,
        outages: &[],
        taken_at: None,
    };
    if !receiving.is_open(way.now) {
        return Ok(Resolved::default());
    }
    let due = due(&mut transaction, limit).await?;
    if due.is_empty() {
        transaction.rollback().await?;
        return Ok(Resolved::default());
    }
    let outages = outages(&mut transaction, &due).await?;
    let receiving = Receiving {
        outages: &outages,
        ..receiving
    };
    let decided = due.iter().map(|due| {
        let receiving = Receiving {
            taken_at: due.taken_at,
            ..receiving
        };
        let said = unknown::resolve(&due.unknown, &receiving, max_resends, way.now);
        (due, said)
    });
    let resolved = write(&mut transaction, &decided.collect::<Vec<_>>(), way.now).await?;
    transaction.commit().await?;
    Ok(resolved)
}

/// Locks the jobs that may be due. Those whose receipt is here already, and only not folded yet, are left to it.
async fn due(conn: &mut PgConnection, limit: i64) -> Result<Vec<Due>, sqlx::Error> {
    let rows = sqlx::query_file!(
        "src/store/unknown_due.sql",
        limit,
        f64::from(WITHOUT_EVIDENCE)
    )
    .fetch_all(&mut *conn)
    .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let told =
        sqlx::query_file_scalar!("src/store/unknown_told.sql", &column(&rows, |row| row.id.0))
            .fetch_all(conn)
            .await?;
    let due = rows.into_iter().map(|row| Due {
        id: row.id,
        tries: row.tries,
        unknown: Unknown {
            since: row.since,
            resolve_after: Duration::from_secs_f64(row.resolve_after_s.max(0.0)),
            on_unknown: if row.resends_kind {
                OnUnknown::Resend
            } else {
                OnUnknown::Stop
            },
            resends: row.resends,
            expires_at: row.expires_at,
        },
        taken_at: row.taken_at,
    });
    Ok(due.filter(|due| !told.contains(&due.id)).collect())
}

/// The outages that may matter to these jobs, oldest first.
async fn outages(conn: &mut PgConnection, due: &[Due]) -> Result<Vec<Outage>, sqlx::Error> {
    let since = due.iter().map(|due| due.unknown.since).min();
    sqlx::query_as!(
        Outage,
        "select began, ended from postrider.webhook_outage where ended > $1 order by began",
        since.map(|since| since - TimeDelta::hours(1))
    )
    .fetch_all(conn)
    .await
}

async fn write(
    conn: &mut PgConnection,
    decided: &[(&Due, Resolution)],
    now: DateTime<Utc>,
) -> Result<Resolved, sqlx::Error> {
    let which = |wanted: Resolution| -> Vec<&Due> {
        let chosen = decided.iter().filter(|(_, said)| *said == wanted);
        chosen.map(|(due, _)| *due).collect()
    };
    let resent = resend(conn, &which(Resolution::Resend)).await?;
    let given_up = give_up(conn, &which(Resolution::GiveUp)).await?;
    let waiting = decided.iter().filter_map(|(due, said)| match said {
        Resolution::Wait(until) => Some((*due, asked_again(due, *until, now))),
        _ => None,
    });
    let postponed = postpone(conn, &waiting.collect::<Vec<_>>()).await?;
    Ok(Resolved {
        resent,
        given_up,
        postponed,
    })
}

/// Evidence may come before the time is over without it.
fn asked_again(due: &Due, until: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
    until.min(now + due.unknown.resolve_after)
}

/// Puts jobs back into the queue, for their next attempt, and rings for those that are urgent.
async fn resend(conn: &mut PgConnection, jobs: &[&Due]) -> Result<usize, sqlx::Error> {
    if jobs.is_empty() {
        return Ok(0);
    }
    let again = sqlx::query_file!(
        "src/store/unknown_resend.sql",
        &column(jobs, |due| due.id.0),
        &column(jobs, |due| due.tries)
    )
    .fetch_all(&mut *conn)
    .await?;
    let urgent = again
        .iter()
        .filter(|row| Priority::from_i16(row.priority) == Some(Priority::Urgent));
    let mut lanes: Vec<i32> = urgent.map(|row| row.lane).collect();
    lanes.sort_unstable();
    lanes.dedup();
    if !lanes.is_empty() {
        bell::ring_for(conn, &lanes).await?;
    }
    for row in &again {
        tracing::debug!(
            job.id = row.id.0,
            "job {} got no answer and no receipt; it is sent again",
            row.id
        );
    }
    Ok(again.len())
}

/// Makes jobs dead letters; returns the kind of each.
async fn give_up(conn: &mut PgConnection, jobs: &[&Due]) -> Result<Vec<String>, sqlx::Error> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_file_scalar!(
        "src/store/unknown_give_up.sql",
        &column(jobs, |due| due.id.0),
        &column(jobs, |due| due.tries)
    )
    .fetch_all(conn)
    .await
}

async fn postpone(
    conn: &mut PgConnection,
    jobs: &[(&Due, DateTime<Utc>)],
) -> Result<usize, sqlx::Error> {
    if jobs.is_empty() {
        return Ok(0);
    }
    let done = sqlx::query!(
        "update postrider.queue
         set due_at = later.due_at, unknown_since = coalesce(queue.unknown_since, later.since)
         from unnest($1::bigint[], $2::int[], $3::timestamptz[], $4::timestamptz[]) as later(id, tries, due_at, since)
         where queue.id = later.id and queue.tries = later.tries and queue.state = 'unknown'",
        &column(jobs, |(due, _)| due.id.0),
        &column(jobs, |(due, _)| due.tries),
        &column(jobs, |(_, until)| *until),
        &column(jobs, |(due, _)| due.unknown.since)
    )
    .execute(conn)
    .await?;
    Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
}
