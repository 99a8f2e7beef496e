//! `POST /{version}/{phone_number_id}/messages`: from the bytes to the decision, and from the decision to an answer.

use std::{convert::Infallible, future::pending, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::sleep;

use super::{
    server::ResetSwitch,
    traffic::{Call, Decision, Reply, Shared},
};

/// The provider takes far less; this only keeps memory bounded.
const BODY_MAX: usize = 1 << 20;
/// The parts that a slow body comes in.
const DRIPS: u32 = 8;
/// What an edge proxy says when it has nothing to say.
const HTML: &str = "<!DOCTYPE html><html><body><h1>Sorry, something went wrong.</h1></body></html>";

/// Answers one request, or does worse.
pub(super) async fn post(
    shared: &Shared,
    reset: &ResetSwitch,
    number: &str,
    version: Version,
    headers: &HeaderMap,
    body: Incoming,
) -> Response<Body> {
    if shared.is_reset_early(number) {
        return reset.pull().await;
    }
    let Ok(body) = Limited::new(body, BODY_MAX).collect().await else {
        return json(StatusCode::PAYLOAD_TOO_LARGE, Vec::new());
    };
    let authorization = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let call = Call {
        number,
        authorization,
        version: version.served,
    };
    let decision = shared.decide(&call, &body.to_bytes());
    // Everything is written down by now: whoever goes away while we sleep only misses the answer.
    if !decision.latency.is_zero() {
        sleep(decision.latency).await;
    }
    reply(decision, reset, version).await
}

async fn reply(decision: Decision, reset: &ResetSwitch, version: Version) -> Response<Body> {
    let mut response = match decision.reply {
        Reply::Json(status, body) => json(status, body),
        Reply::Html(status) => html(status),
        Reply::Slow(body, over) => slow(&body, over),
        Reply::Reset => return reset.pull().await,
        Reply::Silence => return pending().await,
    };
    let headers = response.headers_mut();
    if let Some(usage) = decision.usage {
        headers.insert("x-business-use-case-usage", usage);
    }
    if let Ok(trace_id) = HeaderValue::try_from(decision.trace_id) {
        headers.insert("x-fb-trace-id", trace_id);
    }
    version.tell(headers);
    response
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=UTF-8"),
    );
    response
}

fn html(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::from(HTML));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    response
}

/// A body that trickles in.
fn slow(body: &[u8], over: Duration) -> Response<Body> {
    let size = body.len().div_ceil(DRIPS as usize).max(1);
    let drips: Vec<Bytes> = body.chunks(size).map(Bytes::copy_from_slice).collect();
    let drips = stream::iter(drips).then(move |drip| async move {
        sleep(over / DRIPS).await;
        Ok::<_, Infallible>(drip)
    });
    let mut response = json(StatusCode::OK, Vec::new());
    *response.body_mut() = Body::from_stream(drips);
    response
}

/// The version of the API that a path names and the one that serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Version {
    asked: u32,
    pub(super) served: u32,
}

impl Version {
    /// The oldest that still answers; older ones are served by it.
    const OLDEST: u32 = 21;
    /// The app's default, for paths without a version.
    pub(super) const DEFAULT: Version = Version {
        asked: 26,
        served: 26,
    };

    /// Reads `v23.0`.
    pub(super) fn parse(segment: &str) -> Option<Version> {
        let (major, minor) = segment.strip_prefix('v')?.split_once('.')?;
        minor.parse::<u32>().ok()?;
        let asked = major.parse().ok()?;
        Some(Version {
            asked,
            served: Version::OLDEST.max(asked),
        })
    }

    /// The headers that tell which version served.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        if let Ok(served) = HeaderValue::try_from(format!("v{}.0", self.served)) {
            headers.insert("facebook-api-version", served);
        }
        headers.insert(
            "x-app-usage",
            HeaderValue::from_static(r#"{"call_count":1,"total_cputime":1,"total_time":1}"#),
        );
        if self.asked < self.served {
            let warning = "The call has been auto-upgraded because the requested version has ended";
            headers.insert(
                "x-ad-api-version-warning",
                HeaderValue::from_static(warning),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_version_is_served_by_the_oldest_live_one() {
        assert_eq!(
            Version::parse("v23.0"),
            Some(Version {
                asked: 23,
                served: 23
            })
        );
        assert_eq!(
            Version::parse("v19.0").map(|version| version.served),
            Some(21)
        );
        assert_eq!(Version::parse("106540352242922"), None);
        assert_eq!(Version::parse("vx.0"), None);
    }
}
