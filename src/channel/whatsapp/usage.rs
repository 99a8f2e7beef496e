//! How much of its call limits the provider says is used: two headers that come with many answers.

use std::{collections::HashMap, time::Duration};

use reqwest::header::HeaderMap;
use serde::Deserialize;

/// The fullest of the limits that an answer speaks of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Calls, in percent of the limit.
    pub call_count_percent: u32,
    /// The provider's CPU time, in percent.
    pub cpu_time_percent: u32,
    /// Time altogether, in percent.
    pub total_time_percent: u32,
    /// How long until calls are taken again, when they are not.
    pub regain_access_in: Option<Duration>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    call_count: f64,
    #[serde(default)]
    total_cputime: f64,
    #[serde(default)]
    total_time: f64,
    /// In minutes.
    #[serde(default)]
    estimated_time_to_regain_access: f64,
}

impl Usage {
    /// From `x-business-use-case-usage` (entries by account) and `x-app-usage` (one entry); `None` without either.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| {
            headers
                .get(name)
                .map(reqwest::header::HeaderValue::as_bytes)
        };
        let by_account = text("x-business-use-case-usage")
            .and_then(|text| serde_json::from_slice::<HashMap<String, Vec<Entry>>>(text).ok());
        let by_app =
            text("x-app-usage").and_then(|text| serde_json::from_slice::<Entry>(text).ok());
        by_account
            .into_iter()
            .flat_map(HashMap::into_values)
            .flatten()
            .chain(by_app)
            .map(Self::from)
            .reduce(Self::fuller)
    }

    fn fuller(self, other: Self) -> Self {
        Self {
            call_count_percent: self.call_count_percent.max(other.call_count_percent),
            cpu_time_percent: self.cpu_time_percent.max(other.cpu_time_percent),
            total_time_percent: self.total_time_percent.max(other.total_time_percent),
            regain_access_in: self.regain_access_in.max(other.regain_access_in),
        }
    }
}

impl From<Entry> for Usage {
    fn from(entry: Entry) -> Self {
        let wait = Duration::try_from_secs_f64(entry.estimated_time_to_regain_access * 60.0).ok();
        Self {
            call_count_percent: percent(entry.call_count),
            cpu_time_percent: percent(entry.total_cputime),
            total_time_percent: percent(entry.total_time),
            regain_access_in: wait.filter(|wait| !wait.is_zero()),
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, which is what is wanted"
)]
fn percent(value: f64) -> u32 {
    value.ceil() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(headers: &[(&'static str, &'static str)]) -> Option<Usage> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        Usage::from_headers(&headers)
    }

    #[test]
    fn the_fullest_limit_counts() {
        let it = usage(&[
            (
                "x-business-use-case-usage",
                r#"{"102":[{"type":"whatsapp","call_count":28,"total_cputime":15,"total_time":12,"estimated_time_to_regain_access":0}],"103":[{"type":"whatsapp","call_count":100,"estimated_time_to_regain_access":17}]}"#,
            ),
            (
                "x-app-usage",
                r#"{"call_count":3,"total_cputime":60,"total_time":1}"#,
            ),
        ]);
        let expected = Usage {
            call_count_percent: 100,
            cpu_time_percent: 60,
            total_time_percent: 12,
            regain_access_in: Some(Duration::from_secs(17 * 60)),
        };
        assert_eq!(it, Some(expected));
    }

    #[test]
    fn headers_that_are_missing_or_odd_say_nothing() {
        assert_eq!(usage(&[]), None);
        assert_eq!(
            usage(&[("x-app-usage", "soon"), ("x-business-use-case-usage", "[]")]),
            None
        );
        assert_eq!(
            usage(&[("x-app-usage", r#"{"estimated_time_to_regain_access":-5}"#)]),
            Some(Usage::default())
        );
    }
}
