//! Postgres: the only place that has SQL.
//!
//! Each file is one thing that is asked of the database; longer statements stand beside it in a `.sql` file. Everything is
//! schema-qualified, so no session depends on a search path.

use std::{future::Future, io, sync::Arc, time::Duration};

use sqlx::{PgPool, postgres::PgConnectOptions};

pub mod attempt;
pub mod bell;
pub mod changes;
pub mod consent;
pub mod dead;
pub mod echoes;
pub mod embedded;
pub mod enqueue;
pub mod facts;
pub mod fold;
pub mod history;
mod hosts;
pub mod inbound;
pub mod inspect;
pub mod instance;
pub mod jobs;
pub mod lease;
pub mod ledger;
pub mod look;
pub mod migrate;
pub mod moves;
pub mod overview;
pub mod people;
pub mod receipts;
pub mod route;
pub mod sample;
pub mod settle;
pub mod sync;
pub mod unknown;
pub mod upkeep;
pub mod usage;
pub mod verify;
pub mod witness;

use route::{NoHost, Route};
use witness::Seen;

/// The database, by way of a pool of connections. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
    route: Arc<Route>,
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
    #[error("the database cannot be reached: {0}")]
    Unreachable(NoHost),
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
            Self::Unreachable(hosts) => hosts.is_away(),
            Self::Database(error) => is_away(error),
        }
    }
}

/// Whether an error says that the database is away, or cannot do now what it could do before, rather than that the statement
/// is wrong: the same statement may work later.
#[must_use]
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| is_passing(&code)),
        _ => false,
    }
}

/// SQLSTATEs of what passes (PostgreSQL 17, appendix A).
fn is_passing(code: &str) -> bool {
    // 08: connection exceptions; 53: disk full, out of memory, too many connections; 57P: shutting down, crashed, starting up.
    ["08", "53", "57P"].iter().any(|class| code.starts_with(class))
        // Read-only: a standby, or a primary that became one. Cancelled: by a timeout or an administrator. A lock that was
        // not to be had. Serialization failure, deadlock.
        || ["25006", "57014", "55P03", "40001", "40P01"].contains(&code)
}

/// Begins a transaction whose statements all see the same.
const SNAPSHOT: &str = "begin isolation level repeatable read, read only";

/// Waits for an answer at most so long: what hangs on a connection that is half-open is given up, and the connection with it.
///
/// # Errors
/// Those of the statement, and an I/O error that timed out.
pub async fn within<T>(
    limit: Duration,
    asking: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match tokio::time::timeout(limit, asking).await {
        Ok(answer) => answer,
        Err(_) => {
            let late = format!("the database did not answer within {limit:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, late).into())
        }
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
    /// Connects, once: whoever wants to wait for a database that is away calls again. Of several hosts that the URL names, it is
    /// the first to answer that takes writes.
    pub async fn connect(url: &str, options: ConnectOptions) -> Result<Self, StoreError> {
        let route = Route::new(hosts::parse(url)?);
        let found = route
            .find(&options)
            .await
            .map_err(StoreError::Unreachable)?;
        let pool = route.pool(options);
        // It has shown the way; how it ends is nobody's business.
        drop(found);
        Ok(Self {
            pool,
            route: Arc::new(route),
        })
    }

    /// The same database by a pool of its own. Connects when it is used.
    #[must_use]
    pub fn beside(&self, options: ConnectOptions) -> Self {
        Self {
            pool: self.route.pool(options),
            route: Arc::clone(&self.route),
        }
    }

    /// From now on no connection to this database is used when it has seen less of this instance than `seen`.
    pub fn expect(&self, instance: &str, seen: Seen) {
        self.route.expect(instance, seen);
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
        let options = PgConnectOptions::clone(&pool.connect_options());
        Self {
            pool,
            route: Arc::new(Route::new(options.into())),
        }
    }
}

impl ConnectOptions {
    /// What a session is to be like.
    fn session(&self, host: PgConnectOptions) -> PgConnectOptions {
        let session = host.application_name(&self.application_name);
        if self.pooler {
            return session.statement_cache_capacity(0);
        }
        // An attempt that a crash of the server could undo would be a message sent twice, whatever the server's default.
        // Compiling a statement takes longer than any of ours runs.
        let session = session.options([("synchronous_commit", "on"), ("jit", "off")]);
        // A client that vanished without a word must not keep its locks: the server notices by these.
        let session = session.options([
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
            ("idle_in_transaction_session_timeout", "10000"),
        ]);
        if self.generic_plans {
            // A plan that was made while a table was small is kept while it grows; it must use the indexes from the start.
            session.options([
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
            ])
        } else {
            session
        }
    }
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
