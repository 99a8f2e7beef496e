//! What upstreams pay for a job.
//!
//! `cargo bench --bench enqueue` starts a private PostgreSQL that flushes to disk, with `commit_delay` at 2 ms, and lets 32
//! clients enqueue one normal job a transaction, in turns with the same clients' plain inserts of the same row into the
//! same table. It prints both rates for each pair of rounds and the median of their ratios: what is missing to 1 is what
//! `postrider.enqueue` costs beside the commit. Environment: `CLIENTS` (32), `ROUNDS` (5), `SECONDS` a round (3).

use std::time::{Duration, Instant};

use postrider::store::{
    ConnectOptions, Store,
    embedded::{Embedded, Options},
    migrate,
};
use sqlx::{Connection, PgConnection};

const ENQUEUE: &str = "select postrider.enqueue($1, 'order_shipped', '{\"body\": {\"name\": \"Ada\"}}', language => 'en')";

const INSERT: &str = "insert into postrider.queue (lane, priority, due_at, id, kind, recipient, recipient_key, template,
    language, content, sender, producer, enqueued_at, expires_at)
  values (1, 1, clock_timestamp(), nextval('postrider.job_id'), 'order', $1, $1, 'order_shipped', 'en',
          '{\"body\": {\"name\": \"Ada\"}}', 'default', 'bench', clock_timestamp(), now() + interval '1 day')";

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
    for _ in 0..env("ROUNDS", 5) {
        let plain = rate(&postgres.url(), INSERT).await?;
        let enqueued = rate(&postgres.url(), ENQUEUE).await?;
        ratios.push(enqueued / plain);
        println!(
            "plain inserts {plain:>7.0}/s   enqueue {enqueued:>7.0}/s   ratio {:.2}",
            enqueued / plain
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ratios.len() / 2]);
    Ok(())
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

/// Transactions a second of all clients, each with a connection of its own.
async fn rate(url: &str, sql: &'static str) -> anyhow::Result<f64> {
    let clients: usize = env("CLIENTS", 32);
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(PgConnection::connect(url).await?);
    }
    let lasts = Duration::from_secs(env("SECONDS", 3));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (client, mut connection) in connections.into_iter().enumerate() {
        tasks.spawn(async move {
            let mut done = 0_u64;
            while start.elapsed() < lasts {
                let recipient = format!("+90532{client:03}{:05}", done % 100_000);
                sqlx::query(sql)
                    .bind(recipient)
                    .execute(&mut connection)
                    .await?;
                done += 1;
            }
            Ok::<u64, sqlx::Error>(done)
        });
    }
    let mut done = 0;
    while let Some(count) = tasks.join_next().await {
        done += count??;
    }
    Ok(done as f64 / start.elapsed().as_secs_f64())
}
