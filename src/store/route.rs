//! Which of a database's servers connections lead to, and which connections may be used.
//!
//! sqlx connects to one place and knows nothing of standbys, so this stands around its pools: [`Route::find`] takes the first
//! server that answers and takes writes, and all pools of the process are told where it is; [`Watch`] asks it each second on a
//! connection of its own, and looks for another when it is gone, silent or read-only. What a pool opens is asked the same
//! before anybody gets it, and what it opened before the server was lost is put away unused: it may be half-open, or lead to
//! a server that is no longer the primary.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool, Row as _,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use super::{
    ConnectOptions, Store, StoreError,
    hosts::Hosts,
    is_away,
    witness::{self, Seen},
};

/// A server that does not take a connection, or does not answer on one, within this is away.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// What a statement that was given up left under way on its connection may take before the connection is closed.
const LEFTOVER_MAX: Duration = Duration::from_secs(1);

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// It was not reached, or let us not in.
    #[error(transparent)]
    Failed(#[from] sqlx::Error),
    /// It takes no writes.
    #[error("it is a standby, which takes no writes")]
    Standby,
    /// It takes no writes either.
    #[error("it is read-only (default_transaction_read_only)")]
    ReadOnly,
    /// It lost what was committed.
    #[error("it is older than what this host saw last")]
    Older,
    /// Nothing came back.
    #[error("it did not answer within {ANSWER_MAX:?}")]
    Silent,
}

impl Refusal {
    fn is_away(&self) -> bool {
        match self {
            Self::Failed(error) => is_away(error),
            Self::Standby | Self::ReadOnly | Self::Older | Self::Silent => true,
        }
    }
}

/// No server can be used: each with its reason.
#[derive(Debug)]
pub struct NoHost(Vec<(String, Refusal)>);

impl NoHost {
    /// Whether one of them may be there later.
    pub(super) fn is_away(&self) -> bool {
        self.0.iter().any(|(_, refusal)| refusal.is_away())
    }

    /// The first error of a server's own.
    #[must_use]
    pub fn error(&self) -> Option<&sqlx::Error> {
        self.0.iter().find_map(|(_, refusal)| match refusal {
            Refusal::Failed(error) => Some(error),
            _ => None,
        })
    }
}

impl From<sqlx::Error> for NoHost {
    fn from(error: sqlx::Error) -> Self {
        Self(vec![(String::new(), error.into())])
    }
}

