//! People, not strings: what is said under one address holds for all addresses of the person.

#![expect(
    clippy::unwrap_used,
    reason = "a test that finds nothing there has failed"
)]

mod common;

use chrono::{DateTime, TimeDelta, Utc};
use common::{
    receiving::{NUMBER, Receiver, count, prepare},
    rig::Rig,
};
use postrider::{
    clock,
    rules::job::JobId,
    sandbox::Setup,
    store::people::{Link, LinkSource, link},
};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;

const PHONE: &str = "+551187654321";
const ID: &str = "BR.13491208655302741918";
const PARENT: &str = "BR.ENT.11815799212886844830";
const NEW_PHONE: &str = "+905551231234";

fn links(pairs: &[(&str, &str)]) -> Vec<Link> {
    let link = |(known, also): &(&str, &str)| Link {
        known: (*known).to_owned(),
        also: (*also).to_owned(),
        source: LinkSource::Webhook,
    };
    pairs.iter().map(link).collect()
}

async fn opt_in(pool: &PgPool, address: &str) {
    sqlx::query("select postrider.opt_in($1, 'test', at => now() - interval '1 hour')")
        .bind(address)
        .execute(pool)
        .await
        .unwrap();
}

/// Whether the person behind an address has opted out, in the scope `all`.
async fn opted_out(pool: &PgPool, address: &str) -> bool {
    sqlx::query_scalar(
        "select coalesce(bool_or(opted_out_at >= coalesce(opted_in_at, '-infinity')), false)
         from postrider.consent where person = postrider.person_of(postrider.address_key($1)) and scope = 'all'",
    )
    .bind(address)
    .fetch_one(pool)
    .await
    .unwrap()
}

async fn window_of(pool: &PgPool, address: &str) -> Option<DateTime<Utc>> {
    sqlx::query_scalar(
        "select expires_at from postrider.service_window where person = postrider.person_of(postrider.address_key($1))",
    )
    .bind(address)
    .fetch_optional(pool)
    .await
    .unwrap()
}

fn text(from: &str, body: &str) -> Value {
    json!({ "from": from, "type": "text", "text": { "body": body } })
}

/// The provider tells the rig's daemon something. It is answered with 200 once it is committed.
async fn tell(rig: &Rig, setup: &Setup, list: &str, mut element: Value) {
    element["timestamp"] = json!(clock::now().timestamp().to_string());
    let metadata = json!({ "phone_number_id": setup.numbers[0].id });
    let value = json!({ "metadata": metadata, list: [element] });
    rig.hears(setup, &value).await;
}

#[tokio::test]
async fn a_stop_under_each_address_of_one_person_stops_all() {
    let forms = ["5511987654321", "551187654321", ""];
    for form in forms {
        let database = common::database().await;
        let pool = database.pool();
        prepare(pool).await;
        opt_in(pool, "+5511987654321").await;
        let receiver = Receiver::start(pool).await;
        let both = json!({ "id": "wamid.S", "status": "sent", "recipient_id": "551187654321", "recipient_user_id": ID });
        assert_eq!(
            receiver.tell(&json!({ "statuses": [both] })).await,
            StatusCode::OK
        );
        common::eventually("the link", || async {
            (count(pool, "address").await == 1).then_some(())
        })
        .await;

        let mut stop = text(form, "Stop.");
        if form.is_empty() {
            stop["from_user_id"] = json!(ID);
        }
        assert_eq!(receiver.write("wamid.I", &stop).await, StatusCode::OK);
        for address in ["+5511987654321", PHONE, ID] {
            assert!(
                opted_out(pool, address).await,
                "a STOP from {form:?} stops {address}"
            );
        }
    }
}

