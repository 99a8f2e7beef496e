//! The sandbox is strict where the provider is strict, keeps its limits, tells what happened, and fails on demand.

#![expect(clippy::unwrap_used, reason = "the helpers are part of the tests")]
#![expect(
    clippy::needless_pass_by_value,
    reason = "requests are written where they are used"
)]

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, Once},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use hmac::{Hmac, KeyInit, Mac};
use postrider::sandbox::{
    AtLimit, Delay, Fault, FaultRule, Inbound, NumberChange, Person, Sandbox, Setup, default_world,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const NUMBER: &str = "106540352242921";
const OTHER_NUMBER: &str = "106540352242922";
const WABA: &str = "102290129340398";
const PORTFOLIO: &str = "506914307656634";
const ADA: &str = "+905321112233";

// ---------------------------------------------------------------------------------------------------------------------
// Helpers
// ---------------------------------------------------------------------------------------------------------------------

/// A client that trusts nothing and retries nothing.
fn client(http2: bool) -> reqwest::Client {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let builder = reqwest::Client::builder()
        .retry(reqwest::retry::never())
        .no_proxy();
    let builder = if http2 {
        builder.http2_prior_knowledge()
    } else {
        builder.http1_only()
    };
    builder.build().unwrap()
}

/// An answer: status, headers, and the body as JSON (null when it is none).
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

impl Answer {
    fn code(&self) -> i64 {
        self.body["error"]["code"].as_i64().unwrap_or_default()
    }

    fn details(&self) -> &str {
        self.body["error"]["error_data"]["details"]
            .as_str()
            .or(self.body["error"]["message"].as_str())
            .unwrap_or_default()
    }

    fn message_id(&self) -> &str {
        self.body["messages"][0]["id"].as_str().unwrap_or_default()
    }
}

/// A sandbox and a client of it.
struct Desk {
    sandbox: Sandbox,
    client: reqwest::Client,
    token: &'static str,
}

impl Desk {
    async fn open(setup: Setup) -> Desk {
        Desk {
            sandbox: Sandbox::start(setup).await.unwrap(),
            client: client(false),
            token: "sandbox-token",
        }
    }

    async fn quick() -> Desk {
        Desk::open(Setup::quick()).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.sandbox.url())
    }

    async fn try_post(&self, path: &str, body: &str) -> Result<Answer, reqwest::Error> {
        let request = self
            .client
            .post(self.url(path))
            .bearer_auth(self.token)
            .body(body.to_owned());
        read(request.send().await?).await
    }

    async fn try_send(&self, body: &Value) -> Result<Answer, reqwest::Error> {
        self.try_post(&format!("/v23.0/{NUMBER}/messages"), &body.to_string())
            .await
    }

    async fn send(&self, body: &Value) -> Answer {
        self.try_send(body).await.unwrap()
    }

    async fn send_from(&self, number: &str, body: &Value) -> Answer {
        self.try_post(&format!("/v23.0/{number}/messages"), &body.to_string())
            .await
            .unwrap()
    }

    async fn get(&self, path: &str) -> Answer {
        read(
            self.client
                .get(self.url(path))
                .bearer_auth(self.token)
                .send()
                .await
                .unwrap(),
        )
        .await
        .unwrap()
    }
}

