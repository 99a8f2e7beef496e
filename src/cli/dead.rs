//! `postrider dead`: jobs that nobody will send again by themselves. List them, put them into the queue again, drop them.

mod acting;

use std::{io, time::Duration};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};
use sqlx::PgPool;

use acting::act;

use super::{
    Context, Exit, Output,
    given::span,
    output::{relative, time},
};
use crate::{
    clock,
    rules::{
        address::{self, Address},
        job::{FinalReason, State},
    },
    store::dead::{self, Action, DeadLetter, Filter, Group},
};

const EXAMPLES: &str = "\
Examples:
  postrider dead list --summary
  postrider dead redrive --reason template_not_approved --newer-than 2d --dry-run
  postrider dead redrive --kind order --reason retries_exhausted --why 'the provider was down'
  postrider dead redrive 1042 1043 --valid-for 2h
  postrider dead drop --older-than 90d --yes";

/// Arguments of `postrider dead`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, Subcommand)]
enum DeadCommand {
    /// List the newest dead letters, or count them
    List(ListArgs),
    /// Put dead letters into the queue again, as the same jobs with a fresh validity
    Redrive(RedriveArgs),
    /// Drop dead letters for good
    Drop(DropArgs),
}

/// Which dead letters are meant. What is given twice means either.
#[derive(Debug, clap::Args)]
struct Chosen {
    /// Jobs of these ids
    ids: Vec<i64>,
    /// Ended in this state: failed, rejected, expired, cancelled, unknown
    #[arg(long, value_parser = dead_state)]
    state: Vec<State>,
    /// Ended for this reason: retries_exhausted, no_opt_in, template_not_approved, ...
    #[arg(long)]
    reason: Vec<FinalReason>,
    /// Of this kind
    #[arg(long)]
    kind: Vec<String>,
    /// Of this number, by the provider's id
    #[arg(long, value_name = "NUMBER_ID")]
    number: Option<String>,
    /// Ended longer ago than this: 90s, 15m, 2h, 1d12h
    #[arg(long, value_name = "SPAN", value_parser = span)]
    older_than: Option<Duration>,
    /// Ended within this time
    #[arg(long, value_name = "SPAN", value_parser = span)]
    newer_than: Option<Duration>,
    /// Of this batch
    #[arg(long)]
    batch: Option<String>,
    /// Of this reference
    #[arg(long)]
    reference: Option<String>,
    /// To this number or id
    #[arg(long)]
    recipient: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Count them by state, reason and kind instead
    #[arg(long)]
    summary: bool,
    /// No more than this
    #[arg(long, default_value_t = 50, value_name = "COUNT")]
    limit: u32,
}

/// How something is done to many.
#[derive(Debug, clap::Args)]
struct Doing {
    /// All there are
    #[arg(long)]
    all: bool,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A redriven job keeps its id, and its attempts go on counting. It passes the gate like any other:
who opted out is not messaged. Jobs that may have been sent (state unknown) are redriven only when
they are named by --state unknown or by id, because they may then arrive twice. Jobs whose content
was not kept (their kind never keeps it, or they were cancelled) cannot be redriven.")]
struct RedriveArgs {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    doing: Doing,
    /// May be sent for this long [default: as long as their kind says]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    valid_for: Option<Duration>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Their content and everything else is deleted; what remains is that they were dropped, when, by whom
and why. Jobs that may have been sent (state unknown) are dropped only when they are named by
--state unknown or by id: a late receipt could still tell what became of them.")]
struct DropArgs {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    doing: Doing,
}

/// A state that a dead letter can be in.
fn dead_state(word: &str) -> Result<State, String> {
    let state = word.parse().map_err(|error| format!("{error}"))?;
    match state {
        State::Failed | State::Rejected | State::Expired | State::Cancelled | State::Unknown => {
            Ok(state)
        }
        _ => Err("it is one of failed, rejected, expired, cancelled, unknown".to_owned()),
    }
}

pub(super) async fn run(args: DeadArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    database.check_schema().await?;
    let pool = database.store.pool();
    match args.command {
        DeadCommand::List(args) => list(pool, &args, &context.output).await,
        DeadCommand::Redrive(args) => {
            let valid_for_s = args.valid_for.map(|span| span.as_secs());
            let action = Action::Redrive { valid_for_s };
            act(pool, action, &args.chosen, &args.doing, context).await
        }
        DeadCommand::Drop(args) => {
            act(pool, Action::Drop, &args.chosen, &args.doing, context).await
        }
    }
}

impl Chosen {
    fn filter(&self) -> anyhow::Result<Filter> {
        let now = clock::now();
        let recipient = self.recipient.as_deref().map(Address::parse).transpose();
        let some = |words: Vec<String>| (!words.is_empty()).then_some(words);
        Ok(Filter {
            ids: (!self.ids.is_empty()).then(|| self.ids.clone()),
            states: some(self.state.iter().map(ToString::to_string).collect()),
            reasons: some(self.reason.iter().map(ToString::to_string).collect()),
            kinds: some(self.kind.clone()),
            number: self.number.clone(),
            ended_before: self.older_than.map(|span| now - span),
            ended_after: self.newer_than.map(|span| now - span),
            batch: self.batch.clone(),
            reference: self.reference.clone(),
            recipient_key: recipient.context(Exit::Usage)?.map(|address| address.key()),
        })
    }

