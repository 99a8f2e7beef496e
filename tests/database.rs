//! What becomes of messages when the database is cut off, hangs, is killed, fails over, takes no writes, has no room, or is
//! older than it was: nothing is lost, nothing is sent twice, and nobody has to lend a hand, except after a restore.
//!
//! The judge is the sandbox's book of what was accepted.

#![cfg(test)]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{
    TestDatabase, comes_to,
    daemon::Daemon,
    database_on, eventually, get,
    proxy::{Target, Weather},
    rig::{Rig, recipients},
    server::{Mode, Server},
};
use postrider::sandbox::{Delay, Setup};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::time::{Instant, sleep};

/// How long a lease holds; the daemon's own deadline is earlier.
const TTL: Duration = Duration::from_secs(5);

/// Four numbers with a hundred messages a second each.
const PACE: &str = "[pacing]\nmessages_per_second = 100\n";

fn setup() -> Setup {
    let mut setup = Setup::quick().numbers(4, 1_000);
    setup.latency = Delay::fixed(20);
    setup
}

/// So many people opt in, and an order to each is enqueued.
async fn orders(pool: &PgPool, count: usize, tail: &str) -> Vec<i64> {
    let people = recipients(count);
    let sql = format!(
        "with agreed as materialized (select r, postrider.opt_in(r, 'test') from unnest($1::text[]) r)
         select postrider.enqueue(r, 'order_shipped', '{{\"body\": {{\"name\": \"Ada\", \"order\": \"1\", \"carrier\": \"DHL\"}}}}',
                                  language => 'en_US'{tail})
         from agreed"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(people)
        .fetch_all(pool)
        .await
        .unwrap()
}

/// How often each job was accepted.
fn accepted(rig: &Rig) -> BTreeMap<i64, usize> {
    let mut times = BTreeMap::new();
    let entries = rig.sandbox.ledger().entries();
    for entry in entries.into_iter().filter(|entry| entry.accepted) {
        let job = entry.job().expect("our callback data");
        *times.entry(job).or_default() += 1;
    }
    times
}

/// Waits until `count` messages were accepted.
async fn accepts(rig: &Rig, count: usize) {
    let count = count as u64;
    comes_to(&format!("{count} to be accepted"), count, || async {
        rig.sandbox.ledger().accepted().min(count)
    })
    .await;
}

/// Waits until nothing but jobs of unknown outcome is left and every receipt is folded; then each job was accepted once, or
/// its permission was lost on the way and it waits, unsent.
async fn nothing_is_lost_or_doubled(rig: &Rig, pool: &PgPool, ids: &[i64]) {
    comes_to("everything to be settled", (true, Some(0_i64)), || async {
        let left = sqlx::query_scalar(
            "select (select count(*) from postrider.queue where state <> 'unknown')
                  + (select count(*) from postrider.receipt_inbox)",
        );
        let quiet = rig.sandbox.control().is_quiet();
        (quiet, left.fetch_one(pool).await.ok())
    })
    .await;
    let accepted = accepted(rig);
    let doubled: Vec<_> = accepted.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "sent more than once: {doubled:?}");
    let unknown: Vec<i64> = sqlx::query_scalar("select id from postrider.queue order by id")
        .fetch_all(pool)
        .await
        .unwrap();
    let settled: Vec<i64> = sqlx::query_scalar("select job from postrider.message")
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(settled.len() + unknown.len(), ids.len());
    let sent: Vec<_> = unknown
        .iter()
        .filter(|id| accepted.contains_key(id))
        .collect();
    assert!(sent.is_empty(), "accepted, and yet not settled: {sent:?}");
    assert!(settled.iter().all(|id| accepted.contains_key(id)));
    eprintln!("{} settled, {} unknown", settled.len(), unknown.len());
}

