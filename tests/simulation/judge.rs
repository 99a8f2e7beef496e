//! Watches over the promises, step by step. It knows only what anybody could see from outside: the rows, the requests as they
//! leave, and what the provider did with them.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    time::Duration,
};

use postrider::rules::{
    job::{JobId, Lane, State},
    receipt::rank,
};

use super::{
    database::{Database, clock},
    plan::{Plan, secs},
    provider::Provider,
};

/// A promise of `docs/ARCHITECTURE.md`, and one more: that everything comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    Conservation,
    WrittenBeforeSent,
    /// Only the holder of a shard commits attempts for it.
    OneOwner,
    NoDouble,
    NeverOverALimit,
    Consent,
    /// Nobody gets what was cancelled.
    Cancelled,
    Spending,
    StatusGoesForward,
    Liveness,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) promise: Promise,
    pub(crate) at: Duration,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} broken at {:?}: {}",
            self.promise, self.at, self.what
        )
    }
}

/// A request as it leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Post {
    pub(crate) job: JobId,
    pub(crate) attempt: i32,
    pub(crate) lane: Lane,
    pub(crate) person: i64,
}

/// What is remembered of a job between two steps.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    spent: i32,
    rank: i16,
    is_final: bool,
}

#[derive(Default)]
pub(crate) struct Judge {
    pub(crate) violation: Option<Violation>,
    jobs: BTreeMap<JobId, Known>,
    posts: BTreeMap<Lane, VecDeque<Duration>>,
    /// By pool, when each person was last written to in a way that counts.
    recipients: BTreeMap<usize, BTreeMap<i64, Duration>>,
    /// By pair, when its bucket will be full again.
    pairs: BTreeMap<(Lane, i64), Duration>,
    pub(crate) posted: usize,
}