async fn read(response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn text(value: &str) -> Value {
    json!({"type": "text", "text": value})
}

fn body(parameters: &[Value]) -> Value {
    json!({"type": "body", "parameters": parameters})
}

fn url_button(value: &str) -> Value {
    json!({"type": "button", "sub_type": "url", "index": "0", "parameters": [text(value)]})
}

fn template_in(language: &str, name: &str, components: &Value) -> Value {
    json!({"messaging_product": "whatsapp", "to": ADA, "type": "template", "biz_opaque_callback_data": "pr1.home.42.1.7.261121",
        "template": {"name": name, "language": {"code": language}, "components": components}})
}

fn template(name: &str, components: Value) -> Value {
    template_in("en_US", name, &components)
}

/// A request that is right in every way.
fn order() -> Value {
    template(
        "order_confirmation",
        json!([
            body(&[text("Ada"), text("#1042"), text("€5")]),
            url_button("1042")
        ]),
    )
}

fn order_to(recipient: &str) -> Value {
    with(order(), "/to", json!(recipient))
}

fn otp(code: &str, button: &str) -> Value {
    template(
        "login_code",
        json!([body(&[text(code)]), url_button(button)]),
    )
}

/// The same with one thing replaced, or removed when it is null.
fn with(mut value: Value, pointer: &str, new: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = value.pointer_mut(parent).unwrap();
    match (parent, new) {
        (Value::Object(object), Value::Null) => drop(object.remove(key)),
        (Value::Object(object), new) => drop(object.insert(key.to_owned(), new)),
        (Value::Array(array), new) => array[key.parse::<usize>().unwrap()] = new,
        _ => panic!("{pointer} leads nowhere"),
    }
    value
}

fn person(n: usize) -> String {
    format!("+4915{n:09}")
}

/// A callback that keeps what it is posted and answers as it is told.
struct Callback {
    url: String,
    posts: mpsc::UnboundedReceiver<Post>,
    state: Arc<CallbackState>,
}

struct CallbackState {
    posted: mpsc::UnboundedSender<Post>,
    /// Answers for the next posts; 200 when there are none.
    answers: Mutex<Vec<StatusCode>>,
}

#[derive(Clone)]
struct Post {
    signature: String,
    raw: Bytes,
    body: Value,
}

impl Callback {
    async fn open() -> Callback {
        let (posted, posts) = mpsc::unbounded_channel();
        let state = Arc::new(CallbackState {
            posted,
            answers: Mutex::default(),
        });
        let router = Router::new()
            .route("/hook", post(receive))
            .with_state(state.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Callback { url, posts, state }
    }

    fn answer_next(&self, status: StatusCode) {
        self.state.answers.lock().unwrap().push(status);
    }

    async fn next(&mut self) -> Post {
        self.posts.recv().await.unwrap()
    }

    /// Everything posted so far, once the sandbox has nothing more to tell.
    async fn all(&mut self, sandbox: &Sandbox) -> Vec<Post> {
        sandbox.control().quiet().await;
        let mut posts = Vec::new();
        while let Ok(post) = self.posts.try_recv() {
            posts.push(post);
        }
        posts
    }
}

async fn receive(
    State(state): State<Arc<CallbackState>>,
    headers: HeaderMap,
    raw: Bytes,
) -> StatusCode {
    let signature = headers["x-hub-signature-256"].to_str().unwrap().to_owned();
    let body = serde_json::from_slice(&raw).unwrap();
    let _ = state.posted.send(Post {
        signature,
        raw,
        body,
    });
    state
        .answers
        .lock()
        .unwrap()
        .pop()
        .unwrap_or(StatusCode::OK)
}

/// The statuses in a post, in order.
fn statuses(post: &Post) -> Vec<Value> {
    let entries = post.body["entry"].as_array().unwrap().iter();
    let changes = entries.flat_map(|entry| entry["changes"].as_array().unwrap());
    changes
        .flat_map(|change| {
            change["value"]["statuses"]
                .as_array()
                .cloned()
                .unwrap_or_default()
        })
        .collect()
}

fn words(posts: &[Post]) -> Vec<String> {
    posts
        .iter()
        .flat_map(statuses)
        .map(|status| status["status"].as_str().unwrap().to_owned())
        .collect()
}

async fn hooked(adjust: impl FnOnce(&mut Setup)) -> (Desk, Callback) {
    let callback = Callback::open().await;
    let mut setup = Setup::quick().callback(&callback.url);
    setup.webhooks.read_share = 1.0;
    adjust(&mut setup);
    (Desk::open(setup).await, callback)
}

// ---------------------------------------------------------------------------------------------------------------------
// What is accepted
// ---------------------------------------------------------------------------------------------------------------------

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

// ---------------------------------------------------------------------------------------------------------------------
// What is refused
// ---------------------------------------------------------------------------------------------------------------------

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

// ---------------------------------------------------------------------------------------------------------------------
// Free-form messages and the service window
// ---------------------------------------------------------------------------------------------------------------------

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

// ---------------------------------------------------------------------------------------------------------------------
// Limits
// ---------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn more_than_a_numbers_rate_and_slack_in_a_second_is_130429() {
    let desk = Desk::open(Setup {
        throughput_slack: 1,
        ..Setup::quick().numbers(2, 2)
    })
    .await;
    let [first, second] = ["200000000000001", "200000000000002"];
    // All at once: even if the machine stalls, thirty at three a second cannot all be let through in less than nine.
    let burst = (0..30).map(|n| {
        let desk = &desk;
        async move { desk.send_from(first, &order_to(&person(n))).await }
    });
    let answers = futures_util::future::join_all(burst).await;
    let throttled = answers
        .iter()
        .filter(|answer| answer.code() == 130_429)
        .count();
    let accepted = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(throttled + accepted, 30);
    assert!(
        accepted >= 3 && throttled > 0,
        "{accepted} accepted, {throttled} throttled"
    );
    assert_eq!(
        desk.send_from(second, &order()).await.status,
        200,
        "another number has its own rate"
    );

    let ledger = desk.sandbox.ledger();
    let times: Vec<_> = ledger
        .entries()
        .into_iter()
        .filter(|e| e.number == first && e.accepted)
        .map(|e| e.at())
        .collect();
    assert!(
        times
            .windows(4)
            .all(|four| four[3] - four[0] >= Duration::from_secs(1))
    );
    assert!(
        ledger.max_in_any_second(first) > 3,
        "the ledger counts refused requests too"
    );
}

#[tokio::test]
async fn the_forty_sixth_message_of_a_burst_to_one_person_is_131056() {
    let desk = Desk::quick().await;
    for n in 0..45 {
        assert_eq!(desk.send(&order()).await.status, 200, "{n}");
    }
    let answer = desk.send(&order()).await;
    // One comes back every six seconds; a machine too slow for 45 requests in that time proves nothing.
    let entries = desk.sandbox.ledger().entries();
    if entries[45].at() - entries[0].at() < Duration::from_secs(6) {
        assert_eq!((answer.status, answer.code()), (400, 131_056));
    }
    assert_eq!(
        desk.send(&order_to(&person(1))).await.status,
        200,
        "another person"
    );
    assert_eq!(
        desk.send_from(OTHER_NUMBER, &order()).await.status,
        200,
        "another number"
    );
}

#[tokio::test]
async fn a_portfolio_reaches_so_many_people_a_day_outside_windows() {
    let (desk, mut callback) = hooked(|setup| setup.portfolios[0].messaging_limit = Some(2)).await;
    for recipient in [person(1), person(2), person(1)] {
        desk.send(&order_to(&recipient)).await;
    }
    assert!(!words(&callback.all(&desk.sandbox).await).contains(&"failed".to_owned()));

    desk.send_from(OTHER_NUMBER, &order_to(&person(3))).await;
    let failed = statuses(&callback.next().await).remove(0);
    assert_eq!(
        failed["errors"][0]["code"], 131_048,
        "the numbers of a portfolio share its limit"
    );
    desk.sandbox
        .control()
        .inbound_text(&person(4), NUMBER, "Hi")
        .unwrap();
    desk.sandbox.control().quiet().await;
    callback.next().await;
    desk.send(&order_to(&person(4))).await;
    let open = words(&callback.all(&desk.sandbox).await);
    assert!(
        open.contains(&"sent".to_owned()),
        "an open window does not count: {open:?}"
    );
    let numbers = [NUMBER, OTHER_NUMBER];
    assert_eq!(
        desk.sandbox
            .ledger()
            .max_people_in_any(Duration::from_secs(86_400), &numbers),
        4
    );

    desk.sandbox.control().set_messaging_limit(PORTFOLIO, None);
    desk.send(&order_to(&person(5))).await;
    assert!(!words(&callback.all(&desk.sandbox).await).contains(&"failed".to_owned()));
}

#[tokio::test]
async fn the_messaging_limit_can_refuse_at_once_and_forgets_after_a_day() {
    let mut setup = Setup {
        at_messaging_limit: AtLimit::Refuse(131_048),
        ..Setup::quick()
    };
    setup.portfolios[0].messaging_limit = Some(1);
    let desk = Desk::open(setup.clone()).await;
    assert_eq!(desk.send(&order_to(&person(1))).await.status, 200);
    assert_eq!(desk.send(&order_to(&person(2))).await.code(), 131_048);
    let compressed = Desk::open(Setup {
        time_compression: 86_400e9,
        ..setup
    })
    .await;
    assert_eq!(compressed.send(&order_to(&person(1))).await.status, 200);
    assert_eq!(
        compressed.send(&order_to(&person(2))).await.status,
        200,
        "a day lasts a nanosecond there"
    );
}

// ---------------------------------------------------------------------------------------------------------------------
// Webhooks
// ---------------------------------------------------------------------------------------------------------------------

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

// ---------------------------------------------------------------------------------------------------------------------
// Faults
// ---------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_refusal_on_demand_has_its_code_and_status_and_is_not_accepted() {
    let desk = Desk::quick().await;
    for (code, http_status, expected) in [
        (131_000, None, 500),
        (2, None, 503),
        (131_048, None, 400),
        (130_429, Some(429), 429),
    ] {
        desk.sandbox
            .control()
            .fault(FaultRule::next(1, Fault::Refuse { code, http_status }));
        let answer = desk.send(&order()).await;
        assert_eq!((answer.status, answer.code()), (expected, i64::from(code)));
    }
    desk.sandbox.control().fault(FaultRule::next(
        1,
        Fault::Refuse {
            code: 80_007,
            http_status: None,
        },
    ));
    let usage = desk.send(&order()).await.headers["x-business-use-case-usage"]
        .to_str()
        .unwrap()
        .to_owned();
    let usage: Value = serde_json::from_str(&usage).unwrap();
    assert_eq!(usage[WABA][0]["estimated_time_to_regain_access"], 1);
    assert_eq!(desk.sandbox.ledger().accepted(), 0);
    assert_eq!(desk.send(&order()).await.status, 200, "each struck once");
}

