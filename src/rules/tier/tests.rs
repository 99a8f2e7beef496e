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
        let mut people: HashSet<i64> = day().map(|earlier| earlier.person).collect();
        let is_new = people.insert(new.person);
        let most = new.limit? as usize;
        let Arrival { person, at, .. } = new;
        (is_new && people.len() > most).then(|| {
            let hours = at.since_start().as_secs_f64() / 3_600.0;
            format!(
                "person {person} at {hours:.2} h is number {} of {most}",
                people.len()
            )
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
    /// Person, decision, arrival.
    messages: Vec<(i64, Moment, Moment)>,
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
            self.messages
                .push((job.person, self.decided(job.person, now), arrival));
        } else {
            let open = self.windows.get(&job.person).copied();
            assert!(open > Some(arrival), "the provider counts it");
        }
    }

    /// When it was decided that the person gets room: before the slot, or with a message that is still on its way.
    fn decided(&self, person: i64, slot: Moment) -> Moment {
        let is_on_its_way =
            |(to, _, arrival): &&(i64, Moment, Moment)| *to == person && *arrival > slot;
        let before = self.messages.iter().filter(is_on_its_way);
        before
            .map(|(_, decided, _)| *decided)
            .fold(slot - MINUTE, Moment::min)
    }

    fn arrivals(&self) -> Vec<Arrival> {
        let arrival = |(person, decided, at): &(i64, Moment, Moment)| Arrival {
            person: *person,
            at: *at,
            limit: self.most_between(*decided, *at),
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

/// In the evening of the first day one job to each of 600 people, of which 100 are urgent; 400 more, repeats, over the
/// following day. Everything may wait for the third.
fn rush<B: Book>() -> Play<B> {
    let mut roll = dice(7);
    let mut play = Play::new(limit(250));
    let evening = at(18 * HOUR);
    for n in 0..1_000_i64 {
        let is_repeat = n >= 600;
        play.enqueue(Job {
            person: n * 7_919 % 600,
            number: roll(3) as usize,
            // The last in the queue, so that nothing but the rules lets them go first.
            priority: match n {
                500..600 => Priority::Urgent,
                0..250 => Priority::Bulk,
                _ => Priority::Normal,
            },
            due: evening
                + match n {
                    _ if is_repeat => SECOND * roll(26 * 3_600) as u32,
                    500..600 => HOUR * 30,
                    _ => Duration::ZERO,
                },
            expires: at(4 * DAY),
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
    let last = play
        .posted
        .iter()
        .map(|posted| posted.expect("it went out"));
    let days = last.max().expect("a job").since_start().as_secs_f64() / DAY.as_secs_f64();
    assert!(
        days < 3.75,
        "through after {days:.2} days, which is three from the evening"
    );
}
