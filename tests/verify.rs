//! `postrider verify`: no false alarm on a busy system, and no job that is off goes unnoticed.

#![cfg(test)]

mod common;

use std::{
    process::Output,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    command::{objects, stderr, stdout, world},
    daemon::Postrider,
    eventually, get,
    rig::{Rig, recipients},
    sql,
};
use postrider::{
    rules::conservation::Horizon,
    sandbox::{Fault, FaultRule, Setup},
    store::verify::{self, Which},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgPool};

fn text(output: &Output) -> String {
    stdout(output) + &stderr(output)
}

/// Runs `verify --json`: its exit code, the jobs that it names, and the verdict.
fn verify(postrider: &Postrider, args: &[&str]) -> (i32, Vec<Value>, Value) {
    let output = postrider.run(&[&["verify", "--json"], args].concat());
    let mut lines = objects(&output);
    let Some(verdict) = lines.pop() else {
        panic!("no verdict: {}", text(&output));
    };
    (output.status.code().unwrap(), lines, verdict)
}

fn problems(named: &[Value]) -> Vec<(i64, &str)> {
    named
        .iter()
        .map(|off| {
            (
                off["job"].as_i64().unwrap(),
                off["problem"].as_str().unwrap(),
            )
        })
        .collect()
}

async fn run(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// As if so many ids had been given to transactions that were rolled back.
async fn skip_ids(pool: &PgPool, count: i64) {
    sqlx::query("select setval('postrider.job_id', last_value + $1) from postrider.job_id")
        .bind(count)
        .execute(pool)
        .await
        .unwrap();
}

async fn closed(pool: &PgPool) -> Vec<i64> {
    sqlx::query_scalar(
        "select range from postrider.verify_range where closed_at is not null order by range",
    )
    .fetch_all(pool)
    .await
    .unwrap()
}

#[tokio::test]
async fn every_job_that_is_off_is_named_with_what_is_known_of_it() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    let mut connection = pool.acquire().await.unwrap();
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.extend(sql::enqueue_some(&mut connection).await);
    }
    for job in &jobs[4..] {
        sql::attempt(&mut connection, *job, 1).await;
        sql::accept(&mut connection, *job, "sent", None).await;
    }
    sql::bury(&mut connection, jobs[3], "rejected", "no_opt_in").await;
    let (code, named, verdict) = verify(&postrider, &[]);
    assert_eq!((code, named.len()), (0, 0), "{verdict}");
    assert_eq!(verdict["jobs"], 12);
    assert_eq!(verdict["queue"], 3);
    assert_eq!(verdict["messages"], 8);
    assert_eq!(verdict["dead_letters"], 1);

    run(
        pool,
        &format!("delete from postrider.queue where id = {}", jobs[0]),
    )
    .await;
    // Taken twice, on two days.
    run(
        pool,
        &format!(
            "insert into postrider.message (day, job, attempt, lane, priority, state, kind, recipient, recipient_key,
               sender, producer, tries, spent, enqueued_at, accepted_at)
             select day - 1, job, attempt, lane, priority, state, kind, recipient, recipient_key,
               sender, producer, tries, spent, enqueued_at, accepted_at
             from postrider.message where job = {}",
            jobs[4]
        ),
    )
    .await;
    run(
        pool,
        &format!(
            "insert into postrider.queue (lane, priority, due_at, id, kind, recipient, recipient_key, content, sender,
               producer, enqueued_at, expires_at)
             select lane, priority, due_at, id, kind, recipient, recipient_key, '{{}}', sender, producer, enqueued_at,
               expires_at
             from postrider.dead_letter where id = {}",
            jobs[3]
        ),
    )
    .await;
    run(
        pool,
        &format!("delete from postrider.enqueued where job = {}", jobs[1]),
    )
    .await;
    run(
        pool,
        &format!("delete from postrider.attempt where job = {}", jobs[5]),
    )
    .await;
    run(
        pool,
        &format!(
            "insert into postrider.enqueued select * from postrider.enqueued where job = {}",
            jobs[2]
        ),
    )
    .await;

    let (code, named, verdict) = verify(&postrider, &[]);
    assert_eq!(code, 1);
    assert_eq!(
        problems(&named),
        [
            (jobs[0], "missing"),
            (jobs[1], "never_enqueued"),
            (jobs[2], "enqueued_twice"),
            (jobs[3], "in_several_places"),
            (jobs[4], "in_several_places"),
            (jobs[5], "not_written_before_sent"),
        ]
    );
    assert_eq!(verdict["off"], 6);
    assert_eq!(named[0]["kind"], "order");
    assert_eq!(named[4]["places"].as_array().unwrap().len(), 2);
    let told = text(&postrider.run(&["verify"]));
    for line in [
        format!("job {} was enqueued and is nowhere", jobs[0]),
        format!("job {} is in more than one place: message of ", jobs[4]),
        "6 OFF".to_owned(),
    ] {
        assert!(told.contains(&line), "{line} not in\n{told}");
    }
    let status = text(&postrider.run(&["status", "--check"]));
    assert!(
        status.contains("6 jobs are not in exactly one place"),
        "{status}"
    );
}

