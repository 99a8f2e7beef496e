//! `postrider enqueue`: one job from flags, or many from a file or a pipe, for as long as it lasts.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::ArgGroup;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use super::{
    Context, Exit, Output,
    input::{Input, Line, Lines},
    output::Progress,
};
use crate::store::{
    enqueue::{Enqueued, enqueue_many},
    jobs,
};

/// How often `--wait` asks where the job is.
const ASK_EVERY: Duration = Duration::from_millis(250);

const EXAMPLES: &str = "\
Examples:
  postrider enqueue +905321234567 order_confirmation --param Ada --param '#1042' --reference 1042
  postrider enqueue +905321234567 login_code --code 042817 --wait
  postrider enqueue --file orders.csv
  tail -f orders.jsonl | postrider enqueue --file -

A line of JSONL is an object with the keys recipient, template, parameters (or message, for a free-form message),
language, kind, sender, priority, idempotency_key, not_before, expires_at, reference, batch and labels. CSV has columns
of these names (parameters, message and labels hold JSON), and columns for the parts of parameters:
  body.1, body.2              positional variables          body.name                 named ones
  header                      a text                        header.link, header.filename  media, told by its ending
  button.0.url, button.1.payload, button.2.coupon_code     code                      of an authentication template
  label.name                  one label
Bad lines are told by number and do not stop the others; the exit code is 65 then.";

/// Arguments of `postrider enqueue`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("what").args(["recipient", "file"]).required(true))]
pub(super) struct EnqueueArgs {
    /// Where it goes: +905321234567, or a business-scoped id
    recipient: Option<String>,
    /// The template's name
    #[arg(requires = "recipient", required_unless_present_any = ["message", "file"])]
    template: Option<String>,
    #[command(flatten)]
    job: JobArgs,
    #[command(flatten)]
    input: Input,
    /// Follow the job until nothing more is done for it; exit 0 when it was delivered
    #[arg(long, conflicts_with = "file")]
    wait: bool,
}

/// What can be said of one job.
#[derive(Debug, clap::Args)]
#[group(id = "job", multiple = true, conflicts_with = "file")]
struct JobArgs {
    /// A variable of the body, in order; NAME=VALUE for a template with named ones
    #[arg(long = "param", value_name = "VALUE", conflicts_with = "parameters")]
    params: Vec<String>,
    /// With --param: they are NAME=VALUE
    #[arg(long, requires = "params")]
    named: bool,
    /// The code of an authentication template
    #[arg(long, conflicts_with_all = ["params", "parameters"])]
    code: Option<String>,
    /// All parameters as JSON, for example '{"body": ["Ada"], "header": "1042"}'
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    parameters: Option<Value>,
    /// A free-form message as JSON instead of a template; goes only in an open service window
    #[arg(long, value_name = "JSON", value_parser = json_value, conflicts_with_all = ["template", "params", "code", "parameters"])]
    message: Option<Value>,
    /// The template's language [default: the recipient's, else the template's, else the configured one]
    #[arg(long)]
    language: Option<String>,
    /// What it is about [default: otp for an authentication template, else the configured one]
    #[arg(long)]
    kind: Option<String>,
    /// The sender pool it goes out from
    #[arg(long, value_name = "POOL")]
    sender: Option<String>,
    /// urgent, normal or bulk [default: the kind's]
    #[arg(long)]
    priority: Option<String>,
    /// A key of your own: the same key with the same content enqueues nothing and gives the first job
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Not sent before this, for example 2026-12-01T09:00:00Z
    #[arg(long, value_name = "TIME")]
    not_before: Option<DateTime<Utc>>,
    /// Not sent after this
    #[arg(long, value_name = "TIME")]
    expires_at: Option<DateTime<Utc>>,
    /// Your own name for it, for example an order number
    #[arg(long)]
    reference: Option<String>,
    /// Your name for a group of jobs
    #[arg(long)]
    batch: Option<String>,
    /// Anything that shall be carried along, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    labels: Option<Value>,
}

/// JSON from the command line.
pub(super) fn json_value(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))
}

