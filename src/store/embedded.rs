//! A private PostgreSQL for one Postrider: a cluster under a directory of ours, reached over a unix socket only.
//!
//! Nothing is bundled: the server binaries are the machine's own ([`Binaries`]). Under root the server runs as another
//! user, because PostgreSQL refuses to be root.
//!
//! **It ends with us.** A small shell script, `guardian.sh`, starts the server, then reads from a pipe that only we hold
//! open. However we end (return, panic, SIGKILL), the kernel closes the pipe, the read ends, and the guardian stops the
//! server in good order. Only a guardian that is killed as well leaves a server behind; the next start stops that one.
//!
//! **One owner.** A file lock keeps two processes from using one directory. The kernel gives the lock back when its owner
//! ends, so there is no stale lock; a server that is still going down is waited for.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    str::FromStr,
};

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};

use self::{account::Account, binaries::Binaries};

mod account;
mod binaries;

const GUARDIAN: &str = include_str!("embedded/guardian.sh");
const DATABASE: &str = "postrider";
const SUPERUSER: &str = "postrider";

/// The kernel's limit for a socket's path is 104 bytes on macOS and 108 on Linux, with its ending zero.
const SOCKET_PATH_MAX: usize = 103;
const SOCKET_NAME: &str = ".s.PGSQL.5432";

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
    /// Whether the whole directory is removed when the server has stopped.
    pub remove_afterwards: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durable: true,
            max_connections: 200,
            remove_afterwards: false,
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
    #[error("PostgreSQL did not start; the end of its log {}:\n{tail}", log.display())]
    Start {
        /// The log.
        log: PathBuf,
        /// Its last lines.
        tail: String,
    },
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
        let dir = std::path::absolute(dir)
            .map_err(|e| io_error("cannot tell the current directory", e))?;
        let started = tokio::task::spawn_blocking(move || start(&dir, &options)).await;
        let embedded = started.expect("starting does not panic")?;
        embedded.ensure_database().await?;
        Ok(embedded)
    }

    /// Starts a server that keeps nothing: in a directory under `/tmp` that goes when the server has stopped.
    pub async fn throwaway(max_connections: u16) -> Result<Self, EmbeddedError> {
        let dir = make_short_dir()?;
        Self::start(
            &dir,
            Options {
                durable: false,
                max_connections,
                remove_afterwards: true,
            },
        )
        .await
    }

    /// How to connect to its database, as its superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// The server's log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Stops it, and waits until it has.
    pub async fn stop(self) -> Result<(), EmbeddedError> {
        let stopped = tokio::task::spawn_blocking(move || {
            let mut embedded = self;
            embedded
                .let_go()
                .map(|in_order| (in_order, embedded.log.clone()))
        });
        match stopped.await.expect("stopping does not panic") {
            Ok((true, _)) => Ok(()),
            Ok((false, log)) => Err(EmbeddedError::Stop { log }),
            Err(source) => Err(io_error("cannot wait for PostgreSQL to stop", source)),
        }
    }

    /// Closes the pipe, then waits for the guardian; it bounds the wait itself.
    fn let_go(&mut self) -> io::Result<bool> {
        drop(self.guardian.stdin.take());
        Ok(self.guardian.wait()?.success())
    }

    fn url_of(&self, database: &str) -> String {
        let host = percent_encode(&self.socket_dir.to_string_lossy());
        format!("postgres://{SUPERUSER}@localhost/{database}?host={host}")
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

impl Drop for Embedded {
    fn drop(&mut self) {
        // Nobody is left to tell; what went wrong stands in the server's log.
        let _ = self.let_go();
    }
}

fn start(dir: &Path, options: &Options) -> Result<Embedded, EmbeddedError> {
    let binaries = Binaries::find()?;
    let account = Account::for_server()?;
    let lock = take(dir)?;
    account.own(dir)?;
    account.check_way_to(dir)?;

    let data = dir.join("data");
    if !data.exists() {
        initdb(&binaries, &account, dir, &data, options)?;
    }
    stop_leftover(&binaries, &account, &data)?;

    let log = dir.join("postgres.log");
    let socket_dir = socket_dir(dir, &account)?;
    configure(&data, &socket_dir, options, &account)?;
    let guardian = guard(&binaries, &account, dir, &socket_dir, options)?;
    let mut embedded = Embedded {
        guardian,
        socket_dir,
        log,
        _lock: lock,
    };
    match embedded.wait_until_ready() {
        true => Ok(embedded),
        false => Err(EmbeddedError::Start {
            tail: tail(&embedded.log),
            log: embedded.log.clone(),
        }),
    }
}

impl Embedded {
    /// The guardian says `ready`, or ends.
    fn wait_until_ready(&mut self) -> bool {
        let mut word = String::new();
        let said = self.guardian.stdout.take().map(|mut stdout| {
            let mut buffer = [0; 5];
            stdout
                .read_exact(&mut buffer)
                .map(|()| word.push_str(&String::from_utf8_lossy(&buffer)))
        });
        matches!(said, Some(Ok(()))) && word == "ready"
    }
}

/// Makes the directory ours alone for as long as the file is open.
fn take(dir: &Path) -> Result<File, EmbeddedError> {
    fs::create_dir_all(dir).map_err(|e| io_error(format!("cannot make {}", dir.display()), e))?;
    let path = dir.join("owner");
    let problem = |e| io_error(format!("cannot lock {}", path.display()), e);
    if !path.exists() && fs::read_dir(dir).map_err(problem)?.next().is_some() {
        return Err(EmbeddedError::NotOurs {
            dir: dir.to_owned(),
        });
    }
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(problem)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).map_err(problem)?;
            return Err(EmbeddedError::InUse {
                dir: dir.to_owned(),
                pid: pid.trim().to_owned(),
            });
        }
        Err(TryLockError::Error(error)) => return Err(problem(error)),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .map_err(problem)?;
    Ok(file)
}

