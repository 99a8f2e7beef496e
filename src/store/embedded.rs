//! A private PostgreSQL for one Postrider: a cluster under a directory of ours, reached over a unix socket only.
//!
//! Nothing is bundled: the server binaries are the machine's own. Under root the server runs as another
//! user, because PostgreSQL refuses to be root.
//!
//! **It ends with us.** A small shell script, `guardian.sh`, starts the server, then reads from a pipe that only we hold
//! open. However we end (return, panic, SIGKILL), the kernel closes the pipe, the read ends, and the guardian stops the
//! server in good order. Only a guardian that is killed as well leaves a server behind; the next start stops that one.
//!
//! **One owner.** A file lock keeps two processes from using one directory. The kernel gives the lock back when its owner
//! ends, so there is no stale lock; a server that is still going down is waited for.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Child,
    str::FromStr,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};

use self::cluster::{Afterwards, Cluster};

mod account;
mod binaries;
mod cluster;

const DATABASE: &str = "postrider";
const SUPERUSER: &str = "postrider";

/// A running private server. It stops when this is dropped, and when the process ends in any other way.
#[derive(Debug)]
pub struct Embedded {
    guardian: Child,
    socket_dir: PathBuf,
    log: PathBuf,
    _lock: File,
}

/// How to run it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether what was committed survives a crash of the machine. Only tests may do without.
    pub durable: bool,
    /// PostgreSQL's `max_connections`.
    pub max_connections: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durable: true,
            max_connections: 200,
        }
    }
}

/// Why there is no private server.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// No server binaries on this machine.
    #[error(
        "no PostgreSQL server binaries (postgres, initdb, pg_ctl) were found {searched}; install them:
  Debian, Ubuntu:  apt-get install postgresql
  Fedora, RHEL:    dnf install postgresql-server
  Alpine:          apk add postgresql
  macOS:           brew install postgresql
or set POSTRIDER_PG_BINDIR to the directory that has them"
    )]
    NoBinaries {
        /// Where we looked.
        searched: String,
    },
    /// Another process uses the directory.
    #[error("{} is in use by process {pid}; stop it, or choose another directory", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that has it.
        pid: String,
    },
    /// The directory holds something that is not ours.
    #[error("{} is not empty and was not made by Postrider; choose another directory", dir.display())]
    NotOurs {
        /// The directory.
        dir: PathBuf,
    },
    /// PostgreSQL refuses to run as root, and the other user cannot get at the directory.
    #[error("PostgreSQL cannot run as root, and user `{user}` may not enter {}; choose a directory elsewhere", dir.display())]
    NoEntry {
        /// The user that PostgreSQL would run as.
        user: String,
        /// The directory that keeps them out.
        dir: PathBuf,
    },
    /// We are root, and there is no user to hand PostgreSQL to.
    #[error(
        "PostgreSQL cannot run as root, and this machine has neither a user `postgres` nor `nobody`"
    )]
    NoUser,
    /// A file or process could not be handled.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// initdb failed.
    #[error("initdb failed: {0}")]
    Initdb(String),
    /// The server did not come up.
    #[error("PostgreSQL did not start; the end of its log:\n{0}")]
    Start(String),
    /// It came up, but does not do as told.
    #[error("the private PostgreSQL does not answer as it should")]
    Database(#[from] sqlx::Error),
    /// It did not stop in good order.
    #[error("the private PostgreSQL did not stop in good order; see {}", log.display())]
    Stop {
        /// The log.
        log: PathBuf,
    },
}

impl Embedded {
    /// Starts the server of the cluster under `dir`, which is made when it is not there.
    pub async fn start(dir: &Path, options: Options) -> Result<Self, EmbeddedError> {
        let dir =
            std::path::absolute(dir).map_err(io_error("cannot tell the current directory"))?;
        Self::start_in(dir, options, Afterwards::Keep).await
    }

