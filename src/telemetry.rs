//! Logs: a sentence for people and fields for queries. To the journal when systemd runs us, else to standard error.

use std::{
    env,
    io::{self, IsTerminal as _},
};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// An object a line.
    Json,
    /// The journal's own protocol: levels become priorities, fields can be asked for.
    Journal,
}

/// Starts logging. `level` is what is shown unless `$POSTRIDER_LOG` says otherwise, for example
/// `POSTRIDER_LOG=postrider::dispatch=debug,info`.
///
/// # Errors
/// When the filter makes no sense, or the journal was asked for by name and is not there.
pub fn init(format: Option<LogFormat>, level: &str) -> anyhow::Result<()> {
    let filter = match env::var("POSTRIDER_LOG") {
        Ok(directives) if !directives.is_empty() => EnvFilter::try_new(&directives)
            .map_err(|error| anyhow::anyhow!("$POSTRIDER_LOG is no filter: {error}"))?,
        // Why a connection was not made is said by whoever asked for it, once.
        _ => EnvFilter::new(format!("{level},sqlx_core::pool=off")),
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(output(format)?)
        .init();
    Ok(())
}

fn output(
    format: Option<LogFormat>,
) -> anyhow::Result<Box<dyn Layer<FilteredRegistry> + Send + Sync>> {
    let text = || {
        fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(io::stderr().is_terminal())
            .with_target(false)
    };
    Ok(match format {
        Some(LogFormat::Journal) => journal()?.boxed(),
        Some(LogFormat::Json) => fmt::layer().json().with_writer(io::stderr).boxed(),
        Some(LogFormat::Text) => text().boxed(),
        // systemd sets this for what it connects to the journal; without the socket, standard error gets there as well.
        None if env::var_os("JOURNAL_STREAM").is_some() => match journal() {
            Ok(layer) => layer.boxed(),
            Err(_) => text().boxed(),
        },
        None => text().boxed(),
    })
}

type FilteredRegistry = tracing_subscriber::layer::Layered<EnvFilter, Registry>;

fn journal() -> anyhow::Result<tracing_journald::Layer> {
    let layer = tracing_journald::layer()
        .map_err(|error| anyhow::anyhow!("the journal is not there: {error}"))?;
    Ok(layer
        .with_field_prefix(None)
        .with_syslog_identifier("postrider".to_owned()))
}
