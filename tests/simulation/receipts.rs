//! The statements about receipts, and what becomes of jobs whose receipt does not come: see `src/store/fold.rs`.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use postrider::rules::{
    job::{JobId, Lane, State},
    receipt::{Callback, Progress, Status, rank},
};

use super::{
    database::{Database, Message, Receipt, Row, Time},
    plan::{ms, secs},
    sabotage::Sabotage,
};

/// All that a batch says of one attempt.
#[derive(Debug, Clone)]
struct Said {
    lane: Lane,
    progress: Progress,
    first_at: Time,
    first_received_at: Time,
    ids: Vec<i64>,
}

type Key = (NaiveDate, JobId, i32);

impl Database {
    /// `receipts.sql`: what another installation sent is kept elsewhere and not applied.
    pub(crate) fn receive(&mut self, callback: &str, status: Status, at: Time, now: Time) {
        let Some(callback) = Callback::parse(callback).filter(|c| c.installation == INSTALLATION)
        else {
            return;
        };
        self.receipts += 1;
        let receipt = Receipt {
            fold_at: now,
            received_at: now,
            day: callback.day,
            job: callback.job,
            attempt: callback.attempt,
            lane: callback.lane,
            progress: Progress::of(status, at),
            at,
        };
        let posted_at = self
            .times_of(receipt.job, receipt.attempt)
            .into_iter()
            .max();
        self.heard_of
            .extend(posted_at.map(|posted_at| (now, posted_at)));
        self.inbox.insert(self.receipts, receipt);
    }

    /// `store::fold`, one transaction of it.
    pub(crate) fn fold(&mut self, now: Time) {
        let mut said: BTreeMap<Key, Said> = BTreeMap::new();
        for (id, receipt) in self.inbox.iter().filter(|(_, r)| r.fold_at <= now) {
            let key = (receipt.day, receipt.job, receipt.attempt);
            let also = Said::by(*id, receipt);
            let without_lattice = self.is(Sabotage::FoldWithoutLattice);
            let known = said.remove(&key);
            said.insert(
                key,
                match known {
                    Some(known) if !without_lattice => known.and(also),
                    _ => also,
                },
            );
        }
        for (key, said) in said {
            if self.apply(key, &said)
                || (self.settle_by_receipt(key, &said, now) && self.apply(key, &said))
            {
                for id in &said.ids {
                    self.inbox.remove(id);
                }
            } else {
                self.park(&said.ids, now);
            }
        }
    }

    /// `fold_apply.sql`; whether there was such a message.
    fn apply(&mut self, (day, job, attempt): Key, said: &Said) -> bool {
        let without_lattice = self.is(Sabotage::FoldWithoutLattice);
        let reaches_phone = matches!(said.progress.state, State::Delivered | State::Read);
        let is_meant = |m: &Message| m.day == day && (m.attempt == attempt || reaches_phone);
        let Some(message) = self.messages.get_mut(&job).filter(|m| is_meant(m)) else {
            return false;
        };
        let before = message.progress.clone();
        message.progress = match without_lattice {
            true => said.progress.clone(),
            false => before.join(said.progress.clone()),
        };
        self.touched.push(job);
        if message.was_held && rank(said.progress.state) >= rank(State::Sent) {
            let (lane, person) = (message.lane, message.person);
            self.released
                .push((lane, person, said.first_at, said.first_received_at));
        }
        true
    }

    /// `fold_settle.sql`: a receipt is the provider's word that it took the message.
    fn settle_by_receipt(&mut self, (day, job, attempt): Key, said: &Said, now: Time) -> bool {
        let is_late = said.first_received_at <= now - secs(2);
        let is_open = |row: &Row| attempt == row.tries + 1 && (row.is_unknown || is_late);
        let row = if self.queue.get(&job).is_some_and(is_open) && !self.is_locked(job) {
            self.remove(job)
        } else {
            let lost = self.dead.get(&job);
            let is_lost = lost
                .is_some_and(|dead| dead.state == State::Unknown && attempt <= dead.row.tries + 1);
            is_lost
                .then(|| self.dead.remove(&job))
                .flatten()
                .map(|dead| dead.row)
        };
        let Some(row) = row else {
            return false;
        };
        let message = Message {
            day,
            attempt,
            lane: said.lane,
            person: row.person,
            spent: row.spent,
            was_held: false,
            progress: Progress::in_state(State::Accepted),
        };
        self.messages.entry(job).or_insert(message);
        self.touched.push(job);
        true
    }

    /// `fold_park.sql`.
    fn park(&mut self, ids: &[i64], now: Time) {
        for id in ids {
            let Some(receipt) = self.inbox.get_mut(id) else {
                continue;
            };
            let age = (now - receipt.received_at).to_std().unwrap_or_default();
            receipt.fold_at = now + (age / 2).clamp(ms(250), secs(600));
            if age > secs(7 * 24 * 3_600) {
                self.inbox.remove(id);
            }
        }
    }
}

/// What our callback data calls this installation.
pub(crate) const INSTALLATION: &str = "here";

impl Said {
    fn by(id: i64, receipt: &Receipt) -> Self {
        Self {
            lane: receipt.lane,
            progress: receipt.progress.clone(),
            first_at: receipt.at,
            first_received_at: receipt.received_at,
            ids: vec![id],
        }
    }

    fn and(mut self, also: Self) -> Self {
        self.progress = self.progress.join(also.progress);
        self.first_at = self.first_at.min(also.first_at);
        self.first_received_at = self.first_received_at.min(also.first_received_at);
        self.ids.extend(also.ids);
        self
    }
}
