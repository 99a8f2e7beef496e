//! Writing what attempts came to. Every statement is idempotent by job and attempt and is not fenced by the lease: what a
//! former owner learned is true.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgPool;

use crate::rules::job::{FinalReason, JobId, Priority, State, WaitReason};

/// What a job is counted by when it leaves the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tags {
    /// What it is about.
    pub kind: Arc<str>,
    /// How urgent.
    pub priority: Priority,
    /// When it was enqueued.
    pub enqueued_at: DateTime<Utc>,
}

/// The provider took the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub id: JobId,
    /// The attempt.
    pub attempt: i32,
    /// UTC day of the attempt: the message's partition.
    pub day: NaiveDate,
    /// The provider's message id.
    pub provider_id: String,
    /// Whether the provider holds it back for a quality check.
    pub held: bool,
    /// When.
    pub at: DateTime<Utc>,
    /// What it is counted by.
    pub tags: Tags,
}

/// What the provider answered, or what broke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// `retry`, `refused`, `unknown` or `not_sent`.
    pub outcome: &'static str,
    /// The provider's error code.
    pub code: Option<i32>,
    /// HTTP status.
    pub http_status: Option<i32>,
    /// The provider's words, or ours.
    pub detail: Option<String>,
}

/// The job stays in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The job.
    pub id: JobId,
    /// The attempt.
    pub attempt: i32,
    /// What came of the attempt.
    pub answered: Answered,
    /// When we knew.
    pub at: DateTime<Utc>,
    /// Why it waits; `AwaitingReceipt` means that its outcome is unknown and the attempt stays open.
    pub reason: WaitReason,
    /// When it is tried again, or, if unknown, resolved.
    pub due_at: DateTime<Utc>,
    /// If unknown, since when it waits for its receipt.
    pub since: Option<DateTime<Utc>>,
    /// Whether the provider's word spent the attempt.
    pub spends: bool,
}

/// The job ends unsent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// The job.
    pub id: JobId,
    /// The attempt that was answered, or that would have been the next for a job stopped at the gate.
    pub attempt: i32,
    /// What came of the attempt; `None` for a job stopped at the gate.
    pub answered: Option<Answered>,
    /// For people, where there was no answer.
    pub detail: Option<String>,
    /// When.
    pub at: DateTime<Utc>,
    /// `Failed`, `Rejected`, `Expired` or `Unknown`.
    pub state: State,
    /// Why.
    pub reason: FinalReason,
    /// Whether the provider's word spent the attempt.
    pub spends: bool,
}

/// What a job became that ended unsent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What it was about.
    pub kind: String,
    /// `unknown` where an earlier attempt may have left, whatever ended it now.
    pub state: String,
    /// Why.
    pub reason: String,
}

/// The job was not attempted, and comes back later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deferred {
    /// The job.
    pub id: JobId,
    /// Attempts answered, as memory believes.
    pub tries: i32,
    /// Why it waits.
    pub reason: WaitReason,
    /// When it is due again.
    pub due_at: DateTime<Utc>,
}

/// Puts off jobs that have no open attempt; returns how many rows it changed.
///
/// # Errors
/// When the database does not answer; the same call may be made again.
pub async fn deferred(pool: &PgPool, batch: &[Deferred]) -> Result<u64, sqlx::Error> {
    let done = sqlx::query_file!(
        "src/store/settle_deferred.sql",
        &batch.iter().map(|d| d.id.0).collect::<Vec<_>>(),
        &batch.iter().map(|d| d.tries).collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|d| d.reason.as_str().to_owned())
            .collect::<Vec<_>>(),
        &batch.iter().map(|d| d.due_at).collect::<Vec<_>>(),
    )
    .execute(pool)
    .await?;
    Ok(done.rows_affected())
}

