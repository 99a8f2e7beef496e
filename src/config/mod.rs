//! The configuration: one TOML file, read whole, refused whole when anything in it is wrong.
//!
//! A mistake of form (an unknown key, a word where a number belongs) is told with its line and column. Then the values are
//! checked against each other, and everything that is wrong is told at once, each with how to mend it. Secrets stay where
//! they are until somebody needs them, so that `migrate` does not ask for the provider's token.

mod environment;
mod kinds;
mod live;
mod position;
mod secret;
mod sections;
mod validate;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

pub use environment::{DEFAULT_PATH, Environment};
pub use kinds::{KindConfig, built_in as built_in_kinds};
pub use live::LiveConfig;
pub use position::Position;
pub use secret::{Secret, SecretError};
pub use sections::{
    Account, App, Consent, Database, Dispatch, Enqueue, LimitScope, Limits, OnRecategorised, Ops,
    Pacing, Producer, Rate, Retention, Sender, StopCovers, Templates, Webhook, Whatsapp,
    Whitespace,
};
pub use validate::Problem;

/// Everything that is configured.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the instance's id and the embedded database live; `$STATE_DIRECTORY` when the file does not say.
    pub state_dir: Option<PathBuf>,
    /// The database.
    pub database: Database,
    /// How to reach the provider.
    pub whatsapp: Whatsapp,
    /// Meta's apps, which sign webhooks.
    pub apps: Vec<App>,
    /// WhatsApp Business Accounts.
    pub accounts: Vec<Account>,
    /// Sets of numbers by name.
    pub senders: BTreeMap<String, Sender>,
    /// Templates in general.
    pub templates: Templates,
    /// What is assumed for a job that does not say.
    pub enqueue: Enqueue,
    /// Messages per second.
    pub pacing: Pacing,
    /// Longer limits.
    pub limits: Limits,
    /// What notifications are about, by name.
    #[serde(deserialize_with = "kinds::over_built_in")]
    pub kinds: BTreeMap<String, KindConfig>,
    /// How jobs are taken, tried and given up.
    pub dispatch: Dispatch,
    /// What people write to us.
    pub consent: Consent,
    /// Where the provider calls.
    pub webhook: Webhook,
    /// Where monitoring asks.
    pub ops: Ops,
    /// How long rows stay.
    pub retention: Retention,
    /// Limits of those who enqueue, by database role.
    pub producers: BTreeMap<String, Producer>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: None,
            database: Database::default(),
            whatsapp: Whatsapp::default(),
            apps: Vec::new(),
            accounts: Vec::new(),
            senders: BTreeMap::new(),
            templates: Templates::default(),
            enqueue: Enqueue::default(),
            pacing: Pacing::default(),
            limits: Limits::default(),
            kinds: kinds::built_in(),
            dispatch: Dispatch::default(),
            consent: Consent::default(),
            webhook: Webhook::default(),
            ops: Ops::default(),
            retention: Retention::default(),
            producers: BTreeMap::new(),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No file, or not for us to read.
    #[error(
        "cannot read the configuration {}: {source}. Name another by --config or $POSTRIDER_CONFIG; \
         config/postrider.toml is one to start from", path.display()
    )]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what a configuration looks like.
    #[error("{}, {position}: {message}", path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        position: Position,
        /// What is wrong there.
        message: String,
    },
    /// Its values do not go together with what an earlier one said and waits for the next start.
    #[error(
        "{}: until the next start {} stays as it is, and with that: {}", path.display(), waiting.join(", "), list(problems)
    )]
    NotYet {
        /// Which file.
        path: PathBuf,
        /// What waits.
        waiting: Vec<&'static str>,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// Its values do not go together.
    #[error("{}: {}", path.display(), list(problems))]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// No database is named.
    #[error(
        "no database is named: set `url` under [database] to postgres://… (or to \"embedded\" for a private one), or set \
         $POSTRIDER_DATABASE_URL"
    )]
    NoDatabase,
    /// A secret could not be had.
    #[error("{key}: {source}")]
    Secret {
        /// The key that names it.
        key: String,
        /// Why.
        source: SecretError,
    },
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => many.iter().fold(
            format!("{} things are wrong", many.len()),
            |text, problem| format!("{text}\n  - {problem}"),
        ),
    }
}

