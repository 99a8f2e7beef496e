//! Runs a command beside a throwaway PostgreSQL that it finds in `POSTRIDER_TEST_DATABASE_URL` and `DATABASE_URL`, so that a
//! whole test run shares one server: `cargo run --example with_postgres -- cargo nextest run`.
//!
//! `--migrate` before the command brings the schema up first.

use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, bail};
use postrider::store::{
    ConnectOptions, Store,
    embedded::{Embedded, Options},
    migrate,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args_os().skip(1).peekable();
    let with_schema = args.next_if(|arg| arg == "--migrate").is_some();
    let Some(program) = args.next() else {
        bail!("usage: with_postgres [--migrate] COMMAND [ARGUMENT...]")
    };

    let server = Embedded::throwaway(Options {
        durable: false,
        max_connections: 300,
    })
    .await?;
    if with_schema {
        let store = Store::connect(&server.url(), ConnectOptions::default()).await?;
        migrate::migrate(store.pool()).await?;
        store.pool().close().await;
    }
    let mut command = Command::new(&program);
    command
        .args(args)
        .env("POSTRIDER_TEST_DATABASE_URL", server.url())
        .env("DATABASE_URL", server.url());
    forget_cargo_run(&mut command);
    let status = tokio::task::spawn_blocking(move || command.status())
        .await?
        .with_context(|| format!("cannot run {}", program.display()));
    server.stop().await?;
    Ok(code(status?))
}

/// `cargo run` describes this package in the environment, and ring's build script takes that for a change: a cargo inside
/// would compile ring and everything above it again.
fn forget_cargo_run(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let told_by = |prefix| name.to_string_lossy().starts_with(prefix);
        if told_by("CARGO_PKG_") || told_by("CARGO_MANIFEST_") || name == "OUT_DIR" {
            command.env_remove(name);
        }
    }
}

/// The command's own exit code; one that was ended by a signal counts as failed.
fn code(status: ExitStatus) -> ExitCode {
    ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    )
}
