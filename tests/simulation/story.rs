//! What happens in a run: dense stretches with trouble in them, quiet ones between, and in the end calm, in which everything
//! has to come to its end.

use std::time::Duration;

use chrono::TimeDelta;
use postrider::rules::job::{JobId, Priority};

use super::{
    database::{Row, clock},
    plan::{Fault, KINDS, ms, secs},
    sim::Sim,
};

/// The longest that anything can take once all trouble is over: an unknown job whose clock was put back by an hour, and
/// whose receipts never come.
const CALM: Duration = secs(6 * 3_600);

impl Sim {
    /// Plans the whole run.
    pub(crate) fn begin(&mut self) {
        for instance in 0..self.plan.instances {
            self.start(instance);
        }
        let mut at = secs(5);
        for _ in 0..self.plan.stretches {
            let lasts = self.dice.between(secs(5), secs(40));
            let jobs = (self.plan.density * lasts.as_secs_f64()) as usize;
            let faults = 1 + self.dice.below(self.plan.troubles);
            self.stretch(at, lasts, jobs, faults);
            at += lasts;
            let lasts = self.dice.between(secs(10), secs(9 * 3_600));
            let (jobs, faults) = (self.dice.below(8), self.dice.below(3));
            self.stretch(at, lasts, jobs, faults);
            at += lasts;
        }
        self.agenda.tick(Duration::ZERO, Self::beat);
        self.agenda.at(at, Self::calm_down);
        // Signs of life: receipts flow.
        self.stretch(at, secs(600), 20, 0);
        self.end = at + CALM;
    }

    /// Each second a webhook process proves that it could take receipts.
    fn beat(&mut self) {
        if self.is_heard() {
            self.database.way.beat(clock(self.now));
        }
        self.agenda.tick(self.now + secs(1), Self::beat);
    }

    /// Whether a receipt that is told now is committed.
    pub(crate) fn is_heard(&self) -> bool {
        self.now >= self.webhook_away_until && self.now >= self.database.away_until
    }

    fn stretch(&mut self, at: Duration, lasts: Duration, jobs: usize, faults: usize) {
        for _ in 0..jobs {
            let at = self.dice.within(at, at + lasts);
            self.agenda.at(at, Self::enqueue);
        }
        for _ in 0..faults {
            let at = self.dice.within(at, at + lasts);
            if !self.plan.faults.is_empty() {
                let fault = self.dice.pick(&self.plan.faults);
                self.agenda.at(at, move |sim| sim.trouble(fault));
            }
        }
    }

    /// An upstream enqueues a job; its transaction commits a little later, or much later.
    fn enqueue(&mut self) {
        let kind = self.dice.pick(&KINDS);
        let kind = KINDS
            .iter()
            .find(|k| k.name == kind.name)
            .unwrap_or(&KINDS[0]);
        let person = self.dice.below(self.plan.people) as i64;
        let lane = self.plan.lanes[self.dice.below(self.plan.lanes.len())].lane;
        let is_late = self.dice.chance(self.plan.late_commits);
        let commits_after = match is_late {
            true => self.dice.between(secs(1), secs(200)),
            false => self.dice.between(ms(1), ms(20)),
        };
        let not_before = match self.dice.chance(0.1) {
            true => self.dice.between(secs(1), secs(3_600)),
            false => Duration::ZERO,
        };
        let now = clock(self.now);
        let id = JobId(self.people.len() as i64 + 1);
        let row = Row {
            lane,
            priority: kind.priority,
            due_at: now + not_before,
            tries: 0,
            spent: 0,
            resends: 0,
            is_unknown: false,
            unknown_since: None,
            reason: None,
            kind,
            person,
            enqueued_at: now,
            expires_at: now + not_before + kind.valid_for,
        };
        self.people.insert(id, person);
        self.agenda.at(self.now + commits_after, move |sim| {
            sim.commit_enqueue(id, row)
        });
    }

    fn commit_enqueue(&mut self, id: JobId, row: Row) {
        if self.now < self.database.away_until {
            return;
        }
        let (lane, is_urgent) = (row.lane, row.priority == Priority::Urgent);
        self.trace(|| format!("job {id} for lane {lane} is there"));
        self.database.insert(id, row);
        if is_urgent {
            self.ring(lane);
        }
    }

