//! The real binary while things break: killed, frozen, cut off, replaced, with the database killed under it. Nothing is lost,
//! nothing is sent twice, and no limit is crossed. The judges are the sandbox's book of what it accepted and `postrider verify`.
//!
//! A round is short here. `POSTRIDER_CHAOS_ROUNDS` and `POSTRIDER_CHAOS_JOBS` (jobs a round) make it long, and
//! `POSTRIDER_CHAOS_RATE` (messages a second of each of ten numbers, 100) quick enough for that:
//! `POSTRIDER_CHAOS_ROUNDS=100 POSTRIDER_CHAOS_JOBS=20000 POSTRIDER_CHAOS_RATE=500 cargo nextest run --profile long --release --test chaos`.

#![cfg(test)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use common::{
    TestDatabase,
    daemon::Daemon,
    database, database_on,
    pacing::{self, most_within},
    proxy::Weather,
    rig::{Instance, Rig, recipients},
    server::{Mode, Server},
};
use postrider::sandbox::{Delay, Fault, FaultRule, Setup};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sqlx::PgPool;
use tokio::time::{Instant, sleep};

/// As short as the configuration allows.
const TTL: Duration = Duration::from_secs(2);
const RESOLVE_AFTER: Duration = Duration::from_secs(3);
const NUMBERS: u32 = 10;
/// From a post to its answer.
const LATENCY: Duration = Duration::from_millis(80);

fn of_environment(name: &str, default: usize) -> usize {
    match std::env::var(name) {
        Ok(given) => given
            .parse()
            .unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => default,
    }
}

/// Messages a second of each number.
fn rate() -> u32 {
    of_environment("POSTRIDER_CHAOS_RATE", 100) as u32
}

fn rounds(default: usize) -> usize {
    of_environment("POSTRIDER_CHAOS_ROUNDS", default)
}

fn jobs_a_round() -> usize {
    of_environment("POSTRIDER_CHAOS_JOBS", 600)
}

fn setup() -> Setup {
    let mut setup = Setup::quick().numbers(NUMBERS, 1_000);
    for portfolio in &mut setup.portfolios {
        portfolio.messaging_limit = None;
    }
    setup.latency = Delay::fixed(LATENCY.as_millis() as u32);
    setup.webhooks.retry_ms = 500;
    setup.webhooks.retry_max_ms = 500;
    setup.ledger_max = 10_000_000;
    setup
}

fn config(on_unknown: &str) -> String {
    configured(Duration::from_millis(800), RESOLVE_AFTER, on_unknown)
}

/// For what is not about unknown outcomes: on a busy machine 0.8 s pass before a request is read, and what is twice without an
/// answer is given up.
fn patient_config() -> String {
    configured(Duration::from_secs(4), Duration::from_secs(20), "resend")
}

fn configured(request_timeout: Duration, resolve_after: Duration, on_unknown: &str) -> String {
    format!(
        "request_timeout_ms = {}\n[pacing]\nmessages_per_second = {}\n\
         [dispatch]\nlease_ttl_ms = {}\nbackoff_first_ms = 200\n\
         [kinds.order]\nresolve_after_s = {}\non_unknown = {on_unknown:?}\n",
        request_timeout.as_millis(),
        rate(),
        TTL.as_millis(),
        resolve_after.as_secs()
    )
}

/// A database, a sandbox, and whatever was enqueued so far.
struct Storm {
    rig: Rig,
    /// Our own connections, which are made anew when the database was killed.
    pool: PgPool,
    chance: StdRng,
    jobs: Vec<i64>,
}

impl Storm {
    async fn new(setup: Setup, on_unknown: &str) -> Self {
        Self::on(database().await, setup, on_unknown).await
    }

    async fn on(database: TestDatabase, setup: Setup, on_unknown: &str) -> Self {
        Self::configured(database, setup, &config(on_unknown)).await
    }

    async fn configured(database: TestDatabase, setup: Setup, config: &str) -> Self {
        let chance = StdRng::seed_from_u64(common::seed());
        let rig = Rig::on(database, setup, config).await;
        rig.prepare().await;
        rig.opt_in(&recipients(jobs_a_round())).await;
        let pool = PgPool::connect(rig.database.url()).await.unwrap();
        Self {
            rig,
            pool,
            chance,
            jobs: Vec::new(),
        }
    }

