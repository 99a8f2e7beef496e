//! The rolling ledger of unique recipients of one pool: who counts against the messaging limit, and whether there is room
//! for one more.
//!
//! The provider limits how many different people a business writes to in any moving 24 h, outside of open service windows;
//! messages to somebody who counts already add nothing (Meta, messaging limits, 2026-09). What it does at the limit is not
//! documented, so the limit is held here.
//!
//! A job meets the ledger twice, because attempts are committed in batches before their slots:
//!
//! 1. Before the attempt, if its post would count: [`Ledger::ask`]. `Full` waits. Otherwise [`Ledger::promise`], so that
//!    the next one asks about what is really left.
//! 2. When the attempt is committed, or may be: [`Ledger::keep`]. When it is certainly not: [`Ledger::release`].
//! 3. At the slot, if its post counts then: [`Ledger::take`], so that the person counts from then.
//!
//! Room that was taken is not given back, whatever the provider answers: it does not say whether what it refused counts.
//! Nor is it when the post does not leave after all: after a take-over [`Ledger::rebuild`] reads the attempts of the last
//! [`ROOM`], which do not tell, and that count must not hold more people than were let in.
//!
//! What this does not promise: when the limit falls, those already counted stay and promises made are kept, so the pool
//! is above the new limit until enough of them leave; nobody new is let in before. A held message that was posted inside
//! a service window and released after it ended is counted when its receipt says so, room or not. Headroom is for these.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
    time::Duration,
};

use super::{job::Priority, moment::Moment};

/// How long a counted post takes room: the provider's 24 h (Meta, messaging limits, 2026-09), and 5 min because it counts
/// from when the message reaches it, by its own clock, and because a receipt takes its time.
pub const ROOM: Duration = Duration::from_secs(24 * 3_600 + 5 * 60);

/// For so long the provider counts a recipient too, whatever its clock and however late the message was.
const SURELY: Duration = Duration::from_secs(24 * 3_600 - 5 * 60);

/// Without a limit no more people than this are remembered, twice the largest finite limit (100,000; Meta, messaging
/// limits, 2026-09): an unlimited pool can reach 86 million a day. See [`Ledger::take`].
pub const REMEMBERED_MAX: usize = 200_000;

/// How much of the messaging limit a pool may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Unique recipients in any 24 h, as the provider says; `None` when unlimited.
    pub recipients: Option<u32>,
    /// How many of them other systems of the same portfolio use.
    pub elsewhere: u32,
    /// The share of what remains that is never used, 0 to 1.
    pub headroom: f64,
    /// The share of what remains that only urgent jobs may use, 0 to 1.
    pub urgent_reserve: f64,
}

impl Limit {
    /// Up to how many recipients somebody new is let in for a job of this priority; `None` when unlimited.
    ///
    /// Urgent jobs may use what other systems leave less the headroom, the others in addition less the reserve. With a
    /// limit of 250, 5 % and 10 % these are 237 and 212. Both shares are of what other systems leave: were they shares
    /// of the whole limit, they could leave a pool that shares it nothing.
    #[must_use]
    pub fn allowance(&self, priority: Priority) -> Option<u32> {
        let ours = self.ours()?;
        let withheld = match priority {
            Priority::Urgent => self.headroom,
            Priority::Normal | Priority::Bulk => self.headroom + self.urgent_reserve,
        };
        Some(ours.saturating_sub((f64::from(ours) * withheld).round() as u32))
    }

    /// What other systems leave.
    fn ours(&self) -> Option<u32> {
        Some(self.recipients?.saturating_sub(self.elsewhere))
    }
}

/// Whether a post to somebody may count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// They count already, so one more post takes no room: it passes by those that wait.
    Known,
    /// There is room for them.
    Room,
    /// There is not.
    Full {
        /// Before this none returns by itself: ask again then. It may be too early, when somebody who would leave gets
        /// another message. A released promise and a changed limit make room before.
        until: Moment,
    },
}

