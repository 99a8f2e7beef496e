//! What is stopped, by whom and until when. A person's pause and the provider's stand side by side: ending one leaves the
//! other, unless a person ends both.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::interval;
use crate::rules::breaker::{Claim, PROBE_AGAIN};

/// What a pause stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Everything; its target is empty.
    All,
    /// A kind, by name.
    Kind,
    /// A priority, by its word.
    Priority,
    /// A batch, by the upstream's name for it.
    Batch,
    /// A number, by Meta's id.
    Number,
    /// An account, by Meta's id.
    Account,
    /// A template, as `waba_id/name/language`.
    Template,
}

impl Scope {
    /// The word in SQL, logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Kind => "kind",
            Self::Priority => "priority",
            Self::Batch => "batch",
            Self::Number => "number",
            Self::Account => "account",
            Self::Template => "template",
        }
    }
}

/// Who pauses or resumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By<'a> {
    /// A person, by login role.
    Operator(&'a str),
    /// The provider, by an answer or a webhook.
    Provider,
}

impl<'a> By<'a> {
    fn source(self) -> &'static str {
        match self {
            Self::Operator(_) => "operator",
            Self::Provider => "provider",
        }
    }

    fn name(self) -> &'a str {
        match self {
            Self::Operator(name) => name,
            Self::Provider => "postrider",
        }
    }
}

/// A pause to be made.
#[derive(Debug, Clone, Copy)]
pub struct Pause<'a> {
    /// What it stops.
    pub scope: Scope,
    /// Which.
    pub target: &'a str,
    /// Who stops it.
    pub by: By<'a>,
    /// Why, for people.
    pub reason: &'a str,
    /// The provider's error code that caused it.
    pub error_code: Option<i32>,
    /// Since when; `None` is now.
    pub since: Option<DateTime<Utc>>,
    /// When it ends by itself; `None` when somebody must end it.
    pub until: Option<DateTime<Utc>>,
}

/// A pause that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PauseFact {
    /// What it stops.
    pub scope: Scope,
    /// Which.
    pub target: String,
    /// Whether the provider did it, rather than a person.
    pub by_provider: bool,
    /// Why, for people.
    pub reason: String,
    /// The provider's error code that caused it.
    pub error_code: Option<i32>,
    /// Who: a login role, or postrider.
    pub by: String,
    /// Since when.
    pub since: DateTime<Utc>,
    /// When it ends by itself.
    pub until: Option<DateTime<Utc>>,
}

pub(super) async fn load(connection: &mut PgConnection) -> Result<Vec<PauseFact>, sqlx::Error> {
    sqlx::query_as!(
        PauseFact,
        r#"select scope as "scope: Scope", target, source = 'provider' as "by_provider!", reason, error_code, by, since,
             until
           from postrider.pause where until is null or until > now() order by since"#
    )
    .fetch_all(connection)
    .await
}

/// The provider's pauses that are over: they wait for a message that tries.
pub(super) async fn ended(connection: &mut PgConnection) -> Result<Vec<PauseFact>, sqlx::Error> {
    sqlx::query_as!(
        PauseFact,
        r#"select scope as "scope: Scope", target, source = 'provider' as "by_provider!", reason, error_code, by, since,
             until
           from postrider.pause where source = 'provider' and until <= now()"#
    )
    .fetch_all(connection)
    .await
}

/// What is stopped now, the oldest first.
///
/// # Errors
/// When the database does not answer.
pub async fn pauses(pool: &PgPool) -> Result<Vec<PauseFact>, sqlx::Error> {
    load(&mut *pool.acquire().await?).await
}

/// What else stops the same, whole or in part: everything, its account, its numbers or templates.
///
/// # Errors
/// When the database does not answer.
pub async fn pauses_beside(
    pool: &PgPool,
    scope: Scope,
    target: &str,
) -> Result<Vec<PauseFact>, sqlx::Error> {
    sqlx::query_file_as!(
        PauseFact,
        "src/store/pauses_beside.sql",
        scope.as_str(),
        target
    )
    .fetch_all(pool)
    .await
}

/// Whether there is anything of that name. A batch is known once a job of it was enqueued.
///
/// # Errors
/// When the database does not answer.
pub async fn is_known(pool: &PgPool, scope: Scope, target: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_file_scalar!("src/store/pauses_known.sql", scope.as_str(), target)
        .fetch_one(pool)
        .await
}

/// Stops something; returns whether anything changed. The provider's word never shortens a pause that its word made
/// longer; a person's always counts as it is.
///
/// # Errors
/// When the database does not answer.
pub async fn pause(database: impl PgExecutor<'_>, pause: &Pause<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_file_scalar!(
        "src/store/facts_pause.sql",
        pause.scope.as_str(),
        pause.target,
        pause.by.source(),
        pause.reason,
        pause.error_code,
        pause.by.name(),
        pause.until,
        pause.since,
    )
    .fetch_one(database)
    .await
}

/// Ends a pause; returns whether there was one. A person ends the provider's too, the provider only its own.
///
/// # Errors
/// When the database does not answer.
pub async fn resume(
    pool: &PgPool,
    scope: Scope,
    target: &str,
    by: By<'_>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_file_scalar!(
        "src/store/facts_resume.sql",
        scope.as_str(),
        target,
        by.source(),
        by.name()
    )
    .fetch_one(pool)
    .await
}

/// Asks for being the one whose message tries what the provider stopped until then. A claim is good for [`PROBE_AGAIN`].
///
/// # Errors
/// When the database does not answer.
pub async fn claim_probe(
    pool: &PgPool,
    scope: Scope,
    target: &str,
    until: DateTime<Utc>,
) -> Result<Claim, sqlx::Error> {
    let claimed = sqlx::query_file!(
        "src/store/facts_claim.sql",
        scope.as_str(),
        target,
        until,
        interval(PROBE_AGAIN),
    )
    .fetch_one(pool)
    .await?;
    Ok(match (claimed.is_granted, claimed.is_there) {
        (true, _) => Claim::Granted,
        (false, true) => Claim::Taken,
        (false, false) => Claim::Ended,
    })
}

/// Ends what the provider stopped until then, after a message was taken; returns whether it was there. One that it stopped
/// for longer since stays.
///
/// # Errors
/// When the database does not answer.
pub async fn close(
    pool: &PgPool,
    scope: Scope,
    target: &str,
    until: DateTime<Utc>,
) -> Result<bool, sqlx::Error> {
    let closed = sqlx::query!(
        "delete from postrider.pause where scope = $1 and target = $2 and source = 'provider' and until <= $3",
        scope.as_str(),
        target,
        until,
    )
    .execute(pool)
    .await?;
    Ok(closed.rows_affected() > 0)
}

/// Clears away pauses whose time is over; returns how many. They did not hold any more anyway. The provider's stay until a
/// message was taken, unless none went by what was paused for a month.
///
/// # Errors
/// When the database does not answer.
pub async fn expire_pauses(pool: &PgPool) -> Result<u64, sqlx::Error> {
    let gone = sqlx::query!(
        "delete from postrider.pause
         where until <= now() and (source = 'operator' or until <= now() - interval '30 days')"
    )
    .execute(pool)
    .await?;
    Ok(gone.rows_affected())
}