#[tokio::test]
async fn faults_strike_only_the_recipient_number_or_template_that_they_name() {
    let desk = Desk::quick().await;
    let refuse = || {
        FaultRule::always(Fault::Refuse {
            code: 131_000,
            http_status: None,
        })
    };
    desk.sandbox.control().fault(refuse().recipient(&person(1)));
    desk.sandbox.control().fault(refuse().number(OTHER_NUMBER));
    desk.sandbox
        .control()
        .fault(refuse().template("login_code"));
    assert_eq!(desk.send(&order()).await.status, 200);
    assert_eq!(desk.send(&order_to(&person(1))).await.status, 500);
    assert_eq!(desk.send_from(OTHER_NUMBER, &order()).await.status, 500);
    assert_eq!(desk.send(&otp("1", "1")).await.status, 500);
    desk.sandbox.control().clear_faults();
    assert_eq!(desk.send(&otp("1", "1")).await.status, 200);
}

#[tokio::test]
async fn bodies_without_json_come_with_any_status_accepted_or_not() {
    let desk = Desk::quick().await;
    for (http_status, accepted) in [(500, false), (503, true), (200, true)] {
        desk.sandbox.control().fault(FaultRule::next(
            1,
            Fault::NotJson {
                http_status,
                accepted,
            },
        ));
        let before = desk.sandbox.ledger().accepted();
        let answer = desk.send(&order()).await;
        assert_eq!((answer.status, answer.body), (http_status, Value::Null));
        assert_eq!(
            desk.sandbox.ledger().accepted() - before,
            u64::from(accepted)
        );
    }
}

