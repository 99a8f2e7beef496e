//! What the daemon knows beside the queue: numbers, kinds, pauses, settings and templates; and how the configuration gets
//! into the database, where SQL functions and other instances read it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool, postgres::types::PgInterval};

use super::SNAPSHOT;
use crate::rules::job::{Kind, Lane, Priority};

mod pauses;

pub use pauses::{
    By, Pause, PauseFact, Scope, claim_probe, close, expire_pauses, is_known, pause, pauses,
    pauses_beside, resume,
};

/// All but the templates, as of one moment.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Every number that the configuration names, by lane.
    pub numbers: Vec<NumberFact>,
    /// Every kind, also those that the configuration no longer names: jobs of theirs may be waiting.
    pub kinds: HashMap<Arc<str>, KindFact>,
    /// What is stopped now.
    pub pauses: Vec<PauseFact>,
    /// What the provider's word stopped until a time that is over, as long as it is not cleared away.
    pub ended: Vec<PauseFact>,
    /// Values that all must agree on.
    pub settings: Settings,
}

/// A business phone number.
#[derive(Debug, Clone, PartialEq)]
pub struct NumberFact {
    /// Its lane.
    pub lane: Lane,
    /// Meta's id.
    pub phone_number_id: String,
    /// Its account.
    pub waba_id: String,
    /// Its account's portfolio.
    pub portfolio_id: String,
    /// Unique recipients per rolling 24 h of its portfolio, or of the number itself where `limit_scope` is `number`; `None`
    /// when unlimited.
    pub messaging_limit: Option<i32>,
    /// The shard whose lease covers it.
    pub shard: i16,
    /// Nothing may be posted for it before this.
    pub free_at: DateTime<Utc>,
    /// When jobs of another number were last moved here.
    pub refilled_at: DateTime<Utc>,
    /// As people see it.
    pub display_phone_number: Option<String>,
    /// CONNECTED is the only one that can send; UNKNOWN until the provider has told us.
    pub status: String,
    /// GREEN, YELLOW, RED or UNKNOWN.
    pub quality_rating: Option<String>,
    /// STANDARD, HIGH or NOT_APPLICABLE.
    pub throughput_level: Option<String>,
    /// Also used on the phone app.
    pub is_on_biz_app: bool,
    /// Set by an operator for this number.
    pub messages_per_second: Option<f64>,
}

/// A kind, as the gate and the settlement need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KindFact {
    /// What the gate asks.
    pub kind: Kind,
    /// How long an unanswered request waits for its receipt.
    pub resolve_after: Duration,
    /// Whether it is sent again when the receipt does not come; else it is a dead letter.
    pub resend: bool,
}

/// Values by name.
#[derive(Debug, Clone, Default)]
pub struct Settings(HashMap<String, Value>);

