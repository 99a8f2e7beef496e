//! The control over HTTP, under `/sandbox`, for people who run `postrider sandbox`.

use std::{collections::HashMap, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    http::{Response, StatusCode},
    routing::{get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    Control, FaultRule, Inbound, NumberChange, control::Unknown, messages, traffic::Shared,
};

/// Rows of the ledger in one answer, unless asked otherwise.
const PAGE: usize = 1_000;

/// A refusal and its reason.
struct Refusal(StatusCode, String);

type Answer = Result<Response<Body>, Refusal>;

impl axum::response::IntoResponse for Refusal {
    fn into_response(self) -> axum::response::Response {
        messages::json(self.0, json!({"error": self.1}).to_string().into_bytes())
    }
}

impl From<Unknown> for Refusal {
    fn from(unknown: Unknown) -> Refusal {
        Refusal(StatusCode::NOT_FOUND, unknown.to_string())
    }
}

/// All routes of the control.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/sandbox/summary", get(summary))
        .route("/sandbox/ledger", get(ledger))
        .route("/sandbox/faults", post(add_fault).delete(clear_faults))
        .route("/sandbox/inbound", post(inbound))
        .route("/sandbox/callback", post(callback))
        .route("/sandbox/webhooks/{pause_or_resume}", post(webhooks))
        .route(
            "/sandbox/templates/{name}/{language}/status",
            post(template_status),
        )
        .route("/sandbox/numbers/{id}", post(set_number))
        .with_state(Control::new(shared))
}

fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal(StatusCode::BAD_REQUEST, error.to_string()))
}

fn done() -> Answer {
    Ok(messages::json(
        StatusCode::OK,
        br#"{"success":true}"#.to_vec(),
    ))
}

async fn summary(State(control): State<Control>) -> Answer {
    Ok(messages::json(
        StatusCode::OK,
        json!(control.summary()).to_string().into_bytes(),
    ))
}

/// JSON lines, from `?from=` on, `?max=` at most.
async fn ledger(
    State(control): State<Control>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let number = |key: &str| query.get(key).and_then(|value| value.parse::<u64>().ok());
    let max = number("max")
        .and_then(|max| usize::try_from(max).ok())
        .unwrap_or(PAGE);
    let mut lines = Vec::new();
    for entry in control.ledger().page(number("from").unwrap_or(0), max) {
        serde_json::to_writer(&mut lines, &entry).expect("writing to memory cannot fail");
        lines.push(b'\n');
    }
    Ok(messages::json(StatusCode::OK, lines))
}

async fn add_fault(State(control): State<Control>, body: Bytes) -> Answer {
    control.fault(read::<FaultRule>(&body)?);
    done()
}

async fn clear_faults(State(control): State<Control>) -> Answer {
    control.clear_faults();
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InboundRequest {
    from: String,
    number: String,
    message: Inbound,
}

async fn inbound(State(control): State<Control>, body: Bytes) -> Answer {
    let request: InboundRequest = read(&body)?;
    let id = control.inbound(&request.from, &request.number, &request.message)?;
    Ok(messages::json(
        StatusCode::OK,
        json!({"id": id}).to_string().into_bytes(),
    ))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CallbackRequest {
    url: String,
}

async fn callback(State(control): State<Control>, body: Bytes) -> Answer {
    control.callback(&read::<CallbackRequest>(&body)?.url);
    done()
}

async fn webhooks(State(control): State<Control>, Path(word): Path<String>) -> Answer {
    match word.as_str() {
        "pause" => control.pause_webhooks(true),
        "resume" => control.pause_webhooks(false),
        _ => {
            return Err(Refusal(
                StatusCode::NOT_FOUND,
                "it is pause or resume".into(),
            ));
        }
    }
    done()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusRequest {
    status: String,
}

async fn template_status(
    State(control): State<Control>,
    Path((name, language)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    control.template_status(&name, &language, &read::<StatusRequest>(&body)?.status)?;
    done()
}

async fn set_number(State(control): State<Control>, Path(id): Path<String>, body: Bytes) -> Answer {
    control.set_number(&id, read::<NumberChange>(&body)?)?;
    done()
}
