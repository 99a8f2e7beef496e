//! The sections of the file, each with its defaults. Durations are integers with the unit in the key. No `flatten` and no
//! `untagged`: both lose the line number of a mistake.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use serde::{Deserialize, Deserializer, de};

use super::Secret;
use crate::rules::keywords::{Words, default_words};

/// `[database]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `postgres://…`, or `embedded`; `None` when neither the file nor `$POSTRIDER_DATABASE_URL` says.
    pub url: Option<Secret>,
    /// Connections this process may hold.
    pub max_connections: u32,
    /// How long to wait for one of them.
    pub acquire_timeout_ms: u64,
    /// Whether a pooler in transaction mode (PgBouncer) is in between: then no session state is used.
    pub pooler: bool,
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            max_connections: 16,
            acquire_timeout_ms: 5_000,
            pooler: false,
        }
    }
}

impl Database {
    /// How long to wait for a connection.
    #[must_use]
    pub fn acquire_timeout(&self) -> Duration {
        Duration::from_millis(self.acquire_timeout_ms)
    }
}

/// `[whatsapp]`: how to reach the provider.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Whatsapp {
    /// Where the Graph API is.
    pub base_url: String,
    /// Its version, pinned: a call without one gets the app's default, which moves.
    pub api_version: String,
    /// The header that carries the token.
    pub auth_header: String,
    /// From the request's first byte to the answer's last; the kernel gives up unconfirmed bytes (TCP_USER_TIMEOUT) as late.
    pub request_timeout_ms: u64,
    /// To reach the provider at all.
    pub connect_timeout_ms: u64,
    /// HTTP clients to spread requests over: each keeps one HTTP/2 connection of at most 100 requests in flight.
    pub connections: usize,
    /// HTTP/2 without asking first, for the sandbox over plain TCP.
    pub http2_prior_knowledge: bool,
    /// How often numbers and templates are read from the provider.
    pub sync_every_s: u64,
}

impl Default for Whatsapp {
    fn default() -> Self {
        Self {
            base_url: "https://graph.facebook.com".to_owned(),
            // Lives until 2028-07-29; v26.0 dropped behaviours that Meta has not listed.
            api_version: "v25.0".to_owned(),
            auth_header: "Authorization".to_owned(),
            // An otp is resolved 20 s after its attempt, and a lease lives for 5 s: this must be below their difference.
            request_timeout_ms: 10_000,
            connect_timeout_ms: 5_000,
            connections: 8,
            http2_prior_knowledge: false,
            sync_every_s: 900,
        }
    }
}

impl Whatsapp {
    /// From the request's first byte to the answer's last.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// To reach the provider at all.
    #[must_use]
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// How often numbers and templates are read from the provider.
    #[must_use]
    pub fn sync_every(&self) -> Duration {
        Duration::from_secs(self.sync_every_s)
    }
}

/// `[[apps]]`: a Meta app, which signs webhooks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its name here, as in `/webhooks/whatsapp/{app}`.
    pub name: String,
    /// Any of these signs; name the new and the old while you change them.
    pub app_secrets: Vec<Secret>,
    /// What the provider repeats when the webhook is set up.
    pub verify_token: Secret,
}

/// `[[accounts]]`: a WhatsApp Business Account.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Meta's id of the WABA.
    pub waba_id: String,
    /// Meta's id of the business portfolio that owns the messaging limit; the account alone when it is not given.
    pub portfolio_id: Option<String>,
    /// Which app's webhooks speak for it; may be left out when there is one app.
    pub app: Option<String>,
    /// A system user's token.
    pub token: Secret,
}

impl Account {
    /// The portfolio, or the account itself where the portfolio is not known.
    #[must_use]
    pub fn portfolio(&self) -> &str {
        self.portfolio_id.as_deref().unwrap_or(&self.waba_id)
    }
}

/// `[senders.NAME]`: numbers that a job may go out from.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sender {
    /// Meta's phone number ids.
    pub numbers: Vec<String>,
    /// Whether a recipient stays with their number even while it cannot send.
    #[serde(default)]
    pub sticky: bool,
}

/// `[templates]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Templates {
    /// When neither the job nor the recipient nor the template says.
    pub default_language: String,
    /// What to do with line breaks and runs of blanks in parameters, which the provider refuses.
    pub whitespace: Whitespace,
    /// What to do with a template that the provider moved to a category that nobody asked for.
    pub on_recategorised: OnRecategorised,
}

