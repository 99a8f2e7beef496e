//! Commands against a database without a daemon, and what they print.

use std::{process::Output, sync::Arc};

use serde_json::Value;

use super::{TestDatabase, daemon::Postrider, sql};

/// A database that jobs can be enqueued in, and a configuration that leads there.
pub(crate) async fn world() -> (TestDatabase, Arc<Postrider>) {
    let database = sql::database().await;
    let postrider = Postrider::new(&format!("[database]\nurl = {:?}\n", database.url()));
    (database, postrider)
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// What `--json` prints.
pub(crate) fn objects(output: &Output) -> Vec<Value> {
    stdout(output)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}
