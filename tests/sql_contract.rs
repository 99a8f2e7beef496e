//! The SQL contract for upstreams: refusals, rights, withdrawing, consents, and what the views say.

#![cfg(test)]

mod common;

use common::{TestDatabase, seed, sql};
use postrider::rules::address::{Address, mask};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgTransaction, Row,
    postgres::PgDatabaseError,
};

/// What Postgres says about a refused statement: SQLSTATE, sentence, hint.
async fn refusal(connection: &mut PgConnection, statement: &str) -> (String, String, String) {
    let error = connection
        .execute(AssertSqlSafe(statement.to_owned()))
        .await
        .expect_err(statement)
        .into_database_error()
        .expect(statement);
    let error = error.downcast_ref::<PgDatabaseError>();
    (
        error.code().to_owned(),
        error.message().to_owned(),
        error.hint().unwrap_or_default().to_owned(),
    )
}

#[tokio::test]
async fn every_refusal_has_its_sqlstate_a_sentence_and_a_hint() {
    let database = sql::database().await;
    let enqueue = |arguments: &str| {
        format!("select postrider.enqueue('+905321234567', 'order_confirmation', {arguments})")
    };
    let cases = [
        (
            "PR001",
            "select postrider.enqueue('05321234567', 'order_confirmation')".into(),
            "E.164",
        ),
        (
            "PR001",
            "select postrider.enqueue(null, 'order_confirmation')".into(),
            "missing",
        ),
        (
            "PR001",
            "select postrider.opt_in('5321234567', 'test')".into(),
            "E.164",
        ),
        ("PR002", enqueue("kind => 'parcel'"), "'parcel'"),
        ("PR003", enqueue("priority => 'high'"), "'high'"),
        ("PR004", enqueue("sender => 'nobody'"), "'nobody'"),
        (
            "PR004",
            enqueue("sender => 'empty'"),
            "no configured number",
        ),
        (
            "PR005",
            enqueue("expires_at => now() - interval '1 s'"),
            "past",
        ),
        (
            "PR005",
            enqueue("not_before => now() + interval '2 h', expires_at => now() + interval '1 h'"),
            "not after",
        ),
        ("PR005", enqueue("not_before => 'infinity'"), "ten years"),
        ("PR005", enqueue("expires_at => '20000-01-01'"), "ten years"),
        ("PR006", enqueue("'[1]'"), "object, not array"),
        ("PR006", enqueue(r#"'{"boddy": []}'"#), "boddy"),
        ("PR006", enqueue(r#"'{"body": "Ada"}'"#), "body"),
        ("PR006", enqueue(r#"'{"code": 1234}'"#), "code"),
        ("PR006", enqueue("labels => '3'"), "labels"),
        (
            "PR006",
            "select postrider.enqueue_message('+905321234567', null)".into(),
            "missing",
        ),
        (
            "PR006",
            "select postrider.enqueue_message('+905321234567', '{}')".into(),
            "type",
        ),
        (
            "PR006",
            r#"select postrider.enqueue_message('+905321234567', '{"type": "text"}')"#.into(),
            "text",
        ),
        (
            "PR006",
            "select * from postrider.enqueue_many('{}')".into(),
            "array",
        ),
        (
            "PR008",
            "select postrider.enqueue('+905321234567', ' ')".into(),
            "empty",
        ),
        (
            "PR008",
            "select postrider.enqueue('+905321234567', null)".into(),
            "empty",
        ),
        ("PR009", enqueue("language => 'english'"), "'english'"),
        (
            "PR009",
            "select postrider.opt_in('+905321234567', 'test', language => '')".into(),
            "language",
        ),
        (
            "PR010",
            enqueue("reference => repeat('x', 513)"),
            "reference",
        ),
        ("PR010", enqueue("batch => ''"), "batch"),
        ("PR010", enqueue("idempotency_key => ''"), "idempotency"),
        (
            "PR010",
            enqueue("labels => jsonb_build_object('x', repeat('x', 70000))"),
            "labels",
        ),
        (
            "PR011",
            "select postrider.opt_out('+905321234567', 'test', at => now() + interval '2 min')"
                .into(),
            "future",
        ),
        (
            "PR012",
            "select postrider.opt_in('+905321234567', '  ')".into(),
            "source",
        ),
    ];
    let mut connection = database.pool().acquire().await.unwrap();
    for (code, statement, words) in cases {
        let statement: String = statement;
        let (said_code, sentence, hint) = refusal(&mut connection, &statement).await;
        assert_eq!(said_code, code, "{statement}: {sentence}");
        assert!(sentence.contains(words), "{statement}: {sentence}");
        assert!(!hint.is_empty(), "{statement}");
        assert!(
            !sentence.contains("5321234567"),
            "a refusal shows no whole number: {sentence}"
        );
    }
    assert_eq!(sql::count(&database, "postrider.queue").await, 0);
}

#[tokio::test]
async fn public_may_do_nothing() {
    let database = sql::database().await;
    let open: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'postrider'::regnamespace and has_function_privilege('public', p.oid, 'execute')
           and p.prorettype <> 'trigger'::regtype
         union all
         select c.oid::regclass::text from pg_class c
         where c.relnamespace = 'postrider'::regnamespace and c.relkind in ('r', 'p', 'v')
           and has_table_privilege('public', c.oid, 'select, insert, update, delete')",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(open, Vec::<String>::new());
    let usage: bool =
        sqlx::query_scalar("select has_schema_privilege('public', 'postrider', 'usage')")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert!(!usage);
}

#[tokio::test]
async fn functions_with_their_owners_rights_have_a_fixed_search_path_with_the_temporary_schema_last()
 {
    let database = sql::database().await;
    let loose: Vec<String> = sqlx::query_scalar(
        "select p.oid::regprocedure::text from pg_proc p
         where p.pronamespace = 'postrider'::regnamespace and p.prosecdef
           and not coalesce(p.proconfig, '{}') @> array['search_path=pg_catalog, postrider, pg_temp']",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(loose, Vec::<String>::new());
}

#[tokio::test]
async fn a_producer_sees_and_cancels_only_its_own_jobs() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let [shop, bank] = [
        sql::login(&mut transaction, "postrider_producer").await,
        sql::login(&mut transaction, "postrider_producer").await,
    ];

    sql::become_user(&mut transaction, &shop).await;
    let job = sql::enqueue(
        &mut transaction,
        "'+905321234567', 'order_confirmation', reference => '#1'",
    )
    .await;
    assert_eq!(visible_jobs(&mut transaction).await, [job]);

    sql::become_user(&mut transaction, &bank).await;
    assert_eq!(visible_jobs(&mut transaction).await, Vec::<i64>::new());
    assert_eq!(sql::cancel(&mut transaction, job).await, "not_found");
    let count: i32 = sqlx::query_scalar("select postrider.cancel_by_reference('#1')")
        .fetch_one(&mut *transaction)
        .await
        .unwrap();
    assert_eq!(count, 0);

    sql::become_user(&mut transaction, &shop).await;
    assert_eq!(sql::cancel(&mut transaction, job).await, "cancelled");
}

async fn visible_jobs(transaction: &mut PgTransaction<'_>) -> Vec<i64> {
    sqlx::query_scalar("select id from postrider.job_status order by id")
        .fetch_all(&mut **transaction)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_function_of_a_producers_own_does_not_see_the_jobs_of_others() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    sql::enqueue(&mut transaction, "'+905321234567', 'order_confirmation'").await;
    transaction
        .execute(
            "create function pg_temp.leaks(recipient text) returns boolean language plpgsql cost 0.0001 as $$
             begin raise exception 'saw %', recipient; end $$",
        )
        .await
        .unwrap();
    let spy = sql::login(&mut transaction, "postrider_producer").await;
    sql::become_user(&mut transaction, &spy).await;
    let seen = sqlx::query("select id from postrider.job_status where pg_temp.leaks(recipient)")
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
    assert!(seen.is_empty());
}

#[tokio::test]
async fn neither_producers_nor_readers_see_payloads() {
    let database = sql::database().await;
    for (role, statements) in [
        (
            "postrider_producer",
            &[
                "select id from postrider.queue",
                "select content from postrider.message",
            ][..],
        ),
        (
            "postrider_reader",
            &[
                "select content from postrider.queue",
                "select * from postrider.dead_letter",
                "select raw from postrider.receipt",
                "select key_hash from postrider.idempotency_key",
            ],
        ),
    ] {
        for statement in statements {
            let mut connection = database.pool().acquire().await.unwrap();
            let mut transaction = connection.begin().await.unwrap();
            let user = sql::login(&mut transaction, role).await;
            sql::become_user(&mut transaction, &user).await;
            let (code, ..) = refusal(&mut transaction, statement).await;
            assert_eq!(code, "42501", "{role}: {statement}");
        }
    }
    let columns: Vec<String> = sqlx::query_scalar(
        "select attname from pg_attribute where attrelid = 'postrider.job_status'::regclass and attnum > 0",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert!(!columns.iter().any(|column| column == "content"));
}

#[tokio::test]
async fn a_reader_sees_the_jobs_of_all_and_may_not_enqueue() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let job = sql::enqueue(&mut transaction, "'+905321234567', 'order_confirmation'").await;
    let reader = sql::login(&mut transaction, "postrider_reader").await;
    sql::become_user(&mut transaction, &reader).await;
    assert_eq!(visible_jobs(&mut transaction).await, [job]);
    for view in ["number_status", "template_status", "queue_of_nobody"] {
        let statement = format!("select count(*) from postrider.{view}");
        let mut savepoint = transaction.begin().await.unwrap();
        let answer = savepoint.execute(AssertSqlSafe(statement)).await;
        assert_eq!(answer.is_ok(), view != "queue_of_nobody", "{view}");
    }
    let (code, ..) = refusal(
        &mut transaction,
        "select postrider.enqueue('+905321234567', 'order_confirmation')",
    )
    .await;
    assert_eq!(code, "42501");
}

#[tokio::test]
async fn the_daemon_may_do_its_work() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let mut transaction = connection.begin().await.unwrap();
    let daemon = sql::login(&mut transaction, "postrider_daemon").await;
    sql::become_user(&mut transaction, &daemon).await;
    let job = sql::enqueue(&mut transaction, "'+905321234567', 'order_confirmation'").await;
    for statement in [
        "select postrider.ensure_partitions(current_date + 10, current_date + 10)",
        "update postrider.queue set due_at = due_at",
        "insert into postrider.attempt select lane, id, 1, 7, true, now() from postrider.queue",
        "delete from postrider.queue",
        "select * from postrider.number_status",
    ] {
        transaction
            .execute(statement)
            .await
            .unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
    assert_eq!(sql::cancel(&mut transaction, job).await, "not_found");
}

#[tokio::test]
async fn cancelled_jobs_leave_the_queue_without_their_payload() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let job = sql::enqueue(
        &mut connection,
        "'+905321234567', 'login_code', '{\"code\": \"471100\"}'",
    )
    .await;
    assert_eq!(sql::cancel(&mut connection, job).await, "cancelled");
    assert_eq!(
        sql::cancel(&mut connection, job).await,
        "cancelled",
        "a repeated call learns the same"
    );
    assert_eq!(sql::cancel(&mut connection, 999_999).await, "not_found");
    assert_eq!(sql::count(&database, "postrider.queue").await, 0);
    let (state, reason, has_content): (String, String, bool) = sqlx::query_as(
        "select state, reason, content is not null from postrider.dead_letter where id = $1",
    )
    .bind(job)
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert_eq!(
        (state.as_str(), reason.as_str(), has_content),
        ("cancelled", "cancelled", false)
    );
}

#[tokio::test]
async fn a_job_that_may_have_been_posted_is_too_late_to_cancel() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let [open, unknown, answered, tried] = sql::enqueue_some(&mut connection).await;
    sql::attempt(&mut connection, open, 1).await;
    sql::run(
        &mut connection,
        &format!("update postrider.queue set state = 'unknown' where id = {unknown}"),
    )
    .await;
    // Nothing left the house: the provider's answer is there, and the next attempt has the same number.
    sql::attempt(&mut connection, answered, 1).await;
    sql::answer(&mut connection, answered, 1, "not_sent").await;
    // Refused once for now; the second attempt is open.
    sql::attempt(&mut connection, tried, 1).await;
    sql::answer(&mut connection, tried, 1, "retry").await;
    sql::run(
        &mut connection,
        &format!("update postrider.queue set tries = 1 where id = {tried}"),
    )
    .await;
    sql::attempt(&mut connection, tried, 2).await;

    assert_eq!(sql::cancel(&mut connection, open).await, "too_late");
    assert_eq!(sql::cancel(&mut connection, unknown).await, "too_late");
    assert_eq!(sql::cancel(&mut connection, answered).await, "cancelled");
    assert_eq!(sql::cancel(&mut connection, tried).await, "too_late");
    assert_eq!(sql::count(&database, "postrider.queue").await, 3);
}

#[tokio::test]
async fn a_second_attempt_of_the_same_number_is_open_although_the_first_was_answered() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let [job, ..] = sql::enqueue_some(&mut connection).await;
    sql::attempt(&mut connection, job, 1).await;
    sql::answer(&mut connection, job, 1, "not_sent").await;
    sql::attempt(&mut connection, job, 1).await;
    assert_eq!(sql::cancel(&mut connection, job).await, "too_late");
}

#[tokio::test]
async fn cancel_waits_for_an_attempt_that_is_being_written() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let [job, ..] = sql::enqueue_some(&mut connection).await;

    let mut daemon = database.pool().begin().await.unwrap();
    sql::run(
        &mut daemon,
        &format!("select from postrider.queue where id = {job} for no key update"),
    )
    .await;
    sql::attempt(&mut daemon, job, 1).await;
    let cancelling = tokio::spawn({
        let pool = database.pool().clone();
        async move { sql::cancel(&mut pool.acquire().await.unwrap(), job).await }
    });
    sql::someone_waits_for_a_lock(&database).await;
    daemon.commit().await.unwrap();
    assert_eq!(cancelling.await.unwrap(), "too_late");
}

#[tokio::test]
async fn cancel_refuses_to_work_from_an_old_snapshot() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    sql::run(&mut connection, "begin isolation level repeatable read").await;
    let (code, _, hint) = refusal(&mut connection, "select postrider.cancel(1)").await;
    assert_eq!(code, "PR013");
    assert!(hint.contains("READ COMMITTED"));
    sql::run(&mut connection, "rollback").await;
}

#[tokio::test]
async fn a_reference_or_a_batch_is_cancelled_whole() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for batch in ["a", "a", "b"] {
        sql::enqueue(
            &mut connection,
            &format!(
                "'+905321234567', 'order_confirmation', batch => '{batch}', reference => '#1'"
            ),
        )
        .await;
    }
    let counts: (i32, i32, i32) =
        sqlx::query_as("select postrider.cancel_batch('a'), postrider.cancel_batch('none'), postrider.cancel_by_reference('#1')")
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    assert_eq!(counts, (2, 0, 1));
}

