//! What people wrote to us: kept with the job that it answers, opening service windows, and heeded where it is a wish
//! about being written to.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use super::{
    people::{self, Wish},
    receipts::column,
};

/// One message of a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Inbound {
    /// The provider's message id.
    pub provider_id: String,
    /// The provider's time.
    pub at: DateTime<Utc>,
    /// Meta's id of the number they wrote to; empty when the webhook did not say.
    pub phone_number_id: String,
    /// Canonical key of the writer.
    pub sender_key: String,
    /// The provider's word for what it is: text, button, image, ...
    pub kind: String,
    /// The words, or the label of the button.
    pub body: Option<String>,
    /// The payload of the button.
    pub payload: Option<String>,
    /// The provider's id of the message that it answers.
    pub context_id: Option<String>,
    /// Where an advertisement brought them from.
    pub referral: Option<Value>,
    /// The whole element as it came.
    pub raw: String,
    /// Whether it opens the service window: what a person writes does, what the system tells about them does not.
    pub opens_window: bool,
}

/// Keeps messages, opens windows and heeds wishes, all in one transaction. Repeats change nothing.
pub async fn hear(pool: &PgPool, messages: &[Inbound], wishes: &[Wish]) -> Result<(), sqlx::Error> {
    if messages.is_empty() && wishes.is_empty() {
        return Ok(());
    }
    let mut tx = pool.begin().await?;
    keep(&mut tx, messages).await?;
    open_windows(&mut tx, messages).await?;
    people::heed(&mut tx, wishes).await?;
    tx.commit().await
}

async fn keep(conn: &mut PgConnection, messages: &[Inbound]) -> Result<(), sqlx::Error> {
    sqlx::query_file!(
        "src/store/inbound.sql",
        &column(messages, |m| m.provider_id.as_str()) as &[&str],
        &column(messages, |m| m.at),
        &column(messages, |m| m.phone_number_id.as_str()) as &[&str],
        &column(messages, |m| m.sender_key.as_str()) as &[&str],
        &column(messages, |m| m.kind.as_str()) as &[&str],
        &column(messages, |m| m.body.as_deref()) as &[Option<&str>],
        &column(messages, |m| m.payload.as_deref()) as &[Option<&str>],
        &column(messages, |m| m.context_id.as_deref()) as &[Option<&str>],
        &column(messages, |m| m.referral.as_ref()) as &[Option<&Value>],
        &column(messages, |m| m.raw.as_str()) as &[&str],
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn open_windows(conn: &mut PgConnection, messages: &[Inbound]) -> Result<(), sqlx::Error> {
    let opening: Vec<&Inbound> = messages
        .iter()
        .filter(|message| message.opens_window)
        .collect();
    if opening.is_empty() {
        return Ok(());
    }
    sqlx::query_file!(
        "src/store/inbound_windows.sql",
        &column(&opening, |m| m.sender_key.as_str()) as &[&str],
        &column(&opening, |m| m.phone_number_id.as_str()) as &[&str],
        &column(&opening, |m| m.at),
    )
    .execute(conn)
    .await?;
    Ok(())
}
