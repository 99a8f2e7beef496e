//! What the sandbox's world is made of at the start. Tokens and secrets in here are made up, so they are plain strings.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;
use serde_json::Value;

use super::{Delay, FaultRule, default_world};

/// A whole world. What is left out comes from [`default_world()`].
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Setup {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The same seed draws the same latencies, shares and orders.
    pub seed: u64,
    /// Who gets webhooks, and with which secret they are signed.
    pub apps: Vec<App>,
    /// Who owns the messaging limits.
    pub portfolios: Vec<Portfolio>,
    /// WhatsApp Business Accounts.
    pub accounts: Vec<Account>,
    /// Business phone numbers.
    pub numbers: Vec<Number>,
    /// Templates, by account.
    pub templates: Vec<Template>,
    /// Recipients about whom there is something special.
    pub people: Vec<Person>,
    /// From a request's arrival to its answer.
    pub latency: Delay,
    /// How many requests more than a number's rate a second may hold before 130429.
    pub throughput_slack: u32,
    /// Messages from one number to one recipient.
    pub pair: PairLimit,
    /// What becomes of a message that the messaging limit has no room for.
    pub at_messaging_limit: AtLimit,
    /// How many times faster than real time the 24 hours of limits and service windows pass.
    pub time_compression: f64,
    /// Receipts and inbound messages.
    pub webhooks: Webhooks,
    /// Faults from the start.
    pub faults: Vec<FaultRule>,
    /// How many requests the ledger remembers; the oldest are forgotten first.
    pub ledger_max: usize,
}

impl Default for Setup {
    fn default() -> Self {
        default_world()
    }
}

impl Setup {
    /// The default world without latency, and with receipts that are sent as soon as they can be: for tests.
    #[must_use]
    pub fn quick() -> Setup {
        let mut setup = Setup {
            latency: Delay::none(),
            ..Setup::default()
        };
        let hooks = &mut setup.webhooks;
        hooks.sent_after = Delay::none();
        hooks.delivered_after = Delay::none();
        hooks.read_after = Delay::none();
        hooks.tick_ms = 1;
        hooks.retry_ms = 20;
        setup
    }

    /// Receipts and inbound messages of every app go to `url`.
    #[must_use]
    pub fn callback(mut self, url: &str) -> Setup {
        for app in &mut self.apps {
            app.callback_url = Some(url.to_owned());
        }
        self
    }

    /// Replaces the numbers by `count` of the first account, with ids from 200000000000001 on.
    #[must_use]
    pub fn numbers(mut self, count: u32, messages_per_second: u32) -> Setup {
        let waba_id = self
            .accounts
            .first()
            .map(|account| account.waba_id.clone())
            .unwrap_or_default();
        self.numbers = (1..=count)
            .map(|n| Number {
                id: format!("{}", 200_000_000_000_000 + u64::from(n)),
                waba_id: waba_id.clone(),
                display_phone_number: format!("+1 555 {:03}-{:04}", 200 + n / 10_000, n % 10_000),
                messages_per_second,
                ..Number::default()
            })
            .collect();
        self
    }
}

/// An app: the subscriber of webhooks.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// The name that accounts refer to.
    pub name: String,
    /// The secret that signs webhooks.
    pub secret: String,
    /// Where webhooks go (`http://` only); without one nothing is posted.
    #[serde(default)]
    pub callback_url: Option<String>,
}

/// A business portfolio.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Portfolio {
    /// Its id.
    pub id: String,
    /// Unique recipients per rolling 24 h outside service windows; none means unlimited.
    #[serde(default)]
    pub messaging_limit: Option<u32>,
}

/// A WhatsApp Business Account.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// Its id.
    pub waba_id: String,
    /// What people call it.
    pub name: String,
    /// The app whose webhooks it feeds.
    pub app: String,
    /// The portfolio it belongs to.
    pub portfolio: String,
    /// The bearer token that may use it.
    pub token: String,
}

/// A business phone number.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Number {
    /// Its `phone_number_id`.
    pub id: String,
    /// The account it belongs to.
    pub waba_id: String,
    /// As people read it.
    pub display_phone_number: String,
    /// The name that recipients see.
    pub verified_name: String,
    /// `CONNECTED` sends; anything else answers 133010.
    pub status: String,
    /// GREEN, YELLOW, RED or UNKNOWN.
    pub quality_rating: String,
    /// More than this in any second (and the slack) is 130429.
    pub messages_per_second: u32,
    /// Whether the number is also used from the phone app.
    pub is_on_biz_app: bool,
}

