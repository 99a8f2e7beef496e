//! Taking jobs in by SQL: defaults, idempotency, batches, the bell.

#![cfg(test)]

mod common;

use common::{TestDatabase, seed, sql};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, postgres::PgListener};

/// A row of `queue`, as far as enqueue decides it.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
struct Queued {
    lane: i32,
    priority: i16,
    reason: Option<String>,
    kind: String,
    recipient: String,
    recipient_key: String,
    template: Option<String>,
    language: Option<String>,
    content: Value,
    sender: String,
    reference: Option<String>,
    batch: Option<String>,
    labels: Option<Value>,
    /// How long it waits before it is due, and how long it is valid from then on.
    waits_secs: f64,
    valid_secs: f64,
}

async fn queued(connection: &mut PgConnection, job: i64) -> Queued {
    sqlx::query_as(
        "select *, extract(epoch from due_at - enqueued_at)::float8 as waits_secs,
                   extract(epoch from expires_at - due_at)::float8 as valid_secs
         from postrider.queue where id = $1",
    )
    .bind(job)
    .fetch_one(connection)
    .await
    .unwrap()
}

async fn enqueue_many(connection: &mut PgConnection, jobs: &Value) -> Vec<Enqueued> {
    sqlx::query_as("select * from postrider.enqueue_many($1)")
        .bind(jobs)
        .fetch_all(connection)
        .await
        .unwrap()
}

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Enqueued {
    ordinal: i32,
    job_id: Option<i64>,
    duplicate: bool,
    error_code: Option<String>,
    error: Option<String>,
}

#[tokio::test]
async fn null_is_the_default_everywhere() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let short = sql::enqueue(&mut connection, "'+905321234567', 'boarding'").await;
    let nulls = sql::enqueue(
        &mut connection,
        "'+905321234567', 'boarding', parameters => null, language => null, kind => null, sender => null, priority => null,
         idempotency_key => null, not_before => null, expires_at => null, reference => null, batch => null, labels => null",
    )
    .await;
    let row = queued(&mut connection, short).await;
    assert_eq!(queued(&mut connection, nulls).await, row);
    assert_eq!(
        (row.kind.as_str(), row.priority, row.sender.as_str()),
        ("order", 1, "default")
    );
    assert_eq!(
        (row.content, row.reason, row.waits_secs),
        (json!({}), None, 0.0)
    );
    assert_eq!(row.valid_secs, 24.0 * 3600.0);
}

#[tokio::test]
async fn a_template_that_authenticates_makes_an_otp() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let job = sql::enqueue(
        &mut connection,
        r#"'+905321234567', 'login_code', '{"code": "123456"}'"#,
    )
    .await;
    let row = queued(&mut connection, job).await;
    assert_eq!(
        (row.kind.as_str(), row.priority, row.valid_secs),
        ("otp", 0, 300.0)
    );
    let job = sql::enqueue(
        &mut connection,
        "'+905321234567', 'login_code', kind => 'travel', priority => 'bulk'",
    )
    .await;
    let row = queued(&mut connection, job).await;
    assert_eq!((row.kind.as_str(), row.priority), ("travel", 2));

    sql::run(
        &mut connection,
        "update postrider.kind set configured = false where name = 'otp'",
    )
    .await;
    let job = sql::enqueue(&mut connection, "'+905321234567', 'login_code'").await;
    assert_eq!(
        queued(&mut connection, job).await.kind,
        "order",
        "an otp is not made where there is none"
    );
}