async fn ends_well(daemon: Daemon) {
    let (status, log) = daemon.terminate().await;
    assert!(status.success(), "{log}");
    assert!(log.contains("stopped in good order"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// The number in a line of the metrics.
async fn metric(rig: &Rig, line: &str) -> f64 {
    let (_, text) = get(rig.ops_port, "/metrics").await.unwrap();
    let value = text.lines().find_map(|found| found.strip_prefix(line));
    value.map_or(0.0, |value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn cut_off_it_stops_before_its_lease_ends_and_what_it_learned_is_written_when_the_database_is_back()
 {
    let mut rig = Rig::new(setup(), PACE).await;
    let wires = rig.wires().await;
    // No receipt tells what an answer did.
    rig.sandbox.control().pause_webhooks(true);
    let mut daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 3_000, "").await;
    accepts(&rig, 200).await;
    let cut = Instant::now();
    wires.database.unplug();
    let posted = |rig: &Rig| rig.sandbox.ledger().len();
    tokio::time::sleep_until(cut + TTL).await;
    let at_the_end = posted(&rig);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(posted(&rig), at_the_end, "posts after the lease had ended");
    assert!(at_the_end < ids.len() as u64, "too few jobs to tell");
    daemon.logs("is lost").await;
    wires.database.plug_in();
    nothing_is_lost_or_doubled_without_receipts(&rig, &ids).await;
    ends_well(daemon).await;
}

/// As with receipts, but what was accepted must be known from the answers alone.
async fn nothing_is_lost_or_doubled_without_receipts(rig: &Rig, ids: &[i64]) {
    comes_to("everything to be settled", 0_i64, || async {
        sqlx::query_scalar("select count(*) from postrider.queue where state <> 'unknown'")
            .fetch_one(rig.pool())
            .await
            .unwrap()
    })
    .await;
    let accepted = accepted(rig);
    let settled: Vec<i64> = sqlx::query_scalar("select job from postrider.message order by job")
        .fetch_all(rig.pool())
        .await
        .unwrap();
    assert_eq!(settled, accepted.keys().copied().collect::<Vec<_>>());
    assert!(accepted.values().all(|times| *times == 1));
    assert!(accepted.len() > ids.len() * 9 / 10);
}

#[tokio::test]
async fn connections_that_are_half_open_are_given_up_and_take_no_place_in_a_pool() {
    let mut rig = Rig::new(setup(), PACE).await;
    let wires = rig.wires().await;
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 2_000, "").await;
    for round in 1..=2 {
        accepts(&rig, 200 * round).await;
        wires.database.half_open();
        sleep(Duration::from_secs(2)).await;
        // Whatever was open stays dead; only new connections carry.
        wires.database.weather(Weather::default());
        let before = accepted(&rig).len();
        accepts(&rig, (before + 200).min(ids.len() - 100)).await;
    }
    nothing_is_lost_or_doubled(&rig, rig.pool(), &ids).await;
    ends_well(daemon).await;
}

#[tokio::test]
async fn connections_that_are_reset_again_and_again_cost_nothing_but_time() {
    let mut rig = Rig::new(setup(), PACE).await;
    let wires = rig.wires().await;
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 1_500, "").await;
    for round in 1..=10 {
        accepts(&rig, 100 * round).await;
        wires.database.cut();
    }
    nothing_is_lost_or_doubled(&rig, rig.pool(), &ids).await;
    ends_well(daemon).await;
}

#[tokio::test]
async fn with_a_slow_database_it_sends_all_the_same() {
    let mut rig = Rig::new(setup(), PACE).await;
    let wires = rig.wires().await;
    wires.database.delay(Duration::from_millis(40));
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 500, "").await;
    nothing_is_lost_or_doubled(&rig, rig.pool(), &ids).await;
    // Slower than any statement may be: nothing gets through, and nothing breaks.
    wires.database.delay(Duration::from_secs(6));
    sleep(Duration::from_secs(8)).await;
    wires.database.delay(Duration::ZERO);
    let more = orders(rig.pool(), 500, "").await;
    nothing_is_lost_or_doubled(&rig, rig.pool(), &[ids, more].concat()).await;
    ends_well(daemon).await;
}

#[tokio::test]
async fn receipts_are_answered_503_while_the_database_is_away_and_are_in_it_when_answered_200() {
    let mut setup = setup();
    setup.webhooks.sent_after = Delay::fixed(2_000);
    setup.webhooks.retry_ms = 500;
    let mut rig = Rig::new(setup, PACE).await;
    let wires = rig.wires().await;
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 300, "").await;
    rig.queue_is_empty().await;
    wires.database.unplug();
    let refused = "postrider_webhook_requests_total{status=\"503\"}";
    eventually("webhooks to be refused", || async {
        (metric(&rig, refused).await > 0.0).then_some(())
    })
    .await;
    // The webhook notices before the daemon looks how the database is.
    eventually("the daemon to say that it is not ready", || async {
        let (status, body) = get(rig.ops_port, "/readyz").await?;
        let why = "database: the database cannot be reached";
        (status == 503 && body.contains(why)).then_some(())
    })
    .await;
    wires.database.plug_in();
    nothing_is_lost_or_doubled(&rig, rig.pool(), &ids).await;
    // What was answered 200 is never told again.
    let told: i64 =
        sqlx::query_scalar("select count(*) from postrider.message where sent_at is not null")
            .fetch_one(rig.pool())
            .await
            .unwrap();
    assert_eq!(told, 300);
    ends_well(daemon).await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_recovers_again_and_again_loses_nothing() {
    let seed = common::seed();
    let mut chance = StdRng::seed_from_u64(seed);
    let server = Server::new("").await;
    let rig = Rig::on(database_on(&server.url()).await, setup(), PACE).await;
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 3_000, "").await;
    for _ in 0..4 {
        sleep(Duration::from_millis(chance.random_range(300..2_000))).await;
        server.restart(Mode::Immediate);
    }
    nothing_is_lost_or_doubled(&rig, &pool(&server, &rig).await, &ids).await;
    ends_well(daemon).await;
}