    /// One order to each person.
    async fn enqueue(&mut self) {
        let ids: Vec<i64> = sqlx::query_scalar(
            "select postrider.enqueue(recipient, 'order_shipped',
                    '{\"body\": {\"name\": \"Ada\", \"order\": \"1042\", \"carrier\": \"DHL\"}}', language => 'en_US')
             from unnest($1::text[]) recipient",
        )
        .bind(recipients(jobs_a_round()))
        .fetch_all(&self.pool)
        .await
        .unwrap();
        self.jobs.extend(ids);
    }

    /// Waits for a random moment of the sending of a round.
    async fn a_while(&mut self) {
        let round = 500 + 1_000 * jobs_a_round() as u64 / u64::from(NUMBERS * rate());
        sleep(Duration::from_millis(self.chance.random_range(50..round))).await;
    }

    /// Waits until nothing happens any more: the queue is empty, and whatever the provider had to say is folded.
    async fn is_over(&self) {
        let (mut left, mut accepted) = (i64::MAX, 0);
        loop {
            let (before, accepted_before) = (left, accepted);
            let started = Instant::now();
            let patience = Duration::from_secs(60) + self.outages().await;
            // As long as it goes on, it may take its time. Each message is followed by receipts, so there may be more to do.
            while left >= before && accepted == accepted_before && started.elapsed() < patience {
                left = self.left().await;
                accepted = self.accepted_so_far();
                if left == 0 {
                    return;
                }
                sleep(Duration::from_millis(100)).await;
            }
            if left >= before && accepted == accepted_before {
                let queued = self.queued().await;
                panic!("nothing goes on any more: {left} are left, in the queue {queued:?}");
            }
        }
    }

    /// For how long nobody could take receipts: unknown jobs wait as much longer.
    async fn outages(&self) -> Duration {
        let seconds: f64 = sqlx::query_scalar(
            "select coalesce(extract(epoch from sum(ended - began)), 0)::float8 from postrider.webhook_outage",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        Duration::from_secs_f64(seconds)
    }

    async fn queued(&self) -> Vec<(String, Option<String>, i64)> {
        sqlx::query_as("select state, reason, count(*) from postrider.queue group by state, reason")
            .fetch_all(&self.pool)
            .await
            .unwrap()
    }

    async fn left(&self) -> i64 {
        let summary = self.rig.sandbox.control().summary();
        let waiting = summary.updates_waiting + summary.updates_unanswered;
        let left: i64 = sqlx::query_scalar(
            "select (select count(*) from postrider.queue) + (select count(*) from postrider.receipt_inbox)",
        )
        .fetch_one(&self.pool)
        .await
        .unwrap();
        left + i64::try_from(waiting).unwrap()
    }

    /// Waits for the end, at which every job was sent once and cost nothing.
    async fn ends_well(&self) {
        self.is_over().await;
        self.assert_once();
        self.assert_nothing_spent().await;
        self.assert_proven().await;
    }

    /// How often each job was accepted, by the provider's own book.
    fn accepted(&self) -> BTreeMap<i64, usize> {
        let mut times: BTreeMap<i64, usize> = self.jobs.iter().map(|id| (*id, 0)).collect();
        for entry in self.rig.sandbox.ledger().entries() {
            // A request whose body was not read has no callback data, and was not accepted.
            if let Some(job) = entry.job() {
                *times.entry(job).or_default() += usize::from(entry.accepted);
            }
        }
        times
    }

    fn assert_once(&self) {
        let mut times = self.accepted();
        assert_eq!(times.len(), self.jobs.len());
        times.retain(|_, times| *times != 1);
        assert!(times.is_empty(), "not accepted exactly once: {times:?}");
    }

    /// `postrider verify` finds every job in exactly one place.
    async fn assert_proven(&self) {
        let verified = self.rig.postrider.run(&["verify", "--all", "--json"]);
        let said = String::from_utf8_lossy(&verified.stdout);
        assert!(verified.status.success(), "{said}");
        let said: serde_json::Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
        assert_eq!(said["jobs"], self.jobs.len(), "{said}");
    }

    /// Nobody's answer but the provider's spent an attempt.
    async fn assert_nothing_spent(&self) {
        let spent: i64 =
            sqlx::query_scalar("select coalesce(sum(spent), 0) from postrider.message")
                .fetch_one(&self.pool)
                .await
                .unwrap();
        assert_eq!(
            spent, 0,
            "attempts were spent though the provider refused none"
        );
    }

    /// Jobs that were attempted and of which the provider has not heard, as long as nobody else sends them.
    async fn never_left(&self) -> Vec<i64> {
        let open: Vec<i64> = sqlx::query_scalar(
            "select job from postrider.attempt
             where not exists (select from postrider.message where message.job = attempt.job)
               and not exists (select from postrider.answer
                               where (answer.job, answer.attempt) = (attempt.job, attempt.attempt))",
        )
        .fetch_all(&self.pool)
        .await
        .unwrap();
        let accepted = self.accepted();
        open.into_iter().filter(|job| accepted[job] == 0).collect()
    }

    fn accepted_so_far(&self) -> u64 {
        self.rig.sandbox.ledger().accepted()
    }
}

