//! What the messaging limit and the pair limit leave a worker to post: the ledgers of its pools, and the buckets of its
//! pairs. A job is admitted before its attempt is committed, and asks again at the slot.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};

use super::{event::Now, ids::IdMap, lane::Prepared, world::PoolFacts};
use crate::{
    rules::{
        job::{Lane, Priority},
        moment::Moment,
        pair::{Allowance, Pair, Pairs},
        tier::{Answer, Ledger},
    },
    store::echoes::Echo,
};

/// Pairs remembered by one worker, at most; some 50 bytes each.
const PAIRS_MAX: usize = 100_000;

/// A window that stays open for less than this by the time of the post does not spare the messaging limit.
const WINDOW_MARGIN: Duration = Duration::from_secs(60);
/// Between the attempt and its slot some seconds may pass: a window must be open for so much longer to be relied on.
pub const ATTEMPT_MARGIN: Duration = Duration::from_secs(15);

/// Room that returns within so much of each other is told as one.
const TOGETHER: Duration = Duration::from_secs(60);

/// In which epoch each of some lanes is held: when anything of it changes, somebody else may have posted.
pub type Standing = BTreeMap<Lane, (i16, i64)>;

/// Whether a job may be attempted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Its room and its token are kept for it.
    Go,
    /// The pool has no room for somebody new before then.
    NoRoom(Moment),
    /// The number has written to this person too often; their next message may go then.
    PairFull(Moment),
}

/// How much room a pool has, for metrics and people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolRoom {
    /// The portfolio's id, or the number's where each number has its own limit.
    pub pool: Arc<str>,
    /// Unique recipients in 24 h by the provider's word.
    pub limit: u32,
    /// How many count now.
    pub used: usize,
    /// How many more may be written to by normal and bulk jobs.
    pub room: usize,
    /// And by urgent ones.
    pub urgent_room: usize,
    /// Until room returns, if any is taken.
    pub returns_in: Option<Duration>,
    /// How much returns then, or within the minute after.
    pub returns: usize,
    /// Whether normal and bulk jobs found no room since this was last asked, or would find none now.
    pub is_short: bool,
}

/// The limits of one worker.
#[derive(Debug)]
pub struct Limits {
    pools: HashMap<Arc<str>, Pool>,
    pairs: Pairs,
    /// The lanes whose pairs are counted here.
    pair_lanes: IdMap<Lane, PairLane>,
    /// Until when the jobs of a pair were put off last, so that they do not all come back at once; by whether they are urgent.
    put_off: HashMap<(Pair, bool), Moment>,
    room_returned: bool,
}

#[derive(Debug)]
struct Pool {
    ledger: Ledger,
    standing: Standing,
    counting: Counting,
    /// Whether a normal or bulk job found no room since somebody last asked how much there is.
    refused: bool,
}

/// A lane whose pairs are counted.
#[derive(Debug)]
struct PairLane {
    /// Shard and epoch, as it is held.
    held: (i16, i64),
    counting: Counting,
    /// When it was asked what its pairs got before: of what phone apps sent, the answer has what was noted until then.
    asked_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counting {
    /// What was posted before is not known yet.
    Open,
    /// It was asked for.
    Asked,
    /// It is in the ledger.
    Done,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pools: HashMap::new(),
            pairs: Pairs::new(Allowance::default(), PAIRS_MAX),
            pair_lanes: IdMap::default(),
            put_off: HashMap::new(),
            room_returned: false,
        }
    }
}

impl Limits {
    /// The provider's allowance for pairs, or the operator's narrower one.
    pub fn set_pair_allowance(&mut self, allowance: Allowance, now: Now) {
        self.pairs.set_allowance(allowance, now.mono.into());
    }

    /// These are the pools that this worker counts for, with the lanes through which it may post. One whose lanes or
    /// epochs are others than before is counted anew; one that is not among them is forgotten.
    pub fn stand(&mut self, pools: impl Iterator<Item = (PoolFacts, Standing)>) {
        let mut before = std::mem::take(&mut self.pools);
        for (facts, standing) in pools {
            let known = before.remove(&facts.name);
            let mut pool = known
                .filter(|pool| pool.standing == standing)
                .unwrap_or_else(|| Pool {
                    ledger: Ledger::new(facts.limit),
                    standing,
                    counting: Counting::Open,
                    refused: false,
                });
            if pool.ledger.limit() != facts.limit {
                pool.ledger.set_limit(facts.limit);
                self.room_returned = true;
            }
            self.pools.insert(facts.name, pool);
        }
    }

    /// The pools of which nobody has asked yet what was posted before, with how they stand.
    pub fn to_count(&mut self) -> Vec<(Arc<str>, Standing)> {
        let open = self
            .pools
            .iter_mut()
            .filter(|(_, pool)| pool.counting == Counting::Open);
        open.map(|(name, pool)| {
            pool.counting = Counting::Asked;
            (Arc::clone(name), pool.standing.clone())
        })
        .collect()
    }