#[tokio::test]
async fn resets_break_the_connection_and_only_one_of_them_accepts() {
    for http2 in [false, true] {
        let desk = Desk {
            client: client(http2),
            ..Desk::quick().await
        };
        let cases = [
            (FaultRule::next(1, Fault::ResetBeforeBody), false),
            (
                FaultRule::next(1, Fault::ResetBeforeBody).recipient(ADA),
                false,
            ),
            (FaultRule::next(1, Fault::ResetAfterAccepting), true),
        ];
        for (rule, accepted) in cases {
            desk.sandbox.control().fault(rule.clone());
            let before = desk.sandbox.ledger().accepted();
            let error = desk
                .try_send(&order())
                .await
                .err()
                .expect("there is no answer");
            assert!(!error.is_connect(), "the request was on its way: {error:?}");
            assert_eq!(
                desk.sandbox.ledger().accepted() - before,
                u64::from(accepted),
                "{rule:?}"
            );
        }
        let entries = desk.sandbox.ledger().entries();
        let read: Vec<bool> = entries
            .iter()
            .map(|entry| entry.recipient.is_some())
            .collect();
        assert_eq!(
            read,
            [false, true, true],
            "the first one's body was never looked at"
        );
        assert!(entries.iter().all(|entry| entry.http_status.is_none()));
        assert_eq!(
            desk.send(&order()).await.status,
            200,
            "a new connection works"
        );
    }
}

