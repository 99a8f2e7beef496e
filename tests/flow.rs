//! From `postrider.enqueue` to the receipt, with the real binary between a real database and the sandbox.

#![cfg(test)]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{
    HEEDED, comes_to, eventually, get,
    rig::{Rig, recipients},
};
use postrider::{
    rules::job::JobId,
    sandbox::{Fault, FaultRule, Setup},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::PgPool;

const FAST: &str = "[pacing]\nmessages_per_second = 80\n";

/// One order, with its parameters by name.
async fn order(pool: &PgPool, recipient: &str) -> JobId {
    job(
        pool,
        recipient,
        "order_shipped",
        r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#,
        "",
    )
    .await
}

async fn job(
    pool: &PgPool,
    recipient: &str,
    template: &str,
    parameters: &str,
    tail: &str,
) -> JobId {
    let sql = format!("select postrider.enqueue($1, $2, $3::jsonb, language => 'en_US'{tail})");
    let id = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(recipient)
        .bind(template)
        .bind(parameters)
        .fetch_one(pool)
        .await
        .unwrap();
    JobId(id)
}

/// `count` orders to as many people, in one statement.
async fn orders(pool: &PgPool, to: &[String]) -> Vec<i64> {
    sqlx::query_scalar(
        "select postrider.enqueue(recipient, 'order_shipped',
                '{\"body\": {\"name\": \"Ada\", \"order\": \"1042\", \"carrier\": \"DHL\"}}', language => 'en_US')
         from unnest($1::text[]) recipient",
    )
    .bind(to)
    .fetch_all(pool)
    .await
    .unwrap()
}

/// How often each job was accepted, by the provider's own book.
fn accepted(rig: &Rig) -> BTreeMap<i64, usize> {
    let mut times = BTreeMap::new();
    for entry in rig
        .sandbox
        .ledger()
        .entries()
        .into_iter()
        .filter(|entry| entry.accepted)
    {
        *times
            .entry(entry.job().expect("our callback data"))
            .or_default() += 1;
    }
    times
}

#[tokio::test]
async fn jobs_of_all_kinds_reach_the_phone_once_and_their_receipts_come_back() {
    let rig = Rig::new(Setup::quick(), FAST).await;
    let _daemon = rig.daemon().await;
    let people = recipients(4);
    rig.opt_in(&people).await;
    let pool = rig.pool();
    let boarding = r#"{"header": {"document": {"link": "https://shop.example/pass.pdf", "filename": "pass.pdf"}},
                       "body": ["Ada", "PR 42", "B7"]}"#;
    let window = r#"{"header": "PR-1", "body": ["Ada", "Monday"]}"#;
    let ids = [
        order(pool, &people[0]).await,
        job(pool, &people[1], "login_code", r#"{"code": "493021"}"#, "").await,
        job(
            pool,
            &people[2],
            "boarding_pass",
            boarding,
            ", kind => 'travel'",
        )
        .await,
        job(
            pool,
            &people[3],
            "delivery_window",
            window,
            ", kind => 'delivery'",
        )
        .await,
    ];
    for id in ids {
        rig.arrives(id).await;
    }
    assert_eq!(accepted(&rig), ids.iter().map(|id| (id.0, 1)).collect());
}

#[tokio::test]
async fn a_code_is_nowhere_in_the_database_once_it_is_sent() {
    let rig = Rig::new(Setup::quick(), FAST).await;
    let _daemon = rig.daemon().await;
    let people = recipients(1);
    rig.opt_in(&people).await;
    let id = job(
        rig.pool(),
        &people[0],
        "login_code",
        r#"{"code": "493021"}"#,
        "",
    )
    .await;
    rig.queue_is_empty().await;
    rig.arrives(id).await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', table_schema, table_name) from information_schema.tables
         where table_schema = 'postrider' and table_type = 'BASE TABLE'",
    )
    .fetch_all(rig.pool())
    .await
    .unwrap();
    for table in tables {
        let sql = format!("select count(*) from {table} t where t::text like '%493021%'");
        let found: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(rig.pool())
            .await
            .unwrap();
        assert_eq!(found, 0, "in {table}");
    }
}

