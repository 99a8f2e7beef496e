//! Brings the schema up, and tells whether it is the one that this release was built for.
//!
//! The bookkeeping stands in `postrider._sqlx_migrations`, beside what it is about, and the daemon may read it.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use sqlx::{Connection, Executor, PgConnection, PgPool, migrate::Migrator};

use super::StoreError;

const TABLE: &str = "postrider._sqlx_migrations";

/// Why the schema could not be brought up.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database was not reached, or refused the preparations.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A migration failed, or the schema is newer or was changed; nothing of that migration was kept.
    #[error("the schema could not be brought up")]
    Migration(#[from] sqlx::migrate::MigrateError),
}

impl From<sqlx::Error> for MigrateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Store(error.into())
    }
}

/// How the schema differs from the one that this release was built for.
#[derive(Debug, thiserror::Error)]
pub enum SchemaProblem {
    /// There is none.
    #[error("the database has no Postrider schema; run `postrider migrate`")]
    Missing,
    /// Some migrations are still to be applied.
    #[error(
        "the database's schema is older than this release ({pending} migrations to apply); run `postrider migrate`"
    )]
    Older {
        /// How many.
        pending: usize,
    },
    /// Migrations were applied that this release does not know.
    #[error(
        "the database's schema is newer than this release (migration {newest}); install the newer release"
    )]
    Newer {
        /// The newest of them.
        newest: i64,
    },
    /// A migration that was applied is not the one of this release.
    #[error("migration {version} was applied in another form than this release has it")]
    Changed {
        /// Which.
        version: i64,
    },
    /// It could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Applies what is missing. Runs on a connection of its own, one process at a time.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut connection = PgConnection::connect_with(&pool.connect_options())
        .await
        .map_err(|error| StoreError::Unreachable(error.into()))?;
    // Held until the connection closes. sqlx's own lock comes too late: after the schema has to be there.
    connection
        .execute("select pg_advisory_lock(hashtext('postrider.migrate'))")
        .await?;
    create_schema(&mut connection).await?;
    connection.execute("set search_path = postrider").await?;
    migrator().run(&mut connection).await?;
    connection
        .execute("grant select on postrider._sqlx_migrations to postrider_daemon, postrider_reader")
        .await?;
    connection.close().await?;
    Ok(())
}

/// Compares the schema with the one that this release was built for.
pub async fn check(pool: &PgPool) -> Result<(), SchemaProblem> {
    compare(&applied(pool).await?, &expected())
}

/// Names the set of migrations of this release: the same for the same files.
#[must_use]
pub fn fingerprint() -> String {
    let mut hash = Sha256::new();
    for checksum in expected().values() {
        hash.update(checksum);
    }
    hash.finalize()
        .iter()
        .take(6)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.dangerous_set_table_name(TABLE);
    migrator.set_locking(false);
    migrator
}

/// `create schema if not exists` wants the right to create even where there is nothing to create.
async fn create_schema(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let exists: bool = sqlx::query_scalar("select to_regnamespace('postrider') is not null")
        .fetch_one(&mut *connection)
        .await?;
    if !exists {
        connection.execute("create schema postrider").await?;
    }
    Ok(())
}

type Checksums = BTreeMap<i64, Vec<u8>>;

fn expected() -> Checksums {
    migrator()
        .iter()
        .map(|migration| (migration.version, migration.checksum.to_vec()))
        .collect()
}

async fn applied(pool: &PgPool) -> Result<Checksums, SchemaProblem> {
    // Not checked when compiled: this table is made by `migrate`, not by a migration.
    let rows =
        sqlx::query_as("select version, checksum from postrider._sqlx_migrations where success")
            .fetch_all(pool)
            .await;
    match rows {
        Ok(rows) => Ok(rows.into_iter().collect()),
        // undefined_table, invalid_schema_name
        Err(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some("42P01" | "3F000")) =>
        {
            Err(SchemaProblem::Missing)
        }
        Err(error) => Err(SchemaProblem::Store(error.into())),
    }
}

fn compare(applied: &Checksums, expected: &Checksums) -> Result<(), SchemaProblem> {
    if let Some(&newest) = applied
        .keys()
        .rfind(|version| !expected.contains_key(version))
    {
        return Err(SchemaProblem::Newer { newest });
    }
    if let Some((&version, _)) = applied
        .iter()
        .find(|(version, checksum)| expected[version] != **checksum)
    {
        return Err(SchemaProblem::Changed { version });
    }
    match expected.len() - applied.len() {
        0 => Ok(()),
        pending => Err(SchemaProblem::Older { pending }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(versions: &[(i64, &str)]) -> Checksums {
        versions
            .iter()
            .map(|(version, checksum)| (*version, checksum.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn the_same_migrations_are_right() {
        assert!(compare(&set(&[(1, "a"), (2, "b")]), &set(&[(1, "a"), (2, "b")])).is_ok());
    }

    #[test]
    fn a_schema_that_lacks_migrations_is_older_and_says_by_how_many() {
        let problem =
            compare(&set(&[(1, "a")]), &set(&[(1, "a"), (2, "b"), (3, "c")])).unwrap_err();
        assert!(
            matches!(problem, SchemaProblem::Older { pending: 2 }),
            "{problem}"
        );
    }

    #[test]
    fn a_schema_with_unknown_migrations_is_newer_and_names_the_newest() {
        let problem = compare(
            &set(&[(1, "a"), (7, "x"), (8, "y")]),
            &set(&[(1, "a"), (2, "b")]),
        )
        .unwrap_err();
        assert!(
            matches!(problem, SchemaProblem::Newer { newest: 8 }),
            "{problem}"
        );
    }

    #[test]
    fn a_migration_that_was_edited_after_it_was_applied_is_named() {
        let problem =
            compare(&set(&[(1, "a"), (2, "B")]), &set(&[(1, "a"), (2, "b")])).unwrap_err();
        assert!(
            matches!(problem, SchemaProblem::Changed { version: 2 }),
            "{problem}"
        );
    }

    #[test]
    fn the_fingerprint_is_stable_within_a_build() {
        assert_eq!(fingerprint(), fingerprint());
        assert_eq!(fingerprint().len(), 12);
    }
}