#[tokio::test]
async fn a_job_that_is_off_is_told_by_the_exit_code_although_nobody_reads_its_name() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    let jobs = sql::enqueue_some(&mut pool.acquire().await.unwrap()).await;
    for (off, code) in [(false, 0), (true, 1)] {
        if off {
            run(
                pool,
                &format!("delete from postrider.queue where id = {}", jobs[0]),
            )
            .await;
        }
        for args in [&["verify"][..], &["verify", "--json"]] {
            let output = postrider.run_unread(args);
            assert_eq!(
                output.status.code(),
                Some(code),
                "{args:?}: {}",
                text(&output)
            );
        }
    }
}

#[tokio::test]
async fn what_is_finished_is_closed_and_what_is_not_stays_open() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    let mut connection = pool.acquire().await.unwrap();
    let first = sql::enqueue_some(&mut connection).await;
    skip_ids(pool, verify::RANGE).await;
    let second = sql::enqueue_some(&mut connection).await;
    skip_ids(pool, verify::RANGE).await;
    for job in &first {
        sql::attempt(&mut connection, *job, 1).await;
        sql::accept(&mut connection, *job, "sent", None).await;
    }
    for job in &second[1..] {
        sql::bury(&mut connection, *job, "expired", "validity_ended").await;
    }
    assert_eq!(verify(&postrider, &[]).0, 0);
    assert_eq!(closed(pool).await, [0], "one of the second range waits");
    sql::bury(&mut connection, second[0], "failed", "retries_exhausted").await;
    let (code, _, verdict) = verify(&postrider, &[]);
    assert_eq!(code, 0);
    assert_eq!(verdict["jobs"], 4, "the first is not looked at again");
    assert_eq!(verdict["closed_before"], 4);
    assert_eq!(closed(pool).await, [0, 1], "the third may still get jobs");
    assert_eq!(verify(&postrider, &["--all"]).2["jobs"], 8);
    assert_eq!(closed(pool).await, [0, 1]);

    run(
        pool,
        &format!("delete from postrider.message where job = {}", first[0]),
    )
    .await;
    assert_eq!(verify(&postrider, &[]).0, 0, "it was proven before");
    let (code, named, _) = verify(&postrider, &["--all"]);
    assert_eq!(code, 1);
    assert_eq!(problems(&named), [(first[0], "missing")]);
    assert_eq!(closed(pool).await, [1], "what is off is open");
}

#[tokio::test]
async fn a_range_is_not_closed_while_a_transaction_may_add_a_job_to_it() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    let mut late = pool.begin().await.unwrap();
    let job = sql::enqueue(&mut late, "'+905321234567', 'order_confirmation'").await;
    skip_ids(pool, verify::RANGE).await;
    let mut horizon = Horizon::default();
    for _ in 0..3 {
        let newest = verify::newest(pool).await.unwrap();
        horizon.saw(newest, &verify::open_transactions(pool).await.unwrap());
    }
    assert_eq!(horizon.decided(), 0);
    let (code, _, verdict) = verify(&postrider, &[]);
    assert_eq!((code, &verdict["jobs"]), (0, &Value::from(0)));
    assert!(closed(pool).await.is_empty(), "it looks empty, and is not");
    late.commit().await.unwrap();
    let (code, _, verdict) = verify(&postrider, &[]);
    assert_eq!((code, &verdict["queue"]), (0, &Value::from(1)));
    assert!(closed(pool).await.is_empty(), "job {job} waits");
    let mut connection = pool.acquire().await.unwrap();
    sql::bury(&mut connection, job, "expired", "validity_ended").await;
    assert_eq!(verify(&postrider, &[]).0, 0);
    assert_eq!(closed(pool).await, [0]);
}

