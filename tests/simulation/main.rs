//! The whole dispatcher in virtual time: the real workers and rules, under a seed that decides who crashes, freezes, answers
//! late or not at all. The promises are checked after every step.
//!
//! One seed is one run, the same each time: `POSTRIDER_SIM_SEED=42 cargo nextest run --test simulation` replays it, and
//! `POSTRIDER_SIM_TRACE=1` tells what happens in it. `POSTRIDER_SIM_RUNS` asks for more runs than usual.
//!
//! What it does not show: that the SQL is as the model has it (`sql_contract`, `fold` and their like do), and what happens
//! between the last look at the clock and the write to the socket.

#![cfg(test)]

mod agenda;
mod asking;
mod database;
mod dice;
mod hands;
mod judge;
mod leases;
mod leasing;
mod plan;
mod provider;
mod receipts;
mod sabotage;
mod sending;
mod sim;
mod story;
mod tasks;
mod unknown;

use std::time::{Duration, Instant};

use judge::{Promise, Violation};
use sabotage::Sabotage;
use sim::{Report, Sim};

/// Runs in `make test`.
const RUNS: u64 = 20;
/// A mistake has to be found within so many.
const FOUND_WITHIN: u64 = 300;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(seed: u64, sabotage: Option<Sabotage>) -> Report {
    Sim::new(seed, sabotage).run()
}

#[test]
fn no_promise_is_broken_whatever_goes_wrong() {
    let only = from_environment("POSTRIDER_SIM_SEED");
    let seeds = match only {
        Some(seed) => seed..seed + 1,
        None => 0..from_environment("POSTRIDER_SIM_RUNS").unwrap_or(RUNS),
    };
    let began = Instant::now();
    let (mut lasted, mut jobs, mut posts) = (Duration::ZERO, 0, 0);
    for seed in seeds {
        let report = run(seed, None);
        if let Some(violation) = report.violation {
            panic!(
                "{violation}\nto replay: POSTRIDER_SIM_SEED={seed} cargo nextest run --test simulation no_promise"
            );
        }
        lasted += report.lasted;
        jobs += report.jobs;
        posts += report.posts;
    }
    let hours = lasted.as_secs_f64() / 3_600.0;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "{hours:.0} simulated hours with {jobs} jobs and {posts} posts; {:.0} simulated hours a minute",
        hours / minutes
    );
}

#[test]
fn one_seed_is_one_run() {
    let seen = |seed| format!("{:?}", run(seed, None));
    for seed in 1_000..1_005 {
        assert_eq!(seen(seed), seen(seed));
    }
}

/// Runs until the mistake shows.
#[track_caller]
fn finds(sabotage: Sabotage, promises: &[Promise]) {
    let violation: Option<(u64, Violation)> =
        (0..FOUND_WITHIN).find_map(|seed| Some((seed, run(seed, Some(sabotage)).violation?)));
    let Some((seed, violation)) = violation else {
        panic!("{sabotage:?} was not found in {FOUND_WITHIN} runs");
    };
    println!("{sabotage:?} shows with seed {seed}: {violation}");
    assert!(promises.contains(&violation.promise), "{violation}");
}

#[test]
fn an_attempt_that_is_written_after_the_post_is_found() {
    finds(Sabotage::AttemptAfterPost, &[Promise::WrittenBeforeSent]);
}

#[test]
fn an_attempt_that_does_not_ask_the_queue_is_found() {
    finds(
        Sabotage::AttemptWithoutJoin,
        &[
            Promise::NoDouble,
            Promise::Consent,
            Promise::Cancelled,
            Promise::Conservation,
        ],
    );
}

#[test]
fn an_attempt_that_does_not_ask_the_lease_is_found() {
    finds(
        Sabotage::LeaseNotChecked,
        &[Promise::OneOwner, Promise::NoDouble],
    );
}

#[test]
fn a_take_over_that_does_not_wait_for_attempts_is_found() {
    finds(
        Sabotage::TakeOverWithoutLock,
        &[Promise::OneOwner, Promise::NoDouble],
    );
}

#[test]
fn an_unanswered_request_that_is_sent_again_at_once_is_found() {
    finds(Sabotage::UnknownAsFailed, &[Promise::NoDouble]);
}

#[test]
fn a_look_that_never_goes_back_is_found() {
    finds(Sabotage::CursorNeverBack, &[Promise::Liveness]);
}

#[test]
fn a_fold_that_believes_the_last_receipt_is_found() {
    finds(Sabotage::FoldWithoutLattice, &[Promise::StatusGoesForward]);
}

#[test]
fn a_ledger_that_is_not_rebuilt_is_found() {
    finds(Sabotage::LedgerNotRebuilt, &[Promise::NeverOverALimit]);
}

#[test]
fn a_resolution_clock_that_does_not_stand_still_is_found() {
    finds(Sabotage::ResolutionClockRunsOn, &[Promise::NoDouble]);
}
