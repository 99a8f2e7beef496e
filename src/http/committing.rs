//! Commits what webhooks said: whatever is waiting goes in one statement, and each request is answered after its own
//! rows are committed.
//!
//! While it listens, it also proves each second, by committing, that it could take receipts: the clock of unknown outcomes
//! goes by that. The proof comes from the task that commits receipts, over the same connections, so one that hangs proves
//! nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{linking::Acquaintances, meters::Meters, payload::Notices};
use crate::{
    rules::change::Change,
    store::{
        changes::{self, Told},
        echoes, inbound, is_bad_value,
        people::{self, Link},
        receipts::{self, Event},
        unknown,
    },
};

/// Rows that one batch holds at least, when that many wait; a single request may bring a thousand.
const BATCH_ROWS: usize = 500;

/// After a batch of so many rows there is a rush, and the next gathers for a moment: fewer commits, and the provider waits
/// seconds for its answer.
const RUSH: usize = 50;
const GATHER_IN_A_RUSH: Duration = Duration::from_millis(20);

/// A statement that takes longer is on a connection that hangs; it is given up, with the connection.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// How often we prove that receipts can be committed.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// A proof that takes longer is none.
const BEAT_LIMIT: Duration = Duration::from_secs(2);

/// A request's rows, and whom to tell when they are committed. Dropping it tells that they are not.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) notices: Notices,
    pub(super) committed: oneshot::Sender<()>,
}

/// The one task that writes.
pub(super) struct Committer {
    pub(super) pool: PgPool,
    pub(super) waiting: mpsc::Receiver<Submission>,
    pub(super) acquaintances: Acquaintances,
    pub(super) folding: Arc<Notify>,
    pub(super) meters: Meters,
    /// Cancelled when the listener is to stop: from then on nothing more can come in.
    pub(super) closing: CancellationToken,
    /// Since when nothing could be written, while that is so.
    pub(super) failing_since: Option<Instant>,
}

/// What the committer does next.
enum Next {
    Commit(Submission),
    Beat,
    End,
}

impl Committer {
    /// Commits until nobody can submit any more.
    pub(super) async fn run(mut self) {
        let mut rows = 0;
        let mut every = tokio::time::interval(BEAT_EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let beat = async {
                every.tick().await;
                if self.closing.is_cancelled() {
                    std::future::pending::<()>().await;
                }
            };
            let next = tokio::select! {
                submitted = self.waiting.recv() => submitted.map_or(Next::End, Next::Commit),
                () = beat => Next::Beat,
            };
            match next {
                Next::Commit(first) => {
                    if rows >= RUSH {
                        tokio::time::sleep(GATHER_IN_A_RUSH).await;
                    }
                    let batch = self.gather(first);
                    rows = batch.iter().map(|waits| waits.notices.len()).sum();
                    self.commit(batch).await;
                }
                Next::Beat => self.beat().await,
                Next::End => return,
            }
        }
    }

