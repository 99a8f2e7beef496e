//! `postrider migrate`: brings the database's schema up to this release.

use super::{Context, Exit};
use crate::store::migrate;

/// Arguments of `postrider migrate`.
#[derive(Debug, clap::Args)]
pub(super) struct MigrateArgs {}

pub(super) async fn run(_args: MigrateArgs, context: &Context) -> anyhow::Result<Exit> {
    let database = context.database().await?;
    migrate::migrate(database.store.pool()).await?;
    context.output.say("the schema is up to date")?;
    Ok(Exit::Done)
}
