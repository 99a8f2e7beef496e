//! The worker as a list of events: no clock, no database, no provider.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::value::RawValue;

use super::*;
use crate::dispatch::{event::Learned, holdings::Quiet};
use crate::{
    channel::whatsapp::{Client, Endpoint},
    dispatch::{event::LookFor, lane::HEAD, limits::Standing, outbox::Batch, world::LaneFacts},
    rules::{
        breaker::Target,
        job::{Job, KeepParameters, Kind, PersonFacts, TemplateName, WaitReason},
        outcome::{Answer, ProviderError},
        pace::Rate,
        pair::Pair,
    },
    store::{
        attempt::{Held, Wanted},
        facts::KindFact,
        look::{Cursor, Seen},
    },
};

mod breakers;
mod limits;
mod memory;

const LANE: Lane = Lane(1);
const OTHER: Lane = Lane(2);

fn wall(mono: Duration) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time") + mono
}

fn lane_facts(rate: f64) -> LaneFacts {
    let endpoint = Endpoint {
        base_url: "http://127.0.0.1:1".into(),
        api_version: "v25.0".into(),
        auth_header: "Authorization".into(),
        request_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_secs(1),
        tcp_user_timeout: Duration::from_secs(10),
        http2_prior_knowledge: false,
        clients: 1,
    };
    let client = Client::new(&endpoint).expect("a client");
    let credentials = client.credentials(&SecretString::from("token"));
    let sender = client
        .sender("100", &credentials.expect("credentials"))
        .expect("a sender");
    LaneFacts {
        phone_number_id: "100".into(),
        account: "waba".into(),
        shard: 0,
        rate: Rate::new(rate).expect("a rate"),
        free_at: DateTime::UNIX_EPOCH,
        refilled_at: DateTime::UNIX_EPOCH,
        stopped: None,
        pool: None,
        sender: Arc::new(sender),
    }
}

fn world(rate: f64) -> World {
    let kind = Kind {
        name: "order".into(),
        priority: Priority::Normal,
        categories: None,
        requires_opt_in: false,
        consent_scope: None,
        keep_parameters: KeepParameters::No,
    };
    World {
        installation: "test".into(),
        lanes: [LANE, OTHER]
            .into_iter()
            .map(|lane| (lane, Arc::new(lane_facts(rate))))
            .collect(),
        kinds: [(
            "order".into(),
            KindFact {
                resend: true,
                kind,
                resolve_after: Duration::from_secs(120),
            },
        )]
        .into(),
        ..World::default()
    }
}

/// A worker under a clock that the test moves.
struct Bench {
    worker: Worker,
    mono: Duration,
    world: World,
    /// Whether requests find no free connection.
    no_connection: bool,
    /// What each pair got before, when that is asked; `None` when the test answers itself.
    got_before: Option<Vec<(Pair, u32)>>,
}

impl Bench {
    /// With two lanes of this rate, leased for an hour.
    fn new(rate: f64) -> Self {
        let settings = Settings {
            index: 0,
            workers: 1,
            look_ahead: 1_000,
            in_flight_max: 1_000,
            jitter_allowance: Duration::from_millis(20),
            retry: Policy {
                first: Duration::from_secs(1),
                max: Duration::from_secs(60),
                max_attempts: 3,
            },
        };
        let mut bench = Self {
            worker: Worker::new(settings),
            mono: Duration::from_secs(10),
            world: world(rate),
            no_connection: false,
            got_before: Some(Vec::new()),
        };
        bench.lease_until(Duration::from_secs(3_600));
        bench.show_world();
        bench
    }

    fn now(&self) -> Now {
        Now {
            mono: self.mono,
            boot: self.mono,
            wall: wall(self.mono),
        }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.worker.note(event, self.now(), &mut actions);
        self.turn(actions)
    }

    /// What is known of the lane.
    fn lane(&mut self) -> &mut LaneFacts {
        Arc::make_mut(self.world.lanes.get_mut(&LANE).expect("the lane"))
    }

    fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.mono += time;
        self.turn(Vec::new())
    }

    /// A turn after which everything that was posted is written at once, unless no connection is free. What pairs got before
    /// is answered at once too.
    fn turn(&mut self, mut actions: Vec<Action>) -> Vec<Action> {
        self.worker.turn(self.now(), &mut actions);
        if let Some(standing) = asked_of_pairs(&actions).filter(|_| self.got_before.is_some()) {
            let posts = self.got_before.clone();
            let counted = Event::PairsCounted { standing, posts };
            self.worker.note(counted, self.now(), &mut actions);
            self.worker.turn(self.now(), &mut actions);
        }
        if !self.no_connection {
            for id in posts(&actions) {
                self.worker.note(self.left(id), self.now(), &mut actions);
            }
        }
        actions
    }

    fn left(&self, id: JobId) -> Event {
        Event::Left { id, at: self.mono }
    }

    fn lease_until(&mut self, deadline: Duration) -> Vec<Action> {
        self.tell(Event::Leases(Leases {
            epochs: [(0, 1), (1, 1)].into(),
            deadline,
            ..Leases::default()
        }))
    }

    fn show_world(&mut self) -> Vec<Action> {
        let world = World {
            installation: self.world.installation.clone(),
            lanes: self.world.lanes.clone(),
            kinds: self.world.kinds.clone(),
            templates: self.world.templates.clone(),
            paused: self.world.paused.clone(),
            released: self.world.released.clone(),
            echoes: self.world.echoes.clone(),
            floor: self.world.floor,
            ..World::default()
        };
        self.tell(Event::World(Arc::new(world)))
    }

    fn stop_lane(&mut self, why: Option<&str>) -> Vec<Action> {
        self.lane().stopped = why.map(str::to_owned);
        self.show_world()
    }

    /// A free-form message in an open service window: nothing at the gate speaks against it.
    fn seen(&self, id: i64, lane: Lane, priority: Priority) -> Seen {
        let job = Job {
            id: JobId(id),
            lane,
            priority,
            due_at: wall(self.mono),
            tries: 0,
            spent: 0,
            kind: "order".into(),
            recipient: "+905321234567".into(),
            person: "+905321234567".into(),
            template: None,
            content: RawValue::from_string(r#"{"type":"text","text":{"body":"Hello"}}"#.into())
                .expect("JSON"),
            enqueued_at: wall(self.mono),
            expires_at: wall(self.mono + Duration::from_secs(600)),
            batch: None,
        };
        let window_until = Some(wall(self.mono + Duration::from_secs(7_200)));
        Seen {
            job,
            facts: PersonFacts {
                window_until,
                ..PersonFacts::default()
            },
            recipient_hash: id,
        }
    }

    fn look(&mut self, seen: Vec<Seen>) -> Vec<Action> {
        self.tell(Event::Looked {
            why: LookFor::Room,
            cursors: Vec::new(),
            seen: Some(seen),
        })
    }

    fn permit(&mut self, wanted: &[Wanted]) -> Vec<Action> {
        self.permit_as(false, wanted)
    }

    fn permit_as(&mut self, urgent: bool, wanted: &[Wanted]) -> Vec<Action> {
        let at = wall(self.mono);
        let permitted = Some(wanted.iter().map(|w| (w.id, at)).collect());
        let took = Duration::from_millis(2);
        self.tell(Event::Attempted {
            urgent,
            wanted: wanted.to_vec(),
            permitted,
            took,
        })
    }

    /// What is posted in so many steps of 20 ms, with every attempt permitted.
    fn send(&mut self, steps: usize) -> Vec<JobId> {
        let mut posted = Vec::new();
        for _ in 0..steps {
            let actions = self.wait(Duration::from_millis(20));
            posted.extend(posts(&actions));
            posted.extend(posts(&self.permit_all(&actions)));
        }
        posted
    }

    /// Permits every attempt among the actions.
    fn permit_all(&mut self, actions: &[Action]) -> Vec<Action> {
        let attempts = actions.iter().filter_map(|action| match action {
            Action::Attempt { urgent, wanted, .. } => Some((*urgent, wanted)),
            _ => None,
        });
        attempts
            .flat_map(|(urgent, wanted)| self.permit_as(urgent, wanted))
            .collect()
    }

    /// One normal job, looked at, attempted and on the wire.
    fn one_on_the_wire(&mut self) -> JobId {
        let job = self.seen(7, LANE, Priority::Normal);
        let wanted = attempts(&self.look(vec![job]));
        let posts = posts(&self.permit(&wanted));
        assert_eq!(posts, [JobId(7)]);
        posts[0]
    }

    fn answer(&mut self, id: JobId, answer: Answer) -> Vec<Action> {
        self.tell(Event::Posted {
            id,
            answer,
            regain_access_in: None,
            chance: 0.5,
        })
    }

    /// The next batch to be settled, once it is old enough.
    fn settled(&mut self) -> Batch {
        let actions = self.wait(Duration::from_millis(20));
        settles(actions).pop().expect("something to settle")
    }

    fn cursors(&mut self, priority: Priority) -> Vec<Cursor> {
        let found = self.tell(Event::LanesFound(Some(vec![(LANE, priority)])));
        found
            .into_iter()
            .find_map(|a| {
                if let Action::Look { cursors, .. } = a {
                    Some(cursors)
                } else {
                    None
                }
            })
            .unwrap_or_default()
    }
}

fn quiet(actions: &[Action]) -> Vec<Quiet> {
    let quiet = |action: &Action| match action {
        Action::Quiet(quiet) => Some(*quiet),
        _ => None,
    };
    actions.iter().filter_map(quiet).collect()
}

fn attempts(actions: &[Action]) -> Vec<Wanted> {
    actions
        .iter()
        .filter_map(|a| {
            if let Action::Attempt { wanted, .. } = a {
                Some(wanted.clone())
            } else {
                None
            }
        })
        .flatten()
        .collect()
}

fn asked_of_pairs(actions: &[Action]) -> Option<Standing> {
    actions.iter().find_map(|action| match action {
        Action::CountPairs { standing, .. } => Some(standing.clone()),
        _ => None,
    })
}