impl Settings {
    /// One of them.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Names this installation in callback data.
    #[must_use]
    pub fn installation(&self) -> &str {
        self.get("installation")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Keys the hashes of recipients.
    #[must_use]
    pub fn recipient_hash_seed(&self) -> i64 {
        self.get("recipient_hash_seed")
            .and_then(Value::as_i64)
            .unwrap_or_default()
    }
}

/// A template in one language.
#[derive(Debug, Clone, PartialEq)]
pub struct TemplateFact {
    /// Ours.
    pub id: i64,
    /// Its account.
    pub waba_id: String,
    /// Lower case, digits and underscores.
    pub name: String,
    /// Underscore form.
    pub language: String,
    /// APPROVED is the only one that sends; DELETED when the provider lists it no more.
    pub status: String,
    /// MARKETING, UTILITY or AUTHENTICATION.
    pub category: String,
    /// POSITIONAL or NAMED.
    pub parameter_format: String,
    /// The provider's own form.
    pub components: Value,
    /// Grows with every change.
    pub revision: i64,
}

/// Reads all facts but the templates, as of one moment.
///
/// # Errors
/// When the database does not answer.
pub async fn load(pool: &PgPool) -> Result<Facts, sqlx::Error> {
    let mut snapshot = pool.begin_with(SNAPSHOT).await?;
    let facts = load_in(&mut snapshot).await?;
    snapshot.commit().await?;
    Ok(facts)
}

/// Reads all facts, and of the templates those that changed after `revision`, as of one moment: what a template became is
/// not seen without the pause that came with it, nor a number without its templates.
///
/// # Errors
/// When the database does not answer.
pub async fn load_with_templates(
    pool: &PgPool,
    revision: i64,
) -> Result<(Facts, Vec<TemplateFact>), sqlx::Error> {
    let mut snapshot = pool.begin_with(SNAPSHOT).await?;
    let facts = load_in(&mut snapshot).await?;
    let templates = templates_since(&mut *snapshot, revision).await?;
    snapshot.commit().await?;
    Ok((facts, templates))
}

async fn load_in(snapshot: &mut PgConnection) -> Result<Facts, sqlx::Error> {
    let numbers = sqlx::query_file_as!(NumberFact, "src/store/facts_numbers.sql")
        .fetch_all(&mut *snapshot)
        .await?;
    let kinds = kinds(&mut *snapshot).await?;
    let pauses = pauses::load(&mut *snapshot).await?;
    let ended = pauses::ended(&mut *snapshot).await?;
    let settings = sqlx::query!("select name, value from postrider.setting")
        .fetch_all(&mut *snapshot)
        .await?;
    let settings = Settings(
        settings
            .into_iter()
            .map(|row| (row.name, row.value))
            .collect(),
    );
    Ok(Facts {
        numbers,
        kinds,
        pauses,
        ended,
        settings,
    })
}

async fn kinds(connection: &mut PgConnection) -> Result<HashMap<Arc<str>, KindFact>, sqlx::Error> {
    let rows = sqlx::query_file!("src/store/facts_kinds.sql")
        .fetch_all(connection)
        .await?;
    let facts = rows.into_iter().map(|row| {
        let kind = Kind {
            name: row.name.into(),
            priority: Priority::from_i16(row.priority)
                .expect("the table's check keeps it within 0 to 2"),
            categories: row.categories,
            requires_opt_in: row.requires_opt_in,
            consent_scope: row.consent_scope,
            keep_parameters: row
                .keep_parameters
                .parse()
                .expect("the table's check allows no other word"),
        };
        let resolve_after = Duration::try_from_secs_f64(row.resolve_after_s).unwrap_or_default();
        (
            Arc::clone(&kind.name),
            KindFact {
                kind,
                resolve_after,
                resend: row.on_unknown == "resend",
            },
        )
    });
    Ok(facts.collect())
}

/// The templates that changed after `revision`, in the order of their changes; 0 for all. Writers take turns, so nothing
/// appears later behind a revision that was read.
///
/// # Errors
/// When the database does not answer.
pub async fn templates_since(
    database: impl PgExecutor<'_>,
    revision: i64,
) -> Result<Vec<TemplateFact>, sqlx::Error> {
    sqlx::query_as!(
        TemplateFact,
        "select id, waba_id, name, language, status, category, parameter_format, components, revision
         from postrider.template where revision > $1 order by revision",
        revision
    )
    .fetch_all(database)
    .await
}

/// What of the configuration the database must know.
#[derive(Debug, Clone)]
pub struct MirroredConfig {
    /// What jobs can be about.
    pub kinds: Vec<MirroredKind>,
    /// Where jobs can go out from.
    pub senders: Vec<MirroredSender>,
    /// The accounts with a token.
    pub accounts: Vec<MirroredAccount>,
    /// Values for SQL functions, such as `default_kind` or `ring`.
    pub settings: Vec<(String, Value)>,
    /// A portfolio's messaging limit until the provider has told us.
    pub default_messaging_limit: i32,
    /// Whether the messaging limit applies to each number by itself, not to the portfolio.
    pub limit_per_number: bool,
}

/// A kind.
#[derive(Debug, Clone)]
pub struct MirroredKind {
    /// What the gate asks.
    pub kind: Kind,
    /// How long after enqueue a job may still be sent.
    pub valid_for: Duration,
    /// How long an unanswered request waits for its receipt.
    pub resolve_after: Duration,
    /// Whether it is then sent again.
    pub resend: bool,
}

/// A sender pool.
#[derive(Debug, Clone)]
pub struct MirroredSender {
    /// As jobs name it.
    pub name: String,
    /// Meta's ids.
    pub phone_number_ids: Vec<String>,
    /// Whether a recipient stays with their number even while it cannot send.
    pub strict: bool,
}

/// An account.
#[derive(Debug, Clone)]
pub struct MirroredAccount {
    /// Meta's id.
    pub waba_id: String,
    /// The portfolio's, or the account's own where the portfolio is not known.
    pub portfolio_id: String,
    /// The app whose webhooks speak for it.
    pub app: String,
}

/// Writes the configuration into the database, all or nothing. What it no longer names stays, marked as such.
///
/// With one account every number is its; with several, a number that is new to us gets its row when the account is
/// synced, because only the provider knows whose it is.
///
/// # Errors
/// When the database does not answer.
pub async fn mirror(pool: &PgPool, config: &MirroredConfig) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    super::sync::take_turns(&mut transaction).await?;
    mirror_settings(&mut transaction, config).await?;
    mirror_kinds(&mut transaction, &config.kinds).await?;
    mirror_accounts(&mut transaction, config).await?;
    mirror_senders(&mut transaction, config).await?;
    super::sync::place(&mut transaction).await?;
    transaction.commit().await
}

