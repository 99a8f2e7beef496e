//! The statements about leases: see `src/store/lease.rs`.

use std::time::Duration;

use postrider::{
    dispatch::leasing::TTL,
    store::{attempt::Held, lease::Taken},
};

use super::{
    database::{Database, Lease, Time},
    plan::secs,
    sabotage::Sabotage,
};

impl Database {
    /// `lease_take.sql` and `lease_orphans.sql`; `None` while an attempt that is being committed holds one of the rows.
    pub(crate) fn take(
        &mut self,
        instance: usize,
        holding: &[Held],
        now: Time,
    ) -> Option<Vec<Taken>> {
        let is_free = |shard: &i16, lease: &Lease| {
            let is_free = lease.holder.is_none_or(|h| h == instance) || lease.expires_at <= now;
            is_free && holding.iter().all(|held| held.shard != *shard)
        };
        let free = self
            .leases
            .iter()
            .filter(|(shard, lease)| is_free(shard, lease));
        let free: Vec<i16> = free.map(|(shard, _)| *shard).collect();
        let mut locked = self.transactions.values().flat_map(|t| &t.shards);
        if locked.any(|shard| free.contains(shard)) && !self.is(Sabotage::TakeOverWithoutLock) {
            return None;
        }
        let mut settled_until = now;
        let mut taken = Vec::new();
        for shard in &free {
            let lease = self.leases.entry(*shard).or_default();
            lease.holder = Some(instance);
            lease.epoch += 1;
            lease.expires_at = now + TTL;
            lease.taken_at = now;
            settled_until = settled_until.min(lease.settled_until);
            let held = Held {
                shard: *shard,
                epoch: lease.epoch,
            };
            let free_at = lease.free_at;
            taken.push(Taken { held, free_at });
        }
        self.mark_orphans(&free, settled_until, now);
        Some(taken)
    }

    /// Attempts that a former holder left open: their jobs may have been posted.
    fn mark_orphans(&mut self, shards: &[i16], since: Time, now: Time) {
        for ((id, attempt), row) in self.attempts_since(since) {
            let is_open = |row: &super::database::Row| row.tries == attempt - 1 && !row.is_unknown;
            if shards.contains(&self.numbers[&row.lane].shard)
                && self.queue.get(&id).is_some_and(is_open)
            {
                self.update(id, |row| {
                    row.is_unknown = true;
                    row.reason = Some(postrider::rules::job::WaitReason::AwaitingReceipt);
                    row.due_at = now + row.kind.resolve_after;
                });
            }
        }
    }

    /// `lease_renew.sql`.
    pub(crate) fn renew(
        &mut self,
        instance: usize,
        holding: &[Held],
        oldest_open: Option<Time>,
        now: Time,
    ) -> Vec<Held> {
        let mut still = Vec::new();
        for held in holding {
            let Some(lease) = self.leases.get_mut(&held.shard) else {
                continue;
            };
            if lease.holder == Some(instance) && lease.epoch == held.epoch && lease.expires_at > now
            {
                lease.renew(oldest_open, now);
                still.push(*held);
            }
        }
        still
    }

    pub(crate) fn hand_back(&mut self, instance: usize, settle: Duration, now: Time) {
        let of = |lease: &&mut Lease| lease.holder == Some(instance);
        for lease in self.leases.values_mut().filter(of) {
            lease.holder = None;
            lease.expires_at = now;
            lease.free_at = now + settle;
        }
    }
}

impl Lease {
    pub(crate) fn renew(&mut self, oldest_open: Option<Time>, now: Time) {
        self.expires_at = now + TTL;
        let settled = now - secs(10);
        let settled = oldest_open.map_or(settled, |oldest| oldest.min(settled));
        self.settled_until = self.settled_until.max(settled);
    }
}
