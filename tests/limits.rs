//! No window of any limit is ever exceeded: by the times at which requests were written, and by the sandbox's book.

#![cfg(test)]

mod common;

use std::{sync::Mutex, time::Duration};

use common::pacing::{Load, Paced, stall_commits};
use sqlx::PgPool;

async fn never() {
    std::future::pending::<()>().await;
}

fn assert_within_the_limit(paced: &Paced) {
    let capacity = paced.load.rate.ceil() as usize;
    assert_eq!(
        paced.posts.len(),
        paced.load.numbers as usize,
        "all numbers post"
    );
    assert!(
        paced.most_in_a_second() <= capacity,
        "{} posts in a second at {}/s",
        paced.most_in_a_second(),
        paced.load.rate
    );
}

#[tokio::test]
async fn no_second_holds_more_posts_than_the_rate() {
    for (numbers, rate, seconds) in [(20, 10.0, 6.0), (2, 80.0, 4.0), (4, 0.5, 8.0)] {
        let load = Load {
            numbers,
            rate,
            seconds,
            latency_ms: 200,
        };
        assert_within_the_limit(&load.run(|_| never()).await);
    }
}

#[tokio::test]
async fn no_second_holds_more_posts_than_the_rate_when_commits_stall() {
    let load = Load {
        numbers: 10,
        rate: 20.0,
        seconds: 8.0,
        latency_ms: 50,
    };
    let stalls = [150, 400].map(Duration::from_millis);
    let paced = load.run(|pool| async move {
        stall_commits(pool, Duration::from_secs(1), &stalls).await;
    });
    assert_within_the_limit(&paced.await);
}

/// A new rate of every number.
struct Change {
    /// It may be in force from then on.
    asked_at: u64,
    /// It is written.
    written_at: u64,
    rate: f64,
}

/// Sets every number's rate, one after the other, and notes when.
async fn change_rates(pool: PgPool, rates: &[f64], changes: &Mutex<Vec<Change>>) {
    for rate in rates {
        let asked_at = boot_micros();
        sqlx::query("update postrider.number set messages_per_second = $1::float8")
            .bind(rate)
            .execute(&pool)
            .await
            .unwrap();
        changes.lock().unwrap().push(Change {
            asked_at,
            written_at: boot_micros(),
            rate: *rate,
        });
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    never().await;
}

fn boot_micros() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    (seconds * 1e6) as u64
}

#[tokio::test]
async fn a_changed_rate_holds_without_a_restart_and_without_a_burst() {
    let load = Load {
        numbers: 4,
        rate: 80.0,
        seconds: 5.0,
        latency_ms: 50,
    };
    let changes = Mutex::new(Vec::new());
    let paced = load
        .run(|pool| change_rates(pool, &[10.0, 40.0, 2.5, 80.0], &changes))
        .await;
    assert_within_the_limit(&paced);
    let changes = changes.into_inner().unwrap();
    // A rate is known within a second of its commit, or two on a busy machine; until then the former one may hold.
    let known_after = 2_500_000;
    for times in paced.posts.values() {
        for (first, start) in times.iter().enumerate() {
            let in_force = |(index, change): &(usize, &Change)| {
                change.asked_at < start + 1_000_000
                    && changes
                        .get(index + 1)
                        .is_none_or(|next| next.written_at + known_after > *start)
            };
            let highest = changes
                .iter()
                .enumerate()
                .filter(in_force)
                .map(|(_, change)| change.rate.ceil() as usize)
                .max();
            let first_is_known = *start > changes[0].written_at + known_after;
            let Some(highest) = highest.filter(|_| first_is_known) else {
                continue;
            };
            let held = times[first..]
                .iter()
                .take_while(|at| **at < start + 1_000_000)
                .count();
            assert!(held <= highest, "{held} posts in a second at {highest}/s");
        }
    }
}

/// `cargo nextest run --profile long --release --test limits --run-ignored only --no-capture`.
/// `POSTRIDER_LOAD_SHARE` takes only so many of their numbers: a machine on which all want the CPU at once cannot use the
/// limits, and what it wrote in time arrives bunched up.
#[tokio::test]
#[ignore = "measures for minutes, and only a quiet machine can keep up"]
async fn full_loads_are_measured() {
    let share: f64 = std::env::var("POSTRIDER_LOAD_SHARE").map_or(1.0, |share| {
        share.parse().expect("POSTRIDER_LOAD_SHARE is a number")
    });
    let loads = [
        (1_000.0, 10.0, 30.0),
        (100.0, 80.0, 20.0),
        (4.0, 1_000.0, 20.0),
        (100.0, 0.5, 30.0),
    ];
    let mut all = Vec::new();
    for (numbers, rate, seconds) in loads {
        let load = Load {
            numbers: f64::ceil(numbers * share) as u32,
            rate,
            seconds,
            latency_ms: 200,
        };
        let paced = load.run(|_| never()).await;
        println!(
            "{:>5} numbers at {rate:>6}/s: at most {} in a second by post time, {} refused, {:.3} % of arriving seconds \
             over, {:.1} % of the limit used",
            load.numbers,
            paced.most_in_a_second(),
            paced.refused,
            100.0 * paced.share_over(),
            100.0 * paced.utilisation(),
        );
        all.push(paced);
    }
    // All are told of before one is judged.
    for paced in &all {
        assert_within_the_limit(paced);
        // Only here: on a busy machine requests bunch up after they were written, and no pacing can help that.
        assert_eq!(
            paced.refused, 0,
            "the sandbox takes one more a second than the rate"
        );
    }
}
