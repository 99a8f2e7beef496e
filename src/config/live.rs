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

    /// Reads the file again. Returns what was changed in it, but waits for the next start.
    ///
    /// # Errors
    /// When the file is bad; then everything stays as it was.
    pub fn reload(&self) -> Result<Vec<&'static str>, ConfigError> {
        let next = Config::load(&self.path)?;
        let waiting = needs_restart(&self.current.borrow(), &next);
        self.current.send_replace(Arc::new(next));
        Ok(waiting)
    }
}

/// What differs and cannot change while we run.
fn needs_restart(now: &Config, next: &Config) -> Vec<&'static str> {
    let checks = [
        ("state_dir", now.state_dir == next.state_dir),
        ("[database]", now.database == next.database),
        ("[whatsapp]", now.whatsapp == next.whatsapp),
        ("[dispatch]", now.dispatch == next.dispatch),
        ("webhook.listen", now.webhook.listen == next.webhook.listen),
        ("ops.listen", now.ops.listen == next.ops.listen),
    ];
    checks
        .into_iter()
        .filter(|(_, is_same)| !is_same)
        .map(|(name, _)| name)
        .collect()
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
