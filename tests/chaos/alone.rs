//! One instance, and what breaks under it.

use std::{collections::BTreeSet, time::Duration};

use postrider::sandbox::{Fault, FaultRule, Setup};
use rand::RngExt;
use tokio::time::sleep;

use crate::{
    common::{
        daemon::Daemon,
        database, database_on,
        proxy::Weather,
        server::{Mode, Server},
    },
    storm::{RESOLVE_AFTER, Storm, config, listening, rounds, setup},
};

/// Kills a daemon in the middle of each round; returns the one that sees to what is left.
async fn killed_again_and_again(storm: &mut Storm, rounds: usize) -> Daemon {
    for _ in 0..rounds {
        storm.enqueue().await;
        let daemon = storm.rig.postrider.start(&[]);
        storm.a_while().await;
        daemon.kill();
    }
    storm.rig.daemon().await
}

fn without_receipts() -> Setup {
    Setup {
        faults: vec![FaultRule::always(Fault::NoReceipts)],
        ..setup()
    }
}

#[tokio::test]
async fn a_daemon_that_is_killed_again_and_again_sends_each_job_once() {
    let mut storm = Storm::new(setup()).await;
    let _daemon = killed_again_and_again(&mut storm, rounds(5)).await;
    storm.ends_well().await;
}

#[tokio::test]
async fn without_receipts_nothing_is_lost_and_nothing_sent_more_than_twice() {
    let mut storm =
        Storm::configured(database().await, without_receipts(), &config("resend", 1)).await;
    let _daemon = killed_again_and_again(&mut storm, rounds(3)).await;
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
    let mut storm =
        Storm::configured(database().await, without_receipts(), &config("stop", 1)).await;
    let _daemon = killed_again_and_again(&mut storm, rounds(3)).await;
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
    let mut storm = Storm::new(setup()).await;
    // The sender and the one who hears receipts are two processes, so that one can be away alone.
    let sender = storm.rig.instance();
    let _sending = sender.start(&["--only", "dispatch,upkeep"]).await;
    let listener = listening(&storm, "webhook,metrics").await;
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
    let _listener = listening(&storm, "webhook,metrics").await;
    storm.is_over().await;
    storm.assert_once().await;
    storm.assert_proven().await;
}

#[tokio::test]
async fn a_database_that_is_killed_again_and_again_loses_nothing_and_doubles_nothing() {
    let server = Server::new("").await;
    let mut storm = Storm::on(database_on(&server.url()).await, setup()).await;
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
    let mut storm = Storm::new(setup()).await;
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
    storm.assert_once().await;
    storm.assert_proven().await;
}
