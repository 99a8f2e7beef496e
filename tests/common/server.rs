//! A PostgreSQL server of one test's own, to be stopped, killed, copied, restored and promoted.

use std::{
    fs,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use postrider::store::embedded::{Embedded, Options};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::url_of;

/// How a server is ended.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mode {
    /// Sessions are told.
    Fast,
    /// As by a crash: what is committed is recovered at the next start.
    Immediate,
}

/// A cluster's server, by its own programs.
pub(crate) struct Server {
    bin: PathBuf,
    data: PathBuf,
    socket: PathBuf,
    uid: u32,
    gid: u32,
    /// Removes the directory when the test ends; a standby lives beside its primary.
    _embedded: Option<Embedded>,
}

impl Server {
    /// With these lines in its configuration. It can have standbys.
    pub(crate) async fn new(settings: &str) -> Self {
        let options = Options {
            durable: false,
            max_connections: 100,
        };
        let embedded = Embedded::throwaway(options)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let mut connection = PgConnection::connect(&embedded.url()).await.unwrap();
        let (bin, data, socket): (String, String, String) = sqlx::query_as(
            "select (select setting from pg_config where name = 'BINDIR'), current_setting('data_directory'),
               current_setting('unix_socket_directories')",
        )
        .fetch_one(&mut connection)
        .await
        .unwrap();
        connection.close().await.unwrap();
        let owner = fs::metadata(&data).unwrap();
        let server = Self {
            bin: bin.into(),
            data: data.into(),
            socket: socket.into(),
            uid: owner.uid(),
            gid: owner.gid(),
            _embedded: Some(embedded),
        };
        let standby = "wal_level = replica\nmax_wal_senders = 10\nhot_standby = on\n";
        server.configure(&format!("{standby}{settings}\n"));
        server.stop(Mode::Fast);
        server.start();
        server
    }

    /// The database `postrider`, as superuser.
    pub(crate) fn url(&self) -> String {
        self.url_of("postrider")
    }

    pub(crate) fn url_of(&self, database: &str) -> String {
        let url = format!(
            "postgres://postrider@localhost/postgres?host={}",
            self.socket.display()
        );
        url_of(&url, database)
    }

    /// Where it listens.
    pub(crate) fn socket_dir(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn start(&self) {
        let log = self.data.with_extension("log");
        self.pg_ctl(&["start", "--log", &log.to_string_lossy()]);
    }

    pub(crate) fn stop(&self, mode: Mode) {
        self.pg_ctl(&["stop", "--mode", word(mode)]);
    }

    pub(crate) fn restart(&self, mode: Mode) {
        self.stop(mode);
        self.start();
    }

    /// A standby becomes the primary.
    pub(crate) fn promote(&self) {
        self.pg_ctl(&["promote"]);
    }

    /// One statement, on a connection of its own.
    pub(crate) async fn sql(&self, statement: &str) {
        let mut connection = PgConnection::connect(&self.url()).await.unwrap();
        connection
            .execute(AssertSqlSafe(statement.to_owned()))
            .await
            .unwrap();
        connection.close().await.unwrap();
    }

    /// A standby of this one, running. It streams under the name `standby`.
    pub(crate) fn standby(&self) -> Self {
        let beside = self.data.with_file_name("standby");
        fs::create_dir(&beside).unwrap();
        std::os::unix::fs::chown(&beside, Some(self.uid), Some(self.gid)).unwrap();
        let (data, socket) = (beside.join("data"), beside.join("s"));
        let mut make = self.command("mkdir");
        self.run(make.arg("-m700").arg(&socket));
        let from = format!(
            "host={} user=postrider application_name=standby",
            self.socket.display()
        );
        let mut copy = self.command(self.bin.join("pg_basebackup"));
        copy.args(["--dbname", &from, "--write-recovery-conf", "--no-sync"])
            .args(["--checkpoint", "fast", "--wal-method", "stream", "--pgdata"])
            .arg(&data);
        self.run(&mut copy);
        let standby = Self {
            bin: self.bin.clone(),
            data,
            socket,
            uid: self.uid,
            gid: self.gid,
            _embedded: None,
        };
        let listens = format!("unix_socket_directories = '{}'\n", standby.socket.display());
        standby.configure(&listens);
        standby.start();
        standby
    }

    /// Keeps what is on disk now; the server has to be stopped.
    pub(crate) fn back_up(&self) {
        let mut copy = self.command("cp");
        self.run(copy.arg("-a").arg(&self.data).arg(self.backup()));
    }

    /// Puts that back; the server has to be stopped.
    pub(crate) fn restore(&self) {
        fs::remove_dir_all(&self.data).unwrap();
        let mut copy = self.command("cp");
        self.run(copy.arg("-a").arg(self.backup()).arg(&self.data));
    }

    fn backup(&self) -> PathBuf {
        self.data.with_extension("backup")
    }

    /// Adds to the settings; they are heeded at the next start.
    pub(crate) fn configure(&self, settings: &str) {
        let path = self.data.join("local.conf");
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, before + settings).unwrap();
        std::os::unix::fs::chown(&path, Some(self.uid), Some(self.gid)).unwrap();
    }

    fn pg_ctl(&self, args: &[&str]) {
        let mut command = self.command(self.bin.join("pg_ctl"));
        command
            .arg("--pgdata")
            .arg(&self.data)
            .args(args)
            .args(["--wait", "--silent"]);
        self.run(&mut command);
    }

    /// As the server's user, because PostgreSQL refuses to be root.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if fs::metadata("/proc/self").is_ok_and(|process| process.uid() != self.uid) {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    fn run(&self, command: &mut Command) {
        let status = command.status().unwrap();
        assert!(status.success(), "{command:?}: {status}");
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Fast => "fast",
        Mode::Immediate => "immediate",
    }
}

impl Drop for Server {
    /// A standby has nobody else to stop it. The primary is stopped by whoever started it first; one that was started anew
    /// by us is found by its data directory.
    fn drop(&mut self) {
        let mut stop = self.command(self.bin.join("pg_ctl"));
        stop.arg("--pgdata").arg(&self.data);
        // It may be stopped already.
        let _ = stop
            .args(["stop", "--mode", "immediate", "--silent", "--wait"])
            .status();
    }
}
