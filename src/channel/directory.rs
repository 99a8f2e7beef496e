//! What the provider knows of us: numbers with their limits, and templates.
//!
//! Lists are paged by cursor. Fields that only some API versions know are asked for apart, because one unknown field in
//! the list is error 100 for the whole request. A record that cannot be read is left out with a warning; the others stand.

use std::time::Duration;

use reqwest::{Method, Request, Url};
use secrecy::SecretString;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::{
    endpoint::{ClientError, Endpoint, causes, read_body},
    whatsapp::coded_error,
};
use crate::rules::{messaging_limit::Tier, outcome::ProviderError};

/// A hundred templates with their components are some 300 KiB.
const LONGEST_PAGE: usize = 8 * 1024 * 1024;
/// As many records as we ask for at once.
const PAGE: &str = "100";
/// More pages than the 6,000 templates of a verified business need; a list that goes on is going round in circles.
const MOST_PAGES: usize = 1000;
/// How often a list is started anew because its cursor went bad.
const RESTARTS: usize = 3;
/// "Bad paging cursor": start over without it.
const BAD_CURSOR: i32 = 131_059;
/// "Invalid parameter": among others, a field that this version does not know.
const INVALID_PARAMETER: i32 = 100;

const NUMBER_FIELDS: &str =
    "id,display_phone_number,verified_name,quality_rating,status,throughput";
const TEMPLATE_FIELDS: &str = "id,name,status,category,language,components,parameter_format,quality_score,\
                               message_send_ttl_seconds,rejected_reason";
/// The field of the portfolio's limit, and the one it had before.
const LIMIT_FIELDS: [&str; 2] = [
    "whatsapp_business_manager_messaging_limit",
    "messaging_limit_tier",
];

/// The provider's lists.
#[derive(Debug)]
pub struct Directory {
    endpoint: Endpoint,
    http: reqwest::Client,
}

/// Why a list could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The configuration makes no request.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// No answer came.
    #[error("the provider could not be reached: {0}")]
    Unreachable(String),
    /// The provider said no.
    #[error("the provider refused: {} (code {})", .0.title, .0.code)]
    Refused(Box<ProviderError>),
    /// An answer that is none.
    #[error("the provider's answer (HTTP {http_status}) cannot be read: {detail}")]
    Unreadable {
        /// The status line.
        http_status: u16,
        /// What is wrong with it.
        detail: String,
    },
}

impl DirectoryError {
    /// The token is bad or may not do this.
    #[must_use]
    pub fn is_credentials(&self) -> bool {
        matches!(self, Self::Refused(error) if matches!(error.code, 0 | 3 | 10 | 190 | 200..=299))
            || matches!(
                self,
                Self::Unreadable {
                    http_status: 401 | 403,
                    ..
                }
            )
            || matches!(self, Self::Client(ClientError::Token))
    }

    /// Asking again later may help, with nothing changed on our side.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Client(_) => false,
            Self::Unreachable(_) => true,
            Self::Refused(error) => {
                error.http_status >= 500 || error.is_transient || error.retry_after.is_some()
            }
            Self::Unreadable { http_status, .. } => *http_status >= 500 || *http_status == 429,
        }
    }

    fn has_code(&self, code: i32) -> bool {
        matches!(self, Self::Refused(error) if error.code == code)
    }
}

/// A business phone number. What the provider did not say is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct NumberInfo {
    /// Meta's id, as in the request's path.
    #[serde(rename = "id")]
    pub phone_number_id: String,
    /// As people see it.
    #[serde(default)]
    pub display_phone_number: Option<String>,
    /// The business name that recipients see.
    #[serde(default)]
    pub verified_name: Option<String>,
    /// CONNECTED is the only one that can send.
    #[serde(default)]
    pub status: Option<String>,
    /// GREEN, YELLOW, RED or UNKNOWN.
    #[serde(default)]
    pub quality_rating: Option<String>,
    /// STANDARD, HIGH or NOT_APPLICABLE.
    #[serde(default, rename = "throughput", deserialize_with = "level")]
    pub throughput_level: Option<String>,
    /// Also used on the phone app.
    #[serde(default)]
    pub is_on_biz_app: Option<bool>,
}

