//! The statements of the hot path keep to their indexes with a million jobs in the queue, and touch one partition.

#![cfg(test)]

mod common;

use chrono::{DateTime, NaiveDate, Utc};
use postrider::{clock, store::look};
use sqlx::{AssertSqlSafe, PgPool, Postgres, postgres::PgArguments, query::QueryAs};

/// A million jobs over 200 numbers, half of the people with an opt-in on record.
async fn a_million_jobs(pool: &PgPool) {
    let fill = "
        insert into postrider.portfolio (portfolio_id) values ('p');
        insert into postrider.account (waba_id, portfolio_id, app) values ('w', 'p', 'a');
        insert into postrider.number (phone_number_id, waba_id, shard)
            select 'n' || n, 'w', n % 256 from generate_series(1, 200) n;
        insert into postrider.sender_pool (name, phone_number_ids)
            select 'default', array_agg('n' || n) from generate_series(1, 200) n;
        insert into postrider.kind (name, priority, valid_for, resolve_after, on_unknown)
            values ('order', 1, '1 day', '2 min', 'resend');
        insert into postrider.queue (lane, priority, due_at, id, kind, recipient, recipient_key, template, language,
                                     content, sender, producer, enqueued_at, expires_at)
            select n % 200 + 1, n % 3, now() - (1000000 - n) * interval '1 ms', n, 'order', '+90532' || 1000000 + n,
                   '+90532' || 1000000 + n, 'order_confirmation', 'en', '{}', 'default', 'p', now(), now() + '1 day'
            from generate_series(1, 1000000) n;
        update postrider.queue set state = 'unknown', unknown_since = now() - interval '1 hour'
            where id between 900001 and 901000;
        insert into postrider.consent (person, opted_in_at)
            select '+90532' || 1000000 + n, now() from generate_series(1, 1000000, 2) n;
        insert into postrider.address (key, person, source)
            select '+90532' || 1000000 + n, '+90532' || 1000001 + n, 'webhook' from generate_series(1, 100000, 3) n;
        insert into postrider.service_window (person, lane, expires_at)
            select '+90532' || 1000000 + n, n % 200 + 1, now() from generate_series(1, 100000, 3) n;
        insert into postrider.attempt (lane, job, attempt, recipient_hash, counted, at)
            select 1, n, 1, n, true, now() from generate_series(2000000, 2100000) n;
        insert into postrider.message (day, job, attempt, lane, priority, state, kind, recipient, recipient_key, sender,
                                       producer, tries, spent, enqueued_at, accepted_at)
            select (now() at time zone 'utc')::date, n, 1, 1, 1, 'accepted', 'order', '+1', '+1', 'default', 'p', 1, 0,
                   now(), now()
            from generate_series(2000000, 2100000) n;
        insert into postrider.receipt_inbox (id, fold_at, received_at, job, attempt, lane, day, provider_id, status, at)
            select n, now(), now(), n, 1, 1, now(), 'wamid.' || n, 'sent', now() from generate_series(2000000, 2100000) n;
        analyze";
    for statement in fill.split(';') {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(pool)
            .await
            .unwrap();
    }
}

type Explain<'q> = QueryAs<'q, Postgres, (String,), PgArguments>;

/// The plan with the given arguments, asked for as the daemon's prepared statements see it.
async fn plan(pool: &PgPool, sql: &str, bind: impl FnOnce(Explain<'_>) -> Explain<'_>) -> String {
    let explain = AssertSqlSafe(format!(
        "explain (analyze, costs off, timing off, summary off) {sql}"
    ));
    let mut transaction = pool.begin().await.unwrap();
    let lines = bind(sqlx::query_as(explain))
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    lines.into_iter().map(|(line,)| line + "\n").collect()
}

/// Tables that stay small and may be read whole: one row a number, a kind, a template, a shard, or something that is paused.
const SMALL: [&str; 10] = [
    "pause",
    "number",
    "kind",
    "setting",
    "lease",
    "account",
    "template",
    "sender_pool",
    "pool_usage",
    "receipt_flow",
];

fn assert_only_indexes(plan: &str) {
    let today = clock::now().format("_%Y%m%d").to_string();
    for line in plan.lines().filter(|line| line.contains("Seq Scan on ")) {
        let table = line
            .split("Seq Scan on ")
            .nth(1)
            .unwrap_or_default()
            .split(' ')
            .next()
            .unwrap_or_default();
        // The partitions of other days are empty here, and an empty table has no better plan.
        let empty = table.contains("_20") && !table.ends_with(&today);
        assert!(
            SMALL.contains(&table) || empty,
            "a sequential scan of {table}:\n{plan}"
        );
    }
}

fn partitions_touched<'p>(plan: &'p str, table: &str) -> std::collections::BTreeSet<&'p str> {
    let executed = plan.lines().filter(|line| !line.contains("never executed"));
    executed
        .filter_map(|line| {
            let at = line.find(&format!("{table}_20"))?;
            line.get(at..at + table.len() + 9)
        })
        .collect()
}

