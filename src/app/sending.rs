//! Dispatch: the workers on their threads, and beside them what tells them about facts, leases and bells, and what writes
//! down what answers mean beyond their job.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{Shared, configured};
use crate::{
    channel::whatsapp::Client,
    config::{Config, Environment, Rate, Whitespace},
    dispatch::{
        applying::Applying,
        crew::{Crew, Tools},
        knowing::{Guide, Knowing, Share},
        leasing::{self, Leasing},
        moving::Moving,
        resolving::Resolving,
        ringing,
        showing::Showing,
        worker::Settings,
        world::World,
    },
    instance::Instance,
    rules::{pace, pair::Allowance, pick::Floor, retry::Policy, template},
    service::{Phase, Service},
    store::{ConnectOptions, lease::Holder},
};

/// After its request's timeout, an outcome is written within this, or not soon.
const WRITTEN_WITHIN: Duration = Duration::from_secs(5);
/// Requests on one HTTP/2 connection at once.
const IN_FLIGHT_PER_CONNECTION: usize = 100;

pub(super) fn start(
    service: &mut Service,
    shared: &Shared,
    instance: &Instance,
) -> anyhow::Result<Crew> {
    let config = Arc::clone(&shared.config.borrow());
    let (crew, seats) = Crew::new(config.dispatch.worker_threads());
    let (learned, told) = mpsc::unbounded_channel();
    let (quiet, told_quiet) = mpsc::unbounded_channel();
    let tools = Tools {
        store: shared.store.clone(),
        connect: ConnectOptions {
            application_name: shared.session.clone(),
            ..configured::connect_options(&config)
        },
        endpoint: configured::endpoint(&config),
        learned,
        quiet,
        meters: shared.meters.dispatch.clone(),
    };
    let stop = service.stop().clone();
    for seat in seats {
        let (tools, settings) = (tools.clone(), worker_settings(&config, seat.index()));
        let (drain, abort) = (stop.drain.clone(), stop.abort.clone());
        service.spawn_thread("dispatch", Phase::Drain, move || {
            seat.work(tools, settings, drain, abort)
        })?;
    }
    let changed = Arc::new(Notify::new());
    let (shown, world) = watch::channel(Arc::default());
    start_knowing(service, shared, &crew, &config, &changed, shown)?;
    let (full, blocked) = watch::channel(HashSet::new());
    let showing = Showing {
        store: shared.store.clone(),
        crew: crew.clone(),
        world: world.clone(),
        blocked: full,
        meters: shared.meters.dispatch.clone(),
    };
    service.spawn(
        "limits",
        Phase::Drain,
        without_fail(showing.run(stop.drain.clone())),
    );
    let moving = Moving {
        store: shared.store.clone(),
        instance: instance.id().to_owned(),
        world,
        blocked,
        changed: Arc::clone(&changed),
        meters: shared.meters.dispatch.clone(),
    };
    service.spawn(
        "moves",
        Phase::Drain,
        without_fail(moving.run(stop.drain.clone())),
    );
    let applying = Applying {
        store: shared.store.clone(),
        learned: told,
        changed: Arc::clone(&changed),
    };
    service.spawn(
        "effects",
        Phase::Close,
        without_fail(applying.run(stop.close.clone())),
    );
    start_resolving(service, shared);
    let ringing = ringing::run(shared.store.clone(), crew.clone(), stop.drain.clone());
    service.spawn("bell", Phase::Drain, without_fail(ringing));
    let leasing = Leasing {
        store: shared.store.clone(),
        holder: holder(shared, &config, instance),
        give_back_within: config.whatsapp.request_timeout() + WRITTEN_WITHIN,
        crew: crew.clone(),
        quiet: told_quiet,
        changed,
        held: watch::Sender::new(0),
    };
    start_leasing(service, shared, &config, leasing);
    Ok(crew)
}

/// Unknown jobs are decided on by this instance as by any other.
fn start_resolving(service: &mut Service, shared: &Shared) {
    let max_resends =
        |config: &Config| i32::try_from(config.dispatch.max_unknown_resends).unwrap_or(i32::MAX);
    let config = shared.config.clone();
    let resolving = Resolving {
        store: shared.store.clone(),
        max_resends: Box::new(move || max_resends(&config.borrow())),
        meters: shared.meters.dispatch.clone(),
    };
    let drain = service.stop().drain.clone();
    service.spawn(
        "unknown outcomes",
        Phase::Drain,
        without_fail(resolving.run(drain)),
    );
}

