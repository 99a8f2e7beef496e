//! The hands of a worker: it performs actions and brings their ends back as events.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    applying::written,
    event::{Action, Event, Learned, Now},
    holdings::Quiet,
    limits::ATTEMPT_MARGIN,
    meters::Meters,
    outbox::Batch,
    worker::{Load, Report, Worker},
};
use crate::{
    channel::whatsapp::{Client, Sender, request},
    clock,
    rules::{
        breaker::Due,
        job::{JobId, Lane},
    },
    store::{
        Store, attempt, facts, ledger, look,
        settle::{self, Accepted},
    },
};

/// A statement that takes longer is given up: its connection is closed, and what it may have done is found out later.
const STATEMENT_MAX: Duration = Duration::from_secs(5);
/// What was posted before is read once, and all that was sent in a day or in minutes takes its time.
/// (Two million attempts took 10 s on two cores that others used too.)
const COUNT_MAX: Duration = Duration::from_secs(120);
/// Counts that run at once, at most: looks, attempts and outcomes of what is counted already need connections too.
pub const COUNTS_MAX: usize = 2;
/// Outcomes are worth waiting for; but what hangs is written again on another connection.
const SETTLE_MAX: Duration = Duration::from_secs(10);
/// Events taken in one turn.
const EVENTS_PER_TURN: usize = 512;
/// How often the worker's load is published.
const PUBLISH_EVERY: Duration = Duration::from_millis(500);
/// How often what holds it back is: that passes over everybody who counts against a limit.
const REPORT_EVERY: Duration = Duration::from_secs(2);

/// What a worker has to work with.
pub struct Shell {
    /// Its own connections.
    pub store: Store,
    /// Its own connections to the provider.
    pub client: Client,
    /// Where its events come in; the ends of its actions too.
    pub events: mpsc::UnboundedSender<Event>,
    /// Where what answers mean beyond their job is written down.
    pub learned: mpsc::UnboundedSender<Learned>,
    /// Where it tells which shards can be given back.
    pub quiet: mpsc::UnboundedSender<Quiet>,
    /// What it counts.
    pub meters: Meters,
    /// What it shows of itself.
    pub pulse: Arc<Pulse>,
    /// Turns of counting what was posted, [`COUNTS_MAX`] of them.
    pub counting: Semaphore,
    /// The start of its monotonic time.
    pub start: Instant,
}

/// What a worker shows of itself to other threads.
#[derive(Debug, Default)]
pub struct Pulse {
    turned_at: AtomicI64,
    oldest_open: AtomicI64,
    in_flight: AtomicI64,
    buffered: AtomicI64,
    unsettled: AtomicI64,
    /// Locked for as long as it takes to move it in or copy it out.
    report: Mutex<Report>,
}

impl Pulse {
    /// When the worker last turned, in milliseconds of the boot-time clock; 0 before the first turn.
    #[must_use]
    pub fn turned_at(&self) -> Duration {
        Duration::from_millis(self.turned_at.load(Ordering::Relaxed).unsigned_abs())
    }

    /// What the worker was doing when it last said so.
    #[must_use]
    pub fn load(&self) -> Load {
        let count = |value: &AtomicI64| usize::try_from(value.load(Ordering::Relaxed)).unwrap_or(0);
        let oldest = self.oldest_open.load(Ordering::Relaxed);
        Load {
            in_flight: count(&self.in_flight),
            buffered: count(&self.buffered),
            unsettled: count(&self.unsettled),
            oldest_open: (oldest > 0)
                .then(|| chrono::DateTime::from_timestamp_micros(oldest))
                .flatten(),
        }
    }

    /// What held the worker back when it last said so.
    #[must_use]
    pub fn report(&self) -> Report {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.clone()
    }

    fn publish_report(&self, report: Report) {
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report;
    }

    fn publish(&self, load: &Load) {
        let store = |to: &AtomicI64, value: usize| {
            to.store(i64::try_from(value).unwrap_or(i64::MAX), Ordering::Relaxed)
        };
        store(&self.in_flight, load.in_flight);
        store(&self.buffered, load.buffered);
        store(&self.unsettled, load.unsettled);
        self.oldest_open.store(
            load.oldest_open.map_or(0, |at| at.timestamp_micros()),
            Ordering::Relaxed,
        );
    }
}

/// The boot-time clock: it goes on while the machine sleeps, so a lease never outlives its deadline unseen.
#[must_use]
pub fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