impl Default for Number {
    fn default() -> Self {
        Number {
            id: String::new(),
            waba_id: String::new(),
            display_phone_number: String::new(),
            verified_name: "Postrider Sandbox".into(),
            status: "CONNECTED".into(),
            quality_rating: "GREEN".into(),
            messages_per_second: 80,
            is_on_biz_app: false,
        }
    }
}

/// A template, with its components in the form of the provider's listing.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// The account it belongs to.
    pub waba_id: String,
    /// Lower case, digits and underscores.
    pub name: String,
    /// Underscore form, for example `en_US`.
    pub language: String,
    /// `APPROVED` sends; `PAUSED` answers 132015, `DISABLED` 132016, anything else 132001.
    pub status: String,
    /// `UTILITY`, `AUTHENTICATION` or `MARKETING`.
    pub category: String,
    /// `POSITIONAL` or `NAMED`.
    #[serde(default = "positional")]
    pub parameter_format: String,
    /// The listing's `components` array.
    pub components: Value,
}

fn positional() -> String {
    "POSITIONAL".into()
}

/// A recipient about whom there is something special.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Person {
    /// The phone, in E.164 with `+`.
    pub phone: String,
    /// Every message is refused at once with this code (131030: not in the allow list).
    pub refuse: Option<i32>,
    /// Every message is accepted and then fails with this code (131026: not on WhatsApp).
    pub fail: Option<i32>,
    /// Whether messages are read; none leaves it to chance.
    pub reads: Option<bool>,
}

/// The pair limit: a bucket of `burst` messages that refills by one each `refill_ms`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairLimit {
    /// How many at once.
    pub burst: u32,
    /// How long one takes to come back.
    pub refill_ms: u64,
}

impl Default for PairLimit {
    fn default() -> Self {
        PairLimit {
            burst: 45,
            refill_ms: 6_000,
        }
    }
}

/// What becomes of a message over the messaging limit. The provider does not document it, so both are here.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtLimit {
    /// It is accepted, and a `failed` receipt with this code follows.
    Fail(i32),
    /// It is refused at once with this code.
    Refuse(i32),
}

/// How receipts come.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// From acceptance to `sent` (or `failed`).
    pub sent_after: Delay,
    /// From `sent` to `delivered`.
    pub delivered_after: Delay,
    /// From `delivered` to `read`.
    pub read_after: Delay,
    /// The share of messages that fail.
    pub failed_share: f64,
    /// With which code.
    pub failed_code: i32,
    /// The share of sent messages that are delivered.
    pub delivered_share: f64,
    /// The share of delivered messages that are read.
    pub read_share: f64,
    /// The share of messages whose receipts come in another order.
    pub shuffled_share: f64,
    /// The share of receipts that come twice.
    pub repeated_share: f64,
    /// Receipts per POST at most; the provider goes up to 1,000.
    pub batch_max: usize,
    /// How often what is due is gathered into POSTs.
    pub tick_ms: u64,
    /// POSTs waiting for their answer at most.
    pub in_flight: usize,
    /// A POST without an answer for this long counts as failed.
    pub timeout_ms: u64,
    /// Until the first repetition of a POST that was not answered 200; doubles each time.
    pub retry_ms: u64,
    /// The longest pause between repetitions.
    pub retry_max_ms: u64,
    /// How often a POST is tried in all.
    pub attempts: u32,
}

impl Default for Webhooks {
    fn default() -> Self {
        Webhooks {
            sent_after: Delay::around(150),
            delivered_after: Delay::around(500),
            read_after: Delay::around(2_000),
            failed_share: 0.0,
            failed_code: 131_026,
            delivered_share: 1.0,
            read_share: 0.6,
            shuffled_share: 0.0,
            repeated_share: 0.0,
            batch_max: 100,
            tick_ms: 10,
            in_flight: 16,
            timeout_ms: 10_000,
            retry_ms: 1_000,
            retry_max_ms: 60_000,
            attempts: 1_000,
        }
    }
}

/// Loopback, on a port that the kernel chooses.
pub(super) fn free_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