pub(super) async fn run(args: EnqueueArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let pool = database.store.pool();
    if let Some(path) = &args.input.file {
        return many(pool, path, &args.input, &context.output).await;
    }
    let wait = args.wait;
    let job = args
        .job
        .into_json(args.recipient, args.template)
        .map_err(usage)?;
    match one(pool, job, &context.output).await? {
        Some(id) if wait => follow(pool, id, &context.output).await,
        Some(_) => Ok(Exit::Done),
        None => Ok(Exit::BadInput),
    }
}

fn usage(text: String) -> anyhow::Error {
    anyhow::anyhow!(text).context(Exit::Usage)
}

impl JobArgs {
    fn into_json(
        self,
        recipient: Option<String>,
        template: Option<String>,
    ) -> Result<Value, String> {
        let parameters = match (self.code, self.parameters) {
            (Some(code), _) => json!({ "code": code }),
            (None, Some(parameters)) => parameters,
            (None, None) if self.params.is_empty() => Value::Null,
            (None, None) if self.named => json!({ "body": named(&self.params)? }),
            (None, None) => json!({ "body": self.params }),
        };
        Ok(json!({
            "recipient": recipient, "template": template, "parameters": parameters, "message": self.message,
            "language": self.language, "kind": self.kind, "sender": self.sender, "priority": self.priority,
            "idempotency_key": self.idempotency_key, "not_before": self.not_before, "expires_at": self.expires_at,
            "reference": self.reference, "batch": self.batch, "labels": self.labels,
        }))
    }
}

fn named(params: &[String]) -> Result<Map<String, Value>, String> {
    params
        .iter()
        .map(|param| {
            let (name, value) = param
                .split_once('=')
                .ok_or_else(|| format!("--param {param} is not NAME=VALUE"))?;
            Ok((name.to_owned(), value.into()))
        })
        .collect()
}

/// Enqueues one job and says its id; `None` when it was refused.
async fn one(pool: &PgPool, job: Value, output: &Output) -> anyhow::Result<Option<i64>> {
    let rows = enqueue_many(pool, &[job]).await.context("enqueueing")?;
    let row = rows
        .into_iter()
        .next()
        .context("the database said nothing about the job")?;
    output.one(&row, || match (&row.error, row.job_id) {
        (Some(error), _) => error.clone(),
        (None, Some(id)) if row.duplicate => format!("job {id} (it was there already)"),
        (None, id) => format!("job {}", id.unwrap_or_default()),
    })?;
    Ok(row.job_id)
}

