//! The webhook: who may speak, what is kept, and when we say 200.

#![cfg(test)]

mod common;

use std::time::Duration;

use common::receiving::{Receiver, body, count, secret, settings};
use postrider::http::signature::sign;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::postgres::PgPoolOptions;

fn status(id: &str) -> Value {
    json!({ "id": id, "status": "sent", "timestamp": "1790000000", "biz_opaque_callback_data": "pr1.inst.1.1.1.260921" })
}

fn statuses(n: usize) -> Value {
    json!({ "statuses": (0..n).map(|n| status(&format!("wamid.{n}"))).collect::<Vec<_>>() })
}

#[tokio::test]
async fn the_handshake_gives_the_bare_challenge_back_to_who_knows_the_token() {
    let database = common::database().await;
    let receiver = Receiver::start(database.pool()).await;
    for path in ["/webhooks/whatsapp", "/webhooks/whatsapp/main"] {
        let query = "?hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=verify%20me";
        let answer = receiver.get(&format!("{path}{query}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.text().await.unwrap(), "1158201444");
    }
    for query in [
        "hub.mode=subscribe&hub.challenge=1&hub.verify_token=verify",
        "hub.mode=unsubscribe&hub.challenge=1&hub.verify_token=verify%20me",
        "hub.mode=subscribe&hub.challenge=1",
        "",
    ] {
        let answer = receiver.get(&format!("/webhooks/whatsapp?{query}")).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{query}");
        assert_eq!(answer.text().await.unwrap(), "");
    }
    let other = receiver
        .get("/webhooks/whatsapp/other?hub.mode=subscribe&hub.verify_token=verify%20me")
        .await;
    assert_eq!(other.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_bad_signature_learns_nothing() {
    let database = common::database().await;
    let receiver = Receiver::start(database.pool()).await;
    let good = body(&statuses(1));
    let signature = sign(good.as_bytes(), &secret());
    let others = sign(good.as_bytes(), &"a wrong secret".into());
    let mut answers = Vec::new();
    for (path, header, body) in [
        ("/webhooks/whatsapp", None, good.as_str()),
        ("/webhooks/whatsapp", Some(""), &good),
        ("/webhooks/whatsapp", Some("sha256=00"), &good),
        ("/webhooks/whatsapp", Some(&others), &good),
        ("/webhooks/whatsapp", Some(&signature), "{}"),
        ("/webhooks/whatsapp", Some(&others), "not even JSON"),
        ("/webhooks/whatsapp/main", Some(&others), &good),
        ("/webhooks/whatsapp/unknown", Some(&signature), &good),
    ] {
        let answer = receiver.post(path, header, body.to_owned()).await;
        let mut headers = answer.headers().clone();
        headers.remove("date");
        answers.push((answer.status(), headers, answer.text().await.unwrap()));
    }
    assert_eq!(
        (answers[0].0, answers[0].2.as_str()),
        (StatusCode::UNAUTHORIZED, "")
    );
    assert!(
        answers.windows(2).all(|two| two[0] == two[1]),
        "{answers:?}"
    );
    for table in ["receipt", "receipt_inbox", "inbound", "webhook_event"] {
        assert_eq!(count(database.pool(), table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn with_two_apps_the_path_must_say_which() {
    let database = common::database().await;
    let receiver = Receiver::with(database.pool(), settings(&["one", "two"])).await;
    let body = body(&statuses(1));
    let signature = sign(body.as_bytes(), &secret());
    for (path, status) in [
        ("/webhooks/whatsapp", StatusCode::UNAUTHORIZED),
        ("/webhooks/whatsapp/one", StatusCode::OK),
        ("/webhooks/whatsapp/two", StatusCode::OK),
    ] {
        assert_eq!(
            receiver
                .post(path, Some(&signature), body.clone())
                .await
                .status(),
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn one_malformed_element_among_good_ones_spoils_only_itself() {
    let database = common::database().await;
    let receiver = Receiver::start(database.pool()).await;
    let value = json!({ "statuses": [status("a"), { "id": 7, "status": [] }, "odd", status("b")] });
    assert_eq!(receiver.tell(&value).await, StatusCode::OK);
    let kept: Vec<String> =
        sqlx::query_scalar("select provider_id from postrider.receipt order by 1")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert_eq!(kept, ["a", "b"]);
    assert_eq!(count(database.pool(), "receipt_inbox").await, 2);
    assert_eq!(
        count(database.pool(), "webhook_event where problem is not null").await,
        2
    );
}

#[tokio::test]
async fn what_the_database_refuses_spoils_only_itself() {
    let database = common::database().await;
    let receiver = Receiver::start(database.pool()).await;
    // Random, so that compression does not make it fit into the index after all.
    let too_long: String = (0..20_000)
        .map(|_| char::from(rand::random_range(b'a'..=b'z')))
        .collect();
    let message = |id: &str| json!({ "id": id, "from": "905551231234", "type": "text", "text": { "body": "STOP" } });
    let value = json!({ "messages": [message("a"), message(&too_long), message("b")], "statuses": [status("s")] });
    assert_eq!(receiver.tell(&value).await, StatusCode::OK);
    assert_eq!(count(database.pool(), "inbound").await, 2);
    assert_eq!(count(database.pool(), "receipt").await, 1);
    assert_eq!(
        count(database.pool(), "consent where opted_out_at is not null").await,
        1
    );
    assert_eq!(
        count(
            database.pool(),
            "webhook_event where problem like 'the database refused it%'"
        )
        .await,
        1
    );
}

#[tokio::test]
async fn a_status_of_another_installation_is_kept_but_not_applied() {
    let database = common::database().await;
    let receiver = Receiver::start(database.pool()).await;
    let mut foreign = status("a");
    foreign["biz_opaque_callback_data"] = json!("pr1.other.1.1.1.260921");
    let mut none = status("b");
    none.as_object_mut()
        .unwrap()
        .remove("biz_opaque_callback_data");
    assert_eq!(
        receiver.tell(&json!({ "statuses": [foreign, none] })).await,
        StatusCode::OK
    );
    assert_eq!(count(database.pool(), "receipt").await, 2);
    assert_eq!(count(database.pool(), "receipt_inbox").await, 0);
}

#[tokio::test]
async fn rows_are_committed_before_the_200() {
    let database = common::database().await;
    let receiver = Receiver::start(database.pool()).await;
    // While somebody holds the table, no row can be committed, and so nobody may hear 200.
    let mut holder = database.pool().begin().await.unwrap();
    sqlx::query("lock table postrider.receipt in share mode")
        .execute(&mut *holder)
        .await
        .unwrap();
    let value = statuses(1);
    let telling = receiver.tell(&value);
    tokio::pin!(telling);
    let blocked = common::eventually("the insert to wait for the lock", || async {
        let waiting = count(database.pool(), "receipt").await == 0
            && sqlx::query_scalar::<_, bool>(
                "select exists (select from pg_locks where not granted)",
            )
            .fetch_one(database.pool())
            .await
            .unwrap();
        waiting.then_some(())
    });
    tokio::select! {
        status = &mut telling => panic!("answered {status} before the commit"),
        () = blocked => {}
    }
    holder.rollback().await.unwrap();
    assert_eq!(telling.await, StatusCode::OK);
    assert_eq!(count(database.pool(), "receipt").await, 1);
}

#[tokio::test]
async fn a_database_that_is_away_is_503_and_never_200() {
    let nowhere = format!(
        "postgres://nobody@127.0.0.1:{}/nothing",
        common::free_port()
    );
    let pool = PgPoolOptions::new()
        .acquire_timeout(Duration::from_secs(2))
        .connect_lazy(&nowhere)
        .unwrap();
    let receiver = Receiver::start(&pool).await;
    assert_eq!(
        receiver.tell(&statuses(1)).await,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        receiver.meters.requests.with_label_values(&["503"]).get(),
        1
    );
}

#[tokio::test]
async fn a_full_batch_fits_and_more_than_3_megabytes_do_not() {
    let database = common::database().await;
    let receiver = Receiver::start(database.pool()).await;
    assert_eq!(receiver.tell(&statuses(1_000)).await, StatusCode::OK);
    assert_eq!(count(database.pool(), "receipt").await, 1_000);
    let limit = 3 * 1024 * 1024;
    let answer = receiver
        .post("/webhooks/whatsapp", Some("sha256=00"), vec![b' '; limit])
        .await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let answer = receiver
        .post(
            "/webhooks/whatsapp",
            Some("sha256=00"),
            vec![b' '; limit + 1],
        )
        .await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn receipts_are_counted_by_status_and_unknown_ones_together() {
    let database = common::database().await;
    let receiver = Receiver::start(database.pool()).await;
    let odd = json!({ "id": "x", "status": "teleported" });
    receiver
        .tell(&json!({ "statuses": [status("a"), status("b"), odd] }))
        .await;
    let counted = |status| receiver.meters.receipts.with_label_values(&[status]).get();
    assert_eq!((counted("sent"), counted("other")), (2, 1));
}