impl Shell {
    fn now(&self) -> Now {
        Now {
            mono: self.start.elapsed(),
            boot: boot_time(),
            wall: clock::now(),
        }
    }

    /// Runs the worker until it is drained, or until `abort`.
    pub async fn run(
        self,
        mut worker: Worker,
        mut events: mpsc::UnboundedReceiver<Event>,
        abort: CancellationToken,
    ) {
        let shell = Arc::new(self);
        let mut happened = Vec::with_capacity(EVENTS_PER_TURN);
        let mut actions = Vec::new();
        let (mut publish_at, mut report_at) = (Duration::ZERO, Duration::ZERO);
        loop {
            let wake_at = shell.start + worker.wake_at(shell.start.elapsed());
            tokio::select! {
                biased;
                () = abort.cancelled() => return,
                _ = events.recv_many(&mut happened, EVENTS_PER_TURN) => {}
                () = sleep_until(wake_at) => {}
            }
            let now = shell.now();
            for event in happened.drain(..) {
                worker.note(event, now, &mut actions);
            }
            worker.turn(now, &mut actions);
            for action in actions.drain(..) {
                if !shell.perform(action) {
                    shell.pulse.publish(&worker.load());
                    return;
                }
            }
            shell.pulse.turned_at.store(
                i64::try_from(now.boot.as_millis()).unwrap_or(i64::MAX),
                Ordering::Relaxed,
            );
            if now.mono >= publish_at {
                publish_at = now.mono + PUBLISH_EVERY;
                shell.pulse.publish(&worker.load());
            }
            if now.mono >= report_at {
                report_at = now.mono + REPORT_EVERY;
                shell.pulse.publish_report(worker.report(now));
            }
        }
    }

    /// Starts what is to be done; false when nothing is left.
    fn perform(self: &Arc<Self>, action: Action) -> bool {
        let shell = Arc::clone(self);
        match action {
            Action::FindLanes => {
                _ = tokio::spawn(async move {
                    let found = shell
                        .ask(
                            "lanes",
                            STATEMENT_MAX,
                            look::lanes_with_rows(shell.store.pool()),
                        )
                        .await;
                    shell.tell(Event::LanesFound(found));
                })
            }
            Action::Look {
                why,
                mut cursors,
                holds,
                known,
            } => {
                _ = tokio::spawn(async move {
                    let seen = shell
                        .ask(
                            "look",
                            STATEMENT_MAX,
                            look::look(shell.store.pool(), &mut cursors, &holds, &known),
                        )
                        .await;
                    shell.tell(Event::Looked { why, cursors, seen });
                })
            }
            Action::Count {
                pools,
                whole_portfolios,
            } => {
                _ = tokio::spawn(async move {
                    // Never closed.
                    let _turn = shell.counting.acquire().await;
                    let lanes = pools.iter().map(|(_, standing)| standing);
                    let lanes: Vec<_> = lanes.map(|s| s.keys().copied().collect()).collect();
                    let posts = ledger::posts(shell.store.pool(), &lanes, whole_portfolios);
                    let mut posts = shell.ask("ledger", COUNT_MAX, posts).await;
                    for (n, (pool, standing)) in pools.into_iter().enumerate() {
                        let posts = posts.as_mut().map(|posts| std::mem::take(&mut posts[n]));
                        shell.tell(Event::Counted {
                            pool,
                            standing,
                            posts,
                        });
                    }
                })
            }
            Action::CountPairs {
                standing,
                allowance,
                asked_at,
            } => {
                _ = tokio::spawn(async move {
                    let lanes: Vec<_> = standing.keys().copied().collect();
                    let pool = shell.store.pool();
                    let posts = ledger::pairs(pool, &lanes, allowance, ATTEMPT_MARGIN, asked_at);
                    let posts = shell.ask("pairs", COUNT_MAX, posts).await;
                    shell.tell(Event::PairsCounted { standing, posts });
                })
            }
            Action::Attempt {
                urgent,
                held,
                wanted,
            } => {
                _ = tokio::spawn(async move {
                    let asked = Instant::now();
                    let attempt = attempt::attempt(shell.store.pool(), &held, &wanted);
                    let permitted = shell.ask("attempt", STATEMENT_MAX, attempt).await;
                    shell.tell(Event::Attempted {
                        urgent,
                        wanted,
                        permitted,
                        took: asked.elapsed(),
                    });
                })
            }
            Action::Post {
                id,
                lane,
                sender,
                body,
                callback,
                not_after,
                expires_at,
            } => {
                let body = Bytes::from(request::finish(&body, &callback));
                let leave = shell.clone().leave(lane, id, not_after, expires_at);
                _ = tokio::spawn(async move { shell.post(id, &sender, body, leave).await });
            }
            Action::Settle(batch) => {
                _ = tokio::spawn(async move {
                    let written = shell
                        .ask("settle", SETTLE_MAX, shell.settle(&batch))
                        .await
                        .is_some();
                    shell.tell(Event::Settled { batch, written });
                })
            }
            Action::Claim(Due { target, until }) => {
                _ = tokio::spawn(async move {
                    // Numbers are not claimed: each is one worker's.
                    let (scope, named) = written(&target, "");
                    let pool = shell.store.pool();
                    let claim = facts::claim_probe(pool, scope, &named, until);
                    if let Some(claim) = shell.ask("claim", STATEMENT_MAX, claim).await {
                        shell.tell(Event::Claimed { target, claim });
                    }
                })
            }
            // The receiver is gone only when the process ends.
            Action::Learn(learned) => _ = self.learned.send(learned),
            Action::Quiet(quiet) => _ = self.quiet.send(quiet),
            Action::Finish => return false,
        }
        true
    }

