//! The proofs play schedules in virtual time through a small dispatcher that keeps to the module's protocol. The judge
//! knows nothing of ledgers: it looks at the list of what reached the provider, and when. To know that it sees, the same
//! schedules are played with ledgers that are wrong.

use std::collections::{BTreeMap, HashSet};

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A service window that stays open so much longer makes a post free (DESIGN.md, the tier).
const WINDOW_MARGIN: Duration = Duration::from_secs(60);

fn at(since_start: Duration) -> Moment {
    Moment::from(since_start)
}

fn limit(recipients: impl Into<Option<u32>>) -> Limit {
    Limit {
        recipients: recipients.into(),
        elsewhere: 0,
        headroom: 0.05,
        urgent_reserve: 0.10,
    }
}

/// Nothing withheld, so that a test sees the limit itself.
fn bare(recipients: impl Into<Option<u32>>) -> Limit {
    Limit {
        headroom: 0.0,
        urgent_reserve: 0.0,
        ..limit(recipients)
    }
}

// --- Ledgers, right and wrong ----------------------------------------------------------------------------------------

/// What the dispatcher of these proofs uses. A wrong ledger is one that does one thing otherwise.
trait Book {
    fn open(limit: Limit) -> Self;
    fn ledger(&mut self) -> &mut Ledger;

    fn ask(&mut self, person: i64, priority: Priority, now: Moment) -> Answer {
        self.ledger().ask(person, priority, now)
    }
    fn promise(&mut self, person: i64) {
        self.ledger().promise(person);
    }
    fn take(&mut self, person: i64, now: Moment) {
        self.ledger().take(person, now);
    }
    fn keep(&mut self, person: i64, now: Moment) {
        self.ledger().release(person);
        self.take(person, now);
    }
    fn renew(&mut self, person: i64, at: Moment) {
        self.ledger().renew(person, at);
    }
    fn rebuild(&mut self, posts: &[(i64, Moment)], now: Moment) {
        self.ledger().rebuild(posts.iter().copied(), now);
    }
}

impl Book for Ledger {
    fn open(limit: Limit) -> Self {
        Self::new(limit)
    }
    fn ledger(&mut self) -> &mut Ledger {
        self
    }
    fn keep(&mut self, person: i64, now: Moment) {
        Ledger::keep(self, person, now);
    }
}

/// A wrong ledger: a name, and what it does otherwise.
macro_rules! wrong {
    ($name:ident, $($wrong:tt)*) => {
        struct $name(Ledger);
        impl Book for $name {
            fn open(limit: Limit) -> Self {
                Self(Ledger::new(limit))
            }
            fn ledger(&mut self) -> &mut Ledger {
                &mut self.0
            }
            $($wrong)*
        }
    };
}

wrong! { NotRenewedByRepeats,
    fn take(&mut self, person: i64, now: Moment) {
        if self.0.ask(person, Priority::Bulk, now) != Answer::Known {
            self.0.take(person, now);
        }
    }
}
wrong! { NotRebuilt,
    fn rebuild(&mut self, _: &[(i64, Moment)], _: Moment) {}
}
wrong! { WithoutPromises,
    fn promise(&mut self, _: i64) {}
}
wrong! { DeafToReceipts,
    fn renew(&mut self, _: i64, _: Moment) {}
}
wrong! { WithoutTheFiveMinutes,
    fn take(&mut self, person: i64, now: Moment) {
        self.0.take(person, now - 5 * MINUTE);
    }
}

/// Starts anew at each midnight.
struct ByCalendarDay {
    ledger: Ledger,
    day: u64,
}

impl Book for ByCalendarDay {
    fn open(limit: Limit) -> Self {
        Self {
            ledger: Ledger::new(limit),
            day: 0,
        }
    }
    fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
    fn ask(&mut self, person: i64, priority: Priority, now: Moment) -> Answer {
        let day = now.since_start().as_secs() / DAY.as_secs();
        if day != self.day {
            *self = Self {
                day,
                ..Self::open(self.ledger.limit())
            };
        }
        match self.ledger.ask(person, priority, now) {
            Answer::Full { .. } => Answer::Full {
                until: at(DAY * (day as u32 + 1)),
            },
            answer => answer,
        }
    }
}

