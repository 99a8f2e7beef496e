//! The statements about receipts, and what becomes of jobs whose receipt does not come: see `src/store/fold.rs`.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use postrider::rules::{
    job::{JobId, Lane, State},
    receipt::{Callback, Progress, Status, rank},
};

use super::{
    database::{Database, Message, Receipt, Time},
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
        let mut newest = None;
        for (key, said) in said {
            let is_applied = self.apply(key, &said)
                || (self.settle_by_receipt(key, &said, now) && self.apply(key, &said));
            if is_applied {
                newest = newest.max(self.time_of(key.1, key.2));
                for id in &said.ids {
                    self.inbox.remove(id);
                }
            } else {
                self.park(&said.ids, now);
            }
        }
        if let Some(newest) = newest {
            self.way.note(newest, now);
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

    /// `fold_lock.sql` and `fold_settle.sql`: a receipt is the provider's word that it took the message.
    fn settle_by_receipt(&mut self, (day, job, attempt): Key, said: &Said, now: Time) -> bool {
        if self.is_locked(job) {
            return false;
        }
        let row = if self.is_first_word(job, attempt, said, now) {
            self.remove(job)
        } else if self.is_found_after_all(job, attempt) {
            self.dead.remove(&job).map(|dead| dead.row)
        } else {
            None
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

    /// Whether the job waits, and nobody answered this attempt of it.
    fn is_first_word(&self, job: JobId, attempt: i32, said: &Said, now: Time) -> bool {
        let Some(row) = self.queue.get(&job) else {
            return false;
        };
        let is_late = said.first_received_at <= now - secs(2);
        let is_open = attempt == row.tries + 1 && (row.is_unknown || is_late);
        let is_earlier = attempt <= row.tries
            && (row.is_unknown || !self.has_open_attempt(job, row.tries))
            && self.is_unanswered(job, attempt) == Some(true);
        is_open || is_earlier
    }

    /// Whether the job was given up, and this attempt of it is not one that the provider refused.
    fn is_found_after_all(&self, job: JobId, attempt: i32) -> bool {
        self.dead.get(&job).is_some_and(|dead| {
            let unanswered = self.is_unanswered(job, attempt);
            attempt <= dead.row.tries + 1
                && matches!(dead.state, State::Unknown | State::Failed)
                && unanswered.unwrap_or(dead.state == State::Unknown)
        })
    }

    /// Whether all answers that this attempt has are none; `None` when there is not even that.
    fn is_unanswered(&self, job: JobId, attempt: i32) -> Option<bool> {
        let answers = self.answers.get(&(job, attempt))?;
        Some(answers.iter().all(|outcome| *outcome == "unknown"))
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
