//! The provider as a model: it takes messages, loses them, stays silent, refuses, keeps its own limits, and tells by receipts
//! what became of what it took.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use postrider::{
    dispatch::event::Event,
    rules::{
        job::{JobId, Lane},
        outcome::{Answer, Outcome, ProviderError, judge},
        receipt::Status,
    },
};

use super::{
    database::clock,
    hands::Who,
    judge::Post,
    plan::{ms, secs},
    sim::Sim,
};

/// An answer that takes longer is not waited for.
const REQUEST_TIMEOUT: Duration = secs(10);
/// What the provider says, by code.
const THROTTLED: i32 = 130_429;
const PAIR_FULL: i32 = 131_056;
const WENT_WRONG: i32 = 131_000;
const UNDELIVERABLE: i32 = 131_026;

/// A request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) who: Who,
    pub(crate) worker: usize,
    pub(crate) post: Post,
    pub(crate) callback: String,
}

/// A message that the provider took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Taken {
    /// No receipt of it comes in time, or none at all. What is held back for a quality check is told of when it is let go.
    pub(crate) is_withheld: bool,
}

/// What it remembers.
#[derive(Default)]
pub(crate) struct Provider {
    taken: BTreeMap<JobId, Vec<Taken>>,
    words: BTreeMap<JobId, i32>,
    arrivals: BTreeMap<Lane, VecDeque<Duration>>,
    pairs: BTreeMap<(Lane, i64), Duration>,
    pub(crate) away_until: Duration,
    pub(crate) silent_until: Duration,
}

impl Provider {
    pub(crate) fn taken(&self, job: JobId) -> &[Taken] {
        self.taken.get(&job).map_or(&[], Vec::as_slice)
    }

    /// How often it said something about this job that costs it an attempt.
    pub(crate) fn words_about(&self, job: JobId) -> i32 {
        self.words.get(&job).copied().unwrap_or_default()
    }

    /// Whether the number sends more than one message a second too many, as the provider sees it.
    fn is_too_fast(&mut self, lane: Lane, rate: f64, at: Duration) -> bool {
        let most = rate.ceil() as usize + 1;
        let arrivals = self.arrivals.entry(lane).or_default();
        arrivals.retain(|arrival| *arrival + secs(1) > at);
        if arrivals.len() < most {
            arrivals.push_back(at);
        }
        arrivals.len() > most
    }

    fn is_pair_full(
        &mut self,
        pair: (Lane, i64),
        burst: u32,
        refill: Duration,
        at: Duration,
    ) -> bool {
        let full_at = self.pairs.entry(pair).or_default();
        let after = at.max(*full_at) + refill;
        // One more than it says: messages may overtake each other on their way.
        let is_full = after - at > refill * (burst + 1);
        if !is_full {
            *full_at = after;
        }
        is_full
    }
}

/// What comes of a request.
enum Fate {
    Taken { held: bool, answer: Option<u16> },
    Said(i32, u16),
    Lost,
}

impl Sim {
    /// A request left its machine.
    pub(crate) fn carry(&mut self, letter: Letter) {
        let mood = self.mood();
        if self.dice.chance(mood.lost_before) || self.now < self.provider.away_until {
            let after = self.dice.between(ms(1), REQUEST_TIMEOUT);
            self.reply_at(self.now + after, letter, no_answer(None));
            return;
        }
        let on_its_way = self.dice.between(ms(5), ms(120));
        let arrives_at = self.now + on_its_way;
        self.agenda.at(arrives_at, move |sim| sim.arrive(letter));
    }

    fn arrive(&mut self, letter: Letter) {
        let slow = self.dice.chance(0.01);
        let takes = match slow {
            true => self.dice.between(secs(1), secs(20)),
            false => self.dice.between(ms(10), ms(400)),
        };
        let answers_at = self.now + takes;
        let fate = self.fate(&letter.post);
        let answer = match fate {
            Fate::Lost => no_answer(Some(503)),
            Fate::Said(code, status) => {
                let answer = error(code, status);
                let spends = matches!(
                    judge(&answer).outcome,
                    Outcome::Retry { spends: true } | Outcome::Refused(_)
                );
                *self.provider.words.entry(letter.post.job).or_default() += i32::from(spends);
                answer
            }
            Fate::Taken { held, answer } => {
                self.take(&letter, held);
                match answer {
                    None => accepted(&letter.post, held),
                    Some(0) => no_answer(None),
                    Some(status) => no_answer(Some(status)),
                }
            }
        };
        let is_too_late = takes > REQUEST_TIMEOUT || self.now < self.provider.silent_until;
        match is_too_late {
            true => self.reply_at(self.now + REQUEST_TIMEOUT, letter, no_answer(None)),
            false => self.reply_at(answers_at, letter, answer),
        }
    }