#[tokio::test]
async fn the_language_is_the_callers_the_recipients_the_templates_or_the_default() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for (recipient, language) in [
        ("+905320000001", "tr"),
        ("+905320000002", "pt"),
        ("+905320000003", "en-GB"),
    ] {
        sql::run(
            &mut connection,
            &format!("select postrider.opt_in('{recipient}', 'test', language => '{language}')"),
        )
        .await;
    }
    let cases = [
        (
            "+905320000001",
            "order_confirmation",
            "language => 'en-us'",
            "en_US",
        ),
        (
            "+905320000001",
            "order_confirmation",
            "language => 'de'",
            "de",
        ),
        (
            "+905320000001",
            "order_confirmation",
            "language => null",
            "tr",
        ),
        (
            "+905320000003",
            "order_confirmation",
            "language => null",
            "en_US",
        ),
        ("+905320000002", "boarding", "language => null", "pt_BR"),
        // The recipient's language would not be sent: the template has one only.
        ("+905320000001", "boarding", "language => null", "pt_BR"),
        ("+905320000009", "boarding", "language => null", "pt_BR"),
        (
            "+905320000009",
            "order_confirmation",
            "language => null",
            "en_US",
        ),
        // Nothing is known of the template: perhaps tomorrow it is there.
        ("+905320000001", "not_synced_yet", "language => null", "tr"),
        ("+905320000009", "not_synced_yet", "language => null", "en"),
    ];
    for (recipient, template, language, expected) in cases {
        let job = sql::enqueue(
            &mut connection,
            &format!("'{recipient}', '{template}', {language}"),
        )
        .await;
        let chosen = queued(&mut connection, job).await.language;
        assert_eq!(
            chosen.as_deref(),
            Some(expected),
            "{recipient} {template} {language}"
        );
    }
}

#[tokio::test]
async fn a_job_for_later_waits_and_its_validity_starts_then() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let job = sql::enqueue(
        &mut connection,
        "'+905321234567', 'login_code', not_before => now() + interval '1 day'",
    )
    .await;
    let row = queued(&mut connection, job).await;
    assert_eq!(
        (row.reason.as_deref(), row.valid_secs),
        (Some("scheduled"), 300.0)
    );
    assert!(row.waits_secs > 86_000.0);

    let job = sql::enqueue(
        &mut connection,
        "'+905321234567', 'boarding', not_before => now() - interval '1 day'",
    )
    .await;
    let row = queued(&mut connection, job).await;
    assert_eq!(
        (row.reason, row.waits_secs),
        (None, 0.0),
        "a time that has come is now"
    );
}

#[tokio::test]
async fn a_job_of_a_long_transaction_is_due_when_it_was_enqueued() {
    let database = sql::database().await;
    let mut transaction = database.pool().begin().await.unwrap();
    sql::run(&mut transaction, "select pg_sleep(0.05)").await;
    let job = sql::enqueue(&mut transaction, "'+905321234567', 'boarding'").await;
    let is_later: bool = sqlx::query_scalar(
        "select due_at >= now() + interval '50 ms' from postrider.queue where id = $1",
    )
    .bind(job)
    .fetch_one(&mut *transaction)
    .await
    .unwrap();
    assert!(is_later);
}

#[tokio::test]
async fn a_job_exists_exactly_when_the_order_does() {
    let database = sql::database().await;
    let mut transaction = database.pool().begin().await.unwrap();
    sql::enqueue(
        &mut transaction,
        "'+905321234567', 'boarding', idempotency_key => 'a'",
    )
    .await;
    transaction.rollback().await.unwrap();
    for table in ["queue", "enqueued", "idempotency_key"] {
        assert_eq!(
            sql::count(&database, &format!("postrider.{table}")).await,
            0,
            "{table}"
        );
    }
}

#[tokio::test]
async fn the_state_of_the_world_refuses_nothing() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    sql::run(
        &mut connection,
        "update postrider.template set status = 'DISABLED'",
    )
    .await;
    sql::run(
        &mut connection,
        "select postrider.opt_out('+905321234567', 'whatsapp')",
    )
    .await;
    sql::enqueue(&mut connection, "'+905321234567', 'boarding'").await;
    sql::enqueue(&mut connection, "'+905321234567', 'nowhere'").await;
    assert_eq!(sql::count(&database, "postrider.enqueued").await, 2);
}