fn posts(actions: &[Action]) -> Vec<JobId> {
    actions
        .iter()
        .filter_map(|a| {
            if let Action::Post { id, .. } = a {
                Some(*id)
            } else {
                None
            }
        })
        .collect()
}

fn settles(actions: Vec<Action>) -> Vec<Batch> {
    actions
        .into_iter()
        .filter_map(|a| {
            if let Action::Settle(batch) = a {
                Some(batch)
            } else {
                None
            }
        })
        .collect()
}

fn accepted() -> Answer {
    Answer::Accepted {
        provider_id: "wamid.x".into(),
        held: false,
        wa_id: None,
        user_id: None,
    }
}

fn error(code: i32) -> Answer {
    Answer::Error(ProviderError {
        code,
        subcode: None,
        http_status: 400,
        title: "no".into(),
        detail: String::new(),
        is_transient: false,
        retry_after: None,
    })
}

#[test]
fn a_worker_without_numbers_rests() {
    let bench = Bench::new(10.0);
    let mut idle = Worker::new(bench.worker.settings.clone());
    idle.turn(bench.now(), &mut Vec::new());
    assert!(idle.wake_at(bench.mono) > bench.mono);
}

#[test]
fn a_job_goes_from_the_look_through_one_attempt_to_the_wire_and_is_settled() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    bench.answer(id, accepted());
    let batch = bench.settled();
    assert_eq!((batch.accepted.len(), batch.len()), (1, 1));
    assert_eq!(batch.accepted[0].attempt, 1);
}

#[test]
fn a_job_that_memory_has_is_not_taken_twice_by_a_look_that_goes_back() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    let again = bench.seen(id.0, LANE, Priority::Normal);
    assert!(attempts(&bench.look(vec![again])).is_empty());
}

#[test]
fn what_the_attempt_does_not_return_is_neither_posted_nor_remembered() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job.clone()]));
    let took = Duration::from_millis(2);
    let actions = bench.tell(Event::Attempted {
        urgent: false,
        wanted,
        permitted: Some(Vec::new()),
        took,
    });
    assert!(posts(&actions).is_empty());
    bench.wait(Duration::from_millis(100));
    assert_eq!(
        attempts(&bench.look(vec![job])).len(),
        1,
        "it is looked at again"
    );
}

#[test]
fn an_attempt_without_the_databases_word_is_not_posted() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job]));
    let took = Duration::from_millis(2);
    let actions = bench.tell(Event::Attempted {
        urgent: false,
        wanted,
        permitted: None,
        took,
    });
    assert!(posts(&actions).is_empty());
    assert!(posts(&bench.wait(Duration::from_secs(1))).is_empty());
}

#[test]
fn nothing_is_posted_after_the_leases_deadline() {
    let mut bench = Bench::new(10.0);
    let deadline = bench.mono + Duration::from_millis(5);
    bench.lease_until(deadline);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job]));
    bench.mono = deadline;
    assert!(posts(&bench.permit(&wanted)).is_empty());
    let batch = bench.settled();
    assert_eq!(
        (batch.waiting.len(), batch.waiting[0].answered.outcome),
        (1, "not_sent")
    );
    assert!(!batch.waiting[0].spends);
}

#[test]
fn an_urgent_job_takes_the_next_slot_before_normal_jobs_that_are_ready() {
    let mut bench = Bench::new(1.0);
    let normal: Vec<_> = (1..=3)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let wanted = attempts(&bench.look(normal));
    assert_eq!(
        posts(&bench.permit(&wanted)),
        [JobId(1)],
        "the only slot of this second"
    );
    let ready = attempts(&bench.wait(Duration::from_millis(1_000)));
    assert!(posts(&bench.permit(&ready)).is_empty());
    let urgent = bench.seen(9, LANE, Priority::Urgent);
    let wanted = attempts(&bench.look(vec![urgent]));
    assert_eq!(
        wanted.iter().map(|w| w.id).collect::<Vec<_>>(),
        [JobId(9)],
        "it does not wait for a batch"
    );
    bench.permit_as(true, &wanted);
    assert_eq!(posts(&bench.wait(Duration::from_millis(30))), [JobId(9)]);
}

#[test]
fn no_second_holds_more_posts_than_the_rate() {
    let mut bench = Bench::new(10.0);
    let jobs: Vec<_> = (1..=50)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let mut actions = bench.look(jobs);
    let mut times = Vec::new();
    for _ in 0..3_000 {
        let wanted = attempts(&actions);
        times.extend(posts(&actions).iter().map(|_| bench.mono));
        actions = if wanted.is_empty() {
            bench.wait(Duration::from_millis(1))
        } else {
            bench.permit(&wanted)
        };
    }
    assert!(times.len() >= 28, "{} posts in about 3 s", times.len());
    for (first, start) in times.iter().enumerate() {
        let within = times[first..]
            .iter()
            .take_while(|t| **t < *start + Duration::from_secs(1))
            .count();
        assert!(within <= 10, "{within} posts in one second");
    }
}

