//! How often one number may write to one person.
//!
//! The provider lets a number write to a user once every 6 s, and up to 45 times at once on credit of the time that
//! follows; more is refused with 131056, and then a wait of 4^n s is advised (Meta, pair rate limits, 2026-09). So each
//! pair has a bucket: 45 tokens, one back each 6 s.
//!
//! A job meets its bucket twice, because attempts are committed in batches before their slots: before the attempt
//! [`Pairs::ask`] and [`Pairs::promise`], so that two jobs attempted at once do not go on one token; at the slot
//! [`Pairs::keep`], which may still say no when the provider has refused the pair meanwhile, or [`Pairs::release`] when
//! the job is not sent after all. The token is taken at the slot, since it is the posts that the provider counts.
//!
//! The provider counts them as they arrive. The first of a burst may be slow on its way, and then its token comes back as much
//! later there: so what goes on a token that came back goes [`LAG`] later than the bucket alone says. No window holds too
//! many by arrivals either, in whichever order they come, as long as none takes longer than that.
//!
//! A bucket is kept only while it is not full, stopped or promised, and at most as many as the caller allows. When more
//! are needed at once, those are forgotten that miss least, and these pairs may send as many messages too early as their
//! buckets missed: [`Pairs::forgotten_early`] says how often that happened. Holding back everybody new instead would
//! stop people who have every right to their message.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use super::{job::Lane, moment::Moment, retry::pair_wait};

/// A number and a person, the latter by their keyed hash.
pub type Pair = (Lane, i64);

/// How long after its slot a message reaches the provider, at most, for what is promised here to hold there too: 2 s in
/// which it must be written, and two on the wire. No more than a refill counts.
pub const LAG: Duration = Duration::from_secs(4);

/// What a pair may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// Messages at once, from 1: tokens in a full bucket.
    pub burst: u32,
    /// One token comes back every so often; above zero.
    pub refill: Duration,
}

impl Default for Allowance {
    /// 45, and one every 6 s (Meta, pair rate limits, 2026-09).
    fn default() -> Self {
        Self {
            burst: 45,
            refill: Duration::from_secs(6),
        }
    }
}

impl Allowance {
    /// How far back messages matter to a bucket: an empty one is full after 270 s, and a refill more makes one message alone
    /// matter only for as long as its own token takes to come back. See [`Pairs::rebuild`].
    #[must_use]
    pub fn memory(&self) -> Duration {
        self.before_full(0) + self.refill
    }

    fn lag(&self) -> Duration {
        LAG.min(self.refill)
    }

    /// How long before a full bucket it has `tokens` tokens: the refill of all the others.
    fn before_full(&self, tokens: u32) -> Duration {
        self.refill * self.burst.saturating_sub(tokens)
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// When all tokens will be back.
    full_at: Moment,
    /// Tokens that are promised and not yet taken.
    promised: u32,
    /// Tokens that were promised or taken since it was full last, at the provider too. From a whole burst on they are tokens
    /// that came back.
    used: u32,
    /// Refusals by the provider in a row.
    refusals: u32,
    /// The last stop ends here.
    stopped_until: Moment,
}

impl Bucket {
    const FULL: Self = Self {
        full_at: Moment::LONG_AGO,
        promised: 0,
        used: 0,
        refusals: 0,
        stopped_until: Moment::LONG_AGO,
    };

    /// When a token is there that nobody was promised, the provider has it too, and no stop holds.
    fn free_at(&self, allowance: Allowance) -> Moment {
        let lag = match self.used >= allowance.burst {
            true => allowance.lag(),
            false => Duration::ZERO,
        };
        (self.token_at(allowance) + lag).max(self.stopped_until)
    }

    /// When a token is there that nobody was promised.
    fn token_at(&self, allowance: Allowance) -> Moment {
        self.full_at - allowance.before_full(self.promised.saturating_add(1))
    }

    fn promise(&mut self, allowance: Allowance, at: Moment) {
        self.use_one(allowance, at);
        self.promised = self.promised.saturating_add(1);
    }

    /// A promise is over, and nothing was posted.
    fn release(&mut self) {
        self.promised = self.promised.saturating_sub(1);
        self.used = self.used.saturating_sub(1);
    }