fn worker_settings(config: &Config, index: usize) -> Settings {
    let dispatch = &config.dispatch;
    Settings {
        index,
        workers: dispatch.worker_threads(),
        look_ahead: u32::try_from(dispatch.look_ahead).unwrap_or(u32::MAX),
        in_flight_max: config.whatsapp.connections * IN_FLIGHT_PER_CONNECTION,
        jitter_allowance: config.pacing.jitter_allowance(),
        retry: Policy {
            first: dispatch.backoff_first(),
            max: dispatch.backoff_max(),
            max_attempts: i32::try_from(dispatch.max_attempts).unwrap_or(i32::MAX),
        },
    }
}

fn start_knowing(
    service: &mut Service,
    shared: &Shared,
    crew: &Crew,
    config: &Config,
    changed: &Arc<Notify>,
    shown: watch::Sender<Arc<World>>,
) -> anyhow::Result<()> {
    let (sender, guide) = watch::channel(guide(config, &shared.environment));
    let knowing = Knowing {
        store: shared.store.clone(),
        crew: crew.clone(),
        client: Client::new(&configured::endpoint(config))?,
        guide,
        changed: Arc::clone(changed),
        shown,
    };
    // Until the end of the drain: what is said to the last worker must still be true.
    let close = service.stop().close.clone();
    service.spawn(
        "facts",
        Phase::Close,
        without_fail(knowing.run(close.clone())),
    );
    service.spawn(
        "facts settings",
        Phase::Close,
        follow(shared.clone(), sender, close),
    );
    Ok(())
}

/// What the configuration says of numbers and templates. An account whose token cannot be had is left out, which stops its
/// numbers and no others.
fn guide(config: &Config, environment: &Environment) -> Guide {
    let mut tokens = BTreeMap::new();
    for account in &config.accounts {
        match config.token(account, environment) {
            Ok(token) => _ = tokens.insert(account.waba_id.clone(), token),
            Err(error) => tracing::error!(
                account = account.waba_id,
                "nothing goes out from this account: {error}"
            ),
        }
    }
    Guide {
        whitespace: match config.templates.whitespace {
            Whitespace::Collapse => template::Whitespace::Collapse,
            Whitespace::Refuse => template::Whitespace::Refuse,
        },
        rate: match config.pacing.messages_per_second {
            Rate::PerSecond(rate) => pace::Rate::new(rate).ok(),
            Rate::Auto => None,
        },
        share: Share {
            elsewhere: config.limits.elsewhere,
            headroom: config.limits.headroom,
            urgent_reserve: config.limits.urgent_reserve,
        },
        pair: Allowance {
            burst: config.limits.pair_burst,
            refill: config.limits.pair_refill(),
        },
        floor: Floor::new(config.pacing.bulk_floor),
        tokens,
    }
}

/// All of the guide follows a reload.
async fn follow(
    mut shared: Shared,
    guides: watch::Sender<Guide>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Ok(())) = stop.run_until_cancelled(shared.config.changed()).await {
        let config = Arc::clone(&shared.config.borrow_and_update());
        guides.send_replace(guide(&config, &shared.environment));
    }
    stop.cancelled().await;
    Ok(())
}

/// Leases are kept until the workers are done, and those that are left then are handed back, so that a successor need not
/// wait for them to run out.
fn start_leasing(service: &mut Service, shared: &Shared, config: &Config, leasing: Leasing) {
    shared.readiness.not_ready("leases", "not taken yet");
    let stop = service.stop().clone();
    let showing = show_leases(
        leasing.held.subscribe(),
        shared.clone(),
        config.dispatch.lease_ttl(),
        stop.close.clone(),
    );
    service.spawn("lease readiness", Phase::Close, showing);
    let keeping = leasing.run(stop.drain, stop.close);
    service.spawn("leases", Phase::Close, without_fail(keeping));
}

/// Who takes the leases.
fn holder(shared: &Shared, config: &Config, instance: &Instance) -> Holder {
    let ttl = config.dispatch.lease_ttl();
    Holder {
        instance: instance.id().to_owned(),
        session: shared.session.clone(),
        ttl,
        patience: leasing::patience(ttl),
    }
}

/// Each renewal shows that this instance may send, also when it has no shard: there may be more instances than shards. After
/// as long without one as a lease holds, others send.
async fn show_leases(
    mut held: watch::Receiver<usize>,
    shared: Shared,
    ready_for: Duration,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    while let Some(Ok(())) = stop.run_until_cancelled(held.changed()).await {
        let shards = *held.borrow_and_update();
        shared
            .metrics
            .lease_held
            .set(i64::try_from(shards).unwrap_or(i64::MAX));
        shared.readiness.ready_for("leases", ready_for);
    }
    stop.cancelled().await;
    Ok(())
}

/// A task that ends only when told to.
async fn without_fail(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}
