//! `postrider status`: what is wrong first, then what it is doing.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{Context, Exit, Output, numbers::returns, output::relative};
use crate::store::{
    instance::{self, Seen},
    overview::{self, Backlog, Ended, LimitUsage, Trouble},
};

/// Arguments of `postrider status`.
#[derive(Debug, clap::Args)]
pub(super) struct StatusArgs {
    /// One line, and exit code 1 when something is wrong: for scripts and monitoring
    #[arg(long)]
    check: bool,
}

/// All of it, for programs.
#[derive(Serialize)]
struct Status {
    troubles: Vec<Trouble>,
    backlog: Vec<Backlog>,
    last_hour: Vec<Ended>,
    limits: Vec<LimitUsage>,
    instances: Vec<Seen>,
}

pub(super) async fn run(args: StatusArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let pool = database.store.pool();
    let status = Status {
        troubles: overview::troubles(pool).await?,
        backlog: overview::backlog(pool).await?,
        last_hour: overview::results(pool).await?,
        limits: overview::limits(pool).await?,
        instances: instance::seen(pool).await?,
    };
    let output = &context.output;
    if args.check {
        output.one(&status, || check(&status))?;
        return Ok(if is_wrong(&status) {
            Exit::Failed
        } else {
            Exit::Done
        });
    }
    if output.json {
        output.one(&status, String::new)?;
    } else {
        print(&status, output, crate::clock::now())?;
    }
    Ok(Exit::Done)
}

/// Rank 2 is a warning: it may become wrong.
fn is_wrong(status: &Status) -> bool {
    status.troubles.iter().any(|trouble| trouble.rank < 2)
}

fn check(status: &Status) -> String {
    let due: i64 = status.backlog.iter().map(|backlog| backlog.due).sum();
    match &status.troubles[..] {
        [] => format!("ok: {due} jobs due"),
        [trouble] => trouble.text.clone(),
        [worst, others @ ..] => format!("{} (and {} more)", worst.text, others.len()),
    }
}

fn print(status: &Status, output: &Output, now: DateTime<Utc>) -> anyhow::Result<()> {
    match &status.troubles[..] {
        [] => output.say("Nothing is wrong.")?,
        troubles => troubles
            .iter()
            .try_for_each(|trouble| output.say(format_args!("! {}", trouble.text)))?,
    }
    output.say("\nWaiting")?;
    output.rows(
        &status.backlog,
        &["priority", "due", "later", "unknown", "oldest due"],
        |row| {
            let oldest = row
                .oldest_due_at
                .map(|at| relative(at, now))
                .unwrap_or_default();
            vec![
                row.priority.clone(),
                row.due.to_string(),
                row.later.to_string(),
                row.unknown.to_string(),
                oldest,
            ]
        },
    )?;
    output.say("\nWithin the last hour")?;
    output.rows(&status.last_hour, &["state", "reason", "jobs"], |row| {
        vec![
            row.state.clone(),
            row.reason.clone().unwrap_or_default(),
            row.jobs.to_string(),
        ]
    })?;
    print_instances(&status.instances, output, now)?;
    if status.limits.is_empty() {
        return Ok(());
    }
    output.say("\nUnique recipients within 24 hours")?;
    let headings = [
        "limit of",
        "limit",
        "used",
        "room",
        "urgent room",
        "returns",
    ];
    output.rows(&status.limits, &headings, |row| {
        vec![
            row.pool.clone(),
            row.messaging_limit.to_string(),
            row.used.to_string(),
            row.room_normal.to_string(),
            row.room_urgent.to_string(),
            returns(Some(row.returns), row.next_return_at, now),
        ]
    })?;
    Ok(())
}

/// Who is there, and who sends for how much.
fn print_instances(instances: &[Seen], output: &Output, now: DateTime<Utc>) -> anyhow::Result<()> {
    if instances.is_empty() {
        return Ok(output.say("\nNo daemon runs.")?);
    }
    output.say("\nDaemons")?;
    let headings = ["instance", "host", "does", "sends for", "started"];
    output.rows(instances, &headings, |row| {
        vec![
            row.instance.clone(),
            format!("{} (pid {})", row.host, row.pid),
            row.roles.join(", "),
            format!("{} numbers", row.numbers),
            relative(row.started_at, now),
        ]
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(ranks: &[i32]) -> Status {
        Status {
            troubles: ranks
                .iter()
                .map(|&rank| Trouble {
                    rank,
                    text: format!("trouble {rank}"),
                })
                .collect(),
            backlog: Vec::new(),
            last_hour: Vec::new(),
            limits: Vec::new(),
            instances: Vec::new(),
        }
    }

    #[test]
    fn a_check_is_one_line_with_the_worst_first() {
        assert_eq!(check(&status(&[])), "ok: 0 jobs due");
        assert_eq!(check(&status(&[1])), "trouble 1");
        assert_eq!(check(&status(&[0, 1, 2])), "trouble 0 (and 2 more)");
    }

    #[test]
    fn a_warning_is_told_but_fails_no_check() {
        assert!(!is_wrong(&status(&[])));
        assert!(!is_wrong(&status(&[2])));
        assert!(is_wrong(&status(&[1, 2])));
    }
}
