//! The real binary as a process: started, watched, terminated, killed.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use super::eventually;

/// A command of the real binary, with a configuration file.
pub(crate) struct Postrider {
    config: tempfile::NamedTempFile,
}

/// `postrider run` as a process. It is killed when this is dropped.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    // The file has to stay for as long as the process may read it again.
    config: Arc<Postrider>,
}

impl Postrider {
    /// With this text as its configuration.
    pub(crate) fn new(config: &str) -> Arc<Self> {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().unwrap();
        let postrider = Self { config: file };
        postrider.rewrite(config);
        Arc::new(postrider)
    }

    /// Other text in the same file, for a reload.
    pub(crate) fn rewrite(&self, config: &str) {
        let mut file = self.config.reopen().unwrap();
        file.set_len(0).unwrap();
        file.write_all(config.as_bytes()).unwrap();
    }

    /// A command, not started yet. The environment of whoever runs the tests does not reach it.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command
            .args(args)
            .env("POSTRIDER_CONFIG", self.config.path())
            .stdin(Stdio::null());
        for name in [
            "POSTRIDER_DATABASE_URL",
            "DATABASE_URL",
            "CREDENTIALS_DIRECTORY",
            "NOTIFY_SOCKET",
            "RUST_LOG",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command to its end of whose standard output nobody reads anything.
    pub(crate) fn run_unread(&self, args: &[&str]) -> Output {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        self.command(args).stdout(writer).output().unwrap()
    }

    /// Runs a command that has to succeed.
    pub(crate) fn does(&self, args: &[&str]) {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
    }

    /// Starts the daemon; it is not ready yet.
    pub(crate) fn start(self: &Arc<Self>, args: &[&str]) -> Daemon {
        self.start_logging(args, "")
    }

    /// Starts the daemon with this filter of its log.
    pub(crate) fn start_logging(self: &Arc<Self>, args: &[&str], filter: &str) -> Daemon {
        let mut child = self
            .command(&[&["run"], args].concat())
            .env("POSTRIDER_LOG", filter)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let readers = vec![
            collect(child.stdout.take().unwrap(), Arc::clone(&log)),
            collect(child.stderr.take().unwrap(), Arc::clone(&log)),
        ];
        Daemon {
            child,
            log,
            readers,
            config: Arc::clone(self),
        }
    }
}

impl Daemon {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a line of its log that contains `words`.
    pub(crate) async fn logs(&mut self, words: &str) {
        let what = format!("the daemon to log `{words}`");
        eventually(&what, || {
            let found = self.log().contains(words);
            let ended = self.child.try_wait().unwrap();
            async move {
                assert!(found || ended.is_none(), "the daemon ended: {ended:?}");
                found.then_some(())
            }
        })
        .await;
    }

    /// Sends it a signal by name, for example `TERM` or `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status()
            .unwrap();
        assert!(sent.success(), "kill -{name} {}", self.pid());
    }

    /// Ends it in good order, and waits for that.
    pub(crate) async fn terminate(self) -> (ExitStatus, String) {
        self.signal("TERM");
        self.wait().await
    }

    /// Waits until it has ended.
    pub(crate) async fn wait(mut self) -> (ExitStatus, String) {
        let status = eventually("the daemon to end", || {
            let ended = self.child.try_wait().unwrap();
            async move { ended }
        })
        .await;
        (status, self.whole_log())
    }

    /// Ends it with SIGKILL; it gets no chance to do anything. Gives its log, and what to start it again with.
    pub(crate) fn kill(mut self) -> (Arc<Postrider>, String) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        (Arc::clone(&self.config), self.whole_log())
    }

    fn whole_log(&mut self) -> String {
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        self.log()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}", self.log());
        }
    }
}

fn collect(from: impl Read + Send + 'static, log: Arc<Mutex<String>>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut log = log.lock().unwrap();
            log.push_str(&line);
            log.push('\n');
        }
    })
}
