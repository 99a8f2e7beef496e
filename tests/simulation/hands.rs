//! The hands of the workers, small: what `dispatch/shell.rs` does with actions, with the same check when a request is written,
//! and what `leasing.rs` and `knowing.rs` tell the workers. Between the two stands virtual time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use chrono::TimeDelta;
use postrider::{
    dispatch::{
        event::{Action, Event, LookFor, Now},
        holdings::{Holdings, REST},
        leasing::MARGIN,
        limits::Standing,
        outbox::Batch,
        worker::{Settings, Worker},
    },
    rules::{
        breaker::Claim,
        job::{JobId, Lane, Priority},
        outcome::Answer,
        receipt::Callback,
        retry::Policy,
    },
    store::{lease::Returned, look::Cursor},
};

use super::{
    database::{Time, clock},
    judge::Post,
    plan::{TTL, ms, secs},
    provider::Letter,
    sabotage::Sabotage,
    sim::Sim,
};

/// A statement that takes longer is given up; outcomes are worth more patience.
pub(crate) const STATEMENT_MAX: Duration = secs(5);
pub(crate) const SETTLE_MAX: Duration = secs(30);
/// How long the machines have been up when a run begins.
pub(crate) const UPTIME: Duration = secs(100_000);

/// A process: what is meant for one that has ended is not for its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Who {
    pub(crate) instance: usize,
    life: u32,
}

/// A machine, and the process on it.
#[derive(Default)]
pub(crate) struct Instance {
    life: u32,
    pub(crate) is_up: bool,
    pub(crate) is_draining: bool,
    pub(crate) frozen_until: Duration,
    started_at: Duration,
    /// By how much its wall clock is ahead of the database's.
    pub(crate) wall_ahead: TimeDelta,
    pub(crate) workers: Vec<Worker>,
    /// When each worker's next turn is due.
    turns: Vec<Duration>,
    finished: usize,
    pub(crate) holdings: Holdings,
    /// Whether a round about the leases is under way.
    pub(crate) is_in_round: bool,
    /// Whether it takes shards over, beside the rounds.
    pub(crate) is_taking: bool,
    /// Whether the last one failed.
    pub(crate) missed: bool,
    /// How far each lane was read at the farthest; only for who never goes back.
    farthest: BTreeMap<(Lane, Priority), (Time, JobId)>,
}

impl Instance {
    fn now(&self, at: Duration) -> Now {
        Now {
            mono: at - self.started_at,
            boot: UPTIME + at,
            wall: clock(at) + self.wall_ahead,
        }
    }

    pub(crate) fn oldest_open(&self) -> Option<Time> {
        let loads = self.workers.iter().map(Worker::load);
        loads.filter_map(|load| load.oldest_open).min()
    }

    /// Its leases are as if they had been renewed until now.
    pub(crate) fn prolong(&mut self, now: Duration) {
        let held = self.holdings.held();
        self.holdings
            .renewed(&held, UPTIME + now + TTL.saturating_sub(MARGIN));
    }

    /// Nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        let loads = self.workers.iter().map(Worker::load);
        loads
            .into_iter()
            .all(|load| load.in_flight + load.unsettled == 0)
    }
}

impl Sim {
    pub(crate) fn who(&self, instance: usize) -> Who {
        Who {
            instance,
            life: self.fleet[instance].life,
        }
    }

    /// A process starts, with nothing in memory.
    pub(crate) fn start(&mut self, instance: usize) {
        if self.fleet[instance].is_up {
            return;
        }
        self.trace(|| format!("instance {instance} starts"));
        let workers = self.plan.workers;
        let settings = |index| Settings {
            index,
            workers,
            look_ahead: 1_000,
            in_flight_max: 1_000,
            jitter_allowance: ms(20),
            retry: Policy {
                first: secs(2),
                max: secs(60),
                max_attempts: 5,
            },
        };
        let now = self.now;
        let fresh = &mut self.fleet[instance];
        *fresh = Instance {
            life: fresh.life + 1,
            is_up: true,
            started_at: now,
            wall_ahead: fresh.wall_ahead,
            workers: (0..workers)
                .map(|index| Worker::new(settings(index)))
                .collect(),
            turns: vec![Duration::ZERO; workers],
            ..Instance::default()
        };
        let who = self.who(instance);
        self.agenda.tick(now, move |sim| sim.look_at_table(who));
        self.agenda.tick(now, move |sim| sim.read_facts(who));
        self.agenda.tick(now, move |sim| sim.chores(who));
        for worker in 0..workers {
            self.arrange_turn(who, worker);
        }
    }

    /// The process ends at once; what it had sent is on its way all the same.
    pub(crate) fn kill(&mut self, instance: usize) {
        self.trace(|| format!("instance {instance} is killed"));
        let ended = &mut self.fleet[instance];
        ended.life += 1;
        ended.is_up = false;
        ended.workers.clear();
    }