// --- The judge -------------------------------------------------------------------------------------------------------

/// A message that the provider counts.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    person: i64,
    at: Moment,
    /// The largest limit that held between the dispatcher's decision and the arrival.
    limit: Option<u32>,
}

/// The first arrival of somebody new with whom more people than the limit were written to in 24 h.
fn violation(arrivals: &[Arrival]) -> Option<String> {
    let mut arrivals = arrivals.to_vec();
    arrivals.sort_by_key(|arrival| arrival.at);
    arrivals.iter().enumerate().find_map(|(n, new)| {
        let day = || {
            arrivals[..n]
                .iter()
                .rev()
                .take_while(|earlier| earlier.at + DAY > new.at)
        };
        let Arrival { person, at, limit } = new;
        let most = (*limit)? as usize;
        if day().any(|earlier| earlier.person == *person) {
            return None;
        }
        let people: HashSet<i64> = day().map(|earlier| earlier.person).collect();
        (people.len() >= most).then(|| {
            let (hours, before) = (at.since_start().as_secs_f64() / 3_600.0, people.len());
            format!("person {person} at {hours:.2} h comes after {before} of {most}")
        })
    })
}

#[test]
fn the_judge_sees_one_too_many_in_24_hours_and_nothing_else() {
    let arrival = |person, after| Arrival {
        person,
        at: at(after),
        limit: Some(2),
    };
    let mut arrivals = vec![
        arrival(1, HOUR),
        arrival(2, 2 * HOUR),
        arrival(1, 3 * HOUR),
        arrival(3, 2 * HOUR + DAY),
    ];
    assert_eq!(violation(&arrivals), None);
    arrivals.push(arrival(4, 3 * HOUR + DAY));
    assert_eq!(violation(&arrivals), None);
    arrivals.push(arrival(5, 26 * HOUR - SECOND));
    assert!(violation(&arrivals).is_some());
}

// --- The dispatcher --------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy)]
struct Job {
    person: i64,
    number: usize,
    priority: Priority,
    due: Moment,
    expires: Moment,
    /// From the committed attempt to the slot.
    pipeline: Duration,
    /// From the slot to the provider.
    travel: Duration,
    /// How long the provider holds it back before it sends it, if it does.
    held: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Gate(usize),
    Slot { job: usize, promised: bool },
    Receipt { person: i64, sent: Moment },
    Window { person: i64, until: Moment },
    Limit(Option<u32>),
    Restart,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    person: i64,
    /// Since when the person has room without a break.
    room_since: Moment,
    /// When it was decided that the message may go.
    decided: Moment,
    arrival: Moment,
}

/// Plays events in virtual time, and keeps what the judge wants to know.
struct Play<B> {
    book: B,
    jobs: Vec<Job>,
    events: BTreeMap<(Moment, usize), Event>,
    queued: usize,
    /// Each number posts every 100 ms.
    number_free: [Moment; 3],
    windows: HashMap<i64, Moment>,
    /// What the database knows: the counted posts, and what was sent of held messages.
    rows: Vec<(i64, Moment)>,
    /// The limits that held, with when they began.
    limits: Vec<(Moment, Limit)>,
    /// The posts that count.
    messages: Vec<Message>,
    /// By job, when it left.
    posted: Vec<Option<Moment>>,
}

impl<B: Book> Play<B> {
    fn new(limit: Limit) -> Self {
        Self {
            book: B::open(limit),
            jobs: Vec::new(),
            events: BTreeMap::new(),
            queued: 0,
            number_free: [Moment::LONG_AGO; 3],
            windows: HashMap::new(),
            rows: Vec::new(),
            limits: vec![(Moment::LONG_AGO, limit)],
            messages: Vec::new(),
            posted: Vec::new(),
        }
    }

    fn enqueue(&mut self, job: Job) {
        self.jobs.push(job);
        self.posted.push(None);
        self.queue(job.due, Event::Gate(self.jobs.len() - 1));
    }