    /// What was posted before through a pool that stood so when it was asked; `None` when the database did not answer, and then it is asked again.
    pub fn counted(
        &mut self,
        name: &str,
        standing: &Standing,
        posts: Option<Vec<(i64, DateTime<Utc>)>>,
        now: Now,
    ) {
        let Some(pool) = self.pools.get_mut(name) else {
            return;
        };
        // An answer to a question of before the pool changed says nothing of it now: with the lease lost and taken again in
        // between, somebody else may have posted since.
        if pool.counting != Counting::Asked || pool.standing != *standing {
            return;
        }
        let Some(posts) = posts else {
            pool.counting = Counting::Open;
            return;
        };
        let posts = posts
            .into_iter()
            .map(|(person, at)| (person, moment(at, now)));
        pool.ledger.rebuild(posts, now.mono.into());
        pool.counting = Counting::Done;
        self.room_returned = true;
    }

    /// Whether all that was posted before through the pool is in its ledger.
    #[must_use]
    pub fn is_counted(&self, pool: &PoolFacts) -> bool {
        self.pools
            .get(&pool.name)
            .is_some_and(|pool| pool.counting == Counting::Done)
    }

    /// These are the lanes through which this worker may post. The pairs of one that is held in another epoch than before
    /// are counted anew.
    pub fn stand_pairs(&mut self, lanes: &Standing) {
        self.pair_lanes
            .retain(|lane, known| lanes.get(lane) == Some(&known.held));
        for (lane, held) in lanes {
            self.pair_lanes.entry(*lane).or_insert(PairLane {
                held: *held,
                counting: Counting::Open,
                asked_at: DateTime::UNIX_EPOCH,
            });
        }
    }

    /// The lanes of whose pairs nobody has asked yet what they got of late, and how far back that matters.
    pub fn pairs_to_count(&mut self, now: Now) -> (Standing, Allowance) {
        let open = self
            .pair_lanes
            .iter_mut()
            .filter(|(_, known)| known.counting == Counting::Open);
        let open = open.map(|(lane, known)| {
            known.counting = Counting::Asked;
            known.asked_at = now.wall;
            (*lane, known.held)
        });
        (open.collect(), self.pairs.allowance())
    }

    /// What the pairs of lanes that stood so when it was asked got of late; `None` when the database did not answer, and then
    /// it is asked again.
    pub fn pairs_counted(
        &mut self,
        standing: &Standing,
        posts: Option<Vec<(Pair, u32)>>,
        now: Now,
    ) {
        let next = match posts {
            Some(_) => Counting::Done,
            None => Counting::Open,
        };
        for (lane, asked) in standing {
            if let Some(known) = self.pair_lanes.get_mut(lane)
                && known.held == *asked
            {
                known.counting = next;
            }
        }
        // What was posted was posted, whoever holds the lane now.
        self.pairs
            .rebuild(posts.into_iter().flatten(), now.mono.into());
    }

    /// Whether what the lane's pairs got before is in their buckets.
    #[must_use]
    pub fn are_pairs_counted(&self, lane: Lane) -> bool {
        self.pair_lanes
            .get(&lane)
            .is_some_and(|known| known.counting == Counting::Done)
    }

    /// Whether the job may be attempted. Where it may, room and a token are kept for it: until [`Limits::attempted`] or
    /// [`Limits::release`] the one, until [`Limits::keep`], [`Limits::withdraw`] or [`Limits::release`] the other.
    pub fn admit(
        &mut self,
        lane: Lane,
        pool: Option<&PoolFacts>,
        job: &mut Prepared,
        now: Now,
    ) -> Admission {
        let (pair, at) = ((lane, job.recipient_hash), now.mono.into());
        if let Err(free_at) = self.pairs.ask(pair, at) {
            let is_urgent = job.priority == Priority::Urgent;
            return Admission::PairFull(self.put_off(pair, is_urgent, free_at, at));
        }
        job.counted = counts(job, now.wall + WINDOW_MARGIN + ATTEMPT_MARGIN);
        if job.counted
            && let Some(pool) = pool.and_then(|pool| self.pools.get_mut(&pool.name))
        {
            if let Answer::Full { until } = pool.ledger.ask(job.recipient_hash, job.priority, at) {
                pool.refused |= job.priority != Priority::Urgent;
                return Admission::NoRoom(until);
            }
            pool.ledger.promise(job.recipient_hash);
        }
        self.pairs.promise(pair, at);
        Admission::Go
    }

    /// The admitted job's attempt is committed, or may be: its room is taken, whether it is posted or not. Whoever takes over
    /// counts attempts, and if others had got the room meanwhile, that count would let in more people than the limit.
    pub fn attempted(&mut self, pool: Option<&PoolFacts>, job: &Prepared, now: Now) {
        if job.counted
            && let Some(pool) = pool.and_then(|pool| self.pools.get_mut(&pool.name))
        {
            pool.ledger.keep(job.recipient_hash, now.mono.into());
        }
    }

