//! Consents: what people agreed to and what they withdrew, one by one or many at once.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, types::Json};

/// Somebody agreed or withdrew: a line of an import.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// The person's address.
    pub recipient: String,
    /// Whether they withdrew rather than agreed.
    #[serde(default)]
    pub opt_out: bool,
    /// Where they said so: checkout, support, ...
    pub source: Option<String>,
    /// What it is limited to; everything when it says nothing.
    pub scope: Option<String>,
    /// When; now when it says nothing.
    pub at: Option<DateTime<Utc>>,
    /// The language they want to read.
    pub language: Option<String>,
    /// What proves it.
    pub evidence: Option<serde_json::Value>,
}

/// Notes what people said, all or nothing.
///
/// # Errors
/// When one of the statements is refused (SQLSTATE class `PR`), or the database is away.
pub async fn note(pool: &PgPool, statements: &[Statement]) -> Result<(), sqlx::Error> {
    sqlx::query_file!("src/store/consent_note.sql", Json(statements) as _)
        .execute(pool)
        .await
        .map(drop)
}

/// What is known of a person's consent in one scope.
#[derive(Debug, Clone, Serialize)]
pub struct ScopeConsent {
    /// The key that stands for the person.
    pub person: String,
    /// all, or what it is limited to.
    pub scope: String,
    /// The newest opt-in.
    pub opted_in_at: Option<DateTime<Utc>>,
    /// Where it was given.
    pub opt_in_source: Option<String>,
    /// What proves it.
    pub opt_in_evidence: Option<serde_json::Value>,
    /// The newest opt-out.
    pub opted_out_at: Option<DateTime<Utc>>,
    /// Where it was said.
    pub opt_out_source: Option<String>,
    /// The language they want to read.
    pub language: Option<String>,
    /// All addresses that are known to be theirs.
    pub addresses: Vec<String>,
}

/// What a person agreed to and withdrew, by scope.
///
/// # Errors
/// When the database is away.
pub async fn show(pool: &PgPool, recipient: &str) -> Result<Vec<ScopeConsent>, sqlx::Error> {
    sqlx::query_file_as!(ScopeConsent, "src/store/consent_show.sql", recipient)
        .fetch_all(pool)
        .await
}
