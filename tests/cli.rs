//! What the shell and systemd see of a command: its exit code, and one sentence that says what to do. Commands are waited
//! for on the test's own thread, so a sandbox beside them needs another one.

#![cfg(test)]

mod common;

use std::process::{Command, Output, Stdio};

use common::{daemon::Postrider, database, free_port, rig::Rig};
use postrider::sandbox::Setup;
use serde_json::Value;

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn complaint(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_command_line_that_makes_no_sense_is_a_usage_error() {
    let postrider = Postrider::new("");
    for args in [
        &["fly"][..],
        &["run", "--no-such-flag"],
        &[],
        &["run", "--only", "everything"],
    ] {
        assert_eq!(code(&postrider.run(args)), 64, "{args:?}");
    }
}

#[test]
fn asking_for_help_or_the_version_is_no_error() {
    let postrider = Postrider::new("");
    for args in [["--help"], ["--version"]] {
        let output = postrider.run(&args);
        assert_eq!(code(&output), 0, "{args:?}");
        assert!(!output.stdout.is_empty());
    }
}

#[test]
fn a_bad_configuration_is_told_with_its_line_and_the_code_for_it() {
    let postrider = Postrider::new("[pacing]\nmessages_per_secnd = 1\n");
    for command in ["run", "migrate", "sync"] {
        let output = postrider.run(&[command]);
        assert_eq!(code(&output), 78, "{command}");
        let complaint = complaint(&output);
        assert!(
            complaint.contains("line 2, column 1: unknown field `messages_per_secnd`"),
            "{complaint}"
        );
    }
}

#[test]
fn a_configuration_that_is_not_there_is_told_by_its_path() {
    let output = Postrider::new("").run(&["run", "--config", "/nonexistent/postrider.toml"]);
    assert_eq!(code(&output), 78);
    assert!(complaint(&output).contains("/nonexistent/postrider.toml"));
}

#[test]
fn a_database_that_is_away_is_told_as_such() {
    let url = format!("postgres://postgres@127.0.0.1:{}/nothing", free_port());
    let output = Postrider::new(&format!("[database]\nurl = {url:?}\n")).run(&["migrate"]);
    assert_eq!(code(&output), 75, "{}", complaint(&output));
    assert!(
        complaint(&output).contains("[database] url"),
        "{}",
        complaint(&output)
    );
}

#[test]
fn no_database_at_all_is_a_configuration_error() {
    let output = Postrider::new("").run(&["migrate"]);
    assert_eq!(code(&output), 78);
    assert!(
        complaint(&output).contains("POSTRIDER_DATABASE_URL"),
        "{}",
        complaint(&output)
    );
}

#[test]
fn a_reader_that_left_changes_nothing() {
    let postrider = Postrider::new("");
    let check = ["check", "--offline"];
    // The check itself finds a problem (no database), but nobody is there to be told of a broken pipe.
    let (read, unread) = (postrider.run(&check), postrider.run_unread(&check));
    assert_ne!(read.status.code(), Some(0));
    assert_eq!(unread.status, read.status);
    assert_eq!(complaint(&unread), complaint(&read));
}

#[tokio::test]
async fn the_daemon_refuses_a_database_without_its_schema_and_migrate_brings_it() {
    let database = database().await;
    sqlx::raw_sql("drop schema postrider cascade")
        .execute(database.pool())
        .await
        .unwrap();
    let state = tempfile::tempdir().unwrap();
    let postrider = Postrider::new(&format!(
        "state_dir = {:?}\n[database]\nurl = {:?}\n[ops]\nlisten = \"127.0.0.1:0\"\n",
        state.path(),
        database.url()
    ));
    let refused = postrider.run(&["run"]);
    assert_eq!(code(&refused), 78, "{}", complaint(&refused));
    assert!(
        complaint(&refused).contains("postrider migrate"),
        "{}",
        complaint(&refused)
    );
    let migrated = postrider.run(&["migrate"]);
    assert_eq!(code(&migrated), 0, "{}", complaint(&migrated));
}

#[tokio::test(flavor = "multi_thread")]
async fn check_tells_every_finding_as_json_and_exits_by_the_first_problem() {
    let rig = Rig::new(Setup::quick(), "").await;
    let output = rig.postrider.run(&["check", "--json"]);
    assert_eq!(code(&output), 0, "{}", complaint(&output));
    let about = |output: &Output| -> Vec<(String, String)> {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let findings = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        findings
            .map(|finding| (word(&finding["about"]), word(&finding["level"])))
            .collect()
    };
    let findings = about(&output);
    for part in [
        "configuration",
        "secrets",
        "database",
        "schema",
        "sending",
        "provider",
    ] {
        assert!(
            findings.iter().any(|(about, _)| about == part),
            "{part}: {findings:?}"
        );
    }
    assert!(
        findings.iter().all(|(_, level)| level != "problem"),
        "{findings:?}"
    );

    let url = rig.sandbox.url();
    rig.sandbox.stop().await;
    let output = rig.postrider.run(&["check", "--json"]);
    assert_eq!(code(&output), 69, "the provider at {url} is away");
    assert!(about(&output).contains(&("provider".to_owned(), "problem".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn sync_tells_a_refused_token_from_a_provider_that_is_away() {
    let mut setup = Setup::quick();
    let rig = Rig::new(setup.clone(), "").await;
    let output = rig.postrider.run(&["sync", "--json"]);
    assert_eq!(code(&output), 0, "{}", complaint(&output));
    let synced: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(synced["numbers"], 4);

    rig.sandbox.stop().await;
    assert_eq!(code(&rig.postrider.run(&["sync"])), 69);

    let token = setup.accounts[0].token.clone();
    setup.accounts[0].token = "another".to_owned();
    let rig = Rig::new(setup, "").await;
    let text = rig.config.replace("\"another\"", &format!("{token:?}"));
    let refused = Postrider::new(&text).run(&["sync"]);
    assert_eq!(code(&refused), 77, "{}", complaint(&refused));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_cannot_share_a_state_directory() {
    let rig = Rig::new(Setup::quick(), "").await;
    let daemon = rig.daemon().await;
    let text = rig
        .config
        .replace(&format!(":{}", rig.ops_port), ":0")
        .replace(&format!(":{}", rig.webhook_port), ":0");
    let second = Postrider::new(&text).run(&["run"]);
    assert_eq!(code(&second), 1, "{}", complaint(&second));
    assert!(
        complaint(&second).contains("state directory"),
        "{}",
        complaint(&second)
    );
    daemon.terminate().await;
}

#[tokio::test]
async fn an_address_in_use_is_told_by_its_key() {
    let rig = Rig::new(Setup::quick(), "").await;
    let taken = std::net::TcpListener::bind(("127.0.0.1", rig.ops_port)).unwrap();
    let output = rig.postrider.run(&["run"]);
    assert_eq!(code(&output), 1);
    assert!(
        complaint(&output).contains("cannot listen on ops.listen"),
        "{}",
        complaint(&output)
    );
    drop(taken);
}

#[test]
fn the_sandbox_writes_a_configuration_that_check_accepts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("sandbox.toml");
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["sandbox", "--listen", "127.0.0.1:0", "--write-config"])
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It says where it listens after it has written the file.
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(sandbox.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    assert!(line.contains("listens on"), "{line}");
    let config = postrider::config::Config::load(&path).unwrap();
    assert_eq!(config.senders["default"].numbers.len(), 4);
    sandbox.kill().unwrap();
    sandbox.wait().unwrap();
}