    /// One is to be promised or taken.
    fn use_one(&mut self, allowance: Allowance, at: Moment) {
        if self.full_at + allowance.lag() <= at {
            self.used = self.promised;
        }
        self.used = self.used.saturating_add(1);
    }

    fn take(&mut self, allowance: Allowance, at: Moment) {
        self.full_at = self.full_at.max(at) + allowance.refill;
    }

    /// From then on it says nothing that a new bucket would not say.
    fn matters_until(&self, allowance: Allowance) -> Moment {
        (self.full_at + allowance.lag()).max(self.stopped_until)
    }
}

/// The buckets of all pairs of some numbers.
#[derive(Debug)]
pub struct Pairs {
    allowance: Allowance,
    buckets: HashMap<Pair, Bucket>,
    max: usize,
    /// With so many, those that do not matter any more are swept out.
    sweep_at: usize,
    forgotten_early: u64,
}

/// Below this, sweeping gains nothing.
const SWEEP_FROM: usize = 1_000;
/// When all that are left matter, one in so many is forgotten, so that the next sweep is not due at once.
const FORGET_ONE_IN: usize = 8;

impl Pairs {
    /// No pair has posted yet; at most `max` are remembered, beside those that are promised a token.
    #[must_use]
    pub fn new(allowance: Allowance, max: usize) -> Self {
        let max = max.max(1);
        Self {
            allowance,
            buckets: HashMap::new(),
            max,
            sweep_at: SWEEP_FROM.min(max),
            forgotten_early: 0,
        }
    }

    /// The allowance that holds now.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// Changes the allowance. What a bucket misses, it misses on: a change is no burst. One that is full stays as it is: how
    /// long ago it was filled matters too.
    pub fn set_allowance(&mut self, allowance: Allowance, now: Moment) {
        if allowance == self.allowance {
            return;
        }
        let scale = allowance.refill.as_secs_f64() / self.allowance.refill.as_secs_f64();
        let missing = |bucket: &&mut Bucket| bucket.full_at > now;
        for bucket in self.buckets.values_mut().filter(missing) {
            bucket.full_at = now + bucket.full_at.since(now).mul_f64(scale);
        }
        self.allowance = allowance;
    }

    /// Whether one more message may go to the pair. Changes nothing: whoever goes on makes a promise.
    ///
    /// # Errors
    /// When to ask again: a token is back, or the stop ends. A released promise frees a token before.
    pub fn ask(&self, pair: Pair, now: Moment) -> Result<(), Moment> {
        let bucket = self.buckets.get(&pair).unwrap_or(&Bucket::FULL);
        match bucket.free_at(self.allowance) {
            free_at if free_at > now => Err(free_at),
            // All that even a full bucket holds is promised.
            _ if bucket.promised >= self.allowance.burst => Err(now + self.allowance.refill),
            _ => Ok(()),
        }
    }

    /// Keeps a token for a post to the pair until [`Pairs::keep`] or [`Pairs::release`], of which exactly one must follow.
    pub fn promise(&mut self, pair: Pair, now: Moment) {
        let allowance = self.allowance;
        self.bucket(pair, now).promise(allowance, now);
    }

    /// The promised post is to leave now; if it may, its token is taken, whatever the provider answers.
    ///
    /// # Errors
    /// When to ask again: the provider has refused the pair since the promise, which is over.
    pub fn keep(&mut self, pair: Pair, now: Moment) -> Result<(), Moment> {
        let allowance = self.allowance;
        let bucket = self.bucket(pair, now);
        // The promises of others do not stand before this one, and the lag stood before the promise.
        let alone = Bucket {
            promised: 0,
            used: 0,
            ..*bucket
        };
        match alone.free_at(allowance) {
            free_at if free_at > now => {
                bucket.release();
                Err(free_at)
            }
            _ => {
                bucket.promised = bucket.promised.saturating_sub(1);
                bucket.take(allowance, now);
                Ok(())
            }
        }
    }

    /// The promised post does not leave.
    pub fn release(&mut self, pair: Pair) {
        if let Some(bucket) = self.buckets.get_mut(&pair) {
            bucket.release();
        }
    }

