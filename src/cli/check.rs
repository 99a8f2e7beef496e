//! `postrider check`: what is wrong, and how to mend it, from the configuration to the provider.

mod provider;

use std::path::Path;

use serde::Serialize;

use super::{Context, Exit, output};
use crate::{
    app::database::Database,
    clock,
    config::{Config, ConfigError},
    store::{Store, inspect, migrate},
};

/// The oldest server that we are tested with.
const OLDEST_POSTGRES: i32 = 140_000;

/// Arguments of `postrider check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Do not ask the provider
    #[arg(long)]
    offline: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Level {
    Ok,
    Warning,
    Problem,
}

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    level: Level,
    /// configuration, secrets, database, schema, sending, provider
    about: &'static str,
    what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

/// What was found, and what the shell is told: the first problem decides.
#[derive(Debug)]
struct Report {
    findings: Vec<Finding>,
    exit: Exit,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            findings: Vec::new(),
            exit: Exit::Done,
        }
    }
}

impl Report {
    fn ok(&mut self, about: &'static str, what: impl Into<String>) {
        self.findings.push(Finding {
            level: Level::Ok,
            about,
            what: what.into(),
            mend: None,
        });
    }

    fn warn(&mut self, about: &'static str, what: impl Into<String>, mend: impl Into<String>) {
        self.findings.push(Finding {
            level: Level::Warning,
            about,
            what: what.into(),
            mend: Some(mend.into()),
        });
    }

    fn problem(
        &mut self,
        about: &'static str,
        exit: Exit,
        what: impl Into<String>,
        mend: Option<&str>,
    ) {
        let mend = mend.map(ToOwned::to_owned);
        self.findings.push(Finding {
            level: Level::Problem,
            about,
            what: what.into(),
            mend,
        });
        if self.exit == Exit::Done {
            self.exit = exit;
        }
    }
}

pub(super) async fn run(args: CheckArgs, context: &Context) -> anyhow::Result<Exit> {
    let mut report = Report::default();
    if let Some(config) = check_configuration(context, &mut report) {
        check_secrets(&config, context, &mut report);
        check_database(&config, context, &mut report).await;
        if !args.offline {
            provider::check(&config, context, &mut report).await;
        }
    }
    context
        .output
        .rows(&report.findings, &["", "about", "finding"], cells)?;
    Ok(report.exit)
}

fn cells(finding: &Finding) -> Vec<String> {
    let mark = match finding.level {
        Level::Ok => "ok",
        Level::Warning => "warning",
        Level::Problem => "PROBLEM",
    };
    let text = match &finding.mend {
        Some(mend) => format!("{}\n→ {mend}", finding.what),
        None => finding.what.clone(),
    };
    vec![mark.to_owned(), finding.about.to_owned(), text]
}

fn check_configuration(context: &Context, report: &mut Report) -> Option<Config> {
    let path = &context.config_path;
    let config = match context.config() {
        Ok(config) => config,
        Err(error) => {
            tell_config_error(&error, path, report);
            return None;
        }
    };
    report.ok("configuration", format!("{} is valid", path.display()));
    for warning in config.warnings() {
        report.warn(
            "configuration",
            format!("`{}` {}", warning.key, warning.what),
            warning.mend,
        );
    }
    Some(config)
}

fn tell_config_error(error: &ConfigError, path: &Path, report: &mut Report) {
    let ConfigError::Invalid { problems, .. } = error else {
        return report.problem("configuration", Exit::Config, error.to_string(), None);
    };
    for problem in problems {
        let place = problem
            .position
            .map(|position| format!(", {position}"))
            .unwrap_or_default();
        let what = format!(
            "{}{place}: `{}` {}",
            path.display(),
            problem.key,
            problem.what
        );
        report.problem("configuration", Exit::Config, what, Some(&problem.mend));
    }
}

fn check_secrets(config: &Config, context: &Context, report: &mut Report) {
    let environment = &context.environment;
    let tokens = config
        .accounts
        .iter()
        .map(|account| config.token(account, environment).map(drop));
    let apps = config.apps.iter().flat_map(|app| {
        [
            app.resolve_secrets(environment).map(drop),
            app.resolve_verify_token(environment).map(drop),
        ]
    });
    let results: Vec<_> = tokens.chain(apps).collect();
    let found = results.iter().filter(|result| result.is_ok()).count();
    for error in results.into_iter().filter_map(Result::err) {
        report.problem("secrets", Exit::Config, error.to_string(), None);
    }
    if found > 0 {
        report.ok("secrets", format!("{found} found"));
    }
}

async fn check_database(config: &Config, context: &Context, report: &mut Report) {
    let database = match Database::open(config, &context.environment).await {
        Ok(database) => database,
        Err(error) => {
            return report.problem("database", Exit::of(&error), format!("{error:#}"), None);
        }
    };
    if let Err(error) = check_server(&database, report).await {
        report.problem("database", Exit::DatabaseAway, error.to_string(), None);
    }
    match migrate::check(database.store.pool()).await {
        Ok(()) => report.ok("schema", "is this release's"),
        Err(problem) => {
            let error = anyhow::Error::new(problem);
            return report.problem("schema", Exit::of(&error), format!("{error:#}"), None);
        }
    }
    if let Err(error) = check_supplies(&database.store, report).await {
        report.problem("sending", Exit::DatabaseAway, error.to_string(), None);
    }
}

async fn check_server(database: &Database, report: &mut Report) -> anyhow::Result<()> {
    let server = inspect::server(database.store.pool()).await?;
    let (major, what) = (server.version / 10_000, &server.database);
    report.ok(
        "database",
        format!(
            "{what} as {}, by {}; PostgreSQL {major}",
            server.user, database.source
        ),
    );
    if server.version < OLDEST_POSTGRES {
        report.problem(
            "database",
            Exit::Failed,
            format!("PostgreSQL {major} is too old"),
            Some("upgrade to 14 or newer"),
        );
    }
    if server.is_standby {
        let mend = "name all hosts by commas, without target_session_attrs=any";
        report.problem(
            "database",
            Exit::Failed,
            "it is a standby, which takes no writes",
            Some(mend),
        );
    }
    if server.synchronous_standbys.is_empty() {
        report.warn(
            "database",
            "no commit waits for a standby, so a fail-over may forget what was sent, and it is sent twice",
            "set synchronous_standby_names, or accept it",
        );
    }
    Ok(())
}

async fn check_supplies(store: &Store, report: &mut Report) -> anyhow::Result<()> {
    let supplies = inspect::supplies(store.pool()).await?;
    if supplies.has_opt_ins {
        report.ok("sending", "people have opted in");
    } else {
        report.warn(
            "sending",
            "nobody has opted in, so every job of a kind that asks for it is rejected",
            "select postrider.opt_in(…), or postrider consent import",
        );
    }
    match supplies.last_receipt {
        Some(at) => {
            let ago = output::relative(at, clock::now());
            report.ok("sending", format!("the provider called {ago}"));
        }
        None => report.warn(
            "sending",
            "the provider has not called within a day",
            "set the webhook's address in the provider's console, and subscribe the app to the account",
        ),
    }
    if let Some(reason) = supplies.all_paused {
        let what = format!("everything is paused: {reason}");
        report.warn("sending", what, "postrider resume all lets it go on");
    } else if supplies.pauses > 0 {
        let what = format!("{} pauses hold something back", supplies.pauses);
        report.warn("sending", what, "postrider status says what and why");
    }
    if supplies.has_jobs && !supplies.has_dispatcher {
        report.warn(
            "sending",
            "jobs wait and nobody sends",
            "start postrider run",
        );
    }
    Ok(())
}
