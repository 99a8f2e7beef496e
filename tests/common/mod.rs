//! What the integration tests share: a database each, the real binary, and waiting without sleeping.
//!
//! The server is the one that `POSTRIDER_TEST_DATABASE_URL` names (`make test` starts one for the whole run), else a
//! private one that this test program starts and that ends with it.

#![cfg(test)]
#![expect(dead_code, reason = "each test file uses its own part of this")]

use std::{
    fmt::Debug,
    future::Future,
    net::TcpListener,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use postrider::store::{
    Store,
    embedded::{Embedded, Options},
    migrate,
};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::sync::OnceCell;

pub(crate) mod command;
pub(crate) mod daemon;
pub(crate) mod pacing;
pub(crate) mod proxy;
pub(crate) mod receiving;
pub(crate) mod rig;
pub(crate) mod server;
pub(crate) mod sql;

/// Where the tests' server is, when it is not ours.
pub(crate) const SERVER: &str = "POSTRIDER_TEST_DATABASE_URL";

/// What a daemon reads once a second, it has read by then and heeds, also on a busy machine.
pub(crate) const HEEDED: Duration = Duration::from_secs(6);

/// It only ends a test that fails anyway, so it is generous.
const PATIENCE: Duration = Duration::from_secs(60);

/// A migrated database that only this test uses. It goes when this is dropped.
pub(crate) struct TestDatabase {
    url: String,
    name: String,
    pool: PgPool,
}

/// A new database with the whole schema and the partitions of yesterday to the day after tomorrow.
pub(crate) async fn database() -> TestDatabase {
    database_on(server().await).await
}

/// The same, on this server.
pub(crate) async fn database_on(server: &str) -> TestDatabase {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let mut admin = connect(server).await;
    let template = template(&mut admin, server).await;
    let name = format!(
        "test_{}_{}",
        std::process::id(),
        MADE.fetch_add(1, Ordering::Relaxed)
    );
    // A test that was killed leaves its database behind, and process numbers come again.
    admin
        .execute(AssertSqlSafe(format!(
            "drop database if exists {name} with (force)"
        )))
        .await
        .unwrap();
    admin
        .execute(AssertSqlSafe(format!(
            "create database {name} template {template}"
        )))
        .await
        .unwrap();
    admin.close().await.unwrap();

    let url = url_of(server, &name);
    let pool = PgPoolOptions::new()
        .max_connections(10)
        .test_before_acquire(false)
        .connect(&url)
        .await
        .unwrap();
    TestDatabase { url, name, pool }
}

impl TestDatabase {
    /// To connect as the server's superuser.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    pub(crate) fn store(&self) -> Store {
        Store::from(self.pool.clone())
    }
}

impl Drop for TestDatabase {
    /// Here and not at the end of the test, because a test may end in a panic; on a thread, because the test's own runtime
    /// may be the one that is busy dropping us.
    fn drop(&mut self) {
        let (url, name) = (url_of(&self.url, "postgres"), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let statement = format!("drop database if exists {name} with (force)");
                connect(&url)
                    .await
                    .execute(AssertSqlSafe(statement))
                    .await
                    .unwrap();
            });
        });
        if dropping.join().is_err() {
            eprintln!("the database {} was not dropped", self.name);
        }
    }
}

/// The server's URL. A private server ends with the process, because nobody else holds its pipe.
async fn server() -> &'static str {
    static URL: OnceCell<(String, Option<Embedded>)> = OnceCell::const_new();
    let (url, _) = URL
        .get_or_init(|| async {
            match std::env::var(SERVER) {
                Ok(url) => (url, None),
                Err(_) => {
                    let embedded = Embedded::throwaway(Options {
                        durable: false,
                        max_connections: 300,
                    })
                    .await
                    .unwrap_or_else(|error| panic!("{error}"));
                    (embedded.url(), Some(embedded))
                }
            }
        })
        .await;
    url
}

/// The migrated database that all others are copies of, made by whoever comes first. Its name changes with the migrations
/// and with the day, because it has the day's partitions.
async fn template(admin: &mut PgConnection, server: &str) -> String {
    let today: String = sqlx::query_scalar("select to_char(now() at time zone 'UTC', 'YYYYMMDD')")
        .fetch_one(&mut *admin)
        .await
        .unwrap();
    let name = format!("template_{}_{today}", migrate::fingerprint());
    // Given back when the connection closes.
    admin
        .execute("select pg_advisory_lock(hashtext('postrider.test.template'))")
        .await
        .unwrap();
    let exists: bool =
        sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
            .bind(&name)
            .fetch_one(&mut *admin)
            .await
            .unwrap();
    if !exists {
        make_template(admin, server, &name).await;
    }
    admin
        .execute("select pg_advisory_unlock(hashtext('postrider.test.template'))")
        .await
        .unwrap();
    name
}