#[test]
fn a_paused_number_keeps_nothing_and_its_committed_attempts_go_back_unspent() {
    let mut bench = Bench::new(1.0);
    let jobs: Vec<_> = (1..=5)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let wanted = attempts(&bench.look(jobs));
    bench.permit(&wanted);
    let ready = attempts(&bench.wait(Duration::from_millis(1_000)));
    bench.permit(&ready);
    bench.stop_lane(Some("blocked by the provider"));
    let batch = bench.settled();
    assert_eq!(
        batch
            .waiting
            .iter()
            .map(|w| w.answered.outcome)
            .collect::<Vec<_>>(),
        ["not_sent"]
    );
    assert!(
        bench.cursors(Priority::Normal).is_empty(),
        "a paused lane is not looked at"
    );
    bench.stop_lane(None);
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn a_throttle_holds_its_number_and_no_other() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    bench.answer(id, error(130_429));
    let batch = bench.settled();
    let jobs = vec![
        bench.seen(8, LANE, Priority::Normal),
        bench.seen(9, OTHER, Priority::Normal),
    ];
    bench.mono += Duration::from_millis(100);
    let wanted = attempts(&bench.look(jobs));
    assert_eq!(wanted.iter().map(|w| w.id).collect::<Vec<_>>(), [JobId(9)]);
    assert_eq!(
        (batch.waiting[0].reason, batch.waiting[0].spends),
        (WaitReason::RateLimited, false)
    );
}

/// Somebody may have withdrawn their consent since: the attempt statement asks again.
#[test]
fn a_job_that_waited_for_its_slot_for_two_seconds_after_its_attempt_is_attempted_again() {
    let mut bench = Bench::new(10.0);
    let jobs: Vec<Seen> = (7..9)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let wanted = attempts(&bench.look(jobs));
    let posted = posts(&bench.permit(&wanted));
    assert_eq!(posted, [JobId(7)], "the other waits for its slot");
    // The number is throttled for longer than that.
    bench.answer(JobId(7), error(130_429));
    bench.settled();
    let waited = bench.wait(Duration::from_secs(2));
    assert!(posts(&waited).is_empty());
    let batch = bench.settled();
    let back: Vec<_> = batch
        .waiting
        .iter()
        .map(|job| (job.id, job.spends))
        .collect();
    assert_eq!(back, [(JobId(8), false)]);
}

/// A request that finds no connection in time is not written either.
#[test]
fn a_post_may_be_written_until_two_seconds_after_its_attempt_was_asked_for() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job]));
    let asked_at = bench.now().boot;
    bench.mono += Duration::from_millis(500);
    let at = wall(bench.mono);
    let actions = bench.tell(Event::Attempted {
        urgent: false,
        permitted: Some(wanted.iter().map(|w| (w.id, at)).collect()),
        wanted,
        took: Duration::from_millis(500),
    });
    let not_after = actions.iter().find_map(|action| match action {
        Action::Post { not_after, .. } => Some(*not_after),
        _ => None,
    });
    assert_eq!(not_after, Some(asked_at + Duration::from_secs(2)));
}

/// Its attempt would be made in vain every two seconds.
#[test]
fn an_urgent_job_of_a_number_that_posts_seldom_is_attempted_shortly_before_its_slot() {
    // One in ten seconds.
    let mut bench = Bench::new(0.1);
    bench.one_on_the_wire();
    let posted_at = bench.mono;
    bench.mono += Duration::from_secs(1);
    let code = bench.seen(8, LANE, Priority::Urgent);
    let mut wanted = attempts(&bench.look(vec![code]));
    while wanted.is_empty() && bench.mono < posted_at + Duration::from_secs(20) {
        wanted = attempts(&bench.wait(Duration::from_millis(20)));
    }
    assert_eq!(wanted.first().map(|w| w.id), Some(JobId(8)));
    let after = bench.mono - posted_at;
    let expected = Duration::from_millis(8_900)..Duration::from_millis(9_500);
    assert!(expected.contains(&after), "{after:?}");
}

/// Otherwise they would wait for longer than their attempts are fresh, where the machine cannot post as much as the numbers may.
#[test]
fn all_numbers_together_have_no_more_attempts_under_way_than_the_worker_can_post_in_time() {
    let mut bench = Bench::new(1_000.0);
    let of = |bench: &Bench, lane, from: i64| {
        let ids = from..from + 1_000;
        ids.map(|id| bench.seen(id, lane, Priority::Normal))
            .collect::<Vec<_>>()
    };
    let mut jobs = of(&bench, LANE, 0);
    jobs.extend(of(&bench, OTHER, 1_000));
    let mut wanted = attempts(&bench.look(jobs));
    for _ in 0..5 {
        wanted.extend(attempts(&bench.wait(Duration::from_millis(100))));
    }
    let on = |lane| wanted.iter().filter(|w| w.lane == lane).count();
    assert_eq!((on(LANE), on(OTHER)), (750, 750));
}

