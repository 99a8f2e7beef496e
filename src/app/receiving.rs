//! The webhook and the fold behind it. Both stop last: receipts keep coming while the last messages go out.

use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Shared, bind, configured};
use crate::{
    config::Config,
    http::{
        folding, serving,
        webhook::{self, WebhookSettings},
    },
    service::{Phase, Service},
};

pub(super) async fn start(
    service: &mut Service,
    shared: &Shared,
    installation: String,
) -> anyhow::Result<()> {
    let config = Arc::clone(&shared.config.borrow());
    let settings = settings(shared, &config, &installation)?;
    let listener = bind("webhook.listen", config.webhook.listen).await?;
    let max_connections = config.webhook.max_connections;
    let close = service.stop().close.clone();

    let (sender, receiver) = watch::channel(Arc::new(settings));
    let bell = Arc::new(Notify::new());
    let meters = shared.meters.http.clone();
    let (router, work) = webhook::webhook(
        receiver,
        shared.store.pool().clone(),
        Arc::clone(&bell),
        meters.clone(),
        close.clone(),
    );
    let closing = close.clone();
    service.spawn("webhook", Phase::Close, async move {
        let serving = serving::serve(listener, router, max_connections, closing);
        // The work ends when serving has ended and what it took is committed.
        let (served, ()) = tokio::join!(serving, work);
        Ok(served?)
    });
    let folding = folding::run(shared.store.pool().clone(), close.clone(), bell, meters);
    service.spawn("fold", Phase::Close, async move {
        folding.await;
        Ok(())
    });
    service.spawn(
        "webhook settings",
        Phase::Close,
        follow(shared.clone(), installation, sender, close),
    );
    Ok(())
}

fn settings(
    shared: &Shared,
    config: &Config,
    installation: &str,
) -> anyhow::Result<WebhookSettings> {
    Ok(configured::webhook_settings(
        config,
        &shared.environment,
        installation,
    )?)
}

/// Gives the webhook the new secrets and words after a reload.
async fn follow(
    mut shared: Shared,
    installation: String,
    sender: watch::Sender<Arc<WebhookSettings>>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Ok(())) = stop.run_until_cancelled(shared.config.changed()).await {
        let config = Arc::clone(&shared.config.borrow_and_update());
        match settings(&shared, &config, &installation) {
            Ok(settings) => _ = sender.send_replace(Arc::new(settings)),
            Err(error) => {
                tracing::error!("the webhook goes on with its former settings: {error:#}")
            }
        }
    }
    Ok(())
}
