//! Tells everybody what is left of the messaging limits, as the workers count it: people and other instances by a table,
//! monitoring by metrics, and [`moving`](super::moving) whose jobs had better go out by another number.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{crew::Crew, limits::PoolRoom, meters::Meters, worker::Report, world::World};
use crate::{
    clock,
    rules::job::Lane,
    store::{
        Store,
        usage::{self, PoolUsage},
        within,
    },
};

/// Workers report as often.
const SHOW_EVERY: Duration = Duration::from_secs(2);
/// What takes longer is on a connection that hangs.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Rows written per second, at most: where each number has its own limit, there may be thousands.
const ROWS_PER_SECOND: f64 = 500.0;

/// What shows it.
pub struct Showing {
    /// Where people and other instances look.
    pub store: Store,
    /// Who counts.
    pub crew: Crew,
    /// Which number is in which pool.
    pub world: watch::Receiver<Arc<World>>,
    /// Lanes whose pools are short of room.
    pub blocked: watch::Sender<HashSet<Lane>>,
    /// Where monitoring looks.
    pub meters: Meters,
}

impl Showing {
    /// Shows until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let mut write_at = Instant::now();
        let mut every = tokio::time::interval(SHOW_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let report = self.crew.report();
            self.meters.report(&report);
            let blocked = blocked(&report, &self.world.borrow());
            self.blocked.send_replace(blocked);
            let now = clock::now();
            let rows: Vec<PoolUsage> = report.rooms.iter().map(|room| row(room, now)).collect();
            if rows.is_empty() || Instant::now() < write_at {
                continue;
            }
            write_at =
                Instant::now() + Duration::from_secs_f64(rows.len() as f64 / ROWS_PER_SECOND);
            let shown = within(WRITE_MAX, usage::show(self.store.pool(), &rows));
            if let Some(Err(error)) = stop.run_until_cancelled(shown).await {
                tracing::warn!(%error, "what is left of the messaging limits could not be shown");
            }
        }
    }
}

/// Lanes whose pools are short of room, whether or not jobs of theirs were refused: none of them is a place to move to.
fn blocked(report: &Report, world: &World) -> HashSet<Lane> {
    let short: HashSet<&str> = report
        .rooms
        .iter()
        .filter(|room| room.is_short)
        .map(|room| &*room.pool)
        .collect();
    let lanes = world.lanes.iter().filter(|(_, facts)| {
        let pool = facts.pool.as_ref();
        pool.is_some_and(|pool| short.contains(&*pool.name))
    });
    lanes.map(|(lane, _)| *lane).collect()
}

fn row(room: &PoolRoom, now: DateTime<Utc>) -> PoolUsage {
    let count = |people: usize| i32::try_from(people).unwrap_or(i32::MAX);
    PoolUsage {
        pool: room.pool.to_string(),
        messaging_limit: Some(i32::try_from(room.limit).unwrap_or(i32::MAX)),
        used: count(room.used),
        room_normal: Some(count(room.room)),
        room_urgent: Some(count(room.urgent_room)),
        next_return_at: room.returns_in.map(|returns_in| now + returns_in),
        returns: count(room.returns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(left: usize) -> PoolRoom {
        PoolRoom {
            pool: "portfolio".into(),
            limit: 250,
            used: 225 - left,
            room: left,
            urgent_room: left + 25,
            returns_in: Some(Duration::from_secs(90)),
            returns: 3,
            is_short: left == 0,
        }
    }

    #[test]
    fn what_is_shown_is_what_was_counted() {
        let now = DateTime::UNIX_EPOCH;
        let shown = PoolUsage {
            pool: "portfolio".to_owned(),
            messaging_limit: Some(250),
            used: 220,
            room_normal: Some(5),
            room_urgent: Some(30),
            next_return_at: Some(now + Duration::from_secs(90)),
            returns: 3,
        };
        assert_eq!(row(&room(5), now), shown);
    }

    #[test]
    fn of_many_pools_monitoring_sees_those_with_the_least_room() {
        let many = (0..1_000).rev().map(|left| PoolRoom {
            pool: format!("pool {left}").into(),
            ..room(0)
        });
        let mut rooms: Vec<PoolRoom> = many.collect();
        for (room, left) in rooms.iter_mut().zip((0..1_000).rev()) {
            room.room = left;
        }
        let report = Report {
            rooms,
            posted: 45,
            allowed: 60.0,
        };
        let (meters, registry) = (Meters::default(), prometheus::Registry::new());
        meters.register(&registry).expect("fresh names");
        meters.report(&report);
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .expect("text");
        let shown = |line: &str| text.lines().any(|shown| shown == line);
        assert!(shown(
            "postrider_messaging_limit_remaining{pool=\"pool 7\"} 7"
        ));
        let series = text
            .matches("\npostrider_messaging_limit_remaining{")
            .count();
        assert_eq!(series, 100);
        assert!(shown("postrider_pacing_utilisation_ratio 0.75"), "{text}");
    }
}
