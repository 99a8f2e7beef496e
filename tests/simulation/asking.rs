//! How statements fare: they take their time, fail before or after they were done, and wait for locks.

use std::time::Duration;

use postrider::{
    dispatch::event::Event,
    rules::job::JobId,
    store::attempt::{Held, Wanted},
};

use super::{
    database::{AttemptRow, Time, clock},
    hands::{STATEMENT_MAX, Who},
    plan::{ms, secs},
    sabotage::Sabotage,
    sim::Sim,
};

/// A database that is away answers at once; it is asked again a little later.
const AWAY_WAIT: Duration = ms(200);

/// A statement that was not done, or whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fails {
    Not,
    Before,
    After,
}

impl Sim {
    /// A statement: it takes effect a little later, and its answer comes a little after that; `None` when it does not.
    /// While `effect` says `None`, it waits for a lock.
    pub(crate) fn ask<T: 'static>(
        &mut self,
        who: Who,
        at_most: Duration,
        effect: impl FnMut(&mut Sim, Time) -> Option<T> + 'static,
        then: impl FnOnce(&mut Sim, Option<T>) + 'static,
    ) {
        let fails = self.fails();
        let given_up_at = self.now + at_most;
        let wait = self.statement_takes();
        self.agenda.at(self.now + wait, move |sim| {
            sim.take_effect(who, given_up_at, fails, effect, then);
        });
    }

    fn take_effect<T: 'static>(
        &mut self,
        who: Who,
        given_up_at: Duration,
        fails: Fails,
        mut effect: impl FnMut(&mut Sim, Time) -> Option<T> + 'static,
        then: impl FnOnce(&mut Sim, Option<T>) + 'static,
    ) {
        if self.is_away() || fails == Fails::Before {
            return self.reply(who, self.now + AWAY_WAIT, None, then);
        }
        match effect(self, clock(self.now)) {
            Some(_) if fails == Fails::After => self.reply(who, given_up_at, None, then),
            Some(answer) => {
                let answers_at = self.now + self.statement_takes();
                let answer = (answers_at <= given_up_at).then_some(answer);
                self.reply(who, answers_at.min(given_up_at).max(self.now), answer, then);
            }
            None if self.now > given_up_at => self.reply(who, self.now, None, then),
            None => self.agenda.at(self.now + ms(2), move |sim| {
                sim.take_effect(who, given_up_at, fails, effect, then);
            }),
        }
    }

    fn reply<T: 'static>(
        &mut self,
        who: Who,
        at: Duration,
        answer: Option<T>,
        then: impl FnOnce(&mut Sim, Option<T>) + 'static,
    ) {
        self.agenda.at(at, move |sim| {
            sim.when_awake(who, move |sim| then(sim, answer));
        });
    }

    fn is_away(&self) -> bool {
        self.now < self.database.away_until
    }

    fn fails(&mut self) -> Fails {
        let fails = self.mood().statement_fails;
        match self.dice.unit() {
            unit if unit < fails / 2.0 => Fails::Before,
            unit if unit < fails => Fails::After,
            _ => Fails::Not,
        }
    }

    /// How long one way to the database and the work there takes.
    fn statement_takes(&mut self) -> Duration {
        match self.now < self.database.slow_until {
            true => self.dice.between(ms(20), secs(6)),
            false => self.dice.between(Duration::from_micros(200), ms(4)),
        }
    }

    /// An attempt is drawn out: between its checks and its commit it holds the lease and the rows.
    pub(crate) fn attempt(
        &mut self,
        who: Who,
        worker: usize,
        urgent: bool,
        held: Vec<Held>,
        wanted: Vec<Wanted>,
    ) {
        let asked_at = self.now;
        let rows = wanted.clone();
        let told = move |sim: &mut Sim, permitted| {
            let attempted = Event::Attempted {
                urgent,
                wanted,
                permitted,
                took: sim.now - asked_at,
            };
            sim.tell(who, worker, attempted);
        };
        if self.database.is(Sabotage::AttemptAfterPost) {
            return self.attempt_afterwards(who, &rows, told);
        }
        let fails = self.fails();
        let (begins, commits) = (self.statement_takes(), self.statement_takes());
        self.transactions += 1;
        let number = self.transactions;
        self.agenda.at(self.now + begins, move |sim| {
            if sim.is_away() || fails == Fails::Before {
                return sim.reply(who, sim.now + AWAY_WAIT, None, told);
            }
            let checked = sim.database.check_attempt(&held, &rows, clock(sim.now));
            sim.database.transactions.insert(number, checked);
            sim.agenda.at(sim.now + commits, move |sim| {
                let committed = sim.database.commit_attempt(number);
                sim.judge.owner(&sim.database, sim.now);
                let answers_at = sim.now + sim.statement_takes();
                let given_up_at = sim.now.max(asked_at + STATEMENT_MAX);
                let is_lost = fails == Fails::After || answers_at > given_up_at;
                let at = if is_lost { given_up_at } else { answers_at };
                sim.reply(who, at, committed.filter(|_| !is_lost), told);
            });
        });
    }

    /// The mistake of writing the permission when the request is on its way already.
    fn attempt_afterwards(
        &mut self,
        who: Who,
        wanted: &[Wanted],
        told: impl FnOnce(&mut Sim, Option<Vec<(JobId, Time)>>) + 'static,
    ) {
        let now = clock(self.now);
        let rows: Vec<AttemptRow> = wanted.iter().map(|w| AttemptRow::of(w, now)).collect();
        let permitted = wanted.iter().map(|w| (w.id, now)).collect();
        self.reply(who, self.now, Some(permitted), told);
        let written = move |sim: &mut Sim, _| {
            for row in rows {
                sim.database.write_attempt(row);
            }
        };
        self.ask(who, STATEMENT_MAX, |_, _| Some(()), written);
    }
}
