//! A webhook that listens, and a provider that calls it.

use std::sync::Arc;

use postrider::{
    dispatch,
    http::{
        meters::Meters,
        serving, signature,
        webhook::{App, WebhookSettings, webhook},
    },
    rules::keywords::Keywords,
};
use reqwest::{Client, Response, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Our name in callback data.
pub(crate) const INSTALLATION: &str = "inst";

/// Meta's id of the number that `prepare` makes.
pub(crate) const NUMBER: &str = "106";

/// A listening webhook with one app, `main`; it ends with this.
pub(crate) struct Receiver {
    url: String,
    client: Client,
    pub(crate) meters: Meters,
    pub(crate) work: JoinHandle<()>,
    _stop: DropGuard,
}

pub(crate) fn secret() -> SecretString {
    SecretString::from("app secret")
}

pub(crate) fn settings(apps: &[&str]) -> WebhookSettings {
    let app = |name: &&str| App {
        name: (*name).to_owned(),
        secrets: vec!["a new secret".into(), secret()],
        verify_token: "verify me".into(),
    };
    WebhookSettings {
        apps: apps.iter().map(app).collect(),
        keywords: Keywords::default(),
        stop_covers: "all".to_owned(),
        installation: INSTALLATION.to_owned(),
    }
}

impl Receiver {
    pub(crate) async fn start(pool: &PgPool) -> Self {
        Self::with(pool, settings(&["main"])).await
    }

    pub(crate) async fn with(pool: &PgPool, settings: WebhookSettings) -> Self {
        // Another test of this process may have done so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (_, settings) = watch::channel(Arc::new(settings));
        let meters = Meters::new(dispatch::meters::Meters::default().finished);
        let stop = CancellationToken::new();
        let (router, work) = webhook(
            settings,
            pool.clone(),
            Arc::new(Notify::new()),
            meters.clone(),
            stop.clone(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serving::serve(listener, router, 100, stop.clone()));
        Receiver {
            url,
            client: Client::builder().no_proxy().build().unwrap(),
            meters,
            work: tokio::spawn(work),
            _stop: stop.drop_guard(),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    /// Posts a body under a signature.
    pub(crate) async fn post(
        &self,
        path: &str,
        signature: Option<&str>,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let mut request = self.client.post(self.url(path)).body(body);
        if let Some(signature) = signature {
            request = request.header(signature::HEADER, signature);
        }
        request.send().await.unwrap()
    }

    /// Posts the value of a `messages` change as the provider does.
    pub(crate) async fn tell(&self, value: &Value) -> StatusCode {
        let body = body(value);
        let signature = signature::sign(body.as_bytes(), &secret());
        self.post("/webhooks/whatsapp", Some(&signature), body)
            .await
            .status()
    }

    /// Somebody writes something to our number.
    pub(crate) async fn write(&self, id: &str, message: &Value) -> StatusCode {
        let mut whole =
            json!({ "id": id, "timestamp": postrider::clock::now().timestamp().to_string() });
        whole
            .as_object_mut()
            .unwrap()
            .extend(message.as_object().unwrap().clone());
        self.tell(&json!({ "metadata": { "phone_number_id": NUMBER }, "messages": [whole] }))
            .await
    }
}

/// A webhook with one `messages` change.
pub(crate) fn body(value: &Value) -> String {
    let change = json!({ "field": "messages", "value": value });
    json!({ "object": "whatsapp_business_account", "entry": [{ "id": "waba", "changes": [change] }] }).to_string()
}

/// A number, whose lane is returned.
pub(crate) async fn prepare(pool: &PgPool) -> i32 {
    for statement in [
        "insert into postrider.portfolio (portfolio_id) values ('p')",
        "insert into postrider.account (waba_id, portfolio_id, app) values ('w', 'p', 'main')",
        "insert into postrider.kind (name, priority, valid_for, resolve_after, on_unknown)
         values ('order', 1, '1 day', '2 min', 'resend')",
    ] {
        sqlx::query(statement).execute(pool).await.unwrap();
    }
    sqlx::query_scalar("insert into postrider.number (phone_number_id, waba_id, shard) values ($1, 'w', 0) returning lane")
        .bind(NUMBER)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// How many rows a table has.
pub(crate) async fn count(pool: &PgPool, table: &str) -> i64 {
    let statement = format!("select count(*) from postrider.{table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(statement))
        .fetch_one(pool)
        .await
        .unwrap()
}
