//! Jobs as operators see them: lists, one job with what the provider said to it, and withdrawing.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

/// One job, wherever it is: a row of `postrider.job_status`.
#[derive(Debug, Clone, Serialize)]
pub struct JobStatus {
    /// Its id.
    pub id: i64,
    /// The upstream's own name for it.
    pub reference: Option<String>,
    /// The upstream's name for a group of jobs.
    pub batch: Option<String>,
    /// The upstream's labels.
    pub labels: Option<serde_json::Value>,
    /// The database role that enqueued it.
    pub producer: String,
    /// What it is about.
    pub kind: String,
    /// urgent, normal or bulk.
    pub priority: String,
    /// The provider's id of the number it goes out from.
    pub number: Option<String>,
    /// Where it goes.
    pub recipient: String,
    /// The template's name; `None` for a free-form message.
    pub template: Option<String>,
    /// The template's language.
    pub language: Option<String>,
    /// Where it is in its life.
    pub state: String,
    /// Why it waits or why it ended.
    pub reason: Option<String>,
    /// The reason in words, where there are some.
    pub detail: Option<String>,
    /// Whether nothing more is done for it.
    pub r#final: bool,
    /// yes, no or unknown.
    pub delivered: String,
    /// Whether another channel may carry it.
    pub retryable_elsewhere: bool,
    /// Not looked at before this.
    pub due_at: Option<DateTime<Utc>>,
    /// Not sent after this.
    pub expires_at: Option<DateTime<Utc>>,
    /// Attempts answered.
    pub attempts: i32,
    /// The provider's message id. It embeds the phone number: show it no more freely.
    pub provider_message_id: Option<String>,
    /// When it was enqueued.
    pub enqueued_at: DateTime<Utc>,
    /// When the provider took it.
    pub accepted_at: Option<DateTime<Utc>>,
    /// When the provider sent it.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it reached the phone.
    pub delivered_at: Option<DateTime<Utc>>,
    /// When it was read.
    pub read_at: Option<DateTime<Utc>>,
    /// When it failed.
    pub failed_at: Option<DateTime<Utc>>,
    /// When it became a dead letter.
    pub ended_at: Option<DateTime<Utc>>,
    /// The provider's error code.
    pub error_code: Option<i32>,
    /// The provider's words for it.
    pub error_title: Option<String>,
}

/// Which jobs to list; what is `None` does not matter.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The canonical key of the recipient's address.
    pub recipient_key: Option<String>,
    /// The upstream's own name.
    pub reference: Option<String>,
    /// The upstream's name for a group.
    pub batch: Option<String>,
    /// Where it is in its life.
    pub state: Option<String>,
    /// What it is about.
    pub kind: Option<String>,
    /// Enqueued at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// No more than this.
    pub limit: i64,
}

/// The newest jobs that pass the filter, newest first.
///
/// # Errors
/// When the database is away.
pub async fn list(pool: &PgPool, filter: &Filter) -> Result<Vec<JobStatus>, sqlx::Error> {
    let ids = sqlx::query_file_scalar!(
        "src/store/jobs_find.sql",
        filter.recipient_key,
        filter.reference,
        filter.batch,
        filter.state,
        filter.kind,
        filter.since,
        filter.limit
    )
    .fetch_all(pool)
    .await?;
    show(pool, &ids).await
}

/// The jobs of these ids, newest first.
///
/// # Errors
/// When the database is away.
pub async fn show(pool: &PgPool, ids: &[i64]) -> Result<Vec<JobStatus>, sqlx::Error> {
    sqlx::query_file_as!(JobStatus, "src/store/jobs_show.sql", ids)
        .fetch_all(pool)
        .await
}

/// One answer of the provider that was not yet the end, or was.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// The attempt's number.
    pub attempt: i32,
    /// held, retry, refused, unknown or not_sent.
    pub outcome: String,
    /// The provider's error code.
    pub code: Option<i32>,
    /// The provider's words, or what broke.
    pub detail: Option<String>,
    /// When we knew.
    pub at: DateTime<Utc>,
}

/// What the provider answered to a job's attempts, oldest first.
///
/// # Errors
/// When the database is away.
pub async fn answers(pool: &PgPool, id: i64) -> Result<Vec<Answer>, sqlx::Error> {
    sqlx::query_as!(
        Answer,
        "select attempt, outcome, code, detail, at from postrider.answer where job = $1 order by at",
        id
    )
    .fetch_all(pool)
    .await
}

/// What to withdraw.
#[derive(Debug, Clone, Copy)]
pub enum Withdraw<'a> {
    /// One job.
    Job(i64),
    /// All jobs of a reference.
    Reference(&'a str),
    /// All jobs of a batch.
    Batch(&'a str),
}

/// Withdraws jobs that were not sent yet, and returns how many were.
///
/// # Errors
/// When the database is away.
pub async fn cancel(pool: &PgPool, what: Withdraw<'_>) -> Result<i32, sqlx::Error> {
    let count = match what {
        Withdraw::Job(id) => {
            sqlx::query_scalar!("select (postrider.cancel($1) = 'cancelled')::integer", id)
                .fetch_one(pool)
                .await?
        }
        Withdraw::Reference(reference) => {
            sqlx::query_scalar!("select postrider.cancel_by_reference($1)", reference)
                .fetch_one(pool)
                .await?
        }
        Withdraw::Batch(batch) => {
            sqlx::query_scalar!("select postrider.cancel_batch($1)", batch)
                .fetch_one(pool)
                .await?
        }
    };
    Ok(count.unwrap_or(0))
}
