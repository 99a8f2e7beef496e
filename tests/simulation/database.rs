//! The database as a model: the rows, and statements that do to them what the SQL of `src/store` does. Each statement takes
//! effect at one instant; only an attempt is drawn out, because a take-over, a cancel or a move can come between its checks
//! and its commit.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use chrono::{DateTime, NaiveDate, Utc};
use postrider::{
    dispatch::{leasing::MARGIN, limits::ATTEMPT_MARGIN},
    rules::{
        job::{JobId, Lane, Priority, State, WaitReason},
        receipt::Progress,
    },
    store::attempt::{Held, Wanted},
};

use super::{
    plan::{KindPlan, Plan, TTL, secs},
    sabotage::Sabotage,
    unknown::Way,
};

pub(crate) type Time = DateTime<Utc>;

/// The database's clock; the machines' own may differ.
pub(crate) fn clock(at: Duration) -> Time {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap_or_default() + at
}

/// A row of `queue`.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) lane: Lane,
    pub(crate) priority: Priority,
    pub(crate) due_at: Time,
    pub(crate) tries: i32,
    pub(crate) spent: i32,
    pub(crate) resends: i32,
    pub(crate) is_unknown: bool,
    pub(crate) unknown_since: Option<Time>,
    pub(crate) reason: Option<WaitReason>,
    pub(crate) kind: &'static KindPlan,
    pub(crate) person: i64,
    pub(crate) enqueued_at: Time,
    pub(crate) expires_at: Time,
}

/// A row of `message`.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) day: NaiveDate,
    pub(crate) attempt: i32,
    pub(crate) lane: Lane,
    pub(crate) person: i64,
    pub(crate) spent: i32,
    pub(crate) was_held: bool,
    pub(crate) progress: Progress,
}

/// A row of `dead_letter`.
#[derive(Debug, Clone)]
pub(crate) struct Dead {
    pub(crate) row: Row,
    pub(crate) state: State,
}

/// A row of `attempt`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AttemptRow {
    pub(crate) lane: Lane,
    pub(crate) job: JobId,
    pub(crate) attempt: i32,
    pub(crate) person: i64,
    pub(crate) counted: bool,
    pub(crate) at: Time,
}

impl AttemptRow {
    pub(crate) fn of(wanted: &Wanted, at: Time) -> Self {
        Self {
            lane: wanted.lane,
            job: wanted.id,
            attempt: wanted.tries + 1,
            person: wanted.recipient_hash,
            counted: wanted.counted,
            at,
        }
    }
}

/// A row of `lease`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lease {
    pub(crate) holder: Option<usize>,
    pub(crate) epoch: i64,
    pub(crate) expires_at: Time,
    pub(crate) free_at: Time,
    pub(crate) settled_until: Time,
}

/// A row of `number`.
#[derive(Debug, Clone)]
pub(crate) struct Number {
    pub(crate) shard: i16,
    pub(crate) free_at: Time,
    /// It came from another shard; what was left open since then is not seen to yet.
    pub(crate) open_since: Option<Time>,
    pub(crate) refilled_at: Time,
    pub(crate) is_paused: bool,
}

/// A row of `receipt_inbox`.
#[derive(Debug, Clone)]
pub(crate) struct Receipt {
    pub(crate) fold_at: Time,
    pub(crate) received_at: Time,
    pub(crate) day: NaiveDate,
    pub(crate) job: JobId,
    pub(crate) attempt: i32,
    pub(crate) lane: Lane,
    pub(crate) progress: Progress,
    pub(crate) at: Time,
}

/// An attempt statement between its checks and its commit, with what it holds locked.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) shards: BTreeSet<i16>,
    /// The leases that it stands on.
    pub(crate) held: Vec<Held>,
    pub(crate) rows: Vec<AttemptRow>,
}