    /// What was typed, for the history and for the sentence that asks. Recipients are masked there.
    fn words(&self) -> Value {
        let words = json!({
            "ids": self.ids,
            "state": self.state.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "reason": self.reason.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "kind": self.kind,
            "number": self.number,
            "older_than_s": self.older_than.map(|span| span.as_secs()),
            "newer_than_s": self.newer_than.map(|span| span.as_secs()),
            "batch": self.batch,
            "reference": self.reference,
            "recipient": self.recipient.as_deref().map(address::mask),
        });
        let given =
            |value: &Value| !value.is_null() && value.as_array().is_none_or(|all| !all.is_empty());
        let words = words.as_object().cloned().unwrap_or_default();
        words
            .into_iter()
            .filter(|(_, value)| given(value))
            .collect()
    }

    /// Whether nobody said which are meant.
    fn is_everything(&self) -> bool {
        self.words() == json!({})
    }

    /// Whether jobs that may have been sent are among those that somebody named.
    fn names_unknown(&self) -> bool {
        !self.ids.is_empty()
            || self.state.contains(&State::Unknown)
            || self.reason.contains(&FinalReason::OutcomeUnknown)
    }
}

async fn list(pool: &PgPool, args: &ListArgs, output: &Output) -> anyhow::Result<Exit> {
    let filter = args.chosen.filter()?;
    let groups = dead::groups(pool, &filter).await?;
    if args.summary {
        summary(&groups, output)?;
        return Ok(Exit::Done);
    }
    let mut rows = dead::list(pool, &filter, args.limit.into()).await?;
    for row in &mut rows {
        row.recipient = output.recipient(&row.recipient);
    }
    let headings = [
        "id",
        "ended (UTC)",
        "kind",
        "recipient",
        "template",
        "state",
        "reason",
        "code",
        "attempts",
        "reference",
    ];
    output.rows(&rows, &headings, cells)?;
    let all: i64 = groups.iter().map(|group| group.jobs).sum();
    if all > rows.len() as i64 {
        output.say(format_args!(
            "{} of {all}; --limit shows more, --summary counts them",
            rows.len()
        ))?;
    }
    Ok(Exit::Done)
}

fn cells(row: &DeadLetter) -> Vec<String> {
    vec![
        row.id.to_string(),
        time(row.ended_at),
        row.kind.clone(),
        row.recipient.clone(),
        row.template
            .clone()
            .unwrap_or_else(|| "(free form)".to_owned()),
        row.state.clone(),
        row.reason.clone(),
        row.error_code
            .map(|code| code.to_string())
            .unwrap_or_default(),
        row.attempts.to_string(),
        row.reference.clone().unwrap_or_default(),
    ]
}

fn summary(groups: &[Group], output: &Output) -> io::Result<()> {
    let now = clock::now();
    let headings = [
        "state",
        "reason",
        "kind",
        "jobs",
        "redrivable",
        "oldest",
        "newest",
    ];
    output.rows(groups, &headings, |group| {
        vec![
            group.state.clone(),
            group.reason.clone(),
            group.kind.clone(),
            group.jobs.to_string(),
            group.redrivable.to_string(),
            relative(group.oldest, now),
            relative(group.newest, now),
        ]
    })
}
