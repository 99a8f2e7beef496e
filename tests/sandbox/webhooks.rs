//! Receipts and inbound messages: signed, gathered, repeated until they are answered.

use std::collections::{BTreeMap, HashMap};

use axum::{Router, http::StatusCode, routing::post};
use hmac::{Hmac, KeyInit, Mac};
use postrider::sandbox::{Delay, Inbound};
use serde_json::json;

use crate::desk::{
    ADA, NUMBER, OTHER_NUMBER, WABA, hooked, order, order_to, person, statuses, words,
};

#[tokio::test]
async fn receipts_are_signed_and_carry_callback_data_and_pricing() {
    let (desk, mut callback) = hooked(|_| {}).await;
    let answer = desk.send(&order()).await;
    let posts = callback.all(&desk.sandbox).await;
    assert_eq!(words(&posts), ["sent", "delivered", "read"]);
    for post in &posts {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(b"sandbox-secret").unwrap();
        mac.update(&post.raw);
        let expected: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(post.signature, format!("sha256={expected}"));
        assert_eq!(post.body["object"], "whatsapp_business_account");
        assert_eq!(post.body["entry"][0]["id"], WABA);
        let value = &post.body["entry"][0]["changes"][0]["value"];
        assert_eq!(
            value["metadata"],
            json!({"display_phone_number": "15550783881", "phone_number_id": NUMBER})
        );
        assert_eq!(value["contacts"][0]["wa_id"], "905321112233");
        for status in statuses(post) {
            assert_eq!(status["id"], answer.message_id());
            assert_eq!(status["biz_opaque_callback_data"], "pr1.home.42.1.7.261121");
            assert_eq!(status["recipient_id"], "905321112233");
            assert!(
                status["recipient_user_id"]
                    .as_str()
                    .unwrap()
                    .starts_with("TR.")
            );
            assert!(status["timestamp"].as_str().unwrap().parse::<i64>().is_ok());
        }
    }
    let sent = statuses(&posts[0]).remove(0);
    assert_eq!(
        sent["pricing"],
        json!({"billable": true, "pricing_model": "PMP", "type": "regular", "category": "utility"})
    );
    let receipts = desk.sandbox.ledger().entries()[0].receipts;
    assert_eq!(
        (
            receipts.sent,
            receipts.delivered,
            receipts.read,
            receipts.failed
        ),
        (1, 1, 1, 0)
    );
}

#[tokio::test]
async fn a_post_that_is_not_answered_200_comes_again_byte_for_byte() {
    let (desk, mut callback) = hooked(|setup| setup.webhooks.delivered_share = 0.0).await;
    callback.answer_next(StatusCode::SERVICE_UNAVAILABLE);
    callback.answer_next(StatusCode::ACCEPTED);
    desk.send(&order()).await;
    let posts = callback.all(&desk.sandbox).await;
    assert_eq!(posts.len(), 3);
    assert!(
        posts
            .iter()
            .all(|post| post.raw == posts[0].raw && post.signature == posts[0].signature)
    );
    assert_eq!(
        desk.sandbox.ledger().entries()[0].receipts.sent,
        1,
        "only what was answered 200 counts"
    );
}

#[tokio::test]
async fn a_post_is_given_up_after_so_many_attempts() {
    let (desk, mut callback) = hooked(|setup| {
        setup.webhooks.delivered_share = 0.0;
        setup.webhooks.attempts = 2;
        setup.webhooks.retry_ms = 1;
    })
    .await;
    (0..2).for_each(|_| callback.answer_next(StatusCode::INTERNAL_SERVER_ERROR));
    desk.send(&order()).await;
    assert_eq!(callback.all(&desk.sandbox).await.len(), 2);
    assert_eq!(desk.sandbox.ledger().entries()[0].receipts.sent, 0);
}

#[tokio::test]
async fn receipts_are_gathered_into_batches_up_to_the_maximum() {
    let (desk, mut callback) = hooked(|setup| setup.webhooks.batch_max = 7).await;
    desk.sandbox.control().pause_webhooks(true);
    for n in 0..10 {
        desk.send_from(
            if n % 2 == 0 { NUMBER } else { OTHER_NUMBER },
            &order_to(&person(n)),
        )
        .await;
    }
    assert_eq!(desk.sandbox.control().summary().updates_waiting, 30);
    desk.sandbox.control().pause_webhooks(false);
    let posts = callback.all(&desk.sandbox).await;
    let mut sizes: Vec<usize> = posts.iter().map(|post| statuses(post).len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 7, 7, 7, 7]);
    let of_number = |number: &str| {
        let changes = posts
            .iter()
            .flat_map(|post| post.body["entry"][0]["changes"].as_array().unwrap());
        let mine =
            changes.filter(|change| change["value"]["metadata"]["phone_number_id"] == number);
        mine.map(|change| change["value"]["statuses"].as_array().unwrap().len())
            .sum::<usize>()
    };
    assert_eq!((of_number(NUMBER), of_number(OTHER_NUMBER)), (15, 15));
}

