//! The command line: one file per command, each with its arguments and a `run` that says how it ended.

pub mod exit;
pub mod output;

mod check;
mod consent;
mod csv_row;
mod dead;
mod demo;
mod enqueue;
mod given;
mod history;
mod input;
mod jobs;
mod migrate;
mod numbers;
mod pause;
mod preview;
mod run;
mod sandbox;
mod status;
mod sync;
mod templates;
mod verify;
mod why;

use std::{ffi::OsString, io::Write as _, path::PathBuf};

use clap::{Args, Parser, Subcommand};

pub use exit::Exit;
pub use output::Output;

use crate::{
    app::database::Database,
    config::{Config, ConfigError, Environment},
    telemetry::{self, LogFormat},
};

/// Takes transactional notifications out of a Postgres queue and delivers them through the WhatsApp Business Cloud API.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Debug, Args)]
struct Global {
    /// The configuration [default: $POSTRIDER_CONFIG, else /etc/postrider/postrider.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    /// Show phone numbers whole
    #[arg(long, global = true)]
    reveal: bool,
    /// How log lines look [default: the journal under systemd, else text]
    #[arg(long, global = true, value_name = "FORMAT")]
    log: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(run::RunArgs),
    /// Show the whole thing on this machine, no account needed: database, stand-in, daemon and sample jobs
    Demo(demo::DemoArgs),
    /// Run a stand-in for the provider that enforces its limits and sends signed webhooks
    Sandbox(sandbox::SandboxArgs),
    /// Bring the database's schema up to this release
    Migrate(migrate::MigrateArgs),
    /// Enqueue one job from flags, or many from JSONL, CSV or a pipe
    Enqueue(Box<enqueue::EnqueueArgs>),
    /// Show what the recipient would read, and what would stop it
    Preview(preview::PreviewArgs),
    /// Import, note and show what people agreed to and withdrew
    Consent(consent::ConsentArgs),
    /// List, show and cancel jobs
    Jobs(jobs::JobsArgs),
    /// Say where a job is, what holds it, and when it can go
    Why(why::WhyArgs),
    /// Say what is wrong and what is going on
    Status(status::StatusArgs),
    /// Stop everything, or a kind, priority, batch, number, account or template; --list says what is stopped
    Pause(pause::PauseArgs),
    /// Let it go on, whoever stopped it
    Resume(pause::ResumeArgs),
    /// List, redrive and drop dead letters: jobs that nobody will send again by themselves
    #[command(alias = "dlq")]
    Dead(Box<dead::DeadArgs>),
    /// Prove that every job is in exactly one place, on the running system
    Verify(verify::VerifyArgs),
    /// Say who paused, resumed, redrove and changed what, when and why
    History(history::HistoryArgs),
    /// List the numbers with their limits, quality and backlog
    Numbers(numbers::NumbersArgs),
    /// List the templates
    Templates(templates::TemplatesArgs),
    /// Say what is wrong with configuration, database, credentials and numbers, and how to mend it
    Check(check::CheckArgs),
    /// Read numbers, limits and templates from the provider now
    Sync(sync::SyncArgs),
}

impl Command {
    async fn run(self, context: &Context) -> anyhow::Result<Exit> {
        match self {
            Self::Run(args) => run::run(args, context).await,
            Self::Demo(args) => demo::run(args, context).await,
            Self::Sandbox(args) => sandbox::run(args, context).await,
            Self::Migrate(args) => migrate::run(args, context).await,
            Self::Enqueue(args) => enqueue::run(*args, context).await,
            Self::Preview(args) => preview::run(args, context).await,
            Self::Consent(args) => consent::run(args, context).await,
            Self::Jobs(args) => jobs::run(args, context).await,
            Self::Why(args) => why::run(args, context).await,
            Self::Status(args) => status::run(args, context).await,
            Self::Pause(args) => pause::pause(args, context).await,
            Self::Resume(args) => pause::resume(args, context).await,
            Self::Dead(args) => dead::run(*args, context).await,
            Self::Verify(args) => verify::run(args, context).await,
            Self::History(args) => history::run(args, context).await,
            Self::Numbers(args) => numbers::run(args, context).await,
            Self::Templates(args) => templates::run(args, context).await,
            Self::Check(args) => check::run(args, context).await,
            Self::Sync(args) => sync::run(args, context).await,
        }
    }

    /// What is logged unless somebody asks for more: services tell their story, other commands speak by their output.
    fn log_level(&self) -> &'static str {
        match self {
            Self::Run(_) | Self::Sandbox(_) => "info",
            // The demo makes things go wrong on purpose, and tells of them itself.
            Self::Demo(_) => "error",
            _ => "warn",
        }
    }
}

/// What a command works with.
#[derive(Debug)]
pub struct Context {
    /// What the process was started with.
    pub environment: Environment,
    /// The configuration's file.
    pub config_path: PathBuf,
    /// How to speak.
    pub output: Output,
    /// Whether somebody named that file, rather than it being the usual one.
    is_named: bool,
}

impl Context {
    fn new(global: &Global, environment: Environment) -> Self {
        let is_named = global.config.is_some() || environment.get("POSTRIDER_CONFIG").is_some();
        Self {
            config_path: environment.config_path(global.config.as_deref()),
            output: Output {
                json: global.json,
                reveal: global.reveal,
            },
            environment,
            is_named,
        }
    }

    /// The configuration.
    ///
    /// # Errors
    /// When there is none, or it does not work.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::load(&self.config_path)
    }

    /// The configuration, or the defaults where nobody named a file and the environment names the database: a shell on
    /// another machine needs no more than that to ask questions.
    ///
    /// # Errors
    /// When there is none, or it does not work.
    pub fn config_or_defaults(&self) -> Result<Config, ConfigError> {
        let is_optional =
            !self.is_named && self.environment.get("POSTRIDER_DATABASE_URL").is_some();
        match self.config() {
            Err(ConfigError::Unreadable { .. }) if is_optional => Ok(Config::default()),
            result => result,
        }
    }

    /// Connects to the database, once.
    ///
    /// # Errors
    /// When the configuration does not work or the database is away.
    pub async fn database(&self) -> anyhow::Result<Database> {
        let config = self.config_or_defaults()?;
        Database::open(&config, &self.environment).await
    }
}

/// Everything from the command line to the exit code.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = telemetry::init(cli.global.log, cli.command.log_level()).and_then(|()| {
        let context = Context::new(&cli.global, Environment::of_process());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?;
        runtime.block_on(cli.command.run(&context))
    });
    result.unwrap_or_else(|error| complain(&error))
}

/// `--help` and `--version` are no mistakes, although the parser returns them as such.
fn usage(error: &clap::Error) -> Exit {
    // Nothing can be done when the terminal is gone.
    let _ = error.print();
    if error.use_stderr() {
        Exit::Usage
    } else {
        Exit::Done
    }
}

/// Says what went wrong as one sentence chain, from what was tried to what broke.
fn complain(error: &anyhow::Error) -> Exit {
    let exit = Exit::of(error);
    if exit != Exit::Done {
        let _ = writeln!(std::io::stderr().lock(), "postrider: {error:#}");
    }
    exit
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