/// Under another name first, so that one that was interrupted is never copied.
async fn make_template(admin: &mut PgConnection, server: &str, name: &str) {
    admin
        .execute("drop database if exists template_unfinished with (force)")
        .await
        .unwrap();
    admin
        .execute("create database template_unfinished")
        .await
        .unwrap();
    let pool = PgPool::connect(&url_of(server, "template_unfinished"))
        .await
        .unwrap();
    migrate::migrate(&pool)
        .await
        .unwrap_or_else(|error| panic!("{:#}", anyhow::Error::from(error)));
    let ensure = "with today as (select (now() at time zone 'UTC')::date as day)
                  select postrider.ensure_partitions(day - 1, day + 2) from today";
    pool.execute(ensure).await.unwrap();
    pool.close().await;
    admin
        .execute(AssertSqlSafe(format!(
            "alter database template_unfinished rename to {name}"
        )))
        .await
        .unwrap();
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect_with(&PgConnectOptions::from_str(url).unwrap())
        .await
        .unwrap()
}

/// The same server, another database: the path's last part.
fn url_of(url: &str, database: &str) -> String {
    let (base, query) = url
        .split_once('?')
        .map_or((url, String::new()), |(base, query)| {
            (base, format!("?{query}"))
        });
    let (server, _) = base
        .rsplit_once('/')
        .expect("a database URL names a database");
    format!("{server}/{database}{query}")
}

/// A port of the loopback that was free a moment ago, and that nobody else takes before it is listened on: each of the tests
/// that run at the same time has a hundred of its own, below those that the kernel gives to whoever asks for any.
pub(crate) fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let Ok(slot) = std::env::var("NEXTEST_TEST_GLOBAL_SLOT") else {
        return bind(0).expect("some port is free");
    };
    let first = 10_000 + slot.parse::<u16>().unwrap() * 100;
    // Another run on this machine has the same slots, and does not begin at the same port.
    let begin = std::process::id() % 100;
    let free = (0..100).find_map(|_| {
        let nth = (begin + ASKED.fetch_add(1, Ordering::Relaxed)) % 100;
        bind(first + nth as u16)
    });
    free.expect("one of a hundred ports is free")
}

/// Whether that port can be listened on; 0 stands for any.
fn bind(port: u16) -> Option<u16> {
    let listener = TcpListener::bind(("127.0.0.1", port)).ok()?;
    Some(listener.local_addr().unwrap().port())
}

/// Asks again until the answer is there.
#[track_caller]
pub(crate) fn eventually<T, F, A>(what: &str, mut ask: F) -> impl Future<Output = T>
where
    F: FnMut() -> A,
    A: Future<Output = Option<T>>,
{
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{caller}: waited in vain for {what}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// An order that on a busy machine got no answer in time waits for two minutes before it goes again.
const PATIENCE_WITH_ORDERS: Duration = Duration::from_secs(200);

/// Asks again until the answer is `end`, for as long as the answers change now and then: how long many jobs take is up to the
/// machine.
#[track_caller]
pub(crate) fn comes_to<P, F, A>(what: &str, end: P, mut ask: F) -> impl Future<Output = ()>
where
    P: PartialEq + Debug,
    F: FnMut() -> A,
    A: Future<Output = P>,
{
    let caller = std::panic::Location::caller();
    async move {
        let (mut last, mut changed) = (None, Instant::now());
        loop {
            let answer = Some(ask().await);
            if answer.as_ref() == Some(&end) {
                return;
            }
            if answer != last {
                (last, changed) = (answer, Instant::now());
            }
            assert!(
                changed.elapsed() < PATIENCE_WITH_ORDERS,
                "{caller}: waited in vain for {what}: {last:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// The status and body of a GET on this machine; `None` while nobody answers.
pub(crate) async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    // Another test of this process may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://127.0.0.1:{port}{path}");
    let answer = client.get(url).send().await.ok()?;
    Some((answer.status().as_u16(), answer.text().await.ok()?))
}

/// A seed for this run, said aloud so that a failure can be had again with `POSTRIDER_TEST_SEED`.
pub(crate) fn seed() -> u64 {
    let seed = match std::env::var("POSTRIDER_TEST_SEED") {
        Ok(given) => given.parse().expect("POSTRIDER_TEST_SEED is a number"),
        Err(_) => rand::random(),
    };
    eprintln!("POSTRIDER_TEST_SEED={seed}");
    seed
}
