//! A stop in good order: nothing more is taken, what is on the wire is finished and written down, the shards are free for a
//! successor at once, and those who listen stop last. Nothing that is queued is touched.

#![cfg(test)]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{
    daemon::{Daemon, Postrider},
    eventually,
    rig::{Rig, recipients},
};
use postrider::sandbox::{Delay, Fault, FaultRule, Setup};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

/// One number, ten messages a second, and answers that take a second: there is always something on the wire.
fn setup() -> Setup {
    let mut setup = Setup::quick().numbers(1, 80);
    setup.latency = Delay::fixed(1_000);
    setup
}

const PACE: &str = "[pacing]\nmessages_per_second = 10\n";

/// So many people opt in, and an order to each is enqueued.
async fn orders(pool: &PgPool, count: usize) -> Vec<i64> {
    sqlx::query_scalar(
        "with agreed as materialized (select r, postrider.opt_in(r, 'test') from unnest($1::text[]) r)
         select postrider.enqueue(r, 'order_shipped', '{\"body\": {\"name\": \"Ada\", \"order\": \"1\", \"carrier\": \"DHL\"}}',
                                  language => 'en_US')
         from agreed",
    )
    .bind(recipients(count))
    .fetch_all(pool)
    .await
    .unwrap()
}

async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

async fn posts(rig: &Rig, at_least: u64) {
    eventually(&format!("{at_least} posts"), || async {
        (rig.sandbox.ledger().len() >= at_least).then_some(())
    })
    .await;
}

fn accepted(rig: &Rig) -> BTreeMap<i64, usize> {
    let mut times = BTreeMap::new();
    let entries = rig.sandbox.ledger().entries();
    for entry in entries.into_iter().filter(|entry| entry.accepted) {
        *times
            .entry(entry.job().expect("our callback data"))
            .or_default() += 1;
    }
    times
}

#[tokio::test]
async fn a_drain_finishes_what_is_on_the_wire_and_leaves_the_rest_as_it_was() {
    let rig = Rig::new(setup(), PACE).await;
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 200).await;
    posts(&rig, 20).await;
    let (status, log) = daemon.terminate().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("stopped in good order"), "{log}");
    // Every post has its answer, and is the one that was seen.
    let posted = accepted(&rig);
    let messages: Vec<i64> = sqlx::query_scalar("select job from postrider.message order by job")
        .fetch_all(rig.pool())
        .await
        .unwrap();
    assert_eq!(messages, posted.keys().copied().collect::<Vec<_>>());
    // The others are queued and due, with nothing spent and no attempt left open; those that had one say that it was not sent.
    let left = "select count(*) from postrider.queue where state = 'queued' and spent = 0";
    assert_eq!(
        count(rig.pool(), left).await,
        (ids.len() - messages.len()) as i64
    );
    let open = "select count(*) from postrider.queue q join postrider.attempt a on a.job = q.id and a.attempt = q.tries + 1";
    assert_eq!(count(rig.pool(), open).await, 0);
    let untrue = "select count(*) from postrider.answer where outcome <> 'not_sent'";
    assert_eq!(count(rig.pool(), untrue).await, 0);
    let touched = "select count(*) from postrider.queue q
                   where (q.tries > 0 or q.reason is not null)
                     and not exists (select from postrider.attempt a where a.job = q.id)";
    assert_eq!(
        count(rig.pool(), touched).await,
        0,
        "jobs without an attempt that are not as they were"
    );
}

#[tokio::test]
async fn another_instance_takes_over_at_once_what_was_attempted_but_not_posted() {
    let rig = Rig::new(setup(), PACE).await;
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 100).await;
    posts(&rig, 20).await;
    let (_, log) = daemon.terminate().await;
    let ended = Instant::now();
    let posted = rig.sandbox.ledger().len();
    let held = "select count(*) from postrider.lease where instance is not null";
    assert_eq!(count(rig.pool(), held).await, 0, "{log}");
    let rests = "select count(*) from postrider.lease where free_at > clock_timestamp() + interval '1200 ms'";
    assert_eq!(count(rig.pool(), rests).await, 0);
    let successor = successor(&rig);
    posts(&rig, posted + 1).await;
    eprintln!("the successor posted after {:?}", ended.elapsed());
    rig.queue_is_empty().await;
    assert_eq!(accepted(&rig), ids.iter().map(|id| (*id, 1)).collect());
    let spent = "select count(*) from postrider.message where spent > 0";
    assert_eq!(count(rig.pool(), spent).await, 0);
    successor.terminate().await;
}

