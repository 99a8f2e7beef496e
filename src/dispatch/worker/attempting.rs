//! From the lane's buffers to committed attempts.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{
    super::{
        event::{Action, Now},
        lane::{LaneState, Permitted},
    },
    Worker,
};
use crate::{
    rules::job::{JobId, Lane, Priority},
    store::attempt::{Held, Wanted},
};

/// Attempts are gathered for this long, so that one commit serves many; urgent jobs do not wait for it.
const ATTEMPT_EVERY: Duration = Duration::from_millis(25);
/// Two commits overlap, so that one is gathered while the other is written.
const COMMITS_MAX: usize = 2;
/// Urgent jobs may commit beside them.
const URGENT_COMMITS_MAX: usize = 4;
/// One statement's worth.
const BATCH_MAX: usize = 1_000;
/// A commit is expected to take as long as lately, but not longer than this.
const COMMIT_EXPECTED_MAX: Duration = Duration::from_millis(500);
/// Outcomes that may wait for the database before no more is attempted.
const UNSETTLED_MAX: usize = 20_000;

/// How attempts are being committed.
#[derive(Debug, Default)]
pub(super) struct Commits {
    pub(super) next_at: Duration,
    pub(super) running: usize,
    pub(super) urgent_running: usize,
    expected: Duration,
}

impl Worker {
    /// Commits attempts for the jobs that will have a slot by the time the commit is through.
    pub(super) fn attempt(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.draining || self.outbox.len() > UNSETTLED_MAX {
            return;
        }
        if self.commits.urgent_running < URGENT_COMMITS_MAX && !self.urgent_lanes.is_empty() {
            let lanes = self.urgent_lanes.iter().copied().collect();
            self.commits.urgent_running += usize::from(self.attempt_on(lanes, true, now, actions));
        }
        if self.may_attempt() && now.mono >= self.commits.next_at {
            self.commits.next_at = now.mono + ATTEMPT_EVERY;
            let lanes = self.waiting_lanes.iter().copied().collect();
            self.commits.running += usize::from(self.attempt_on(lanes, false, now, actions));
        }
    }

    /// Whether a further batch may be committed beside those that are.
    pub(super) fn may_attempt(&self) -> bool {
        !self.draining
            && self.outbox.len() <= UNSETTLED_MAX
            && self.commits.running < COMMITS_MAX
            && !self.waiting_lanes.is_empty()
    }

    /// Whether an attempt was asked for on any of the lanes.
    fn attempt_on(
        &mut self,
        lanes: Vec<Lane>,
        urgent: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        let horizon = now.mono + ATTEMPT_EVERY + 2 * self.commits.expected;
        let mut wanted = Vec::new();
        for lane in lanes {
            if !self
                .lanes
                .get(&lane)
                .is_some_and(|state| self.may_send(lane, state, now))
            {
                continue;
            }
            let Some(state) = self.lanes.get_mut(&lane) else {
                continue;
            };
            take_wanted(state, lane, horizon, &mut wanted);
            if state.buffered[Priority::Urgent as usize].is_empty() {
                self.urgent_lanes.remove(&lane);
            }
            if state.waiting() == 0 {
                self.waiting_lanes.remove(&lane);
            }
            if wanted.len() >= BATCH_MAX {
                self.commits.next_at = now.mono;
                break;
            }
        }
        if wanted.is_empty() {
            return false;
        }
        let mut held: Vec<Held> = wanted
            .iter()
            .filter_map(|w| {
                Some(Held {
                    shard: w.shard,
                    epoch: *self.leases.epochs.get(&w.shard)?,
                })
            })
            .collect();
        held.sort_by_key(|held| held.shard);
        held.dedup();
        actions.push(Action::Attempt {
            urgent,
            held,
            wanted,
        });
        true
    }

    pub(super) fn attempted(
        &mut self,
        urgent: bool,
        wanted: &[Wanted],
        permitted: Option<Vec<(JobId, DateTime<Utc>)>>,
        took: Duration,
        now: Now,
    ) {
        let running = if urgent {
            &mut self.commits.urgent_running
        } else {
            &mut self.commits.running
        };
        *running -= 1;
        self.commits.expected = ((3 * self.commits.expected + took) / 4).min(COMMIT_EXPECTED_MAX);
        let mut lanes: Vec<Lane> = Vec::new();
        let lane_of: std::collections::HashMap<JobId, Lane> =
            wanted.iter().map(|w| (w.id, w.lane)).collect();
        for (id, at) in permitted.into_iter().flatten() {
            let Some(lane) = lane_of.get(&id).copied() else {
                continue;
            };
            let Some(state) = self.lanes.get_mut(&lane) else {
                continue;
            };
            let Some(job) = state.attempting.remove(&id) else {
                continue;
            };
            state.ready[job.priority as usize].push_back(Permitted { job, at });
            if let Some(known) = self.known.get_mut(&id) {
                known.attempted_at = Some(at);
            }
            lanes.push(lane);
        }
        // What came not back may not be posted: it is forgotten, and the next look sees what became of it.
        for (id, lane) in lane_of {
            if self
                .lanes
                .get_mut(&lane)
                .is_some_and(|state| state.attempting.remove(&id).is_some())
            {
                self.forget(id);
            }
        }
        // Something may have been paused while the attempts were being committed.
        self.withdraw_held(&lanes, now);
        for lane in lanes {
            self.schedule(lane, now.mono);
        }
        if self.draining {
            self.drain(now);
        } else if permitted_while_stopped(self, now) {
            self.relinquish_where_stopped(now);
        }
    }
}

/// A pause or the end of a lease may have come while the attempt was being committed.
fn permitted_while_stopped(worker: &Worker, now: Now) -> bool {
    now.boot >= worker.leases.deadline
        || worker
            .world
            .lanes
            .values()
            .any(|facts| facts.stopped.is_some())
}

/// Takes as many jobs of a lane as there will be slots at the horizon, beside those that are under way already.
fn take_wanted(state: &mut LaneState, lane: Lane, horizon: Duration, wanted: &mut Vec<Wanted>) {
    let shard = state.facts.shard;
    let under_way = state.in_pipeline();
    let slots = state
        .pacer
        .slots_until(horizon, under_way + state.waiting());
    // An urgent job always has one attempt under way, whatever the slots say: it takes the next one.
    let urgent = usize::from(state.lacks_urgent_attempt());
    for _ in 0..slots.saturating_sub(under_way).max(urgent) {
        let Some(job) = state.next_to_attempt() else {
            break;
        };
        wanted.push(Wanted {
            id: job.id,
            lane,
            tries: job.tries,
            shard,
            recipient_hash: job.recipient_hash,
            counted: job.counted,
        });
    }
}
