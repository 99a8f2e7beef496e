//! The whole pipeline against a ceiling measured in the same run.
//!
//! `cargo bench --bench dispatch` starts a private PostgreSQL, two sandboxes as processes of their own (200 numbers, 80 ms
//! latency, three receipts a message) and measures, on whatever machine this is:
//!
//! - *client alone*: the daemon's own HTTP client against a sandbox, as many requests in flight as the daemon may have, no
//!   database and no receipts;
//! - *daemon*: the real binary, the real queue, receipts posted back and folded.
//!
//! The machine may be quicker a minute later, so the client's figure is the mean of one before and one after. It prints
//! messages a second and CPU time per message of each process, and the ratio of the two rates. Environment:
//! `JOBS` (default 100,000), `RATE` (messages a second of each number, default 100), `NUMBERS` (default 200).

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use postrider::{
    channel::whatsapp::{Client, Endpoint, Sender},
    sandbox::{self, Delay, Setup},
    store::{
        ConnectOptions, Store,
        embedded::{Embedded, Options},
        migrate,
    },
};
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

const ROLE: &str = "POSTRIDER_BENCH_ROLE";
const CALLBACK: &str = "POSTRIDER_BENCH_CALLBACK";
const IN_FLIGHT: usize = 4_000;

fn env<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

fn setup() -> Setup {
    let mut setup = Setup::default().numbers(env("NUMBERS", 200), 1_000);
    for portfolio in &mut setup.portfolios {
        portfolio.messaging_limit = None;
    }
    setup.latency = Delay::fixed(80);
    setup.ledger_max = 10_000_000;
    setup
}

fn main() -> anyhow::Result<()> {
    // Everything here is plain HTTP, but no client is made without one.
    _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match std::env::var(ROLE).as_deref() {
        Ok("sandbox") => runtime.block_on(serve_sandbox()),
        Ok("client") => runtime.block_on(client_alone()),
        _ => runtime.block_on(compare()),
    }
}

/// A sandbox in a process of its own, until its standard input closes.
async fn serve_sandbox() -> anyhow::Result<()> {
    let mut setup = setup();
    if let Ok(url) = std::env::var(CALLBACK) {
        setup = setup.callback(&url);
    }
    let stop = CancellationToken::new();
    let closed = stop.clone();
    std::thread::spawn(move || {
        _ = std::io::stdin().lines().next();
        closed.cancel();
    });
    sandbox::serve(setup, ([127, 0, 0, 1], 0).into(), stop, |sandbox| {
        println!("{}", sandbox.url())
    })
    .await?;
    Ok(())
}

/// The HTTP client alone, in a process of its own: posts what the sandbox takes and prints the rate.
async fn client_alone() -> anyhow::Result<()> {
    let setup = setup();
    let endpoint = Endpoint {
        base_url: std::env::args().nth(1).unwrap_or_default(),
        api_version: "v25.0".into(),
        auth_header: "Authorization".into(),
        request_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        tcp_user_timeout: Duration::from_secs(10),
        http2_prior_knowledge: false,
        clients: 8,
    };
    let client = std::sync::Arc::new(Client::new(&endpoint)?);
    let token = SecretString::from(setup.accounts[0].token.clone());
    let credentials = client.credentials(&token)?;
    let sender = |id: &str| Sender {
        phone_number_id: id.into(),
        credentials: credentials.clone(),
    };
    let senders: Vec<_> = setup.numbers.iter().map(|n| sender(&n.id)).collect();
    let senders = std::sync::Arc::new(senders);
    let jobs: usize = env("JOBS", 100_000);
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let start = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let (client, senders, next) = (client.clone(), senders.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let job = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if job >= jobs {
                    return;
                }
                let body = format!(
                    r#"{{"messaging_product":"whatsapp","to":"+90532{job:07}","type":"template","template":{{"name":"{TEMPLATE}","language":{{"code":"en_US"}},"components":[{{"type":"body","parameters":[{{"type":"text","parameter_name":"name","text":"Ada"}},{{"type":"text","parameter_name":"order","text":"1042"}},{{"type":"text","parameter_name":"carrier","text":"DHL"}}]}}]}},"biz_opaque_callback_data":"pr1.bench.{job}.1.1.261121"}}"#
                );
                client.post(&senders[job % senders.len()], Bytes::from(body), || true).await;
            }
        });
    }
    while tasks.join_next().await.is_some() {}
    println!("{}", jobs as f64 / start.elapsed().as_secs_f64());
    println!("{}", cpu_seconds(std::process::id()));
    Ok(())
}