#[tokio::test]
async fn a_repeated_key_gives_the_first_job_and_other_content_is_refused() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let with_key = |rest: &str| {
        format!(
            "'+905321234567', 'boarding', '{{\"body\": {{\"gate\": \"A1\"}}}}', idempotency_key => 'k' {rest}"
        )
    };
    let first = sql::enqueue(&mut connection, &with_key("")).await;
    assert_eq!(sql::enqueue(&mut connection, &with_key("")).await, first);
    // Whoever repeats a call computes its times anew, and may be late.
    assert_eq!(
        sql::enqueue(
            &mut connection,
            &with_key(", expires_at => now() + interval '2 h'")
        )
        .await,
        first
    );
    assert_eq!(
        sql::enqueue(
            &mut connection,
            &with_key(", expires_at => now() - interval '2 h'")
        )
        .await,
        first
    );
    assert_eq!(sql::count(&database, "postrider.queue").await, 1);

    for other in [
        "'+905321234568', 'boarding', '{\"body\": {\"gate\": \"A1\"}}', idempotency_key => 'k'",
        "'+905321234567', 'boarding', '{\"body\": {\"gate\": \"A2\"}}', idempotency_key => 'k'",
        "'+905321234567', 'boarding', '{\"body\": {\"gate\": \"A1\"}}', idempotency_key => 'k', reference => '#2'",
    ] {
        assert_eq!(refused(&mut connection, other).await, "PR007", "{other}");
    }
}

async fn refused(connection: &mut PgConnection, arguments: &str) -> String {
    sqlx::query(AssertSqlSafe(format!(
        "select postrider.enqueue({arguments})"
    )))
    .execute(connection)
    .await
    .expect_err(arguments)
    .as_database_error()
    .and_then(sqlx::error::DatabaseError::code)
    .expect("a refusal has a code")
    .into_owned()
}

#[tokio::test]
async fn a_key_is_free_again_after_seven_days() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let job = "'+905321234567', 'boarding', idempotency_key => 'k'";
    let first = sql::enqueue(&mut connection, job).await;
    sql::run(
        &mut connection,
        "update postrider.idempotency_key set at = at - interval '6 days 23 h'",
    )
    .await;
    assert_eq!(sql::enqueue(&mut connection, job).await, first);
    sql::run(
        &mut connection,
        "update postrider.idempotency_key set at = at - interval '1 h'",
    )
    .await;
    let second = sql::enqueue(&mut connection, &format!("{job}, reference => 'other'")).await;
    assert_ne!(second, first);
    assert_eq!(
        queued(&mut connection, second).await.reference.as_deref(),
        Some("other")
    );
    assert_eq!(
        sql::count(&database, "postrider.idempotency_key").await,
        1,
        "overwritten in place"
    );
}

#[tokio::test]
async fn producers_do_not_share_keys() {
    let database = sql::database().await;
    let mut transaction = database.pool().begin().await.unwrap();
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let producer = sql::login(&mut transaction, "postrider_producer").await;
        sql::become_user(&mut transaction, &producer).await;
        jobs.push(
            sql::enqueue(
                &mut transaction,
                "'+905321234567', 'boarding', idempotency_key => 'k'",
            )
            .await,
        );
        sql::run(&mut transaction, "reset session authorization").await;
    }
    assert_ne!(jobs[0], jobs[1]);
}

#[tokio::test]
async fn two_transactions_with_one_key_at_once_give_one_job_and_the_same_id() {
    let database = sql::database().await;
    let job = "'+905321234567', 'boarding', idempotency_key => 'k'";
    let mut first = database.pool().begin().await.unwrap();
    let id = sql::enqueue(&mut first, job).await;
    let second = tokio::spawn({
        let pool = database.pool().clone();
        async move { sql::enqueue(&mut pool.acquire().await.unwrap(), job).await }
    });
    sql::someone_waits_for_a_lock(&database).await;
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), id);
    assert_eq!(sql::count(&database, "postrider.queue").await, 1);
}

#[tokio::test]
async fn when_the_first_of_two_transactions_rolls_back_the_second_enqueues() {
    let database = sql::database().await;
    let job = "'+905321234567', 'boarding', idempotency_key => 'k'";
    let mut first = database.pool().begin().await.unwrap();
    let id = sql::enqueue(&mut first, job).await;
    let second = tokio::spawn({
        let pool = database.pool().clone();
        async move { sql::enqueue(&mut pool.acquire().await.unwrap(), job).await }
    });
    sql::someone_waits_for_a_lock(&database).await;
    first.rollback().await.unwrap();
    assert_ne!(second.await.unwrap(), id);
    assert_eq!(sql::count(&database, "postrider.queue").await, 1);
}

