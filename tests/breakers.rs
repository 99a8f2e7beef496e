//! What the provider's answers stop, end to end: number, account or template, and nothing else; everybody can see why; and it
//! goes on when somebody says so.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::{
    HEEDED,
    daemon::Daemon,
    eventually, pacing,
    rig::{Rig, recipients},
};
use postrider::{
    rules::job::JobId,
    sandbox::{Delay, Entry, Fault, FaultRule, Setup},
};

const FAST: &str = "[pacing]\nmessages_per_second = 80\n[dispatch]\nbackoff_first_ms = 100\n";
const SHIPPED: &str = r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#;
const WINDOW: &str = r#"{"header": "PR-1", "body": ["Ada", "Monday"]}"#;

/// A job that waited for a moment only has gone by then.
const MOMENT: Duration = Duration::from_millis(2_500);

/// A daemon with two numbers of one account. What waits for one of them does not move to the other.
async fn rig() -> (Rig, Daemon) {
    let rig = Rig::new(Setup::quick().numbers(2, 80), FAST).await;
    let strict = rig
        .config
        .replace("[senders.default]\n", "[senders.default]\nsticky = true\n");
    rig.postrider.rewrite(&strict);
    let daemon = rig.daemon().await;
    rig.opt_in(&recipients(400)).await;
    (rig, daemon)
}

fn refuse(code: i32) -> FaultRule {
    FaultRule::next(
        1,
        Fault::Refuse {
            code,
            http_status: None,
        },
    )
}

async fn job(rig: &Rig, recipient: &str, template: &str, parameters: &str) -> JobId {
    let id = sqlx::query_scalar("select postrider.enqueue($1, $2, $3::jsonb, language => 'en_US')")
        .bind(recipient)
        .bind(template)
        .bind(parameters)
        .fetch_one(rig.pool())
        .await
        .unwrap();
    JobId(id)
}

async fn order(rig: &Rig, recipient: &str) -> JobId {
    job(rig, recipient, "order_shipped", SHIPPED).await
}

async fn text(rig: &Rig, sql: &str, about: &str) -> String {
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()))
        .bind(about)
        .fetch_one(rig.pool())
        .await
        .unwrap()
}

async fn number_of(rig: &Rig, id: JobId) -> String {
    text(
        rig,
        "select number from postrider.job_status where id = $1::bigint",
        &id.0.to_string(),
    )
    .await
}

async fn account(rig: &Rig) -> String {
    text(
        rig,
        "select waba_id from postrider.account where $1 = ''",
        "",
    )
    .await
}

/// What `number_status` says of pauses of a number.
async fn paused(rig: &Rig, number: &str) -> String {
    let sql = "select coalesce(paused, '') from postrider.number_status where number = $1";
    text(rig, sql, number).await
}

/// People whose jobs go by one number, and people whose jobs go by another.
async fn by_number(rig: &Rig) -> (Vec<String>, Vec<String>) {
    let sql =
        "select postrider.lane_of(array_agg(lane order by lane), $1)::text from postrider.number";
    let mut people: (Vec<String>, Vec<String>) = Default::default();
    let first = text(
        rig,
        "select min(lane)::text from postrider.number where $1 = ''",
        "",
    )
    .await;
    for person in recipients(20) {
        let is_first = text(rig, sql, &person).await == first;
        if is_first {
            &mut people.0
        } else {
            &mut people.1
        }
        .push(person);
    }
    people
}

