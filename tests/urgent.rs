//! A code never waits behind bulk: by when it arrives in the sandbox's book, and by what arrives before it.

#![cfg(test)]

mod common;

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use common::{
    HEEDED,
    rig::{Rig, recipients},
};
use postrider::{
    rules::job::JobId,
    sandbox::{Entry, Sandbox, Setup},
};
use sqlx::PgPool;
use tokio::{io::AsyncWriteExt, net::TcpStream};

const SHIPPED: &str = r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#;

/// A code's way from its commit to its arrival.
struct Passage {
    took: Duration,
    /// How many other messages arrived from its attempt on. How soon a job is attempted is up to the machine.
    others: usize,
}

/// When the sandbox's clock began.
struct Start {
    /// Or a little later: no time that is measured by it is too short.
    at: Instant,
    /// Or a little earlier.
    date: DateTime<Utc>,
}

async fn start_of(sandbox: &Sandbox) -> Start {
    let before = postrider::clock::now();
    let mut stream = TcpStream::connect(sandbox.address()).await.unwrap();
    let request =
        b"POST /v25.0/0/messages HTTP/1.1\r\nhost: sandbox\r\ncontent-length: 2\r\n\r\n{}";
    stream.write_all(request).await.unwrap();
    sandbox.ledger().until_arrived(1).await;
    let age = sandbox.ledger().entries()[0].at();
    Start {
        at: Instant::now() - age,
        date: before - age,
    }
}

/// One order for each of these people.
async fn orders(pool: &PgPool, to: &[String], priority: &str) -> HashSet<i64> {
    let ids: Vec<i64> = sqlx::query_scalar(
        "select postrider.enqueue(recipient, 'order_shipped', $2::jsonb, language => 'en_US', priority => $3)
         from unnest($1::text[]) recipient",
    )
    .bind(to)
    .bind(SHIPPED)
    .bind(priority)
    .fetch_all(pool)
    .await
    .unwrap();
    ids.into_iter().collect()
}

/// One code, and a moment just before its commit.
async fn code(pool: &PgPool, recipient: &str) -> (JobId, Instant) {
    let mut transaction = pool.begin().await.unwrap();
    let id = sqlx::query_scalar(
        "select postrider.enqueue($1, 'login_code', '{\"code\": \"493021\"}', language => 'en_US')",
    )
    .bind(recipient)
    .fetch_one(&mut *transaction)
    .await
    .unwrap();
    let commit = Instant::now();
    transaction.commit().await.unwrap();
    (JobId(id), commit)
}

/// Waits until the code has arrived.
async fn passage(rig: &Rig, start: &Start, (id, commit): (JobId, Instant)) -> Passage {
    let arrival = common::eventually("the code to arrive", || async {
        rig.sandbox.ledger().of_job(id.0).into_iter().next()
    })
    .await;
    assert!(arrival.accepted, "{arrival:?}");
    let attempt: DateTime<Utc> =
        sqlx::query_scalar("select min(at) from postrider.attempt where job = $1")
            .bind(id.0)
            .fetch_one(rig.pool())
            .await
            .unwrap();
    let entries = rig.sandbox.ledger().entries();
    let others = |entry: &&Entry| {
        start.date + entry.at() > attempt && entry.serial < arrival.serial && entry.accepted
    };
    Passage {
        took: arrival.at().saturating_sub(commit - start.at),
        others: entries.iter().filter(others).count(),
    }
}

/// Median and 99th percentile (the longest, of fewer than a hundred), said aloud with what the machine was doing.
fn tell(what: &str, passages: &[Passage]) {
    let mut took: Vec<Duration> = passages.iter().map(|passage| passage.took).collect();
    took.sort_unstable();
    let at =
        |share: f64| took[((took.len() as f64 * share).ceil() as usize).clamp(1, took.len()) - 1];
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{what}: {} codes, p50 {:.1?}, p99 {:.1?}; load of the machine {}",
        took.len(),
        at(0.5),
        at(0.99),
        load.trim()
    );
}

