//! The messaging limit and the pair limit are used to the full and never exceeded: the sandbox enforces both, and its book
//! has no refusal.

#![cfg(test)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    HEEDED, eventually,
    rig::{Rig, recipients},
};
use postrider::{
    rules::{
        job::{JobId, Lane},
        pair::Allowance,
    },
    sandbox::{AtLimit, Fault, FaultRule, Portfolio, Setup, Template},
    store::ledger,
};
use serde_json::json;

/// Of the portfolio; less 5 % headroom and a reserve of 10 % for urgent jobs.
const LIMIT: u32 = 50;
const FOR_URGENT: usize = 47;
const FOR_ALL: usize = 42;

const SHIPPED: &str = r#"{"body": {"name": "Ada", "order": "1042", "carrier": "DHL"}}"#;

/// A sandbox that refuses whatever exceeds the limit, and sends for three numbers.
async fn limited() -> Rig {
    let mut setup = Setup::quick().numbers(3, 80);
    setup.portfolios[0].messaging_limit = Some(LIMIT);
    setup.at_messaging_limit = AtLimit::Refuse(131_048);
    Rig::new(
        setup,
        "[pacing]\nmessages_per_second = 10\n[limits]\nheadroom = 0.05\nurgent_reserve = 0.10\n",
    )
    .await
}

/// One order for each of these.
async fn orders(rig: &Rig, to: &[String], priority: &str) -> Vec<i64> {
    sqlx::query_scalar(
        "select postrider.enqueue(recipient, 'order_shipped', $2::jsonb, language => 'en_US', priority => $3)
         from unnest($1::text[]) recipient",
    )
    .bind(to)
    .bind(SHIPPED)
    .bind(priority)
    .fetch_all(rig.pool())
    .await
    .unwrap()
}

/// Every one of these people writes to every number.
async fn open_windows(rig: &Rig, people: &[String]) {
    let numbers: Vec<String> =
        sqlx::query_scalar("select phone_number_id from postrider.number order by lane")
            .fetch_all(rig.pool())
            .await
            .unwrap();
    for person in people {
        for number in &numbers {
            rig.sandbox
                .control()
                .inbound_text(person, number, "Where is my parcel?")
                .unwrap();
        }
    }
    let expected = (people.len() * numbers.len()) as i64;
    eventually("the windows to be known", || async {
        let open: i64 = sqlx::query_scalar("select count(*) from postrider.service_window")
            .fetch_one(rig.pool())
            .await
            .unwrap();
        (open == expected).then_some(())
    })
    .await;
}

/// The jobs that wait, with the version of their rows: another one after any update.
async fn waiting(rig: &Rig) -> BTreeMap<i64, String> {
    sqlx::query_as(
        "select id, xmin::text || ctid::text from postrider.queue where state = 'queued'",
    )
    .fetch_all(rig.pool())
    .await
    .unwrap()
    .into_iter()
    .collect()
}

/// Waits until so many people are reached, and then until nothing has arrived for some seconds: there may be more to come.
async fn standstill(rig: &Rig, in_window: &[String], people: usize) {
    eventually(&format!("{people} people to be reached"), || async {
        (reached(rig, in_window).await.len() >= people).then_some(())
    })
    .await;
    eventually("a standstill", || async {
        let before = rig.sandbox.ledger().len();
        tokio::time::sleep(Duration::from_secs(4)).await;
        (rig.sandbox.ledger().len() == before).then_some(())
    })
    .await;
}

/// Who may have got a message that counts, by the sandbox's book; and who may have, as a kill left it open.
async fn reached(rig: &Rig, in_window: &[String]) -> BTreeSet<String> {
    let entries = rig.sandbox.ledger().entries();
    let refused: Vec<_> = entries.iter().filter(|entry| !entry.accepted).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let got = entries.into_iter().filter_map(|entry| entry.recipient);
    let mut people: BTreeSet<String> = got
        .map(|to| format!("+{}", to.trim_start_matches('+')))
        .collect();
    people.retain(|person| !in_window.contains(person));
    assert!(people.len() <= LIMIT as usize, "{} people", people.len());
    let open: Vec<String> = sqlx::query_scalar(
        "select recipient from postrider.queue q
         where exists (select from postrider.attempt a where a.lane = q.lane and a.job = q.id and a.counted)",
    )
    .fetch_all(rig.pool())
    .await
    .unwrap();
    people.extend(open);
    people
}