    /// The provider refused the pair with 131056: it rests for 4^n s ([`pair_wait`]), and then one message may try as soon
    /// as it has a token. Returns the end of the stop. Requests that were on the wire together are refused together: that
    /// is one refusal.
    pub fn throttled(&mut self, pair: Pair, now: Moment) -> Moment {
        let allowance = self.allowance;
        let bucket = self.bucket(pair, now);
        if bucket.stopped_until > now {
            return bucket.stopped_until;
        }
        bucket.refusals = bucket.refusals.saturating_add(1);
        bucket.stopped_until = now + pair_wait(bucket.refusals);
        // The provider has seen more than we have: its bucket is empty, and ours has no more than the one to try with. What
        // is on the wire has come there.
        bucket.used = allowance.burst.saturating_sub(1);
        bucket.full_at = bucket
            .full_at
            .max(bucket.stopped_until + allowance.before_full(1));
        bucket.stopped_until
    }

    /// The provider took a message of the pair: the next refusal is the first in a row. It is also after a rest that fills
    /// the bucket.
    pub fn accepted(&mut self, pair: Pair) {
        if let Some(bucket) = self.buckets.get_mut(&pair) {
            bucket.refusals = 0;
        }
    }

    /// Counts what was posted before a take-over, by us or whoever had the numbers then, so that it is no burst: how many
    /// messages each pair got within [`Allowance::memory`]. A pair that got one alone, longer than a refill ago, may be
    /// left out.
    ///
    /// How they were spread is not asked, nor what came before, so it is taken for the worst: that the bucket was empty then
    /// and none of its tokens is back.
    pub fn rebuild(&mut self, posts: impl IntoIterator<Item = (Pair, u32)>, now: Moment) {
        let allowance = self.allowance;
        for (pair, count) in posts {
            let bucket = self.bucket(pair, now);
            bucket.full_at = bucket.full_at.max(now + allowance.refill * count);
            bucket.used = bucket.used.max(count);
        }
    }

    /// Counts a message that the pair got by another way than ours, so that no token was promised for it.
    pub fn count(&mut self, pair: Pair, at: Moment, now: Moment) {
        let allowance = self.allowance;
        let bucket = self.bucket(pair, now);
        bucket.use_one(allowance, at);
        bucket.take(allowance, at);
    }

    /// How many pairs are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.buckets.len()
    }

    /// How many pairs were forgotten while their buckets were not full, because there were too many at once.
    #[must_use]
    pub fn forgotten_early(&self) -> u64 {
        self.forgotten_early
    }

    fn bucket(&mut self, pair: Pair, now: Moment) -> &mut Bucket {
        if self.buckets.len() >= self.sweep_at && !self.buckets.contains_key(&pair) {
            self.sweep(now);
        }
        let allowance = self.allowance;
        match self.buckets.entry(pair) {
            Entry::Occupied(bucket) => {
                let bucket = bucket.into_mut();
                if bucket.matters_until(allowance) <= now {
                    // As if it had been swept out: what a pair may do does not depend on when that happens.
                    bucket.refusals = 0;
                }
                bucket
            }
            Entry::Vacant(free) => free.insert(Bucket::FULL),
        }
    }

    /// Forgets what does not matter any more and, if that is not enough, what matters least.
    fn sweep(&mut self, now: Moment) {
        let allowance = self.allowance;
        self.forget_until(now);
        let left = self.buckets.len();
        if left >= self.max {
            let mut ends: Vec<Moment> = self
                .buckets
                .values()
                .map(|bucket| bucket.matters_until(allowance))
                .collect();
            let least = (left - self.max + self.max / FORGET_ONE_IN).min(left - 1);
            let end = *ends.select_nth_unstable(least).1;
            self.forget_until(end);
            self.forgotten_early += (left - self.buckets.len()) as u64;
        }
        let left = self.buckets.len();
        let soon = (left * 2).clamp(SWEEP_FROM.min(self.max), self.max);
        // With more than `max` promised, not at each further one.
        self.sweep_at = soon.max(left + left / FORGET_ONE_IN + 1);
    }

    /// Forgets the buckets that do not matter after `end`, except those that are promised.
    fn forget_until(&mut self, end: Moment) {
        let allowance = self.allowance;
        self.buckets
            .retain(|_, bucket| bucket.promised > 0 || bucket.matters_until(allowance) > end);
    }
}

#[cfg(test)]
mod tests;
