//! One number's jobs in memory, from the look to the wire.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use chrono::{DateTime, Utc};

use super::{settlement::Attempt, world::LaneFacts};
use crate::{
    rules::{
        job::{JobId, Priority, TemplateName},
        pace::{Hand, Pacer},
        pick::Turns,
    },
    store::settle::Tags,
};

/// How often a look goes back a little, and how far: commit order is not key order.
const BACK_EVERY: Duration = Duration::from_secs(2);
const BACK_BY: Duration = Duration::from_secs(30);

/// How often a look goes back to the head, for transactions that committed even later.
const HEAD_EVERY: Duration = Duration::from_secs(60);

/// A job that may go, with its request prepared.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The job.
    pub id: JobId,
    /// How urgent.
    pub priority: Priority,
    /// Attempts answered.
    pub tries: i32,
    /// Attempts that the provider's word spent.
    pub spent: i32,
    /// Not sent after this.
    pub expires_at: DateTime<Utc>,
    /// What it is counted by.
    pub tags: Tags,
    /// How long its kind waits for the receipt of an unanswered request.
    pub resolve_after: Duration,
    /// The template, for what an answer says about it.
    pub template: Option<TemplateName>,
    /// The upstream's name for a group of jobs.
    pub batch: Option<String>,
    /// Where it goes.
    pub recipient: String,
    /// The person's canonical key.
    pub person: String,
    /// Keyed hash of the person.
    pub recipient_hash: i64,
    /// Whether it counts against the messaging limit.
    pub counted: bool,
    /// The request's body up to the callback data.
    pub body: Vec<u8>,
}

/// A job whose attempt is committed.
#[derive(Debug, Clone)]
pub struct Permitted {
    /// The job.
    pub job: Prepared,
    /// When the attempt was committed.
    pub at: DateTime<Utc>,
}

impl Permitted {
    /// What its settlement needs to know.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt {
            id: self.job.id,
            number: self.job.tries + 1,
            at: self.at,
            spent: self.job.spent,
            expires_at: self.job.expires_at,
            resolve_after: self.job.resolve_after,
            tags: self.job.tags.clone(),
        }
    }
}

/// How far a lane was read, for one priority.
#[derive(Debug, Clone)]
pub struct Reading {
    after: (DateTime<Utc>, JobId),
    went_back: Duration,
    went_to_head: Duration,
    begun: u32,
}

impl Reading {
    fn new(now: Duration) -> Self {
        Self {
            after: HEAD,
            went_back: now,
            went_to_head: now,
            begun: 0,
        }
    }

    /// From where the next look reads.
    pub fn next_look(&mut self, now: Duration) -> (DateTime<Utc>, JobId) {
        if now >= self.went_to_head + HEAD_EVERY {
            self.went_to_head = now;
            self.went_back = now;
            return HEAD;
        }
        if now >= self.went_back + BACK_EVERY {
            self.went_back = now;
            return (self.after.0 - BACK_BY, JobId(0)).min(self.after).max(HEAD);
        }
        self.after
    }

    /// How far it was read.
    #[must_use]
    pub fn after(&self) -> (DateTime<Utc>, JobId) {
        self.after
    }

    /// How often it began anew.
    #[must_use]
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// Notes how far a look came.
    pub fn read_to(&mut self, key: (DateTime<Utc>, JobId)) {
        self.after = self.after.max(key);
    }

    /// The next look starts at the head: something that was passed over may go now.
    pub fn reset(&mut self) {
        self.after = HEAD;
        self.begun = self.begun.wrapping_add(1);
    }
}

/// Before every job.
pub const HEAD: (DateTime<Utc>, JobId) = (DateTime::UNIX_EPOCH, JobId(0));

/// Jobs by priority.
pub type ByPriority<T> = [T; Priority::ALL.len()];

/// A number's jobs in memory.
#[derive(Debug)]
pub struct LaneState {
    /// What the provider and the configuration say of the number.
    pub facts: LaneFacts,
    /// When it may post.
    pub pacer: Pacer,
    /// Passed the gate, without an attempt.
    pub buffered: ByPriority<VecDeque<Prepared>>,
    /// With an attempt that is being committed.
    pub attempting: HashMap<JobId, Prepared>,
    /// With a committed attempt, waiting for a slot.
    pub ready: ByPriority<VecDeque<Permitted>>,
    /// Who gets the next attempt.
    pub attempt_turns: Turns,
    /// Who gets the next slot.
    pub slot_turns: Turns,
    /// How far it was read.
    pub reading: ByPriority<Reading>,
    /// Nothing is posted before this: the provider throttled the number or its account.
    pub hold_until: Duration,
    /// Throttles in a row, for how long to hold.
    pub throttles: u32,
    /// Whether it waits in the heap of due lanes.
    pub scheduled: bool,
}