    fn queue(&mut self, at: Moment, event: Event) {
        self.queued += 1;
        self.events.insert((at, self.queued), event);
    }

    fn run(&mut self) {
        while let Some(((now, _), event)) = self.events.pop_first() {
            match event {
                Event::Gate(job) => self.gate(job, now),
                Event::Slot { job, promised } => self.slot(job, promised, now),
                Event::Receipt { person, sent } => {
                    self.book.renew(person, sent);
                    self.rows.push((person, sent));
                }
                Event::Window { person, until } => {
                    let window = self.windows.entry(person).or_insert(until);
                    *window = until.max(*window);
                }
                Event::Limit(recipients) => self.change(recipients, now),
                Event::Restart => self.restart(now),
            }
        }
    }

    fn gate(&mut self, index: usize, now: Moment) {
        let job = self.jobs[index];
        if now >= job.expires {
            return;
        }
        let counts = self.counts(job.person, now);
        if counts {
            if let Answer::Full { until } = self.book.ask(job.person, job.priority, now) {
                assert!(until > now, "asking again at once is no waiting");
                return self.queue(until, Event::Gate(index));
            }
            self.book.promise(job.person);
        }
        let slot = (now + job.pipeline).max(self.number_free[job.number]);
        self.number_free[job.number] = slot + Duration::from_millis(100);
        let promised = counts;
        self.queue(
            slot,
            Event::Slot {
                job: index,
                promised,
            },
        );
    }

    fn slot(&mut self, index: usize, promised: bool, now: Moment) {
        let job = self.jobs[index];
        let counts = self.counts(job.person, now) && now < job.expires;
        match (promised, counts) {
            (true, true) => self.book.keep(job.person, now),
            (true, false) => self.book.ledger().release(job.person),
            (false, true) => match self.book.ask(job.person, job.priority, now) {
                Answer::Full { until } => return self.queue(until, Event::Gate(index)),
                _ => self.book.take(job.person, now),
            },
            (false, false) => {}
        }
        if now >= job.expires {
            return;
        }
        if counts {
            self.rows.push((job.person, now));
        }
        self.posted[index] = Some(now);
        self.arrive(job, counts, now);
    }

    fn arrive(&mut self, job: Job, counts: bool, now: Moment) {
        let held = job.held.filter(|_| counts);
        let arrival = now + job.travel + held.unwrap_or_default();
        if held.is_some() {
            let (person, sent) = (job.person, arrival);
            self.queue(arrival + job.travel, Event::Receipt { person, sent });
        }
        if counts {
            let message = self.message(job.person, now, arrival);
            self.messages.push(message);
        } else {
            let open = self.windows.get(&job.person).copied();
            assert!(open > Some(arrival), "the provider counts it");
        }
    }

    fn message(&self, person: i64, slot: Moment, arrival: Moment) -> Message {
        // From the gate to the slot, at most.
        let gate = slot - MINUTE;
        let to_person = self
            .messages
            .iter()
            .filter(|earlier| earlier.person == person);
        let has_room = to_person
            .clone()
            .filter(|earlier| earlier.arrival + ROOM > slot);
        let room_since = has_room
            .map(|earlier| earlier.room_since)
            .fold(gate, Moment::min);
        // Until it is released the person may have left the provider's 24 h; that is of the first decision's making. The
        // same holds while an earlier one is held.
        let is_held =
            arrival > slot + MINUTE || to_person.clone().any(|earlier| earlier.arrival > slot);
        Message {
            person,
            room_since,
            decided: if is_held { room_since } else { gate },
            arrival,
        }
    }

    fn arrivals(&self) -> Vec<Arrival> {
        let arrival = |message: &Message| Arrival {
            person: message.person,
            at: message.arrival,
            limit: self.most_between(message.decided, message.arrival),
        };
        self.messages.iter().map(arrival).collect()
    }

    fn counts(&self, person: i64, now: Moment) -> bool {
        self.windows
            .get(&person)
            .is_none_or(|until| *until <= now + WINDOW_MARGIN)
    }

