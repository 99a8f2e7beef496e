//! Outcomes on their way to the database: gathered into batches, kept until they are written.

use std::time::Duration;

use crate::{
    rules::job::JobId,
    store::settle::{Accepted, Dead, Deferred, Waiting},
};

/// A batch is written when it has this many outcomes, or when its oldest has waited for [`BATCH_AGE_MAX`].
pub const BATCH_MAX: usize = 1_000;

/// After an outage many wait: as many as the database writes well within the time that it has for it.
const WRITE_MAX: usize = 5 * BATCH_MAX;

/// Long enough to gather a batch under load, short enough that nobody waits for it.
pub const BATCH_AGE_MAX: Duration = Duration::from_millis(20);

/// A batch as large as this shows a rush, and the next is gathered for longer: fewer commits, and
/// nobody waits for these.
const RUSH: usize = 50;
const BATCH_AGE_MAX_IN_A_RUSH: Duration = Duration::from_millis(50);

/// One statement for each kind of outcome; two batches overlap so that one is gathered while the other commits.
const WRITES_MAX: usize = 2;

/// After the database did not answer, the next write waits for this long.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// What an attempt, or the gate, came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The provider took it.
    Accepted(Accepted),
    /// It stays in the queue.
    Waiting(Waiting),
    /// It ends unsent.
    Dead(Dead),
    /// It was not attempted, and comes back later.
    Deferred(Deferred),
}

/// Outcomes that are written together.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Jobs that the provider took.
    pub accepted: Vec<Accepted>,
    /// Jobs that stay in the queue.
    pub waiting: Vec<Waiting>,
    /// Jobs that end unsent.
    pub dead: Vec<Dead>,
    /// Jobs without an attempt that come back later.
    pub deferred: Vec<Deferred>,
}

impl Batch {
    /// How many outcomes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accepted.len() + self.waiting.len() + self.dead.len() + self.deferred.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The jobs it settles.
    pub fn ids(&self) -> impl Iterator<Item = JobId> + '_ {
        let accepted = self.accepted.iter().map(|a| a.id);
        let waiting = self.waiting.iter().map(|w| w.id);
        accepted
            .chain(waiting)
            .chain(self.dead.iter().map(|d| d.id))
            .chain(self.deferred.iter().map(|d| d.id))
    }

    fn push(&mut self, settlement: Settlement) {
        match settlement {
            Settlement::Accepted(accepted) => self.accepted.push(accepted),
            Settlement::Waiting(waiting) => self.waiting.push(waiting),
            Settlement::Dead(dead) => self.dead.push(dead),
            Settlement::Deferred(deferred) => self.deferred.push(deferred),
        }
    }

    /// Takes at most so many out of it.
    fn split_front(&mut self, most: usize) -> Batch {
        let mut left = most;
        Batch {
            accepted: front(&mut self.accepted, &mut left),
            waiting: front(&mut self.waiting, &mut left),
            dead: front(&mut self.dead, &mut left),
            deferred: front(&mut self.deferred, &mut left),
        }
    }

    fn absorb(&mut self, mut other: Batch) {
        self.accepted.append(&mut other.accepted);
        self.waiting.append(&mut other.waiting);
        self.dead.append(&mut other.dead);
        self.deferred.append(&mut other.deferred);
    }
}

fn front<T>(from: &mut Vec<T>, left: &mut usize) -> Vec<T> {
    let taken = from.len().min(*left);
    *left -= taken;
    let rest = from.split_off(taken);
    std::mem::replace(from, rest)
}

/// Gathers outcomes and says when to write them.
#[derive(Debug, Default)]
pub struct Outbox {
    gathering: Batch,
    since: Duration,
    /// Written to the database but not confirmed yet.
    writing: usize,
    writes: usize,
    not_before: Duration,
    /// Outcomes of the last batch.
    taken: usize,
}

impl Outbox {
    /// Adds an outcome.
    pub fn push(&mut self, settlement: Settlement, now: Duration) {
        if self.gathering.is_empty() {
            self.since = now;
        }
        self.gathering.push(settlement);
    }