/// Another host's instance.
fn successor(rig: &Rig) -> Daemon {
    let state = tempfile::tempdir().unwrap().keep();
    let config: String = rig
        .config
        .lines()
        .map(|line| match line.starts_with("state_dir") {
            true => format!("state_dir = {state:?}\n"),
            false => format!("{line}\n"),
        })
        .collect();
    Postrider::new(&config).start(&[])
}

#[tokio::test]
async fn receipts_that_come_during_the_drain_are_taken() {
    let mut setup = setup();
    // The answer to the last post comes long after the receipts of the first.
    setup.latency = Delay::fixed(3_000);
    setup.webhooks.sent_after = Delay::fixed(500);
    let rig = Rig::new(setup, PACE).await;
    let mut daemon = rig.daemon().await;
    orders(rig.pool(), 100).await;
    posts(&rig, 10).await;
    daemon.signal("TERM");
    daemon.logs("stopping; a second signal hurries").await;
    let before = count(rig.pool(), "select count(*) from postrider.receipt").await;
    eventually("receipts to be taken", || async {
        let now = count(rig.pool(), "select count(*) from postrider.receipt").await;
        (now > before).then_some(())
    })
    .await;
    let (status, log) = daemon.wait().await;
    assert!(
        status.success() && log.contains("stopped in good order"),
        "{log}"
    );
}

#[tokio::test]
async fn while_the_database_is_away_a_drain_ends_at_its_limit() {
    // The limit has to be longer than a request may take.
    let limits =
        "request_timeout_ms = 2500\nconnect_timeout_ms = 1000\n[dispatch]\ndrain_limit_s = 3\n";
    let mut rig = Rig::new(setup(), &format!("{limits}{PACE}")).await;
    let wires = rig.wires().await;
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 100).await;
    posts(&rig, 20).await;
    // With answers that take a second, ten requests are on the wire now.
    wires.database.unplug();
    let asked = Instant::now();
    let (status, log) = daemon.terminate().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("the next start takes it up"), "{log}");
    assert!(
        asked.elapsed() < Duration::from_secs(20),
        "{:?}",
        asked.elapsed()
    );
    // Its receipts, which the provider keeps, tell the next start what became of what was on the wire.
    wires.database.plug_in();
    let daemon = rig.daemon().await;
    eventually("everything but lost permissions to be settled", || async {
        let left = "select count(*) from postrider.queue where state <> 'unknown'";
        let quiet = rig.sandbox.control().is_quiet();
        (quiet && count(rig.pool(), left).await == 0).then_some(())
    })
    .await;
    assert!(accepted(&rig).values().all(|times| *times == 1));
    let settled = count(rig.pool(), "select count(*) from postrider.message").await;
    let left = count(rig.pool(), "select count(*) from postrider.queue").await;
    assert_eq!(settled + left, ids.len() as i64);
    daemon.terminate().await;
}

#[tokio::test]
async fn a_second_signal_hurries() {
    let rig = Rig::new(setup(), PACE).await;
    rig.sandbox
        .control()
        .fault(FaultRule::always(Fault::SilenceAfterAccepting));
    let mut daemon = rig.daemon().await;
    orders(rig.pool(), 100).await;
    posts(&rig, 10).await;
    let asked = Instant::now();
    daemon.signal("TERM");
    daemon.logs("stopping; a second signal hurries").await;
    sleep(Duration::from_millis(500)).await;
    let (status, log) = daemon.terminate().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("a second signal: hurrying"), "{log}");
    // An answer would have been waited for for ten seconds.
    assert!(
        asked.elapsed() < Duration::from_secs(9),
        "{:?}",
        asked.elapsed()
    );
}

#[tokio::test]
async fn those_who_listen_stop_last() {
    let mut setup = setup();
    setup.latency = Delay::fixed(2_000);
    let rig = Rig::new(setup, PACE).await;
    let mut daemon = rig.daemon().await;
    orders(rig.pool(), 100).await;
    posts(&rig, 5).await;
    daemon.signal("TERM");
    daemon.logs("stopping; a second signal hurries").await;
    let listens = |port| async move {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    };
    assert!(listens(rig.webhook_port).await && listens(rig.ops_port).await);
    let written = count(rig.pool(), "select count(*) from postrider.message").await;
    let (_, log) = daemon.wait().await;
    let after = count(rig.pool(), "select count(*) from postrider.message").await;
    assert!(after > written, "{log}");
    assert!(!listens(rig.webhook_port).await);
}
