//! Shows people, and the other instances, that this process is there and what it does.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::{
    instance::Instance,
    service::{Phase, Service},
    store::{
        Store,
        instance::{self, Presence},
    },
};

/// Whoever was not heard of for several times as long is not there.
const SHOW_EVERY: Duration = Duration::from_secs(2);

/// Shows it once, and from then on until the end.
///
/// # Errors
/// When the database does not answer.
pub(super) async fn start(
    service: &mut Service,
    shared: &Shared,
    instance: &Instance,
) -> Result<(), sqlx::Error> {
    let host = rustix::system::uname();
    let presence = Presence {
        id: instance.id().to_owned(),
        host: host.nodename().to_string_lossy().into_owned(),
        pid: std::process::id(),
        roles: shared
            .roles
            .iter()
            .map(|role| role.as_str().to_owned())
            .collect(),
    };
    instance::show(shared.store.pool(), &presence).await?;
    let showing = show(shared.store.clone(), presence, service.stop().close.clone());
    service.spawn("presence", Phase::Close, showing);
    Ok(())
}

async fn show(store: Store, presence: Presence, stop: CancellationToken) -> anyhow::Result<()> {
    while stop
        .run_until_cancelled(tokio::time::sleep(SHOW_EVERY))
        .await
        .is_some()
    {
        if let Err(error) = instance::show(store.pool(), &presence).await {
            tracing::debug!(%error, "this instance could not be shown");
        }
    }
    if let Err(error) = instance::leave(store.pool(), &presence.id).await {
        tracing::debug!(%error, "that this instance ends could not be shown");
    }
    Ok(())
}