async fn mirror_settings(
    connection: &mut PgConnection,
    config: &MirroredConfig,
) -> Result<(), sqlx::Error> {
    let scope = if config.limit_per_number {
        "number"
    } else {
        "portfolio"
    };
    let (mut names, mut values): (Vec<_>, Vec<_>) = config.settings.iter().cloned().unzip();
    names.push("limit_scope".to_owned());
    values.push(Value::from(scope));
    sqlx::query!(
        "insert into postrider.setting (name, value) select * from unnest($1::text[], $2::jsonb[])
         on conflict (name) do update set value = excluded.value where setting.value <> excluded.value",
        &names,
        &values
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn mirror_kinds(
    connection: &mut PgConnection,
    kinds: &[MirroredKind],
) -> Result<(), sqlx::Error> {
    let names: Vec<_> = kinds.iter().map(|it| it.kind.name.to_string()).collect();
    sqlx::query!(
        "update postrider.kind set configured = false where configured and name <> all($1)",
        &names
    )
    .execute(&mut *connection)
    .await?;
    for it in kinds {
        sqlx::query_file!(
            "src/store/facts_mirror_kind.sql",
            &*it.kind.name,
            it.kind.priority.as_i16(),
            it.kind.categories.as_deref() as _,
            interval(it.valid_for),
            interval(it.resolve_after),
            if it.resend { "resend" } else { "stop" },
            it.kind.requires_opt_in,
            it.kind.consent_scope,
            it.kind.keep_parameters.as_str(),
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn mirror_accounts(
    connection: &mut PgConnection,
    config: &MirroredConfig,
) -> Result<(), sqlx::Error> {
    let accounts = &config.accounts;
    let waba_ids: Vec<_> = accounts.iter().map(|it| it.waba_id.clone()).collect();
    let portfolio_ids: Vec<_> = accounts.iter().map(|it| it.portfolio_id.clone()).collect();
    let apps: Vec<_> = accounts.iter().map(|it| it.app.clone()).collect();
    sqlx::query_file!(
        "src/store/facts_mirror_portfolios.sql",
        &portfolio_ids,
        config.default_messaging_limit
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query_file!(
        "src/store/facts_mirror_accounts.sql",
        &waba_ids,
        &portfolio_ids,
        &apps
    )
    .execute(&mut *connection)
    .await?;
    sqlx::query!(
        "update postrider.account set configured = false where configured and waba_id <> all($1)",
        &waba_ids
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn mirror_senders(
    connection: &mut PgConnection,
    config: &MirroredConfig,
) -> Result<(), sqlx::Error> {
    let mut numbers: Vec<_> = config
        .senders
        .iter()
        .flat_map(|it| it.phone_number_ids.iter().cloned())
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    if let [only] = config.accounts.as_slice() {
        sqlx::query!(
            "insert into postrider.number (phone_number_id, waba_id, shard, free_at)
             select unnest($1::text[]), $2, 0, 'infinity'
             on conflict (phone_number_id) do nothing",
            &numbers,
            only.waba_id
        )
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query!(
        "update postrider.number set configured = (phone_number_id = any($1))
         where configured <> (phone_number_id = any($1))",
        &numbers
    )
    .execute(&mut *connection)
    .await?;
    let names: Vec<_> = config.senders.iter().map(|it| it.name.clone()).collect();
    sqlx::query!(
        "update postrider.sender_pool set configured = false where configured and name <> all($1)",
        &names
    )
    .execute(&mut *connection)
    .await?;
    for it in &config.senders {
        sqlx::query_file!(
            "src/store/facts_mirror_sender.sql",
            it.name,
            &it.phone_number_ids,
            it.strict
        )
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Whole microseconds are all that Postgres keeps.
pub(super) fn interval(duration: Duration) -> PgInterval {
    PgInterval {
        months: 0,
        days: 0,
        microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
    }
}
