//! What goes together and what does not. Every check runs, so that one look at the answer is enough to mend the file.

use std::{collections::BTreeSet, fmt};

use super::{Config, KindConfig, Position, Producer, Rate, Secret};

/// A lease that is shorter leaves no time between renewals: its holder stops 1.2 s before its end.
const LEASE_TTL_MIN_MS: u64 = 2_000;

/// One thing that is wrong, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub mend: String,
    /// Where in the file, when the key or its section stands there.
    pub position: Option<Position>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.position {
            write!(f, "{position}: ")?;
        }
        write!(f, "`{}` {}: {}", self.key, self.what, self.mend)
    }
}

/// Problems as they are found.
#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    /// Notes a problem unless all is well.
    fn require(
        &mut self,
        well: bool,
        key: impl Into<String>,
        what: impl Into<String>,
        mend: impl Into<String>,
    ) {
        if !well {
            self.0.push(Problem {
                key: key.into(),
                what: what.into(),
                mend: mend.into(),
                position: None,
            });
        }
    }

    fn positive(&mut self, key: &str, value: u64) {
        self.require(value > 0, key, "is 0", "give it at least 1");
    }

    fn share(&mut self, key: &str, value: f64) {
        self.require(
            (0.0..1.0).contains(&value),
            key,
            format!("is {value}"),
            "give a share from 0 to below 1",
        );
    }

    fn name(&mut self, key: &str, name: &str) {
        let well = (1..=64).contains(&name.len())
            && name.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte)
            });
        self.require(
            well,
            key,
            format!("has the name \"{name}\""),
            "use 1 to 64 of a-z, 0-9, _ and -",
        );
    }

    fn digits(&mut self, key: &str, id: &str) {
        let well = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
        self.require(
            well,
            key,
            format!("is \"{id}\""),
            "give Meta's id, which has digits only (not the phone number)",
        );
    }
}