#[tokio::test]
async fn a_dead_letter_that_leaves_opens_its_range_and_no_look_closes_it_meanwhile() {
    let (database, postrider) = world().await;
    let pool = database.pool();
    let mut connection = pool.acquire().await.unwrap();
    let jobs = sql::enqueue_some(&mut connection).await;
    skip_ids(pool, verify::RANGE).await;
    for job in jobs {
        sql::bury(&mut connection, job, "rejected", "no_opt_in").await;
    }
    run(pool, "update postrider.dead_letter set content = '{}'").await;
    assert_eq!(verify(&postrider, &[]).0, 0);
    assert_eq!(closed(pool).await, [0]);

    let mut redriving = pool.begin().await.unwrap();
    let event: i64 = sqlx::query_scalar(
        "insert into postrider.operator_event (action, target) values ('redrive', 'test') returning id",
    )
    .fetch_one(&mut *redriving)
    .await
    .unwrap();
    sqlx::query("select postrider.redrive($1, array[$2])")
        .bind(event)
        .bind(jobs[0])
        .execute(&mut *redriving)
        .await
        .unwrap();
    // Not committed: everybody else still sees the dead letter, and a closed range. A look with leave to close it must not.
    run(
        pool,
        "insert into postrider.verify_range (range, closed_at) values (900, now())",
    )
    .await;
    let lock: bool =
        sqlx::query_scalar("select pg_try_advisory_lock(hashtext('postrider.verify'), 0)")
            .fetch_one(pool)
            .await
            .unwrap();
    assert!(!lock, "the range is held");
    redriving.commit().await.unwrap();
    assert_eq!(closed(pool).await, [900]);
    let (code, _, verdict) = verify(&postrider, &[]);
    assert_eq!((code, &verdict["queue"]), (0, &Value::from(1)));
    assert_eq!(closed(pool).await, [900]);
    sql::attempt(&mut connection, jobs[0], 1).await;
    sql::accept(&mut connection, jobs[0], "sent", None).await;
    assert_eq!(verify(&postrider, &[]).0, 0);
    assert_eq!(closed(pool).await, [0, 900]);
}

#[tokio::test]
async fn the_daemon_verifies_by_itself_and_its_metrics_raise_the_alarm() {
    let rig = Rig::new(Setup::quick(), "").await;
    rig.prepare().await;
    let people = recipients(2);
    for recipient in &people {
        sqlx::query(
            "select postrider.enqueue($1, 'order_shipped', not_before => now() + interval '1 day')",
        )
        .bind(recipient)
        .execute(rig.pool())
        .await
        .unwrap();
    }
    run(
        rig.pool(),
        "delete from postrider.queue where id = (select min(id) from postrider.queue)",
    )
    .await;
    run(
        rig.pool(),
        "update postrider.verify_range set looked_at = null",
    )
    .await;
    let mut daemon = rig.postrider.start(&[]);
    daemon.logs("was enqueued and is nowhere").await;
    eventually("the metric to tell of it", || async {
        let (_, metrics) = get(rig.ops_port, "/metrics").await?;
        metrics
            .contains("postrider_verify_jobs_off 1")
            .then_some(())
    })
    .await;
}

/// Enqueues for as long as it lasts: jobs that arrive, that nobody agreed to, that run out of time, that come back with errors,
/// in transactions that commit late or are rolled back, with gaps between the ids.
async fn produce(pool: PgPool, seed: u64, stop: Arc<AtomicBool>) -> usize {
    let mut chance = StdRng::seed_from_u64(seed);
    let people = recipients(400);
    let parameters = r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#;
    let mut jobs = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut tx = pool.begin().await.unwrap();
        let many = chance.random_range(1..40);
        for _ in 0..many {
            let soon = chance.random_ratio(1, 6);
            let tail = if soon {
                ", expires_at => clock_timestamp() + interval '300 ms', kind => 'travel'"
            } else {
                ""
            };
            sqlx::query_scalar::<_, i64>(AssertSqlSafe(format!(
                "select postrider.enqueue($1, 'order_shipped', $2::jsonb, language => 'en_US'{tail})"
            )))
            .bind(&people[chance.random_range(0..people.len())])
            .bind(parameters)
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        }
        if chance.random_ratio(1, 5) {
            tokio::time::sleep(Duration::from_millis(chance.random_range(1..800))).await;
        }
        if chance.random_ratio(1, 8) {
            tx.rollback().await.unwrap();
        } else {
            tx.commit().await.unwrap();
            jobs += many;
        }
        if chance.random_ratio(1, 10) {
            skip_ids(&pool, 4_000).await;
        }
        tokio::time::sleep(Duration::from_millis(chance.random_range(0..30))).await;
    }
    jobs
}