#[tokio::test]
async fn batches_with_the_same_keys_in_any_order_do_not_deadlock() {
    let database = sql::database().await;
    let jobs: Vec<Value> = (0..200)
        .map(|n| json!({"recipient": "+905321234567", "template": "boarding", "idempotency_key": format!("k{n}")}))
        .collect();
    let batches: Vec<_> = (0..4)
        .map(|turn| {
            let mut jobs = jobs.clone();
            jobs.rotate_left(turn * 50);
            let pool = database.pool().clone();
            tokio::spawn(async move {
                enqueue_many(&mut pool.acquire().await.unwrap(), &json!(jobs)).await
            })
        })
        .collect();
    for batch in batches {
        assert!(batch.await.unwrap().iter().all(|row| row.job_id.is_some()));
    }
    assert_eq!(sql::count(&database, "postrider.queue").await, 200);
}

#[tokio::test]
async fn in_a_batch_the_bad_ones_are_told_by_number_and_do_not_stop_the_others() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let good =
        json!({"recipient": "+905321234567", "template": "boarding", "idempotency_key": "k"});
    let mut other = good.clone();
    other["reference"] = json!("#2");
    let jobs = json!([
        good,
        {"recipient": "05321234567", "template": "boarding"},
        good,
        other,
        17,
        {"recipient": "+905321234567", "template": "boarding", "expires_at": "yesterday, or so"},
        {"recipient": "+905321234567", "template": "boarding", "colour": "red"},
        {"recipient": "+905321234567", "template": "boarding", "message": {"type": "text", "text": {}}},
        {"recipient": "+905321234567", "template": "boarding", "priority": "high"},
        {"recipient": "+905321234567", "message": {"type": "text", "text": {"body": "Hi"}}, "kind": "travel"},
    ]);
    let rows = enqueue_many(&mut connection, &jobs).await;
    let codes: Vec<_> = rows
        .iter()
        .map(|row| row.error_code.as_deref().unwrap_or("-"))
        .collect();
    assert_eq!(
        codes,
        [
            "-", "PR001", "-", "PR007", "PR006", "PR006", "PR006", "PR006", "PR003", "-"
        ]
    );
    assert!(
        rows.iter()
            .enumerate()
            .all(|(n, row)| row.ordinal as usize == n + 1)
    );
    assert!(
        rows.iter()
            .all(|row| row.error.is_some() == row.error_code.is_some()
                && row.job_id.is_none() == row.error.is_some())
    );
    assert_eq!((rows[2].duplicate, rows[2].job_id), (true, rows[0].job_id));
    assert!(rows[6].error.as_ref().unwrap().contains("colour"));
    assert_eq!(sql::count(&database, "postrider.queue").await, 2);
    assert_eq!(sql::count(&database, "postrider.enqueued").await, 2);

    let message = queued(&mut connection, rows[9].job_id.unwrap()).await;
    assert_eq!(
        (message.template, message.language, message.kind.as_str()),
        (None, None, "travel")
    );
    assert_eq!(enqueue_many(&mut connection, &json!([])).await, []);
}

#[tokio::test]
async fn one_job_and_a_batch_are_resolved_alike() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for statement in [
        "select postrider.opt_in('+905320000001', 'test', language => 'tr')",
        "insert into postrider.address (key, person, source) values ('+905320000002', '+905320000001', 'answer')",
    ] {
        sql::run(&mut connection, statement).await;
    }
    let mut random = StdRng::seed_from_u64(seed());
    let jobs: Vec<Value> = (0..600).map(|_| any_job(&mut random)).collect();
    let rows = enqueue_many(&mut connection, &json!(jobs)).await;
    let (mut taken, mut refused) = (0, 0);
    for (job, row) in jobs.iter().zip(rows) {
        match (enqueue_alone(&mut connection, job).await, row.job_id) {
            (Ok(alone), Some(id)) => {
                taken += 1;
                assert_eq!(
                    queued(&mut connection, alone).await,
                    queued(&mut connection, id).await,
                    "{job}"
                );
            }
            (Err(code), None) => {
                refused += 1;
                assert_eq!(Some(code), row.error_code, "{job}");
            }
            (alone, many) => panic!("{job}: {alone:?} alone, {many:?} in a batch"),
        }
    }
    assert!(
        taken > 100 && refused > 100,
        "{taken} taken, {refused} refused: the jobs are too much alike"
    );
}