#[tokio::test]
async fn a_reset_is_a_reset_and_not_a_close() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let desk = Desk::quick().await;
    desk.sandbox
        .control()
        .fault(FaultRule::next(1, Fault::ResetAfterAccepting));
    let mut stream = tokio::net::TcpStream::connect(desk.sandbox.address())
        .await
        .unwrap();
    let body = order().to_string();
    let request = format!(
        "POST /v23.0/{NUMBER}/messages HTTP/1.1\r\nhost: sandbox\r\nauthorization: Bearer sandbox-token\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let error = stream.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(desk.sandbox.ledger().accepted(), 1);
}

#[tokio::test]
async fn silence_accepts_and_never_answers() {
    let (desk, mut callback) = hooked(|_| {}).await;
    desk.sandbox
        .control()
        .fault(FaultRule::next(1, Fault::SilenceAfterAccepting));
    let request = order();
    let (mut sending, ledger) = (
        std::pin::pin!(desk.try_send(&request)),
        desk.sandbox.ledger(),
    );
    tokio::select! {
        answer = &mut sending => panic!("there was an answer: {:?}", answer.map(|answer| answer.status)),
        () = ledger.until_accepted(1) => {}
    }
    tokio::select! {
        answer = &mut sending => panic!("there was an answer: {:?}", answer.map(|answer| answer.status)),
        post = callback.next() => assert_eq!(words(&[post])[0], "sent", "receipts come nevertheless"),
    }
}

#[tokio::test]
async fn a_slow_body_arrives_in_parts_and_whole() {
    let desk = Desk::quick().await;
    desk.sandbox
        .control()
        .fault(FaultRule::next(1, Fault::SlowBody { over_ms: 80 }));
    let url = desk.url(&format!("/v23.0/{NUMBER}/messages"));
    let request = desk
        .client
        .post(url)
        .bearer_auth("sandbox-token")
        .body(order().to_string());
    let mut response = request.send().await.unwrap();
    let (mut parts, mut body) = (0, Vec::new());
    while let Some(part) = response.chunk().await.unwrap() {
        parts += 1;
        body.extend_from_slice(&part);
    }
    assert!(parts > 1, "{parts}");
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(
        body["messages"][0]["id"]
            .as_str()
            .unwrap()
            .starts_with("wamid.")
    );
}

#[tokio::test]
async fn an_answer_can_lack_its_id_and_messages_can_be_held_dropped_or_forgotten() {
    let (desk, mut callback) = hooked(|setup| setup.webhooks.delivered_share = 0.0).await;
    let faults = [
        Fault::NoId,
        Fault::Hold {
            for_ms: 1,
            dropped: false,
        },
        Fault::Hold {
            for_ms: 1,
            dropped: true,
        },
        Fault::FailLater { code: 131_049 },
        Fault::NoReceipts,
    ];
    let mut answers = Vec::new();
    for fault in faults {
        desk.sandbox.control().fault(FaultRule::next(1, fault));
        answers.push(desk.send(&order()).await);
    }
    assert_eq!(
        (answers[0].status, &answers[0].body["messages"]),
        (200, &json!([]))
    );
    assert_eq!(
        answers[1].body["messages"][0]["message_status"],
        "held_for_quality_assessment"
    );
    let posts = callback.all(&desk.sandbox).await;
    let told: HashMap<String, Value> = posts
        .iter()
        .flat_map(statuses)
        .map(|status| (status["id"].as_str().unwrap().to_owned(), status))
        .collect();
    let word = |answer: &Answer| {
        told.get(answer.message_id())
            .map(|status| status["status"].as_str().unwrap().to_owned())
    };
    let code = |answer: &Answer| told[answer.message_id()]["errors"][0]["code"].as_i64();
    assert_eq!(word(&answers[1]).as_deref(), Some("sent"));
    assert_eq!(
        (word(&answers[2]).as_deref(), code(&answers[2])),
        (Some("failed"), Some(132_015))
    );
    assert_eq!(
        (word(&answers[3]).as_deref(), code(&answers[3])),
        (Some("failed"), Some(131_049))
    );
    assert_eq!(word(&answers[4]), None);
    assert_eq!(
        told.len(),
        4,
        "and the one without an id in its answer has a receipt too"
    );
}

