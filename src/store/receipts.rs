//! Receipts as they come in: appended, never updated. What is about a job of ours waits in the inbox for the fold.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::PgPool;

use crate::rules::job::{JobId, Lane};

/// One status update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// Meta's id of the number it is about.
    pub phone_number_id: Option<String>,
    /// The provider's message id.
    pub provider_id: String,
    /// The callback data as it came back.
    pub callback: Option<String>,
    /// The provider's word.
    pub status: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
    /// The provider's error code.
    pub error_code: Option<i32>,
    /// The provider's words for the error.
    pub error_title: Option<String>,
    /// What it is billed as.
    pub pricing_category: Option<String>,
    /// How it is billed.
    pub pricing_type: Option<String>,
    /// The whole element as it came.
    pub raw: String,
    /// The job of this installation that it moves; `None` when it moves none.
    pub about: Option<About>,
}

/// The attempt that a receipt is about, from its callback data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// The job.
    pub job: JobId,
    /// The attempt.
    pub attempt: i32,
    /// The number's lane.
    pub lane: Lane,
    /// The message's partition.
    pub day: NaiveDate,
}

/// A piece of a webhook that is neither a status nor a message, or that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The app it came to.
    pub app: String,
    /// Meta's name of the field; empty when that is what could not be read.
    pub field: String,
    /// Why it was not understood; `None` when it was.
    pub problem: Option<String>,
    /// The piece as it came.
    pub raw: String,
}

/// Appends receipts, all of them or none.
pub async fn append(pool: &PgPool, receipts: &[Receipt]) -> Result<(), sqlx::Error> {
    if receipts.is_empty() {
        return Ok(());
    }
    let about = |receipt: &Receipt| receipt.about;
    sqlx::query_file!(
        "src/store/receipts.sql",
        &column(receipts, |r| r.phone_number_id.as_deref()) as &[Option<&str>],
        &column(receipts, |r| r.provider_id.as_str()) as &[&str],
        &column(receipts, |r| r.callback.as_deref()) as &[Option<&str>],
        &column(receipts, |r| r.status.as_str()) as &[&str],
        &column(receipts, |r| r.at),
        &column(receipts, |r| r.error_code) as &[Option<i32>],
        &column(receipts, |r| r.error_title.as_deref()) as &[Option<&str>],
        &column(receipts, |r| r.pricing_category.as_deref()) as &[Option<&str>],
        &column(receipts, |r| r.pricing_type.as_deref()) as &[Option<&str>],
        &column(receipts, |r| r.raw.as_str()) as &[&str],
        &column(receipts, |r| about(r).map(|a| a.job.0)) as &[Option<i64>],
        &column(receipts, |r| about(r).map(|a| a.attempt)) as &[Option<i32>],
        &column(receipts, |r| about(r).map(|a| a.lane.0)) as &[Option<i32>],
        &column(receipts, |r| about(r).map(|a| a.day)) as &[Option<NaiveDate>],
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Keeps events, all of them or none.
pub async fn keep_events(pool: &PgPool, events: &[Event]) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into postrider.webhook_event (received_at, app, field, problem, raw)
         select now(), u.* from unnest($1::text[], $2::text[], $3::text[], $4::text[]) u",
        &column(events, |e| e.app.as_str()) as &[&str],
        &column(events, |e| e.field.as_str()) as &[&str],
        &column(events, |e| e.problem.as_deref()) as &[Option<&str>],
        &column(events, |e| e.raw.as_str()) as &[&str],
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// One column of many rows, as an array parameter.
pub(super) fn column<'a, R, T>(rows: &'a [R], field: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(field).collect()
}