    /// The largest limit that held at some time from `first` to `last`.
    fn most_between(&self, first: Moment, last: Moment) -> Option<u32> {
        let begin = self.limits.iter().rposition(|(from, _)| *from <= first);
        let held = self.limits[begin.unwrap_or(0)..]
            .iter()
            .take_while(|(from, _)| *from <= last);
        let finite: Option<Vec<u32>> = held.map(|(_, limit)| limit.recipients).collect();
        finite?.into_iter().max()
    }

    fn change(&mut self, recipients: Option<u32>, now: Moment) {
        let limit = Limit {
            recipients,
            ..self.book.ledger().limit()
        };
        self.book.ledger().set_limit(limit);
        self.limits.push((now, limit));
    }

    /// Memory is gone: what had an attempt is looked at again, and the ledger is built from the database.
    fn restart(&mut self, now: Moment) {
        let limit = self.book.ledger().limit();
        self.book = B::open(limit);
        self.book.rebuild(&self.rows, now);
        for event in self.events.values_mut() {
            if let Event::Slot { job, .. } = *event {
                *event = Event::Gate(job);
            }
        }
    }
}

// --- 3 numbers, 250 recipients a day, 1,000 jobs to 600 people ------------------------------------------------------

/// A small generator, so that a schedule is the same each time.
fn dice(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |sides| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    }
}

/// In the evening of the first day one job to each of 550 people, who are more than two days' worth. Fifty more get an
/// urgent one in the following days, and there are 400 repeats, also to people who still wait for the first.
fn rush<B: Book>() -> Play<B> {
    let mut roll = dice(7);
    let mut play = Play::new(limit(250));
    let evening = at(18 * HOUR);
    for n in 0..1_000_i64 {
        let priority = match n {
            0..250 => Priority::Bulk,
            550..600 => Priority::Urgent,
            _ => Priority::Normal,
        };
        let later = match n {
            0..550 => Duration::ZERO,
            550..600 => SECOND * roll(60 * 3_600) as u32,
            _ => SECOND * roll(8 * 3_600) as u32,
        };
        play.enqueue(Job {
            person: n % 600,
            number: roll(3) as usize,
            priority,
            due: evening + later,
            expires: evening + 3 * DAY,
            pipeline: Duration::from_millis(roll(2_000)),
            travel: Duration::from_millis(roll(50_000)),
            held: (roll(20) == 0).then(|| SECOND * roll(3_600) as u32),
        });
    }
    play
}

#[test]
fn in_three_days_1000_jobs_to_600_people_never_pass_250_in_24_hours_and_all_go_out() {
    let mut play = rush::<Ledger>();
    play.run();
    assert_eq!(violation(&play.arrivals()), None);
    let waiting = play.posted.iter().filter(|posted| posted.is_none());
    assert_eq!(waiting.count(), 0);
}

#[test]
fn urgent_jobs_to_new_people_go_at_once_while_normal_and_bulk_wait_for_room() {
    let mut play = rush::<Ledger>();
    play.run();
    let waited = |n: usize| play.posted[n].map(|posted| posted.since(play.jobs[n].due));
    let longest = (550..600).filter_map(waited).max();
    assert!(longest < Some(MINUTE), "an urgent job waited {longest:?}");
    let long = (0..550).filter(|n| waited(*n) > Some(DAY)).count();
    assert!(
        long > 200,
        "the others had to wait, {long} of them over a day"
    );
}

/// Jobs that come over three days, more than there is room for, each valid for some hours.
fn flood<B: Book>() -> Play<B> {
    let mut roll = dice(11);
    let mut play = Play::new(limit(250));
    for _ in 0..1_500 {
        let due = at(SECOND * roll(3 * 86_400) as u32);
        let (priority, valid) = match roll(10) {
            0 => (Priority::Urgent, 5 * MINUTE),
            1..5 => (Priority::Normal, 12 * HOUR),
            _ => (Priority::Bulk, 24 * HOUR),
        };
        play.enqueue(Job {
            person: roll(2_000) as i64,
            number: roll(3) as usize,
            priority,
            due,
            expires: due + valid,
            pipeline: Duration::from_millis(roll(2_000)),
            travel: Duration::ZERO,
            held: None,
        });
    }
    play
}