    pub(crate) fn drain(&mut self, instance: usize) {
        let who = self.who(instance);
        let draining = &mut self.fleet[instance];
        if draining.is_up && !draining.is_draining {
            draining.is_draining = true;
            for worker in 0..draining.workers.len() {
                self.tell(who, worker, Event::Drain);
            }
        }
    }

    /// Does it when the process is there and awake; never when it has ended.
    pub(crate) fn when_awake(&mut self, who: Who, deed: impl FnOnce(&mut Sim) + 'static) {
        let instance = &self.fleet[who.instance];
        if !instance.is_up || instance.life != who.life {
            return;
        }
        if instance.frozen_until <= self.now {
            return deed(self);
        }
        let thaw = instance.frozen_until;
        self.agenda.at(thaw, move |sim| sim.when_awake(who, deed));
    }

    /// Something happens to a worker.
    pub(crate) fn tell(&mut self, who: Who, worker: usize, event: Event) {
        self.when_awake(who, move |sim| {
            let instance = &mut sim.fleet[who.instance];
            let now = instance.now(sim.now);
            let mut actions = Vec::new();
            instance.workers[worker].note(event, now, &mut actions);
            instance.workers[worker].turn(now, &mut actions);
            sim.perform_all(who, worker, actions);
        });
    }

    pub(crate) fn tell_all(&mut self, who: Who, event: impl Fn() -> Event) {
        for worker in 0..self.fleet[who.instance].workers.len() {
            self.tell(who, worker, event());
        }
    }

    /// An urgent job was committed.
    pub(crate) fn ring(&mut self, lane: Lane) {
        for instance in 0..self.fleet.len() {
            if self.fleet[instance].is_up {
                self.tell_all(self.who(instance), || Event::Rang(Some(lane)));
            }
        }
    }

    fn turn(&mut self, who: Who, worker: usize, due: Duration) {
        self.when_awake(who, move |sim| {
            let instance = &mut sim.fleet[who.instance];
            if instance.turns[worker] != due {
                return;
            }
            instance.turns[worker] = Duration::ZERO;
            let now = instance.now(sim.now);
            let mut actions = Vec::new();
            instance.workers[worker].turn(now, &mut actions);
            sim.perform_all(who, worker, actions);
        });
    }

    fn arrange_turn(&mut self, who: Who, worker: usize) {
        let at = self.now;
        let instance = &mut self.fleet[who.instance];
        let wake_at = instance.workers[worker].wake_at(instance.now(at).mono);
        // A timer fires a little later than asked.
        let due = (instance.started_at + wake_at).max(at) + Duration::from_micros(100);
        let planned = instance.turns[worker];
        if planned <= at || due < planned {
            instance.turns[worker] = due;
            self.agenda.tick(due, move |sim| sim.turn(who, worker, due));
        }
    }

    fn perform_all(&mut self, who: Who, worker: usize, actions: Vec<Action>) {
        for action in actions {
            self.perform(who, worker, action);
        }
        self.arrange_turn(who, worker);
    }

    fn count(&mut self, who: Who, worker: usize, pool: Arc<str>, standing: Standing) {
        let lanes: Vec<Lane> = standing.keys().copied().collect();
        self.ask(
            who,
            STATEMENT_MAX,
            move |sim, now| Some(sim.database.posts(&lanes, now)),
            move |sim, posts| {
                let people = posts.as_ref().map(Vec::len);
                sim.trace(|| {
                    format!(
                        "instance {} counts {people:?} people in {pool}",
                        who.instance
                    )
                });
                let counted = Event::Counted {
                    pool,
                    standing,
                    posts,
                };
                sim.tell(who, worker, counted);
            },
        );
    }

    fn perform(&mut self, who: Who, worker: usize, action: Action) {
        match action {
            Action::FindLanes => self.ask(
                who,
                STATEMENT_MAX,
                |sim, _| Some(sim.database.lanes_with_rows()),
                move |sim, found| sim.tell(who, worker, Event::LanesFound(found)),
            ),
            Action::Look {
                why,
                cursors,
                known,
                ..
            } => self.look(who, worker, why, cursors, known),
            Action::Count { mut pools, .. } => {
                // They stand in no order in the worker's memory.
                pools.sort();
                for (pool, standing) in pools {
                    self.count(who, worker, pool, standing);
                }
            }
            Action::CountPairs {
                standing,
                allowance,
                ..
            } => {
                let lanes: Vec<Lane> = standing.keys().copied().collect();
                self.ask(
                    who,
                    STATEMENT_MAX,
                    move |sim, now| Some(sim.database.pairs(&lanes, allowance.memory(), now)),
                    move |sim, posts| {
                        sim.tell(who, worker, Event::PairsCounted { standing, posts });
                    },
                );
            }
            Action::Attempt {
                urgent,
                held,
                wanted,
            } => self.attempt(who, worker, urgent, held, wanted),
            Action::Post {
                id,
                lane,
                callback,
                not_after,
                expires_at,
                ..
            } => {
                let crowded = self.mood().crowded;
                let wait = match self.dice.chance(crowded) {
                    true => self.dice.between(ms(10), secs(5)),
                    false => self.dice.within(Duration::ZERO, ms(1)),
                };
                self.agenda.at(self.now + wait, move |sim| {
                    sim.when_awake(who, move |sim| {
                        sim.write(who, worker, (id, lane), callback, (not_after, expires_at));
                    });
                });
            }
            Action::Settle(batch) => self.settle(who, worker, batch, 0),
            // The breakers of this world open by themselves; nobody else needs to know.
            Action::Claim(due) => {
                let (target, claim) = (due.target, Claim::Granted);
                self.tell(who, worker, Event::Claimed { target, claim });
            }
            Action::Learn(_) => {}
            Action::Quiet(quiet) => self.give_back(who, move |holdings, _| {
                holdings.returned(quiet).into_iter().collect()
            }),
            Action::Finish => self.finish(who),
        }
    }

