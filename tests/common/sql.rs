//! A small world in the database, and the SQL contract's functions as Rust calls.

use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Executor, PgConnection};

use super::{TestDatabase, eventually};

/// One account with four numbers, the usual kinds and a few templates.
const WORLD: &str = r#"
insert into postrider.portfolio (portfolio_id) values ('p1');
insert into postrider.account (waba_id, portfolio_id, app) values ('w1', 'p1', 'main');
insert into postrider.number (phone_number_id, waba_id, shard) select 'n' || i, 'w1', 1 from generate_series(1, 4) i;
insert into postrider.sender_pool (name, phone_number_ids) values ('default', '{n1,n2,n3,n4}'), ('empty', '{n9}');
insert into postrider.kind (name, priority, valid_for, resolve_after, on_unknown) values
  ('otp', 0, '5 min', '20 s', 'resend'), ('order', 1, '24 h', '2 min', 'resend'),
  ('delivery', 1, '12 h', '2 min', 'resend'), ('travel', 1, '24 h', '2 min', 'resend');
insert into postrider.template (waba_id, name, language, status, category, revision, components) values
  ('w1', 'order_confirmation', 'en_US', 'APPROVED', 'UTILITY', 1,
   '[{"type": "BODY", "text": "Hi {{1}}, your order {{2}} is here."}]'),
  ('w1', 'order_confirmation', 'tr', 'APPROVED', 'UTILITY', 2,
   '[{"type": "BODY", "text": "Merhaba {{1}}, siparişin {{2}} burada."}]'),
  ('w1', 'boarding', 'pt_BR', 'APPROVED', 'UTILITY', 3, '[{"type": "BODY", "text": "Embarque {{gate}}"}]'),
  ('w1', 'login_code', 'en', 'APPROVED', 'AUTHENTICATION', 4, '[{"type": "BODY", "text": "{{1}} is your code."}]');
"#;

/// A database with that world in it.
pub(crate) async fn database() -> TestDatabase {
    let database = super::database().await;
    database.pool().execute(WORLD).await.unwrap();
    database
}

/// Runs statements that must succeed.
pub(crate) async fn run(connection: &mut PgConnection, statements: &str) {
    connection
        .execute(AssertSqlSafe(statements.to_owned()))
        .await
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
}

pub(crate) async fn count(database: &TestDatabase, table: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("select count(*) from {table}")))
        .fetch_one(database.pool())
        .await
        .unwrap()
}

/// Calls `enqueue` with these arguments, as SQL.
pub(crate) async fn enqueue(connection: &mut PgConnection, arguments: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!(
        "select postrider.enqueue({arguments})"
    )))
    .fetch_one(connection)
    .await
    .unwrap_or_else(|error| panic!("enqueue({arguments}): {error}"))
}

/// Four ordinary jobs.
pub(crate) async fn enqueue_some(connection: &mut PgConnection) -> [i64; 4] {
    let mut jobs = [0; 4];
    for job in &mut jobs {
        *job = enqueue(connection, "'+905321234567', 'order_confirmation'").await;
    }
    jobs
}

pub(crate) async fn cancel(connection: &mut PgConnection, job: i64) -> String {
    sqlx::query_scalar("select postrider.cancel($1)")
        .bind(job)
        .fetch_one(connection)
        .await
        .unwrap()
}

/// Writes the permission to post a job.
pub(crate) async fn attempt(connection: &mut PgConnection, job: i64, attempt: i32) {
    sqlx::query("insert into postrider.attempt select lane, id, $2, 0, true, clock_timestamp() from postrider.queue where id = $1")
        .bind(job)
        .bind(attempt)
        .execute(connection)
        .await
        .unwrap();
}

/// Writes what the provider said to it.
pub(crate) async fn answer(connection: &mut PgConnection, job: i64, attempt: i32, outcome: &str) {
    sqlx::query("insert into postrider.answer (job, attempt, lane, outcome, at) values ($1, $2, 1, $3, clock_timestamp())")
        .bind(job)
        .bind(attempt)
        .bind(outcome)
        .execute(connection)
        .await
        .unwrap();
}

/// Moves a job to the dead letters.
pub(crate) async fn bury(connection: &mut PgConnection, job: i64, state: &str, reason: &str) {
    sqlx::query(
        "with gone as (delete from postrider.queue where id = $1 returning *)
         insert into postrider.dead_letter (id, state, reason, ended_at, lane, priority, due_at, tries, spent, resends, kind,
           recipient, recipient_key, template, language, sender, producer, enqueued_at, expires_at)
         select id, $2, $3, now(), lane, priority, due_at, tries, spent, resends, kind,
           recipient, recipient_key, template, language, sender, producer, enqueued_at, expires_at from gone",
    )
    .bind(job)
    .bind(state)
    .bind(reason)
    .execute(connection)
    .await
    .unwrap();
}

/// Makes a job a message in that state.
pub(crate) async fn accept(
    connection: &mut PgConnection,
    job: i64,
    state: &str,
    reason: Option<&str>,
) {
    sqlx::query(
        "with gone as (delete from postrider.queue where id = $1 returning *)
         insert into postrider.message (day, job, attempt, lane, priority, state, reason, kind, recipient, recipient_key,
           template, language, sender, producer, tries, spent, enqueued_at, accepted_at)
         select current_date, id, 1, lane, priority, $2, $3, kind, recipient, recipient_key,
           template, language, sender, producer, 1, 1, enqueued_at, now() from gone",
    )
    .bind(job)
    .bind(state)
    .bind(reason)
    .execute(connection)
    .await
    .unwrap();
}

pub(crate) async fn pause(connection: &mut PgConnection, scope: &str, target: &str) {
    sqlx::query("insert into postrider.pause (scope, target, source, reason) values ($1, $2, 'operator', 'test')")
        .bind(scope)
        .bind(target)
        .execute(connection)
        .await
        .unwrap();
}

/// A login role that is a member of `group`. Roles belong to the whole server: made within a transaction that is rolled
/// back, it never was.
pub(crate) async fn login(connection: &mut PgConnection, group: &str) -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!(
        "test_user_{}_{}",
        std::process::id(),
        MADE.fetch_add(1, Ordering::Relaxed)
    );
    run(
        connection,
        &format!("create role {name} login in role {group}"),
    )
    .await;
    name
}

/// The session goes on as that user, as if it had logged in.
pub(crate) async fn become_user(connection: &mut PgConnection, name: &str) {
    run(connection, &format!("set session authorization {name}")).await;
}

/// Waits until some session of this database waits for a lock.
pub(crate) async fn someone_waits_for_a_lock(database: &TestDatabase) {
    eventually("somebody to wait for a lock", || async {
        let waiting: bool = sqlx::query_scalar(
            "select exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock')",
        )
        .fetch_one(database.pool())
        .await
        .unwrap();
        waiting.then_some(())
    })
    .await;
}