/// A pool that has seen no server die.
async fn pool(server: &Server, rig: &Rig) -> PgPool {
    let name = rig.database.name();
    PgPool::connect(&server.url_of(name)).await.unwrap()
}

/// A primary and its synchronous standby, with a database for a rig.
async fn pair() -> (Server, Server, TestDatabase) {
    let primary = Server::new("").await;
    let database = database_on(&primary.url()).await;
    let standby = primary.standby();
    primary
        .sql("alter system set synchronous_standby_names = 'standby'")
        .await;
    primary.sql("select pg_reload_conf()").await;
    eventually("the standby to be synchronous", || async {
        let mut connection = PgConnection::connect(&primary.url()).await.unwrap();
        let states: Vec<String> = sqlx::query_scalar("select sync_state from pg_stat_replication")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        (states == ["sync"]).then_some(())
    })
    .await;
    (primary, standby, database)
}

#[tokio::test]
async fn a_fail_over_to_the_synchronous_standby_loses_nothing_and_doubles_nothing() {
    let (primary, standby, database) = pair().await;
    let mut rig = Rig::on(database, setup(), PACE).await;
    let hosts = format!(
        "postgres://postrider@localhost/{}?host={},{}",
        rig.database.name(),
        standby.socket_dir().display(),
        primary.socket_dir().display(),
    );
    rig.config = rig.config.replace(rig.database.url(), &hosts);
    rig.postrider.rewrite(&rig.config);
    let mut daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 2_500, "").await;
    accepts(&rig, 500).await;
    primary.stop(Mode::Immediate);
    standby.promote();
    daemon.logs("the database is back, at").await;
    let pool = pool(&standby, &rig).await;
    let more = orders(&pool, 200, "").await;
    nothing_is_lost_or_doubled(&rig, &pool, &[ids, more].concat()).await;
    assert!(
        !daemon.log().contains("everything is paused"),
        "{}",
        daemon.log()
    );
    ends_well(daemon).await;
}

#[tokio::test]
async fn an_address_that_moves_to_the_standby_while_the_primary_lives_is_followed() {
    let (primary, standby, database) = pair().await;
    let mut rig = Rig::on(database, setup(), PACE).await;
    let wires = rig.wires().await;
    let daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 2_000, "").await;
    accepts(&rig, 300).await;
    // As when somebody switches over in good order: no connection is cut, but nothing can be written where they lead.
    primary
        .sql("alter system set default_transaction_read_only = on")
        .await;
    primary.sql("select pg_reload_conf()").await;
    let read_only = accepted(&rig).len();
    standby.promote();
    wires.database.move_to(Target::of_database(&standby.url()));
    accepts(&rig, read_only + 300).await;
    nothing_is_lost_or_doubled(&rig, &pool(&standby, &rig).await, &ids).await;
    ends_well(daemon).await;
}

