//! From the lane's buffers to committed attempts.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{
    super::{
        event::{Action, Now},
        ids::IdMap,
        lane::{LaneState, Permitted, Prepared},
    },
    Worker,
    limiting::next_admitted,
    owning::{PAUSED, is_held},
    volume::FRESH_FOR,
};
use crate::{
    rules::job::{JobId, Lane, Priority},
    store::attempt::{Held, Wanted},
};

/// An urgent job is attempted so long before its slot, at most, on a number that posts seldom: it would not be fresh then.
const URGENT_AHEAD: Duration = Duration::from_secs(1);
/// Two commits overlap, so that one is gathered while the other is written.
const COMMITS_MAX: usize = 2;
/// Urgent jobs may commit beside them.
const URGENT_COMMITS_MAX: usize = 4;
/// Outcomes that may wait for the database before no more is attempted.
const UNSETTLED_MAX: usize = 20_000;

impl Worker {
    /// Commits attempts for the jobs that will have a slot by the time the commit is through.
    pub(super) fn attempt(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.draining || self.is_behind() {
            return;
        }
        if self.commits.urgent_running < URGENT_COMMITS_MAX && !self.urgent_lanes.is_empty() {
            let lanes = self.urgent_lanes.iter().copied().collect();
            self.commits.urgent_running += usize::from(self.attempt_on(lanes, true, now, actions));
        }
        if self.may_attempt() && now.mono >= self.commits.next_at {
            self.commits.next_at = now.mono + self.commits.every();
            let lanes = self.waiting_lanes.iter().copied().collect();
            self.commits.running += usize::from(self.attempt_on(lanes, false, now, actions));
        }
    }

    /// Whether so many outcomes wait for the database that no more are to be made. What is posted or permitted by then still
    /// adds its own.
    pub(super) fn is_behind(&self) -> bool {
        self.outbox.len() > UNSETTLED_MAX
    }

    /// Whether a further batch may be committed beside those that are.
    pub(super) fn may_attempt(&self) -> bool {
        !self.draining
            && !self.is_behind()
            && self.commits.running < COMMITS_MAX
            && !self.waiting_lanes.is_empty()
    }

    /// Whether an attempt was asked for on any of the lanes.
    fn attempt_on(
        &mut self,
        mut lanes: Vec<Lane>,
        urgent: bool,
        now: Now,
        actions: &mut Vec<Action>,
    ) -> bool {
        let horizon = now.mono + self.commits.every() + 2 * self.commits.expected(now.mono);
        let share = (self.pipeline.most(now.mono) / self.waiting_lanes.len().max(1)).max(1);
        let first = self.commits.served % lanes.len().max(1);
        lanes.rotate_left(first);
        let mut wanted = Vec::new();
        for (place, lane) in lanes.into_iter().enumerate() {
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
            let shard = state.facts.shard;
            let room = self.commits.most().saturating_sub(wanted.len());
            for _ in 0..wanted_now(state, share, horizon, now.mono).min(room) {
                let (limits, breakers) = (&mut self.limits, &mut self.breakers);
                let Some(job) = next_admitted(state, lane, limits, breakers, &mut self.outbox, now)
                else {
                    break;
                };
                wanted.push(want(job, lane, shard));
            }
            if state.buffered[Priority::Urgent as usize].is_empty() {
                self.urgent_lanes.remove(&lane);
            }
            if state.waiting() == 0 {
                self.waiting_lanes.remove(&lane);
            }
            if state.parked() > 0 {
                self.parked_lanes.insert(lane);
            }
            if wanted.len() >= self.commits.most() {
                self.commits.next_at = now.mono;
                self.commits.served = first + place + 1;
                break;
            }
        }
        if !urgent {
            self.commits.gathered = wanted.len();
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
        self.commits.took(wanted.len(), took, now.mono);
        let (mut lanes, mut paused): (Vec<Lane>, Vec<(Lane, Permitted)>) = Default::default();
        let lane_of: IdMap<JobId, Lane> = wanted.iter().map(|w| (w.id, w.lane)).collect();
        let is_answered = permitted.is_some();
        let fresh_until = (now.mono + FRESH_FOR).saturating_sub(took);
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
            if let Some(known) = self.known.get_mut(&id) {
                known.attempted_at = Some(at);
            }
            self.limits.attempted(state.facts.pool.as_ref(), &job, now);
            lanes.push(lane);
            // Something may have been paused while the attempt was being committed. What waits was taken out then.
            let is_held = is_held(&self.holds, &state.facts, &job);
            let priority = job.priority as usize;
            let permitted = Permitted {
                job,
                at,
                fresh_until,
            };
            if is_held {
                paused.push((lane, permitted));
            } else {
                state.ready[priority].push_back(permitted);
            }
        }
        // What came not back may not be posted: it is forgotten, and the next look sees what became of it.
        for (id, lane) in lane_of {
            if let Some(state) = self.lanes.get_mut(&lane)
                && let Some(job) = state.attempting.remove(&id)
            {
                let pool = state.facts.pool.as_ref();
                if is_answered {
                    self.limits.release(lane, pool, &job);
                } else {
                    self.limits.attempted(pool, &job, now);
                    self.limits.withdraw(lane, &job);
                }
                self.forget(id);
            }
        }
        for (lane, job) in paused {
            self.give_up(lane, Vec::new(), vec![job], PAUSED, now);
        }
        if self.draining {
            self.drain(now);
        }
        lanes.sort_unstable();
        lanes.dedup();
        for lane in lanes {
            // A pause or the end of a lease may have come while the attempt was being committed.
            if self.stopped(lane, now).is_some() {
                self.relinquish(lane, now);
            }
            self.schedule(lane, now.mono);
        }
    }
}

/// For how many more jobs of a lane there will be slots at the horizon, beside those that are under way already: no more in all
/// than its share of what the worker can post.
fn wanted_now(state: &LaneState, share: usize, horizon: Duration, now: Duration) -> usize {
    let under_way = state.in_pipeline();
    let slots = state
        .pacer
        .slots_until(horizon, under_way + state.waiting());
    // An urgent job has one attempt under way, whatever else has: it takes the next slot.
    let urgent = state.lacks_urgent_attempt() && state.pacer.slots_until(now + URGENT_AHEAD, 1) > 0;
    let urgent = usize::from(urgent);
    slots.min(share).saturating_sub(under_way).max(urgent)
}

fn want(job: &Prepared, lane: Lane, shard: i16) -> Wanted {
    Wanted {
        id: job.id,
        lane,
        tries: job.tries,
        shard,
        recipient_hash: job.recipient_hash,
        counted: job.counted,
    }
}
