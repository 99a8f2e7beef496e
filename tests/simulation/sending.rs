//! The statements that a job passes on its way out: look, attempt, settle. See `src/store/look.sql`, `attempt.sql` and
//! `settle_*.sql`.

use std::collections::BTreeSet;

use postrider::{
    dispatch::outbox::Batch,
    rules::{
        job::{Job, JobId, PersonFacts, State, TemplateName, WaitReason},
        receipt::Progress,
    },
    store::{
        attempt::{Held, Wanted},
        look::{Cursor, Seen},
        settle::{Accepted, Dead, Deferred, Waiting},
    },
};
use serde_json::value::RawValue;

use super::{
    database::{AttemptRow, Database, Message, Row, Time, Transaction},
    sabotage::Sabotage,
};

pub(crate) const TEMPLATE: (&str, &str) = ("update", "en");

impl Database {
    /// `look.sql`.
    pub(crate) fn look(&self, cursors: &[Cursor], known: &[JobId], now: Time) -> Vec<Seen> {
        let known: BTreeSet<JobId> = known.iter().copied().collect();
        let mut seen = Vec::new();
        for cursor in cursors {
            let due = self
                .due(cursor.lane, cursor.priority, cursor.after, now)
                .filter(|(id, row)| !row.is_unknown && !known.contains(id))
                .take(cursor.room as usize);
            seen.extend(due.map(|(id, row)| self.seen(id, row)));
        }
        seen
    }

    fn seen(&self, id: JobId, row: &Row) -> Seen {
        let recipient = format!("+90555{:07}", row.person);
        let (opted_in_at, opted_out_at) = self.consents[&row.person];
        let window = self.windows.get(&(row.person, row.lane));
        Seen {
            job: Job {
                id,
                lane: row.lane,
                priority: row.priority,
                due_at: row.due_at,
                tries: row.tries,
                spent: row.spent,
                kind: row.kind.name.into(),
                person: recipient.clone(),
                recipient,
                template: Some(TemplateName {
                    name: TEMPLATE.0.to_owned(),
                    language: TEMPLATE.1.to_owned(),
                }),
                content: content(),
                enqueued_at: row.enqueued_at,
                expires_at: row.expires_at,
                batch: None,
            },
            facts: PersonFacts {
                opted_in_at: Some(opted_in_at),
                opted_out_at,
                window_until: window.copied(),
            },
            recipient_hash: row.person,
        }
    }

    /// The checks of `attempt.sql`. What it will insert is visible, and what it holds is let go, when it commits.
    pub(crate) fn check_attempt(
        &mut self,
        held: &[Held],
        wanted: &[Wanted],
        now: Time,
    ) -> Transaction {
        let is_fenced = |held: &&Held| {
            self.is(Sabotage::LeaseNotChecked)
                || self
                    .leases
                    .get(&held.shard)
                    .is_some_and(|lease| lease.epoch == held.epoch && lease.expires_at > now)
        };
        let fence: BTreeSet<i16> = held.iter().filter(is_fenced).map(|h| h.shard).collect();
        let permitted = wanted.iter().filter(|w| {
            let number = &self.numbers[&w.lane];
            fence.contains(&w.shard)
                && number.shard == w.shard
                && number.free_at <= now
                && number.open_since.is_none()
                && self.is_as_believed(w)
                && !self.is_locked(w.id)
        });
        let rows = permitted.map(|w| AttemptRow::of(w, now));
        Transaction {
            rows: rows.collect(),
            held: held.to_vec(),
            shards: fence,
        }
    }

    /// The join to the queue, and to the opt-outs.
    fn is_as_believed(&self, wanted: &Wanted) -> bool {
        if self.is(Sabotage::AttemptWithoutJoin) {
            return true;
        }
        let as_believed =
            |row: &Row| row.lane == wanted.lane && row.tries == wanted.tries && !row.is_unknown;
        self.queue.get(&wanted.id).is_some_and(as_believed) && !self.is_out(wanted.recipient_hash)
    }

    /// Whether the person's last word is no.
    pub(crate) fn is_out(&self, person: i64) -> bool {
        self.consents
            .get(&person)
            .is_some_and(|(opted_in, out)| out.is_some_and(|out| out >= *opted_in))
    }

    /// The commit of an attempt; `None` when it was undone before.
    pub(crate) fn commit_attempt(&mut self, number: u64) -> Option<Vec<(JobId, Time)>> {
        let Transaction { rows, held, shards } = self.transactions.remove(&number)?;
        let is_stale = |held: &Held| {
            shards.contains(&held.shard) && self.leases[&held.shard].epoch != held.epoch
        };
        self.intrusions += usize::from(!rows.is_empty() && held.iter().any(is_stale));
        for row in &rows {
            self.write_attempt(*row);
        }
        Some(rows.iter().map(|row| (row.job, row.at)).collect())
    }

