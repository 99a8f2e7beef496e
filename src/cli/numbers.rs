//! `postrider numbers`: limits, room, quality, what is paused.

use super::{Context, Exit};
use crate::store::overview::{self, NumberStatus};

/// Arguments of `postrider numbers`.
#[derive(Debug, clap::Args)]
pub(super) struct NumbersArgs {}

const HEADINGS: [&str; 11] = [
    "number", "phone", "status", "quality", "rate", "limit", "used", "urgent", "normal", "bulk",
    "paused",
];

pub(super) async fn run(_args: NumbersArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let rows = overview::numbers(database.store.pool()).await?;
    context.output.rows(&rows, &HEADINGS, cells)?;
    Ok(Exit::Done)
}

fn cells(row: &NumberStatus) -> Vec<String> {
    let status = if row.configured {
        row.status.clone()
    } else {
        format!("{} (not configured)", row.status)
    };
    vec![
        row.number.clone(),
        row.display_phone_number.clone().unwrap_or_default(),
        status,
        row.quality_rating.clone().unwrap_or_default(),
        row.messages_per_second
            .map_or_else(|| "default".to_owned(), |rate| rate.to_string()),
        row.messaging_limit
            .map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string()),
        row.recipients_24h.to_string(),
        row.urgent_jobs.to_string(),
        row.normal_jobs.to_string(),
        row.bulk_jobs.to_string(),
        row.paused.clone().unwrap_or_default(),
    ]
}
