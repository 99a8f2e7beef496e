//! The ground that all other integration tests stand on.

#![cfg(test)]

mod common;

use postrider::store::migrate::{self, SchemaProblem};
use sqlx::Executor;

#[tokio::test]
async fn each_test_has_its_own_migrated_database() {
    let (one, other) = tokio::join!(common::database(), common::database());
    assert_ne!(one.url(), other.url());
    migrate::check(one.pool()).await.unwrap();

    one.pool()
        .execute("insert into postrider.portfolio (portfolio_id) values ('p')")
        .await
        .unwrap();
    let elsewhere: i64 = sqlx::query_scalar("select count(*) from postrider.portfolio")
        .fetch_one(other.pool())
        .await
        .unwrap();
    assert_eq!(elsewhere, 0);
}

#[tokio::test]
async fn the_database_goes_with_the_test() {
    let watcher = common::database().await;
    let name: String = {
        let gone = common::database().await;
        sqlx::query_scalar("select current_database()")
            .fetch_one(gone.pool())
            .await
            .unwrap()
    };
    let remains: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(watcher.pool())
            .await
            .unwrap();
    assert!(!remains);
}

#[tokio::test]
async fn the_template_has_the_partitions_of_today() {
    let database = common::database().await;
    let today: i64 = sqlx::query_scalar(
        "select count(*) from pg_class
         where relnamespace = 'postrider'::regnamespace
           and relname = 'attempt_' || to_char(now() at time zone 'UTC', 'YYYYMMDD')",
    )
    .fetch_one(database.pool())
    .await
    .unwrap();
    assert_eq!(today, 1);
}

#[tokio::test]
async fn migrating_again_changes_nothing_and_several_at_once_get_along() {
    let database = common::database().await;
    let (a, b, c) = tokio::join!(
        migrate::migrate(database.pool()),
        migrate::migrate(database.pool()),
        migrate::migrate(database.pool())
    );
    a.and(b).and(c).unwrap();
    migrate::check(database.pool()).await.unwrap();
}

#[tokio::test]
async fn the_schema_is_recognised_as_missing_older_newer_and_changed() {
    let database = common::database().await;
    let pool = database.pool();

    pool.execute("delete from postrider._sqlx_migrations where version in (select max(version) from postrider._sqlx_migrations)")
        .await
        .unwrap();
    let older = migrate::check(pool).await.unwrap_err();
    assert!(
        matches!(older, SchemaProblem::Older { pending: 1 }),
        "{older}"
    );

    pool.execute("update postrider._sqlx_migrations set checksum = '\\x00' where version = 1")
        .await
        .unwrap();
    let changed = migrate::check(pool).await.unwrap_err();
    assert!(
        matches!(changed, SchemaProblem::Changed { version: 1 }),
        "{changed}"
    );

    pool.execute(
        "insert into postrider._sqlx_migrations values (9999, 'later', now(), true, '\\x00', 0)",
    )
    .await
    .unwrap();
    let newer = migrate::check(pool).await.unwrap_err();
    assert!(
        matches!(newer, SchemaProblem::Newer { newest: 9999 }),
        "{newer}"
    );

    pool.execute("drop schema postrider cascade").await.unwrap();
    let missing = migrate::check(pool).await.unwrap_err();
    assert!(matches!(missing, SchemaProblem::Missing), "{missing}");
}

#[tokio::test]
async fn the_daemon_role_may_ask_which_schema_it_is() {
    let database = common::database().await;
    let mut connection = database.pool().acquire().await.unwrap();
    connection
        .execute("set role postrider_daemon")
        .await
        .unwrap();
    connection
        .execute("select version from postrider._sqlx_migrations")
        .await
        .unwrap();
}

#[tokio::test]
async fn sessions_of_the_store_commit_synchronously_whatever_the_database_says() {
    let database = common::database().await;
    database
        .pool()
        .execute("do $$ begin execute format('alter database %I set synchronous_commit = off', current_database()); end $$")
        .await
        .unwrap();
    let store = postrider::store::Store::connect(database.url(), Default::default())
        .await
        .unwrap();
    let setting: String = sqlx::query_scalar("show synchronous_commit")
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert_eq!(setting, "on");
}
