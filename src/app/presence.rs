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
        within,
    },
};

/// Whoever was not heard of for several times as long is not there.
const SHOW_EVERY: Duration = Duration::from_secs(2);
/// What takes longer is on a connection that hangs.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// At the end nobody waits for long: who is not heard of any more is not there.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// Shows it once, and from then on until the end.
pub(super) async fn start(service: &mut Service, shared: &Shared, instance: &Instance) {
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
    show_now(&shared.store, &presence).await;
    let showing = show(shared.store.clone(), presence, service.stop().close.clone());
    service.spawn("presence", Phase::Close, showing);
}

/// A database that is away is told of by its watch.
async fn show_now(store: &Store, presence: &Presence) {
    if let Err(error) = within(ANSWER_MAX, instance::show(store.pool(), presence)).await {
        tracing::debug!(%error, "this instance could not be shown");
    }
}

async fn show(store: Store, presence: Presence, stop: CancellationToken) -> anyhow::Result<()> {
    while stop
        .run_until_cancelled(tokio::time::sleep(SHOW_EVERY))
        .await
        .is_some()
    {
        show_now(&store, &presence).await;
    }
    let leaving = instance::leave(store.pool(), &presence.id);
    if let Err(error) = within(LEAVE_MAX, leaving).await {
        tracing::debug!(%error, "that this instance ends could not be shown");
    }
    Ok(())
}