/// So many codes, one every so often, on a number that has this much bulk to send at 10/s.
async fn beside_bulk(bulk: usize, codes: usize, every: Duration) -> Vec<Passage> {
    let rig = Rig::new(
        Setup::quick().numbers(1, 10),
        "[pacing]\nmessages_per_second = 10\n",
    )
    .await;
    let start = start_of(&rig.sandbox).await;
    rig.prepare().await;
    let people = recipients(bulk + codes);
    rig.opt_in(&people).await;
    let (to_code, to_bulk) = people.split_at(codes);
    orders(rig.pool(), to_bulk, "bulk").await;
    let _daemon = rig.daemon().await;
    rig.sandbox.ledger().until_accepted(20).await;
    let mut passages = Vec::new();
    for recipient in to_code {
        let next_at = Instant::now() + every;
        let code = code(rig.pool(), recipient).await;
        let passage = passage(&rig, &start, code).await;
        assert!(
            passage.others <= 10,
            "a second's worth went before: {}",
            passage.others
        );
        passages.push(passage);
        tokio::time::sleep_until(next_at.into()).await;
    }
    let left: i64 = sqlx::query_scalar("select count(*) from postrider.queue")
        .fetch_one(rig.pool())
        .await
        .unwrap();
    assert!(left > 0, "there was bulk to send all the time");
    passages
}

/// How many messages went before each code, said aloud, fewest first.
fn went_before(passages: &[Passage]) -> Vec<usize> {
    let mut others: Vec<usize> = passages.iter().map(|passage| passage.others).collect();
    others.sort_unstable();
    println!("messages that went before each code: {others:?}");
    others
}

// The sandbox has a thread of its own, so that its book does not wait for the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_takes_one_of_the_next_two_slots_of_a_number_that_is_busy_with_bulk() {
    let passages = beside_bulk(3_000, 30, Duration::from_millis(330)).await;
    tell("beside bulk at 10/s", &passages);
    let others = went_before(&passages);
    // On a machine where everything else runs too, some attempts are known to the daemon only after a slot or two.
    let three_quarters = others.len() * 3 / 4;
    assert!(
        others[..three_quarters].iter().all(|n| *n <= 2),
        "{others:?}"
    );
}

/// `cargo nextest run --profile long --release --test urgent --run-ignored only --no-capture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes two minutes, and measures"]
async fn a_code_takes_one_of_the_next_two_slots_beside_a_hundred_thousand_bulk_jobs() {
    let passages = beside_bulk(100_000, 50, Duration::from_secs(2)).await;
    tell("beside 100,000 bulk jobs at 10/s", &passages);
    let others = went_before(&passages);
    assert!(others.iter().all(|n| *n <= 2), "{others:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codes_on_an_idle_number_leave_one_by_one_as_they_come() {
    let rig = Rig::new(
        Setup::quick().numbers(1, 80),
        "[pacing]\nmessages_per_second = 80\n",
    )
    .await;
    let start = start_of(&rig.sandbox).await;
    let _daemon = rig.daemon().await;
    let people = recipients(100);
    rig.opt_in(&people).await;
    let mut passages = Vec::new();
    for recipient in &people {
        let code = code(rig.pool(), recipient).await;
        passages.push(passage(&rig, &start, code).await);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    tell("on an idle number", &passages);
    assert!(passages.iter().all(|passage| passage.others == 0));
    assert_eq!(rig.sandbox.ledger().accepted(), 100, "each once");
}

#[tokio::test]
async fn normal_and_bulk_keep_their_floors_while_urgent_jobs_could_fill_the_number() {
    let rig = Rig::new(
        Setup::quick().numbers(1, 80),
        "[pacing]\nmessages_per_second = 80\n",
    )
    .await;
    rig.prepare().await;
    let people = recipients(3_000);
    rig.opt_in(&people).await;
    let normal = orders(rig.pool(), &people[..500], "normal").await;
    let bulk = orders(rig.pool(), &people[500..1_000], "bulk").await;
    orders(rig.pool(), &people[1_000..], "urgent").await;
    // How many of 200 posts from this one on were of each.
    let shares = async |from: usize| {
        rig.sandbox.ledger().until_accepted(from as u64 + 200).await;
        let posts: Vec<i64> = rig.sandbox.ledger().entries()[from..from + 200]
            .iter()
            .map(|entry| entry.job().expect("our callback data"))
            .collect();
        [&normal, &bulk].map(|jobs| posts.iter().filter(|id| jobs.contains(id)).count())
    };
    let mut daemon = rig.daemon().await;
    // Not from the first: a floor counts from when somebody waits for it.
    let kept = shares(40).await;
    assert!(
        kept.iter().all(|share| (8..=12).contains(share)),
        "{kept:?}"
    );

    let more = rig.config.replace(
        "messages_per_second = 80\n",
        "messages_per_second = 80\nbulk_floor = 0.25\n",
    );
    rig.postrider.rewrite(&more);
    daemon.signal("HUP");
    daemon.logs("the configuration is reloaded").await;
    // What has an attempt goes before what the new floor chooses.
    tokio::time::sleep(HEEDED).await;
    let kept = shares(rig.sandbox.ledger().entries().len() + 40).await;
    assert!(
        kept.iter().all(|share| (45..=55).contains(share)),
        "{kept:?}"
    );
}