#[tokio::test]
async fn the_usual_job_goes_the_short_way_and_what_is_wrong_with_it_the_other() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for usual in [
        "'+905321234567', 'boarding'",
        "'+5511987654321', 'nowhere', '{\"body\": [\"a\"]}', kind => 'travel', reference => '#1', batch => 'b'",
        "'+905321234567', 'login_code', '{\"code\": \"1\"}', kind => 'otp', sender => 'default'",
        "'+905321234567', 'order_confirmation', null, 'en_US'",
    ] {
        assert_eq!(long_ways(&database, usual).await, 0, "{usual}");
    }
    for other in [
        "'+905321234567', 'login_code'",
        "'+905321234567', 'boarding', language => 'pt-br'",
        "'+905321234567', 'boarding', labels => '{}'",
        "'+905321234567', 'boarding', idempotency_key => 'k'",
        "'+905321234567', repeat('t', 300), reference => repeat('r', 300)",
    ] {
        assert_eq!(long_ways(&database, other).await, 1, "{other}");
    }
    for (wrong, code) in [
        ("'+905321234567', 'boarding', kind => ''", "PR002"),
        ("'+905321234567', 'boarding', sender => ''", "PR004"),
        ("'+0905321234567', 'boarding'", "PR001"),
        ("'+90532123456x', 'boarding'", "PR001"),
        ("'+905321', 'boarding'", "PR001"),
        ("null, 'boarding'", "PR001"),
        ("'+905321234567', null", "PR008"),
        ("'+905321234567', null, kind => 'travel'", "PR008"),
        ("'+905321234567', ' '", "PR008"),
        ("'+905321234567', 'boarding', '17'", "PR006"),
        ("'+905321234567', 'boarding', '[\"body\"]'", "PR006"),
        ("'+905321234567', 'boarding', '[{\"body\": []}]'", "PR006"),
        ("'+905321234567', 'boarding', 'null'", "PR006"),
        ("'+905321234567', repeat('t', 513)", "PR010"),
        (
            "'+905321234567', 'boarding', reference => repeat('r', 513)",
            "PR010",
        ),
        (
            "'+905321234567', 'boarding', batch => repeat('b', 513)",
            "PR010",
        ),
        ("'+905321234567', 'boarding', batch => ''", "PR010"),
        (
            "'+905321234567', 'boarding', jsonb_build_object('body', array[repeat('b', 65536)])",
            "PR010",
        ),
    ] {
        assert_eq!(refused(&mut connection, wrong).await, code, "{wrong}");
    }
}

#[tokio::test]
async fn each_key_of_the_parameters_takes_the_types_that_it_may_have_and_null() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let values = [
        ("null", json!(null)),
        ("array", json!(["a"])),
        ("object", json!({"body": "a"})),
        ("string", json!("a")),
        ("number", json!(1)),
        ("boolean", json!(true)),
    ];
    for (key, types) in [
        ("body", &["null", "array", "object"][..]),
        ("header", &["null", "string", "object"]),
        ("buttons", &["null", "object"]),
        ("code", &["null", "string"]),
        ("components", &["null", "array"]),
        ("Body", &[]),
        ("", &[]),
    ] {
        for (kind, value) in &values {
            let parameters = json!({"body": [], key: value});
            let arguments = format!("'+905321234567', 'boarding', '{parameters}'");
            if types.contains(kind) {
                sql::enqueue(&mut connection, &arguments).await;
            } else {
                assert_eq!(
                    refused(&mut connection, &arguments).await,
                    "PR006",
                    "{parameters}"
                );
            }
        }
    }
}

