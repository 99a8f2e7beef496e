//! The statements about leases: see `src/store/lease.rs`.

use std::collections::BTreeSet;

use postrider::{
    rules::job::{JobId, WaitReason},
    store::{
        attempt::Held,
        lease::{Returned, Row as LeaseRow, Table, Taken},
    },
};

use super::{
    database::{Database, Lease, Row, Time},
    plan::{TTL, secs},
    sabotage::Sabotage,
};

/// What an instance is called where names are asked for.
pub(crate) fn name(instance: usize) -> String {
    instance.to_string()
}

impl Database {
    /// Whether an attempt that is being committed holds one of these leases.
    pub(crate) fn holds_lease(&self, shards: &[i16]) -> bool {
        let mut locked = self.transactions.values().flat_map(|t| &t.shards);
        locked.any(|shard| shards.contains(shard)) && !self.is(Sabotage::TakeOverWithoutLock)
    }

    /// `lease_terminate.sql`: what holds these leases never commits.
    pub(crate) fn end_sessions(&mut self, shards: &[i16]) {
        self.transactions
            .retain(|_, t| shards.iter().all(|shard| !t.shards.contains(shard)));
    }

    /// `lease_take.sql` and `postrider.mark_left_open`.
    pub(crate) fn take(&mut self, instance: usize, shards: &[i16], now: Time) -> Vec<Taken> {
        let mut since = None;
        let mut taken = Vec::new();
        for shard in shards {
            let lease = self.leases.entry(*shard).or_default();
            let is_free =
                lease.holder.is_none_or(|holder| holder == instance) || lease.expires_at <= now;
            if !is_free {
                continue;
            }
            lease.holder = Some(instance);
            lease.epoch += 1;
            lease.expires_at = now + TTL;
            if lease.epoch > 1 {
                since =
                    Some(since.map_or(lease.settled_until, |s: Time| s.min(lease.settled_until)));
            }
            lease.settled_until = lease
                .settled_until
                .max(now - chrono::TimeDelta::seconds(10));
            taken.push(Taken {
                held: Held {
                    shard: *shard,
                    epoch: lease.epoch,
                },
                free_in: (lease.free_at - now).to_std().unwrap_or_default(),
            });
        }
        if let Some(since) = since {
            let shards: BTreeSet<i16> = taken.iter().map(|taken| taken.held.shard).collect();
            let lanes = self
                .numbers
                .iter()
                .filter(|(_, n)| shards.contains(&n.shard));
            let lanes: BTreeSet<_> = lanes.map(|(lane, _)| *lane).collect();
            self.mark_orphans(|lane| lanes.contains(&lane).then_some(since), now);
        }
        taken
    }

    /// Attempts that a former holder left open since the given time: their jobs may have been posted.
    fn mark_orphans(
        &mut self,
        since: impl Fn(postrider::rules::job::Lane) -> Option<Time>,
        now: Time,
    ) {
        let left = self.attempts.iter();
        let left = left.filter(|row| since(row.lane).is_some_and(|since| row.at >= since));
        let left: BTreeSet<(JobId, i32)> = left.map(|row| (row.job, row.attempt)).collect();
        for (id, attempt) in left {
            let is_open = |row: &Row| row.tries == attempt - 1 && !row.is_unknown;
            if self.queue.get(&id).is_some_and(is_open) && self.has_open_attempt(id, attempt - 1) {
                self.update(id, |row| {
                    row.is_unknown = true;
                    row.unknown_since = Some(now);
                    row.reason = Some(WaitReason::AwaitingReceipt);
                    row.due_at = now + row.kind.resolve_after;
                });
            }
        }
    }

    /// `lease_adopt.sql`: numbers that came into a shard of ours from another.
    pub(crate) fn adopt(&mut self, instance: usize, holding: &[Held], now: Time) {
        let is_ours = |shard: i16| {
            let lease = &self.leases[&shard];
            let held = holding.iter().find(|held| held.shard == shard);
            lease.holder == Some(instance)
                && lease.expires_at > now
                && held.is_some_and(|held| held.epoch == lease.epoch)
        };
        let arrived = self.numbers.iter().filter(|(_, number)| {
            number.open_since.is_some() && number.free_at <= now && is_ours(number.shard)
        });
        let arrived: Vec<_> = arrived
            .map(|(lane, number)| (*lane, number.open_since))
            .collect();
        let since = |lane| {
            arrived
                .iter()
                .find(|(l, _)| *l == lane)
                .and_then(|(_, since)| *since)
        };
        self.mark_orphans(since, now);
        for (lane, _) in arrived {
            if let Some(number) = self.numbers.get_mut(&lane) {
                number.open_since = None;
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
            let lease = self.leases.entry(held.shard).or_default();
            if lease.holder == Some(instance) && lease.epoch == held.epoch && lease.expires_at > now
            {
                lease.renew(oldest_open, now);
                still.push(*held);
            }
        }
        still
    }

    /// `lease_table.sql`, and who sends.
    pub(crate) fn table(&self, now: Time) -> Table {
        let shards: BTreeSet<i16> = self.numbers.values().map(|number| number.shard).collect();
        let row = |shard: &i16| {
            let lease = &self.leases[shard];
            LeaseRow {
                shard: *shard,
                instance: lease.holder.map(name),
                expires_in: (lease.expires_at - now)
                    .to_std()
                    .ok()
                    .filter(|left| !left.is_zero()),
            }
        };
        let senders = self.senders.iter().filter(|(_, until)| **until > now);
        Table {
            rows: shards.iter().map(row).collect(),
            senders: senders.map(|(instance, _)| name(*instance)).collect(),
        }
    }

    /// `lease_hand_back.sql`.
    pub(crate) fn hand_back(&mut self, instance: usize, returned: &[Returned], now: Time) {
        for Returned { held, rest } in returned {
            let lease = self.leases.entry(held.shard).or_default();
            if lease.holder == Some(instance) && lease.epoch == held.epoch {
                lease.holder = None;
                lease.expires_at = now;
                lease.free_at = lease.free_at.max(now + *rest);
            }
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