    /// Starts a server that keeps nothing: in a directory under `/tmp` that goes when the server has stopped.
    pub async fn throwaway(options: Options) -> Result<Self, EmbeddedError> {
        let dir = cluster::make_short_dir()?;
        let started = Self::start_in(dir.clone(), options, Afterwards::Remove).await;
        if started.is_err() {
            // The guardian removes it, but it may never have been started.
            let _ = std::fs::remove_dir_all(dir);
        }
        started
    }

    /// How to connect to its database, as its superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// How to connect to the server that another process of ours runs on the cluster under `dir`, if one does.
    #[must_use]
    pub fn url_of_running(dir: &Path) -> Option<String> {
        // PostgreSQL writes down where it listens: the fifth line is the socket's directory.
        let pid_file = std::fs::read_to_string(dir.join("data/postmaster.pid")).ok()?;
        let socket_dir = pid_file.lines().nth(4)?;
        Some(url(Path::new(socket_dir), DATABASE))
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Stops it, and waits until it has.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        let log = self.log.clone();
        let stopped = tokio::task::spawn_blocking(move || self.let_go()).await;
        match stopped.expect("stopping does not panic") {
            Ok(true) => Ok(()),
            Ok(false) => Err(EmbeddedError::Stop { log }),
            Err(error) => Err(io_error("cannot wait for PostgreSQL to stop")(error)),
        }
    }

    async fn start_in(
        dir: PathBuf,
        options: Options,
        afterwards: Afterwards,
    ) -> Result<Self, EmbeddedError> {
        let starting = tokio::task::spawn_blocking(move || {
            let cluster = Cluster::take(dir, options, afterwards)?;
            cluster.make_ready()?;
            Self::of(cluster)
        });
        let embedded = starting.await.expect("starting does not panic")?;
        embedded.ensure_database().await?;
        Ok(embedded)
    }

    /// Starts the guardian and waits for its word. When that is not `ready`, it is the end of the server's log.
    fn of(cluster: Cluster) -> Result<Self, EmbeddedError> {
        let socket_dir = cluster.socket_dir()?;
        cluster.configure(&socket_dir)?;
        let mut guardian = cluster.guard(&socket_dir)?;
        let stdout = guardian.stdout.take();
        let embedded = Self {
            guardian,
            socket_dir,
            log: cluster.log(),
            _lock: cluster.into_lock(),
        };

        let mut word = String::new();
        if let Some(mut stdout) = stdout {
            let said = |e| io_error("cannot hear from PostgreSQL's guardian")(e);
            stdout
                .by_ref()
                .take(5)
                .read_to_string(&mut word)
                .map_err(said)?;
            if word == "ready" {
                return Ok(embedded);
            }
            stdout.read_to_string(&mut word).map_err(said)?;
        }
        Err(EmbeddedError::Start(word.trim_end().to_owned()))
    }

    /// Closes the pipe, then waits for the guardian; it bounds the wait itself.
    fn let_go(&mut self) -> io::Result<bool> {
        drop(self.guardian.stdin.take());
        Ok(self.guardian.wait()?.success())
    }

    fn url_of(&self, database: &str) -> String {
        url(&self.socket_dir, database)
    }

    async fn ensure_database(&self) -> Result<(), sqlx::Error> {
        let options = PgConnectOptions::from_str(&self.url_of("postgres"))?;
        let mut connection = PgConnection::connect_with(&options).await?;
        let exists: bool =
            sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
                .bind(DATABASE)
                .fetch_one(&mut connection)
                .await?;
        if !exists {
            connection
                .execute(AssertSqlSafe(format!("create database {DATABASE}")))
                .await?;
        }
        connection.close().await
    }
}

fn url(socket_dir: &Path, database: &str) -> String {
    let host = percent_encode(&socket_dir.to_string_lossy());
    format!("postgres://{SUPERUSER}@localhost/{database}?host={host}")
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // Nobody is left to tell; what went wrong stands in the server's log.
        let _ = self.let_go();
    }
}

/// For a path in a URL's query.
fn percent_encode(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn io_error(what: impl Into<String>) -> impl FnOnce(io::Error) -> EmbeddedError {
    let what = what.into();
    |source| EmbeddedError::Io { what, source }
}