#[tokio::test]
async fn a_server_that_takes_no_writes_for_a_while_is_waited_for() {
    let server = Server::new("").await;
    let rig = Rig::on(database_on(&server.url()).await, setup(), PACE).await;
    let mut daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 1_500, "").await;
    accepts(&rig, 200).await;
    server
        .sql("alter system set default_transaction_read_only = on")
        .await;
    server.sql("select pg_reload_conf()").await;
    daemon.logs("it is read-only").await;
    sleep(TTL).await;
    server
        .sql("alter system reset default_transaction_read_only")
        .await;
    server.sql("select pg_reload_conf()").await;
    nothing_is_lost_or_doubled(&rig, &pool(&server, &rig).await, &ids).await;
    ends_well(daemon).await;
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_waited_for() {
    let server = Server::new("max_connections = 40").await;
    let mut rig = Rig::on(database_on(&server.url()).await, setup(), PACE).await;
    let wires = rig.wires().await;
    let mut daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 1_000, "").await;
    accepts(&rig, 100).await;
    wires.database.unplug();
    let mut taken = Vec::new();
    // The daemon's own sessions end when the server notices.
    for _ in 0..20 {
        while let Ok(connection) = PgConnection::connect(&server.url()).await {
            taken.push(connection);
        }
        sleep(Duration::from_millis(50)).await;
    }
    wires.database.plug_in();
    daemon.logs("too many clients").await;
    drop(taken);
    nothing_is_lost_or_doubled(&rig, &pool(&server, &rig).await, &ids).await;
    ends_well(daemon).await;
}