/// A message template in one language.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TemplateInfo {
    /// Meta's id.
    #[serde(rename = "id", default)]
    pub provider_id: Option<String>,
    /// Lower case, digits and underscores.
    pub name: String,
    /// As the provider spells it: `en_US`, now and then `en-US`.
    pub language: String,
    /// APPROVED is the only one that sends.
    pub status: String,
    /// MARKETING, UTILITY or AUTHENTICATION.
    pub category: String,
    /// POSITIONAL or NAMED.
    #[serde(default)]
    pub parameter_format: Option<String>,
    /// The provider's own form.
    #[serde(default)]
    pub components: Value,
    /// GREEN, YELLOW, RED or UNKNOWN.
    #[serde(default, rename = "quality_score", deserialize_with = "level")]
    pub quality: Option<String>,
    /// -1 means 30 days.
    #[serde(default)]
    pub message_send_ttl_seconds: Option<i32>,
    /// Why it was rejected; the provider says NONE where it was not.
    #[serde(default)]
    pub rejected_reason: Option<String>,
}

/// A messaging limit, with the provider's word for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessagingLimit {
    /// For example `TIER_2K`.
    pub word: String,
    /// What it means.
    pub tier: Tier,
}

impl Directory {
    /// Sets up the client; connects to nothing yet.
    pub fn new(endpoint: &Endpoint) -> Result<Self, ClientError> {
        Ok(Self {
            endpoint: endpoint.clone(),
            http: endpoint.connect()?,
        })
    }

    /// The numbers of an account.
    pub async fn numbers(
        &self,
        waba_id: &str,
        token: &SecretString,
    ) -> Result<Vec<NumberInfo>, DirectoryError> {
        let path = [waba_id, "phone_numbers"];
        let mut numbers: Vec<NumberInfo> = self.list(&path, NUMBER_FIELDS, token).await?;
        // Older versions do not know this one.
        let on_app: Vec<NumberInfo> = match self.list(&path, "id,is_on_biz_app", token).await {
            Err(error) if error.has_code(INVALID_PARAMETER) => Vec::new(),
            other => other?,
        };
        for number in &mut numbers {
            let same = on_app
                .iter()
                .find(|other| other.phone_number_id == number.phone_number_id);
            number.is_on_biz_app = same.and_then(|other| other.is_on_biz_app);
        }
        Ok(numbers)
    }

