//! Sender pools: jobs of a number that cannot send go out from another one, each once, unless the pool is strict.

#![cfg(test)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use common::{
    HEEDED, TestDatabase, eventually,
    rig::{Rig, recipients},
    sql,
};
use postrider::{
    rules::job::{JobId, Lane},
    sandbox::Setup,
    store::{
        attempt::{self, Held, Wanted},
        moves,
    },
};
use sqlx::{AssertSqlSafe, PgExecutor, PgPool};

const OURS: &str = "us";

/// The small world with lanes 1 to 4 in the default pool, whose shard we hold.
async fn world() -> TestDatabase {
    let database = sql::database().await;
    run(
        database.pool(),
        "update postrider.lease set instance = 'us', epoch = 3, expires_at = now() + interval '1 h' where shard = 1;
         update postrider.number set status = 'CONNECTED'",
    )
    .await;
    database
}

async fn run(pool: &PgPool, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

/// Where each job is.
async fn lanes(pool: &PgPool) -> BTreeMap<i64, i32> {
    sqlx::query_as::<_, (i64, i32)>("select id, lane from postrider.queue")
        .fetch_all(pool)
        .await
        .unwrap()
        .into_iter()
        .collect()
}

/// One order for each of `count` people.
async fn enqueue(pool: &PgPool, count: usize, tail: &str) -> Vec<i64> {
    let sql = format!(
        "select postrider.enqueue(recipient, 'order_confirmation', language => 'en_US'{tail})
         from unnest($1::text[]) recipient"
    );
    sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(recipients(count))
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn away(pool: &PgPool, usable: &[i32]) -> u64 {
    let usable: Vec<Lane> = usable.iter().copied().map(Lane).collect();
    let moved = moves::away(pool, OURS, Lane(1), &usable).await.unwrap();
    moved.iter().map(|(_, jobs)| jobs).sum()
}

fn on_first_lane(lanes: &BTreeMap<i64, i32>) -> usize {
    lanes.values().filter(|lane| **lane == 1).count()
}

#[tokio::test]
async fn jobs_go_where_enqueue_would_have_put_them_without_their_number() {
    let database = world().await;
    let pool = database.pool();
    let ids = enqueue(pool, 400, "").await;
    let before = lanes(pool).await;
    let theirs = on_first_lane(&before);
    assert!(theirs > 50, "{theirs}");
    let due_before: Vec<(i64, String)> =
        sqlx::query_as("select id, due_at::text from postrider.queue order by id")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(away(pool, &[1, 2, 3, 4]).await, theirs as u64);
    assert_eq!(away(pool, &[1, 2, 3, 4]).await, 0, "nothing is left");
    let after = lanes(pool).await;
    let due_after: Vec<(i64, String)> =
        sqlx::query_as("select id, due_at::text from postrider.queue order by id")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(due_before, due_after);

    run(
        pool,
        "update postrider.number set configured = false where lane = 1",
    )
    .await;
    let again = enqueue(pool, 400, "").await;
    let chosen = lanes(pool).await;
    for (job, twin) in ids.iter().zip(&again) {
        assert_eq!(after[job], chosen[twin]);
        assert!(before[job] == 1 || before[job] == after[job]);
    }
    let refilled: Vec<i32> = sqlx::query_scalar(
        "select lane from postrider.number where refilled_at > now() - interval '1 minute' order by lane",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    assert_eq!(refilled, [2, 3, 4]);
}

#[tokio::test]
async fn a_batch_is_bounded_and_takes_urgent_jobs_first() {
    let database = world().await;
    let pool = database.pool();
    run(
        pool,
        "update postrider.sender_pool set phone_number_ids = '{n1}' where name = 'default'",
    )
    .await;
    enqueue(pool, 1_100, ", priority => 'bulk'").await;
    let urgent = enqueue(pool, 100, ", priority => 'urgent'").await;
    run(
        pool,
        "update postrider.sender_pool set phone_number_ids = '{n1,n2}' where name = 'default'",
    )
    .await;
    assert_eq!(away(pool, &[2]).await, 1_000);
    let lanes = lanes(pool).await;
    assert!(urgent.iter().all(|job| lanes[job] == 2));
    assert_eq!(away(pool, &[2]).await, 200);
}

#[tokio::test]
async fn a_strict_pool_keeps_its_jobs_until_it_no_longer_has_their_number() {
    let database = world().await;
    let pool = database.pool();
    run(pool, "update postrider.sender_pool set strict = true").await;
    enqueue(pool, 40, "").await;
    let theirs = on_first_lane(&lanes(pool).await);
    assert_eq!(away(pool, &[2, 3, 4]).await, 0);
    run(
        pool,
        "update postrider.number set configured = false where lane = 1",
    )
    .await;
    assert_eq!(away(pool, &[2, 3, 4]).await, theirs as u64);
}

#[tokio::test]
async fn what_is_not_due_yet_stays_with_its_number() {
    let database = world().await;
    let pool = database.pool();
    enqueue(pool, 40, ", not_before => now() + interval '1 minute'").await;
    assert!(on_first_lane(&lanes(pool).await) > 0);
    assert_eq!(away(pool, &[2, 3, 4]).await, 0);
}

#[tokio::test]
async fn only_who_holds_the_lease_moves() {
    let database = world().await;
    let pool = database.pool();
    enqueue(pool, 40, "").await;
    assert!(moves::lanes(pool, OURS).await.unwrap().contains(&Lane(1)));
    for lost in ["instance = 'them'", "instance = 'us', expires_at = now()"] {
        run(
            pool,
            &format!("update postrider.lease set {lost} where shard = 1"),
        )
        .await;
        assert_eq!(away(pool, &[2, 3, 4]).await, 0, "{lost}");
        assert_eq!(moves::lanes(pool, OURS).await.unwrap(), [], "{lost}");
    }
}

#[tokio::test]
async fn a_job_goes_only_where_it_can_be_sent() {
    let database = world().await;
    let pool = database.pool();
    run(
        pool,
        "update postrider.sender_pool set phone_number_ids = '{n1}' where name = 'default';
         insert into postrider.account (waba_id, portfolio_id, app) values ('w2', 'p1', 'main');
         insert into postrider.number (phone_number_id, waba_id, shard, status) values ('m5', 'w2', 1, 'CONNECTED');
         insert into postrider.template (waba_id, name, language, status, category, revision, components)
         values ('w2', 'order_confirmation', 'en_US', 'PENDING', 'UTILITY', 9, '[]')",
    )
    .await;
    enqueue(pool, 1, "").await;
    let free: i64 = sqlx::query_scalar(
        r#"select postrider.enqueue_message('+905320000009', '{"type": "text", "text": {"body": "Hi"}}')"#,
    )
    .fetch_one(pool)
    .await
    .unwrap();
    run(
        pool,
        "update postrider.sender_pool set phone_number_ids = '{n1,m5}' where name = 'default'",
    )
    .await;
    let other: i32 =
        sqlx::query_scalar("select lane from postrider.number where phone_number_id = 'm5'")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(
        away(pool, &[other]).await,
        0,
        "the template is not approved there"
    );
    run(
        pool,
        "update postrider.template set status = 'APPROVED' where waba_id = 'w2'",
    )
    .await;
    assert_eq!(away(pool, &[other]).await, 1);
    assert_eq!(lanes(pool).await[&free], 1, "nobody wrote to that number");
    run(
        pool,
        &format!(
            "insert into postrider.service_window (person, lane, expires_at)
             select recipient_key, {other}, now() + interval '1 h' from postrider.queue where id = {free}"
        ),
    )
    .await;
    assert_eq!(away(pool, &[other]).await, 1);
}

#[tokio::test]
async fn a_number_whose_limit_is_used_up_takes_no_jobs_of_others() {
    let database = world().await;
    let pool = database.pool();
    enqueue(pool, 40, "").await;
    run(
        pool,
        "insert into postrider.setting values ('limit_scope', '\"number\"');
         insert into postrider.pool_usage (pool, messaging_limit, used, room_normal, room_urgent, at)
         values ('n2', 250, 240, 0, 10, now()), ('n3', 250, 240, 0, 10, now() - interval '2 minutes')",
    )
    .await;
    assert!(away(pool, &[2, 3]).await > 0);
    let after = lanes(pool).await;
    assert_eq!(on_first_lane(&after), 0);
    run(
        pool,
        "update postrider.queue set lane = 1; update postrider.pool_usage set at = now()",
    )
    .await;
    assert_eq!(away(pool, &[2, 3]).await, 0);
}

#[tokio::test]
async fn a_job_that_may_have_been_posted_stays_with_its_number() {
    let database = world().await;
    let pool = database.pool();
    let ids = enqueue(pool, 40, "").await;
    let first: Vec<i64> = lanes(pool)
        .await
        .into_iter()
        .filter_map(|(id, lane)| (lane == 1).then_some(id))
        .collect();
    let mut connection = pool.acquire().await.unwrap();
    // One is being sent, one was answered and waits for its next try, one is held by somebody else's transaction.
    sql::attempt(&mut connection, first[0], 1).await;
    sql::attempt(&mut connection, first[1], 1).await;
    sql::answer(&mut connection, first[1], 1, "retry").await;
    sql::attempt(&mut connection, first[2], 1).await;
    run(
        pool,
        &format!(
            "update postrider.queue set state = 'unknown' where id = {}",
            first[2]
        ),
    )
    .await;
    let mut other = pool.begin().await.unwrap();
    sqlx::query("select from postrider.queue where id = $1 for no key update")
        .bind(first[3])
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(away(pool, &[2, 3, 4]).await, first.len() as u64 - 3);
    let after = lanes(pool).await;
    let stayed: Vec<i64> = first.iter().copied().filter(|id| after[id] == 1).collect();
    assert_eq!(stayed, [first[0], first[2], first[3]]);
    assert_eq!(after.len(), ids.len());
}

/// Asks for an attempt of these jobs on the first lane, as memory that was read before they moved would.
async fn attempt_on_first(pool: &PgPool, ids: &[i64]) -> BTreeSet<i64> {
    let held = [Held { shard: 1, epoch: 3 }];
    let wanted: Vec<Wanted> = ids
        .iter()
        .map(|id| Wanted {
            id: JobId(*id),
            lane: Lane(1),
            tries: 0,
            shard: 1,
            recipient_hash: 0,
            counted: true,
        })
        .collect();
    let permitted = attempt::attempt(pool, &held, &wanted).await.unwrap();
    permitted.into_iter().map(|(id, _)| id.0).collect()
}

#[tokio::test]
async fn of_a_move_and_an_attempt_at_the_same_time_only_one_gets_the_job() {
    let database = world().await;
    let pool = database.pool();
    run(
        pool,
        "update postrider.sender_pool set phone_number_ids = '{n1}' where name = 'default'",
    )
    .await;
    let ids = enqueue(pool, 3_000, "").await;
    run(
        pool,
        "update postrider.sender_pool set phone_number_ids = '{n1,n2}' where name = 'default'",
    )
    .await;
    // Both have some, and a connection, before they race for the rest: neither gets all of it because the other is not there.
    let (rest, last) = ids.split_at(2_950);
    let (mut permitted, moved) = tokio::join!(attempt_on_first(pool, last), away(pool, &[2]));
    assert_eq!((permitted.len(), moved), (50, 1_000));
    let attempting = async {
        for some in rest.rchunks(50) {
            permitted.extend(attempt_on_first(pool, some).await);
        }
    };
    let moving = async { while away(pool, &[2]).await > 0 {} };
    tokio::join!(attempting, moving);
    while away(pool, &[2]).await > 0 {}
    let moved: BTreeSet<i64> = lanes(pool)
        .await
        .into_iter()
        .filter_map(|(id, lane)| (lane == 2).then_some(id))
        .collect();
    assert!(permitted.is_disjoint(&moved));
    assert_eq!(permitted.len() + moved.len(), ids.len());
    let late: Vec<i64> = moved.into_iter().collect();
    assert_eq!(attempt_on_first(pool, &late).await, BTreeSet::new());
}

const FAST: &str = "[pacing]\nmessages_per_second = 80\n";
const FIRST: &str = "200000000000001";
const SECOND: &str = "200000000000002";

/// One order for each of these people, through the pool `default`.
async fn orders(on: impl PgExecutor<'_>, to: &[String]) -> Vec<i64> {
    sqlx::query_scalar(
        "select postrider.enqueue(recipient, 'order_shipped',
                '{\"body\": {\"name\": \"Ada\", \"order\": \"1042\", \"carrier\": \"DHL\"}}', language => 'en_US')
         from unnest($1::text[]) recipient",
    )
    .bind(to)
    .fetch_all(on)
    .await
    .unwrap()
}

/// How often each job was accepted and from which number, by the provider's own book.
fn accepted(rig: &Rig) -> BTreeMap<i64, Vec<String>> {
    let mut from: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for entry in rig.sandbox.ledger().entries() {
        assert!(entry.accepted, "{entry:?}");
        let job = entry.job().expect("our callback data");
        from.entry(job).or_default().push(entry.number);
    }
    from
}

/// Jobs on the number.
async fn waiting_on(on: impl PgExecutor<'_>, number: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) from postrider.queue join postrider.number using (lane) where phone_number_id = $1",
    )
    .bind(number)
    .fetch_one(on)
    .await
    .unwrap()
}

#[tokio::test]
async fn jobs_of_a_paused_number_go_out_once_each_from_the_other() {
    let rig = Rig::new(Setup::quick().numbers(2, 1_000), FAST).await;
    let mut daemon = rig.daemon().await;
    let people = recipients(600);
    rig.opt_in(&people).await;
    // Paused while it is sending, so that some of its jobs are in memory, some attempted and some on the wire.
    let mut ids = orders(rig.pool(), &people).await;
    eventually("some to be sent", || async {
        (rig.sandbox.ledger().len() >= 40).then_some(())
    })
    .await;
    rig.postrider
        .does(&["pause", "number", FIRST, "--reason", "its phone is lost"]);
    // Until the daemon has heeded it the number still sends, perhaps all that it has: these come after that.
    tokio::time::sleep(HEEDED).await;
    let after = orders(rig.pool(), &people).await;
    rig.queue_is_empty().await;
    daemon.logs("go out from others").await;
    let by = accepted(&rig);
    assert!(after.iter().all(|id| by[id] == [SECOND]));
    ids.extend(after);
    // What is enqueued on it meanwhile does not wait another five seconds. Before the commit nobody moves it.
    let mut enqueueing = rig.pool().begin().await.unwrap();
    let late = orders(&mut *enqueueing, &people[..20]).await;
    assert!(
        waiting_on(&mut *enqueueing, FIRST).await > 0,
        "the hash knows no pauses"
    );
    enqueueing.commit().await.unwrap();
    rig.queue_is_empty().await;
    // And when it is back, its people's jobs stay with it.
    rig.postrider.does(&["resume", "number", FIRST]);
    daemon.logs("can send again").await;
    let back = orders(rig.pool(), &people[..20]).await;
    rig.queue_is_empty().await;

    let from = accepted(&rig);
    assert!(late.iter().all(|job| from[job] == [SECOND]));
    assert!(back.iter().any(|job| from[job] == [FIRST]));
    ids.extend(late);
    ids.extend(back);
    assert_eq!(from.len(), ids.len());
    let doubled: Vec<_> = from.iter().filter(|(_, from)| from.len() > 1).collect();
    assert!(doubled.is_empty(), "sent more than once: {doubled:?}");
}

#[tokio::test]
async fn jobs_of_a_strict_pool_wait_for_their_number() {
    let rig = Rig::new(Setup::quick().numbers(2, 1_000), FAST).await;
    let strict = rig
        .config
        .replace("[senders.default]\n", "[senders.default]\nsticky = true\n");
    rig.postrider.rewrite(&strict);
    rig.prepare().await;
    rig.postrider
        .does(&["pause", "number", FIRST, "--reason", "test"]);
    let _daemon = rig.daemon().await;
    let people = recipients(60);
    rig.opt_in(&people).await;
    orders(rig.pool(), &people).await;
    let theirs = waiting_on(rig.pool(), FIRST).await;
    assert!(theirs > 0);
    eventually("the other number's jobs to go", || async {
        (waiting_on(rig.pool(), SECOND).await == 0).then_some(())
    })
    .await;
    // Longer than a number must be stopped for its jobs to move.
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert_eq!(waiting_on(rig.pool(), FIRST).await, theirs);
    rig.postrider.does(&["resume", "number", FIRST]);
    rig.queue_is_empty().await;
    assert_eq!(accepted(&rig).len(), 60);
}

#[tokio::test]
async fn jobs_of_a_number_that_is_no_longer_configured_go_out_from_the_other() {
    let rig = Rig::new(Setup::quick().numbers(2, 1_000), FAST).await;
    rig.prepare().await;
    let people = recipients(60);
    rig.opt_in(&people).await;
    orders(rig.pool(), &people).await;
    assert!(waiting_on(rig.pool(), FIRST).await > 0);
    let without = rig.config.replace(
        &format!("[{FIRST:?}, {SECOND:?}]"),
        &format!("[{SECOND:?}]"),
    );
    assert_ne!(without, rig.config);
    rig.postrider.rewrite(&without);
    let _daemon = rig.daemon().await;
    rig.queue_is_empty().await;
    let from = accepted(&rig);
    assert_eq!(from.len(), 60);
    assert!(from.values().all(|from| *from == [SECOND]));
}
