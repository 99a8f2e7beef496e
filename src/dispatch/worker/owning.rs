//! Which lanes the worker may send for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        event::{Action, Now},
        holdings::Quiet,
        lane::{LaneState, Permitted, Prepared, Reading},
        settlement,
        world::{LaneFacts, Leases, World},
    },
    Worker,
};
use crate::{
    rules::job::{JobId, Lane, Priority},
    store::{attempt::Held, look::Holds},
};

/// Why an attempt is not used, when its job is held.
pub(super) const PAUSED: &str = "it was paused";

impl Worker {
    pub(super) fn see(&mut self, world: Arc<World>, now: Now) {
        self.world = world;
        let before = std::mem::replace(&mut self.holds, Arc::new(self.world.holds()));
        let released = !self.holds.include(&before);
        let (workers, index) = (self.settings.workers, self.settings.index);
        let mut known = self.world.lanes.values();
        self.has_lanes = known.any(|facts| is_dealt_to(facts.shard, workers, index));
        for (lane, state) in &mut self.lanes {
            let facts = self.world.lanes.get(lane);
            let Some(facts) = facts.filter(|facts| is_dealt_to(facts.shard, workers, index)) else {
                continue;
            };
            state.set_rate(facts.rate);
            state.set_floor(self.world.floor);
            let refilled = state.facts.refilled_at < facts.refilled_at;
            state.facts = Arc::clone(facts);
            if released || refilled {
                // Jobs that were held were passed over, and jobs of another number may have moved here: they stand
                // before the cursor.
                state.reading.iter_mut().for_each(Reading::reset);
            }
        }
        self.limits.set_pair_allowance(self.world.pair, now);
        let stops = self.world.stops.iter().cloned();
        self.has_closed |= self.breakers.seen(stops, now.wall);
        self.stand(now);
        self.renew_released(now);
        self.count_echoes(now);
        self.relinquish_where_stopped(now);
        if !before.include(&self.holds) {
            self.withdraw_held(now);
        }
    }

    /// A lane of this worker in memory. It is there from when it first has something to do: most numbers of many have not.
    pub(super) fn lane(&mut self, lane: Lane, now: Now) -> Option<&mut LaneState> {
        let facts = self.world.lanes.get(&lane)?;
        if !self.is_mine(facts.shard) {
            return None;
        }
        let state = self.lanes.entry(lane).or_insert_with(|| {
            let allowance = self.settings.jitter_allowance;
            let mut state = LaneState::new(Arc::clone(facts), allowance, &self.hand, now.mono);
            state.set_floor(self.world.floor);
            Box::new(state)
        });
        Some(state)
    }

    /// Takes held jobs out of memory, so that none of them is posted. They stay in the queue. What is being attempted is
    /// asked about again when the attempt is there.
    fn withdraw_held(&mut self, now: Now) {
        let lanes: Vec<Lane> = self.lanes.keys().copied().collect();
        for lane in lanes {
            let Some(state) = self.lanes.get_mut(&lane) else {
                continue;
            };
            let facts = Arc::clone(&state.facts);
            let (waiting, ready) = state.withdraw(|job| is_held(&self.holds, &facts, job));
            if state.waiting() == 0 {
                self.waiting_lanes.remove(&lane);
            }
            if state.buffered[Priority::Urgent as usize].is_empty() {
                self.urgent_lanes.remove(&lane);
            }
            self.give_up(lane, waiting, ready, PAUSED, now);
        }
    }

    pub(super) fn hold(&mut self, leases: Leases, now: Now) {
        let before = std::mem::replace(&mut self.leases, leases);
        self.stand(now);
        self.relinquish_where_stopped(now);
        let has_more = |(shard, epoch): (&i16, &i64)| before.epochs.get(shard) != Some(epoch);
        if self.leases.epochs.iter().any(has_more) {
            self.look_soon(now);
        }
    }

    /// Jobs may have waited, and rung, while nobody could send for them.
    pub(super) fn look_soon(&mut self, now: Now) {
        self.next_poll = now.mono;
    }

