//! What upstreams pay for a job.
//!
//! `cargo bench --bench enqueue` starts a private PostgreSQL that flushes to disk, with `commit_delay` at 2 ms, and lets 32
//! clients enqueue one normal job a transaction, in turns with the same clients' plain inserts of the same rows into the
//! same tables. It prints both rates for each pair of rounds, the CPU time of PostgreSQL for one transaction, and the
//! medians: what is missing to 1 is what `postrider.enqueue` costs beside the commit. The CPU time says the same on a
//! machine that others use too. Environment: `CLIENTS` (32), `ROUNDS` (5), `SECONDS` a round (4).

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use postrider::store::{
    ConnectOptions, Store,
    embedded::{Embedded, Options},
    migrate,
};
use sqlx::{Connection, PgConnection};
use tokio::{sync::Barrier, task::JoinSet};

const ENQUEUE: &str = "select postrider.enqueue($1, 'order_shipped', '{\"body\": {\"name\": \"Ada\"}}', language => 'en')";

const INSERT: &str = "with job as (
    insert into postrider.queue (lane, priority, due_at, id, kind, recipient, recipient_key, template, language, content,
                                 sender, producer, enqueued_at, expires_at)
    values (1, 1, clock_timestamp(), nextval('postrider.job_id'), 'order', $1, $1, 'order_shipped', 'en',
            '{\"body\": {\"name\": \"Ada\"}}', 'default', 'bench', clock_timestamp(), now() + interval '1 day')
    returning id, producer, kind, enqueued_at)
  insert into postrider.enqueued (job, producer, kind, at) select id, producer, kind, enqueued_at from job";

/// Calls of each client before the clock starts: a session compiles and plans once.
const WARM_UP: u64 = 20;

fn env<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn main() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(compare())
}

async fn compare() -> anyhow::Result<()> {
    let postgres = Embedded::throwaway(Options::default()).await?;
    let store = Store::connect(&postgres.url(), ConnectOptions::default()).await?;
    migrate::migrate(store.pool()).await?;
    prepare(&store).await?;
    let mut ratios = Vec::new();
    let mut cpu_ratios = Vec::new();
    for _ in 0..env("ROUNDS", 5) {
        let plain = measure(&postgres.url(), INSERT).await?;
        let enqueue = measure(&postgres.url(), ENQUEUE).await?;
        ratios.push(enqueue.rate / plain.rate);
        cpu_ratios.push(plain.postgres_micros / enqueue.postgres_micros);
        println!(
            "plain inserts {:>7.0}/s {:>5.0} µs   enqueue {:>7.0}/s {:>5.0} µs   ratio {:.2}",
            plain.rate,
            plain.postgres_micros,
            enqueue.rate,
            enqueue.postgres_micros,
            enqueue.rate / plain.rate
        );
    }
    println!(
        "median ratio {:.2}, of PostgreSQL's CPU time {:.2}",
        median(ratios),
        median(cpu_ratios)
    );
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One number and one kind, as `postrider sync` and the configuration would have written them.
async fn prepare(store: &Store) -> anyhow::Result<()> {
    let facts = "
        insert into postrider.portfolio (portfolio_id) values ('p');
        insert into postrider.account (waba_id, portfolio_id, app) values ('w', 'p', 'a');
        insert into postrider.number (phone_number_id, waba_id, shard) values ('n', 'w', 0);
        insert into postrider.sender_pool (name, phone_number_ids) values ('default', '{n}');
        insert into postrider.kind (name, priority, valid_for, resolve_after, on_unknown)
          values ('order', 1, '1 day', '2 min', 'resend');
        alter system set commit_delay = 2000";
    for statement in facts.split(';') {
        sqlx::query(sqlx::AssertSqlSafe(statement.to_owned()))
            .execute(store.pool())
            .await?;
    }
    sqlx::query("select pg_reload_conf()")
        .execute(store.pool())
        .await?;
    Ok(())
}

struct Measured {
    /// Transactions a second of all clients.
    rate: f64,
    /// CPU time of the clients' PostgreSQL processes for one transaction.
    postgres_micros: f64,
}

/// Lets all clients work for a round, each with a connection of its own.
async fn measure(url: &str, sql: &'static str) -> anyhow::Result<Measured> {
    let clients: usize = env("CLIENTS", 32);
    let lasts = Duration::from_secs(env("SECONDS", 4));
    // All are connected and warm before the clock starts, and all stay until it has been read.
    let ready = Arc::new(Barrier::new(clients + 1));
    let over = Arc::new(Barrier::new(clients + 1));
    let mut processes = Vec::new();
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let mut connection = PgConnection::connect(url).await?;
        let process: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(&mut connection)
            .await?;
        processes.push(process);
        let (ready, over) = (Arc::clone(&ready), Arc::clone(&over));
        tasks.spawn(async move {
            for turn in 0..WARM_UP {
                call(&mut connection, sql, client, turn).await?;
            }
            ready.wait().await;
            let start = Instant::now();
            let mut done = 0;
            while start.elapsed() < lasts {
                call(&mut connection, sql, client, done).await?;
                done += 1;
            }
            over.wait().await;
            Ok::<u64, sqlx::Error>(done)
        });
    }
    all_at(&ready, &mut tasks).await?;
    let (start, cpu_before) = (Instant::now(), cpu_seconds(&processes));
    all_at(&over, &mut tasks).await?;
    let (elapsed, cpu) = (
        start.elapsed().as_secs_f64(),
        cpu_seconds(&processes) - cpu_before,
    );
    let mut done = 0;
    while let Some(count) = tasks.join_next().await {
        done += count??;
    }
    Ok(Measured {
        rate: done as f64 / elapsed,
        postgres_micros: cpu * 1e6 / done as f64,
    })
}

/// Waits until all clients are there. One that ends before has failed, and the others would wait for it for ever.
async fn all_at(
    barrier: &Barrier,
    tasks: &mut JoinSet<Result<u64, sqlx::Error>>,
) -> anyhow::Result<()> {
    tokio::select! {
        biased;
        _ = barrier.wait() => Ok(()),
        Some(ended) = tasks.join_next() => {
            ended??;
            anyhow::bail!("a client ended too early");
        }
    }
}

async fn call(
    connection: &mut PgConnection,
    sql: &'static str,
    client: usize,
    turn: u64,
) -> Result<(), sqlx::Error> {
    let recipient = format!("+90532{client:03}{:05}", turn % 100_000);
    sqlx::query(sql).bind(recipient).execute(connection).await?;
    Ok(())
}

/// CPU time of these processes so far, user and system. (The scheduler's count in nanoseconds: the one in ticks of 10 ms
/// is too coarse for so many processes.)
fn cpu_seconds(processes: &[i32]) -> f64 {
    let nanos = processes.iter().filter_map(|process| {
        let schedstat = fs::read_to_string(format!("/proc/{process}/schedstat")).ok()?;
        schedstat.split(' ').next()?.parse::<f64>().ok()
    });
    nanos.sum::<f64>() / 1e9
}
