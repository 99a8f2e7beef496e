//! A database, a sandbox and a queue, whatever is done to the daemon beside them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use postrider::sandbox::{Delay, Setup};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

use crate::common::{
    self, TestDatabase,
    daemon::Daemon,
    database,
    rig::{Rig, recipients},
};

/// As short as the configuration allows.
pub(crate) const TTL: Duration = Duration::from_secs(2);
pub(crate) const RESOLVE_AFTER: Duration = Duration::from_secs(3);
pub(crate) const NUMBERS: u32 = 10;
/// A job of which nobody can say whether it went waits for five times the longest `resolve_after` here, when no receipt tells that
/// receipts come; and as long again for a busy machine.
const WITHOUT_EVIDENCE: Duration = Duration::from_secs(200);
/// From a post to its answer.
pub(crate) const LATENCY: Duration = Duration::from_millis(80);

fn of_environment(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(given) => given
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

/// Messages a second of each number.
pub(crate) fn rate() -> u32 {
    of_environment("POSTRIDER_CHAOS_RATE", 100) as u32
}

pub(crate) fn rounds(default: usize) -> usize {
    of_environment("POSTRIDER_CHAOS_ROUNDS", default)
}

pub(crate) fn jobs_a_round() -> usize {
    of_environment("POSTRIDER_CHAOS_JOBS", 600)
}

pub(crate) fn setup() -> Setup {
    let mut setup = Setup::quick().numbers(NUMBERS, 1_000);
    for portfolio in &mut setup.portfolios {
        portfolio.messaging_limit = None;
    }
    setup.latency = Delay::fixed(LATENCY.as_millis() as u32);
    setup.webhooks.retry_ms = 500;
    setup.webhooks.retry_max_ms = 500;
    setup.ledger_max = 10_000_000;
    setup
}

/// For jobs that a kill may leave open and a busy machine then give no answer within 0.8 s, and once more. Where receipts come,
/// they tell which of them arrived: however often these may go again, nothing is to be doubled.
fn often() -> String {
    config("resend", 10)
}

pub(crate) fn config(on_unknown: &str, max_unknown_resends: u32) -> String {
    let patience = (Duration::from_millis(800), RESOLVE_AFTER);
    configured(patience, on_unknown, max_unknown_resends)
}

/// For what is not about unknown outcomes: on a busy machine 0.8 s pass before a request is read, and what is twice without an
/// answer is given up.
pub(crate) fn patient_config() -> String {
    let patience = (Duration::from_secs(4), Duration::from_secs(20));
    configured(patience, "resend", 1)
}

fn configured(
    (request_timeout, resolve_after): (Duration, Duration),
    on_unknown: &str,
    max_unknown_resends: u32,
) -> String {
    format!(
        "request_timeout_ms = {}\n[pacing]\nmessages_per_second = {}\n\
         [dispatch]\nlease_ttl_ms = {}\nbackoff_first_ms = 200\nmax_unknown_resends = {max_unknown_resends}\n\
         [kinds.order]\nresolve_after_s = {}\non_unknown = {on_unknown:?}\n",
        request_timeout.as_millis(),
        rate(),
        TTL.as_millis(),
        resolve_after.as_secs()
    )
}

/// A database, a sandbox, and whatever was enqueued so far.
pub(crate) struct Storm {
    pub(crate) rig: Rig,
    /// Our own connections, which are made anew when the database was killed.
    pub(crate) pool: PgPool,
    pub(crate) chance: StdRng,
    pub(crate) jobs: Vec<i64>,
}

impl Storm {
    pub(crate) async fn new(setup: Setup) -> Self {
        Self::on(database().await, setup).await
    }

    pub(crate) async fn on(database: TestDatabase, setup: Setup) -> Self {
        Self::configured(database, setup, &often()).await
    }

    pub(crate) async fn configured(database: TestDatabase, setup: Setup, config: &str) -> Self {
        let chance = StdRng::seed_from_u64(common::seed());
        let rig = Rig::on(database, setup, config).await;
        rig.prepare().await;
        rig.opt_in(&recipients(jobs_a_round())).await;
        let pool = PgPool::connect(rig.database.url()).await.unwrap();
        Self {
            rig,
            pool,
            chance,
            jobs: Vec::new(),
        }
    }

    /// One order to each person.
    pub(crate) async fn enqueue(&mut self) {
        let ids: Vec<i64> = sqlx::query_scalar(
            "select postrider.enqueue(recipient, 'order_shipped',
                    '{\"body\": {\"name\": \"Ada\", \"order\": \"1042\", \"carrier\": \"DHL\"}}', language => 'en_US')
             from unnest($1::text[]) recipient",
        )
        .bind(recipients(jobs_a_round()))
        .fetch_all(&self.pool)
        .await
        .unwrap();
        self.jobs.extend(ids);
    }

    /// Waits for a random moment of the sending of a round.
    pub(crate) async fn a_while(&mut self) {
        let round = 500 + 1_000 * jobs_a_round() as u64 / u64::from(NUMBERS * rate());
        sleep(Duration::from_millis(self.chance.random_range(50..round))).await;
    }

    /// Waits until nothing happens any more: the queue is empty, and whatever the provider had to say is folded.
    pub(crate) async fn is_over(&self) {
        let (mut left, mut accepted) = (i64::MAX, 0);
        loop {
            let (before, accepted_before) = (left, accepted);
            let started = Instant::now();
            let patience = WITHOUT_EVIDENCE + self.outages().await;
            // As long as it goes on, it may take its time. Each message is followed by receipts, so there may be more to do.
            while left >= before && accepted == accepted_before && started.elapsed() < patience {
                left = self.left().await;
                accepted = self.accepted_so_far();
                if left == 0 {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
            if left >= before && accepted == accepted_before {
                let queued = self.queued().await;
                panic!("nothing goes on any more: {left} are left, in the queue {queued:?}");
            }
        }
    }

    /// For how long nobody could take receipts: unknown jobs wait as much longer.
    pub(crate) async fn outages(&self) -> Duration {
        let seconds: f64 = sqlx::query_scalar(
            "select coalesce(extract(epoch from sum(ended - began)), 0)::float8 from postrider.webhook_outage",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        Duration::from_secs_f64(seconds)
    }

    pub(crate) async fn queued(&self) -> Vec<(String, Option<String>, i64)> {
        sqlx::query_as("select state, reason, count(*) from postrider.queue group by state, reason")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    pub(crate) async fn left(&self) -> i64 {
        let summary = self.rig.sandbox.control().summary();
        let waiting = summary.updates_waiting + summary.updates_unanswered;
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from postrider.queue) + (select count(*) from postrider.receipt_inbox)",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        left + i64::try_from(waiting).unwrap()
    }

    /// Waits for the end, at which every job was sent once and cost nothing.
    pub(crate) async fn ends_well(&self) {
        self.is_over().await;
        self.assert_once().await;
        self.assert_nothing_spent().await;
        self.assert_proven().await;
    }

    /// How often each job was accepted, by the provider's own book.
    pub(crate) fn accepted(&self) -> BTreeMap<i64, usize> {
        let mut times: BTreeMap<i64, usize> = self.jobs.iter().map(|id| (*id, 0)).collect();
        for entry in self.rig.sandbox.ledger().entries() {
            // A request whose body was not read has no callback data, and was not accepted.
            if let Some(job) = entry.job() {
                *times.entry(job).or_default() += usize::from(entry.accepted);
            }
        }
        times
    }

    pub(crate) async fn assert_once(&self) {
        let mut times = self.accepted();
        assert_eq!(times.len(), self.jobs.len());
        times.retain(|_, times| *times != 1);
        if !times.is_empty() {
            let stories = self.stories(times.keys().copied().collect()).await;
            panic!("not accepted exactly once: {times:?}\n{stories}");
        }
    }

    /// What the database and the provider know of these jobs, for whoever reads why a test failed.
    async fn stories(&self, jobs: BTreeSet<i64>) -> String {
        let told: Vec<String> = sqlx::query_scalar(include_str!("stories.sql"))
            .bind(jobs.iter().copied().collect::<Vec<_>>())
            .fetch_all(&self.pool)
            .await
            .unwrap();
        let arrived = self.rig.sandbox.ledger().entries().into_iter();
        let arrived = arrived.filter(|entry| entry.job().is_some_and(|job| jobs.contains(&job)));
        let arrived: Vec<String> = arrived.map(|entry| format!("{entry:?}")).collect();
        format!("{}\n{}", told.join("\n"), arrived.join("\n"))
    }

    /// `postrider verify` finds every job in exactly one place.
    pub(crate) async fn assert_proven(&self) {
        let verified = self.rig.postrider.run(&["verify", "--all", "--json"]);
        let said = String::from_utf8_lossy(&verified.stdout);
        assert!(verified.status.success(), "{said}");
        let said: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        assert_eq!(said["jobs"], self.jobs.len(), "{said}");
    }

    /// Nobody's answer but the provider's spent an attempt.
    pub(crate) async fn assert_nothing_spent(&self) {
        let spent: i64 =
            sqlx::query_scalar("select coalesce(sum(spent), 0) from postrider.message")
                .fetch_one(&self.pool)
                .await
                .unwrap();
        assert_eq!(
            spent, 0,
            "attempts were spent though the provider refused none"
        );
    }

    /// Jobs that were attempted and of which the provider has not heard, as long as nobody else sends them.
    pub(crate) async fn never_left(&self) -> Vec<i64> {
        let open: Vec<i64> = sqlx::query_scalar(
            "select job from postrider.attempt
             where not exists (select from postrider.message where message.job = attempt.job)
               and not exists (select from postrider.answer
                               where (answer.job, answer.attempt) = (attempt.job, attempt.attempt))",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let accepted = self.accepted();
        open.into_iter().filter(|job| accepted[job] == 0).collect()
    }

    pub(crate) fn accepted_so_far(&self) -> u64 {
        self.rig.sandbox.ledger().accepted()
    }
}

/// A process that hears receipts, with these roles, beside those that send.
pub(crate) async fn listening(storm: &Storm, roles: &str) -> Daemon {
    let mut listener = storm.rig.postrider.start(&["--only", roles]);
    listener.logs("ready").await;
    listener
}