#[tokio::test]
async fn a_server_error_is_tried_again_and_a_throttle_costs_no_attempt() {
    let rig = Rig::new(
        Setup::quick(),
        &format!("{FAST}[dispatch]\nbackoff_first_ms = 100\n"),
    )
    .await;
    let _daemon = rig.daemon().await;
    let people = recipients(2);
    rig.opt_in(&people).await;
    let coded = |code| Fault::Refuse {
        code,
        http_status: None,
    };
    rig.sandbox
        .control()
        .fault(FaultRule::next(1, coded(131_000)).recipient(&people[0]));
    rig.sandbox
        .control()
        .fault(FaultRule::next(2, coded(130_429)).recipient(&people[1]));
    let (failed, throttled) = (
        order(rig.pool(), &people[0]).await,
        order(rig.pool(), &people[1]).await,
    );
    rig.queue_is_empty().await;
    let spent: BTreeMap<i64, (i32, i32)> =
        sqlx::query_as("select job, tries, spent from postrider.message")
            .fetch_all(rig.pool())
            .await
            .unwrap()
            .into_iter()
            .map(|(job, tries, spent): (i64, i32, i32)| (job, (tries, spent)))
            .collect();
    assert_eq!(spent[&failed.0], (2, 1), "one answer spent");
    assert_eq!(spent[&throttled.0], (3, 0), "two throttles, nothing spent");
}

#[tokio::test]
async fn a_request_without_an_answer_is_not_repeated_and_its_receipt_settles_it() {
    let rig = Rig::new(Setup::quick(), FAST).await;
    let _daemon = rig.daemon().await;
    let people = recipients(1);
    rig.opt_in(&people).await;
    rig.sandbox
        .control()
        .fault(FaultRule::next(1, Fault::ResetAfterAccepting));
    let id = order(rig.pool(), &people[0]).await;
    rig.arrives(id).await;
    assert_eq!(rig.sandbox.ledger().of_job(id.0).len(), 1);
    rig.queue_is_empty().await;
}

#[tokio::test]
async fn an_expired_job_is_told_as_such_also_on_a_number_that_is_stopped() {
    let rig = Rig::new(Setup::quick(), FAST).await;
    rig.prepare().await;
    let people = recipients(1);
    rig.opt_in(&people).await;
    sqlx::query(
        "insert into postrider.pause (scope, target, source, reason)
         select 'number', phone_number_id, 'operator', 'test' from postrider.number",
    )
    .execute(rig.pool())
    .await
    .unwrap();
    let _daemon = rig.daemon().await;
    let soon = ", expires_at => clock_timestamp() + interval '1 second'";
    let parameters = r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#;
    let id = job(rig.pool(), &people[0], "order_shipped", parameters, soon).await;
    rig.becomes(id, "expired").await;
    assert_eq!(rig.job(id).await.1.as_deref(), Some("validity_ended"));
    assert!(rig.sandbox.ledger().is_empty());
}

#[tokio::test]
async fn every_job_that_leaves_the_queue_is_counted_once_as_what_it_became() {
    let rig = Rig::new(Setup::quick().numbers(1, 80), FAST).await;
    let _daemon = rig.daemon().await;
    let people = recipients(6);
    rig.opt_in(&people[..5]).await;
    // An answer is lost and one is slow: of both messages a receipt tells first.
    for fault in [
        Fault::ResetAfterAccepting,
        Fault::SlowBody { over_ms: 2_000 },
    ] {
        rig.sandbox.control().fault(FaultRule::next(1, fault));
    }
    for id in orders(rig.pool(), &people[..4]).await {
        rig.arrives(JobId(id)).await;
    }
    order(rig.pool(), &people[5]).await;
    let late = job(
        rig.pool(),
        &people[4],
        "order_shipped",
        r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#,
        ", not_before => now() + interval '1 hour'",
    )
    .await;
    sqlx::query("update postrider.queue set expires_at = now() where id = $1")
        .bind(late)
        .execute(rig.pool())
        .await
        .unwrap();
    let counted = || async {
        let (_, metrics) = get(rig.ops_port, "/metrics").await.unwrap();
        let lines = metrics.lines();
        let finished: Vec<String> = lines
            .filter_map(|line| line.strip_prefix("postrider_jobs_finished_total"))
            .map(str::to_owned)
            .collect();
        finished
    };
    let all = [
        r#"{kind="order",reason="",state="accepted"} 4"#,
        r#"{kind="order",reason="no_opt_in",state="rejected"} 1"#,
        r#"{kind="order",reason="validity_ended",state="expired"} 1"#,
    ];
    eventually("all to be counted", || async {
        (counted().await.len() == all.len()).then_some(())
    })
    .await;
    // Whatever is counted twice has been by then.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(counted().await, all);
}

