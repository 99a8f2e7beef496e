//! Jobs whose request got no answer, with the real binary between a real database and the sandbox.

#![cfg(test)]

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{
    daemon::Postrider,
    eventually, free_port,
    rig::{Rig, recipients},
};
use postrider::{
    rules::job::JobId,
    sandbox::{Fault, FaultRule, Setup},
};
use serde_json::json;
use sqlx::PgPool;
use tokio::task::AbortHandle;

/// As short as the lease allows.
const RESOLVE_AFTER: Duration = Duration::from_secs(6);
const QUICK: &str = "request_timeout_ms = 500\n[pacing]\nmessages_per_second = 80\n\
                     [kinds.order]\nresolve_after_s = 6\n[kinds.delivery]\nresolve_after_s = 6\non_unknown = \"stop\"\n";

/// One notification of this kind.
async fn job(pool: &PgPool, recipient: &str, kind: &str) -> JobId {
    let id = sqlx::query_scalar(
        "select postrider.enqueue($1, 'order_shipped',
                '{\"body\": {\"name\": \"Ada\", \"order\": \"1042\", \"carrier\": \"DHL\"}}', language => 'en_US', kind => $2)",
    )
    .bind(recipient)
    .bind(kind)
    .fetch_one(pool)
    .await
    .unwrap();
    JobId(id)
}

/// Messages to other people that go out all the while, so that their receipts flow.
struct Traffic(AbortHandle);