    fn trouble(&mut self, fault: Fault) {
        self.trace(|| format!("trouble: {fault:?}"));
        let instance = self.dice.below(self.plan.instances);
        match fault {
            Fault::Kill => {
                let away = self.dice.between(ms(50), secs(30));
                self.kill(instance);
                self.agenda
                    .at(self.now + away, move |sim| sim.start(instance));
            }
            Fault::Freeze => {
                let until = self.now + self.dice.between(ms(50), secs(20));
                self.fleet[instance].frozen_until = until;
            }
            Fault::Restart => self.restart(instance),
            Fault::JoinOrLeave => match self.fleet.iter().position(|i| !i.is_up) {
                Some(absent) => self.start(absent),
                None => self.drain(instance),
            },
            Fault::WallJump => {
                let by = self.dice.between(ms(10), secs(60)).as_millis() as i64;
                let ahead = if self.dice.chance(0.5) { by } else { -by };
                self.fleet[instance].wall_ahead = TimeDelta::milliseconds(ahead);
            }
            Fault::DatabaseAway => {
                let until = self.now + self.dice.between(ms(100), secs(30));
                self.database.crash(until);
            }
            Fault::DatabaseSlow => {
                self.database.slow_until = self.now + self.dice.between(secs(1), secs(30));
            }
            Fault::WebhookAway => {
                let until = self.now + self.dice.between(secs(1), secs(1_200));
                self.trace(|| format!("no receipt is heard until {until:?}"));
                self.webhook_away_until = self.webhook_away_until.max(until);
                // Time is not skipped over its end.
                self.agenda.at(until, |_| {});
            }
            Fault::ProviderAway => {
                let until = self.now + self.dice.between(secs(1), secs(60));
                match self.dice.chance(0.5) {
                    true => self.provider.away_until = until,
                    false => self.provider.silent_until = until,
                }
            }
            Fault::Cancel | Fault::Pause | Fault::Reshard | Fault::Consent | Fault::Inbound => {
                self.meddle(fault);
            }
        }
    }

    /// Somebody changes rows while everything runs.
    fn meddle(&mut self, fault: Fault) {
        let now = clock(self.now);
        let person = self.dice.below(self.plan.people) as i64;
        let plan = self.plan.lanes[self.dice.below(self.plan.lanes.len())].clone();
        match fault {
            Fault::Cancel => {
                for _ in 0..5 {
                    let id = self.any_job();
                    self.cancel(id);
                }
            }
            Fault::Pause => {
                let lasts = self.dice.between(secs(1), secs(60));
                self.pause(plan.lane, true);
                self.agenda
                    .at(self.now + lasts, move |sim| sim.pause(plan.lane, false));
            }
            Fault::Reshard if plan.pool.is_none() => {
                let shard = 10 + self.dice.below(4) as i16;
                self.database.reshard(plan.lane, shard, now);
            }
            Fault::Consent => {
                let again = self.dice.between(secs(1), secs(600));
                self.withdraw_consent(person);
                self.agenda.at(self.now + again, move |sim| {
                    let now = clock(sim.now);
                    sim.database.consents.insert(person, (now, None));
                });
            }
            Fault::Inbound => {
                let until = now + secs(24 * 3_600);
                self.database.windows.insert((person, plan.lane), until);
            }
            _ => {}
        }
    }

    /// One that waits, or any that ever was.
    fn any_job(&mut self) -> JobId {
        let queued = self.database.queue.len();
        if queued > 0 && self.dice.chance(0.8) {
            let nth = self.dice.below(queued);
            return *self
                .database
                .queue
                .keys()
                .nth(nth)
                .expect("it is below their number");
        }
        JobId(self.dice.below(self.people.len() + 1) as i64)
    }

    fn cancel(&mut self, id: JobId) {
        if self.database.cancel(id).is_none() {
            self.agenda.at(self.now + ms(2), move |sim| sim.cancel(id));
        }
    }

    fn withdraw_consent(&mut self, person: i64) {
        let now = clock(self.now);
        if let Some((_, opted_out)) = self.database.consents.get_mut(&person) {
            *opted_out = Some(now);
        }
    }

    fn pause(&mut self, lane: postrider::rules::job::Lane, is_paused: bool) {
        if let Some(number) = self.database.numbers.get_mut(&lane) {
            number.is_paused = is_paused;
        }
    }

    /// The process is stopped in order; whoever takes too long is killed.
    fn restart(&mut self, instance: usize) {
        let away = self.dice.between(secs(2), secs(40));
        self.drain(instance);
        self.agenda.at(self.now + away, move |sim| {
            if sim.fleet[instance].is_draining {
                sim.kill(instance);
            }
            sim.start(instance);
        });
    }

    /// All trouble is over.
    fn calm_down(&mut self) {
        self.trace(|| "calm".to_owned());
        self.is_calm = true;
        self.database.away_until = self.now;
        self.database.slow_until = self.now;
        self.webhook_away_until = self.now;
        self.provider.away_until = self.now;
        self.provider.silent_until = self.now;
        for lane in self.database.numbers.values_mut() {
            lane.is_paused = false;
        }
        for instance in 0..self.plan.instances {
            self.fleet[instance].frozen_until = self.now;
            self.start(instance);
        }
    }
}
