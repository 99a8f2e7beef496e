//! Moves jobs over to another number of their sender pool when theirs cannot send: paused, restricted, without a token, no
//! longer configured, or without room in its messaging limit.
//!
//! The instance that holds the number's lease moves, so two never do the same work; that it could not do harm either is the
//! statement's business ([`moves`]). Enqueue goes on choosing by hash among all numbers of the pool and knows nothing of this:
//! what it puts on a number that cannot send is moved within a second, and when the number can send again its people's new
//! jobs stay with it.
//!
//! What this does not promise: that a job goes back. One that was moved goes out from where it is.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{meters::Meters, world::World};
use crate::{
    rules::job::Lane,
    store::{Store, moves, within},
};

/// A number that cannot send for less than this keeps its jobs: moving them takes an update each, and a conversation is best
/// kept with one number.
const STOPPED_FOR: Duration = Duration::from_secs(5);
/// How often lanes that cannot send are looked after.
const ROUND_EVERY: Duration = Duration::from_secs(1);
/// A round that takes longer is on a connection that hangs.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// How often jobs of numbers that the configuration no longer names are looked for.
const STRAYS_EVERY: Duration = Duration::from_secs(10);
/// A batch that takes longer is given up, and its lane rests: others are not to wait for it.
const BATCH_TIME_MAX: Duration = Duration::from_secs(10);
/// Batches of one lane in one round, so that a long lane does not keep the others waiting.
const BATCHES_PER_LANE: u32 = 10;
/// A lane whose jobs cannot move rests so many times as long as it took to find that out: a twentieth of one connection is
/// all that it costs. That may be slow for another reason, which is over soon.
const REST_FACTOR: u32 = 20;
const REST_MAX: Duration = Duration::from_secs(30);

/// What moves them.
pub struct Moving {
    /// Where the jobs are.
    pub store: Store,
    /// Who holds the leases.
    pub instance: String,
    /// Which numbers can send.
    pub world: watch::Receiver<Arc<World>>,
    /// Lanes that cannot send for another reason than the world tells, such as a messaging limit that is used up.
    pub blocked: watch::Receiver<HashSet<Lane>>,
    /// Rung when jobs were moved, so that their new lanes are read from the head at once.
    pub changed: Arc<Notify>,
    /// What is counted.
    pub meters: Meters,
}

impl Moving {
    /// Moves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let start = Instant::now();
        let mut stops = Stops::default();
        let mut strays_at = Duration::ZERO;
        let mut every = tokio::time::interval(ROUND_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let round = self.round(&mut stops, &mut strays_at, start.elapsed());
            let round = within(ROUND_MAX, round);
            if let Some(Err(error)) = stop.run_until_cancelled(round).await {
                tracing::warn!(%error, "jobs of numbers that cannot send could not be moved");
            }
        }
    }

    async fn round(
        &self,
        stops: &mut Stops,
        strays_at: &mut Duration,
        now: Duration,
    ) -> Result<(), sqlx::Error> {
        let world = Arc::clone(&self.world.borrow());
        let blocked = self.blocked.borrow().clone();
        for (lane, stop) in stops.note(&world, &blocked, now) {
            tell_end(lane, &stop, &world);
        }
        let usable = usable(&world, &blocked);
        if usable.is_empty() || (stops.due(now).is_empty() && now < *strays_at) {
            return Ok(());
        }
        let present = moves::lanes(self.store.pool(), &self.instance).await?;
        if now >= *strays_at {
            *strays_at = now + STRAYS_EVERY;
            stops.note_strays(&present, &world, now);
        }
        for lane in stops.due(now) {
            if present.contains(&lane) {
                self.move_away(lane, &usable, stops, &world, now).await;
            }
        }
        Ok(())
    }

    /// Moves some batches of a lane.
    async fn move_away(
        &self,
        lane: Lane,
        usable: &[Lane],
        stops: &mut Stops,
        world: &World,
        now: Duration,
    ) {
        for _ in 0..BATCHES_PER_LANE {
            let asked = Instant::now();
            let batch = moves::away(self.store.pool(), &self.instance, lane, usable);
            let moved = within(BATCH_TIME_MAX, batch)
                .await
                .unwrap_or_else(|error| {
                    tracing::warn!(%error, lane = lane.0, "jobs of {} could not be moved", name(lane, world));
                    Vec::new()
                });
            let took = asked.elapsed();
            self.meters
                .database
                .with_label_values(&["move"])
                .observe(took.as_secs_f64());
            let jobs = moved.iter().map(|(_, jobs)| jobs).sum::<u64>();
            if jobs > 0 {
                self.meters.moved.inc_by(jobs);
                self.changed.notify_one();
            }
            let Some(stop) = stops.moved(lane, jobs, took, now) else {
                return;
            };
            if stop.moved == jobs && jobs > 0 {
                tell_start(lane, stop, world);
            }
            if jobs < moves::BATCH_MAX as u64 {
                return;
            }
        }
    }
}

