//! The fold: whatever order receipts come in, however often, a message ends in the same state.

#![expect(
    clippy::unwrap_used,
    reason = "a test that finds nothing there has failed"
)]

mod common;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use common::receiving::{count, prepare};
use postrider::{
    clock,
    rules::{
        job::{JobId, Lane, State},
        receipt::{Failure, Progress, Status},
    },
    store::{
        fold::{FoldReport, fold},
        receipts::{About, Receipt, append},
    },
};
use rand::{
    Rng, RngExt, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use sqlx::{PgPool, Row, postgres::PgRow};

fn today() -> NaiveDate {
    clock::now().date_naive()
}

fn time(secs: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_790_000_000 + secs, 0).unwrap()
}

fn receipt(job: i64, attempt: i32, status: &str, secs: i64) -> Receipt {
    Receipt {
        phone_number_id: None,
        provider_id: format!("wamid.{job}"),
        callback: None,
        status: status.to_owned(),
        at: time(secs),
        error_code: (status == "failed").then_some(131_026),
        error_title: (status == "failed").then(|| "Message undeliverable".to_owned()),
        pricing_category: None,
        pricing_type: None,
        raw: "{}".to_owned(),
        about: Some(About {
            job: JobId(job),
            attempt,
            lane: Lane(1),
            day: today(),
        }),
    }
}

async fn message(pool: &PgPool, job: i64, attempt: i32, state: State) {
    sqlx::query(
        "insert into postrider.message (day, job, attempt, lane, priority, state, kind, recipient, recipient_key, sender,
                                        producer, tries, spent, enqueued_at, accepted_at)
         values ($1, $2, $3, 1, 1, $4, 'order', '+905551231234', '+905551231234', 'default', 'p', $3, 0, now(), now())",
    )
    .bind(today())
    .bind(job)
    .bind(attempt)
    .bind(state.as_str())
    .execute(pool)
    .await
    .unwrap();
}

async fn queued(pool: &PgPool, job: i64, tries: i32, state: &str) {
    sqlx::query(
        "insert into postrider.queue (lane, priority, due_at, id, tries, state, kind, recipient, recipient_key, content,
                                      sender, producer, enqueued_at, expires_at)
         values (1, 1, now(), $1, $2, $3, 'order', '+905551231234', '+905551231234', '{}', 'default', 'p', now(),
                 now() + interval '1 day')",
    )
    .bind(job)
    .bind(tries)
    .bind(state)
    .execute(pool)
    .await
    .unwrap();
}

/// Lets what is in the inbox have come in some time ago, and be due.
async fn age(pool: &PgPool, by: TimeDelta) {
    sqlx::query("update postrider.receipt_inbox set received_at = received_at - $1::interval, fold_at = now()")
        .bind(by)
        .execute(pool)
        .await
        .unwrap();
}

/// What a message says, in the words of the rules.
fn progress(row: &PgRow) -> Progress {
    let inferred: bool = row.get("delivered_inferred");
    Progress {
        state: row.get::<String, _>("state").parse().unwrap(),
        failure: Failure {
            at: row.get("failed_at"),
            code: row.get("error_code"),
            title: row.get("error_title"),
        },
        sent_at: row.get("sent_at"),
        delivered_at: row
            .get::<Option<_>, _>("delivered_at")
            .filter(|_| !inferred),
        read_at: row.get("read_at"),
        pricing_category: row.get("pricing_category"),
        pricing_type: row.get("pricing_type"),
    }
}

