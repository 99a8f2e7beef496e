//! What is going on, for operators: backlog, results, what is wrong, numbers and templates.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;

/// What waits in the queue with one priority.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backlog {
    /// urgent, normal or bulk.
    pub priority: String,
    /// Jobs that are due.
    pub due: i64,
    /// Jobs whose time has not come.
    pub later: i64,
    /// Jobs that were posted, but no answer was seen.
    pub unknown: i64,
    /// Since when the oldest of those that are due is due.
    pub oldest_due_at: Option<DateTime<Utc>>,
}

/// Jobs that came to one state within the last hour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// The state.
    pub state: String,
    /// Why, where there is a reason.
    pub reason: Option<String>,
    /// How many.
    pub jobs: i64,
}

/// Something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// The worst first: 0 nothing is sent, 1 something is not sent, 2 soon perhaps.
    pub rank: i32,
    /// What is wrong.
    pub text: String,
}

/// What the backlog is, per priority, urgent first.
///
/// # Errors
/// When the database is away.
pub async fn backlog(pool: &PgPool) -> Result<Vec<Backlog>, sqlx::Error> {
    sqlx::query_file_as!(Backlog, "src/store/overview_backlog.sql")
        .fetch_all(pool)
        .await
}

/// What became of jobs within the last hour.
///
/// # Errors
/// When the database is away.
pub async fn results(pool: &PgPool) -> Result<Vec<Ended>, sqlx::Error> {
    sqlx::query_file_as!(Ended, "src/store/overview_results.sql")
        .fetch_all(pool)
        .await
}

/// What is wrong, the worst first.
///
/// # Errors
/// When the database is away.
pub async fn troubles(pool: &PgPool) -> Result<Vec<Trouble>, sqlx::Error> {
    sqlx::query_file_as!(Trouble, "src/store/overview_troubles.sql")
        .fetch_all(pool)
        .await
}

/// What is left of the messaging limits, by the daemons that count them; those that are unlimited are left out.
///
/// # Errors
/// When the database is away.
pub async fn limits(pool: &PgPool) -> Result<Vec<LimitUsage>, sqlx::Error> {
    sqlx::query_file_as!(LimitUsage, "src/store/overview_limits.sql")
        .fetch_all(pool)
        .await
}

/// A messaging limit, and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitUsage {
    /// What it applies to: a portfolio's id, or a number's.
    pub pool: String,
    /// Unique recipients per rolling 24 h.
    pub messaging_limit: i32,
    /// How many of them are used.
    pub used: i32,
    /// How many more may get a normal or bulk message now.
    pub room_normal: i32,
    /// How many more may get an urgent one.
    pub room_urgent: i32,
    /// When the next of those that are used come back.
    pub next_return_at: Option<DateTime<Utc>>,
    /// How many come back then.
    pub returns: i32,
}

/// A number, with what it may do and what it has to do.
#[derive(Debug, Clone, Serialize)]
pub struct NumberStatus {
    /// The provider's id.
    pub number: String,
    /// As people see it.
    pub display_phone_number: Option<String>,
    /// The account it belongs to.
    pub waba_id: String,
    /// The portfolio whose limit it uses.
    pub portfolio_id: String,
    /// Whether the present configuration names it.
    pub configured: bool,
    /// CONNECTED is the only one that can send.
    pub status: String,
    /// GREEN, YELLOW, RED or UNKNOWN.
    pub quality_rating: Option<String>,
    /// Messages per second set for it; none means the configured default.
    pub messages_per_second: Option<f64>,
    /// Unique recipients per rolling 24 h; none means unlimited.
    pub messaging_limit: Option<i32>,
    /// How many of them are used.
    pub recipients_24h: i64,
    /// How many more may get a normal or bulk message now; none when unlimited, or when no daemon counts.
    pub room_normal: Option<i32>,
    /// How many more may get an urgent one.
    pub room_urgent: Option<i32>,
    /// When the next of those that are used come back.
    pub next_return_at: Option<DateTime<Utc>>,
    /// How many come back then.
    pub returns: Option<i32>,
    /// Jobs that wait for it, by priority.
    pub urgent_jobs: i64,
    /// Normal ones.
    pub normal_jobs: i64,
    /// Bulk ones.
    pub bulk_jobs: i64,
    /// Why it is paused.
    pub paused: Option<String>,
    /// The instance that sends for it.
    pub sent_by: Option<String>,
    /// When the provider last told us.
    pub synced_at: Option<DateTime<Utc>>,
}

/// All numbers, by id.
///
/// # Errors
/// When the database is away.
pub async fn numbers(pool: &PgPool) -> Result<Vec<NumberStatus>, sqlx::Error> {
    sqlx::query_file_as!(NumberStatus, "src/store/overview_numbers.sql")
        .fetch_all(pool)
        .await
}

/// A template, and whether it can be sent.
#[derive(Debug, Clone, Serialize)]
pub struct TemplateStatus {
    /// The account it belongs to.
    pub waba_id: String,
    /// Its name.
    pub name: String,
    /// Its language.
    pub language: String,
    /// APPROVED is the only one that sends.
    pub status: String,
    /// MARKETING, UTILITY or AUTHENTICATION.
    pub category: String,
    /// GREEN, YELLOW, RED or UNKNOWN.
    pub quality: Option<String>,
    /// Why it is paused here.
    pub paused: Option<String>,
    /// Until when; none means until somebody resumes it.
    pub paused_until: Option<DateTime<Utc>>,
    /// Why the provider rejected it.
    pub rejected_reason: Option<String>,
    /// Whether it can be sent now.
    pub sendable: bool,
    /// When the provider last told us.
    pub synced_at: DateTime<Utc>,
}

/// All templates, or those of one name.
///
/// # Errors
/// When the database is away.
pub async fn templates(
    pool: &PgPool,
    name: Option<&str>,
) -> Result<Vec<TemplateStatus>, sqlx::Error> {
    sqlx::query_file_as!(TemplateStatus, "src/store/overview_templates.sql", name)
        .fetch_all(pool)
        .await
}
