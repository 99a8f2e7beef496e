//! What the messaging limit and the pair limit mean for the lanes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    super::{
        event::{Action, Now},
        lane::{LaneState, Prepared},
        limits::{Admission, Limits, Standing},
        outbox::{Outbox, Settlement},
        world::{LaneFacts, PoolFacts},
    },
    Known, Worker,
};
use crate::{
    rules::{
        breaker::{Breakers, CLAIM_AGAIN, May, Path},
        job::{JobId, Lane, WaitReason},
    },
    store::settle::Deferred,
};

/// Jobs that wait for room are read again so often: a service window may have opened for some.
const READ_AGAIN_EVERY: Duration = Duration::from_secs(60);

impl Worker {
    /// Brings the pools into line with the world and the leases.
    pub(super) fn stand(&mut self, now: Now) {
        let mut pools: HashMap<Arc<str>, (PoolFacts, Standing)> = HashMap::new();
        let mut held = Standing::new();
        for (lane, facts) in &self.world.lanes {
            if !self.is_mine(facts.shard) {
                continue;
            }
            // While any lane is not ours, who owns it may be posting: a standing without an epoch is never complete.
            let epoch = match self.leases.epochs.get(&facts.shard) {
                Some(epoch) if facts.free_at <= now.wall => *epoch,
                _ => UNHELD,
            };
            if epoch != UNHELD {
                held.insert(*lane, (facts.shard, epoch));
            }
            let Some(pool) = &facts.pool else {
                continue;
            };
            let (_, standing) = pools
                .entry(Arc::clone(&pool.name))
                .or_insert_with(|| (pool.clone(), Standing::new()));
            standing.insert(*lane, (facts.shard, epoch));
        }
        let is_held = |(_, standing): &(PoolFacts, Standing)| {
            standing.values().all(|(_, epoch)| *epoch != UNHELD)
        };
        self.limits.stand(pools.into_values().filter(is_held));
        self.limits.stand_pairs(&held);
    }

    /// Held messages that were sent count from then on, in the ledgers that are here.
    pub(super) fn renew_released(&mut self, now: Now) {
        for released in &self.world.released {
            let facts = self.world.lanes.get(&released.lane);
            if let Some(pool) = facts.and_then(|facts| facts.pool.as_ref()) {
                let (person, at) = (released.recipient_hash, released.at);
                self.limits.renew(pool, person, at, now);
            }
        }
    }

    /// What was sent from the phone apps of numbers counts like what we send.
    pub(super) fn count_echoes(&mut self, now: Now) {
        for echo in &self.world.echoes {
            let facts = self.world.lanes.get(&echo.lane);
            if let Some(facts) = facts.filter(|facts| self.is_mine(facts.shard)) {
                self.limits.sent_elsewhere(echo, facts.pool.as_ref(), now);
            }
        }
    }

    /// Asks what was posted before through pools and lanes that are new here.
    pub(super) fn count(&mut self, now: Now, actions: &mut Vec<Action>) {
        let (standing, allowance) = self.limits.pairs_to_count(now);
        if !standing.is_empty() {
            actions.push(Action::CountPairs {
                standing,
                allowance,
                asked_at: now.wall,
            });
        }
        let pools = self.limits.to_count();
        if !pools.is_empty() {
            actions.push(Action::Count {
                pools,
                whole_portfolios: !self.world.limit_per_number,
            });
        }
    }

    /// The job was seen on `now_on`. If memory has it on another lane, waiting there for room, it was moved since: it is
    /// forgotten there, and this tells so. What has an attempt is not moved.
    pub(super) fn let_go(&mut self, id: JobId, now_on: Lane) -> bool {
        let before = self.known.get(&id).filter(|known| known.lane != now_on);
        let Some(Known { lane, priority, .. }) = before.copied() else {
            return false;
        };
        let Some(state) = self.lanes.get_mut(&lane) else {
            return false;
        };
        let is_gone = state.take_waiting(priority, id);
        if is_gone {
            self.forget(id);
        }
        is_gone
    }

    /// Jobs that waited for room ask again when some may be there.
    pub(super) fn ask_again(&mut self, now: Now) {
        let returned = self.limits.take_room_returned() | std::mem::take(&mut self.has_closed);
        let mut forgotten = Vec::new();
        let lanes = &mut self.lanes;
        self.parked_lanes.retain(|lane| {
            let Some(state) = lanes.get_mut(lane) else {
                return false;
            };
            let Some(passed_at) = state.parked_passed_at() else {
                return false;
            };
            if now.mono >= passed_at + READ_AGAIN_EVERY {
                forgotten.extend(state.forget_parked());
            } else if returned || now.mono >= state.room_at {
                state.unpark();
                self.waiting_lanes.insert(*lane);
                if state.lacks_urgent_attempt() {
                    self.urgent_lanes.insert(*lane);
                }
            }
            state.parked() > 0
        });
        for id in forgotten {
            self.forget(id);
        }
    }
}

/// Stands for the epoch of a lease that is not held.
const UNHELD: i64 = i64::MIN;

/// By what a job goes out.
pub(super) fn path<'a>(lane: Lane, facts: &'a LaneFacts, job: &'a Prepared) -> Path<'a> {
    Path {
        lane,
        account: &facts.account,
        template: job.template.as_ref(),
    }
}

/// Takes the lane's next job that may be attempted out of its buffers; those that may not are put aside.
pub(super) fn next_admitted<'a>(
    state: &'a mut LaneState,
    lane: Lane,
    limits: &mut Limits,
    breakers: &mut Breakers,
    outbox: &mut Outbox,
    now: Now,
) -> Option<&'a Prepared> {
    loop {
        let (priority, mut job) = state.next_buffered()?;
        job.is_probe = match breakers.may(path(lane, &state.facts, &job).targets(), now.wall) {
            May::Yes => false,
            May::Probe => true,
            May::Claim { .. } => {
                breakers.claim(path(lane, &state.facts, &job).targets(), now.wall);
                state.park(job, now.mono + CLAIM_AGAIN);
                continue;
            }
            May::No { until, .. } => {
                let wait = until.map(|until| (until - now.wall).to_std().unwrap_or_default());
                let again = wait.map_or(Duration::MAX, |wait| now.mono + wait);
                state.park(job, again);
                continue;
            }
        };
        match limits.admit(lane, state.facts.pool.as_ref(), &mut job, now) {
            Admission::Go => {
                if job.is_probe {
                    breakers.probed(path(lane, &state.facts, &job).targets(), now.wall);
                }
                return Some(state.start_attempt(priority, job));
            }
            Admission::NoRoom(until) => state.park(job, until.since_start()),
            Admission::PairFull(until) => outbox.push(
                Settlement::Deferred(Deferred {
                    id: job.id,
                    tries: job.tries,
                    reason: WaitReason::PairRateLimited,
                    due_at: now.wall + until.since(now.mono.into()),
                }),
                now.mono,
            ),
        }
    }
}