/// Who counts against the limit of one pool. People go by their keyed hash.
#[derive(Debug)]
pub struct Ledger {
    limit: Limit,
    /// Everybody who takes room, with their last counted post; those who are only promised it have `LONG_AGO`.
    last: HashMap<i64, Moment>,
    /// Who leaves next: each person with a post once, with a time not after their last post. Repeats do not touch it; the
    /// time is brought up to date when it comes to the top.
    leaving: BinaryHeap<Reverse<(Moment, i64)>>,
    /// Promises that are neither kept nor released, by person.
    promised: HashMap<i64, u32>,
    /// Until then people count who are not remembered.
    unremembered_until: Moment,
    /// Found out before: until then there is no room for the priority.
    full_until: [Moment; Priority::ALL.len()],
}

impl Ledger {
    /// A ledger in which nobody counts.
    #[must_use]
    pub fn new(limit: Limit) -> Self {
        Self {
            limit,
            last: HashMap::new(),
            leaving: BinaryHeap::new(),
            promised: HashMap::new(),
            unremembered_until: Moment::LONG_AGO,
            full_until: [Moment::LONG_AGO; Priority::ALL.len()],
        }
    }

    /// The limit that holds now.
    #[must_use]
    pub fn limit(&self) -> Limit {
        self.limit
    }

