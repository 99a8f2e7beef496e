//! `postrider templates`: what can be sent, and what cannot and why.

use super::{Context, Exit};
use crate::store::overview::{self, TemplateStatus};

/// Arguments of `postrider templates`.
#[derive(Debug, clap::Args)]
pub(super) struct TemplatesArgs {
    /// Only those of this name
    name: Option<String>,
}

pub(super) async fn run(args: TemplatesArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let rows = overview::templates(database.store.pool(), args.name.as_deref()).await?;
    let headings = [
        "account", "template", "language", "category", "status", "quality", "why not",
    ];
    context.output.rows(&rows, &headings, |row| {
        vec![
            row.waba_id.clone(),
            row.name.clone(),
            row.language.clone(),
            row.category.clone(),
            row.status.clone(),
            row.quality.clone().unwrap_or_default(),
            why_not(row),
        ]
    })?;
    Ok(Exit::Done)
}

/// Why it cannot be sent; empty when it can.
fn why_not(row: &TemplateStatus) -> String {
    let paused = row.paused.as_ref().map(|reason| match row.paused_until {
        Some(until) => format!("paused until {}: {reason}", super::output::time(until)),
        None => format!("paused: {reason}"),
    });
    paused
        .or_else(|| row.rejected_reason.clone())
        .unwrap_or_default()
}