#[tokio::test]
async fn a_daemon_that_is_killed_again_and_again_sends_each_job_once() {
    let mut storm = Storm::new(setup(), "resend").await;
    for _ in 0..rounds(5) {
        storm.enqueue().await;
        let daemon = storm.rig.postrider.start(&[]);
        storm.a_while().await;
        daemon.kill();
    }
    let _daemon = storm.rig.daemon().await;
    storm.ends_well().await;
}

#[tokio::test]
async fn without_receipts_nothing_is_lost_and_nothing_sent_more_than_twice() {
    let mut setup = setup();
    setup.faults = vec![FaultRule::always(Fault::NoReceipts)];
    let mut storm = Storm::new(setup, "resend").await;
    for _ in 0..rounds(3) {
        storm.enqueue().await;
        let daemon = storm.rig.postrider.start(&[]);
        storm.a_while().await;
        daemon.kill();
    }
    let _daemon = storm.rig.daemon().await;
    storm.is_over().await;
    let accepted = storm.accepted();
    let lost: Vec<_> = accepted.iter().filter(|(_, times)| **times == 0).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    let often: Vec<_> = accepted.iter().filter(|(_, times)| **times > 2).collect();
    assert!(often.is_empty(), "sent more than twice: {often:?}");
    storm.assert_proven().await;
}

#[tokio::test]
async fn under_stop_nothing_is_doubled_and_every_stopped_job_is_listed() {
    let mut setup = setup();
    setup.faults = vec![FaultRule::always(Fault::NoReceipts)];
    let mut storm = Storm::new(setup, "stop").await;
    for _ in 0..rounds(3) {
        storm.enqueue().await;
        let daemon = storm.rig.postrider.start(&[]);
        storm.a_while().await;
        daemon.kill();
    }
    let _daemon = storm.rig.daemon().await;
    storm.is_over().await;
    let accepted = storm.accepted();
    let doubled: Vec<_> = accepted.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "doubled: {doubled:?}");
    let messages: BTreeSet<i64> = sqlx::query_scalar("select job from postrider.message")
        .fetch_all(&storm.pool)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let stopped: BTreeSet<i64> = storm
        .jobs
        .iter()
        .copied()
        .filter(|id| !messages.contains(id))
        .collect();
    let listed = storm.rig.postrider.run(&[
        "dead", "list", "--state", "unknown", "--limit", "100000", "--json",
    ]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: BTreeSet<i64> = serde_json::Deserializer::from_slice(&listed.stdout)
        .into_iter::<serde_json::Value>()
        .flat_map(|value| match value.unwrap() {
            serde_json::Value::Array(rows) => rows,
            row => vec![row],
        })
        .map(|row| row["id"].as_i64().expect("an id"))
        .collect();
    assert_eq!(listed, stopped);
    assert!(
        accepted
            .iter()
            .all(|(id, times)| *times == 1 || stopped.contains(id)),
        "what was never accepted is listed"
    );
    storm.assert_proven().await;
}

#[tokio::test]
async fn a_webhook_that_is_down_for_three_resolution_times_doubles_nothing() {
    let mut storm = Storm::new(setup(), "resend").await;
    // The sender and the one who hears receipts are two processes, so that one can be away alone.
    let sender = storm.rig.instance();
    let _sending = sender.start(&["--only", "dispatch,upkeep"]).await;
    let mut listener = storm.rig.postrider.start(&["--only", "webhook,metrics"]);
    listener.logs("ready").await;
    storm.enqueue().await;
    storm.a_while().await;
    listener.kill();
    for (share, fault) in [
        (0.2, Fault::ResetAfterAccepting),
        (0.1, Fault::ResetBeforeBody),
    ] {
        let rule = FaultRule::share(share, fault);
        storm.rig.sandbox.control().fault(rule);
    }
    storm.enqueue().await;
    sleep(3 * RESOLVE_AFTER).await;
    storm.rig.sandbox.control().clear_faults();
    let mut listener = storm.rig.postrider.start(&["--only", "webhook,metrics"]);
    listener.logs("ready").await;
    storm.is_over().await;
    storm.assert_once();
    storm.assert_proven().await;
}

