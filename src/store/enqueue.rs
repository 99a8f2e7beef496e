//! Enqueueing and previewing, by the same SQL functions that upstreams call.

use serde::Serialize;
use serde_json::Value;
use sqlx::{PgPool, types::Json};

/// What became of one job of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Enqueued {
    /// Its place in the batch, from 1.
    pub ordinal: i32,
    /// The job; `None` when it was refused.
    pub job_id: Option<i64>,
    /// Whether its idempotency key was known already, so that this is the first job's id.
    pub duplicate: bool,
    /// The SQLSTATE of the refusal, of class `PR`.
    pub error_code: Option<String>,
    /// What is wrong with it, and how to mend it.
    pub error: Option<String>,
}

/// Enqueues a batch in one transaction. A job that is refused does not stop the others.
///
/// # Errors
/// When the database is away, or a job holds what JSON allows and Postgres does not (a NUL character).
pub async fn enqueue_many(pool: &PgPool, jobs: &[Value]) -> Result<Vec<Enqueued>, sqlx::Error> {
    sqlx::query_file_as!(Enqueued, "src/store/enqueue_many.sql", Json(jobs) as _)
        .fetch_all(pool)
        .await
}

/// What the recipient would read, and what would stop it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Preview {
    /// The text; `None` where the template is not known.
    pub text: Option<String>,
    /// Each thing that would stop it, led by the reason.
    pub issues: Vec<String>,
}

/// Previews a template message.
///
/// # Errors
/// When the database is away.
pub async fn preview(
    pool: &PgPool,
    recipient: &str,
    template: &str,
    parameters: &Value,
    language: Option<&str>,
) -> Result<Preview, sqlx::Error> {
    sqlx::query_as!(
        Preview,
        r#"select text, issues as "issues!" from postrider.preview($1, $2, $3, $4)"#,
        recipient,
        template,
        parameters,
        language
    )
    .fetch_one(pool)
    .await
}