#[test]
fn a_job_expires_only_if_there_was_no_room_for_it_all_its_life() {
    let mut play = flood::<Ledger>();
    play.run();
    assert_eq!(violation(&play.arrivals()), None);
    // With those who were promised room by then.
    let people = |now: Moment| {
        let counted = play
            .rows
            .iter()
            .filter(|(_, at)| *at <= now + 4 * SECOND && *at + ROOM > now);
        counted
            .map(|(person, _)| *person)
            .collect::<HashSet<_>>()
            .len()
    };
    // Whenever somebody could have left.
    let returns: Vec<(Moment, usize)> = play
        .rows
        .iter()
        .map(|(_, at)| (*at + ROOM, people(*at + ROOM)))
        .collect();
    let expired: Vec<Job> = (0..play.jobs.len())
        .filter(|n| play.posted[*n].is_none())
        .map(|n| play.jobs[n])
        .collect();
    assert!(
        expired.len() > 300,
        "{} expired: that says nothing",
        expired.len()
    );
    for job in expired {
        let allowance = limit(250).allowance(job.priority).expect("a finite limit") as usize;
        assert!(people(job.due) >= allowance, "{job:?}");
        let in_its_life = returns
            .iter()
            .filter(|(at, _)| job.due < *at && *at + MINUTE < job.expires);
        for (at, people) in in_its_life {
            assert!(*people >= allowance, "{job:?} at {at:?}");
        }
    }
}

#[test]
fn a_ledger_by_calendar_day_fails_the_proof() {
    let mut play = rush::<ByCalendarDay>();
    play.run();
    assert!(violation(&play.arrivals()).is_some());
}

#[test]
fn a_ledger_that_repeats_do_not_renew_fails_the_proof() {
    let mut play = rush::<NotRenewedByRepeats>();
    play.run();
    assert!(violation(&play.arrivals()).is_some());
}

#[test]
fn a_ledger_without_promises_fails_the_proof() {
    let mut play = rush::<WithoutPromises>();
    play.run();
    assert!(violation(&play.arrivals()).is_some());
}

// --- Any schedule ----------------------------------------------------------------------------------------------------

#[derive(Debug, Clone)]
enum Step {
    Job {
        person: i64,
        urgent: bool,
        pipeline: u64,
        travel: u64,
        held: Option<u64>,
    },
    Window {
        person: i64,
        lasts: u64,
    },
    Limit(Option<u32>),
    Restart,
}

/// Seconds between two steps: together, within the same hours, or about as long as somebody takes room.
fn gap() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => 0..30_u64,
        3 => 0..3 * 3_600_u64,
        1 => 23 * 3_600 + 3_000..24 * 3_600 + 600_u64,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let held = prop_oneof![4 => Just(None), 1 => (0..20 * 3_600_u64).prop_map(Some)];
    let job = (0..20_i64, any::<bool>(), 0..20_u64, 0..50_u64, held);
    prop_oneof![
        20 => job.prop_map(|(person, urgent, pipeline, travel, held)| Step::Job {
            person, urgent, pipeline, travel, held,
        }),
        // Short ones close between the gate and the slot.
        2 => (0..20_i64, 0..120_u64).prop_map(|(person, lasts)| Step::Window { person, lasts }),
        1 => Just(Step::Restart),
        1 => prop_oneof![Just(None), (0..8_u32).prop_map(Some)].prop_map(Step::Limit),
    ]
}

fn schedule() -> impl Strategy<Value = Vec<(u64, Step)>> {
    prop::collection::vec((gap(), step()), 20..150)
}

fn played<B: Book>(steps: &[(u64, Step)]) -> Play<B> {
    let mut play = Play::new(bare(5));
    let mut now = at(DAY);
    for (gap, step) in steps {
        now = now + SECOND * *gap as u32;
        match *step {
            Step::Job {
                person,
                urgent,
                pipeline,
                travel,
                held,
            } => play.enqueue(Job {
                person,
                number: person as usize % 3,
                priority: if urgent {
                    Priority::Urgent
                } else {
                    Priority::Bulk
                },
                due: now,
                expires: now + 30 * HOUR,
                pipeline: Duration::from_secs(pipeline),
                travel: Duration::from_secs(travel),
                held: held.map(Duration::from_secs),
            }),
            Step::Window { person, lasts } => {
                let until = now + Duration::from_secs(lasts) + WINDOW_MARGIN / 2;
                play.queue(now, Event::Window { person, until });
            }
            Step::Limit(recipients) => play.queue(now, Event::Limit(recipients)),
            Step::Restart => play.queue(now, Event::Restart),
        }
    }
    play.run();
    play
}

