//! The private PostgreSQL: it keeps its data, ends with its owner, and lets only one owner in.

#![cfg(test)]

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use postrider::store::{
    ConnectOptions, Store,
    embedded::{Embedded, EmbeddedError, Options},
};

const HELPER_DIR: &str = "POSTRIDER_TEST_HELPER_DIR";

fn quick() -> Options {
    Options {
        durable: false,
        ..Options::default()
    }
}

async fn store(embedded: &Embedded) -> Store {
    Store::connect(&embedded.url(), ConnectOptions::default())
        .await
        .unwrap()
}

async fn postmaster(store: &Store) -> u32 {
    let line: String =
        sqlx::query_scalar("select split_part(pg_read_file('postmaster.pid'), e'\\n', 1)")
            .fetch_one(store.pool())
            .await
            .unwrap();
    line.parse().unwrap()
}

/// Not one that has ended and waits for its parent to notice: in a container that may be never.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The server's end is another process's work, so all we can do is look again; the bound only ends a failing test.
fn wait_until_gone(pid: u32) {
    let start = Instant::now();
    while runs(pid) {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "process {pid} still runs"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn a_cluster_is_used_again_with_its_data_and_sessions_commit_synchronously() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::start(dir.path(), Options::default())
        .await
        .unwrap();
    let database = store(&first).await;
    sqlx::query("create table kept as select 42 as answer")
        .execute(database.pool())
        .await
        .unwrap();
    database.pool().close().await;
    first.stop().await.unwrap();

    let second = Embedded::start(dir.path(), Options::default())
        .await
        .unwrap();
    let database = store(&second).await;
    let (answer, commit, fsync): (i32, String, String) = sqlx::query_as(
        "select answer, current_setting('synchronous_commit'), current_setting('fsync') from kept",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert_eq!((answer, commit.as_str(), fsync.as_str()), (42, "on", "on"));
    let pid = postmaster(&database).await;
    drop(second);
    assert!(!runs(pid), "dropping waits for the server to stop");
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_gets_a_short_socket_elsewhere_that_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let long = dir.path().join("a".repeat(120));
    // The way there has to be open to the user that the server runs as; the cluster's own directory it gets anyway.
    open_to_all(dir.path());
    let embedded = Embedded::start(&long, quick()).await.unwrap();
    let database = store(&embedded).await;
    let socket_dir: String = sqlx::query_scalar("show unix_socket_directories")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert!(socket_dir.starts_with("/tmp/postrider-"), "{socket_dir}");
    database.pool().close().await;
    embedded.stop().await.unwrap();
    assert!(!Path::new(&socket_dir).exists());
}

#[tokio::test]
async fn a_second_owner_is_told_who_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = Embedded::start(dir.path(), quick()).await.unwrap();
    let refused = Embedded::start(dir.path(), quick()).await.unwrap_err();
    match &refused {
        EmbeddedError::InUse { pid, .. } => assert_eq!(*pid, std::process::id().to_string()),
        other => panic!("{other}"),
    }
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "").unwrap();
    let refused = Embedded::start(dir.path(), quick()).await.unwrap_err();
    assert!(
        matches!(refused, EmbeddedError::NotOurs { .. }),
        "{refused}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_server_that_cannot_start_shows_the_end_of_its_log() {
    let dir = tempfile::tempdir().unwrap();
    Embedded::start(dir.path(), quick())
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    std::fs::write(
        dir.path().join("data/local.conf"),
        "shared_buffers = nonsense\n",
    )
    .unwrap();
    open_to_all(&dir.path().join("data/local.conf"));
    let refused = Embedded::start(dir.path(), quick()).await.unwrap_err();
    assert!(matches!(refused, EmbeddedError::Start(_)), "{refused}");
    assert!(refused.to_string().contains("shared_buffers"), "{refused}");
}

#[tokio::test]
async fn the_server_stops_when_its_owner_is_killed_and_the_next_owner_finds_the_data() {
    let dir = tempfile::tempdir().unwrap();
    let (mut owner, pid) = start_owner(dir.path());
    assert!(runs(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();

    wait_until_gone(pid);

    let next = Embedded::start(dir.path(), quick()).await.unwrap();
    let database = store(&next).await;
    let answer: i32 = sqlx::query_scalar("select answer from kept")
        .fetch_one(database.pool())
        .await
        .unwrap();
    assert_eq!(answer, 42);
}

#[tokio::test]
async fn a_server_that_lost_owner_and_guardian_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (mut owner, pid) = start_owner(dir.path());
    let guardian = guardian_of(owner.id());
    assert!(
        Command::new("kill")
            .args(["-9", &guardian.to_string()])
            .status()
            .unwrap()
            .success()
    );
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until_gone(guardian);
    assert!(runs(pid), "nobody was left to stop it");

    let next = Embedded::start(dir.path(), quick()).await.unwrap();
    assert!(!runs(pid));
    let database = store(&next).await;
    assert_ne!(postmaster(&database).await, pid);
}

#[tokio::test]
async fn a_throwaway_leaves_nothing_behind() {
    let embedded = Embedded::throwaway(quick()).await.unwrap();
    let dir = embedded.log().parent().unwrap().to_owned();
    assert!(dir.exists());
    embedded.stop().await.unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_stale_pid_file_that_names_a_stranger_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    Embedded::start(dir.path(), quick())
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    let mut stranger = Command::new("sleep").arg("1000").spawn().unwrap();
    let content = format!("{}\n{}\n", stranger.id(), dir.path().join("data").display());
    std::fs::write(dir.path().join("data/postmaster.pid"), content).unwrap();
    let started = Embedded::start(dir.path(), quick()).await;
    let survived = stranger.try_wait().unwrap().is_none();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    started.unwrap();
    assert!(survived, "the stranger was not touched");
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Starts this test program again as a process that owns a server, to be killed; gives it and the server's process.
fn start_owner(dir: &Path) -> (Child, u32) {
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "helper_that_owns_a_server_until_it_is_killed",
            "--ignored",
            "--nocapture",
        ])
        .env(HELPER_DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(owner.stdout.take().unwrap());
    let pid = stdout
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("postmaster=")?.1.parse().ok())
        .expect("the helper says where the server is");
    (owner, pid)
}

fn guardian_of(owner: u32) -> u32 {
    let threads = std::fs::read_dir(format!("/proc/{owner}/task"))
        .unwrap()
        .flatten();
    let children: String = threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .collect();
    children
        .split_whitespace()
        .next()
        .expect("the guardian is the helper's child")
        .parse()
        .unwrap()
}

#[tokio::test]
#[ignore = "not a test: other tests run it as a process and kill it"]
async fn helper_that_owns_a_server_until_it_is_killed() {
    let Some(dir) = std::env::var_os(HELPER_DIR) else {
        return;
    };
    let embedded = Embedded::start(Path::new(&dir), quick()).await.unwrap();
    let database = store(&embedded).await;
    sqlx::query("create table kept as select 42 as answer")
        .execute(database.pool())
        .await
        .unwrap();
    println!("\npostmaster={}", postmaster(&database).await);
    std::future::pending::<()>().await;
}