/// Starts an instance that sends, or all that a process can do where it has the webhook's port.
async fn start(instance: &Instance, hears: bool) -> Daemon {
    let roles: &[&str] = if hears {
        &[]
    } else {
        &["--only", "dispatch,upkeep"]
    };
    instance.start(roles).await
}

/// Of two that run, the first hears receipts.
async fn two_instances(storm: &Storm) -> ([Instance; 2], [Daemon; 2]) {
    let places = [
        storm.rig.instance_on(storm.rig.webhook_port),
        storm.rig.instance(),
    ];
    let running = [
        start(&places[0], true).await,
        start(&places[1], false).await,
    ];
    (places, running)
}

#[tokio::test]
async fn of_two_instances_that_are_killed_in_turns_each_job_is_sent_once() {
    let mut storm = Storm::new(setup(), "resend").await;
    let (places, running) = two_instances(&storm).await;
    let mut running = running.map(Some);
    let mut logs = Vec::new();
    for round in 0..rounds(4) {
        storm.enqueue().await;
        storm.a_while().await;
        let victim = round % 2;
        if let Some(daemon) = running[victim].take() {
            logs.push(daemon.kill().1);
        }
        storm.a_while().await;
        running[victim] = Some(start(&places[victim], victim == 0).await);
    }
    storm.ends_well().await;
    stop_within_the_limit(running, logs).await;
}

#[tokio::test]
async fn an_instance_that_is_frozen_past_its_lease_doubles_nothing_and_breaks_no_limit() {
    let mut storm = Storm::new(setup(), "resend").await;
    let (_places, running) = two_instances(&storm).await;
    for round in 0..rounds(3) {
        storm.enqueue().await;
        storm.a_while().await;
        // The one that hears receipts too: then nobody resolves anything until it is back.
        let frozen = &running[(round + 1) % 2];
        frozen.signal("STOP");
        sleep(3 * TTL).await;
        frozen.signal("CONT");
    }
    storm.ends_well().await;
    stop_within_the_limit(running.map(Some), Vec::new()).await;
}

/// Stops half of the numbers, so that their jobs move to the others, and returns them.
async fn pause_half(storm: &mut Storm) -> Vec<String> {
    let mut numbers: Vec<String> =
        sqlx::query_scalar("select phone_number_id from postrider.number where configured")
            .fetch_all(&storm.pool)
            .await
            .unwrap();
    while numbers.len() > NUMBERS as usize / 2 {
        numbers.swap_remove(storm.chance.random_range(0..numbers.len()));
    }
    for number in &numbers {
        storm
            .rig
            .postrider
            .does(&["pause", "number", number, "--reason", "chaos"]);
    }
    numbers
}

// The sandbox goes on while a command is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_that_move_between_numbers_while_instances_are_killed_are_sent_once() {
    let mut setup = setup();
    // Later than jobs move.
    setup.webhooks.sent_after = Delay::fixed(7_000);
    let mut storm = Storm::configured(database().await, setup, &patient_config()).await;
    let (places, running) = two_instances(&storm).await;
    let mut running = running.map(Some);
    let mut logs = Vec::new();
    // Some are taken and not answered: when jobs move, nobody knows of these whether they were.
    let fault = FaultRule::share(0.3, Fault::ResetAfterAccepting);
    storm.rig.sandbox.control().fault(fault);
    for round in 0..rounds(2) {
        storm.enqueue().await;
        // In the middle of sending.
        sleep(Duration::from_millis(storm.chance.random_range(50..400))).await;
        let paused = pause_half(&mut storm).await;
        // A number is stopped for 5 s before its jobs move; whoever moves them is killed about then, and so is who gets them.
        let moment = storm.chance.random_range(4_500..6_500);
        sleep(Duration::from_millis(moment)).await;
        let victim = round % 2;
        if let Some(daemon) = running[victim].take() {
            logs.push(daemon.kill().1);
        }
        storm.a_while().await;
        for number in &paused {
            storm.rig.postrider.does(&["resume", "number", number]);
        }
        running[victim] = Some(start(&places[victim], victim == 0).await);
    }
    storm.ends_well().await;
    let refilled: i64 =
        sqlx::query_scalar("select count(*) from postrider.number where refilled_at > 'epoch'")
            .fetch_one(&storm.pool)
            .await
            .unwrap();
    assert!(refilled > 0, "no job has moved");
    stop_within_the_limit(running, logs).await;
}