#[tokio::test]
async fn the_same_seed_strikes_the_same_requests() {
    let struck = |seed: u64| async move {
        let desk = Desk::open(Setup {
            seed,
            ..Setup::quick()
        })
        .await;
        desk.sandbox.control().fault(FaultRule::share(
            0.5,
            Fault::Refuse {
                code: 131_000,
                http_status: None,
            },
        ));
        let mut struck = Vec::new();
        for n in 0..40 {
            struck.push(desk.send(&order_to(&person(n))).await.status == 500);
        }
        struck
    };
    let first = struck(7).await;
    assert_eq!(first, struck(7).await);
    assert_ne!(first, struck(8).await);
    assert!(first.contains(&true) && first.contains(&false));
}

// ---------------------------------------------------------------------------------------------------------------------
// Reads, control over HTTP, running
// ---------------------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn numbers_and_accounts_are_read_with_fields() {
    let desk = Desk::quick().await;
    let numbers = desk.get(&format!("/v23.0/{WABA}/phone_numbers")).await;
    assert_eq!(numbers.body["data"].as_array().unwrap().len(), 4);
    assert_eq!(numbers.body["data"][0]["quality_rating"], "GREEN");
    let fields = "status,throughput,whatsapp_business_manager_messaging_limit,is_on_biz_app";
    let number = desk.get(&format!("/v23.0/{NUMBER}?fields={fields}")).await;
    assert_eq!(
        number.body,
        json!({"id": NUMBER, "status": "CONNECTED", "throughput": {"level": "STANDARD"},
            "whatsapp_business_manager_messaging_limit": "TIER_UNLIMITED", "is_on_biz_app": false})
    );
    assert_eq!(
        desk.get(&format!("/v23.0/{NUMBER}?fields=status,colour"))
            .await
            .code(),
        100
    );
    assert_eq!(
        desk.get(&format!("/v23.0/{WABA}")).await.body["name"],
        "Postrider Sandbox"
    );
    let missing = desk.get("/v23.0/12345").await;
    assert_eq!(
        (missing.code(), &missing.body["error"]["error_subcode"]),
        (100, &json!(33))
    );
    assert_eq!(desk.get("/nowhere").await.status, 400);
}

