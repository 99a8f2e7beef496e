//! The ground that all other integration tests stand on.

#![cfg(test)]

mod common;

use std::{
    future::poll_fn,
    io,
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use common::{
    proxy::{Proxy, Target, Weather},
    rig::{Rig, recipients},
};
use postrider::{
    sandbox::Setup,
    store::{
        ConnectOptions, Store,
        migrate::{self, SchemaProblem},
    },
};
use sqlx::{Connection as _, Executor};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

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
    let store = Store::connect(database.url(), ConnectOptions::default())
        .await
        .unwrap();
    let setting: String = sqlx::query_scalar("show synchronous_commit")
        .fetch_one(store.pool())
        .await
        .unwrap();
    assert_eq!(setting, "on");
}

/// A server that says back what it hears, and a proxy before it.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    Proxy::to(target).await
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(("127.0.0.1", proxy.port()))
        .await
        .unwrap()
}

/// What comes back for `word`.
async fn say(stream: &mut TcpStream, word: &str) -> io::Result<String> {
    stream.write_all(word.as_bytes()).await?;
    let mut heard = vec![0; word.len()];
    let hearing = timeout(Duration::from_secs(60), stream.read_exact(&mut heard));
    hearing.await.expect("something comes back")?;
    Ok(String::from_utf8(heard).unwrap())
}

/// Whether nothing comes back for a while.
async fn is_silent(stream: &mut TcpStream, word: &str) -> bool {
    let a_while = Duration::from_millis(300);
    timeout(a_while, say(stream, word)).await.is_err()
}

#[tokio::test]
async fn a_proxy_carries_bytes_and_a_cut_resets_what_is_open() {
    let proxy = echo().await;
    let mut stream = connect(&proxy).await;
    assert_eq!(say(&mut stream, "hello").await.unwrap(), "hello");
    assert_eq!((proxy.open(), proxy.accepted()), (1, 1));
    proxy.cut();
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let mut stream = connect(&proxy).await;
    assert_eq!(say(&mut stream, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn a_proxy_that_refuses_keeps_what_is_open_and_its_port() {
    let proxy = echo().await;
    let mut open = connect(&proxy).await;
    assert_eq!(say(&mut open, "hello").await.unwrap(), "hello");
    proxy.refuse(true);
    common::eventually("the proxy to refuse", || async {
        let refused = TcpStream::connect(("127.0.0.1", proxy.port()))
            .await
            .err()?;
        // One that was being taken when it stopped listening is reset.
        (refused.kind() == io::ErrorKind::ConnectionRefused).then_some(())
    })
    .await;
    assert_eq!(say(&mut open, "still").await.unwrap(), "still");
    proxy.refuse(false);
    common::eventually("the proxy to listen again", || async {
        let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).await.ok()?;
        say(&mut stream, "back").await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_half_open_connection_says_nothing_and_never_carries_again() {
    let proxy = echo().await;
    let mut dead = connect(&proxy).await;
    assert_eq!(say(&mut dead, "hello").await.unwrap(), "hello");
    proxy.half_open();
    assert!(is_silent(&mut dead, "anyone?").await);
    proxy.weather(Weather::default());
    assert!(is_silent(&mut dead, "anyone?").await);
    let mut fresh = connect(&proxy).await;
    assert_eq!(say(&mut fresh, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn answers_alone_can_be_swallowed() {
    let proxy = echo().await;
    proxy.weather(Weather {
        swallow_answers: true,
        ..Weather::default()
    });
    let mut stream = connect(&proxy).await;
    assert!(is_silent(&mut stream, "hello").await);
    assert_eq!(proxy.open(), 1);
}

#[tokio::test]
async fn delayed_bytes_come_later_and_do_not_wait_for_each_other() {
    let proxy = echo().await;
    let delay = Duration::from_secs(1);
    proxy.delay(delay);
    let mut stream = connect(&proxy).await;
    let begun = Instant::now();
    for _ in 0..20 {
        stream.write_all(b"x").await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    stream.read_exact(&mut [0; 20]).await.unwrap();
    // There and back, and not twenty times.
    assert!(begun.elapsed() >= 2 * delay);
    assert!(begun.elapsed() < 20 * delay, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_proxy_that_moved_leads_new_connections_elsewhere_and_to_a_unix_socket_too() {
    let proxy = echo().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"elsewhere").await;
        }
    });
    let mut open = connect(&proxy).await;
    assert_eq!(say(&mut open, "hello").await.unwrap(), "hello");
    proxy.move_to(Target::Unix(path));
    let mut moved = connect(&proxy).await;
    let mut heard = String::new();
    moved.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "elsewhere");
    assert_eq!(say(&mut open, "hello").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_daemon_sends_through_the_proxies_on_its_wires() {
    let mut rig = Rig::new(Setup::quick(), "").await;
    let wires = rig.wires().await;
    let daemon = rig.daemon().await;
    assert!(wires.database.open() > 0);
    let to = recipients(1);
    rig.opt_in(&to).await;
    sqlx::query("select postrider.enqueue($1, 'order_shipped', '{\"body\": {\"name\": \"Ada\", \"order\": \"1\", \"carrier\": \"DHL\"}}', language => 'en_US')")
        .bind(&to[0])
        .execute(rig.pool())
        .await
        .unwrap();
    rig.queue_is_empty().await;
    assert!(wires.provider.accepted() > 0);
    let (status, log) = daemon.terminate().await;
    assert!(status.success(), "{log}");
}

/// Statements have time limits, and a limit may end while a transaction begins.
#[tokio::test]
async fn a_transaction_that_was_given_up_as_it_began_does_not_swallow_what_comes_next() {
    let database = common::database().await;
    let one = ConnectOptions {
        max_connections: 1,
        ..ConnectOptions::default()
    };
    let store = Store::connect(database.url(), one).await.unwrap();
    let mut is_given_up = false;
    while !is_given_up {
        let mut connection = store.pool().acquire().await.unwrap();
        let mut begins = pin!(connection.begin());
        // It asks, and is not waited for.
        is_given_up = poll_fn(|context| Poll::Ready(begins.as_mut().poll(context)))
            .await
            .is_pending();
    }
    sqlx::query("insert into postrider.setting (name, value) values ('kept', '1')")
        .execute(store.pool())
        .await
        .unwrap();
    let kept: i64 =
        sqlx::query_scalar("select count(*) from postrider.setting where name = 'kept'")
            .fetch_one(database.pool())
            .await
            .unwrap();
    assert_eq!(kept, 1, "by another connection");
}