// The sandbox has a thread of its own, and no more to do than it can: a request that times out leaves a job that waits for
// minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_cancelled_was_never_seen_by_the_provider() {
    let rig = Rig::new(
        Setup::quick().numbers(20, 1_000),
        "[pacing]\nmessages_per_second = 20\n",
    )
    .await;
    let _daemon = rig.daemon().await;
    let people = recipients(10_000);
    rig.opt_in(&people).await;
    let ids = orders(rig.pool(), &people).await;
    // Half of them from the end of the lanes' buffers, half at the front, where they are just being sent.
    let mut answers: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for id in ids
        .iter()
        .rev()
        .step_by(2)
        .chain(ids.iter().rev().skip(1).step_by(2))
    {
        let answer: String = sqlx::query_scalar("select postrider.cancel($1)")
            .bind(id)
            .fetch_one(rig.pool())
            .await
            .unwrap();
        answers.entry(answer).or_default().push(*id);
    }
    rig.queue_is_empty().await;
    let seen = rig.sandbox.ledger().jobs();
    let cancelled = answers.remove("cancelled").unwrap_or_default();
    let too_late = answers.remove("too_late").unwrap_or_default();
    assert!(answers.is_empty(), "{answers:?}");
    assert!(
        cancelled.len() > 100 && too_late.len() > 100,
        "{} cancelled, {} too late",
        cancelled.len(),
        too_late.len()
    );
    let both: Vec<_> = cancelled
        .iter()
        .filter(|id| seen.contains_key(id))
        .collect();
    assert!(both.is_empty(), "cancelled and yet posted: {both:?}");
    assert!(
        too_late.iter().all(|id| seen.contains_key(id)),
        "too late means posted"
    );
}

#[tokio::test]
async fn killing_the_daemon_at_any_moment_loses_no_job_and_doubles_none() {
    let seed = common::seed();
    let mut chance = StdRng::seed_from_u64(seed);
    let rig = Rig::new(
        Setup::quick().numbers(4, 1_000),
        "[pacing]\nmessages_per_second = 200\n",
    )
    .await;
    rig.prepare().await;
    let people = recipients(3_000);
    rig.opt_in(&people).await;
    let ids = orders(rig.pool(), &people).await;
    for _ in 0..8 {
        let daemon = rig.postrider.start(&[]);
        tokio::time::sleep(Duration::from_millis(chance.random_range(100..1_500))).await;
        daemon.kill();
    }
    let _daemon = rig.daemon().await;
    // What a kill left between its attempt and its post waits for a receipt; everything else goes.
    comes_to("only unknown jobs to be left", 0_i64, || async {
        sqlx::query_scalar("select count(*) from postrider.queue where state <> 'unknown'")
            .fetch_one(rig.pool())
            .await
            .unwrap()
    })
    .await;
    comes_to("every receipt to be folded", (true, 0_i64), || async {
        let quiet = rig.sandbox.control().is_quiet();
        let inbox = sqlx::query_scalar("select count(*) from postrider.receipt_inbox")
            .fetch_one(rig.pool())
            .await
            .unwrap();
        (quiet, inbox)
    })
    .await;
    let accepted = accepted(&rig);
    let unknown: Vec<i64> = sqlx::query_scalar("select id from postrider.queue")
        .fetch_all(rig.pool())
        .await
        .unwrap();
    eprintln!("{} accepted, {} unknown", accepted.len(), unknown.len());
    let doubled: Vec<_> = accepted.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "sent more than once: {doubled:?}");
    assert_eq!(
        accepted.len() + unknown.len(),
        ids.len(),
        "every job is somewhere"
    );
    assert!(
        unknown.iter().all(|id| !accepted.contains_key(id)),
        "what arrived was settled by its receipt"
    );
}