/// Makes the cluster under another name first, so that one that was interrupted is never taken for a whole one.
fn initdb(
    binaries: &Binaries,
    account: &Account,
    dir: &Path,
    data: &Path,
    options: &Options,
) -> Result<(), EmbeddedError> {
    let unfinished = dir.join("data.unfinished");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)
            .map_err(|e| io_error(format!("cannot remove {}", unfinished.display()), e))?;
    }
    let mut command = account.command(&binaries.initdb());
    command.arg("--pgdata").arg(&unfinished);
    // Whoever may enter the socket's directory (mode 0700) is trusted.
    command.args([
        "--username",
        SUPERUSER,
        "--auth",
        "trust",
        "--encoding",
        "UTF8",
        "--locale",
        "C",
    ]);
    if !options.durable {
        command.arg("--no-sync");
    }
    let output = command
        .current_dir(dir)
        .output()
        .map_err(|e| io_error("cannot run initdb", e))?;
    if !output.status.success() {
        return Err(EmbeddedError::Initdb(
            String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        ));
    }
    fs::rename(&unfinished, data)
        .map_err(|e| io_error(format!("cannot make {}", data.display()), e))
}

/// A server whose guardian was killed, or that is still stopping. We hold the lock, so it is nobody's.
fn stop_leftover(binaries: &Binaries, account: &Account, data: &Path) -> Result<(), EmbeddedError> {
    let pid_file = data.join("postmaster.pid");
    let Ok(content) = fs::read_to_string(&pid_file) else {
        return Ok(());
    };
    let pid = content.lines().next().unwrap_or_default().trim();
    if runs_on(pid, data) {
        let mut stop = account.command(&binaries.pg_ctl());
        stop.arg("--pgdata")
            .arg(data)
            .args(["stop", "--mode", "fast", "--wait", "--silent"]);
        // It may have gone by itself meanwhile; the start tells if not.
        stop.current_dir(data)
            .output()
            .map_err(|e| io_error("cannot run pg_ctl", e))?;
    } else if let Err(error) = fs::remove_file(&pid_file)
        && error.kind() != io::ErrorKind::NotFound
    {
        // Left behind by a crash of the machine: its number may be another process's by now, which PostgreSQL cannot tell.
        return Err(io_error(
            format!("cannot remove {}", pid_file.display()),
            error,
        ));
    }
    Ok(())
}

