//! Reads numbers, limits and templates from the provider and writes them down: at the start, every now and then, and when
//! somebody asks.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use secrecy::SecretString;
use serde::Serialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::configured;
use crate::{
    channel::directory::{Directory, DirectoryError, NumberInfo, TemplateInfo},
    config::{Account, Config, Environment, LimitScope},
    rules::messaging_limit::Tier,
    store::{
        Store,
        sync::{self, Changes, LimitRow, NumberRow, TemplateRow},
        within,
    },
};

/// After a sync that failed, the next one comes sooner than usual.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// How often the database is asked whether a webhook, here or in another process, told of something that we do not know.
/// Several at once make one sync.
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// It takes no time; on a connection that hangs it takes for ever.
const ASKED_MAX: Duration = Duration::from_secs(10);
/// A sync that takes longer hangs; it is begun anew.
const SYNC_MAX: Duration = Duration::from_secs(600);

/// What syncing one account found.
#[derive(Debug, Clone, Serialize)]
pub struct Synced {
    /// Meta's id of the account.
    pub account: String,
    /// How many numbers it has.
    pub numbers: usize,
    /// How many templates it has, in all languages.
    pub templates: usize,
    /// Templates that are new or changed.
    pub templates_changed: i64,
    /// Templates that are no longer there.
    pub templates_gone: i64,
    /// The provider's word for the messaging limit; all of its words where each number has its own.
    pub messaging_limit: Option<String>,
}

/// Syncs one account.
///
/// # Errors
/// When its token cannot be had, the provider refuses or is away, or the database does not answer.
pub async fn account(
    store: &Store,
    config: &Config,
    account: &Account,
    environment: &Environment,
) -> anyhow::Result<Synced> {
    let token = config.token(account, environment)?;
    let directory = Directory::new(&configured::endpoint(config))?;
    let what = || format!("syncing account {}", account.waba_id);
    let per_number = config.limits.limit_scope == LimitScope::Number;
    read_and_write(store, &directory, account, &token, per_number)
        .await
        .with_context(what)
}

async fn read_and_write(
    store: &Store,
    directory: &Directory,
    account: &Account,
    token: &SecretString,
    limit_per_number: bool,
) -> anyhow::Result<Synced> {
    let waba_id = account.waba_id.as_str();
    // Templates first: a number that is known to be connected may send at once, and then its templates must be there.
    let templates = directory.templates(waba_id, token).await?;
    let changes = write_templates(store, waba_id, &templates).await?;
    let numbers = directory.numbers(waba_id, token).await?;
    let rows: Vec<NumberRow> = numbers.iter().cloned().map(number_row).collect();
    sync::numbers(store.pool(), waba_id, &rows).await?;
    let messaging_limit = if limit_per_number {
        write_limits(store, directory, waba_id, token).await?
    } else {
        write_limit(store, directory, account, token, &numbers).await?
    };
    Ok(Synced {
        account: waba_id.to_owned(),
        numbers: numbers.len(),
        templates: templates.len(),
        templates_changed: changes.changed,
        templates_gone: changes.gone,
        messaging_limit,
    })
}

async fn write_templates(
    store: &Store,
    waba_id: &str,
    templates: &[TemplateInfo],
) -> Result<Changes, sqlx::Error> {
    let rows: Vec<TemplateRow> = templates.iter().cloned().map(template_row).collect();
    sync::templates(store.pool(), waba_id, &rows).await
}

/// The limit is the portfolio's; any of its numbers can be asked.
async fn write_limit(
    store: &Store,
    directory: &Directory,
    account: &Account,
    token: &SecretString,
    numbers: &[NumberInfo],
) -> anyhow::Result<Option<String>> {
    let Some(number) = numbers.first() else {
        return Ok(None);
    };
    let Some(limit) = directory
        .messaging_limit(&number.phone_number_id, token)
        .await?
    else {
        return Ok(None);
    };
    if let Some(recipients) = recipients(limit.tier) {
        sync::limit(store.pool(), account.portfolio(), &limit.word, recipients).await?;
    }
    Ok(Some(limit.word))
}

