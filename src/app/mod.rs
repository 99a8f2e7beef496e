//! The daemon put together: which parts run, what they share, and in which order they start and stop.

pub mod configured;
pub mod database;
mod metering;
mod receiving;
mod sending;
pub mod syncing;
mod upkeep;
mod verifying;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    sync::{Notify, watch},
};

use crate::{
    config::{Config, Environment, LiveConfig},
    dispatch::crew::Crew,
    http::{
        ops::{self, Readiness},
        serving,
    },
    instance::Instance,
    metrics::Metrics,
    service::{Duties, Phase, Service},
    store::{Store, facts},
};
use database::Database;
use metering::Meters;
use syncing::Syncing;

/// Monitoring asks once in a while; a few connections are plenty.
const OPS_CONNECTIONS: usize = 64;
/// How often the database is asked whether it is there.
const DATABASE_EVERY: Duration = Duration::from_secs(2);
/// A database that has not answered for this long is away.
const DATABASE_AWAY_AFTER: Duration = Duration::from_secs(10);
/// The sync at the start holds up sending for at most this: what was known before still holds.
const FIRST_SYNC_LIMIT: Duration = Duration::from_secs(60);

/// A part of the daemon that can run in a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Role {
    /// Sends.
    Dispatch,
    /// Takes the provider's calls and brings receipts into messages.
    Webhook,
    /// Ends expired jobs, makes partitions, verifies, syncs with the provider.
    Upkeep,
    /// Counts the queue.
    Metrics,
}

impl Role {
    /// Every role, for a process that does all.
    pub const ALL: [Self; 4] = [Self::Dispatch, Self::Webhook, Self::Upkeep, Self::Metrics];
}

/// What the parts share.
#[derive(Clone)]
struct Shared {
    config: watch::Receiver<Arc<Config>>,
    environment: Environment,
    store: Store,
    metrics: Arc<Metrics>,
    meters: Meters,
    readiness: Readiness,
    /// Rung when something changed at the provider.
    sync_asked: Arc<Notify>,
    roles: BTreeSet<Role>,
}

impl Shared {
    fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }
}

/// Runs the daemon until it is asked to stop.
///
/// # Errors
/// When it cannot start (configuration, state directory, schema, listen address), or a part of it failed.
pub async fn run(
    config_path: PathBuf,
    environment: Environment,
    roles: BTreeSet<Role>,
) -> anyhow::Result<()> {
    let config = Config::load(&config_path)?;
    for warning in config.warnings() {
        tracing::warn!("configuration: {warning}");
    }
    let mut service = Service::new(config.dispatch.drain_limit())?;
    let instance = Instance::claim(&config.state_dir(&environment), || {
        format!("{:016x}", rand::random::<u64>())
    })?;
    let metrics = Arc::new(Metrics::new());
    let meters = Meters::register(metrics.registry())?;
    let readiness = Readiness::new();
    // First of all, so that monitoring sees what we wait for.
    serve_ops(&mut service, &config, &metrics, &readiness).await?;
    readiness.not_ready("database", "not connected yet");

    let connecting = Database::wait_for(&config, &environment);
    let Some(database) = service
        .prepare("waiting for the database", connecting)
        .await
    else {
        return Ok(());
    };
    let database = database?;
    let live = LiveConfig::new(config_path, config);
    let shared = Shared {
        config: live.subscribe(),
        environment,
        store: database.store.clone(),
        metrics,
        meters,
        readiness,
        sync_asked: Arc::default(),
        roles,
    };
    let result = run_connected(service, shared, live, &database, &instance).await;
    // After everything else, whatever happened: the parts need the database until their end.
    database.close().await?;
    result
}

async fn run_connected(
    mut service: Service,
    shared: Shared,
    live: LiveConfig,
    database: &Database,
    instance: &Instance,
) -> anyhow::Result<()> {
    let Some(begun) = service
        .prepare("checking the schema", begin(&shared, database))
        .await
    else {
        return Ok(());
    };
    begun?;
    service.spawn(
        "database watch",
        Phase::Close,
        watch_database(shared.clone(), service.stop().close.clone()),
    );
    if shared.has(Role::Webhook) {
        receiving::start(&mut service, &shared).await?;
    }
    if shared.has(Role::Upkeep) {
        start_upkeep(&mut service, &shared);
    }
    if shared.has(Role::Metrics) {
        let sampling = upkeep::sample(
            shared.store.clone(),
            Arc::clone(&shared.metrics),
            service.stop().drain.clone(),
        );
        service.spawn("queue metrics", Phase::Drain, sampling);
    }
    let Some(went_well) = service
        .prepare("reading templates from the provider", first_sync(&shared))
        .await
    else {
        return Ok(());
    };
    if shared.has(Role::Upkeep) {
        let syncing = syncing(&shared).run(went_well, service.stop().drain.clone());
        service.spawn("sync", Phase::Drain, syncing);
    }
    let crew = if shared.has(Role::Dispatch) {
        Some(sending::start(&mut service, &shared, database, instance)?)
    } else {
        None
    };
    service.spawn(
        "configuration",
        Phase::Close,
        mirror_changes(shared.clone(), service.stop().close.clone()),
    );
    let readiness = shared.readiness.clone();
    Ok(service
        .run(async move { readiness.wait().await }, Daemon { live, crew })
        .await?)
}

