//! Free-form messages and the service window.

use serde_json::{Value, json};

use crate::desk::{ADA, Desk, NUMBER, OTHER_NUMBER, hooked, statuses, with, words};

fn free(kind: &str, object: Value) -> Value {
    json!({"messaging_product": "whatsapp", "to": ADA, "type": kind, kind: object})
}

#[tokio::test]
async fn a_free_form_message_fails_with_131047_unless_the_person_wrote_to_that_number() {
    let (desk, mut callback) = hooked(|_| {}).await;
    let hello = free("text", json!({"body": "Hello"}));
    assert_eq!(desk.send(&hello).await.status, 200);
    let failed = statuses(&callback.next().await).remove(0);
    assert_eq!(
        (&failed["status"], &failed["errors"][0]["code"]),
        (&json!("failed"), &json!(131_047))
    );

    desk.sandbox
        .control()
        .inbound_text(ADA, NUMBER, "Hi")
        .unwrap();
    desk.sandbox.control().quiet().await;
    desk.send(&hello).await;
    desk.send_from(OTHER_NUMBER, &hello).await;
    let posts = callback.all(&desk.sandbox).await;
    let all: Vec<Value> = posts.iter().flat_map(statuses).collect();
    let failed: Vec<&Value> = all
        .iter()
        .filter(|status| status["status"] == "failed")
        .collect();
    assert_eq!(failed.len(), 1, "only the other number's: {all:?}");
    let sent = all
        .iter()
        .find(|status| status["status"] == "sent")
        .unwrap();
    assert_eq!(sent["pricing"]["category"], "service");
}

#[tokio::test]
async fn a_service_window_closes_after_its_compressed_day() {
    // A day lasts a nanosecond, so the window is closed by the time anybody can use it.
    let (desk, mut callback) = hooked(|setup| setup.time_compression = 86_400e9).await;
    desk.sandbox
        .control()
        .inbound_text(ADA, NUMBER, "Hi")
        .unwrap();
    callback.next().await;
    desk.send(&free("text", json!({"body": "Hello"}))).await;
    assert_eq!(words(&[callback.next().await]), ["failed"]);
}

#[tokio::test]
async fn free_form_messages_of_every_type_are_checked() {
    let desk = Desk::quick().await;
    let button = json!({"type": "button", "body": {"text": "?"}, "action": {"buttons": [{"type": "reply", "reply": {"id": "1", "title": "Yes"}}]}});
    let four = json!([1, 2, 3, 4]);
    for (what, request, code) in [
        (
            "text",
            free("text", json!({"body": "Hello", "preview_url": true})),
            0,
        ),
        (
            "text by default",
            with(free("text", json!({"body": "Hello"})), "/type", Value::Null),
            0,
        ),
        ("empty text", free("text", json!({"body": ""})), 131_008),
        (
            "long text",
            free("text", json!({"body": "x".repeat(4_097)})),
            100,
        ),
        (
            "no object",
            with(free("text", json!({})), "/text", Value::Null),
            131_008,
        ),
        (
            "image",
            free(
                "image",
                json!({"link": "https://a.example/a.png", "caption": "a"}),
            ),
            0,
        ),
        (
            "image without source",
            free("image", json!({"caption": "a"})),
            131_008,
        ),
        ("audio", free("audio", json!({"id": "1"})), 0),
        (
            "audio with caption",
            free("audio", json!({"id": "1", "caption": "a"})),
            100,
        ),
        (
            "document",
            free(
                "document",
                json!({"id": "1", "filename": "a.pdf", "caption": "a"}),
            ),
            0,
        ),
        (
            "sticker with file name",
            free("sticker", json!({"id": "1", "filename": "a"})),
            100,
        ),
        (
            "location",
            free("location", json!({"latitude": 1.5, "longitude": 2})),
            0,
        ),
        (
            "location off the globe",
            free("location", json!({"latitude": 1.5, "longitude": 181})),
            131_009,
        ),
        ("buttons", free("interactive", button.clone()), 0),
        (
            "four buttons",
            free("interactive", with(button.clone(), "/action/buttons", four)),
            131_009,
        ),
        (
            "no action",
            free("interactive", with(button.clone(), "/action", Value::Null)),
            131_008,
        ),
        (
            "unknown interactive",
            free("interactive", with(button, "/type", json!("dance"))),
            131_009,
        ),
        (
            "reaction",
            free("reaction", json!({"message_id": "wamid.1", "emoji": "👍"})),
            0,
        ),
    ] {
        assert_eq!(desk.send(&request).await.code(), code, "{what}");
    }
}

#[tokio::test]
async fn a_read_mark_is_no_message() {
    let desk = Desk::quick().await;
    let mark = json!({"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.1"});
    assert_eq!(desk.send(&mark).await.body, json!({"success": true}));
    assert_eq!(
        desk.send(&with(mark, "/message_id", Value::Null))
            .await
            .code(),
        131_008
    );
    assert!(desk.sandbox.ledger().is_empty());
}
