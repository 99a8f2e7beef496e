//! What a command tells the shell: sysexits, which systemd names rightly.

use std::{error::Error, fmt, process::ExitCode};

use crate::{
    config::ConfigError,
    store::{self, StoreError, migrate::SchemaProblem},
};

/// How a command ended.
///
/// A command returns one when it knows; an error that knows its own code carries one as context:
/// `.context(Exit::ProviderAway)`. The others are told by their type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: failed, for a reason that has no code of its own.
    Failed,
    /// 64: the command line makes no sense.
    Usage,
    /// 65: some lines of the input were bad; the others were done.
    BadInput,
    /// 69: the provider is away.
    ProviderAway,
    /// 75: the database is away; the same command may work in a minute.
    DatabaseAway,
    /// 77: somebody refused our credentials.
    Refused,
    /// 78: the configuration or the database's schema is not what it should be.
    Config,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::BadInput => 65,
            Self::ProviderAway => 69,
            Self::DatabaseAway => 75,
            Self::Refused => 77,
            Self::Config => 78,
        }
    }

    /// What an error means to the shell.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Self {
        if let Some(exit) = error.downcast_ref::<Self>() {
            return *exit;
        }
        error.chain().find_map(of_cause).unwrap_or(Self::Failed)
    }
}

fn of_cause(cause: &(dyn Error + 'static)) -> Option<Exit> {
    if let Some(error) = cause.downcast_ref::<StoreError>() {
        return match error {
            error if error.is_away() => Some(Exit::DatabaseAway),
            StoreError::Url(_) => Some(Exit::Config),
            StoreError::Unreachable(hosts) => hosts.error().and_then(of_database),
            StoreError::Database(_) => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<sqlx::Error>() {
        return of_database(error);
    }
    let is_config = cause.is::<ConfigError>() || cause.is::<SchemaProblem>();
    is_config.then_some(Exit::Config)
}

fn of_database(error: &sqlx::Error) -> Option<Exit> {
    if store::is_away(error) {
        return Some(Exit::DatabaseAway);
    }
    let code = error.as_database_error()?.code()?;
    // 28: no such user, or the wrong password; 42501: not allowed; 3D000: no such database.
    match code.as_ref() {
        "42501" => Some(Exit::Refused),
        "3D000" => Some(Exit::Config),
        code => code.starts_with("28").then_some(Exit::Refused),
    }
}

/// As the outermost line of an error that carries it.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Failed => "it failed",
            Self::Usage => "that is not how this command is used",
            Self::BadInput => "some of the input is bad",
            Self::ProviderAway => "the provider cannot be reached",
            Self::DatabaseAway => "the database cannot be reached",
            Self::Refused => "the credentials were refused",
            Self::Config => "the configuration does not work",
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_error_is_told_by_its_type_however_deep_it_stands() {
        let config = anyhow::Error::new(ConfigError::NoDatabase)
            .context("outer")
            .context("outermost");
        assert_eq!(Exit::of(&config), Exit::Config);
        let away = anyhow::Error::new(StoreError::Unreachable(sqlx::Error::PoolTimedOut.into()));
        assert_eq!(Exit::of(&away), Exit::DatabaseAway);
        assert_eq!(
            Exit::of(&anyhow::Error::new(sqlx::Error::PoolTimedOut)),
            Exit::DatabaseAway
        );
        assert_eq!(Exit::of(&anyhow::anyhow!("something")), Exit::Failed);
    }

    #[test]
    fn an_error_that_carries_its_own_code_keeps_it() {
        let error = Err::<(), _>(anyhow::anyhow!("connection refused"))
            .context(Exit::ProviderAway)
            .context("sync");
        assert_eq!(Exit::of(&error.unwrap_err()), Exit::ProviderAway);
    }
}