    /// Tells which of the shards that are to be given back have nothing under way any more, from the look to the written
    /// outcome.
    pub(super) fn leave(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.leases.leaving.is_empty() {
            return;
        }
        let shard_of = |lane: &Lane| self.lanes.get(lane).map(|state| state.facts.shard);
        let busy: HashSet<i16> = self
            .known
            .values()
            .filter_map(|known| shard_of(&known.lane))
            .collect();
        let mut silent_since: HashMap<i16, Duration> = HashMap::new();
        for state in self.lanes.values() {
            if let Some(at) = state.posted_at {
                let last = silent_since.entry(state.facts.shard).or_insert(at);
                *last = at.max(*last);
            }
        }
        let (workers, index) = (self.settings.workers, self.settings.index);
        self.leases.leaving.retain(|shard, epoch| {
            if !is_dealt_to(*shard, workers, index) {
                return false;
            }
            if busy.contains(shard) {
                return true;
            }
            actions.push(Action::Quiet(Quiet {
                held: Held {
                    shard: *shard,
                    epoch: *epoch,
                },
                silent_for: silent_since
                    .get(shard)
                    .map(|at| now.mono.saturating_sub(*at)),
            }));
            false
        });
    }

    /// Lanes that may not send keep nothing in memory: their jobs can then be cancelled, moved, and seen for what they are.
    pub(super) fn relinquish_where_stopped(&mut self, now: Now) {
        let stopped: Vec<Lane> = self
            .lanes
            .keys()
            .copied()
            .filter(|lane| self.stopped(*lane, now).is_some())
            .collect();
        for lane in stopped {
            self.relinquish(lane, now);
        }
    }

    pub(super) fn relinquish(&mut self, lane: Lane, now: Now) {
        let why = self
            .stopped(lane, now)
            .unwrap_or("the daemon stops")
            .to_owned();
        let Some(state) = self.lanes.get_mut(&lane) else {
            return;
        };
        let (waiting, ready) = state.relinquish();
        self.waiting_lanes.remove(&lane);
        self.urgent_lanes.remove(&lane);
        self.give_up(lane, waiting, ready, &why, now);
    }

    /// What has no attempt is forgotten, what has one is settled as not sent.
    pub(super) fn give_up(
        &mut self,
        lane: Lane,
        waiting: Vec<JobId>,
        ready: Vec<Permitted>,
        why: &str,
        now: Now,
    ) {
        for id in waiting {
            self.forget(id);
        }
        for job in ready {
            self.limits.withdraw(lane, &job.job);
            self.outbox.push(
                settlement::not_sent(&job.attempt(), why, now.wall, now.wall),
                now.mono,
            );
        }
    }

    /// Shards are dealt out over the workers, so that each number is sent for on one thread.
    pub(super) fn is_mine(&self, shard: i16) -> bool {
        is_dealt_to(shard, self.settings.workers, self.settings.index)
    }

    /// Why the lane may not send at all; `None` when it may.
    pub(super) fn stopped(&self, lane: Lane, now: Now) -> Option<&str> {
        let Some(facts) = self.world.lanes.get(&lane) else {
            return Some("its number is no longer configured");
        };
        if !self.is_mine(facts.shard) {
            return Some("its shard belongs to another worker");
        }
        if !self.leases.epochs.contains_key(&facts.shard) || now.boot >= self.leases.deadline {
            return Some("its shard is not leased to this instance");
        }
        if facts.free_at > now.wall {
            return Some("its former owner may still be posting");
        }
        if facts
            .pool
            .as_ref()
            .is_some_and(|pool| !self.limits.is_counted(pool))
        {
            return Some(
                "what was posted before is still being counted against its messaging limit",
            );
        }
        if !self.limits.are_pairs_counted(lane) {
            return Some("what its recipients got of late is still being counted");
        }
        facts.stopped.as_deref()
    }

    pub(super) fn may_send(&self, lane: Lane, state: &LaneState, now: Now) -> bool {
        state.hold_until <= now.mono && self.stopped(lane, now).is_none()
    }

    pub(super) fn drain(&mut self, now: Now) {
        self.draining = true;
        let lanes: Vec<Lane> = self.lanes.keys().copied().collect();
        for lane in lanes {
            self.relinquish(lane, now);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
            && self.outbox.is_empty()
            && self.commits.running + self.commits.urgent_running == 0
    }
}

fn is_dealt_to(shard: i16, workers: usize, index: usize) -> bool {
    usize::from(shard.unsigned_abs()) % workers == index
}

/// Whether a job is held, on a number of these facts.
pub(super) fn is_held(holds: &Holds, facts: &LaneFacts, job: &Prepared) -> bool {
    let (template, batch) = (job.template.as_ref(), job.batch.as_deref());
    holds.hold(
        &facts.account,
        template,
        &job.tags.kind,
        batch,
        job.priority,
    )
}
