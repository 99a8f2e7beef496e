//! The brain of a worker: a plain struct and one plain method, from what happened to what is to be done. It reads no
//! clock and awaits nothing, so a test is a list of events.

mod attempting;
mod limiting;
mod looking;
mod owning;
mod posting;
mod volume;

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use self::volume::{Commits, Pipeline};
use super::{
    event::{Action, Event, Now},
    ids::{IdMap, IdSet},
    lane::{LaneState, Permitted},
    limits::{Limits, PoolRoom},
    outbox::Outbox,
    world::{Leases, World},
};
use crate::{
    rules::{
        breaker::Breakers,
        job::{JobId, Lane, Priority},
        pace::Hand,
        retry::Policy,
    },
    store::look::Holds,
};

/// How often lanes are looked at while there is room.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// What an operator may set.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which of the workers this is; shards are dealt out by their remainder.
    pub index: usize,
    /// How many workers there are.
    pub workers: usize,
    /// Jobs of one lane and priority in memory, at most.
    pub look_ahead: u32,
    /// Requests on the wire at once, at most.
    pub in_flight_max: usize,
    /// Added to the pacing window against jitter on the way.
    pub jitter_allowance: Duration,
    /// How failed attempts are tried again.
    pub retry: Policy,
}

/// What a worker is doing, for metrics and the status line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Requests on the wire.
    pub in_flight: usize,
    /// Jobs that passed the gate and have no attempt.
    pub buffered: usize,
    /// Outcomes that are not written yet.
    pub unsettled: usize,
    /// Time of the oldest attempt whose outcome is not written.
    pub oldest_open: Option<DateTime<Utc>>,
}

/// What a worker tells now and then of what holds it back, since it last did.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// The pools that it counts for.
    pub rooms: Vec<PoolRoom>,
    /// Messages of numbers that have more to send.
    pub posted: u32,
    /// How many those numbers were allowed, by the rates in force now.
    pub allowed: f64,
}

/// Sends for its share of the shards.
#[derive(Debug)]
pub struct Worker {
    settings: Settings,
    world: Arc<World>,
    holds: Arc<Holds>,
    leases: Leases,
    /// Those that had something to do. Each in a place of its own, so that the free places of the map are small.
    lanes: IdMap<Lane, Box<LaneState>>,
    /// Whether it sends for any number.
    has_lanes: bool,
    /// Every job in memory, from the look until its outcome is written, with the time of its attempt.
    known: IdMap<JobId, Known>,
    in_flight: IdMap<JobId, Flight>,
    outbox: Outbox,
    /// When which lane may post next.
    due: BinaryHeap<Reverse<(Duration, Lane)>>,
    /// While every request is out, lanes whose slot has come are looked at again from then on.
    crowded_until: Duration,
    hand: Hand,
    rung: IdSet<Lane>,
    polling: bool,
    answering_bell: bool,
    next_poll: Duration,
    commits: Commits,
    pipeline: Pipeline,
    limits: Limits,
    breakers: Breakers,
    /// Whether a breaker closed, so that jobs which waited for it may go.
    has_closed: bool,
    /// Lanes with jobs that passed the gate.
    waiting_lanes: IdSet<Lane>,
    /// Of those, lanes with urgent ones.
    urgent_lanes: IdSet<Lane>,
    /// Lanes with jobs that wait for room or for a breaker.
    parked_lanes: IdSet<Lane>,
    reported_at: Duration,
    draining: bool,
    finished: bool,
}

/// A request on its way.
#[derive(Debug)]
struct Flight {
    lane: Lane,
    permitted: Permitted,
    /// When it was written to its connection.
    left_at: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    lane: Lane,
    priority: Priority,
    attempted_at: Option<DateTime<Utc>>,
}