/// Whether process `pid` is a PostgreSQL server of this cluster, by its command line.
fn runs_on(pid: &str, data: &Path) -> bool {
    let command_line = if Path::new("/proc/self/cmdline").exists() {
        fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
    } else {
        let ps = Command::new("ps")
            .args(["-o", "command=", "-p", pid])
            .output();
        ps.map(|output| output.stdout).unwrap_or_default()
    };
    String::from_utf8_lossy(&command_line).contains(&*data.to_string_lossy())
}

fn socket_dir(dir: &Path, account: &Account) -> Result<PathBuf, EmbeddedError> {
    let near = dir.join("socket");
    if near.as_os_str().len() + 1 + SOCKET_NAME.len() > SOCKET_PATH_MAX {
        let short = make_short_dir()?;
        account.own(&short)?;
        return Ok(short);
    }
    if !near.exists() {
        make_private_dir(&near)?;
    }
    account.own(&near)?;
    Ok(near)
}

/// A new directory with a short name under `/tmp`.
fn make_short_dir() -> Result<PathBuf, EmbeddedError> {
    loop {
        let path = PathBuf::from(format!("/tmp/postrider-{:08x}", rand::random::<u32>()));
        match make_private_dir(&path) {
            Err(EmbeddedError::Io { source, .. })
                if source.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| path),
        }
    }
}

fn make_private_dir(path: &Path) -> Result<(), EmbeddedError> {
    fs::DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|e| io_error(format!("cannot make {}", path.display()), e))
}

fn configure(
    data: &Path,
    socket_dir: &Path,
    options: &Options,
    account: &Account,
) -> Result<(), EmbeddedError> {
    let path = data.join("postgresql.conf");
    let durable = if options.durable { "on" } else { "off" };
    let text = format!(
        "# Written anew by Postrider at each start. Put your own settings into local.conf beside this file.
listen_addresses = ''
unix_socket_directories = '{socket_dir}'
unix_socket_permissions = 0700
max_connections = {max_connections}
max_prepared_transactions = 16
max_locks_per_transaction = 256
shared_buffers = 256MB
max_wal_size = 2GB
wal_level = minimal
max_wal_senders = 0
checkpoint_timeout = 15min
autovacuum_naptime = 15s
random_page_cost = 1.1
# Statements here are short; compiling them takes longer than running them.
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
fsync = {durable}
full_page_writes = {durable}
include_if_exists 'local.conf'
",
        socket_dir = socket_dir.display(),
        max_connections = options.max_connections,
    );
    fs::write(&path, text).map_err(|e| io_error(format!("cannot write {}", path.display()), e))?;
    account.own(&path)
}

fn guard(
    binaries: &Binaries,
    account: &Account,
    dir: &Path,
    socket_dir: &Path,
    options: &Options,
) -> Result<Child, EmbeddedError> {
    let mut command = account.command(Path::new("sh"));
    command
        .args(["-c", GUARDIAN, "postrider-guardian"])
        .arg(binaries.pg_ctl())
        .arg(dir);
    // What the guardian removes afterwards.
    if options.remove_afterwards {
        command.arg(dir);
    }
    if !socket_dir.starts_with(dir) {
        command.arg(socket_dir);
    }
    command
        .current_dir(dir)
        // Ctrl-C at the terminal is for us; the server stops after we have drained.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| io_error("cannot run sh", e))
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
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

fn io_error(what: impl Into<String>, source: io::Error) -> EmbeddedError {
    EmbeddedError::Io {
        what: what.into(),
        source,
    }
}