/// Says each state that a job comes to, until it is through.
async fn follow(pool: &PgPool, id: i64, output: &Output) -> anyhow::Result<Exit> {
    let mut said = String::new();
    loop {
        let rows = jobs::show(pool, &[id]).await?;
        let job = rows
            .first()
            .context("the job is gone: its retention is over")?;
        let now = [Some(&job.state), job.reason.as_ref()]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(": ");
        if now != said {
            output.one(
                &json!({"job_id": id, "state": job.state, "reason": job.reason}),
                || now.clone(),
            )?;
            said = now;
        }
        if job.r#final {
            return Ok(if job.delivered == "yes" {
                Exit::Done
            } else {
                Exit::Failed
            });
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// What became of all lines.
#[derive(Debug, Default, Serialize)]
struct Summary {
    enqueued: u64,
    duplicates: u64,
    bad: u64,
}

/// What became of one line, for programs.
#[derive(Serialize)]
struct Told<'a> {
    line: u64,
    job_id: Option<i64>,
    duplicate: bool,
    error_code: Option<&'a str>,
    error: Option<&'a str>,
}

/// Enqueues all lines of a file, each batch as soon as it is there.
async fn many(pool: &PgPool, path: &Path, input: &Input, output: &Output) -> anyhow::Result<Exit> {
    let mut lines = Lines::open(path, input.format)?;
    let mut progress = Progress::new("jobs", None);
    let mut summary = Summary::default();
    let mut last = 0;
    loop {
        let batch = lines.batch().await?;
        let Some(line) = batch.last() else { break };
        let up_to = line.number;
        enqueue_batch(pool, batch, output, &mut progress, &mut summary)
            .await
            .with_context(|| format!("stopped; the lines up to {last} are enqueued"))?;
        last = up_to;
    }
    progress.finish();
    output.say(format_args!(
        "{} enqueued, {} were there already, {} bad",
        summary.enqueued, summary.duplicates, summary.bad
    ))?;
    Ok(if summary.bad == 0 {
        Exit::Done
    } else {
        Exit::BadInput
    })
}

async fn enqueue_batch(
    pool: &PgPool,
    batch: Vec<Line>,
    output: &Output,
    progress: &mut Progress,
    summary: &mut Summary,
) -> anyhow::Result<()> {
    let (mut numbers, mut jobs, mut unreadable) = (Vec::new(), Vec::new(), Vec::new());
    for line in batch {
        match line.object {
            Ok(job) => {
                numbers.push(line.number);
                jobs.push(Value::from(job));
            }
            Err(error) => unreadable.push((line.number, error)),
        }
    }
    let rows = enqueue_many(pool, &jobs).await?;
    let refused = unreadable.iter().map(|(line, error)| Told {
        line: *line,
        job_id: None,
        duplicate: false,
        error_code: None,
        error: Some(error),
    });
    let mut told: Vec<Told<'_>> = numbers
        .iter()
        .zip(&rows)
        .map(|(line, row)| row.told(*line))
        .chain(refused)
        .collect();
    told.sort_by_key(|told| told.line);
    for line in &told {
        summary.count(line);
        if let Some(error) = line.error {
            progress.line(&format!("line {}: {error}", line.line));
        }
        if output.json {
            output.one(line, String::new)?;
        }
    }
    progress.add(told.len() as u64);
    Ok(())
}

impl Enqueued {
    fn told(&self, line: u64) -> Told<'_> {
        Told {
            line,
            job_id: self.job_id,
            duplicate: self.duplicate,
            error_code: self.error_code.as_deref(),
            error: self.error.as_deref(),
        }
    }
}

impl Summary {
    fn count(&mut self, told: &Told<'_>) {
        let counter = match (told.error, told.duplicate) {
            (Some(_), _) => &mut self.bad,
            (None, true) => &mut self.duplicates,
            (None, false) => &mut self.enqueued,
        };
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: EnqueueArgs,
    }

    fn parsed(words: &str) -> Result<Value, clap::Error> {
        let line = Line::try_parse_from(["enqueue"].into_iter().chain(words.split(' ')))?;
        Ok(line
            .args
            .job
            .into_json(line.args.recipient, line.args.template)
            .unwrap_or(Value::Null))
    }

    #[test]
    fn flags_become_a_job() {
        let job = parsed("+905321234567 order_confirmation --param Ada --param #1042 --kind order")
            .unwrap();
        assert_eq!(job["parameters"], json!({"body": ["Ada", "#1042"]}));
        assert_eq!(
            (&job["template"], &job["kind"], &job["sender"]),
            (&"order_confirmation".into(), &"order".into(), &Value::Null)
        );
        let job = parsed("+905321234567 login_code --code 042817").unwrap();
        assert_eq!(job["parameters"], json!({"code": "042817"}));
        let job = parsed("+905321234567 hello --named --param name=Ada").unwrap();
        assert_eq!(job["parameters"], json!({"body": {"name": "Ada"}}));
        let job = parsed(r#"+905321234567 --message {"type":"text"}"#).unwrap();
        assert_eq!(
            (&job["message"], &job["template"]),
            (&json!({"type": "text"}), &Value::Null)
        );
    }

    #[test]
    fn flags_that_contradict_each_other_are_refused() {
        for words in [
            "",
            "+905321234567",
            "+905321234567 hello --file x.csv",
            "--file x.csv --param Ada",
            "--file x.csv --wait",
            "+905321234567 hello --message {}",
            "+905321234567 hello --parameters {",
            "+905321234567 hello --not-before tomorrow",
        ] {
            assert!(parsed(words).is_err(), "{words}");
        }
    }
}
