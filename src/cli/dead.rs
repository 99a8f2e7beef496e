//! `postrider dead`: jobs that nobody will send again by themselves. List them, put them into the queue again, drop them.

use std::{
    io::{self, IsTerminal, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    Context, Exit, Output,
    given::{span, who},
    output::{Progress, relative, time},
};
use crate::{
    clock,
    rules::{
        address::{self, Address},
        job::{FinalReason, State},
    },
    store::{
        dead::{self, Action, DeadLetter, Filter, Group},
        upkeep,
    },
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
A redriven job keeps its id, and its attempts go on counting. It passes the gate like any other: who opted out is not
messaged. Jobs that may have been sent (state unknown) are redriven only when they are named by --state unknown or by id,
because they may then arrive twice. Jobs whose content was not kept (their kind never keeps it, or they were cancelled) cannot
be redriven.")]
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
Their content and everything else is deleted; what remains is that they were dropped, when, by whom and why. Jobs that may
have been sent (state unknown) are dropped only when they are named by --state unknown or by id: a late receipt could still
tell what became of them.")]
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

/// What is about to be done.
struct Plan {
    filter: Filter,
    /// Those that it can be done to.
    groups: Vec<Group>,
    jobs: i64,
    /// Those that cannot be redriven, with their kinds.
    refused: Vec<Group>,
    /// Those that may have been sent and that nobody named.
    left_out: i64,
}

impl Plan {
    async fn make(pool: &PgPool, action: Action, chosen: &Chosen) -> anyhow::Result<Self> {
        let mut filter = chosen.filter()?;
        let all = dead::groups(pool, &filter).await?;
        let is_left_out = |group: &Group| group.state == "unknown" && !chosen.names_unknown();
        let left_out = all
            .iter()
            .filter(|group| is_left_out(group))
            .map(|group| group.jobs)
            .sum();
        if !chosen.names_unknown() && filter.states.is_none() {
            let known = [
                State::Failed,
                State::Rejected,
                State::Expired,
                State::Cancelled,
            ];
            filter.states = Some(known.iter().map(ToString::to_string).collect());
        }
        let meant: Vec<Group> = all
            .into_iter()
            .filter(|group| !is_left_out(group))
            .collect();
        let can = |group: &Group| match action {
            Action::Redrive { .. } => group.redrivable,
            Action::Drop => group.jobs,
        };
        let part = |jobs: fn(&Group, i64) -> i64| -> Vec<Group> {
            let counted = meant.iter().map(|group| Group {
                jobs: jobs(group, can(group)),
                ..group.clone()
            });
            counted.filter(|group| group.jobs > 0).collect()
        };
        let (groups, refused) = (part(|_, can| can), part(|group, can| group.jobs - can));
        let jobs = groups.iter().map(|group| group.jobs).sum();
        Ok(Self {
            filter,
            groups,
            jobs,
            refused,
            left_out,
        })
    }

    /// What it leaves alone, and why.
    fn exceptions(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .refused
            .iter()
            .map(|group| {
                let why = if group.state == "cancelled" {
                    "cancelled"
                } else {
                    "of a kind that never keeps it"
                };
                format!(
                    "{} of kind {} cannot be redriven: their content is gone ({why})",
                    group.jobs, group.kind
                )
            })
            .collect();
        if self.left_out > 0 {
            lines.push(format!("{} may have been sent (state unknown) and are left out; --state unknown means them", self.left_out));
        }
        lines
    }
}

async fn act(
    pool: &PgPool,
    action: Action,
    chosen: &Chosen,
    doing: &Doing,
    context: &Context,
) -> anyhow::Result<Exit> {
    let output = &context.output;
    if chosen.is_everything() != doing.all {
        let sentence = if doing.all {
            "--all and a filter do not go together"
        } else {
            "say which: ids, a filter, or --all"
        };
        return Err(anyhow::anyhow!(sentence).context(Exit::Usage));
    }
    let plan = Plan::make(pool, action, chosen).await?;
    if plan.jobs > 0 && !output.json {
        summary(&plan.groups, output)?;
    }
    for line in plan.exceptions() {
        output.say(line)?;
    }
    if doing.dry_run {
        output.one(&json!({"would": action.word(), "jobs": plan.jobs, "groups": plan.groups, "refused": plan.refused, "left_out": plan.left_out}), || {
            format!("{} jobs would be {}", plan.jobs, done(action))
        })?;
        return Ok(Exit::Done);
    }
    if plan.jobs == 0 {
        output.one(
            &json!({"jobs": 0, "refused": plan.refused, "left_out": plan.left_out}),
            || format!("no dead letter is {}", done(action)),
        )?;
        return Ok(Exit::Failed);
    }
    if !doing.yes && (plan.jobs > 1 || action == Action::Drop) && !agrees(action, plan.jobs)? {
        output.say("nothing was done")?;
        return Ok(Exit::Failed);
    }
    let (event, jobs) = apply(pool, action, &plan, chosen, doing, who(context)).await?;
    output.one(
        &json!({"jobs": jobs, "event": event, "refused": plan.refused, "left_out": plan.left_out}),
        || format!("{jobs} jobs are {}", done(action)),
    )?;
    // Who names jobs wants them all.
    let missed = !chosen.ids.is_empty() && jobs < chosen.ids.len() as u64;
    if missed {
        output.say(format_args!(
            "{} of the {} were not: `postrider jobs show` says where they are",
            chosen.ids.len() as u64 - jobs,
            chosen.ids.len()
        ))?;
    }
    Ok(if missed { Exit::Failed } else { Exit::Done })
}

/// What was done to them.
fn done(action: Action) -> &'static str {
    match action {
        Action::Redrive { .. } => "redriven",
        Action::Drop => "dropped",
    }
}

/// Asks whoever sits at the terminal; where nobody does, somebody has to have said it before.
fn agrees(action: Action, jobs: i64) -> anyhow::Result<bool> {
    let (input, mut error) = (io::stdin(), io::stderr());
    if !input.is_terminal() {
        let sentence = format!(
            "this would {} {jobs} jobs; say --yes, or --dry-run to see them",
            action.word()
        );
        return Err(anyhow::anyhow!(sentence).context(Exit::Usage));
    }
    write!(error, "{} {jobs} jobs? [y/N] ", action.word())?;
    error.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
}

/// Does it, batch by batch, and returns the history's event and to how many it was done.
async fn apply(
    pool: &PgPool,
    action: Action,
    plan: &Plan,
    chosen: &Chosen,
    doing: &Doing,
    who: &str,
) -> anyhow::Result<(i64, u64)> {
    // A job whose outcome was unknown gets an answer, and after weeks without a daemon today has no place for one.
    upkeep::ensure_partitions(pool, clock::now().date_naive()).await?;
    let detail = json!({"filter": chosen.words(), "why": doing.why, "jobs": 0});
    let event = dead::begin(pool, action, who, &target(chosen), &detail).await?;
    let mut progress = Progress::new("jobs", Some(plan.jobs.unsigned_abs()));
    let (mut total, mut after) = (0, 0);
    loop {
        let ids = dead::next(pool, &plan.filter, after).await?;
        let Some(last) = ids.last() else { break };
        after = *last;
        let done = dead::apply(pool, action, event, &ids).await?.len() as u64;
        total += done;
        progress.add(done);
    }
    progress.finish();
    Ok((event, total))
}

/// The history's word for which they were.
fn target(chosen: &Chosen) -> String {
    let Value::Object(words) = chosen.words() else {
        return "dead letters".to_owned();
    };
    let word = |(name, value): (&String, &Value)| {
        let name = name.trim_end_matches("_s").replace('_', " ");
        match value {
            Value::Array(all) if all.len() > 5 => format!("{} {name}", all.len()),
            Value::Array(all) => format!(
                "{name} {}",
                all.iter().map(plain).collect::<Vec<_>>().join(", ")
            ),
            Value::Number(seconds) => format!(
                "{name} {}",
                super::output::duration(Duration::from_secs(seconds.as_u64().unwrap_or(0)))
            ),
            value => format!("{name} {}", plain(value)),
        }
    };
    let words: Vec<String> = words.iter().map(word).collect();
    if words.is_empty() {
        "all dead letters".to_owned()
    } else {
        format!("dead letters: {}", words.join(", "))
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}
