//! `postrider consent`: what people agreed to and withdrew, with source and evidence.

use std::path::PathBuf;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use clap::Subcommand;
use serde_json::{Map, Value};
use sqlx::PgPool;

use super::{
    Context, Exit, Output,
    enqueue::json_value,
    input::{Format, Line, Lines},
    output::{Progress, time},
};
use crate::{
    rules::address::Address,
    store::consent::{self, ScopeConsent, Statement},
};

/// Arguments of `postrider consent`.
#[derive(Debug, clap::Args)]
pub(super) struct ConsentArgs {
    #[command(subcommand)]
    command: ConsentCommand,
}

#[derive(Debug, Subcommand)]
enum ConsentCommand {
    /// Take many from JSONL or CSV: recipient, source, and if you like scope, at, language, evidence, opt_out
    Import(ImportArgs),
    /// Note that somebody agreed to be messaged
    OptIn(SayArgs),
    /// Note that somebody withdrew
    OptOut(SayArgs),
    /// Show what is known of somebody
    Show {
        /// Their number or id
        recipient: String,
    },
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    /// JSONL or CSV, told by the name; - is standard input
    file: PathBuf,
    /// How the file is written
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// Where they said so, for lines that do not say
    #[arg(long)]
    source: Option<String>,
    /// The lines are opt-outs, unless they say otherwise
    #[arg(long)]
    opt_out: bool,
}

#[derive(Debug, clap::Args)]
struct SayArgs {
    /// Their number or id
    recipient: String,
    /// Where they said so: checkout, support, ...
    #[arg(long)]
    source: String,
    /// What it is limited to, for example marketing [default: everything]
    #[arg(long)]
    scope: Option<String>,
    /// When [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<DateTime<Utc>>,
    /// The language they want to read, for example en_US
    #[arg(long)]
    language: Option<String>,
    /// What proves it, as JSON: the text shown, who recorded it
    #[arg(long, value_name = "JSON", value_parser = json_value)]
    evidence: Option<Value>,
}

pub(super) async fn run(args: ConsentArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let (pool, output) = (database.store.pool(), &context.output);
    match args.command {
        ConsentCommand::Import(args) => import(pool, args, output).await,
        ConsentCommand::OptIn(args) => say(pool, args, false, output).await,
        ConsentCommand::OptOut(args) => say(pool, args, true, output).await,
        ConsentCommand::Show { recipient } => show(pool, &recipient, output).await,
    }
}

async fn say(pool: &PgPool, args: SayArgs, opt_out: bool, output: &Output) -> anyhow::Result<Exit> {
    let statement = Statement {
        recipient: args.recipient,
        opt_out,
        source: Some(args.source),
        scope: args.scope,
        at: args.at,
        language: args.language,
        evidence: args.evidence,
    };
    if let Some(error) = note_one(pool, &statement).await? {
        return Err(anyhow::anyhow!(error).context(Exit::BadInput));
    }
    output.say(if opt_out {
        "noted: opted out"
    } else {
        "noted: opted in"
    })?;
    Ok(Exit::Done)
}

/// Notes one statement; the refusal, when it is refused.
async fn note_one(pool: &PgPool, statement: &Statement) -> anyhow::Result<Option<String>> {
    match consent::note(pool, std::slice::from_ref(statement)).await {
        Ok(()) => Ok(None),
        Err(error) => refusal(&error).map(Some).ok_or_else(|| error.into()),
    }
}

/// The sentence of a refusal; `None` for any other error.
fn refusal(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    error
        .code()?
        .starts_with("PR")
        .then(|| error.message().to_owned())
}

async fn import(pool: &PgPool, args: ImportArgs, output: &Output) -> anyhow::Result<Exit> {
    let mut lines = Lines::open(&args.file, args.format)?;
    let mut progress = Progress::new("consents", None);
    let (mut noted, mut bad, mut last) = (0_u64, 0_u64, 0);
    loop {
        let batch = lines.batch().await?;
        let Some(line) = batch.last() else { break };
        let up_to = line.number;
        let (good, mut errors) = read(batch, &args);
        errors.extend(
            note(pool, &good)
                .await
                .with_context(|| format!("stopped; the lines up to {last} are noted"))?,
        );
        last = up_to;
        errors.sort();
        for (line, error) in &errors {
            progress.line(&format!("line {line}: {error}"));
        }
        let read = good.len() as u64;
        progress.add(read);
        // Some of the errors are of lines that could not even be read.
        let refused = errors
            .iter()
            .filter(|(line, _)| good.iter().any(|(number, _)| number == line))
            .count() as u64;
        noted += read - refused;
        bad += errors.len() as u64;
    }
    progress.finish();
    output.one(&serde_json::json!({"noted": noted, "bad": bad}), || {
        format!("{noted} noted, {bad} bad")
    })?;
    Ok(if bad == 0 { Exit::Done } else { Exit::BadInput })
}