proptest! {
    #[test]
    fn no_24_hours_ever_hold_more_people_than_the_limit_whatever_the_schedule(steps in schedule()) {
        let play = played::<Ledger>(&steps);
        prop_assert_eq!(violation(&play.arrivals()), None);
    }

    #[test]
    fn what_is_left_says_what_ask_then_grants(steps in schedule(), ahead in 0..100_000_u64) {
        let mut play = played::<Ledger>(&steps);
        let last = play.rows.iter().map(|(_, at)| *at).max().unwrap_or(at(DAY));
        let now = last + Duration::from_secs(ahead);
        let room = play.book.room(Priority::Urgent, now);
        let newcomers = (1_000..1_000 + room.unwrap_or(10) as i64).chain([2_000]);
        let answers: Vec<Answer> = newcomers
            .map(|person| {
                let answer = play.book.ask(person, Priority::Urgent, now);
                play.book.promise(person);
                answer
            })
            .collect();
        let granted = answers.iter().filter(|answer| **answer == Answer::Room).count();
        prop_assert_eq!(Some(granted), room.or(Some(11)));
    }
}

/// How many of 30 schedules the judge finds fault with.
fn faults<B: Book>() -> usize {
    let mut runner = TestRunner::deterministic();
    let schedules = (0..30).map(|_| {
        schedule()
            .new_tree(&mut runner)
            .expect("a schedule")
            .current()
    });
    schedules
        .filter(|steps| violation(&played::<B>(steps).arrivals()).is_some())
        .count()
}

#[test]
fn the_same_schedules_find_fault_with_every_wrong_ledger_and_not_with_the_right_one() {
    assert_eq!(faults::<Ledger>(), 0);
    for (wrong, faults) in [
        ("by calendar day", faults::<ByCalendarDay>()),
        ("not renewed by repeats", faults::<NotRenewedByRepeats>()),
        ("not rebuilt after a restart", faults::<NotRebuilt>()),
        ("without promises", faults::<WithoutPromises>()),
        (
            "deaf to receipts of held messages",
            faults::<DeafToReceipts>(),
        ),
        (
            "without the five minutes",
            faults::<WithoutTheFiveMinutes>(),
        ),
    ] {
        assert!(faults > 0, "{wrong}: nobody noticed");
    }
}

// --- One rule at a time ----------------------------------------------------------------------------------------------

const NOON: Duration = Duration::from_secs(12 * 3_600);

/// A ledger with so many people, the `n`-th of whom was written to `n` minutes after noon.
fn with_people(limit: Limit, people: i64) -> Ledger {
    let mut ledger = Ledger::new(limit);
    for person in 0..people {
        ledger.take(person, at(NOON) + MINUTE * person as u32);
    }
    ledger
}

#[test]
fn urgent_may_use_all_but_the_headroom_and_the_others_all_but_the_reserve_too() {
    use Priority::{Bulk, Normal, Urgent};
    let allowances =
        |limit: Limit| [Urgent, Normal, Bulk].map(|priority| limit.allowance(priority));
    assert_eq!(allowances(limit(250)), [237, 212, 212].map(Some));
    assert_eq!(allowances(limit(2_000)), [1_900, 1_700, 1_700].map(Some));
    assert_eq!(
        allowances(limit(100_000)),
        [95_000, 85_000, 85_000].map(Some)
    );
    assert_eq!(allowances(limit(1)), [1, 1, 1].map(Some));
    assert_eq!(allowances(limit(0)), [0, 0, 0].map(Some));
    assert_eq!(allowances(limit(None)), [None; 3]);
    let shared = |elsewhere| Limit {
        elsewhere,
        ..limit(250)
    };
    assert_eq!(allowances(shared(150)), [95, 85, 85].map(Some));
    assert_eq!(allowances(shared(300)), [0, 0, 0].map(Some));
}