/// The machine posts less than the numbers may: here a thousand requests wait for their answers, and there is room for no more.
#[test]
fn what_was_attempted_in_vain_is_followed_by_fewer_attempts() {
    let mut bench = Bench::new(1_000.0);
    let look = |bench: &mut Bench, from: i64| {
        let on = |lane, from| (from..from + 1_000).map(move |id| (id, lane));
        let jobs = on(LANE, from).chain(on(OTHER, from + 1_000));
        let seen = jobs.map(|(id, lane)| bench.seen(id, lane, Priority::Normal));
        let seen = seen.collect();
        bench.look(seen)
    };
    let mut actions = look(&mut bench, 0);
    let (mut posted, mut in_vain) = (Vec::new(), 0);
    for _ in 0..30 {
        let permitted = bench.permit_all(&actions);
        posted.extend(posts(&actions));
        posted.extend(posts(&permitted));
        actions = bench.wait(Duration::from_millis(100));
        let given_up = |action: &Action| match action {
            Action::Settle(batch) => batch.waiting.len(),
            _ => 0,
        };
        in_vain += actions.iter().map(given_up).sum::<usize>();
    }
    bench.permit_all(&actions);
    assert!(in_vain > 0, "none was attempted in vain");
    for id in posted {
        bench.answer(id, accepted());
    }
    bench.wait(Duration::from_secs(1));
    look(&mut bench, 10_000);
    for _ in 0..5 {
        bench.wait(Duration::from_millis(100));
    }
    let under_way = [LANE, OTHER].map(|lane| bench.worker.lanes[&lane].in_pipeline());
    let under_way: usize = under_way.iter().sum();
    assert!((500..1_000).contains(&under_way), "{under_way}");
}

/// What a slow database permits too late is not posted: without this it would permit nothing in time, for ever.
#[test]
fn batches_that_take_the_database_long_get_smaller_until_they_do_not() {
    let mut bench = Bench::new(1_000.0);
    let mut next_batch = |from: i64, took: Duration| {
        let jobs = (from..from + 800).map(|id| bench.seen(id, LANE, Priority::Normal));
        let jobs = jobs.collect();
        bench.mono += Duration::from_secs(2);
        let mut wanted = attempts(&bench.look(jobs));
        let size = wanted.len();
        // Not permitted, so that the next batch finds all slots free.
        while !wanted.is_empty() {
            let actions = bench.tell(Event::Attempted {
                urgent: false,
                wanted,
                permitted: Some(Vec::new()),
                took,
            });
            wanted = attempts(&actions);
            wanted.extend(attempts(&bench.wait(Duration::from_millis(100))));
        }
        size
    };
    let sizes = [0, 1, 2].map(|round| next_batch(1_000 * round, Duration::from_millis(1_500)));
    assert!(sizes[0] > 500, "{sizes:?}");
    assert!(sizes[1] <= 500 && sizes[2] <= 250, "{sizes:?}");
    let again = [3, 4, 5, 6, 7].map(|round| next_batch(1_000 * round, Duration::from_millis(5)));
    assert!(again[4] > 500, "{again:?}");
}

#[test]
fn a_job_that_expired_before_its_slot_is_not_posted() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let wanted = attempts(&bench.look(vec![job]));
    bench.mono += Duration::from_secs(601);
    assert!(posts(&bench.permit(&wanted)).is_empty());
}

#[test]
fn outcomes_that_the_database_did_not_take_are_written_again() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    bench.answer(id, accepted());
    let batch = bench.settled();
    bench.tell(Event::Settled {
        batch: batch.clone(),
        written: false,
    });
    let again = settles(bench.wait(Duration::from_secs(1)));
    assert_eq!(again, [batch]);
}

#[test]
fn with_too_many_outcomes_unwritten_it_neither_looks_nor_attempts_until_they_are() {
    let mut bench = Bench::new(10.0);
    // Free-form messages to people who did not write to us are stopped at the gate.
    let shut_out = |id| Seen {
        facts: PersonFacts::default(),
        ..bench.seen(id, LANE, Priority::Normal)
    };
    let many = (1..=20_001).map(shut_out).collect();
    let mut batches = settles(bench.look(many));
    assert!(bench.cursors(Priority::Normal).is_empty());
    let sendable = bench.seen(30_000, LANE, Priority::Normal);
    assert!(attempts(&bench.look(vec![sendable])).is_empty());
    let mut attempted = Vec::new();
    while let Some(batch) = batches.pop() {
        let written = true;
        let actions = bench.tell(Event::Settled { batch, written });
        attempted.extend(attempts(&actions));
        batches.extend(settles(actions));
    }
    assert_eq!(attempted.len(), 1);
}

#[test]
fn a_drain_posts_nothing_more_settles_what_is_on_the_wire_and_ends() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    let waiting = bench.seen(8, LANE, Priority::Normal);
    bench.look(vec![waiting]);
    let actions = bench.tell(Event::Drain);
    assert!(posts(&actions).is_empty() && !actions.iter().any(|a| matches!(a, Action::Finish)));
    bench.answer(id, accepted());
    let batch = bench.settled();
    // The attempt of the second job may still be under way; it is not used.
    let wanted = vec![Wanted {
        id: JobId(8),
        lane: LANE,
        tries: 0,
        shard: 0,
        recipient_hash: 8,
        counted: false,
    }];
    let mut last = bench.tell(Event::Settled {
        batch,
        written: true,
    });
    if !last.iter().any(|a| matches!(a, Action::Finish)) {
        last = bench.permit(&wanted);
        for batch in settles(bench.wait(Duration::from_millis(20))) {
            last = bench.tell(Event::Settled {
                batch,
                written: true,
            });
        }
    }
    assert!(last.iter().any(|a| matches!(a, Action::Finish)), "{last:?}");
}

