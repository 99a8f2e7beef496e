//! The real binary while things break: killed, frozen, cut off, replaced, with the database killed under it. Nothing is lost,
//! nothing is sent twice, and no limit is crossed. The judges are the sandbox's book of what it accepted and `postrider verify`.
//!
//! A round is short here. `POSTRIDER_CHAOS_ROUNDS` and `POSTRIDER_CHAOS_JOBS` (jobs a round) make it long, and
//! `POSTRIDER_CHAOS_RATE` (messages a second of each of ten numbers, 100) quick enough for that:
//! `POSTRIDER_CHAOS_ROUNDS=100 POSTRIDER_CHAOS_JOBS=20000 POSTRIDER_CHAOS_RATE=500 cargo nextest run --profile long --release --test chaos`.

#![cfg(test)]

#[path = "../common/mod.rs"]
mod common;

mod alone;
mod several;
mod storm;