impl LaneState {
    /// An empty lane.
    #[must_use]
    pub fn new(facts: LaneFacts, jitter_allowance: Duration, hand: &Hand, now: Duration) -> Self {
        Self {
            pacer: Pacer::new(facts.rate, jitter_allowance, hand),
            facts,
            buffered: Default::default(),
            attempting: HashMap::new(),
            ready: Default::default(),
            attempt_turns: Turns::default(),
            slot_turns: Turns::default(),
            reading: std::array::from_fn(|_| Reading::new(now)),
            hold_until: Duration::ZERO,
            throttles: 0,
            scheduled: false,
        }
    }

    /// How many jobs have an attempt and are not posted yet.
    #[must_use]
    pub fn in_pipeline(&self) -> usize {
        self.attempting.len() + self.ready.iter().map(VecDeque::len).sum::<usize>()
    }

    /// How many jobs passed the gate and have no attempt.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.buffered.iter().map(VecDeque::len).sum()
    }

    /// Whether an urgent job waits while none has an attempt.
    #[must_use]
    pub fn lacks_urgent_attempt(&self) -> bool {
        let urgent = Priority::Urgent as usize;
        !self.buffered[urgent].is_empty()
            && self.ready[urgent].is_empty()
            && !self
                .attempting
                .values()
                .any(|job| job.priority == Priority::Urgent)
    }

    /// Takes the next job to be attempted out of the buffer.
    pub fn next_to_attempt(&mut self) -> Option<&Prepared> {
        let buffered = &self.buffered;
        let waits = |priority: Priority| !buffered[priority as usize].is_empty();
        let priority = self.attempt_turns.next(waits)?;
        self.attempt_turns.took(priority, waits);
        let job = self.buffered[priority as usize].pop_front()?;
        let id = job.id;
        Some(self.attempting.entry(id).insert_entry(job).into_mut())
    }

    /// The priority whose job takes the next slot.
    #[must_use]
    pub fn next_to_post(&self) -> Option<Priority> {
        self.slot_turns
            .next(|priority| !self.ready[priority as usize].is_empty())
    }

    /// Takes the job that the slot goes to.
    pub fn take_ready(&mut self, priority: Priority) -> Option<Permitted> {
        let ready = &self.ready;
        self.slot_turns
            .took(priority, |priority| !ready[priority as usize].is_empty());
        self.ready[priority as usize].pop_front()
    }

    /// Empties the lane: the ids of jobs without an attempt, and the jobs whose attempt is committed but not used. What is
    /// being attempted stays until the database has answered.
    pub fn relinquish(&mut self) -> (Vec<JobId>, Vec<Permitted>) {
        let waiting = self
            .buffered
            .iter_mut()
            .flat_map(|jobs| jobs.drain(..))
            .map(|job| job.id)
            .collect();
        let ready = self
            .ready
            .iter_mut()
            .flat_map(|jobs| jobs.drain(..))
            .collect();
        for reading in &mut self.reading {
            reading.reset();
        }
        (waiting, ready)
    }

    /// Takes out some jobs: the ids of those without an attempt, and those whose attempt is committed but not used. What is
    /// being attempted stays until the database has answered.
    pub fn withdraw(
        &mut self,
        is_meant: impl Fn(&Prepared) -> bool,
    ) -> (Vec<JobId>, Vec<Permitted>) {
        let (mut waiting, mut ready) = (Vec::new(), Vec::new());
        for jobs in &mut self.buffered {
            let meant = take_out(jobs, &is_meant);
            waiting.extend(meant.into_iter().map(|job| job.id));
        }
        for jobs in &mut self.ready {
            ready.extend(take_out(jobs, |next| is_meant(&next.job)));
        }
        (waiting, ready)
    }
}

/// Takes out what is meant; the others keep their order.
fn take_out<T>(jobs: &mut VecDeque<T>, is_meant: impl Fn(&T) -> bool) -> VecDeque<T> {
    let (meant, others) = std::mem::take(jobs).into_iter().partition(is_meant);
    *jobs = others;
    meant
}
