//! A small dispatcher that keeps to the module's protocol, in virtual time, and the judge of what it did.

use std::collections::{BTreeMap, HashSet};

use super::{ledgers::Book, *};

/// A message that the provider counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    pub(super) person: i64,
    pub(super) at: Moment,
    /// The largest limit that held between the dispatcher's decision and the arrival.
    pub(super) limit: Option<u32>,
}

/// The first arrival of somebody new with whom more people than the limit were written to in 24 h.
pub(super) fn violation(arrivals: &[Arrival]) -> Option<String> {
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

#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) person: i64,
    pub(super) number: usize,
    pub(super) priority: Priority,
    pub(super) due: Moment,
    pub(super) expires: Moment,
    /// From the committed attempt to the slot.
    pub(super) pipeline: Duration,
    /// From the slot to the provider.
    pub(super) travel: Duration,
    /// How long the provider holds it back before it sends it, if it does.
    pub(super) held: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Event {
    Gate(usize),
    Slot { job: usize, promised: bool },
    Receipt { person: i64, sent: Moment },
    Window { person: i64, until: Moment },
    Limit(Option<u32>),
    Restart,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Message {
    pub(super) person: i64,
    /// Since when the person has room without a break.
    pub(super) room_since: Moment,
    /// When it was decided that the message may go.
    pub(super) decided: Moment,
    pub(super) arrival: Moment,
}

/// Plays events in virtual time, and keeps what the judge wants to know.
pub(super) struct Play<B> {
    pub(super) book: B,
    pub(super) jobs: Vec<Job>,
    pub(super) events: BTreeMap<(Moment, usize), Event>,
    pub(super) queued: usize,
    /// Each number posts every 100 ms.
    pub(super) number_free: [Moment; 3],
    pub(super) windows: HashMap<i64, Moment>,
    /// What the database knows: the counted posts, and what was sent of held messages.
    pub(super) rows: Vec<(i64, Moment)>,
    /// The limits that held, with when they began.
    pub(super) limits: Vec<(Moment, Limit)>,
    /// The posts that count.
    pub(super) messages: Vec<Message>,
    /// By job, when it left.
    pub(super) posted: Vec<Option<Moment>>,
}

impl<B: Book> Play<B> {
    pub(super) fn new(limit: Limit) -> Self {
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

    pub(super) fn enqueue(&mut self, job: Job) {
        self.jobs.push(job);
        self.posted.push(None);
        self.queue(job.due, Event::Gate(self.jobs.len() - 1));
    }

    pub(super) fn queue(&mut self, at: Moment, event: Event) {
        self.queued += 1;
        self.events.insert((at, self.queued), event);
    }

    pub(super) fn run(&mut self) {
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

    pub(super) fn gate(&mut self, index: usize, now: Moment) {
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

    pub(super) fn slot(&mut self, index: usize, promised: bool, now: Moment) {
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

    pub(super) fn arrive(&mut self, job: Job, counts: bool, now: Moment) {
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

    pub(super) fn message(&self, person: i64, slot: Moment, arrival: Moment) -> Message {
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

    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        let arrival = |message: &Message| Arrival {
            person: message.person,
            at: message.arrival,
            limit: self.most_between(message.decided, message.arrival),
        };
        self.messages.iter().map(arrival).collect()
    }

    pub(super) fn counts(&self, person: i64, now: Moment) -> bool {
        self.windows
            .get(&person)
            .is_none_or(|until| *until <= now + WINDOW_MARGIN)
    }

    /// The largest limit that held at some time from `first` to `last`.
    pub(super) fn most_between(&self, first: Moment, last: Moment) -> Option<u32> {
        let begin = self.limits.iter().rposition(|(from, _)| *from <= first);
        let held = self.limits[begin.unwrap_or(0)..]
            .iter()
            .take_while(|(from, _)| *from <= last);
        let finite: Option<Vec<u32>> = held.map(|(_, limit)| limit.recipients).collect();
        finite?.into_iter().max()
    }

    pub(super) fn change(&mut self, recipients: Option<u32>, now: Moment) {
        let limit = Limit {
            recipients,
            ..self.book.ledger().limit()
        };
        self.book.ledger().set_limit(limit);
        self.limits.push((now, limit));
    }

    /// Memory is gone: what had an attempt is looked at again, and the ledger is built from the database.
    pub(super) fn restart(&mut self, now: Moment) {
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
