//! A sandbox with a client, the requests that tests send to it, and a callback that it posts to.

use std::sync::{Arc, Mutex, Once};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use postrider::sandbox::{Sandbox, Setup};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub(crate) const NUMBER: &str = "106540352242921";
pub(crate) const OTHER_NUMBER: &str = "106540352242922";
pub(crate) const WABA: &str = "102290129340398";
pub(crate) const PORTFOLIO: &str = "506914307656634";
pub(crate) const ADA: &str = "+905321112233";

/// A client that trusts nothing and retries nothing.
pub(crate) fn client(http2: bool) -> reqwest::Client {
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
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> i64 {
        self.body["error"]["code"].as_i64().unwrap_or_default()
    }

    pub(crate) fn details(&self) -> &str {
        self.body["error"]["error_data"]["details"]
            .as_str()
            .or(self.body["error"]["message"].as_str())
            .unwrap_or_default()
    }

    pub(crate) fn message_id(&self) -> &str {
        self.body["messages"][0]["id"].as_str().unwrap_or_default()
    }
}

/// A sandbox and a client of it.
pub(crate) struct Desk {
    pub(crate) sandbox: Sandbox,
    pub(crate) client: reqwest::Client,
    pub(crate) token: &'static str,
}

impl Desk {
    pub(crate) async fn open(setup: Setup) -> Desk {
        Desk {
            sandbox: Sandbox::start(setup).await.unwrap(),
            client: client(false),
            token: "sandbox-token",
        }
    }

    pub(crate) async fn quick() -> Desk {
        Desk::open(Setup::quick()).await
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.sandbox.url())
    }

    pub(crate) async fn try_post(&self, path: &str, body: &str) -> Result<Answer, reqwest::Error> {
        let request = self
            .client
            .post(self.url(path))
            .bearer_auth(self.token)
            .body(body.to_owned());
        read(request.send().await?).await
    }

    pub(crate) async fn try_send(&self, body: &Value) -> Result<Answer, reqwest::Error> {
        self.try_post(&format!("/v23.0/{NUMBER}/messages"), &body.to_string())
            .await
    }

    pub(crate) async fn send(&self, body: &Value) -> Answer {
        self.try_send(body).await.unwrap()
    }

    pub(crate) async fn send_from(&self, number: &str, body: &Value) -> Answer {
        self.try_post(&format!("/v23.0/{number}/messages"), &body.to_string())
            .await
            .unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
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

pub(crate) async fn read(response: reqwest::Response) -> Result<Answer, reqwest::Error> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
    Ok(Answer {
        status,
        headers,
        body,
    })
}

pub(crate) fn text(value: &str) -> Value {
    json!({"type": "text", "text": value})
}

pub(crate) fn body(parameters: &[Value]) -> Value {
    json!({"type": "body", "parameters": parameters})
}

pub(crate) fn url_button(value: &str) -> Value {
    json!({"type": "button", "sub_type": "url", "index": "0", "parameters": [text(value)]})
}

pub(crate) fn template_in(language: &str, name: &str, components: &Value) -> Value {
    json!({"messaging_product": "whatsapp", "to": ADA, "type": "template", "biz_opaque_callback_data": "pr1.home.42.1.7.261121",
        "template": {"name": name, "language": {"code": language}, "components": components}})
}

pub(crate) fn template(name: &str, components: Value) -> Value {
    template_in("en_US", name, &components)
}

/// A request that is right in every way.
pub(crate) fn order() -> Value {
    template(
        "order_confirmation",
        json!([
            body(&[text("Ada"), text("#1042"), text("€5")]),
            url_button("1042")
        ]),
    )
}

pub(crate) fn order_to(recipient: &str) -> Value {
    with(order(), "/to", json!(recipient))
}

pub(crate) fn otp(code: &str, button: &str) -> Value {
    template(
        "login_code",
        json!([body(&[text(code)]), url_button(button)]),
    )
}

/// The same with one thing replaced, or removed when it is null.
pub(crate) fn with(mut value: Value, pointer: &str, new: Value) -> Value {
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

pub(crate) fn person(n: usize) -> String {
    format!("+4915{n:09}")
}

/// A callback that keeps what it is posted and answers as it is told.
pub(crate) struct Callback {
    pub(crate) url: String,
    pub(crate) posts: mpsc::UnboundedReceiver<Post>,
    pub(crate) state: Arc<CallbackState>,
}

pub(crate) struct CallbackState {
    pub(crate) posted: mpsc::UnboundedSender<Post>,
    /// Answers for the next posts; 200 when there are none.
    pub(crate) answers: Mutex<Vec<StatusCode>>,
}

#[derive(Clone)]
pub(crate) struct Post {
    pub(crate) signature: String,
    pub(crate) raw: Bytes,
    pub(crate) body: Value,
}

impl Callback {
    pub(crate) async fn open() -> Callback {
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

    pub(crate) fn answer_next(&self, status: StatusCode) {
        self.state.answers.lock().unwrap().push(status);
    }

    pub(crate) async fn next(&mut self) -> Post {
        self.posts.recv().await.unwrap()
    }

    /// Everything posted so far, once the sandbox has nothing more to tell.
    pub(crate) async fn all(&mut self, sandbox: &Sandbox) -> Vec<Post> {
        sandbox.control().quiet().await;
        let mut posts = Vec::new();
        while let Ok(post) = self.posts.try_recv() {
            posts.push(post);
        }
        posts
    }
}

pub(crate) async fn receive(
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
pub(crate) fn statuses(post: &Post) -> Vec<Value> {
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

pub(crate) fn words(posts: &[Post]) -> Vec<String> {
    posts
        .iter()
        .flat_map(statuses)
        .map(|status| status["status"].as_str().unwrap().to_owned())
        .collect()
}

pub(crate) async fn hooked(adjust: impl FnOnce(&mut Setup)) -> (Desk, Callback) {
    let callback = Callback::open().await;
    let mut setup = Setup::quick().callback(&callback.url);
    setup.webhooks.read_share = 1.0;
    adjust(&mut setup);
    (Desk::open(setup).await, callback)
}