#[test]
fn an_attempt_that_is_committed_during_a_drain_goes_back_unposted() {
    let mut bench = Bench::new(1.0);
    let jobs = (1..=2)
        .map(|id| bench.seen(id, LANE, Priority::Normal))
        .collect();
    let first = attempts(&bench.look(jobs));
    bench.permit(&first);
    bench.answer(JobId(1), accepted());
    let second = attempts(&bench.wait(Duration::from_millis(1_000)));
    assert_eq!(second.len(), 1);
    let mut batches = settles(bench.tell(Event::Drain));
    let actions = bench.permit(&second);
    assert!(posts(&actions).is_empty());
    batches.extend(settles(actions));
    batches.extend(settles(bench.wait(Duration::from_millis(20))));
    let waiting: Vec<_> = batches.iter().flat_map(|batch| &batch.waiting).collect();
    assert_eq!(waiting.len(), 1, "{batches:?}");
    assert_eq!(waiting[0].answered.outcome, "not_sent");
}

#[test]
fn a_post_counts_from_when_it_was_written_however_late_that_is() {
    let mut bench = Bench::new(1.0);
    bench.no_connection = true;
    let jobs = (1..=3).map(|id| bench.seen(id, LANE, Priority::Normal));
    let jobs = jobs.collect();
    let wanted = attempts(&bench.look(jobs));
    assert_eq!(posts(&bench.permit(&wanted)), [JobId(1)]);
    assert_eq!(bench.send(150), [], "the first may be written any moment");
    let written = bench.left(JobId(1));
    bench.tell(written);
    assert_eq!(bench.send(49), [], "less than a second ago");
    assert_eq!(bench.send(10), [JobId(2)]);
}

#[test]
fn a_request_that_never_left_gives_its_slot_back() {
    let mut bench = Bench::new(1.0);
    bench.no_connection = true;
    let jobs = (1..=2).map(|id| bench.seen(id, LANE, Priority::Normal));
    let jobs = jobs.collect();
    let wanted = attempts(&bench.look(jobs));
    assert_eq!(posts(&bench.permit(&wanted)), [JobId(1)]);
    let detail = "no connection".to_owned();
    bench.answer(JobId(1), Answer::NotSent { detail });
    assert_eq!(bench.send(100), [JobId(2)]);
}

#[test]
fn a_number_whose_shard_moved_to_another_worker_is_left_alone() {
    let mut bench = Bench::new(10.0);
    bench.worker.settings.workers = 2;
    bench.lease_until(Duration::from_secs(3_600));
    bench.lane().shard = 1;
    bench.show_world();
    let job = bench.seen(7, LANE, Priority::Normal);
    assert!(attempts(&bench.look(vec![job])).is_empty());
}

#[test]
fn looks_go_on_from_the_last_key_now_and_then_back_and_once_a_minute_to_the_head() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    let key = (job.job.due_at, job.job.id);
    bench.look(vec![job]);
    assert_eq!(bench.cursors(Priority::Normal)[0].after, key);
    bench.mono += Duration::from_secs(2);
    assert_eq!(
        bench.cursors(Priority::Normal)[0].after.0,
        key.0 - Duration::from_secs(30)
    );
    bench.mono += Duration::from_secs(1);
    assert_eq!(bench.cursors(Priority::Normal)[0].after, key);
    bench.mono += Duration::from_secs(58);
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn jobs_of_a_template_that_is_no_longer_held_are_found_again_from_the_head() {
    let mut bench = Bench::new(10.0);
    let template = TemplateName {
        name: "order_confirmation".into(),
        language: "en".into(),
    };
    bench.world.paused.templates = [("waba".to_owned(), [template].into())].into();
    bench.show_world();
    let job = bench.seen(7, LANE, Priority::Normal);
    bench.look(vec![job]);
    assert_ne!(bench.cursors(Priority::Normal)[0].after, HEAD);
    bench.world.paused.templates.clear();
    bench.show_world();
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn a_ring_looks_from_the_head_because_its_job_may_have_committed_late() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Urgent);
    bench.look(vec![job]);
    let actions = bench.tell(Event::Rang(Some(LANE)));
    let cursors = actions.iter().find_map(|a| match a {
        Action::Look {
            why: LookFor::Bell,
            cursors,
            ..
        } => Some(cursors.clone()),
        _ => None,
    });
    assert_eq!(cursors.expect("a look")[0].after, HEAD);
}