    fn fate(&mut self, post: &Post) -> Fate {
        let mood = self.mood();
        let rate = self
            .plan
            .lanes
            .iter()
            .find(|l| l.lane == post.lane)
            .map_or(1.0, |l| l.rate);
        let pair = self.plan.pair;
        if self.provider.is_too_fast(post.lane, rate, self.now) || self.dice.chance(mood.throttled)
        {
            return Fate::Said(THROTTLED, 400);
        }
        let of = (post.lane, post.person);
        if self
            .provider
            .is_pair_full(of, pair.burst, pair.refill, self.now)
        {
            return Fate::Said(PAIR_FULL, 400);
        }
        if self.dice.chance(mood.coded_5xx) {
            return Fate::Said(WENT_WRONG, 500);
        }
        if self.dice.chance(mood.refused) {
            return Fate::Said(UNDELIVERABLE, 400);
        }
        let is_bare = self.dice.chance(mood.bare_5xx);
        if is_bare && self.dice.chance(0.5) {
            return Fate::Lost;
        }
        let answer = match () {
            () if is_bare => Some(502),
            () if self.dice.chance(mood.lost_after) => Some(0),
            () if self.dice.chance(mood.without_id) => Some(200),
            () => None,
        };
        let held = self.dice.chance(mood.held);
        Fate::Taken { held, answer }
    }

    fn reply_at(&mut self, at: Duration, letter: Letter, answer: Answer) {
        let chance = self.dice.unit();
        self.agenda.at(at.max(self.now), move |sim| {
            let id = letter.post.job;
            sim.trace(|| format!("answer to job {id}: {answer:?}"));
            let event = Event::Posted {
                id,
                answer,
                regain_access_in: None,
                chance,
            };
            sim.tell(letter.who, letter.worker, event);
        });
    }

    /// The message is taken, and its receipts will come, unless they are withheld.
    fn take(&mut self, letter: &Letter, held: bool) {
        let job = letter.post.job;
        let mood = self.mood();
        let is_withheld = self.dice.chance(mood.withheld);
        let taken = self.provider.taken.entry(job).or_default();
        taken.push(Taken {
            is_withheld: is_withheld || held,
        });
        self.trace(|| format!("job {job} was taken, attempt {}", letter.post.attempt));
        self.judge
            .taken(job, &self.database, &self.provider, self.now);
        if is_withheld {
            return;
        }
        let mut at = self.now + self.dice.between(ms(50), secs(2));
        if held {
            at += self.dice.between(secs(1), secs(3_600));
        }
        let mut told = vec![(at, Status::Sent)];
        at += self.dice.between(ms(50), secs(30));
        if self.dice.chance(0.05) {
            told.push((at, Status::Failed));
        } else {
            told.push((at, Status::Delivered));
            if self.dice.chance(0.5) {
                at += self.dice.between(ms(100), secs(600));
                told.push((at, Status::Read));
            }
        }
        for (at, status) in told {
            let callback = letter.callback.clone();
            // A held message is told of late; whatever else is late is late by seconds.
            let reaches_us_at = at + self.dice.between(ms(10), secs(5));
            let first =
                move |sim: &mut Self| sim.post_webhook(callback, status, at, reaches_us_at, 0);
            self.agenda.at(reaches_us_at, first);
        }
    }

    /// The provider tells us; when that fails it tries again later, less and less often.
    fn post_webhook(
        &mut self,
        callback: String,
        status: Status,
        at: Duration,
        since: Duration,
        tries: u32,
    ) {
        let mood = self.mood();
        let is_heard = self.is_heard();
        let is_told_again = !is_heard || self.dice.chance(mood.repeated);
        if is_heard {
            let now = clock(self.now);
            self.database.receive(&callback, status, clock(at), now);
            self.trace(|| format!("receipt {callback}: {status:?}"));
            self.touch();
        }
        if is_told_again && (tries < 8 || !is_heard) {
            let most = (self.now - since).clamp(secs(1), secs(600));
            let wait = self.dice.within(most / 2, most);
            let again = move |sim: &mut Self| {
                sim.post_webhook(callback, status, at, since, tries + 1);
            };
            self.agenda.at(self.now + wait, again);
        }
    }
}

fn accepted(post: &Post, held: bool) -> Answer {
    Answer::Accepted {
        provider_id: format!("wamid.{}.{}", post.job, post.attempt),
        held,
        wa_id: None,
        user_id: None,
    }
}

fn error(code: i32, http_status: u16) -> Answer {
    Answer::Error(ProviderError {
        code,
        subcode: None,
        http_status,
        title: String::new(),
        detail: String::new(),
        is_transient: false,
        retry_after: None,
    })
}

fn no_answer(http_status: Option<u16>) -> Answer {
    Answer::NoAnswer {
        http_status,
        detail: String::new(),
    }
}