/// `POSTRIDER_CHAOS_JOBS=20000 cargo nextest run --profile long --release --test chaos --run-ignored only`
#[tokio::test]
#[ignore = "takes minutes: by default an order without an answer waits for two before it goes again"]
async fn by_the_default_times_what_never_left_goes_again_within_them() {
    let config = format!("[pacing]\nmessages_per_second = {}\n", rate());
    let mut storm = Storm::configured(database().await, setup(), &config).await;
    let (_places, [_hears, victim]) = two_instances(&storm).await;
    storm.enqueue().await;
    storm.a_while().await;
    let killed = Instant::now();
    victim.kill();
    // What was on the wire has arrived by then.
    sleep(2 * LATENCY).await;
    let never_left = storm.never_left().await;
    assert!(!never_left.is_empty(), "all had left: nothing to wait for");
    let (resolve_after, ttl) = (Duration::from_secs(120), Duration::from_secs(5));
    let deadline = killed + resolve_after + ttl + Duration::from_secs(10);
    let mut waiting = never_left.clone();
    while !waiting.is_empty() {
        assert!(
            Instant::now() < deadline,
            "{} of {} have not gone",
            waiting.len(),
            never_left.len()
        );
        sleep(Duration::from_millis(100)).await;
        let accepted = storm.accepted();
        waiting.retain(|job| accepted[job] == 0);
    }
    eprintln!(
        "{} that never left went within {:?}",
        never_left.len(),
        killed.elapsed()
    );
    storm.is_over().await;
    storm.assert_once();
    storm.assert_proven().await;
}

/// Stops what runs. By the times at which requests were written neither it nor what was stopped before, whose logs these are,
/// was ever too fast.
async fn stop_within_the_limit(
    running: impl IntoIterator<Item = Option<Daemon>>,
    mut logs: Vec<String>,
) {
    for daemon in running.into_iter().flatten() {
        logs.push(daemon.terminate().await.1);
    }
    for (lane, times) in pacing::posts(&logs.concat()) {
        let most = most_within(&times, 1_000_000);
        assert!(
            most <= rate() as usize,
            "{most} posts in a second at {}/s on lane {lane}",
            rate()
        );
    }
}

#[tokio::test]
async fn a_database_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let server = Server::new("").await;
    let mut storm = Storm::on(database_on(&server.url()).await, setup(), "resend").await;
    let _daemon = storm.rig.daemon().await;
    for _ in 0..rounds(3) {
        storm.enqueue().await;
        storm.a_while().await;
        server.stop(Mode::Immediate);
        sleep(Duration::from_millis(storm.chance.random_range(0..3_000))).await;
        server.start();
    }
    storm.ends_well().await;
}

#[tokio::test]
async fn wires_that_are_cut_and_go_half_open_lose_nothing_and_double_nothing() {
    let mut storm = Storm::new(setup(), "resend").await;
    let wires = storm.rig.wires().await;
    let _daemon = storm.rig.daemon().await;
    for _ in 0..rounds(6) {
        storm.enqueue().await;
        storm.a_while().await;
        let wire = match storm.chance.random_bool(0.5) {
            true => &wires.database,
            false => &wires.provider,
        };
        match storm.chance.random_range(0..4) {
            0 => wire.cut(),
            1 => {
                wire.unplug();
                sleep(Duration::from_secs(1)).await;
                wire.plug_in();
            }
            2 => {
                wire.delay(Duration::from_millis(300));
                sleep(Duration::from_secs(2)).await;
            }
            _ => {
                wire.half_open();
                sleep(Duration::from_secs(2)).await;
            }
        }
        wire.weather(Weather::default());
    }
    storm.is_over().await;
    storm.assert_once();
    storm.assert_proven().await;
}

#[tokio::test]
async fn four_instances_that_come_and_go_send_each_job_once() {
    let mut storm = Storm::new(setup(), "resend").await;
    let mut listener = storm
        .rig
        .postrider
        .start(&["--only", "webhook,upkeep,metrics"]);
    listener.logs("ready").await;
    let places: Vec<Instance> = (0..4).map(|_| storm.rig.instance()).collect();
    let mut running: Vec<Option<Daemon>> = (0..4).map(|_| None).collect();
    let mut logs = Vec::new();
    for _ in 0..rounds(6) {
        storm.enqueue().await;
        let who = storm.chance.random_range(0..places.len());
        match running[who].take() {
            None => running[who] = Some(places[who].start(&["--only", "dispatch"]).await),
            Some(daemon) if storm.chance.random_bool(0.5) => logs.push(daemon.kill().1),
            Some(daemon) => logs.push(daemon.terminate().await.1),
        }
        storm.a_while().await;
    }
    for (place, running) in places.iter().zip(&mut running) {
        if running.is_none() {
            *running = Some(place.start(&["--only", "dispatch"]).await);
        }
    }
    storm.ends_well().await;
    stop_within_the_limit(running, logs).await;
}

