//! Reading the next due jobs of a lane. A look writes nothing: where it stopped is kept in memory.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chrono::{DateTime, Utc};
use serde_json::value::RawValue;
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::SNAPSHOT;
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
    /// How far the look came where so much is held that it could not read all that is due.
    pub ended_at: Option<(DateTime<Utc>, JobId)>,
    /// The number's account, for held templates.
    pub account: String,
    /// How often the lane's reading had begun anew when this was made: an answer to a question from before that does not
    /// say how far the lane is read now.
    pub begun: u32,
}

/// Rows of one lane and priority that a look reads, at most: some 50 ms.
pub const READ_MAX: i64 = 50_000;

/// Jobs that stay where they are, whatever their number may do. A look leaves them out, and nothing is written to them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holds {
    /// Templates, by account.
    pub templates: HashMap<String, HashSet<TemplateName>>,
    /// Kinds, by name.
    pub kinds: HashSet<Arc<str>>,
    /// Batches, by the upstream's name.
    pub batches: HashSet<String>,
    /// Priorities: they are not looked at in the first place.
    pub priorities: HashSet<Priority>,
}

impl Holds {
    /// Whether anything is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.templates.values().all(HashSet::is_empty)
            && self.kinds.is_empty()
            && self.batches.is_empty()
            && self.priorities.is_empty()
    }

    /// Whether a job like this is held, on a number of the account.
    #[must_use]
    pub fn hold(
        &self,
        account: &str,
        template: Option<&TemplateName>,
        kind: &str,
        batch: Option<&str>,
        priority: Priority,
    ) -> bool {
        self.priorities.contains(&priority)
            || self.kinds.contains(kind)
            || batch.is_some_and(|batch| self.batches.contains(batch))
            || template.is_some_and(|template| self.holds_template(account, template))
    }

    /// Whether everything that `others` hold is held here too.
    #[must_use]
    pub fn include(&self, others: &Self) -> bool {
        let mut templates = others
            .templates
            .iter()
            .flat_map(|(account, names)| names.iter().map(move |name| (account, name)));
        self.priorities.is_superset(&others.priorities)
            && self.kinds.is_superset(&others.kinds)
            && self.batches.is_superset(&others.batches)
            && templates.all(|(account, name)| self.holds_template(account, name))
    }

    fn holds_template(&self, account: &str, template: &TemplateName) -> bool {
        self.templates
            .get(account)
            .is_some_and(|names| names.contains(template))
    }

    /// As the statement takes them: account, name and language of each template.
    fn template_columns(&self) -> (Vec<String>, Vec<String>, Vec<String>) {
        let mut columns = (Vec::new(), Vec::new(), Vec::new());
        for (account, names) in &self.templates {
            for template in names {
                columns.0.push(account.clone());
                columns.1.push(template.name.clone());
                columns.2.push(template.language.clone());
            }
        }
        columns
    }
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

/// The next due jobs behind each cursor, in the lane's order within each lane and priority, less those that are held or
/// `known`. Where some are held, it reads no more than [`READ_MAX`] rows of each, and the cursors tell where that ended.
///
/// # Errors
/// When the database does not answer.
pub async fn look(
    pool: &PgPool,
    cursors: &mut [Cursor],
    holds: &Holds,
    known: &[JobId],
) -> Result<Vec<Seen>, sqlx::Error> {
    if holds.is_empty() {
        return read(pool, cursors, holds, known, i64::MAX).await;
    }
    let mut snapshot = pool.begin_with(SNAPSHOT).await?;
    let seen = read(&mut *snapshot, cursors, holds, known, READ_MAX).await?;
    tell_ends(&mut snapshot, cursors, &seen).await?;
    snapshot.commit().await?;
    Ok(seen)
}

/// Notes where the look ended on lanes of which it found less than there was room for.
async fn tell_ends(
    snapshot: &mut PgConnection,
    cursors: &mut [Cursor],
    seen: &[Seen],
) -> Result<(), sqlx::Error> {
    let mut found: HashMap<(Lane, Priority), u32> = HashMap::new();
    for Seen { job, .. } in seen {
        *found.entry((job.lane, job.priority)).or_default() += 1;
    }
    let is_unfilled = |cursor: &&mut Cursor| {
        let found = found.get(&(cursor.lane, cursor.priority));
        found.is_none_or(|found| *found < cursor.room)
    };
    let mut unfilled: Vec<&mut Cursor> = cursors.iter_mut().filter(is_unfilled).collect();
    if unfilled.is_empty() {
        return Ok(());
    }
    let lanes: Vec<_> = unfilled.iter().map(|c| c.lane.0).collect();
    let priorities: Vec<_> = unfilled.iter().map(|c| c.priority.as_i16()).collect();
    let due: Vec<_> = unfilled.iter().map(|c| c.after.0).collect();
    let ids: Vec<_> = unfilled.iter().map(|c| c.after.1.0).collect();
    let ends = sqlx::query_file!(
        "src/store/look_ends.sql",
        &lanes,
        &priorities,
        &due,
        &ids,
        READ_MAX
    )
    .fetch_all(snapshot)
    .await?;
    for end in ends {
        let key = (end.lane, end.priority);
        let meant = unfilled
            .iter_mut()
            .find(|c| (c.lane.0, c.priority.as_i16()) == key);
        if let Some(cursor) = meant {
            cursor.ended_at = Some((end.due_at, JobId(end.id)));
        }
    }
    Ok(())
}

async fn read(
    executor: impl PgExecutor<'_>,
    cursors: &[Cursor],
    holds: &Holds,
    known: &[JobId],
    read_max: i64,
) -> Result<Vec<Seen>, sqlx::Error> {
    let (accounts, names, languages) = holds.template_columns();
    let kinds: Vec<String> = holds.kinds.iter().map(ToString::to_string).collect();
    let batches: Vec<String> = holds.batches.iter().cloned().collect();
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
        &accounts,
        &names,
        &languages,
        &known.iter().map(|id| id.0).collect::<Vec<_>>(),
        &kinds,
        &batches,
        read_max,
    )
    .fetch_all(executor)
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
                    batch: row.batch,
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