impl Worker {
    /// A worker that knows nothing yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            world: Arc::default(),
            holds: Arc::default(),
            leases: Leases::default(),
            lanes: IdMap::default(),
            has_lanes: false,
            known: IdMap::default(),
            in_flight: IdMap::default(),
            outbox: Outbox::default(),
            due: BinaryHeap::new(),
            crowded_until: Duration::ZERO,
            hand: Hand::default(),
            rung: IdSet::default(),
            polling: false,
            answering_bell: false,
            next_poll: Duration::ZERO,
            commits: Commits::default(),
            pipeline: Pipeline::default(),
            limits: Limits::default(),
            breakers: Breakers::default(),
            has_closed: false,
            waiting_lanes: IdSet::default(),
            urgent_lanes: IdSet::default(),
            parked_lanes: IdSet::default(),
            reported_at: Duration::ZERO,
            draining: false,
            finished: false,
        }
    }

    /// Takes note of what happened. What follows from it is done by [`Worker::turn`].
    pub fn note(&mut self, event: Event, now: Now, actions: &mut Vec<Action>) {
        match event {
            Event::World(world) => self.see(world, now),
            Event::Leases(leases) => self.hold(leases, now),
            Event::Rang(Some(lane)) => _ = self.rung.insert(lane),
            Event::Rang(None) => {
                self.rung.extend(self.lanes.keys());
                // All others begin at their head.
                self.look_soon(now);
            }
            Event::LanesFound(found) => self.look(found, now, actions),
            Event::Looked { why, cursors, seen } => self.looked(why, &cursors, seen, now),
            Event::Attempted {
                urgent,
                wanted,
                permitted,
                took,
            } => {
                self.attempted(urgent, &wanted, permitted, took, now);
            }
            Event::Counted {
                pool,
                standing,
                posts,
            } => {
                self.limits.counted(&pool, &standing, posts, now);
                self.look_soon(now);
            }
            Event::PairsCounted { standing, posts } => {
                self.limits.pairs_counted(&standing, posts, now);
            }
            Event::Left { id, at } => self.left(id, at, now),
            Event::Posted {
                id,
                answer,
                regain_access_in,
                chance,
            } => {
                self.posted(id, answer, regain_access_in, chance, now, actions);
            }
            Event::Claimed { target, claim } => {
                self.breakers.claimed(&target, claim, now.wall);
                self.has_closed = true;
            }
            Event::Settled { batch, written } => {
                if written {
                    for id in batch.ids() {
                        self.forget(id);
                    }
                }
                self.outbox.done(batch, written, now.mono);
            }
            Event::Drain => self.drain(now),
        }
    }

    /// Decides what is to be done now. Called after the events of a turn, and whenever [`Worker::wake_at`] has come.
    pub fn turn(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.count(now, actions);
        self.ask_again(now);
        self.answer_bell(now, actions);
        self.poll(now, actions);
        self.attempt(now, actions);
        actions.extend(self.breakers.take_claims().into_iter().map(Action::Claim));
        self.post(now, actions);
        if let Some(batch) = self.outbox.take(now.mono) {
            actions.push(Action::Settle(batch));
        }
        self.leave(now, actions);
        if self.draining && !self.finished && self.is_idle() {
            self.finished = true;
            actions.push(Action::Finish);
        }
    }

    /// When the next turn is due, whatever happens.
    #[must_use]
    pub fn wake_at(&self, now: Duration) -> Duration {
        // Without numbers there is nothing to poll for, however long ago the last poll was.
        let polls = !self.polling && !self.draining && self.has_lanes;
        let poll = polls.then_some(self.next_poll);
        let attempt = self.may_attempt().then_some(self.commits.next_at);
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        let post = due.map(|at| at.max(self.crowded_until));
        [
            poll,
            attempt,
            post,
            self.outbox.due_at(),
            Some(now + POLL_EVERY),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(now)
    }

    /// What holds it back, since this was last asked.
    pub fn report(&mut self, now: Now) -> Report {
        let took = now.mono.saturating_sub(self.reported_at).as_secs_f64();
        self.reported_at = now.mono;
        let mut report = Report {
            rooms: self.limits.rooms(now),
            ..Report::default()
        };
        for state in self.lanes.values_mut() {
            let posted = std::mem::take(&mut state.posted);
            // Others were held back by having nothing to send.
            if state.waiting() + state.in_pipeline() > 0 {
                report.posted += posted;
                report.allowed += state.tempo.rate().per_second() * took;
            }
        }
        report
    }

    /// What it is doing.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            in_flight: self.in_flight.len(),
            buffered: self
                .lanes
                .values()
                .map(|state| state.waiting() + state.parked())
                .sum(),
            unsettled: self.outbox.len(),
            oldest_open: self
                .known
                .values()
                .filter_map(|known| known.attempted_at)
                .min(),
        }
    }

    fn forget(&mut self, id: JobId) {
        self.known.remove(&id);
    }
}

#[cfg(test)]
mod tests;
