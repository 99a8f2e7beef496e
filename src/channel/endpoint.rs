//! Where the provider is and how we reach it: what requests to send messages and to read lists have in common.

use std::time::Duration;

use reqwest::{Url, header::HeaderValue, redirect, retry};
use secrecy::{ExposeSecret, SecretString};

/// Where the provider is, and how patient we are with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// For example `https://graph.facebook.com`.
    pub base_url: String,
    /// For example `v26.0`; empty where the base URL says it all.
    pub api_version: String,
    /// `Authorization` carries the token as a bearer's; any other header carries it bare, as resellers ask for.
    pub auth_header: String,
    /// From the first byte of the request to the last of the answer, connecting included.
    pub request_timeout: Duration,
    /// To connect, name lookup and TLS included. A request that fails in it has certainly not left.
    pub connect_timeout: Duration,
    /// How long the peer may leave what we wrote unacknowledged, on Linux.
    pub tcp_user_timeout: Duration,
    /// HTTP/2 without asking first, for plain connections to a stand-in.
    pub http2_prior_knowledge: bool,
    /// HTTP clients to spread requests over. Each keeps one HTTP/2 connection, which carries about 100 requests at once.
    pub clients: usize,
}

impl Default for Endpoint {
    fn default() -> Self {
        Self {
            base_url: "https://graph.facebook.com".to_owned(),
            api_version: "v25.0".to_owned(),
            auth_header: "Authorization".to_owned(),
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            tcp_user_timeout: Duration::from_secs(10),
            http2_prior_knowledge: false,
            clients: 1,
        }
    }
}

/// Why no client could be made; a fault of the configuration, not of the provider.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Not a URL that requests can go to.
    #[error("`{0}` is not an http or https URL")]
    BaseUrl(String),
    /// Not a name a header can have.
    #[error("`{0}` is not a header name")]
    AuthHeader(String),
    /// Characters that a header cannot carry, most often a line break from a file.
    #[error("the access token has characters that no token has, such as a line break")]
    Token,
    /// TLS or the like.
    #[error("the HTTP client could not be set up")]
    Setup(#[source] reqwest::Error),
}

/// Connections that nobody used for so long are closed by us, before the provider closes them under a request.
const IDLE: Duration = Duration::from_secs(30);

impl Endpoint {
    /// A client of its own, with its own connections.
    pub(super) fn connect(&self) -> Result<reqwest::Client, ClientError> {
        // Fails when it is installed already, which is what we want.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
            // Every attempt is one that the database knows of.
            .retry(retry::never())
            .redirect(redirect::Policy::none())
            .timeout(self.request_timeout)
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE);
        #[cfg(target_os = "linux")]
        {
            // A peer that vanished is noticed when it does not acknowledge, not when the system gives up after minutes.
            builder = builder.tcp_user_timeout(self.tcp_user_timeout);
        }
        if self.http2_prior_knowledge {
            builder = builder.http2_prior_knowledge();
        }
        if is_loopback(&self.base()?) {
            builder = builder.no_proxy();
        }
        builder.build().map_err(ClientError::Setup)
    }

    /// The URL of a path below the API's version; each segment is escaped.
    pub(super) fn url(&self, path: &[&str]) -> Result<Url, ClientError> {
        let mut url = self.base()?;
        url.path_segments_mut()
            .map_err(|()| ClientError::BaseUrl(self.base_url.clone()))?
            .pop_if_empty()
            .extend(Some(self.api_version.as_str()).filter(|version| !version.is_empty()))
            .extend(path);
        Ok(url)
    }

    /// The name and value of the header that carries the token.
    pub(super) fn credentials(
        &self,
        token: &SecretString,
    ) -> Result<(reqwest::header::HeaderName, HeaderValue), ClientError> {
        let name = self
            .auth_header
            .parse()
            .map_err(|_| ClientError::AuthHeader(self.auth_header.clone()))?;
        let token = token.expose_secret();
        let value = if name == reqwest::header::AUTHORIZATION {
            HeaderValue::try_from(format!("Bearer {token}"))
        } else {
            HeaderValue::try_from(token)
        };
        let mut value = value.map_err(|_| ClientError::Token)?;
        value.set_sensitive(true);
        Ok((name, value))
    }

    fn base(&self) -> Result<Url, ClientError> {
        let bad = || ClientError::BaseUrl(self.base_url.clone());
        let url = Url::parse(&self.base_url).map_err(|_| bad())?;
        if matches!(url.scheme(), "http" | "https") && url.has_host() {
            Ok(url)
        } else {
            Err(bad())
        }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// The whole body, if it is no longer than `limit`. One that came in one piece, as most do, is not copied.
pub(super) async fn read_body(
    mut response: reqwest::Response,
    limit: usize,
) -> Result<bytes::Bytes, BodyError> {
    let mut body = bytes::Bytes::new();
    let mut joined = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| BodyError::Broken(causes(error)))?
    {
        if body.len() + joined.len() + chunk.len() > limit {
            return Err(BodyError::TooLong(limit));
        }
        if body.is_empty() && joined.is_empty() {
            body = chunk;
            continue;
        }
        joined.extend_from_slice(&std::mem::take(&mut body));
        joined.extend_from_slice(&chunk);
    }
    Ok(if joined.is_empty() {
        body
    } else {
        joined.into()
    })
}

/// An error with all its causes, without the URL: that names the number, and is the same in every line.
pub(super) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(base_url: &str) -> Endpoint {
        Endpoint {
            base_url: base_url.to_owned(),
            api_version: "v26.0".to_owned(),
            ..Endpoint::default()
        }
    }

    #[test]
    fn a_url_keeps_the_bases_path_and_escapes_each_segment() {
        let url = |base: &str| endpoint(base).url(&["10/6", "messages"]).map(String::from);
        assert_eq!(
            url("https://graph.facebook.com").unwrap(),
            "https://graph.facebook.com/v26.0/10%2F6/messages"
        );
        assert_eq!(
            url("https://h/proxy/").unwrap(),
            "https://h/proxy/v26.0/10%2F6/messages"
        );
        assert!(matches!(
            url("graph.facebook.com"),
            Err(ClientError::BaseUrl(_))
        ));
        assert!(matches!(url("unix:/x"), Err(ClientError::BaseUrl(_))));
    }

    #[test]
    fn a_token_is_a_bearers_only_in_the_authorization_header() {
        let token = SecretString::from("EAAB");
        let mut endpoint = endpoint("https://h");
        assert_eq!(endpoint.credentials(&token).unwrap().1, "Bearer EAAB");
        endpoint.auth_header = "D360-API-KEY".to_owned();
        assert_eq!(endpoint.credentials(&token).unwrap().1, "EAAB");
    }

    #[test]
    fn a_token_with_a_line_break_is_refused_and_never_shown() {
        let error = endpoint("https://h")
            .credentials(&SecretString::from("EAAB\n"))
            .unwrap_err();
        assert!(matches!(error, ClientError::Token));
        let (_, value) = endpoint("https://h")
            .credentials(&SecretString::from("EAAB"))
            .unwrap();
        assert!(!format!("{value:?}").contains("EAAB"));
    }

    #[test]
    fn only_loopback_hosts_go_past_the_proxy() {
        let loopback = |url: &str| is_loopback(&Url::parse(url).unwrap());
        assert!(
            loopback("http://127.0.0.1:80")
                && loopback("http://[::1]:80")
                && loopback("http://localhost")
        );
        assert!(!loopback("https://graph.facebook.com") && !loopback("http://10.0.0.1"));
    }
}
