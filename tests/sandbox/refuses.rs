//! What is refused, and with which code.

use postrider::sandbox::{NumberChange, Person, Setup};
use serde_json::{Value, json};

use crate::desk::{
    Desk, NUMBER, OTHER_NUMBER, WABA, body, hooked, order, order_to, otp, person, template, text,
    url_button, with, words,
};

#[tokio::test]
async fn each_wrong_request_is_refused_with_its_code_and_status() {
    let desk = Desk::quick().await;
    let components = |components: Value| with(order(), "/template/components", components);
    let parameter = |value: Value| with(order(), "/template/components/0/parameters/0", value);
    let button = |pointer: &str, value: Value| {
        with(order(), &format!("/template/components/1/{pointer}"), value)
    };
    let image = json!({"type": "image", "image": {"id": "1"}});
    let long = "x".repeat(1_000);
    let cases: Vec<(&str, Value, i64, u16)> = vec![
        (
            "no messaging_product",
            with(order(), "/messaging_product", Value::Null),
            100,
            400,
        ),
        (
            "another product",
            with(order(), "/messaging_product", json!("sms")),
            100,
            400,
        ),
        (
            "a group",
            with(order(), "/recipient_type", json!("group")),
            100,
            400,
        ),
        (
            "no recipient",
            with(order(), "/to", Value::Null),
            131_008,
            400,
        ),
        ("no plus", order_to("905321112233"), 131_009, 400),
        ("letters", order_to("+90532CALLME"), 131_009, 400),
        ("too short", order_to("+9053"), 131_009, 400),
        (
            "the sender itself",
            order_to("+1 555 078 3881"),
            131_021,
            400,
        ),
        (
            "no user id",
            with(
                with(order(), "/to", Value::Null),
                "/recipient",
                json!("us.12"),
            ),
            131_009,
            400,
        ),
        (
            "callback too long",
            with(order(), "/biz_opaque_callback_data", json!("x".repeat(513))),
            100,
            400,
        ),
        (
            "unknown type",
            with(order(), "/type", json!("telegram")),
            100,
            400,
        ),
        (
            "no template object",
            with(order(), "/template", Value::Null),
            131_008,
            400,
        ),
        (
            "unknown key in a component",
            button("colour", json!("red")),
            100,
            400,
        ),
        (
            "unknown component",
            components(json!([{"type": "limerick"}])),
            100,
            400,
        ),
        (
            "body twice",
            components(json!([body(&[]), body(&[])])),
            100,
            400,
        ),
        (
            "unknown template",
            with(order(), "/template/name", json!("nothing")),
            132_001,
            404,
        ),
        (
            "unknown language",
            with(order(), "/template/language/code", json!("fi")),
            132_001,
            404,
        ),
        (
            "pending",
            template("order_review", json!([body(&[text("a"), text("b")])])),
            132_001,
            404,
        ),
        (
            "rejected",
            template("travel_insurance", json!([body(&[text("a"), text("b")])])),
            132_001,
            404,
        ),
        (
            "paused",
            template("delivery_survey", json!([body(&[text("a"), text("b")])])),
            132_015,
            400,
        ),
        (
            "disabled",
            template("order_reminder", json!([body(&[text("a"), text("b")])])),
            132_016,
            400,
        ),
        (
            "too few parameters",
            components(json!([body(&[text("a")]), url_button("1")])),
            132_000,
            400,
        ),
        ("no components", components(json!([])), 132_000, 400),
        (
            "a header that is not there",
            components(json!([{"type": "header", "parameters": [text("a")]}])),
            132_000,
            400,
        ),
        ("image for text", parameter(image.clone()), 132_012, 400),
        (
            "a name in a positional template",
            parameter(json!({"type": "text", "text": "a", "parameter_name": "b"})),
            132_012,
            400,
        ),
        ("no text", parameter(json!({"type": "text"})), 131_008, 400),
        ("empty text", parameter(text(" ")), 132_018, 400),
        ("line break", parameter(text("a\nb")), 132_018, 400),
        ("tab", parameter(text("a\tb")), 132_018, 400),
        ("five spaces", parameter(text("a     b")), 132_018, 400),
        ("text too long", parameter(text(&long)), 132_005, 400),
        (
            "bad currency",
            parameter(
                json!({"type": "currency", "currency": {"fallback_value": "5", "code": "euro", "amount_1000": 1}}),
            ),
            132_018,
            400,
        ),
        (
            "broken amount",
            parameter(
                json!({"type": "currency", "currency": {"fallback_value": "5", "code": "EUR", "amount_1000": "1"}}),
            ),
            100,
            400,
        ),
        (
            "no button",
            components(json!([body(&[text("a"), text("b"), text("c")])])),
            131_008,
            400,
        ),
        ("button index", button("index", json!("1")), 132_018, 400),
        (
            "button type",
            button("sub_type", json!("quick_reply")),
            132_018,
            400,
        ),
        (
            "button without index",
            button("index", Value::Null),
            131_008,
            400,
        ),
        (
            "button parameter kind",
            button("parameters/0", json!({"type": "payload", "payload": "x"})),
            132_012,
            400,
        ),
        (
            "unnamed in a named template",
            template(
                "order_shipped",
                json!([body(&[text("a"), text("b"), text("c")])]),
            ),
            100,
            400,
        ),
        (
            "text for a document",
            template(
                "boarding_pass",
                json!([{"type": "header", "parameters": [text("a")]}, body(&[text("a"), text("b"), text("c")])]),
            ),
            132_012,
            400,
        ),
        (
            "no document",
            template(
                "boarding_pass",
                json!([body(&[text("a"), text("b"), text("c")])]),
            ),
            132_000,
            400,
        ),
        (
            "code too long",
            otp("1234567890123456", "1234567890123456"),
            132_018,
            400,
        ),
        ("codes differ", otp("123456", "654321"), 132_018, 400),
        (
            "code without button",
            template("login_code", json!([body(&[text("123456")])])),
            131_008,
            400,
        ),
        (
            "code by user id",
            with(
                with(otp("1", "1"), "/to", Value::Null),
                "/recipient",
                json!("US.12"),
            ),
            131_062,
            400,
        ),
    ];
    for (what, request, code, status) in cases {
        let answer = desk.send(&request).await;
        assert_eq!(
            (answer.code(), answer.status),
            (code, status),
            "{what}: {}",
            answer.body
        );
        assert!(!answer.details().is_empty(), "{what}");
    }
    assert_eq!(desk.sandbox.ledger().accepted(), 0);
    assert!(
        desk.sandbox
            .ledger()
            .entries()
            .iter()
            .all(|entry| entry.code.is_some())
    );
}