impl Default for Templates {
    fn default() -> Self {
        Self {
            default_language: "en".to_owned(),
            whitespace: Whitespace::Collapse,
            on_recategorised: OnRecategorised::Pause,
        }
    }
}

/// What to do with line breaks and runs of blanks in parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whitespace {
    /// Make each a single blank.
    Collapse,
    /// Refuse the job.
    Refuse,
}

/// What to do with a template that the provider moved to a category that a kind does not allow, or to marketing although no
/// kind allows that by name: its price and its limits are others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnRecategorised {
    /// Pause it until somebody resumes it, or the provider takes it back.
    Pause,
    /// Only say so, in the log and in the history.
    Warn,
}

impl OnRecategorised {
    /// As stored in `setting`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Warn => "warn",
        }
    }
}

/// `[enqueue]`: what SQL functions assume for a job that does not say.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Enqueue {
    /// The kind, unless the template's category tells.
    pub default_kind: String,
    /// The sender pool.
    pub default_sender: String,
    /// Whether an urgent job rings (NOTIFY). It forbids PREPARE TRANSACTION and takes a lock through the commit.
    pub ring: bool,
}

impl Default for Enqueue {
    fn default() -> Self {
        Self {
            default_kind: "order".to_owned(),
            default_sender: "default".to_owned(),
            ring: true,
        }
    }
}

/// `[pacing]`: messages per second of a number.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pacing {
    /// A rate, or `auto`: the provider's throughput level.
    pub messages_per_second: Rate,
    /// Added to every second's window, for the network's jitter.
    pub jitter_allowance_ms: u64,
    /// The share of a number's posts that normal and bulk each keep while they wait.
    pub bulk_floor: f64,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            messages_per_second: Rate::PerSecond(10.0),
            jitter_allowance_ms: 20,
            bulk_floor: 0.05,
        }
    }
}

impl Pacing {
    /// Added to every second's window.
    #[must_use]
    pub fn jitter_allowance(&self) -> Duration {
        Duration::from_millis(self.jitter_allowance_ms)
    }
}

/// Messages per second: a number, or the provider's throughput level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// So many; a fraction means less than one.
    PerSecond(f64),
    /// 80, or 1,000 for a number of level HIGH, or 20 for one that is also used on the phone app.
    Auto,
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RateVisitor)
    }
}

struct RateVisitor;

impl de::Visitor<'_> for RateVisitor {
    type Value = Rate;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("messages per second as a number, or \"auto\"")
    }

    fn visit_f64<E: de::Error>(self, rate: f64) -> Result<Rate, E> {
        Ok(Rate::PerSecond(rate))
    }

    fn visit_i64<E: de::Error>(self, rate: i64) -> Result<Rate, E> {
        let rate = i32::try_from(rate)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(rate), &self))?;
        Ok(Rate::PerSecond(rate.into()))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<Rate, E> {
        match word {
            "auto" => Ok(Rate::Auto),
            _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
        }
    }
}

/// `[limits]`: what the provider counts over longer times.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// What the messaging limit applies to.
    pub limit_scope: LimitScope,
    /// Unique recipients per rolling 24 h until the provider has told us its own figure.
    pub default_messaging_limit: u32,
    /// The share of the limit that is never used.
    pub headroom: f64,
    /// The share of the limit that only urgent jobs may use.
    pub urgent_reserve: f64,
    /// Unique recipients per rolling 24 h that other systems of the same portfolio use.
    pub elsewhere: u32,
    /// Messages to one recipient that may go at once from one number.
    pub pair_burst: u32,
    /// After a burst, one more message to that recipient every so often.
    pub pair_refill_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            limit_scope: LimitScope::Portfolio,
            default_messaging_limit: 250,
            headroom: 0.05,
            urgent_reserve: 0.10,
            elsewhere: 0,
            pair_burst: 45,
            pair_refill_s: 6,
        }
    }
}

impl Limits {
    /// One more message to the same recipient every so often.
    #[must_use]
    pub fn pair_refill(&self) -> Duration {
        Duration::from_secs(self.pair_refill_s)
    }
}

/// What the messaging limit applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitScope {
    /// A business portfolio with all its numbers, as Meta counts since 2025-10-07.
    Portfolio,
    /// Each number by itself.
    Number,
}