    /// When all workers are done, what is still held is given back, and the process ends.
    fn finish(&mut self, who: Who) {
        let instance = self.instance(who);
        instance.finished += 1;
        if instance.finished == instance.workers.len() {
            self.give_back(who, |holdings, _| {
                let held = holdings.held().into_iter();
                held.map(|held| Returned { held, rest: REST }).collect()
            });
            let within = self.dice.within(ms(1), ms(100));
            self.agenda.at(self.now + within, move |sim| {
                sim.when_awake(who, move |sim| sim.kill(who.instance));
            });
        }
    }

    fn look(
        &mut self,
        who: Who,
        worker: usize,
        why: LookFor,
        cursors: Vec<Cursor>,
        known: Vec<JobId>,
    ) {
        let mut asked = cursors.clone();
        if self.database.is(Sabotage::CursorNeverBack) {
            let farthest = &self.fleet[who.instance].farthest;
            for cursor in &mut asked {
                let before = farthest.get(&(cursor.lane, cursor.priority));
                cursor.after = before.map_or(cursor.after, |before| cursor.after.max(*before));
            }
        }
        self.ask(
            who,
            STATEMENT_MAX,
            move |sim, now| Some(sim.database.look(&asked, &known, now)),
            move |sim, seen| {
                let farthest = &mut sim.fleet[who.instance].farthest;
                for seen in seen.iter().flatten() {
                    let key = (seen.job.due_at, seen.job.id);
                    let before = farthest.entry((seen.job.lane, seen.job.priority));
                    let before = before.or_insert(key);
                    *before = key.max(*before);
                }
                sim.tell(who, worker, Event::Looked { why, cursors, seen });
            },
        );
    }

    /// A request is about to be written: whether it is still in time is asked once more.
    fn write(
        &mut self,
        who: Who,
        worker: usize,
        (id, lane): (JobId, Lane),
        callback: String,
        (not_after, expires_at): (Duration, Time),
    ) {
        let now = self.fleet[who.instance].now(self.now);
        if now.boot >= not_after || now.wall >= expires_at {
            let chance = self.dice.unit();
            let stayed = Event::Posted {
                id,
                answer: Answer::NotSent {
                    detail: "too late".to_owned(),
                },
                regain_access_in: None,
                chance,
            };
            return self.tell(who, worker, stayed);
        }
        let Some(attempt) = Callback::parse(&callback).map(|callback| callback.attempt) else {
            return;
        };
        let post = Post {
            job: id,
            attempt,
            lane,
            person: self.people[&id],
        };
        self.trace(|| format!("instance {} posts {post:?}", who.instance));
        self.touch();
        self.judge.left(post, &self.database, &self.plan, self.now);
        self.tell(who, worker, Event::Left { id, at: now.mono });
        self.carry(Letter {
            who,
            worker,
            post,
            callback,
        });
    }

    /// The kinds of outcomes are written one after the other; when one of them is not, the whole batch is written again.
    fn settle(&mut self, who: Who, worker: usize, batch: Batch, statement: usize) {
        let sizes = [
            batch.accepted.len(),
            batch.waiting.len(),
            batch.dead.len(),
            batch.deferred.len(),
        ];
        let Some(next) = (statement..sizes.len()).find(|n| sizes[*n] > 0) else {
            return self.tell(
                who,
                worker,
                Event::Settled {
                    batch,
                    written: true,
                },
            );
        };
        let part = batch.clone();
        self.ask(
            who,
            SETTLE_MAX,
            move |sim, _| {
                if part.ids().any(|id| sim.database.is_locked(id)) {
                    return None;
                }
                sim.database.settle(&part, next);
                Some(())
            },
            move |sim, done| match done {
                Some(()) => sim.settle(who, worker, batch, next + 1),
                None => sim.tell(
                    who,
                    worker,
                    Event::Settled {
                        batch,
                        written: false,
                    },
                ),
            },
        );
    }

    pub(crate) fn instance(&mut self, who: Who) -> &mut Instance {
        &mut self.fleet[who.instance]
    }
}
