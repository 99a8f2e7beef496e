//! What is written about unknown jobs, statement by statement: decided once, settled by late receipts, never told to be what
//! they may not be.

#![cfg(test)]

mod common;

use chrono::TimeDelta;
use common::{
    TestDatabase, database, eventually,
    receiving::{count, prepare},
};
use postrider::{
    clock,
    rules::{
        job::{FinalReason, JobId, Lane, Priority, State},
        outcome::Outcome,
    },
    store::{
        fold::fold,
        receipts::{About, Receipt, append},
        settle::{self, Accepted, Answered, Dead, Ended, Tags, Waiting},
        unknown::{Resolved, beat, resolve},
        upkeep,
    },
};
use sqlx::{AssertSqlSafe, PgPool};

/// A database with a number, in which a webhook process has just proved that it takes receipts.
async fn world() -> TestDatabase {
    let database = database().await;
    prepare(database.pool()).await;
    beat(database.pool()).await.unwrap();
    database
}

async fn run(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// A job whose first attempt got no answer, three minutes ago; its kind waits for two.
async fn unknown(pool: &PgPool, job: i64) {
    run(
        pool,
        &format!(
            "insert into postrider.queue (lane, priority, due_at, id, state, reason, unknown_since, kind, recipient,
                 recipient_key, content, sender, producer, enqueued_at, expires_at)
             values (1, 1, now() - interval '1 minute', {job}, 'unknown', 'awaiting_receipt', now() - interval '3 minutes',
                 'order', '+905551231234', '+905551231234', '{{}}', 'default', 'p', now() - interval '3 minutes',
                 now() + interval '1 day');
             insert into postrider.attempt values (1, {job}, 1, 0, true, now() - interval '3 minutes')"
        ),
    )
    .await;
}

/// A receipt came, a while ago, for a message that was sent so long ago.
async fn evidence(pool: &PgPool, ago: &str) {
    run(
        pool,
        &format!(
            "insert into postrider.receipt_flow (waba_id, taken_at, noted_at)
             values ('w', now() - interval '{ago}', now() - interval '10 seconds')
             on conflict (waba_id) do update set taken_at = excluded.taken_at, noted_at = excluded.noted_at"
        ),
    )
    .await;
}

/// Decides when it has just been proved that receipts are taken, however long the test took to come to this.
async fn decide(pool: &PgPool) -> Resolved {
    run(pool, "update postrider.receiving set seen_at = now()").await;
    resolve(pool, 1, 100).await.unwrap()
}

/// What the queue says of a job: state, tries, resends.
async fn queued(pool: &PgPool, job: i64) -> Option<(String, i32, i32)> {
    sqlx::query_as("select state, tries, resends from postrider.queue where id = $1")
        .bind(job)
        .fetch_optional(pool)
        .await
        .unwrap()
}