#[test]
fn an_answer_that_names_another_address_makes_both_one_person() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    let answer = Answer::Accepted {
        provider_id: "wamid.x".into(),
        held: false,
        wa_id: Some("905320000000".into()),
        user_id: None,
    };
    let actions = bench.answer(id, answer);
    let linked = actions.iter().find_map(|a| match a {
        Action::Learn(Learned::SamePerson(link)) => Some((link.known.as_str(), link.also.as_str())),
        _ => None,
    });
    assert_eq!(linked, Some(("+905321234567", "+905320000000")));
}

/// What pauses of each scope but number and account hold.
fn hold_everything_of(bench: &mut Bench, scope: &str) {
    let paused = &mut bench.world.paused;
    match scope {
        "kind" => paused.kinds = ["order".into()].into(),
        "batch" => paused.batches = ["autumn".to_owned()].into(),
        "priority" => paused.priorities = [Priority::Normal].into(),
        _ => {
            let template = TemplateName {
                name: "order_shipped".into(),
                language: "en".into(),
            };
            paused.templates = [("waba".to_owned(), [template].into())].into();
        }
    }
}

/// A job that each of those pauses holds, prepared as if it had passed the gate.
fn pausable(bench: &Bench, id: i64) -> Seen {
    let mut seen = bench.seen(id, LANE, Priority::Normal);
    seen.job.batch = Some("autumn".into());
    seen
}

const SCOPES: [&str; 4] = ["kind", "batch", "priority", "template"];

/// The gate would refuse a job whose template it does not know, so it is named only once it is in the buffers.
fn name_templates(bench: &mut Bench) {
    let template = Some(TemplateName {
        name: "order_shipped".into(),
        language: "en".into(),
    });
    let state = bench.worker.lanes.get_mut(&LANE).expect("the lane");
    let buffered = state.buffered.iter_mut().flatten();
    let ready = state.ready.iter_mut().flatten().map(|next| &mut next.job);
    for job in buffered.chain(ready).chain(state.attempting.values_mut()) {
        job.template.clone_from(&template);
    }
}

#[test]
fn what_is_paused_leaves_the_buffers_and_is_not_written_to() {
    for scope in SCOPES {
        let mut bench = Bench::new(1.0);
        let jobs = (1..=5).map(|id| pausable(&bench, id)).collect();
        let asked = attempts(&bench.look(jobs));
        name_templates(&mut bench);
        assert!(
            asked.len() < 5 && bench.worker.load().buffered > 0,
            "{scope}"
        );
        hold_everything_of(&mut bench, scope);
        bench.show_world();
        assert_eq!(bench.worker.load().buffered, 0, "{scope}");
        assert_eq!(bench.worker.load().unsettled, 0, "{scope}");
        assert!(bench.worker.known.len() == asked.len(), "{scope}");
    }
}

#[test]
fn what_is_paused_with_a_committed_attempt_is_settled_as_not_sent() {
    for scope in SCOPES {
        let mut bench = Bench::new(1.0);
        // The first takes the only slot of this second, so the second waits for the next one with its attempt committed.
        let job = pausable(&bench, 1);
        let wanted = attempts(&bench.look(vec![job]));
        assert_eq!(posts(&bench.permit(&wanted)), [JobId(1)]);
        let job = pausable(&bench, 2);
        let mut wanted = attempts(&bench.look(vec![job]));
        while wanted.is_empty() {
            wanted = attempts(&bench.wait(Duration::from_millis(1)));
        }
        assert_eq!(posts(&bench.permit(&wanted)), [], "{scope}");
        name_templates(&mut bench);
        assert_eq!(bench.worker.lanes[&LANE].in_pipeline(), 1, "{scope}");
        hold_everything_of(&mut bench, scope);
        bench.show_world();
        assert_eq!(bench.worker.lanes[&LANE].in_pipeline(), 0, "{scope}");
        let batch = bench.settled();
        assert_eq!(batch.waiting.len(), 1, "{scope}: {batch:?}");
        assert_eq!(posts(&bench.wait(Duration::from_secs(2))), [], "{scope}");
    }
}

#[test]
fn what_is_paused_while_its_attempt_is_being_committed_is_not_posted() {
    for scope in SCOPES {
        let mut bench = Bench::new(10.0);
        let job = pausable(&bench, 7);
        let wanted = attempts(&bench.look(vec![job]));
        name_templates(&mut bench);
        hold_everything_of(&mut bench, scope);
        bench.show_world();
        assert_eq!(posts(&bench.permit(&wanted)), [], "{scope}");
        assert_eq!(bench.settled().waiting.len(), 1, "{scope}");
    }
}

#[test]
fn a_look_that_was_asked_for_before_a_pause_brings_nothing_of_what_is_paused() {
    for scope in ["kind", "batch", "priority"] {
        let mut bench = Bench::new(10.0);
        hold_everything_of(&mut bench, scope);
        bench.show_world();
        let job = pausable(&bench, 7);
        assert_eq!(attempts(&bench.look(vec![job])), [], "{scope}");
        assert_eq!(bench.worker.load(), Load::default(), "{scope}");
    }
}

#[test]
fn others_of_the_lane_go_on_beside_what_is_paused() {
    let mut bench = Bench::new(10.0);
    bench.world.paused.batches = ["autumn".to_owned()].into();
    bench.show_world();
    let (paused, other) = (pausable(&bench, 7), bench.seen(8, LANE, Priority::Normal));
    let wanted = attempts(&bench.look(vec![paused, other]));
    assert_eq!(posts(&bench.permit(&wanted)), [JobId(8)]);
}