const TEMPLATE: &str = "order_shipped";

async fn compare() -> anyhow::Result<()> {
    let jobs: i64 = env("JOBS", 100_000);
    let directory = tempfile::tempdir()?;
    let before = Ceiling::measure()?;

    let port = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let ops = std::net::TcpListener::bind("127.0.0.1:0")?
        .local_addr()?
        .port();
    let callback = format!("http://127.0.0.1:{port}/webhooks/whatsapp");
    let mut sandbox = Process::start("sandbox", &[], &[(CALLBACK, &callback)])?;
    let url = sandbox.line()?;
    let postgres = Embedded::throwaway(Options::default()).await?;
    let store = Store::connect(&postgres.url(), ConnectOptions::default()).await?;
    migrate::migrate(store.pool()).await?;

    let config = directory.path().join("postrider.toml");
    write_config(&config, directory.path(), &postgres.url(), &url, port, ops)?;
    sync(&config)?;
    enqueue(&store, jobs).await?;

    let postgres_before = cpu_of_all("postgres");
    let sandbox_before = cpu_seconds(sandbox.child.0.id());
    let daemon = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["run", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.path().join("log"))?)
        .spawn()?;
    let daemon = Ended(daemon);
    // Asked of the daemon's metrics: to count in the database would be work for it beside what is measured.
    let metrics = Metrics(format!("http://127.0.0.1:{ops}/metrics"));
    let (began, at_began) = metrics.until(FINISHED, 1.0).await?;
    let (_, sent) = metrics.until(FINISHED, jobs as f64).await?;
    let rate = (sent - at_began) / began.elapsed().as_secs_f64();
    // The receipts of the last messages are still on their way.
    metrics.until(DELIVERED, jobs as f64).await?;
    while sqlx::query_scalar("select exists (select from postrider.receipt_inbox)")
        .fetch_one(store.pool())
        .await?
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let with_receipts = jobs as f64 / began.elapsed().as_secs_f64();
    let each = |seconds: f64| seconds * 1e6 / jobs as f64;
    let postgres_seconds = cpu_of_all("postgres") - postgres_before;
    let daemon_seconds = cpu_seconds(daemon.0.id());
    let sandbox_seconds = cpu_seconds(sandbox.child.0.id()) - sandbox_before;
    drop(daemon);
    let after = Ceiling::measure()?;
    let ceiling = (before.rate + after.rate) / 2.0;
    println!(
        "client alone      {ceiling:>8.0} messages/s   {:>5.1} µs CPU each   (before {:.0}, after {:.0})",
        (before.client_micros + after.client_micros) / 2.0,
        before.rate,
        after.rate
    );
    println!(
        "daemon            {rate:>8.0} messages/s   ratio {:.2}   (until delivered: {with_receipts:.0}/s)",
        rate / ceiling
    );
    println!(
        "  daemon          {:>8.1} µs CPU a message",
        each(daemon_seconds)
    );
    println!("  PostgreSQL      {:>8.1} µs", each(postgres_seconds));
    println!("  sandbox         {:>8.1} µs", each(sandbox_seconds));
    let states: Vec<(String, i64)> = sqlx::query_as(
        "select state, count(*) from postrider.message group by state order by 2 desc",
    )
    .fetch_all(store.pool())
    .await?;
    println!("  states          {states:?}");
    Ok(())
}

struct Ceiling {
    rate: f64,
    client_micros: f64,
}

impl Ceiling {
    fn measure() -> anyhow::Result<Self> {
        let mut sandbox = Process::start("sandbox", &[], &[])?;
        let url = sandbox.line()?;
        let mut client = Process::start("client", &[&url], &[])?;
        let rate: f64 = client.line()?.parse()?;
        let seconds: f64 = client.line()?.parse()?;
        let jobs: f64 = env("JOBS", 100_000.0);
        Ok(Self {
            rate,
            client_micros: seconds * 1e6 / jobs,
        })
    }
}

/// Jobs that the daemon has settled.
const FINISHED: &str = "postrider_jobs_finished_total{";
/// Receipts that it has committed.
const DELIVERED: &str = "postrider_receipts_total{status=\"delivered\"";

/// Where the daemon tells its figures.
struct Metrics(String);

