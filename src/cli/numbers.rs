//! `postrider numbers`: limits, room, quality, what is paused.

use chrono::{DateTime, Utc};

use super::{Context, Exit, output::relative};
use crate::store::overview::{self, NumberStatus};

/// Arguments of `postrider numbers`.
#[derive(Debug, clap::Args)]
pub(super) struct NumbersArgs {}

const HEADINGS: [&str; 14] = [
    "number", "phone", "status", "quality", "rate", "limit", "used", "room", "returns", "urgent",
    "normal", "bulk", "sent by", "paused",
];

pub(super) async fn run(_args: NumbersArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    let rows = overview::numbers(database.store.pool()).await?;
    let now = crate::clock::now();
    context
        .output
        .rows(&rows, &HEADINGS, |row| cells(row, now))?;
    Ok(Exit::Done)
}

fn cells(row: &NumberStatus, now: DateTime<Utc>) -> Vec<String> {
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
        row.room_normal
            .map(|room| room.to_string())
            .unwrap_or_default(),
        returns(row.returns, row.next_return_at, now),
        row.urgent_jobs.to_string(),
        row.normal_jobs.to_string(),
        row.bulk_jobs.to_string(),
        row.sent_by.clone().unwrap_or_default(),
        row.paused.clone().unwrap_or_default(),
    ]
}

/// How much of a messaging limit comes back next, and when: `12 in 3 h`.
pub(super) fn returns(
    returns: Option<i32>,
    at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> String {
    match (returns, at) {
        (Some(returns), Some(at)) => format!("{returns} {}", relative(at, now)),
        _ => String::new(),
    }
}
