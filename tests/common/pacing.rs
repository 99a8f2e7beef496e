//! Measures pacing with the real binary: by the times at which requests were written, and by the sandbox's book.

use std::{collections::BTreeMap, time::Duration};

use postrider::sandbox::{Delay, Setup};
use sqlx::PgPool;

use super::rig::Rig;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) numbers: u32,
    /// Messages a second of each number.
    pub(crate) rate: f64,
    /// How long every number has jobs for.
    pub(crate) seconds: f64,
    /// Of an answer.
    pub(crate) latency_ms: u32,
}

/// What came of it.
pub(crate) struct Paced {
    pub(crate) load: Load,
    /// By lane, when requests were written: microseconds of the boot-time clock, ascending.
    pub(crate) posts: BTreeMap<i64, Vec<u64>>,
    /// By number, when they arrived: nanoseconds of the sandbox's monotonic clock, ascending.
    pub(crate) arrivals: BTreeMap<String, Vec<u64>>,
    /// How many the sandbox refused.
    pub(crate) refused: usize,
}

impl Load {
    fn jobs(&self) -> i64 {
        (f64::from(self.numbers) * self.rate * self.seconds).ceil() as i64
    }

    /// A sandbox that takes this load's rate and one more a second, and sends no receipts.
    fn setup(&self) -> Setup {
        let mut setup = Setup::quick().numbers(self.numbers, self.rate.ceil() as u32);
        setup.latency = Delay::fixed(self.latency_ms);
        setup.webhooks.sent_after = Delay::fixed(3_600_000);
        setup.ledger_max = 1_000_000;
        for portfolio in &mut setup.portfolios {
            portfolio.messaging_limit = None;
        }
        setup
    }

    /// Runs it, with `disturb` at its side, and measures.
    pub(crate) async fn run<F: Future<Output = ()>>(
        self,
        disturb: impl FnOnce(PgPool) -> F,
    ) -> Paced {
        let config = format!("[pacing]\nmessages_per_second = {}\n", self.rate);
        let rig = Rig::new(self.setup(), &config).await;
        rig.prepare().await;
        queue(rig.pool(), self.jobs()).await;
        let mut daemon = rig
            .postrider
            .start_logging(&[], "info,postrider::posted=trace");
        daemon.logs("ready").await;
        let pool = rig.pool().clone();
        tokio::select! {
            () = disturb(pool) => {}
            () = empty(rig.pool()) => {}
        }
        empty(rig.pool()).await;
        let (_, log) = daemon.terminate().await;
        let mut arrivals = BTreeMap::<String, Vec<u64>>::new();
        let mut refused = 0;
        for entry in rig.sandbox.ledger().entries() {
            refused += usize::from(!entry.accepted);
            let at = entry.at().as_nanos() as u64;
            arrivals
                .entry(entry.number.to_string())
                .or_default()
                .push(at);
        }
        Paced {
            load: self,
            posts: posts(&log),
            arrivals,
            refused,
        }
    }
}

impl Paced {
    /// The most posts of a number within any second, wherever it begins.
    pub(crate) fn most_in_a_second(&self) -> usize {
        let most = |times: &Vec<u64>| most_within(times, 1_000_000);
        self.posts.values().map(most).max().unwrap_or(0)
    }

    /// The share of arrivals that begin a second with more than the rate in it.
    pub(crate) fn share_over(&self) -> f64 {
        let capacity = self.load.rate.ceil() as usize;
        let (mut over, mut all) = (0, 0);
        for times in self.arrivals.values() {
            all += times.len();
            over += (0..times.len())
                .filter(|first| {
                    times
                        .get(first + capacity)
                        .is_some_and(|at| at - times[*first] < 1_000_000_000)
                })
                .count();
        }
        over as f64 / all.max(1) as f64
    }

    /// How much of the limit was used, from each number's first post to its last.
    pub(crate) fn utilisation(&self) -> f64 {
        let (mut used, mut could) = (0.0, 0.0);
        for times in self.posts.values().filter(|times| times.len() > 1) {
            used += times.len() as f64 - 1.0;
            could += (times[times.len() - 1] - times[0]) as f64 / 1e6 * self.load.rate;
        }
        used / could
    }
}

/// The most of these ascending times that lie less than `window` apart.
pub(crate) fn most_within(times: &[u64], window: u64) -> usize {
    let mut first = 0;
    let mut most = 0;
    for (last, at) in times.iter().enumerate() {
        while at - times[first] >= window {
            first += 1;
        }
        most = most.max(last - first + 1);
    }
    most
}

/// Jobs of opted-in people, as many for each number.
pub(crate) async fn queue(pool: &PgPool, jobs: i64) {
    sqlx::query(
        "with lanes as (select array_agg(lane order by lane) as all from postrider.number),
         job as (
           insert into postrider.queue (lane, priority, due_at, id, kind, recipient, recipient_key, template, language,
                                        content, sender, producer, enqueued_at, expires_at)
           select lanes.all[n % cardinality(lanes.all) + 1], 1, clock_timestamp(), nextval('postrider.job_id'), 'order',
                  '+90532' || lpad(n::text, 7, '0'), '+90532' || lpad(n::text, 7, '0'), 'order_shipped', 'en_US',
                  '{\"body\": {\"name\": \"Ada\", \"order\": \"1042\", \"carrier\": \"DHL\"}}', 'default', 'test', now(),
                  now() + interval '1 day'
           from generate_series(1, $1) n, lanes
         )
         insert into postrider.consent (person, opted_in_at, opt_in_source)
         select '+90532' || lpad(n::text, 7, '0'), now(), 'test' from generate_series(1, $1) n",
    )
    .bind(jobs)
    .execute(pool)
    .await
    .unwrap();
}

pub(crate) async fn empty(pool: &PgPool) {
    loop {
        let left: bool = sqlx::query_scalar("select exists (select from postrider.queue)")
            .fetch_one(pool)
            .await
            .unwrap();
        if !left {
            return;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The times in the log of a daemon, or of several on one machine.
pub(crate) fn posts(log: &str) -> BTreeMap<i64, Vec<u64>> {
    let field = |line: &str, name: &str| -> Option<u64> {
        let value = line.split(name).nth(1)?;
        let digits = value.chars().take_while(char::is_ascii_digit);
        digits.collect::<String>().parse().ok()
    };
    let mut posts = BTreeMap::<i64, Vec<u64>>::new();
    for line in log.lines().filter(|line| line.contains("at_micros=")) {
        let lane = field(line, "lane=").expect("its lane");
        let at = field(line, "at_micros=").expect("its time");
        posts.entry(lane as i64).or_default().push(at);
    }
    posts.values_mut().for_each(|times| times.sort_unstable());
    posts
}

/// Holds up every commit of attempts for as long as this, every so often, for ever.
pub(crate) async fn stall_commits(pool: PgPool, every: Duration, stalls: &[Duration]) {
    for stall in stalls.iter().cycle() {
        tokio::time::sleep(every).await;
        let mut transaction = pool.begin().await.unwrap();
        sqlx::query("lock table postrider.attempt in share row exclusive mode")
            .execute(&mut *transaction)
            .await
            .unwrap();
        tokio::time::sleep(*stall).await;
        transaction.rollback().await.unwrap();
    }
}
