//! What people pause waits where it is, without a write to its rows; everything else goes on; and it goes when the pause ends.

#![cfg(test)]

mod common;

use std::time::{Duration, Instant};

use chrono::DateTime;
use common::{
    HEEDED,
    daemon::Daemon,
    eventually,
    rig::{Rig, recipients},
    sql,
};
use postrider::{
    rules::job::{JobId, Lane, Priority, TemplateName},
    sandbox::Setup,
    store::look::{self, Cursor, Holds},
};
use sqlx::PgPool;

const FAST: &str = "[pacing]\nmessages_per_second = 80\n";
const SHIPPED: &str = r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#;

/// A daemon with one number.
async fn rig() -> (Rig, Daemon) {
    let rig = Rig::new(Setup::quick().numbers(1, 1_000), FAST).await;
    let daemon = rig.daemon().await;
    rig.opt_in(&recipients(1_000)).await;
    (rig, daemon)
}

/// Orders for as many people, with these further arguments.
async fn orders(rig: &Rig, count: usize, tail: &str) -> Vec<JobId> {
    let sql = format!(
        "select postrider.enqueue(recipient, 'order_shipped', $2::jsonb, language => 'en_US'{tail})
         from unnest($1::text[]) recipient"
    );
    let ids: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
        .bind(recipients(count))
        .bind(SHIPPED)
        .fetch_all(rig.pool())
        .await
        .unwrap();
    ids.into_iter().map(JobId).collect()
}

/// The version of each of these jobs' rows: another one after any update.
async fn versions(rig: &Rig, ids: &[JobId]) -> Vec<String> {
    sqlx::query_scalar(
        "select xmin::text || ctid::text from postrider.queue where id = any($1) order by id",
    )
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .fetch_all(rig.pool())
    .await
    .unwrap()
}

