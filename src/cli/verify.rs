//! `postrider verify`: proves on the running system that every job is in exactly one place, and names those that are not.

use std::time::{Duration, Instant};

use serde::Serialize;
use sqlx::PgPool;

use super::{
    Context, Exit, Output,
    output::{self, Progress, time},
};
use crate::{
    rules::conservation::{Horizon, Places, Problem},
    store::verify::{self, Known, Seen, Which},
};

/// Arguments of `postrider verify`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every job that was enqueued must be in exactly one place: the queue, the messages, or the dead
letters. Each 10,000 ids are looked at in one short snapshot, so it can run at any time. A range
whose jobs have all ended is closed and not looked at again, until one of its dead letters is
redriven or dropped. The daemon does the same all the time, for its metrics. The exit code is 1 when
a job is off; each is named with what is known of it.")]
pub(super) struct VerifyArgs {
    /// Also ranges that are closed
    #[arg(long)]
    all: bool,
}

/// What was found, over all ranges.
#[derive(Debug, Default, Serialize)]
struct Found {
    /// Whether every job that was looked at is in exactly one place.
    proven: bool,
    /// Jobs that were looked at.
    jobs: i64,
    /// Where they were.
    queue: i64,
    messages: i64,
    dead_letters: i64,
    dropped: i64,
    /// Jobs of ranges that are closed and were not looked at.
    closed_before: i64,
    /// Every job before this id is proven and has ended.
    closed_up_to: i64,
    /// Jobs that are off.
    off: i64,
    seconds: f64,
    /// Those that are named.
    #[serde(skip)]
    named: Vec<Places>,
}

/// A job that is off.
#[derive(Debug, Serialize)]
struct Off {
    problem: Problem,
    #[serde(flatten)]
    known: Known,
}

pub(super) async fn run(args: VerifyArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    database.check_schema().await?;
    let (pool, output) = (database.store.pool(), &context.output);
    let which = if args.all { Which::All } else { Which::Open };
    let found = look_at(pool, which).await?;
    for off in name(pool, &found.named).await? {
        output.one(&off, || text(&off))?;
    }
    say(&found, output)?;
    Ok(if found.proven {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn look_at(pool: &PgPool, which: Which) -> Result<Found, sqlx::Error> {
    let began = Instant::now();
    let newest = verify::newest(pool).await?;
    verify::prepare(pool, newest).await?;
    let closed_before = match which {
        Which::Open => verify::standing(pool).await?.jobs_closed,
        Which::All => 0,
    };
    let ranges = verify::ranges(pool, which).await?;
    let mut progress = Progress::new("ranges of 10000 jobs", Some(ranges.len() as u64));
    let (mut found, mut horizon) = (Found::default(), Horizon::default());
    for range in ranges {
        if horizon.decided() < newest {
            // In this order: see `Horizon`.
            let given = verify::newest(pool).await?;
            horizon.saw(given, &verify::open_transactions(pool).await?);
        }
        let seen = verify::look(pool, range, horizon.decided()).await?;
        found.add(seen);
        progress.add(1);
    }
    progress.finish();
    found.proven = found.off == 0;
    found.closed_before = closed_before;
    found.closed_up_to = verify::standing(pool).await?.open_from;
    found.seconds = began.elapsed().as_secs_f64();
    Ok(found)
}

impl Found {
    fn add(&mut self, seen: Seen) {
        self.jobs += seen.jobs;
        self.queue += seen.queue;
        self.messages += seen.message;
        self.dead_letters += seen.dead_letter;
        self.dropped += seen.dropped;
        self.off += seen.jobs_off;
        self.named.extend(seen.off);
    }
}

/// Joins what is wrong with them and what else is known.
async fn name(pool: &PgPool, off: &[Places]) -> Result<Vec<Off>, sqlx::Error> {
    let ids: Vec<i64> = off.iter().map(|places| places.job).collect();
    let known = verify::known(pool, &ids).await?;
    let problem = |known: &Known| {
        let places = off.iter().find(|places| places.job == known.job)?;
        places.problem()
    };
    Ok(known
        .into_iter()
        .filter_map(|known| {
            let problem = problem(&known)?;
            Some(Off { problem, known })
        })
        .collect())
}

/// A job that is off, in two lines.
fn text(off: &Off) -> String {
    let known = &off.known;
    let places = match &known.places[..] {
        [] => String::new(),
        places => format!(": {}", places.join(", ")),
    };
    let mut facts = Vec::new();
    if let (Some(kind), Some(producer), Some(at)) =
        (&known.kind, &known.producer, known.enqueued_at)
    {
        facts.push(format!(
            "{kind}, enqueued by {producer} at {} UTC",
            time(at)
        ));
    }
    facts.push(match known.last_attempt_at {
        Some(at) => format!("{} attempts, the last at {} UTC", known.attempts, time(at)),
        None => "no attempt".to_owned(),
    });
    facts.extend(
        known
            .last_answer
            .as_ref()
            .map(|answer| format!("last answer: {answer}")),
    );
    if known.receipts_waiting > 0 {
        facts.push(format!(
            "{} receipts found no message",
            known.receipts_waiting
        ));
    }
    format!(
        "job {} {}{places}\n  {}",
        known.job,
        off.problem.words(),
        facts.join("; ")
    )
}

fn say(found: &Found, output: &Output) -> anyhow::Result<()> {
    let took = output::duration(Duration::from_secs_f64(found.seconds));
    output.one(found, || {
        let verdict = if found.proven {
            format!(
                "{} jobs looked at in {took}: each is in exactly one place",
                found.jobs
            )
        } else {
            let more = found.off - found.named.len() as i64;
            let unnamed = match more {
                0 => String::new(),
                more => format!(" ({more} of them not named here)"),
            };
            format!(
                "{} jobs looked at in {took}: {} OFF{unnamed}",
                found.jobs, found.off
            )
        };
        let mut text = format!(
            "{verdict}\n  {} in the queue, {} messages, {} dead letters, {} dropped",
            found.queue, found.messages, found.dead_letters, found.dropped
        );
        if found.closed_before > 0 {
            text += &format!(
                "\n  {} more were proven before and have ended; --all looks at them again",
                found.closed_before
            );
        }
        text
    })?;
    Ok(())
}