/// Makes statements fail with an SQLSTATE before they write a row of these tables, as often as `share` says. It goes by
/// [`end_of_trouble`].
async fn trouble(pool: &PgPool, tables: &[&str], sqlstate: &str, share: f64) {
    let function = format!(
        "create or replace function postrider.trouble() returns trigger language plpgsql as $$
         begin
           if random() < {share} then raise exception 'as if' using errcode = '{sqlstate}'; end if;
           return null;
         end $$"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(function))
        .execute(pool)
        .await
        .unwrap();
    for table in tables {
        let trigger = format!(
            "create trigger trouble before insert or delete on postrider.{table}
             for each statement execute function postrider.trouble()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(trigger))
            .execute(pool)
            .await
            .unwrap();
    }
}

async fn end_of_trouble(pool: &PgPool) {
    sqlx::raw_sql("drop function postrider.trouble() cascade")
        .execute(pool)
        .await
        .unwrap();
}

/// A disk that is really full needs a file system of its own, which not every machine lets us mount. What the daemon sees of
/// one is the server's word 53100 for every statement that needs room; that is what this test gives it.
#[tokio::test]
async fn a_full_disk_at_the_server_stops_sends_and_receipts_until_there_is_room() {
    let rig = Rig::new(setup(), PACE).await;
    let mut daemon = rig.daemon().await;
    let ids = orders(rig.pool(), 2_000, "").await;
    accepts(&rig, 200).await;
    let tables = ["attempt", "answer", "message", "receipt", "dead_letter"];
    trouble(rig.pool(), &tables, "53100", 1.0).await;
    daemon.logs("the statement \"settle\" failed").await;
    daemon.logs("webhooks cannot be committed").await;
    // What was permitted before still goes.
    eventually("posts to stop", || async {
        let posted = rig.sandbox.ledger().len();
        sleep(Duration::from_secs(2)).await;
        (rig.sandbox.ledger().len() == posted).then_some(())
    })
    .await;
    assert!(accepted(&rig).len() < ids.len(), "no attempt, no post");
    end_of_trouble(rig.pool()).await;
    nothing_is_lost_or_doubled(&rig, rig.pool(), &ids).await;
    ends_well(daemon).await;
}

#[tokio::test]
async fn deadlocks_and_serialization_failures_are_tried_again() {
    let rig = Rig::new(setup(), PACE).await;
    let daemon = rig.daemon().await;
    let mut ids = Vec::new();
    for sqlstate in ["40P01", "40001"] {
        let tables = ["attempt", "message", "receipt", "receipt_inbox"];
        trouble(rig.pool(), &tables, sqlstate, 0.2).await;
        ids.extend(orders(rig.pool(), 500, "").await);
        nothing_is_lost_or_doubled(&rig, rig.pool(), &ids).await;
        end_of_trouble(rig.pool()).await;
    }
    ends_well(daemon).await;
}

/// Waits until the daemon's host has seen something of the database that it had not.
async fn host_sees_more(pool: &PgPool) {
    let number = async || -> i64 {
        sqlx::query_scalar("select coalesce(max(number), 0) from postrider.witness")
            .fetch_one(pool)
            .await
            .unwrap()
    };
    let before = number().await;
    // The host keeps each number before it writes the next one.
    eventually("the number that the host writes to grow", || async {
        (number().await >= before + 2).then_some(())
    })
    .await;
}

/// A server whose backup was taken while the jobs waited, with all of them sent since.
async fn sent_since_the_backup(daemon_runs: bool) -> (Server, Rig, Daemon, Vec<i64>) {
    let server = Server::new("").await;
    let rig = Rig::on(database_on(&server.url()).await, setup(), PACE).await;
    let daemon = rig.daemon().await;
    let later = ", not_before => now() + interval '30 seconds'";
    let ids = orders(rig.pool(), 50, later).await;
    host_sees_more(&pool(&server, &rig).await).await;
    server.stop(Mode::Fast);
    server.back_up();
    server.start();
    accepts(&rig, 50).await;
    host_sees_more(&pool(&server, &rig).await).await;
    if !daemon_runs {
        ends_well(daemon).await;
        server.stop(Mode::Fast);
        server.restore();
        server.start();
        let daemon = rig.postrider.start(&[]);
        return (server, rig, daemon, ids);
    }
    server.stop(Mode::Fast);
    server.restore();
    server.start();
    (server, rig, daemon, ids)
}

/// Nothing is sent twice until somebody says so.
async fn is_paused_until_resumed(server: &Server, rig: &Rig, mut daemon: Daemon, ids: &[i64]) {
    daemon
        .logs("everything is paused: the database is older")
        .await;
    sleep(TTL + Duration::from_secs(3)).await;
    let left: i64 = sqlx::query_scalar("select count(*) from postrider.queue where due_at < now()")
        .fetch_one(&pool(server, rig).await)
        .await
        .unwrap();
    assert_eq!(left, 50, "the restored database believes them unsent");
    assert!(accepted(rig).values().all(|times| *times == 1));
    let told = |args: &[&str]| {
        let output = rig.postrider.run(args);
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(told(&["status"]).contains("the database is older than what this host saw"));
    assert!(
        told(&["check", "--offline"]).contains("the database is older than what this host saw")
    );
    told(&["resume", "all"]);
    eventually("the jobs to go", || async {
        let twice = accepted(rig).values().filter(|times| **times == 2).count();
        (twice == ids.len()).then_some(())
    })
    .await;
    // It is not older any more.
    ends_well(daemon).await;
    let mut daemon = rig.postrider.start(&[]);
    daemon.logs("ready").await;
    sleep(Duration::from_secs(2)).await;
    assert!(
        !daemon.log().contains("everything is paused"),
        "{}",
        daemon.log()
    );
    ends_well(daemon).await;
}

#[tokio::test]
async fn a_database_restored_from_a_backup_starts_paused() {
    let (server, rig, daemon, ids) = sent_since_the_backup(false).await;
    is_paused_until_resumed(&server, &rig, daemon, &ids).await;
}

#[tokio::test]
async fn a_database_restored_while_the_daemon_runs_is_paused_before_anything_is_sent() {
    let (server, rig, daemon, ids) = sent_since_the_backup(true).await;
    is_paused_until_resumed(&server, &rig, daemon, &ids).await;
}

#[tokio::test]
async fn another_database_is_not_an_older_one() {
    let mut rig = Rig::new(setup(), PACE).await;
    let daemon = rig.daemon().await;
    host_sees_more(rig.pool()).await;
    ends_well(daemon).await;
    // The tests' databases are copies of one template, so this one is given another name.
    let other = common::database().await;
    sqlx::query("update postrider.setting set value = '\"other\"' where name = 'installation'")
        .execute(other.pool())
        .await
        .unwrap();
    rig.config = rig.config.replace(rig.database.url(), other.url());
    rig.postrider.rewrite(&rig.config);
    let mut daemon = rig.daemon().await;
    daemon.logs("this is another database").await;
    let ids = orders(other.pool(), 20, "").await;
    nothing_is_lost_or_doubled(&rig, other.pool(), &ids).await;
    ends_well(daemon).await;
}

#[tokio::test]
async fn errors_name_each_host_and_why_and_never_the_password() {
    let server = Server::new("").await;
    let standby = server.standby();
    let nobody = common::free_port();
    let url = format!(
        "postgres://ada:hunter2@/x?host=127.0.0.1,{}&port={nobody},5432",
        standby.socket_dir().display()
    );
    let url = url
        .replace("ada:hunter2", "postrider:hunter2")
        .replace("/x?", "/postrider?");
    let postrider = common::daemon::Postrider::new(&format!("[database]\nurl = {url:?}\n"));
    let output = postrider.run(&["status"]);
    assert_eq!(output.status.code(), Some(75));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("127.0.0.1:{nobody}: ")), "{said}");
    assert!(
        said.contains("it is a standby, which takes no writes"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}