#[test]
fn a_paused_priority_is_not_looked_at_until_it_is_resumed_and_then_from_the_head() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    bench.look(vec![job]);
    hold_everything_of(&mut bench, "priority");
    bench.show_world();
    let actions = bench.tell(Event::LanesFound(Some(vec![
        (LANE, Priority::Normal),
        (LANE, Priority::Bulk),
    ])));
    let looked = actions.iter().find_map(|action| match action {
        Action::Look { cursors, .. } => Some(cursors.clone()),
        _ => None,
    });
    let priorities: Vec<_> = looked.iter().flatten().map(|it| it.priority).collect();
    assert_eq!(priorities, [Priority::Bulk]);
    bench.world.paused = Holds::default();
    bench.show_world();
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn a_look_that_a_release_overtook_does_not_say_how_far_the_lane_is_read() {
    let mut bench = Bench::new(10.0);
    hold_everything_of(&mut bench, "kind");
    bench.show_world();
    let cursors = bench.cursors(Priority::Normal);
    bench.world.paused = Holds::default();
    bench.show_world();
    let seen = vec![bench.seen(9, LANE, Priority::Normal)];
    bench.tell(Event::Looked {
        why: LookFor::Room,
        cursors,
        seen: Some(seen),
    });
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

#[test]
fn held_jobs_that_a_look_passed_over_are_not_read_again_by_the_next() {
    let mut bench = Bench::new(10.0);
    hold_everything_of(&mut bench, "kind");
    bench.show_world();
    let cursors = bench.cursors(Priority::Normal);
    assert_eq!(cursors[0].after, HEAD);
    bench.tell(Event::Looked {
        why: LookFor::Room,
        cursors,
        seen: Some(Vec::new()),
    });
    let after = bench.cursors(Priority::Normal)[0].after.0;
    assert_eq!(after, wall(bench.mono) - Duration::from_secs(300));
}

#[test]
fn a_lane_that_took_over_jobs_of_another_is_read_from_the_head() {
    let mut bench = Bench::new(10.0);
    let job = bench.seen(7, LANE, Priority::Normal);
    bench.look(vec![job]);
    assert_ne!(bench.cursors(Priority::Normal)[0].after, HEAD);
    let refilled_at = wall(bench.mono);
    bench.lane().refilled_at = refilled_at;
    bench.show_world();
    assert_eq!(bench.cursors(Priority::Normal)[0].after, HEAD);
}

impl Bench {
    /// Shard 0, in which both lanes are, is to be given back.
    fn give_back(&mut self) -> Vec<Action> {
        self.tell(Event::Leases(Leases {
            epochs: [(1, 1)].into(),
            leaving: [(0, 1)].into(),
            deadline: Duration::from_secs(3_600),
        }))
    }
}

#[test]
fn a_shard_can_be_given_back_when_its_last_outcome_is_written() {
    let mut bench = Bench::new(10.0);
    let id = bench.one_on_the_wire();
    assert_eq!(quiet(&bench.give_back()), []);
    bench.mono += Duration::from_millis(300);
    assert_eq!(quiet(&bench.answer(id, accepted())), []);
    let batch = bench.settled();
    let told = bench.tell(Event::Settled {
        batch,
        written: true,
    });
    let held = Held { shard: 0, epoch: 1 };
    let silent_for = Some(Duration::from_millis(320));
    assert_eq!(quiet(&told), [Quiet { held, silent_for }]);
    assert_eq!(quiet(&bench.wait(Duration::from_millis(20))), []);
}

#[test]
fn a_shard_that_is_given_back_posts_nothing_more_and_lets_go_of_its_jobs() {
    let mut bench = Bench::new(10.0);
    let jobs = (1..=3).map(|id| bench.seen(id, LANE, Priority::Normal));
    let jobs = jobs.collect();
    let wanted = attempts(&bench.look(jobs));
    // The attempts are being committed.
    assert_eq!(quiet(&bench.give_back()), []);
    let actions = bench.permit(&wanted);
    assert_eq!(posts(&actions), []);
    let batch = bench.settled();
    assert_eq!(batch.waiting.len(), wanted.len());
    let told = bench.tell(Event::Settled {
        batch,
        written: true,
    });
    assert_eq!(quiet(&told).len(), 1);
}

#[test]
fn lanes_that_become_ours_are_looked_at_at_once() {
    let mut bench = Bench::new(10.0);
    bench.wait(Duration::from_secs(1));
    let found = |actions: &[Action]| {
        let finds = |action: &&Action| matches!(action, Action::FindLanes);
        actions.iter().filter(finds).count()
    };
    bench.tell(Event::LanesFound(Some(Vec::new())));
    bench.give_back();
    bench.tell(Event::LanesFound(Some(Vec::new())));
    let regained = bench.lease_until(Duration::from_secs(3_600));
    assert_eq!(found(&regained), 1);
}