#[tokio::test]
async fn a_portfolio_reaches_as_many_people_as_its_limit_allows_and_no_more_though_the_daemon_is_killed()
 {
    let rig = limited().await;
    let people = recipients(140);
    rig.opt_in(&people).await;
    let in_window = &people[..20];
    {
        let daemon = rig.daemon().await;
        open_windows(&rig, in_window).await;
        daemon.terminate().await;
    }
    // 120 people, 20 of whom have written to us; 60 get a second message, and 20 an urgent one.
    let mut expected: HashMap<i64, &String> = HashMap::new();
    for (to, priority) in [
        (&people[..100], "normal"),
        (&people[..60], "normal"),
        (&people[100..120], "urgent"),
        (&people[..20], "bulk"),
    ] {
        expected.extend(orders(&rig, to, priority).await.into_iter().zip(to));
    }

    let daemon = rig.daemon().await;
    rig.sandbox.ledger().until_accepted(30).await;
    daemon.kill();
    let _daemon = rig.daemon().await;
    standstill(&rig, in_window, FOR_ALL).await;

    let told = reached(&rig, in_window).await;
    assert_eq!(told.len(), FOR_ALL, "the limit less headroom and reserve");
    assert!(
        people[100..120].iter().all(|person| told.contains(person)),
        "urgent jobs went first"
    );
    let left = waiting(&rig).await;
    for (id, person) in &expected {
        let may = told.contains(*person) || in_window.contains(person);
        assert_ne!(may, left.contains_key(id), "job {id} to {person}");
    }

    // The reserve: five of these ten.
    orders(&rig, &people[120..130], "urgent").await;
    standstill(&rig, in_window, FOR_URGENT).await;
    assert_eq!(
        reached(&rig, in_window).await.len(),
        FOR_URGENT,
        "the limit less headroom"
    );
    // Who counts already passes by, also now.
    let again: Vec<String> = told.iter().take(5).cloned().collect();
    let before = rig.sandbox.ledger().accepted();
    orders(&rig, &again, "bulk").await;
    rig.sandbox.ledger().until_accepted(before + 5).await;
    assert_eq!(reached(&rig, in_window).await.len(), FOR_URGENT);

    let mut after = waiting(&rig).await;
    after.retain(|id, _| left.contains_key(id));
    assert_eq!(after, left, "waiting costs no write");
}

// The sandbox has a thread of its own: a command that asks it keeps the test's busy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_larger_limit_lets_the_next_ones_go_without_a_restart() {
    let rig = limited().await;
    let people = recipients(120);
    rig.opt_in(&people).await;
    let _daemon = rig.daemon().await;
    orders(&rig, &people, "normal").await;
    standstill(&rig, &[], FOR_ALL).await;
    assert_eq!(reached(&rig, &[]).await.len(), FOR_ALL);
    let portfolio: String = sqlx::query_scalar("select portfolio_id from postrider.portfolio")
        .fetch_one(rig.pool())
        .await
        .unwrap();
    rig.sandbox.control().set_messaging_limit(&portfolio, None);
    let synced = rig.postrider.run(&["sync"]);
    assert!(synced.status.success(), "{synced:?}");
    rig.queue_is_empty().await;
    let refused = |code: Option<i32>| code.is_some();
    assert!(
        !rig.sandbox
            .ledger()
            .entries()
            .iter()
            .any(|entry| refused(entry.code))
    );
}

