//! `postrider sync`: reads numbers, limits and templates from the provider now.

use anyhow::Context as _;

use super::{Context, Exit};
use crate::{
    app::{
        configured,
        syncing::{self, Synced},
    },
    config::Config,
    store::facts,
};

/// Arguments of `postrider sync`.
#[derive(Debug, clap::Args)]
pub(super) struct SyncArgs {
    /// Only this account, by Meta's id
    #[arg(long, value_name = "WABA_ID")]
    account: Option<String>,
}

pub(super) async fn run(args: SyncArgs, context: &Context) -> anyhow::Result<Exit> {
    let config = context.config()?;
    check_account(&config, args.account.as_deref())?;
    let database = context.database().await?;
    database.check_schema().await?;
    facts::mirror(database.store.pool(), &configured::mirrored(&config))
        .await
        .context("writing the configuration into the database")?;
    let wanted = |waba_id: &str| args.account.as_deref().is_none_or(|only| only == waba_id);
    let mut rows = Vec::new();
    for account in config
        .accounts
        .iter()
        .filter(|account| wanted(&account.waba_id))
    {
        let synced =
            syncing::account(&database.store, &config, account, &context.environment).await;
        rows.push(synced.map_err(with_exit)?);
    }
    context.output.rows(
        &rows,
        &[
            "account",
            "numbers",
            "templates",
            "changed",
            "gone",
            "messaging limit",
        ],
        cells,
    )?;
    Ok(Exit::Done)
}

fn check_account(config: &Config, only: Option<&str>) -> anyhow::Result<()> {
    let is_known = |waba_id: &str| {
        config
            .accounts
            .iter()
            .any(|account| account.waba_id == waba_id)
    };
    match only {
        Some(waba_id) if !is_known(waba_id) => {
            Err(anyhow::anyhow!("no [[accounts]] has the waba_id {waba_id}").context(Exit::Config))
        }
        None if config.accounts.is_empty() => {
            Err(anyhow::anyhow!("the configuration names no [[accounts]]").context(Exit::Config))
        }
        _ => Ok(()),
    }
}

fn with_exit(error: anyhow::Error) -> anyhow::Error {
    if syncing::is_refused(&error) {
        error.context(Exit::Refused)
    } else if syncing::is_provider_away(&error) {
        error.context(Exit::ProviderAway)
    } else {
        error
    }
}

fn cells(synced: &Synced) -> Vec<String> {
    vec![
        synced.account.clone(),
        synced.numbers.to_string(),
        synced.templates.to_string(),
        synced.templates_changed.to_string(),
        synced.templates_gone.to_string(),
        synced
            .messaging_limit
            .clone()
            .unwrap_or_else(|| "not told".to_owned()),
    ]
}
