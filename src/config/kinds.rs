//! The kinds of notification: four that are always there, and whatever the file adds or changes.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, de};

use crate::rules::{
    job::{KeepParameters, Kind, Priority},
    unknown::OnUnknown,
};

/// What is configured for one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindConfig {
    /// The priority of jobs that do not say otherwise.
    pub priority: Priority,
    /// Template categories it may leave as; `None` allows any.
    pub categories: Option<Vec<String>>,
    /// How long after enqueue a job may still be sent.
    pub valid_for_s: u64,
    /// How long to wait for the receipt of a request that got no answer.
    pub resolve_after_s: u64,
    /// What to do when it does not come.
    pub on_unknown: OnUnknown,
    /// Whether the recipient must have opted in.
    pub requires_opt_in: bool,
    /// The scope whose opt-in counts beside the general one.
    pub consent_scope: Option<String>,
    /// What is kept of the parameters.
    pub keep_parameters: KeepParameters,
}

impl Default for KindConfig {
    /// What a kind is that the file names without saying more: the same as `order`.
    fn default() -> Self {
        Self {
            priority: Priority::Normal,
            categories: None,
            valid_for_s: 24 * 3600,
            resolve_after_s: 120,
            on_unknown: OnUnknown::Resend,
            requires_opt_in: true,
            consent_scope: None,
            keep_parameters: KeepParameters::No,
        }
    }
}

impl KindConfig {
    /// How long after enqueue a job may still be sent.
    #[must_use]
    pub fn valid_for(&self) -> Duration {
        Duration::from_secs(self.valid_for_s)
    }

    /// How long to wait for the receipt of a request that got no answer.
    #[must_use]
    pub fn resolve_after(&self) -> Duration {
        Duration::from_secs(self.resolve_after_s)
    }

    /// The part that the gate reads.
    #[must_use]
    pub fn to_rule(&self, name: &str) -> Kind {
        Kind {
            name: Arc::from(name),
            priority: self.priority,
            categories: self.categories.clone(),
            requires_opt_in: self.requires_opt_in,
            consent_scope: self.consent_scope.clone(),
            keep_parameters: self.keep_parameters,
        }
    }
}

/// The kinds that are there when the file says nothing (DESIGN.md 4.4).
#[must_use]
pub fn built_in() -> BTreeMap<String, KindConfig> {
    let otp = KindConfig {
        priority: Priority::Urgent,
        valid_for_s: 5 * 60,
        resolve_after_s: 20,
        keep_parameters: KeepParameters::Never,
        ..KindConfig::default()
    };
    let delivery = KindConfig {
        valid_for_s: 12 * 3600,
        ..KindConfig::default()
    };
    [
        ("otp", otp),
        ("delivery", delivery),
        ("travel", KindConfig::default()),
        ("order", KindConfig::default()),
    ]
    .into_iter()
    .map(|(name, kind)| (name.to_owned(), kind))
    .collect()
}

/// `[kinds.NAME]` as written: what it does not say stays as it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KindSection {
    #[serde(default, deserialize_with = "priority")]
    priority: Option<Priority>,
    categories: Option<Vec<String>>,
    valid_for_s: Option<u64>,
    resolve_after_s: Option<u64>,
    on_unknown: Option<OnUnknown>,
    requires_opt_in: Option<bool>,
    consent_scope: Option<String>,
    #[serde(default, deserialize_with = "keep_parameters")]
    keep_parameters: Option<KeepParameters>,
}

impl KindSection {
    fn over(self, base: KindConfig) -> KindConfig {
        KindConfig {
            priority: self.priority.unwrap_or(base.priority),
            categories: self.categories.or(base.categories),
            valid_for_s: self.valid_for_s.unwrap_or(base.valid_for_s),
            resolve_after_s: self.resolve_after_s.unwrap_or(base.resolve_after_s),
            on_unknown: self.on_unknown.unwrap_or(base.on_unknown),
            requires_opt_in: self.requires_opt_in.unwrap_or(base.requires_opt_in),
            consent_scope: self.consent_scope.or(base.consent_scope),
            keep_parameters: self.keep_parameters.unwrap_or(base.keep_parameters),
        }
    }
}

/// The file's kinds laid over the built-in ones.
pub(super) fn over_built_in<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, KindConfig>, D::Error> {
    let mut kinds = built_in();
    for (name, section) in BTreeMap::<String, KindSection>::deserialize(deserializer)? {
        let base = kinds.remove(&name).unwrap_or_default();
        kinds.insert(name, section.over(base));
    }
    Ok(kinds)
}

fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Priority>, D::Error> {
    one_of(deserializer, Priority::ALL)
}

fn keep_parameters<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<KeepParameters>, D::Error> {
    one_of(deserializer, KeepParameters::ALL)
}

/// One of a closed set of words; the mistake names them all.
fn one_of<'de, D: Deserializer<'de>, T: Copy + fmt::Display>(
    deserializer: D,
    all: &[T],
) -> Result<Option<T>, D::Error> {
    let word = String::deserialize(deserializer)?;
    let found = all
        .iter()
        .copied()
        .find(|candidate| candidate.to_string() == word);
    found.map(Some).ok_or_else(|| {
        let known: Vec<String> = all
            .iter()
            .map(|candidate| format!("\"{candidate}\""))
            .collect();
        de::Error::custom(format!("\"{word}\" is not one of {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Holder {
        #[serde(deserialize_with = "over_built_in")]
        kinds: BTreeMap<String, KindConfig>,
    }

    #[test]
    fn the_built_in_kinds_are_those_of_the_design_table() {
        let kinds = built_in();
        let row = |name: &str| {
            let kind = &kinds[name];
            (
                kind.priority.as_str(),
                kind.valid_for_s,
                kind.resolve_after_s,
                kind.keep_parameters.as_str(),
            )
        };
        assert_eq!(row("otp"), ("urgent", 300, 20, "never"));
        assert_eq!(row("delivery"), ("normal", 43_200, 120, "no"));
        assert_eq!(row("travel"), ("normal", 86_400, 120, "no"));
        assert_eq!(row("order"), ("normal", 86_400, 120, "no"));
        assert!(
            kinds
                .values()
                .all(|kind| kind.on_unknown == OnUnknown::Resend && kind.requires_opt_in)
        );
    }

    #[test]
    fn a_kind_in_the_file_changes_only_what_it_says_and_others_stay() {
        let holder: Holder = toml::from_str(
            "[kinds.otp]\nvalid_for_s = 120\n[kinds.staff]\npriority = \"bulk\"\nrequires_opt_in = false",
        )
        .unwrap();
        let kinds = holder.kinds;
        assert_eq!(
            kinds["otp"],
            KindConfig {
                valid_for_s: 120,
                ..built_in()["otp"].clone()
            }
        );
        assert_eq!(kinds["staff"].priority, Priority::Bulk);
        assert!(!kinds["staff"].requires_opt_in);
        assert_eq!(kinds["order"], built_in()["order"]);
    }

    #[test]
    fn a_wrong_word_is_refused_with_the_right_ones() {
        let error = toml::from_str::<Holder>("[kinds.otp]\npriority = \"high\"").unwrap_err();
        assert_eq!(
            error.message(),
            "\"high\" is not one of \"urgent\", \"normal\", \"bulk\""
        );
        assert_eq!(error.span(), Some(23..29));
    }
}