fn run(rig: &Rig, arguments: &[&str]) -> String {
    let output = rig.postrider.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// For the one lane in the queue.
async fn cursor_at_head(pool: &PgPool) -> Cursor {
    let lane: i32 = sqlx::query_scalar("select lane from postrider.queue limit 1")
        .fetch_one(pool)
        .await
        .unwrap();
    Cursor {
        lane: Lane(lane),
        priority: Priority::Normal,
        after: (DateTime::UNIX_EPOCH, JobId(0)),
        room: 100,
        ended_at: None,
        account: "w1".to_owned(),
        begun: 0,
    }
}

#[tokio::test]
async fn a_look_leaves_out_what_is_held() {
    let database = sql::database().await;
    let pool = database.pool();
    let mut connection = pool.acquire().await.unwrap();
    let mut jobs = Vec::new();
    for tail in [
        "'order_confirmation', language => 'tr'",
        "'boarding', kind => 'travel'",
        "'boarding', batch => 'autumn'",
        "'boarding', batch => 'spring'",
        "'boarding'",
    ] {
        jobs.push(sql::enqueue(&mut connection, &format!("'+905321234567', {tail}")).await);
    }
    let mut cursor = cursor_at_head(pool).await;
    let template = TemplateName {
        name: "order_confirmation".to_owned(),
        language: "tr".to_owned(),
    };
    let holds = Holds {
        templates: [("w1".to_owned(), [template].into())].into(),
        kinds: ["travel".into()].into(),
        batches: ["autumn".to_owned()].into(),
        ..Holds::default()
    };
    for (holds, expected) in [(Holds::default(), &jobs[..]), (holds, &jobs[3..])] {
        let seen = look::look(pool, std::slice::from_mut(&mut cursor), &holds, &[])
            .await
            .unwrap();
        let seen: Vec<i64> = seen.iter().map(|seen| seen.job.id.0).collect();
        assert_eq!(seen, expected);
    }
}

#[tokio::test]
async fn looks_pass_over_any_number_of_held_jobs_in_parts_and_find_what_stands_between_and_behind()
{
    let database = sql::database().await;
    let pool = database.pool();
    let held = usize::try_from(look::READ_MAX).unwrap() * 2 + 1_000;
    let mut connection = pool.acquire().await.unwrap();
    let free = sql::enqueue(&mut connection, "'+905321234567', 'boarding'").await;
    let fill = "
        insert into postrider.queue (lane, priority, due_at, id, kind, recipient, recipient_key, template, language, content,
                                     sender, producer, enqueued_at, expires_at)
        select lane, priority, due_at - interval '1 day' + n * interval '1 ms', id + n, 'travel', recipient, recipient_key,
               template, language, content, sender, producer, enqueued_at, expires_at
        from postrider.queue, generate_series(1, $1) n";
    let held_jobs = i64::try_from(held).unwrap();
    sqlx::query(fill)
        .bind(held_jobs)
        .execute(pool)
        .await
        .unwrap();
    // One of them in the middle is not held.
    let between: i64 = sqlx::query_scalar(
        "update postrider.queue set kind = 'order' where id = $1 + $2 returning id",
    )
    .bind(free)
    .bind(look::READ_MAX + 10)
    .fetch_one(pool)
    .await
    .unwrap();
    let holds = Holds {
        kinds: ["travel".into()].into(),
        ..Holds::default()
    };
    let mut cursor = cursor_at_head(pool).await;
    let mut found = Vec::new();
    for is_last in [false, false, true] {
        let seen = look::look(pool, std::slice::from_mut(&mut cursor), &holds, &[])
            .await
            .unwrap();
        found.extend(seen.iter().map(|seen| seen.job.id.0));
        let end = cursor.ended_at.take();
        assert_eq!(end.is_none(), is_last, "{end:?}");
        cursor.after = end.unwrap_or(cursor.after);
    }
    assert_eq!(found, [between, free]);
}

#[tokio::test]
async fn a_kind_a_priority_a_batch_or_a_template_waits_unwritten_while_others_go_and_then_goes() {
    let (rig, _daemon) = rig().await;
    let waba: String = sqlx::query_scalar("select waba_id from postrider.account")
        .fetch_one(rig.pool())
        .await
        .unwrap();
    let template = format!("{waba}/order_shipped/en_US");
    let other_template = ", kind => 'delivery'";
    for (scope, target, theirs, others) in [
        ("kind", "travel", ", kind => 'travel'", other_template),
        (
            "priority",
            "bulk",
            ", priority => 'bulk'",
            ", priority => 'urgent'",
        ),
        (
            "batch",
            "autumn",
            ", batch => 'autumn'",
            ", batch => 'spring'",
        ),
        ("template", &template, "", ""),
    ] {
        run(
            &rig,
            &[
                "pause",
                scope,
                target,
                "--reason",
                "stocktaking",
                "--anyway",
            ],
        );
        tokio::time::sleep(HEEDED).await;
        let held = orders(&rig, 30, theirs).await;
        let before = versions(&rig, &held).await;
        if scope != "template" {
            for id in orders(&rig, 5, others).await {
                rig.arrives(id).await;
            }
        }
        // Long enough for a look that goes back, and for a lane that is rung.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(versions(&rig, &held).await, before, "{scope}");
        let (state, reason) = rig.job(held[0]).await;
        let expected = if scope == "template" {
            "template_paused"
        } else {
            "paused"
        };
        assert_eq!(
            (state.as_str(), reason.as_deref()),
            ("waiting", Some(expected)),
            "{scope}"
        );
        let why = run(&rig, &["why", &held[0].0.to_string()]);
        assert!(
            why.contains(&format!("{scope} {target} is paused: stocktaking")),
            "{why}"
        );
        run(&rig, &["resume", scope, target]);
        for id in held {
            rig.arrives(id).await;
        }
    }
}

/// Waits until nothing has arrived for some seconds; returns how many have by then.
async fn stands_still(rig: &Rig) -> u64 {
    loop {
        let before = rig.sandbox.ledger().len();
        tokio::time::sleep(Duration::from_secs(3)).await;
        if rig.sandbox.ledger().len() == before {
            return before;
        }
    }
}

#[tokio::test]
async fn a_pause_stops_within_a_second_what_is_being_sent() {
    let (rig, _daemon) = rig().await;
    let waba: String = sqlx::query_scalar("select waba_id from postrider.account")
        .fetch_one(rig.pool())
        .await
        .unwrap();
    let template = format!("{waba}/order_shipped/en_US");
    for (scope, target) in [
        ("kind", "order"),
        ("priority", "normal"),
        ("batch", "autumn"),
        ("template", &template),
    ] {
        let sent_before = rig.sandbox.ledger().len();
        orders(&rig, 400, ", batch => 'autumn'").await;
        eventually("some to be sent", || async {
            (rig.sandbox.ledger().len() >= sent_before + 20).then_some(())
        })
        .await;
        sqlx::query(
            "insert into postrider.pause (scope, target, source, reason) values ($1, $2, 'provider', 'test')",
        )
        .bind(scope)
        .bind(target)
        .execute(rig.pool())
        .await
        .unwrap();
        let stood_at = stands_still(&rig).await;
        assert!(stood_at < sent_before + 400, "{scope}: all were sent");
        let after: f64 = sqlx::query_scalar(
            "select extract(epoch from (select max(at) from postrider.attempt) - max(since))::float8 from postrider.pause",
        )
        .fetch_one(rig.pool())
        .await
        .unwrap();
        // By the database's time: within a second, in which it is read, and as long again for a busy machine.
        assert!(
            after < 2.0,
            "{scope}: the last attempt {after:.2} s after the pause"
        );
        run(&rig, &["resume", scope, target]);
        rig.queue_is_empty().await;
        assert_eq!(rig.sandbox.ledger().len(), sent_before + 400, "{scope}");
    }
}

#[tokio::test]
async fn a_pause_outlives_the_daemon_and_ends_by_itself() {
    let (rig, daemon) = rig().await;
    let paused = Instant::now();
    run(
        &rig,
        &[
            "pause",
            "kind",
            "order",
            "--reason",
            "stocktaking",
            "--for",
            "9s",
        ],
    );
    daemon.terminate().await;
    let ids = orders(&rig, 5, "").await;
    let _daemon = rig.daemon().await;
    // As long as the daemon takes to send what it may.
    tokio::time::sleep(Duration::from_secs(3)).await;
    if paused.elapsed() < Duration::from_secs(9) {
        assert!(rig.sandbox.ledger().is_empty());
    }
    for id in ids {
        rig.arrives(id).await;
    }
    assert!(paused.elapsed() > Duration::from_secs(9));
}