#[tokio::test]
async fn the_newest_word_of_a_person_holds_whatever_order_it_comes_in() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for statement in [
        // Two spellings of one Brazilian line.
        "select postrider.opt_in('+5511987654321', 'checkout', at => '2026-03-01', language => 'pt-br', evidence => '{\"v\": 2}')",
        "select postrider.opt_in('+551187654321', 'import', at => '2026-01-01', language => 'en', evidence => '{\"v\": 1}')",
        "select postrider.opt_out('+551187654321', 'support', at => '2026-02-01')",
        "select postrider.opt_out('+551187654321', 'whatsapp', at => '2026-01-15')",
    ] {
        sql::run(&mut connection, statement).await;
    }
    let rows = sqlx::query(
        "select person, opted_in_at::date::text, opt_in_source, language, opt_in_evidence->>'v',
                                   opted_out_at::date::text, opt_out_source from postrider.consent",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(rows.len(), 1);
    let words: Vec<String> = (0..7).map(|column| rows[0].get(column)).collect();
    assert_eq!(
        words,
        [
            "+551187654321",
            "2026-03-01",
            "checkout",
            "pt_BR",
            "2",
            "2026-02-01",
            "support"
        ]
    );
}

#[tokio::test]
async fn linked_addresses_share_a_consent_and_scopes_stand_apart() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for statement in [
        "insert into postrider.address (key, person, source) values ('TR.123', '+905321234567', 'answer')",
        "select postrider.opt_in('TR.123', 'checkout')",
        "select postrider.opt_out('+905321234567', 'whatsapp', 'marketing')",
    ] {
        sql::run(&mut connection, statement).await;
    }
    let rows: Vec<(String, String)> =
        sqlx::query_as("select person, scope from postrider.consent order by scope")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert_eq!(
        rows,
        [
            ("+905321234567".into(), "all".into()),
            ("+905321234567".into(), "marketing".into())
        ]
    );
}

