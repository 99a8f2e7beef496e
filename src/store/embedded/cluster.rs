//! The cluster on disk: taken by one owner, made once, cleared of what a crash left, and handed to a guardian.
//!
//! ```text
//! dir/owner          locked by the process that has it, whose number is inside
//! dir/data/          the cluster; data/local.conf for settings of your own
//! dir/socket/        where the server listens
//! dir/postgres.log
//! ```

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::{fs::DirBuilderExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{EmbeddedError, Options, SUPERUSER, account::Account, binaries::Binaries, io_error};

const GUARDIAN: &str = include_str!("guardian.sh");

/// The kernel's limit for a socket's path is 104 bytes on macOS and 108 on Linux, with its ending zero.
const SOCKET_PATH_MAX: usize = 103;
const SOCKET_NAME: &str = ".s.PGSQL.5432";

/// A cluster's directory that is ours alone.
pub(super) struct Cluster {
    binaries: Binaries,
    account: Account,
    dir: PathBuf,
    options: Options,
    afterwards: Afterwards,
    lock: File,
}

/// What becomes of the directory when the server has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    Keep,
    Remove,
}

impl Cluster {
    /// Makes the directory ours for as long as this, or its lock, lives.
    pub(super) fn take(
        dir: PathBuf,
        options: Options,
        afterwards: Afterwards,
    ) -> Result<Self, EmbeddedError> {
        let binaries = Binaries::find()?;
        let account = Account::for_server()?;
        let lock = lock(&dir)?;
        account.own(&dir)?;
        account.check_way_to(&dir)?;
        Ok(Self {
            binaries,
            account,
            dir,
            options,
            afterwards,
            lock,
        })
    }

    /// The cluster is there, and no server runs on it.
    pub(super) fn make_ready(&self) -> Result<(), EmbeddedError> {
        if !self.data().exists() {
            self.initdb()?;
        }
        self.stop_leftover()
    }

    pub(super) fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }

    pub(super) fn into_lock(self) -> File {
        self.lock
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Makes the cluster under another name first, so that one that was interrupted is never taken for a whole one.
    fn initdb(&self) -> Result<(), EmbeddedError> {
        let unfinished = self.dir.join("data.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .map_err(io_error(format!("cannot remove {}", unfinished.display())))?;
        }
        let mut command = self.account.command(&self.binaries.initdb());
        command.arg("--pgdata").arg(&unfinished);
        // Whoever may enter the socket's directory (mode 0700) is trusted.
        command.args(["--username", SUPERUSER, "--auth", "trust"]);
        command.args(["--encoding", "UTF8", "--locale", "C"]);
        if !self.options.durable {
            command.arg("--no-sync");
        }
        let output = command
            .current_dir(&self.dir)
            .output()
            .map_err(io_error("cannot run initdb"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(EmbeddedError::Initdb(said.trim().to_owned()));
        }
        let data = self.data();
        fs::rename(&unfinished, &data).map_err(io_error(format!("cannot make {}", data.display())))
    }

    /// A server whose guardian was killed, or that is still stopping. We hold the lock, so it is nobody's.
    fn stop_leftover(&self) -> Result<(), EmbeddedError> {
        let pid_file = self.data().join("postmaster.pid");
        let Ok(content) = fs::read_to_string(&pid_file) else {
            return Ok(());
        };
        let pid = content.lines().next().unwrap_or_default().trim();
        if runs_on(pid, &self.data()) {
            let mut stop = self.account.command(&self.binaries.pg_ctl());
            stop.arg("--pgdata")
                .arg(self.data())
                .args(["stop", "--mode", "fast", "--wait", "--silent"]);
            // It may have gone by itself meanwhile; the start tells if not.
            stop.current_dir(&self.dir)
                .output()
                .map_err(io_error("cannot run pg_ctl"))?;
            return Ok(());
        }
        // Left by a crash of the machine: its number may be another process's by now, which PostgreSQL cannot tell.
        match fs::remove_file(&pid_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(format!(
                "cannot remove {}",
                pid_file.display()
            ))(error)),
            _ => Ok(()),
        }
    }

    /// Where the server shall listen: beside the data, unless the path is too long for a socket.
    pub(super) fn socket_dir(&self) -> Result<PathBuf, EmbeddedError> {
        let near = self.dir.join("socket");
        let path = if near.as_os_str().len() + 1 + SOCKET_NAME.len() > SOCKET_PATH_MAX {
            make_short_dir()?
        } else {
            if !near.exists() {
                make_private_dir(&near)?;
            }
            near
        };
        self.account.own(&path)?;
        Ok(path)
    }

    pub(super) fn configure(&self, socket_dir: &Path) -> Result<(), EmbeddedError> {
        let path = self.data().join("postgresql.conf");
        fs::write(&path, configuration(socket_dir, &self.options))
            .map_err(io_error(format!("cannot write {}", path.display())))?;
        self.account.own(&path)
    }

    /// Starts the guardian, which starts the server.
    pub(super) fn guard(&self, socket_dir: &Path) -> Result<Child, EmbeddedError> {
        let mut command = self.account.command(Path::new("sh"));
        command
            .args(["-c", GUARDIAN, "postrider-guardian"])
            .arg(self.binaries.pg_ctl())
            .arg(&self.dir);
        if self.afterwards == Afterwards::Remove {
            command.arg(&self.dir);
        }
        if !socket_dir.starts_with(&self.dir) {
            command.arg(socket_dir);
        }
        command
            .current_dir(&self.dir)
            // Ctrl-C at the terminal is for us; the server stops after we have drained.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(io_error("cannot run sh"))
    }
}

fn lock(dir: &Path) -> Result<File, EmbeddedError> {
    fs::create_dir_all(dir).map_err(io_error(format!("cannot make {}", dir.display())))?;
    let path = dir.join("owner");
    let problem = |error| io_error(format!("cannot lock {}", path.display()))(error);
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

/// A new directory with a short name under `/tmp`.
pub(super) fn make_short_dir() -> Result<PathBuf, EmbeddedError> {
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
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(io_error(format!("cannot make {}", path.display())))
}

fn configuration(socket_dir: &Path, options: &Options) -> String {
    let durable = if options.durable { "on" } else { "off" };
    format!(
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
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// Stands for a server.
    fn process() -> Child {
        Command::new("sleep").arg("1000").spawn().unwrap()
    }

    fn names(dir: &Path, server: &Child) {
        let pid_file = dir.join("data/postmaster.pid");
        fs::write(pid_file, format!("{}\n", server.id())).unwrap();
    }

    #[test]
    fn a_guardian_leaves_the_server_of_the_next_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let pg_ctl = dir.path().join("pg_ctl");
        let stops = r#"case "$*" in *" stop "*) kill "$(head -n 1 "$2/postmaster.pid")"; esac"#;
        fs::write(&pg_ctl, format!("#!/bin/sh\n{stops}\n")).unwrap();
        fs::set_permissions(&pg_ctl, fs::Permissions::from_mode(0o755)).unwrap();
        let (its_own, mut next) = (process(), process());
        names(dir.path(), &its_own);
        let mut guardian = Command::new("sh")
            .args(["-c", GUARDIAN, "guardian"])
            .args([&pg_ctl, dir.path()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        let stdout = guardian.stdout.as_mut().unwrap();
        stdout.read_exact(&mut said).unwrap();
        assert_eq!(&said, b"ready");

        names(dir.path(), &next);
        drop(guardian.stdin.take());
        assert!(guardian.wait().unwrap().success());
        let survived = next.try_wait().unwrap().is_none();
        for mut process in [its_own, next] {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        assert!(survived);
    }
}