    /// The messaging limit that a number is under: its portfolio's. `None` when this version does not tell.
    pub async fn messaging_limit(
        &self,
        phone_number_id: &str,
        token: &SecretString,
    ) -> Result<Option<MessagingLimit>, DirectoryError> {
        for field in LIMIT_FIELDS {
            let url = self.url(&[phone_number_id], field, None)?;
            match self.get::<Value>(url, token).await {
                Ok(answer) => {
                    if let Some(limit) = read_limit(&answer[field]) {
                        return Ok(Some(limit));
                    }
                }
                Err(error) if error.has_code(INVALID_PARAMETER) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The messaging limit that each number of an account is under, by Meta's id, for numbers that have one of their own.
    /// Those of which this version does not tell are left out.
    pub async fn messaging_limits(
        &self,
        waba_id: &str,
        token: &SecretString,
    ) -> Result<Vec<(String, MessagingLimit)>, DirectoryError> {
        for field in LIMIT_FIELDS {
            let fields = format!("id,{field}");
            let listed: Vec<Value> =
                match self.list(&[waba_id, "phone_numbers"], &fields, token).await {
                    Err(error) if error.has_code(INVALID_PARAMETER) => continue,
                    listed => listed?,
                };
            let limits: Vec<_> = listed
                .iter()
                .filter_map(|number| {
                    let id = number["id"].as_str()?.to_owned();
                    Some((id, read_limit(&number[field])?))
                })
                .collect();
            if !limits.is_empty() {
                return Ok(limits);
            }
        }
        Ok(Vec::new())
    }

    /// The templates of an account, in all languages and states.
    pub async fn templates(
        &self,
        waba_id: &str,
        token: &SecretString,
    ) -> Result<Vec<TemplateInfo>, DirectoryError> {
        self.list(&[waba_id, "message_templates"], TEMPLATE_FIELDS, token)
            .await
    }

    /// A whole list. One whose cursor went bad is read anew.
    async fn list<T: DeserializeOwned>(
        &self,
        path: &[&str],
        fields: &str,
        token: &SecretString,
    ) -> Result<Vec<T>, DirectoryError> {
        for _ in 0..RESTARTS {
            match self.list_once(path, fields, token).await {
                Err(error) if error.has_code(BAD_CURSOR) => {}
                other => return other,
            }
        }
        self.list_once(path, fields, token).await
    }

    async fn list_once<T: DeserializeOwned>(
        &self,
        path: &[&str],
        fields: &str,
        token: &SecretString,
    ) -> Result<Vec<T>, DirectoryError> {
        let mut records = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let url = self.url(path, fields, Some(after.as_deref()))?;
            let page: Page = self.get(url, token).await?;
            records.extend(
                page.data
                    .iter()
                    .filter_map(|record| read_record(record, path)),
            );
            match page.paging.and_then(Paging::after) {
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                _ => return Ok(records),
            }
        }
        Err(DirectoryError::Unreadable {
            http_status: 200,
            detail: format!("more than {MOST_PAGES} pages"),
        })
    }

    /// A page's URL, or with `page` `None` that of a single object.
    fn url(
        &self,
        path: &[&str],
        fields: &str,
        page: Option<Option<&str>>,
    ) -> Result<Url, ClientError> {
        let mut url = self.endpoint.url(path)?;
        let mut query = url.query_pairs_mut();
        query.append_pair("fields", fields);
        if let Some(after) = page {
            query.append_pair("limit", PAGE);
            query.extend_pairs(after.map(|after| ("after", after)));
        }
        drop(query);
        Ok(url)
    }

    async fn get<T: DeserializeOwned>(
        &self,
        url: Url,
        token: &SecretString,
    ) -> Result<T, DirectoryError> {
        let (name, value) = self.endpoint.credentials(token)?;
        let mut request = Request::new(Method::GET, url);
        request.headers_mut().insert(name, value);
        let unreachable = |error| DirectoryError::Unreachable(causes(error));
        let response = self.http.execute(request).await.map_err(unreachable)?;
        let http_status = response.status().as_u16();
        let unreadable = |detail: String| DirectoryError::Unreadable {
            http_status,
            detail,
        };
        let body = read_body(response, LONGEST_PAGE)
            .await
            .map_err(|error| unreadable(error.to_string()))?;
        if let Some(error) = error_in(&body, http_status) {
            return Err(DirectoryError::Refused(Box::new(error)));
        }
        if http_status != 200 {
            return Err(unreadable("an error without a code".to_owned()));
        }
        serde_json::from_slice(&body).map_err(|error| unreadable(error.to_string()))
    }
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Box<RawValue>>,
    #[serde(default)]
    paging: Option<Paging>,
}

#[derive(Deserialize)]
struct Paging {
    #[serde(default)]
    cursors: Option<Cursors>,
    /// The next page's URL. The last page has cursors too, but not this.
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Cursors {
    #[serde(default)]
    after: Option<String>,
}

impl Paging {
    fn after(self) -> Option<String> {
        self.next.and(self.cursors?.after)
    }
}

fn error_in(body: &[u8], http_status: u16) -> Option<ProviderError> {
    #[derive(Deserialize)]
    struct Failed<'a> {
        #[serde(borrow)]
        error: &'a RawValue,
    }
    let failed: Failed<'_> = serde_json::from_slice(body).ok()?;
    coded_error(failed.error, http_status, None::<Duration>)
}

fn read_record<T: DeserializeOwned>(record: &RawValue, path: &[&str]) -> Option<T> {
    serde_json::from_str(record.get())
        .inspect_err(|error| tracing::warn!(%error, list = path.join("/"), "left out a record that cannot be read"))
        .ok()
}

fn read_limit(value: &Value) -> Option<MessagingLimit> {
    let word = match value {
        Value::String(word) => word.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let tier = Tier::parse(&word);
    if tier.is_none() {
        tracing::warn!(word, "left out a messaging limit that is not understood");
    }
    tier.map(|tier| MessagingLimit { word, tier })
}

/// `{"level": "HIGH"}` or `{"score": "GREEN", …}`; a bare word is understood too.
fn level<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let word = value
        .as_str()
        .or(value["level"].as_str())
        .or(value["score"].as_str());
    Ok(word.map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_needs_no_more_than_what_names_it() {
        let it: TemplateInfo = serde_json::from_str(
            r#"{"name":"a","language":"en_US","status":"APPROVED","category":"UTILITY","x":1}"#,
        )
        .unwrap();
        assert_eq!((it.quality, it.parameter_format), (None, None));
        let it: TemplateInfo = serde_json::from_str(
            r#"{"name":"a","language":"en","status":"PAUSED","category":"UTILITY","quality_score":{"score":"RED","date":1}}"#,
        )
        .unwrap();
        assert_eq!(it.quality.as_deref(), Some("RED"));
    }
}