#[test]
fn at_its_allowance_a_priority_waits_until_enough_people_have_left() {
    let mut ledger = with_people(limit(250), 212);
    let now = at(NOON + 5 * HOUR);
    assert_eq!(ledger.room(Priority::Urgent, now), Some(25));
    assert_eq!(ledger.room(Priority::Bulk, now), Some(0));
    let full_until = |minutes: u32| Answer::Full {
        until: at(NOON + minutes * MINUTE) + ROOM,
    };
    assert_eq!(ledger.ask(-1, Priority::Normal, now), full_until(0));
    assert_eq!(ledger.ask(-1, Priority::Urgent, now), Answer::Room);
    for person in 212..237 {
        ledger.take(person, now);
    }
    ledger.renew(0, now);
    ledger.set_limit(limit(250));
    assert_eq!(ledger.ask(-1, Priority::Urgent, now), full_until(1));
    assert_eq!(ledger.ask(-1, Priority::Normal, now), full_until(26));
    let first = at(NOON + MINUTE) + ROOM;
    assert_eq!(ledger.next_return(now), Some(first));
    assert_eq!(ledger.returning_by(first + 9 * MINUTE, now), 10);
    ledger.promise(-2);
    ledger.set_limit(limit(250));
    assert_eq!(ledger.ask(-1, Priority::Urgent, now), full_until(2));
    ledger.release(-2);
    assert_eq!(ledger.ask(-1, Priority::Urgent, now), full_until(1));
    let before = first - Duration::from_nanos(1);
    assert_eq!(ledger.ask(-1, Priority::Urgent, before), full_until(1));
    assert_eq!(ledger.ask(-1, Priority::Urgent, first), Answer::Room);
}

#[test]
fn who_counts_already_passes_by_and_counts_for_another_day() {
    let mut ledger = with_people(bare(2), 2);
    let late = at(NOON) + ROOM - SECOND;
    assert_eq!(ledger.ask(0, Priority::Bulk, late), Answer::Known);
    ledger.take(0, late);
    assert_eq!(ledger.used(late + MINUTE), 2);
    assert_eq!(ledger.used(late + 2 * MINUTE), 1, "the other has left");
    assert_eq!(ledger.ask(0, Priority::Bulk, late + DAY), Answer::Known);
    assert_eq!(ledger.ask(0, Priority::Bulk, late + ROOM), Answer::Room);
}

#[test]
fn a_promise_takes_room_once_for_a_person_until_all_are_kept_or_released() {
    let mut ledger = Ledger::new(bare(1));
    let now = at(NOON);
    ledger.promise(1);
    ledger.promise(1);
    assert_eq!(ledger.ask(1, Priority::Urgent, now), Answer::Known);
    assert!(matches!(
        ledger.ask(2, Priority::Urgent, now),
        Answer::Full { .. }
    ));
    ledger.release(1);
    assert!(matches!(
        ledger.ask(2, Priority::Urgent, now),
        Answer::Full { .. }
    ));
    ledger.release(1);
    assert_eq!(ledger.ask(2, Priority::Urgent, now), Answer::Room);
    ledger.promise(2);
    ledger.keep(2, now);
    ledger.release(2);
    assert_eq!(ledger.used(now), 1, "what was taken is not given back");
    ledger.promise(2);
    assert_eq!(ledger.used(now + ROOM), 1, "nor does the promised leave");
    ledger.release(2);
    assert_eq!(ledger.used(now + ROOM), 0);
}

#[test]
fn people_counted_without_a_limit_count_when_there_is_one() {
    let mut ledger = with_people(bare(None), 10);
    let now = at(NOON + HOUR);
    assert_eq!(ledger.ask(-1, Priority::Bulk, now), Answer::Room);
    assert_eq!(ledger.room(Priority::Bulk, now), None);
    ledger.set_limit(bare(4));
    let until = at(NOON + 6 * MINUTE) + ROOM;
    assert_eq!(ledger.ask(-1, Priority::Bulk, now), Answer::Full { until });
    ledger.set_limit(bare(11));
    assert_eq!(ledger.ask(-1, Priority::Bulk, now), Answer::Room);
}