#[tokio::test]
async fn each_form_of_wrong_header_media_and_names_is_refused() {
    let desk = Desk::quick().await;
    let pass = |document: Value| {
        template(
            "boarding_pass",
            json!([
            {"type": "header", "parameters": [{"type": "document", "document": document}]},
            body(&[text("a"), text("b"), text("c")])]),
        )
    };
    let place = |latitude: Value| {
        template(
            "delivery_arriving",
            json!([
            {"type": "header", "parameters": [{"type": "location", "location": {"latitude": latitude, "longitude": 1}}]},
            body(&[text("a"), text("b")])]),
        )
    };
    let named = |names: [&str; 3]| {
        let parameters =
            names.map(|name| json!({"type": "text", "parameter_name": name, "text": "x"}));
        template("order_shipped", json!([body(&parameters)]))
    };
    for (what, request, code) in [
        (
            "neither id nor link",
            pass(json!({"filename": "a.pdf"})),
            131_008,
        ),
        (
            "both id and link",
            pass(json!({"id": "1", "link": "https://a.example"})),
            100,
        ),
        ("no URL", pass(json!({"link": "pass.pdf"})), 131_009),
        (
            "a caption",
            pass(json!({"id": "1", "caption": "hello"})),
            132_018,
        ),
        ("off the globe", place(json!(91)), 131_009),
        ("no number", place(json!("north")), 131_009),
        (
            "a name that is not there",
            named(["name", "order", "colour"]),
            132_000,
        ),
        ("a name twice", named(["name", "order", "order"]), 132_000),
    ] {
        let answer = desk.send(&request).await;
        assert_eq!(
            (answer.code(), answer.status),
            (code, 400),
            "{what}: {}",
            answer.body
        );
    }
}

#[tokio::test]
async fn the_code_of_a_flawed_parameter_depends_on_the_version() {
    let desk = Desk::quick().await;
    let flawed = with(order(), "/template/components/0/parameters/0", text("a\nb")).to_string();
    for (version, code) in [("v22.0", 132_012), ("v23.0", 132_018)] {
        let answer = desk
            .try_post(&format!("/{version}/{NUMBER}/messages"), &flawed)
            .await
            .unwrap();
        assert_eq!(answer.code(), code);
    }
    let answer = desk
        .try_post(&format!("/v19.0/{NUMBER}/messages"), &order().to_string())
        .await
        .unwrap();
    assert_eq!(answer.headers["facebook-api-version"], "v21.0");
    assert!(answer.headers.contains_key("x-ad-api-version-warning"));
}