/// A statement, or an error, with its line.
type Numbered<T> = (u64, T);

fn read(batch: Vec<Line>, args: &ImportArgs) -> (Vec<Numbered<Statement>>, Vec<Numbered<String>>) {
    let (mut good, mut errors) = (Vec::new(), Vec::new());
    for line in batch {
        match line.object.and_then(|object| statement(object, args)) {
            Ok(statement) => good.push((line.number, statement)),
            Err(error) => errors.push((line.number, error)),
        }
    }
    (good, errors)
}

fn statement(mut object: Map<String, Value>, args: &ImportArgs) -> Result<Statement, String> {
    object.entry("opt_out").or_insert(args.opt_out.into());
    let mut statement: Statement =
        serde_json::from_value(object.into()).map_err(|error| error.to_string())?;
    statement.source = statement.source.or_else(|| args.source.clone());
    // Only for speed: one refusal by the database costs its whole batch a second round.
    Address::parse(&statement.recipient).map_err(|error| error.to_string())?;
    Ok(statement)
}

/// Notes a batch at once; when something in it is refused, one by one.
async fn note(
    pool: &PgPool,
    statements: &[Numbered<Statement>],
) -> anyhow::Result<Vec<Numbered<String>>> {
    let all: Vec<Statement> = statements
        .iter()
        .map(|(_, statement)| statement.clone())
        .collect();
    match consent::note(pool, &all).await {
        Ok(()) => return Ok(Vec::new()),
        Err(error) if refusal(&error).is_some() => {}
        Err(error) => return Err(error.into()),
    }
    let mut errors = Vec::new();
    for (line, statement) in statements {
        errors.extend(note_one(pool, statement).await?.map(|error| (*line, error)));
    }
    Ok(errors)
}

async fn show(pool: &PgPool, recipient: &str, output: &Output) -> anyhow::Result<Exit> {
    let address = Address::parse(recipient).context(Exit::BadInput)?;
    let mut rows = consent::show(pool, address.as_str()).await?;
    if rows.is_empty() {
        output.say("nothing is known: they never opted in")?;
        return Ok(Exit::Done);
    }
    for row in &mut rows {
        row.person = output.recipient(&row.person);
        row.addresses = row
            .addresses
            .iter()
            .map(|address| output.recipient(address))
            .collect();
    }
    let headings = [
        "person",
        "scope",
        "opted in",
        "where",
        "opted out",
        "where",
        "language",
        "holds",
    ];
    output.rows(&rows, &headings, cells)?;
    Ok(Exit::Done)
}

fn cells(row: &ScopeConsent) -> Vec<String> {
    let at = |at: Option<DateTime<Utc>>| at.map(time).unwrap_or_default();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let holds = if row.opted_out_at >= row.opted_in_at {
        "opt-out"
    } else {
        "opt-in"
    };
    vec![
        row.person.clone(),
        row.scope.clone(),
        at(row.opted_in_at),
        text(&row.opt_in_source),
        at(row.opted_out_at),
        text(&row.opt_out_source),
        text(&row.language),
        holds.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> ImportArgs {
        ImportArgs {
            file: "x".into(),
            format: None,
            source: Some("crm".to_owned()),
            opt_out: false,
        }
    }

    #[test]
    fn a_line_is_read_with_the_defaults_of_the_command() {
        let object = |text: &str| serde_json::from_str(text).unwrap();
        let read = statement(
            object(r#"{"recipient": "+905321234567", "at": "2026-01-01T00:00:00Z"}"#),
            &args(),
        )
        .unwrap();
        assert_eq!((read.source.as_deref(), read.opt_out), (Some("crm"), false));
        let read = statement(
            object(r#"{"recipient": "+905321234567", "source": "web", "opt_out": true}"#),
            &args(),
        )
        .unwrap();
        assert_eq!((read.source.as_deref(), read.opt_out), (Some("web"), true));
        for bad in [
            r#"{"recipient": "0532"}"#,
            r#"{"recipient": "+905321234567", "when": "now"}"#,
            r#"{"recipient": "+905321234567", "at": "yesterday"}"#,
            "{}",
        ] {
            assert!(statement(object(bad), &args()).is_err(), "{bad}");
        }
    }
}
