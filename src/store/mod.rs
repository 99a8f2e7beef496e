//! Postgres: the only place that has SQL.
//!
//! Each file is one thing that is asked of the database; longer statements stand beside it in a `.sql` file. Everything is
//! schema-qualified, so no session depends on a search path.

use std::{str::FromStr, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub mod attempt;
pub mod bell;
pub mod changes;
pub mod consent;
pub mod echoes;
pub mod embedded;
pub mod enqueue;
pub mod facts;
pub mod fold;
pub mod history;
pub mod inbound;
pub mod inspect;
pub mod jobs;
pub mod lease;
pub mod ledger;
pub mod look;
pub mod migrate;
pub mod moves;
pub mod overview;
pub mod people;
pub mod receipts;
pub mod sample;
pub mod settle;
pub mod sync;
pub mod upkeep;
pub mod usage;

/// The database, by way of a pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The pool never holds more connections than this.
    pub max_connections: u32,
    /// How long a task waits for a connection before it is told that the database is away.
    pub acquire_timeout: Duration,
    /// What `pg_stat_activity` shows.
    pub application_name: String,
    /// Statements are planned once a session, whatever their arguments. Those over arrays look cheaper to Postgres when it
    /// plans them for the arrays at hand, each time anew, which takes as long as running them. For the daemon, whose
    /// statements have one good plan each; not for searches with optional conditions.
    pub generic_plans: bool,
    /// PgBouncer in transaction mode stands between: no session settings, no statements that outlive a transaction.
    pub pooler: bool,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            max_connections: 10,
            // sqlx waits 30 s by default, in which a lane could have sent hundreds of messages.
            acquire_timeout: Duration::from_secs(5),
            application_name: "postrider".to_owned(),
            generic_plans: false,
            pooler: false,
        }
    }
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL is none. It may hold a password, so it is not repeated here.
    #[error("the database URL is not of the form postgres://user:password@host:port/database")]
    Url(#[source] sqlx::Error),
    /// No connection could be made.
    #[error("the database cannot be reached")]
    Unreachable(#[source] sqlx::Error),
    /// A statement failed.
    #[error("the database refused a statement")]
    Database(#[from] sqlx::Error),
}

impl StoreError {
    /// Whether the database is away or going away, so that trying again later is all there is to do.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Url(_) => false,
            Self::Unreachable(error) | Self::Database(error) => is_away(error),
        }
    }
}

/// Whether an error says that the database is away, rather than that the statement is wrong.
#[must_use]
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // 08: connection exceptions; 53300: too many connections; 57P: shutting down, crashed, starting up.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code.starts_with("08") || code.starts_with("57P") || code == "53300"
        }),
        _ => false,
    }
}

/// Whether the database refused a value: a wrong one (class 22), or one that is too long for an index (class 54). That is
/// one row's fault, and the others can go on without it.
#[must_use]
pub fn is_bad_value(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.starts_with("22") || code.starts_with("54"))
}

impl Store {
    /// Connects, once: whoever wants to wait for a database that is away calls again.
    pub async fn connect(url: &str, options: ConnectOptions) -> Result<Self, StoreError> {
        let session = session(url, &options)?;
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            // A ping before every use would double the trips; a broken connection shows in the statement anyway.
            .test_before_acquire(false)
            .connect_with(session)
            .await
            .map_err(StoreError::Unreachable)?;
        Ok(Self { pool })
    }

    /// Asks the database whether it is there.
    ///
    /// # Errors
    /// When it is not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query!("select 1 as one")
            .fetch_one(&self.pool)
            .await?;
        Ok(())
    }

    /// The pool, for statements.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl From<PgPool> for Store {
    fn from(pool: PgPool) -> Self {
        Self { pool }
    }
}

fn session(url: &str, options: &ConnectOptions) -> Result<PgConnectOptions, StoreError> {
    // sqlx does not look at the scheme.
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        let problem = "it begins with neither postgres:// nor postgresql://";
        return Err(StoreError::Url(sqlx::Error::Configuration(problem.into())));
    }
    let session = PgConnectOptions::from_str(url)
        .map_err(StoreError::Url)?
        .application_name(&options.application_name);
    if options.pooler {
        return Ok(session.statement_cache_capacity(0));
    }
    // An attempt that a crash of the server could undo would be a message sent twice, whatever the server's default.
    // Compiling a statement takes longer than any of ours runs.
    let session = session.options([("synchronous_commit", "on"), ("jit", "off")]);
    Ok(if options.generic_plans {
        // A plan that was made while a table was small is kept while it grows; it must use the indexes from the start.
        session.options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
        ])
    } else {
        session
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bad_url_is_told_without_repeating_it() {
        let error = Store::connect("mysql://u:hunter2@h/d", ConnectOptions::default())
            .await
            .unwrap_err();
        assert!(matches!(error, StoreError::Url(_)), "{error:?}");
        assert!(!error.to_string().contains("hunter2"));
        assert!(!error.is_away());
    }

    #[tokio::test]
    async fn a_database_that_is_not_there_is_away() {
        let error = Store::connect(
            "postgres://nobody@localhost/x?host=/nowhere",
            ConnectOptions::default(),
        )
        .await
        .unwrap_err();
        assert!(error.is_away(), "{error:?}");
    }
}