impl Traffic {
    fn start(pool: &PgPool, people: &[String]) -> Self {
        let (pool, people) = (pool.clone(), people.to_vec());
        let sending = tokio::spawn(async move {
            for person in people.iter().cycle() {
                job(&pool, person, "order").await;
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
        Self(sending.abort_handle())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A rig in which `count` people have opted in.
async fn rig(setup: Setup, count: usize) -> (Rig, Vec<String>) {
    let rig = Rig::new(setup, QUICK).await;
    let people = recipients(count);
    rig.opt_in(&people).await;
    (rig, people)
}

/// How often each of these jobs was accepted, by the provider's own book.
fn accepted(rig: &Rig, jobs: &[JobId]) -> BTreeMap<i64, usize> {
    let times = |job: &JobId| {
        let entries = rig.sandbox.ledger().of_job(job.0);
        (job.0, entries.iter().filter(|entry| entry.accepted).count())
    };
    jobs.iter().map(times).collect()
}

/// Each exactly once.
fn assert_once(rig: &Rig, jobs: &[JobId]) {
    let mut times = accepted(rig, jobs);
    times.retain(|_, times| *times != 1);
    assert!(times.is_empty(), "not accepted exactly once: {times:?}");
}

async fn left(rig: &Rig, jobs: &[JobId]) -> i64 {
    sqlx::query_scalar("select count(*) from postrider.queue where id = any($1)")
        .bind(jobs.iter().map(|job| job.0).collect::<Vec<_>>())
        .fetch_one(rig.pool())
        .await
        .unwrap()
}

async fn all_settled(rig: &Rig, jobs: &[JobId]) {
    eventually("every job to leave the queue", || async {
        (left(rig, jobs).await == 0).then_some(())
    })
    .await;
}

/// The provider says something about a job's attempt, as if `installation` had sent it.
async fn tell(rig: &Rig, setup: &Setup, installation: &str, job: JobId, status: &str) {
    let (lane, day): (i32, String) = sqlx::query_as(
        "select lane, to_char(at at time zone 'UTC', 'YYMMDD') from postrider.attempt where job = $1 and attempt = 1",
    )
    .bind(job.0)
    .fetch_one(rig.pool())
    .await
    .unwrap();
    let update = json!({
        "id": format!("wamid.late{job}"),
        "status": status,
        "timestamp": postrider::clock::now().timestamp().to_string(),
        "recipient_id": "905321000000",
        "biz_opaque_callback_data": format!("pr1.{installation}.{job}.1.{lane}.{day}"),
    });
    let value = json!({
        "metadata": { "phone_number_id": setup.numbers[0].id },
        "statuses": [update],
    });
    rig.hears(setup, &value).await;
}

async fn installation(rig: &Rig) -> String {
    sqlx::query_scalar("select value #>> '{}' from postrider.setting where name = 'installation'")
        .fetch_one(rig.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn what_the_provider_took_without_an_answer_is_settled_by_its_receipt_and_sent_once() {
    let (rig, people) = rig(Setup::quick(), 60).await;
    let _daemon = rig.daemon().await;
    for fault in [
        Fault::ResetAfterAccepting,
        Fault::SilenceAfterAccepting,
        Fault::NoId,
        Fault::NotJson {
            http_status: 503,
            accepted: true,
        },
    ] {
        rig.sandbox.control().fault(FaultRule::share(0.2, fault));
    }
    let mut jobs = Vec::new();
    for person in &people {
        jobs.push(job(rig.pool(), person, "order").await);
    }
    all_settled(&rig, &jobs).await;
    assert_once(&rig, &jobs);
}

#[tokio::test]
async fn what_never_arrived_is_sent_again_when_receipts_of_later_messages_came() {
    let (rig, people) = rig(Setup::quick(), 40).await;
    let _daemon = rig.daemon().await;
    let _traffic = Traffic::start(rig.pool(), &people[10..]);
    let mut jobs = Vec::new();
    for person in &people[..10] {
        let lost = FaultRule::next(1, Fault::ResetBeforeBody).recipient(person);
        rig.sandbox.control().fault(lost);
        jobs.push(job(rig.pool(), person, "order").await);
    }
    rig.becomes(jobs[0], "unknown").await;
    let why = rig.postrider.run(&["why", &jobs[0].to_string()]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(
        why.contains("perhaps sent") && why.contains("decided at"),
        "{why}"
    );
    for job in &jobs {
        rig.arrives(*job).await;
    }
    assert_once(&rig, &jobs);
    let sooner: i64 = sqlx::query_scalar(
        "select count(*) from postrider.attempt first join postrider.attempt second using (job)
         where job = any($1) and first.attempt = 1 and second.attempt = 2 and second.at < first.at + $2::interval",
    )
    .bind(jobs.iter().map(|job| job.0).collect::<Vec<_>>())
    .bind(RESOLVE_AFTER)
    .fetch_one(rig.pool())
    .await
    .unwrap();
    assert_eq!(sooner, 0, "sent again too soon");
    let spent: i64 = sqlx::query_scalar("select sum(spent) from postrider.message")
        .fetch_one(rig.pool())
        .await
        .unwrap();
    assert_eq!(spent, 0);
}

#[tokio::test]
async fn without_any_receipt_nothing_is_sent_more_than_twice_and_late_ones_find_it() {
    let (rig, people) = rig(Setup::quick(), 3).await;
    let _daemon = rig.daemon().await;
    let control = rig.sandbox.control();
    control.pause_webhooks(true);
    control.fault(FaultRule::always(Fault::SilenceAfterAccepting));
    let mut jobs = Vec::new();
    for person in &people {
        jobs.push(job(rig.pool(), person, "order").await);
    }
    eventually("the jobs to be sent again", || async {
        (accepted(&rig, &jobs).values().sum::<usize>() == 6).then_some(())
    })
    .await;
    all_settled(&rig, &jobs).await;
    for job in &jobs {
        let (state, reason) = rig.job(*job).await;
        assert_eq!(
            (state.as_str(), reason.as_deref()),
            ("unknown", Some("outcome_unknown"))
        );
    }
    assert!(accepted(&rig, &jobs).values().all(|times| *times == 2));
    control.pause_webhooks(false);
    for job in &jobs {
        rig.arrives(*job).await;
    }
}

#[tokio::test]
async fn a_kind_that_stops_is_given_up_and_only_a_receipt_of_our_own_finds_it() {
    let setup = Setup::quick();
    let (rig, people) = rig(setup.clone(), 30).await;
    let _daemon = rig.daemon().await;
    let _traffic = Traffic::start(rig.pool(), &people[1..]);
    let lost = FaultRule::next(1, Fault::ResetBeforeBody).recipient(&people[0]);
    rig.sandbox.control().fault(lost);
    let id = job(rig.pool(), &people[0], "delivery").await;
    rig.becomes(id, "unknown").await;
    all_settled(&rig, &[id]).await;
    let listed = rig
        .postrider
        .run(&["jobs", "list", "--state", "unknown", "--json"]);
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(
        listed.contains("outcome_unknown") && listed.contains(&id.to_string()),
        "{listed}"
    );

    tell(&rig, &setup, "another", id, "delivered").await;
    eventually("the other installation's receipt to be kept", || async {
        let kept: bool = sqlx::query_scalar(
            "select exists (select from postrider.receipt where callback like 'pr1.another.%')",
        )
        .fetch_one(rig.pool())
        .await
        .unwrap();
        kept.then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.job(id).await.0, "unknown");

    let ours = installation(&rig).await;
    tell(&rig, &setup, &ours, id, "delivered").await;
    rig.becomes(id, "delivered").await;
    assert_eq!(accepted(&rig, &[id])[&id.0], 0, "it was not sent again");
}

#[tokio::test]
async fn while_no_webhook_takes_receipts_nothing_is_decided_and_nothing_is_sent_twice() {
    let (rig, people) = rig(Setup::quick(), 60).await;
    rig.prepare().await;
    let mut dispatch = rig.postrider.start(&["--only", "dispatch,upkeep,metrics"]);
    dispatch.logs("ready").await;
    let state = tempfile::tempdir().unwrap();
    let config = rig.config.replace(
        &format!("[ops]\nlisten = \"127.0.0.1:{}\"", rig.ops_port),
        &format!("[ops]\nlisten = \"127.0.0.1:{}\"", free_port()),
    );
    let own_state = format!("state_dir = {:?}\n", state.path());
    let config = own_state + config.split_once('\n').unwrap().1;
    let other = Postrider::new(&config);
    let mut webhook = other.start(&["--only", "webhook"]);
    webhook.logs("ready").await;
    webhook.terminate().await;

    // Some are taken without an answer, some never arrive.
    let control = rig.sandbox.control();
    control.fault(FaultRule::share(0.4, Fault::ResetAfterAccepting));
    for person in &people[..5] {
        control.fault(FaultRule::next(1, Fault::ResetBeforeBody).recipient(person));
    }
    let mut jobs = Vec::new();
    for person in &people {
        jobs.push(job(rig.pool(), person, "order").await);
    }
    tokio::time::sleep(3 * RESOLVE_AFTER).await;
    let waiting = left(&rig, &jobs).await;
    assert!(waiting > 5, "{waiting}");
    let waits: Vec<JobId> =
        sqlx::query_scalar("select id from postrider.queue order by id limit 1")
            .fetch_all(rig.pool())
            .await
            .unwrap()
            .into_iter()
            .map(JobId)
            .collect();
    let why = rig.postrider.run(&["why", &waits[0].to_string()]);
    let why = String::from_utf8_lossy(&why.stdout).into_owned();
    assert!(why.contains("its clock stands still"), "{why}");
    let status = rig.postrider.run(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("no webhook process"), "{status}");

    control.clear_faults();
    let mut webhook = other.start(&["--only", "webhook"]);
    webhook.logs("ready").await;
    rig.opt_in(&recipients(100)[60..]).await;
    let _traffic = Traffic::start(rig.pool(), &recipients(100)[60..]);
    // First those that were taken, by their receipts; the others when the clock has made up for the outage.
    eventually("receipts to settle what was taken", || async {
        (left(&rig, &jobs).await <= 5).then_some(())
    })
    .await;
    all_settled(&rig, &jobs).await;
    assert_once(&rig, &jobs);
}

#[tokio::test]
async fn what_a_killed_daemon_left_open_is_settled_or_sent_again_and_arrives_once() {
    let mut setup = Setup::quick();
    setup.latency = postrider::sandbox::Delay::fixed(150);
    let (rig, people) = rig(setup, 230).await;
    let daemon = rig.daemon().await;
    let mut jobs = Vec::new();
    for person in &people[..200] {
        jobs.push(job(rig.pool(), person, "order").await);
    }
    eventually("some to be on the wire", || async {
        (rig.sandbox.ledger().len() > 20).then_some(())
    })
    .await;
    daemon.kill();
    let _daemon = rig.daemon().await;
    let _traffic = Traffic::start(rig.pool(), &people[200..]);
    all_settled(&rig, &jobs).await;
    assert_once(&rig, &jobs);
}
