//! What a host saw last of a database, kept in the database: a number that grows each second. The host keeps the same number
//! on its own disk. A database whose number is smaller than the host's is older than what the host saw: it was restored from
//! a backup, or a fail-over lost what was committed.

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection};

use super::facts::{self, By, Pause, Scope};

/// What a host saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which database: the name that its migrations gave it.
    pub installation: String,
    /// How often this host has written its number there.
    pub number: i64,
    /// When it last did, by the database's clock.
    pub at: DateTime<Utc>,
}

/// What stood in the database, and what stands there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// When this host had last written before, as far as the database knows.
    pub before: Option<DateTime<Utc>>,
    /// What it has now.
    pub now: Seen,
}

/// Writes this host's next number.
///
/// # Errors
/// When the database does not answer; then perhaps it was written, which does no harm.
pub async fn note(connection: &mut PgConnection, instance: &str) -> Result<Noted, sqlx::Error> {
    let row = sqlx::query_file!("src/store/witness_note.sql", instance)
        .fetch_one(connection)
        .await?;
    Ok(Noted {
        before: row.before,
        now: Seen {
            installation: row.installation,
            number: row.number,
            at: row.at,
        },
    })
}

/// Pauses everything, and lets the database have as large a number as the host's, so that it is not taken for older again
/// when somebody has resumed it. Both or neither.
///
/// # Errors
/// When the database does not answer; then nothing was done.
pub async fn pause(
    connection: &mut PgConnection,
    instance: &str,
    number: i64,
    reason: &str,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let everything = Pause {
        scope: Scope::All,
        target: "",
        by: By::Operator("postrider"),
        reason,
        error_code: None,
        since: None,
        until: None,
    };
    facts::pause(&mut *transaction, &everything).await?;
    sqlx::query!(
        "update postrider.witness set number = $2 where instance = $1",
        instance,
        number
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await
}

/// Whether the database behind a new connection is older than what this host saw. Asked without a prepared statement, so
/// that it works behind a pooler too.
pub(super) async fn is_older(
    connection: &mut PgConnection,
    instance: &str,
    seen: &Seen,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "select exists (select from postrider.setting where name = 'installation' and value #>> '{}' = $1)
           and coalesce((select number from postrider.witness where instance = $2), 0) < $3",
    )
    .bind(&seen.installation)
    .bind(instance)
    .bind(seen.number)
    .persistent(false)
    .fetch_one(connection)
    .await
}