    fn tell(&self, event: Event) {
        // The receiver is gone only when the worker has ended, and then nobody is left to be told.
        _ = self.events.send(event);
    }

    /// The answer of the database; `None` when it did not come, which is logged here.
    async fn ask<T>(
        &self,
        statement: &'static str,
        at_most: Duration,
        asking: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Option<T> {
        let asked = Instant::now();
        let answer = timeout(at_most, asking).await;
        self.meters
            .database
            .with_label_values(&[statement])
            .observe(asked.elapsed().as_secs_f64());
        match answer {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => {
                tracing::warn!(statement, %error, "the statement {statement:?} failed")
            }
            Err(_) => tracing::warn!(
                statement,
                "the statement {statement:?} got no answer within {at_most:?}"
            ),
        }
        // A database that is away answers at once; asking again at once would only heat the machine.
        tokio::time::sleep(Duration::from_millis(200)).await;
        None
    }

    /// What is asked of a request when it is about to be written: whether it is still in time. If so, its time is told.
    fn leave(
        self: Arc<Self>,
        lane: Lane,
        id: JobId,
        not_after: Duration,
        expires_at: DateTime<Utc>,
    ) -> impl FnOnce() -> bool + Send + Sync + 'static {
        move || {
            let now = self.now();
            let is_in_time = now.boot < not_after && now.wall < expires_at;
            if is_in_time {
                let at_micros = now.boot.as_micros() as u64;
                tracing::trace!(target: "postrider::posted", lane = lane.0, job = id.0, at_micros);
                self.tell(Event::Left { id, at: now.mono });
            }
            is_in_time
        }
    }

    async fn post(
        &self,
        id: JobId,
        sender: &Sender,
        body: Bytes,
        leave: impl FnOnce() -> bool + Send + Sync + 'static,
    ) {
        let reply = self.client.post(sender, body, leave).await;
        self.meters.answered(&reply.answer, reply.took);
        let regain_access_in = reply.usage.and_then(|usage| usage.regain_access_in);
        self.tell(Event::Posted {
            id,
            answer: reply.answer,
            regain_access_in,
            chance: rand::random(),
        });
    }

    /// What left the queue is counted by the database's word: a batch may be written twice, and a receipt may be faster.
    async fn settle(&self, batch: &Batch) -> Result<(), sqlx::Error> {
        let pool = self.store.pool();
        if !batch.accepted.is_empty() {
            let moved: HashSet<JobId> = settle::accepted(pool, &batch.accepted)
                .await?
                .into_iter()
                .collect();
            let is_moved = |accepted: &&Accepted| moved.contains(&accepted.id);
            batch
                .accepted
                .iter()
                .filter(is_moved)
                .for_each(|accepted| self.meters.accepted(accepted));
        }
        if !batch.waiting.is_empty() {
            settle::waiting(pool, &batch.waiting).await?;
        }
        if !batch.dead.is_empty() {
            let ended = settle::dead(pool, &batch.dead).await?;
            ended.iter().for_each(|ended| self.meters.ended(ended));
        }
        if !batch.deferred.is_empty() {
            settle::deferred(pool, &batch.deferred).await?;
        }
        Ok(())
    }
}