/// Settles jobs that the provider took; returns those that were still in the queue: a receipt may have been faster.
///
/// # Errors
/// When the database does not answer; the same call may be made again.
pub async fn accepted(pool: &PgPool, batch: &[Accepted]) -> Result<Vec<JobId>, sqlx::Error> {
    sqlx::query_file_scalar!(
        "src/store/settle_accepted.sql",
        &batch.iter().map(|a| a.id.0).collect::<Vec<_>>(),
        &batch.iter().map(|a| a.attempt).collect::<Vec<_>>(),
        &batch.iter().map(|a| a.day).collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|a| a.provider_id.clone())
            .collect::<Vec<_>>(),
        &batch.iter().map(|a| a.held).collect::<Vec<_>>(),
        &batch.iter().map(|a| a.at).collect::<Vec<_>>(),
    )
    .fetch_all(pool)
    .await
}

/// Settles jobs that stay in the queue; returns how many rows it changed.
///
/// # Errors
/// When the database does not answer; the same call may be made again.
pub async fn waiting(pool: &PgPool, batch: &[Waiting]) -> Result<usize, sqlx::Error> {
    let unknown = |w: &Waiting| w.reason == WaitReason::AwaitingReceipt;
    let moved = sqlx::query_file_scalar!(
        "src/store/settle_waiting.sql",
        &batch.iter().map(|w| w.id.0).collect::<Vec<_>>(),
        &batch.iter().map(|w| w.attempt).collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|w| w.answered.outcome.to_owned())
            .collect::<Vec<_>>(),
        &batch.iter().map(|w| w.answered.code).collect::<Vec<_>>() as &[Option<i32>],
        &batch
            .iter()
            .map(|w| w.answered.http_status)
            .collect::<Vec<_>>() as &[Option<i32>],
        &batch
            .iter()
            .map(|w| w.answered.detail.clone())
            .collect::<Vec<_>>() as &[Option<String>],
        &batch.iter().map(|w| w.at).collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|w| if unknown(w) { "unknown" } else { "queued" }.to_owned())
            .collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|w| w.reason.as_str().to_owned())
            .collect::<Vec<_>>(),
        &batch.iter().map(|w| w.due_at).collect::<Vec<_>>(),
        &batch.iter().map(|w| !unknown(w)).collect::<Vec<_>>(),
        &batch.iter().map(|w| w.spends).collect::<Vec<_>>(),
        &batch.iter().map(|w| w.since).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
    )
    .fetch_all(pool)
    .await?;
    Ok(moved.len())
}

/// Settles jobs that end unsent; returns what became of those that were still in the queue.
///
/// # Errors
/// When the database does not answer; the same call may be made again.
pub async fn dead(pool: &PgPool, batch: &[Dead]) -> Result<Vec<Ended>, sqlx::Error> {
    let answer = |d: &Dead| d.answered.clone();
    sqlx::query_file_as!(
        Ended,
        "src/store/settle_dead.sql",
        &batch.iter().map(|d| d.id.0).collect::<Vec<_>>(),
        &batch.iter().map(|d| d.attempt).collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|d| d.answered.is_some())
            .collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|d| answer(d).map(|a| a.outcome.to_owned()))
            .collect::<Vec<_>>() as &[Option<String>],
        &batch
            .iter()
            .map(|d| answer(d).and_then(|a| a.code))
            .collect::<Vec<_>>() as &[Option<i32>],
        &batch
            .iter()
            .map(|d| answer(d).and_then(|a| a.http_status))
            .collect::<Vec<_>>() as &[Option<i32>],
        &batch
            .iter()
            .map(|d| d.detail.clone().or_else(|| answer(d)?.detail))
            .collect::<Vec<_>>() as &[Option<String>],
        &batch.iter().map(|d| d.at).collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|d| d.state.as_str().to_owned())
            .collect::<Vec<_>>(),
        &batch
            .iter()
            .map(|d| d.reason.as_str().to_owned())
            .collect::<Vec<_>>(),
        &batch.iter().map(|d| d.spends).collect::<Vec<_>>(),
    )
    .fetch_all(pool)
    .await
}
