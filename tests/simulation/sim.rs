//! The world in virtual time: everything that happens is on one agenda, and a run of it is a loop that takes the next thing,
//! does it, and lets the judge look.

use std::{collections::BTreeMap, time::Duration};

use postrider::rules::job::JobId;

use super::{
    agenda::Agenda,
    database::{Database, clock},
    dice::Dice,
    hands::Instance,
    judge::{Judge, Violation},
    plan::{Mood, Plan, secs},
    provider::Provider,
    sabotage::Sabotage,
    tasks::Backdrop,
};

/// When nothing has happened for so long, time is skipped to the next thing that happens.
const QUIET_AFTER: Duration = secs(3);
/// That much before it the world is up and going again.
const AWAKE_BEFORE: Duration = secs(2);
/// Jobs that wait for something that has no time of its own are looked after so often meanwhile.
const SKIP_MAX: Duration = secs(120);

pub(crate) struct Sim {
    pub(crate) now: Duration,
    pub(crate) agenda: Agenda,
    pub(crate) dice: Dice,
    pub(crate) plan: Plan,
    pub(crate) backdrop: Backdrop,
    pub(crate) database: Database,
    pub(crate) provider: Provider,
    pub(crate) fleet: Vec<Instance>,
    pub(crate) judge: Judge,
    /// To whom each job goes.
    pub(crate) people: BTreeMap<JobId, i64>,
    pub(crate) webhook_away_until: Duration,
    /// So many attempts have been begun.
    pub(crate) transactions: u64,
    /// All trouble is over.
    pub(crate) is_calm: bool,
    /// When the run is over.
    pub(crate) end: Duration,
    touched_at: Duration,
    is_told: bool,
}

/// How a run went.
#[derive(Debug, Clone)]
pub(crate) struct Report {
    pub(crate) lasted: Duration,
    pub(crate) jobs: usize,
    pub(crate) posts: usize,
    pub(crate) violation: Option<Violation>,
}

impl Sim {
    pub(crate) fn new(seed: u64, sabotage: Option<Sabotage>) -> Self {
        let mut dice = Dice::new(seed);
        let plan = Plan::new(&mut dice, sabotage);
        let mut sim = Self {
            now: Duration::ZERO,
            agenda: Agenda::default(),
            database: Database::new(&plan, sabotage),
            backdrop: Backdrop::new(),
            provider: Provider::default(),
            fleet: (0..4).map(|_| Instance::default()).collect(),
            judge: Judge::default(),
            people: BTreeMap::new(),
            webhook_away_until: Duration::ZERO,
            transactions: 0,
            is_calm: false,
            end: Duration::ZERO,
            touched_at: Duration::ZERO,
            is_told: std::env::var_os("POSTRIDER_SIM_TRACE").is_some(),
            dice,
            plan,
        };
        sim.trace(|| format!("{:#?}", sim.plan));
        sim.begin();
        sim
    }

    /// Runs to the end, or to the first promise that is broken.
    pub(crate) fn run(mut self) -> Report {
        let end = self.end;
        while self.judge.violation.is_none() {
            self.skip();
            let Some((at, deed)) = self.agenda.next(end) else {
                break;
            };
            self.now = self.now.max(at);
            deed(&mut self);
            if !self.database.touched.is_empty() {
                self.touch();
                self.judge
                    .rows(&mut self.database, &self.provider, self.now);
            }
        }
        if self.judge.violation.is_none() {
            self.now = end;
            self.judge.end(&self.database, &self.plan, end);
        }
        Report {
            lasted: self.now,
            jobs: self.people.len(),
            posts: self.judge.posted,
            violation: self.judge.violation,
        }
    }

    /// How the provider and the network are now.
    pub(crate) fn mood(&self) -> Mood {
        match self.is_calm {
            true => Mood::default(),
            false => self.plan.mood,
        }
    }

    /// Something happened.
    pub(crate) fn touch(&mut self) {
        self.touched_at = self.now;
    }

    pub(crate) fn trace(&self, words: impl FnOnce() -> String) {
        if self.is_told {
            println!("{:>14.6} {}", self.now.as_secs_f64(), words());
        }
    }

    /// Skips over quiet time: when nothing happens but polls that find nothing and renewals that succeed, and nothing else is
    /// planned for a while, all of them may as well not happen. The leases are as if they had been renewed all along.
    fn skip(&mut self) {
        if self.now < self.touched_at + QUIET_AFTER {
            return;
        }
        let next = self.agenda.next_once().unwrap_or(self.end);
        if next <= self.now + QUIET_AFTER {
            return;
        }
        let is_idle = |i: &Instance| !i.is_up || (i.is_idle() && i.frozen_until <= self.now);
        if !self.fleet.iter().all(is_idle) {
            return;
        }
        let now = clock(self.now);
        let due = self.database.next_due(now);
        let due = due.map_or(next, |due| {
            self.now + (due - now).to_std().unwrap_or_default()
        });
        let mut to = next.min(due).saturating_sub(AWAKE_BEFORE);
        if self.database.queue.values().any(|row| row.due_at <= now) {
            to = to.min(self.now + SKIP_MAX);
        }
        if to > self.now + QUIET_AFTER {
            self.skip_to(to);
        }
    }

    fn skip_to(&mut self, to: Duration) {
        self.agenda.skip(to);
        let before = clock(self.now);
        let was_heard = self.is_heard();
        self.now = to;
        self.touched_at = to.saturating_sub(QUIET_AFTER - secs(1));
        let now = clock(to);
        for lease in self.database.leases.values_mut() {
            let is_up = |holder: usize| self.fleet[holder].is_up;
            if lease.holder.is_some_and(is_up) && lease.expires_at > before {
                lease.renew(None, now);
            }
        }
        if was_heard {
            // An outage that has just ended ends with a proof, like any other.
            self.database.way.beat(before);
            self.database.way.seen_at = Some(now);
        }
        for instance in 0..self.fleet.len() {
            if self.fleet[instance].is_up {
                let who = self.who(instance);
                self.fleet[instance].prolong(to);
                self.tell_leases(who);
            }
        }
    }
}