#[tokio::test]
async fn a_clock_that_is_a_little_ahead_does_not_outlast_a_later_opt_out() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    sql::run(&mut connection, "select postrider.opt_in('+905321234567', 'shop', at => clock_timestamp() + interval '30 s')").await;
    sql::run(
        &mut connection,
        "select postrider.opt_out('+905321234567', 'whatsapp')",
    )
    .await;
    let is_out: bool =
        sqlx::query_scalar("select opted_out_at > opted_in_at from postrider.consent")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert!(is_out);
}

#[tokio::test]
async fn sql_and_rust_agree_on_what_an_address_is_its_key_and_its_mask() {
    let database = sql::database().await;
    let texts = addresses(seed());
    let known: Vec<(Option<String>, String)> =
        sqlx::query_as("select postrider.address_key(text), postrider.mask(text) from unnest($1::text[]) with ordinality t (text, n) order by n")
            .bind(&texts)
            .fetch_all(database.pool())
            .await
            .unwrap();
    for (text, (key, masked)) in texts.iter().zip(known) {
        assert_eq!(
            key,
            Address::parse(text).ok().map(|address| address.key()),
            "{text:?}"
        );
        assert_eq!(masked, mask(text), "{text:?}");
    }
}

/// Addresses and near misses.
fn addresses(seed: u64) -> Vec<String> {
    let mut random = StdRng::seed_from_u64(seed);
    let starts = [
        "+55", "+5511", "+55119", "+521", "+52", "+549", "+54", "+90532", "+1", "+0", "", "US.",
        "US.ENT.", "us.",
    ];
    (0..20_000)
        .map(|_| {
            let start = starts[random.random_range(0..starts.len())];
            let digits: String = (0..random.random_range(0..14))
                .map(|_| random.random_range(b'0'..=b'9') as char)
                .collect();
            let oddity = ["", "", "", "", " ", "-", "٣", "\n", "x"][random.random_range(0..9)];
            format!("{start}{digits}{oddity}")
        })
        .collect()
}