    /// How many outcomes are not confirmed yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gathering.len() + self.writing
    }

    /// Whether everything is written and confirmed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// When the next batch is to be written, if any is and a write is free.
    #[must_use]
    pub fn due_at(&self) -> Option<Duration> {
        if self.gathering.is_empty() || self.writes >= WRITES_MAX {
            return None;
        }
        let full = self.gathering.len() >= BATCH_MAX;
        let gathered = match full {
            true => self.since,
            false if self.taken >= RUSH => self.since + BATCH_AGE_MAX_IN_A_RUSH,
            false => self.since + BATCH_AGE_MAX,
        };
        Some(gathered.max(self.not_before))
    }

    /// The batch to be written now, if one is due.
    pub fn take(&mut self, now: Duration) -> Option<Batch> {
        if self.due_at()? > now {
            return None;
        }
        let batch = self.gathering.split_front(WRITE_MAX);
        self.taken = batch.len();
        self.writing += batch.len();
        self.writes += 1;
        Some(batch)
    }

    /// A write ended. What was not written is kept and written again later.
    pub fn done(&mut self, batch: Batch, written: bool, now: Duration) {
        self.writes -= 1;
        self.writing -= batch.len();
        if !written {
            self.not_before = now + RETRY_AFTER;
            if self.gathering.is_empty() {
                self.since = now;
            }
            self.gathering.absorb(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::{rules::job::Priority, store::settle::Tags};

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn accepted(id: i64) -> Settlement {
        Settlement::Accepted(Accepted {
            id: JobId(id),
            attempt: 1,
            day: DateTime::UNIX_EPOCH.date_naive(),
            provider_id: String::new(),
            held: false,
            at: DateTime::UNIX_EPOCH,
            tags: Tags {
                kind: "order".into(),
                priority: Priority::Normal,
                enqueued_at: DateTime::UNIX_EPOCH,
            },
        })
    }

    #[test]
    fn a_small_batch_waits_until_it_is_old_enough() {
        let mut outbox = Outbox::default();
        outbox.push(accepted(1), ms(5));
        assert_eq!(outbox.take(ms(5)), None);
        assert_eq!(outbox.due_at(), Some(ms(5) + BATCH_AGE_MAX));
        assert_eq!(
            outbox.take(ms(5) + BATCH_AGE_MAX).map(|batch| batch.len()),
            Some(1)
        );
    }

    #[test]
    fn a_full_batch_goes_at_once() {
        let mut outbox = Outbox::default();
        for id in 0..BATCH_MAX {
            outbox.push(accepted(id as i64), ms(5));
        }
        assert_eq!(outbox.take(ms(5)).map(|batch| batch.len()), Some(BATCH_MAX));
    }

    #[test]
    fn what_has_piled_up_is_written_in_parts() {
        let mut outbox = Outbox::default();
        for id in 0..WRITE_MAX + 10 {
            outbox.push(accepted(id as i64), ms(5));
        }
        let later = ms(5) + BATCH_AGE_MAX_IN_A_RUSH;
        let taken = [outbox.take(ms(5)), outbox.take(later)];
        let taken: Vec<usize> = taken.iter().flatten().map(Batch::len).collect();
        assert_eq!(taken, [WRITE_MAX, 10]);
        assert_eq!(outbox.len(), WRITE_MAX + 10);
    }

    #[test]
    fn in_a_rush_a_batch_gathers_for_longer() {
        let mut outbox = Outbox::default();
        let mut next = |outcomes: usize, at: Duration| {
            for id in 0..outcomes {
                outbox.push(accepted(id as i64), at);
            }
            let due_at = outbox.due_at().expect("there is something to write");
            let batch = outbox.take(due_at).expect("it is due");
            outbox.done(batch, true, due_at);
            due_at - at
        };
        assert_eq!(next(RUSH, ms(0)), BATCH_AGE_MAX);
        assert_eq!(next(1, ms(100)), BATCH_AGE_MAX_IN_A_RUSH);
        assert_eq!(next(1, ms(200)), BATCH_AGE_MAX, "the last was small");
    }

    #[test]
    fn no_more_than_two_writes_are_under_way() {
        let mut outbox = Outbox::default();
        for write in 0..3 {
            outbox.push(accepted(write), ms(0));
            assert_eq!(outbox.take(ms(100)).is_some(), write < 2);
        }
        assert_eq!(outbox.len(), 3);
    }

    #[test]
    fn what_the_database_did_not_take_is_kept_and_written_again_later() {
        let mut outbox = Outbox::default();
        outbox.push(accepted(7), ms(0));
        let batch = outbox.take(BATCH_AGE_MAX).expect("due");
        outbox.done(batch.clone(), false, ms(20));
        assert_eq!(outbox.take(ms(200)), None);
        assert_eq!(outbox.take(ms(270)), Some(batch.clone()));
        outbox.done(batch, true, ms(280));
        assert!(outbox.is_empty());
    }
}
