//! Loads that few machines bear, on a clock of their own: what is left of a limit is not the machine's fault here.
//!
//! The worker decides as it does in the daemon; database and provider take their time, timers are late, and requests take
//! more or less long to their provider. Only the CPU costs nothing.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const SECOND: Duration = ms(1_000);
/// Of everything that the database is asked.
const STATEMENT: Duration = ms(5);
/// From a post to its answer.
const LATENCY: Duration = ms(200);
/// From the decision to post to the post.
const WRITTEN_WITHIN: Duration = ms(1);
/// From a post to its arrival.
const ON_THE_WAY_MIN: Duration = ms(20);
const ON_THE_WAY_MAX: Duration = ms(35);
/// Commits stall so often, in turns by these.
const STALL_EVERY: Duration = Duration::from_secs(5);
const STALLS: [Duration; 2] = [ms(150), ms(400)];

struct Load {
    numbers: i32,
    rate: f64,
    lasts: Duration,
    stalls: bool,
    /// Another rate after that, and for as long.
    then: Option<f64>,
}

impl Load {
    fn new(numbers: i32, rate: f64, seconds: u64) -> Self {
        Self {
            numbers,
            rate,
            lasts: Duration::from_secs(seconds),
            stalls: false,
            then: None,
        }
    }
}

/// A worker with whatever is to happen to it.
struct Play {
    bench: Bench,
    rate: f64,
    stalls: bool,
    agenda: BTreeMap<(Duration, u64), Event>,
    planned: u64,
    chance: StdRng,
    /// The last job of each lane that was read.
    read: IdMap<Lane, JobId>,
    next_job: i64,
    posts: IdMap<Lane, Vec<Duration>>,
    arrivals: IdMap<Lane, Vec<Duration>>,
}

impl Play {
    fn new(load: &Load) -> Self {
        let mut bench = Bench::new(load.rate);
        bench.worker = Worker::new(Settings {
            in_flight_max: 10_000,
            ..bench.worker.settings.clone()
        });
        let facts = Arc::clone(&bench.world.lanes[&LANE]);
        let lanes = (1..=load.numbers).map(|lane| (Lane(lane), Arc::clone(&facts)));
        bench.world.lanes = lanes.collect();
        let mut actions = bench.lease_until(Duration::from_secs(3_600));
        actions.extend(bench.show_world());
        let mut play = Self {
            bench,
            rate: load.rate,
            stalls: load.stalls,
            agenda: BTreeMap::new(),
            planned: 0,
            chance: StdRng::seed_from_u64(7),
            read: IdMap::default(),
            next_job: 1,
            posts: IdMap::default(),
            arrivals: IdMap::default(),
        };
        play.perform(actions);
        play
    }

    fn plan(&mut self, at: Duration, event: Event) {
        self.planned += 1;
        self.agenda.insert((at, self.planned), event);
    }

