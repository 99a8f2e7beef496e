//! What `dead redrive` and `dead drop` share: say what would be done, ask, do it batch by batch.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::Duration,
};

use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{Chosen, Doing, summary};
use crate::{
    cli::{
        Context, Exit, Output,
        given::who,
        output::{Progress, duration},
    },
    clock,
    rules::job::State,
    store::{
        dead::{self, Action, Filter, Group},
        upkeep,
    },
};

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
        // What dies from now on was neither counted nor agreed to.
        let newest = all.iter().map(|group| group.newest).max();
        filter.ended_before = newest
            .map(|newest| newest + TimeDelta::microseconds(1))
            .or(filter.ended_before);
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
                    "it was not kept"
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

pub(super) async fn act(
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
            format!("would be {}: {}", done(action), counted(plan.jobs))
        })?;
        return Ok(Exit::Done);
    }
    if plan.jobs == 0 {
        output.one(
            &json!({"jobs": 0, "refused": plan.refused, "left_out": plan.left_out}),
            || format!("no dead letter is {}", done(action)),
        )?;
        missed(chosen, 0, output)?;
        return Ok(Exit::Failed);
    }
    if !doing.yes && (plan.jobs > 1 || action == Action::Drop) && !agrees(action, plan.jobs)? {
        output.say("nothing was done")?;
        return Ok(Exit::Failed);
    }
    let (event, jobs) = apply(pool, action, &plan, chosen, doing, who(context)).await?;
    output.one(
        &json!({"jobs": jobs, "event": event, "refused": plan.refused, "left_out": plan.left_out}),
        || format!("{}: {}", done(action), counted(jobs.cast_signed())),
    )?;
    Ok(missed(chosen, jobs, output)?)
}

/// Who names jobs wants them all, and is told when it was not so.
fn missed(chosen: &Chosen, jobs: u64, output: &Output) -> io::Result<Exit> {
    let named = chosen.ids.len() as u64;
    if jobs >= named {
        return Ok(Exit::Done);
    }
    output.say(format_args!(
        "{} of the {named} that were named were not: `postrider jobs show` says where they are",
        named - jobs
    ))?;
    Ok(Exit::Failed)
}

/// So many jobs, for a sentence.
fn counted(jobs: i64) -> String {
    match jobs {
        1 => "1 job".to_owned(),
        jobs => format!("{jobs} jobs"),
    }
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
            "this would {} {}; say --yes, or --dry-run to see them",
            action.word(),
            counted(jobs)
        );
        return Err(anyhow::anyhow!(sentence).context(Exit::Usage));
    }
    write!(error, "{} {}? [y/N] ", action.word(), counted(jobs))?;
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
                duration(Duration::from_secs(seconds.as_u64().unwrap_or(0)))
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
