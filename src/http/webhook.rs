//! The webhook: the provider's receipts and people's messages come in here.
//!
//! A request is let in when its signature is right, read, handed to the committer, and answered with
//! 200 after its rows are committed. When they cannot be committed soon, the answer is 503 and the provider repeats the
//! request later: it does so for days, and repeats change nothing. Who has no valid signature gets a bare 401 and learns
//! nothing: not whether the app exists, not whether the body could be read.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header::CONTENT_LENGTH},
    response::{IntoResponse, Response},
    routing::get,
};
use secrecy::SecretString;
use serde::Deserialize;
use sqlx::PgPool;
use tokio::{
    sync::{Notify, Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    committing::{Committer, Submission},
    linking,
    meters::Meters,
    payload::{self, Notices, Reading},
    signature,
};
use crate::{clock, rules::keywords::Keywords};

/// The provider sends up to 3 MB (WHATSAPP.md 3.2).
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// Bytes of bodies that are being read, parsed or committed at once; whoever finds no room comes again.
const BYTES_AT_ONCE: usize = 128 * 1024 * 1024;

/// What a small request weighs in that account, for all that it holds besides its body.
const LEAST_WEIGHT: usize = 16 * 1024;

/// Requests waiting for the committer. It takes hundreds at once, so a longer queue only hides that it cannot keep up.
const WAITING: usize = 4_096;

/// How long the body may take to come.
const BODY_TIME: Duration = Duration::from_secs(10);

/// How long a commit may take before we say that it did not happen. The provider gives up on us later than that.
const COMMIT_TIME: Duration = Duration::from_secs(4);

/// What the webhook goes by; a reload may change it.
#[derive(Debug)]
pub struct WebhookSettings {
    /// Whose webhooks we take.
    pub apps: Vec<App>,
    /// What means stop, and what start.
    pub keywords: Keywords,
    /// The scope that a STOP covers: `all` or `marketing`.
    pub stop_covers: String,
    /// Our name in callback data.
    pub installation: String,
}

/// An app of the provider's console.
#[derive(Debug)]
pub struct App {
    /// Its name, as in the path.
    pub name: String,
    /// Any of these may sign; there are two while one is being replaced.
    pub secrets: Vec<SecretString>,
    /// What the provider says when the webhook is set up.
    pub verify_token: SecretString,
}

impl WebhookSettings {
    /// The app of that name, or without a name the only one.
    fn app(&self, name: Option<&str>) -> Option<&App> {
        match (name, self.apps.as_slice()) {
            (Some(name), apps) => apps.iter().find(|app| app.name == name),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

/// What every request needs.
#[derive(Clone)]
struct Door {
    settings: watch::Receiver<Arc<WebhookSettings>>,
    committer: mpsc::Sender<Submission>,
    room: Arc<Semaphore>,
    meters: Meters,
}

/// The webhook's routes, and the work behind them, which ends after the last copy of the routes is gone and what they
/// took is committed. `folding` is rung after each commit; `closing` is cancelled when nothing more is listened to.
pub fn webhook(
    settings: watch::Receiver<Arc<WebhookSettings>>,
    pool: PgPool,
    folding: Arc<Notify>,
    meters: Meters,
    closing: CancellationToken,
) -> (Router, impl Future<Output = ()> + Send) {
    let (committer, waiting) = mpsc::channel(WAITING);
    let (acquaintances, linker) = linking::linker(pool.clone());
    let committing = Committer {
        pool,
        waiting,
        acquaintances,
        folding,
        meters: meters.clone(),
        closing,
        failing_since: None,
    };
    let room = Arc::new(Semaphore::new(BYTES_AT_ONCE));
    let door = Door {
        settings,
        committer,
        room,
        meters,
    };
    let router = Router::new()
        .route("/webhooks/whatsapp", get(verify_only).post(receive_only))
        .route(
            "/webhooks/whatsapp/{app}",
            get(verify_named).post(receive_named),
        )
        .with_state(door);
    let work = async move {
        tokio::join!(committing.run(), linker.run());
    };
    (router, work)
}

/// What the provider asks when the webhook is set up.
#[derive(Deserialize)]
struct Handshake {
    #[serde(rename = "hub.mode", default)]
    mode: String,
    #[serde(rename = "hub.challenge", default)]
    challenge: String,
    #[serde(rename = "hub.verify_token", default)]
    verify_token: String,
}

async fn verify_only(State(door): State<Door>, Query(asked): Query<Handshake>) -> Response {
    door.verify(None, asked)
}

async fn verify_named(
    State(door): State<Door>,
    Path(app): Path<String>,
    Query(asked): Query<Handshake>,
) -> Response {
    door.verify(Some(&app), asked)
}

async fn receive_only(State(door): State<Door>, headers: HeaderMap, body: Body) -> StatusCode {
    door.receive(None, &headers, body).await
}

async fn receive_named(
    State(door): State<Door>,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> StatusCode {
    door.receive(Some(&app), &headers, body).await
}

impl Door {
    fn verify(&self, app: Option<&str>, asked: Handshake) -> Response {
        let settings = self.settings.borrow().clone();
        let is_ours = |app: &App| {
            asked.mode == "subscribe" && signature::is_same(&asked.verify_token, &app.verify_token)
        };
        match settings.app(app).is_some_and(is_ours) {
            true => asked.challenge.into_response(),
            false => StatusCode::FORBIDDEN.into_response(),
        }
    }

    async fn receive(&self, app: Option<&str>, headers: &HeaderMap, body: Body) -> StatusCode {
        let status = match self.take(app, headers, body).await {
            Ok(()) => StatusCode::OK,
            Err(status) => status,
        };
        self.meters.count_request(status.as_u16());
        status
    }

    async fn take(
        &self,
        app: Option<&str>,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<(), StatusCode> {
        let weight = weight(headers)?;
        let _room = self
            .room
            .try_acquire_many(weight)
            .map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        let body = read(body).await?;
        let notices = self.understand(app, headers, &body)?;
        if notices.is_empty() {
            return Ok(());
        }
        self.commit(notices).await
    }

    /// What a body says, if it is the provider's.
    fn understand(
        &self,
        app: Option<&str>,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<Notices, StatusCode> {
        let settings = self.settings.borrow().clone();
        let header = headers
            .get(signature::HEADER)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let app = settings
            .app(app)
            .filter(|app| signature::is_signed(header, body, &app.secrets));
        let app = app.ok_or(StatusCode::UNAUTHORIZED)?;
        let reading = Reading {
            app: &app.name,
            installation: &settings.installation,
            keywords: &settings.keywords,
            stop_covers: &settings.stop_covers,
            now: clock::now(),
        };
        Ok(payload::read(body, &reading))
    }

    async fn commit(&self, notices: Notices) -> Result<(), StatusCode> {
        let (committed, answer) = oneshot::channel();
        let away = StatusCode::SERVICE_UNAVAILABLE;
        self.committer
            .try_send(Submission { notices, committed })
            .map_err(|_| away)?;
        match timeout(COMMIT_TIME, answer).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(away),
        }
    }
}

/// How much room a request takes: its body, by its own word, or the most that it could be.
fn weight(headers: &HeaderMap) -> Result<u32, StatusCode> {
    let length = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    let length: usize = length.unwrap_or(BODY_LIMIT);
    if length > BODY_LIMIT {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    u32::try_from(length.max(LEAST_WEIGHT)).map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)
}

async fn read(body: Body) -> Result<Bytes, StatusCode> {
    match timeout(BODY_TIME, axum::body::to_bytes(body, BODY_LIMIT)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        // It is longer than it said, or whoever sent it is gone and hears no answer.
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}