#[tokio::test]
async fn receipts_can_be_shuffled_and_repeated() {
    let (desk, mut callback) = hooked(|setup| {
        setup.webhooks.shuffled_share = 1.0;
        setup.webhooks.repeated_share = 1.0;
        setup.webhooks.sent_after = Delay::fixed(1);
        setup.webhooks.delivered_after = Delay::fixed(1);
        setup.webhooks.read_after = Delay::fixed(1);
    })
    .await;
    desk.sandbox.control().pause_webhooks(true);
    for n in 0..20 {
        desk.send(&order_to(&person(n))).await;
    }
    desk.sandbox.control().pause_webhooks(false);
    let posts = callback.all(&desk.sandbox).await;
    let mut by_message: HashMap<String, Vec<String>> = HashMap::new();
    for status in posts.iter().flat_map(statuses) {
        let (id, word) = (
            status["id"].as_str().unwrap(),
            status["status"].as_str().unwrap(),
        );
        by_message
            .entry(id.to_owned())
            .or_default()
            .push(word.to_owned());
    }
    assert_eq!(by_message.len(), 20);
    for words in by_message.values() {
        let counts = words.iter().fold(BTreeMap::new(), |mut counts, word| {
            *counts.entry(word.as_str()).or_insert(0) += 1;
            counts
        });
        assert_eq!(
            counts,
            BTreeMap::from([("delivered", 2), ("read", 2), ("sent", 2)])
        );
    }
    assert!(by_message.values().any(|words| words[0] != "sent"));
}

#[tokio::test]
async fn failed_receipts_carry_the_error_and_no_contacts() {
    let (desk, mut callback) = hooked(|setup| setup.webhooks.failed_share = 1.0).await;
    desk.send(&order()).await;
    let post = callback.next().await;
    assert!(
        post.body["entry"][0]["changes"][0]["value"]
            .get("contacts")
            .is_none()
    );
    let failed = statuses(&post).remove(0);
    let error = &failed["errors"][0];
    assert_eq!(
        (&error["code"], &error["title"]),
        (&json!(131_026), &json!("Message undeliverable"))
    );
    assert_eq!(error["title"], error["message"]);
    assert!(failed.get("recipient_user_id").is_none() && failed.get("pricing").is_none());
}

#[tokio::test]
async fn inbound_messages_and_taps_are_posted_with_their_context() {
    let (desk, mut callback) = hooked(|setup| setup.webhooks.delivered_share = 0.0).await;
    let sent = desk.send(&order()).await.message_id().to_owned();
    callback.next().await;
    let control = desk.sandbox.control();
    let id = control.inbound_text(ADA, NUMBER, "STOP").unwrap();
    let post = callback.next().await;
    let value = &post.body["entry"][0]["changes"][0]["value"];
    let message = &value["messages"][0];
    assert_eq!(
        (&message["type"], &message["text"]["body"]),
        (&json!("text"), &json!("STOP"))
    );
    assert_eq!(
        (&message["from"], message["id"].as_str()),
        (&json!("905321112233"), Some(id.as_str()))
    );
    assert_eq!(value["contacts"][0]["user_id"], message["from_user_id"]);

    control
        .inbound_button(ADA, NUMBER, "OPT_OUT", &sent)
        .unwrap();
    let tap = callback.next().await.body["entry"][0]["changes"][0]["value"]["messages"][0].clone();
    assert_eq!(
        (&tap["button"]["payload"], &tap["context"]["id"]),
        (&json!("OPT_OUT"), &json!(sent))
    );
    control
        .inbound(
            ADA,
            NUMBER,
            &Inbound::Other(json!({"type": "image", "image": {"id": "1"}})),
        )
        .unwrap();
    let image =
        callback.next().await.body["entry"][0]["changes"][0]["value"]["messages"][0].clone();
    assert_eq!(image["image"]["id"], "1");
    assert!(control.inbound_text(ADA, "999", "STOP").is_err());
}

#[tokio::test]
async fn a_callback_that_hangs_up_is_tried_again_when_it_is_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (desk, _unused) = hooked(|setup| {
        setup.webhooks.delivered_share = 0.0;
        setup.apps[0].callback_url = Some(format!("http://{address}/hook"));
    })
    .await;
    desk.send(&order()).await;
    drop(listener.accept().await.unwrap());
    let router = Router::new().route("/hook", post(|| async { StatusCode::OK }));
    tokio::spawn(async move { axum::serve(listener, router).await });
    desk.sandbox.control().quiet().await;
    assert_eq!(desk.sandbox.ledger().entries()[0].receipts.sent, 1);
}