#[tokio::test]
async fn templates_are_read_page_by_page_and_filtered() {
    let desk = Desk::quick().await;
    let list = format!("/v24.0/{WABA}/message_templates");
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = desk
            .get(&format!(
                "{list}?limit=4&fields=name,language,status&after={after}"
            ))
            .await;
        let data = page.body["data"].as_array().unwrap();
        names.extend(
            data.iter()
                .map(|t| format!("{}/{}", t["name"], t["language"])),
        );
        match page.body["paging"]["next"].as_str() {
            None => break,
            Some(next) => assert!(
                next.starts_with(&desk.url(&list)) && next.contains("fields=name"),
                "{next}"
            ),
        }
        after = page.body["paging"]["cursors"]["after"]
            .as_str()
            .unwrap()
            .to_owned();
    }
    let expected = default_world()
        .templates
        .iter()
        .map(|t| format!("\"{}\"/\"{}\"", t.name, t.language))
        .collect::<Vec<_>>();
    assert_eq!(names, expected);

    let paused = desk.get(&format!("{list}?status=PAUSED")).await;
    assert_eq!(paused.body["data"][0]["name"], "delivery_survey");
    assert_eq!(paused.body["data"].as_array().unwrap().len(), 1);
    let turkish = desk
        .get(&format!("{list}?name=login_code&language=tr"))
        .await
        .body["data"][0]
        .clone();
    assert_eq!(
        (&turkish["category"], &turkish["parameter_format"]),
        (&json!("AUTHENTICATION"), &json!("POSITIONAL"))
    );
    let id = turkish["id"].as_str().unwrap();
    assert_eq!(
        desk.get(&format!("/v24.0/{id}?fields=quality_score"))
            .await
            .body["quality_score"]["score"],
        "GREEN"
    );
    assert_eq!(
        desk.get(&format!("{list}?after=nonsense")).await.code(),
        131_059
    );
    let old = format!("/v23.0/{WABA}/message_templates?after=nonsense");
    assert_eq!(desk.get(&old).await.code(), 100);
}

#[tokio::test]
async fn the_control_works_over_http_too() {
    let (desk, mut callback) = hooked(|setup| setup.webhooks.delivered_share = 0.0).await;
    let control = |path: &'static str, body: Value| {
        let request = desk.client.post(desk.url(path)).body(body.to_string());
        async move { read(request.send().await.unwrap()).await.unwrap().status }
    };
    assert_eq!(
        control(
            "/sandbox/faults",
            json!({"fault": {"refuse": {"code": 131_000}}, "when": {"next": 1}})
        )
        .await,
        200
    );
    assert_eq!(desk.send(&order()).await.status, 500);
    assert_eq!(
        control(
            "/sandbox/faults",
            json!({"fault": "fire", "when": "always"})
        )
        .await,
        400
    );
    assert_eq!(
        control(
            "/sandbox/templates/order_confirmation/en_US/status",
            json!({"status": "DISABLED"})
        )
        .await,
        200
    );
    assert_eq!(desk.send(&order()).await.code(), 132_016);
    assert_eq!(
        control(
            "/sandbox/templates/nothing/en_US/status",
            json!({"status": "DISABLED"})
        )
        .await,
        404
    );
    assert_eq!(
        control(
            "/sandbox/numbers/106540352242921",
            json!({"status": "BANNED"})
        )
        .await,
        200
    );
    assert_eq!(desk.send(&order()).await.code(), 133_010);
    callback.next().await;
    let inbound = json!({"from": ADA, "number": NUMBER, "message": {"text": {"body": "DUR"}}});
    assert_eq!(control("/sandbox/inbound", inbound).await, 200);
    assert_eq!(
        callback.next().await.body["entry"][0]["changes"][0]["value"]["messages"][0]["text"]["body"],
        "DUR"
    );

    let summary = desk.get("/sandbox/summary").await.body;
    assert_eq!(
        (&summary["arrived"], &summary["accepted"]),
        (&json!(3), &json!(0))
    );
    let lines = desk
        .client
        .get(desk.url("/sandbox/ledger?from=1&max=1"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let line: Value = serde_json::from_str(lines.trim()).unwrap();
    assert_eq!(
        (&line["serial"], &line["code"]),
        (&json!(1), &json!(132_016))
    );
}

#[tokio::test]
async fn it_runs_on_threads_of_its_own_and_stops() {
    let sandbox = Sandbox::start_apart(Setup::quick(), 2).unwrap();
    let desk = Desk {
        sandbox,
        client: client(false),
        token: "sandbox-token",
    };
    assert_eq!(desk.send(&order()).await.status, 200);
    let (client, url) = (
        desk.client.clone(),
        desk.url(&format!("/v23.0/{NUMBER}/messages")),
    );
    desk.sandbox.stop().await;
    assert!(client.post(url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn a_setup_that_contradicts_itself_does_not_start() {
    let mut setup = Setup::quick();
    setup.numbers[0].waba_id = "nowhere".into();
    assert!(
        Sandbox::start(setup)
            .await
            .err()
            .unwrap()
            .to_string()
            .contains("no account nowhere")
    );
}
