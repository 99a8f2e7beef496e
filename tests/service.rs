//! The daemon's life as systemd sees it: ready only when ready, reloaded, watched, stopped in order.

#![cfg(test)]

mod common;

use std::{os::unix::net::UnixDatagram, process::Stdio, time::Duration};

use common::{daemon::Postrider, eventually, free_port, get, rig::Rig};
use postrider::sandbox::Setup;

#[tokio::test]
async fn the_daemon_waits_for_a_database_that_is_away_and_stops_when_asked_meanwhile() {
    let (database, ops) = (free_port(), free_port());
    let state = tempfile::tempdir().unwrap();
    let postrider = Postrider::new(&format!(
        "state_dir = {:?}\n[database]\nurl = \"postgres://nobody@127.0.0.1:{database}/nothing\"\n\
         [ops]\nlisten = \"127.0.0.1:{ops}\"\n",
        state.path()
    ));
    let mut daemon = postrider.start(&[]);
    daemon.logs("waiting for the database").await;
    assert_eq!(get(ops, "/healthz").await.unwrap().0, 200);
    let (status, body) = get(ops, "/readyz").await.unwrap();
    assert_eq!(status, 503);
    assert!(body.contains("database"), "{body}");
    let (status, log) = daemon.terminate().await;
    assert!(status.success(), "{log}");
}

#[tokio::test]
async fn a_reload_takes_a_good_file_and_keeps_the_old_on_a_bad_one() {
    let rig = Rig::new(Setup::quick(), "").await;
    let mut daemon = rig.daemon().await;
    rig.postrider
        .rewrite(&format!("{}\n[limits]\nheadrom = 0.1\n", rig.config));
    daemon.signal("HUP");
    daemon.logs("the configuration stays as it was").await;
    assert!(
        daemon.log().contains("unknown field `headrom`"),
        "{}",
        daemon.log()
    );

    rig.postrider.rewrite(&format!(
        "{}\n[kinds.parade]\nvalid_for_s = 60\n",
        rig.config
    ));
    daemon.signal("HUP");
    eventually("the new kind to reach the database", || async {
        let kinds: i64 = sqlx::query_scalar(
            "select count(*) from postrider.kind where name = 'parade' and configured",
        )
        .fetch_one(rig.pool())
        .await
        .unwrap();
        (kinds == 1).then_some(())
    })
    .await;
    let (status, log) = daemon.terminate().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("stopped in good order"), "{log}");
}

#[tokio::test]
async fn monitoring_sees_readiness_and_metrics_without_a_phone_number() {
    let rig = Rig::new(Setup::quick(), "").await;
    let daemon = rig.daemon().await;
    assert_eq!(
        get(rig.ops_port, "/readyz").await.unwrap(),
        (200, "ready\n".to_owned())
    );
    let (status, metrics) = get(rig.ops_port, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    // One for each of the numbers.
    assert!(metrics.contains("postrider_lease_held 4\n"), "{metrics}");
    daemon.terminate().await;
}

#[tokio::test]
async fn roles_can_be_split_over_processes() {
    let rig = Rig::new(Setup::quick(), "").await;
    let mut daemon = rig.postrider.start(&["--only", "webhook,upkeep"]);
    daemon.logs("ready").await;
    let (_, metrics) = get(rig.ops_port, "/metrics").await.unwrap();
    assert!(metrics.contains("postrider_lease_held 0"), "{metrics}");
    let leases: i64 =
        sqlx::query_scalar("select count(*) from postrider.lease where expires_at > now()")
            .fetch_one(rig.pool())
            .await
            .unwrap();
    assert_eq!(leases, 0);
    daemon.terminate().await;
}

/// A process that does not outlive a test that failed.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail when it has ended, as it should have.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// systemd's side of the notifications.
struct Notified {
    socket: UnixDatagram,
    seen: std::sync::Mutex<Vec<String>>,
}

impl Notified {
    fn by(path: &std::path::Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            socket,
            seen: std::sync::Mutex::default(),
        }
    }

    /// Waits for a line, which is then used up with all before it.
    async fn hears(&self, wanted: &str) {
        eventually(&format!("systemd to hear {wanted}"), || async {
            let mut buffer = [0; 4096];
            let mut seen = self.seen.lock().unwrap();
            while let Ok(length) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                seen.extend(text.lines().map(ToOwned::to_owned));
            }
            let found = seen.iter().position(|line| line.starts_with(wanted))?;
            seen.drain(..=found);
            Some(())
        })
        .await;
    }
}

#[tokio::test]
async fn systemd_hears_ready_watchdog_reloading_and_stopping_in_that_order() {
    let rig = Rig::new(Setup::quick(), "").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let systemd = Notified::by(&path);
    let child = rig
        .postrider
        .command(&["run"])
        .env("NOTIFY_SOCKET", &path)
        .env(
            "WATCHDOG_USEC",
            Duration::from_millis(500).as_micros().to_string(),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = Killed(child);
    let pid = daemon.0.id().to_string();
    let signal = |name: &str| {
        assert!(
            std::process::Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    systemd.hears("READY=1").await;
    systemd.hears("WATCHDOG=1").await;
    signal("HUP");
    systemd.hears("RELOADING=1").await;
    systemd.hears("READY=1").await;
    signal("TERM");
    systemd.hears("STOPPING=1").await;
    let status = eventually("the daemon to end", || {
        let ended = daemon.0.try_wait().unwrap();
        async move { ended }
    })
    .await;
    assert!(status.success());
}
