//! Dead letters: listed, counted, put into the queue again, dropped for good. What may be redriven and what changes with it
//! is in the SQL functions of `migrations/0026_dead_letters.sql`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgPool;

/// Dead letters of one statement, so that no transaction is long.
pub const BATCH_MAX: i64 = 1_000;

/// Which dead letters are meant; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Jobs.
    pub ids: Option<Vec<i64>>,
    /// failed, rejected, expired, cancelled, unknown.
    pub states: Option<Vec<String>>,
    /// Why they ended.
    pub reasons: Option<Vec<String>>,
    /// What they are about.
    pub kinds: Option<Vec<String>>,
    /// The provider's id of their number.
    pub number: Option<String>,
    /// Ended before this.
    pub ended_before: Option<DateTime<Utc>>,
    /// Ended then or later.
    pub ended_after: Option<DateTime<Utc>>,
    /// The upstream's name for a group.
    pub batch: Option<String>,
    /// The upstream's own name.
    pub reference: Option<String>,
    /// The canonical key of the recipient's address.
    pub recipient_key: Option<String>,
}

/// A dead letter as operators see it.
#[derive(Debug, Clone, Serialize)]
pub struct DeadLetter {
    /// The job.
    pub id: i64,
    /// The state in which it ended.
    pub state: String,
    /// Why.
    pub reason: String,
    /// The provider's error code of its last answer.
    pub error_code: Option<i32>,
    /// The provider's words, or ours.
    pub detail: Option<String>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// When it was enqueued.
    pub enqueued_at: DateTime<Utc>,
    /// What it is about.
    pub kind: String,
    /// The provider's id of its number.
    pub number: Option<String>,
    /// Where it was to go.
    pub recipient: String,
    /// The template's name; `None` for a free-form message.
    pub template: Option<String>,
    /// Attempts answered.
    pub attempts: i32,
    /// Whether it can be redriven: its content was kept.
    pub redrivable: bool,
    /// The upstream's own name for it.
    pub reference: Option<String>,
    /// The upstream's name for a group of jobs.
    pub batch: Option<String>,
}

/// How many dead letters are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The state in which they ended.
    pub state: String,
    /// Why.
    pub reason: String,
    /// What they are about.
    pub kind: String,
    /// How many.
    pub jobs: i64,
    /// How many of them can be redriven: their content was kept.
    pub redrivable: i64,
    /// When the first of them ended.
    pub oldest: DateTime<Utc>,
    /// When the last of them did.
    pub newest: DateTime<Utc>,
}

/// What operators do with dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Into the queue again, to be valid for so many seconds, or as long as their kind says.
    Redrive {
        /// Seconds.
        valid_for_s: Option<u64>,
    },
    /// Gone for good.
    Drop,
}

impl Action {
    /// The word in the history.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Redrive { .. } => "redrive",
            Self::Drop => "drop",
        }
    }
}

/// The newest dead letters that pass the filter, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(
    pool: &PgPool,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<DeadLetter>, sqlx::Error> {
    sqlx::query_file_as!(
        DeadLetter,
        "src/store/dead_list.sql",
        filter.ids.as_deref(),
        filter.states.as_deref(),
        filter.reasons.as_deref(),
        filter.kinds.as_deref(),
        filter.number,
        filter.ended_before,
        filter.ended_after,
        filter.batch,
        filter.reference,
        filter.recipient_key,
        limit
    )
    .fetch_all(pool)
    .await
}

/// Those that pass the filter, counted by state, reason and kind; the largest groups first.
///
/// # Errors
/// When the database is away.
pub async fn groups(pool: &PgPool, filter: &Filter) -> Result<Vec<Group>, sqlx::Error> {
    sqlx::query_file_as!(
        Group,
        "src/store/dead_groups.sql",
        filter.ids.as_deref(),
        filter.states.as_deref(),
        filter.reasons.as_deref(),
        filter.kinds.as_deref(),
        filter.number,
        filter.ended_before,
        filter.ended_after,
        filter.batch,
        filter.reference,
        filter.recipient_key
    )
    .fetch_all(pool)
    .await
}

/// The next ids that pass the filter, at most [`BATCH_MAX`], in their order.
///
/// # Errors
/// When the database is away.
pub async fn next(pool: &PgPool, filter: &Filter, after: i64) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_file_scalar!(
        "src/store/dead_next.sql",
        filter.ids.as_deref(),
        filter.states.as_deref(),
        filter.reasons.as_deref(),
        filter.kinds.as_deref(),
        filter.number,
        filter.ended_before,
        filter.ended_after,
        filter.batch,
        filter.reference,
        filter.recipient_key,
        after,
        BATCH_MAX
    )
    .fetch_all(pool)
    .await
}

/// Notes in the history what is about to be done, and returns the event that the jobs are counted into.
///
/// # Errors
/// When the database is away.
pub async fn begin(
    pool: &PgPool,
    action: Action,
    who: &str,
    target: &str,
    detail: &Value,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        "insert into postrider.operator_event (who, action, target, detail) values ($1, $2, $3, $4) returning id",
        who,
        action.word(),
        target,
        detail
    )
    .fetch_one(pool)
    .await
}

/// Does it to these, and returns those that it was done to: the others are gone, held by somebody, or have no content.
///
/// # Errors
/// When the database is away; then it was done to none of them.
pub async fn apply(
    pool: &PgPool,
    action: Action,
    event: i64,
    ids: &[i64],
) -> Result<Vec<i64>, sqlx::Error> {
    match action {
        Action::Redrive { valid_for_s } => {
            sqlx::query_scalar!(
                r#"select postrider.redrive($1, $2, make_interval(secs => $3)) as "ids!""#,
                event,
                ids,
                valid_for_s.map(|seconds| seconds as f64)
            )
            .fetch_one(pool)
            .await
        }
        Action::Drop => {
            sqlx::query_scalar!(
                r#"select postrider.drop_dead($1, $2) as "ids!""#,
                event,
                ids
            )
            .fetch_one(pool)
            .await
        }
    }
}

/// What somebody did to a job when it was a dead letter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trace {
    /// The job.
    #[serde(skip)]
    pub job: i64,
    /// `redrive` or `drop`.
    pub action: String,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub by: String,
    /// Why, if they said so.
    pub why: Option<String>,
    /// The state in which it had ended.
    pub state: String,
    /// Why it had ended.
    pub reason: String,
}

/// What was done to these jobs, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn traces(pool: &PgPool, jobs: &[i64]) -> Result<Vec<Trace>, sqlx::Error> {
    sqlx::query_file_as!(Trace, "src/store/dead_traces.sql", jobs)
        .fetch_all(pool)
        .await
}