/// `[dispatch]`: how jobs are taken, tried and given up.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Dispatch {
    /// Threads that send, each with its own share of the numbers; 0 means one for each core.
    pub workers: usize,
    /// Jobs of one priority that a number keeps in memory ahead of time.
    pub look_ahead: usize,
    /// Attempts that the provider's word may spend before a job is given up.
    pub max_attempts: u32,
    /// The wait after the first of them; it doubles with each.
    pub backoff_first_ms: u64,
    /// The longest wait between two.
    pub backoff_max_s: u64,
    /// Times a job may be sent again after an unknown outcome.
    pub max_unknown_resends: u32,
    /// How long a stop may take before what is still in flight is left to the next start.
    pub drain_limit_s: u64,
    /// How long an instance's right to send for a number holds without being renewed; then another takes over.
    pub lease_ttl_ms: u64,
}

impl Default for Dispatch {
    fn default() -> Self {
        Self {
            workers: 0,
            look_ahead: 1_000,
            max_attempts: 5,
            backoff_first_ms: 2_000,
            backoff_max_s: 600,
            max_unknown_resends: 1,
            // The request's timeout, twice the time to write its outcome, and the hand-back.
            drain_limit_s: 25,
            lease_ttl_ms: 5_000,
        }
    }
}

impl Dispatch {
    /// The wait after the first spent attempt.
    #[must_use]
    pub fn backoff_first(&self) -> Duration {
        Duration::from_millis(self.backoff_first_ms)
    }

    /// The longest wait between two attempts.
    #[must_use]
    pub fn backoff_max(&self) -> Duration {
        Duration::from_secs(self.backoff_max_s)
    }

    /// How long a stop may take.
    #[must_use]
    pub fn drain_limit(&self) -> Duration {
        Duration::from_secs(self.drain_limit_s)
    }

    /// How long a lease holds without renewal.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        Duration::from_millis(self.lease_ttl_ms)
    }

    /// How many threads send.
    #[must_use]
    pub fn worker_threads(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }
}

/// `[consent]`: what people write to us, and what it means.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Consent {
    /// What a STOP ends.
    pub stop_covers: StopCovers,
    /// The words that opt out and in again, by language, when they are all that somebody writes.
    #[serde(deserialize_with = "over_default_words")]
    pub keywords: BTreeMap<String, Words>,
    /// Payloads of buttons that opt out.
    pub opt_out_payloads: Vec<String>,
}

impl Default for Consent {
    fn default() -> Self {
        Self {
            stop_covers: StopCovers::All,
            keywords: default_words(),
            opt_out_payloads: vec![
                "STOP".to_owned(),
                "OPT_OUT".to_owned(),
                "UNSUBSCRIBE".to_owned(),
            ],
        }
    }
}

/// The file's words laid over the default ones: a language that it names has its words alone.
fn over_default_words<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Words>, D::Error> {
    let mut words = default_words();
    words.extend(BTreeMap::<String, Words>::deserialize(deserializer)?);
    Ok(words)
}

/// What a STOP ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCovers {
    /// Everything.
    All,
    /// Marketing only.
    Marketing,
}

impl StopCovers {
    /// The consent scope that a STOP is written to.
    #[must_use]
    pub fn scope(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Marketing => "marketing",
        }
    }
}

/// `[webhook]`: where the provider tells us what became of messages.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhook {
    /// Where it listens. Loopback by default: the provider needs TLS with a public certificate, so a proxy stands before it.
    pub listen: SocketAddr,
    /// Connections served at once.
    pub max_connections: usize,
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            max_connections: 1_024,
        }
    }
}

/// `[ops]`: where monitoring asks.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ops {
    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub listen: SocketAddr,
}

impl Default for Ops {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
        }
    }
}

/// `[retention]`: how long rows stay.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Attempts and answers.
    pub attempts_days: u32,
    /// The feed of state changes.
    pub events_days: u32,
    /// Receipts; never below 8, because the provider repeats for 7.
    pub receipts_days: u32,
    /// What people wrote to us.
    pub inbound_days: u32,
    /// Messages and what became of them.
    pub messages_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            attempts_days: 8,
            events_days: 7,
            receipts_days: 90,
            inbound_days: 30,
            messages_days: 400,
        }
    }
}

/// `[producers.NAME]`: a database role that enqueues.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Producer {
    /// Jobs that it may have waiting; `None` means as many as it likes.
    pub max_queued: Option<u64>,
}