impl fmt::Display for NoHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, refusal)) in self.0.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            let colon = if name.is_empty() { "" } else { ": " };
            write!(f, "{between}{name}{colon}{refusal}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoHost {}

/// Where a process's connections lead.
#[derive(Debug)]
pub(super) struct Route {
    hosts: Hosts,
    /// Which of them.
    at: AtomicUsize,
    gate: Arc<Gate>,
    lines: Mutex<Vec<(PgPool, ConnectOptions)>>,
}

/// What is asked of a connection before it may be used.
#[derive(Debug)]
struct Gate {
    must_write: bool,
    start: Instant,
    /// Microseconds from the start: connections that are older are put away.
    trusted_since: AtomicU64,
    seen: Mutex<Option<(String, Seen)>>,
}

impl Gate {
    fn new(must_write: bool) -> Self {
        Self {
            must_write,
            start: Instant::now(),
            trusted_since: AtomicU64::new(0),
            seen: Mutex::default(),
        }
    }

    fn distrust(&self) {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.trusted_since.store(now, Ordering::Relaxed);
    }

    fn trusts(&self, age: Duration) -> bool {
        let since = Duration::from_micros(self.trusted_since.load(Ordering::Relaxed));
        since.is_zero() || age < self.start.elapsed().saturating_sub(since)
    }

    /// Lets a new connection in, or says why not.
    async fn admit(&self, connection: &mut PgConnection) -> Result<(), Refusal> {
        // Read before the database is asked: what it has is then at least this, unless it is older.
        let seen = self
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.check_writes(connection).await?;
        if let Some((instance, seen)) = seen
            && witness::is_older(connection, &instance, &seen).await?
        {
            return Err(Refusal::Older);
        }
        Ok(())
    }

    async fn check_writes(&self, connection: &mut PgConnection) -> Result<(), Refusal> {
        // In one unprepared statement, so that it works behind a pooler too.
        let row = sqlx::raw_sql(
            "select pg_is_in_recovery() as standby, current_setting('transaction_read_only') = 'on' as read_only",
        )
        .fetch_one(connection)
        .await?;
        match (row.try_get("standby")?, row.try_get("read_only")?) {
            _ if !self.must_write => Ok(()),
            (true, _) => Err(Refusal::Standby),
            (false, true) => Err(Refusal::ReadOnly),
            (false, false) => Ok(()),
        }
    }
}

impl Route {
    pub(super) fn new(hosts: Hosts) -> Self {
        Self {
            gate: Arc::new(Gate::new(hosts.must_write)),
            hosts,
            at: AtomicUsize::new(0),
            lines: Mutex::default(),
        }
    }

    /// The host in use, for people.
    fn name(&self) -> &str {
        &self.hosts.all[self.at.load(Ordering::Relaxed)].name
    }

    /// Whether a connection of this age may still be used.
    pub(super) fn trusts(&self, age: Duration) -> bool {
        self.gate.trusts(age)
    }

    /// A pool whose connections lead to wherever the route does.
    pub(super) fn pool(&self, connect: ConnectOptions) -> PgPool {
        let pool = self.make(&connect);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push((pool.clone(), connect));
        pool
    }

    /// A pool of one connection, as the first pool's, that is not told when the route changes: for what is made anew then.
    pub(super) fn private_pool(&self) -> PgPool {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let first = lines.first().map(|(_, connect)| connect.clone());
        self.make(&ConnectOptions {
            max_connections: 1,
            ..first.unwrap_or_default()
        })
    }

    fn make(&self, connect: &ConnectOptions) -> PgPool {
        let (admitting, trusting) = (Arc::clone(&self.gate), Arc::clone(&self.gate));
        PgPoolOptions::new()
            .max_connections(connect.max_connections)
            .acquire_timeout(connect.acquire_timeout)
            // A ping before every use would double the trips; a broken connection shows in the statement anyway.
            .test_before_acquire(false)
            .before_acquire(move |_, meta| {
                let is_trusted = trusting.trusts(meta.age);
                Box::pin(async move { Ok(is_trusted) })
            })
            .after_connect(move |connection, _| {
                let gate = Arc::clone(&admitting);
                Box::pin(async move {
                    let admitted = gate.admit(connection).await;
                    admitted.map_err(|why| sqlx::Error::Configuration(why.into()))
                })
            })
            .after_release(|connection, _| {
                Box::pin(async move {
                    let left = tokio::time::timeout(LEFTOVER_MAX, end_leftovers(connection)).await;
                    left.unwrap_or_else(|_| Err(still_under_way()))
                        .map(|()| true)
                })
            })
            .connect_lazy_with(self.session(self.at.load(Ordering::Relaxed), connect))
    }

    fn session(&self, index: usize, connect: &ConnectOptions) -> PgConnectOptions {
        connect.session(self.hosts.all[index].options.clone())
    }

    /// Connects to a server that may be used, and leads all pools there. All are asked at once; the first to answer is it.
    pub(super) async fn find(&self, connect: &ConnectOptions) -> Result<PgConnection, NoHost> {
        let mut asking: FuturesUnordered<_> = (0..self.hosts.all.len())
            .map(|index| async move { (index, self.try_host(index, connect).await) })
            .collect();
        let mut refusals = Vec::new();
        while let Some((index, tried)) = asking.next().await {
            match tried {
                Ok(connection) => {
                    self.lead_to(index);
                    return Ok(connection);
                }
                Err(refusal) => refusals.push((index, refusal)),
            }
        }
        refusals.sort_by_key(|(index, _)| *index);
        let named = refusals
            .into_iter()
            .map(|(index, refusal)| (self.hosts.all[index].name.clone(), refusal));
        Err(NoHost(named.collect()))
    }

    async fn try_host(
        &self,
        index: usize,
        connect: &ConnectOptions,
    ) -> Result<PgConnection, Refusal> {
        let trying = async {
            let mut connection = self.session(index, connect).connect().await?;
            self.gate.check_writes(&mut connection).await?;
            Ok(connection)
        };
        let tried = tokio::time::timeout(ANSWER_MAX, trying).await;
        tried.unwrap_or(Err(Refusal::Silent))
    }

    fn lead_to(&self, index: usize) {
        if self.at.swap(index, Ordering::Relaxed) == index {
            return;
        }
        self.gate.distrust();
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for (pool, connect) in lines.iter() {
            pool.set_connect_options(self.session(index, connect));
        }
    }

    /// From now on a database that has a smaller number than this is refused, and whatever number another one has is fine.
    pub(super) fn expect(&self, instance: &str, seen: Seen) {
        let mut expected = self
            .gate
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *expected = Some((instance.to_owned(), seen));
    }
}

/// Waits for what a statement that was given up left under way on its connection, and ends the transaction that it left open.
/// The pool would wait for ever if need be; and a transaction that was given up as it began is open without anybody knowing,
/// so that whatever is written next on its connection is never committed (transact-rs/sqlx #4393, in 0.9.0; mended after it).
async fn end_leftovers(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Nothing is asked. In a transaction sqlx takes it for the beginning of one, and refuses it otherwise.
    match connection.begin_with("").await {
        Ok(left_open) => left_open.rollback().await,
        Err(sqlx::Error::BeginFailed) => Ok(()),
        Err(error) => Err(error),
    }
}

fn still_under_way() -> sqlx::Error {
    let what = "a statement that was given up is still under way; its connection is closed";
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, what))
}

/// Keeps asking the server whether it may be used, and finds another when not.
#[derive(Debug)]
pub struct Watch {
    store: Store,
    connect: ConnectOptions,
    held: Option<PgConnection>,
    /// What is wrong, if that was said already.
    lost: bool,
}

impl Watch {
    /// Over the route of this store.
    #[must_use]
    pub fn new(store: Store, connect: ConnectOptions) -> Self {
        Self {
            store,
            connect,
            held: None,
            lost: false,
        }
    }

    /// A connection to a server that may be used, asked just now.
    ///
    /// # Errors
    /// When there is none; then nothing that any pool holds is used any more.
    pub async fn look(&mut self) -> Result<&mut PgConnection, StoreError> {
        let route = &self.store.route;
        let held = match self.held.take() {
            Some(mut held) => {
                let asking = route.gate.check_writes(&mut held);
                let asked = tokio::time::timeout(ANSWER_MAX, asking).await;
                match asked.unwrap_or(Err(Refusal::Silent)) {
                    Ok(()) => Some(held),
                    Err(why) => {
                        route.gate.distrust();
                        tracing::warn!("the database at {} is lost: {why}", route.name());
                        self.lost = true;
                        None
                    }
                }
            }
            None => None,
        };
        let held = match held {
            Some(held) => held,
            None => self.find().await?,
        };
        Ok(self.held.insert(held))
    }

    async fn find(&mut self) -> Result<PgConnection, StoreError> {
        let route = &self.store.route;
        let found = route.find(&self.connect).await;
        let found = found.map_err(StoreError::Unreachable)?;
        if std::mem::take(&mut self.lost) {
            tracing::info!("the database is back, at {}", route.name());
        }
        Ok(found)
    }
}