impl Judge {
    pub(crate) fn broken(&mut self, promise: Promise, at: Duration, what: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { promise, at, what });
        }
    }

    /// After a statement: the jobs whose rows changed.
    pub(crate) fn rows(&mut self, database: &mut Database, provider: &Provider, at: Duration) {
        for id in std::mem::take(&mut database.touched) {
            self.row(id, database, provider, at);
        }
    }

    fn row(&mut self, id: JobId, database: &Database, provider: &Provider, at: Duration) {
        let (queued, message, dead) = (
            database.queue.get(&id),
            database.messages.get(&id),
            database.dead.get(&id),
        );
        let places = [queued.is_some(), message.is_some(), dead.is_some()]
            .map(usize::from)
            .iter()
            .sum::<usize>();
        if places != 1 {
            self.broken(
                Promise::Conservation,
                at,
                format!("job {id} is in {places} places"),
            );
        }
        let spent = queued
            .map(|row| row.spent)
            .or(message.map(|message| message.spent))
            .or(dead.map(|dead| dead.row.spent))
            .unwrap_or_default();
        let now = Known {
            spent,
            rank: message.map_or(0, |message| rank(message.progress.state)),
            is_final: queued.is_none(),
        };
        let before = self.jobs.insert(id, now).unwrap_or_default();
        let words = provider.words_about(id);
        if spent > words || spent < before.spent {
            let what = format!(
                "job {id} spent {spent} after {} with {words} words",
                before.spent
            );
            self.broken(Promise::Spending, at, what);
        }
        if now.rank < before.rank || (before.is_final && !now.is_final) {
            let what = format!("job {id} went back from {before:?} to {now:?}");
            self.broken(Promise::StatusGoesForward, at, what);
        }
    }

    /// After an attempt: whether somebody else had the shard by then.
    pub(crate) fn owner(&mut self, database: &Database, at: Duration) {
        if database.intrusions > 0 {
            let what = "an attempt was committed after the take-over of its shard".to_owned();
            self.broken(Promise::OneOwner, at, what);
        }
    }

    /// A request leaves.
    pub(crate) fn left(&mut self, post: Post, database: &Database, plan: &Plan, at: Duration) {
        self.posted += 1;
        let Post {
            job,
            attempt,
            lane,
            person,
        } = post;
        if !database.attempted.contains_key(&(job, attempt)) {
            let what = format!("attempt {attempt} of job {job} is not written");
            self.broken(Promise::WrittenBeforeSent, at, what);
        }
        if database
            .dead
            .get(&job)
            .is_some_and(|dead| dead.state == State::Cancelled)
        {
            let what = format!("job {job} was cancelled");
            self.broken(Promise::Cancelled, at, what);
        }
        if let Some((opted_in, Some(out))) = database.consents.get(&person)
            && out >= opted_in
            && *out < clock(at) - secs(2)
        {
            let what = format!("job {job} to person {person}, who withdrew at {out}");
            self.broken(Promise::Consent, at, what);
        }
        self.rate(lane, plan, at);
        self.pair((lane, person), plan, at);
        let window = database.windows.get(&(person, lane));
        if window.is_none_or(|until| *until <= clock(at)) {
            self.recipient(lane, person, plan, at);
        }
    }

    /// No window of a second, or what a rate that is no whole number makes of it, holds more than the rate.
    fn rate(&mut self, lane: Lane, plan: &Plan, at: Duration) {
        let Some(rate) = plan.lanes.iter().find(|l| l.lane == lane).map(|l| l.rate) else {
            return;
        };
        let (most, window) = (
            rate.ceil() as usize,
            Duration::from_secs_f64(rate.ceil() / rate),
        );
        let posts = self.posts.entry(lane).or_default();
        posts.push_back(at);
        if posts.len() > most + 1 {
            posts.pop_front();
        }
        let first = posts[0];
        if posts.len() > most && at - first < window {
            let what = format!("{} posts of lane {lane} in {:?}", most + 1, at - first);
            self.broken(Promise::NeverOverALimit, at, what);
        }
    }

    fn recipient(&mut self, lane: Lane, person: i64, plan: &Plan, at: Duration) {
        let Some(pool) = plan
            .lanes
            .iter()
            .find(|l| l.lane == lane)
            .and_then(|l| l.pool)
        else {
            return;
        };
        let day_ago = at.saturating_sub(secs(24 * 3_600));
        let recipients = self.recipients.entry(pool).or_default();
        recipients.insert(person, at);
        let is_early = at < secs(24 * 3_600);
        recipients.retain(|_, last| is_early || *last > day_ago);
        let (count, limit) = (recipients.len(), plan.limits[pool] as usize);
        if count > limit {
            let what =
                format!("{count} recipients of pool {pool} in 24 h, and {limit} is the limit");
            self.broken(Promise::NeverOverALimit, at, what);
        }
    }

    fn pair(&mut self, pair: (Lane, i64), plan: &Plan, at: Duration) {
        let full_at = self.pairs.entry(pair).or_default();
        *full_at = at.max(*full_at) + plan.pair.refill;
        if *full_at - at > plan.pair.memory() {
            let what = format!("one message too many of pair {pair:?}");
            self.broken(Promise::NeverOverALimit, at, what);
        }
    }

    /// How many people count against the limit of a pool.
    pub(crate) fn used(&self, pool: usize, at: Duration) -> usize {
        let counts = |last: &&Duration| **last + secs(24 * 3_600 + 600) > at;
        let recipients = self.recipients.get(&pool);
        recipients.map_or(0, |all| all.values().filter(counts).count())
    }

    /// The provider took a message: of one job twice only after it was sent again for good reason.
    pub(crate) fn taken(
        &mut self,
        job: JobId,
        database: &Database,
        provider: &Provider,
        at: Duration,
    ) {
        let taken = provider.taken(job);
        let resent = database.resent.get(&job).copied().unwrap_or_default();
        if taken.len() > 1 + resent.min(1) {
            let what = format!(
                "job {job} was taken {} times and sent again {resent} times",
                taken.len()
            );
            self.broken(Promise::NoDouble, at, what);
        } else if taken.len() > 1 && !taken[0].is_withheld {
            let what = format!("job {job} was taken twice though the first receipt was on its way");
            self.broken(Promise::NoDouble, at, what);
        }
    }

    /// When all trouble is over and time has passed, everything has come to its end or waits for a reason.
    pub(crate) fn end(&mut self, database: &Database, plan: &Plan, at: Duration) {
        let late = clock(at) - secs(60);
        for (id, row) in &database.queue {
            let pool = plan
                .lanes
                .iter()
                .find(|l| l.lane == row.lane)
                .and_then(|l| l.pool);
            // Headroom, reserve and rounding keep some of the limit free.
            let has_room =
                |pool: usize| self.used(pool, at) + 2 < plan.limits[pool] as usize * 8 / 10;
            if row.due_at < late && pool.is_none_or(has_room) {
                let what = format!("job {id} is still there: {row:?}");
                self.broken(Promise::Liveness, at, what);
                return;
            }
        }
        for id in self.jobs.keys().copied().collect::<Vec<_>>() {
            let is_there = database.queue.contains_key(&id)
                || database.messages.contains_key(&id)
                || database.dead.contains_key(&id);
            if !is_there {
                self.broken(Promise::Conservation, at, format!("job {id} is gone"));
            }
        }
    }
}