// The sandbox goes on while a command is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_that_come_to_several_webhook_processes_in_turns_count_once_each() {
    let mut storm = Storm::configured(database().await, setup(), &patient_config()).await;
    let _sending = storm.rig.instance().start(&["--only", "dispatch"]).await;
    let ports = [common::free_port(), common::free_port()];
    let places = ports.map(|port| storm.rig.instance_on(port));
    let roles = ["--only", "webhook,upkeep"];
    let mut running = Vec::new();
    for place in &places {
        running.push(Some(place.start(&roles).await));
    }
    let call = |storm: &Storm, who: usize| {
        let url = format!("http://127.0.0.1:{}/webhooks/whatsapp", ports[who]);
        storm.rig.sandbox.control().callback(&url);
    };
    for round in 0..rounds(4) {
        storm.enqueue().await;
        for turn in 0..10 {
            call(&storm, turn % 2);
            sleep(Duration::from_millis(150)).await;
        }
        let victim = round % 2;
        if let Some(daemon) = running[victim].take() {
            daemon.kill();
        }
        // What it was told and did not confirm is told to the other one.
        call(&storm, 1 - victim);
        storm.a_while().await;
        running[victim] = Some(places[victim].start(&roles).await);
    }
    storm.ends_well().await;
    let heard: i64 = sqlx::query_scalar(
        "select count(*) from postrider.message where state in ('delivered', 'read')",
    )
    .fetch_one(&storm.pool)
    .await
    .unwrap();
    assert_eq!(heard, storm.jobs.len() as i64, "every receipt was heard");
}

#[tokio::test]
async fn a_rolling_restart_spends_no_attempt_and_hardly_slows_the_sending() {
    let mut storm = Storm::new(setup(), "resend").await;
    let mut listener = storm
        .rig
        .postrider
        .start(&["--only", "webhook,upkeep,metrics"]);
    listener.logs("ready").await;
    let places = [storm.rig.instance(), storm.rig.instance()];
    let mut running = Vec::new();
    for place in &places {
        running.push(Some(place.start(&["--only", "dispatch"]).await));
    }
    // A slower pace than the machine's, so that the limit and not the machine says how many go in which time.
    sqlx::query("update postrider.number set messages_per_second = 20")
        .execute(&storm.pool)
        .await
        .unwrap();
    let window = Duration::from_secs(15);
    let enough = (20 * NUMBERS) as usize * 4 * window.as_secs() as usize;
    while storm.jobs.len() < enough {
        storm.enqueue().await;
    }
    sleep(Duration::from_secs(5)).await;
    let calm = sent_within(&storm, window).await;
    let before = storm.accepted_so_far();
    let began = Instant::now();
    for (place, running) in places.iter().zip(&mut running) {
        let daemon = running.take().expect("it runs");
        let (status, log) = daemon.terminate().await;
        assert!(status.success(), "{log}");
        *running = Some(place.start(&["--only", "dispatch"]).await);
        sleep(window / 2).await;
    }
    let restarted = (storm.accepted_so_far() - before) as f64 / began.elapsed().as_secs_f64();
    let calm = calm as f64 / window.as_secs_f64();
    eprintln!("{calm:.0}/s in calm, {restarted:.0}/s during a rolling restart");
    assert!(
        restarted >= 0.8 * calm,
        "{calm:.0}/s fell to {restarted:.0}/s"
    );
    let spent: i64 = sqlx::query_scalar(
        "select (select coalesce(sum(spent), 0) from postrider.queue)
              + (select coalesce(sum(spent), 0) from postrider.message)",
    )
    .fetch_one(&storm.pool)
    .await
    .unwrap();
    assert_eq!(spent, 0);
    let doubled: Vec<(i64, usize)> = storm
        .accepted()
        .into_iter()
        .filter(|(_, times)| *times > 1)
        .collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}

async fn sent_within(storm: &Storm, window: Duration) -> u64 {
    let before = storm.accepted_so_far();
    sleep(window).await;
    storm.accepted_so_far() - before
}
