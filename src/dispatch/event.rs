//! What happens to a worker, and what it wants done. Between the two stands a plain function.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};

use super::{
    holdings::Quiet,
    limits::Standing,
    outbox::Batch,
    world::{Leases, World},
};
use crate::{
    channel::whatsapp::Sender,
    rules::{
        breaker::{Claim, Due, Opened, Target},
        job::{JobId, Lane, Priority, TemplateName},
        outcome::{Answer, Effect},
        pair::{Allowance, Pair},
    },
    store::{
        attempt::{Held, Wanted},
        look::{Cursor, Holds, Seen},
        people::Link,
    },
};

/// The time, read once for each turn.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Since the worker's start, on the monotonic clock.
    pub mono: Duration,
    /// Since the machine's start, also while it slept: what leases are measured by.
    pub boot: Duration,
    /// By the wall clock.
    pub wall: DateTime<Utc>,
}

/// Why a look is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookFor {
    /// The poll, for every lane with room.
    Room,
    /// An urgent job rang.
    Bell,
}

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// Facts changed.
    World(Arc<World>),
    /// Leases were taken, renewed or lost.
    Leases(Leases),
    /// An urgent job was committed; `None` when we may have missed rings.
    Rang(Option<Lane>),
    /// Lanes and priorities that have rows; `None` when the database did not answer.
    LanesFound(Option<Vec<(Lane, Priority)>>),
    /// A look came back.
    Looked {
        /// Why it was made.
        why: LookFor,
        /// What was asked.
        cursors: Vec<Cursor>,
        /// What was there; `None` when the database did not answer.
        seen: Option<Vec<Seen>>,
    },
    /// Attempts were committed, or not.
    Attempted {
        /// Whether they were asked for an urgent job.
        urgent: bool,
        /// What was asked.
        wanted: Vec<Wanted>,
        /// What may be posted; `None` when the database did not answer, and then nothing may.
        permitted: Option<Vec<(JobId, DateTime<Utc>)>>,
        /// How long the statement took.
        took: Duration,
    },
    /// What was posted through a pool before.
    Counted {
        /// The pool.
        pool: Arc<str>,
        /// How it stood when it was asked.
        standing: Standing,
        /// Each person with the time of their last message that counts; `None` when the database did not answer.
        posts: Option<Vec<(i64, DateTime<Utc>)>>,
    },
    /// What the pairs of some lanes got of late.
    PairsCounted {
        /// The lanes, as they stood when it was asked.
        standing: Standing,
        /// How many messages each pair got; `None` when the database did not answer.
        posts: Option<Vec<(Pair, u32)>>,
    },
    /// A request was written to its connection.
    Left {
        /// The job.
        id: JobId,
        /// When, on the monotonic clock.
        at: Duration,
    },
    /// A request was answered, or was not.
    Posted {
        /// The job.
        id: JobId,
        /// The provider's word.
        answer: Answer,
        /// When the account may be used again, where the provider says that it is used up.
        regain_access_in: Option<Duration>,
        /// From 0 to 1, for the jitter of a retry.
        chance: f64,
    },
    /// It was asked who may try what several workers send by.
    Claimed {
        /// What was stopped.
        target: Target,
        /// Who.
        claim: Claim,
    },
    /// A batch of outcomes was written, or not.
    Settled {
        /// The batch.
        batch: Batch,
        /// Whether the database took it.
        written: bool,
    },
    /// Take no more work; finish what is on the wire.
    Drain,
}

/// Something to be done.
#[derive(Debug)]
pub enum Action {
    /// Ask which lanes have rows.
    FindLanes,
    /// Read due jobs.
    Look {
        /// Why.
        why: LookFor,
        /// From where.
        cursors: Vec<Cursor>,
        /// What to leave out.
        holds: Arc<Holds>,
        /// Jobs to leave out, because memory has them.
        known: Vec<JobId>,
    },
    /// Read what was posted through some pools before.
    Count {
        /// The pools, each with its lanes and in which epochs they are held.
        pools: Vec<(Arc<str>, Standing)>,
        /// Whether other numbers of their portfolios belong to the pools.
        whole_portfolios: bool,
    },
    /// Read how many messages the pairs of some lanes got of late.
    CountPairs {
        /// The lanes, and in which epochs they are held.
        standing: Standing,
        /// What a pair may do: how far back that matters.
        allowance: Allowance,
        /// Of what phone apps sent, only what was noted until then.
        asked_at: DateTime<Utc>,
    },
    /// Commit attempts.
    Attempt {
        /// Whether they are for an urgent job, and do not wait for others.
        urgent: bool,
        /// The leases they stand on.
        held: Vec<Held>,
        /// The jobs.
        wanted: Vec<Wanted>,
    },
    /// Post one request.
    Post {
        /// The job.
        id: JobId,
        /// Its number's lane.
        lane: Lane,
        /// Where to.
        sender: Sender,
        /// The body up to the callback data.
        body: Vec<u8>,
        /// What every receipt brings back.
        callback: String,
        /// It is kept back when it could be written only after this, on the boot-time clock: the lease ends, or what was
        /// checked is no longer fresh.
        not_after: Duration,
        /// As `not_after`, by the wall clock: the end of the job's validity.
        expires_at: DateTime<Utc>,
    },
    /// Write outcomes.
    Settle(Batch),
    /// Ask for being the one that tries what was stopped.
    Claim(Due),
    /// Write down what an answer means beyond its job.
    Learn(Learned),
    /// Tell that a shard can be given back.
    Quiet(Quiet),
    /// Nothing is left to do after a drain.
    Finish,
}

/// What an answer told beyond what became of its job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// The provider's word stops a number, an account or a template.
    Stopped(Opened, About),
    /// The message that tried what was stopped was taken.
    Closed(Due, About),
    /// The provider's word means something for the person.
    Effect(Effect, About),
    /// The provider knows the recipient by another address.
    SamePerson(Link),
}

/// What an effect is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Meta's id of the number.
    pub phone_number_id: String,
    /// The account.
    pub account: String,
    /// The number's lane.
    pub lane: Lane,
    /// Name and language of the template, if the job had one.
    pub template: Option<TemplateName>,
    /// The person's canonical key.
    pub person: String,
    /// The provider's error code, where it gave one.
    pub code: Option<i32>,
    /// The provider's words.
    pub title: String,
}