    /// Changes the limit. Whoever counts goes on counting, also from a time without a limit.
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
        self.full_until = [Moment::LONG_AGO; Priority::ALL.len()];
    }

    /// Whether a post to `person` may count. Changes nothing: whoever goes on makes a promise or takes the room.
    pub fn ask(&mut self, person: i64, priority: Priority, now: Moment) -> Answer {
        self.forget(now);
        if self.is_known(person, now) {
            return Answer::Known;
        }
        match self.limit.allowance(priority) {
            Some(allowance) if !self.has_room(allowance, now) => Answer::Full {
                until: self.returns_at(priority, allowance, now),
            },
            _ => Answer::Room,
        }
    }

    /// Keeps room for an attempt for `person` until [`Ledger::keep`] or [`Ledger::release`], of which exactly one must
    /// follow, in the same process. Several promises to one person take room once.
    pub fn promise(&mut self, person: i64) {
        self.last.entry(person).or_insert(Moment::LONG_AGO);
        *self.promised.entry(person).or_default() += 1;
    }

    /// The promised attempt is committed: its post may leave.
    pub fn keep(&mut self, person: i64, now: Moment) {
        self.end_promise(person);
        self.take(person, now);
    }

    /// The promised attempt is not committed.
    pub fn release(&mut self, person: i64) {
        self.end_promise(person);
        self.full_until = [Moment::LONG_AGO; Priority::ALL.len()];
    }

    /// A post that counts leaves now. It takes room for [`ROOM`] from now, also when the person counted already.
    ///
    /// Beyond [`REMEMBERED_MAX`] people (or the limit, where that is more) the person is not remembered. Should a finite
    /// limit come, nobody new has room until everybody not remembered has left, or the caller builds the ledger anew.
    pub fn take(&mut self, person: i64, now: Moment) {
        self.forget(now);
        self.count(person, now);
    }

    /// The provider has sent a held message at `at`, which may be long past: it counts from then on.
    pub fn renew(&mut self, person: i64, at: Moment) {
        self.count(person, at);
    }

    /// Counts what was posted, and what was sent of held messages, by whoever had the pool before; in any order. All of
    /// the last [`ROOM`] is needed. Where the time of the post itself is not known it must not be guessed too early by
    /// more than some seconds, or the five minutes of `ROOM` are used up.
    pub fn rebuild(&mut self, posts: impl IntoIterator<Item = (i64, Moment)>, now: Moment) {
        for (person, at) in posts {
            self.count(person, at);
        }
        self.forget(now);
    }

    /// How many people count now, or are promised room.
    pub fn used(&mut self, now: Moment) -> usize {
        self.forget(now);
        self.last.len()
    }

    /// For how many more people there is room for jobs of this priority; `None` when unlimited.
    pub fn room(&mut self, priority: Priority, now: Moment) -> Option<usize> {
        self.forget(now);
        let allowance = self.limit.allowance(priority)?;
        Some(if self.has_room(allowance, now) {
            allowance as usize - self.last.len()
        } else {
            0
        })
    }

    /// When the next person leaves, unless they get another message; `None` while nobody counts.
    pub fn next_return(&mut self, now: Moment) -> Option<Moment> {
        self.forget(now);
        self.oldest().map(|(last, _)| last + ROOM)
    }

    /// How many people leave until `then`, unless they get another message. Passes over the whole pool.
    pub fn returning_by(&mut self, then: Moment, now: Moment) -> usize {
        self.forget(now);
        let leaves = |last: &&Moment| **last > Moment::LONG_AGO && **last + ROOM <= then;
        self.last.values().filter(leaves).count()
    }

    /// While the pool is within its limit, whoever takes room here has it there too. Above it (the limit fell) only those
    /// pass by who certainly count there: the others would be somebody new.
    fn is_known(&self, person: i64, now: Moment) -> bool {
        let is_within = |limit: u32| self.last.len() <= limit as usize;
        let ours = self.limit.ours();
        self.last
            .get(&person)
            .is_some_and(|last| ours.is_none_or(is_within) || *last + SURELY > now)
    }

    fn has_room(&self, allowance: u32, now: Moment) -> bool {
        self.last.len() < allowance as usize && self.unremembered_until <= now
    }

    fn count(&mut self, person: i64, at: Moment) {
        let limit = self.limit.recipients.unwrap_or(0) as usize;
        let is_crowded = self.last.len() >= REMEMBERED_MAX.max(limit);
        match self.last.entry(person) {
            Entry::Vacant(_) if is_crowded => {
                self.unremembered_until = self.unremembered_until.max(at + ROOM);
            }
            Entry::Vacant(free) => {
                free.insert(at);
                self.leaving.push(Reverse((at, person)));
            }
            Entry::Occupied(mut counted) => {
                if *counted.get() == Moment::LONG_AGO {
                    self.leaving.push(Reverse((at, person)));
                }
                let last = counted.get_mut();
                *last = at.max(*last);
            }
        }
    }

    fn end_promise(&mut self, person: i64) {
        let Entry::Occupied(mut promises) = self.promised.entry(person) else {
            return;
        };
        *promises.get_mut() -= 1;
        if *promises.get() == 0 {
            promises.remove();
            if self.last.get(&person) == Some(&Moment::LONG_AGO) {
                self.last.remove(&person);
            }
        }
    }

    /// Lets those leave whose time is over; who is promised room keeps it.
    fn forget(&mut self, now: Moment) {
        // A time at the top that is not up to date is too early, never too late.
        while let Some(Reverse((at, _))) = self.leaving.peek()
            && *at + ROOM <= now
        {
            match self.oldest() {
                Some((last, person)) if last + ROOM <= now => self.leave(person),
                _ => break,
            }
        }
    }

    /// The person at the top leaves.
    fn leave(&mut self, person: i64) {
        self.leaving.pop();
        if self.promised.contains_key(&person) {
            self.last.insert(person, Moment::LONG_AGO);
        } else {
            self.last.remove(&person);
        }
    }

    /// Who leaves next, with their last post; brings the top up to date. Each repeat costs this at most one step.
    fn oldest(&mut self) -> Option<(Moment, i64)> {
        loop {
            let mut top = self.leaving.peek_mut()?;
            let Reverse((at, person)) = *top;
            let last = self.last.get(&person).copied().unwrap_or(at);
            if last == at {
                return Some((at, person));
            }
            *top = Reverse((last, person));
        }
    }

    /// When as many have left as must before somebody new has room; `ROOM` from now when it takes more than those who
    /// are certain to. An answer that needed a pass over the whole pool is remembered: until then it can only get later.
    fn returns_at(&mut self, priority: Priority, allowance: u32, now: Moment) -> Moment {
        if self.unremembered_until > now {
            return self.unremembered_until;
        }
        let known = self.full_until[priority as usize];
        if known > now {
            return known;
        }
        let must_leave = self.last.len() - allowance as usize;
        let last = match must_leave {
            0 => self.oldest().map(|(last, _)| last),
            _ => self.nth_oldest(must_leave),
        };
        let until = last.unwrap_or(now) + ROOM;
        self.full_until[priority as usize] = until;
        until
    }

    /// The last post of the person before whom `n` others leave.
    fn nth_oldest(&self, n: usize) -> Option<Moment> {
        let posted = |last: &Moment| *last > Moment::LONG_AGO;
        let mut posts: Vec<Moment> = self.last.values().copied().filter(posted).collect();
        (n < posts.len()).then(|| *posts.select_nth_unstable(n).1)
    }
}

#[cfg(test)]
mod tests;