/// When the next messages of the pair may go, ascending.
async fn put_off(rig: &Rig) -> Vec<DateTime<Utc>> {
    sqlx::query_scalar(
        "select due_at from postrider.job_status
         where state = 'waiting' and reason = 'pair_rate_limited' order by due_at",
    )
    .fetch_all(rig.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn one_person_gets_45_messages_at_once_and_then_one_each_6_seconds() {
    let rig = Rig::new(
        Setup::quick().numbers(1, 80),
        "[pacing]\nmessages_per_second = 80\n",
    )
    .await;
    let person = recipients(1);
    rig.opt_in(&person).await;
    let _daemon = rig.daemon().await;
    orders(&rig, &vec![person[0].clone(); 60], "normal").await;
    rig.sandbox.ledger().until_accepted(45).await;
    let due = eventually("those beyond the burst to be put off", || async {
        let due = put_off(&rig).await;
        (due.len() >= 13).then_some(due)
    })
    .await;
    let apart = due
        .windows(2)
        .map(|pair| (pair[1] - pair[0]).num_milliseconds());
    let apart: Vec<i64> = apart.collect();
    assert!(
        apart.iter().all(|ms| (5_900..7_000).contains(ms)),
        "{apart:?}"
    );

    rig.sandbox.ledger().until_accepted(47).await;
    let entries = rig.sandbox.ledger().entries();
    assert_eq!(refusals(&rig), [0; 0], "no more than the sandbox takes");
    // Since the first, not since the one before, which may have been slow on its way.
    for (entry, beyond) in entries[45..].iter().zip(1..) {
        let after = entry.at() - entries[0].at();
        let earliest = beyond * Duration::from_secs(6) - Duration::from_millis(500);
        assert!(after >= earliest, "{beyond} beyond the burst: {after:?}");
    }
}

/// The codes with which the sandbox refused.
fn refusals(rig: &Rig) -> Vec<i32> {
    let entries = rig.sandbox.ledger().entries();
    entries.iter().filter_map(|entry| entry.code).collect()
}

#[tokio::test]
async fn what_a_person_got_before_a_kill_counts_after_it() {
    let rig = Rig::new(
        Setup::quick().numbers(1, 80),
        "[pacing]\nmessages_per_second = 80\n",
    )
    .await;
    let people = recipients(2);
    rig.opt_in(&people).await;
    let daemon = rig.daemon().await;
    orders(&rig, &vec![people[0].clone(); 70], "normal").await;
    rig.sandbox.ledger().until_accepted(25).await;
    daemon.kill();
    // Attempts that the kill left open count too, whether they were sent or not.
    let daemon = rig.daemon().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    daemon.kill();
    let _daemon = rig.daemon().await;
    eventually("those beyond the burst to be put off", || async {
        (put_off(&rig).await.len() >= 10).then_some(())
    })
    .await;
    // One by one from now on, and others at once.
    let before = rig.sandbox.ledger().accepted();
    orders(&rig, &people[1..], "normal").await;
    rig.sandbox.ledger().until_accepted(before + 3).await;
    assert_eq!(refusals(&rig), [0; 0], "no more than the sandbox takes");
}

/// The worker hears of each message from a phone app by itself. One that it hears of while it asks what pairs got before
/// must not be in the answer too: it would count twice.
#[tokio::test]
async fn what_a_phone_app_sent_is_counted_only_as_far_as_it_was_known_when_it_was_asked() {
    let database = common::database().await;
    let noted_at: DateTime<Utc> = sqlx::query_scalar(
        "insert into postrider.echo (message_hash, lane, recipient_hash, counted, at)
         values (1, 1, 7, false, now()), (2, 1, 7, false, now()) returning noted_at",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    for (asked_at, counted) in [
        (noted_at, vec![((Lane(1), 7), 2)]),
        (noted_at - TimeDelta::microseconds(1), Vec::new()),
    ] {
        let (allowance, margin) = (Allowance::default(), Duration::from_secs(1));
        let pairs = ledger::pairs(database.pool(), &[Lane(1)], allowance, margin, asked_at).await;
        assert_eq!(pairs.unwrap(), counted);
    }
}

#[tokio::test]
async fn what_was_sent_from_the_phone_app_counts_against_the_pair() {
    let setup = Setup::quick().numbers(1, 80);
    let number = setup.numbers[0].id.clone();
    let rig = Rig::new(setup, "[pacing]\nmessages_per_second = 80\n").await;
    let person = recipients(1);
    rig.opt_in(&person).await;
    let _daemon = rig.daemon().await;
    let told = Instant::now();
    let now = postrider::clock::now().timestamp();
    let to = person[0].trim_start_matches('+');
    let echoes: Vec<_> = (0..40)
        .map(|n| json!({"from": "1", "to": to, "id": format!("wamid.{n}"), "timestamp": now, "type": "text"}))
        .collect();
    let value = json!({"metadata": {"phone_number_id": number}, "message_echoes": echoes});
    rig.sandbox
        .control()
        .webhook(&number, "smb_message_echoes", &value)
        .unwrap();
    eventually("the echoes to be known", || async {
        let known: i64 = sqlx::query_scalar("select count(*) from postrider.echo")
            .fetch_one(rig.pool())
            .await
            .unwrap();
        (known == 40).then_some(())
    })
    .await;
    // The worker hears of them by itself.
    tokio::time::sleep(HEEDED + Duration::from_secs(2)).await;
    orders(&rig, &vec![person[0].clone(); 20], "normal").await;
    rig.sandbox.ledger().until_accepted(5).await;
    eventually("those beyond the burst to be put off", || async {
        (put_off(&rig).await.len() >= 5).then_some(())
    })
    .await;
    let accepted = rig.sandbox.ledger().accepted();
    // Some come back meanwhile, one each 6 s since the 40, whose time is told in whole seconds.
    let back = (told.elapsed().as_secs() + 1) / 6 + 1;
    assert!(
        accepted as u64 <= 5 + back,
        "{accepted} beside 40 from the app, {back} back"
    );
}

/// When the first recipient that counts leaves the ledger, by the word of a daemon that runs now.
async fn next_return(rig: &Rig, since: DateTime<Utc>) -> DateTime<Utc> {
    eventually("the daemon to tell of its ledger", || async {
        sqlx::query_scalar::<_, Option<DateTime<Utc>>>(
            "select max(next_return_at) from postrider.pool_usage where used = 1 and at > $1",
        )
        .bind(since)
        .fetch_one(rig.pool())
        .await
        .unwrap()
    })
    .await
}

#[tokio::test]
async fn a_held_message_counts_anew_from_when_it_was_sent_also_after_a_kill() {
    let rig = limited().await;
    let person = recipients(1);
    rig.opt_in(&person).await;
    let daemon = rig.daemon().await;
    let held_for = Duration::from_secs(15);
    rig.sandbox.control().fault(FaultRule::next(
        1,
        Fault::Hold {
            for_ms: held_for.as_millis() as u64,
            dropped: false,
        },
    ));
    let id = JobId(orders(&rig, &person, "normal").await[0]);
    rig.becomes(id, "held").await;
    let from_the_post = next_return(&rig, DateTime::UNIX_EPOCH).await;
    rig.arrives(id).await;
    let renewed = eventually("its recipient to count anew", || async {
        let returns = next_return(&rig, DateTime::UNIX_EPOCH).await;
        (returns > from_the_post + TimeDelta::seconds(5)).then_some(returns)
    })
    .await;
    // The provider tells whole seconds.
    let later = (renewed - from_the_post).to_std().unwrap();
    assert!(
        later + Duration::from_secs(2) > held_for,
        "{later:?} for a message that was held for {held_for:?}"
    );

    daemon.kill();
    let killed_at = postrider::clock::now();
    let _daemon = rig.daemon().await;
    let rebuilt = next_return(&rig, killed_at).await;
    assert!(
        (rebuilt - renewed).abs() < TimeDelta::seconds(2),
        "{rebuilt} after the kill, {renewed} before"
    );
}

#[tokio::test]
async fn a_sender_pool_over_two_portfolios_sends_what_one_has_no_room_for_from_the_other() {
    let mut setup = Setup::quick().numbers(2, 80);
    setup.at_messaging_limit = AtLimit::Refuse(131_048);
    setup.portfolios[0].messaging_limit = Some(20);
    let mut account = setup.accounts[0].clone();
    account.waba_id = "300000000000001".to_owned();
    account.portfolio = "600000000000001".to_owned();
    account.token = "another-token".to_owned();
    setup.portfolios.push(Portfolio {
        id: account.portfolio.clone(),
        messaging_limit: Some(1_000),
    });
    let theirs = setup.templates.clone().into_iter();
    let theirs = theirs.filter(|it| it.waba_id == setup.accounts[0].waba_id);
    let theirs: Vec<Template> = theirs
        .map(|template| Template {
            waba_id: account.waba_id.clone(),
            ..template
        })
        .collect();
    setup.templates.extend(theirs);
    setup.numbers[1].waba_id = account.waba_id.clone();
    let limited_number = setup.numbers[0].id.clone();
    setup.accounts.push(account);
    let rig = Rig::new(setup, "[pacing]\nmessages_per_second = 80\n").await;
    let people = recipients(100);
    rig.opt_in(&people).await;
    let _daemon = rig.daemon().await;
    orders(&rig, &people, "normal").await;
    rig.queue_is_empty().await;
    assert_eq!(refusals(&rig), [0; 0]);
    let mut from: BTreeMap<String, usize> = BTreeMap::new();
    for entry in rig.sandbox.ledger().entries() {
        *from.entry(entry.number).or_default() += 1;
    }
    assert_eq!(
        from[&limited_number], 17,
        "20 less headroom and reserve: {from:?}"
    );
    assert_eq!(from.values().sum::<usize>(), 100, "each once: {from:?}");
}
