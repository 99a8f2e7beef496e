//! `postrider jobs`: list, show, cancel.

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::{ArgGroup, Subcommand};
use serde::Serialize;
use sqlx::PgPool;

use super::{Context, Exit, Output, output::time};
use crate::{
    rules::{address::Address, job::State},
    store::{
        dead::{self, Trace},
        jobs::{self, Filter, JobStatus, Withdraw},
    },
};

/// Arguments of `postrider jobs`.
#[derive(Debug, clap::Args)]
pub(super) struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// List the newest jobs
    List(ListArgs),
    /// Show everything about some jobs
    Show {
        /// Their ids
        #[arg(required = true)]
        ids: Vec<i64>,
    },
    /// Withdraw jobs that were not sent yet
    Cancel(CancelArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Jobs to this number or id
    #[arg(long)]
    recipient: Option<String>,
    /// Jobs of this reference
    #[arg(long)]
    reference: Option<String>,
    /// Jobs of this batch
    #[arg(long)]
    batch: Option<String>,
    /// Jobs in this state: queued, waiting, sending, delivered, rejected, ...
    #[arg(long)]
    state: Option<State>,
    /// Jobs of this kind
    #[arg(long)]
    kind: Option<String>,
    /// Jobs enqueued at this time or later
    #[arg(long, value_name = "TIME")]
    since: Option<DateTime<Utc>>,
    /// No more than this
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: u32,
}

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("what").required(true))]
struct CancelArgs {
    /// The job's id
    #[arg(group = "what")]
    id: Option<i64>,
    /// All jobs of this reference
    #[arg(long, group = "what")]
    reference: Option<String>,
    /// All jobs of this batch
    #[arg(long, group = "what")]
    batch: Option<String>,
}

pub(super) async fn run(args: JobsArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let (pool, output) = (database.store.pool(), &context.output);
    match args.command {
        JobsCommand::List(args) => list(pool, args, output).await,
        JobsCommand::Show { ids } => show(pool, &ids, output).await,
        JobsCommand::Cancel(args) => cancel(pool, &args, output).await,
    }
}

async fn list(pool: &PgPool, args: ListArgs, output: &Output) -> anyhow::Result<Exit> {
    let recipient = args
        .recipient
        .as_deref()
        .map(Address::parse)
        .transpose()
        .context(Exit::Usage)?;
    let filter = Filter {
        recipient_key: recipient.map(|address| address.key()),
        reference: args.reference,
        batch: args.batch,
        state: args.state.map(|state| state.to_string()),
        kind: args.kind,
        since: args.since,
        limit: args.limit.into(),
    };
    let mut rows = jobs::list(pool, &filter).await?;
    rows.iter_mut().for_each(|job| hide(job, output));
    let headings = [
        "id",
        "enqueued (UTC)",
        "kind",
        "priority",
        "recipient",
        "template",
        "state",
        "reason",
        "reference",
    ];
    output.rows(&rows, &headings, |job| {
        vec![
            job.id.to_string(),
            time(job.enqueued_at),
            job.kind.clone(),
            job.priority.clone(),
            job.recipient.clone(),
            job.template
                .clone()
                .unwrap_or_else(|| "(free form)".to_owned()),
            job.state.clone(),
            job.reason.clone().unwrap_or_default(),
            job.reference.clone().unwrap_or_default(),
        ]
    })?;
    Ok(Exit::Done)
}

/// A job with what was done to it when it was a dead letter.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    job: JobStatus,
    traces: Vec<Trace>,
}

async fn show(pool: &PgPool, ids: &[i64], output: &Output) -> anyhow::Result<Exit> {
    let rows = jobs::show(pool, ids).await?;
    let mut traces = dead::traces(pool, ids).await?;
    let missing: Vec<i64> = ids
        .iter()
        .filter(|id| !rows.iter().any(|job| job.id == **id))
        .copied()
        .collect();
    for mut job in rows {
        hide(&mut job, output);
        let traces = traces.extract_if(.., |trace| trace.job == job.id).collect();
        let shown = Shown { job, traces };
        output.one(&shown, || {
            let lines = shown.traces.iter().map(|trace| {
                format!(
                    "{:<20} {}: {}\n",
                    "dead letter",
                    time(trace.at),
                    traced(trace)
                )
            });
            lines.fold(text(&shown.job), |text, line| text + &line)
        })?;
    }
    for id in &missing {
        let gone = traces.iter().rfind(|trace| trace.job == *id);
        let how = gone
            .map(|trace| format!("; at {} UTC it was {}", time(trace.at), traced(trace)))
            .unwrap_or_default();
        output.say(format_args!("there is no job {id}{how}"))?;
    }
    Ok(if missing.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn cancel(pool: &PgPool, args: &CancelArgs, output: &Output) -> anyhow::Result<Exit> {
    let what = match (args.id, &args.reference, &args.batch) {
        (Some(id), ..) => Withdraw::Job(id),
        (None, Some(reference), _) => Withdraw::Reference(reference),
        (None, None, Some(batch)) => Withdraw::Batch(batch),
        (None, None, None) => unreachable!("the parser requires one of them"),
    };
    let count = jobs::cancel(pool, what).await?;
    output.one(&serde_json::json!({"cancelled": count}), || {
        match (what, count) {
            (Withdraw::Job(id), 0) => format!(
                "job {id} is not cancelled: it is not there, or it was or may have been sent"
            ),
            (_, count) => format!("{count} cancelled"),
        }
    })?;
    Ok(if count > 0 { Exit::Done } else { Exit::Failed })
}

/// What was done to a dead letter, as the end of a sentence.
pub(super) fn traced(trace: &Trace) -> String {
    let done = if trace.action == "drop" {
        "dropped"
    } else {
        "redriven"
    };
    let why = trace
        .why
        .as_ref()
        .map(|why| format!(": {why}"))
        .unwrap_or_default();
    format!(
        "{done} by {}{why} (it had ended as {}, {})",
        trace.by, trace.state, trace.reason
    )
}

/// Hides what tells whose it is, unless somebody asked for it. The provider's id holds the number, too.
pub(super) fn hide(job: &mut JobStatus, output: &Output) {
    job.recipient = output.recipient(&job.recipient);
    if !output.reveal {
        job.provider_message_id = job
            .provider_message_id
            .take()
            .map(|_| "(hidden; --reveal shows it)".to_owned());
    }
}

/// A job as lines of `name: value`, without those that have none.
fn text(job: &JobStatus) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(job) else {
        unreachable!("a struct with named fields is an object")
    };
    let lines = fields
        .into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(name, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            format!("{:<20} {value}\n", name.replace('_', " "))
        });
    lines.collect()
}