#[tokio::test]
async fn a_body_that_is_no_json_is_error_100() {
    let desk = Desk::quick().await;
    let answer = desk
        .try_post(&format!("/v23.0/{NUMBER}/messages"), "{\"to\":")
        .await
        .unwrap();
    assert_eq!((answer.status, answer.code()), (400, 100));
    assert_eq!(desk.sandbox.ledger().entries()[0].recipient, None);
}

#[tokio::test]
async fn a_bad_token_is_190_and_a_foreign_or_missing_number_is_100_with_subcode_33() {
    let mut setup = Setup::quick();
    let mut foreign = setup.accounts[0].clone();
    foreign.waba_id = "777".into();
    foreign.token = "other-token".into();
    setup.accounts.push(foreign);
    let mut desk = Desk::open(setup).await;
    let missing = desk.send_from("999", &order()).await;
    assert_eq!(
        (
            missing.status,
            missing.code(),
            &missing.body["error"]["error_subcode"]
        ),
        (400, 100, &json!(33))
    );
    assert_eq!(missing.body["error"]["type"], "GraphMethodException");
    desk.token = "other-token";
    assert_eq!(desk.send(&order()).await.body["error"]["error_subcode"], 33);
    desk.token = "wrong";
    let refused = desk.send(&order()).await;
    assert_eq!((refused.status, refused.code()), (401, 190));
    assert_eq!(
        desk.get(&format!("/v23.0/{WABA}/phone_numbers"))
            .await
            .code(),
        190
    );
    desk.sandbox.control().set_token(WABA, "wrong");
    assert_eq!(
        desk.send(&order()).await.status,
        200,
        "the token was changed to this one"
    );
}

#[tokio::test]
async fn an_unregistered_number_is_133010_until_it_is_connected_again() {
    let desk = Desk::quick().await;
    let status = |status: &str| NumberChange {
        status: Some(status.into()),
        ..NumberChange::default()
    };
    desk.sandbox
        .control()
        .set_number(NUMBER, status("DISCONNECTED"))
        .unwrap();
    assert_eq!(desk.send(&order()).await.code(), 133_010);
    assert_eq!(desk.send_from(OTHER_NUMBER, &order()).await.status, 200);
    desk.sandbox
        .control()
        .set_number(NUMBER, status("CONNECTED"))
        .unwrap();
    assert_eq!(desk.send(&order()).await.status, 200);
    assert!(
        desk.sandbox
            .control()
            .set_number("999", status("CONNECTED"))
            .is_err()
    );
}

#[tokio::test]
async fn a_template_that_is_paused_under_way_is_132015_from_the_next_request_on() {
    let (desk, mut callback) = hooked(|_| {}).await;
    desk.sandbox
        .control()
        .template_status("order_confirmation", "en_US", "PAUSED")
        .unwrap();
    assert_eq!(desk.send(&order()).await.code(), 132_015);
    let change = &callback.next().await.body["entry"][0]["changes"][0];
    assert_eq!(change["field"], "message_template_status_update");
    assert_eq!(
        (
            &change["value"]["event"],
            &change["value"]["message_template_language"]
        ),
        (&json!("PAUSED"), &json!("en-US"))
    );
    desk.sandbox
        .control()
        .template_status("order_confirmation", "en_US", "APPROVED")
        .unwrap();
    assert_eq!(desk.send(&order()).await.status, 200);
    assert!(
        desk.sandbox
            .control()
            .template_status("nothing", "en_US", "PAUSED")
            .is_err()
    );
}

#[tokio::test]
async fn people_can_be_refused_at_once_or_fail_later() {
    let (desk, mut callback) = hooked(|setup| {
        setup.people.push(Person {
            phone: person(1),
            refuse: Some(131_030),
            ..Person::default()
        });
        setup.people.push(Person {
            phone: person(2),
            fail: Some(131_026),
            ..Person::default()
        });
        setup.people.push(Person {
            phone: person(3),
            reads: Some(false),
            ..Person::default()
        });
    })
    .await;
    assert_eq!(desk.send(&order_to(&person(1))).await.code(), 131_030);
    assert_eq!(desk.send(&order_to(&person(2))).await.status, 200);
    assert_eq!(desk.send(&order_to(&person(3))).await.status, 200);
    let mut words = words(&callback.all(&desk.sandbox).await);
    words.sort();
    assert_eq!(words, ["delivered", "failed", "sent"]);
}