async fn row(pool: &PgPool, job: i64) -> PgRow {
    sqlx::query("select * from postrider.message where job = $1")
        .bind(job)
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn state(pool: &PgPool, job: i64) -> String {
    row(pool, job).await.get("state")
}

/// What the rules make of receipts, one after the other.
fn joined(start: State, receipts: &[Receipt]) -> Progress {
    receipts
        .iter()
        .fold(Progress::in_state(start), |progress, receipt| {
            let mut one = Progress::of(Status::parse(&receipt.status).unwrap(), receipt.at);
            one.failure.code = receipt.error_code;
            one.failure.title = receipt.error_title.clone();
            one.pricing_category = receipt.pricing_category.clone();
            one.pricing_type = receipt.pricing_type.clone();
            progress.join(one)
        })
}

/// Any receipts, with repeats that differ in time and words.
fn anything(rng: &mut StdRng, job: i64) -> Vec<Receipt> {
    let mut one = || {
        let status = *["sent", "delivered", "read", "failed", "played"]
            .choose(rng)
            .unwrap();
        let mut receipt = receipt(job, 1, status, rng.random_range(0..4));
        if status == "failed" {
            receipt.error_code = *[None, Some(131_026), Some(131_049)].choose(rng).unwrap();
            receipt.error_title = [None, Some("b"), Some("A")]
                .choose(rng)
                .unwrap()
                .map(str::to_owned);
        }
        receipt.pricing_category = [None, Some("utility"), Some("Marketing")]
            .choose(rng)
            .unwrap()
            .map(str::to_owned);
        receipt.pricing_type = [None, Some("regular")]
            .choose(rng)
            .unwrap()
            .map(str::to_owned);
        receipt
    };
    let mut receipts: Vec<Receipt> = (0..5).map(|_| one()).collect();
    receipts.extend_from_within(0..2);
    receipts
}

#[tokio::test]
async fn any_order_grouping_and_repeats_end_where_the_rules_say() {
    let database = common::database().await;
    let pool = database.pool();
    prepare(pool).await;
    let mut rng = StdRng::seed_from_u64(common::seed());
    let starts = [State::Accepted, State::Held, State::Undelivered];
    let mut waiting = Vec::new();
    let mut expected = Vec::new();
    for job in 1..=200 {
        let start = *starts.choose(&mut rng).unwrap();
        message(pool, job, 1, start).await;
        let receipts = anything(&mut rng, job);
        expected.push((job, joined(start, &receipts)));
        waiting.extend(receipts);
    }
    waiting.shuffle(&mut rng);
    for part in waiting.chunks(97) {
        append(pool, part).await.unwrap();
        fold(pool, i64::from(rng.next_u32() % 150)).await.unwrap();
    }
    while fold(pool, 1_000).await.unwrap().taken > 0 {}
    for (job, expected) in expected {
        let row = row(pool, job).await;
        assert_eq!(progress(&row), expected, "job {job}");
        let (at, inferred) = (
            row.get::<Option<DateTime<Utc>>, _>("delivered_at"),
            row.get("delivered_inferred"),
        );
        assert_eq!(
            at.map(|at| (at, inferred)),
            expected.delivered(),
            "job {job}"
        );
        assert_eq!(
            row.get::<Option<String>, _>("reason").is_some(),
            expected.state == State::Failed,
            "job {job}"
        );
    }
    assert_eq!(count(pool, "receipt_inbox").await, 0);
    assert_eq!(count(pool, "receipt").await, 1_400);
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason_and_forgotten_when_it_was_none() {
    let database = common::database().await;
    let pool = database.pool();
    message(pool, 1, 1, State::Accepted).await;
    append(pool, &[receipt(1, 1, "failed", 3)]).await.unwrap();
    fold(pool, 10).await.unwrap();
    let failed = row(pool, 1).await;
    assert_eq!(failed.get::<String, _>("state"), "failed");
    assert_eq!(
        failed.get::<Option<String>, _>("reason").as_deref(),
        Some("not_reachable_on_whatsapp")
    );
    assert_eq!(failed.get::<Option<i32>, _>("error_code"), Some(131_026));

    append(pool, &[receipt(1, 1, "read", 9)]).await.unwrap();
    fold(pool, 10).await.unwrap();
    let read = row(pool, 1).await;
    assert_eq!(read.get::<String, _>("state"), "read");
    assert_eq!(read.get::<Option<String>, _>("reason"), None);
    assert_eq!(read.get::<Option<DateTime<Utc>>, _>("failed_at"), None);
    assert_eq!(
        read.get::<Option<DateTime<Utc>>, _>("delivered_at"),
        Some(time(9))
    );
    assert!(read.get::<bool, _>("delivered_inferred"));
}

#[tokio::test]
async fn early_receipts_wait_for_their_message() {
    let database = common::database().await;
    let pool = database.pool();
    append(
        pool,
        &[receipt(1, 1, "delivered", 3), receipt(1, 1, "sent", 1)],
    )
    .await
    .unwrap();
    let report = fold(pool, 10).await.unwrap();
    assert_eq!((report.taken, report.folded, report.parked), (2, 0, 2));
    assert_eq!(
        fold(pool, 10).await.unwrap().taken,
        0,
        "they are not tried again at once"
    );

    message(pool, 1, 1, State::Accepted).await;
    age(pool, TimeDelta::zero()).await;
    assert_eq!(fold(pool, 10).await.unwrap().folded, 2);
    assert_eq!(state(pool, 1).await, "delivered");
    assert_eq!(count(pool, "receipt_inbox").await, 0);
}

#[tokio::test]
async fn the_longer_a_receipt_waited_the_longer_it_waits_and_after_a_week_it_goes() {
    let database = common::database().await;
    let pool = database.pool();
    append(pool, &[receipt(1, 1, "sent", 1)]).await.unwrap();
    for (waited, delay) in [
        (TimeDelta::zero(), TimeDelta::milliseconds(250)),
        (TimeDelta::seconds(10), TimeDelta::seconds(5)),
        (TimeDelta::days(1), TimeDelta::minutes(10)),
    ] {
        sqlx::query("update postrider.receipt_inbox set received_at = now()")
            .execute(pool)
            .await
            .unwrap();
        age(pool, waited).await;
        assert_eq!(fold(pool, 10).await.unwrap().parked, 1);
        let left: bool = sqlx::query_scalar(
            "select fold_at - now() between $1::interval * 0.8 - interval '250 milliseconds' and $1::interval + interval '1 second'
             from postrider.receipt_inbox",
        )
        .bind(delay)
        .fetch_one(pool)
        .await
        .unwrap();
        assert!(left, "after {waited}");
    }
    age(pool, TimeDelta::days(7)).await;
    fold(pool, 10).await.unwrap();
    assert_eq!(count(pool, "receipt_inbox").await, 0);
    assert_eq!(count(pool, "receipt").await, 1, "it stays on record");
}

#[tokio::test]
async fn a_receipt_settles_the_job_whose_answer_was_lost() {
    let database = common::database().await;
    let pool = database.pool();
    prepare(pool).await;
    queued(pool, 1, 0, "queued").await;
    queued(pool, 2, 0, "unknown").await;
    append(
        pool,
        &[receipt(1, 1, "delivered", 3), receipt(2, 1, "sent", 3)],
    )
    .await
    .unwrap();
    let report = fold(pool, 10).await.unwrap();
    assert_eq!(
        (report.settled, report.parked),
        (1, 1),
        "who sent job 1 may be about to write its answer"
    );
    assert_eq!(report.left_queue, ["order"], "and is counted as finished");
    assert_eq!(state(pool, 2).await, "sent");

    age(pool, TimeDelta::seconds(3)).await;
    assert_eq!(fold(pool, 10).await.unwrap().settled, 1);
    let settled = row(pool, 1).await;
    assert_eq!(settled.get::<String, _>("state"), "delivered");
    assert_eq!(
        settled.get::<Option<String>, _>("provider_id").as_deref(),
        Some("wamid.1")
    );
    assert_eq!(
        (
            settled.get::<i32, _>("attempt"),
            settled.get::<i32, _>("tries")
        ),
        (1, 1)
    );
    assert_eq!(
        settled.get::<Option<serde_json::Value>, _>("content"),
        None,
        "its kind keeps none"
    );
    assert_eq!(count(pool, "queue").await, 0);
    assert_eq!(count(pool, "receipt_inbox").await, 0);
}

#[tokio::test]
async fn a_receipt_of_an_answered_attempt_does_not_settle_the_next_one() {
    let database = common::database().await;
    let pool = database.pool();
    queued(pool, 1, 1, "queued").await;
    append(pool, &[receipt(1, 1, "failed", 3)]).await.unwrap();
    age(pool, TimeDelta::seconds(30)).await;
    let report = fold(pool, 10).await.unwrap();
    assert_eq!((report.settled, report.parked), (0, 1));
    assert_eq!(count(pool, "queue").await, 1);
}

#[tokio::test]
async fn a_job_given_up_as_unknown_is_found_by_a_late_receipt_and_a_refused_one_is_not() {
    let database = common::database().await;
    let pool = database.pool();
    for (job, dead) in [(1, "unknown"), (2, "failed")] {
        sqlx::query(
            "insert into postrider.dead_letter (id, state, reason, ended_at, lane, priority, due_at, tries, spent,
                 resends, kind, recipient, recipient_key, sender, producer, enqueued_at, expires_at)
             values ($1, $2, 'outcome_unknown', now(), 1, 1, now(), 0, 0, 0, 'order', '+905551231234', '+905551231234',
                     'default', 'p', now(), now())",
        )
        .bind(i64::from(job))
        .bind(dead)
        .execute(pool)
        .await
        .unwrap();
    }
    append(pool, &[receipt(1, 1, "sent", 3), receipt(2, 1, "sent", 3)])
        .await
        .unwrap();
    let report = fold(pool, 10).await.unwrap();
    assert_eq!(report.settled, 1);
    assert_eq!(
        report.left_queue, [""; 0],
        "it was counted when it was given up"
    );
    assert_eq!(state(pool, 1).await, "sent");
    assert_eq!(count(pool, "dead_letter where id = 2").await, 1);
    assert_eq!(count(pool, "dead_letter").await, 1);
}

#[tokio::test]
async fn another_attempts_success_counts_and_its_failure_does_not() {
    let database = common::database().await;
    let pool = database.pool();
    message(pool, 1, 2, State::Accepted).await;
    append(pool, &[receipt(1, 1, "failed", 1)]).await.unwrap();
    fold(pool, 10).await.unwrap();
    assert_eq!(state(pool, 1).await, "accepted");
    append(pool, &[receipt(1, 1, "delivered", 2)])
        .await
        .unwrap();
    fold(pool, 10).await.unwrap();
    assert_eq!(state(pool, 1).await, "delivered");
}

#[tokio::test]
async fn somebody_who_holds_a_job_does_not_hold_up_other_receipts() {
    let database = common::database().await;
    let pool = database.pool();
    queued(pool, 1, 0, "unknown").await;
    message(pool, 2, 1, State::Accepted).await;
    let mut holder = pool.begin().await.unwrap();
    sqlx::query("select from postrider.queue where id = 1 for update")
        .execute(&mut *holder)
        .await
        .unwrap();
    append(pool, &[receipt(1, 1, "sent", 1), receipt(2, 1, "sent", 1)])
        .await
        .unwrap();
    let report = fold(pool, 10).await.unwrap();
    assert_eq!((report.folded, report.parked), (1, 1));
}

#[tokio::test]
async fn a_receipt_that_cannot_be_folded_does_not_hold_up_the_others() {
    let database = common::database().await;
    let pool = database.pool();
    prepare(pool).await;
    queued(pool, 1, 0, "unknown").await;
    message(pool, 2, 1, State::Accepted).await;
    let mut nowhere = receipt(1, 1, "sent", 1);
    nowhere.about.as_mut().unwrap().day = NaiveDate::from_ymd_opt(2001, 1, 1).unwrap();
    append(pool, &[nowhere, receipt(2, 1, "sent", 1)])
        .await
        .unwrap();
    assert_eq!(fold(pool, 10).await.unwrap().folded, 1);
    assert_eq!(state(pool, 2).await, "sent");
    assert_eq!(count(pool, "queue").await, 1);
    assert_eq!(fold(pool, 10).await.unwrap().taken, 0, "it is set aside");
}

#[tokio::test]
async fn two_folders_do_not_fold_the_same() {
    let database = common::database().await;
    let pool = database.pool();
    message(pool, 1, 1, State::Accepted).await;
    append(pool, &[receipt(1, 1, "sent", 1)]).await.unwrap();
    let mut other = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(hashtext('postrider.fold'))")
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(fold(pool, 10).await.unwrap(), FoldReport::default());
    other.commit().await.unwrap();
    assert_eq!(fold(pool, 10).await.unwrap().folded, 1);
}

#[tokio::test]
async fn an_opt_out_of_marketing_that_the_provider_tells_is_written_down() {
    let database = common::database().await;
    let pool = database.pool();
    message(pool, 1, 1, State::Accepted).await;
    let mut failed = receipt(1, 1, "failed", 3);
    failed.error_code = Some(131_050);
    append(pool, &[failed.clone(), failed]).await.unwrap();
    fold(pool, 10).await.unwrap();
    let (person, scope, at): (String, String, DateTime<Utc>) =
        sqlx::query_as("select person, scope, opted_out_at from postrider.consent")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(
        (person.as_str(), scope.as_str(), at),
        ("+905551231234", "marketing", time(3))
    );
}

/// The plan of a statement of the fold, and how many partitions of `message` it touched.
async fn plan(pool: &PgPool, sql: &str, jobs: &[i64]) -> String {
    let n = jobs.len();
    let explain = sqlx::AssertSqlSafe(format!(
        "explain (analyze, costs off, timing off, summary off) {sql}"
    ));
    let nothing: Vec<Option<DateTime<Utc>>> = vec![None; n];
    let words: Vec<Option<&str>> = vec![None; n];
    let mut transaction = pool.begin().await.unwrap();
    let lines: Vec<(String,)> = sqlx::query_as(explain)
        .bind(today())
        .bind(jobs)
        .bind(vec![1; n])
        .bind(vec!["wamid"; n])
        .bind(vec!["sent"; n])
        .bind(&words)
        .bind(vec![Some(time(1)); n])
        .bind(&nothing)
        .bind(&nothing)
        .bind(&nothing)
        .bind(vec![None::<i32>; n])
        .bind(&words)
        .bind(&words)
        .bind(&words)
        .fetch_all(&mut *transaction)
        .await
        .unwrap();
    transaction.rollback().await.unwrap();
    lines.into_iter().map(|(line,)| line + "\n").collect()
}

#[tokio::test]
async fn the_fold_keeps_to_indexes_and_one_partition() {
    let database = common::database().await;
    let pool = database.pool();
    let fill = "
        insert into postrider.message (day, job, attempt, lane, priority, state, kind, recipient, recipient_key, sender,
                                       producer, tries, spent, enqueued_at, accepted_at)
            select (now() at time zone 'utc')::date - n % 2, n, 1, 1, 1, 'accepted', 'order', '+1', '+1', 'default',
                   'p', 1, 0, now(), now()
            from generate_series(1, 200000) n;
        insert into postrider.receipt_inbox (id, fold_at, received_at, job, attempt, lane, day, provider_id, status, at)
            select n, now() + n * interval '1 s', now(), n, 1, 1, current_date, 'w', 'sent', now()
            from generate_series(-1000, 100000) n;
        analyze postrider.message; analyze postrider.receipt_inbox";
    for statement in fill.split(';') {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(pool)
            .await
            .unwrap();
    }
    let jobs: Vec<i64> = (1..=1_000).map(|n| n * 2).collect();
    let apply = plan(pool, include_str!("../src/store/fold_apply.sql"), &jobs).await;
    assert!(!apply.contains("Seq Scan"), "{apply}");
    let partition = format!("message_{}", today().format("%Y%m%d"));
    let others = apply
        .lines()
        .filter(|line| line.contains("message_20") && !line.contains(&partition));
    assert_eq!(others.count(), 0, "{apply}");

    let take = format!(
        "explain (analyze, costs off) {}",
        include_str!("../src/store/fold_take.sql")
    );
    let lines: Vec<(String,)> = sqlx::query_as(sqlx::AssertSqlSafe(take))
        .bind(1_000_i64)
        .bind(None::<i64>)
        .fetch_all(pool)
        .await
        .unwrap();
    let take: String = lines.into_iter().map(|(line,)| line + "\n").collect();
    assert!(
        take.contains("Index Scan using receipt_inbox_by_time"),
        "{take}"
    );
    assert!(
        take.contains("Index Cond"),
        "what is not due is not read: {take}"
    );
}