#[tokio::test]
async fn a_transaction_that_commits_late_is_found_and_an_urgent_one_at_once() {
    let rig = Rig::new(Setup::quick().numbers(1, 80), FAST).await;
    let _daemon = rig.daemon().await;
    let people = recipients(200);
    rig.opt_in(&people).await;
    let mut late = rig.pool().begin().await.unwrap();
    let enqueue = "select postrider.enqueue($1, $2, $3::jsonb, language => 'en_US')";
    let shipped = r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#;
    let mut ids = Vec::new();
    for (recipient, template, parameters) in [
        (&people[0], "order_shipped", shipped),
        (&people[1], "login_code", r#"{"code": "493021"}"#),
    ] {
        let id: i64 = sqlx::query_scalar(enqueue)
            .bind(recipient)
            .bind(template)
            .bind(parameters)
            .fetch_one(&mut *late)
            .await
            .unwrap();
        ids.push(JobId(id));
    }
    // Others on the same lane commit meanwhile, so that its cursor moves on.
    for recipient in &people[2..] {
        order(rig.pool(), recipient).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let other: i64 =
        sqlx::query_scalar("select extract(epoch from clock_timestamp() - now())::bigint")
            .fetch_one(&mut *late)
            .await
            .unwrap();
    assert!(other >= 39, "{other} s");
    late.commit().await.unwrap();
    let committed = std::time::Instant::now();
    rig.arrives(ids[1]).await;
    let urgent = committed.elapsed();
    rig.arrives(ids[0]).await;
    eprintln!(
        "urgent after {urgent:?}, normal after {:?}",
        committed.elapsed()
    );
}

#[tokio::test]
async fn a_stop_under_any_address_of_a_person_stops_all_within_two_seconds() {
    let rig = Rig::new(
        Setup::quick().numbers(1, 80),
        "[pacing]\nmessages_per_second = 5\n",
    )
    .await;
    let number = "200000000000001";
    let _daemon = rig.daemon().await;
    // One Brazilian line with and without its ninth digit; the provider knows it by the shorter form.
    let (long, short) = ("+5511987654321", "+551187654321");
    rig.opt_in(&[long.to_owned()]).await;
    let mut ids = Vec::new();
    for n in 0..100 {
        ids.push(order(rig.pool(), if n % 2 == 0 { long } else { short }).await);
    }
    eventually("some to be sent", || async {
        (rig.sandbox.ledger().len() >= 5).then_some(())
    })
    .await;
    rig.sandbox
        .control()
        .inbound_text(short, number, "STOP")
        .unwrap();
    eventually("the opt-out to commit", || async {
        let out: i64 = sqlx::query_scalar(
            "select count(*) from postrider.consent where opted_out_at is not null",
        )
        .fetch_one(rig.pool())
        .await
        .unwrap();
        (out > 0).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sent = rig.sandbox.ledger().len();
    rig.queue_is_empty().await;
    assert_eq!(
        rig.sandbox.ledger().len(),
        sent,
        "posted later than 2 s after the opt-out"
    );
    let rejected = rig.states().await.get("rejected").copied().unwrap_or(0);
    assert_eq!(rejected + i64::try_from(sent).unwrap(), 100);
}

#[tokio::test]
async fn what_is_paused_by_command_waits_and_says_so_until_it_is_resumed() {
    let rig = Rig::new(Setup::quick(), FAST).await;
    let _daemon = rig.daemon().await;
    let people = recipients(1);
    rig.opt_in(&people).await;
    let paused = rig
        .postrider
        .run(&["pause", "all", "--reason", "stocktaking"]);
    assert!(paused.status.success(), "{paused:?}");
    // A pause of everything holds from its commit on.
    let id = order(rig.pool(), &people[0]).await;
    tokio::time::sleep(HEEDED).await;
    let expected = ("waiting".to_owned(), Some("paused".to_owned()));
    assert_eq!(rig.job(id).await, expected);
    assert!(rig.sandbox.ledger().is_empty());
    let resumed = rig.postrider.run(&["resume", "all"]);
    assert!(resumed.status.success(), "{resumed:?}");
    rig.arrives(id).await;
    let again = rig.postrider.run(&["resume", "all"]);
    assert_eq!(again.status.code(), Some(1), "nothing was paused");
}