#[derive(Debug, Default)]
pub(crate) struct Database {
    pub(crate) queue: BTreeMap<JobId, Row>,
    order: BTreeSet<(Lane, Priority, Time, JobId)>,
    pub(crate) attempts: Vec<AttemptRow>,
    /// How many attempts of this number a job has; more than one when one of them was undone by nobody but written twice.
    pub(crate) attempted: BTreeMap<(JobId, i32), usize>,
    /// What each attempt came to.
    pub(crate) answers: BTreeMap<(JobId, i32), Vec<&'static str>>,
    pub(crate) messages: BTreeMap<JobId, Message>,
    pub(crate) dead: BTreeMap<JobId, Dead>,
    pub(crate) inbox: BTreeMap<i64, Receipt>,
    pub(crate) receipts: i64,
    pub(crate) way: Way,
    /// How often a job was sent again because nobody knew what had become of it.
    pub(crate) resent: BTreeMap<JobId, usize>,
    pub(crate) released: Vec<(Lane, i64, Time, Time)>,
    pub(crate) leases: BTreeMap<i16, Lease>,
    /// Until when each instance counts among those that send.
    pub(crate) senders: BTreeMap<usize, Time>,
    pub(crate) numbers: BTreeMap<Lane, Number>,
    /// When a person last opted in and out.
    pub(crate) consents: BTreeMap<i64, (Time, Option<Time>)>,
    pub(crate) windows: BTreeMap<(i64, Lane), Time>,
    pub(crate) transactions: BTreeMap<u64, Transaction>,
    pub(crate) away_until: Duration,
    pub(crate) slow_until: Duration,
    /// Attempts that were committed when another had taken the shard over.
    pub(crate) intrusions: usize,
    /// Jobs whose rows changed since somebody last looked.
    pub(crate) touched: Vec<JobId>,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Database {
    pub(crate) fn new(plan: &Plan, sabotage: Option<Sabotage>) -> Self {
        let number = |shard| Number {
            shard,
            free_at: Time::default(),
            open_since: None,
            refilled_at: Time::default(),
            is_paused: false,
        };
        let lanes = plan.lanes.iter();
        Self {
            numbers: lanes.map(|l| (l.lane, number(l.shard))).collect(),
            leases: (0..16).map(|shard| (shard, Lease::default())).collect(),
            consents: (0..plan.people as i64)
                .map(|person| (person, (Time::default(), None)))
                .collect(),
            sabotage,
            ..Self::default()
        }
    }

    pub(crate) fn is(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// The server ends: what was not committed never was.
    pub(crate) fn crash(&mut self, until: Duration) {
        self.transactions.clear();
        self.away_until = self.away_until.max(until);
    }

    pub(crate) fn insert(&mut self, id: JobId, row: Row) {
        self.order.insert((row.lane, row.priority, row.due_at, id));
        self.queue.insert(id, row);
        self.touched.push(id);
    }

    pub(crate) fn remove(&mut self, id: JobId) -> Option<Row> {
        let row = self.queue.remove(&id)?;
        self.order.remove(&(row.lane, row.priority, row.due_at, id));
        self.touched.push(id);
        Some(row)
    }

    pub(crate) fn update(&mut self, id: JobId, change: impl FnOnce(&mut Row)) {
        if let Some(mut row) = self.remove(id) {
            change(&mut row);
            self.insert(id, row);
        }
    }

    pub(crate) fn bury(&mut self, id: JobId, row: Row, state: State) {
        self.dead.entry(id).or_insert(Dead { row, state });
        self.touched.push(id);
    }

    /// What ends without a word of the provider was certainly not sent, unless an earlier attempt stayed without an answer.
    pub(crate) fn bury_unsent(&mut self, id: JobId, row: Row, state: State) {
        let state = match self.may_have_left(id, &row) {
            true => State::Unknown,
            false => state,
        };
        self.bury(id, row, state);
    }

    pub(crate) fn lanes_with_rows(&self) -> Vec<(Lane, Priority)> {
        let mut present: Vec<_> = self.order.iter().map(|(l, p, ..)| (*l, *p)).collect();
        present.dedup();
        present
    }

    /// Rows of a lane and priority behind a key and due, in order.
    pub(crate) fn due(
        &self,
        lane: Lane,
        priority: Priority,
        after: (Time, JobId),
        now: Time,
    ) -> impl Iterator<Item = (JobId, &Row)> {
        let from = (lane, priority, after.0, JobId(after.1.0 + 1));
        let to = (lane, priority, now.max(after.0), JobId(i64::MAX));
        self.order
            .range(from..=to)
            .filter_map(|(.., id)| Some((*id, self.queue.get(id)?)))
    }

    /// When something in the queue or the inbox is due that is not yet.
    pub(crate) fn next_due(&self, now: Time) -> Option<Time> {
        let rows = self.queue.values().map(|row| row.due_at);
        let receipts = self.inbox.values().map(|receipt| receipt.fold_at);
        rows.chain(receipts).filter(|at| *at > now).min()
    }

    pub(crate) fn is_locked(&self, id: JobId) -> bool {
        let mut held = self.transactions.values().flat_map(|t| &t.rows);
        held.any(|row| row.job == id)
    }

    pub(crate) fn has_open_attempt(&self, id: JobId, tries: i32) -> bool {
        let attempts = self.attempted.get(&(id, tries + 1)).copied().unwrap_or(0);
        attempts > self.answers.get(&(id, tries + 1)).map_or(0, Vec::len)
    }

    /// `cancel_jobs`; `None` while somebody holds the row.
    pub(crate) fn cancel(&mut self, id: JobId) -> Option<bool> {
        if self.is_locked(id) {
            return None;
        }
        let Some(row) = self.queue.get(&id) else {
            return Some(false);
        };
        if row.is_unknown || self.has_open_attempt(id, row.tries) {
            return Some(false);
        }
        if let Some(row) = self.remove(id) {
            self.bury_unsent(id, row, State::Cancelled);
        }
        Some(true)
    }

    /// `expire.sql`.
    pub(crate) fn expire(&mut self, now: Time) {
        let over = self.queue.iter().filter(|(id, row)| {
            row.expires_at <= now
                && !row.is_unknown
                && !self.is_locked(**id)
                && !self.attempted.contains_key(&(**id, row.tries + 1))
        });
        let over: Vec<JobId> = over.map(|(id, _)| *id).collect();
        for id in over {
            if let Some(row) = self.remove(id) {
                self.bury_unsent(id, row, State::Expired);
            }
        }
    }

    /// `moves_lock.sql` and `moves.sql`: due jobs of a lane go to another.
    pub(crate) fn move_away(&mut self, instance: usize, lane: Lane, to: Lane, now: Time) {
        let shard = self.numbers[&lane].shard;
        let lease = &self.leases[&shard];
        if lease.holder != Some(instance) || lease.expires_at <= now {
            return;
        }
        let movable = self.queue.iter().filter(|(id, row)| {
            row.lane == lane
                && row.due_at <= now
                && !row.is_unknown
                && !self.is_locked(**id)
                && !self.has_open_attempt(**id, row.tries)
        });
        let movable: Vec<JobId> = movable.map(|(id, _)| *id).collect();
        for id in &movable {
            self.update(*id, |row| row.lane = to);
        }
        if let Some(number) = self.numbers.get_mut(&to).filter(|_| !movable.is_empty()) {
            number.refilled_at = now;
        }
    }

    /// A number comes under another shard: its former owner may be posting for a while.
    pub(crate) fn reshard(&mut self, lane: Lane, shard: i16, now: Time) {
        if let Some(number) = self.numbers.get_mut(&lane) {
            number.shard = shard;
            number.free_at = now + TTL + MARGIN;
            number.open_since = number.open_since.or(Some(now - secs(60)));
        }
    }

    /// `pairs.sql`: how many messages each person got of late through each of these numbers.
    pub(crate) fn pairs(
        &self,
        lanes: &[Lane],
        memory: Duration,
        now: Time,
    ) -> Vec<((Lane, i64), u32)> {
        let since = now - memory - ATTEMPT_MARGIN;
        let mut got: BTreeMap<(Lane, i64), u32> = BTreeMap::new();
        for attempt in self.attempts.iter().rev().filter(|a| a.at >= since) {
            if lanes.contains(&attempt.lane) {
                *got.entry((attempt.lane, attempt.person)).or_default() += 1;
            }
        }
        got.into_iter().collect()
    }

    /// `ledger.sql`: who counts against the limit of these lanes.
    pub(crate) fn posts(&self, lanes: &[Lane], now: Time) -> Vec<(i64, Time)> {
        if self.is(Sabotage::LedgerNotRebuilt) {
            return Vec::new();
        }
        let since = now - (secs(24 * 3_600 + 360));
        let mut last: BTreeMap<i64, Time> = BTreeMap::new();
        let attempts = self.attempts.iter().filter(|a| a.counted);
        let attempts = attempts.map(|a| (a.lane, a.person, a.at));
        let released = self.released.iter().map(|(l, p, at, _)| (*l, *p, *at));
        for (lane, person, at) in attempts.chain(released) {
            if at >= since && lanes.contains(&lane) {
                let known = last.entry(person).or_insert(at);
                *known = at.max(*known);
            }
        }
        last.into_iter().collect()
    }
}