/// A number as logs name it; one that the configuration does not name is known by its lane only.
fn name(lane: Lane, world: &World) -> String {
    match world.lanes.get(&lane) {
        Some(facts) => format!("the number {}", facts.sender.phone_number_id),
        None => format!("the number of lane {lane}"),
    }
}

fn tell_start(lane: Lane, stop: &Stop, world: &World) {
    let (number, why) = (name(lane, world), &stop.why);
    tracing::warn!(
        lane = lane.0,
        "jobs of {number} go out from others of their pool while it cannot send: {why}"
    );
}

fn tell_end(lane: Lane, stop: &Stop, world: &World) {
    if stop.moved > 0 {
        let (number, moved) = (name(lane, world), stop.moved);
        tracing::info!(
            lane = lane.0,
            moved,
            "{number} can send again; {moved} of its jobs were moved to others"
        );
    }
}

/// Lanes that can take jobs of others.
fn usable(world: &World, blocked: &HashSet<Lane>) -> Vec<Lane> {
    let lanes = world.lanes.iter();
    lanes
        .filter(|(lane, facts)| facts.stopped.is_none() && !blocked.contains(lane))
        .map(|(lane, _)| *lane)
        .collect()
}

/// Lanes that cannot send.
#[derive(Debug, Default)]
struct Stops {
    lanes: HashMap<Lane, Stop>,
}

/// A lane that cannot send.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stop {
    why: String,
    /// Its jobs are moved from then on.
    due_at: Duration,
    moved: u64,
}

impl Stops {
    /// Notes which of the lanes that the world knows cannot send; returns those that can again.
    fn note(&mut self, world: &World, blocked: &HashSet<Lane>, now: Duration) -> Vec<(Lane, Stop)> {
        let mut ended = Vec::new();
        for (lane, facts) in &world.lanes {
            let no_room = blocked
                .contains(lane)
                .then_some("its messaging limit is used up");
            match facts.stopped.as_deref().or(no_room) {
                Some(why) => self.stop(*lane, why, now),
                None => ended.extend(self.lanes.remove_entry(lane)),
            }
        }
        ended
    }

    /// Notes which of these lanes the world does not know.
    fn note_strays(&mut self, lanes: &[Lane], world: &World, now: Duration) {
        for lane in lanes {
            if !world.lanes.contains_key(lane) {
                self.stop(*lane, "it is no longer configured, or has no token", now);
            }
        }
    }

    fn stop(&mut self, lane: Lane, why: &str, now: Duration) {
        self.lanes.entry(lane).or_insert_with(|| Stop {
            why: why.to_owned(),
            due_at: now + STOPPED_FOR,
            moved: 0,
        });
    }

    /// Lanes whose jobs are to be moved now.
    fn due(&self, now: Duration) -> Vec<Lane> {
        let due = self.lanes.iter().filter(|(_, stop)| stop.due_at <= now);
        due.map(|(lane, _)| *lane).collect()
    }

