//! The configuration while the daemon runs: read again on SIGHUP, and a bad file changes nothing.

use std::{path::PathBuf, sync::Arc};

use tokio::sync::watch;

use super::{Config, ConfigError};

/// The configuration in use, and where it came from.
#[derive(Debug)]
pub struct LiveConfig {
    path: PathBuf,
    current: watch::Sender<Arc<Config>>,
}

impl LiveConfig {
    /// Starts with what was read from `path`.
    #[must_use]
    pub fn new(path: PathBuf, config: Config) -> Self {
        Self {
            path,
            current: watch::Sender::new(Arc::new(config)),
        }
    }

    /// What is in use now, and its changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.current.subscribe()
    }

    /// Reads the file again, and takes over what can change while we run. Returns what was changed in it, but waits for the next
    /// start.
    ///
    /// # Errors
    /// When the file is bad, or what it says does not go together with what waits; then everything stays as it was.
    pub fn reload(&self) -> Result<Vec<&'static str>, ConfigError> {
        let mut next = Config::load(&self.path)?;
        let waiting = keep_what_waits(&self.current.borrow(), &mut next);
        let problems = next.problems();
        if !problems.is_empty() {
            return Err(ConfigError::NotYet {
                path: self.path.clone(),
                waiting,
                problems,
            });
        }
        self.current.send_replace(Arc::new(next));
        Ok(waiting)
    }
}

/// Puts into `next` what cannot change while we run, as it is `now`. Returns what of it differs.
fn keep_what_waits(now: &Config, next: &mut Config) -> Vec<&'static str> {
    let mut waiting = Vec::new();
    let kept = &mut waiting;
    keep("state_dir", &now.state_dir, &mut next.state_dir, kept);
    keep("[database]", &now.database, &mut next.database, kept);
    keep("[whatsapp]", &now.whatsapp, &mut next.whatsapp, kept);
    keep("[dispatch]", &now.dispatch, &mut next.dispatch, kept);
    keep(
        "pacing.jitter_allowance_ms",
        &now.pacing.jitter_allowance_ms,
        &mut next.pacing.jitter_allowance_ms,
        kept,
    );
    keep(
        "webhook.listen",
        &now.webhook.listen,
        &mut next.webhook.listen,
        kept,
    );
    keep(
        "webhook.max_connections",
        &now.webhook.max_connections,
        &mut next.webhook.max_connections,
        kept,
    );
    keep("ops.listen", &now.ops.listen, &mut next.ops.listen, kept);
    waiting
}

fn keep<T: Clone + PartialEq>(
    name: &'static str,
    now: &T,
    next: &mut T,
    waiting: &mut Vec<&'static str>,
) {
    if now != next {
        next.clone_from(now);
        waiting.push(name);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_reload_publishes_the_new_file_and_names_what_waits_for_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postrider.toml");
        let live = LiveConfig::new(path.clone(), Config::default());
        let seen = live.subscribe();
        fs::write(
            &path,
            "[limits]\nheadroom = 0.2\n[ops]\nlisten = \"127.0.0.1:1\"\n",
        )
        .unwrap();
        assert_eq!(live.reload().unwrap(), ["ops.listen"]);
        assert!((seen.borrow().limits.headroom - 0.2).abs() < f64::EPSILON);
        assert_eq!(seen.borrow().ops.listen, Config::default().ops.listen);
    }

    #[test]
    fn what_does_not_go_together_with_what_waits_for_a_restart_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postrider.toml");
        let live = LiveConfig::new(path.clone(), Config::default());
        let mut seen = live.subscribe();
        seen.mark_unchanged();
        // Good by itself; but until the next start a request may take ten seconds.
        let sooner = "[whatsapp]\nrequest_timeout_ms = 3000\n[kinds.otp]\nresolve_after_s = 9\n";
        fs::write(&path, sooner).unwrap();
        Config::load(&path).unwrap();
        let error = live.reload().unwrap_err().to_string();
        assert!(error.contains("[whatsapp]"), "{error}");
        assert!(error.contains("kinds.otp.resolve_after_s"), "{error}");
        assert!(!seen.has_changed().unwrap());
    }

    #[test]
    fn every_key_that_is_read_only_at_the_start_is_named_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postrider.toml");
        let live = LiveConfig::new(path.clone(), Config::default());
        let changed = "state_dir = \"/srv/postrider\"\n[database]\nurl = \"postgres:///other\"\n\
             [whatsapp]\nconnections = 3\n[dispatch]\nmax_attempts = 3\n[pacing]\njitter_allowance_ms = 7\n\
             [webhook]\nlisten = \"127.0.0.1:1\"\nmax_connections = 7\n[ops]\nlisten = \"127.0.0.1:2\"\n";
        fs::write(&path, changed).unwrap();
        let waiting = [
            "state_dir",
            "[database]",
            "[whatsapp]",
            "[dispatch]",
            "pacing.jitter_allowance_ms",
            "webhook.listen",
            "webhook.max_connections",
            "ops.listen",
        ];
        assert_eq!(live.reload().unwrap(), waiting);
        assert_eq!(**live.subscribe().borrow(), Config::default());
    }

    #[test]
    fn a_bad_file_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("postrider.toml");
        let live = LiveConfig::new(path.clone(), Config::default());
        let mut seen = live.subscribe();
        seen.mark_unchanged();
        for bad in ["[limits]\nheadroom = 7\n", "[limit]\n", "not toml"] {
            fs::write(&path, bad).unwrap();
            live.reload().unwrap_err();
        }
        fs::remove_file(&path).unwrap();
        live.reload().unwrap_err();
        assert!(!seen.has_changed().unwrap());
        assert_eq!(**seen.borrow(), Config::default());
    }
}