    async fn beat(&self) {
        match tokio::time::timeout(BEAT_LIMIT, unknown::beat(&self.pool)).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(lasted))) => tracing::warn!(
                seconds = lasted.as_secs(),
                "no webhook process could take receipts for {} s; unknown jobs wait longer by that",
                lasted.as_secs()
            ),
            Ok(Err(error)) => {
                tracing::warn!(%error, "receipts could not be committed now; unknown jobs wait")
            }
            Err(_) => tracing::warn!("the database takes too long to commit; unknown jobs wait"),
        }
    }

    /// The first and whatever waits behind it. Who gave up waiting gets no rows: the provider will repeat them.
    fn gather(&mut self, first: Submission) -> Vec<Submission> {
        let mut rows = 0;
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(submission) = next {
            if !submission.committed.is_closed() {
                rows += submission.notices.len();
                batch.push(submission);
            }
            next = if rows < BATCH_ROWS {
                self.waiting.try_recv().ok()
            } else {
                None
            };
        }
        batch
    }

    async fn commit(&mut self, batch: Vec<Submission>) {
        let (mut all, mut waiting) = (Notices::default(), Vec::new());
        for Submission { notices, committed } in batch {
            all.append(notices);
            waiting.push(committed);
        }
        let written = tokio::time::timeout(STATEMENT_LIMIT, write(&self.pool, &mut all)).await;
        let failure = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the database took too long".to_owned()),
        };
        let failed = failure.is_some();
        self.tell(failure);
        if failed {
            return;
        }
        for committed in waiting {
            // Who gave up meanwhile will hear the same again, and repeats change nothing.
            let _ = committed.send(());
        }
        self.meters.count_receipts(&all.receipts);
        self.folding.notify_one();
        self.acquaintances.meet(all.links);
    }

    /// Says when it begins to fail, and when it works again: the provider repeats what it could not tell, and each repeat
    /// fails as the first did.
    fn tell(&mut self, failure: Option<String>) {
        match (failure, self.failing_since) {
            (Some(error), None) => {
                tracing::warn!(error, "webhooks cannot be committed and are answered 503");
                self.failing_since = Some(Instant::now());
            }
            (None, Some(since)) => {
                let seconds = since.elapsed().as_secs();
                tracing::info!(seconds, "webhooks are committed again, after {seconds} s");
                self.failing_since = None;
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

/// Writes everything. What the database refuses for what is in it becomes an event, so that it does not spoil the rest
/// and is not repeated for ever.
async fn write(pool: &PgPool, all: &mut Notices) -> Result<(), sqlx::Error> {
    let Notices {
        receipts,
        inbound,
        wishes,
        told,
        echoes,
        links,
        events,
    } = all;
    let once: Vec<&Link> = links
        .iter()
        .filter(|link| link.source.is_shown_once())
        .collect();
    people::keep(pool, &once).await?;
    for (receipt, error) in in_parts(receipts, |part| receipts::append(pool, part)).await? {
        events.push(refused(&receipt.raw, &error));
    }
    match inbound::hear(pool, inbound, wishes).await {
        Err(error) if is_bad_value(&error) => {
            for (message, error) in in_parts(inbound, |part| inbound::hear(pool, part, &[])).await?
            {
                events.push(refused(&message.raw, &error));
            }
            in_parts(wishes, |part| inbound::hear(pool, &[], part)).await?;
        }
        heard => heard?,
    }
    for (told, error) in in_parts(told, |part| heed(pool, part)).await? {
        events.push(Event {
            problem: Some(refusal(&error)),
            ..told.event.clone()
        });
    }
    for (sent, error) in in_parts(echoes, |part| echoes::keep(pool, part)).await? {
        events.push(refused(&sent.provider_id, &error));
    }
    receipts::keep_events(pool, events).await
}

/// Does what the provider's webhooks say, and logs what became different by it.
async fn heed(pool: &PgPool, told: &[Told]) -> Result<(), sqlx::Error> {
    for (account, change) in changes::heed(pool, told).await? {
        match &change {
            // Logged when it is done.
            Change::Resync => {}
            change if change.is_bad() => {
                tracing::warn!(account, "the provider says of account {account}: {change}");
            }
            change => tracing::info!(account, "the provider says of account {account}: {change}"),
        }
    }
    Ok(())
}

/// Writes all rows at once, or, where the database refuses some, all the others: in halves, and halves of halves. Returns
/// those that it refused.
async fn in_parts<'a, T, F>(
    all: &'a [T],
    write: impl Fn(&'a [T]) -> F,
) -> Result<Vec<(&'a T, sqlx::Error)>, sqlx::Error>
where
    F: Future<Output = Result<(), sqlx::Error>>,
{
    let (mut left, mut refused) = (vec![all], Vec::new());
    while let Some(part) = left.pop() {
        match (write(part).await, part) {
            (Err(error), [one]) if is_bad_value(&error) => refused.push((one, error)),
            (Err(error), many) if is_bad_value(&error) => {
                let (first, second) = many.split_at(many.len() / 2);
                left.extend([first, second]);
            }
            (result, _) => result?,
        }
    }
    Ok(refused)
}

fn refused(raw: &str, error: &sqlx::Error) -> Event {
    Event {
        app: String::new(),
        field: "messages".to_owned(),
        problem: Some(refusal(error)),
        raw: raw.to_owned(),
    }
}

fn refusal(error: &sqlx::Error) -> String {
    format!("the database refused it: {error}")
}