#[tokio::test]
async fn statements_of_the_hot_path_use_their_indexes_with_a_million_jobs() {
    let database = common::database().await;
    let pool = database.pool();
    a_million_jobs(pool).await;
    let head: DateTime<Utc> = DateTime::UNIX_EPOCH;
    let now = clock::now();
    let day: NaiveDate = now.date_naive();

    sqlx::query("update postrider.lease set instance = 'i', epoch = 1, expires_at = now() + interval '1 hour'")
        .execute(pool)
        .await
        .unwrap();

    let lanes = plan(pool, include_str!("../src/store/lanes.sql"), |q| q).await;
    assert_only_indexes(&lanes);

    let look = plan(pool, include_str!("../src/store/look.sql"), |q| {
        q.bind(vec![1_i32, 2, 3])
            .bind(vec![1_i16, 1, 0])
            .bind(vec![head, head, now - chrono::Duration::seconds(30)])
            .bind(vec![0_i64, 0, 0])
            .bind(vec![100_i32, 100, 100])
            .bind(vec!["w"; 3])
            .bind(vec!["w"])
            .bind(vec!["another_template"])
            .bind(vec!["en"])
            .bind((1_i64..=300).collect::<Vec<_>>())
            .bind(vec!["travel"])
            .bind(vec!["a batch"])
            .bind(look::READ_MAX)
    })
    .await;
    assert_only_indexes(&look);
    assert!(look.contains("queue_by_lane"), "{look}");
    assert!(!look.contains("Sort"), "{look}");

    let ends = plan(pool, include_str!("../src/store/look_ends.sql"), |q| {
        q.bind(vec![1_i32])
            .bind(vec![1_i16])
            .bind(vec![head])
            .bind(vec![0_i64])
            .bind(look::READ_MAX)
    })
    .await;
    assert_only_indexes(&ends);
    assert!(ends.contains("queue_by_lane"), "{ends}");

    let move_away = include_str!("../src/store/moves_lock.sql");
    let locked = plan(pool, move_away, |q| {
        q.bind("i").bind(1).bind(vec![1, 2, 3]).bind(1_000_i64)
    })
    .await;
    assert_only_indexes(&locked);
    assert!(locked.contains("queue_by_lane"), "{locked}");
    let nowhere = plan(pool, move_away, |q| {
        q.bind("i").bind(1).bind(vec![1]).bind(1_000_i64)
    })
    .await;
    let untouched = |line: &str| line.contains("queue") && line.contains("(never executed)");
    assert!(nowhere.lines().any(untouched), "{nowhere}");
    let lanes = include_str!("../src/store/moves_lanes.sql");
    assert_only_indexes(&plan(pool, lanes, |q| q.bind("i")).await);

    let ids: Vec<i64> = (1..=500).collect();
    let lane_of: Vec<i32> = ids.iter().map(|id| (id % 200 + 1) as i32).collect();
    let attempt = plan(pool, include_str!("../src/store/attempt.sql"), |q| {
        q.bind((0_i16..256).collect::<Vec<_>>())
            .bind(vec![1_i64; 256])
            .bind(ids.clone())
            .bind(lane_of.clone())
            .bind(vec![0_i32; 500])
            .bind(lane_of.iter().map(|lane| *lane as i16).collect::<Vec<_>>())
            .bind(ids.clone())
            .bind(vec![true; 500])
    })
    .await;
    assert_only_indexes(&attempt);
    assert!(attempt.contains("queue_pkey"), "{attempt}");

    let settle = plan(
        pool,
        include_str!("../src/store/settle_accepted.sql"),
        |q| {
            q.bind(ids.clone())
                .bind(vec![1_i32; 500])
                .bind(vec![day; 500])
                .bind(vec!["wamid.x"; 500])
                .bind(vec![false; 500])
                .bind(vec![now; 500])
        },
    )
    .await;
    assert_only_indexes(&settle);
    assert!(settle.contains("queue_pkey"), "{settle}");

    let due = plan(pool, include_str!("../src/store/unknown_due.sql"), |q| {
        q.bind(500_i64).bind(2.0_f64)
    })
    .await;
    assert_only_indexes(&due);
    assert!(due.contains("queue_unknown"), "{due}");

    // Reads the inbox, but once.
    let told = plan(pool, include_str!("../src/store/unknown_told.sql"), |q| {
        q.bind(ids.clone())
    })
    .await;
    assert!(told.contains("Hash Join"), "{told}");

    let expire = plan(pool, include_str!("../src/store/expire.sql"), |q| {
        q.bind(ids.clone())
    })
    .await;
    assert_only_indexes(&expire);
    assert!(
        partitions_touched(&expire, "attempt").len() <= 9,
        "the days that attempts are kept:\n{expire}"
    );
}
