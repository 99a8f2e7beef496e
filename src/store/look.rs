//! Reading the next due jobs of a lane. A look writes nothing: where it stopped is kept in memory.

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::PgPool;

use crate::rules::job::{Job, JobId, Lane, PersonFacts, Priority, TemplateName};

/// Where a look goes on, for one lane and priority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The lane.
    pub lane: Lane,
    /// The priority.
    pub priority: Priority,
    /// Only jobs behind this key of the lane's order are read.
    pub after: (DateTime<Utc>, JobId),
    /// At most so many.
    pub room: u32,
    /// The number's account, for held templates.
    pub account: String,
}

/// A template whose jobs a look leaves where they are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HeldTemplate {
    /// The account.
    pub account: String,
    /// The template.
    pub template: TemplateName,
}

/// A job with what the gate needs to know.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The job.
    pub job: Job,
    /// About its person.
    pub facts: PersonFacts,
    /// Keyed hash of the person, for the messaging limit's ledger.
    pub recipient_hash: i64,
}

/// Lanes and priorities that have any rows, due or not.
///
/// # Errors
/// When the database does not answer.
pub async fn lanes_with_rows(pool: &PgPool) -> Result<Vec<(Lane, Priority)>, sqlx::Error> {
    let rows = sqlx::query_file!("src/store/lanes.sql")
        .fetch_all(pool)
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| Some((Lane(row.lane), Priority::from_i16(row.priority)?)))
        .collect())
}

/// The next due jobs behind each cursor, in the lane's order within each lane and priority, less those that are `known`.
///
/// # Errors
/// When the database does not answer.
pub async fn look(
    pool: &PgPool,
    cursors: &[Cursor],
    held: &[HeldTemplate],
    known: &[JobId],
) -> Result<Vec<Seen>, sqlx::Error> {
    let rows = sqlx::query_file!(
        "src/store/look.sql",
        &cursors.iter().map(|c| c.lane.0).collect::<Vec<_>>(),
        &cursors
            .iter()
            .map(|c| c.priority.as_i16())
            .collect::<Vec<_>>(),
        &cursors.iter().map(|c| c.after.0).collect::<Vec<_>>(),
        &cursors.iter().map(|c| c.after.1.0).collect::<Vec<_>>(),
        &cursors
            .iter()
            .map(|c| i32::try_from(c.room).unwrap_or(i32::MAX))
            .collect::<Vec<_>>(),
        &cursors
            .iter()
            .map(|c| c.account.clone())
            .collect::<Vec<_>>(),
        &held.iter().map(|h| h.account.clone()).collect::<Vec<_>>(),
        &held
            .iter()
            .map(|h| h.template.name.clone())
            .collect::<Vec<_>>(),
        &held
            .iter()
            .map(|h| h.template.language.clone())
            .collect::<Vec<_>>(),
        &known.iter().map(|id| id.0).collect::<Vec<_>>(),
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let content = RawValue::from_string(row.content)
                .map_err(|error| sqlx::Error::Decode(error.into()))?;
            let priority = Priority::from_i16(row.priority).ok_or_else(|| {
                sqlx::Error::Decode(format!("queue.priority is {}", row.priority).into())
            })?;
            Ok(Seen {
                job: Job {
                    id: JobId(row.id),
                    lane: Lane(row.lane),
                    priority,
                    due_at: row.due_at,
                    tries: row.tries,
                    spent: row.spent,
                    kind: row.kind.into(),
                    recipient: row.recipient,
                    person: row.person,
                    template: row
                        .template
                        .zip(row.language)
                        .map(|(name, language)| TemplateName { name, language }),
                    content,
                    enqueued_at: row.enqueued_at,
                    expires_at: row.expires_at,
                },
                facts: PersonFacts {
                    opted_in_at: row.opted_in_at,
                    opted_out_at: row.opted_out_at,
                    window_until: row.window_until,
                },
                recipient_hash: row.recipient_hash,
            })
        })
        .collect()
}