/// Which database to use.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    /// A private cluster under the state directory.
    Embedded,
    /// A server. The URL may hold a password.
    Server(SecretString),
}

/// Who said which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseSource {
    /// `$POSTRIDER_DATABASE_URL`, which wins.
    Environment,
    /// `[database] url`.
    File,
}

impl fmt::Display for DatabaseSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Environment => "$POSTRIDER_DATABASE_URL",
            Self::File => "[database] url",
        })
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When the file cannot be read, is malformed, or its values do not go together.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_path_buf(),
            source,
        })?;
        Self::parse(&text, path)
    }

    /// The same, of a text that stands in `path`.
    ///
    /// # Errors
    /// When the text is malformed, or its values do not go together.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| malformed(text, path, &error))?;
        let mut problems = config.problems();
        if problems.is_empty() {
            return Ok(config);
        }
        for problem in &mut problems {
            problem.position = position::of_key(text, &problem.key);
        }
        problems.sort_by_key(|problem| problem.position);
        Err(ConfigError::Invalid {
            path: path.to_path_buf(),
            problems,
        })
    }

    /// Which database, and who said so. The environment wins over the file.
    ///
    /// # Errors
    /// When nobody names one, or the URL is a secret that cannot be had.
    pub fn database_url(
        &self,
        environment: &Environment,
    ) -> Result<(DatabaseUrl, DatabaseSource), ConfigError> {
        let (url, source) = match (
            environment.get("POSTRIDER_DATABASE_URL"),
            &self.database.url,
        ) {
            (Some(url), _) => (SecretString::from(url), DatabaseSource::Environment),
            (None, Some(secret)) => (
                resolve("database.url", secret, environment)?,
                DatabaseSource::File,
            ),
            (None, None) => return Err(ConfigError::NoDatabase),
        };
        let url = match url.expose_secret() {
            "embedded" => DatabaseUrl::Embedded,
            _ => DatabaseUrl::Server(url),
        };
        Ok((url, source))
    }

    /// Where the instance's id and the embedded database live.
    #[must_use]
    pub fn state_dir(&self, environment: &Environment) -> PathBuf {
        self.state_dir
            .clone()
            // systemd separates several directories by colons; the first is ours.
            .or_else(|| {
                environment
                    .get("STATE_DIRECTORY")?
                    .split(':')
                    .next()
                    .map(PathBuf::from)
            })
            .unwrap_or_else(|| PathBuf::from("/var/lib/postrider"))
    }

    /// The token of an account.
    ///
    /// # Errors
    /// When it is not where the file says.
    pub fn token(
        &self,
        account: &Account,
        environment: &Environment,
    ) -> Result<SecretString, ConfigError> {
        resolve(
            &format!("token of account {}", account.waba_id),
            &account.token,
            environment,
        )
    }

    /// The name of the app whose webhooks speak for an account: the one it names, or the only one there is.
    #[must_use]
    pub fn app_of<'a>(&'a self, account: &'a Account) -> &'a str {
        account
            .app
            .as_deref()
            .or_else(|| self.apps.first().map(|app| app.name.as_str()))
            .unwrap_or("default")
    }
}

impl App {
    /// The secrets that may have signed a webhook.
    ///
    /// # Errors
    /// When one is not where the file says.
    pub fn resolve_secrets(
        &self,
        environment: &Environment,
    ) -> Result<Vec<SecretString>, ConfigError> {
        let key = format!("app_secrets of app {}", self.name);
        self.app_secrets
            .iter()
            .map(|secret| resolve(&key, secret, environment))
            .collect()
    }

    /// What the provider repeats when the webhook is set up.
    ///
    /// # Errors
    /// When it is not where the file says.
    pub fn resolve_verify_token(
        &self,
        environment: &Environment,
    ) -> Result<SecretString, ConfigError> {
        resolve(
            &format!("verify_token of app {}", self.name),
            &self.verify_token,
            environment,
        )
    }
}

fn resolve(
    key: &str,
    secret: &Secret,
    environment: &Environment,
) -> Result<SecretString, ConfigError> {
    secret
        .resolve(environment)
        .map_err(|source| ConfigError::Secret {
            key: key.to_owned(),
            source,
        })
}

fn malformed(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    ConfigError::Malformed {
        path: path.to_path_buf(),
        position: position::position(text, error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    }
}

#[cfg(test)]
mod tests;