    pub(crate) fn write_attempt(&mut self, row: AttemptRow) {
        self.attempts.push(row);
        *self.attempted.entry((row.job, row.attempt)).or_default() += 1;
    }

    /// One kind of outcome after the other, as the hands write them; `from` leaves out those that were written already.
    pub(crate) fn settle(&mut self, batch: &Batch, statement: usize) {
        match statement {
            0 => batch.accepted.iter().for_each(|a| self.accepted(a)),
            1 => batch.waiting.iter().for_each(|w| self.waiting(w)),
            2 => batch.dead.iter().for_each(|d| self.ended(d)),
            _ => batch.deferred.iter().for_each(|d| self.deferred(d)),
        }
    }

    /// Whether the job is still there at this attempt.
    fn is_at(&self, id: JobId, attempt: i32) -> bool {
        self.queue
            .get(&id)
            .is_some_and(|row| row.tries == attempt - 1)
    }

    fn accepted(&mut self, accepted: &Accepted) {
        if !self.is_at(accepted.id, accepted.attempt) {
            return;
        }
        let Some(row) = self.remove(accepted.id) else {
            return;
        };
        let state = match accepted.held {
            true => State::Held,
            false => State::Accepted,
        };
        let message = Message {
            day: accepted.day,
            attempt: accepted.attempt,
            lane: row.lane,
            person: row.person,
            spent: row.spent,
            was_held: accepted.held,
            progress: Progress::in_state(state),
        };
        self.messages.entry(accepted.id).or_insert(message);
    }

    fn waiting(&mut self, waiting: &Waiting) {
        if !self.is_at(waiting.id, waiting.attempt) {
            return;
        }
        let mut is_unknown = waiting.reason == WaitReason::AwaitingReceipt;
        let mut due_at = waiting.due_at;
        if is_unknown && self.is(Sabotage::UnknownAsFailed) {
            (is_unknown, due_at) = (false, waiting.at);
        }
        self.update(waiting.id, |row| {
            row.reason = Some(waiting.reason);
            row.unknown_since = match is_unknown {
                true => row.unknown_since.max(waiting.since),
                false => None,
            };
            row.due_at = match is_unknown && row.is_unknown {
                true => row.due_at.max(due_at),
                false => due_at,
            };
            row.is_unknown = is_unknown;
            row.tries += i32::from(!is_unknown);
            row.spent += i32::from(waiting.spends);
        });
        self.answer(waiting.id, waiting.attempt, waiting.answered.outcome);
    }

    fn ended(&mut self, dead: &Dead) {
        let is_answered = dead.answered.is_some();
        let may_end = |row: &Row| is_answered || !row.is_unknown;
        if !self.is_at(dead.id, dead.attempt) || !self.queue.get(&dead.id).is_some_and(may_end) {
            return;
        }
        if let Some(mut row) = self.remove(dead.id) {
            if let Some(answered) = &dead.answered {
                self.answer(dead.id, dead.attempt, answered.outcome);
            }
            let is_known = matches!(dead.state, State::Rejected | State::Expired);
            let is_lost = is_known && self.may_have_left(dead.id, &row);
            row.tries += i32::from(is_answered);
            row.spent += i32::from(dead.spends);
            self.bury(
                dead.id,
                row,
                if is_lost { State::Unknown } else { dead.state },
            );
        }
    }

    fn deferred(&mut self, deferred: &Deferred) {
        let as_believed = |row: &Row| row.tries == deferred.tries && !row.is_unknown;
        if self.queue.get(&deferred.id).is_some_and(as_believed)
            && !self
                .attempted
                .contains_key(&(deferred.id, deferred.tries + 1))
        {
            self.update(deferred.id, |row| {
                row.due_at = deferred.due_at;
                row.reason = Some(deferred.reason);
            });
        }
    }

    pub(crate) fn answer(&mut self, id: JobId, attempt: i32, outcome: &'static str) {
        self.answers.entry((id, attempt)).or_default().push(outcome);
    }

    /// When the last attempt of the job with this number was committed.
    pub(crate) fn time_of(&self, id: JobId, attempt: i32) -> Option<Time> {
        let of = |row: &&AttemptRow| row.job == id && row.attempt == attempt;
        self.attempts.iter().rev().find(of).map(|row| row.at)
    }
}

fn content() -> Box<RawValue> {
    RawValue::from_string(r#"{"body":["Ada"]}"#.to_owned()).expect("it is JSON")
}
