//! Dead letters: listed, redriven under their ids, dropped for good, by the real binary.

#![cfg(test)]

mod common;

use std::sync::Arc;

use common::{
    command::{objects, stderr, stdout, world},
    eventually,
    rig::{Rig, recipients},
    sql,
};
use postrider::{rules::job::JobId, sandbox::Setup, store::dead::BATCH_MAX};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

const PARAMETERS: &str = r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#;

/// A dead letter that still has its content, reference and batch.
async fn dead(connection: &mut PgConnection, arguments: &str, state: &str, reason: &str) -> i64 {
    let job = sql::enqueue(connection, arguments).await;
    let (content, reference, batch): (Value, Option<String>, Option<String>) =
        sqlx::query_as("select content, reference, batch from postrider.queue where id = $1")
            .bind(job)
            .fetch_one(&mut *connection)
            .await
            .unwrap();
    sql::bury(connection, job, state, reason).await;
    sqlx::query(
        "update postrider.dead_letter set content = $2, reference = $3, batch = $4 where id = $1",
    )
    .bind(job)
    .bind(content)
    .bind(reference)
    .bind(batch)
    .execute(connection)
    .await
    .unwrap();
    job
}

/// So many dead letters that can be redriven, all ended at the same time; there may be none before.
async fn many_dead(pool: &PgPool, count: i64) {
    sqlx::query(
        "insert into postrider.dead_letter (id, state, reason, ended_at, lane, priority, due_at, tries, spent, resends, kind,
           recipient, recipient_key, content, sender, producer, enqueued_at, expires_at)
         select nextval('postrider.job_id'), 'failed', 'retries_exhausted', now(), 1, 1, now(), 3, 3, 0, 'order', '+1', '+1', '{}',
           'default', 'p', now(), now() from generate_series(1, $1)",
    )
    .bind(count)
    .execute(pool)
    .await
    .unwrap();
    sqlx::query("insert into postrider.enqueued select id, producer, kind, enqueued_at from postrider.dead_letter")
        .execute(pool)
        .await
        .unwrap();
}

const ORDER: &str = "'+905321234567', 'order_confirmation', '{\"body\": [\"Ada\", \"1042\"]}'";