impl Metrics {
    /// Waits for the sum of the series that begin so to reach `value`; returns when it did, and the sum.
    async fn until(&self, series: &str, value: f64) -> anyhow::Result<(Instant, f64)> {
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            // Until the daemon listens, nobody answers.
            if let Ok(answer) = reqwest::get(&self.0).await {
                let text = answer.text().await?;
                let lines = text.lines().filter(|line| line.starts_with(series));
                let values = lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
                let sum = values.sum();
                if sum >= value {
                    return Ok((Instant::now(), sum));
                }
            }
            anyhow::ensure!(Instant::now() < deadline, "{series} did not reach {value}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn write_config(
    path: &Path,
    state: &Path,
    database: &str,
    provider: &str,
    port: u16,
    ops: u16,
) -> anyhow::Result<()> {
    let setup = setup();
    let numbers: Vec<&str> = setup
        .numbers
        .iter()
        .map(|number| number.id.as_str())
        .collect();
    let (app, account) = (&setup.apps[0], &setup.accounts[0]);
    let rate: u32 = env("RATE", 100);
    let mut file = fs::File::create(path)?;
    writeln!(
        file,
        "state_dir = {state:?}\n[database]\nurl = {database:?}\nmax_connections = 16\n\
         [whatsapp]\nbase_url = {provider:?}\n[[apps]]\nname = {:?}\napp_secrets = [{:?}]\nverify_token = \"v\"\n\
         [[accounts]]\nwaba_id = {:?}\nportfolio_id = {:?}\ntoken = {:?}\n[senders.default]\nnumbers = {numbers:?}\n\
         [pacing]\nmessages_per_second = {rate}\n[webhook]\nlisten = \"127.0.0.1:{port}\"\n[ops]\nlisten = \"127.0.0.1:{ops}\"",
        app.name, app.secret, account.waba_id, account.portfolio, account.token
    )?;
    Ok(())
}

/// Numbers, kinds and templates have to be known before jobs can be spread over the lanes.
fn sync(config: &Path) -> anyhow::Result<()> {
    let status = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .arg("sync")
        .arg("--config")
        .arg(config)
        .stdout(Stdio::null())
        .status()?;
    anyhow::ensure!(status.success(), "postrider sync failed");
    Ok(())
}

/// Straight into the tables, because how fast `enqueue` is is another bench's question.
async fn enqueue(store: &Store, jobs: i64) -> anyhow::Result<()> {
    sqlx::query(
        "with lanes as (select array_agg(lane order by lane) as all from postrider.number),
         job as (
           insert into postrider.queue (lane, priority, due_at, id, kind, recipient, recipient_key, template, language,
                                        content, sender, producer, enqueued_at, expires_at)
           select lanes.all[n % cardinality(lanes.all) + 1], 1, clock_timestamp(), nextval('postrider.job_id'), 'order',
                  '+90532' || lpad(n::text, 7, '0'), '+90532' || lpad(n::text, 7, '0'), $2, 'en_US',
                  '{\"body\": {\"name\": \"Ada\", \"order\": \"1042\", \"carrier\": \"DHL\"}}', 'default', 'bench', now(), now() + interval '1 day'
           from generate_series(1, $1) n, lanes
         )
         insert into postrider.consent (person, opted_in_at, opt_in_source)
         select '+90532' || lpad(n::text, 7, '0'), now(), 'bench' from generate_series(1, $1) n",
    )
    .bind(jobs)
    .bind(TEMPLATE)
    .execute(store.pool())
    .await?;
    sqlx::query("analyze").execute(store.pool()).await?;
    Ok(())
}

/// Ended when dropped, also when this program panics because nobody reads its output any more.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// This program again, in another role.
struct Process {
    child: Ended,
    lines: BufReader<std::process::ChildStdout>,
}

impl Process {
    fn start(role: &str, args: &[&str], vars: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(args)
            .env(ROLE, role)
            .envs(vars.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("it is piped"));
        let child = Ended(child);
        Ok(Self { child, lines })
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.lines.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

/// CPU time that a process has used, in seconds, its own and of children it has waited for.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    // utime, stime, cutime, cstime: fields 14 to 17 of the whole, 11 to 14 after the name.
    let ticks: f64 = fields
        .get(11..15)
        .unwrap_or_default()
        .iter()
        .filter_map(|f| f.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}

/// CPU time of every process of that name. Others of the name may be there; what counts is the difference.
fn cpu_of_all(name: &str) -> f64 {
    let pids = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let named = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
    };
    pids.filter(named).map(cpu_seconds).sum()
}
