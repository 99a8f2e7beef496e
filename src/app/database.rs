//! Getting at the database: a server's, or a private one of our own; once, or until it is there.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use secrecy::ExposeSecret as _;

use super::configured;
use crate::{
    config::{Config, DatabaseSource, DatabaseUrl, Environment},
    store::{
        self, ConnectOptions, Store, StoreError,
        embedded::{self, Embedded, EmbeddedError},
        migrate,
    },
};

/// The first wait for a database that is away; doubled up to the longest.
const WAIT_FIRST: Duration = Duration::from_millis(250);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Connections that do not come back by then are left to the process's end.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// A connected database, and its server where that is our own: it stops when this is dropped.
#[derive(Debug)]
pub struct Database {
    /// The connections.
    pub store: Store,
    /// Who said which database it is.
    pub source: DatabaseSource,
    embedded: Option<Embedded>,
}

impl Database {
    /// Connects, once.
    ///
    /// # Errors
    /// When no database is named, the private server does not start, or the database is away.
    pub async fn open(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        let place = Place::find_or_join(config, environment).await?;
        let store = place
            .connect(configured::connect_options(config))
            .await
            .with_context(|| format!("connecting to {}", place.source))?;
        Ok(place.with(store))
    }

    /// Connects, as soon as the database is there; says now and then that it is not. `session` is what the server shows of
    /// the connections.
    ///
    /// # Errors
    /// When no database is named, the private server does not start, or the URL is wrong.
    pub async fn wait_for(
        config: &Config,
        environment: &Environment,
        session: &str,
    ) -> anyhow::Result<Self> {
        let place = Place::find(config, environment).await?;
        let mut wait = WAIT_FIRST;
        loop {
            let options = ConnectOptions {
                generic_plans: true,
                application_name: session.to_owned(),
                ..configured::connect_options(config)
            };
            match place.connect(options).await {
                Ok(store) => return Ok(place.with(store)),
                Err(error) if error.is_away() => {
                    let error = anyhow::Error::new(error);
                    tracing::warn!("waiting for the database of {}: {error:#}", place.source);
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("connecting to {}", place.source));
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// Checks that the schema is this release's. A private database is brought up without being asked: nobody else uses it.
    ///
    /// # Errors
    /// When it is older, newer, missing, or the database does not answer.
    pub async fn check_schema(&self) -> anyhow::Result<()> {
        if self.embedded.is_some() {
            migrate::migrate(self.store.pool())
                .await
                .context("bringing up the private database's schema")?;
        }
        Ok(migrate::check(self.store.pool()).await?)
    }

    /// Stops the private server, where there is one, and waits for it.
    ///
    /// # Errors
    /// When it does not stop in good order.
    pub async fn close(self) -> anyhow::Result<()> {
        let closing = self.store.pool().close();
        if tokio::time::timeout(CLOSE_LIMIT, closing).await.is_err() {
            tracing::debug!("some connections to the database were not closed in good order");
        }
        match self.embedded {
            Some(embedded) => Ok(embedded.stop().await?),
            None => Ok(()),
        }
    }
}

/// Whether an error says that the database is away, however deep it stands.
#[must_use]
pub fn is_away(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_store = cause.downcast_ref().is_some_and(StoreError::is_away);
        of_store || cause.downcast_ref().is_some_and(store::is_away)
    })
}

/// Where the database is.
struct Place {
    url: String,
    source: DatabaseSource,
    embedded: Option<Embedded>,
}

impl Place {
    async fn find(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        let (url, source) = config.database_url(environment)?;
        let (url, embedded) = match url {
            DatabaseUrl::Server(url) => (url.expose_secret().to_owned(), None),
            DatabaseUrl::Embedded => {
                let server = start_private(config, environment).await?;
                (server.url(), Some(server))
            }
        };
        Ok(Self {
            url,
            source,
            embedded,
        })
    }

    /// The same, for a command beside the daemon: a private server that the daemon runs is used, not started again.
    async fn find_or_join(config: &Config, environment: &Environment) -> anyhow::Result<Self> {
        let error = match Self::find(config, environment).await {
            Ok(place) => return Ok(place),
            Err(error) => error,
        };
        let is_in_use = matches!(error.downcast_ref(), Some(EmbeddedError::InUse { .. }));
        let running = Embedded::url_of_running(&private_dir(config, environment));
        match running.filter(|_| is_in_use) {
            Some(url) => Ok(Self {
                url,
                source: DatabaseSource::File,
                embedded: None,
            }),
            None => Err(error),
        }
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Store, StoreError> {
        Store::connect(&self.url, options).await
    }

    fn with(self, store: Store) -> Database {
        Database {
            store,
            source: self.source,
            embedded: self.embedded,
        }
    }
}

fn private_dir(config: &Config, environment: &Environment) -> PathBuf {
    config.state_dir(environment).join("postgres")
}

/// Starts the private server, and says aloud that it is there.
async fn start_private(config: &Config, environment: &Environment) -> anyhow::Result<Embedded> {
    let directory = private_dir(config, environment);
    let server = Embedded::start(&directory, embedded::Options::default()).await?;
    tracing::warn!(
        directory = %directory.display(),
        "using a private PostgreSQL of our own in {}; for production, name a server under [database]",
        directory.display()
    );
    Ok(server)
}