/// What must be right before anything starts: the schema, the partitions, and the configuration where SQL sees it.
async fn begin(shared: &Shared, database: &Database) -> anyhow::Result<()> {
    database.check_schema().await?;
    upkeep::make_partitions(&shared.store)
        .await
        .context("making partitions")?;
    let mirrored = configured::mirrored(&shared.config.borrow());
    facts::mirror(shared.store.pool(), &mirrored)
        .await
        .context("writing the configuration into the database")?;
    shared.readiness.ready("schema");
    Ok(())
}

/// Without templates every job would be refused, so sending waits for the first look at them.
async fn first_sync(shared: &Shared) -> bool {
    if !shared.has(Role::Dispatch) && !shared.has(Role::Upkeep) {
        return true;
    }
    match tokio::time::timeout(FIRST_SYNC_LIMIT, syncing(shared).all()).await {
        Ok(went_well) => went_well,
        Err(_) => {
            tracing::warn!(
                "the provider takes too long to list its templates; starting with what was known before"
            );
            false
        }
    }
}

fn syncing(shared: &Shared) -> Syncing {
    Syncing {
        store: shared.store.clone(),
        config: shared.config.clone(),
        environment: shared.environment.clone(),
        asked: Arc::clone(&shared.sync_asked),
    }
}

fn start_upkeep(service: &mut Service, shared: &Shared) {
    let running = upkeep::run(shared.store.clone(), service.stop().drain.clone());
    service.spawn("upkeep", Phase::Drain, running);
    let verifying = verifying::run(
        shared.store.clone(),
        Arc::clone(&shared.metrics),
        service.stop().drain.clone(),
    );
    service.spawn("verify", Phase::Drain, verifying);
}

async fn serve_ops(
    service: &mut Service,
    config: &Config,
    metrics: &Metrics,
    readiness: &Readiness,
) -> anyhow::Result<()> {
    let listener = bind("ops.listen", config.ops.listen).await?;
    let router = ops::ops(metrics.registry().clone(), readiness.clone());
    let close = service.stop().close.clone();
    service.spawn("ops", Phase::Close, async move {
        Ok(serving::serve(listener, router, OPS_CONNECTIONS, close).await?)
    });
    Ok(())
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {key} = {address}"))
}

/// Readiness goes by whether the database answers now.
async fn watch_database(
    shared: Shared,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<()> {
    let mut every = tokio::time::interval(DATABASE_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        match shared.store.ping().await {
            Ok(()) => shared.readiness.ready_for("database", DATABASE_AWAY_AFTER),
            Err(error) => shared.readiness.not_ready("database", error.to_string()),
        }
    }
    Ok(())
}

/// Brings a reloaded configuration to where SQL functions and other instances see it.
async fn mirror_changes(
    mut shared: Shared,
    stop: tokio_util::sync::CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Ok(())) = stop.run_until_cancelled(shared.config.changed()).await {
        let mirrored = configured::mirrored(&shared.config.borrow_and_update());
        if let Err(error) = facts::mirror(shared.store.pool(), &mirrored).await {
            tracing::error!(%error, "the new configuration did not reach the database; reload again");
        }
        shared.sync_asked.notify_one();
    }
    Ok(())
}

/// What the service asks of the daemon.
struct Daemon {
    live: LiveConfig,
    crew: Option<Crew>,
}

impl Duties for Daemon {
    fn reload(&mut self) {
        match self.live.reload() {
            Ok(waiting) if waiting.is_empty() => tracing::info!("the configuration is reloaded"),
            Ok(waiting) => tracing::warn!(
                "the configuration is reloaded; {} will change at the next start only",
                waiting.join(", ")
            ),
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
    }

    fn is_alive(&self) -> bool {
        self.crew.as_ref().is_none_or(Crew::is_alive)
    }

    fn status(&self) -> String {
        let Some(crew) = &self.crew else {
            return "running".to_owned();
        };
        let load = crew.load();
        format!(
            "{} on the wire, {} ready to go, {} to be written",
            load.in_flight, load.buffered, load.unsettled
        )
    }
}
