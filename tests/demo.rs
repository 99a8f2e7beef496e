//! The demo, as a newcomer runs it: it holds every job against the provider's book by itself, so its exit code is the test.

#![cfg(test)]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the real binary. Few jobs, because sending is paced by the clock.
fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command
        .args(["demo", "--jobs", "400"])
        .args(arguments)
        .stdin(Stdio::null());
    // Nothing of whoever runs the tests may reach it: it needs neither a database nor a configuration.
    for name in [
        "POSTRIDER_DATABASE_URL",
        "POSTRIDER_CONFIG",
        "POSTRIDER_LOG",
        "CREDENTIALS_DIRECTORY",
        "NOTIFY_SOCKET",
    ] {
        command.env_remove(name);
    }
    command.output().expect("the binary was just built")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_demo_finds_every_job_as_it_must_be_and_says_so_in_96_columns() {
    let output = demo(&[]);
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(
        said.contains("All 400 jobs are as the samples say they must be"),
        "{said}"
    );
    for kind in ["order", "delivery", "otp", "travel"] {
        assert!(
            said.lines().any(|line| line.trim_start().starts_with(kind)),
            "{kind} in\n{said}"
        );
    }
    for reason in [
        "no_opt_in",
        "opted_out",
        "template_not_approved",
        "category_not_allowed",
        "parameter_mismatch",
    ] {
        assert!(said.contains(reason), "{reason} in\n{said}");
    }
    let is_too_wide =
        |line: &&str| line.chars().count() > 96 && !line.contains(env!("CARGO_BIN_EXE_postrider"));
    let wide: Vec<_> = said.lines().filter(is_too_wide).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    assert_eq!(complained, "", "it complains of nothing");
}

#[test]
fn with_json_the_demo_prints_its_summary_and_nothing_else() {
    let output = demo(&["--seed", "7", "--json"]);
    assert!(
        output.status.success(),
        "{}\n{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["jobs"], 400);
    assert_eq!(summary["off"], Value::Array(vec![]));
    let mishaps = summary["mishaps"].as_array().unwrap();
    assert!(mishaps.len() >= 8, "{mishaps:#?}");
}
