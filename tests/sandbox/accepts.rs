//! What is accepted, and how it is answered.

use serde_json::{Value, json};

use crate::desk::{
    ADA, Desk, NUMBER, body, client, order, order_to, otp, template, template_in, text, url_button,
    with,
};

#[tokio::test]
async fn a_right_request_is_answered_with_an_id_and_stands_in_the_ledger() {
    let desk = Desk::quick().await;
    let answer = desk.send(&order()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(
        answer.body["contacts"],
        json!([{"input": ADA, "wa_id": "905321112233"}])
    );
    assert_eq!(answer.body["messages"][0]["message_status"], "accepted");
    assert!(answer.message_id().starts_with("wamid."));
    assert_eq!(answer.headers["facebook-api-version"], "v23.0");
    for header in ["x-business-use-case-usage", "x-app-usage", "x-fb-trace-id"] {
        assert!(answer.headers.contains_key(header), "{header}");
    }
    let entry = &desk.sandbox.ledger().entries()[0];
    assert_eq!(
        (entry.number.as_str(), entry.recipient.as_deref()),
        (NUMBER, Some(ADA))
    );
    assert_eq!(entry.template.as_deref(), Some("order_confirmation"));
    assert_eq!((entry.job(), entry.attempt()), (Some(42), Some(1)));
    assert_eq!(
        (entry.accepted, entry.http_status, entry.code),
        (true, Some(200), None)
    );
    assert_eq!(entry.message_id.as_deref(), Some(answer.message_id()));
    assert_eq!(
        desk.sandbox
            .ledger()
            .by_message_id(answer.message_id())
            .as_ref(),
        Some(entry)
    );
    assert_eq!(desk.sandbox.ledger().of_job(42).len(), 1);
    assert_eq!(desk.sandbox.ledger().by_callback("pr1.home.").len(), 1);
    assert!(desk.sandbox.ledger().by_callback("pr1.away.").is_empty());
}

#[tokio::test]
async fn both_http_versions_are_served_on_one_port() {
    let desk = Desk::quick().await;
    for (http2, version) in [
        (false, reqwest::Version::HTTP_11),
        (true, reqwest::Version::HTTP_2),
    ] {
        let url = desk.url(&format!("/v23.0/{NUMBER}/messages"));
        let request = client(http2)
            .post(url)
            .bearer_auth("sandbox-token")
            .body(order().to_string());
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.version(), response.status().as_u16()),
            (version, 200)
        );
    }
    assert_eq!(desk.sandbox.ledger().accepted(), 2);
}

#[tokio::test]
async fn every_form_of_the_default_templates_can_be_sent() {
    let desk = Desk::quick().await;
    let document = json!({"type": "header", "parameters": [
        {"type": "document", "document": {"link": "https://air.example/pass.pdf", "filename": "pass.pdf"}}]});
    let image =
        json!({"type": "header", "parameters": [{"type": "image", "image": {"id": "123"}}]});
    let place = json!({"type": "header", "parameters": [{"type": "location", "location":
        {"latitude": "40.1", "longitude": 44.5, "name": "Courier", "address": "Abovyan 1"}}]});
    let title = json!({"type": "header", "parameters": [text("#7")]});
    let named =
        |name: &str, value: &str| json!({"type": "text", "parameter_name": name, "text": value});
    let currency = json!({"type": "currency", "currency": {"fallback_value": "€5", "code": "EUR", "amount_1000": 5_000}});
    let date = json!({"type": "date_time", "date_time": {"fallback_value": "1 May"}});
    let button = |sub_type: &str, index: Value, parameter: Value| json!({"type": "button", "sub_type": sub_type, "index": index, "parameters": [parameter]});
    let payload = json!({"type": "payload", "payload": "STOP"});
    let coupon = json!({"type": "coupon_code", "coupon_code": "SORRY10"});
    let action = json!({"type": "action", "action": {"flow_token": "t", "flow_action_data": {}}});
    let sent = [
        order(),
        otp("123456", "123456"),
        template(
            "order_confirmation",
            json!([body(&[text("Ada"), text("#1"), currency]), url_button("1")]),
        ),
        template(
            "order_shipped",
            json!([body(&[
                named("carrier", "DHL"),
                named("name", "Ada"),
                named("order", "#1")
            ])]),
        ),
        template(
            "order_refund",
            json!([
                body(&[text("Ada"), text("€5")]),
                button("copy_code", json!("0"), coupon)
            ]),
        ),
        template(
            "delivery_window",
            json!([
                title,
                body(&[text("Ada"), date]),
                button("quick_reply", json!(1), payload)
            ]),
        ),
        template_in(
            "hy",
            "delivery_arriving",
            &json!([place, body(&[text("Անի"), text("5")])]),
        ),
        template_in(
            "ar",
            "boarding_pass",
            &json!([document, body(&[text("آدا"), text("TK1"), text("B2")])]),
        ),
        template_in(
            "fr",
            "flight_delayed",
            &json!([image, body(&[text("Ada"), text("AF1"), text("12:30")])]),
        ),
        template(
            "travel_checkin",
            json!([
                body(&[text("Ada"), text("TK1")]),
                button("flow", json!("0"), action)
            ]),
        ),
    ];
    for request in sent {
        let answer = desk.send(&request).await;
        assert_eq!(answer.status, 200, "{request}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_recipient_can_be_addressed_by_user_id_and_the_phone_wins_when_both_are_given() {
    let desk = Desk::quick().await;
    let by_user = with(
        with(order(), "/to", Value::Null),
        "/recipient",
        json!("US.13491208655302741918"),
    );
    let answer = desk.send(&by_user).await;
    assert_eq!(
        answer.body["contacts"][0],
        json!({"input": "US.13491208655302741918", "user_id": "US.13491208655302741918"})
    );
    let answer = desk.send(&with(by_user, "/to", json!(ADA))).await;
    assert_eq!(
        answer.body["contacts"][0],
        json!({"input": ADA, "wa_id": "905321112233"})
    );
}

#[tokio::test]
async fn the_answered_wa_id_differs_from_some_phones() {
    let desk = Desk::quick().await;
    for (phone, wa_id) in [
        ("+5531987654321", "553187654321"),
        ("+525512345678", "5215512345678"),
        ("+90 532 111-22-33", "905321112233"),
    ] {
        assert_eq!(
            desk.send(&order_to(phone)).await.body["contacts"][0]["wa_id"],
            wa_id
        );
    }
}
