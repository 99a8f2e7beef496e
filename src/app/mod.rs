//! The daemon put together: which parts run, what they share, and in which order they start and stop.

pub mod configured;
pub mod database;
mod metering;
mod presence;
mod receiving;
mod sending;
pub mod syncing;
mod upkeep;
mod verifying;
mod watching;

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
use watching::Watching;

/// Monitoring asks once in a while; a few connections are plenty.
const OPS_CONNECTIONS: usize = 64;
/// A database that went away while we start is tried again after this.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);
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

    /// As people write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dispatch => "dispatch",
            Self::Webhook => "webhook",
            Self::Upkeep => "upkeep",
            Self::Metrics => "metrics",
        }
    }
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
    /// What the names of our database sessions begin with.
    session: String,
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

    // With the instance's id and a mark of this run, so that whoever takes over after us can tell our sessions from others.
    let session = format!("postrider {}.{:04x}", instance.id(), rand::random::<u16>());
    let connecting = Database::wait_for(&config, &environment, &session);
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
        session,
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
    let connect = configured::connect_options(&shared.config.borrow());
    let state_dir = shared.config.borrow().state_dir(&shared.environment);
    let mut watching = Watching::new(&shared.store, connect, instance.id(), &state_dir);
    let beginning = begin_when_there(&shared, database, &mut watching);
    let Some(begun) = service.prepare("checking the schema", beginning).await else {
        return Ok(());
    };
    let installation = begun?;
    presence::start(&mut service, &shared, instance).await;
    let watching = watching.run(shared.readiness.clone(), service.stop().close.clone());
    service.spawn("database watch", Phase::Close, watching);
    if shared.has(Role::Webhook) {
        receiving::start(&mut service, &shared, installation).await?;
    }
    if shared.has(Role::Upkeep) {
        start_upkeep(&mut service, &shared, instance);
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
        Some(sending::start(&mut service, &shared, instance)?)
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

/// As [`begin`], through any number of moments in which the database is away.
async fn begin_when_there(
    shared: &Shared,
    database: &Database,
    watching: &mut Watching,
) -> anyhow::Result<String> {
    loop {
        match begin(shared, database, watching).await {
            Err(error) if database::is_away(&error) => {
                tracing::warn!("the database went away at the start: {error:#}");
            }
            begun => return begun,
        }
        tokio::time::sleep(BEGIN_AGAIN).await;
    }
}

/// What must be right before anything starts: the schema, the partitions, the configuration where SQL sees it, and that the
/// database is not older than we know. Returns the name of this installation.
async fn begin(
    shared: &Shared,
    database: &Database,
    watching: &mut Watching,
) -> anyhow::Result<String> {
    database.check_schema().await?;
    watching.turn().await?;
    upkeep::make_partitions(&shared.store)
        .await
        .context("making partitions")?;
    let mirrored = configured::mirrored(&shared.config.borrow());
    facts::mirror(shared.store.pool(), &mirrored)
        .await
        .context("writing the configuration into the database")?;
    let facts = facts::load(shared.store.pool()).await?;
    shared.readiness.ready("schema");
    Ok(facts.settings.installation().to_owned())
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

fn start_upkeep(service: &mut Service, shared: &Shared, instance: &Instance) {
    let running = upkeep::run(
        shared.store.clone(),
        shared.meters.dispatch.clone(),
        instance.id().to_owned(),
        service.stop().drain.clone(),
    );
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