    fn within(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.chance.random())
    }

    fn until(&mut self, end: Duration) {
        while self.bench.mono < end {
            let woken = self.bench.worker.wake_at(self.bench.mono) + self.within(ms(1));
            let heard = self.agenda.first_key_value().map(|((at, _), _)| *at);
            self.bench.mono = heard.map_or(woken, |at| at.min(woken)).max(self.bench.mono);
            let (now, mut actions) = (self.bench.now(), Vec::new());
            while let Some(event) = self.agenda.first_entry().filter(|e| e.key().0 <= now.mono) {
                self.bench.worker.note(event.remove(), now, &mut actions);
            }
            self.bench.worker.turn(now, &mut actions);
            self.perform(actions);
        }
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.act(action);
        }
    }

    fn act(&mut self, action: Action) {
        let now = self.bench.mono;
        match action {
            Action::FindLanes => {
                let lanes = self.bench.world.lanes.keys();
                let found = lanes.map(|lane| (*lane, Priority::Normal)).collect();
                self.plan(now + STATEMENT, Event::LanesFound(Some(found)));
            }
            Action::Look { why, cursors, .. } => {
                let seen = Some(
                    cursors
                        .iter()
                        .flat_map(|cursor| self.seen(cursor))
                        .collect(),
                );
                self.plan(now + STATEMENT, Event::Looked { why, cursors, seen });
            }
            Action::CountPairs { standing, .. } => {
                let posts = Some(Vec::new());
                self.plan(now + STATEMENT, Event::PairsCounted { standing, posts });
            }
            Action::Attempt { urgent, wanted, .. } => {
                let done = self.commits_at(now + STATEMENT);
                let permitted = wanted.iter().map(|w| (w.id, wall(done)));
                let event = Event::Attempted {
                    urgent,
                    permitted: Some(permitted.collect()),
                    wanted,
                    took: done - now,
                };
                self.plan(done, event);
            }
            Action::Post { id, lane, .. } => self.post(id, lane),
            Action::Settle(batch) => {
                let written = true;
                self.plan(now + STATEMENT, Event::Settled { batch, written });
            }
            _ => {}
        }
    }

    /// There are always more; what was read once is not there again.
    fn seen(&mut self, cursor: &Cursor) -> Vec<Seen> {
        let last = self.read.get(&cursor.lane).copied();
        if last.is_some_and(|last| cursor.after.1 != last) {
            return Vec::new();
        }
        let ids = self.next_job..self.next_job + i64::from(cursor.room);
        self.next_job = ids.end;
        self.read.insert(cursor.lane, JobId(ids.end - 1));
        let seen = |id| {
            let mut seen = self.bench.seen(id, cursor.lane, cursor.priority);
            seen.job.due_at = wall(Duration::ZERO);
            seen
        };
        ids.map(seen).collect()
    }

    fn commits_at(&self, done: Duration) -> Duration {
        let nth = done.as_secs() / STALL_EVERY.as_secs();
        let stall = STALLS[nth as usize % STALLS.len()];
        let stalled_until = STALL_EVERY * nth as u32 + stall;
        match self.stalls {
            true => done.max(stalled_until),
            false => done,
        }
    }

    fn post(&mut self, id: JobId, lane: Lane) {
        let at = self.bench.mono + self.within(WRITTEN_WITHIN);
        self.posts.entry(lane).or_default().push(at);
        let arrived = at + ON_THE_WAY_MIN + self.within(ON_THE_WAY_MAX - ON_THE_WAY_MIN);
        self.arrivals.entry(lane).or_default().push(arrived);
        self.plan(at, Event::Left { id, at });
        let answered = Event::Posted {
            id,
            answer: accepted(),
            regain_access_in: None,
            chance: 0.5,
        };
        self.plan(at + LATENCY, answered);
    }

    fn change_rate(&mut self, rate: f64) {
        for facts in self.bench.world.lanes.values_mut() {
            Arc::make_mut(facts).rate = Rate::new(rate).expect("a rate");
        }
        self.rate = rate;
        let actions = self.bench.show_world();
        self.perform(actions);
    }

    /// No second that ends with a post since then holds more than the rate, none more than one more by arrivals and hardly one
    /// as many, and nearly all of the limit is used.
    fn judge(&mut self, what: &str, since: Duration) {
        let capacity = self.rate.ceil() as usize;
        assert_eq!(self.posts.len(), self.bench.world.lanes.len());
        let (mut used, mut could) = (0.0, 0.0);
        for times in self.posts.values_mut() {
            times.sort_unstable();
            assert!(fullest_second(times, since) <= capacity, "{what}");
            let late = &times[times.partition_point(|at| *at <= since)..];
            used += late.len() as f64 - 1.0;
            could += (late[late.len() - 1] - late[0]).as_secs_f64() * self.rate;
        }
        let (mut over, mut all) = (0, 0);
        // What arrives sooner may have left before.
        let since = since + ON_THE_WAY_MAX;
        for times in self.arrivals.values_mut() {
            times.sort_unstable();
            assert!(fullest_second(times, since) <= capacity + 1, "{what}");
            let late = times.partition_point(|at| *at <= since);
            let is_over = |last: &usize| {
                let first = last.checked_sub(capacity).map(|first| times[first]);
                first.is_some_and(|first| times[*last] - first < SECOND)
            };
            over += (late..times.len()).filter(is_over).count();
            all += times.len() - late;
        }
        let (over, used) = (over as f64 / all as f64, used / could);
        println!(
            "{what}: {:.3} % over, {:.1} % used",
            over * 100.0,
            used * 100.0
        );
        assert!(over <= 0.001, "{what}: {over}");
        assert!(used >= 0.97, "{what}: {used}");
    }
}

/// The most that any second holds which ends with one of these ascending times later than `since`.
fn fullest_second(times: &[Duration], since: Duration) -> usize {
    let (mut first, mut most) = (0, 0);
    for (last, at) in times.iter().enumerate() {
        while *at - times[first] >= SECOND {
            first += 1;
        }
        if *at > since {
            most = most.max(last - first + 1);
        }
    }
    most
}

fn is_kept_and_used(load: &Load) {
    let mut play = Play::new(load);
    let what = format!("{} numbers at {}/s", load.numbers, load.rate);
    play.until(play.bench.mono + load.lasts);
    play.judge(&what, Duration::ZERO);
    if let Some(rate) = load.then {
        let changed = play.bench.mono;
        play.change_rate(rate);
        play.until(changed + load.lasts);
        // What was decided before may be written after.
        let since = changed + WRITTEN_WITHIN;
        play.judge(&format!("{what}, then {rate}/s"), since);
    }
}

#[test]
fn a_thousand_numbers_at_10_a_second_keep_the_limit_and_use_it() {
    is_kept_and_used(&Load::new(1_000, 10.0, 6));
}

#[test]
fn a_hundred_numbers_at_80_a_second_keep_the_limit_and_use_it() {
    is_kept_and_used(&Load::new(100, 80.0, 6));
}

#[test]
fn four_numbers_at_1000_a_second_keep_the_limit_and_use_it() {
    is_kept_and_used(&Load::new(4, 1_000.0, 10));
}

#[test]
fn a_hundred_numbers_at_one_in_two_seconds_keep_the_limit_and_use_it() {
    is_kept_and_used(&Load::new(100, 0.5, 120));
}

#[test]
fn while_commits_stall_the_limit_is_kept_and_used() {
    for (numbers, rate) in [(100, 10.0), (10, 80.0), (1, 1_000.0)] {
        is_kept_and_used(&Load {
            stalls: true,
            ..Load::new(numbers, rate, 30)
        });
    }
}

#[test]
fn a_rate_that_changes_under_way_is_kept_and_used() {
    for (rate, then) in [(80.0, 10.0), (10.0, 80.0), (20.0, 2.5)] {
        is_kept_and_used(&Load {
            then: Some(then),
            ..Load::new(20, rate, 20)
        });
    }
}
