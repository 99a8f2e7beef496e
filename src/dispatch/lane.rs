//! One number's jobs in memory, from the look to the wire.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::{ids::IdMap, settlement::Attempt, world::LaneFacts};
use crate::{
    rules::{
        job::{JobId, Priority, TemplateName},
        pace::{Hand, Pacer, Rate},
        pick::{Floor, Turns},
        tempo::Tempo,
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
    /// The person's service window with this number, if one is open.
    pub window_until: Option<DateTime<Utc>>,
    /// Whether it counts against the messaging limit; known when it is admitted.
    pub counted: bool,
    /// Whether it goes to see if what was stopped may go again.
    pub is_probe: bool,
    /// When the gate saw the facts that it passed by.
    pub passed_at: Duration,
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
    /// From then on what was checked when the attempt was made is no longer fresh, and it is not posted.
    pub fresh_until: Duration,
}

impl Permitted {
    /// What its settlement needs to know.
    #[must_use]
    pub fn attempt(&self) -> Attempt {
        Attempt {
            id: self.job.id,
            number: self.job.tries + 1,
            at: self.at,
            left_at: self.at,
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
    after: Key,
    /// How far a look came that went back and could not read all that is before `after`.
    behind: Option<Key>,
    /// Whether the next look goes on from there: in turns with those behind `after`, where new jobs are.
    goes_behind: bool,
    went_back: Duration,
    went_to_head: Duration,
    begun: u32,
}

impl Reading {
    fn new(now: Duration) -> Self {
        Self {
            after: HEAD,
            behind: None,
            goes_behind: false,
            went_back: now,
            went_to_head: now,
            begun: 0,
        }
    }

    /// From where the next look reads.
    pub fn next_look(&mut self, now: Duration) -> Key {
        self.goes_behind = !self.goes_behind;
        if self.goes_behind
            && let Some(behind) = self.behind.take()
        {
            return behind;
        }
        if self.behind.is_none() && now >= self.went_to_head + HEAD_EVERY {
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
    pub fn after(&self) -> Key {
        self.after
    }

    /// How often it began anew.
    #[must_use]
    pub fn begun(&self) -> u32 {
        self.begun
    }

    /// Notes how far a look came.
    pub fn read_to(&mut self, key: Key) {
        self.after = self.after.max(key);
    }

    /// A look from `start` could not read all that is due, only up to `end`: another goes on from there.
    pub fn came_to(&mut self, start: Key, end: Key) {
        if start >= self.after {
            self.after = end;
        } else if end < self.after {
            self.behind = Some(self.behind.map_or(end, |behind| behind.min(end)));
        }
    }

    /// The next look reads on from there, if it would have been beyond.
    pub fn go_on_from(&mut self, key: Key) {
        self.after = self.after.min(key);
    }

    /// The next look starts at the head: something that was passed over may go now.
    pub fn reset(&mut self) {
        self.after = HEAD;
        self.behind = None;
        self.begun = self.begun.wrapping_add(1);
    }
}

/// Where a job stands in its lane.
pub type Key = (DateTime<Utc>, JobId);

/// Before every job.
pub const HEAD: Key = (DateTime::UNIX_EPOCH, JobId(0));

/// Jobs by priority.
pub type ByPriority<T> = [T; Priority::ALL.len()];

/// A number's jobs in memory.
#[derive(Debug)]
pub struct LaneState {
    /// What the provider and the configuration say of the number.
    pub facts: Arc<LaneFacts>,
    /// When it may post.
    pub pacer: Pacer,
    /// Passed the gate, without an attempt.
    pub buffered: ByPriority<VecDeque<Prepared>>,
    /// Passed the gate, but the messaging limit has no room for them.
    pub parked: ByPriority<VecDeque<Prepared>>,
    /// When some room is back, as far as can be foreseen.
    pub room_at: Duration,
    /// With an attempt that is being committed.
    pub attempting: IdMap<JobId, Prepared>,
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
    /// How much of its rate it uses.
    pub tempo: Tempo,
    /// When its last message was written.
    pub posted_at: Option<Duration>,
    /// Messages since the worker last reported.
    pub posted: u32,
    /// Whether it waits in the heap of due lanes.
    pub scheduled: bool,
}

impl LaneState {
    /// An empty lane.
    #[must_use]
    pub fn new(
        facts: Arc<LaneFacts>,
        jitter_allowance: Duration,
        hand: &Hand,
        now: Duration,
    ) -> Self {
        Self {
            pacer: Pacer::new(facts.rate, jitter_allowance, hand),
            tempo: Tempo::new(facts.rate),
            facts,
            buffered: Default::default(),
            parked: Default::default(),
            room_at: Duration::MAX,
            attempting: IdMap::default(),
            ready: Default::default(),
            attempt_turns: Turns::default(),
            slot_turns: Turns::default(),
            reading: std::array::from_fn(|_| Reading::new(now)),
            hold_until: Duration::ZERO,
            posted_at: None,
            posted: 0,
            scheduled: false,
        }
    }

    /// What an operator or the provider wants of its rate.
    pub fn set_rate(&mut self, rate: Rate) {
        self.tempo.set_configured(rate);
        self.pacer.set_rate(self.tempo.rate());
    }

    /// What normal and bulk jobs keep of its slots.
    pub fn set_floor(&mut self, floor: Floor) {
        self.attempt_turns.set_floor(floor);
        self.slot_turns.set_floor(floor);
    }

    /// A message that was written at `sent` was taken.
    pub fn accepted(&mut self, sent: Duration, held: bool, now: Duration) {
        self.tempo.accepted(sent, held, now);
        self.pacer.set_rate(self.tempo.rate());
    }

    /// A message that was written at `sent` was throttled.
    pub fn throttled(&mut self, sent: Duration, now: Duration) {
        if let Some(hold) = self.tempo.throttled(sent, now) {
            self.hold_until = self.hold_until.max(now + hold);
            self.pacer.set_rate(self.tempo.rate());
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

    /// How many jobs wait for room.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parked.iter().map(VecDeque::len).sum()
    }

    /// Takes the next job to be attempted out of the buffers.
    pub fn next_buffered(&mut self) -> Option<(Priority, Prepared)> {
        let buffered = &self.buffered;
        let priority = self
            .attempt_turns
            .next(|priority| !buffered[priority as usize].is_empty())?;
        let job = self.buffered[priority as usize].pop_front()?;
        Some((priority, job))
    }

    /// The job that was taken out is attempted.
    pub fn start_attempt(&mut self, priority: Priority, job: Prepared) -> &Prepared {
        let buffered = &self.buffered;
        self.attempt_turns.took(priority, |other| {
            other == priority || !buffered[other as usize].is_empty()
        });
        self.attempting.entry(job.id).insert_entry(job).into_mut()
    }

    /// When the first of those that wait for room passed the gate.
    #[must_use]
    pub fn parked_passed_at(&self) -> Option<Duration> {
        let first = self.parked.iter().filter_map(VecDeque::front);
        first.map(|job| job.passed_at).min()
    }

    /// The job that was taken out waits until there is room, at `room_at` at the soonest.
    pub fn park(&mut self, job: Prepared, room_at: Duration) {
        if self.parked() == 0 {
            self.room_at = room_at;
        }
        self.room_at = self.room_at.min(room_at);
        self.parked[job.priority as usize].push_back(job);
    }

    /// What waited for room comes before what was looked at since.
    pub fn unpark(&mut self) {
        for (parked, buffered) in self.parked.iter_mut().zip(&mut self.buffered) {
            parked.append(buffered);
            std::mem::swap(parked, buffered);
        }
    }

    /// Forgets what waits for room; it will be read again from the head.
    pub fn forget_parked(&mut self) -> Vec<JobId> {
        let jobs = self.parked.iter_mut().flat_map(|jobs| jobs.drain(..));
        let ids = jobs.map(|job| job.id).collect();
        self.reading.iter_mut().for_each(Reading::reset);
        ids
    }

    /// Takes out a job that has no attempt; whether it was there.
    pub fn take_waiting(&mut self, priority: Priority, id: JobId) -> bool {
        // They are mostly asked for in the order in which they stand.
        let take = |jobs: &mut VecDeque<Prepared>| {
            let place = jobs.iter().position(|job| job.id == id);
            place.and_then(|place| jobs.remove(place)).is_some()
        };
        take(&mut self.parked[priority as usize]) || take(&mut self.buffered[priority as usize])
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

    /// Takes the jobs whose checks are no longer fresh.
    pub fn take_stale(&mut self, now: Duration) -> Vec<Permitted> {
        let mut stale = Vec::new();
        for ready in &mut self.ready {
            while let Some(job) = ready.pop_front_if(|job| job.fresh_until <= now) {
                stale.push(job);
            }
        }
        stale
    }

    /// When the first job that waits for a slot is no longer fresh.
    #[must_use]
    pub fn stale_at(&self) -> Option<Duration> {
        let first = self.ready.iter().filter_map(VecDeque::front);
        first.map(|job| job.fresh_until).min()
    }

    /// Empties the lane: the ids of jobs without an attempt, and the jobs whose attempt is committed but not used. What is
    /// being attempted stays until the database has answered.
    pub fn relinquish(&mut self) -> (Vec<JobId>, Vec<Permitted>) {
        let waiting = self
            .buffered
            .iter_mut()
            .chain(&mut self.parked)
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
        for jobs in self.buffered.iter_mut().chain(&mut self.parked) {
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