#[tokio::test]
async fn a_stop_under_the_number_stops_jobs_to_the_parents_id_after_a_webhook_showed_both() {
    let setup = Setup::quick();
    let rig = Rig::new(setup.clone(), "").await;
    let _daemon = rig.daemon().await;
    let pool = rig.pool();
    // Two persons, for all that anybody knows yet.
    opt_in(pool, PHONE).await;
    opt_in(pool, PARENT).await;
    let both = json!({ "id": "wamid.S", "status": "sent", "recipient_id": "551187654321",
                       "recipient_user_id": ID, "recipient_parent_user_id": PARENT });
    tell(&rig, &setup, "statuses", both).await;
    common::eventually("the links", || async {
        (count(pool, "address").await == 2).then_some(())
    })
    .await;
    let mut stop = text("551187654321", "Stop.");
    stop["id"] = json!("wamid.I");
    tell(&rig, &setup, "messages", stop).await;
    let id = sqlx::query_scalar(
        "select postrider.enqueue($1, 'order_shipped',
                '{\"body\": {\"name\": \"Ada\", \"order\": \"1042\", \"carrier\": \"DHL\"}}', language => 'en_US')",
    )
    .bind(PARENT)
    .fetch_one(pool)
    .await
    .unwrap();
    let job = JobId(id);
    rig.becomes(job, "rejected").await;
    assert_eq!(rig.job(job).await.1.as_deref(), Some("opted_out"));
    assert!(rig.sandbox.ledger().of_job(id).is_empty());
}

#[tokio::test]
async fn a_stop_that_came_before_the_link_stops_all_when_the_link_is_made() {
    let database = common::database().await;
    let pool = database.pool();
    prepare(pool).await;
    opt_in(pool, PHONE).await;
    let receiver = Receiver::start(pool).await;
    let stop =
        json!({ "from": "", "from_user_id": ID, "type": "text", "text": { "body": "stop" } });
    receiver.write("wamid.I", &stop).await;
    assert!(!opted_out(pool, PHONE).await, "nobody knows yet");
    assert_eq!(link(pool, &links(&[(PHONE, ID)])).await.unwrap(), 1);
    assert!(opted_out(pool, PHONE).await);
    assert!(opted_out(pool, ID).await);
    assert_eq!(count(pool, "consent").await, 1);
}

#[tokio::test]
async fn start_after_stop_opts_in_again() {
    let database = common::database().await;
    let pool = database.pool();
    prepare(pool).await;
    let receiver = Receiver::start(pool).await;
    let at = clock::now().timestamp() - 60;
    for (n, word) in ["stop", "start"].iter().enumerate() {
        let mut message = text("551187654321", word);
        message["timestamp"] = json!(at + 10 * n as i64);
        receiver.write(&format!("wamid.{n}"), &message).await;
        assert_eq!(opted_out(pool, PHONE).await, *word == "stop");
    }
    let evidence: Value = sqlx::query_scalar("select opt_in_evidence from postrider.consent")
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(evidence, json!({ "message": "wamid.1", "text": "start" }));
}

#[tokio::test]
async fn a_message_opens_the_window_and_its_repeat_changes_nothing() {
    let database = common::database().await;
    let pool = database.pool();
    let lane = prepare(pool).await;
    let receiver = Receiver::start(pool).await;
    let mut message = text("5511987654321", "stop");
    message["timestamp"] = json!(clock::now().timestamp() - 60);
    let said = DateTime::from_timestamp(message["timestamp"].as_i64().unwrap(), 0).unwrap();
    receiver.write("wamid.I", &message).await;
    assert_eq!(
        window_of(pool, PHONE).await,
        Some(said + TimeDelta::hours(24))
    );

    let state = "select array[
        (select string_agg(i::text, ';') from postrider.inbound i),
        (select string_agg(c::text, ';') from postrider.consent c),
        (select string_agg(w::text, ';') from postrider.service_window w)]";
    let before: Vec<Option<String>> = sqlx::query_scalar(state).fetch_one(pool).await.unwrap();
    assert!(before.iter().all(Option::is_some));
    receiver.write("wamid.I", &message).await;
    assert_eq!(
        sqlx::query_scalar::<_, Vec<Option<String>>>(state)
            .fetch_one(pool)
            .await
            .unwrap(),
        before
    );

    message["timestamp"] = json!(said.timestamp() - 3_600);
    receiver.write("wamid.older", &message).await;
    assert_eq!(
        window_of(pool, PHONE).await,
        Some(said + TimeDelta::hours(24)),
        "an older one does not shorten it"
    );
    let lanes: Vec<i32> = sqlx::query_scalar("select distinct lane from postrider.inbound")
        .fetch_all(pool)
        .await
        .unwrap();
    assert_eq!(lanes, [lane]);
}