#[tokio::test]
async fn job_status_says_where_a_job_is_and_why() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let now = "'+905321234567', 'order_confirmation', language => 'en_US'";
    let job = sql::enqueue(&mut connection, now).await;
    assert_eq!(status(&database, job).await, "waiting no_dispatcher no");

    sql::run(
        &mut connection,
        "update postrider.lease set expires_at = now() + interval '1 h'",
    )
    .await;
    assert_eq!(status(&database, job).await, "queued - no");

    let scheduled = sql::enqueue(
        &mut connection,
        &format!("{now}, not_before => now() + interval '1 h'"),
    )
    .await;
    assert_eq!(status(&database, scheduled).await, "waiting scheduled no");

    for (scope, target) in [
        ("all", ""),
        ("kind", "order"),
        ("priority", "normal"),
        ("account", "w1"),
    ] {
        sql::pause(&mut connection, scope, target).await;
        assert_eq!(status(&database, job).await, "waiting paused no", "{scope}");
        sql::run(
            &mut connection,
            "update postrider.pause set until = now() - interval '1 s'",
        )
        .await;
        assert_eq!(
            status(&database, job).await,
            "queued - no",
            "{scope}, after its end"
        );
        sql::run(&mut connection, "delete from postrider.pause").await;
    }
    sql::pause(&mut connection, "template", "w1/order_confirmation/en_US").await;
    assert_eq!(status(&database, job).await, "waiting template_paused no");
    sql::run(&mut connection, "delete from postrider.pause").await;
    sql::run(
        &mut connection,
        "update postrider.template set status = 'PAUSED'",
    )
    .await;
    assert_eq!(status(&database, job).await, "waiting template_paused no");
    sql::run(
        &mut connection,
        "update postrider.template set status = 'APPROVED'",
    )
    .await;

    sql::attempt(&mut connection, job, 1).await;
    assert_eq!(status(&database, job).await, "sending - unknown");
    sql::run(
        &mut connection,
        "update postrider.queue set state = 'unknown'",
    )
    .await;
    assert_eq!(
        status(&database, job).await,
        "unknown awaiting_receipt unknown"
    );
}

