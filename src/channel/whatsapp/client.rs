//! Posts messages. What can be made beforehand is: the headers are made once an account, the body comes as bytes.
//!
//! What matters most here is to tell "certainly never left" from "perhaps taken". A request whose body no connection took
//! is the former. Everything after that, however unlikely it is that the provider saw the request, is no answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use secrecy::SecretString;

use super::{
    ClientError, Endpoint, Usage, answer,
    letter::{Letter, Trace},
};
use crate::{
    channel::endpoint::{causes, read_body},
    rules::outcome::Answer,
};

/// An answer to a send is a few hundred bytes; more than this is not one.
const LONGEST_ANSWER: usize = 64 * 1024;

/// The provider, ready to take messages.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    /// What the URLs of all numbers begin with.
    base: Url,
    /// Used in turn: each has one HTTP/2 connection to the provider.
    clients: Vec<reqwest::Client>,
    turn: AtomicUsize,
}

/// A number to send from.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Meta's id of it.
    pub phone_number_id: Arc<str>,
    /// What the requests of its account carry.
    pub credentials: Credentials,
}

/// What an account's requests carry; its numbers share it.
#[derive(Debug, Clone)]
pub struct Credentials(Arc<HeaderMap>);

/// What came of one request.
#[derive(Debug)]
pub struct Reply {
    /// What the provider said, or did not.
    pub answer: Answer,
    /// How much of its call limits is used, where it says.
    pub usage: Option<Usage>,
    /// The version that served us, when it is not the one we asked for: ours has ended.
    pub other_version: Option<String>,
    /// From the request to the end of the answer.
    pub took: Duration,
}

impl Client {
    /// Sets up the clients; connects to nothing yet.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let clients = (0..endpoint.clients.max(1))
            .map(|_| endpoint.connect())
            .collect::<Result<_, _>>()?;
        Ok(Self {
            endpoint: endpoint.clone(),
            base: endpoint.url(&[])?,
            clients,
            turn: AtomicUsize::new(0),
        })
    }

    /// What the requests of an account with this token carry.
    pub fn credentials(&self, token: &SecretString) -> Result<Credentials, ClientError> {
        let (name, value) = self.endpoint.credentials(token)?;
        let mut headers = HeaderMap::new();
        headers.insert(name, value);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Credentials(Arc::new(headers)))
    }

    /// Posts one message, once. `leave` is called when a connection takes the request, immediately before it is written;
    /// where it returns false nothing is, and the answer is [`Answer::NotSent`].
    pub async fn post(
        &self,
        sender: &Sender,
        body: Bytes,
        leave: impl FnOnce() -> bool + Send + Sync + 'static,
    ) -> Reply {
        let started = Instant::now();
        let (letter, trace) = Letter::new(body, leave);
        let mut request = Request::new(Method::POST, self.messages_url(sender));
        *request.headers_mut() = HeaderMap::clone(&sender.credentials.0);
        *request.body_mut() = Some(reqwest::Body::wrap(letter));
        let mut reply = match self.client().execute(request).await {
            Ok(response) => self.read(response).await,
            Err(error) => Reply::without_response(error, &trace),
        };
        reply.took = started.elapsed();
        reply
    }

    fn messages_url(&self, sender: &Sender) -> Url {
        let mut url = self.base.clone();
        // Every http URL has a path.
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend([&*sender.phone_number_id, "messages"]);
        }
        url
    }

    fn client(&self) -> &reqwest::Client {
        &self.clients[self.turn.fetch_add(1, Ordering::Relaxed) % self.clients.len()]
    }

    async fn read(&self, response: reqwest::Response) -> Reply {
        let http_status = response.status().as_u16();
        let usage = Usage::from_headers(response.headers());
        let other_version = self.other_version(response.headers());
        let retry_after = retry_after(response.headers())
            .max(usage.as_ref().and_then(|usage| usage.regain_access_in));
        let answer = match read_body(response, LONGEST_ANSWER).await {
            Ok(body) => answer::read(http_status, &body, retry_after),
            Err(error) => Answer::NoAnswer {
                http_status: Some(http_status),
                detail: error.to_string(),
            },
        };
        Reply {
            answer,
            usage,
            other_version,
            took: Duration::ZERO,
        }
    }

    fn other_version(&self, headers: &HeaderMap) -> Option<String> {
        let served = headers.get("facebook-api-version")?.to_str().ok()?;
        (served != self.endpoint.api_version).then(|| served.to_owned())
    }
}

impl Reply {
    fn without_response(error: reqwest::Error, trace: &Trace) -> Self {
        let answer = if trace.has_left() {
            Answer::NoAnswer {
                http_status: None,
                detail: causes(error),
            }
        } else {
            Answer::NotSent {
                detail: causes(error),
            }
        };
        Self {
            answer,
            usage: None,
            other_version: None,
            took: Duration::ZERO,
        }
    }
}

/// `Retry-After` in seconds. Its other form, a date, needs a clock, and the provider does not use it.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds))
}
