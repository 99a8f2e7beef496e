//! The fold: brings receipts from the inbox into their messages.
//!
//! One folds at a time in the whole database, held by an advisory lock for the length of a transaction; that one backend
//! keeps up with far more than one machine can send, and nothing needs to be locked row by row. A transaction takes what
//! is due, joins what was said of each attempt (`rules::receipt`), updates one day's messages at a time so that each
//! statement touches one partition, and lets the rows leave the inbox. A receipt whose message is not there is either
//! the first word about an attempt whose answer was lost, and settles the job, or it is early and waits.
//!
//! Dying half-way rolls back; doing it twice changes nothing.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::{PgConnection, PgPool, error::DatabaseError};

use super::{
    is_bad_value,
    people::{self, Wish},
    receipts::column,
};
use crate::rules::{
    job::{FinalReason, State},
    outcome::failure_reason,
    receipt::{Failure, Progress, Status},
};

/// The provider's word that somebody does not want marketing from this business.
const OPTED_OUT_OF_MARKETING: i32 = 131_050;

/// A job and the number of an attempt.
type Attempt = (i64, i32);

type Time = Option<DateTime<Utc>>;

/// What one fold did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoldReport {
    /// Receipts that were due.
    pub taken: usize,
    /// Receipts that are in their messages now.
    pub folded: usize,
    /// Jobs whose answer was lost and that a receipt settled.
    pub settled: usize,
    /// The kinds of those of them that were still in the queue, each as often as it was.
    pub left_queue: Vec<String>,
    /// Receipts that wait for their message.
    pub parked: usize,
    /// When the oldest of the folded ones came in.
    pub oldest: Option<DateTime<Utc>>,
}

impl FoldReport {
    fn add(&mut self, other: &FoldReport) {
        self.taken += other.taken;
        self.folded += other.folded;
        self.settled += other.settled;
        self.left_queue.extend_from_slice(&other.left_queue);
        self.parked += other.parked;
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
    }
}

/// A row of the inbox.
struct Row {
    id: i64,
    received_at: DateTime<Utc>,
    job: i64,
    attempt: i32,
    lane: i32,
    day: NaiveDate,
    provider_id: String,
    status: String,
    at: DateTime<Utc>,
    error_code: Option<i32>,
    error_title: Option<String>,
    pricing_category: Option<String>,
    pricing_type: Option<String>,
}

/// All that a batch says of one attempt.
struct Said {
    job: i64,
    attempt: i32,
    lane: i32,
    provider_id: String,
    progress: Progress,
    first_at: DateTime<Utc>,
    first_received_at: DateTime<Utc>,
    ids: Vec<i64>,
}

/// Folds up to `limit` receipts that are due. When somebody else is folding, there is nothing to do. A receipt that the
/// database refuses is set aside, and the others are folded.
pub async fn fold(pool: &PgPool, limit: i64) -> Result<FoldReport, sqlx::Error> {
    match step(pool, limit, None).await {
        Err(error) if is_refused(&error) => one_by_one(pool, limit).await,
        result => result,
    }
}

/// Whether it is one receipt's fault; its day may have no partition, for one.
fn is_refused(error: &sqlx::Error) -> bool {
    let breaks_rule =
        |error: &dyn DatabaseError| error.code().is_some_and(|code| code.starts_with("23"));
    is_bad_value(error) || error.as_database_error().is_some_and(breaks_rule)
}