async fn status(pool: &PgPool, job: i64) -> String {
    sqlx::query_scalar(
        "select concat_ws(' ', state, coalesce(reason, '-')) from postrider.job_status where id = $1",
    )
    .bind(job)
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn told(pool: &PgPool, job: i64, attempt: i32, status: &str) {
    let failed = status == "failed";
    let receipt = Receipt {
        phone_number_id: None,
        provider_id: format!("wamid.{job}.{attempt}"),
        callback: None,
        status: status.to_owned(),
        at: clock::now(),
        error_code: failed.then_some(131_026),
        error_title: failed.then(|| "Message undeliverable".to_owned()),
        pricing_category: None,
        pricing_type: None,
        raw: "{}".to_owned(),
        about: Some(About {
            job: JobId(job),
            attempt,
            lane: Lane(1),
            day: clock::now().date_naive(),
        }),
    };
    append(pool, &[receipt]).await.unwrap();
}

fn tags() -> Tags {
    Tags {
        kind: "order".into(),
        priority: Priority::Normal,
        enqueued_at: clock::now(),
    }
}

fn states(ended: &[Ended]) -> Vec<&str> {
    ended.iter().map(|ended| &*ended.state).collect()
}

/// The answer to a job's attempt is that the provider took it.
async fn taken(pool: &PgPool, job: i64, attempt: i32) -> usize {
    let accepted = Accepted {
        id: JobId(job),
        attempt,
        day: clock::now().date_naive(),
        provider_id: "wamid.answer".into(),
        held: false,
        at: clock::now(),
        tags: tags(),
    };
    settle::accepted(pool, &[accepted]).await.unwrap().len()
}

/// An unknown job that was put back into the queue.
async fn resent(pool: &PgPool, job: i64) {
    unknown(pool, job).await;
    evidence(pool, "1 minute").await;
    assert_eq!(decide(pool).await.resent, 1);
    assert_eq!(queued(pool, job).await, Some(("queued".into(), 1, 1)));
}

#[tokio::test]
async fn it_goes_out_again_under_the_next_number_and_what_it_waited_for_is_closed() {
    let database = world().await;
    let pool = database.pool();
    resent(pool, 1).await;
    let closed: Vec<(i32, String)> =
        sqlx::query_as("select attempt, outcome from postrider.answer where job = 1")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(closed, [(1, "unknown".to_owned())]);
    assert_eq!(decide(pool).await, Resolved::default(), "once");
}

#[tokio::test]
async fn without_evidence_it_waits_and_a_receipt_of_an_earlier_message_is_none() {
    let database = world().await;
    let pool = database.pool();
    unknown(pool, 1).await;
    assert_eq!(decide(pool).await, Resolved::default());
    evidence(pool, "4 minutes").await;
    assert_eq!(decide(pool).await, Resolved::default());
    run(
        pool,
        "update postrider.queue set unknown_since = now() - interval '11 minutes'",
    )
    .await;
    evidence(pool, "12 minutes").await;
    assert_eq!(decide(pool).await.resent, 1, "after five times its wait");
}

#[tokio::test]
async fn evidence_that_came_this_moment_counts_from_the_next_one_on() {
    let database = world().await;
    let pool = database.pool();
    unknown(pool, 1).await;
    evidence(pool, "1 minute").await;
    run(pool, "update postrider.receipt_flow set noted_at = now()").await;
    assert_eq!(decide(pool).await, Resolved::default());
    run(
        pool,
        "update postrider.receipt_flow set taken_before = taken_at",
    )
    .await;
    assert_eq!(decide(pool).await.resent, 1);
}

#[tokio::test]
async fn a_receipt_of_a_later_message_is_noted_as_evidence_when_it_is_folded() {
    let database = world().await;
    let pool = database.pool();
    unknown(pool, 1).await;
    unknown(pool, 2).await;
    run(
        pool,
        "update postrider.attempt set at = now() - interval '1 minute' where job = 2",
    )
    .await;
    told(pool, 2, 1, "sent").await;
    assert_eq!(fold(pool, 10).await.unwrap().settled, 1);
    let noted: bool = sqlx::query_scalar(
        "select taken_at = (select at from postrider.attempt where job = 2) from postrider.receipt_flow where waba_id = 'w'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert!(noted);
    assert_eq!(
        decide(pool).await,
        Resolved::default(),
        "its own may be right behind"
    );
    run(
        pool,
        "update postrider.receipt_flow set noted_at = now() - interval '3 seconds'",
    )
    .await;
    assert_eq!(decide(pool).await.resent, 1);
}

#[tokio::test]
async fn while_nobody_takes_receipts_nothing_is_decided_and_an_outage_postpones() {
    let database = world().await;
    let pool = database.pool();
    unknown(pool, 1).await;
    evidence(pool, "1 minute").await;
    run(
        pool,
        "update postrider.receiving set seen_at = now() - interval '100 seconds'",
    )
    .await;
    assert_eq!(
        resolve(pool, 1, 100).await.unwrap(),
        Resolved::default(),
        "an outage is under way"
    );
    assert_eq!(status(pool, 1).await, "unknown awaiting_receipt");

    let lasted = beat(pool).await.unwrap().unwrap();
    assert!((99..200).contains(&lasted.as_secs()), "{lasted:?}");
    assert_eq!(beat(pool).await.unwrap(), None, "it is over");
    assert_eq!(decide(pool).await.postponed, 1);
    // It ran for 80 s before the outage, which lasted 100 s and delays receipts for as long again: 40 s are left then.
    let wait: f64 = sqlx::query_scalar(
        "select extract(epoch from due_at - now())::float8 from postrider.queue where id = 1",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert!((100.0..145.0).contains(&wait), "{wait}");
    assert_eq!(decide(pool).await, Resolved::default());
}

#[tokio::test]
async fn beats_of_several_processes_note_an_outage_once() {
    let database = world().await;
    let pool = database.pool();
    run(
        pool,
        "update postrider.receiving set seen_at = now() - interval '100 seconds'",
    )
    .await;
    let (a, b, c) = tokio::join!(beat(pool), beat(pool), beat(pool));
    let noted = [a, b, c].into_iter().filter_map(Result::unwrap);
    assert_eq!(noted.count(), 1);
    assert_eq!(count(pool, "webhook_outage").await, 1);
}

#[tokio::test]
async fn of_several_instances_one_decides() {
    let database = world().await;
    let pool = database.pool();
    for job in 1..=50 {
        unknown(pool, job).await;
    }
    evidence(pool, "1 minute").await;
    run(pool, "update postrider.receiving set seen_at = now()").await;
    let decide = || async { resolve(pool, 1, 100).await.unwrap() };
    let (a, b, c) = tokio::join!(decide(), decide(), decide());
    assert_eq!(a.resent + b.resent + c.resent, 50);
    let twice: i64 = count(pool, "queue where tries <> 1 or resends <> 1").await;
    assert_eq!(twice, 0);
    assert_eq!(count(pool, "answer").await, 50);
}

#[tokio::test]
async fn a_receipt_that_is_here_and_not_folded_yet_comes_first() {
    let database = world().await;
    let pool = database.pool();
    unknown(pool, 1).await;
    evidence(pool, "1 minute").await;
    told(pool, 1, 1, "sent").await;
    assert_eq!(decide(pool).await, Resolved::default());
    assert_eq!(fold(pool, 10).await.unwrap().settled, 1);
    assert_eq!(status(pool, 1).await, "sent -");
}

#[tokio::test]
async fn what_may_not_go_again_is_given_up_and_a_late_receipt_finds_it() {
    let database = world().await;
    let pool = database.pool();
    for job in [1, 2, 3] {
        unknown(pool, job).await;
    }
    run(
        pool,
        "update postrider.queue set resends = 1 where id = 1;
         update postrider.queue set expires_at = now() where id = 2;
         insert into postrider.kind (name, priority, valid_for, resolve_after, on_unknown)
         values ('account', 1, '1 day', '2 min', 'stop');
         update postrider.queue set kind = 'account' where id = 3",
    )
    .await;
    evidence(pool, "1 minute").await;
    let mut given_up = decide(pool).await.given_up;
    given_up.sort();
    assert_eq!(given_up, ["account", "order", "order"]);
    for (job, receipt, state) in [
        (1, "delivered", "delivered -"),
        (2, "failed", "failed not_reachable_on_whatsapp"),
        (3, "sent", "sent -"),
    ] {
        assert_eq!(status(pool, job).await, "unknown outcome_unknown");
        told(pool, job, 1, receipt).await;
        fold(pool, 10).await.unwrap();
        assert_eq!(status(pool, job).await, state);
    }
    assert_eq!(count(pool, "dead_letter").await, 0);
}

#[tokio::test]
async fn the_first_attempts_receipt_settles_a_job_that_waits_to_go_again() {
    let database = world().await;
    let pool = database.pool();
    for (job, receipt, state) in [
        (1, "sent", "sent -"),
        (2, "failed", "failed not_reachable_on_whatsapp"),
    ] {
        resent(pool, job).await;
        told(pool, job, 1, receipt).await;
        assert_eq!(fold(pool, 10).await.unwrap().settled, 1);
        assert_eq!(status(pool, job).await, state);
    }
    assert_eq!(count(pool, "queue").await, 0);
    assert_eq!(count(pool, "receipt_inbox").await, 0);
}

#[tokio::test]
async fn while_the_second_attempt_is_open_its_answer_comes_first_and_the_receipt_is_not_lost() {
    let database = world().await;
    let pool = database.pool();
    for job in [1, 2] {
        resent(pool, job).await;
        run(
            pool,
            &format!("insert into postrider.attempt values (1, {job}, 2, 0, true, now())"),
        )
        .await;
        told(pool, job, 1, "delivered").await;
    }
    let report = fold(pool, 10).await.unwrap();
    assert_eq!((report.settled, report.parked), (0, 2));

    // One is taken the second time too; the other is put off, and waits without an open attempt.
    assert_eq!(taken(pool, 1, 2).await, 1);
    let throttled = Waiting {
        id: JobId(2),
        attempt: 2,
        answered: Answered {
            outcome: Outcome::Retry { spends: false }.as_str(),
            code: Some(130_429),
            http_status: Some(400),
            detail: None,
        },
        at: clock::now(),
        reason: postrider::rules::job::WaitReason::RateLimited,
        due_at: clock::now(),
        since: None,
        spends: false,
    };
    assert_eq!(settle::waiting(pool, &[throttled]).await.unwrap(), 1);
    run(pool, "update postrider.receipt_inbox set fold_at = now()").await;
    fold(pool, 10).await.unwrap();
    for job in [1, 2] {
        assert_eq!(status(pool, job).await, "delivered -", "{job}");
    }
    assert_eq!(count(pool, "queue").await, 0);
    assert_eq!(count(pool, "receipt_inbox").await, 0);
}

#[tokio::test]
async fn a_receipt_of_the_first_attempt_corrects_a_refusal_of_the_second() {
    let database = world().await;
    let pool = database.pool();
    resent(pool, 1).await;
    let refused = Dead {
        id: JobId(1),
        attempt: 2,
        answered: Some(Answered {
            outcome: "refused",
            code: Some(131_026),
            http_status: Some(400),
            detail: None,
        }),
        detail: None,
        at: clock::now(),
        state: State::Failed,
        reason: FinalReason::NotReachableOnWhatsapp,
        spends: true,
    };
    let ended = settle::dead(pool, &[refused]).await.unwrap();
    assert_eq!(states(&ended), ["failed"]);
    assert_eq!(status(pool, 1).await, "failed not_reachable_on_whatsapp");
    told(pool, 1, 2, "failed").await;
    fold(pool, 10).await.unwrap();
    assert_eq!(
        count(pool, "dead_letter").await,
        1,
        "the refused one was not taken"
    );
    told(pool, 1, 1, "delivered").await;
    fold(pool, 10).await.unwrap();
    assert_eq!(status(pool, 1).await, "delivered -");
}

#[tokio::test]
async fn an_answer_that_comes_after_the_decision_changes_nothing() {
    let database = world().await;
    let pool = database.pool();
    resent(pool, 1).await;
    assert_eq!(taken(pool, 1, 1).await, 0);
    let late = Waiting {
        id: JobId(1),
        attempt: 1,
        answered: Answered {
            outcome: "unknown",
            code: None,
            http_status: None,
            detail: None,
        },
        at: clock::now(),
        reason: postrider::rules::job::WaitReason::AwaitingReceipt,
        due_at: clock::now(),
        since: Some(clock::now()),
        spends: false,
    };
    assert_eq!(settle::waiting(pool, &[late]).await.unwrap(), 0);
    assert_eq!(queued(pool, 1).await, Some(("queued".into(), 1, 1)));
    assert_eq!(count(pool, "message").await, 0);
}

#[tokio::test]
async fn an_answer_does_not_take_back_the_time_that_a_take_over_gave() {
    let database = world().await;
    let pool = database.pool();
    unknown(pool, 1).await;
    run(
        pool,
        "update postrider.queue set unknown_since = now(), due_at = now() + interval '2 minutes'",
    )
    .await;
    let late = Waiting {
        id: JobId(1),
        attempt: 1,
        answered: Answered {
            outcome: "unknown",
            code: None,
            http_status: None,
            detail: None,
        },
        at: clock::now(),
        reason: postrider::rules::job::WaitReason::AwaitingReceipt,
        due_at: clock::now() - TimeDelta::minutes(1),
        since: Some(clock::now() - TimeDelta::minutes(3)),
        spends: false,
    };
    assert_eq!(settle::waiting(pool, &[late]).await.unwrap(), 1);
    evidence(pool, "-1 minute").await;
    assert_eq!(decide(pool).await, Resolved::default());
}

#[tokio::test]
async fn what_may_have_been_taken_never_ends_as_if_it_was_not() {
    let database = world().await;
    let pool = database.pool();
    for job in [1, 2, 3] {
        resent(pool, job).await;
    }
    run(
        pool,
        "update postrider.queue set expires_at = now() where id = 1",
    )
    .await;
    eventually("the job to end", || async {
        let ended = upkeep::expire(pool, 10).await.unwrap();
        (states(&ended) == ["unknown"]).then_some(())
    })
    .await;
    let answer: String = sqlx::query_scalar("select postrider.cancel(2)")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(answer, "too_late");
    let stopped = Dead {
        id: JobId(3),
        attempt: 2,
        answered: None,
        detail: Some("the recipient has opted out".into()),
        at: clock::now(),
        state: State::Rejected,
        reason: FinalReason::OptedOut,
        spends: false,
    };
    let ended = settle::dead(pool, &[stopped]).await.unwrap();
    assert_eq!(states(&ended), ["unknown"], "counted as what it became");
    for job in [1, 2, 3] {
        assert_eq!(status(pool, job).await, "unknown outcome_unknown", "{job}");
        told(pool, job, 1, "delivered").await;
        fold(pool, 10).await.unwrap();
        assert_eq!(status(pool, job).await, "delivered -", "{job}");
    }
}

#[tokio::test]
async fn an_unknown_job_that_is_withdrawn_is_not_sent_again() {
    let database = world().await;
    let pool = database.pool();
    unknown(pool, 1).await;
    evidence(pool, "1 minute").await;
    let answer: String = sqlx::query_scalar("select postrider.cancel(1)")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(answer, "too_late");
    assert_eq!(queued(pool, 1).await, Some(("unknown".into(), 0, 0)));
    assert_eq!(decide(pool).await.given_up, ["order"]);
}

#[tokio::test]
async fn an_urgent_job_rings_when_it_goes_out_again() {
    let database = world().await;
    let pool = database.pool();
    let mut listener = sqlx::postgres::PgListener::connect_with(pool)
        .await
        .unwrap();
    listener.listen("postrider_bell").await.unwrap();
    unknown(pool, 1).await;
    run(pool, "update postrider.queue set priority = 0").await;
    evidence(pool, "1 minute").await;
    assert_eq!(decide(pool).await.resent, 1);
    assert_eq!(listener.recv().await.unwrap().payload(), "1");
}
