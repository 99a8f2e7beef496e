//! The queue as a whole, for metrics: how many jobs, how old, what is stopped, what came in.

use std::{collections::VecDeque, time::Duration};

use sqlx::PgPool;

use crate::rules::job::Priority;

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Jobs in the queue.
    pub queued: Vec<Queued>,
    /// What is stopped now.
    pub stopped: Vec<Stopped>,
    /// Jobs that came in since the last sample.
    pub enqueued: Vec<Enqueued>,
}

/// Jobs in the queue of one priority and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// Their priority.
    pub priority: Priority,
    /// `queued`, `unknown`, or `waiting` for those that are not due yet.
    pub state: String,
    /// How many.
    pub count: i64,
    /// How long the oldest has been due; `None` for those that are not.
    pub oldest_waited_s: Option<i64>,
}

/// Pauses of one scope and reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// number, account, template, …
    pub scope: String,
    /// The provider's error code, or `operator`.
    pub reason: String,
    /// How many.
    pub count: i64,
}

/// Jobs that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enqueued {
    /// What they are about.
    pub kind: String,
    /// Who enqueued them.
    pub producer: String,
    /// How many.
    pub count: i64,
}

impl Sample {
    /// Jobs that were posted and got no answer.
    #[must_use]
    pub fn unknown(&self) -> i64 {
        self.queued
            .iter()
            .filter(|jobs| jobs.state == "unknown")
            .map(|jobs| jobs.count)
            .sum()
    }
}

/// Jobs become visible in the order of their commits, not of their ids. So ids are counted when they are this old; those of
/// a transaction that took longer are missed in the metric, and in nothing else.
const COUNTED_AFTER: Duration = Duration::from_secs(60);

/// Takes samples, and remembers up to which job it has counted what came in.
#[derive(Debug, Default)]
pub struct Sampler {
    /// The last job counted; `None` before the first sample.
    counted: Option<i64>,
    /// When which job was the newest, oldest first; those that are not counted yet.
    newest: VecDeque<(Duration, i64)>,
}

impl Sampler {
    /// Looks at the queue at a time of any monotonic clock.
    ///
    /// # Errors
    /// When the database does not answer; then nothing was counted.
    pub async fn take(&mut self, pool: &PgPool, now: Duration) -> Result<Sample, sqlx::Error> {
        let queued = queued(pool).await?;
        let stopped = stopped(pool).await?;
        let newest: i64 = sqlx::query_scalar!("select last_value from postrider.job_id")
            .fetch_one(pool)
            .await?;
        let counted = *self.counted.get_or_insert(newest);
        let up_to = self.old_enough(now).unwrap_or(counted);
        let enqueued = if up_to > counted {
            enqueued(pool, counted, up_to).await?
        } else {
            Vec::new()
        };
        self.counted = Some(up_to);
        self.newest.push_back((now, newest));
        Ok(Sample {
            queued,
            stopped,
            enqueued,
        })
    }

    /// The newest job of those that are old enough to be counted.
    fn old_enough(&mut self, now: Duration) -> Option<i64> {
        let old = self
            .newest
            .iter()
            .take_while(|(seen, _)| now.saturating_sub(*seen) >= COUNTED_AFTER)
            .count();
        self.newest
            .drain(..old)
            .next_back()
            .map(|(_, newest)| newest)
    }
}

async fn queued(pool: &PgPool) -> Result<Vec<Queued>, sqlx::Error> {
    let rows = sqlx::query_file!("src/store/sample_queued.sql")
        .fetch_all(pool)
        .await?;
    Ok(rows
        .into_iter()
        .filter_map(|row| {
            Some(Queued {
                priority: Priority::from_i16(row.priority)?,
                state: row.state,
                count: row.count,
                oldest_waited_s: row.oldest_waited_s,
            })
        })
        .collect())
}

async fn stopped(pool: &PgPool) -> Result<Vec<Stopped>, sqlx::Error> {
    sqlx::query_as!(
        Stopped,
        r#"select scope, coalesce(error_code::text, source) as "reason!", count(*) as "count!"
           from postrider.pause
           where until is null or until > now()
           group by 1, 2"#
    )
    .fetch_all(pool)
    .await
}

async fn enqueued(pool: &PgPool, after: i64, up_to: i64) -> Result<Vec<Enqueued>, sqlx::Error> {
    sqlx::query_as!(
        Enqueued,
        r#"select kind, producer, count(*) as "count!"
           from postrider.enqueued
           where job > $1 and job <= $2
           group by 1, 2"#,
        after,
        up_to
    )
    .fetch_all(pool)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_counted_when_it_is_a_minute_old_and_once() {
        let seconds = Duration::from_secs;
        let mut sampler = Sampler {
            counted: Some(0),
            newest: [(seconds(0), 10), (seconds(15), 20), (seconds(30), 30)].into(),
        };
        assert_eq!(sampler.old_enough(seconds(59)), None);
        assert_eq!(sampler.old_enough(seconds(80)), Some(20));
        assert_eq!(sampler.old_enough(seconds(80)), None);
        assert_eq!(sampler.old_enough(seconds(90)), Some(30));
    }
}