async fn run(rig: &Rig, arguments: &[&str]) -> String {
    let output = rig.postrider.run(arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Waits until the job says why it waits, and the history has the pause.
async fn waits(rig: &Rig, id: JobId, reason: &str, target: &str) {
    eventually(&format!("job {id} to wait as {reason}"), || async {
        let (state, why) = rig.job(id).await;
        (state == "waiting" && why.as_deref() == Some(reason)).then_some(())
    })
    .await;
    // The pause is written beside the job, and may come after it.
    eventually(&format!("the history to tell of {target}"), || async {
        let history = run(rig, &["history", "--action", "pause"]).await;
        history.contains(target).then_some(())
    })
    .await;
}

/// How many requests of this job arrived.
fn arrived(rig: &Rig, id: JobId) -> usize {
    rig.sandbox.ledger().of_job(id.0).len()
}

#[tokio::test]
async fn a_number_that_the_provider_limits_stops_and_the_other_one_goes_on() {
    let (rig, _daemon) = rig().await;
    let (here, there) = by_number(&rig).await;
    rig.sandbox.control().fault(refuse(131_048));
    let struck = order(&rig, &here[0]).await;
    let number = number_of(&rig, struck).await;
    waits(&rig, struck, "paused", &format!("number {number}")).await;
    let behind = order(&rig, &here[1]).await;
    let beside = order(&rig, &there[0]).await;
    rig.arrives(beside).await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!(
        (arrived(&rig, struck), arrived(&rig, behind)),
        (1, 0),
        "nothing more goes by this number"
    );
    assert!(paused(&rig, &number).await.starts_with("number paused: "));
    assert_eq!(paused(&rig, &number_of(&rig, beside).await).await, "");

    run(&rig, &["resume", "number", &number]).await;
    rig.arrives(struck).await;
    rig.arrives(behind).await;
    assert_eq!(paused(&rig, &number).await, "");
    let spent: Vec<i32> = sqlx::query_scalar("select spent from postrider.message")
        .fetch_all(rig.pool())
        .await
        .unwrap();
    assert_eq!(spent, [0, 0, 0], "what was not their fault cost nothing");
}

#[tokio::test]
async fn an_account_that_cannot_pay_or_log_in_stops_with_all_its_numbers() {
    for code in [131_042, 190] {
        let (rig, _daemon) = rig().await;
        let (here, there) = by_number(&rig).await;
        let account = account(&rig).await;
        rig.sandbox.control().fault(refuse(code));
        let struck = order(&rig, &here[0]).await;
        waits(&rig, struck, "paused", &format!("account {account}")).await;
        // A job goes when the other number's worker has not heard of it yet.
        tokio::time::sleep(HEEDED).await;
        let behind = [order(&rig, &here[1]).await, order(&rig, &there[0]).await];
        tokio::time::sleep(MOMENT).await;
        for id in behind {
            assert_eq!(arrived(&rig, id), 0, "{code}");
            let (state, reason) = rig.job(id).await;
            assert_eq!((&*state, reason.as_deref()), ("waiting", Some("paused")));
            let number = number_of(&rig, id).await;
            assert!(paused(&rig, &number).await.starts_with("account paused: "));
        }
        run(&rig, &["resume", "account", &account]).await;
        for id in [struck, behind[0], behind[1]] {
            rig.arrives(id).await;
        }
    }
}

#[tokio::test]
async fn a_paused_template_stops_on_every_number_and_other_templates_go_on() {
    let (rig, _daemon) = rig().await;
    let (here, there) = by_number(&rig).await;
    let template = format!("{}/order_shipped/en_US", account(&rig).await);
    rig.sandbox
        .control()
        .fault(refuse(132_015).template("order_shipped"));
    let struck = order(&rig, &here[0]).await;
    waits(&rig, struck, "template_paused", &template).await;
    tokio::time::sleep(HEEDED).await;
    let behind = [order(&rig, &here[1]).await, order(&rig, &there[0]).await];
    for person in [&here[2], &there[1]] {
        let other = job(&rig, person, "delivery_window", WINDOW).await;
        rig.arrives(other).await;
    }
    tokio::time::sleep(MOMENT).await;
    for id in behind {
        assert_eq!(arrived(&rig, id), 0);
        let (state, reason) = rig.job(id).await;
        assert_eq!(
            (&*state, reason.as_deref()),
            ("waiting", Some("template_paused"))
        );
    }
    let sql = "select paused_until::text from postrider.template_status
               where waba_id || '/' || name || '/' || language = $1";
    assert!(
        !text(&rig, sql, &template).await.is_empty(),
        "three hours by the table"
    );

    run(&rig, &["resume", "template", &template]).await;
    for id in behind {
        rig.arrives(id).await;
    }
}

#[tokio::test]
async fn a_template_stopped_by_an_answer_is_read_anew_by_whichever_process_syncs() {
    let rig = Rig::new(Setup::quick(), FAST).await;
    rig.prepare().await;
    let mut sends = rig.postrider.start(&["--only", "dispatch"]);
    sends.logs("ready").await;
    let person = recipients(1);
    rig.opt_in(&person).await;
    let asked = "select count(*)::text from postrider.account where sync_asked_at is not null and waba_id = $1";
    let account = account(&rig).await;
    assert_eq!(text(&rig, asked, &account).await, "0");
    rig.sandbox
        .control()
        .fault(refuse(132_015).template("order_shipped"));
    order(&rig, &person[0]).await;
    eventually("the lists to be asked for", || async {
        (text(&rig, asked, &account).await == "1").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stop_outlasts_a_kill_and_is_probed_by_nobody() {
    let (rig, daemon) = rig().await;
    let (here, _) = by_number(&rig).await;
    rig.sandbox.control().fault(refuse(131_048));
    let struck = order(&rig, &here[0]).await;
    let number = number_of(&rig, struck).await;
    waits(&rig, struck, "paused", &number).await;
    daemon.kill();
    let _daemon = rig.daemon().await;
    let behind = order(&rig, &here[1]).await;
    tokio::time::sleep(MOMENT).await;
    assert_eq!((arrived(&rig, struck), arrived(&rig, behind)), (1, 0));
    run(&rig, &["resume", "number", &number]).await;
    rig.arrives(struck).await;
    rig.arrives(behind).await;
}

/// Two instances of two workers each, and as many numbers of one account for each: whoever finds the pause to be over
/// first would send at once.
#[tokio::test]
async fn one_message_tries_an_account_whose_pause_is_over_and_all_others_wait_for_its_answer() {
    let latency = Duration::from_millis(1_500);
    let mut setup = Setup::quick().numbers(16, 80);
    setup.latency = Delay::fixed(latency.as_millis() as u32);
    let rig = Rig::new(setup, FAST).await;
    rig.prepare().await;
    let people = recipients(200);
    rig.opt_in(&people).await;
    for person in &people {
        order(&rig, person).await;
    }
    sqlx::query(
        "insert into postrider.pause (scope, target, source, reason, by, until)
         values ('account', $1, 'provider', 'its calls are used up', 'postrider', now() + interval '4 s')",
    )
    .bind(account(&rig).await)
    .execute(rig.pool())
    .await
    .unwrap();
    let other = rig.instance();
    let _daemons = (rig.daemon().await, other.start(&[]).await);
    rig.queue_is_empty().await;
    let mut arrivals: Vec<Duration> = rig
        .sandbox
        .ledger()
        .entries()
        .iter()
        .map(Entry::at)
        .collect();
    arrivals.sort_unstable();
    assert_eq!(arrivals.len(), people.len());
    assert!(
        arrivals[1] - arrivals[0] >= latency,
        "{:?} after the one that tried",
        arrivals[1] - arrivals[0]
    );
    let history = run(&rig, &["history", "--action", "resume"]).await;
    assert!(history.contains("account"), "{history}");
}

#[tokio::test]
async fn a_throttled_number_rests_goes_at_half_its_rate_and_loses_nothing() {
    let rig = Rig::new(Setup::quick().numbers(1, 80), FAST).await;
    rig.prepare().await;
    let people = recipients(400);
    rig.opt_in(&people).await;
    for person in &people {
        order(&rig, person).await;
    }
    let mut daemon = rig
        .postrider
        .start_logging(&[], "info,postrider::posted=trace");
    daemon.logs("ready").await;
    rig.sandbox.ledger().until_accepted(100).await;
    rig.sandbox.control().fault(refuse(130_429));
    rig.queue_is_empty().await;
    let (_, log) = daemon.terminate().await;
    let entries = rig.sandbox.ledger().entries();
    let throttled = entries
        .iter()
        .position(|entry| entry.code == Some(130_429))
        .expect("one was throttled");
    // What was posted before its answer came goes on; then nothing for a second, less what was being written, and half in the
    // next. By when they were written, not when they arrived: a machine that stands still bunches them up.
    let (_, posts) = pacing::posts(&log)
        .pop_first()
        .expect("every post is logged");
    let rested = posts[throttled..]
        .windows(2)
        .find(|pair| pair[1] - pair[0] >= 500_000)
        .expect("a second's rest");
    let first_second = posts
        .iter()
        .filter(|at| (rested[1]..rested[1] + 1_000_000).contains(*at));
    let first_second = first_second.count();
    assert!(
        first_second <= 48,
        "{first_second} in the first second at half of 80/s"
    );
    let spent: i64 = sqlx::query_scalar("select sum(spent) from postrider.message")
        .fetch_one(rig.pool())
        .await
        .unwrap();
    assert_eq!(spent, 0, "a throttle spends no attempt");
    assert_eq!(rig.sandbox.ledger().accepted(), 400);
}