async fn one_by_one(pool: &PgPool, limit: i64) -> Result<FoldReport, sqlx::Error> {
    let mut total = FoldReport::default();
    let due = sqlx::query_file_as!(Row, "src/store/fold_take.sql", limit, None::<i64>)
        .fetch_all(pool)
        .await?;
    for id in column(&due, |row| row.id) {
        match step(pool, 1, Some(id)).await {
            Ok(report) => total.add(&report),
            Err(error) if is_refused(&error) => {
                tracing::error!(receipt.id = id, %error, "a receipt cannot be folded; it is tried again in ten minutes");
                set_aside(pool, id).await?;
                total.taken += 1;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

/// One transaction. It is ended here and not by dropping it, because that happens some time later, and until then nobody
/// else could fold.
async fn step(pool: &PgPool, limit: i64, only: Option<i64>) -> Result<FoldReport, sqlx::Error> {
    let mut tx = pool.begin().await?;
    let report = take_and_apply(&mut tx, limit, only).await;
    match report {
        Ok(_) => tx.commit().await?,
        Err(_) => tx.rollback().await?,
    }
    report
}

async fn take_and_apply(
    conn: &mut PgConnection,
    limit: i64,
    only: Option<i64>,
) -> Result<FoldReport, sqlx::Error> {
    if !alone(conn).await? {
        return Ok(FoldReport::default());
    }
    let rows = sqlx::query_file_as!(Row, "src/store/fold_take.sql", limit, only)
        .fetch_all(&mut *conn)
        .await?;
    if rows.is_empty() {
        return Ok(FoldReport::default());
    }
    let ids = column(&rows, |row| row.id);
    let oldest = rows.iter().map(|row| row.received_at).min();
    let (mut early, mut settled, mut newest) = (HashSet::new(), Vec::new(), Newest::default());
    for (day, said) in by_day(rows) {
        let mut missing = apply(conn, day, &said.iter().collect::<Vec<_>>(), &mut newest).await?;
        let found = settle(conn, day, &missing).await?;
        if !found.is_empty() {
            settled.extend(found);
            missing = apply(conn, day, &missing, &mut newest).await?;
        }
        early.extend(missing.iter().flat_map(|said| said.ids.iter().copied()));
    }
    newest.note(conn).await?;
    let (parked, done): (Vec<i64>, Vec<i64>) = ids.iter().partition(|id| early.contains(*id));
    leave_inbox(conn, &done).await?;
    park(conn, &parked).await?;
    let (taken, folded, parked) = (ids.len(), done.len(), parked.len());
    Ok(FoldReport {
        taken,
        folded,
        settled: settled.len(),
        left_queue: settled
            .into_iter()
            .filter(|job| job.was_queued)
            .map(|job| job.kind)
            .collect(),
        parked,
        oldest,
    })
}

/// Whether nobody else is folding. A process that is frozen in the middle loses its transaction, so that another can go
/// on.
async fn alone(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select pg_try_advisory_xact_lock(hashtext('postrider.fold'))
             and set_config('idle_in_transaction_session_timeout', '10s', true) <> '' as "alone!""#
    )
    .fetch_one(conn)
    .await
}

/// Joins what was said of each attempt, ordered by day, job and attempt.
fn by_day(rows: Vec<Row>) -> BTreeMap<NaiveDate, Vec<Said>> {
    let mut attempts: BTreeMap<(NaiveDate, i64, i32), Said> = BTreeMap::new();
    for row in rows {
        let key = (row.day, row.job, row.attempt);
        match attempts.remove(&key) {
            Some(said) => attempts.insert(key, said.and(row)),
            None => attempts.insert(key, Said::by(row)),
        };
    }
    let mut days: BTreeMap<NaiveDate, Vec<Said>> = BTreeMap::new();
    for ((day, ..), said) in attempts {
        days.entry(day).or_default().push(said);
    }
    days
}

impl Said {
    fn by(row: Row) -> Said {
        Said {
            job: row.job,
            attempt: row.attempt,
            lane: row.lane,
            first_at: row.at,
            first_received_at: row.received_at,
            ids: vec![row.id],
            provider_id: row.provider_id.clone(),
            progress: progress(row),
        }
    }

    fn and(mut self, row: Row) -> Said {
        self.ids.push(row.id);
        self.first_at = self.first_at.min(row.at);
        self.first_received_at = self.first_received_at.min(row.received_at);
        self.progress = self.progress.join(progress(row));
        self
    }
}

fn progress(row: Row) -> Progress {
    // The webhook puts only statuses that we know into the inbox.
    let status = Status::parse(&row.status).unwrap_or(Status::Sent);
    let mut progress = Progress::of(status, row.at);
    if status == Status::Failed {
        progress.failure = Failure {
            at: Some(row.at),
            code: row.error_code,
            title: row.error_title,
        };
    }
    Progress {
        pricing_category: row.pricing_category,
        pricing_type: row.pricing_type,
        ..progress
    }
}

fn key(said: &Said) -> Attempt {
    (said.job, said.attempt)
}

/// Brings what was said into the messages of one day, and heeds what it says about marketing. Returns those that have no
/// message there.
async fn apply<'a>(
    conn: &mut PgConnection,
    day: NaiveDate,
    said: &[&'a Said],
    newest: &mut Newest,
) -> Result<Vec<&'a Said>, sqlx::Error> {
    let progress = |s: &&'a Said| &s.progress;
    let reached = sqlx::query_file!(
        "src/store/fold_apply.sql",
        day,
        &column(said, |s| s.job),
        &column(said, |s| s.attempt),
        &column(said, |s| s.provider_id.as_str()) as &[&str],
        &column(said, |s| progress(s).state.as_str()) as &[&str],
        &column(said, |s| reason(progress(s))) as &[Option<&str>],
        &column(said, |s| progress(s).sent_at) as &[Time],
        &column(said, |s| progress(s).delivered_at) as &[Time],
        &column(said, |s| progress(s).read_at) as &[Time],
        &column(said, |s| progress(s).failure.at) as &[Time],
        &column(said, |s| progress(s).failure.code) as &[Option<i32>],
        &column(said, |s| progress(s).failure.title.as_deref()) as &[Option<&str>],
        &column(said, |s| progress(s).pricing_category.as_deref()) as &[Option<&str>],
        &column(said, |s| progress(s).pricing_type.as_deref()) as &[Option<&str>],
    )
    .fetch_all(&mut *conn)
    .await?;
    let lanes: HashMap<Attempt, i32> = said.iter().map(|s| (key(s), s.lane)).collect();
    let mut people: HashMap<Attempt, String> = HashMap::new();
    for row in reached {
        let attempt = (row.job, row.attempt);
        newest.see(lanes[&attempt], attempt, day, row.accepted_at);
        people.insert(attempt, row.recipient_key);
    }
    heed_marketing(conn, said, &people).await?;
    Ok(said
        .iter()
        .copied()
        .filter(|s| !people.contains_key(&key(s)))
        .collect())
}

/// Of each lane, the latest message that a receipt came for: the evidence that receipts flow.
#[derive(Default)]
struct Newest(HashMap<i32, (DateTime<Utc>, Attempt, NaiveDate)>);

impl Newest {
    fn see(&mut self, lane: i32, attempt: Attempt, day: NaiveDate, accepted_at: DateTime<Utc>) {
        let seen = (accepted_at, attempt, day);
        let newest = self.0.entry(lane).or_insert(seen);
        *newest = seen.max(*newest);
    }

    /// Writes down, for each account, up to when it was posted.
    async fn note(&self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut newest: Vec<_> = self.0.iter().collect();
        newest.sort_unstable();
        sqlx::query_file!(
            "src/store/fold_flow.sql",
            &column(&newest, |(_, (_, attempt, _))| attempt.0),
            &column(&newest, |(_, (_, attempt, _))| attempt.1),
            &column(&newest, |(lane, _)| **lane),
            &column(&newest, |(_, (.., day))| *day),
        )
        .execute(conn)
        .await?;
        Ok(())
    }
}

/// Why it failed, in our words.
fn reason(progress: &Progress) -> Option<&'static str> {
    let reason = || {
        progress
            .failure
            .code
            .map_or(FinalReason::ProviderRefused, failure_reason)
    };
    (progress.state == State::Failed).then(|| reason().as_str())
}

/// Opts people out of marketing where the provider says that they did so with it.
async fn heed_marketing(
    conn: &mut PgConnection,
    said: &[&Said],
    people: &HashMap<Attempt, String>,
) -> Result<(), sqlx::Error> {
    let withdrawn = |s: &&&Said| s.progress.failure.code == Some(OPTED_OUT_OF_MARKETING);
    let wish = |s: &&Said| {
        let key = people.get(&key(s))?.clone();
        let at = s.progress.failure.at?;
        Some(Wish {
            key,
            scope: "marketing".to_owned(),
            given: false,
            at,
            source: "provider",
            evidence: None,
        })
    };
    let wishes: Vec<Wish> = said.iter().filter(withdrawn).filter_map(wish).collect();
    if wishes.is_empty() {
        return Ok(());
    }
    people::heed(conn, &wishes).await
}

/// A job that a receipt settled.
struct Settled {
    kind: String,
    /// Not given up before.
    was_queued: bool,
}

/// Settles the jobs among these whose attempt nobody answered, as accepted.
async fn settle(
    conn: &mut PgConnection,
    day: NaiveDate,
    said: &[&Said],
) -> Result<Vec<Settled>, sqlx::Error> {
    let locked = lock(conn, said).await?;
    if locked.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_file_as!(
        Settled,
        "src/store/fold_settle.sql",
        day,
        &column(said, |s| s.job),
        &column(said, |s| s.attempt),
        &column(said, |s| s.lane),
        &column(said, |s| s.provider_id.as_str()) as &[&str],
        &column(said, |s| s.first_at),
        &column(said, |s| s.first_received_at),
        &locked,
    )
    .fetch_all(conn)
    .await
}

/// Locks the jobs that these may be the first word about.
async fn lock(conn: &mut PgConnection, said: &[&Said]) -> Result<Vec<i64>, sqlx::Error> {
    if said.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query_file_scalar!(
        "src/store/fold_lock.sql",
        &column(said, |s| s.job),
        &column(said, |s| s.attempt),
        &column(said, |s| s.first_received_at),
    )
    .fetch_all(conn)
    .await
}

async fn leave_inbox(conn: &mut PgConnection, ids: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from postrider.receipt_inbox where id = any($1)",
        ids
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn park(conn: &mut PgConnection, ids: &[i64]) -> Result<(), sqlx::Error> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query_file!("src/store/fold_park.sql", ids)
        .execute(conn)
        .await?;
    Ok(())
}

async fn set_aside(pool: &PgPool, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update postrider.receipt_inbox set fold_at = now() + interval '10 minutes' where id = $1",
        id
    )
    .execute(pool)
    .await?;
    Ok(())
}