#[tokio::test]
async fn an_answer_is_kept_with_the_job_it_answers() {
    let database = common::database().await;
    let pool = database.pool();
    prepare(pool).await;
    sqlx::query(
        "insert into postrider.message (day, job, attempt, lane, priority, state, kind, recipient, recipient_key, sender,
                                        producer, tries, spent, provider_id, enqueued_at, accepted_at)
         values ((now() at time zone 'utc')::date, 77, 1, 1, 1, 'read', 'order', $1, $1, 'default', 'p', 1, 0, 'wamid.O',
                 now(), now())",
    )
    .bind(PHONE)
    .execute(pool)
    .await
    .unwrap();
    let receiver = Receiver::start(pool).await;
    for (id, context) in [("wamid.I", "wamid.O"), ("wamid.J", "wamid.unknown")] {
        let mut message = text("551187654321", "thanks");
        message["context"] = json!({ "id": context });
        receiver.write(id, &message).await;
    }
    let jobs: Vec<Option<i64>> =
        sqlx::query_scalar("select job from postrider.inbound order by provider_id")
            .fetch_all(pool)
            .await
            .unwrap();
    assert_eq!(jobs, [Some(77), None]);
}

#[tokio::test]
async fn a_message_to_a_number_that_we_do_not_know_is_kept_and_heeded() {
    let database = common::database().await;
    let pool = database.pool();
    let receiver = Receiver::start(pool).await;
    receiver
        .write("wamid.I", &text("551187654321", "stop"))
        .await;
    assert_eq!(
        count(
            pool,
            &format!("inbound where lane is null and phone_number_id = '{NUMBER}'")
        )
        .await,
        1
    );
    assert!(opted_out(pool, PHONE).await);
}

#[tokio::test]
async fn a_changed_number_takes_consent_and_window_along() {
    let database = common::database().await;
    let pool = database.pool();
    prepare(pool).await;
    let receiver = Receiver::start(pool).await;
    receiver
        .write("wamid.1", &text("551187654321", "stop"))
        .await;
    let system =
        json!({ "type": "user_changed_number", "wa_id": "905551231234", "body": "changed" });
    receiver
        .write(
            "wamid.2",
            &json!({ "from": "551187654321", "type": "system", "system": system }),
        )
        .await;
    common::eventually("the link", || async {
        opted_out(pool, "+905551231234").await.then_some(())
    })
    .await;
    assert!(window_of(pool, "+905551231234").await.is_some());
    assert_eq!(
        window_of(pool, "+905551231234").await,
        window_of(pool, PHONE).await
    );
}

#[tokio::test]
async fn a_changed_number_that_was_answered_is_linked_although_whoever_heard_it_was_killed() {
    let setup = Setup::quick();
    let rig = Rig::new(setup.clone(), "").await;
    let daemon = rig.daemon().await;
    let pool = rig.pool();
    sqlx::query("select postrider.opt_out($1, 'support')")
        .bind(PHONE)
        .execute(pool)
        .await
        .unwrap();
    // While somebody writes consent, of whomever, nobody links.
    let mut upstream = pool.begin().await.unwrap();
    sqlx::query("select postrider.opt_in('+905320000001', 'shop')")
        .execute(&mut *upstream)
        .await
        .unwrap();
    let system =
        json!({ "type": "user_changed_number", "wa_id": "905551231234", "body": "changed" });
    let changed =
        json!({ "id": "wamid.I", "from": "551187654321", "type": "system", "system": system });
    tell(&rig, &setup, "messages", changed).await;
    assert_eq!(count(pool, "link_inbox").await, 1);
    daemon.kill();
    upstream.commit().await.unwrap();
    assert_eq!(count(pool, "link_inbox").await, 1);
    assert!(!opted_out(pool, NEW_PHONE).await, "nobody knows yet");

    let _daemon = rig.postrider.start(&[]);
    common::eventually("the link", || async {
        (count(pool, "link_inbox").await == 0).then_some(())
    })
    .await;
    let person: String = sqlx::query_scalar("select person from postrider.address where key = $1")
        .bind(NEW_PHONE)
        .fetch_one(pool)
        .await
        .unwrap();
    assert_eq!(person, PHONE);
    assert!(opted_out(pool, NEW_PHONE).await);
}