impl Config {
    /// Everything that makes this configuration unusable.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut findings = Findings::default();
        self.check_provider(&mut findings);
        self.check_accounts(&mut findings);
        self.check_senders(&mut findings);
        self.check_rates(&mut findings);
        self.check_kinds(&mut findings);
        self.check_dispatch(&mut findings);
        self.check_keeping(&mut findings);
        findings.0
    }

    /// What works, but somebody should know of.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        let mut findings = Findings::default();
        self.warn_of_inline_secrets(&mut findings);
        self.warn_of_what_does_nothing_yet(&mut findings);
        findings.require(
            !self.accounts.is_empty(),
            "accounts",
            "names no account, so nothing can be sent",
            "add [[accounts]] with waba_id and token",
        );
        findings.require(
            !self.senders.is_empty(),
            "senders",
            "names no numbers, so jobs have nowhere to go out from",
            "add [senders.default] with numbers = [\"…\"]",
        );
        findings.require(
            !self.apps.is_empty(),
            "apps",
            "names no app, so receipts cannot be checked and are refused",
            "add [[apps]] with name, app_secrets and verify_token",
        );
        findings.0
    }

    /// Keys of the contract whose part of the daemon is not built yet. Nobody should believe in a limit that nobody keeps.
    fn warn_of_what_does_nothing_yet(&self, findings: &mut Findings) {
        let default = Self::default();
        let is_unlimited = |producer: &Producer| producer.max_queued.is_none();
        for (key, is_default) in [
            ("retention", self.retention == default.retention),
            ("producers", self.producers.values().all(is_unlimited)),
        ] {
            let mend = "leave it as it is; a later release heeds it";
            findings.require(is_default, key, "does nothing in this release", mend);
        }
    }

    fn warn_of_inline_secrets(&self, findings: &mut Findings) {
        let mut warn = |key: String, secret: &Secret| {
            let mend = "use { credential = \"…\" }, { file = \"…\" } or { env = \"…\" }; inline is for the sandbox";
            findings.require(
                !secret.is_inline(),
                key,
                "stands in the file for all its readers",
                mend,
            );
        };
        for (index, account) in self.accounts.iter().enumerate() {
            warn(format!("accounts.{index}.token"), &account.token);
        }
        for (index, app) in self.apps.iter().enumerate() {
            warn(format!("apps.{index}.verify_token"), &app.verify_token);
            for (position, secret) in app.app_secrets.iter().enumerate() {
                warn(format!("apps.{index}.app_secrets.{position}"), secret);
            }
        }
    }

    fn check_provider(&self, findings: &mut Findings) {
        let whatsapp = &self.whatsapp;
        findings.require(
            whatsapp.base_url.starts_with("https://") || whatsapp.base_url.starts_with("http://"),
            "whatsapp.base_url",
            format!("is \"{}\"", whatsapp.base_url),
            "begin it with https:// (or http:// for the sandbox)",
        );
        findings.require(
            whatsapp.api_version.is_empty() || is_api_version(&whatsapp.api_version),
            "whatsapp.api_version",
            format!("is \"{}\"", whatsapp.api_version),
            "write it as v25.0, or leave it empty where base_url has it",
        );
        findings.positive("whatsapp.connections", whatsapp.connections as u64);
        findings.positive("whatsapp.sync_every_s", whatsapp.sync_every_s);
        for (key, value) in [
            ("whatsapp.request_timeout_ms", whatsapp.request_timeout_ms),
            ("whatsapp.connect_timeout_ms", whatsapp.connect_timeout_ms),
            (
                "database.acquire_timeout_ms",
                self.database.acquire_timeout_ms,
            ),
        ] {
            findings.positive(key, value);
        }
        // Look, attempt, settle, lease, bell, fold, receipts and upkeep each hold one while they work.
        findings.require(
            self.database.max_connections >= 8,
            "database.max_connections",
            format!("is {}", self.database.max_connections),
            "give at least 8: each part of the daemon holds one while it works",
        );
    }

    fn check_accounts(&self, findings: &mut Findings) {
        let mut seen = BTreeSet::new();
        for (index, app) in self.apps.iter().enumerate() {
            let key = format!("apps.{index}");
            findings.name(&format!("{key}.name"), &app.name);
            let first = seen.insert(app.name.as_str());
            findings.require(
                first,
                format!("{key}.name"),
                format!("repeats \"{}\"", app.name),
                "give each app its own",
            );
            let mend = "name the app's secret, and the old one beside it while you change it";
            findings.require(
                !app.app_secrets.is_empty(),
                format!("{key}.app_secrets"),
                "is empty",
                mend,
            );
        }
        let mut wabas = BTreeSet::new();
        for (index, account) in self.accounts.iter().enumerate() {
            let key = format!("accounts.{index}");
            findings.digits(&format!("{key}.waba_id"), &account.waba_id);
            let first = wabas.insert(account.waba_id.as_str());
            let what = format!("repeats {}", account.waba_id);
            findings.require(
                first,
                format!("{key}.waba_id"),
                what,
                "name each account once",
            );
            match &account.app {
                Some(app) => {
                    let known = seen.contains(app.as_str());
                    findings.require(
                        known,
                        format!("{key}.app"),
                        format!("is \"{app}\""),
                        "name one of the [[apps]]",
                    );
                }
                None => findings.require(
                    self.apps.len() <= 1,
                    format!("{key}.app"),
                    "is missing",
                    "with several [[apps]], say whose webhooks speak for this account",
                ),
            }
        }
    }

    fn check_senders(&self, findings: &mut Findings) {
        for (name, sender) in &self.senders {
            let key = format!("senders.{name}");
            findings.name(&key, name);
            let mend = "name at least one phone number id";
            findings.require(
                !sender.numbers.is_empty(),
                format!("{key}.numbers"),
                "is empty",
                mend,
            );
            let mut seen = BTreeSet::new();
            for (index, number) in sender.numbers.iter().enumerate() {
                findings.digits(&format!("{key}.numbers.{index}"), number);
                let first = seen.insert(number);
                findings.require(
                    first,
                    format!("{key}.numbers.{index}"),
                    format!("repeats {number}"),
                    "name it once",
                );
            }
        }
        let default = &self.enqueue.default_sender;
        findings.require(
            self.senders.is_empty() || self.senders.contains_key(default),
            "enqueue.default_sender",
            format!("is \"{default}\""),
            format!("add [senders.{default}], or name one that is there"),
        );
    }

    fn check_rates(&self, findings: &mut Findings) {
        if let Rate::PerSecond(rate) = self.pacing.messages_per_second {
            findings.require(
                rate > 0.0 && rate <= 10_000.0,
                "pacing.messages_per_second",
                format!("is {rate}"),
                "give more than 0 and at most 10000, or \"auto\"",
            );
        }
        findings.share("pacing.bulk_floor", self.pacing.bulk_floor);
        findings.require(
            self.pacing.bulk_floor <= 0.4,
            "pacing.bulk_floor",
            format!("is {}", self.pacing.bulk_floor),
            "give at most 0.4: normal and bulk each take it from urgent jobs",
        );
        findings.share("limits.headroom", self.limits.headroom);
        findings.share("limits.urgent_reserve", self.limits.urgent_reserve);
        let together = self.limits.headroom + self.limits.urgent_reserve;
        findings.require(
            together < 1.0 || self.limits.headroom >= 1.0 || self.limits.urgent_reserve >= 1.0,
            "limits.urgent_reserve",
            "leaves nothing of the messaging limit together with `headroom`",
            "lower one of them",
        );
        findings.positive("limits.pair_burst", self.limits.pair_burst.into());
        findings.positive("limits.pair_refill_s", self.limits.pair_refill_s);
    }

    fn check_kinds(&self, findings: &mut Findings) {
        for (name, kind) in &self.kinds {
            let key = format!("kinds.{name}");
            findings.name(&key, name);
            findings.positive(&format!("{key}.valid_for_s"), kind.valid_for_s);
            check_categories(&key, kind, findings);
            self.check_resolve_after(&key, kind, findings);
        }
        let default = &self.enqueue.default_kind;
        findings.require(
            self.kinds.contains_key(default),
            "enqueue.default_kind",
            format!("is \"{default}\""),
            format!("add [kinds.{default}], or name one that is there"),
        );
    }

    /// While a request may still be answered or its bytes may still arrive, nobody may decide that it got lost. A new owner
    /// begins to decide one lease after the old owner began to post.
    fn check_resolve_after(&self, key: &str, kind: &KindConfig, findings: &mut Findings) {
        // TCP_USER_TIMEOUT is the request's timeout too.
        let timeout = self.whatsapp.request_timeout();
        let lease = self.dispatch.lease_ttl();
        let needed = timeout + lease;
        findings.require(
            kind.resolve_after() > needed,
            format!("{key}.resolve_after_s"),
            format!(
                "is {} s, which is not above whatsapp.request_timeout_ms ({} ms) and dispatch.lease_ttl_ms ({} ms) together",
                kind.resolve_after_s,
                timeout.as_millis(),
                lease.as_millis()
            ),
            format!("give at least {} s, or lower whatsapp.request_timeout_ms", needed.as_secs() + 1),
        );
    }

    fn check_dispatch(&self, findings: &mut Findings) {
        let dispatch = &self.dispatch;
        findings.positive("dispatch.look_ahead", dispatch.look_ahead as u64);
        findings.positive("dispatch.max_attempts", dispatch.max_attempts.into());
        findings.positive("dispatch.backoff_first_ms", dispatch.backoff_first_ms);
        findings.require(
            (LEASE_TTL_MIN_MS..=60_000).contains(&dispatch.lease_ttl_ms),
            "dispatch.lease_ttl_ms",
            format!("is {}", dispatch.lease_ttl_ms),
            "give 2000 to 60000: its holder stops 1200 ms before its end, and renews several times before that",
        );
        findings.require(
            dispatch.backoff_max() >= dispatch.backoff_first(),
            "dispatch.backoff_max_s",
            format!(
                "is {} s, less than backoff_first_ms",
                dispatch.backoff_max_s
            ),
            "raise it, or lower backoff_first_ms",
        );
        findings.require(
            dispatch.drain_limit() > self.whatsapp.request_timeout(),
            "dispatch.drain_limit_s",
            format!(
                "is {} s, which is not above whatsapp.request_timeout_ms",
                dispatch.drain_limit_s
            ),
            "raise it, so that a stop can wait for the last answers",
        );
    }

    fn check_keeping(&self, findings: &mut Findings) {
        let retention = &self.retention;
        // The provider repeats a webhook for 7 days, and a day is dropped whole.
        for (key, days) in [
            ("receipts_days", retention.receipts_days),
            ("attempts_days", retention.attempts_days),
        ] {
            findings.require(
                days >= 8,
                format!("retention.{key}"),
                format!("is {days}"),
                "keep at least 8 days: the provider repeats receipts for 7",
            );
        }
        for (key, days) in [
            ("events_days", retention.events_days),
            ("inbound_days", retention.inbound_days),
            ("messages_days", retention.messages_days),
        ] {
            findings.positive(&format!("retention.{key}"), days.into());
        }
        findings.require(
            self.templates.default_language.len() >= 2,
            "templates.default_language",
            format!("is \"{}\"", self.templates.default_language),
            "write it as en or en_US",
        );
        findings.positive(
            "webhook.max_connections",
            self.webhook.max_connections as u64,
        );
        findings.require(
            self.webhook.listen != self.ops.listen || self.webhook.listen.port() == 0,
            "ops.listen",
            "is the same as webhook.listen",
            "give it another port: metrics must not be where the provider calls",
        );
    }
}

fn check_categories(key: &str, kind: &KindConfig, findings: &mut Findings) {
    let known = ["MARKETING", "UTILITY", "AUTHENTICATION"];
    for (index, category) in kind.categories.iter().flatten().enumerate() {
        findings.require(
            known.contains(&category.as_str()),
            format!("{key}.categories.{index}"),
            format!("is \"{category}\""),
            format!("use {}", known.join(", ")),
        );
    }
}

fn is_api_version(text: &str) -> bool {
    let parts = text
        .strip_prefix('v')
        .and_then(|version| version.split_once('.'));
    parts.is_some_and(|(major, minor)| major.parse::<u16>().is_ok() && minor.parse::<u16>().is_ok())
}