async fn queued(pool: &PgPool) -> Vec<i64> {
    sqlx::query_scalar("select id from postrider.queue order by id")
        .fetch_all(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_redriven_job_goes_out_under_its_id_and_tells_who_sent_it_again() {
    let rig = Rig::new(Setup::quick(), "").await;
    let _daemon = rig.daemon().await;
    let people = recipients(2);
    let mut ids = Vec::new();
    for recipient in &people {
        let id: i64 = sqlx::query_scalar(
            "select postrider.enqueue($1, 'order_shipped', $2::jsonb, language => 'en_US', reference => 'order-1042')",
        )
        .bind(recipient)
        .bind(PARAMETERS)
        .fetch_one(rig.pool())
        .await
        .unwrap();
        ids.push(JobId(id));
    }
    for id in &ids {
        rig.becomes(*id, "rejected").await;
    }
    // One agrees after all; the other is stopped at the gate again.
    rig.opt_in(&people[..1]).await;
    let redriven = rig.postrider.run(&[
        "dead",
        "redrive",
        "--reason",
        "no_opt_in",
        "--why",
        "they were asked",
        "--yes",
    ]);
    assert!(redriven.status.success(), "{}", stderr(&redriven));
    assert!(
        stdout(&redriven).contains("redriven: 2 jobs"),
        "{}",
        stdout(&redriven)
    );
    rig.arrives(ids[0]).await;
    rig.becomes(ids[1], "rejected").await;
    assert_eq!(rig.sandbox.ledger().of_job(ids[0].0).len(), 1);
    assert!(rig.sandbox.ledger().of_job(ids[1].0).is_empty());

    let id = ids[0].to_string();
    for command in [["jobs", "show", &id].as_slice(), &["why", &id]] {
        let told = stdout(&rig.postrider.run(command));
        assert!(told.contains("redriven by "), "{told}");
        assert!(
            told.contains(": they were asked (it had ended as rejected, no_opt_in)"),
            "{told}"
        );
    }
    let history = stdout(&rig.postrider.run(&["history", "--action", "redrive"]));
    assert!(
        history.contains("dead letters: reason no_opt_in"),
        "{history}"
    );
    assert!(history.contains("2 jobs, they were asked"), "{history}");
    let verified = rig.postrider.run(&["verify"]);
    assert!(verified.status.success(), "{}", stdout(&verified));
}

#[tokio::test]
async fn an_unknown_job_is_redriven_only_by_name_and_its_open_attempt_keeps_its_number() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    let mut connection = pool.acquire().await.unwrap();
    let job = sql::enqueue(&mut connection, ORDER).await;
    sql::attempt(&mut connection, job, 1).await;
    sqlx::query("update postrider.queue set spent = 0, resends = 1 where id = $1")
        .bind(job)
        .execute(&mut *connection)
        .await
        .unwrap();
    sql::bury(&mut connection, job, "unknown", "outcome_unknown").await;
    sqlx::query("update postrider.dead_letter set content = '{}'")
        .execute(pool)
        .await
        .unwrap();
    let output = postrider.run(&["dead", "redrive", "--kind", "order", "--yes"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stdout(&output).contains("1 may have been sent (state unknown) and are left out"),
        "{}",
        stdout(&output)
    );
    assert!(queued(pool).await.is_empty());

    let output = postrider.run(&["dead", "redrive", "--state", "unknown"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (tries, spent, resends, state): (i32, i32, i32, String) =
        sqlx::query_as("select tries, spent, resends, state from postrider.queue where id = $1")
            .bind(job)
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!((tries, spent, resends, state.as_str()), (1, 0, 1, "queued"));
    let answers: Vec<(i32, String)> =
        sqlx::query_as("select attempt, outcome from postrider.answer where job = $1")
            .bind(job)
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(answers, [(1, "unknown".to_owned())]);
    // Nothing is open, so it can go, or be withdrawn; but nobody can say that it never left.
    assert_eq!(sql::cancel(&mut connection, job).await, "too_late");
    assert!(queued(pool).await.is_empty());
}

#[tokio::test]
async fn jobs_without_content_are_refused_with_their_number_and_why() {
    let (database, postrider) = world().await;
    let mut connection = database.pool().acquire().await.unwrap();
    for _ in 0..3 {
        let job = sql::enqueue(
            &mut connection,
            "'+905321234567', 'login_code', '{\"code\": \"1\"}'",
        )
        .await;
        sql::bury(&mut connection, job, "failed", "retries_exhausted").await;
    }
    let order = dead(&mut connection, ORDER, "failed", "retries_exhausted").await;
    let cancelled = sql::enqueue(&mut connection, ORDER).await;
    sql::cancel(&mut connection, cancelled).await;

    let dry = postrider.run(&["dead", "redrive", "--all", "--dry-run"]);
    assert!(dry.status.success(), "{}", stderr(&dry));
    let told = stdout(&dry);
    for line in [
        "3 of kind otp cannot be redriven: their content is gone (it was not kept)",
        "1 of kind order cannot be redriven: their content is gone (cancelled)",
        "would be redriven: 1 job",
    ] {
        assert!(told.contains(line), "{line} not in\n{told}");
    }
    assert!(
        queued(database.pool()).await.is_empty(),
        "a dry run does nothing"
    );

    let output = postrider.run(&["dead", "redrive", "--all", "--yes", "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(objects(&output).pop().unwrap()["jobs"], 1);
    assert_eq!(queued(database.pool()).await, [order]);

    let named = postrider.run(&["dead", "redrive", &cancelled.to_string()]);
    assert_eq!(named.status.code(), Some(1));
    assert!(stdout(&named).contains("(cancelled)"), "{}", stdout(&named));
}

#[tokio::test]
async fn many_are_touched_only_when_somebody_said_so() {
    let (database, postrider) = world().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(dead(&mut connection, ORDER, "failed", "retries_exhausted").await);
    }
    let one = jobs[0].to_string();
    for (command, code) in [
        (vec!["dead", "redrive"], 64),
        (
            vec!["dead", "redrive", "--all", "--kind", "order", "--yes"],
            64,
        ),
        (vec!["dead", "redrive", "--kind", "order"], 64),
        (vec!["dead", "drop", "--kind", "order"], 64),
        (vec!["dead", "drop", &one], 64),
        (vec!["dead", "redrive", "--kind", "travel", "--yes"], 1),
        (vec!["dead", "list", "--state", "sent"], 64),
    ] {
        let output = postrider.run(&command);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{command:?}: {}",
            stderr(&output)
        );
    }
    assert_eq!(sql::count(&database, "postrider.dead_letter").await, 3);
    let output = postrider.run(&["dlq", "redrive", &one]);
    assert!(
        output.status.success(),
        "one that was named: {}",
        stderr(&output)
    );
    assert_eq!(queued(database.pool()).await, [jobs[0]]);
}

/// The job of the reference `late` ends as soon as a dead letter has left.
const ENDS_LATE: &str = "
    create function public.end_late() returns trigger language plpgsql as $$
    begin
      with gone as (delete from postrider.queue where reference = 'late' returning *)
      insert into postrider.dead_letter (id, state, reason, ended_at, lane, priority, due_at, tries, spent, resends, kind,
        recipient, recipient_key, template, language, content, sender, producer, enqueued_at, expires_at, reference)
      select id, 'failed', 'retries_exhausted', clock_timestamp(), lane, priority, due_at, tries, spent, resends, kind,
        recipient, recipient_key, template, language, content, sender, producer, enqueued_at, expires_at, reference
      from gone;
      return null;
    end
    $$;
    create trigger end_late after delete on postrider.dead_letter for each statement execute function public.end_late()";

#[tokio::test]
async fn what_ends_meanwhile_was_not_agreed_to_and_stays() {
    for command in ["redrive", "drop"] {
        let (database, postrider) = world().await;
        let pool = database.pool();
        // One more than a statement takes, so that it looks for others after the first.
        let count = BATCH_MAX + 1;
        many_dead(pool, count).await;
        // Its id comes after all of theirs: that look would find it.
        let late = sql::enqueue(
            &mut pool.acquire().await.unwrap(),
            &format!("{ORDER}, reference => 'late'"),
        )
        .await;
        sqlx::raw_sql(ENDS_LATE).execute(pool).await.unwrap();
        let output = postrider.run(&["dead", command, "--all", "--yes", "--json"]);
        assert!(output.status.success(), "{command}: {}", stderr(&output));
        let said = objects(&output).pop().unwrap();
        assert_eq!(said["jobs"], count, "{command}");
        let left: Vec<i64> = sqlx::query_scalar("select id from postrider.dead_letter")
            .fetch_all(pool)
            .await
            .unwrap();
        assert_eq!(left, [late], "{command}");
        let verified = postrider.run(&["verify"]);
        assert!(verified.status.success(), "{}", stdout(&verified));
    }
}

#[tokio::test]
async fn it_is_done_and_ends_as_it_would_although_nobody_reads_what_is_said_of_it() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    let mut connection = pool.acquire().await.unwrap();
    let one = dead(&mut connection, ORDER, "failed", "retries_exhausted").await;
    let other = dead(&mut connection, ORDER, "failed", "retries_exhausted").await;
    let ids = [one.to_string(), other.to_string()];
    let redriven = postrider.run_unread(&["dead", "redrive", &ids[0]]);
    assert_eq!(redriven.status.code(), Some(0), "{}", stderr(&redriven));
    assert_eq!(queued(pool).await, [one]);
    let dropped = postrider.run_unread(&["dead", "drop", &ids[0], &ids[1], "--yes"]);
    assert_eq!(
        dropped.status.code(),
        Some(1),
        "one is no dead letter any more: {}",
        stderr(&dropped)
    );
    assert_eq!(sql::count(&database, "postrider.dropped").await, 1);
    let nothing = postrider.run_unread(&["dead", "drop", "--all", "--yes"]);
    assert_eq!(nothing.status.code(), Some(1), "{}", stderr(&nothing));
}

#[tokio::test]
async fn what_is_dropped_is_gone_and_yet_accounted_for() {
    let (database, postrider) = world().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let old = dead(&mut connection, ORDER, "failed", "retries_exhausted").await;
    let new = dead(&mut connection, ORDER, "expired", "validity_ended").await;
    sqlx::query(
        "update postrider.dead_letter set ended_at = now() - interval '100 days' where id = $1",
    )
    .bind(old)
    .execute(&mut *connection)
    .await
    .unwrap();
    let output = postrider.run(&[
        "dead",
        "drop",
        "--older-than",
        "90d",
        "--yes",
        "--why",
        "too old",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stdout(&output).contains("dropped: 1 job"),
        "{}",
        stdout(&output)
    );
    let left: Vec<i64> = sqlx::query_scalar("select id from postrider.dead_letter")
        .fetch_all(database.pool())
        .await
        .unwrap();
    assert_eq!(left, [new]);

    for command in ["jobs show", "why"] {
        let args: Vec<String> = command
            .split(' ')
            .map(str::to_owned)
            .chain([old.to_string()])
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = postrider.run(&args);
        assert_eq!(output.status.code(), Some(1));
        assert!(
            stdout(&output).contains("UTC it was dropped by "),
            "{}",
            stdout(&output)
        );
    }
    let verified = postrider.run(&["verify", "--json"]);
    assert!(verified.status.success(), "{}", stdout(&verified));
    let verdict = objects(&verified).pop().unwrap();
    assert_eq!(
        (&verdict["dropped"], &verdict["dead_letters"]),
        (&Value::from(1), &Value::from(1))
    );
}

#[tokio::test]
async fn the_list_finds_masks_and_counts() {
    let (database, postrider) = world().await;
    let mut connection = database.pool().acquire().await.unwrap();
    let order = dead(
        &mut connection,
        &format!("{ORDER}, reference => 'r-1', batch => 'b-1'"),
        "failed",
        "retries_exhausted",
    )
    .await;
    let travel = dead(
        &mut connection,
        "'+4915112345678', 'boarding', '{\"body\": {\"gate\": \"B7\"}}', kind => 'travel'",
        "rejected",
        "no_opt_in",
    )
    .await;
    sqlx::query(
        "update postrider.dead_letter set ended_at = now() - interval '2 hours' where id = $1",
    )
    .bind(travel)
    .execute(&mut *connection)
    .await
    .unwrap();
    let number: String = sqlx::query_scalar(
        "select phone_number_id from postrider.number join postrider.dead_letter using (lane) where id = $1",
    )
    .bind(order)
    .fetch_one(database.pool())
    .await
    .unwrap();
    let (first, second) = (order.to_string(), travel.to_string());
    for (filter, expected) in [
        (vec![], vec![order, travel]),
        (vec!["--state", "failed"], vec![order]),
        (
            vec!["--state", "failed", "--state", "rejected"],
            vec![order, travel],
        ),
        (vec!["--reason", "no_opt_in"], vec![travel]),
        (vec!["--kind", "travel"], vec![travel]),
        (vec!["--older-than", "1h"], vec![travel]),
        (vec!["--newer-than", "1h"], vec![order]),
        (vec!["--batch", "b-1"], vec![order]),
        (vec!["--reference", "r-1"], vec![order]),
        (vec!["--recipient", "+4915112345678"], vec![travel]),
        (vec!["--number", &number, "--kind", "order"], vec![order]),
        (vec!["--number", "999"], vec![]),
        (vec![&second], vec![travel]),
        (vec![&first, &second, "--kind", "order"], vec![order]),
        (vec!["--limit", "1"], vec![order]),
    ] {
        let output = postrider.run(&[&["dead", "list", "--json"], filter.as_slice()].concat());
        let ids: Vec<i64> = objects(&output)
            .iter()
            .map(|row| row["id"].as_i64().unwrap())
            .collect();
        assert_eq!(ids, expected, "{filter:?}: {}", stderr(&output));
    }
    let table = stdout(&postrider.run(&["dead", "list", "--limit", "1"]));
    assert!(
        table.contains("+90•••••4567") && !table.contains("5321234567"),
        "{table}"
    );
    assert!(table.contains("1 of 2; --limit shows more"), "{table}");
    let whole = stdout(&postrider.run(&["dead", "list", "--reveal"]));
    assert!(whole.contains("+905321234567"), "{whole}");
    let summary = objects(&postrider.run(&["dead", "list", "--summary", "--json"]));
    assert_eq!(summary.len(), 2);
    assert_eq!(
        (&summary[0]["jobs"], &summary[0]["redrivable"]),
        (&Value::from(1), &Value::from(1))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_redrive_the_same_thousands_each_gets_every_job_once() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    many_dead(pool, 4_500).await;
    let both: Vec<_> = (0..2)
        .map(|_| {
            let postrider = Arc::clone(&postrider);
            tokio::task::spawn_blocking(move || {
                postrider.run(&["dead", "redrive", "--all", "--yes", "--valid-for", "2h"])
            })
        })
        .collect();
    eventually("some to be redriven", || async {
        (!queued(pool).await.is_empty()).then_some(())
    })
    .await;
    for one in both {
        let output = one.await.unwrap();
        assert!(
            [Some(0), Some(1)].contains(&output.status.code()),
            "{}",
            stderr(&output)
        );
    }
    // What one of them held was left to it; whatever is left over goes now.
    postrider.run(&["dead", "redrive", "--all", "--yes"]);
    assert_eq!(queued(pool).await.len(), 4_500);
    assert_eq!(sql::count(&database, "postrider.redriven").await, 4_500);
    let counted: i64 = sqlx::query_scalar(
        "select sum((detail->>'jobs')::bigint)::bigint from postrider.operator_event where action = 'redrive'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(counted, 4_500);
    let wrong: i64 = sqlx::query_scalar(
        "select count(*) from postrider.queue
         where tries <> 3 or spent <> 0 or expires_at not between now() + interval '1 hour' and now() + interval '25 hours'",
    )
    .fetch_one(pool)
    .await
    .unwrap();
    assert_eq!(wrong, 0);
    let verified = postrider.run(&["verify"]);
    assert!(verified.status.success(), "{}", stdout(&verified));
}