/// Each number has a limit of its own. Returns the provider's words for them.
async fn write_limits(
    store: &Store,
    directory: &Directory,
    waba_id: &str,
    token: &SecretString,
) -> anyhow::Result<Option<String>> {
    let limits = directory.messaging_limits(waba_id, token).await?;
    let mut words: Vec<_> = limits.iter().map(|(_, limit)| limit.word.clone()).collect();
    words.sort_unstable();
    words.dedup();
    let rows: Vec<LimitRow> = limits
        .into_iter()
        .filter_map(|(phone_number_id, limit)| {
            Some(LimitRow {
                phone_number_id,
                recipients: recipients(limit.tier)?,
                tier: limit.word,
            })
        })
        .collect();
    sync::number_limits(store.pool(), &rows).await?;
    Ok((!words.is_empty()).then(|| words.join(", ")))
}

/// As the database keeps it. Undecided is not unlimited: what we assumed stays.
fn recipients(tier: Tier) -> Option<Option<i32>> {
    match tier {
        Tier::Recipients(recipients) => Some(Some(i32::try_from(recipients).unwrap_or(i32::MAX))),
        Tier::Unlimited => Some(None),
        Tier::NotSet => None,
    }
}

fn number_row(info: NumberInfo) -> NumberRow {
    NumberRow {
        phone_number_id: info.phone_number_id,
        display_phone_number: info.display_phone_number,
        verified_name: info.verified_name,
        status: info.status,
        quality_rating: info.quality_rating,
        throughput_level: info.throughput_level,
        is_on_biz_app: info.is_on_biz_app,
    }
}

fn template_row(info: TemplateInfo) -> TemplateRow {
    TemplateRow {
        provider_id: info.provider_id,
        name: info.name,
        language: info.language,
        status: info.status,
        category: info.category,
        parameter_format: info.parameter_format,
        components: info.components,
        quality: info.quality,
        message_send_ttl_seconds: info.message_send_ttl_seconds,
        rejected_reason: info.rejected_reason,
    }
}

/// Whether a sync failed because the provider was away or overloaded.
#[must_use]
pub fn is_provider_away(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<DirectoryError>()
        .is_some_and(DirectoryError::is_transient)
}

/// Whether a sync failed because the provider did not accept the token.
#[must_use]
pub fn is_refused(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<DirectoryError>()
        .is_some_and(DirectoryError::is_credentials)
}

/// Syncs all accounts until `stop`. One that fails does not keep the others from being synced.
pub struct Syncing {
    /// Where it is written.
    pub store: Store,
    /// Which accounts, how often.
    pub config: watch::Receiver<Arc<Config>>,
    /// Where tokens may be.
    pub environment: Environment,
    /// Rung by whoever learned that something changed at the provider.
    pub asked: Arc<Notify>,
}

impl Syncing {
    /// Syncs every account once; true when all went well.
    pub async fn all(&self) -> bool {
        let config = Arc::clone(&self.config.borrow());
        let mut all_well = true;
        for it in &config.accounts {
            match account(&self.store, &config, it, &self.environment).await {
                Ok(synced) => tracing::info!(
                    account = synced.account,
                    numbers = synced.numbers,
                    templates = synced.templates,
                    changed = synced.templates_changed,
                    "synced account {}",
                    synced.account
                ),
                Err(error) => {
                    all_well = false;
                    tracing::warn!(
                        account = it.waba_id,
                        "{error:#}; what was known before still holds"
                    );
                }
            }
        }
        all_well
    }

    async fn asked_by_webhook(&self) {
        loop {
            tokio::time::sleep(ASKED_EVERY).await;
            // A database that is away is told of elsewhere.
            if let Ok(true) = within(ASKED_MAX, sync::take_asked(self.store.pool())).await {
                return;
            }
        }
    }

    /// Syncs now and then, sooner when asked or when it failed. `went_well` is how the sync at the start went.
    pub async fn run(self, mut went_well: bool, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let usual = self.config.borrow().whatsapp.sync_every();
            let pause = if went_well {
                usual
            } else {
                usual.min(RETRY_AFTER)
            };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = self.asked.notified() => {}
                () = self.asked_by_webhook() => {}
                () = tokio::time::sleep(pause) => {}
            }
            let syncing = tokio::time::timeout(SYNC_MAX, self.all());
            went_well = match stop.run_until_cancelled(syncing).await {
                Some(synced) => synced.unwrap_or(false),
                None => return Ok(()),
            };
        }
    }
}