#[tokio::test]
async fn linking_in_any_order_makes_one_person_with_the_newest_words() {
    let database = common::database().await;
    let pool = database.pool();
    let chain = [
        ("+905550000001", "US.1"),
        ("+905550000002", "US.2"),
        ("US.1", "US.2"),
        ("US.2", "+905550000001"),
    ];
    for (n, (address, _)) in chain.iter().take(2).enumerate() {
        sqlx::query(
            "select postrider.opt_in($1, 'shop ' || $2, at => now() - $2 * interval '1 hour')",
        )
        .bind(address)
        .bind(n as i32 + 1)
        .execute(pool)
        .await
        .unwrap();
    }
    sqlx::query("select postrider.opt_out('US.2', 'support')")
        .execute(pool)
        .await
        .unwrap();
    assert_eq!(
        link(pool, &links(&chain)).await.unwrap(),
        3,
        "the last pair is one person already"
    );
    assert_eq!(link(pool, &links(&chain)).await.unwrap(), 0);
    for address in ["+905550000001", "+905550000002", "US.1", "US.2"] {
        assert!(opted_out(pool, address).await, "{address}");
    }
    let (rows, source): (i64, String) =
        sqlx::query_as("select count(*) over (), opt_in_source from postrider.consent")
            .fetch_one(pool)
            .await
            .unwrap();
    assert_eq!(
        (rows, source.as_str()),
        (1, "shop 1"),
        "the newer opt-in stays"
    );
}

#[tokio::test]
async fn an_opt_out_that_is_being_written_is_not_left_behind_by_a_link() {
    let database = common::database().await;
    let pool = database.pool();
    let mut upstream = pool.begin().await.unwrap();
    sqlx::query("select postrider.opt_out($1, 'support')")
        .bind(ID)
        .execute(&mut *upstream)
        .await
        .unwrap();
    let pair = links(&[(PHONE, ID)]);
    let error = link(pool, &pair).await.unwrap_err();
    assert_eq!(
        error.as_database_error().unwrap().code().as_deref(),
        Some("55P03"),
        "it does not wait for long"
    );
    upstream.commit().await.unwrap();
    assert_eq!(link(pool, &pair).await.unwrap(), 1);
    assert!(opted_out(pool, PHONE).await);
}

#[tokio::test]
async fn an_opt_out_that_waits_for_a_link_is_written_under_the_new_name() {
    let database = common::database().await;
    let pool = database.pool();
    let mut linking = pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(hashtext('postrider.people'))")
        .execute(&mut *linking)
        .await
        .unwrap();
    sqlx::query("insert into postrider.address (key, person, source) values ($1, $2, 'webhook')")
        .bind(ID)
        .bind(PHONE)
        .execute(&mut *linking)
        .await
        .unwrap();
    let writer = tokio::spawn({
        let pool = pool.clone();
        async move {
            sqlx::query("select postrider.opt_out($1, 'support')")
                .bind(ID)
                .execute(&pool)
                .await
        }
    });
    common::eventually("the opt-out to wait", || async {
        let waits =
            "select exists (select from pg_locks where locktype = 'advisory' and not granted)";
        sqlx::query_scalar::<_, bool>(waits)
            .fetch_one(pool)
            .await
            .unwrap()
            .then_some(())
    })
    .await;
    linking.commit().await.unwrap();
    writer.await.unwrap().unwrap();
    assert!(opted_out(pool, PHONE).await);
    assert_eq!(
        count(pool, &format!("consent where person = '{PHONE}'")).await,
        1
    );
}
