//! `postrider run`: the daemon.

use super::{Context, Exit};
use crate::app::{self, Role};

/// Arguments of `postrider run`.
#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Only these parts, to split the daemon over several processes
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    only: Vec<Role>,
}

pub(super) async fn run(args: RunArgs, context: &Context) -> anyhow::Result<Exit> {
    let roles = if args.only.is_empty() {
        Role::ALL.to_vec()
    } else {
        args.only
    };
    app::run(
        context.config_path.clone(),
        context.environment.clone(),
        roles.into_iter().collect(),
    )
    .await?;
    Ok(Exit::Done)
}
