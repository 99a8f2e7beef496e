//! What was sent from the phone app of a number that is used on both, as far as it counts.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::receipts::column;
use crate::rules::job::Lane;

/// A message from a phone app, as a webhook tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// The provider's message id.
    pub provider_id: String,
    /// Meta's id of the number that it went out from.
    pub phone_number_id: String,
    /// Canonical key of the recipient.
    pub recipient_key: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
}

/// A message from a phone app, as it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Echo {
    /// Keyed hash of the provider's message id.
    pub message_hash: i64,
    /// The number that it went out from.
    pub lane: Lane,
    /// Keyed hash of the person.
    pub recipient_hash: i64,
    /// Whether it counts against the messaging limit.
    pub counted: bool,
    /// When it was sent, by the provider's clock.
    pub at: DateTime<Utc>,
    /// When we were told.
    pub noted_at: DateTime<Utc>,
}

/// Keeps messages, each once however often it is told; those of numbers that we do not know are left out.
///
/// # Errors
/// When the database does not answer or refuses a value.
pub async fn keep(pool: &PgPool, sent: &[Sent]) -> Result<(), sqlx::Error> {
    if sent.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/store/echoes.sql",
        &column(sent, |m| m.provider_id.as_str()) as &[&str],
        &column(sent, |m| m.phone_number_id.as_str()) as &[&str],
        &column(sent, |m| m.recipient_key.as_str()) as &[&str],
        &column(sent, |m| m.at),
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Those of which we were told since then, in the order in which we were told. Those of the half minute before come again,
/// because one that is committed late was noted before.
///
/// # Errors
/// When the database does not answer.
pub async fn since(pool: &PgPool, since: DateTime<Utc>) -> Result<Vec<Echo>, sqlx::Error> {
    sqlx::query_file_as!(Echo, "src/store/echoes_since.sql", since)
        .fetch_all(pool)
        .await
}

/// Deletes those that count no more; returns how many.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let deleted =
        sqlx::query!("delete from postrider.echo where noted_at < now() - interval '25 hours'")
            .execute(pool)
            .await?;
    Ok(deleted.rows_affected())
}