/// How often a call went through the function for all jobs.
async fn long_ways(database: &TestDatabase, arguments: &str) -> i64 {
    let mut transaction = database.pool().begin().await.unwrap();
    sql::run(&mut transaction, "set local track_functions = 'all'").await;
    // A session's counts outlive its transactions for a while.
    let before = calls_of_enqueue_one(&mut transaction).await;
    sql::enqueue(&mut transaction, arguments).await;
    calls_of_enqueue_one(&mut transaction).await - before
}

async fn calls_of_enqueue_one(connection: &mut PgConnection) -> i64 {
    sqlx::query_scalar(
        "select coalesce(pg_stat_get_xact_function_calls('postrider.enqueue_one(postrider.job_request)'::regprocedure), 0)",
    )
    .fetch_one(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn what_a_job_gets_by_default_follows_the_facts_at_once() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let plain = "'+905321234567', 'boarding'";
    for change in [
        "update postrider.kind set valid_for = '1 h', priority = 2 where name = 'order'",
        "update postrider.setting set value = '\"travel\"' where name = 'default_kind'",
        "update postrider.number set configured = false where phone_number_id <> 'n2'",
        "insert into postrider.sender_pool (name, phone_number_ids) values ('second', '{n2}')",
        "update postrider.setting set value = '\"second\"' where name = 'default_sender'",
        "update postrider.template set category = 'AUTHENTICATION' where name = 'boarding'",
        "update postrider.template set language = 'tr' where name = 'boarding'",
        "delete from postrider.template where name = 'boarding'",
        "update postrider.setting set value = '\"de\"' where name = 'default_language'",
    ] {
        sql::run(&mut connection, change).await;
        let rows = enqueue_many(
            &mut connection,
            &json!([{"recipient": "+905321234567", "template": "boarding"}]),
        )
        .await;
        let alone = sql::enqueue(&mut connection, plain).await;
        assert_eq!(
            queued(&mut connection, alone).await,
            queued(&mut connection, rows[0].job_id.unwrap()).await,
            "{change}"
        );
    }
    for (change, code) in [
        (
            "update postrider.kind set configured = false where name = 'travel'",
            "PR002",
        ),
        (
            "update postrider.sender_pool set configured = false where name = 'second'",
            "PR002",
        ),
        ("update postrider.kind set configured = true", "PR004"),
    ] {
        sql::run(&mut connection, change).await;
        assert_eq!(refused(&mut connection, plain).await, code, "{change}");
    }
}

fn any_job(random: &mut StdRng) -> Value {
    let choices: [(&str, &[Value]); 11] = [
        (
            "recipient",
            &[
                json!("+905320000001"),
                json!("+905320000002"),
                json!("+5511987654321"),
                json!("+14155550100"),
                json!("US.1a"),
                json!("0532"),
            ],
        ),
        (
            "template",
            &[
                json!("order_confirmation"),
                json!("boarding"),
                json!("login_code"),
                json!("login_code"),
                json!(""),
            ],
        ),
        (
            "parameters",
            &[
                Value::Null,
                json!({}),
                json!({"body": ["a"]}),
                json!({"body": {"a": "b"}, "header": "c", "buttons": {"0": {"url": "d"}}}),
                json!({"body": null, "code": "1"}),
                json!({"code": "1"}),
                json!({"code": 1}),
            ],
        ),
        (
            "language",
            &[
                Value::Null,
                Value::Null,
                json!("en-US"),
                json!("tr"),
                json!("turkish"),
            ],
        ),
        (
            "kind",
            &[
                Value::Null,
                Value::Null,
                json!("travel"),
                json!("order"),
                json!("otp"),
                json!("parcel"),
            ],
        ),
        (
            "sender",
            &[
                Value::Null,
                Value::Null,
                json!("default"),
                json!("default"),
                json!("empty"),
            ],
        ),
        (
            "priority",
            &[
                Value::Null,
                Value::Null,
                json!("urgent"),
                json!("bulk"),
                json!("high"),
            ],
        ),
        (
            "expires_at",
            &[
                Value::Null,
                Value::Null,
                Value::Null,
                Value::Null,
                json!("2020-01-01T00:00:00Z"),
            ],
        ),
        (
            "reference",
            &[
                Value::Null,
                json!("#1"),
                json!("#1"),
                json!("#1"),
                json!(""),
            ],
        ),
        (
            "batch",
            &[Value::Null, json!("b"), json!("b"), json!("b"), json!("b")],
        ),
        (
            "labels",
            &[
                Value::Null,
                json!({}),
                json!({"a": 1}),
                json!({"a": 1}),
                json!([]),
            ],
        ),
    ];
    // Half of the jobs are of the usual kind that enqueue takes by its shortest way.
    let usual = random.random_bool(0.5);
    choices
        .into_iter()
        .filter(|(key, _)| !usual || !["priority", "expires_at", "labels"].contains(key))
        .map(|(key, values)| {
            // The last one is wrong in most lists; with all of them as likely, hardly a job would be right.
            let last = if random.random_bool(0.3) {
                values.len()
            } else {
                values.len() - 1
            };
            (key.to_owned(), values[random.random_range(0..last)].clone())
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

async fn enqueue_alone(connection: &mut PgConnection, job: &Value) -> Result<i64, String> {
    let text = |key: &str| job[key].as_str().map(str::to_owned);
    let json = |key: &str| Some(job[key].clone()).filter(|value| !value.is_null());
    sqlx::query_scalar(
        "select postrider.enqueue($1, $2, $3, language => $4, kind => $5, sender => $6, priority => $7,
                                  expires_at => $8::text::timestamptz, reference => $9, batch => $10, labels => $11)",
    )
    .bind(text("recipient"))
    .bind(text("template"))
    .bind(json("parameters"))
    .bind(text("language"))
    .bind(text("kind"))
    .bind(text("sender"))
    .bind(text("priority"))
    .bind(text("expires_at"))
    .bind(text("reference"))
    .bind(text("batch"))
    .bind(json("labels"))
    .fetch_one(connection)
    .await
    .map_err(|error| error.as_database_error().and_then(sqlx::error::DatabaseError::code).expect("a code").into_owned())
}

#[tokio::test]
async fn urgent_jobs_ring_once_a_lane_and_others_do_not() {
    let database = sql::database().await;
    let mut listener = bell(&database).await;
    let mut connection = database.pool().acquire().await.unwrap();
    let job = |recipient: i32, priority: &str| json!({"recipient": format!("+90532{recipient:07}"), "template": "boarding", "priority": priority});
    let jobs: Vec<Value> = (0..100)
        .flat_map(|n| [job(n, "urgent"), job(n, "normal")])
        .collect();
    enqueue_many(&mut connection, &json!(jobs)).await;
    let mut lanes: Vec<String> = rings(&mut connection, &mut listener).await;
    lanes.sort();
    assert_eq!(
        lanes,
        ["1", "2", "3", "4"],
        "once for each lane, with the lane as payload"
    );

    sql::enqueue(&mut connection, "'+905321234567', 'boarding'").await;
    sql::enqueue(
        &mut connection,
        "'+905321234567', 'boarding', priority => 'urgent', not_before => now() + interval '1 h'",
    )
    .await;
    assert_eq!(
        rings(&mut connection, &mut listener).await,
        Vec::<String>::new()
    );

    // The second goes the short way.
    let urgent = [
        "'+905321234567', 'boarding', priority => 'urgent'",
        "'+905321234567', 'login_code', '{\"code\": \"1\"}', kind => 'otp'",
    ];
    for arguments in urgent {
        sql::enqueue(&mut connection, arguments).await;
        let rung = rings(&mut connection, &mut listener).await;
        assert_eq!(rung.len(), 1, "{arguments}");
    }

    sql::run(
        &mut connection,
        "update postrider.setting set value = 'false' where name = 'ring'",
    )
    .await;
    for arguments in urgent {
        sql::enqueue(&mut connection, arguments).await;
        let rung = rings(&mut connection, &mut listener).await;
        assert_eq!(rung, Vec::<String>::new(), "{arguments}");
    }
}

async fn bell(database: &TestDatabase) -> PgListener {
    let mut listener = PgListener::connect_with(database.pool()).await.unwrap();
    listener.listen("postrider_bell").await.unwrap();
    listener
}

/// What rang until now: notifications come in the order of the commits, so our own mark ends them.
async fn rings(connection: &mut PgConnection, listener: &mut PgListener) -> Vec<String> {
    sql::run(connection, "notify postrider_bell, 'mark'").await;
    let mut payloads = Vec::new();
    loop {
        match listener.recv().await.unwrap().payload() {
            "mark" => return payloads,
            payload => payloads.push(payload.to_owned()),
        }
    }
}

#[tokio::test]
async fn a_person_keeps_their_number_and_only_those_of_a_lost_number_move() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let jobs: Vec<Value> = (0..1000)
        .map(|n| json!({"recipient": format!("+90532{n:07}"), "template": "boarding"}))
        .collect();
    let before = lanes(&mut connection, &jobs).await;
    for lane in 1..=4 {
        let share = before.iter().filter(|&&l| l == lane).count();
        assert!(
            (180..=320).contains(&share),
            "lane {lane} has {share} of 1000"
        );
    }
    assert_eq!(lanes(&mut connection, &jobs).await, before);

    sql::run(
        &mut connection,
        "update postrider.number set configured = false where lane = 3",
    )
    .await;
    let after = lanes(&mut connection, &jobs).await;
    for (old, new) in before.iter().zip(&after) {
        assert_eq!(*old != 3, old == new, "from {old} to {new}");
    }
}

async fn lanes(connection: &mut PgConnection, jobs: &[Value]) -> Vec<i32> {
    let ids: Vec<i64> = enqueue_many(connection, &json!(jobs))
        .await
        .iter()
        .filter_map(|row| row.job_id)
        .collect();
    sqlx::query_scalar("select lane from postrider.queue where id = any($1) order by id")
        .bind(ids)
        .fetch_all(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_urgent_job_of_one_person_goes_out_from_the_same_number_under_each_of_their_addresses() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for n in 0..20 {
        sql::run(
            &mut connection,
            &format!("insert into postrider.address (key, person, source) values ('TR.{n}', '+90532000{n:04}', 'answer')"),
        )
        .await;
        let by_phone =
            sql::enqueue(&mut connection, &format!("'+90532000{n:04}', 'boarding'")).await;
        let by_id = sql::enqueue(&mut connection, &format!("'TR.{n}', 'boarding'")).await;
        assert_eq!(
            queued(&mut connection, by_phone).await.lane,
            queued(&mut connection, by_id).await.lane
        );
    }
}

#[tokio::test]
async fn the_database_takes_jobs_for_weeks_without_the_daemon() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    // Nobody made partitions: all days are gone.
    let days: Vec<String> = sqlx::query_scalar(
        "select i.inhrelid::regclass::text from pg_inherits i join pg_class parent on parent.oid = i.inhparent
         where parent.relkind = 'p' and parent.relname <> 'enqueued'",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert!(!days.is_empty());
    sql::run(&mut connection, &format!("drop table {}", days.join(", "))).await;
    let job = sql::enqueue(
        &mut connection,
        "'+905321234567', 'boarding', idempotency_key => 'k'",
    )
    .await;
    assert_eq!(sql::cancel(&mut connection, job).await, "cancelled");
}

#[tokio::test]
async fn the_bell_is_heard_only_when_the_transaction_commits() {
    let database = sql::database().await;
    let mut listener = bell(&database).await;
    let mut connection = database.pool().acquire().await.unwrap();
    let mut transaction = database.pool().begin().await.unwrap();
    sql::enqueue(&mut transaction, "'+905321234567', 'login_code'").await;
    assert_eq!(rings(&mut connection, &mut listener).await.len(), 0);
    transaction.commit().await.unwrap();
    assert_eq!(rings(&mut connection, &mut listener).await.len(), 1);
}
