//! What the demo needs around it: a private PostgreSQL, the sandbox, and the daemon, all in this process and gone with it.

use std::{
    fs, io,
    net::TcpListener,
    path::{Path, PathBuf},
    pin::Pin,
    time::Instant,
};

use anyhow::Context as _;
use futures_util::future::{FusedFuture, FutureExt as _};
use rustix::process::{Signal, getpid, kill_process};

use super::{
    Guide,
    samples::{self, Planned},
    style::{count, counted},
    world::{self, Places},
};
use crate::{
    app::{self, Role, configured, syncing},
    config::{Config, Environment},
    sandbox::{Sandbox, Setup},
    store::{ConnectOptions, Store, consent, embedded, embedded::Embedded, facts, migrate},
};

/// Consents noted in one statement.
const CONSENTS_AT_ONCE: usize = 1_000;

/// All that runs.
pub(super) struct Stage {
    /// The database.
    pub(super) store: Store,
    /// The provider's stand-in.
    pub(super) sandbox: Sandbox,
    /// The ids of its numbers.
    pub(super) numbers: Vec<String>,
    /// The daemon. It ends when the process is asked to, also by Ctrl-C.
    pub(super) daemon: Pin<Box<dyn FusedFuture<Output = anyhow::Result<()>>>>,
    /// The daemon's configuration.
    pub(super) config_path: PathBuf,
    /// Where its metrics are.
    pub(super) metrics_url: String,
    /// How `psql` gets at the database.
    pub(super) database_url: String,
    postgres: Embedded,
    // Last, so that it is removed when nothing uses it any more.
    _directory: Directory,
}

/// A directory that is removed when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("postrider-demo-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed stays in the system's directory for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Stage {
    /// Starts everything, and says so step by step.
    pub(super) async fn set(plan: &[Planned], seed: u64, guide: Guide) -> anyhow::Result<Self> {
        let directory = Directory::make().context("making a directory for the demo")?;
        let (postgres, store) = start_postgres(&directory.0, guide).await?;
        let (webhook_port, ops_port) = (free_port()?, free_port()?);
        let setup = world::setup(seed, plan).callback(&format!(
            "http://127.0.0.1:{webhook_port}/webhooks/whatsapp"
        ));
        let sandbox = Sandbox::start(setup.clone()).await?;
        tell_of_sandbox(&sandbox, &setup, guide)?;

        let database_url = postgres.url();
        let places = Places {
            state_dir: &directory.0,
            database_url: &database_url,
            provider_url: &sandbox.url(),
            webhook_port,
            ops_port,
        };
        let config_path = directory.0.join("postrider.toml");
        fs::write(&config_path, world::config(&setup, &places))
            .context("writing the demo's configuration")?;
        prepare(&store, &Config::load(&config_path)?).await?;
        import_consents(&store, plan.len(), guide).await?;

        let roles = Role::ALL.into_iter().collect();
        let daemon = app::run(config_path.clone(), Environment::default(), roles).fuse();
        Ok(Self {
            store,
            sandbox,
            numbers: setup.numbers.into_iter().map(|number| number.id).collect(),
            daemon: Box::pin(daemon),
            config_path,
            metrics_url: format!("http://127.0.0.1:{ops_port}/metrics"),
            database_url,
            postgres,
            _directory: directory,
        })
    }

    /// Stops everything in good order, the daemon first.
    pub(super) async fn strike(self) -> anyhow::Result<()> {
        if !self.daemon.is_terminated() {
            // As systemd does.
            kill_process(getpid(), Signal::TERM).context("asking the daemon to stop")?;
            self.daemon.await?;
        }
        self.sandbox.stop().await;
        self.store.pool().close().await;
        Ok(self.postgres.stop().await?)
    }
}

async fn start_postgres(directory: &Path, guide: Guide) -> anyhow::Result<(Embedded, Store)> {
    let started = Instant::now();
    let postgres =
        Embedded::start(&directory.join("postgres"), embedded::Options::default()).await?;
    let store = Store::connect(&postgres.url(), ConnectOptions::default()).await?;
    migrate::migrate(store.pool()).await?;
    guide.done(
        "A PostgreSQL of its own, with the schema",
        Some(started.elapsed()),
    )?;
    Ok((postgres, store))
}

fn tell_of_sandbox(sandbox: &Sandbox, setup: &Setup, guide: Guide) -> io::Result<()> {
    let mut languages: Vec<_> = setup
        .templates
        .iter()
        .map(|template| &template.language)
        .collect();
    languages.sort();
    languages.dedup();
    let (numbers, templates) = (
        counted(setup.numbers.len(), "number"),
        counted(setup.templates.len(), "template"),
    );
    let languages = counted(languages.len(), "language");
    guide.done(
        &format!("The sandbox, a stand-in for WhatsApp: {numbers}, {templates} in {languages}"),
        None,
    )?;
    guide.more(&format!("on {}", sandbox.url()))
}

/// What `postrider migrate`, the daemon's start and `postrider sync` do: enqueue needs kinds, numbers and templates.
async fn prepare(store: &Store, config: &Config) -> anyhow::Result<()> {
    facts::mirror(store.pool(), &configured::mirrored(config)).await?;
    for account in &config.accounts {
        syncing::account(store, config, account, &Environment::default()).await?;
    }
    Ok(())
}

async fn import_consents(store: &Store, jobs: usize, guide: Guide) -> anyhow::Result<()> {
    let started = Instant::now();
    let consents = samples::consents(jobs)?;
    for some in consents.chunks(CONSENTS_AT_ONCE) {
        consent::note(store.pool(), some).await?;
    }
    let out = consents.iter().filter(|consent| consent.opt_out).count();
    let (given, withdrawn) = (count(consents.len() - out), count(out));
    let said = format!("{given} opt-ins and {withdrawn} opt-outs out of examples/consents.csv");
    Ok(guide.done(&said, Some(started.elapsed()))?)
}

/// A port of the loopback that was free a moment ago.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