#[test]
fn above_a_limit_that_fell_nobody_passes_by_whom_the_provider_may_have_forgotten() {
    let mut ledger = with_people(bare(3), 3);
    let late = at(NOON) + DAY + MINUTE;
    assert_eq!(ledger.ask(0, Priority::Urgent, late), Answer::Known);
    ledger.set_limit(bare(2));
    assert!(matches!(
        ledger.ask(0, Priority::Urgent, late),
        Answer::Full { .. }
    ));
    assert_eq!(
        ledger.ask(0, Priority::Urgent, at(NOON + 20 * HOUR)),
        Answer::Known
    );
}

#[test]
fn a_rebuilt_ledger_answers_like_the_one_that_was_lost() {
    let mut lost = with_people(bare(8), 8);
    let mut posts: Vec<(i64, Moment)> = (0..8).map(|n| (n, at(NOON) + MINUTE * n as u32)).collect();
    posts.push((9, at(NOON) - DAY));
    posts.reverse();
    // Its clock began an hour ago; most of the posts were before that.
    let shift = NOON + HOUR;
    let mut rebuilt = Ledger::new(bare(8));
    let now = at(NOON + 2 * HOUR);
    rebuilt.rebuild(
        posts.into_iter().map(|(person, at)| (person, at - shift)),
        now - shift,
    );
    assert_eq!(rebuilt.used(now - shift), 8);
    assert_eq!(
        rebuilt.next_return(now - shift).map(|at| at + shift),
        lost.next_return(now)
    );
}

#[test]
fn people_beyond_the_memory_of_an_unlimited_pool_stop_newcomers_once_there_is_a_limit() {
    let mut ledger = Ledger::new(bare(None));
    let now = at(NOON);
    for person in 0..REMEMBERED_MAX as i64 + 10 {
        ledger.take(person, now + Duration::from_millis(person as u64));
    }
    assert_eq!(ledger.used(now + HOUR), REMEMBERED_MAX);
    ledger.set_limit(bare(1_000_000));
    let until = now + Duration::from_millis(REMEMBERED_MAX as u64 + 9) + ROOM;
    assert_eq!(ledger.room(Priority::Urgent, now + HOUR), Some(0));
    assert_eq!(
        ledger.ask(-1, Priority::Urgent, now + HOUR),
        Answer::Full { until }
    );
    assert_eq!(ledger.ask(-1, Priority::Urgent, until), Answer::Room);
}

/// Bytes that the ledger has on the heap: a bucket of a hash map has one byte of its own, and an eighth is kept free.
fn bytes(ledger: &Ledger) -> usize {
    let buckets = (ledger.last.capacity() * 8).div_ceil(7);
    buckets * (size_of::<(i64, Moment)>() + 1)
        + ledger.leaving.capacity() * size_of::<Reverse<(Moment, i64)>>()
}

#[test]
fn a_recipient_takes_about_50_bytes_however_often_they_are_written_to_and_whoever_leaves() {
    const PEOPLE: i64 = 100_000;
    assert!(
        size_of::<Ledger>() + bytes(&Ledger::new(limit(250))) < 300,
        "of an idle pool"
    );
    let mut ledger = Ledger::new(bare(PEOPLE as u32));
    let mut now = at(NOON);
    let mut per_person = |people: i64, ledger: &mut Ledger| {
        for n in 0..people {
            now = now + Duration::from_millis(860);
            ledger.take(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64), now);
        }
        bytes(ledger) / PEOPLE as usize
    };
    assert!(per_person(PEOPLE, &mut ledger) <= 50);
    assert!(
        per_person(PEOPLE / 2, &mut ledger) <= 50,
        "repeats cost nothing"
    );
    // Three days in which everybody is somebody new: a hash map needs some air for that.
    assert!(per_person(4 * PEOPLE, &mut ledger) <= 70);
}