/// State, reason and whether it was delivered.
async fn status(database: &TestDatabase, job: i64) -> String {
    sqlx::query_scalar("select concat_ws(' ', state, coalesce(reason, '-'), delivered) from postrider.job_status where id = $1")
        .bind(job)
        .fetch_one(database.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn job_status_tells_upstreams_what_is_final_and_what_another_channel_may_carry() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let cases = [
        ("rejected", "template_not_approved", "t no t"),
        ("rejected", "opted_out", "t no f"),
        ("failed", "not_reachable_on_whatsapp", "t no t"),
        ("failed", "recipient_invalid", "t no f"),
        ("expired", "validity_ended", "t no t"),
        ("unknown", "outcome_unknown", "t unknown f"),
        ("cancelled", "cancelled", "t no f"),
    ];
    for (state, reason, expected) in cases {
        let job = sql::enqueue(&mut connection, "'+905321234567', 'order_confirmation'").await;
        sql::bury(&mut connection, job, state, reason).await;
        assert_eq!(verdict(&database, job).await, expected, "{state} {reason}");
    }
    for (state, reason, expected) in [
        ("accepted", None, "f unknown f"),
        ("delivered", None, "t yes f"),
        ("read", None, "t yes f"),
        ("failed", Some("withheld_by_provider"), "t no t"),
        ("undelivered", None, "t no t"),
    ] {
        let job = sql::enqueue(&mut connection, "'+905321234567', 'order_confirmation'").await;
        sql::accept(&mut connection, job, state, reason).await;
        assert_eq!(verdict(&database, job).await, expected, "{state}");
    }
}

async fn verdict(database: &TestDatabase, job: i64) -> String {
    sqlx::query_scalar(
        "select concat_ws(' ', left(final::text, 1), delivered, left(retryable_elsewhere::text, 1))
                        from postrider.job_status where id = $1",
    )
    .bind(job)
    .fetch_one(database.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn asking_for_one_job_reads_no_whole_table() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    // So that only what has no index at all is scanned.
    sql::run(&mut connection, "set enable_seqscan = off").await;
    let mut transaction = connection.begin().await.unwrap();
    let producer = sql::login(&mut transaction, "postrider_producer").await;
    sql::become_user(&mut transaction, &producer).await;
    for condition in ["id = 5", "reference = '#5'", "batch = 'b'"] {
        let statement = format!("explain select state from postrider.job_status where {condition}");
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_all(&mut *transaction)
            .await
            .unwrap();
        let plan = plan.join("\n");
        for table in ["queue", "message", "dead_letter"] {
            let scans = plan
                .lines()
                .any(|line| line.contains("Seq Scan") && line.contains(table));
            assert!(!scans, "{condition} scans {table}:\n{plan}");
            assert!(
                plan.contains(table),
                "{condition} leaves out {table}:\n{plan}"
            );
        }
    }
}

#[tokio::test]
async fn preview_shows_what_the_recipient_reads_and_what_would_stop_it() {
    let database = sql::database().await;
    let preview = async |arguments: &str| -> (Option<String>, Vec<String>) {
        sqlx::query_as(AssertSqlSafe(format!(
            "select text, issues from postrider.preview({arguments})"
        )))
        .fetch_one(database.pool())
        .await
        .unwrap()
    };
    let words = |issues: &[String]| {
        issues
            .iter()
            .map(|i| i.split(':').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };

    sql::run(
        &mut database.pool().acquire().await.unwrap(),
        "select postrider.opt_in('+905321234567', 'test')",
    )
    .await;
    let (text, issues) =
        preview(r#"'+905321234567', 'order_confirmation', '{"body": ["{{2}}", "a\nb"]}', 'en-US'"#)
            .await;
    assert_eq!(
        text.as_deref(),
        Some("Hi {{2}}, your order a b is here."),
        "a value that looks like a variable is none"
    );
    assert_eq!(issues, Vec::<String>::new());

    let (text, issues) =
        preview(r#"'+905321234567', 'order_confirmation', '{"body": ["Ada"]}', 'en_US'"#).await;
    assert_eq!(text.as_deref(), Some("Hi Ada, your order {{2}} is here."));
    assert_eq!(words(&issues), ["parameter_mismatch"]);

    let (_, issues) = preview(r#"'+905321234567', 'login_code', '{"code": "123456"}'"#).await;
    assert_eq!(issues, Vec::<String>::new());
    let (_, issues) = preview("'+905329999999', 'nowhere', null").await;
    assert_eq!(words(&issues), ["template_unknown", "no_opt_in"]);
    let (text, issues) = preview("'05329999999', 'nowhere', null").await;
    assert_eq!((text, words(&issues)), (None, vec!["PR001".to_owned()]));

    for (status, word) in [
        ("PAUSED", "template_paused"),
        ("DISABLED", "template_disabled"),
        ("PENDING", "template_not_approved"),
    ] {
        sqlx::query("update postrider.template set status = $1")
            .bind(status)
            .execute(database.pool())
            .await
            .unwrap();
        let (_, issues) = preview(r#"'+905321234567', 'login_code', '{"code": "123456"}'"#).await;
        assert_eq!(words(&issues), [word]);
    }
    let used: Option<i64> =
        sqlx::query_scalar("select case when is_called then last_value end from postrider.job_id")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(used, None, "a preview makes no job");
}

#[tokio::test]
async fn a_pool_knows_the_lanes_of_its_configured_numbers() {
    let database = sql::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let lanes = async || -> Vec<String> {
        sqlx::query_scalar("select n.phone_number_id from postrider.sender_pool p join postrider.number n on n.lane = any(p.lanes)
                            where p.name = 'default' order by 1")
            .fetch_all(database.pool())
            .await
            .unwrap()
    };
    assert_eq!(lanes().await, ["n1", "n2", "n3", "n4"]);
    sql::run(
        &mut connection,
        "update postrider.number set configured = false where phone_number_id = 'n2'",
    )
    .await;
    assert_eq!(lanes().await, ["n1", "n3", "n4"]);
    sql::run(
        &mut connection,
        "insert into postrider.number (phone_number_id, waba_id, shard) values ('n5', 'w1', 0)",
    )
    .await;
    sql::run(
        &mut connection,
        "update postrider.sender_pool set phone_number_ids = '{n5,n1,n6}' where name = 'default'",
    )
    .await;
    assert_eq!(lanes().await, ["n1", "n5"]);
    sql::run(
        &mut connection,
        "insert into postrider.number (phone_number_id, waba_id, shard) values ('n6', 'w1', 0)",
    )
    .await;
    assert_eq!(lanes().await, ["n1", "n5", "n6"]);
}

/// Its settlement, and that of all others beside it, would wait for the end of the caller's transaction.
#[tokio::test]
async fn what_is_being_sent_is_not_locked_by_who_would_cancel_it() {
    let database = sql::database().await;
    let mut producer = database.pool().begin().await.unwrap();
    let [sending, ..] = sql::enqueue_some(&mut producer).await;
    sql::attempt(&mut producer, sending, 1).await;
    producer.commit().await.unwrap();
    let mut producer = database.pool().begin().await.unwrap();
    let ids = "array(select id from postrider.queue)";
    let cancelled: i32 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "select cardinality(postrider.cancel_jobs({ids}))"
    )))
    .fetch_one(&mut *producer)
    .await
    .unwrap();
    assert_eq!(cancelled, 3);
    let mut daemon = database.pool().acquire().await.unwrap();
    sql::run(
        &mut daemon,
        &format!("select from postrider.queue where id = {sending} for update nowait"),
    )
    .await;
    producer.commit().await.unwrap();
}