    /// So many jobs of the lane were moved by a statement that took so long.
    fn moved(&mut self, lane: Lane, jobs: u64, took: Duration, now: Duration) -> Option<&Stop> {
        let stop = self.lanes.get_mut(&lane)?;
        stop.moved += jobs;
        if jobs == 0 {
            stop.due_at = now + (took * REST_FACTOR).min(REST_MAX);
        }
        Some(stop)
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use secrecy::SecretString;

    use super::*;
    use crate::{
        channel::whatsapp::{Client, Endpoint, Sender},
        dispatch::world::LaneFacts,
        rules::pace::Rate,
    };

    const LANE: Lane = Lane(1);

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// A world of one number.
    fn world(stopped: Option<&str>) -> World {
        let endpoint = Endpoint {
            base_url: "http://127.0.0.1:1".into(),
            api_version: "v25.0".into(),
            auth_header: "Authorization".into(),
            request_timeout: secs(1),
            connect_timeout: secs(1),
            tcp_user_timeout: secs(10),
            http2_prior_knowledge: false,
            clients: 1,
        };
        let client = Client::new(&endpoint).expect("a client");
        let token = SecretString::from("token");
        let credentials = client.credentials(&token).expect("credentials");
        let facts = LaneFacts {
            account: "waba".into(),
            shard: 0,
            rate: Rate::new(10.0).expect("a rate"),
            free_at: DateTime::UNIX_EPOCH,
            refilled_at: DateTime::UNIX_EPOCH,
            stopped: stopped.map(Into::into),
            pool: None,
            sender: Sender {
                phone_number_id: "100".into(),
                credentials,
            },
        };
        World {
            lanes: [(LANE, Arc::new(facts))].into_iter().collect(),
            ..World::default()
        }
    }

    #[test]
    fn a_number_that_stops_for_a_moment_keeps_its_jobs() {
        let (stopped, going) = (world(Some("paused")), world(None));
        let none = HashSet::new();
        let mut stops = Stops::default();
        stops.note(&stopped, &none, secs(10));
        assert_eq!(stops.due(secs(14)), []);
        stops.note(&going, &none, secs(14));
        stops.note(&stopped, &none, secs(15));
        assert_eq!(stops.due(secs(16)), []);
        assert_eq!(stops.due(secs(20)), [LANE]);
    }

    #[test]
    fn a_number_without_room_is_one_that_cannot_send() {
        let world = world(None);
        let blocked = HashSet::from([LANE]);
        let mut stops = Stops::default();
        stops.note(&world, &blocked, secs(0));
        assert_eq!(stops.due(STOPPED_FOR), [LANE]);
        assert_eq!(usable(&world, &blocked), []);
        assert_eq!(usable(&world, &HashSet::new()), [LANE]);
    }

    #[test]
    fn a_number_that_the_configuration_no_longer_names_is_one_that_cannot_send() {
        let mut stops = Stops::default();
        stops.note_strays(&[LANE, Lane(9)], &world(None), secs(0));
        stops.note(&world(None), &HashSet::new(), secs(1));
        assert_eq!(stops.due(STOPPED_FOR), [Lane(9)]);
    }

    #[test]
    fn a_lane_whose_jobs_cannot_move_rests_in_proportion_to_its_cost_and_not_for_long() {
        let mut stops = Stops::default();
        stops.note(&world(Some("paused")), &HashSet::new(), secs(0));
        assert_eq!(stops.due(secs(5)), [LANE]);
        stops.moved(LANE, 0, Duration::from_millis(500), secs(5));
        assert_eq!(stops.due(secs(14)), []);
        assert_eq!(stops.due(secs(15)), [LANE]);
        stops.moved(LANE, 7, Duration::from_millis(500), secs(15));
        assert_eq!(stops.due(secs(15)), [LANE]);
        stops.moved(LANE, 0, ROUND_MAX, secs(16));
        assert_eq!(stops.due(secs(16) + REST_MAX), [LANE]);
    }
}
