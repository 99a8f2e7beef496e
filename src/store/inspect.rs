//! What `check` wants to know of the database: the server, and whether what is needed to send is there.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// The server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// For example 150004.
    pub version: i32,
    /// Whether it is a standby, which takes no writes.
    pub is_standby: bool,
    /// Which standbys a commit waits for; empty when for none.
    pub synchronous_standbys: String,
    /// Who we are to it.
    pub user: String,
    /// Which database.
    pub database: String,
}

/// Asks the server about itself.
///
/// # Errors
/// When it does not answer.
pub async fn server(pool: &PgPool) -> Result<Server, sqlx::Error> {
    sqlx::query_as!(
        Server,
        r#"select
             current_setting('server_version_num')::integer as "version!",
             pg_is_in_recovery() as "is_standby!",
             current_setting('synchronous_standby_names') as "synchronous_standbys!",
             session_user::text as "user!",
             current_database()::text as "database!""#
    )
    .fetch_one(pool)
    .await
}

/// What is there to send with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supplies {
    /// Whether anybody has opted in.
    pub has_opt_ins: bool,
    /// Whether a job waits.
    pub has_jobs: bool,
    /// When the provider last called, within the last day.
    pub last_receipt: Option<DateTime<Utc>>,
    /// What is stopped.
    pub pauses: i64,
    /// Why everything is.
    pub all_paused: Option<String>,
    /// Whether an instance sends now.
    pub has_dispatcher: bool,
}

/// Looks what is there to send with.
///
/// # Errors
/// When the database does not answer.
pub async fn supplies(pool: &PgPool) -> Result<Supplies, sqlx::Error> {
    sqlx::query_as!(
        Supplies,
        r#"select
             exists (select from postrider.consent where opted_in_at is not null) as "has_opt_ins!",
             exists (select from postrider.queue) as "has_jobs!",
             (select max(received_at) from postrider.receipt where received_at > now() - interval '1 day')
               as last_receipt,
             (select count(*) from postrider.pause where until is null or until > now()) as "pauses!",
             (select reason from postrider.pause where scope = 'all' and (until is null or until > now())
              order by since desc limit 1) as all_paused,
             exists (select from postrider.lease where expires_at > now()) as "has_dispatcher!""#
    )
    .fetch_one(pool)
    .await
}
