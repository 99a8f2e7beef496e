//! Several instances that are killed, frozen, or come and go.

use std::time::Duration;

use postrider::sandbox::{Delay, Fault, FaultRule};
use rand::RngExt;
use tokio::time::{Instant, sleep};

use crate::{
    common::{
        self,
        daemon::Daemon,
        database,
        pacing::{self, most_within},
        rig::Instance,
    },
    storm::{LATENCY, NUMBERS, Storm, TTL, listening, patient_config, rate, rounds, setup},
};

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
    let mut storm = Storm::new(setup()).await;
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
    let mut storm = Storm::new(setup()).await;
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

/// Whether jobs of a number that was stopped were moved to another so far.
async fn have_moved(storm: &Storm) -> bool {
    sqlx::query_scalar("select exists (select from postrider.number where refilled_at > 'epoch')")
        .fetch_one(&storm.pool)
        .await
        .unwrap()
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
    let mut round = 0;
    // It is a matter of chance whether jobs move in a round.
    while round < rounds(2) || !have_moved(&storm).await {
        storm.enqueue().await;
        // In the middle of sending.
        sleep(Duration::from_millis(storm.chance.random_range(50..400))).await;
        let paused = pause_half(&mut storm).await;
        // On a busy machine all have been sent before the pause: these wait for its end, or move.
        storm.enqueue().await;
        // A number is stopped for 5 s before its jobs move; whoever moves them is killed about then, and so is who gets them.
        let moment = storm.chance.random_range(4_500..7_500);
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
        round += 1;
    }
    storm.ends_well().await;
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
    storm.assert_once().await;
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
async fn four_instances_that_come_and_go_send_each_job_once() {
    let mut storm = Storm::new(setup()).await;
    let _listener = listening(&storm, "webhook,upkeep,metrics").await;
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
    let mut storm = Storm::new(setup()).await;
    let _listener = listening(&storm, "webhook,upkeep,metrics").await;
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