    /// The attempted job's slot has come: its token is taken, and the person counts from now.
    ///
    /// # Errors
    /// Why it may not go after all, and when to ask again. No token is kept for it then.
    pub fn keep(
        &mut self,
        lane: Lane,
        pool: Option<&PoolFacts>,
        job: &Prepared,
        now: Now,
    ) -> Result<(), (&'static str, Duration)> {
        let (pair, at) = ((lane, job.recipient_hash), now.mono.into());
        if !job.counted && counts(job, now.wall + WINDOW_MARGIN) {
            self.pairs.release(pair);
            return Err((
                "its service window closes before it would arrive",
                Duration::ZERO,
            ));
        }
        if let Err(free_at) = self.pairs.keep(pair, at) {
            return Err((
                "the provider refused more messages to this person",
                free_at.since(at),
            ));
        }
        if job.counted
            && let Some(pool) = pool.and_then(|pool| self.pools.get_mut(&pool.name))
        {
            pool.ledger.take(job.recipient_hash, at);
        }
        Ok(())
    }

    /// The attempted job is not posted.
    pub fn withdraw(&mut self, lane: Lane, job: &Prepared) {
        self.pairs.release((lane, job.recipient_hash));
    }

    /// The admitted job has no attempt, for certain.
    pub fn release(&mut self, lane: Lane, pool: Option<&PoolFacts>, job: &Prepared) {
        self.pairs.release((lane, job.recipient_hash));
        if job.counted
            && let Some(pool) = pool.and_then(|pool| self.pools.get_mut(&pool.name))
        {
            pool.ledger.release(job.recipient_hash);
            self.room_returned = true;
        }
    }

    /// The provider sent a held message, or one from a phone app: the person counts from then on.
    pub fn renew(&mut self, pool: &PoolFacts, person: i64, at: DateTime<Utc>, now: Now) {
        if let Some(pool) = self.pools.get_mut(&pool.name) {
            pool.ledger.renew(person, moment(at, now));
        }
    }

    /// Somebody sent to a person from the number's phone app; in this pool, if that counts against its limit. What was noted
    /// before it was asked what pairs got is, or will be, in that answer.
    pub fn sent_elsewhere(&mut self, echo: &Echo, pool: Option<&PoolFacts>, now: Now) {
        let is_new =
            |known: &PairLane| known.counting != Counting::Open && echo.noted_at > known.asked_at;
        if self.pair_lanes.get(&echo.lane).is_some_and(is_new) {
            let pair = (echo.lane, echo.recipient_hash);
            self.pairs
                .count(pair, moment(echo.at, now), now.mono.into());
        }
        if let Some(pool) = pool.filter(|_| echo.counted) {
            self.renew(pool, echo.recipient_hash, echo.at, now);
        }
    }

    /// The provider refused the pair; returns for how long it rests.
    pub fn pair_refused(&mut self, pair: Pair, now: Now) -> Duration {
        let at = Moment::from(now.mono);
        self.pairs.throttled(pair, at).since(at)
    }

    /// The provider took a message of the pair.
    pub fn pair_accepted(&mut self, pair: Pair) {
        self.pairs.accepted(pair);
    }

    /// Whether room came back, since this was last asked, in a way that nobody could foresee.
    pub fn take_room_returned(&mut self) -> bool {
        std::mem::take(&mut self.room_returned)
    }

    /// How much room every counted pool with a limit has.
    pub fn rooms(&mut self, now: Now) -> Vec<PoolRoom> {
        let at = Moment::from(now.mono);
        let counted = self
            .pools
            .iter_mut()
            .filter(|(_, pool)| pool.counting == Counting::Done);
        counted
            .filter_map(|(name, pool)| {
                let refused = std::mem::take(&mut pool.refused);
                let ledger = &mut pool.ledger;
                let room = ledger.room(Priority::Normal, at)?;
                let returns_at = ledger.next_return(at);
                Some(PoolRoom {
                    pool: Arc::clone(name),
                    limit: ledger.limit().recipients?,
                    used: ledger.used(at),
                    room,
                    urgent_room: ledger.room(Priority::Urgent, at)?,
                    returns_in: returns_at.map(|returns| returns.since(at)),
                    returns: returns_at.map_or(0, |then| ledger.returning_by(then + TOGETHER, at)),
                    is_short: refused || room == 0,
                })
            })
            .collect()
    }

    /// When a job that found no token asks again: after those that were put off before it, but an urgent one only after urgent
    /// ones. It goes before the others when they ask together.
    fn put_off(&mut self, pair: Pair, is_urgent: bool, free_at: Moment, now: Moment) -> Moment {
        if self.put_off.len() >= PAIRS_MAX {
            self.put_off.retain(|_, until| *until > now);
        }
        let refill = self.pairs.allowance().refill;
        let until = self
            .put_off
            .get(&(pair, is_urgent))
            .map_or(free_at, |last| free_at.max(*last + refill));
        self.put_off.insert((pair, is_urgent), until);
        until
    }
}

/// Whether a post counts against the messaging limit: unless a service window stays open until `then`.
fn counts(job: &Prepared, then: DateTime<Utc>) -> bool {
    job.window_until.is_none_or(|until| until <= then)
}

/// A wall-clock time of the past on the worker's clock.
fn moment(at: DateTime<Utc>, now: Now) -> Moment {
    Moment::from(now.mono) - (now.wall - at).to_std().unwrap_or_default()
}