/// Cancels, redrives and drops for as long as it lasts.
async fn operate(pool: PgPool, postrider: Arc<Postrider>, stop: Arc<AtomicBool>) {
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let ids: Vec<i64> = sqlx::query_scalar(
            "select id from postrider.queue where id % 7 = $1 order by id desc limit 20",
        )
        .bind(round % 7)
        .fetch_all(&pool)
        .await
        .unwrap();
        for id in ids {
            sqlx::query("select postrider.cancel($1)")
                .bind(id)
                .execute(&pool)
                .await
                .unwrap();
        }
        // Each once, so that all of them end.
        let dead: Vec<i64> = sqlx::query_scalar(
            "select id from postrider.dead_letter d
             where content is not null and not exists (select from postrider.redriven r where r.job = d.id)
             order by id limit 50",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        let dead: Vec<String> = dead.iter().map(ToString::to_string).collect();
        let mut command = vec!["dead"];
        if round % 3 == 0 {
            command.extend(["drop", "--state", "cancelled", "--yes"]);
        } else if dead.is_empty() {
            command.extend(["list", "--summary"]);
        } else {
            command.extend(["redrive", "--valid-for", "1s", "--yes"]);
            command.extend(dead.iter().map(String::as_str));
        }
        let output = tokio::task::block_in_place(|| postrider.run(&command));
        assert!(
            [Some(0), Some(1)].contains(&output.status.code()),
            "{command:?}: {}",
            text(&output)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_busy_system_there_is_never_a_false_alarm() {
    let seed = common::seed();
    let rig = Rig::new(
        Setup::quick().numbers(3, 1_000),
        "[pacing]\nmessages_per_second = 200\n[dispatch]\nbackoff_first_ms = 50\n",
    )
    .await;
    let _daemon = rig.daemon().await;
    let people = recipients(300);
    rig.opt_in(&people).await;
    // What is paused expires, and moves to another number first.
    run(
        rig.pool(),
        "insert into postrider.pause (scope, target, source, reason) values ('kind', 'travel', 'operator', 'test');
         insert into postrider.pause (scope, target, source, reason)
         select 'number', max(phone_number_id), 'operator', 'test' from postrider.number",
    )
    .await;
    let refuse = |code| Fault::Refuse {
        code,
        http_status: None,
    };
    let control = rig.sandbox.control();
    control.fault(FaultRule::next(5, refuse(131_000)).recipient(&people[0]));
    control.fault(FaultRule::next(40, refuse(131_026)).recipient(&people[1]));
    control.fault(FaultRule::next(40, Fault::ResetAfterAccepting).recipient(&people[2]));
    control.fault(FaultRule::next(1, refuse(130_429)).recipient(&people[3]));

    let stop = Arc::new(AtomicBool::new(false));
    let producing: Vec<_> = (0..3)
        .map(|n| {
            tokio::spawn(produce(
                rig.pool().clone(),
                seed.wrapping_add(n),
                Arc::clone(&stop),
            ))
        })
        .collect();
    let operating = tokio::spawn(operate(
        rig.pool().clone(),
        Arc::clone(&rig.postrider),
        Arc::clone(&stop),
    ));
    let (began, mut rounds, mut closed_meanwhile) = (Instant::now(), 0, 0);
    let mut horizon = Horizon::default();
    while began.elapsed() < Duration::from_secs(7) || rounds < 3 {
        let args: &[&str] = if rounds % 3 == 2 { &["--all"] } else { &[] };
        let (code, named, verdict) = tokio::task::block_in_place(|| verify(&rig.postrider, args));
        assert_eq!(code, 0, "a false alarm: {verdict} {named:#?}");
        rounds += 1;
        // The command is too quick to see that older transactions have ended; who stays, as the daemon does, sees it.
        let newest = verify::newest(rig.pool()).await.unwrap();
        horizon.saw(
            newest,
            &verify::open_transactions(rig.pool()).await.unwrap(),
        );
        for range in verify::ranges(rig.pool(), Which::Open).await.unwrap() {
            let seen = verify::look(rig.pool(), range, horizon.decided())
                .await
                .unwrap();
            assert_eq!(seen.jobs_off, 0, "{seen:?}");
        }
        closed_meanwhile = closed_meanwhile.max(closed(rig.pool()).await.len());
    }
    stop.store(true, Ordering::Relaxed);
    let mut jobs = 0;
    for producing in producing {
        jobs += producing.await.unwrap();
    }
    operating.await.unwrap();
    rig.queue_is_empty().await;
    let ended = Instant::now();
    loop {
        let newest = verify::newest(rig.pool()).await.unwrap();
        horizon.saw(
            newest,
            &verify::open_transactions(rig.pool()).await.unwrap(),
        );
        let open = verify::ranges(rig.pool(), Which::Open).await.unwrap();
        if open == [newest / verify::RANGE] {
            break;
        }
        assert!(
            ended.elapsed() < Duration::from_secs(120),
            "{open:?} stay open"
        );
        for range in open {
            verify::look(rig.pool(), range, horizon.decided())
                .await
                .unwrap();
        }
    }
    let states = rig.states().await;
    let (code, named, verdict) = verify(&rig.postrider, &["--all"]);
    eprintln!(
        "{rounds} rounds, {jobs} jobs, {closed_meanwhile} ranges closed meanwhile, {verdict}, {states:?}"
    );
    assert_eq!(code, 0, "{named:#?}");
    assert_eq!(verdict["jobs"], jobs);
}

/// A million jobs, of which 50,000 wait, in order and with a few messages of each of three days.
async fn a_million_jobs(pool: &PgPool) {
    let fill = "
        insert into postrider.enqueued (job, producer, kind, at) select n, 'shop', 'order', now() from generate_series(1, 1000000) n;
        insert into postrider.queue (lane, priority, due_at, id, kind, recipient, recipient_key, template, language,
                                     content, sender, producer, enqueued_at, expires_at)
            select n % 200 + 1, n % 3, now(), n, 'order', '+90532' || 1000000 + n,
                   '+90532' || 1000000 + n, 'order_confirmation', 'en', '{}', 'default', 'p', now(), now() + interval '1 day'
            from generate_series(950001, 1000000) n;
        insert into postrider.message (day, job, attempt, lane, priority, state, kind, recipient, recipient_key, sender,
                                       producer, tries, spent, enqueued_at, accepted_at)
            select (now() at time zone 'utc')::date - 1 + n / 320000, n, 1, 1, 1, 'accepted', 'order', '+1', '+1', 'default', 'p', 1, 0,
                   now(), now()
            from generate_series(1, 940000) n;
        insert into postrider.attempt (lane, job, attempt, recipient_hash, counted, at)
            select 1, n, 1, n, true, now() - interval '1 day' + n / 320000 * interval '1 day' from generate_series(1, 940000) n;
        insert into postrider.dead_letter (id, state, reason, ended_at, lane, priority, due_at, tries, spent, resends, kind,
                                           recipient, recipient_key, sender, producer, enqueued_at, expires_at)
            select n, 'failed', 'retries_exhausted', now(), 1, 1, now(), 3, 3, 0, 'order', '+1', '+1', 'default', 'p', now(), now()
            from generate_series(940001, 950000) n;
        select setval('postrider.job_id', 1000000)";
    for statement in fill.split(';') {
        run(pool, statement).await;
    }
}

#[tokio::test]
async fn a_million_jobs_are_proven_without_reading_a_table_whole() {
    let database = common::database().await;
    let pool = database.pool();
    a_million_jobs(pool).await;
    verify::prepare(pool, 1_000_000).await.unwrap();
    let look = include_str!("../src/store/verify_look.sql");
    for analyzed in [false, true] {
        if analyzed {
            run(pool, "analyze").await;
        }
        let mut looking = pool.begin().await.unwrap();
        verify::by_indexes(&mut looking).await.unwrap();
        let plan: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
            "explain (analyze, costs off, timing off, summary off) {look}"
        )))
        .bind(500_000_i64)
        .bind(510_000_i64)
        .bind(100_i64)
        .fetch_all(&mut *looking)
        .await
        .unwrap();
        looking.rollback().await.unwrap();
        let plan = plan.join("\n");
        let whole = plan.lines().filter(|line| line.contains("Seq Scan on"));
        // Partitions of days without a row have no better plan.
        let whole: Vec<_> = whole
            .filter(|line| !line.contains("(actual rows=0"))
            .collect();
        assert!(whole.is_empty(), "{plan}");
        assert!(plan.contains("Bitmap Index Scan on enqueued"), "{plan}");
    }
    let began = Instant::now();
    let ranges = verify::ranges(pool, Which::Open).await.unwrap();
    let mut slowest = Duration::ZERO;
    let (mut jobs, mut off) = (0, 0);
    for range in &ranges {
        let one = Instant::now();
        let seen = verify::look(pool, *range, 1_000_000).await.unwrap();
        slowest = slowest.max(one.elapsed());
        jobs += seen.jobs;
        off += seen.jobs_off;
    }
    let took = began.elapsed();
    eprintln!(
        "{jobs} jobs in {} ranges in {took:?}, {:?} a job, the slowest range {slowest:?}",
        ranges.len(),
        took / 1_000_000
    );
    assert_eq!((jobs, off), (1_000_000, 0));
    assert_eq!(closed(pool).await.len(), 95);
}
